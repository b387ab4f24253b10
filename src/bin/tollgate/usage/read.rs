//! Lines of a log, one at a time, whatever is in them.

use std::borrow::Cow;
use std::io::BufRead;

use serde::Deserialize;

/// Longest line that is looked at. A record has at most some kilobytes.
const MAX_LINE: usize = 64 * 1024;

/// A request, as the log tells it. Envoy's access log writes some numbers as strings.
#[derive(Debug, Deserialize)]
pub(super) struct Record<'a> {
    #[serde(borrow)]
    pub(super) time: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) outcome: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) code: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) app_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) app_name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) deployment: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) status: Option<Amount<'a>>,
    #[serde(borrow, default)]
    pub(super) duration_ms: Option<Amount<'a>>,
    #[serde(borrow, default)]
    pub(super) prompt_tokens: Option<Amount<'a>>,
    #[serde(borrow, default)]
    pub(super) completion_tokens: Option<Amount<'a>>,
    #[serde(borrow, default)]
    pub(super) total_tokens: Option<Amount<'a>>,
}

/// A number, possibly in quotes.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Amount<'a> {
    Number(u64),
    #[serde(borrow)]
    Text(Cow<'a, str>),
}

impl Amount<'_> {
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
pub(super) enum Piece<'a> {
    Record(Box<Record<'a>>, Source),
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
    pub(super) fn next_piece(&mut self) -> std::io::Result<Option<Piece<'_>>> {
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

fn piece(line: &[u8]) -> Piece<'_> {
    let Some(start) = line.iter().position(|byte| *byte == b'{') else {
        return Piece::Other;
    };
    let (_, text) = line.split_at_checked(start).unwrap_or_default();
    // Its first member, as the module writes it.
    let source = if text.starts_with(b"{\"time\":") {
        Source::Module
    } else {
        Source::Envoy
    };
    match serde_json::from_slice::<Record<'_>>(text) {
        Ok(record) if is_time(&record.time) => Piece::Record(Box::new(record), source),
        _ if source == Source::Module => Piece::Unreadable,
        _ => Piece::Other,
    }
}

/// `2026-03-01T12`, as far as tables need it.
fn is_time(time: &str) -> bool {
    let hour = time.as_bytes().get(..13).unwrap_or_default();
    hour.len() == 13
        && hour.iter().enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b'-',
            10 => *byte == b'T',
            _ => byte.is_ascii_digit(),
        })
}
