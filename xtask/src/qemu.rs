//! An emulator of processors that this machine does not have, Debian's `qemu-user`.
//!
//! Integer kernels differ by processor: with it files are measured as a machine without VNNI computes them. It is found
//! in the search path, installed where that is allowed, or unpacked under `target/`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::process;
use crate::python::Python;

/// A processor with AVX2, without AVX-512 and VNNI.
const PROCESSOR: [&str; 2] = ["-cpu", "Haswell"];
const NAME: &str = "qemu-x86_64";
/// Packages and programs in them; that of the second needs libraries which may not be there.
const PACKAGES: [(&str, &str); 2] =
    [("qemu-user-static", "usr/bin/qemu-x86_64-static"), ("qemu-user", "usr/bin/qemu-x86_64")];

/// A program that runs this machine's programs on another processor.
pub struct Qemu {
    path: PathBuf,
}

impl Qemu {
    /// Finds it or sets it up, and lets it start Python; `None` on machines whose programs it does not run.
    pub fn set_up(python: &Python) -> anyhow::Result<Option<Self>> {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            return Ok(None);
        }
        let folder = process::target_folder()?.join("qemu");
        let found = installed().or_else(|| unpacked(&folder));
        let path = match found {
            Some(path) => path,
            None => install(&folder)?,
        };
        process::run_quietly(Command::new(&path).args(PROCESSOR).arg(python.path()).args(["-c", "import onnxruntime"]))
            .context("the emulated processor cannot start Python with ONNX Runtime")?;
        Ok(Some(Self { path }))
    }

    /// The program.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn installed() -> Option<PathBuf> {
    [NAME, "qemu-x86_64-static"].into_iter().map(PathBuf::from).find(|path| works(path))
}

fn unpacked(folder: &Path) -> Option<PathBuf> {
    PACKAGES.map(|(_, program)| folder.join(program)).into_iter().find(|path| works(path))
}

fn works(program: &Path) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// As root by `apt-get install`, otherwise into `folder`.
fn install(folder: &Path) -> anyhow::Result<PathBuf> {
    eprintln!("setting up an emulator of processors: Debian's qemu-user");
    let asked = "install `qemu-x86_64` (Debian: qemu-user), which the tests need to compute as other processors do";
    let from_root = Command::new("apt-get").args(["install", "--yes", "--no-install-recommends", "qemu-user"]).output();
    let mut problems = Vec::new();
    match from_root {
        Ok(output) if output.status.success() => {
            if let Some(path) = installed() {
                return Ok(path);
            }
            problems.push("apt-get install: the program is not in the search path".to_owned());
        }
        Ok(output) => problems.push(format!("apt-get install: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => problems.push(format!("apt-get install: {error}")),
    }
    for (package, program) in PACKAGES {
        match unpack(folder, package) {
            Ok(()) if works(&folder.join(program)) => return Ok(folder.join(program)),
            Ok(()) => problems.push(format!("`{}` does not start", folder.join(program).display())),
            Err(error) => problems.push(format!("{package}: {error:#}")),
        }
    }
    bail!("{asked}; tried without success:\n  {}", problems.join("\n  "))
}

fn unpack(folder: &Path, package: &str) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
    process::run_quietly(Command::new("apt-get").args(["download", package]).current_dir(folder))?;
    let files = std::fs::read_dir(folder).with_context(|| format!("cannot list `{}`", folder.display()))?;
    let is_it = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with(&format!("{package}_")) && name.ends_with(".deb")
    };
    let archive = files.flatten().map(|entry| entry.path()).find(is_it).context("nothing was downloaded")?;
    process::run_quietly(Command::new("dpkg").arg("-x").arg(&archive).arg(folder))
}
