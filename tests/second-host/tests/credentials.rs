//! Where a token or a key may stand in a request, and what else may be there.

use serde_json::json;
use tollgate_second_host::{Answer, Process, Token, Vm, keys};

use crate::common::{good, inline, with};

fn start() -> (Process, Vm) {
    let process = Process::new();
    let vm = Vm::start(&process, &inline());
    (process, vm)
}

fn refusal(answer: &Answer) -> (u32, String) {
    (answer.status(), answer.code())
}

#[test]
fn no_bearer_token() {
    let (process, mut vm) = start();
    let expected = (401, "TokenNotPresent".to_owned());
    assert_eq!(refusal(&vm.request().send()), expected);
    for value in ["", "Basic dXNlcjpwYXNz", &good(&process)] {
        let answer = vm.request().header("authorization", value).send();
        assert_eq!(refusal(&answer), expected, "{value}");
    }
}

#[test]
fn the_scheme_is_read_in_any_case() {
    let (process, mut vm) = start();
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let value = format!("{scheme} {}", good(&process));
        assert!(
            vm.request()
                .header("authorization", value)
                .send()
                .is_forwarded(),
            "{scheme}"
        );
    }
}

#[test]
fn identical_repeats_collapse_into_one() {
    let (process, mut vm) = start();
    let token = good(&process);
    let bearer = format!("Bearer {token}");
    let joined = format!("{bearer},{bearer}");
    let spaced = format!("{bearer}, {bearer}, {bearer}");
    for answer in [
        vm.request().bearer(&token).bearer(&token).send(),
        vm.request().header("authorization", joined).send(),
        vm.request().header("authorization", spaced).send(),
    ] {
        assert_eq!(answer.headers().all("authorization"), [bearer.as_str()]);
    }
}

#[test]
fn different_tokens_are_refused_in_any_order() {
    let (process, mut vm) = start();
    let one = good(&process);
    let two = Token::v2(&process).sign(keys::rsa(0));
    for answer in [
        vm.request().bearer(&one).bearer(&two).send(),
        vm.request().bearer(&one).bearer("x").send(),
        vm.request().bearer("x").bearer(&one).send(),
        vm.request()
            .bearer(&one)
            .header("authorization", "Basic eDp5")
            .send(),
        vm.request()
            .header("authorization", "Basic eDp5")
            .bearer(&one)
            .send(),
        vm.request()
            .header("authorization", format!("Bearer {one},Bearer {two}"))
            .send(),
        vm.request()
            .header("authorization", format!("Bearer {one},Basic eDp5"))
            .send(),
        vm.request()
            .header("authorization", format!("Basic eDp5,Bearer {one}"))
            .send(),
        vm.request()
            .header("authorization", format!("Bearer {one} {two}"))
            .send(),
    ] {
        assert_eq!(answer.status(), 401, "{answer:?}");
    }
}

#[test]
fn api_keys_are_refused_even_beside_a_good_token() {
    let (process, mut vm) = start();
    let token = good(&process);
    let path = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21";
    for answer in [
        vm.request().header("api-key", "k").send(),
        vm.request().bearer(&token).header("api-key", "k").send(),
        vm.request().bearer(&token).header("Api-Key", "k").send(),
        vm.request()
            .bearer(&token)
            .header("ocp-apim-subscription-key", "k")
            .send(),
        vm.request()
            .bearer(&token)
            .path(format!("{path}&api-key=k"))
            .send(),
        vm.request()
            .bearer(&token)
            .path(format!("{path}&subscription-key=k"))
            .send(),
        vm.request()
            .bearer(&token)
            .header(
                "sec-websocket-protocol",
                "realtime, openai-insecure-api-key.k",
            )
            .send(),
    ] {
        assert_eq!(
            refusal(&answer),
            (403, "AuthenticationTypeDisabled".to_owned())
        );
    }
}

#[test]
fn api_keys_can_be_stripped() {
    let process = Process::new();
    let policy = with(inline(), json!({ "api_keys": { "action": "strip" } }));
    let mut vm = Vm::start(&process, &policy);
    let token = good(&process);
    let answer = vm
        .request()
        .bearer(&token)
        .header("api-key", "k1")
        .header("api-key", "k2")
        .header("ocp-apim-subscription-key", "k")
        .header(
            "sec-websocket-protocol",
            "realtime, openai-insecure-api-key.k",
        )
        .path("/openai/models?api-key=k&api-version=1&subscription-key=k")
        .send();
    let headers = answer.headers();
    assert!(answer.is_forwarded());
    assert!(!headers.contains("api-key") && !headers.contains("ocp-apim-subscription-key"));
    assert_eq!(
        headers.get(":path").as_deref(),
        Some("/openai/models?api-version=1")
    );
    assert_eq!(
        headers.get("sec-websocket-protocol").as_deref(),
        Some("realtime")
    );
    // The key alone is no credential.
    let answer = vm.request().header("api-key", "k").send();
    assert_eq!(refusal(&answer), (401, "TokenNotPresent".to_owned()));
}

#[test]
fn bytes_that_are_not_utf_8_stop_nobody() {
    let (process, mut vm) = start();
    let token = good(&process);
    let bytes = b"\xff\xfe\x80 \xc3\x28";
    for name in [
        "accept",
        "cookie",
        "content-type",
        "host",
        "origin",
        "referer",
        "traceparent",
        "user-agent",
        "x-forwarded-for",
        "x-request-id",
        "x-anything",
    ] {
        let answer = vm
            .request()
            .without(name)
            .bearer(&token)
            .header(name, bytes)
            .send();
        let Answer::Forwarded { headers } = answer else {
            panic!("{name}: {answer:?}")
        };
        let sent = (name.as_bytes().to_vec(), bytes.to_vec());
        assert!(
            headers.pairs().contains(&sent),
            "{name} was changed: {headers:?}"
        );
    }
    let answer = vm
        .request()
        .bearer(&token)
        .header(b"x-\xff\xfe", bytes)
        .send();
    assert!(answer.is_forwarded(), "as a name");
}

#[test]
fn bytes_that_are_not_utf_8_where_they_matter() {
    let (process, mut vm) = start();
    let token = good(&process);
    let bytes = b"\xff\xfe\x80 \xc3\x28";
    assert_eq!(
        vm.request().header("authorization", bytes).send().status(),
        401
    );
    let value = [b"Bearer ".as_slice(), bytes].concat();
    assert_eq!(
        vm.request().header("authorization", value).send().status(),
        401
    );
    let beside = vm
        .request()
        .bearer(&token)
        .header("authorization", bytes)
        .send();
    assert_eq!(beside.status(), 401);
    for name in ["api-key", "ocp-apim-subscription-key"] {
        let answer = vm.request().bearer(&token).header(name, bytes).send();
        assert_eq!(answer.status(), 403, "{name}");
    }
    // Neither a trap nor a way around.
    let path = [b"/openai/models?x=\xff&api-key=".as_slice(), bytes].concat();
    assert_eq!(vm.request().bearer(&token).path(path).send().status(), 403);
    assert_eq!(vm.request().path(bytes).send().status(), 401);
    let _ = vm.request().bearer(&token).path(bytes).send();
    let _ = vm
        .request()
        .bearer(&token)
        .without(":method")
        .header(":method", bytes)
        .send();
    let _ = vm
        .request()
        .bearer(&token)
        .header("sec-websocket-protocol", bytes)
        .send();
    assert!(vm.request().bearer(&token).send().is_forwarded());
}

#[test]
fn a_request_without_its_usual_headers() {
    let (process, mut vm) = start();
    let token = good(&process);
    for (name, status) in [
        (":path", 503),
        (":method", 503),
        (":authority", 401),
        (":scheme", 401),
    ] {
        assert_eq!(vm.request().without(name).send().status(), status, "{name}");
        let _ = vm.request().without(name).bearer(&token).send();
    }
    assert!(
        vm.request()
            .bearer(&token)
            .without_body()
            .send()
            .is_forwarded()
    );
    assert!(
        vm.request()
            .bearer(&token)
            .without_properties()
            .send()
            .is_forwarded()
    );
}

#[test]
fn public_paths_need_no_token_but_take_no_key() {
    let process = Process::new();
    let policy = with(inline(), json!({ "public_paths": ["/status", "/docs/*"] }));
    let mut vm = Vm::start(&process, &policy);
    for (path, public) in [
        ("/status", true),
        ("/status?x=1", true),
        ("/docs/a", true),
        ("/status/x", false),
        ("/Status", false),
        ("/docs", false),
        ("/docs/../openai/models", false),
        ("/docs/%2e%2e/openai/models", false),
        ("/docs//x", false),
        ("/docs/a\\..\\b", false),
    ] {
        let answer = vm.request().method("GET").path(path).send();
        assert_eq!(answer.is_forwarded(), public, "{path}: {answer:?}");
    }
    let answer = vm
        .request()
        .method("GET")
        .path("/status")
        .header("api-key", "k")
        .send();
    assert_eq!(
        refusal(&answer),
        (403, "AuthenticationTypeDisabled".to_owned())
    );
}

#[test]
fn cors_preflight() {
    let process = Process::new();
    let preflight = |vm: &mut Vm| {
        vm.request()
            .method("OPTIONS")
            .header("access-control-request-method", "POST")
            .send()
    };
    assert_eq!(preflight(&mut Vm::start(&process, &inline())).status(), 401);
    let mut vm = Vm::start(
        &process,
        &with(inline(), json!({ "cors_preflight": "pass" })),
    );
    assert!(preflight(&mut vm).is_forwarded());
    assert_eq!(vm.request().method("OPTIONS").send().status(), 401);
    let post = vm
        .request()
        .header("access-control-request-method", "POST")
        .send();
    assert_eq!(post.status(), 401);
}
