//! Reads every `.onnx` file of a folder and writes it to another folder.
//!
//!     cargo run --release -p onnxquant-proto --example roundtrip -- IN_DIR OUT_DIR
//!
//! Files that cannot be read are reported and skipped; the last line counts them.

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};

use onnxquant_proto::{encode_to_writer, read_model};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(from), Some(to)) = (arguments.next(), arguments.next()) else {
        return Err("usage: roundtrip IN_DIR OUT_DIR".into());
    };
    std::fs::create_dir_all(&to)?;
    let (mut n_written, mut n_refused) = (0, 0);
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "onnx") {
            continue;
        }
        match copy(&path, &to) {
            Ok(()) => n_written += 1,
            Err(error) => {
                n_refused += 1;
                println!("{}", chain(error.as_ref()));
            }
        }
    }
    println!("{n_written} written, {n_refused} refused");
    Ok(())
}

fn copy(path: &Path, folder: &Path) -> Result<(), Box<dyn Error>> {
    let model = read_model(path)?;
    let name = path.file_name().ok_or("a file without a name")?;
    encode_to_writer(&model, &mut File::create(folder.join(name))?)?;
    Ok(())
}

/// An error and its sources on one line.
fn chain(error: &dyn Error) -> String {
    let sources = std::iter::successors(error.source(), |&error| error.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}
