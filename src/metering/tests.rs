use super::*;
use crate::usage::BodyReader as _;

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
const CHAT: Option<Action> = Some(Action::ChatCompletions);

/// What the requests of these tests are estimated at.
const PROMPT: u64 = 11;

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    HeaderMap::from_pairs(
        pairs
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes())),
    )
}

fn meter(content_type: &str, action: Option<Action>) -> Meter {
    let mut meter = Meter::new(&headers(&[("content-type", content_type)]), action);
    meter.see_request(30);
    meter.see_request(11);
    meter
}

fn begin(meter: &mut Meter, status: ResponseStatus, response: &[(&str, &str)]) {
    meter.begin_answer(status, &headers(response), false, false);
}

fn body(meter: &mut Meter, text: &[u8]) {
    meter.on_response_body(text.len());
    if let Some(reader) = meter.reader() {
        reader.push(text, false);
    }
}

fn answer(meter: &mut Meter, status: u16, content_type: &str, text: &str) {
    let status = ResponseStatus::Code(status);
    begin(meter, status, &[("content-type", content_type)]);
    body(meter, text.as_bytes());
}

/// Of one response of an operation: what is reported, and what is estimated.
fn charge(action: Option<Action>, content_type: &str, text: &str) -> (Option<u64>, Option<u64>) {
    let mut meter = meter(JSON, action);
    answer(&mut meter, 200, content_type, text);
    let charge = meter.charge(None);
    let reported = charge.usage.and_then(|usage| usage.tokens());
    (reported, charge.estimated)
}

#[test]
fn what_the_answer_reports_counts() {
    let mut meter = meter(JSON, CHAT);
    answer(&mut meter, 201, JSON, r#"{"usage":{"total_tokens":7}}"#);
    let charge = meter.charge(None);
    assert_eq!((charge.tokens(), charge.estimated), (7, None));
    assert_eq!(meter.is_stream(), Some(false));
}

#[test]
fn l1_text_without_usage_is_charged_by_its_length() {
    let half = format!("{{\"choices\":[{}", " ".repeat(387));
    assert_eq!(half.len(), 399);
    let run = Some(Action::RunsWrite);
    for (action, content_type, text, estimated) in [
        (CHAT, JSON, &*half, PROMPT + 100),
        (Some(Action::Completions), JSON, &half, PROMPT + 100),
        (Some(Action::ResponsesWrite), JSON, &half, PROMPT + 100),
        (run, "application/json; charset=utf-8", &half, PROMPT + 100),
        (None, JSON, &half, PROMPT + 100),
        (None, "application/problem+json", &half, PROMPT + 100),
        (None, "text/plain", &half, PROMPT + 100),
        // Whatever the headers call it, a text operation answers with text.
        (CHAT, "application/octet-stream", &half, PROMPT + 100),
        (CHAT, EVENTS, &half, PROMPT + 100),
        (CHAT, JSON, r#"{"usage":null}"#, PROMPT + 4),
        (CHAT, JSON, r#"{"usage":{"seconds":3}}"#, PROMPT + 6),
        (CHAT, JSON, "", PROMPT),
        // Sound, pictures and vectors are not.
        (Some(Action::Embeddings), JSON, &half, PROMPT),
        (Some(Action::Images), JSON, &half, PROMPT),
        (Some(Action::Audio), JSON, &half, PROMPT),
        (Some(Action::Audio), "audio/mpeg", "ID3", PROMPT),
        (None, "audio/mpeg", &half, PROMPT),
        (None, "image/png", &half, PROMPT),
    ] {
        let found = charge(action, content_type, text);
        assert_eq!(found, (None, Some(estimated)), "{action:?} {content_type}");
    }
}

#[test]
fn l1_a_stream_without_usage_is_charged_by_its_events() {
    let event = "data: {\"choices\":[1]}\n\n";
    for (text, events) in [
        (format!("{event}data: 2\n\ndata: [DONE]\n\n"), 2),
        (format!("{event}data: {{\"cho"), 1),
        (event.repeat(1_000), 1_000),
        (
            format!("{event}event: ping\ndata: {{\"type\":\"ping\"}}\n\n"),
            1,
        ),
    ] {
        for action in [CHAT, None, Some(Action::ResponsesWrite)] {
            let found = charge(action, EVENTS, &text);
            assert_eq!(found, (None, Some(PROMPT + events)), "{action:?} {text:?}");
        }
    }
}

/// A backend that compresses although nobody asked for that.
#[test]
fn l1_what_cannot_be_read_is_charged_by_its_length() {
    for content_type in [JSON, EVENTS] {
        let mut meter = meter(JSON, CHAT);
        let response = [("content-type", content_type), ("content-encoding", "gzip")];
        begin(&mut meter, ResponseStatus::Code(200), &response);
        for _ in 0..10 {
            body(&mut meter, &[0; 40]);
        }
        assert_eq!(meter.charge(None).estimated, Some(PROMPT + 100));
    }
}

#[test]
fn l2_what_was_delivered_can_be_more_than_what_is_held() {
    let event = "data: {\"choices\":[1]}\n\n";
    for (events, estimated) in [(2, 4_111), (4_100, 4_111), (4_101, 4_112), (16_000, 16_011)] {
        let mut meter = meter(JSON, CHAT);
        meter.reserve(4_111);
        answer(&mut meter, 200, EVENTS, &event.repeat(events));
        assert_eq!(meter.charge(None).estimated, Some(estimated), "{events}");
    }
}

#[test]
fn l3_a_response_that_the_gateway_made_on_timing_out_is_a_call() {
    for (timed_out, status, estimated) in [
        (true, 504, Some(9_011)),
        (true, 408, Some(9_011)),
        (false, 504, None),
        (false, 408, None),
    ] {
        for (reserved, least) in [(9_011, 9_011), (0, PROMPT)] {
            let mut meter = meter(JSON, CHAT);
            meter.reserve(reserved);
            let response = headers(&[("content-type", "text/plain")]);
            let status = ResponseStatus::Code(status);
            meter.begin_answer(status, &response, timed_out, false);
            body(&mut meter, b"stream timeout");
            let charge = meter.charge(None);
            assert_eq!(charge.estimated, estimated.map(|_| least), "{status:?}");
            assert_eq!(charge.usage, None);
        }
    }
}

#[test]
fn l4_a_count_that_cannot_be_is_no_usage() {
    for usage in [
        r#"{"total_tokens":18446744073709551615}"#,
        r#"{"total_tokens":18446744073709551616}"#,
        r#"{"total_tokens":1099511627777}"#,
        r#"{"total_tokens":-1}"#,
        r#"{"total_tokens":7.5}"#,
        r#"{"total_tokens":1e3}"#,
        r#"{"total_tokens":"7"}"#,
        r#"{"total_tokens":true}"#,
        r#"{"prompt_tokens":-5,"completion_tokens":2,"total_tokens":7}"#,
        r#"{"input_tokens":1099511627776,"output_tokens":1}"#,
        r#"{"prompt_tokens":1,"completion_tokens":9007199254740993}"#,
        "7",
        "[]",
        "\"none\"",
    ] {
        let text = format!("{{\"usage\":{usage}}}");
        let bytes = u64::try_from(text.len()).unwrap();
        let estimated = Some(PROMPT + bytes.div_ceil(4));
        assert_eq!(charge(CHAT, JSON, &text), (None, estimated), "{usage}");
        let event = format!("data: {text}\n\n");
        assert_eq!(charge(CHAT, EVENTS, &event), (None, Some(PROMPT + 1)));
        // What was reported before stays.
        let both = format!("data: {{\"usage\":{{\"total_tokens\":25}}}}\n\n{event}");
        assert_eq!(charge(CHAT, EVENTS, &both), (Some(25), Some(1)), "{usage}");
    }
    let most = r#"{"usage":{"total_tokens":1099511627776}}"#;
    assert_eq!(charge(CHAT, JSON, most), (Some(1 << 40), None));
}

#[test]
fn l5_what_comes_after_the_last_usage_counts_on_top() {
    let usage = "data: {\"usage\":{\"total_tokens\":25}}\n\n";
    let delta = "data: {\"object\":\"thread.message.delta\"}\n\n";
    let done = "event: done\ndata: [DONE]\n\n";
    let many = delta.repeat(10_000);
    for (text, expected) in [
        (format!("{usage}{many}{done}"), (Some(25), Some(10_000))),
        (format!("{many}{usage}{done}"), (Some(25), None)),
        (
            format!("{delta}{usage}{delta}{usage}{delta}{delta}"),
            (Some(25), Some(2)),
        ),
        (format!("{usage}{delta}data: half"), (Some(25), Some(1))),
        (
            format!("{delta}{delta}{}", usage.trim_end()),
            (Some(25), None),
        ),
        (
            format!("{usage}{usage}data: {{\"usage\":null}}\n\n{done}"),
            (Some(25), Some(1)),
        ),
        (
            format!(
                "{usage}: comment\n\n{usage}event: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n"
            ),
            (Some(25), None),
        ),
    ] {
        assert_eq!(charge(CHAT, EVENTS, &text), expected, "{}", text.len());
    }
}

/// A run's steps each report their own; the run reports their sum.
#[test]
fn l5_the_steps_of_a_run_add_up() {
    let step = |tokens: u64| {
        format!(
            "event: thread.run.step.completed\n\
             data: {{\"object\":\"thread.run.step\",\"usage\":{{\"prompt_tokens\":{tokens},\"completion_tokens\":5}}}}\n\n"
        )
    };
    let run = |tokens: u64| {
        format!(
            "event: thread.run.completed\n\
             data: {{\"object\":\"thread.run\",\"usage\":{{\"total_tokens\":{tokens}}}}}\n\n"
        )
    };
    let delta = "data: {\"object\":\"thread.message.delta\"}\n\n";
    for (text, expected) in [
        (step(20) + delta, (Some(25), Some(1))),
        (step(20) + delta + &step(30), (Some(60), None)),
        (
            step(20) + delta + &step(30) + delta + delta,
            (Some(60), Some(2)),
        ),
        (step(20) + &step(30) + &step(1) + &run(66), (Some(66), None)),
        (step(20) + &step(30) + &run(7) + delta, (Some(7), Some(1))),
        (step(20) + step(30).trim_end(), (Some(60), None)),
    ] {
        let found = charge(Some(Action::RunsWrite), EVENTS, &text);
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn o3_the_tokens_of_tools_count_on_top() {
    let tools = r#""tool_usage":{"image_gen":{"input_tokens":65,"input_tokens_details":{"image_tokens":0,"text_tokens":65},
        "output_tokens":7259,"total_tokens":7324},"web_search":{"num_requests":2}}"#;
    let usage = r#""usage":{"input_tokens":2000,"output_tokens":30,"total_tokens":2030}"#;
    for text in [
        format!("{{{usage},{tools}}}"),
        format!("{{{tools},{usage}}}"),
        format!("{{\"response\":{{{tools},{usage}}}}}"),
    ] {
        let found = charge(Some(Action::ResponsesWrite), JSON, &text);
        assert_eq!(found, (Some(9_354), None), "{text}");
        let events = format!("data: {}\n\n", text.replace('\n', " "));
        let zeros = r#"{"response":{"usage":null,"tool_usage":{"image_gen":{"total_tokens":0}}}}"#;
        let stream = format!("data: {zeros}\n\n{events}");
        let found = charge(Some(Action::ResponsesWrite), EVENTS, &stream);
        assert_eq!(found, (Some(9_354), None), "{stream}");
    }
    let several = r#"{"usage":{"total_tokens":5},"tool_usage":{"a":{"total_tokens":1},"b":{"input_tokens":2,"output_tokens":3},
        "c":null,"d":7,"e":{"total_tokens":-4},"f":{"total_tokens":18446744073709551615}}}"#;
    assert_eq!(charge(CHAT, JSON, several), (Some(11), None));
    // Without usage they are part of the estimate.
    let alone = format!("{{{tools},\"usage\":null}}");
    let bytes = u64::try_from(alone.len()).unwrap().div_ceil(4);
    let estimated = Some(PROMPT + bytes + 7_324);
    assert_eq!(charge(CHAT, JSON, &alone), (None, estimated));
    for none in ["null", "7", "[]", "{}", "\"\"", r#"{"web_search":{}}"#] {
        let text = format!("{{{usage},\"tool_usage\":{none}}}");
        assert_eq!(charge(CHAT, JSON, &text), (Some(2_030), None), "{none}");
    }
}

#[test]
fn j11_without_a_response_it_is_what_was_held_or_the_prompt() {
    let mut left = meter(JSON, CHAT);
    assert_eq!(left.charge(None).estimated, Some(PROMPT));
    left.reserve(1_011);
    assert_eq!(left.charge(None).estimated, Some(1_011));
    assert_eq!(left.is_stream(), None);
    let sound = meter("multipart/form-data; boundary=x", Some(Action::Audio));
    assert_eq!(sound.charge(None).estimated, Some(0));
}

#[test]
fn h2_a_response_without_status_is_estimated() {
    let text = r#"{"usage":{"total_tokens":7}}"#;
    for (text, estimated) in [(text, PROMPT + 7), (&text.replace('7', "700"), 700)] {
        let mut meter = meter(JSON, CHAT);
        begin(
            &mut meter,
            ResponseStatus::Unknown,
            &[("content-type", JSON)],
        );
        body(&mut meter, text.as_bytes());
        let charge = meter.charge(None);
        assert_eq!((charge.usage, charge.estimated), (None, Some(estimated)));
    }
}

#[test]
fn a_call_that_failed_is_charged_nothing() {
    for status in [400, 401, 429, 500, 503, 504, 101, 302] {
        let mut meter = meter(JSON, CHAT);
        meter.reserve(500);
        answer(&mut meter, status, JSON, r#"{"usage":{"total_tokens":7}}"#);
        assert_eq!(meter.charge(None), Charge::default(), "{status}");
    }
}

#[test]
fn l13_a_prompt_that_was_read_is_estimated_by_what_is_in_it() {
    let picture = format!("data:image/png;base64,{}", "QUJD".repeat(10_000));
    let text = format!(r#"{{"messages":[{{"content":[{{"image_url":{{"url":"{picture}"}}}}]}}]}}"#);
    let around = u64::try_from(text.len() - picture.len()).unwrap();
    let types = headers(&[("content-type", JSON)]);
    let mut request = RequestBody::new(&types, false);
    request.push(text.as_bytes(), true);
    let mut meter = Meter::new(&types, CHAT);
    meter.see_request(text.len());
    let expected = Some(around.div_ceil(4) + 1_500);
    assert_eq!(meter.charge(Some(&request)).estimated, expected);
    // Held is the same, and what its answer may have.
    assert_eq!(Some(request.bound(CHAT) - 4_096), expected);
    let request = request.with_image_tokens(85);
    assert_eq!(
        Some(request.bound(CHAT) - 4_096),
        expected.map(|tokens| tokens - 1_415)
    );
    // Of a form nothing is text.
    let form = headers(&[("content-type", "multipart/form-data; boundary=x")]);
    let mut meter = Meter::new(&form, Some(Action::Audio));
    meter.see_request(text.len());
    assert_eq!(meter.charge(Some(&request)).estimated, Some(0));
}

#[test]
fn l1_a_text_operation_is_charged_its_prompt_whatever_its_body_is_called() {
    let form = headers(&[("content-type", "multipart/form-data; boundary=x")]);
    for action in [Action::ChatCompletions, Action::Embeddings] {
        let mut meter = Meter::new(&form, Some(action));
        meter.see_request(400);
        assert_eq!(meter.charge(None).estimated, Some(100), "{action}");
    }
}
