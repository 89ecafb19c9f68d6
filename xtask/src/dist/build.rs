//! One program or library, as it is shipped.
//!
//! Dependencies are compiled once for all forms: what differs between them (the linker, what it links) is said for the last
//! crate alone. Paths of this machine are replaced in what the compiler writes, so that they are the same everywhere.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::process::{self, host, time_of_commit};
use crate::python::Python;

/// The oldest C library with which the programs work: that of ONNX Runtime's own packages.
pub(super) const GLIBC: &str = "2.28";

/// What is to be built.
pub(super) struct Wanted {
    target: String,
    is_static: bool,
    is_wheel: bool,
}

impl Wanted {
    /// For a target, by default this machine's.
    pub(super) fn new(target: Option<&str>, is_static: bool, is_wheel: bool) -> anyhow::Result<Self> {
        let target = target.map_or_else(host, |target| Ok(target.to_owned()))?;
        Ok(Self { is_static: is_static || (target.contains("-musl") && !is_wheel), target, is_wheel })
    }

    /// The target's triple.
    pub(super) fn target(&self) -> &str {
        &self.target
    }

    /// Whether no library of the machine is used.
    pub(super) fn is_static(&self) -> bool {
        self.is_static
    }

    /// Whether it is linked with an older C library than this machine's.
    pub(super) fn is_for_old_glibc(&self) -> bool {
        self.target.contains("-linux-gnu") && !self.is_static
    }

    /// Whether this machine runs it. A library needs the C library that Python has here.
    pub(super) fn runs_here(&self) -> anyhow::Result<bool> {
        if self.is_wheel {
            return Ok(!self.is_foreign()?);
        }
        let own = host()?;
        let architecture = |target: &str| target.split('-').next().map(str::to_owned);
        Ok(architecture(&own) == architecture(&self.target) && own.contains("linux") == self.target.contains("linux"))
    }

    /// Whether nothing on this machine compiles C for it; Zig does.
    pub(super) fn is_foreign(&self) -> anyhow::Result<bool> {
        Ok(host()? != self.target)
    }

    /// Cargo, with a compiler and a linker of C for the target.
    fn cargo(&self) -> anyhow::Result<Command> {
        if !self.is_foreign()? {
            return Ok(process::cargo());
        }
        let mut cargo = Command::new(zig_programs()?.join("cargo-zigbuild"));
        finds_zig(&mut cargo)?;
        Ok(cargo)
    }

    /// The target, with the version of its C library where the linker is told of it so.
    fn for_cargo(&self) -> anyhow::Result<String> {
        let old = self.is_foreign()? && self.is_for_old_glibc();
        Ok(if old { format!("{}.{GLIBC}", self.target) } else { self.target.clone() })
    }

    /// What tells its files from others.
    pub(super) fn label(&self) -> String {
        let is_said = self.is_static && !self.target.contains("-musl");
        format!("{}{}", self.target, if is_said { "-static" } else { "" })
    }

    /// What the compiler is told for every crate built from `source`.
    fn flags(&self, source: &Path, target_folder: &Path) -> anyhow::Result<String> {
        let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = cargo_home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
        let mut flags = vec![
            format!("--remap-path-prefix={}=/onnxquant", source.display()),
            format!("--remap-path-prefix={}=/target", target_folder.display()),
            format!("--remap-path-prefix={}=/cargo", home.context("there is neither CARGO_HOME nor HOME")?.display()),
        ];
        if self.target.starts_with("x86_64") {
            // Every processor since 2009; faster code is chosen while the program runs.
            flags.push("-Ctarget-cpu=x86-64-v2".to_owned());
        }
        if self.is_wheel && self.target.contains("-musl") {
            // A library has the C library of the Python that loads it.
            flags.push("-Ctarget-feature=-crt-static".to_owned());
        }
        Ok(flags.join("\u{1f}"))
    }

    /// What it is told for the last one.
    pub(super) fn last_flags(&self, target_folder: &Path) -> anyhow::Result<Vec<String>> {
        if self.is_foreign()? {
            return Ok(Vec::new());
        }
        if self.is_for_old_glibc() {
            return Ok(vec![format!("-Clinker={}", zig_linker(&self.target, target_folder)?.display())]);
        }
        Ok(self.is_static.then(|| "-Ctarget-feature=+crt-static".to_owned()).into_iter().collect())
    }

    /// Sets what every crate is built with.
    pub(super) fn prepare(&self, command: &mut Command, source: &Path, target_folder: &Path) -> anyhow::Result<()> {
        command.current_dir(source).env("CARGO_ENCODED_RUSTFLAGS", self.flags(source, target_folder)?);
        command.env("SOURCE_DATE_EPOCH", time_of_commit(source)?.to_string());
        Ok(())
    }
}

/// The command's program, built from `source`.
pub(super) fn program(wanted: &Wanted, source: &Path, target_folder: &Path) -> anyhow::Result<PathBuf> {
    let mut cargo = wanted.cargo()?;
    wanted.prepare(&mut cargo, source, target_folder)?;
    cargo.args(["rustc", "--locked", "--profile", "dist", "--package", "onnxquant-cli", "--bin", "onnxquant"]);
    cargo.args(["--target", &wanted.for_cargo()?, "--target-dir"]).arg(target_folder);
    cargo.arg("--").args(wanted.last_flags(target_folder)?);
    process::run(&mut cargo)?;
    Ok(target_folder.join(wanted.target()).join("dist/onnxquant"))
}

/// A linker for the old C library: that of Zig, which has the symbols of all versions, behind cargo-zigbuild, which
/// translates rustc's options.
fn zig_linker(target: &str, target_folder: &Path) -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;

    let programs = zig_programs()?;
    let folder = target_folder.join("linkers");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    // Zig's triples have no vendor.
    let of_zig = target.replace("-unknown", "");
    let script = format!(
        "#!/bin/sh\nPATH='{0}':$PATH exec '{0}/cargo-zigbuild' zig cc -- -target {of_zig}.{GLIBC} \"$@\"\n",
        programs.display()
    );
    let file = folder.join(target);
    std::fs::write(&file, script).with_context(|| format!("cannot write `{}`", file.display()))?;
    let permissions = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&file, permissions).context("the linker cannot be made a program")?;
    Ok(file)
}

/// Lets a program find Zig.
pub(super) fn finds_zig(command: &mut Command) -> anyhow::Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(zig_programs()?).chain(std::env::split_paths(&path)));
    command.env("PATH", path.context("a folder of PATH has a colon in its name")?);
    Ok(())
}

/// The folder in which Zig and cargo-zigbuild are.
fn zig_programs() -> anyhow::Result<PathBuf> {
    let folder = Python::of_dist()?.path().parent().context("Python lies in a folder")?.to_owned();
    ensure!(folder.join("cargo-zigbuild").exists(), "`{}` has no cargo-zigbuild", folder.display());
    Ok(folder)
}
