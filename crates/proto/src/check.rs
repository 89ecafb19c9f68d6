//! Walks over encoded bytes before they are decoded.
//!
//! Problem: prost drops fields it does not know, and a few hostile bytes can ask it for
//! much memory. So the bytes are walked first, with the table of the schema's fields.
//!
//! Method: one pass, without recursion, that reads keys and lengths and skips payloads.
//!
//! Guarantee: when it succeeds, every field number is in the schema and has a wire type
//! that its type can have (repeated numbers packed or not), every length lies inside the
//! message that holds it, and nesting stays within what prost decodes. What is left for
//! prost to refuse is text that is not UTF-8.
//!
//! Memory: the walk adds up what the decoded messages take, elements of repeated fields
//! included, payloads that stay slices of the input not. The sum may be at most
//! [`BASE_BYTES`] + [`FACTOR`] x the bytes that are not such payloads. Vectors grow by
//! doubling, so decoding may for a moment take three times the sum.
//!
//! Cost: proportional to the number of fields, not to the size of the weights; integers
//! in `int32_data` and `int64_data` are counted, a few GB a second.

use crate::schema::{Field, Kind, Message};
use crate::wire::{Cursor, WireProblem, WireType, count_varints};

/// Levels of messages below the outermost; prost decodes no more.
const MAX_DEPTH: usize = 100;

/// Memory that any input may take.
const BASE_BYTES: usize = 64 << 20;

/// Memory per byte of input; the models of the ONNX backend tests need 3 to 19, an
/// attribute of one letter and one small number needs 33.
const FACTOR: usize = 32;

/// Memory of a `String` or `Vec` itself.
const HEADER_BYTES: usize = size_of::<Vec<u8>>();

/// Why an input was refused, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("in `{message}` at byte {offset}: {problem}")]
pub struct WireError {
    /// The message that the offending field is in.
    pub message: &'static str,
    /// Position in the input of the offending field.
    pub offset: usize,
    /// What is wrong with it.
    pub problem: WireProblem,
}

/// A message whose fields are being walked.
struct Frame {
    message: &'static Message,
    end: usize,
}

struct Walk<'a> {
    cursor: Cursor<'a>,
    stack: Vec<Frame>,
    n_input_bytes: usize,
    /// Of these, those that decoding does not copy.
    n_slice_bytes: usize,
    memory_bytes: usize,
}

/// Checks that `bytes` are one message of the given type.
pub(crate) fn check(bytes: &[u8], message: &'static Message) -> Result<usize, WireError> {
    let outermost = Frame { message, end: bytes.len() };
    let mut walk = Walk {
        cursor: Cursor::new(bytes),
        stack: vec![outermost],
        n_input_bytes: bytes.len(),
        n_slice_bytes: 0,
        memory_bytes: 0,
    };
    while let Some(&Frame { message, end }) = walk.stack.last() {
        let offset = walk.cursor.position();
        if offset == end {
            walk.stack.pop();
            continue;
        }
        walk.field(message, end).map_err(|problem| WireError { message: message.name, offset, problem })?;
    }
    let allowed = walk.check_memory();
    allowed.map_err(|problem| WireError { message: message.name, offset: 0, problem })?;
    Ok(walk.memory_bytes)
}

impl Walk<'_> {
    fn field(&mut self, message: &'static Message, end: usize) -> Result<(), WireProblem> {
        let (number, wire_type) = self.cursor.key(end)?;
        let field = message.field(number).ok_or(WireProblem::UnknownField { number })?;
        match wire_type {
            WireType::Length => self.payload(field, end),
            WireType::Varint if matches!(field.kind, Kind::Varint32 | Kind::Varint64) => {
                self.cursor.varint(end)?;
                self.add_elements(field, 1);
                Ok(())
            }
            WireType::Fixed32 if matches!(field.kind, Kind::Fixed32) => self.fixed(field, 4, end),
            WireType::Fixed64 if matches!(field.kind, Kind::Fixed64) => self.fixed(field, 8, end),
            _ => Err(wrong_wire_type(field, wire_type)),
        }
    }

    fn fixed(&mut self, field: &Field, n_bytes: usize, end: usize) -> Result<(), WireProblem> {
        self.cursor.take(n_bytes, end)?;
        self.add_elements(field, 1);
        Ok(())
    }

    fn payload(&mut self, field: &'static Field, end: usize) -> Result<(), WireProblem> {
        let payload = self.cursor.payload(end)?;
        match field.kind {
            Kind::Message(message) => self.enter(message, payload.len())?,
            Kind::Text | Kind::Bytes => {
                self.add_elements(field, 1);
                self.add_bytes(payload.len());
            }
            Kind::Slice => self.n_slice_bytes += payload.len(),
            Kind::Varint32 | Kind::Varint64 if field.repeated => {
                if payload.last().is_some_and(|&byte| byte >= 0x80) {
                    return Err(WireProblem::Truncated);
                }
                self.add_elements(field, count_varints(payload));
            }
            Kind::Fixed32 | Kind::Fixed64 if field.repeated => {
                if payload.len() % field.element_bytes() != 0 {
                    return Err(WireProblem::Truncated);
                }
                self.add_bytes(payload.len());
            }
            _ => return Err(wrong_wire_type(field, WireType::Length)),
        }
        Ok(())
    }

    /// Goes on with the fields of a submessage whose payload was just taken.
    fn enter(&mut self, message: &'static Message, n_bytes: usize) -> Result<(), WireProblem> {
        if self.stack.len() > MAX_DEPTH {
            return Err(WireProblem::TooDeep { limit: MAX_DEPTH });
        }
        self.add_bytes(message.struct_bytes);
        let end = self.cursor.position();
        self.cursor.rewind(n_bytes);
        self.stack.push(Frame { message, end });
        Ok(())
    }

    /// Single fields lie inside their message, which was counted already.
    fn add_elements(&mut self, field: &Field, n_elements: usize) {
        if field.repeated {
            self.add_bytes(n_elements.saturating_mul(field.element_bytes()));
        }
    }

    fn add_bytes(&mut self, n_bytes: usize) {
        self.memory_bytes = self.memory_bytes.saturating_add(n_bytes);
    }

    fn check_memory(&self) -> Result<(), WireProblem> {
        let n_copied_bytes = self.n_input_bytes.saturating_sub(self.n_slice_bytes);
        let limit = BASE_BYTES.saturating_add(n_copied_bytes.saturating_mul(FACTOR));
        if self.memory_bytes > limit {
            return Err(WireProblem::TooLarge { limit, input: self.n_input_bytes });
        }
        Ok(())
    }
}

impl Field {
    /// What one element of a repeated field takes, without what it points to.
    fn element_bytes(&self) -> usize {
        match self.kind {
            Kind::Varint32 | Kind::Fixed32 => 4,
            Kind::Varint64 | Kind::Fixed64 => 8,
            Kind::Text | Kind::Bytes | Kind::Slice => HEADER_BYTES,
            Kind::Message(message) => message.struct_bytes,
        }
    }
}

fn wrong_wire_type(field: &Field, found: WireType) -> WireProblem {
    WireProblem::WrongWireType { field: field.name, found: found.number() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prost::Message as _;

    use super::*;
    use crate::fields::MODEL_PROTO;
    use crate::onnx::ModelProto;

    /// For each message, the encoding of a model around its payload: the keys to write
    /// before it, outermost first.
    fn paths_from_model() -> BTreeMap<&'static str, (&'static Message, Vec<u32>)> {
        let mut found = BTreeMap::from([(MODEL_PROTO.name, (&MODEL_PROTO, vec![]))]);
        let mut pending = vec![(&MODEL_PROTO, vec![])];
        while let Some((message, path)) = pending.pop() {
            for field in message.fields {
                let Kind::Message(inner) = field.kind else { continue };
                let path = [&path[..], &[field.number]].concat();
                if found.insert(inner.name, (inner, path.clone())).is_none() {
                    pending.push((inner, path));
                }
            }
        }
        found
    }

    fn field_bytes(number: u32, wire_type: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        prost::encode_length_delimiter((number << 3 | u32::from(wire_type)) as usize, &mut bytes).unwrap();
        if wire_type == 2 {
            bytes.push(u8::try_from(payload.len()).unwrap());
        }
        bytes.extend(payload);
        bytes
    }

    fn sample(field: &Field) -> Vec<u8> {
        let (wire_type, payload): (_, &[u8]) = match field.kind {
            Kind::Varint32 | Kind::Varint64 => (0, &[3]),
            Kind::Fixed32 => (5, &[0, 0, 0x80, 0x3f]),
            Kind::Fixed64 => (1, &[0, 0, 0, 0, 0, 0, 0xf0, 0x3f]),
            Kind::Text | Kind::Bytes | Kind::Slice => (2, b"x"),
            Kind::Message(_) => (2, &[]),
        };
        field_bytes(field.number, wire_type, payload)
    }

    /// The table and the generated types come from the same schema, but by different code.
    #[test]
    fn every_field_of_every_message_is_kept_by_prost() {
        let mut n_fields = 0;
        for (message, path) in paths_from_model().values() {
            for field in message.fields {
                let around = |inner: Vec<u8>, number: &u32| field_bytes(*number, 2, &inner);
                let bytes = path.iter().rev().fold(sample(field), around);
                assert!(check(&bytes, &MODEL_PROTO).is_ok(), "{}.{}", message.name, field.name);
                let model = ModelProto::decode(bytes.as_slice()).unwrap();
                let again = ModelProto::decode(model.encode_to_vec().as_slice()).unwrap();
                // Only numbers may be packed anew.
                assert_eq!(again, model);
                let is_packed = model.encoded_len() != bytes.len();
                assert!(!is_packed || field.repeated, "{}.{} was lost", message.name, field.name);
                assert!(model.encoded_len() >= bytes.len(), "{}.{} was lost", message.name, field.name);
                n_fields += 1;
            }
        }
        assert_eq!(n_fields, 134);
    }

    #[test]
    fn numbers_absent_from_the_table_are_unknown_to_every_message() {
        for (message, path) in paths_from_model().values() {
            for number in (1..64).filter(|&number| message.field(number).is_none()) {
                let around = |inner: Vec<u8>, number: &u32| field_bytes(*number, 2, &inner);
                let bytes = path.iter().rev().fold(field_bytes(number, 0, &[1]), around);
                let error = check(&bytes, &MODEL_PROTO).unwrap_err();
                assert_eq!((error.message, error.problem), (message.name, WireProblem::UnknownField { number }));
            }
        }
    }
}
