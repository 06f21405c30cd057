//! Protobuf's wire format: fields as number and value, nothing copied.

/// A field's value as the wire tells it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum WireValue<'b> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'b [u8]),
    Fixed32(u32),
}

/// Walks over a message's fields.
pub(super) struct Reader<'b> {
    left: &'b [u8],
}

impl<'b> Reader<'b> {
    pub(super) fn new(message: &'b [u8]) -> Self {
        Self { left: message }
    }

    /// The next field; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, WireValue<'b>)>, String> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0);
        let number = number.ok_or_else(|| format!("field number {} is not one", tag >> 3))?;
        let value = match tag & 7 {
            0 => WireValue::Varint(self.varint()?),
            1 => WireValue::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = self.varint()?;
                let length = usize::try_from(length).ok().filter(|length| *length <= self.left.len());
                let length = length.ok_or_else(|| format!("field {number} is longer than its message"))?;
                let (bytes, left) = self.left.split_at(length);
                self.left = left;
                WireValue::Bytes(bytes)
            }
            5 => WireValue::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(format!("field {number} has the wire type {other}, which is not read")),
        };
        Ok(Some((number, value)))
    }

    /// A number without a tag, as in packed lists.
    pub(super) fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let Some((&byte, left)) = self.left.split_first() else {
                break;
            };
            self.left = left;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("a number is cut off or too long".to_owned())
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.left.is_empty()
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (bytes, left) = self.left.split_first_chunk().ok_or("a number is cut off")?;
        self.left = left;
        Ok(*bytes)
    }
}

/// Text as Go's JSON would show it: what is not UTF-8 becomes U+FFFD.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
