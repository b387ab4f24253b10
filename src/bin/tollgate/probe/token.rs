//! The token of `--token-file`.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::failure::Failure;
use crate::input::name_of;

/// Largest token that the module reads, with room for `Bearer` and white space.
const MAX_FILE: u64 = 16 * 1024 + 64;

/// A good token. It has no `Debug` and no `Display`: it is sent, and never shown.
pub(crate) struct Token(String);

impl Token {
    /// Reads the file, each time anew: tokens last an hour, and who renews them replaces the file.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let name = name_of(path);
        let of_file = |error| Failure::of_file(&name, &error);
        let file = File::open(path).map_err(of_file)?;
        let mut bytes = Vec::new();
        let limit = MAX_FILE.saturating_add(1);
        file.take(limit).read_to_end(&mut bytes).map_err(of_file)?;
        if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_FILE) {
            return Err(Failure::new(format!("{name}: larger than a token")));
        }
        Self::parse(&bytes).ok_or_else(|| {
            let remedy = "write one token into it, with or without `Bearer`";
            Failure::with_remedy(format!("{name}: no token in it"), remedy)
        })
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?.trim();
        let token = match text.split_at_checked(6) {
            Some((scheme, rest))
                if scheme.eq_ignore_ascii_case("bearer")
                    && rest.chars().next().is_none_or(char::is_whitespace) =>
            {
                rest.trim_start()
            }
            _ => text,
        };
        let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        is_token.then(|| Self(token.to_owned()))
    }

    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_token_with_or_without_its_scheme() {
        for bytes in [
            &b"a.b.c"[..],
            b" a.b.c\r\n",
            b"Bearer a.b.c",
            b"bearer  a.b.c\n",
        ] {
            assert_eq!(Token::parse(bytes).unwrap().secret(), "a.b.c");
        }
        for bytes in [
            &b""[..],
            b" \n",
            b"Bearer ",
            b"a b",
            b"a\nb",
            b"\xff",
            b"a\0",
        ] {
            assert!(Token::parse(bytes).is_none(), "{bytes:?}");
        }
    }
}
