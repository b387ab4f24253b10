//! What looks like a secret. Callers put tokens and keys where none belong, and what they write there is told.

use std::borrow::Cow;

use crate::request::{Decoded, folded};

/// What stands in the log for what is not told.
pub const HIDDEN: &[u8] = b"...";

/// Most of a path that is looked at, in bytes: more than is told of it.
const MAX_PATH: usize = 2048;

/// A word that is as long is a token, if it begins like one: the text may have been cut before the dot.
const MAX_WORD: usize = 512;

/// The start of a path, up to what looks like a token or an API key, or is one by its name.
#[must_use]
pub fn hide<'a>(path: &'a [u8], names: &[String]) -> Cow<'a, [u8]> {
    let path = path.get(..MAX_PATH).unwrap_or(path);
    let bit = |byte: u8| 1_u32.rotate_left((folded(byte) % 32).into());
    let first = |name: &String| name.bytes().next().map_or(0, bit);
    let firsts = names.iter().map(first).fold(0, |all, bit| all | bit);
    let named = (0..path.len()).find_map(|at| {
        let rest = path.get(at..)?;
        if firsts & bit(Decoded(rest).next()?) == 0 {
            return None;
        }
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

/// Where the first token begins, or the first key if keys are looked for. Each byte is read once.
fn find(text: &[u8], keys: bool) -> Option<usize> {
    let mut rest = Decoded(text);
    let mut run = Run::at(0);
    loop {
        let byte = rest.next();
        let next = text.len().saturating_sub(rest.0.len());
        match byte {
            Some(byte) if is_word(&byte) => run.word.push(byte),
            Some(byte @ (b'.' | b'~')) => run.divide(byte, next, keys),
            _ => {
                let found = run.end(keys);
                if found.is_some() || byte.is_none() {
                    return found;
                }
                run = Run::at(next);
            }
        }
    }
}

/// Words with dots and tildes between, decoded.
struct Run {
    at: usize,
    /// Bytes before the word that is read.
    before: usize,
    /// `Q~` is in it.
    marked: bool,
    /// Where the first word begins that is a token or a key.
    found: Option<usize>,
    word: Word,
}

impl Run {
    fn at(at: usize) -> Self {
        Self {
            at,
            before: 0,
            marked: false,
            found: None,
            word: Word::at(at),
        }
    }

    /// A dot or a tilde, after which a word begins.
    fn divide(&mut self, by: u8, next: usize, keys: bool) {
        self.marked |= by == b'~' && self.word.last == b'Q';
        self.look(by == b'.', keys);
        self.before = self.length().saturating_add(1);
        self.word = Word::at(next);
    }

    /// Where in it the first token or key begins.
    fn end(mut self, keys: bool) -> Option<usize> {
        self.look(false, keys);
        // `...Q~...`: client secrets of Entra ID.
        let is_secret = keys && self.marked && self.length() >= 32;
        if is_secret { Some(self.at) } else { self.found }
    }

    fn look(&mut self, before_dot: bool, keys: bool) {
        if self.word.is_token(before_dot) || (keys && self.word.is_key()) {
            self.found.get_or_insert(self.word.at);
        }
    }

    fn length(&self) -> usize {
        self.before.saturating_add(self.word.length)
    }
}

/// Letters, digits, `-` and `_` that follow each other, decoded.
struct Word {
    at: usize,
    length: usize,
    /// How many of these are hexadecimal digits.
    hexadecimal: usize,
    /// How many are letters and digits.
    alphanumeric: usize,
    /// How it begins.
    first: [u8; 3],
    last: u8,
}

impl Word {
    fn at(at: usize) -> Self {
        Self {
            at,
            length: 0,
            hexadecimal: 0,
            alphanumeric: 0,
            first: [0; 3],
            last: 0,
        }
    }

    fn push(&mut self, byte: u8) {
        if let Some(first) = self.first.get_mut(self.length) {
            *first = byte;
        }
        self.last = byte;
        let count = |counter: &mut usize, counts: bool| {
            *counter = counter.saturating_add(counts.into());
        };
        count(&mut self.length, true);
        count(&mut self.hexadecimal, byte.is_ascii_hexdigit());
        count(&mut self.alphanumeric, byte.is_ascii_alphanumeric());
    }

    /// A word of base64url, ended by a dot, that stands for `{` and a quote or a space (RFC 7515 section 3.1). One that is
    /// longer than any header is taken for one without its dot.
    fn is_token(&self, before_dot: bool) -> bool {
        let is_header = self.length >= 8 && before_dot;
        matches!(self.first, [b'e', b'y' | b'w', _]) && (is_header || self.length >= MAX_WORD)
    }

    /// By the forms that keys have today: 32 hexadecimal digits (Azure AI services, API Management), 84 letters and
    /// digits (Azure AI services), `sk-...` (OpenAI).
    fn is_key(&self) -> bool {
        (self.length == 32 && self.hexadecimal == 32)
            || (self.length > 64 && self.alphanumeric == self.length)
            || (self.length >= 20 && self.first == *b"sk-")
    }
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

    #[test]
    fn names_that_begin_alike_are_all_found() {
        let names = ["api-key".to_owned(), "access".to_owned()];
        assert_eq!(*hide(b"/x;api-key=1", &names), *b"/x;api-key...");
        assert_eq!(*hide(b"/x;access=1", &names), *b"/x;access...");
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
    fn the_first_secret_of_several_is_found() {
        const KEY: &str = "5eed5eed0123456789abcdef5eed5eed";
        for (text, at) in [
            (format!("/a.{KEY}.eyJhbGci.x"), 3),
            (format!("/a.eyJhbGci.{KEY}"), 3),
            (format!("/a~{KEY}~{KEY}"), 3),
            (format!("/a.{KEY}.Q~b"), 1),
            (format!("/..{KEY}.Q~b"), 1),
            (format!("/aQ.~{KEY}"), 5),
            (format!("/a%41%2e{KEY}"), 8),
            (format!("/%65yJhbGci.{KEY}"), 1),
        ] {
            assert_eq!(find(text.as_bytes(), true), Some(at), "{text}");
        }
        assert_eq!(
            find(format!("/{KEY}.eyJhbGci.x").as_bytes(), false),
            Some(34)
        );
    }

    /// What begins a word at every byte of it, or reads one to its end, is looked at no longer than other text.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test of how long it takes")]
    fn no_text_takes_long() {
        for piece in ["~", ".", "a.", "%41", "%2e", "ey", "%", "eyJhbGci~", "Q~"] {
            let text = piece.repeat(2_000_000 / piece.len());
            let began = std::time::Instant::now();
            let found = holds_secret(text.as_bytes());
            assert_eq!(found, ["%41", "ey", "Q~"].contains(&piece), "{piece}");
            assert!(began.elapsed().as_secs() < 5, "{piece}");
        }
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
