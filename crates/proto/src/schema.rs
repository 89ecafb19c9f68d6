//! What the generated field table is made of.

/// A message type of the schema.
pub(crate) struct Message {
    /// Dotted name, such as `TensorProto.Segment`.
    pub(crate) name: &'static str,
    /// What one decoded message takes, without what it points to.
    pub(crate) struct_bytes: usize,
    /// The fields, by ascending number.
    pub(crate) fields: &'static [Field],
}

/// A field of a message type.
pub(crate) struct Field {
    pub(crate) number: u32,
    pub(crate) name: &'static str,
    pub(crate) repeated: bool,
    pub(crate) kind: Kind,
}

/// How a field is written and what it takes once decoded.
pub(crate) enum Kind {
    /// An `int32` or an enum.
    Varint32,
    /// An `int64` or `uint64`.
    Varint64,
    /// A float.
    Fixed32,
    /// A double.
    Fixed64,
    /// A string, checked to be UTF-8.
    Text,
    /// Bytes that are copied.
    Bytes,
    /// Bytes that stay a slice of the input.
    Slice,
    /// A submessage.
    Message(&'static Message),
}

impl Message {
    /// The field of that number, if the schema has one.
    pub(crate) fn field(&self, number: u32) -> Option<&'static Field> {
        let index = self.fields.binary_search_by_key(&number, |field| field.number).ok()?;
        self.fields.get(index)
    }
}

impl Field {
    /// A field that is there once or not at all.
    pub(crate) const fn one(number: u32, name: &'static str, kind: Kind) -> Self {
        Self { number, name, repeated: false, kind }
    }

    /// A repeated field.
    pub(crate) const fn many(number: u32, name: &'static str, kind: Kind) -> Self {
        Self { number, name, repeated: true, kind }
    }
}
