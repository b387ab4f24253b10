//! Bodies in a host that is not Envoy: cut anywhere, and with host calls that fail.

use serde_json::{Value, json};
use tollgate_second_host::{Answer, Hostcall, Process, Status, Vm};

use crate::common::{good, inline, seconds, with};

const V1_CHAT: &str = "/openai/v1/chat/completions";

fn narrowed() -> Value {
    with(
        inline(),
        json!({ "default_app": { "deployments": ["gpt-4o"] } }),
    )
}

#[test]
fn the_model_decides_wherever_the_body_is_cut() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &narrowed());
    let token = good(&process);
    for (body, passes) in [
        (r#"{"model":"gpt-4o","stream":true}"#, true),
        (r#"{"stream":true,"model":"o1"}"#, false),
        (r#"{"model":"gpt-4o","model":"o1"}"#, false),
    ] {
        for cut in 0..=body.len() {
            let (first, second) = body.split_at(cut);
            let stream = vm.request().path(V1_CHAT).bearer(&token).open();
            let mut sent = Vec::new();
            for (piece, end) in [(first, false), (second, false), ("", true)] {
                if matches!(vm.answer(stream), Answer::Local { .. }) {
                    break;
                }
                sent.extend(vm.send_body(stream, piece.as_bytes(), end));
            }
            match vm.answer(stream) {
                Answer::Forwarded { .. } if passes => assert_eq!(sent, body.as_bytes(), "{cut}"),
                Answer::Local { status: 403, .. } if !passes => {
                    assert!(!sent.ends_with(b"}"), "{body} at {cut}: all of it went on");
                }
                other => panic!("{body} at {cut}: {other:?}"),
            }
            let _ = vm.finish(stream);
        }
    }
}

/// A backend may read only the last object, or find a form behind the first.
#[test]
fn nothing_follows_what_was_decided_on() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &narrowed());
    let token = good(&process);
    let first = r#"{"model":"gpt-4o"}"#;
    let spaces = " ".repeat(200_000);
    for more in [r#"{"model":"o1"}"#, "\r\n--x\r\n"] {
        for pieces in [
            [first, more, ""],
            [first, &spaces, more],
            [first, " ", more],
        ] {
            let stream = vm.request().path(V1_CHAT).bearer(&token).open();
            let sent = pieces.map(|piece| vm.send_body(stream, piece.as_bytes(), false));
            let sent = String::from_utf8(sent.concat()).unwrap();
            assert_eq!(sent.trim_end_matches(' '), first, "{more:?}");
            assert_eq!(sent.len(), pieces.concat().len(), "{more:?}");
            assert!(vm.answer(stream).is_forwarded(), "{more:?}");
            let _ = vm.finish(stream);
        }
        // Seen at once, it is refused.
        let stream = vm.request().path(V1_CHAT).bearer(&token).open();
        let whole = [first, more].concat();
        assert!(vm.send_body(stream, whole.as_bytes(), true).is_empty());
        assert_eq!(vm.answer(stream).status(), 400, "{more:?}");
        let _ = vm.finish(stream);
    }
}

/// Nothing of the closing delimiter is at the backend before the decision, however the form is cut.
#[test]
fn c4_the_model_of_a_form_decides_wherever_it_is_cut() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &narrowed());
    let token = good(&process);
    for (model, passes) in [("gpt-4o", true), ("o1", false)] {
        let file =
            "Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n-\r\n--x-";
        let body = format!(
            "--x-1\r\n{file}\r\n--x-1\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n--x-1--\r\n"
        );
        let end = body.len() - "--x-1--\r\n".len();
        for cut in 0..=body.len() {
            let (first, second) = body.split_at(cut);
            let request = vm.request().path("/openai/v1/audio/transcriptions");
            let request = request.without("content-type");
            let form = "multipart/form-data; boundary=x-1";
            let stream = request
                .header("content-type", form.as_bytes())
                .bearer(&token)
                .open();
            let mut sent = Vec::new();
            for (piece, is_last) in [(first, false), (second, false), ("", true)] {
                if matches!(vm.answer(stream), Answer::Local { .. }) {
                    break;
                }
                sent.extend(vm.send_body(stream, piece.as_bytes(), is_last));
            }
            match vm.answer(stream) {
                Answer::Forwarded { .. } if passes => assert_eq!(sent, body.as_bytes(), "{cut}"),
                Answer::Local { status: 403, .. } if !passes => {
                    assert!(sent.len() <= end, "{cut}: {} of {end} went on", sent.len());
                }
                other => panic!("{model} at {cut}: {other:?}"),
            }
            let _ = vm.finish(stream);
        }
    }
}

#[test]
fn a_body_that_cannot_be_read_or_replaced_is_refused() {
    for call in [Hostcall::GetBuffer, Hostcall::SetBuffer] {
        let process = Process::new();
        let policy = with(inline(), json!({ "usage": { "stream_options": "inject" } }));
        let mut vm = Vm::start(&process, &policy);
        let token = good(&process);
        let stream = vm.request().path(V1_CHAT).bearer(&token).open();
        process.fail(call, Status::InternalFailure);
        vm.send_body(stream, br#"{"model":"gpt-4o","stream":true}"#, true);
        process.heal();
        assert_eq!(vm.answer(stream).status(), 503, "{call:?}");
        let _ = vm.finish(stream);
    }
}

#[test]
fn an_answer_that_cannot_be_read_passes_and_is_not_told() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &inline());
    let token = good(&process);
    let stream = vm.request().bearer(&token).open();
    process.fail(Hostcall::GetBuffer, Status::InternalFailure);
    let headers = [("content-type", "application/json")];
    vm.respond_with(stream, 200, &headers, br#"{"usage":{"total_tokens":7}}"#);
    process.heal();
    let told = vm.finish(stream);
    assert_eq!(told.field("total_tokens"), &Value::Null);
    assert_eq!(told.field("status"), 200);
}

#[test]
fn usage_is_told_at_the_end_of_the_answer() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &inline());
    let token = good(&process);
    let stream = vm.request().bearer(&token).open();
    let usage = br#"{"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7,
        "prompt_tokens_details":{"cached_tokens":2},"completion_tokens_details":{"reasoning_tokens":1}}}"#;
    vm.respond_with(stream, 200, &[("content-type", "application/json")], usage);
    let told = vm.finish(stream);
    for (name, count) in [
        ("prompt_tokens", 3),
        ("completion_tokens", 4),
        ("total_tokens", 7),
        ("cached_tokens", 2),
        ("reasoning_tokens", 1),
    ] {
        assert_eq!(told.field(name), count, "{name}");
    }
    assert_eq!(told.state("total_tokens").as_deref(), Some("7"));
    assert_eq!(told.field("stream"), false);
}

/// The host's counters wrap at 2^64, and one answer must not bring them there.
#[test]
fn l4_an_absurd_usage_stops_no_metric() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &inline());
    let token = good(&process);
    let mut ask = |tokens: u64| {
        let stream = vm.request().bearer(&token).open();
        let usage = format!(r#"{{"usage":{{"total_tokens":{tokens}}}}}"#);
        let headers = [("content-type", "application/json")];
        vm.respond_with(stream, 200, &headers, usage.as_bytes());
        let _ = vm.finish(stream);
        process.clock().advance(seconds(1));
        vm.tick();
        let metrics = process.metrics();
        let counted = metrics
            .iter()
            .filter(|(name, _)| name.starts_with("tollgate_tokens") && name.contains("total"));
        counted.map(|(_, count)| *count).sum::<u64>()
    };
    assert_eq!(ask(7), 7);
    for (tokens, counted) in [
        (u64::MAX, 7),
        (1 << 63, 7),
        (5, 12),
        (1 << 40, (1 << 40) + 12),
    ] {
        assert_eq!(ask(tokens), counted);
    }
}

#[test]
fn trailers_end_a_body_too() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &narrowed());
    let token = good(&process);
    for (body, passes) in [
        (&br#"{"model":"gpt-4o"}"#[..], true),
        (br#"{"model":"gpt-4o""#, false),
        (b"", false),
    ] {
        let stream = vm.request().path(V1_CHAT).bearer(&token).open();
        vm.send_body(stream, body, false);
        let sent = [
            ("x-checksum", "7"),
            ("x-http-method", "PUT"),
            ("api-key", "k"),
        ];
        let passed = vm.send_trailers(stream, &sent);
        assert_eq!(passed.get("x-checksum").as_deref(), Some("7"));
        assert!(!passed.contains("x-http-method") && !passed.contains("api-key"));
        assert_eq!(vm.answer(stream).is_forwarded(), passes, "{body:?}");
        let told = vm.finish(stream);
        let outcome = if passes { "allowed" } else { "forbidden" };
        assert_eq!(told.field("outcome"), outcome, "{body:?}");
    }
}

#[test]
fn a_caller_who_leaves_before_the_body_is_there_is_told_undecided() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &narrowed());
    let token = good(&process);
    let stream = vm.request().path(V1_CHAT).bearer(&token).open();
    vm.send_body(stream, br#"{"model":"gpt-4o","#, false);
    let told = vm.finish(stream);
    assert_eq!(told.field("outcome"), "undecided");
    assert_eq!(told.field("code"), &Value::Null);
    assert_eq!(told.field("app_id"), tollgate_second_host::APP_ONE);
    let action = told.field("action").as_str().unwrap_or_default();
    assert!(
        action.ends_with("/deployments/chat/completions/action"),
        "{action}"
    );
    vm.tick();
    let name = "tollgate_requests.app.unlisted.outcome.undecided.code.none";
    assert_eq!(process.metric(name), Some(1), "{:#?}", process.metrics());
}

#[test]
fn the_filters_that_follow_know_the_caller_before_the_body_decides() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &narrowed());
    let token = good(&process);
    let stream = vm.request().path(V1_CHAT).bearer(&token).open();
    let app_id = vm.state(stream, "app_id");
    assert_eq!(app_id.as_deref(), Some(tollgate_second_host::APP_ONE));
    assert!(vm.state(stream, "action").is_some());
    assert_eq!(vm.state(stream, "outcome").as_deref(), Some("undecided"));
    vm.send_body(stream, br#"{"model":"gpt-4o"}"#, true);
    assert_eq!(vm.state(stream, "outcome").as_deref(), Some("allowed"));
    assert_eq!(vm.state(stream, "deployment").as_deref(), Some("gpt-4o"));
}
