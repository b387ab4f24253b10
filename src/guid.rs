//! GUIDs: tenants, applications and objects of Entra ID.

use std::fmt;

/// A GUID in its 36-character form, compared without regard to letter case.
///
/// Anything else (braces, spaces, no hyphens) is not a GUID: identities are never guessed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guid(u128);

impl Guid {
    /// All zero, which nothing has for an id (RFC 9562 section 5.9).
    pub const NIL: Self = Self(0);

    /// Reads `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (first, rest) = group::<8>(text.as_bytes())?;
        let (second, rest) = group::<4>(rest.strip_prefix(b"-")?)?;
        let (third, rest) = group::<4>(rest.strip_prefix(b"-")?)?;
        let (fourth, rest) = group::<4>(rest.strip_prefix(b"-")?)?;
        let (fifth, rest) = group::<12>(rest.strip_prefix(b"-")?)?;
        // In halves: a module has no registers of 128 bits.
        let high = first << 32 | second << 16 | third;
        let low = fourth << 48 | fifth;
        let value = u128::from(high) << 64 | u128::from(low);
        rest.is_empty().then_some(Self(value))
    }

    /// The 36 characters. By hand: formatting 128-bit numbers costs a microsecond in a module.
    #[must_use]
    pub fn text(self) -> [u8; 36] {
        const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
        let mut text = [b'-'; 36];
        for (byte, place) in self.0.to_be_bytes().into_iter().zip(PLACES) {
            if let (Some(pair), Some(digits)) = (
                text.get_mut(place..).and_then(<[u8]>::first_chunk_mut::<2>),
                PAIRS.get(usize::from(byte)),
            ) {
                *pair = *digits;
            }
        }
        text
    }
}

/// Whether two texts are equal, or the same GUID in letters of another case.
#[must_use]
// Every request compares its audience, which is equal as a rule.
#[inline(always)]
pub fn same_text(one: &str, other: &str) -> bool {
    one == other || (one.len() == other.len() && same_guid(one, other))
}

#[cold]
#[inline(never)]
fn same_guid(one: &str, other: &str) -> bool {
    Guid::parse(one).is_some_and(|guid| Guid::parse(other) == Some(guid))
}

/// Reads so many digits from the front.
fn group<const DIGITS: usize>(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (digits, rest) = bytes.split_first_chunk::<DIGITS>()?;
    let mut value = 0;
    for byte in digits {
        let digit = VALUES.get(usize::from(*byte)).copied().unwrap_or(NO_DIGIT);
        if digit == NO_DIGIT {
            return None;
        }
        value = value << 4 | u64::from(digit);
    }
    Some((value, rest))
}

const NO_DIGIT: u8 = 0xff;

/// The digits of every byte, and what every byte is worth as a digit.
const PAIRS: [[u8; 2]; 256] = tables().0;
const VALUES: [u8; 256] = tables().1;

#[expect(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "computed while compiling, where a mistake does not compile"
)]
const fn tables() -> ([[u8; 2]; 256], [u8; 256]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let (mut pairs, mut values) = ([[0; 2]; 256], [NO_DIGIT; 256]);
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [DIGITS[byte >> 4], DIGITS[byte & 0x0f]];
        byte += 1;
    }
    let mut value = 0;
    while value < 16 {
        let digit = DIGITS[value];
        values[digit as usize] = value as u8;
        values[digit.to_ascii_uppercase() as usize] = value as u8;
        value += 1;
    }
    (pairs, values)
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
    fn tables_hold_the_digits_of_every_byte() {
        let (written, values) = tables();
        for byte in 0..=u8::MAX {
            let text = format!("{byte:02x}");
            assert_eq!(written.get(usize::from(byte)).unwrap(), text.as_bytes());
            let digit = char::from(byte)
                .to_digit(16)
                .map(|value| u8::try_from(value).unwrap());
            let value = *values.get(usize::from(byte)).unwrap();
            assert_eq!(value < 16, digit.is_some(), "{byte}");
            assert!(digit.is_none_or(|digit| digit == value), "{byte}");
        }
    }

    #[test]
    fn texts_are_the_same_as_texts_or_as_guids() {
        const ID: &str = "aaaaaaaa-0000-1111-2222-00000000000f";
        let other = ID.replace("00f", "00e");
        assert!(same_text(ID, ID));
        assert!(same_text("api://a", "api://a"));
        assert!(same_text(ID, &ID.to_uppercase()));
        assert!(same_text(&ID.to_uppercase(), ID));
        assert!(!same_text(ID, &other));
        assert!(!same_text("api://a", "api://A"));
        assert!(!same_text("api://a", "api://b"));
        assert!(!same_text(ID, "api://a"));
        assert!(!same_text("api://a", ID));
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
