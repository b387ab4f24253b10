//! The messages of Envoy's `verify_signature` foreign function (Envoy,
//! `source/extensions/common/wasm/ext/verify_signature.proto`): four fields asked, two answered.

/// `VerifySignatureArguments`: 1 `hash_function`, 2 `public_key`, 3 `signature`, 4 `text`.
#[must_use]
pub fn encode_arguments(hash: &str, spki: &[u8], signature: &[u8], message: &[u8]) -> Vec<u8> {
    let fields = [hash.as_bytes(), spki, signature, message];
    let size = fields
        .iter()
        .map(|field| field.len())
        .fold(32, usize::saturating_add);
    let mut bytes = Vec::with_capacity(size);
    for (field, tag) in fields.iter().zip([0x0a_u8, 0x12, 0x1a, 0x22]) {
        bytes.push(tag);
        encode_varint(field.len(), &mut bytes);
        bytes.extend_from_slice(field);
    }
    bytes
}

/// `VerifySignatureResult`: 1 `result`, which is left out when it is false, 2 `error`. `None` when
/// the bytes are no such message.
#[must_use]
pub fn decode_result(mut bytes: &[u8]) -> Option<bool> {
    let mut result = false;
    while let Some((tag, rest)) = bytes.split_first() {
        let (value, rest) = decode_varint(rest)?;
        bytes = match tag {
            0x08 => {
                result = value == 1;
                rest
            }
            0x12 => rest.get(value..)?,
            _ => return None,
        };
    }
    Some(result)
}

fn encode_varint(mut value: usize, bytes: &mut Vec<u8>) {
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap_or(0));
}

fn decode_varint(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0_usize;
    for (position, byte) in bytes.iter().enumerate().take(4) {
        let shift = u32::try_from(position).ok()?.checked_mul(7)?;
        value |= usize::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(position.checked_add(1)?..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_protobuf() {
        let bytes = encode_arguments("sha256", &[7; 300], &[], b"m");
        assert_eq!(bytes[..8], *b"\x0a\x06sha256");
        assert_eq!(bytes[8..11], [0x12, 0xac, 0x02]);
        assert_eq!(bytes[311..], [0x1a, 0, 0x22, 1, b'm']);
    }

    #[test]
    fn only_a_clear_yes_is_a_yes() {
        assert_eq!(decode_result(&[0x08, 1]), Some(true));
        assert_eq!(decode_result(b"\x08\x01\x12\x03err"), Some(true));
        for no in [
            &[][..],
            &[0x08, 0],
            &[0x08, 2],
            b"\x12\x03err",
            &[0x08, 1, 0x08, 0],
        ] {
            assert_eq!(decode_result(no), Some(false), "{no:?}");
        }
        for garbage in [
            &[0x08][..],
            &[0x10, 1],
            b"\x12\x09err",
            &[0x08, 0xff, 0xff, 0xff, 0xff, 1],
        ] {
            assert_eq!(decode_result(garbage), None, "{garbage:?}");
        }
    }
}
