//! The `api-version` that a request names.

/// Names that stand for a version (Azure OpenAI, "API version lifecycle").
const NAMES: [&[u8]; 3] = [b"latest", b"preview", b"v1"];

/// What follows the date of a version that is not stable.
const PREVIEW: &[u8] = b"-preview";

/// Longest version: a date with [`PREVIEW`].
const MAX_LENGTH: usize = "yyyy-mm-dd-preview".len();

/// A version in one of Azure's forms: a date, alone or with `-preview`, or a name. Nothing else is
/// one, so that what is told of a request holds no key that was put there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiVersion {
    text: [u8; MAX_LENGTH],
    length: usize,
}

impl ApiVersion {
    /// Reads the parameter's value, in any case.
    #[must_use]
    pub fn read(value: impl IntoIterator<Item = u8>) -> Option<Self> {
        let mut version = Self {
            text: [0; MAX_LENGTH],
            length: 0,
        };
        for byte in value {
            *version.text.get_mut(version.length)? = byte.to_ascii_lowercase();
            version.length = version.length.saturating_add(1);
        }
        let text = version.as_bytes();
        let is_dated = || is_date(text.strip_suffix(PREVIEW).unwrap_or(text));
        (NAMES.contains(&text) || is_dated()).then_some(version)
    }

    /// In small letters.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.text.get(..self.length).unwrap_or_default()
    }

    /// Whether it is dated, and no earlier than the first of its kind.
    #[must_use]
    pub fn is_since(self, stable: &str, preview: &str) -> bool {
        let text = self.as_bytes();
        let first = if text.ends_with(PREVIEW) {
            preview
        } else {
            stable
        };
        text.first().is_some_and(u8::is_ascii_digit) && text >= first.as_bytes()
    }
}

fn is_date(text: &[u8]) -> bool {
    const LENGTH: usize = "yyyy-mm-dd".len();
    let fits = |(at, byte): (usize, &u8)| match at {
        4 | 7 => *byte == b'-',
        _ => byte.is_ascii_digit(),
    };
    text.len() == LENGTH && text.iter().enumerate().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_date_or_a_name() {
        for text in [
            "2024-10-21",
            "2025-04-01-preview",
            "preview",
            "latest",
            "v1",
        ] {
            for written in [text.to_owned(), text.to_uppercase()] {
                let version = ApiVersion::read(written.bytes()).unwrap();
                assert_eq!(version.as_bytes(), text.as_bytes());
            }
        }
        for text in [
            "",
            "-preview",
            "2024-10-2",
            "2024-10-211",
            "2024/10/21",
            "2024-10-21-beta",
            "2024-10-21-preview-preview",
            "20241021aa",
            "v2",
            "2024-10-21-previews",
            "0123456789abcdef0123456789abcdef",
        ] {
            assert_eq!(ApiVersion::read(text.bytes()), None, "{text}");
        }
    }

    #[test]
    fn stable_and_preview_versions_have_their_own_first() {
        for (text, expected) in [
            ("2024-10-21", true),
            ("2024-10-20", false),
            ("2024-09-01-preview", true),
            ("2024-08-31-preview", false),
            ("2024-09-30", false),
            ("latest", false),
            ("v1", false),
        ] {
            let version = ApiVersion::read(text.bytes());
            let since = version.map(|version| version.is_since("2024-10-21", "2024-09-01-preview"));
            assert_eq!(since, Some(expected), "{text}");
        }
    }
}
