//! What one call is charged: as its response reports, or an estimate where it reports nothing.

mod charge;

pub use charge::{Charge, Delivered, Ending, is_timeout};

use crate::body::{RequestBody, tokens_in};
use crate::limits::ResponseStatus;
use crate::operations::Action;
use crate::request::HeaderMap;
use crate::usage::{AnswerReader, MediaType, is_event_stream};

/// Measures one call.
#[derive(Debug)]
pub struct Meter {
    /// Bytes of the request's body so far.
    request: u64,
    /// Whether these are text that a model reads.
    is_text: bool,
    /// What is asked for, where it is known.
    action: Option<Action>,
    /// What limits hold for the call.
    reserved: u64,
    answer: Option<Box<MeteredAnswer>>,
}

#[derive(Debug)]
struct MeteredAnswer {
    ending: EndingKind,
    is_stream: bool,
    /// Whether its content is text, or may be, so that its length counts.
    has_text: bool,
    /// Bytes of its body so far.
    bytes: u64,
    reader: AnswerReader,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndingKind {
    TimedOut,
    Failed,
    Succeeded,
    StatusUnknown,
}

impl Meter {
    /// For a call with these request headers, that asks for this.
    #[must_use]
    pub fn new(headers: &HeaderMap, action: Option<Action>) -> Self {
        let multipart = |value: &[u8]| {
            let start = value.trim_ascii_start().get(..b"multipart/".len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/"))
        };
        Self {
            request: 0,
            is_text: action.is_some_and(Action::reads_text)
                || !headers.first("content-type").is_some_and(multipart),
            action,
            reserved: 0,
            answer: None,
        }
    }

    /// Limits hold so many tokens for the call.
    pub fn reserve(&mut self, tokens: u64) {
        self.reserved = tokens;
    }

    /// Counts bytes of the request's body.
    pub fn see_request(&mut self, bytes: usize) {
        self.request = self.request.saturating_add(size(bytes));
    }

    /// Counts bytes of the response's body.
    pub fn on_response_body(&mut self, bytes: usize) {
        if let Some(answer) = &mut self.answer {
            answer.bytes = answer.bytes.saturating_add(size(bytes));
        }
    }

    /// The answer begins. `timed_out`: the gateway itself made it, because the backend took too long.
    /// `usage_was_injected`: an event will carry usage that the caller did not ask for.
    pub fn begin_answer(
        &mut self,
        status: ResponseStatus,
        headers: &HeaderMap,
        timed_out: bool,
        usage_was_injected: bool,
    ) {
        let content_type = headers.first("content-type");
        let ending = match status {
            _ if timed_out => EndingKind::TimedOut,
            _ if status.is_failure() => EndingKind::Failed,
            ResponseStatus::Code(_) => EndingKind::Succeeded,
            ResponseStatus::Unknown | ResponseStatus::Absent => EndingKind::StatusUnknown,
        };
        let reader = match ending {
            EndingKind::TimedOut | EndingKind::Failed => AnswerReader::opaque(),
            EndingKind::Succeeded | EndingKind::StatusUnknown => {
                let encoding = headers.first("content-encoding");
                AnswerReader::new(content_type, encoding, usage_was_injected)
            }
        };
        let has_text = match self.action {
            Some(action) => action.generates_text(),
            None => content_type.is_none_or(is_text),
        };
        self.answer = Some(Box::new(MeteredAnswer {
            ending,
            is_stream: is_event_stream(content_type),
            has_text,
            bytes: 0,
            reader,
        }));
    }

    /// Reads the answer's body, where there is something to read in it.
    pub fn reader(&mut self) -> Option<&mut AnswerReader> {
        let reader = &mut self.answer.as_mut()?.reader;
        (!reader.is_opaque()).then_some(reader)
    }

    /// Whether the answer is a stream of events; `None` without an answer.
    #[must_use]
    pub fn is_stream(&self) -> Option<bool> {
        self.answer.as_ref().map(|answer| answer.is_stream)
    }

    /// What the call is charged, were it to end now. `body`: the request's, where it was read.
    #[must_use]
    pub fn charge(&self, body: Option<&RequestBody>) -> Charge {
        let ending = match &self.answer {
            None => Ending::NoResponse,
            Some(answer) => answer.ending(),
        };
        let prompt = match body {
            _ if !self.is_text => 0,
            Some(body) => body.prompt(self.request),
            None => tokens_in(self.request),
        };
        Charge::of(&ending, prompt, self.reserved)
    }
}

impl MeteredAnswer {
    fn ending(&self) -> Ending {
        match self.ending {
            EndingKind::TimedOut => Ending::TimedOut,
            EndingKind::Failed => Ending::Failed,
            EndingKind::Succeeded => Ending::Succeeded(self.delivered()),
            EndingKind::StatusUnknown => Ending::StatusUnknown(self.delivered()),
        }
    }

    fn delivered(&self) -> Delivered {
        // A stream that has no events is none, whatever its headers call it.
        let content = match self.reader.events() {
            0 if self.has_text => tokens_in(self.bytes),
            events => events,
        };
        Delivered {
            usage: self.reader.usage(),
            content,
            after_usage: self.reader.events_after_usage(),
        }
    }
}

/// Whether a response of this type may be text: one of an operation that nobody here knows.
fn is_text(content_type: &[u8]) -> bool {
    let start = content_type.trim_ascii_start().get(..b"text/".len());
    MediaType::read(content_type) != MediaType::Other
        || start.is_some_and(|start| start.eq_ignore_ascii_case(b"text/"))
}

fn size(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
