use super::*;

fn read(text: &[u8]) -> EventStreamReader {
    let mut whole = EventStreamReader::new();
    whole.push(text);
    for cut in 0..=text.len() {
        let (first, second) = text.split_at(cut);
        let mut parts = EventStreamReader::new();
        parts.push(first);
        parts.push(second);
        assert_eq!(
            (parts.usage(), parts.is_error(), parts.is_done()),
            (whole.usage(), whole.is_error(), whole.is_done()),
            "{:?} cut at {cut}",
            String::from_utf8_lossy(text)
        );
    }
    whole
}

fn total(text: &[u8]) -> Option<u64> {
    read(text).usage().and_then(|usage| usage.total)
}

#[test]
fn reads_lines_as_the_standard_says() {
    let usage = r#"{"usage":{"total_tokens":3}}"#;
    for form in [
        "data: U\n\n",
        "data:U\n\n",
        "data:  U\n\n",
        "data: U\r\n\r\n",
        "data: U\r\r",
        "data: U\r\n\n",
        "data: U\n",
        "data: U",
        "\u{feff}data: U\n\n",
        "\n\n\r\n\rdata: U\n\n",
        ": ping\n\ndata: U\n\n: ping\n\n",
        ": data: x\ndata: U\n:\n\n",
        "event: message\nid: 7\nretry: 3\nunknown: x\nnocolon\ndata: U\n\n",
        "data\ndata: U\n\n",
        "data: U\n\ndata: {\"usage\":null}\n\ndata: [DONE]\n\n",
        "data: {\"usage\":{\"total_tokens\":1}}\n\ndata: U\n\n",
        "data: {\"broken\n\ndata: U\n\n",
        "data: {\"response\":{\n\ndata: {\"response\":U}\n\n",
    ] {
        let text = form.replace('U', usage);
        assert_eq!(total(text.as_bytes()), Some(3), "{form:?}");
    }
    for form in [
        "Data: U\n\n",
        "data : U\n\n",
        " data: U\n\n",
        "datas: U\n\n",
        "dat: U\n\n",
        ": data: U\n\n",
        "event: U\n\n",
        "\u{feff}\u{feff}data: U\n\n",
        "\u{feff}\n\u{feff}data: U\n\n",
        "data: x\ndata: U\n\n",
        "data: [\ndata: U\n\n",
        "U\n\n",
    ] {
        let text = form.replace('U', usage);
        assert_eq!(total(text.as_bytes()), None, "{form:?}");
    }
}

#[test]
fn joins_lines_of_data() {
    let text = "data: {\"usage\":\r\ndata: {\"total_tokens\"\ndata\rdata::3}}\n\n";
    assert_eq!(total(text.as_bytes()), Some(3));
    // Inside a number the line feed ends it: this is 3, then something else.
    let number = total(b"data: {\"usage\":{\"total_tokens\":1\ndata: 2}}\n\n");
    assert_eq!(number, None);
}

#[test]
fn part_of_a_mark_is_none() {
    assert_eq!(
        total(b"\xef\xbbdata: {\"usage\":{\"total_tokens\":3}}\n\n"),
        None
    );
    let next = b"\xefdata: x\ndata: {\"usage\":{\"total_tokens\":3}}\n\n";
    assert_eq!(total(next), Some(3));
}

#[test]
fn reads_a_chat_stream() {
    let reader = read(
        concat!(
            "data: {\"choices\":[],\"prompt_filter_results\":[{\"prompt_index\":0}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"\u{e9}\\\"\"}}],\"usage\":null}\n\n",
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,",
            "\"total_tokens\":3}}\n\ndata: [DONE]\n\n",
        )
        .as_bytes(),
    );
    assert_eq!(reader.usage().unwrap().total, Some(3));
    assert!(reader.is_done());
    assert!(!reader.is_error());
}

#[test]
fn reads_responses_images_and_transcriptions() {
    for (kind, body) in [
        (
            "response.completed",
            r#""response":{"status":"completed","usage":U}"#,
        ),
        (
            "response.incomplete",
            r#""response":{"usage":U,"error":null}"#,
        ),
        (
            "response.failed",
            r#""response":{"error":{"code":"x"},"usage":U}"#,
        ),
        (
            "image_generation.completed",
            r#""b64_json":"AAAA","usage":U"#,
        ),
        ("transcript.text.done", r#""text":"hello","usage":U"#),
    ] {
        let body = body.replace(
            'U',
            r#"{"input_tokens":1,"output_tokens":2,"total_tokens":3}"#,
        );
        let text = format!(
            "event: response.created\ndata: {{\"response\":{{\"usage\":null}}}}\n\n\
             event: {kind}\ndata: {{\"type\":\"{kind}\",{body}}}\n\n"
        );
        let reader = read(text.as_bytes());
        let usage = reader.usage().unwrap();
        assert_eq!(
            (usage.prompt, usage.completion, usage.total),
            (Some(1), Some(2), Some(3)),
            "{kind}"
        );
        assert_eq!(reader.is_error(), kind == "response.failed", "{kind}");
        assert!(!reader.is_done());
    }
}

#[test]
fn notes_errors_in_the_middle() {
    let first = "data: {\"choices\":[{}],\"usage\":{\"total_tokens\":3}}\n\n";
    for error in [
        "data: {\"error\":{\"code\":\"content_filter\"}}\n\n",
        "event: error\ndata: {\"code\":\"server_error\"}\n\n",
        "event: error\r\ndata: overloaded",
        "data: {\"type\":\"error\",\"code\":\"rate_limit_exceeded\"}\n\n",
    ] {
        let text = format!("{first}{error}");
        assert!(read(text.as_bytes()).is_error(), "{error}");
        assert_eq!(total(text.as_bytes()), Some(3), "{error}");
    }
    for fine in [
        "event: error\n\ndata: {}\n\n",
        "event: errors\ndata: {}\n\n",
        "event: error\nevent: message\ndata: {}\n\n",
    ] {
        assert!(!read(fine.as_bytes()).is_error(), "{fine}");
    }
}

#[test]
fn done_is_exact() {
    for (text, expected) in [
        ("data: [DONE]\n\n", true),
        ("data:[DONE]", true),
        ("data: [DONE] \n\n", false),
        ("data: [DONE\n\n", false),
        ("data: [DONE]\ndata: x\n\n", false),
        ("event: [DONE]\n\n", false),
    ] {
        assert_eq!(read(text.as_bytes()).is_done(), expected, "{text:?}");
    }
}
