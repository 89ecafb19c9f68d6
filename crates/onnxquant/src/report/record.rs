//! How a run went, and the files that it was about.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use onnxquant_ir::{UnnamedModel, external_path};
use onnxquant_passes::cpu::Cpu;
use schemars::JsonSchema;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::Error;

/// Bytes of a file that are hashed at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// How a run went: what differs although model, samples and settings are the same.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RunRecord {
    /// The words of the command line, where there was one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// When it began, in UTC: `2026-11-26T21:45:00Z`.
    pub started: String,
    /// How long it took.
    pub seconds: f64,
    /// The same step by step.
    pub steps: Vec<Step>,
    /// The most memory that the process had, where the system tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// The machine.
    pub machine: Machine,
    /// What ran models, with versions.
    pub libraries: Vec<String>,
}

/// A step of a run.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Step {
    /// Which.
    pub step: String,
    /// How long it took.
    pub seconds: f64,
}

/// The machine of a run.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Machine {
    /// Class of its processor.
    pub cpu: Cpu,
    /// Architecture of its processor.
    pub architecture: &'static str,
    /// Its system.
    pub system: &'static str,
    /// Threads that worked.
    pub threads: usize,
}

/// The files that a run read and wrote.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FileRecords {
    /// The float model.
    pub input: FileRecord,
    /// The quantized model.
    pub output: FileRecord,
}

/// A file.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FileRecord {
    /// Its name, without folders.
    pub name: String,
    /// Its size, without those of files beside it.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
    /// The files beside it that hold its weights.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub external: Vec<FileRecord>,
}

impl FileRecord {
    /// Of a model that keeps weights in `external`.
    pub(crate) fn of(path: &Path, external: &[PathBuf]) -> Result<Self, Error> {
        let external = external.iter().map(|path| Self::of(path, &[])).collect::<Result<Vec<_>, Error>>()?;
        let mut file = File::open(path).map_err(|error| failed(path, &error))?;
        Ok(Self { external, ..Self::of_open(&mut file, path)? })
    }

    /// Of an open file that is, or will be, called `path`.
    fn of_open(file: &mut File, path: &Path) -> Result<Self, Error> {
        let (bytes, sha256) = file.rewind().and_then(|()| hash(file)).map_err(|error| failed(path, &error))?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(Self { name, bytes, sha256, external: Vec::new() })
    }

    /// Of a model that will be called `path`.
    pub(crate) fn of_unnamed(model: &mut UnnamedModel, path: &Path) -> Result<Self, Error> {
        let beside = model.weights().map(|file| Self::of_open(file, &external_path(path))).transpose()?;
        Ok(Self { external: beside.into_iter().collect(), ..Self::of_open(model.model(), path)? })
    }

    /// Its size and those of the files beside it.
    pub(crate) fn all_bytes(&self) -> u64 {
        self.bytes + self.external.iter().map(Self::all_bytes).sum::<u64>()
    }
}

fn failed(path: &Path, error: &io::Error) -> Error {
    Error::Hash { path: path.to_owned(), problem: error.to_string() }
}

/// Length and SHA-256.
fn hash(file: &mut File) -> io::Result<(u64, String)> {
    let (mut hash, mut bytes, mut chunk) = (Sha256::new(), 0, vec![0; CHUNK_BYTES]);
    loop {
        let read = file.read(&mut chunk)?;
        let Some(part) = chunk.get(..read).filter(|part| !part.is_empty()) else { break };
        hash.update(part);
        bytes += read as u64;
    }
    let digits = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((bytes, digits))
}

/// Measures a run.
#[derive(Debug)]
pub(crate) struct Clock {
    started: SystemTime,
    begun: Instant,
    step_begun: Instant,
    steps: Vec<Step>,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let now = Instant::now();
        Self { started: SystemTime::now(), begun: now, step_begun: now, steps: Vec::new() }
    }

    /// The step of this name is done.
    pub(crate) fn ends(&mut self, step: &str) {
        let seconds = self.step_begun.elapsed().as_secs_f64();
        self.steps.push(Step { step: step.to_owned(), seconds });
        self.step_begun = Instant::now();
    }

    /// The run is done; `libraries` ran models.
    pub(crate) fn record<'a>(self, libraries: impl Iterator<Item = &'a str>) -> RunRecord {
        let mut libraries: Vec<String> = libraries.map(str::to_owned).collect();
        libraries.dedup();
        RunRecord {
            command: Vec::new(),
            started: humantime::format_rfc3339_seconds(self.started.max(UNIX_EPOCH)).to_string(),
            seconds: self.begun.elapsed().as_secs_f64(),
            steps: self.steps,
            peak_memory_bytes: peak_memory_bytes(),
            machine: Machine {
                cpu: Cpu::native(),
                architecture: std::env::consts::ARCH,
                system: std::env::consts::OS,
                threads: rayon::current_num_threads(),
            },
            libraries,
        }
    }
}

/// What Linux says.
fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_the_hash_of_the_standard() {
        let folder = tempfile::tempdir().unwrap();
        let (model, weights) = (folder.path().join("m.onnx"), folder.path().join("m.data"));
        std::fs::write(&model, "abc").unwrap();
        std::fs::write(&weights, vec![b'a'; 1_000_000]).unwrap();
        let found = FileRecord::of(&model, &[weights]).unwrap();
        assert_eq!(found.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!((found.name.as_str(), found.bytes, found.external[0].bytes), ("m.onnx", 3, 1_000_000));
        let million = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
        assert_eq!(found.external[0].sha256, million);
        let missing = FileRecord::of(&folder.path().join("none"), &[]).unwrap_err().to_string();
        assert!(missing.contains("none"), "{missing}");
    }
}
