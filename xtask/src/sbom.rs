//! `cargo xtask sbom`: what the command is made of, as CycloneDX 1.5, and the licences of all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::process;

/// The package of the command.
const COMMAND: &str = "onnxquant-cli";

/// How files with the words of a licence begin.
const LICENCE_FILES: [&str; 5] = ["license", "licence", "copying", "notice", "unlicense"];

#[derive(clap::Args)]
pub struct Args {
    /// Parts that only other targets have are left out.
    #[arg(long, value_name = "TRIPLE", default_value = "x86_64-unknown-linux-gnu")]
    target: String,
}

/// Prints it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let parts = Parts::of_command(&process::root(), &args.target)?;
    let time = process::time_of_commit(&process::root())?;
    print!("{}", text(&parts, time)?);
    Ok(())
}

/// The packages that are in the program, with what each of them needs.
pub struct Parts {
    packages: Vec<Package>,
    needs: BTreeMap<String, Vec<String>>,
    checksums: BTreeMap<(String, String), String>,
}

impl Parts {
    /// Those of the command for a target, by the lock file in `source`.
    pub fn of_command(source: &Path, target: &str) -> anyhow::Result<Self> {
        let mut cargo = process::cargo();
        cargo.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", target]).current_dir(source);
        let output = cargo.output().context("cannot start cargo")?;
        ensure!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
        let metadata: Metadata =
            serde_json::from_slice(&output.stdout).context("cargo does not tell the packages as it used to")?;
        let needs = reached(&metadata)?;
        let mut packages: Vec<Package> = metadata.packages.into_iter().filter(|p| needs.contains_key(&p.id)).collect();
        packages.sort_by(|a, b| (a.name.as_str(), &a.version).cmp(&(b.name.as_str(), &b.version)));
        let lock = source.join("Cargo.lock");
        let lock = std::fs::read_to_string(&lock).with_context(|| format!("cannot read `{}`", lock.display()))?;
        Ok(Self { packages, needs, checksums: checksums(&lock) })
    }

    /// The packages that need a newer compiler than the command says that it does, and which.
    pub fn beyond_rust_version(&self) -> Vec<String> {
        let own = self.packages.iter().find(|package| package.name == COMMAND);
        let own = own.and_then(|package| package.rust_version.as_deref()).map(numbers);
        let newer = |package: &&Package| package.rust_version.as_deref().map(numbers) > own;
        let said =
            |p: &Package| format!("{} {} needs Rust {}", p.name, p.version, p.rust_version.as_deref().unwrap_or("?"));
        self.packages.iter().filter(newer).map(said).collect()
    }

    /// The licences of all packages of others: which one, and the words that come with it.
    pub fn licences(&self) -> anyhow::Result<String> {
        let mut said = String::from("Licences of the packages that are in this program.\n");
        let mut by_text: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for package in self.packages.iter().filter(|package| package.source.is_some()) {
            let name = format!("{} {}", package.name, package.version);
            ensure!(package.license.is_some() || package.license_file.is_some(), "{name} has no licence");
            said += &format!("{name}: {}\n", package.license.as_deref().unwrap_or("see below"));
            let folder = package.manifest_path.parent().context("a manifest lies in a folder")?;
            for text in licence_files(folder)? {
                by_text.entry(text).or_default().push(name.clone());
            }
        }
        for (text, names) in by_text {
            said += &format!("\n{}\n{}\n\n{}\n", "-".repeat(80), names.join(", "), text.trim());
        }
        Ok(said)
    }
}

/// What `cargo metadata` prints, as far as it is read.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    license_file: Option<PathBuf>,
    /// The oldest compiler with which it is built, where it says so.
    rust_version: Option<String>,
    /// Absent of packages in this repository.
    source: Option<String>,
    manifest_path: PathBuf,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Needed>,
}

#[derive(Deserialize)]
struct Needed {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

/// Absent where it is linked; `dev` and `build` are the others.
#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

/// The numbers of a version.
fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

/// All packages that the command is linked with: by package, what it needs.
fn reached(metadata: &Metadata) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let nodes = &metadata.resolve.nodes;
    let by_id: BTreeMap<&String, &Node> = nodes.iter().map(|node| (&node.id, node)).collect();
    let root = metadata.packages.iter().find(|package| package.name == COMMAND);
    let mut open = vec![root.context("the command is no package here")?.id.clone()];
    let mut found = BTreeMap::new();
    while let Some(id) = open.pop() {
        if found.contains_key(&id) {
            continue;
        }
        let node = by_id.get(&id).with_context(|| format!("{id} is not in the graph"))?;
        let is_linked = |kinds: &[Kind]| kinds.iter().any(|kind| kind.kind.is_none());
        let needs: BTreeSet<String> =
            node.deps.iter().filter(|dep| is_linked(&dep.dep_kinds)).map(|dep| dep.pkg.clone()).collect();
        open.extend(needs.iter().cloned());
        found.insert(id, needs.into_iter().collect());
    }
    Ok(found)
}

/// The words of the licences in a package's folder.
fn licence_files(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list `{}`", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    paths.sort();
    let is_licence = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        path.is_file() && LICENCE_FILES.iter().any(|start| name.starts_with(start))
    };
    let read = |path: &PathBuf| {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).replace("\r\n", "\n"))
    };
    paths.iter().filter(|path| is_licence(path)).map(read).collect()
}

/// The checksums of a lock file, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let of_package = |entry: &str| {
        let field = |key: &str| {
            let line = entry.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""));
            line.map(|value| value.trim_end_matches('"').to_owned())
        };
        Some(((field("name")?, field("version")?), field("checksum")?))
    };
    lock.split("[[package]]").filter_map(of_package).collect()
}

/// The list as CycloneDX 1.5; `time` is that of the commit, in seconds since 1970.
pub fn text(parts: &Parts, time: u64) -> anyhow::Result<String> {
    let (own, others): (Vec<&Package>, Vec<&Package>) =
        parts.packages.iter().partition(|package| package.name == COMMAND);
    let mut root = parts.component(own.first().context("the command is among its parts")?);
    root["type"] = "application".into();
    root["name"] = "onnxquant".into();
    let timestamp = humantime::format_rfc3339(UNIX_EPOCH + Duration::from_secs(time)).to_string();
    let made = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "timestamp": timestamp, "component": root },
        "components": others.into_iter().map(|package| parts.component(package)).collect::<Vec<_>>(),
        "dependencies": parts.dependencies(),
    });
    Ok(serde_json::to_string_pretty(&made)? + "\n")
}

/// How a package is called in the list.
fn reference(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version)
}

impl Parts {
    fn component(&self, package: &Package) -> Value {
        let mut component = json!({
            "type": "library",
            "bom-ref": reference(package),
            "name": package.name,
            "version": package.version,
            "purl": reference(package),
            "scope": "required",
        });
        if let Some(licence) = &package.license {
            // `/` is an old way to say `OR`.
            component["licenses"] = json!([{ "expression": licence.replace('/', " OR ") }]);
        }
        if let Some(hash) = self.checksums.get(&(package.name.clone(), package.version.clone())) {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": hash }]);
        }
        component
    }

    fn dependencies(&self) -> Vec<Value> {
        let by_id: BTreeMap<&String, String> = self.packages.iter().map(|p| (&p.id, reference(p))).collect();
        let of_package = |package: &Package| {
            let mut on: Vec<&String> = self.needs[&package.id].iter().filter_map(|id| by_id.get(id)).collect();
            on.sort();
            json!({ "ref": reference(package), "dependsOn": on })
        };
        self.packages.iter().map(of_package).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_listed_once_with_licence_and_checksum() {
        let parts = Parts::of_command(&process::root(), "x86_64-unknown-linux-gnu").unwrap();
        let list: Value = serde_json::from_str(&text(&parts, 0).unwrap()).unwrap();
        let components = list["components"].as_array().unwrap();
        let names: BTreeSet<&str> = components.iter().filter_map(|part| part["bom-ref"].as_str()).collect();
        assert_eq!(names.len(), components.len());
        for part in components {
            let is_own = part["name"].as_str().is_some_and(|name| name.starts_with("onnxquant"));
            assert!(part["licenses"].is_array() && (is_own || part["hashes"].is_array()), "{part}");
        }
        let has = |name: &str| components.iter().any(|part| part["name"] == name);
        // What is linked, and neither what only builds nor what only tests need.
        assert_eq!(["tract-onnx", "clap", "cc", "proptest"].map(has), [true, true, false, false]);
        assert_eq!(list["metadata"]["timestamp"], "1970-01-01T00:00:00Z");
    }

    #[test]
    fn a_package_that_needs_a_newer_compiler_is_told() {
        let mut parts = Parts::of_command(&process::root(), "x86_64-unknown-linux-gnu").unwrap();
        assert_eq!(parts.beyond_rust_version(), Vec::<String>::new());
        parts.packages[0].rust_version = Some("1.100".to_owned());
        assert_eq!(parts.beyond_rust_version().len(), 1);
    }

    #[test]
    fn the_licences_of_all_parts_are_told() {
        let parts = Parts::of_command(&process::root(), "x86_64-unknown-linux-gnu").unwrap();
        let text = parts.licences().unwrap();
        assert!(text.contains("\ntract-onnx ") && text.contains("Permission is hereby granted"));
    }
}
