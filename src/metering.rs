//! What one call used: as its answer says, or an estimate where it says nothing.

use crate::body::prompt_tokens;
use crate::request::HeaderMap;
use crate::usage::{AnswerReader, Usage, is_event_stream};

/// Measures one call.
#[derive(Debug)]
pub struct Meter {
    /// Bytes of the request's body so far.
    request: u64,
    /// Whether these are text that a model reads.
    is_text: bool,
    answer: Option<Box<MeteredAnswer>>,
}

#[derive(Debug)]
struct MeteredAnswer {
    status: u16,
    is_stream: bool,
    reader: AnswerReader,
}

/// What a call used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Used {
    /// This, as the answer says.
    Said(Usage),
    /// The answer does not say, or did not come: about so many tokens.
    Estimated(u64),
    /// Nothing: the backend refused it, or failed.
    Nothing,
}

impl Meter {
    /// For a call with these request headers.
    #[must_use]
    pub fn new(headers: &HeaderMap) -> Self {
        let multipart = |value: &[u8]| {
            let start = value.trim_ascii_start().get(..b"multipart/".len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/"))
        };
        Self {
            request: 0,
            is_text: !headers.first("content-type").is_some_and(multipart),
            answer: None,
        }
    }

    /// Counts bytes of the request's body.
    pub fn see_request(&mut self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.request = self.request.saturating_add(bytes);
    }

    /// The answer begins. `usage_was_injected`: an event will carry usage that the caller did not ask
    /// for.
    pub fn begin_answer(&mut self, status: u16, headers: &HeaderMap, usage_was_injected: bool) {
        let content_type = headers.first("content-type");
        let reader = if is_success(status) {
            let encoding = headers.first("content-encoding");
            AnswerReader::new(content_type, encoding, usage_was_injected)
        } else {
            AnswerReader::opaque()
        };
        self.answer = Some(Box::new(MeteredAnswer {
            status,
            is_stream: is_event_stream(content_type),
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

    /// What the call used, as far as it is known now.
    ///
    /// Without usage in a good answer, and without an answer (the caller left), that is what the
    /// prompt's size lets expect, and one token for each event of a stream.
    #[must_use]
    pub fn used(&self) -> Used {
        let prompt = if self.is_text {
            prompt_tokens(self.request)
        } else {
            0
        };
        let Some(answer) = &self.answer else {
            return Used::Estimated(prompt);
        };
        if !is_success(answer.status) {
            return Used::Nothing;
        }
        match answer.reader.usage() {
            Some(usage) if usage.tokens().is_some() => Used::Said(usage),
            _ => Used::Estimated(prompt.saturating_add(answer.reader.events())),
        }
    }
}

fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::BodyReader as _;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        HeaderMap::from_pairs(
            pairs
                .iter()
                .map(|(name, value)| (name.as_bytes(), value.as_bytes())),
        )
    }

    fn meter(content_type: &str) -> Meter {
        let mut meter = Meter::new(&headers(&[("content-type", content_type)]));
        meter.see_request(30);
        meter.see_request(11);
        meter
    }

    fn answer(meter: &mut Meter, status: u16, content_type: &str, body: &str) {
        meter.begin_answer(status, &headers(&[("content-type", content_type)]), false);
        if let Some(reader) = meter.reader() {
            reader.push(body.as_bytes(), true);
        }
    }

    const JSON: &str = "application/json";
    const EVENTS: &str = "text/event-stream";

    #[test]
    fn what_the_answer_says_counts() {
        let mut meter = meter(JSON);
        answer(&mut meter, 201, JSON, r#"{"usage":{"total_tokens":7}}"#);
        let Used::Said(usage) = meter.used() else {
            panic!("{meter:?}");
        };
        assert_eq!(usage.tokens(), Some(7));
        assert_eq!(meter.is_stream(), Some(false));
    }

    #[test]
    fn what_nobody_says_is_estimated() {
        assert_eq!(meter(JSON).used(), Used::Estimated(11));
        assert_eq!(
            meter("multipart/form-data; boundary=x").used(),
            Used::Estimated(0)
        );
        assert_eq!(meter(JSON).is_stream(), None);
        for (content_type, body, expected) in [
            (JSON, r#"{"usage":null}"#, 11),
            (JSON, r#"{"usage":{"type":"duration","seconds":3}}"#, 11),
            (JSON, "{", 11),
            ("audio/mpeg", "ID3", 11),
            (
                EVENTS,
                "data: {\"choices\":[1]}\n\ndata: 2\n\ndata: [DONE]\n\n",
                13,
            ),
            (EVENTS, "data: {\"choices\":[1]}\n\ndata: {\"cho", 12),
        ] {
            let mut meter = meter(JSON);
            answer(&mut meter, 200, content_type, body);
            assert_eq!(meter.used(), Used::Estimated(expected), "{body}");
        }
    }

    #[test]
    fn a_call_that_failed_used_nothing() {
        for status in [400, 401, 429, 500, 503, 101, 302] {
            let mut meter = meter(JSON);
            answer(&mut meter, status, JSON, r#"{"usage":{"total_tokens":7}}"#);
            assert_eq!(meter.used(), Used::Nothing, "{status}");
        }
    }
}
