//! GUIDs: tenants, applications and objects of Entra ID.

use std::fmt;

/// A GUID in its 36-character form, compared without regard to letter case.
///
/// Anything else (braces, spaces, no hyphens) is not a GUID: identities are never guessed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guid(u128);

impl Guid {
    /// Reads `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 36 {
            return None;
        }
        // In halves: a module has no registers of 128 bits.
        let mut halves = [0_u64; 2];
        let [high, low] = &mut halves;
        for (position, byte) in bytes.iter().enumerate() {
            if matches!(position, 8 | 13 | 18 | 23) {
                if *byte != b'-' {
                    return None;
                }
                continue;
            }
            let digit = match byte {
                b'0'..=b'9' => byte.wrapping_sub(b'0'),
                b'a'..=b'f' => byte.wrapping_sub(b'a').wrapping_add(10),
                b'A'..=b'F' => byte.wrapping_sub(b'A').wrapping_add(10),
                _ => return None,
            };
            let half = if position < 18 { &mut *high } else { &mut *low };
            *half = (*half << 4) | u64::from(digit);
        }
        Some(Self((u128::from(halves[0]) << 64) | u128::from(halves[1])))
    }
}

impl Guid {
    /// The 36 characters. By hand: formatting 128-bit numbers costs a microsecond in a module.
    #[must_use]
    pub fn text(self) -> [u8; 36] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |half: u8| {
            DIGITS
                .get(usize::from(half & 0x0f))
                .copied()
                .unwrap_or(b'-')
        };
        let mut text = [b'-'; 36];
        let mut places = text.iter_mut();
        for (index, byte) in self.0.to_be_bytes().into_iter().enumerate() {
            // A hyphen stands before these bytes.
            if matches!(index, 4 | 6 | 8 | 10) {
                places.next();
            }
            for half in [byte >> 4, byte] {
                if let Some(place) = places.next() {
                    *place = digit(half);
                }
            }
        }
        text
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(str::from_utf8(&self.text()).unwrap_or_default())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_cases_and_writes_lower_case() {
        let guid = Guid::parse("AAAAAAAA-0000-1111-2222-00000000000F").unwrap();
        assert_eq!(guid.to_string(), "aaaaaaaa-0000-1111-2222-00000000000f");
        assert_eq!(Guid::parse(&guid.to_string()), Some(guid));
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            "aaaaaaaa-0000-1111-2222-00000000000",
            "aaaaaaaa-0000-1111-2222-00000000000g",
            "{aaaaaaaa-0000-1111-2222-00000000000f}",
            " aaaaaaaa-0000-1111-2222-00000000000f",
            "aaaaaaaa00001111222200000000000faaaa",
            "aaaaaaaa-0000-1111-22220-0000000000f",
            "+aaaaaaa-0000-1111-2222-00000000000f",
            "ааaaaaaa-0000-1111-2222-0000000000",
        ] {
            assert_eq!(Guid::parse(text), None, "{text:?}");
        }
    }
}
