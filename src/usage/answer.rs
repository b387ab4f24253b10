//! `usage` and `tool_usage` in a JSON answer.

use super::bytes::Cursor;
use super::count::Usage;
use super::skip::{InBrackets, InString};
use super::text::{Kept, unescaped};

/// Longest `usage` that is read. Azure's take half a KiB; what is longer is none of its.
const MAX_USAGE: usize = 4096;

/// Longest name that can be one of those looked for, each of its characters escaped.
const MAX_NAME: usize = 6 * "tool_usage".len();

/// Reads one JSON answer as it passes.
///
/// Looks at the members of the outermost object, and of its `response` (the events of the
/// responses API); passes over everything else. After something that is not JSON nothing more is
/// read, and what was found stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonUsageReader {
    state: State,
    /// The object whose members are read is `response`.
    in_response: bool,
    member: Member,
    /// A name, or the value of `type`.
    short: Kept,
    /// The value of `usage`.
    long: Kept,
    usage: Option<Usage>,
    error: bool,
    choices: Choices,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Before the outermost object.
    Start,
    /// Between members.
    Members,
    Name(InString),
    Colon,
    Value,
    Text(InString),
    Number,
    /// After the bracket that opens `choices`.
    FirstChoice,
    Nested(InBrackets),
    /// After the outermost object.
    End,
    /// Not JSON, or not an object.
    Foreign,
}

/// The members that matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    Choices,
    Error,
    Object,
    Response,
    ToolUsage,
    Type,
    Usage,
    Other,
}

/// What is known of the list that chat and completions answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choices {
    Absent,
    Empty,
    Some,
}

/// What else an answer, or an event, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A step of a run, whose usage is its own: that of the run is the sum of its steps.
    Step,
    /// An event without content: a sign of life, or the end of a message.
    Empty,
    Other,
}

impl Default for JsonUsageReader {
    fn default() -> Self {
        Self::new()
    }
}

impl JsonUsageReader {
    /// A reader at the start of an answer.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: State::Start,
            in_response: false,
            member: Member::Other,
            short: Kept::up_to(MAX_NAME),
            long: Kept::up_to(MAX_USAGE),
            usage: None,
            error: false,
            choices: Choices::Absent,
            kind: Kind::Other,
        }
    }

    /// Reads on.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut input = Cursor::new(bytes);
        while !input.is_empty() {
            self.step(&mut input);
        }
    }

    /// The last usage that was not `null`.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// Whether there was one.
    pub(super) fn has_usage(&self) -> bool {
        self.usage.is_some()
    }

    /// Whether the answer says that something failed.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.error
    }

    /// Whether the outermost object is closed: all of the answer was there.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::End)
    }

    /// Whether this is a step of a run.
    pub(super) fn is_step(&self) -> bool {
        self.kind == Kind::Step
    }

    /// Whether this is an event that delivers nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.kind == Kind::Empty
    }

    /// An answer that carries usage and an empty list of choices: the extra chunk of
    /// `stream_options.include_usage`.
    pub(super) fn is_only_usage(&self) -> bool {
        self.is_complete() && self.choices == Choices::Empty && self.usage.is_some()
    }

    /// Whether what follows could make it [`Self::is_only_usage`].
    pub(super) fn may_be_only_usage(&self) -> bool {
        match self.state {
            State::Foreign => false,
            State::End => self.is_only_usage(),
            _ => self.choices != Choices::Some,
        }
    }

    /// Goes back to the start, keeping the room that was made.
    pub(super) fn restart(&mut self) {
        self.state = State::Start;
        self.in_response = false;
        self.usage = None;
        self.error = false;
        self.choices = Choices::Absent;
        self.kind = Kind::Other;
    }

    fn step(&mut self, input: &mut Cursor<'_>) {
        match &mut self.state {
            State::Start => self.start(input),
            State::Members => self.between_members(input),
            State::Name(string) => {
                let before = input.clone();
                if string.skip(input) {
                    self.short.push(before.up_to(input, 1));
                    self.member = self.named();
                    self.state = State::Colon;
                } else {
                    self.short.push(before.rest());
                }
            }
            State::Colon => {
                input.skip_whitespace();
                match input.next() {
                    None => {}
                    Some(b':') => self.state = State::Value,
                    Some(_) => self.state = State::Foreign,
                }
            }
            State::Value => {
                input.skip_whitespace();
                if let Some(first) = input.next() {
                    self.value(first);
                }
            }
            State::Text(string) => {
                let before = input.clone();
                let closed = string.skip(input);
                if matches!(self.member, Member::Type | Member::Object) {
                    self.short.push(before.up_to(input, usize::from(closed)));
                }
                if closed {
                    self.text_ends();
                }
            }
            State::Number => {
                input.take_until(|rest| {
                    rest.iter()
                        .position(|byte| matches!(byte, b',' | b'}' | b']' | b'"'))
                });
                if !input.is_empty() {
                    self.state = State::Members;
                }
            }
            State::FirstChoice => {
                input.skip_whitespace();
                if let Some(first) = input.peek() {
                    if first != b']' {
                        self.choices = Choices::Some;
                    } else if self.choices == Choices::Absent {
                        self.choices = Choices::Empty;
                    }
                    self.state = State::Nested(InBrackets::default());
                }
            }
            State::Nested(brackets) => {
                let before = input.clone();
                let closed = brackets.skip(input);
                if matches!(self.member, Member::Usage | Member::ToolUsage) {
                    self.long.push(before.up_to(input, 0));
                }
                if closed {
                    self.nested_ends();
                }
            }
            State::End | State::Foreign => {
                input.take(usize::MAX);
            }
        }
    }

    fn start(&mut self, input: &mut Cursor<'_>) {
        input.skip_whitespace();
        match input.next() {
            // A byte order mark is none of JSON's, but costs nothing.
            None | Some(0xef | 0xbb | 0xbf) => {}
            Some(b'{') => self.state = State::Members,
            Some(_) => self.state = State::Foreign,
        }
    }

    fn between_members(&mut self, input: &mut Cursor<'_>) {
        input.skip_whitespace();
        match input.next() {
            None | Some(b',') => {}
            Some(b'"') => {
                self.short.clear();
                self.state = State::Name(InString::default());
            }
            Some(b'}') if self.in_response => self.in_response = false,
            Some(b'}') => self.state = State::End,
            Some(_) => self.state = State::Foreign,
        }
    }

    fn named(&self) -> Member {
        let Some(name) = self.short.whole().and_then(unescaped) else {
            return Member::Other;
        };
        match (&*name, self.in_response) {
            ("usage", _) => Member::Usage,
            ("tool_usage", _) => Member::ToolUsage,
            ("error", _) => Member::Error,
            ("choices", false) => Member::Choices,
            ("object", false) => Member::Object,
            ("response", false) => Member::Response,
            ("type", false) => Member::Type,
            _ => Member::Other,
        }
    }

    fn value(&mut self, first: u8) {
        let null = first == b'n';
        self.error |= self.member == Member::Error && !null;
        self.state = match (first, self.member) {
            (b'{', Member::Response) => {
                self.in_response = true;
                State::Members
            }
            (b'{', Member::Usage | Member::ToolUsage) => {
                self.long.clear();
                self.long.push(b"{");
                State::Nested(InBrackets::default())
            }
            (b'[', Member::Choices) => State::FirstChoice,
            (_, Member::Usage) if !null => {
                self.found(Usage::unreadable());
                self.member = Member::Other;
                opened(first)
            }
            _ => opened(first),
        };
        self.short.clear();
    }

    fn text_ends(&mut self) {
        match (self.member, self.short.whole()) {
            (Member::Type, Some(b"error")) => self.error = true,
            (Member::Type, Some(b"ping" | b"message_stop")) => self.kind = Kind::Empty,
            (Member::Object, Some(b"thread.run.step")) => self.kind = Kind::Step,
            _ => {}
        }
        self.state = State::Members;
    }

    fn nested_ends(&mut self) {
        let text = self.long.whole();
        match self.member {
            Member::Usage => self.found(text.map_or_else(Usage::unreadable, Usage::parse)),
            Member::ToolUsage => {
                let usage = text.map_or_else(Usage::unreadable, Usage::parse_tools);
                if usage != Usage::default() {
                    self.found(usage);
                }
            }
            _ => {}
        }
        self.state = State::Members;
    }

    fn found(&mut self, usage: Usage) {
        self.usage = Some(match self.usage {
            None => usage,
            Some(earlier) => earlier.followed_by(usage),
        });
    }
}

/// The state after the first byte of a value.
fn opened(first: u8) -> State {
    match first {
        b'"' => State::Text(InString::default()),
        b'{' | b'[' => State::Nested(InBrackets::default()),
        b',' | b'}' | b']' | b':' => State::Foreign,
        _ => State::Number,
    }
}

#[cfg(test)]
mod tests;
