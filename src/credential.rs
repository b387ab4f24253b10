//! The credential of a request: exactly one bearer token, or none that counts.

/// What the `authorization` values of a request hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential<'a> {
    /// No bearer token: no header, an empty one, or another scheme.
    Absent,
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
            return bearer(value.trim_ascii()).map_or(Self::Absent, |token| Self::Bearer {
                token,
                repeated: false,
            });
        }
        let mut credential = Self::Absent;
        let mut other = false;
        let parts = values
            .iter()
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|part| !part.is_empty());
        for part in parts {
            match (bearer(part), credential) {
                (None, _) => other = true,
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
        if other && credential != Self::Absent {
            Self::Ambiguous
        } else {
            credential
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
            &["Bearert"],
            &["Basic YTpi"],
            &["Negotiate x"],
            &["Digest username=\"a\", realm=\"b\""],
            &["Bearer\tt"],
            &["t"],
        ] {
            assert_eq!(read(values), Credential::Absent, "{values:?}");
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
