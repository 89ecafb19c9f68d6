//! Reads numpy's `.npz` archives (stored or deflated).
//!
//! An archive is a zip file of `.npy` files. Sizes are taken from the array's own header and
//! compared with the entry's, so that neither alone decides how much memory is used.

use std::io::{Cursor, ErrorKind, Read, Seek};

use zip::ZipArchive;
use zip::result::ZipError;

use super::npy::{Header, read_elements, read_header};
use crate::error::FormatError;
use crate::tensor::Tensor;

/// Arrays of an archive by name, in the archive's order.
pub type NamedTensors = Vec<(String, Tensor)>;

/// Largest amount of data that [`read_npz`] decodes.
const DEFAULT_LIMIT_BYTES: u64 = 1 << 30;

/// Reads all arrays of an archive in memory. Refuses archives of more than 1 GiB of data.
pub fn read_npz(bytes: &[u8]) -> Result<NamedTensors, FormatError> {
    read_arrays(Cursor::new(bytes), DEFAULT_LIMIT_BYTES, |_| true)
}

/// The headers of an archive's arrays, without their data.
pub(crate) fn read_headers<R: Read + Seek>(reader: R) -> Result<Vec<(String, Header)>, FormatError> {
    let mut archive = open(reader)?;
    let mut headers = Vec::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(zip_error)?;
        let name = array_name(entry.name());
        let header = read_header(&mut entry)?;
        header.check_size(entry.size().saturating_sub(header.data_offset), u64::MAX)?;
        headers.push((name, header));
    }
    Ok(headers)
}

/// The arrays whose names `wanted` accepts, together at most `limit` bytes.
pub(crate) fn read_arrays<R: Read + Seek>(
    reader: R,
    limit: u64,
    wanted: impl Fn(&str) -> bool,
) -> Result<NamedTensors, FormatError> {
    let mut archive = open(reader)?;
    let (mut arrays, mut left) = (Vec::new(), limit);
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(zip_error)?;
        let name = array_name(entry.name());
        if !wanted(&name) {
            continue;
        }
        let header = read_header(&mut entry)?;
        let size = header.check_size(entry.size().saturating_sub(header.data_offset), left)?;
        left -= size as u64;
        let tensor = read_elements(&mut entry, &header, size)?;
        // The checksum is compared when the end is reached.
        std::io::copy(&mut entry.take(1), &mut std::io::sink())?;
        arrays.push((name, tensor));
    }
    Ok(arrays)
}

fn open<R: Read + Seek>(reader: R) -> Result<ZipArchive<R>, FormatError> {
    ZipArchive::new(reader).map_err(zip_error)
}

/// An archive that ends early is damaged; else what cannot be read says why itself.
fn zip_error(error: ZipError) -> FormatError {
    match error {
        ZipError::Io(source) if source.kind() != ErrorKind::UnexpectedEof => source.into(),
        other => FormatError::Zip(other.to_string()),
    }
}

fn array_name(entry: &str) -> String {
    entry.strip_suffix(".npy").unwrap_or(entry).to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use ndarray::array;
    use zip::write::SimpleFileOptions;

    use super::*;
    use crate::data::npy::write_npy;

    fn npz(entries: &[(&str, Vec<u8>)], method: zip::CompressionMethod) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, data) in entries {
            zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
            zip.write_all(data).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    #[test]
    fn stored_and_deflated_archives_read_alike() {
        let a = array![[1.0_f32, 2.0], [3.0, 4.0]].into_dyn();
        for method in [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated] {
            let bytes = npz(&[("a.npy", write_npy(&a)), ("b.npy", write_npy(&a))], method);
            let arrays = read_npz(&bytes).unwrap();
            assert_eq!(arrays.len(), 2);
            assert_eq!(arrays[1], ("b".to_owned(), Tensor::F32(a.clone())));
            assert_eq!(read_headers(Cursor::new(&bytes)).unwrap()[0].1.shape, [2, 2]);
        }
    }

    #[test]
    fn damaged_archives_are_errors() {
        let a = array![1.0_f32, 2.0].into_dyn();
        let good = npz(&[("a.npy", write_npy(&a))], zip::CompressionMethod::Stored);
        for cut in 0..good.len() {
            assert!(read_npz(&good[..cut]).is_err(), "cut at {cut}");
        }
        let mut flipped = good.clone();
        let data = good.windows(4).position(|w| w == 2.0_f32.to_le_bytes()).unwrap();
        flipped[data] ^= 1;
        assert!(read_npz(&flipped).is_err(), "checksum");
    }

    #[test]
    fn no_single_damaged_byte_makes_the_reader_panic() {
        let a = array![[1.0_f32, 2.0], [3.0, 4.0]].into_dyn();
        let good = npz(&[("a.npy", write_npy(&a)), ("b.npy", write_npy(&a))], zip::CompressionMethod::Deflated);
        for position in 0..good.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff, good[position] ^ 0x20] {
                let mut bytes = good.clone();
                bytes[position] = value;
                // Either outcome is right; names are not covered by a checksum.
                let _ = read_npz(&bytes).map(|arrays| arrays.len());
            }
        }
    }

    #[test]
    fn arrays_over_the_limit_are_refused_before_reading() {
        let a = ndarray::ArrayD::<f32>::zeros(ndarray::IxDyn(&[1000]));
        let bytes = npz(&[("a.npy", write_npy(&a))], zip::CompressionMethod::Deflated);
        let error = read_arrays(Cursor::new(&bytes), 3999, |_| true).unwrap_err();
        assert!(matches!(error, FormatError::TooLarge { needed: 4000, limit: 3999 }), "{error}");
    }
}
