//! Starting other programs, and where things lie.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, ensure};

/// The repository.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("xtask lies in the repository").to_owned()
}

/// Where cargo builds: this program lies in its folder `release`.
pub fn target_folder() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let folder = program.ancestors().nth(2).context("this program lies in no target folder")?;
    Ok(folder.to_owned())
}

/// The cargo that started this program.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    as_from_a_shell(cargo.current_dir(root()));
    cargo
}

/// The command as it is built for tests.
pub fn onnxquant() -> anyhow::Result<PathBuf> {
    Ok(target_folder()?.join("release").join(format!("onnxquant{}", std::env::consts::EXE_SUFFIX)))
}

/// Builds it.
pub fn built_onnxquant() -> anyhow::Result<PathBuf> {
    run(cargo().args(["build", "--release", "--workspace", "--locked", "--bin", "onnxquant"]))?;
    onnxquant()
}

/// Runs it to its end, whether a goal is missed or not.
pub fn run_onnxquant(command: &mut Command) -> anyhow::Result<Output> {
    let found = command.output().with_context(|| format!("cannot start {command:?}"))?;
    // 1 says that a goal was missed.
    let is_done = matches!(found.status.code(), Some(0 | 1));
    ensure!(is_done, "{command:?} failed: {}", String::from_utf8_lossy(&found.stderr));
    Ok(found)
}

/// Takes away what cargo told this program of itself: build scripts that look at it (that of `ring`) would run again, and
/// all that stands on them, whenever a build by this program follows one from a shell.
pub fn as_from_a_shell(command: &mut Command) {
    let is_of_package = |name: &str| ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|start| name.starts_with(start));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_of_package)) {
        command.env_remove(name);
    }
}

/// The cargo of a nightly compiler.
pub fn nightly() -> Command {
    // The variable `CARGO` names the compiler that built this program.
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root()).env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN").arg("+nightly");
    cargo
}

/// The machine for which the compiler builds, as rustc names it.
pub fn host() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot start rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    line.map(str::to_owned).context("rustc does not tell its host")
}

/// Runs a program to its end; its output goes where ours goes.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}

/// The same, but its output is shown only if it fails.
pub fn run_quietly(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(
        output.status.success(),
        "{command:?} failed: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    Ok(())
}

/// When the commit was made, in seconds since 1970: the time of everything that is made of it.
pub fn time_of_commit(source: &Path) -> anyhow::Result<u64> {
    let output = Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(source).output();
    let output = output.context("cannot start git")?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    text.parse().with_context(|| format!("`{}` is no clone with a commit", source.display()))
}
