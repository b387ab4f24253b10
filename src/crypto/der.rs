//! DER (X.690) as far as keys and signatures for the host need it: writing sequences of
//! unsigned integers. Written here because the crates that do it cost the module 40 KB.

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;

/// AlgorithmIdentifier of an RSA key: `rsaEncryption`, NULL (RFC 8017 appendix A.1).
const RSA_ALGORITHM: &[u8] = &[
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];
/// AlgorithmIdentifier of a P-256 key: `id-ecPublicKey`, `secp256r1` (RFC 5480 section 2.1.1).
const P256_ALGORITHM: &[u8] = &[
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
    0xce, 0x3d, 0x03, 0x01, 0x07,
];
/// AlgorithmIdentifier of a P-384 key: `id-ecPublicKey`, `secp384r1`.
const P384_ALGORITHM: &[u8] = &[
    0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04,
    0x00, 0x22,
];

/// SubjectPublicKeyInfo of an RSA key, from its big-endian modulus and exponent.
pub(super) fn rsa_spki(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    spki(RSA_ALGORITHM, &unsigned_pair(modulus, exponent))
}

/// SubjectPublicKeyInfo of a P-256 key, from its uncompressed point.
pub(super) fn p256_spki(point: &[u8]) -> Vec<u8> {
    spki(P256_ALGORITHM, point)
}

/// SubjectPublicKeyInfo of a P-384 key, from its uncompressed point.
pub(super) fn p384_spki(point: &[u8]) -> Vec<u8> {
    spki(P384_ALGORITHM, point)
}

/// A sequence of two unsigned big-endian integers: an RSA key (RFC 8017 appendix A.1.1), or an
/// ECDSA signature (RFC 3279 section 2.2.3).
pub(super) fn unsigned_pair(first: &[u8], second: &[u8]) -> Vec<u8> {
    element(SEQUENCE, &[unsigned(first), unsigned(second)].concat())
}

fn spki(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    // A bit string begins with the number of bits that do not count.
    let bits = element(BIT_STRING, &[&[0], key].concat());
    element(SEQUENCE, &[algorithm, &bits].concat())
}

/// An integer: no leading zeros, but one where the first bit would read as a sign.
fn unsigned(bytes: &[u8]) -> Vec<u8> {
    let start = bytes
        .iter()
        .position(|byte| *byte != 0)
        .unwrap_or(bytes.len());
    let bytes = bytes.get(start..).unwrap_or_default();
    let sign: &[u8] = if bytes.first().is_none_or(|byte| *byte >= 0x80) {
        &[0]
    } else {
        &[]
    };
    element(INTEGER, &[sign, bytes].concat())
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let size = content.len().to_be_bytes();
    let start = size
        .iter()
        .position(|byte| *byte != 0)
        .unwrap_or(size.len());
    let size = size.get(start..).unwrap_or_default();
    let mut bytes = vec![tag];
    if content.len() >= 0x80 {
        bytes.push(0x80 | u8::try_from(size.len()).unwrap_or(0));
    }
    if size.is_empty() {
        bytes.push(0);
    }
    bytes.extend_from_slice(size);
    bytes.extend_from_slice(content);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_minimal_and_unsigned() {
        for (bytes, expected) in [
            (&[][..], &[2, 1, 0][..]),
            (&[0, 0], &[2, 1, 0]),
            (&[0, 1], &[2, 1, 1]),
            (&[0x80], &[2, 2, 0, 0x80]),
            (&[0x7f, 0xff], &[2, 2, 0x7f, 0xff]),
        ] {
            assert_eq!(unsigned(bytes), expected);
        }
    }

    #[test]
    fn sizes_take_the_shortest_form() {
        assert_eq!(element(4, &[])[..2], [4, 0]);
        assert_eq!(element(4, &[0; 127])[..2], [4, 127]);
        assert_eq!(element(4, &[0; 128])[..3], [4, 0x81, 128]);
        assert_eq!(element(4, &[0; 256])[..4], [4, 0x82, 1, 0]);
    }
}
