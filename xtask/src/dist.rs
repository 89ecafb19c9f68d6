//! `cargo xtask dist`: the archives that people download.
//!
//! | archive | runs on | ONNX Runtime |
//! |---|---|---|
//! | `onnxquant-VERSION-TARGET.tar.gz` | Linux with glibc 2.28 or newer, as ONNX Runtime itself asks for | is loaded where it is found |
//! | `onnxquant-VERSION-TARGET-static.tar.gz` (`--static`) | any Linux, an empty root folder too | cannot be loaded: accuracy is simulated |
//! | `onnxquant-VERSION-….whl` (`--wheel`) | Python 3.9 and newer, with glibc 2.28 or, for targets with musl, musl 1.2 | that of Python |
//!
//! An archive holds the program, manual pages, completions, the licences of everything in it, a list of its parts
//! (CycloneDX) and README. Beside them lies `SHA256SUMS`. The same commit shall give the same bytes in any folder:
//! `--twice` checks it.

mod archive;
mod build;
mod check;
mod contents;
mod wheel;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use sha2::{Digest, Sha256};

use crate::process;
use build::Wanted;

/// The largest archive that people should have to download.
const MOST_BYTES: u64 = 25_000_000;

#[derive(clap::Args)]
pub struct Args {
    /// Which target, of which Rust's standard library must be installed; by default this machine's.
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,

    /// Link everything into the program, which then runs without any library on the machine and loads none.
    #[arg(long = "static")]
    is_static: bool,

    /// The wheel of the Python package instead.
    #[arg(long, conflicts_with = "is_static")]
    wheel: bool,

    /// Unpack what was made into an empty folder and run it there; of a static program with that folder as its root.
    #[arg(long)]
    check: bool,

    /// Build again from a copy in another folder, and compare the bytes.
    #[arg(long)]
    twice: bool,
}

/// Makes what is asked for in the folder `archives` of the target folder.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let wanted = Wanted::new(args.target.as_deref(), args.is_static, args.wheel)?;
    let make = if args.wheel { wheel::make } else { make };
    let made = process::target_folder()?;
    let archives = made.join("archives");
    std::fs::create_dir_all(&archives).with_context(|| format!("cannot make `{}`", archives.display()))?;
    let file = make(&wanted, &process::root(), &made, &archives)?;
    let bytes = std::fs::metadata(&file).with_context(|| format!("cannot read `{}`", file.display()))?.len();
    ensure!(bytes <= MOST_BYTES, "`{}` has {bytes} bytes, at most {MOST_BYTES} are allowed", file.display());
    println!("{}: {bytes} bytes, {}", file.display(), hash(&file)?);
    if args.check {
        if args.wheel { wheel::check(&file, &wanted)? } else { check::archive(&file, &wanted)? }
    }
    if args.twice {
        again(&wanted, &file, make)?;
    }
    sums(&archives)
}

/// Builds and packs one archive of the sources in `source`.
fn make(wanted: &Wanted, source: &Path, target_folder: &Path, archives: &Path) -> anyhow::Result<PathBuf> {
    let program = build::program(wanted, source, target_folder)?;
    let name = format!("onnxquant-{}-{}", env!("CARGO_PKG_VERSION"), wanted.label());
    let entries = contents::entries(wanted, source, &program)?;
    let file = archives.join(format!("{name}.tar.gz"));
    archive::write(&file, &name, &entries, process::time_of_commit(source)?)?;
    Ok(file)
}

/// Makes the file once more from a copy of the sources.
fn again(
    wanted: &Wanted,
    file: &Path,
    make: fn(&Wanted, &Path, &Path, &Path) -> anyhow::Result<PathBuf>,
) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("onnxquant-again-").tempdir().context("no folder can be made")?;
    let source = folder.path().join("another place");
    let changed = Command::new("git").args(["status", "--porcelain"]).current_dir(process::root()).output();
    let changed = changed.context("cannot start git")?.stdout;
    ensure!(changed.is_empty(), "commit first: the copy is of the last commit\n{}", String::from_utf8_lossy(&changed));
    process::run_quietly(Command::new("git").args(["clone", "--quiet"]).arg(process::root()).arg(&source))?;
    let other = make(wanted, &source, &folder.path().join("target"), folder.path())?;
    let (first, second) = (hash(file)?, hash(&other)?);
    ensure!(first == second, "`{}` is {first}, and {second} when it is built in another folder", file.display());
    println!("the same bytes when it is built in another folder");
    Ok(())
}

/// Writes the hashes of all archives, as `sha256sum --check` reads them.
fn sums(archives: &Path) -> anyhow::Result<()> {
    let is_archive = |name: &String| name.ends_with(".tar.gz") || name.ends_with(".whl");
    let mut lines = Vec::new();
    for name in contents::names_in(archives)?.into_iter().filter(is_archive) {
        lines.push(format!("{}  {name}\n", hash(&archives.join(&name))?));
    }
    let file = archives.join("SHA256SUMS");
    std::fs::write(&file, lines.concat()).with_context(|| format!("cannot write `{}`", file.display()))
}

fn hash(file: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read `{}`", file.display()))?;
    Ok(Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}
