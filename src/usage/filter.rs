//! Taking out the usage event that the caller did not ask for.

use super::bytes::Cursor;
use super::events::{EventStreamReader, Piece};

/// Most bytes of an event that are held back. The extra event takes a few hundred; a longer one is
/// let through.
pub const MAX_HELD: usize = 16 * 1024;

/// Reads a stream of events and leaves out those whose `choices` is empty and which carry usage.
///
/// Everything else passes unchanged. Only the start of an event is ever held back, until it
/// shows what it is: in chat, at its first choice.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    reader: EventStreamReader,
    /// The event that is being read, as far as it came in earlier pieces and was held back.
    held: Vec<u8>,
    /// Bytes of the event that is being read.
    length: usize,
    /// The event that is being read was let go.
    released: bool,
    /// The last event was left out: so is the line feed that may follow it.
    left_out: bool,
    output: Vec<u8>,
}

/// One piece of input, on its way through.
struct Passage<'a> {
    input: &'a [u8],
    /// As far as this the input is in the output, or left out.
    settled: usize,
    /// Where the event that is being read began, or 0 if that was before.
    event: usize,
    changed: bool,
}

impl EventFilter {
    /// A filter at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What was read so far.
    #[must_use]
    pub fn reader(&self) -> &EventStreamReader {
        &self.reader
    }

    /// Reads on. `None`: the bytes pass as they are; otherwise what takes their place.
    pub fn push(&mut self, bytes: &[u8]) -> Option<&[u8]> {
        self.output.clear();
        let mut passage = Passage {
            input: bytes,
            settled: 0,
            event: 0,
            changed: false,
        };
        let mut input = Cursor::new(bytes);
        while !input.is_empty() {
            let from = input.taken();
            let piece = self.reader.piece(&mut input);
            self.place(piece, from, input.taken(), &mut passage);
        }
        self.hold_back(&mut passage);
        passage.changed.then_some(self.output.as_slice())
    }

    /// The end of the stream: what was held back and is not to be left out.
    pub fn finish(&mut self) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        if self.reader.is_only_usage() {
            return Vec::new();
        }
        held
    }

    /// Reads the last of the stream, and lets go what was held back and is not to be left out.
    pub fn push_last(&mut self, bytes: &[u8]) -> Option<&[u8]> {
        // Whatever is held back now was taken out of what passed, so there is an output.
        let changed = self.push(bytes).is_some();
        let held = self.finish();
        self.output.extend(held);
        changed.then_some(self.output.as_slice())
    }

    fn place(&mut self, piece: Piece, from: usize, to: usize, passage: &mut Passage<'_>) {
        match piece {
            Piece::LineFeed if self.left_out => {
                passage.leave_out(from, to, &mut self.output);
            }
            Piece::Between => {}
            Piece::LineFeed if self.length == 0 => {}
            Piece::Event | Piece::LineFeed => self.grow(from, to, passage),
            Piece::EventEnd { only_usage } => {
                self.grow(from, to, passage);
                if only_usage && !self.released {
                    self.held.clear();
                    passage.leave_out(passage.event, to, &mut self.output);
                } else {
                    self.release(passage);
                }
                self.left_out = only_usage && !self.released;
                self.released = false;
                self.length = 0;
                return;
            }
        }
        self.left_out = false;
    }

    /// The event that is being read grows by a piece.
    fn grow(&mut self, from: usize, to: usize, passage: &mut Passage<'_>) {
        if self.length == 0 {
            passage.event = from;
        }
        self.length = self.length.saturating_add(to.saturating_sub(from));
        // By the event's length and not by what is held: where the input is cut does not matter.
        if self.length > MAX_HELD {
            self.release(passage);
            self.released = true;
        }
    }

    /// Lets go what was held back. It stood before all else of this input.
    fn release(&mut self, passage: &mut Passage<'_>) {
        passage.changed |= !self.held.is_empty();
        self.output.append(&mut self.held);
    }

    /// At the end of the input: holds back the event that is being read, or lets it go.
    fn hold_back(&mut self, passage: &mut Passage<'_>) {
        let open = self.length > 0 && !self.released;
        if open && self.reader.may_be_only_usage() {
            let end = passage.input.len();
            self.held
                .extend_from_slice(passage.input.get(passage.event..).unwrap_or_default());
            passage.leave_out(passage.event, end, &mut self.output);
        } else if open {
            self.release(passage);
            self.released = true;
        }
        if passage.changed {
            let rest = passage.input.get(passage.settled..).unwrap_or_default();
            self.output.extend_from_slice(rest);
        }
    }
}

impl Passage<'_> {
    fn leave_out(&mut self, from: usize, to: usize, output: &mut Vec<u8>) {
        let before = self.input.get(self.settled..from).unwrap_or_default();
        output.extend_from_slice(before);
        self.settled = to;
        self.changed = true;
    }
}

#[cfg(test)]
mod tests;
