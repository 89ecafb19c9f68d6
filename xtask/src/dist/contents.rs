//! What is in an archive beside the program.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use super::archive::Entry;
use super::build::Wanted;
use crate::process;
use crate::sbom::{self, Parts};

/// Files of the repository that are in every archive.
const OWN: [&str; 3] = ["README.md", "LICENSE-APACHE", "LICENSE-MIT"];

/// Shells for which there are completions, and what their files are called.
const SHELLS: [(&str, &str); 3] = [("bash", "onnxquant.bash"), ("zsh", "_onnxquant"), ("fish", "onnxquant.fish")];

/// All files of the archive with `program`.
pub(super) fn entries(wanted: &Wanted, source: &Path, program: &Path) -> anyhow::Result<Vec<Entry>> {
    let parts = Parts::of_command(source, wanted.target())?;
    let file = |path: &str, bytes: Vec<u8>| Entry { path: path.to_owned(), bytes, is_program: false };
    let mut entries = vec![
        Entry { is_program: true, ..file("onnxquant", read(program)?) },
        file("THIRD-PARTY-LICENSES.txt", parts.licences()?.into_bytes()),
        file("sbom.cdx.json", sbom::text(&parts, process::time_of_commit(source)?)?.into_bytes()),
    ];
    for name in OWN {
        entries.push(file(name, read(&source.join(name))?));
    }
    // That of this machine says what that of another one says.
    let speaker = if wanted.runs_here()? { program.to_owned() } else { process::built_onnxquant()? };
    for (shell, name) in SHELLS {
        let script = output(Command::new(&speaker).args(["completions", shell]))?;
        entries.push(file(&format!("completions/{name}"), script));
    }
    let folder = tempfile::tempdir().context("no temporary folder can be made")?;
    output(Command::new(&speaker).arg("man").arg(folder.path()))?;
    for name in names_in(folder.path())? {
        entries.push(file(&format!("man/{name}"), read(&folder.path().join(&name))?));
    }
    Ok(entries)
}

/// The names in a folder, sorted.
pub(super) fn names_in(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list `{}`", folder.display()))?;
    let name = |entry: std::io::Result<std::fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    let mut names = entries.map(name).collect::<anyhow::Result<Vec<String>>>()?;
    names.sort();
    Ok(names)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))
}

fn output(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}
