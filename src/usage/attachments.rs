//! Base64 data in a request: pictures, files and sound, which no model reads as text.

use super::text::Kept;

/// Longest name that matters.
const MAX_NAME: usize = "file_data".len();

/// Longest part of a `data:` URL before its data (RFC 2397): a media type with its parameters.
const MAX_TYPE: u32 = 256;

/// Data that no URL announces is taken for text where it is shorter: it may be an id.
const MIN_DATA: u64 = 64;

const SCHEME: &[u8] = b"data:";
const MARK: &[u8] = b";base64";

/// What holds the address of a picture or a file, which may be a `data:` URL. Under any other name a model may read it
/// as text: a refusal, the title of a tool's parameter, a suffix.
const ADDRESSES: [&[u8]; 3] = [b"file_url", b"image_url", b"url"];

/// What holds base64 without a `data:` URL: `input_audio.data` and `source.data`, pictures, files.
const PLAIN: [&[u8]; 3] = [b"b64_json", b"data", b"file_data"];

/// The base64 data of a request's body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attachments {
    /// How many pieces of it there are.
    pub count: u64,
    /// Their bytes in the body.
    pub bytes: u64,
}

/// Finds them among the names and texts of a body, cut anywhere.
#[derive(Clone, Debug)]
pub(super) struct AttachmentReader {
    name: Kept,
    /// The name has escapes.
    escaped: bool,
    kind: Kind,
    state: State,
    /// Bytes of the text that is being read.
    length: u64,
    found: Attachments,
}

/// What a member's name says of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Address,
    Plain,
    Text,
}

/// How far a text was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So much of `data:` was read.
    Scheme(usize),
    /// Before the comma. So much was read, and the end of it is that much of `;base64`.
    Type { read: u32, mark: usize },
    /// Base64, in a URL or not.
    Data { url: bool, escaped: bool },
    /// It is text.
    Text,
}

impl AttachmentReader {
    pub(super) fn new() -> Self {
        Self {
            name: Kept::up_to(MAX_NAME),
            escaped: false,
            kind: Kind::Text,
            state: State::Scheme(0),
            length: 0,
            found: Attachments::default(),
        }
    }

    pub(super) fn found(&self) -> Attachments {
        self.found
    }

    /// A part of a member's name, raw.
    pub(super) fn name(&mut self, part: &[u8], last: bool) {
        self.escaped |= part.contains(&b'\\');
        self.name.push(part);
        if last {
            self.kind = self.named();
            self.escaped = false;
            self.name.clear();
        }
    }

    fn named(&self) -> Kind {
        // Nobody needs escapes here but who has something to hide.
        let name = self.name.whole().filter(|_| !self.escaped);
        let is = |known: &&[u8]| name == Some(known);
        if ADDRESSES.iter().any(is) {
            Kind::Address
        } else if PLAIN.iter().any(is) {
            Kind::Plain
        } else {
            Kind::Text
        }
    }

    /// A part of a text, raw. `member`: it is a member's value, and no element of a list.
    pub(super) fn text(&mut self, part: &[u8], last: bool, member: bool) {
        if self.length == 0 && (!member || self.kind == Kind::Text) {
            self.state = State::Text;
        }
        self.length = self
            .length
            .saturating_add(u64::try_from(part.len()).unwrap_or(u64::MAX));
        if self.state != State::Text {
            for byte in part {
                self.state = self.then(*byte);
                if self.state == State::Text {
                    break;
                }
            }
        }
        if last {
            self.ends();
        }
    }

    fn then(&self, byte: u8) -> State {
        match self.state {
            State::Text => State::Text,
            State::Scheme(read) => {
                let expected = SCHEME.get(read).copied().unwrap_or_default();
                let next = read.saturating_add(1);
                match byte.to_ascii_lowercase() == expected {
                    true if next == SCHEME.len() => State::Type { read: 0, mark: 0 },
                    true => State::Scheme(next),
                    false if self.kind == Kind::Plain => data(false, false, byte),
                    false => State::Text,
                }
            }
            State::Type { read, mark } => match byte {
                b',' if mark == MARK.len() => State::Data {
                    url: true,
                    escaped: false,
                },
                b',' => State::Text,
                _ if read >= MAX_TYPE => State::Text,
                byte => {
                    let expected = MARK.get(mark).copied();
                    let mark = match byte.to_ascii_lowercase() {
                        byte if Some(byte) == expected => mark.saturating_add(1),
                        b';' => 1,
                        _ => 0,
                    };
                    let read = read.saturating_add(1);
                    State::Type { read, mark }
                }
            },
            State::Data { url, escaped } => data(url, escaped, byte),
        }
    }

    fn ends(&mut self) {
        let length = std::mem::take(&mut self.length);
        let is_data = match self.state {
            State::Data { url, escaped } => !escaped && (url || length >= MIN_DATA),
            State::Scheme(_) | State::Type { .. } | State::Text => false,
        };
        if is_data {
            self.found.count = self.found.count.saturating_add(1);
            self.found.bytes = self.found.bytes.saturating_add(length);
        }
        self.state = State::Scheme(0);
    }
}

/// Base64 with one more byte, in either alphabet (RFC 4648). JSON may escape its slashes and line ends.
fn data(url: bool, escaped: bool, byte: u8) -> State {
    let goes_on = match byte {
        b'\\' => !escaped,
        b'/' => true,
        byte if escaped => matches!(byte, b'n' | b'r'),
        byte => byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'_' | b'='),
    };
    if goes_on {
        State::Data {
            url,
            escaped: byte == b'\\',
        }
    } else {
        State::Text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of one member: how much of its text is data, for every cut of it.
    fn found(name: &str, text: &str, member: bool) -> Attachments {
        let read = |cut: usize| {
            let mut reader = AttachmentReader::new();
            let (first, second) = name.as_bytes().split_at(cut.min(name.len()));
            reader.name(first, false);
            reader.name(second, true);
            let (first, second) = text.as_bytes().split_at(cut.min(text.len()));
            reader.text(first, false, member);
            reader.text(second, true, member);
            // And nothing of it stays for the next one.
            reader.name(b"other", true);
            reader.text(b"abcd", true, true);
            reader.found()
        };
        let whole = read(0);
        for cut in 0..=name.len().max(text.len()) {
            assert_eq!(read(cut), whole, "{name}: {text} at {cut}");
        }
        whole
    }

    #[test]
    fn l13_finds_data_where_it_is_no_text() {
        let long = "QUJDREVGR0g+/w==".repeat(8);
        for (name, text) in [
            ("url", "data:image/png;base64,QUJD".to_owned()),
            ("image_url", format!("data:image/jpeg;base64,{long}")),
            ("file_data", format!("data:application/pdf;base64,{long}")),
            ("file_data", long.clone()),
            ("data", long.clone()),
            ("b64_json", long.replace('/', "\\/")),
            ("data", long.replace("==", "\\n")),
            (
                "url",
                "DATA:text/plain;charset=utf-8;BASE64,QUJD".to_owned(),
            ),
            ("url", "data:;base64,".to_owned()),
            ("url", "data:;base64;base64,_-8=".to_owned()),
            ("file_url", format!("data:application/pdf;base64,{long}")),
        ] {
            let expected = Attachments {
                count: 1,
                bytes: u64::try_from(text.len()).unwrap(),
            };
            assert_eq!(found(name, &text, true), expected, "{name}: {text}");
        }
    }

    #[test]
    fn l13_what_a_model_reads_stays_text() {
        let long = "QUJDREVGR0g+/w==".repeat(8);
        let url = format!("data:image/png;base64,{long}");
        let half = |text: &str| text.chars().take(40).collect::<String>();
        for (name, text, member) in [
            ("content", url.clone(), true),
            ("Content", url.clone(), true),
            ("c\\u006fntent", url.clone(), true),
            ("text", url.clone(), true),
            ("input", url.clone(), true),
            ("prompt", url.clone(), true),
            ("refusal", url.clone(), true),
            ("title", url.clone(), true),
            ("suffix", url.clone(), true),
            ("URL", url.clone(), true),
            ("a_name_that_ends_with_image_url", url.clone(), true),
            ("", url.clone(), true),
            ("url", url.clone(), false),
            ("data", long.clone(), false),
            ("url", format!("see {url}"), true),
            ("url", format!("{url} and what it shows"), true),
            ("url", format!("{url}\\\\"), true),
            ("url", format!("{url}\\t"), true),
            ("url", format!("{url}\\"), true),
            ("url", url.replace(";base64", ""), true),
            ("url", url.replace("base64", "base32"), true),
            ("url", url.replace("base64,", "base64;x=1,"), true),
            ("url", format!("data:{};base64,QUJD", "x".repeat(300)), true),
            ("url", "https://example.com/a.png".to_owned(), true),
            ("url", long.clone(), true),
            ("url", "data:".to_owned(), true),
            ("data", half(&long), true),
            ("data", "words with spaces between them".repeat(9), true),
            ("url", String::new(), true),
        ] {
            let expected = Attachments::default();
            assert_eq!(found(name, &text, member), expected, "{name}: {text}");
        }
    }
}
