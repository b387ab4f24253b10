//! Records of the request log, in whatever a log collector wraps them.
//!
//! A record is a JSON object with one of the module's outcomes in `outcome` and a time in `time`. It may follow a prefix (Envoy's, CRI's,
//! Loki's labels), be followed by anything (Istio's gateways append a tab and `thread=30`), and be the text or the object of a wrapper's
//! member, several times over.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use tollgate::refusal::{Code, Outcome};

/// Members in which log collectors keep a line: Docker (`log`), Istio, pino and zap (`msg`), Fluent Bit, Vector and
/// Datadog (`message`), Serilog (`Message`), journald (`MESSAGE`), Azure Monitor (`LogMessage`, `LogEntry`, `Log_s`),
/// Google Cloud (`textPayload`, `jsonPayload`), Splunk (`event`), OpenTelemetry (`body`), Loki (`line`).
const WRAPPERS: [&str; 13] = [
    "log",
    "msg",
    "message",
    "Message",
    "MESSAGE",
    "LogMessage",
    "LogEntry",
    "Log_s",
    "textPayload",
    "jsonPayload",
    "event",
    "body",
    "line",
];

/// Most wrappers around a record: journald around Docker around Istio is three.
const MAX_DEPTH: u8 = 4;

/// Most places of a line at which an object is looked for. What stands before a record has few braces.
const MAX_STARTS: usize = 8;

/// What a line holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// The text of a record: one JSON object.
    Record(Cow<'a, [u8]>),
    /// A record that is cut off or otherwise not JSON.
    Broken,
    /// Something else.
    Other,
}

/// What makes an object a record.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow)]
    outcome: Cow<'a, str>,
}

/// Finds the record in a line of a log.
pub(crate) fn find(line: &[u8]) -> Found<'_> {
    find_within(line, 0)
}

fn find_within(line: &[u8], depth: u8) -> Found<'_> {
    let mut rest = line;
    let mut is_broken = false;
    for _ in 0..MAX_STARTS {
        let Some(start) = rest.iter().position(|byte| *byte == b'{') else {
            break;
        };
        let (_, text) = rest.split_at_checked(start).unwrap_or_default();
        if let Some((head, length)) = first::<Head<'_>>(text)
            && is_outcome(&head.outcome)
        {
            let (record, _) = text.split_at_checked(length).unwrap_or_default();
            return if is_time(&head.time) {
                Found::Record(Cow::Borrowed(record))
            } else {
                Found::Broken
            };
        }
        let Some((object, length)) = first::<Value>(text) else {
            is_broken |= text.starts_with(b"{\"time\":") || text.starts_with(b"{\\\"time\\\":");
            rest = text.get(1..).unwrap_or_default();
            continue;
        };
        match unwrapped(&object, depth) {
            Found::Other => {}
            found => return found,
        }
        rest = text.get(length..).unwrap_or_default();
    }
    if is_broken {
        Found::Broken
    } else {
        Found::Other
    }
}

/// The first JSON value of a text, and its length.
fn first<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Option<(T, usize)> {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<T>();
    let value = values.next()?.ok()?;
    Some((value, values.byte_offset()))
}

/// The record that a wrapper holds.
fn unwrapped(object: &Value, depth: u8) -> Found<'static> {
    if depth >= MAX_DEPTH {
        return Found::Other;
    }
    let mut is_broken = false;
    for name in WRAPPERS {
        let text = match object.get(name) {
            Some(Value::String(text)) => text.clone().into_bytes(),
            Some(Value::Array(bytes)) => byte_array(bytes),
            Some(inner @ Value::Object(_)) => inner.to_string().into_bytes(),
            _ => continue,
        };
        match find_within(&text, depth.saturating_add(1)) {
            Found::Record(record) => return Found::Record(Cow::Owned(record.into_owned())),
            Found::Broken => is_broken = true,
            Found::Other => {}
        }
    }
    if is_broken {
        Found::Broken
    } else {
        Found::Other
    }
}

/// A text as journald writes one that is not printable (systemd, "Journal Export Formats"): a list of its bytes.
fn byte_array(values: &[Value]) -> Vec<u8> {
    let byte = |value: &Value| u8::try_from(value.as_u64()?).ok();
    values
        .iter()
        .map(byte)
        .collect::<Option<_>>()
        .unwrap_or_default()
}

fn is_outcome(name: &str) -> bool {
    let name = name.strip_prefix("would_").unwrap_or(name);
    let codes = Code::ALL.iter().map(|code| code.outcome());
    codes
        .chain([Outcome::Allowed, Outcome::Undecided])
        .any(|known| known.name() == name)
}

/// `2026-03-01T12`, as far as anything needs it.
fn is_time(time: &str) -> bool {
    let hour = time.as_bytes().get(..13).unwrap_or_default();
    hour.len() == 13
        && hour.iter().enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b'-',
            10 => *byte == b'T',
            _ => byte.is_ascii_digit(),
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const RECORD: &str = r#"{"time":"2026-03-01T12:00:00.000Z","outcome":"allowed","path":"/a{b}","total_tokens":15}"#;

    fn found(line: &str) -> Option<String> {
        match find(line.as_bytes()) {
            Found::Record(text) => Some(String::from_utf8(text.into_owned()).unwrap()),
            Found::Broken | Found::Other => None,
        }
    }

    #[test]
    fn o1_g13_a_record_is_found_in_every_wrapper() {
        let envoy = format!(
            "[2026-03-01 12:00:00.000][12][info][wasm] [x.cc:1] wasm log tollgate: {RECORD}"
        );
        let istio = format!(
            "2026-03-01T12:00:00.000000Z\tinfo\tenvoy wasm external/x.cc:1\twasm log openai.tollgate: {RECORD}\tthread=30"
        );
        let istio_json = json!({ "level": "info", "time": "2026-03-01T12:00:00.000000Z", "scope": "envoy wasm",
            "msg": format!("wasm log openai.tollgate: {RECORD}"), "thread": "30" });
        let docker = json!({ "log": format!("{envoy}\n"), "stream": "stderr", "time": "2026-03-01T12:00:00.1Z" });
        let pino = json!({ "level": 30, "time": 1_772_366_400_000_u64, "msg": RECORD });
        let bytes: Vec<u8> = RECORD.bytes().collect();
        for line in [
            RECORD.to_owned(),
            format!("{RECORD}\r"),
            format!("2026-03-01T12:00:00.0Z stdout F {RECORD}"),
            format!("{{pod=\"envoy-1\"}} {RECORD}"),
            format!("{{}} {RECORD}"),
            docker.to_string(),
            istio_json.to_string(),
            pino.to_string(),
            json!({ "MESSAGE": istio_json.to_string(), "_PID": "7" }).to_string(),
            json!({ "MESSAGE": bytes }).to_string(),
            json!({ "message": envoy }).to_string(),
            json!({ "Message": docker.to_string() }).to_string(),
            json!({ "log": istio_json }).to_string(),
            envoy,
            istio,
        ] {
            let text = found(&line).unwrap_or_else(|| panic!("{line}"));
            assert_eq!(text, RECORD, "{line}");
        }
    }

    #[test]
    fn o1_what_is_no_record_is_none() {
        for line in [
            "",
            "{}",
            "root:x:0:0:root:/root:/bin/bash",
            r#"{"time":"2026-03-01T12:00:00Z","level":"info","msg":"started"}"#,
            r#"{"time":"2026-03-01T12:00:00Z","outcome":"success"}"#,
            r#"{"time":"yesterday","outcome":"allowed"}"#,
            r#"{"time":"2026-03-01T12:00:00Z","outcome":null}"#,
            r#"{"time":"2026-03-01T12:00:00Z","outcome":"-"}"#,
            r#"{"msg":{"msg":{"msg":{"msg":{"msg":{"time":"2026-03-01T12:00:00Z","outcome":"allowed"}}}}}}"#,
        ] {
            assert_eq!(found(line), None, "{line}");
        }
        assert_eq!(find(b"{{{{{{{{{{{{{{{{"), Found::Other);
    }

    #[test]
    fn a_record_that_is_cut_off_is_broken() {
        let (cut, _) = RECORD.split_at(60);
        assert_eq!(find(cut.as_bytes()), Found::Broken);
        assert_eq!(find(format!("{{a}} {cut}").as_bytes()), Found::Broken);
        let docker = json!({ "log": cut }).to_string();
        assert_eq!(find(docker.as_bytes()), Found::Broken);
    }
}
