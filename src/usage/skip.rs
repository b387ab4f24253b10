//! Passing over JSON values without reading them.

use super::bytes::{Cursor, quote_or_bracket, quote_or_escape};

/// Inside a string, after its opening quote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct InString {
    escaped: bool,
}

impl InString {
    /// Passes over what belongs to the string; true once its closing quote is taken.
    pub(super) fn skip(&mut self, input: &mut Cursor<'_>) -> bool {
        loop {
            if self.escaped {
                if input.next().is_none() {
                    return false;
                }
                self.escaped = false;
            }
            input.take_until(quote_or_escape);
            match input.next() {
                None => return false,
                Some(b'"') => return true,
                Some(_) => self.escaped = true,
            }
        }
    }
}

/// Inside an array or object, after its opening bracket.
///
/// Brackets are counted, not matched: what stands inside is of no interest, and a counter
/// takes any depth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct InBrackets {
    deeper: u64,
    string: Option<InString>,
}

impl InBrackets {
    /// Passes over what belongs to the value; true once its closing bracket is taken.
    pub(super) fn skip(&mut self, input: &mut Cursor<'_>) -> bool {
        loop {
            if let Some(string) = &mut self.string {
                if !string.skip(input) {
                    return false;
                }
                self.string = None;
            }
            input.take_until(quote_or_bracket);
            match input.next() {
                None => return false,
                Some(b'"') => self.string = Some(InString::default()),
                Some(b'[' | b'{') => self.deeper = self.deeper.saturating_add(1),
                Some(_) => match self.deeper.checked_sub(1) {
                    None => return true,
                    Some(left) => self.deeper = left,
                },
            }
        }
    }
}
