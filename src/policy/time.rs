//! Durations: a whole number and a unit, as `"500ms"`, `"60s"`, `"5m"`, `"24h"`.

use std::ops::RangeInclusive;

use super::reader::{Node, Read};
use super::wording::quoted;
use crate::json::Value;

/// One second, in milliseconds.
pub(super) const SECOND: u64 = 1000;
/// One minute, in milliseconds.
pub(super) const MINUTE: u64 = 60 * SECOND;
/// One hour, in milliseconds.
pub(super) const HOUR: u64 = 60 * MINUTE;
/// One day, in milliseconds.
pub(super) const DAY: u64 = 24 * HOUR;

/// The units, in milliseconds.
const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", SECOND), ("m", MINUTE), ("h", HOUR)];

/// What a duration looks like.
pub(super) const FORM: &str = "a whole number with unit ms, s, m or h, such as \"60s\"";

/// The durations that a key takes.
pub(super) struct Span {
    /// In milliseconds.
    pub(super) millis: RangeInclusive<u64>,
    /// The same, in words.
    pub(super) words: &'static str,
}

/// Milliseconds of a duration; `None` for anything else.
pub(super) fn parse(text: &str) -> Option<u64> {
    let end = text.find(|character: char| !character.is_ascii_digit())?;
    let (digits, unit) = text.split_at_checked(end)?;
    let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit)?;
    if digits.is_empty() {
        return None;
    }
    // Too many digits are a duration all the same, one that no key takes.
    let number = digits.parse().unwrap_or(u64::MAX);
    Some(millis.saturating_mul(number))
}

/// Reads a duration in milliseconds.
pub(super) fn duration(node: &Node<'_>, span: &Span) -> Read<u64> {
    let text = duration_text(node)?;
    let Some(millis) = parse(text) else {
        let problem = format!("{} is not a duration", quoted(text));
        return Err(node.note(problem, format!("write {FORM}")));
    };
    check(node, text, millis, span)
}

/// Reads the string of a duration; a bare number is the slip that is made most.
pub(super) fn duration_text<'a>(node: &Node<'a>) -> Read<&'a str> {
    if let Value::Number(number) = node.value() {
        let remedy = format!("write it in quotes with its unit, such as \"{number}s\"");
        return Err(node.note(format!("the number {number} has no unit"), remedy));
    }
    let text = node.string("60s")?;
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let problem = format!("{} has no unit", quoted(text));
        return Err(node.note(problem, format!("write {FORM}")));
    }
    Ok(text)
}

/// Checks that a duration is one that the key takes.
pub(super) fn check(node: &Node<'_>, text: &str, millis: u64, span: &Span) -> Read<u64> {
    let problem = if millis < *span.millis.start() {
        "too short"
    } else if millis > *span.millis.end() {
        "too long"
    } else {
        return Ok(millis);
    };
    let remedy = format!("write a duration from {}", span.words);
    Err(node.note(format!("{} is {problem}", quoted(text)), remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_unit() {
        for (text, millis) in [
            ("0ms", 0),
            ("500ms", 500),
            ("60s", 60_000),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("007s", 7_000),
            ("99999999999999999999h", u64::MAX),
        ] {
            assert_eq!(parse(text), Some(millis), "{text}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "", "s", "60", "60 s", " 60s", "60s ", "1.5h", "-1s", "+1s", "1d", "1w", "60S",
            "1h30m", "60sec", "٦s", "1us",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
