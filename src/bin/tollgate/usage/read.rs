//! Lines of a log, one at a time, whatever is in them.

use std::io::BufRead;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use crate::request_log::{self, Found};

/// Longest line that is looked at. A record has at most some kilobytes; wrappers escape it and add their own.
const MAX_LINE: usize = 128 * 1024;

/// A request as the log has it. Envoy's access log writes some numbers as strings.
#[derive(Debug, Deserialize)]
pub(super) struct Record {
    pub(super) time: String,
    pub(super) outcome: String,
    #[serde(default)]
    pub(super) code: Option<String>,
    #[serde(default)]
    pub(super) app_id: Option<String>,
    #[serde(default)]
    pub(super) app_name: Option<String>,
    #[serde(default)]
    pub(super) deployment: Option<String>,
    #[serde(default)]
    pub(super) status: Option<Amount>,
    #[serde(default)]
    pub(super) duration_ms: Option<Amount>,
    #[serde(default)]
    pub(super) prompt_tokens: Option<Amount>,
    #[serde(default)]
    pub(super) completion_tokens: Option<Amount>,
    #[serde(default)]
    pub(super) total_tokens: Option<Amount>,
    #[serde(default)]
    pub(super) estimated_tokens: Option<Amount>,
    #[serde(default)]
    pub(super) request_id: Option<String>,
    /// Only the module's records have it.
    #[serde(default)]
    token_id: IsThere,
    /// Only records of Envoy's access log have it.
    #[serde(default)]
    flags: IsThere,
}

/// Whether a member is there, `null` included.
#[derive(Debug, Default)]
struct IsThere(bool);

impl<'de> Deserialize<'de> for IsThere {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}

/// A number, possibly in quotes.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Amount {
    Number(u64),
    Text(String),
}

impl Amount {
    pub(super) fn value(&self) -> u64 {
        match self {
            Self::Number(number) => *number,
            Self::Text(text) => text.parse().unwrap_or(0),
        }
    }
}

/// Who wrote a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The module.
    Module,
    /// Envoy, in its access log.
    Envoy,
}

/// What a line holds.
pub(super) enum Piece {
    Record(Box<Record>, Source),
    /// Nothing of the request log.
    Other,
    /// It looks like a record, and is none.
    Unreadable,
}

/// Reads lines into one buffer.
pub(super) struct Lines<R> {
    source: R,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            line: Vec::with_capacity(1024),
        }
    }

    /// The next line; `None` at the end.
    pub(super) fn next_piece(&mut self) -> std::io::Result<Option<Piece>> {
        self.line.clear();
        let mut length: usize = 0;
        loop {
            let available = self.source.fill_buf()?;
            if available.is_empty() {
                break;
            }
            let end = available.iter().position(|byte| *byte == b'\n');
            let (piece, used) = match end.and_then(|end| available.split_at_checked(end)) {
                Some((piece, _)) => (piece, piece.len().saturating_add(1)),
                None => (available, available.len()),
            };
            length = length.saturating_add(used);
            let room = MAX_LINE.saturating_sub(self.line.len());
            self.line
                .extend_from_slice(piece.get(..room).unwrap_or(piece));
            self.source.consume(used);
            if end.is_some() {
                break;
            }
        }
        Ok((length > 0).then(|| piece(&self.line)))
    }
}

fn piece(line: &[u8]) -> Piece {
    let text = match request_log::find(line) {
        Found::Record(text) => text,
        Found::Broken => return Piece::Unreadable,
        Found::Other => return Piece::Other,
    };
    match serde_json::from_slice::<Record>(&text) {
        Ok(record) => {
            // The module begins a record with its time; Envoy sorts the members. A collector may sort both.
            let is_modules =
                !record.flags.0 && (record.token_id.0 || text.starts_with(b"{\"time\":"));
            let source = if is_modules {
                Source::Module
            } else {
                Source::Envoy
            };
            Piece::Record(Box::new(record), source)
        }
        Err(_) => Piece::Unreadable,
    }
}
