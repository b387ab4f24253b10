//! The credential of a request: exactly one bearer token, or none that counts.

/// What the `authorization` values of a request hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential<'a> {
    /// No bearer token: no header, an empty one, or another scheme.
    Absent,
    /// A word without a scheme, which may be a token.
    NoScheme,
    /// One bearer token.
    Bearer {
        /// The token, not looked at yet.
        token: &'a [u8],
        /// It was sent more than once: Azure SDKs for .NET add the header again on a retry
        /// (azure-sdk-for-net#46109).
        repeated: bool,
    },
    /// A bearer token and another credential. Which of them the backend would take is unknown,
    /// so neither is taken here.
    Ambiguous,
}

impl<'a> Credential<'a> {
    /// The one bearer token that these values are, if they are one value and nothing else was looked for
    /// in it: what a cache of good tokens is asked for first, which no other credential is in.
    #[must_use]
    pub fn whole(values: &[&'a [u8]]) -> Option<&'a [u8]> {
        match values {
            [value] => bearer(value),
            _ => None,
        }
    }

    /// Reads all values of `authorization`. Envoy joins repeated headers with a comma, which no
    /// token contains (RFC 6750 section 2.1, `b64token`).
    #[must_use]
    pub fn read(values: &[&'a [u8]]) -> Self {
        if let [value] = values
            && !value.contains(&b',')
        {
            let value = value.trim_ascii();
            return match bearer(value) {
                Some(token) => Self::Bearer {
                    token,
                    repeated: false,
                },
                None if has_no_scheme(value) => Self::NoScheme,
                None => Self::Absent,
            };
        }
        let mut credential = Self::Absent;
        let (mut other, mut other_scheme) = (false, false);
        let parts = values
            .iter()
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|part| !part.is_empty());
        for part in parts {
            match (bearer(part), credential) {
                (None, _) => {
                    other = true;
                    other_scheme |= !has_no_scheme(part);
                }
                (Some(token), Self::Absent) => {
                    credential = Self::Bearer {
                        token,
                        repeated: false,
                    };
                }
                (Some(token), Self::Bearer { token: first, .. }) if first == token => {
                    credential = Self::Bearer {
                        token,
                        repeated: true,
                    };
                }
                (Some(_), _) => credential = Self::Ambiguous,
            }
        }
        match credential {
            Self::Bearer { .. } if other => Self::Ambiguous,
            Self::Absent if other && !other_scheme => Self::NoScheme,
            credential => credential,
        }
    }
}

/// The token after `Bearer` and spaces; the scheme's case does not matter (RFC 9110 section
/// 11.1). `None` for another scheme or no token.
fn bearer(part: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = part.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"bearer") || rest.first() != Some(&b' ') {
        return None;
    }
    let start = rest.iter().position(|byte| *byte != b' ')?;
    rest.get(start..)
}

/// Whether a value is one word, and not the scheme alone.
fn has_no_scheme(part: &[u8]) -> bool {
    !part.is_empty()
        && !part.eq_ignore_ascii_case(b"bearer")
        && !part.iter().any(u8::is_ascii_whitespace)
}

/// Whether this is the compact form of a JWS: three parts of base64url (RFC 7515 section 7.1), none of them empty.
#[must_use]
pub fn is_jwt(token: &[u8]) -> bool {
    let is_part = |part: &[u8]| {
        let is_base64url = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
        !part.is_empty() && part.iter().all(is_base64url)
    };
    let mut parts = token.split(|byte| *byte == b'.');
    let three = [parts.next(), parts.next(), parts.next()];
    three.iter().all(|part| part.is_some_and(is_part)) && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'a>(values: &[&'a str]) -> Credential<'a> {
        Credential::read(
            &values
                .iter()
                .map(|value| value.as_bytes())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn one_bearer_token_in_any_case() {
        for value in [
            "Bearer t",
            "bearer t",
            "BEARER t",
            "Bearer   t",
            " Bearer t ",
        ] {
            assert_eq!(
                read(&[value]),
                Credential::Bearer {
                    token: b"t",
                    repeated: false
                }
            );
        }
    }

    #[test]
    fn other_schemes_and_emptiness_are_no_token() {
        for values in [
            &[][..],
            &[""],
            &["Bearer"],
            &["Bearer "],
            &["Basic YTpi"],
            &["Negotiate x"],
            &["Digest username=\"a\", realm=\"b\""],
            &["Bearer\tt"],
            &["Basic YTpi", "t"],
        ] {
            assert_eq!(read(values), Credential::Absent, "{values:?}");
        }
    }

    #[test]
    fn j6_a_word_without_a_scheme_is_told_apart() {
        for values in [
            &["t"][..],
            &[" t "],
            &["Bearert"],
            &["eyJhbGci.e30.c2ln"],
            &["t", "t"],
        ] {
            assert_eq!(read(values), Credential::NoScheme, "{values:?}");
        }
    }

    #[test]
    fn c5_a_jwt_has_three_parts_of_base64url() {
        for token in ["a.b.c", "eyJhbGci.e30.c2ln-_"] {
            assert!(is_jwt(token.as_bytes()), "{token}");
        }
        for token in [
            "", "a", "a.b", "a.b.c.d", "a..c", ".b.c", "a.b.", "a.b.c=", "a.b.c d", "a.b.+",
        ] {
            assert!(!is_jwt(token.as_bytes()), "{token}");
        }
    }

    #[test]
    fn identical_repeats_collapse_and_different_ones_are_ambiguous() {
        for values in [
            &["Bearer t,Bearer t"][..],
            &["Bearer t", "bearer t"],
            &["Bearer t, Bearer t,"],
        ] {
            assert_eq!(
                read(values),
                Credential::Bearer {
                    token: b"t",
                    repeated: true
                }
            );
        }
        for values in [
            &["Bearer t,Bearer u"][..],
            &["Bearer t", "Bearer u"],
            &["Bearer t,u"],
            &["Bearer t, Basic YTpi"],
            &["Basic YTpi", "Bearer t"],
            &["Bearer t,Bearer u,Bearer t"],
        ] {
            assert_eq!(read(values), Credential::Ambiguous, "{values:?}");
        }
    }
}
