use super::*;

fn read(text: &[u8]) -> JsonUsageReader {
    let mut whole = JsonUsageReader::new();
    whole.push(text);
    let mut single = JsonUsageReader::new();
    for byte in text.chunks(1) {
        single.push(byte);
    }
    assert_eq!(
        (single.usage(), single.is_error(), single.is_complete()),
        (whole.usage(), whole.is_error(), whole.is_complete()),
        "{}",
        String::from_utf8_lossy(text)
    );
    whole
}

fn total(text: &str) -> Option<u64> {
    read(text.as_bytes()).usage().and_then(|usage| usage.total)
}

#[test]
fn finds_usage_where_it_belongs() {
    for (text, expected) in [
        (r#"{"usage":{"total_tokens":3}}"#, Some(3)),
        (r#"{"\u0075sage":{"total_tokens":3}}"#, Some(3)),
        (
            "\u{feff} {\n \"usage\" :\t{ \"total_tokens\" : 3 } }\n",
            Some(3),
        ),
        (r#"{"response":{"usage":{"total_tokens":3}}}"#, Some(3)),
        (
            r#"{"response":{"a":{"b":1},"usage":null},"usage":{"total_tokens":3}}"#,
            Some(3),
        ),
        (
            r#"{"response":{},"x":[{"usage":{"total_tokens":9}}],"usage":{"total_tokens":3}}"#,
            Some(3),
        ),
        (
            r#"{"usage":{"total_tokens":1},"usage":null,"usage":{"total_tokens":3},"usage":null}"#,
            Some(3),
        ),
        (
            r#"{"a":"\"usage\":{\"total_tokens\":9}","b":-1.5e3,"c":true,"usage":{"total_tokens":3}}"#,
            Some(3),
        ),
        (
            r#"{"a":"}\\","b":["]",[["\\\""]]],"usage":{"total_tokens":3,"x":"}"}}"#,
            Some(3),
        ),
        // Elsewhere it means something else.
        (r#"[{"usage":{"total_tokens":9}}]"#, None),
        (r#"{"data":{"usage":{"total_tokens":9}}}"#, None),
        (
            r#"{"response":{"response":{"usage":{"total_tokens":9}}}}"#,
            None,
        ),
        (r#"{"response":[{"usage":{"total_tokens":9}}]}"#, None),
        (r#"{"Usage":{"total_tokens":9}}"#, None),
        (r#"{"usage":null}"#, None),
        (r#""usage""#, None),
        ("", None),
    ] {
        assert_eq!(total(text), expected, "{text}");
    }
}

#[test]
fn keeps_what_was_seen_of_an_answer_that_breaks_off() {
    for rest in ["", ",", ",\"a\":\"", ",\"a\":[[", ",x", "]", "}}", "\0"] {
        let text = format!("{{\"usage\":{{\"total_tokens\":3}}{rest}");
        assert_eq!(total(&text), Some(3), "{text}");
    }
    // Half a usage is none.
    let half = read(br#"{"usage":{"total_tokens":3"#);
    assert_eq!(half.usage(), None);
    assert!(!half.is_complete());
}

#[test]
fn what_is_no_usage_is_noted() {
    for text in [
        r#"{"usage":"none"}"#,
        r#"{"usage":7,"a":1}"#,
        r#"{"usage":[{"total_tokens":3}]}"#,
        r#"{"usage":{"total_tokens":"3"}}"#,
        r#"{"usage":{]}"#,
    ] {
        let usage = read(text.as_bytes()).usage().unwrap();
        assert_eq!(
            usage,
            Usage {
                malformed: true,
                ..Usage::default()
            },
            "{text}"
        );
    }
    let later = read(br#"{"usage":true,"usage":{"total_tokens":3}}"#)
        .usage()
        .unwrap();
    assert_eq!((later.total, later.malformed), (Some(3), true));
}

#[test]
fn a_usage_too_long_is_not_kept() {
    let long = |length: usize| {
        format!(
            "{{\"usage\":{{\"total_tokens\":3,\"x\":\"{}\"}}}}",
            "x".repeat(length)
        )
    };
    assert_eq!(total(&long(MAX_USAGE - 64)), Some(3));
    let reader = read(long(MAX_USAGE).as_bytes());
    assert!(reader.usage().unwrap().malformed);
    assert!(reader.is_complete());
    assert!(reader.long.whole().is_none());
}

#[test]
fn tells_errors() {
    for (text, expected) in [
        (r#"{"error":{"code":"429"}}"#, true),
        (r#"{"error":"overloaded"}"#, true),
        (r#"{"type":"error","code":"server_error"}"#, true),
        (
            r#"{"type":"response.failed","response":{"error":{"code":"server_error"}}}"#,
            true,
        ),
        (r#"{"error":null,"response":{"error":null}}"#, false),
        (
            r#"{"type":"response.error_free","choices":[{"error":{}}]}"#,
            false,
        ),
        (r#"{"message":"error","type":["error"]}"#, false),
    ] {
        assert_eq!(read(text.as_bytes()).is_error(), expected, "{text}");
    }
}

#[test]
fn tells_the_chunk_that_only_carries_usage() {
    for (text, expected) in [
        (r#"{"choices":[],"usage":{"total_tokens":3}}"#, true),
        (r#"{"usage":{"total_tokens":3},"choices": [ ] }"#, true),
        (r#"{"choices":[],"prompt_filter_results":[{}]}"#, false),
        (r#"{"choices":[],"usage":null}"#, false),
        (r#"{"choices":[{}],"usage":{"total_tokens":3}}"#, false),
        (
            r#"{"choices":[{}],"choices":[],"usage":{"total_tokens":3}}"#,
            false,
        ),
        (
            r#"{"choices":[],"choices":[{}],"usage":{"total_tokens":3}}"#,
            false,
        ),
        (r#"{"choices":{},"usage":{"total_tokens":3}}"#, false),
        (r#"{"choices":[],"usage":{"total_tokens":3}"#, false),
        (
            r#"{"response":{"choices":[],"usage":{"total_tokens":3}}}"#,
            false,
        ),
        (r#"{"usage":{"total_tokens":3}}"#, false),
    ] {
        assert_eq!(read(text.as_bytes()).is_only_usage(), expected, "{text}");
        // As long as it may be one, it is held back: never let go too early.
        let mut reader = JsonUsageReader::new();
        for byte in text.as_bytes().chunks(1) {
            reader.push(byte);
            assert!(!expected || reader.may_be_only_usage(), "{text}");
        }
    }
}

#[test]
fn depth_is_a_counter() {
    let deep = "[{\"a\":".repeat(100_000);
    let shut = "}]".repeat(100_000);
    let text = format!("{{\"a\":{deep}1{shut},\"usage\":{{\"total_tokens\":3}}}}");
    assert_eq!(total(&text), Some(3));
}
