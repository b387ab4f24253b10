//! The `api-version` that a request names.

/// Names that stand for a version (Azure OpenAI, "API version lifecycle").
const NAMES: [&[u8]; 3] = [b"latest", b"preview", b"v1"];

/// What follows the date of a version that is not stable.
const PREVIEW: &[u8] = b"-preview";

/// A version in one of Azure's forms: a date, alone or with `-preview`, or a name. Nothing else is
/// one, so that what is told of a request holds no key that was put there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiVersion<'a>(&'a [u8]);

impl<'a> ApiVersion<'a> {
    /// Reads the parameter's value.
    #[must_use]
    pub fn read(value: &'a [u8]) -> Option<Self> {
        let dated = || is_date(value.strip_suffix(PREVIEW).unwrap_or(value));
        (NAMES.contains(&value) || dated()).then_some(Self(value))
    }

    /// As it was written.
    #[must_use]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Whether it is dated, and no earlier than the first of its kind.
    #[must_use]
    pub fn is_since(self, stable: &str, preview: &str) -> bool {
        let first = if self.0.ends_with(PREVIEW) {
            preview
        } else {
            stable
        };
        self.0.first().is_some_and(u8::is_ascii_digit) && self.0 >= first.as_bytes()
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
            let version = ApiVersion::read(text.as_bytes());
            assert_eq!(version.map(ApiVersion::as_bytes), Some(text.as_bytes()));
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
            "Preview",
            "0123456789abcdef0123456789abcdef",
        ] {
            assert_eq!(ApiVersion::read(text.as_bytes()), None, "{text}");
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
            let version = ApiVersion::read(text.as_bytes());
            let since = version.map(|version| version.is_since("2024-10-21", "2024-09-01-preview"));
            assert_eq!(since, Some(expected), "{text}");
        }
    }
}
