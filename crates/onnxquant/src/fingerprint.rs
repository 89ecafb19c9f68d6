//! Recognizes models and samples that were seen before.
//!
//! The step of 128-bit FNV-1a, on words of eight bytes instead of single ones: each part is hashed behind its length, word by
//! word, its last bytes that fill no word one by one; after every step the upper half goes into the lower one, to which a
//! product carries nothing. It tells things apart that differ by accident, which is what a cache needs; it is no
//! protection against a forger.

use onnxquant_calib::{CalibSet, Tensor};
use onnxquant_ir::Model;
use onnxquant_proto::{encode_model, give_back};

use crate::error::Error;

const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// A hash in the making.
struct Fingerprint(u128);

impl Fingerprint {
    fn new() -> Self {
        Self(BASIS)
    }

    fn part(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u128);
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.word(u128::from(u64::from_le_bytes(*word))));
        rest.iter().for_each(|byte| self.word(u128::from(*byte)));
    }

    fn word(&mut self, word: u128) {
        self.0 = (self.0 ^ word).wrapping_mul(PRIME);
        // The product moves differences up only.
        self.0 ^= self.0 >> 64;
    }

    fn finish(self) -> String {
        format!("{:032x}", self.0)
    }
}

/// Of bytes.
pub(crate) fn of_bytes(bytes: &[u8]) -> String {
    let mut hash = Fingerprint::new();
    hash.part(bytes);
    hash.finish()
}

/// Of numbers, bit by bit.
pub(crate) fn of_numbers(numbers: &[f32]) -> String {
    let mut hash = Fingerprint::new();
    hash.word(numbers.len() as u128);
    numbers.iter().for_each(|number| hash.word(u128::from(number.to_bits())));
    hash.finish()
}

/// Of everything in the model.
pub(crate) fn of_model(model: &Model) -> Result<String, Error> {
    let mut hash = Fingerprint::new();
    let rest = visit(model, |raw| hash.part(raw))?;
    hash.part(&rest);
    Ok(hash.finish())
}

/// The bytes that a model takes encoded, but for the lengths of its weights.
pub(crate) fn encoded_bytes(model: &Model) -> Result<u64, Error> {
    let mut bytes = 0;
    let rest = visit(model, |raw| bytes += raw.len() as u64)?;
    Ok(bytes + rest.len() as u64)
}

/// Shows the weights as they lie, for an encoded copy of all could be large; returns the rest of the model, encoded.
fn visit(model: &Model, mut see: impl FnMut(&[u8])) -> Result<Vec<u8>, Error> {
    let mut proto = model.to_proto();
    for tensor in proto.graph.iter_mut().flat_map(|graph| &mut graph.initializer) {
        if let Some(raw) = tensor.raw_data.take() {
            see(&raw);
            give_back(&raw);
        }
    }
    encode_model(&proto).map_err(|error| Error::Internal(error.to_string()))
}

/// Of the values of the samples `indices`, as the model gets them, and their order.
pub(crate) fn of_samples(data: &CalibSet, indices: &[usize]) -> Result<String, Error> {
    let mut hash = Fingerprint::new();
    for &index in indices {
        for (name, tensor) in data.load(index)? {
            hash.part(name.as_bytes());
            hash.part(format!("{:?} {:?}", tensor.element_type(), tensor.shape()).as_bytes());
            hash.part(&bytes(&tensor));
        }
    }
    Ok(hash.finish())
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    macro_rules! little_endian {
        ($array:expr) => {
            $array.iter().flat_map(|x| x.to_le_bytes()).collect()
        };
    }
    match tensor {
        Tensor::F32(array) => little_endian!(array),
        Tensor::F64(array) => little_endian!(array),
        Tensor::F16(array) => little_endian!(array),
        Tensor::I64(array) => little_endian!(array),
        Tensor::U64(array) => little_endian!(array),
        Tensor::I32(array) => little_endian!(array),
        Tensor::U32(array) => little_endian!(array),
        Tensor::I16(array) => little_endian!(array),
        Tensor::U16(array) => little_endian!(array),
        Tensor::I8(array) => little_endian!(array),
        Tensor::U8(array) => little_endian!(array),
        Tensor::Bool(array) => array.iter().map(|x| u8::from(*x)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parts: &[&[u8]]) -> String {
        let mut hash = Fingerprint::new();
        parts.iter().for_each(|part| hash.part(part));
        hash.finish()
    }

    #[test]
    fn every_bit_the_order_and_the_borders_of_parts_count() {
        let bytes: Vec<u8> = (0..37).collect();
        let mut seen = std::collections::HashSet::from([of(&[&bytes])]);
        for at in 0..bytes.len() * 8 {
            let mut other = bytes.clone();
            other[at / 8] ^= 1 << (at % 8);
            assert!(seen.insert(of(&[&other])), "bit {at}");
        }
        assert!(seen.insert(of(&[&bytes, &[]])));
        assert!(seen.insert(of(&[&bytes[..8], &bytes[8..]])) && seen.insert(of(&[&bytes[8..], &bytes[..8]])));
        assert_eq!(of(&[&bytes]), of(&[&bytes]));
    }
}
