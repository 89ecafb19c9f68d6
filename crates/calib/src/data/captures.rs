//! Writes captured values to files that numpy reads.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::npy::write_npy;
use crate::error::CalibError;
use crate::tensor::Tensor;

/// Writes the floating-point tensors among `values` to an uncompressed `.npz` file as float32
/// arrays named `names`; other tensors are left out, and values listed twice written once.
pub fn write_captures(path: &Path, names: &[String], values: &[Tensor]) -> Result<(), CalibError> {
    let write = || -> std::io::Result<()> {
        let mut zip = ZipWriter::new(BufWriter::new(File::create(path)?));
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
        let mut written = HashSet::new();
        for (name, tensor) in names.iter().zip(values) {
            if let Some(array) = tensor.to_f32().filter(|_| written.insert(name)) {
                zip.start_file(format!("{name}.npy"), options)?;
                zip.write_all(&write_npy(&array))?;
            }
        }
        zip.finish()?.flush()
    };
    write().map_err(|source| CalibError::Io { path: path.into(), source })
}
