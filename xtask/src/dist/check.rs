//! Whether an archive works: unpacked into an empty folder, on a shipped fixture.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use flate2::read::GzDecoder;
use tar::Archive;

use super::build::{GLIBC, Wanted};
use crate::process;

/// The fixture that is quantized.
const FIXTURE: &str = "fixtures/mnist_cnn";

/// What the image is called while it is tried.
const IMAGE: &str = "onnxquant-check";

/// Files without which an archive is not whole.
const NEEDED: [&str; 8] = [
    "onnxquant",
    "README.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "THIRD-PARTY-LICENSES.txt",
    "sbom.cdx.json",
    "man/onnxquant.1",
    "completions/onnxquant.bash",
];

/// Unpacks and runs it; a static program with the folder as its root, so that nothing else is there.
pub(super) fn archive(file: &Path, wanted: &Wanted) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("no temporary folder can be made")?;
    let opened = File::open(file).with_context(|| format!("cannot read `{}`", file.display()))?;
    Archive::new(GzDecoder::new(opened)).unpack(folder.path()).context("the archive cannot be unpacked")?;
    let root = folder.path().join(format!("onnxquant-{}-{}", env!("CARGO_PKG_VERSION"), wanted.label()));
    for name in NEEDED {
        ensure!(root.join(name).is_file(), "the archive has no `{name}`");
    }
    if wanted.is_for_old_glibc() {
        old_glibc_is_enough(&root.join("onnxquant"), GLIBC)?;
    }
    std::fs::create_dir(root.join("tmp")).context("the root gets a folder for temporary files")?;
    copy(&process::root().join(FIXTURE), &root)?;
    let is_foreign = !wanted.runs_here()?;
    let Some(mut command) = (if is_foreign { emulated(&root, wanted) } else { started(&root, wanted) }) else {
        let why =
            if is_foreign { "QEMU for its processor is not installed" } else { "no other root may be given here" };
        println!("not run: {why}");
        return Ok(());
    };
    command.args(["model.onnx", "out.onnx", "--calib", "calib"]).current_dir(&root).env_clear();
    // By which the command that changes the root is found.
    command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    process::run_quietly(&mut command)?;
    ensure!(root.join("out.onnx").is_file(), "the program wrote nothing");
    let place = match (is_foreign, wanted.is_static()) {
        (true, _) => "emulated",
        (false, true) => "with nothing but itself in its root",
        (false, false) => "on this machine",
    };
    println!("runs {place}");
    if wanted.is_static() && !is_foreign { image(&root) } else { Ok(()) }
}

/// A static program for another processor, by QEMU where that is installed.
fn emulated(root: &Path, wanted: &Wanted) -> Option<Command> {
    let processor = wanted.target().split('-').next().unwrap_or_default();
    let is_there = |qemu: &String| {
        Command::new(qemu).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    let qemu = ["", "-static"].map(|kind| format!("qemu-{processor}{kind}")).into_iter().find(is_there);
    qemu.filter(|_| wanted.is_static()).map(|qemu| {
        let mut command = Command::new(qemu);
        command.arg(root.join("onnxquant"));
        command
    })
}

/// Builds the image of `Containerfile` from the unpacked archive, where Buildah is installed, and runs the command in it.
fn image(root: &Path) -> anyhow::Result<()> {
    let buildah = |words: &[&str]| {
        let mut command = Command::new("buildah");
        // What needs neither a file system of its own nor a daemon.
        command.args(["--storage-driver", "vfs"]).args(words);
        command
    };
    if buildah(&["--version"]).stdout(Stdio::null()).status().is_err() {
        println!("no image made: Buildah is not installed");
        return Ok(());
    }
    let file = process::root().join("Containerfile");
    let build = ["build", "--quiet", "--isolation", "chroot", "--tag", IMAGE, "--file"];
    process::run_quietly(buildah(&build).arg(file).arg(root))?;
    let container = buildah(&["from", IMAGE]).output().context("cannot start buildah")?;
    let container = String::from_utf8_lossy(&container.stdout).trim().to_owned();
    let work = format!("{}:/work", root.display());
    let run = ["run", "--isolation", "chroot", "--volume", &work, &container, "--", "/usr/bin/onnxquant"];
    let ran = process::run_quietly(buildah(&run).args(["model.onnx", "image.onnx", "--calib", "calib"]));
    process::run_quietly(&mut buildah(&["rm", &container]))?;
    process::run_quietly(&mut buildah(&["rmi", IMAGE]))?;
    ran?;
    ensure!(root.join("image.onnx").is_file(), "the image's command wrote nothing");
    println!("runs in an image");
    Ok(())
}

/// The program without arguments; nothing where it may not be started as wanted.
fn started(root: &Path, wanted: &Wanted) -> Option<Command> {
    if !wanted.is_static() {
        return Some(Command::new(root.join("onnxquant")));
    }
    let ways: [&[&str]; 2] = [&["chroot"], &["unshare", "--map-root-user", "chroot"]];
    let command = |way: &[&str]| {
        let mut command = Command::new(way[0]);
        command.args(&way[1..]).arg(root).arg("/onnxquant");
        command
    };
    // To the usual root; so a program that fails in its own one is told, and not taken for what is not allowed.
    let works = |way: &[&str]| {
        let mut command = Command::new(way[0]);
        let status = command.args(&way[1..]).args(["/", "true"]).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    ways.into_iter().find(|way| works(way)).map(command)
}

/// Whether a program asks for no younger C library: the names of the versions that it needs are in its file.
pub(super) fn old_glibc_is_enough(program: &Path, oldest: &str) -> anyhow::Result<()> {
    let bytes = std::fs::read(program).with_context(|| format!("cannot read `{}`", program.display()))?;
    let newest = newest_glibc(&bytes).with_context(|| format!("`{}` names no C library", program.display()))?;
    ensure!(
        newest <= number(oldest),
        "`{}` needs glibc {}.{}, wanted is {oldest}",
        program.display(),
        newest.0,
        newest.1
    );
    println!("needs glibc {}.{}", newest.0, newest.1);
    Ok(())
}

fn newest_glibc(bytes: &[u8]) -> Option<(u32, u32)> {
    const MARK: &[u8] = b"GLIBC_";
    let starts = bytes.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK).map(|(at, _)| at);
    let version = |at: usize| {
        let rest = &bytes[at + MARK.len()..];
        let end = rest.iter().position(|byte| *byte != b'.' && !byte.is_ascii_digit())?;
        std::str::from_utf8(&rest[..end]).ok().filter(|text| text.starts_with("2.")).map(number)
    };
    starts.filter_map(version).max()
}

/// `2.28` or `2.2.5` as two numbers.
fn number(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let mut cp = Command::new("cp");
    process::run_quietly(cp.arg("-r").arg(from.join("model.onnx")).arg(from.join("calib")).arg(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_of_glibc_is_found() {
        assert_eq!(newest_glibc(b"\0GLIBC_2.2.5\0GLIBC_2.28\0GLIBC_2.9\0GLIBC_PRIVATE\0"), Some((2, 28)));
        assert_eq!(newest_glibc(b"GLIBC_PRIVATE\0"), None);
    }
}
