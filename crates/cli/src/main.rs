//! The command `onnxquant`.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::process::ExitCode;

use onnxquant_cli::guard::{self, Memory};
use onnxquant_cli::{Around, command, end_on_signals, is_trial};

#[global_allocator]
static MEMORY: Memory = Memory;

fn main() -> ExitCode {
    end_on_signals();
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if !is_trial(&args) {
        guard::install();
    }
    let program = std::env::current_exe().map(|path| vec![path.into()]).unwrap_or_default();
    let around = Around { program, ..Around::default() };
    command(args, &around).into()
}
