use super::*;
use crate::operations::Operation;

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pairs = pairs.iter();
    HeaderMap::from_pairs(pairs.map(|(name, value)| (name.as_bytes(), value.as_bytes())))
}

const JSON: (&str, &str) = ("content-type", "application/json");

/// What the backend receives of a body that arrives in these pieces.
fn sent(body: &mut RequestBody, pieces: &[&[u8]]) -> String {
    let mut sent = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        match body.push(piece, index + 1 == pieces.len()) {
            Passed::Unchanged => sent.extend_from_slice(piece),
            Passed::Replaced(output) => sent.extend_from_slice(output),
        }
    }
    String::from_utf8(sent).unwrap()
}

/// The same for every cut in two, and byte by byte.
fn injected(text: &str) -> (String, bool) {
    let bytes = text.as_bytes();
    let mut whole = RequestBody::new(&headers(&[JSON]), true);
    let expected = sent(&mut whole, &[bytes]);
    for cut in 0..=bytes.len() {
        let (first, second) = bytes.split_at(cut);
        let mut body = RequestBody::new(&headers(&[JSON]), true);
        assert_eq!(
            sent(&mut body, &[first, second]),
            expected,
            "{text} at {cut}"
        );
        assert_eq!(body.usage_was_injected(), whole.usage_was_injected());
        assert!(body.held.is_empty());
    }
    let single: Vec<&[u8]> = bytes.chunks(1).chain([&b""[..]]).collect();
    let mut body = RequestBody::new(&headers(&[JSON]), true);
    assert_eq!(sent(&mut body, &single), expected, "{text}");
    (expected, whole.usage_was_injected())
}

#[test]
fn a_stream_that_does_not_ask_for_usage_does_so_now() {
    for (body, expected) in [
        (
            r#"{"stream":true}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            "{\"stream\": true, \"messages\": []\n} \n",
            "{\"stream\": true, \"messages\": []\n,\"stream_options\":{\"include_usage\":true}} \n",
        ),
        (
            r#"{"stream":true,"stream_options":{}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"stream_options":{"include_usage":false,"include_obfuscation":false},"stream":true}"#,
            r#"{"stream_options":{"include_obfuscation":false,"include_usage":true},"stream":true}"#,
        ),
        (
            r#"{"stream":true,"stream_options":null,"n":1}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true},"n":1}"#,
        ),
        // What has members twice is read as the backend likes.
        (
            r#"{"stream":true,"stream_options":{"include_usage":true,"include_usage":false}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_usage":true,"Include_Usage":false,"a":1}}"#,
            r#"{"stream":true,"stream_options":{"a":1,"include_usage":true}}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"a":1,"a":2}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"data_sources":null,"stream":true}"#,
            r#"{"data_sources":null,"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"stream":true,"data_sources":[]}"#,
            r#"{"stream":true,"data_sources":[],"stream_options":{"include_usage":true}}"#,
        ),
    ] {
        assert_eq!(injected(body), (expected.to_owned(), true), "{body}");
    }
}

#[test]
fn every_other_body_stays_as_it_is() {
    for body in [
        "{}",
        r#"{"stream":false}"#,
        r#"{"stream":null}"#,
        r#"{"model":"x","messages":[{"stream":true}]}"#,
        r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
        r#"{"stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false}}"#,
        r#"{"data_sources":[{}],"stream":true}"#,
        r#"{"stream":true,"stream_options":7}"#,
        r#"{"stream":true,"stream_options":[{"a":1,"a":2}]}"#,
        r#"{"stream":true,"stream_options":{"a":,}}"#,
        r#"{"stream":false,"stream_options":null}"#,
        r#"{"stream_options":null}"#,
        r#"{"stream":true,"stream":true}"#,
        r#"{"stream":true"#,
        "not JSON",
        "",
    ] {
        assert_eq!(injected(body), (body.to_owned(), false), "{body}");
    }
}

#[test]
fn a_body_that_cannot_be_read_stays_as_it_is_from_there_on() {
    let text = r#"{"stream":true,"stream_options":{},,}"#;
    let mut body = RequestBody::new(&headers(&[JSON]), true);
    assert_eq!(sent(&mut body, &[text.as_bytes()]), text);
    assert!(!body.usage_was_injected());
}

#[test]
fn long_options_are_not_held() {
    let options = format!(r#"{{"x":"{}"}}"#, "x".repeat(2 * MAX_HELD));
    let text = format!(r#"{{"stream":true,"stream_options":{options}}}"#);
    let mut body = RequestBody::new(&headers(&[JSON]), true);
    for piece in text.as_bytes().chunks(100) {
        body.push(piece, false);
        assert!(body.held.len() <= MAX_HELD);
    }
    assert!(!body.usage_was_injected());
}

#[test]
fn the_model_is_read_where_there_is_one_reading() {
    let model = |pairs: &[(&str, &str)], text: &str| {
        let mut body = RequestBody::new(&headers(pairs), false);
        assert_eq!(sent(&mut body, &[text.as_bytes()]), text);
        assert!(body.is_complete());
        body.model().map(|model| model.map(str::to_owned))
    };
    let named = Ok(Some("gpt-4o".to_owned()));
    let text = r#"{"model":"gpt-4o"}"#;
    for content_type in [
        "application/json",
        "application/json; charset=utf-8",
        "application/json;charset=\"UTF-8\"",
        "application/vnd.x+json",
    ] {
        assert_eq!(
            model(&[("content-type", content_type)], text),
            named,
            "{content_type}"
        );
    }
    assert_eq!(model(&[], text), named);
    for content_type in [
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
        "text/html",
        "application/octet-stream",
        "application/x-www-form-urlencoded, a/b+json",
        "application/x-www-form-urlencoded a/b+json",
        "multipart/form-data/x+json",
        "/x+json",
        "x+json",
        "",
    ] {
        let refused = model(&[("content-type", content_type)], text);
        assert_eq!(refused, Err(BodyError::MediaType), "{content_type}");
    }
    assert_eq!(
        model(&[JSON, ("content-type", "text/html")], text),
        Err(BodyError::MediaType)
    );
    assert_eq!(model(&[JSON], "{}"), Ok(None));
    assert_eq!(model(&[JSON], ""), Err(BodyError::Truncated));
    assert_eq!(
        model(&[JSON], "{\"model\":\"a\"}x"),
        Err(BodyError::NotJson)
    );
}

#[test]
fn all_is_known_at_the_closing_bracket_and_nothing_before() {
    let mut body = RequestBody::new(&headers(&[JSON]), false);
    body.push(br#"{"model":"a","x":[1,2]"#, false);
    assert!(!body.is_complete());
    assert_eq!(body.model(), Err(BodyError::Truncated));
    body.push(b"}", false);
    assert!(body.is_complete());
    assert_eq!(body.model(), Ok(Some("a")));
}

/// A backend that reads only the last object, or finds a form behind the first, gets none.
#[test]
fn nothing_follows_what_was_decided_on() {
    let first = r#"{"model":"a","max_tokens":1}"#;
    for more in [
        r#"{"model":"b"}"#,
        "\r\n--x\r\n",
        "0",
        "\0",
        "\u{c}",
        "\u{feff}",
    ] {
        for inject in [false, true] {
            let mut body = RequestBody::new(&headers(&[JSON]), inject);
            let pieces = [first, " \n", more, more, ""].map(str::as_bytes);
            let blank = " ".repeat(2 * more.len());
            assert_eq!(sent(&mut body, &pieces), format!("{first} \n{blank}"));
            // As if it had come at once.
            assert_eq!(body.model(), Err(BodyError::NotJson));
            assert_eq!(body.bound(Some(Action::ChatCompletions)), u64::MAX);
        }
    }
    // What could not be read is refused, or goes on as it is where nobody refuses.
    for other in [["[] ", "[]"], ["{} x", "{}"], ["x", "{}"]] {
        let mut body = RequestBody::new(&headers(&[JSON]), true);
        assert_eq!(sent(&mut body, &other.map(str::as_bytes)), other.concat());
        assert!(body.is_complete() && body.is_passed());
    }
}

#[test]
fn bounds_add_up_prompt_and_answers() {
    let bound = |pairs: &[(&str, &str)], text: &str, action| {
        let mut body = RequestBody::new(&headers(pairs), false);
        body.push(text.as_bytes(), true);
        body.bound(Some(action))
    };
    let chat = |text: &str| bound(&[JSON], text, Action::ChatCompletions);
    assert_eq!(chat(r#"{"max_tokens":100}"#), 5 + 100);
    assert_eq!(chat(r#"{"max_tokens":100,"n":3}"#), 6 + 300);
    assert_eq!(chat(r#"{"max_completion_tokens":7}"#), 7 + 7);
    assert_eq!(chat("{}"), 1 + UNBOUNDED_ANSWER);
    let prompts = r#"{"prompt":["a","b"],"max_tokens":100}"#;
    assert_eq!(bound(&[JSON], prompts, Action::Completions), 10 + 200);
    // Tokens of one digit are two bytes each.
    let ids = vec!["1"; 100].join(",");
    let list = format!(r#"{{"prompt":[{ids}],"max_tokens":7}}"#);
    assert_eq!(bound(&[JSON], &list, Action::Completions), 100 + 7);
    let lists = format!(r#"{{"model":"e","input":[[{ids}],[{ids}]]}}"#);
    assert_eq!(bound(&[JSON], &lists, Action::Embeddings), 200);
    let overflow = format!(r#"{{"max_tokens":{0},"n":{0}}}"#, u64::MAX);
    assert_eq!(chat(&overflow), u64::MAX);
    assert_eq!(bound(&[JSON], r#"{"input":"abcd"}"#, Action::Embeddings), 4);
    let form = [("content-type", "multipart/form-data; boundary=x")];
    assert_eq!(bound(&form, "--x", Action::Audio), 0);
    let bytes = [("content-type", "application/octet-stream")];
    assert_eq!(bound(&bytes, r#"{"input":"abcd"}"#, Action::Embeddings), 4);
    assert_eq!(chat(r#"{"max_tokens":1e2}"#), 5 + 100);
    assert_eq!(chat(r#"{"max_tokens":1.5e1}"#), 5 + 15);
    // What cannot be read in one way has no bound, and what asks for no text has that of its size.
    for unread in [
        r#"{"max_tokens":1,"max_tokens":9}"#,
        r#"{"max_tokens":1,"Max_Tokens":9}"#,
        r#"{"max_tokens":"9"}"#,
        r#"{"max_tokens":-1}"#,
        r#"{"max_tokens":1e99}"#,
        r#"{"max_tokens":1"#,
        "",
    ] {
        assert_eq!(chat(unread), u64::MAX, "{unread}");
    }
    assert_eq!(bound(&[JSON], r#"{"input":"#, Action::Embeddings), 3);
    let mut open = RequestBody::new(&headers(&[JSON]), false);
    open.push(br#"{"input":"a","input""#, false);
    assert_eq!(open.bound(Some(Action::Embeddings)), u64::MAX);
}

#[test]
fn usage_is_asked_for_where_the_api_knows_it() {
    let takes = |path: &str, version: &str| {
        let operation = Operation::read(b"POST", path.as_bytes(), None).unwrap();
        takes_stream_options(&operation, ApiVersion::read(version.bytes()))
    };
    let chat = "/openai/deployments/gpt-4o/chat/completions";
    for version in [
        "2024-10-21",
        "2025-01-01",
        "2024-09-01-preview",
        "2025-04-01-preview",
    ] {
        assert!(takes(chat, version), "{version}");
        assert!(!takes("/openai/responses", version), "{version}");
        assert!(!takes("/openai/deployments/x/embeddings", version));
    }
    for version in [
        "",
        "2024-06-01",
        "2024-08-01-preview",
        "2024-10-21-preview-x",
        "2099",
        "9999999999",
        "preview",
    ] {
        assert!(!takes(chat, version), "{version}");
    }
    for version in ["", "preview", "v1"] {
        assert!(takes("/openai/v1/chat/completions", version));
        assert!(takes("/openai/v1/completions", version));
        assert!(!takes("/openai/v1/responses", version));
    }
}

#[test]
fn the_prompt_is_as_long_as_its_headers_say_or_as_what_came() {
    for (length, body, expected) in [
        (None, r#"{"max_tokens":1}"#, 4 + 1),
        (Some("400"), r#"{"max_tokens":1}"#, 100 + 1),
        (Some("4"), r#"{"max_tokens":1}"#, 4 + 1),
        (Some("x"), r#"{"max_tokens":1}"#, 4 + 1),
        (Some("400"), "{}", 100 + UNBOUNDED_ANSWER),
        (Some("400"), r#"{"max_tokens":1"#, u64::MAX),
    ] {
        let pairs: Vec<_> = length
            .map(|length| ("content-length", length))
            .into_iter()
            .chain([JSON])
            .collect();
        let mut read = RequestBody::new(&headers(&pairs), false);
        read.push(body.as_bytes(), false);
        assert_eq!(
            read.bound(Some(Action::ChatCompletions)),
            expected,
            "{length:?} {body}"
        );
    }
    // What bounds nothing is as long as it is, once that is known.
    let mut embeddings = RequestBody::new(&headers(&[JSON]), false);
    embeddings.push(br#"{"input":"abc""#, false);
    assert_eq!(embeddings.bound(Some(Action::Embeddings)), u64::MAX);
    embeddings.push(b"}", true);
    assert_eq!(embeddings.bound(Some(Action::Embeddings)), 4);
}

#[test]
fn a_body_is_passed_when_nothing_is_held_back_any_more() {
    let mut body = RequestBody::new(&headers(&[JSON]), true);
    assert!(!body.is_passed());
    body.push(br#"{"stream":true,"stream_options":{"x""#, false);
    assert!(!body.is_passed() && !body.is_complete());
    body.push(br#":1}}"#, false);
    assert!(body.held.is_empty() && body.is_complete());
    // Something may follow.
    assert!(!body.is_passed());
    body.push(b"", true);
    assert!(body.is_passed());
    let mut refused = RequestBody::new(&headers(&[JSON]), true);
    refused.push(b"[", false);
    assert!(refused.is_passed() && refused.is_complete());
}

/// As Azure reads them, which says no more than its clients need.
#[test]
fn l6_j12_types_and_encodings_are_read_as_azure_reads_them() {
    let read = |pairs: &[(&str, &str)]| {
        let mut body = RequestBody::new(&headers(pairs), true);
        let sent = sent(&mut body, &[br#"{"model":"a","stream":true}"#]);
        assert_eq!(body.usage_was_injected(), sent.contains("include_usage"));
        body.model().map(|_| body.usage_was_injected())
    };
    for content_type in [
        "text/plain",
        "Text/Plain; charset=UTF-8",
        "text/json",
        "application/json; odata=verbose",
    ] {
        assert_eq!(
            read(&[("content-type", content_type)]),
            Ok(true),
            "{content_type}"
        );
    }
    for encoding in [
        "identity",
        "identity,identity",
        "Identity , identity",
        "",
        " , ",
    ] {
        assert_eq!(
            read(&[JSON, ("content-encoding", encoding)]),
            Ok(true),
            "{encoding}"
        );
    }
    let twice = [
        JSON,
        ("content-encoding", "identity"),
        ("content-encoding", "identity"),
    ];
    assert_eq!(read(&twice), Ok(true));
    for (name, value) in [
        ("content-type", "application/json; charset=us-ascii"),
        ("content-type", "application/json; charset=utf-7"),
        ("content-type", "application/json; charset = utf-16"),
        ("content-type", "text/plain;charset=\"iso-8859-1\""),
        ("content-type", "text/html; charset=latin1"),
        ("content-encoding", "gzip"),
        ("content-encoding", "GZIP"),
        ("content-encoding", "identity, br"),
        ("content-encoding", "deflate"),
        ("content-encoding", "x"),
    ] {
        assert_eq!(read(&[(name, value)]), Err(BodyError::Encoding), "{value}");
        assert_eq!(
            read(&[("content-type", "text/html"), (name, value)]),
            Err(BodyError::Encoding)
        );
    }
    let second = [
        ("content-encoding", "identity"),
        ("content-encoding", "gzip"),
    ];
    assert_eq!(read(&second), Err(BodyError::Encoding));
}

#[test]
fn l6_a_stream_behind_a_byte_order_mark_asks_for_usage() {
    let (sent, asks) = injected("\u{feff}{\"stream\":true}");
    assert!(asks);
    assert_eq!(
        sent,
        "\u{feff}{\"stream\":true,\"stream_options\":{\"include_usage\":true}}"
    );
}

#[test]
fn l7_only_members_that_the_operation_reads_bound_its_answer() {
    let bound = |action: Option<Action>, text: &str| {
        let mut body = RequestBody::new(&headers(&[JSON]), false);
        body.push(text.as_bytes(), true);
        body.bound(action) - tokens_in(text.len() as u64)
    };
    let chat = Some(Action::ChatCompletions);
    let completions = Some(Action::Completions);
    let responses = Some(Action::ResponsesWrite);
    let runs = Some(Action::RunsWrite);
    for (action, text, expected) in [
        (chat, r#"{"max_output_tokens":1}"#, UNBOUNDED_ANSWER),
        (chat, r#"{"max_tokens":0}"#, UNBOUNDED_ANSWER),
        (chat, r#"{"max_tokens":0,"max_completion_tokens":9}"#, 9),
        (chat, r#"{"max_tokens":7,"max_completion_tokens":9}"#, 9),
        (chat, r#"{"max_tokens":7,"n":0}"#, 7),
        (chat, r#"{"max_tokens":7,"n":2,"best_of":9}"#, 14),
        (chat, r#"{"max_tokens":7,"prompt":["a","b"]}"#, 7),
        (
            completions,
            r#"{"max_completion_tokens":1}"#,
            UNBOUNDED_ANSWER,
        ),
        (completions, r#"{"max_tokens":7,"n":2,"best_of":3}"#, 21),
        (
            completions,
            r#"{"max_tokens":7,"prompt":["a","b"],"n":2}"#,
            28,
        ),
        (responses, r#"{"max_tokens":1}"#, UNBOUNDED_ANSWER),
        (responses, r#"{"max_output_tokens":0}"#, UNBOUNDED_ANSWER),
        (responses, r#"{"max_output_tokens":7,"n":2}"#, 7),
        (
            runs,
            r#"{"max_tokens":1,"max_output_tokens":1}"#,
            UNBOUNDED_ANSWER,
        ),
        (runs, r#"{"max_completion_tokens":7}"#, 7),
        // Which of them counts nobody knows; more than usual does.
        (None, r#"{"max_tokens":1}"#, UNBOUNDED_ANSWER),
        (None, r#"{"max_tokens":9000,"n":2}"#, 18_000),
    ] {
        assert_eq!(bound(action, text), expected, "{action:?} {text}");
    }
}

const FORM: &[u8] =
    b"--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n--x\r\n\
    Content-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n-\r\n--\r\n--x--";

fn form(content_type: &str) -> RequestBody {
    RequestBody::with_form(&headers(&[("content-type", content_type)]))
}

/// What went on when so much had come, before the decision.
#[test]
fn c4_the_closing_delimiter_waits_for_the_decision() {
    for cut in 0..FORM.len() {
        let mut body = form("multipart/form-data; boundary=x");
        let (first, second) = FORM.split_at(cut);
        let before = match body.push(first, false) {
            Passed::Unchanged => first.to_vec(),
            Passed::Replaced(output) => output.to_vec(),
        };
        assert!(!body.is_complete() && !body.is_passed(), "{cut}");
        assert_eq!(body.model(), Err(BodyError::Truncated));
        assert!(
            FORM.starts_with(&before) && before.len() <= FORM.len() - 5,
            "{cut}"
        );
        let after = match body.push(second, false) {
            Passed::Unchanged => second.to_vec(),
            Passed::Replaced(output) => output.to_vec(),
        };
        assert_eq!([before, after].concat(), FORM, "{cut}");
        assert!(body.is_complete());
        assert_eq!(body.model(), Ok(Some("whisper")));
        assert_eq!(body.bound(Some(Action::Audio)), 0);
        // Nothing but a line break follows.
        assert_eq!(body.push(b"\r\n", false), Passed::Unchanged);
        assert_eq!(body.model(), Ok(Some("whisper")));
        assert_eq!(body.push(b"--x--", true), Passed::Replaced(b"     "));
        assert_eq!(body.model(), Err(FormError::AfterEnd.into()));
        assert!(body.is_passed());
    }
}

/// Where nobody refuses it, it is the backend's to judge.
#[test]
fn a_form_that_cannot_be_read_stays_as_it_is() {
    let bad = b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\n--x--\r\n--x--\r\n"
        .as_slice();
    for cut in 0..=bad.len() {
        let (first, second) = bad.split_at(cut);
        let mut body = form("multipart/form-data; boundary=x");
        assert_eq!(sent(&mut body, &[first, second]).as_bytes(), bad, "{cut}");
        assert_eq!(body.model(), Err(FormError::Delimiter.into()));
        let mut open = form("multipart/form-data; boundary=x");
        assert_eq!(
            sent(&mut open, &[&FORM[..cut], b""]).as_bytes(),
            &FORM[..cut]
        );
        assert_eq!(open.model(), Err(BodyError::Truncated));
        assert!(open.is_passed());
    }
}

#[test]
fn j12_forms_are_sent_as_they_are_under_one_type() {
    let of = |pairs: &[(&str, &str)]| {
        let mut body = RequestBody::with_form(&headers(pairs));
        body.push(FORM, true);
        body.model().map(|model| model.map(str::to_owned))
    };
    let form = ("content-type", "multipart/form-data; boundary=x");
    assert_eq!(of(&[form]), Ok(Some("whisper".to_owned())));
    for (pairs, error) in [
        (
            vec![form, ("content-encoding", "gzip")],
            BodyError::Encoding,
        ),
        (vec![form, form], BodyError::MediaType),
        (vec![form, JSON], BodyError::MediaType),
        (vec![JSON, form], BodyError::MediaType),
        (
            vec![("content-type", "multipart/mixed; boundary=x")],
            BodyError::MediaType,
        ),
        (
            vec![(
                "content-type",
                "multipart/form-data; boundary=x; charset=utf-16",
            )],
            BodyError::Encoding,
        ),
        (
            vec![("content-type", "multipart/form-data")],
            FormError::Boundary.into(),
        ),
        (vec![JSON], BodyError::NotAnObject),
    ] {
        assert_eq!(of(&pairs), Err(error), "{pairs:?}");
    }
    // And JSON where a form may come.
    let mut body = RequestBody::with_form(&headers(&[JSON]));
    body.push(br#"{"model":"gpt-image-1"}"#, true);
    assert_eq!(body.model(), Ok(Some("gpt-image-1")));
    // But no form where only JSON may.
    let mut body = RequestBody::new(&headers(&[form]), false);
    body.push(FORM, true);
    assert_eq!(body.model(), Err(BodyError::MediaType));
}
