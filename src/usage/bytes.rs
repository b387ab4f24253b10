//! Going through bytes, eight at a time where nothing is to be found.

/// A place in a piece of input.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    whole: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            whole: bytes.len(),
        }
    }

    /// Bytes taken so far.
    pub(super) fn taken(&self) -> usize {
        self.whole.saturating_sub(self.rest.len())
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    pub(super) fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// Takes so many bytes, or all there are.
    pub(super) fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .unwrap_or((self.rest, &[]));
        self.rest = rest;
        taken
    }

    /// Takes what stands before the first byte that is wanted, or everything.
    pub(super) fn take_until(&mut self, find: impl FnOnce(&[u8]) -> Option<usize>) -> &'a [u8] {
        self.take(find(self.rest).unwrap_or(usize::MAX))
    }

    /// What lies between this place and a later one, without its last `less` bytes.
    pub(super) fn up_to(&self, later: &Self, less: usize) -> &'a [u8] {
        let taken = later.taken().saturating_sub(self.taken());
        self.rest
            .get(..taken.saturating_sub(less))
            .unwrap_or_default()
    }

    pub(super) fn skip_whitespace(&mut self) {
        while self.peek().is_some_and(is_white_space) {
            self.next();
        }
    }
}

/// Whether JSON has it for white space (RFC 8259 section 2).
pub(crate) fn is_white_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

const fn spread(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// The high bit of each byte that is below `bound` (at most 0x80); above the first such byte there
/// may be false ones.
const fn below(word: u64, bound: u8) -> u64 {
    word.wrapping_sub(spread(bound)) & !word & HIGHS
}

/// The high bit of each byte that equals `byte`, as exact as [`below`].
const fn equal(word: u64, byte: u8) -> u64 {
    let difference = word ^ spread(byte);
    difference.wrapping_sub(ONES) & !difference & HIGHS
}

/// The first byte that is `wanted`; `hint` is zero for eight bytes of which none is.
fn first(bytes: &[u8], hint: impl Fn(u64) -> u64, wanted: impl Fn(u8) -> bool) -> Option<usize> {
    let (words, tail) = bytes.as_chunks::<8>();
    let mut before = 0_usize;
    for word in words {
        if hint(u64::from_le_bytes(*word)) != 0
            && let Some(at) = word.iter().position(|byte| wanted(*byte))
        {
            return Some(before.saturating_add(at));
        }
        before = before.saturating_add(8);
    }
    let at = tail.iter().position(|byte| wanted(*byte))?;
    Some(before.saturating_add(at))
}

/// The end of a line.
pub(super) fn line_end(bytes: &[u8]) -> Option<usize> {
    first(
        bytes,
        |word| equal(word, b'\r') | equal(word, b'\n'),
        |byte| matches!(byte, b'\r' | b'\n'),
    )
}

/// What may begin a form's delimiter.
pub(super) fn hyphen(bytes: &[u8]) -> Option<usize> {
    first(bytes, |word| equal(word, b'-'), |byte| byte == b'-')
}

/// What ends the plain part of a string: a quote or a backslash.
pub(super) fn quote_or_escape(bytes: &[u8]) -> Option<usize> {
    first(
        bytes,
        |word| equal(word, b'"') | equal(word, b'\\'),
        |byte| matches!(byte, b'"' | b'\\'),
    )
}

/// The same, or a control character, which no string may hold.
pub(super) fn quote_escape_or_control(bytes: &[u8]) -> Option<usize> {
    first(
        bytes,
        |word| equal(word, b'"') | equal(word, b'\\') | below(word, b' '),
        |byte| matches!(byte, b'"' | b'\\' | 0..b' '),
    )
}

/// What matters between values that are skipped: quotes and brackets.
pub(super) fn quote_or_bracket(bytes: &[u8]) -> Option<usize> {
    first(
        bytes,
        |word| {
            // Square and curly brackets differ in one bit.
            let folded = word | spread(0x20);
            equal(word, b'"') | equal(folded, b'{') | equal(folded, b'}')
        },
        |byte| matches!(byte, b'"' | b'[' | b']' | b'{' | b'}'),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every byte value at every place in a word, among neighbours that could mislead.
    #[test]
    fn finds_what_a_plain_loop_finds() {
        type Find = fn(&[u8]) -> Option<usize>;
        type Wanted = fn(u8) -> bool;
        let finders: [(Find, Wanted); 5] = [
            (hyphen, |byte| byte == b'-'),
            (line_end, |byte| byte == b'\r' || byte == b'\n'),
            (quote_or_escape, |byte| byte == b'"' || byte == b'\\'),
            (quote_escape_or_control, |byte| {
                byte == b'"' || byte == b'\\' || byte < 0x20
            }),
            (quote_or_bracket, |byte| b"\"[]{}".contains(&byte)),
        ];
        for (find, wanted) in finders {
            for around in [b'a', 0x7f, 0x80, 0xff, b'!', b'#', b'Z', b'|'] {
                for byte in 0..=u8::MAX {
                    for second in [around, b'"', b'\n', b'-', b'{', 0x01, 0xa2] {
                        for at in 0..19 {
                            let mut bytes = [around; 20];
                            bytes[at] = byte;
                            bytes[at + 1] = second;
                            let expected = bytes.iter().position(|byte| wanted(*byte));
                            assert_eq!(find(&bytes), expected, "{bytes:?}");
                        }
                    }
                }
            }
            assert_eq!(find(b""), None);
        }
    }
}
