//! Requests whose bodies decide: places taken with the head, and how many may be undecided.

use serde_json::{Value, json};
use tollgate_second_host::{APP_ONE, APP_TWO, Process, Status, Stream, Token, Vm, keys};

use crate::common::{inline, with};

const V1_CHAT: &str = "/openai/v1/chat/completions";
const GPT: &[u8] = br#"{"model":"gpt-4o"}"#;
const O1: &[u8] = br#"{"model":"o1"}"#;

fn start(process: &Process, app: Value, top: Value) -> Vm {
    let policy = with(inline(), json!({ "default_app": app }));
    Vm::start(process, &with(policy, top))
}

/// The head of a request whose body does not come yet.
fn head(vm: &mut Vm, process: &Process, app: &str) -> Stream {
    let token = Token::v1(process).app(app).sign(keys::rsa(0));
    vm.request().path(V1_CHAT).bearer(&token).open()
}

fn is_limited(vm: &mut Vm, process: &Process, app: &str) -> bool {
    let stream = head(vm, process, app);
    let answer = vm.answer(stream);
    let _ = vm.finish(stream);
    !answer.is_forwarded() && answer.code() == "RateLimitExceeded"
}

#[test]
fn l9_a_call_takes_its_place_with_its_head_and_a_refused_body_gives_it_back() {
    let process = Process::new();
    let app = json!({ "deployments": ["gpt-4o"], "limits": [{ "calls": 1, "per": "1h" }] });
    let mut vm = start(&process, app, json!({}));
    for (refused, status) in [(O1, 403), (b"x", 400), (b"", 400)] {
        let stream = head(&mut vm, &process, APP_ONE);
        assert!(vm.answer(stream).is_forwarded());
        assert!(is_limited(&mut vm, &process, APP_ONE));
        vm.send_body(stream, refused, true);
        assert_eq!(vm.answer(stream).status(), status);
        let _ = vm.finish(stream);
    }
    let stream = head(&mut vm, &process, APP_ONE);
    vm.send_body(stream, GPT, true);
    vm.respond(stream, 500);
    let _ = vm.finish(stream);
    assert!(is_limited(&mut vm, &process, APP_ONE));
}

#[test]
fn l9_a_caller_who_leaves_undecided_counts_by_the_rules_of_count() {
    for (count, stays) in [(json!("all"), true), (json!([200]), false)] {
        let process = Process::new();
        let app = json!({ "limits": [{ "calls": 1, "per": "1h", "count": count }] });
        let mut vm = start(&process, app, json!({}));
        let stream = head(&mut vm, &process, APP_ONE);
        vm.send_body(stream, b"{", false);
        let told = vm.finish(stream);
        assert_eq!(told.field("outcome"), "undecided");
        assert_eq!(is_limited(&mut vm, &process, APP_ONE), stays, "{count}");
    }
}

/// The backend answers before the body is there: an error is the answer, anything else is decided on first.
#[test]
fn l9_an_early_response_settles_by_its_status() {
    for (status, stays) in [(413, false), (200, true)] {
        let process = Process::new();
        let limit = json!({ "calls": 1, "per": "1h", "count": "success" });
        let mut vm = start(&process, json!({ "limits": [limit] }), json!({}));
        let stream = head(&mut vm, &process, APP_ONE);
        vm.respond(stream, status);
        let _ = vm.finish(stream);
        assert_eq!(is_limited(&mut vm, &process, APP_ONE), stays, "{status}");
    }
}

#[test]
fn l9_undecided_requests_are_bounded_and_every_end_makes_room() {
    let process = Process::new();
    let app = json!({ "deployments": ["gpt-4o"] });
    let mut vm = start(&process, app, json!({ "max_undecided": 4 }));
    let mut streams: Vec<Stream> = (0..4).map(|_| head(&mut vm, &process, APP_ONE)).collect();
    let refused = head(&mut vm, &process, APP_ONE);
    let answer = vm.answer(refused);
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (429, "RateLimitExceeded")
    );
    assert_eq!(answer.headers().number("retry-after"), 1);
    assert_eq!(vm.finish(refused).field("outcome"), "limited");
    assert!(!is_limited(&mut vm, &process, APP_TWO));

    let ways: [fn(&mut Vm, Stream); 4] = [
        |vm, stream| drop(vm.send_body(stream, GPT, true)),
        |vm, stream| drop(vm.send_body(stream, O1, true)),
        |vm, stream| drop(vm.finish(stream)),
        |vm, stream| vm.respond(stream, 413),
    ];
    for (index, end) in ways.into_iter().enumerate() {
        assert!(is_limited(&mut vm, &process, APP_ONE), "{index}");
        end(&mut vm, streams.remove(0));
        assert!(!is_limited(&mut vm, &process, APP_ONE), "{index}");
        streams.push(head(&mut vm, &process, APP_ONE));
    }
}

/// The host fails in the middle: nothing passes, and neither a place nor a slot is lost.
#[test]
fn l9_a_host_that_fails_loses_no_place() {
    let process = Process::new();
    let limit = json!({ "calls": 1, "per": "1h", "count": "success" });
    let mut vm = start(
        &process,
        json!({ "limits": [limit] }),
        json!({ "max_undecided": 1 }),
    );
    for call in [
        tollgate_second_host::Hostcall::GetBuffer,
        tollgate_second_host::Hostcall::SetBuffer,
    ] {
        let stream = head(&mut vm, &process, APP_ONE);
        process.fail(call, Status::InternalFailure);
        vm.send_body(stream, GPT, true);
        process.heal();
        let _ = vm.finish(stream);
        assert!(!is_limited(&mut vm, &process, APP_ONE), "{call:?}");
    }
}
