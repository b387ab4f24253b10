//! Protocol buffers, as far as Envoy speaks them to a module: the fields of a message.
//!
//! <https://protobuf.dev/programming-guides/encoding/>

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    /// `int32`, `bool`, enumerations.
    Varint(u64),
    /// `double`, as bits.
    Fixed64(u64),
    /// `string`, `bytes`, messages.
    Bytes(&'a [u8]),
}

/// Reads every field of a message, in order, with its number. `None` when the bytes are not a
/// message.
#[must_use]
pub fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Field<'_>)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let (tag, rest) = read_varint(bytes)?;
        let (field, rest) = match tag & 7 {
            0 => read_varint(rest).map(|(value, rest)| (Field::Varint(value), rest))?,
            1 => {
                let (value, rest) = rest.split_first_chunk::<8>()?;
                (Field::Fixed64(u64::from_le_bytes(*value)), rest)
            }
            2 => {
                let (size, rest) = read_varint(rest)?;
                let (value, rest) = rest.split_at_checked(usize::try_from(size).ok()?)?;
                (Field::Bytes(value), rest)
            }
            _ => return None,
        };
        fields.push((tag >> 3, field));
        bytes = rest;
    }
    Some(fields)
}

/// Appends a field of bytes.
pub fn push_bytes(number: u8, value: &[u8], message: &mut Vec<u8>) {
    const LENGTH_DELIMITED: u8 = 2;
    message.push(number.wrapping_shl(3) | LENGTH_DELIMITED);
    let mut size = value.len();
    while size >= 0x80 {
        message.push(u8::try_from(size & 0x7f).unwrap_or(0) | 0x80);
        size >>= 7;
    }
    message.push(u8::try_from(size).unwrap_or(0));
    message.extend_from_slice(value);
}

fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (shift, byte) in (0..64).step_by(7).zip(bytes) {
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            let used = usize::try_from(shift / 7).ok()?.checked_add(1)?;
            return Some((value, bytes.get(used..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_order() {
        let message = b"\x08\x96\x01\x12\x03abc\x19\0\0\0\0\0\0\xf0\x3f\x12\0";
        assert_eq!(
            fields(message).unwrap(),
            [
                (1, Field::Varint(150)),
                (2, Field::Bytes(b"abc")),
                (3, Field::Fixed64(1_f64.to_bits())),
                (2, Field::Bytes(b"")),
            ]
        );
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for bytes in [
            &b"\x08"[..],
            b"\x12\x05abc",
            b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x19\0\0",
            b"\x0b",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert_eq!(fields(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn long_fields_are_read_back() {
        let mut message = Vec::new();
        push_bytes(4, &[7; 300], &mut message);
        assert_eq!(message[..3], [0x22, 0xac, 0x02]);
        assert_eq!(fields(&message), Some(vec![(4, Field::Bytes(&[7; 300]))]));
    }
}
