//! What looks like a secret. Callers put tokens and keys where none belong, and what they write there is told.

use std::borrow::Cow;

use crate::request::{Decoded, folded};

/// What stands in the log for what is not told.
pub const HIDDEN: &[u8] = b"...";

/// Most of a path that is looked at, in bytes: more than is told of it.
const MAX_PATH: usize = 2048;

/// Most of a word that is looked at: the header of a token, decoded, and more than any key.
const MAX_WORD: usize = 512;

/// The start of a path, up to what looks like a token or an API key, or is one by its name.
#[must_use]
pub fn hide<'a>(path: &'a [u8], names: &[String]) -> Cow<'a, [u8]> {
    let path = path.get(..MAX_PATH).unwrap_or(path);
    let named = (0..path.len()).find_map(|at| {
        let rest = path.get(at..)?;
        let name = names.iter().find(|name| starts_with_name(rest, name))?;
        Some((at, name.as_str()))
    });
    let secret = find(path, true).map(|at| (at, ""));
    let first = named.into_iter().chain(secret).min_by_key(|(at, _)| *at);
    match first.and_then(|(at, name)| Some((path.get(..at)?, name))) {
        None => Cow::Borrowed(path),
        Some((before, name)) => Cow::Owned([before, name.as_bytes(), HIDDEN].concat()),
    }
}

/// Whether there is something like a token in a text.
#[must_use]
pub fn holds_token(text: &[u8]) -> bool {
    find(text, false).is_some()
}

/// Whether there is something like a token or an API key in a text.
#[must_use]
pub fn holds_secret(text: &[u8]) -> bool {
    find(text, true).is_some()
}

/// Where the first token begins, or the first key if keys are looked for.
fn find(text: &[u8], keys: bool) -> Option<usize> {
    (0..text.len()).find(|at| {
        text.split_at_checked(*at).is_some_and(|(before, rest)| {
            if !starts_word(before, rest) {
                return false;
            }
            let word = Word::read(rest);
            word.is_token(rest) || (keys && word.is_key())
        })
    })
}

/// What a word is like, decoded.
#[derive(Default)]
struct Word {
    /// Its length, in letters, digits, `-` and `_`.
    length: usize,
    /// How many of these are hexadecimal digits.
    hexadecimal: usize,
    /// How many are letters and digits.
    alphanumeric: usize,
    /// A dot ends it.
    before_dot: bool,
    /// It begins as OpenAI's keys do.
    openai: bool,
    /// Its length with dots and tildes.
    whole: usize,
    /// `Q~` is in it.
    marked: bool,
}

impl Word {
    fn read(text: &[u8]) -> Self {
        const OPENAI: [u8; 3] = *b"sk-";
        let mut word = Self::default();
        let mut last = [0; 3];
        for byte in Decoded(text).take(MAX_WORD) {
            let ended = word.whole > word.length;
            if is_word(&byte) && !ended {
                word.length = word.length.saturating_add(1);
                word.hexadecimal = word
                    .hexadecimal
                    .saturating_add(byte.is_ascii_hexdigit().into());
                word.alphanumeric = word
                    .alphanumeric
                    .saturating_add(byte.is_ascii_alphanumeric().into());
            } else if matches!(byte, b'.' | b'~') || is_word(&byte) {
                word.before_dot |= !ended && byte == b'.';
            } else {
                break;
            }
            word.whole = word.whole.saturating_add(1);
            last = [last[1], last[2], byte];
            word.openai |= word.length == OPENAI.len() && last == OPENAI;
            word.marked |= last.ends_with(b"Q~");
        }
        word
    }

    /// A word of base64url, ended by a dot, that stands for `{` and a quote or a space (RFC 7515 section 3.1). One whose
    /// end is not looked for is taken for one.
    fn is_token(&self, text: &[u8]) -> bool {
        let is_header = self.length >= 8 && self.before_dot;
        matches!(text, [b'e', b'y' | b'w', ..]) && (is_header || self.length == MAX_WORD)
    }

    /// By the forms that keys have today: 32 hexadecimal digits (Azure AI services, API Management), 84 letters and
    /// digits (Azure AI services), `sk-...` (OpenAI), `...Q~...` (client secrets of Entra ID).
    fn is_key(&self) -> bool {
        (self.length == 32 && self.hexadecimal == 32)
            || (self.length > 64 && self.alphanumeric == self.length)
            || (self.length >= 20 && self.openai)
            || (self.whole >= 32 && self.marked)
    }
}

/// Whether a word starts here, and neither it nor an escape has started before.
fn starts_word(before: &[u8], rest: &[u8]) -> bool {
    let is_digit = u8::is_ascii_hexdigit;
    let in_escape = match (before, rest) {
        ([.., b'%'], [high, low, ..]) | ([.., b'%', high], [low, ..]) => {
            is_digit(high) && is_digit(low)
        }
        _ => false,
    };
    let follows_escape = matches!(before, [.., b'%', _, _]);
    !in_escape && (follows_escape || !before.last().is_some_and(is_word))
}

/// Letters, digits, `-` and `_`: base64url.
fn is_word(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_".contains(byte)
}

/// Whether text begins with a name, however that is written.
fn starts_with_name(text: &[u8], known: &str) -> bool {
    let mut text = Decoded(text).map(folded);
    known.bytes().all(|byte| text.next() == Some(folded(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_told_without_secrets() {
        let names = ["api-key".to_owned()];
        for (path, expected) in [
            ("/openai/v1/models", "/openai/v1/models"),
            ("/openai/a;b=c;d/e", "/openai/a;b=c;d/e"),
            (
                "/hey-assistant.v1/eyJhb/eyes",
                "/hey-assistant.v1/eyJhb/eyes",
            ),
            ("/a/eyJhbGci.eyJh.c2ln/b", "/a/..."),
            ("/a/ewogImFs.eyJh.c2ln/b", "/a/..."),
            ("/a/%eyJhbGci.eyJh.c2ln", "/a/%..."),
            ("/a/Bearer%20eyJhbGci%2EeyJh%2Ec2ln", "/a/Bearer%20..."),
            ("/a/Bearer eyJhbGci.x.y", "/a/Bearer ..."),
            ("/a;api-key=secret/b", "/a;api-key..."),
            ("/a;API%5Fkey=secret;c", "/a;api-key..."),
            ("/models%3Fapi-key=secret", "/models%3Fapi-key..."),
            ("/models&api-key%3Dsecret", "/models&api-key..."),
            ("/openai/api-key/secret", "/openai/api-key..."),
            ("/openai/%61pi-key:secret", "/openai/api-key..."),
            ("", ""),
        ] {
            let told = hide(path.as_bytes(), &names);
            assert_eq!(str::from_utf8(&told), Ok(expected), "{path}");
        }
    }

    /// A deployment's name has up to 64 letters and digits.
    #[test]
    fn a_name_is_no_key() {
        for (length, is_key) in [(63, false), (64, false), (65, true), (84, true)] {
            assert_eq!(
                holds_secret(&"d1z".repeat(28).as_bytes()[..length]),
                is_key,
                "{length}"
            );
        }
    }

    #[test]
    fn keys_are_told_by_their_form() {
        const HEX: &str = "5eed5eed0123456789abcdef5EED5EED";
        let long = "Ab3".repeat(28);
        let client_secret = format!("xYz8Q~{}", "a.B-c_D~1".repeat(4));
        for key in [HEX, &long, "sk-proj-0123456789abcdef", &client_secret] {
            for (before, after) in [
                ("", ""),
                ("/openai/", "/x"),
                ("a=", ";"),
                ("%3d", "%20"),
                ("a/", ",b"),
            ] {
                let text = format!("{before}{key}{after}");
                assert!(holds_secret(text.as_bytes()), "{text}");
                let told = hide(text.as_bytes(), &[]);
                assert_eq!(*told, *[before.as_bytes(), HIDDEN].concat(), "{text}");
            }
            let encoded = key
                .replace('d', "%64")
                .replace('A', "%41")
                .replace('Q', "%51");
            assert!(holds_secret(encoded.as_bytes()), "{encoded}");
            assert!(!holds_token(key.as_bytes()), "{key}");
        }
        for name in [
            "gpt-4o-mini-2024-07-18",
            "11111111-2222-3333-4444-555555555555",
            "file-7733bc35e32841e297a62a9ee50b3461",
            "resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b",
            "thread_abc123abc123abc123abc123",
            "task-sk-0123456789abcdef0123",
            "5eed5eed0123456789abcdef5eed5ee",
            "5eed5eed0123456789abcdef5eed5eed5",
            "sk-short",
            "/openai/deployments/a-deployment-of-a-team-with-a-long-name/chat/completions",
            "aQ~b",
        ] {
            assert!(!holds_secret(name.as_bytes()), "{name}");
            assert_eq!(*hide(name.as_bytes(), &[]), *name.as_bytes());
        }
    }

    #[test]
    fn tokens_are_told_by_how_they_begin() {
        for text in ["eyJhbGci.x", "a=ewogImFs.", "/eyJhbGci.eyJh.c2ln"] {
            assert!(holds_token(text.as_bytes()), "{text}");
            assert!(holds_secret(text.as_bytes()), "{text}");
        }
        for text in [
            "",
            "eyJhbGc.x",
            "eyJhbGci",
            "eyJhbGci/x.y",
            "eyJhbGci~x.y",
            "eyJhbGci~.y",
            "ey.x",
            "xyJhbGci.x",
        ] {
            assert!(!holds_token(text.as_bytes()), "{text}");
        }
        // Two words with a dot between are no key of their length.
        assert!(!holds_secret(b"5eed5eed01234567.89abcdef5eed5eed"));
    }

    #[test]
    fn a_long_header_of_a_token_is_one() {
        for length in [MAX_WORD - 1, MAX_WORD, MAX_WORD + 1, 2 * MAX_WORD] {
            let token = format!("/a/ey{}.x.y", "J-".repeat(length / 2));
            assert_eq!(*hide(token.as_bytes(), &[]), *b"/a/...", "{length}");
        }
    }

    #[test]
    fn a_long_path_is_read_in_its_beginning_only() {
        let path = [b"/zz".to_vec(), b"%41ex-".repeat(11_000)].concat();
        assert_eq!(hide(&path, &[]).len(), MAX_PATH);
        let path = [b"/".repeat(MAX_PATH - 10), b"eyJhbGci.eyJh.c2ln".to_vec()].concat();
        assert!(hide(&path, &[]).ends_with(b"/eyJhbGci.") || hide(&path, &[]).ends_with(HIDDEN));
    }
}
