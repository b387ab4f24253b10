//! The messages of Envoy's `verify_signature` foreign function (Envoy,
//! `source/extensions/common/wasm/ext/verify_signature.proto`).

use crate::protobuf::{self, Field};

/// `VerifySignatureArguments`: 1 `hash_function`, 2 `public_key`, 3 `signature`, 4 `text`.
#[must_use]
pub fn encode_arguments(hash: &str, spki: &[u8], signature: &[u8], message: &[u8]) -> Vec<u8> {
    let values = [hash.as_bytes(), spki, signature, message];
    let size = values
        .iter()
        .map(|value| value.len())
        .fold(32, usize::saturating_add);
    let mut arguments = Vec::with_capacity(size);
    for (number, value) in (1..).zip(values) {
        protobuf::push_bytes(number, value, &mut arguments);
    }
    arguments
}

/// `VerifySignatureResult`: 1 `result`, which is left out when it is false, 2 `error`. `None` when
/// the bytes are no such message.
#[must_use]
pub fn decode_result(bytes: &[u8]) -> Option<bool> {
    let mut result = false;
    for field in protobuf::fields(bytes)? {
        match field {
            (1, Field::Varint(value)) => result = value == 1,
            (2, Field::Bytes(_)) => {}
            _ => return None,
        }
    }
    Some(result)
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
        for garbage in [&[0x08][..], &[0x10, 1], b"\x12\x09err", b"\x0a\x01x"] {
            assert_eq!(decode_result(garbage), None, "{garbage:?}");
        }
    }
}
