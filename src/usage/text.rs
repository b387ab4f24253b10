//! Short pieces of text, kept while they pass.

use std::borrow::Cow;

/// What stood somewhere, kept up to a bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    text: Vec<u8>,
    bound: usize,
    over: bool,
}

impl Kept {
    pub(super) fn up_to(bound: usize) -> Self {
        Self {
            text: Vec::new(),
            bound,
            over: false,
        }
    }

    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.over = false;
    }

    /// Starts again, with another bound.
    pub(super) fn clear_for(&mut self, bound: usize) {
        self.clear();
        self.bound = bound;
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let room = self.bound.saturating_sub(self.text.len());
        if bytes.len() > room {
            // What came before is forgotten too, so that the cut makes no difference.
            self.text.clear();
            self.over = true;
        } else if !self.over {
            self.text.extend_from_slice(bytes);
        }
    }

    /// All of it; `None` when it was longer than the bound.
    pub(super) fn whole(&self) -> Option<&[u8]> {
        (!self.over).then_some(self.text.as_slice())
    }
}

/// The text of a JSON string, from what stands between its quotes; `None` when that is no JSON
/// string.
pub(super) fn unescaped(raw: &[u8]) -> Option<Cow<'_, str>> {
    let plain = raw.iter().all(|byte| *byte != b'\\' && *byte >= b' ');
    if plain {
        return std::str::from_utf8(raw).ok().map(Cow::Borrowed);
    }
    let quoted = [b"\"", raw, b"\""].concat();
    serde_json::from_slice(&quoted).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_all_or_nothing() {
        let mut kept = Kept::up_to(4);
        kept.push(b"ab");
        kept.push(b"cd");
        assert_eq!(kept.whole(), Some(&b"abcd"[..]));
        kept.push(b"e");
        kept.push(b"");
        kept.push(b"f");
        assert_eq!(kept.whole(), None);
        assert!(kept.text.is_empty());
        kept.clear();
        assert_eq!(kept.whole(), Some(&b""[..]));
    }

    #[test]
    fn unescapes() {
        for (raw, text) in [
            (&b"usage"[..], Some("usage")),
            (br"\u0075sag\u0065", Some("usage")),
            (br#"a\"b\\"#, Some("a\"b\\")),
            (br"\ud83d\ude00", Some("\u{1f600}")),
            (br"\ud800", None),
            (br"\x", None),
            (br"\", None),
            (b"a\nb", None),
            (b"\xff", None),
        ] {
            assert_eq!(unescaped(raw).as_deref(), text, "{raw:?}");
        }
    }
}
