//! Answers: every cut says the same of what was used, and what is not taken out goes on as it came.

use serde_json::Value;
use tollgate::usage::{EventFilter, EventStreamReader, JsonUsageReader, Usage};

use super::{Members, Target, cuts};

#[derive(Debug, PartialEq, Eq)]
struct Said {
    usage: Option<Usage>,
    is_error: bool,
    ended: bool,
    events: u64,
    after_usage: u64,
}

// JSON

const ANSWER: &str = r#"{"id":"x","choices":[{"message":{"content":"\"usage\""}}],"usage":{"prompt_tokens":3,
    "completion_tokens":4,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":1}}}"#;

pub(super) const JSON: Target = Target {
    name: "json",
    seeds: || {
        let seeds = [
            ANSWER,
            r#"{"type":"response.completed","response":{"usage":{"input_tokens":1,"output_tokens":2,"total_tokens":3}}}"#,
            r#"{"usage":null,"error":{"message":"no"}}"#,
            r#"{"tool_usage":{"image_gen":{"input_tokens":1,"output_tokens":2},"x":3},"usage":{"total_tokens":4}}"#,
            r#"{"us\u0061ge":{"total_tokens":"7"},"choices":[]}"#,
            r#"{"usage":{"total_tokens":1},"usage":{"total_tokens":2}} "#,
            r#"{"data":[[[{"usage":{"total_tokens":9}}]]],"object":"list""#,
            "{}",
            "[1]",
            "not JSON",
        ];
        seeds.map(|seed| seed.as_bytes().to_vec()).into()
    },
    check: json,
    outcomes: &["usage", "malformed usage", "error", "no usage", "cut off"],
    words: &[
        "\"usage\":",
        "\"total_tokens\":",
        "\"tool_usage\":{\"x\":",
        "\"prompt_tokens\":",
        "\"response\":",
        "\"error\":",
        "\"choices\":",
        "\"type\":",
        "{",
        "}",
        "[",
        "]",
        "\"",
        "\\",
        ",",
        ":",
        "null",
        "7",
        "-1",
        "1.5",
        "1e400",
        "\u{feff}",
        "18446744073709551615",
        "\\u0061",
    ],
};

fn read_json(parts: &[&[u8]]) -> Said {
    let mut reader = JsonUsageReader::new();
    parts.iter().for_each(|part| reader.push(part));
    Said {
        usage: reader.usage(),
        is_error: reader.is_error(),
        ended: reader.is_complete(),
        events: 0,
        after_usage: 0,
    }
}

fn json(input: &[u8]) -> String {
    let said = read_json(&[input]);
    for parts in cuts(input) {
        assert_eq!(read_json(&parts), said);
    }
    if let Some(members) = Members::read(input).filter(Members::are_unique) {
        assert!(said.ended);
        if let Some(total) = plain_total(&members) {
            assert_eq!(said.usage.unwrap().total, Some(total));
        }
        let is_null = |name| members.get(name).is_none_or(Value::is_null);
        if is_null("usage") && is_null("response") && is_null("tool_usage") {
            assert_eq!(said.usage, None);
        }
    }
    match said {
        Said {
            usage: Some(usage), ..
        } if usage.malformed => "malformed usage",
        Said { usage: Some(_), .. } => "usage",
        Said { is_error: true, .. } => "error",
        Said { ended: true, .. } => "no usage",
        Said { .. } => "cut off",
    }
    .to_owned()
}

/// The total of a usage that is of the form that it should be.
fn plain_total(members: &Members) -> Option<u64> {
    let usage = members.get("usage")?;
    let is_count = |value: &Value| value.as_u64().is_some_and(|count| count < 1 << 53);
    let is_plain = usage.to_string().len() < 1_000
        && usage.as_object()?.values().all(is_count)
        && members.get("response").is_none();
    usage["total_tokens"].as_u64().filter(|_| is_plain)
}

// Events

const STREAM: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\n\
    data: {\"choices\":[],\"usage\":{\"total_tokens\":7}}\n\ndata: [DONE]\n\n";

pub(super) const EVENTS: Target = Target {
    name: "events",
    seeds: || {
        vec![
            STREAM.as_bytes().to_vec(),
            STREAM.replace('\n', "\r\n").into_bytes(),
            STREAM.replace('\n', "\r").into_bytes(),
            format!("\u{feff}: comment\n{STREAM}").into_bytes(),
            b"event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"usage\":\
                {\"input_tokens\":1,\"output_tokens\":2}}}\n\n"
                .to_vec(),
            b"event: error\ndata: {\"error\":{}}\n\n".to_vec(),
            b"data: {\"object\":\"thread.run.step\",\"usage\":{\"total_tokens\":2}}\n\ndata: {\"type\":\"ping\"}\n\n\
                data: 1\n\ndata: {\"object\":\"thread.run.step\",\"usage\":{\"total_tokens\":3}}\n\ndata: 2\n\n"
                .to_vec(),
            b"data: {\"choices\":[],\ndata: \"usage\":{\"total_tokens\":7}}\n\n".to_vec(),
            b"data: {\"choices\":[],\"usage\":{\"total_tokens\":7}}".to_vec(),
            b"data\nid: 7\nretry: 1\n\n".to_vec(),
        ]
    },
    check: events,
    outcomes: &["taken out", "usage", "error", "no usage"],
    words: &[
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        "data:",
        "data: ",
        "event: error",
        ":",
        "[DONE]",
        "{\"choices\":[",
        "]",
        "{",
        "}",
        "\"usage\":{\"total_tokens\":7}",
        "\u{feff}",
        "id: 1",
        "null",
        "\"",
        "data: {\"choices\":[],\"usage\":{}}\n\n",
        "\"object\":\"thread.run.step\",",
        "\"type\":\"message_stop\"",
    ],
};

fn read_events(parts: &[&[u8]]) -> Said {
    let mut reader = EventStreamReader::new();
    parts.iter().for_each(|part| reader.push(part));
    said(&reader)
}

fn said(reader: &EventStreamReader) -> Said {
    Said {
        usage: reader.usage(),
        is_error: reader.is_error(),
        ended: reader.is_done(),
        events: reader.events(),
        after_usage: reader.events_after_usage(),
    }
}

fn filter(parts: &[&[u8]]) -> (Vec<u8>, Said) {
    let mut filter = EventFilter::new();
    let mut passed = Vec::new();
    for part in parts {
        passed.extend_from_slice(filter.push(part).unwrap_or(part));
    }
    passed.extend(filter.finish());
    (passed, said(filter.reader()))
}

fn events(input: &[u8]) -> String {
    let said = read_events(&[input]);
    let (passed, of_filter) = filter(&[input]);
    assert_eq!(of_filter, said);
    assert!(said.after_usage <= said.events);
    for parts in cuts(input) {
        assert_eq!(read_events(&parts), said);
        assert_eq!(filter(&parts), (passed.clone(), read_events(&[input])));
    }
    // What goes on is what came, in its order, with pieces left out that carry usage and no choice.
    let mut rest = input.iter();
    assert!(passed.iter().all(|byte| rest.any(|came| came == byte)));
    let is_whole = passed.len() == input.len();
    if !is_whole {
        assert!(said.usage.is_some());
        let left_out = input.len() - passed.len();
        assert!(
            left_out >= br#"data:{"choices":[],"usage":7}"#.len(),
            "{left_out}"
        );
    }
    match said {
        _ if !is_whole => "taken out",
        Said { usage: Some(_), .. } => "usage",
        Said { is_error: true, .. } => "error",
        Said { .. } => "no usage",
    }
    .to_owned()
}
