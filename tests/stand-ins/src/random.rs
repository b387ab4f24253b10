//! Random identifiers, and GUIDs that follow from a name.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};

/// So many random bytes.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system gives random bytes");
    bytes
}

/// Random bytes in base64url, as Entra writes `uti` and `kid`.
pub fn text<const N: usize>() -> String {
    URL_SAFE_NO_PAD.encode(bytes::<N>())
}

/// A random GUID.
pub fn guid() -> String {
    format_guid(bytes())
}

/// The same GUID for the same name, every time.
pub fn guid_of(name: &str) -> String {
    let digest = digest::digest(&digest::SHA256, name.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_ref()[..16]);
    format_guid(bytes)
}

fn format_guid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// Whether this is a GUID in its usual spelling.
pub fn is_guid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guids_are_guids_and_differ() {
        let (one, two) = (guid(), guid());
        assert!(is_guid(&one), "{one}");
        assert_ne!(one, two);
        assert_eq!(guid_of("batch"), guid_of("batch"));
        assert_ne!(guid_of("batch"), guid_of("chat"));
        assert!(is_guid(&guid_of("batch")));
    }

    #[test]
    fn other_texts_are_no_guids() {
        for text in [
            "",
            "common",
            "11111111-2222-3333-4444-55555555555g",
            "https://a.example",
        ] {
            assert!(!is_guid(text), "{text}");
        }
    }
}
