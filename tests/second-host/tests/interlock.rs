//! The filter state that a gateway's interlock requires: set once for each request that goes on, for no other.

use serde_json::{Value, json};
use tollgate_second_host::{
    Answer, Entra, Hostcall, Process, Status, Told, Vm, flip_signature, keys,
};

use crate::common::{fetching, good, inline, limited, live, seconds, with};

const PASSED: &str = "passed";
const V1_CHAT: &str = "/openai/v1/chat/completions";

fn assert_open(told: &Told, what: &str) {
    assert!(told.answer.is_forwarded(), "{what}: {told:#?}");
    assert_eq!(told.state(PASSED).as_deref(), Some("true"), "{what}");
    assert_eq!(told.times_set(PASSED), 1, "{what}");
}

fn assert_closed(told: &Told, what: &str) {
    assert!(!told.answer.is_forwarded(), "{what}: {told:#?}");
    assert_eq!(told.times_set(PASSED), 0, "{what}");
}

/// Without any other filter state.
fn silent(policy: Value) -> Value {
    with(policy, json!({ "log": { "filter_state": [] } }))
}

#[test]
fn g4_every_request_that_goes_on_opens_the_interlock_once() {
    for log in [json!({}), json!({ "filter_state": [], "requests": false })] {
        let process = Process::new();
        let policy = with(
            limited(json!({ "calls": 100, "per": "60s" })),
            json!({ "public_paths": ["/status"], "cors_preflight": "pass", "log": log }),
        );
        let mut vm = Vm::start(&process, &policy);
        let token = good(&process);
        assert_open(&vm.request().bearer(&token).complete(), "allowed");
        let public = vm.request().method("GET").path("/status").without_body();
        assert_open(&public.complete(), "public path");
        let preflight = vm
            .request()
            .method("OPTIONS")
            .header("origin", "https://example.com")
            .header("access-control-request-method", "POST")
            .without_body();
        assert_open(&preflight.complete(), "preflight");
        let by_body = vm.request().path(V1_CHAT).bearer(&token);
        assert_open(&by_body.complete(), "a body that is read");
    }
}

#[test]
fn g4_report_mode_opens_the_interlock() {
    let process = Process::new();
    let mut vm = Vm::start(
        &process,
        &silent(with(inline(), json!({ "mode": "report" }))),
    );
    assert_open(&vm.request().complete(), "would be refused");
    assert_open(&vm.request().bearer(&good(&process)).complete(), "allowed");
}

#[test]
fn g4_a_refused_request_never_opens_the_interlock() {
    let process = Process::new();
    let policy = with(
        limited(json!({ "calls": 1, "per": "60s" })),
        json!({ "public_paths": ["/status"] }),
    );
    let mut vm = Vm::start(&process, &policy);
    let token = good(&process);
    assert_closed(&vm.request().complete(), "no token");
    let forged = flip_signature(&token);
    assert_closed(&vm.request().bearer(&forged).complete(), "forged");
    let key = vm.request().path("/status").header("api-key", "k");
    assert_closed(&key.complete(), "API key");
    assert_open(&vm.request().bearer(&token).complete(), "allowed");
    assert_closed(&vm.request().bearer(&token).complete(), "limited");
}

/// The head goes on, open, before the body decides; a decision afterwards sets nothing again.
#[test]
fn g4_where_the_body_decides_the_head_opens_the_interlock() {
    let process = Process::new();
    let policy = with(
        inline(),
        json!({ "default_app": { "deployments": ["gpt-4o"] } }),
    );
    let mut vm = Vm::start(&process, &silent(policy));
    let token = good(&process);
    let stream = vm.request().path(V1_CHAT).bearer(&token).open();
    assert!(vm.answer(stream).is_forwarded());
    assert_eq!(vm.state(stream, PASSED).as_deref(), Some("true"));
    let _ = vm.send_body(stream, br#"{"model":"gpt-4o"}"#, true);
    vm.respond(stream, 200);
    assert_open(&vm.finish(stream), "decided by its body");

    // Without a body there is nothing to wait for: the head is held until it is decided on.
    let empty = vm.request().path(V1_CHAT).bearer(&token).without_body();
    assert_closed(&empty.complete(), "no body");
}

#[test]
fn g4_a_request_that_waited_for_keys_opens_the_interlock() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &silent(fetching()));
    let waiting = vm.request().bearer(&good(&process)).open();
    assert_eq!(vm.state(waiting, PASSED), None);
    let forged = vm.request().bearer(&flip_signature(&good(&process))).open();
    let mut entra = Entra::new(keys::jwks(&[keys::rsa(0)]));
    live(&process, &mut entra, seconds(1), 10, &mut [&mut vm]);
    assert!(matches!(vm.answer(waiting), Answer::Forwarded { .. }));
    vm.respond(waiting, 200);
    assert_open(&vm.finish(waiting), "after the wait");
    assert_closed(&vm.finish(forged), "forged");
}

/// The host took the head's changes back: nothing passes, and nothing is said to have passed.
#[test]
fn g4_a_request_that_the_host_broke_never_opens_the_interlock() {
    let process = Process::new();
    let policy = with(
        inline(),
        json!({ "forward": { "headers": { "x-app-id": "app_id" } } }),
    );
    let mut vm = Vm::start(&process, &policy);
    process.fail(Hostcall::SetHeaders, Status::InternalFailure);
    assert_closed(&vm.request().bearer(&good(&process)).complete(), "broken");
}
