//! Calls to the identity provider: what is asked, and that no reply harms.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate_second_host::{Callout, Entra, Process, Reply, TENANT, Vm, keys};

use crate::common::{discovering, fetching, good, live, seconds};

fn jwks() -> Value {
    keys::jwks(&[keys::rsa(0)])
}

fn one(vm: &mut Vm) -> Callout {
    let mut callouts = vm.callouts();
    assert_eq!(callouts.len(), 1, "{callouts:#?}");
    callouts.remove(0)
}

#[test]
fn keys_are_asked_for_at_start() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &fetching());
    process.pass(seconds(1), &mut [&mut vm]);
    let callout = one(&mut vm);
    assert_eq!(callout.cluster, "entra");
    assert_eq!(callout.headers.get(":method").as_deref(), Some("GET"));
    assert_eq!(callout.headers.get(":scheme").as_deref(), Some("https"));
    assert_eq!(callout.authority(), "login.microsoftonline.com");
    assert_eq!(callout.path(), "/common/discovery/v2.0/keys");
    assert_eq!(callout.timeout, seconds(5));
    vm.reply(callout, Reply::json(&jwks()));
    assert!(vm.request().bearer(&good(&process)).send().is_forwarded());
}

#[test]
fn metadata_leads_to_the_keys() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &discovering());
    process.pass(seconds(1), &mut [&mut vm]);
    let callout = one(&mut vm);
    assert_eq!(
        callout.path(),
        format!("/{TENANT}/v2.0/.well-known/openid-configuration")
    );
    vm.reply(callout, Reply::json(&Entra::metadata()));
    let callout = one(&mut vm);
    assert_eq!(callout.path(), format!("/{TENANT}/discovery/v2.0/keys"));
    assert_eq!(callout.cluster, "entra");
    vm.reply(callout, Reply::json(&jwks()));
    assert!(vm.request().bearer(&good(&process)).send().is_forwarded());
}

/// Kubernetes' API server serves key sets as `application/jwk-set+json`, and 406 to who accepts JSON alone.
#[test]
fn k4_key_sets_under_their_own_type_are_accepted() {
    const TYPES: [&str; 2] = ["application/json", "application/jwk-set+json"];
    let process = Process::new();
    let mut vm = Vm::start(&process, &discovering());
    process.pass(seconds(1), &mut [&mut vm]);
    for document in [Entra::metadata(), jwks()] {
        let callout = one(&mut vm);
        let accept = callout.headers.get("accept").unwrap_or_default();
        let accepted: Vec<_> = accept.split(", ").collect();
        assert_eq!(accepted, TYPES, "{}", callout.path());
        let content_type = ("content-type", &b"application/jwk-set+json"[..]);
        let headers = [(":status", &b"200"[..]), content_type];
        vm.reply(callout, Reply::headers(&headers, document.to_string()));
    }
    assert!(vm.request().bearer(&good(&process)).send().is_forwarded());
}

/// Every way in which a reply can be bad.
fn bad_replies() -> Vec<(&'static str, Reply)> {
    let json = jwks().to_string();
    let many = json!({ "keys": vec![jwks()["keys"][0].clone(); 1001] });
    vec![
        ("no answer", Reply::failed()),
        (
            "no :status",
            Reply::headers(&[("server", b"x")], json.clone()),
        ),
        (
            "a :status that is no number",
            Reply::headers(&[(":status", b"2OO")], json.clone()),
        ),
        (
            "a :status that is not UTF-8",
            Reply::headers(&[(":status", b"\xff")], json.clone()),
        ),
        ("status 204", Reply::with(204, "")),
        ("status 302", Reply::with(302, json.clone())),
        ("status 404", Reply::with(404, "{}")),
        ("status 500", Reply::with(500, json.clone())),
        ("status 503", Reply::with(503, "upstream connect error")),
        ("no body", Reply::with(200, "")),
        (
            "HTML",
            Reply::with(200, "<!doctype html><title>Sign in</title>"),
        ),
        (
            "truncated",
            Reply::with(200, &json.as_bytes()[..json.len() / 2]),
        ),
        (
            "not UTF-8",
            Reply::with(200, b"{\"keys\":[\"\xff\xfe\"]}".as_slice()),
        ),
        ("null", Reply::with(200, "null")),
        ("another document", Reply::with(200, "{\"hello\":1}")),
        ("an empty set", Reply::with(200, "{\"keys\":[]}")),
        ("keys of another type", Reply::with(200, "{\"keys\":{}}")),
        (
            "no usable key",
            Reply::json(&keys::jwks(&[keys::small_rsa()])),
        ),
        ("too many keys", Reply::json(&many)),
        (
            "3 MB",
            Reply::with(
                200,
                format!("{{\"x\":\"{}\",{}", "x".repeat(3 << 20), &json[1..]),
            ),
        ),
        ("3 MB of nothing", Reply::with(200, vec![0; 3 << 20])),
        ("100,000 brackets", Reply::with(200, "[".repeat(100_000))),
        (
            "100,000 braces",
            Reply::with(200, "{\"a\":".repeat(100_000)),
        ),
        ("900,000 brackets", Reply::with(200, "[".repeat(900_000))),
    ]
}

/// Two bad replies, then the provider recovers: within half a minute requests pass.
fn survives(policy: &Value, what: &str, mut bad: impl FnMut(&mut Vm, Callout) -> bool) {
    let process = Process::new();
    let mut vm = Vm::start(&process, policy);
    let mut left = 2;
    for _ in 0..100 {
        process.pass(Duration::from_millis(500), &mut [&mut vm]);
        for callout in vm.callouts() {
            if bad(&mut vm, callout) {
                left -= 1;
            }
        }
        if left <= 0 {
            break;
        }
    }
    assert!(left <= 0, "{what}: not asked again within 50 s");
    let early = vm.request().bearer(&good(&process)).open();
    assert!(
        !vm.answer(early).is_forwarded(),
        "{what}: let through without a key"
    );
    let _ = vm.finish(early);

    let mut entra = Entra::new(jwks());
    live(&process, &mut entra, seconds(30), 60, &mut [&mut vm]);
    let answer = vm.request().bearer(&good(&process)).send();
    assert!(
        answer.is_forwarded(),
        "{what}: {answer:?}\n{}",
        process.log_text()
    );
}

#[test]
fn no_bad_key_set_harms() {
    for (what, reply) in bad_replies() {
        survives(&fetching(), what, |vm, callout| {
            vm.reply(callout, reply.clone());
            true
        });
    }
}

#[test]
fn no_bad_metadata_harms() {
    for (what, reply) in bad_replies() {
        survives(&discovering(), what, |vm, callout| {
            vm.reply(callout, reply.clone());
            true
        });
    }
}

#[test]
fn no_bad_key_set_after_good_metadata_harms() {
    for (what, reply) in bad_replies() {
        survives(&discovering(), what, |vm, callout| {
            if callout.path().ends_with("openid-configuration") {
                vm.reply(callout, Reply::json(&Entra::metadata()));
                return false;
            }
            vm.reply(callout, reply.clone());
            true
        });
    }
}

#[test]
fn metadata_of_another_issuer_or_host_is_not_followed() {
    for (member, value) in [
        (
            "issuer",
            "https://login.microsoftonline.com/99999999-2222-3333-4444-555555555555/v2.0",
        ),
        (
            "issuer",
            "https://evil.example/11111111-2222-3333-4444-555555555555/v2.0",
        ),
        ("jwks_uri", "https://evil.example/keys"),
        (
            "jwks_uri",
            "http://login.microsoftonline.com/common/discovery/keys",
        ),
        (
            "jwks_uri",
            "https://login.microsoftonline.com@evil.example/keys",
        ),
        ("jwks_uri", "not an address"),
    ] {
        let mut metadata = Entra::metadata();
        metadata[member] = json!(value);
        survives(
            &discovering(),
            &format!("{member} {value}"),
            |vm, callout| {
                assert!(
                    callout.path().ends_with("openid-configuration"),
                    "followed {value}"
                );
                vm.reply(callout, Reply::json(&metadata));
                true
            },
        );
    }
}

#[test]
fn a_bad_refresh_keeps_the_last_good_set() {
    for (what, reply) in bad_replies() {
        let process = Process::new();
        let mut vm = Vm::start(&process, &fetching());
        let mut entra = Entra::new(jwks());
        live(&process, &mut entra, seconds(2), 4, &mut [&mut vm]);
        assert_eq!(entra.requests(), 1);
        entra.fail(reply);
        live(&process, &mut entra, seconds(2 * 3600), 240, &mut [&mut vm]);
        assert!(entra.requests() > 1, "{what}: not refreshed in two hours");
        let answer = vm.request().bearer(&good(&process)).send();
        assert!(answer.is_forwarded(), "{what}: {answer:?}");
    }
}

#[test]
fn one_unusable_key_does_not_spoil_the_set() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &fetching());
    let good_key = jwks()["keys"][0].clone();
    let mut entra = Entra::new(json!({ "keys": [
        { "kty": "oct", "kid": "secret", "k": "c2VjcmV0" },
        { "kty": "RSA", "kid": "broken", "n": "!!", "e": "AQAB" },
        { "kty": "RSA", "kid": "without-n", "e": "AQAB" },
        { "kty": "unheard-of", "kid": "new" },
        keys::small_rsa().jwk(),
        good_key,
    ] }));
    live(&process, &mut entra, seconds(2), 4, &mut [&mut vm]);
    assert!(vm.request().bearer(&good(&process)).send().is_forwarded());
}
