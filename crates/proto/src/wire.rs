//! Reads the protobuf wire format: keys, varints, lengths.

/// Why bytes are not protobuf, or not ONNX.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireProblem {
    /// The data end inside a key, number or length.
    #[error("the data end in the middle of a value")]
    Truncated,
    /// A varint of more than 64 bits.
    #[error("a number has more than 64 bits")]
    VarintTooLong,
    /// A length that runs past the end of what holds it.
    #[error("a field says it has {length} bytes, but only {left} are left")]
    PastEnd {
        /// The length read.
        length: u64,
        /// The bytes left in the enclosing message.
        left: usize,
    },
    /// A key that no writer of protobuf makes.
    #[error("{key} is not the key of a field")]
    BadKey {
        /// The key read.
        key: u64,
    },
    /// A field number that the schema lacks.
    #[error(
        "field number {number} is not in the ONNX schema up to IR version {}, and would be lost",
        crate::IR_VERSION
    )]
    UnknownField {
        /// The field number read.
        number: u32,
    },
    /// A field of the schema, written as another type.
    #[error("field `{field}` has wire type {found}, which is not that of its type")]
    WrongWireType {
        /// Name of the field.
        field: &'static str,
        /// The wire type read: 0 varint, 1 eight bytes, 2 length, 3 and 4 groups, 5 four bytes.
        found: u8,
    },
    /// Messages nested too deep.
    #[error("messages are nested deeper than {limit} levels")]
    TooDeep {
        /// The levels allowed.
        limit: usize,
    },
    /// Few bytes that decode to very much.
    #[error("decoding would take over {limit} bytes of memory, far too much for {input} bytes of input")]
    TooLarge {
        /// The memory allowed for this input.
        limit: usize,
        /// Length of the input.
        input: usize,
    },
}

/// How the value of a field is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WireType {
    Varint,
    Fixed64,
    Length,
    Group,
    Fixed32,
}

impl WireType {
    /// The number in the key; both group markers are 3.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Varint => 0,
            Self::Fixed64 => 1,
            Self::Length => 2,
            Self::Group => 3,
            Self::Fixed32 => 5,
        }
    }
}

/// A position in the input.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// Field number and wire type.
    pub(crate) fn key(&mut self, end: usize) -> Result<(u32, WireType), WireProblem> {
        let key = self.varint(end)?;
        let number = u32::try_from(key >> 3).ok().filter(|&number| number != 0 && number < 1 << 29);
        let wire_type = match key & 7 {
            0 => Some(WireType::Varint),
            1 => Some(WireType::Fixed64),
            2 => Some(WireType::Length),
            3 | 4 => Some(WireType::Group),
            5 => Some(WireType::Fixed32),
            _ => None,
        };
        number.zip(wire_type).ok_or(WireProblem::BadKey { key })
    }

    /// A number of up to ten bytes, seven bits each.
    pub(crate) fn varint(&mut self, end: usize) -> Result<u64, WireProblem> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1, end)?.first().ok_or(WireProblem::Truncated)?;
            if shift == 63 && byte > 1 {
                return Err(WireProblem::VarintTooLong);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireProblem::VarintTooLong)
    }

    /// A length and the bytes it announces.
    pub(crate) fn payload(&mut self, end: usize) -> Result<&'a [u8], WireProblem> {
        let length = self.varint(end)?;
        let left = end.saturating_sub(self.position);
        let past_end = WireProblem::PastEnd { length, left };
        let n_bytes = usize::try_from(length).ok().filter(|&n_bytes| n_bytes <= left);
        self.take(n_bytes.ok_or(past_end)?, end)
    }

    /// The next bytes, of which none may lie at or past `end`.
    pub(crate) fn take(&mut self, n_bytes: usize, end: usize) -> Result<&'a [u8], WireProblem> {
        let stop = self.position.checked_add(n_bytes).filter(|&stop| stop <= end);
        let stop = stop.ok_or(WireProblem::Truncated)?;
        let taken = self.bytes.get(self.position..stop).ok_or(WireProblem::Truncated)?;
        self.position = stop;
        Ok(taken)
    }

    /// Passes over a value.
    pub(crate) fn skip(&mut self, wire_type: WireType, end: usize) -> Result<(), WireProblem> {
        match wire_type {
            WireType::Varint => self.varint(end).map(drop),
            WireType::Fixed64 => self.take(8, end).map(drop),
            WireType::Length => self.payload(end).map(drop),
            WireType::Fixed32 => self.take(4, end).map(drop),
            WireType::Group => Err(WireProblem::Truncated),
        }
    }

    /// Goes back to an earlier position, the start of a payload just taken.
    pub(crate) fn rewind(&mut self, n_bytes: usize) {
        self.position = self.position.saturating_sub(n_bytes);
    }
}

/// How many varints a packed field holds, each ending with a byte below 0x80.
pub(crate) fn count_varints(packed: &[u8]) -> usize {
    packed.iter().filter(|&&byte| byte < 0x80).count()
}

/// The first value of a field of the outermost message that is written as a varint.
pub(crate) fn first_varint(bytes: &[u8], number: u32) -> Option<u64> {
    let mut cursor = Cursor::new(bytes);
    loop {
        let (found, wire_type) = cursor.key(bytes.len()).ok()?;
        if found == number && wire_type == WireType::Varint {
            return cursor.varint(bytes.len()).ok();
        }
        cursor.skip(wire_type, bytes.len()).ok()?;
    }
}
