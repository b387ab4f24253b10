//! Which reader an answer gets, by its headers.

use super::{EventFilter, EventStreamReader, JsonUsageReader, Usage};

/// Reads one answer as it passes, whatever it is.
#[derive(Debug)]
pub struct AnswerReader(Kind);

#[derive(Debug)]
enum Kind {
    /// `application/json`
    Json(JsonUsageReader),
    /// `text/event-stream`
    Events(EventStreamReader),
    /// The same, with an event in it that the caller did not ask for.
    Filtered(EventFilter),
    /// Of no use: sound, an error, or compressed although nobody asked for that.
    Opaque,
}

/// What becomes of bytes that were read.
#[derive(Debug, PartialEq, Eq)]
pub enum Passed<'a> {
    /// They go on as they are.
    Unchanged,
    /// These take their place.
    Replaced(&'a [u8]),
}

/// Reads a body as it passes.
pub trait BodyReader {
    /// Reads on. `end`: nothing follows.
    fn push(&mut self, bytes: &[u8], end: bool) -> Passed<'_>;
}

impl BodyReader for AnswerReader {
    fn push(&mut self, bytes: &[u8], end: bool) -> Passed<'_> {
        match &mut self.0 {
            Kind::Json(reader) => reader.push(bytes),
            Kind::Events(reader) => reader.push(bytes),
            Kind::Filtered(filter) => {
                let instead = if end {
                    filter.push_last(bytes)
                } else {
                    filter.push(bytes)
                };
                return instead.map_or(Passed::Unchanged, Passed::Replaced);
            }
            Kind::Opaque => {}
        }
        Passed::Unchanged
    }
}

impl AnswerReader {
    /// The reader for a successful answer with these headers. `usage_was_injected`: the stream's
    /// caller did not ask for the event that carries usage.
    #[must_use]
    pub fn new(
        content_type: Option<&[u8]>,
        content_encoding: Option<&[u8]>,
        usage_was_injected: bool,
    ) -> Self {
        let plain = content_encoding.is_none_or(|encoding| {
            let encoding = encoding.trim_ascii();
            encoding.is_empty() || encoding.eq_ignore_ascii_case(b"identity")
        });
        Self(match content_type.map(MediaType::read) {
            Some(MediaType::Json) if plain => Kind::Json(JsonUsageReader::new()),
            Some(MediaType::Events) if plain && usage_was_injected => {
                Kind::Filtered(EventFilter::new())
            }
            Some(MediaType::Events) if plain => Kind::Events(EventStreamReader::new()),
            _ => Kind::Opaque,
        })
    }

    /// A reader for an answer that says nothing here, such as an error.
    #[must_use]
    pub fn opaque() -> Self {
        Self(Kind::Opaque)
    }

    /// Whether its bytes have to be read at all.
    #[must_use]
    pub fn is_opaque(&self) -> bool {
        matches!(self.0, Kind::Opaque)
    }

    /// Whether the answer may become shorter on its way.
    #[must_use]
    pub fn is_filter(&self) -> bool {
        matches!(self.0, Kind::Filtered(_))
    }

    /// What the answer said so far that it used.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        match &self.0 {
            Kind::Json(reader) => reader.usage(),
            Kind::Events(reader) => reader.usage(),
            Kind::Filtered(filter) => filter.reader().usage(),
            Kind::Opaque => None,
        }
    }

    /// How many events there were.
    #[must_use]
    pub fn events(&self) -> u64 {
        match &self.0 {
            Kind::Events(reader) => reader.events(),
            Kind::Filtered(filter) => filter.reader().events(),
            Kind::Json(_) | Kind::Opaque => 0,
        }
    }

    /// How many events came after the last usage.
    #[must_use]
    pub fn events_after_usage(&self) -> u64 {
        match &self.0 {
            Kind::Events(reader) => reader.events_after_usage(),
            Kind::Filtered(filter) => filter.reader().events_after_usage(),
            Kind::Json(_) | Kind::Opaque => 0,
        }
    }
}

/// The media types that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MediaType {
    Json,
    Events,
    Other,
}

impl MediaType {
    /// From the value of `content-type` (RFC 9110 section 8.3.1), parameters aside.
    pub(crate) fn read(value: &[u8]) -> Self {
        let essence = value
            .split(|byte| *byte == b';')
            .next()
            .unwrap_or_default()
            .trim_ascii();
        if essence.eq_ignore_ascii_case(b"application/json") || is_structured_json(essence) {
            Self::Json
        } else if essence.eq_ignore_ascii_case(b"text/event-stream") {
            Self::Events
        } else {
            Self::Other
        }
    }
}

/// `type/subtype+json` (RFC 6839 section 3.1), with nothing beside it that another reader might take for the type.
fn is_structured_json(essence: &[u8]) -> bool {
    const SUFFIX: &[u8] = b"+json";
    let end = essence.len().checked_sub(SUFFIX.len());
    let slashes = essence.iter().filter(|byte| **byte == b'/').count();
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && *byte != b',';
    end.and_then(|end| essence.get(end..))
        .is_some_and(|end| end.eq_ignore_ascii_case(SUFFIX))
        && essence.iter().all(is_plain)
        && slashes == 1
        && !essence.starts_with(b"/")
}

/// Whether an answer is a stream of events.
#[must_use]
pub fn is_event_stream(content_type: Option<&[u8]>) -> bool {
    content_type.map(MediaType::read) == Some(MediaType::Events)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &[u8] = br#"{"usage":{"total_tokens":7}}"#;
    const EVENTS: &[u8] = b"data: {\"choices\":[1]}\n\ndata: {\"choices\":[],\
        \"usage\":{\"total_tokens\":7}}\n\ndata: [DONE]\n\n";

    fn total(content_type: &str, encoding: Option<&str>, body: &[u8]) -> Option<u64> {
        let encoding = encoding.map(str::as_bytes);
        let mut reader = AnswerReader::new(Some(content_type.as_bytes()), encoding, false);
        assert_eq!(reader.push(body, true), Passed::Unchanged);
        reader.usage()?.total
    }

    #[test]
    fn the_headers_choose_the_reader() {
        for content_type in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/problem+json",
        ] {
            assert_eq!(total(content_type, None, JSON), Some(7), "{content_type}");
        }
        for content_type in ["text/event-stream", "text/event-stream;charset=utf-8"] {
            assert_eq!(total(content_type, None, EVENTS), Some(7), "{content_type}");
        }
        for content_type in ["", "text/plain", "audio/mpeg", "application/jsonl", "json"] {
            assert_eq!(total(content_type, None, JSON), None, "{content_type}");
        }
        let json = "application/json";
        assert_eq!(total(json, Some("identity"), JSON), Some(7));
        assert_eq!(total(json, Some("gzip"), JSON), None);
    }

    #[test]
    fn what_was_injected_is_taken_out_and_read_all_the_same() {
        let mut reader = AnswerReader::new(Some(b"text/event-stream"), None, true);
        assert!(reader.is_filter());
        let Passed::Replaced(output) = reader.push(EVENTS, true) else {
            panic!("unchanged");
        };
        assert_eq!(output, b"data: {\"choices\":[1]}\n\ndata: [DONE]\n\n");
        assert_eq!(reader.usage().and_then(|usage| usage.total), Some(7));
        assert_eq!(reader.events(), 2);
    }
}
