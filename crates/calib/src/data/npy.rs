//! Reads numpy's `.npy` format, written for files from anywhere.
//!
//! Versions 1 to 3, C and Fortran order, either byte order. The size a header declares is
//! compared with the bytes that are there before anything is allocated for it. Structured,
//! complex, string and object types are refused.

use std::io::Read;

use half::f16;
use ndarray::{ArrayD, IxDyn, ShapeBuilder};

use crate::error::FormatError;
use crate::tensor::{ElementType, Tensor};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// numpy itself refuses to evaluate longer headers.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// numpy's own limit on the number of axes.
const MAX_RANK: usize = 64;

/// What the header of an array says.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Element type.
    pub element: ElementType,
    /// Shape.
    pub shape: Vec<usize>,
    pub(crate) big_endian: bool,
    pub(crate) fortran: bool,
    /// Bytes from the start of the file to the first element.
    pub(crate) data_offset: u64,
}

impl Header {
    /// Elements; `None` if the product overflows.
    pub(crate) fn count(&self) -> Option<usize> {
        self.shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d))
    }

    /// Checks that exactly `present` bytes hold the declared elements and that they are at
    /// most `limit`; returns their number.
    pub(crate) fn check_size(&self, present: u64, limit: u64) -> Result<usize, FormatError> {
        let declared = self.count().and_then(|n| n.checked_mul(self.element.bytes()));
        match declared.map(|n| (n, n as u64)) {
            Some((n, wide)) if wide == present && wide <= limit => Ok(n),
            Some((_, wide)) if wide == present => Err(FormatError::TooLarge { needed: wide, limit }),
            _ => Err(FormatError::Size {
                shape: self.shape.clone(),
                element: self.element,
                declared: declared.map_or("more than fits in memory".into(), |n| format!("{n} bytes")),
                present,
            }),
        }
    }
}

/// Reads the header and leaves `reader` at the first element.
pub(crate) fn read_header(reader: &mut impl Read) -> Result<Header, FormatError> {
    let mut start = [0_u8; 8];
    reader.read_exact(&mut start)?;
    let [magic @ .., major, minor] = start;
    if &magic != MAGIC {
        return Err(FormatError::Magic);
    }
    let (length, prefix_bytes) = read_header_length(reader, major, minor)?;
    if length > MAX_HEADER_BYTES {
        return Err(FormatError::Header("it is longer than 64 KiB"));
    }
    let mut text = vec![0_u8; length];
    reader.read_exact(&mut text)?;
    let text = std::str::from_utf8(&text).map_err(|_| FormatError::Header("it is not UTF-8"))?;
    let mut header = parse_dict(text)?;
    header.data_offset = (prefix_bytes + length) as u64;
    Ok(header)
}

fn read_header_length(reader: &mut impl Read, major: u8, minor: u8) -> Result<(usize, usize), FormatError> {
    match (major, minor) {
        (1, 0) => {
            let mut n = [0_u8; 2];
            reader.read_exact(&mut n)?;
            Ok((usize::from(u16::from_le_bytes(n)), 10))
        }
        (2 | 3, 0) => {
            let mut n = [0_u8; 4];
            reader.read_exact(&mut n)?;
            let n = usize::try_from(u32::from_le_bytes(n)).unwrap_or(usize::MAX);
            Ok((n, 12))
        }
        _ => Err(FormatError::Version(major, minor)),
    }
}

/// Parses `{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), }`.
fn parse_dict(text: &str) -> Result<Header, FormatError> {
    let mut rest = text.trim().strip_prefix('{').ok_or(FormatError::Header("it is not a dictionary"))?;
    let (mut descr, mut fortran, mut shape) = (None, None, None);
    loop {
        rest = rest.trim_start();
        if rest.starts_with('}') {
            break;
        }
        let (key, after) = quoted(rest)?;
        let value = after.trim_start().strip_prefix(':').ok_or(FormatError::Header("a colon is missing"))?;
        let value = value.trim_start();
        rest = match key {
            "descr" => {
                if !value.starts_with(['\'', '"']) {
                    return Err(FormatError::ElementType(value.chars().take(40).collect()));
                }
                let (text, after) = quoted(value)?;
                descr = Some(text);
                after
            }
            "fortran_order" => {
                let (flag, after) = boolean(value)?;
                fortran = Some(flag);
                after
            }
            "shape" => {
                let (dims, after) = tuple(value)?;
                shape = Some(dims);
                after
            }
            _ => return Err(FormatError::Header("it has an unknown key")),
        };
        rest = rest.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    let (big_endian, element) = parse_descr(descr.ok_or(FormatError::Header("`descr` is missing"))?)?;
    Ok(Header {
        element,
        shape: shape.ok_or(FormatError::Header("`shape` is missing"))?,
        big_endian,
        fortran: fortran.ok_or(FormatError::Header("`fortran_order` is missing"))?,
        data_offset: 0,
    })
}

fn quoted(text: &str) -> Result<(&str, &str), FormatError> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'));
    let quote = quote.ok_or(FormatError::Header("a quoted word is missing"))?;
    text[1..].split_once(quote).ok_or(FormatError::Header("a quotation mark is not closed"))
}

fn boolean(text: &str) -> Result<(bool, &str), FormatError> {
    if let Some(rest) = text.strip_prefix("False") {
        return Ok((false, rest));
    }
    text.strip_prefix("True")
        .map(|rest| (true, rest))
        .ok_or(FormatError::Header("`fortran_order` is neither True nor False"))
}

fn tuple(text: &str) -> Result<(Vec<usize>, &str), FormatError> {
    let malformed = || FormatError::Header("`shape` is not a tuple of non-negative integers");
    let (inside, rest) = text.strip_prefix('(').and_then(|t| t.split_once(')')).ok_or_else(malformed)?;
    let words = inside.split(',').map(str::trim).filter(|w| !w.is_empty());
    let dims =
        words.map(|w| w.trim_end_matches('L').parse().map_err(|_| malformed())).collect::<Result<Vec<usize>, _>>()?;
    if dims.len() > MAX_RANK {
        return Err(FormatError::Header("`shape` has more than 64 axes"));
    }
    Ok((dims, rest))
}

/// Byte order and element type of a numpy type string such as `<f4`.
fn parse_descr(descr: &str) -> Result<(bool, ElementType), FormatError> {
    let (big_endian, code) = match descr.strip_prefix(['<', '|', '=']) {
        Some(code) => (false, code),
        None => descr.strip_prefix('>').map_or((false, descr), |code| (true, code)),
    };
    let element = match code {
        "f4" => ElementType::F32,
        "f8" => ElementType::F64,
        "f2" => ElementType::F16,
        "i8" => ElementType::I64,
        "i4" => ElementType::I32,
        "i2" => ElementType::I16,
        "i1" => ElementType::I8,
        "u8" => ElementType::U64,
        "u4" => ElementType::U32,
        "u2" => ElementType::U16,
        "u1" => ElementType::U8,
        "b1" => ElementType::Bool,
        _ => return Err(FormatError::ElementType(descr.chars().take(40).collect())),
    };
    Ok((big_endian, element))
}

/// Reads the elements that follow a header; `bytes` is what [`Header::check_size`] returned.
pub(crate) fn read_elements(reader: &mut impl Read, header: &Header, bytes: usize) -> Result<Tensor, FormatError> {
    // The buffer grows with the data that really arrives, not with what was declared.
    let mut raw = Vec::with_capacity(bytes.min(1 << 20));
    reader.take(bytes as u64).read_to_end(&mut raw)?;
    if raw.len() != bytes {
        return Err(FormatError::Size {
            shape: header.shape.clone(),
            element: header.element,
            declared: format!("{bytes} bytes"),
            present: raw.len() as u64,
        });
    }
    decode(&raw, header.element, &header.shape, header.big_endian, header.fortran)
        .ok_or(FormatError::Header("the shape does not match the data"))
}

/// Elements in memory; `None` if their number does not fit the shape.
pub(crate) fn decode(
    raw: &[u8],
    element: ElementType,
    shape: &[usize],
    big_endian: bool,
    fortran: bool,
) -> Option<Tensor> {
    macro_rules! numbers {
        ($variant:ident, $t:ty) => {{
            let values = raw.chunks_exact(size_of::<$t>()).map(|c| {
                let bytes = c.try_into().expect("chunks_exact gives chunks of the type's size");
                if big_endian { <$t>::from_be_bytes(bytes) } else { <$t>::from_le_bytes(bytes) }
            });
            Tensor::$variant(arrange(values.collect(), shape, fortran)?)
        }};
    }
    Some(match element {
        ElementType::F32 => numbers!(F32, f32),
        ElementType::F64 => numbers!(F64, f64),
        ElementType::F16 => numbers!(F16, f16),
        ElementType::I64 => numbers!(I64, i64),
        ElementType::I32 => numbers!(I32, i32),
        ElementType::I16 => numbers!(I16, i16),
        ElementType::I8 => numbers!(I8, i8),
        ElementType::U64 => numbers!(U64, u64),
        ElementType::U32 => numbers!(U32, u32),
        ElementType::U16 => numbers!(U16, u16),
        ElementType::U8 => numbers!(U8, u8),
        ElementType::Bool => Tensor::Bool(arrange(raw.iter().map(|&b| b != 0).collect(), shape, fortran)?),
    })
}

fn arrange<T: Clone>(values: Vec<T>, shape: &[usize], fortran: bool) -> Option<ArrayD<T>> {
    let array = ArrayD::from_shape_vec(IxDyn(shape).set_f(fortran), values).ok()?;
    Some(if fortran { array.as_standard_layout().into_owned() } else { array })
}

/// Reads one array from the bytes of an `.npy` file of at most `limit` bytes of data.
pub fn read_npy(bytes: &[u8], limit: u64) -> Result<Tensor, FormatError> {
    let mut reader = bytes;
    let header = read_header(&mut reader)?;
    let size = header.check_size(reader.len() as u64, limit)?;
    read_elements(&mut reader, &header, size)
}

/// The bytes of an `.npy` file (version 1.0, little-endian, C order) for an array of floats.
pub(crate) fn write_npy(array: &ArrayD<f32>) -> Vec<u8> {
    let dims: Vec<String> = array.shape().iter().map(|d| format!("{d},")).collect();
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", dims.join(" "));
    while (10 + text.len() + 1) % 64 != 0 {
        text.push(' ');
    }
    text.push('\n');
    let length = u16::try_from(text.len()).expect("a shape of at most 64 axes fits in a version 1.0 header");
    let mut out = MAGIC.to_vec();
    out.extend([1, 0]);
    out.extend(length.to_le_bytes());
    out.extend(text.as_bytes());
    out.extend(array.iter().flat_map(|x| x.to_le_bytes()));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(header: &str, data: &[u8]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend([1, 0]);
        out.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
        out.extend(header.as_bytes());
        out.extend(data);
        out
    }

    #[test]
    fn written_array_is_read_back() {
        for shape in [vec![], vec![3], vec![2, 3], vec![1, 2, 1, 3]] {
            let n: usize = shape.iter().product();
            let values = (0..n).map(|i| i as f32 - 1.5).collect();
            let array = ArrayD::from_shape_vec(IxDyn(&shape), values).unwrap();
            assert_eq!(read_npy(&write_npy(&array), 1 << 20).unwrap(), Tensor::F32(array), "{shape:?}");
        }
    }

    #[test]
    fn fortran_order_and_big_endian_are_understood() {
        let data: Vec<u8> = [1_i16, 4, 2, 5, 3, 6].iter().flat_map(|x| x.to_be_bytes()).collect();
        let file = npy("{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }\n", &data);
        let expected = ndarray::array![[1_i16, 2, 3], [4, 5, 6]].into_dyn();
        assert_eq!(read_npy(&file, 100).unwrap(), Tensor::I16(expected));
    }

    #[test]
    fn hostile_headers_are_refused() {
        let rows: &[(&str, &[u8], &str)] = &[
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999, 99999999999999), }",
                &[0; 4],
                "more than fits",
            ),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000,), }", &[0; 4], "4000000000 bytes"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", &[0; 5], "holds 5 bytes"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", &[0; 4], "non-negative"),
            ("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", &[0; 4], "`|O`"),
            ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", &[0; 4], "cannot be fed"),
            ("{'descr': '<f4', 'shape': (1,), }", &[0; 4], "`fortran_order` is missing"),
            ("{'descr': '<f4", &[0; 4], "not closed"),
            ("((((((((", &[], "not a dictionary"),
            ("{'descr': '<f8', 'fortran_order': False, 'shape': (20,), }", &[0; 160], "the limit is 100"),
        ];
        for (header, data, expected) in rows {
            let message = read_npy(&npy(header, data), 100).unwrap_err().to_string();
            assert!(message.contains(expected), "{header}: {message}");
        }
        assert!(matches!(read_npy(b"PK\x03\x04....", 100), Err(FormatError::Magic)));
        assert!(read_npy(b"\x93NUM", 100).is_err());
    }
}
