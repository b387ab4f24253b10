//! `usage` in server-sent events, read as the WHATWG HTML standard says (section 9.2.6).

use super::answer::JsonUsageReader;
use super::bytes::{Cursor, line_end};
use super::count::Usage;
use super::text::Kept;

/// Longest field name that matters, and longest event name.
const MAX_FIELD: usize = "event".len();
const MAX_EVENT: usize = "error".len();

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const DONE: &[u8] = b"[DONE]";

/// Reads a stream of events as it passes.
///
/// Each event's data goes into a [`JsonUsageReader`] as it comes, so neither a long line nor a long
/// event is kept. An event that the stream's end cuts off counts as far as it came: the standard
/// drops it, but its tokens were used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventStreamReader {
    line: Line,
    /// The last line ended with a carriage return, and a line feed would belong to it.
    after_return: bool,
    /// Bytes of a byte order mark seen; `None` once anything else was.
    mark: Option<usize>,
    field: Kept,
    event: Event,
    usage: Option<Usage>,
    /// That is the sum of a run's steps.
    of_steps: bool,
    /// Events with data that ended.
    events: u64,
    /// How many of them came before the last usage, or with it.
    covered: u64,
    error: bool,
    done: bool,
}

/// Where in a line the reading stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Start,
    FieldName,
    /// After the colon: one space may follow.
    Colon(Field),
    Value(Field),
    Comment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Data,
    Event,
    Other,
}

/// The event that is being read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Event {
    /// A line that is not a comment was seen.
    begun: bool,
    has_data: bool,
    data: JsonUsageReader,
    /// The data as far as it may be `[DONE]`.
    start: Kept,
    name: Kept,
}

/// What a piece of input was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// The mark at the start, a comment outside of an event, or a blank line that ends nothing.
    Between,
    /// Part of an event.
    Event,
    /// The last of an event, up to the end of its blank line.
    EventEnd {
        /// It is the extra event of `stream_options.include_usage`.
        only_usage: bool,
    },
    /// The line feed of the line that ended before.
    LineFeed,
}

impl Default for EventStreamReader {
    fn default() -> Self {
        Self::new()
    }
}

impl EventStreamReader {
    /// A reader at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self {
            line: Line::Start,
            after_return: false,
            mark: Some(0),
            field: Kept::up_to(MAX_FIELD),
            event: Event::new(),
            usage: None,
            of_steps: false,
            events: 0,
            covered: 0,
            error: false,
            done: false,
        }
    }

    /// Reads on.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut input = Cursor::new(bytes);
        while !input.is_empty() {
            self.piece(&mut input);
        }
    }

    /// The last usage that was not `null`; of the steps of a run, their sum until the run says its own.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        match (self.usage, self.event.data.usage()) {
            (Some(steps), Some(step)) if self.of_steps && self.event.data.is_step() => {
                Some(steps.and(step))
            }
            (Some(earlier), Some(later)) => Some(earlier.followed_by(later)),
            (earlier, later) => later.or(earlier),
        }
    }

    /// Whether an event said that something failed.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.error || self.event.is_error()
    }

    /// Whether `[DONE]` was seen.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done || self.event.is_done()
    }

    /// How many events with content there were.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// How many of them came after the last usage: it does not count what they deliver.
    #[must_use]
    pub fn events_after_usage(&self) -> u64 {
        if self.event.says_tokens() {
            return 0;
        }
        self.events.saturating_sub(self.covered)
    }

    /// The event that is being read may yet turn out to be the one that only carries usage.
    pub(super) fn may_be_only_usage(&self) -> bool {
        self.event.data.may_be_only_usage()
    }

    /// The event that is being read is the one that only carries usage, were it to end here.
    pub(super) fn is_only_usage(&self) -> bool {
        self.event.data.is_only_usage()
    }

    /// Reads to the end of a line or of the input, and says what that was. Takes at least one
    /// byte, if there is one.
    pub(super) fn piece(&mut self, input: &mut Cursor<'_>) -> Piece {
        if std::mem::take(&mut self.after_return) && input.peek() == Some(b'\n') {
            input.next();
            return Piece::LineFeed;
        }
        if self.mark.is_some() && self.takes_mark(input) {
            return Piece::Between;
        }
        loop {
            let Some(next) = input.peek() else {
                return if self.event.begun {
                    Piece::Event
                } else {
                    Piece::Between
                };
            };
            if matches!(next, b'\r' | b'\n') {
                input.next();
                self.after_return = next == b'\r';
                return self.line_ends();
            }
            self.within_line(next, input);
        }
    }

    /// Takes the next byte if it belongs to a byte order mark at the start.
    fn takes_mark(&mut self, input: &mut Cursor<'_>) -> bool {
        let seen = self.mark.unwrap_or_default();
        if input.peek() == BYTE_ORDER_MARK.get(seen).copied() {
            input.next();
            self.mark = Some(seen.saturating_add(1));
            return true;
        }
        if seen != 0 && seen != BYTE_ORDER_MARK.len() {
            // Part of a mark is the start of a field with a strange name.
            self.begin_field();
            self.field.push(BYTE_ORDER_MARK);
        }
        self.mark = None;
        false
    }

    fn begin_field(&mut self) {
        self.event.begun = true;
        self.field.clear();
        self.line = Line::FieldName;
    }

    fn within_line(&mut self, next: u8, input: &mut Cursor<'_>) {
        match self.line {
            Line::Start if next == b':' => self.line = Line::Comment,
            Line::Start => self.begin_field(),
            Line::FieldName => {
                self.field.push(input.take_until(|rest| {
                    rest.iter()
                        .position(|byte| matches!(byte, b':' | b'\r' | b'\n'))
                }));
                if input.peek() == Some(b':') {
                    input.next();
                    self.line = Line::Colon(self.begin_value());
                }
            }
            Line::Colon(field) => {
                if next == b' ' {
                    input.next();
                }
                self.line = Line::Value(field);
            }
            Line::Value(field) => self.event.value(field, input.take_until(line_end)),
            Line::Comment => {
                input.take_until(line_end);
            }
        }
    }

    fn begin_value(&mut self) -> Field {
        match self.field.whole() {
            Some(b"data") => {
                self.event.begin_data();
                Field::Data
            }
            Some(b"event") => {
                self.event.name.clear();
                Field::Event
            }
            _ => Field::Other,
        }
    }

    fn line_ends(&mut self) -> Piece {
        match std::mem::replace(&mut self.line, Line::Start) {
            Line::Start if self.event.begun => self.event_ends(),
            Line::FieldName => {
                // A line without a colon is a field with an empty value.
                self.begin_value();
                Piece::Event
            }
            _ if self.event.begun => Piece::Event,
            _ => Piece::Between,
        }
    }

    fn event_ends(&mut self) -> Piece {
        let only_usage = self.is_only_usage();
        // Most events have none.
        let has_usage = self.event.data.has_usage();
        if has_usage {
            self.usage = self.usage();
        }
        self.error = self.is_error();
        self.done = self.is_done();
        if self.event.has_data && !self.event.is_done() && !self.event.data.is_empty() {
            self.events = self.events.saturating_add(1);
        }
        if has_usage && self.event.says_tokens() {
            self.of_steps = self.event.data.is_step();
            self.covered = self.events;
        }
        self.event.restart();
        Piece::EventEnd { only_usage }
    }
}

impl Event {
    fn new() -> Self {
        Self {
            begun: false,
            has_data: false,
            data: JsonUsageReader::new(),
            start: Kept::up_to(DONE.len()),
            name: Kept::up_to(MAX_EVENT),
        }
    }

    fn restart(&mut self) {
        self.begun = false;
        self.has_data = false;
        self.data.restart();
        self.start.clear();
        self.name.clear();
    }

    fn begin_data(&mut self) {
        if self.has_data {
            // Lines of data are joined by line feeds.
            self.start.push(b"\n");
            self.data.push(b"\n");
        }
        self.has_data = true;
    }

    fn value(&mut self, field: Field, part: &[u8]) {
        match field {
            Field::Data => {
                self.start.push(part);
                self.data.push(part);
            }
            Field::Event => self.name.push(part),
            Field::Other => {}
        }
    }

    fn is_error(&self) -> bool {
        self.has_data && (self.data.is_error() || self.name.whole() == Some(b"error"))
    }

    fn is_done(&self) -> bool {
        self.start.whole() == Some(DONE)
    }

    /// Whether it carries usage that a call can be charged.
    fn says_tokens(&self) -> bool {
        let usage = self.data.usage();
        usage.is_some_and(|usage| usage.tokens().is_some())
    }
}

#[cfg(test)]
mod tests;
