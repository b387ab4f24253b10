//! Hosts that hand over less than Envoy, or otherwise.

use serde_json::json;
use tollgate_second_host::{APP_ONE, Entra, HeaderQuirk, Hostcall, Process, Vm, keys};

use crate::common::{fetching, good, inline, limited, seconds, with};

#[test]
fn h1_without_method_or_path_nothing_passes() {
    let process = Process::new();
    let top = json!({ "public_paths": ["/status"], "cors_preflight": "pass" });
    let mut vm = Vm::start(&process, &with(inline(), top));
    let token = good(&process);
    let preflight = ("access-control-request-method", "GET");
    for (method, path) in [
        (None, Some("/openai/models")),
        (None, Some("/status")),
        (Some("GET"), None),
        (Some("OPTIONS"), None),
        (Some("GET"), Some("?subscription-key=x")),
        (None, None),
    ] {
        for with_token in [true, false] {
            let mut request = vm.request().without(":method").without(":path");
            request = request.header(preflight.0, preflight.1);
            for (name, value) in [(":method", method), (":path", path)] {
                request = match value {
                    Some(value) => request.header(name, value),
                    None => request,
                };
            }
            if with_token {
                request = request.bearer(&token);
            }
            let told = request.complete();
            assert_eq!(told.answer.status(), 503, "{method:?} {path:?}");
            assert_eq!(told.answer.code(), "InternalError", "{method:?} {path:?}");
        }
    }
    let public = vm.request().method("GET").path("/status").send();
    assert!(public.is_forwarded());
}

/// A host that hands names over as they were sent.
#[test]
fn h3_names_of_headers_in_any_case() {
    let process = Process::new();
    let policy = with(
        limited(json!({ "tokens": 7, "per": "1h" })),
        json!({ "forward": { "headers": { "x-app-id": "app_id" } } }),
    );
    let mut vm = Vm::start(&process, &policy);
    let token = good(&process);
    let stream = vm.request().bearer(&token).open();
    let passed = vm.send_trailers(stream, &[("X-App-Id", "forged"), ("Api-Key", "k")]);
    assert!(!passed.contains("x-app-id") && !passed.contains("api-key"));
    vm.respond(stream, 500);
    let _ = vm.finish(stream);
    let keyed = vm.request().bearer(&token).header("Api-Key", "k").send();
    assert_eq!(keyed.code(), "AuthenticationTypeDisabled");

    let request = vm.request().without("content-type").without("x-request-id");
    let stream = request
        .header("Authorization", format!("Bearer {token}"))
        .header("Content-Type", "application/json")
        .header("Accept-Encoding", "gzip")
        .header("X-App-Id", "forged")
        .header("X-Request-Id", "r-1")
        .open();
    let forwarded = vm.answer(stream);
    assert_eq!(forwarded.headers().all("x-app-id"), [APP_ONE]);
    assert!(!forwarded.headers().contains("accept-encoding"));
    vm.send_body(stream, b"{}", true);
    let usage = br#"{"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#;
    vm.respond_with(stream, 200, &[("Content-Type", "application/json")], usage);
    let told = vm.finish(stream);
    assert_eq!(told.field("total_tokens"), 7);
    assert_eq!(told.field("request_id"), "r-1");
    let limited = vm.request().bearer(&token).send();
    assert_eq!(limited.code(), "TokenLimitExceeded");
}

/// Identity headers that callers send under our names, present or absent, on gateways that set them otherwise.
#[test]
fn headers_are_set_without_a_gap_on_every_host() {
    for quirk in [
        HeaderQuirk::None,
        HeaderQuirk::RemovedComesBack,
        HeaderQuirk::SetNeedsPresent,
    ] {
        let process = Process::new();
        let forward = json!({ "forward": { "headers": { "x-app-id": "app_id" } } });
        let mut vm = Vm::start(&process, &with(inline(), forward));
        let token = good(&process);
        process.imitate(quirk);
        for forged in [0, 1, 1, 0, 2, 2] {
            let mut request = vm.request().bearer(&token);
            for _ in 0..forged {
                request = request.header("x-app-id", "forged");
            }
            let answer = request.send();
            let ids = answer.headers().all("x-app-id");
            assert_eq!(ids, [APP_ONE], "{quirk:?} {forged}");
        }
    }
}

#[test]
fn a_host_that_does_not_change_headers_lets_nothing_pass() {
    let process = Process::new();
    let forward = json!({ "forward": { "headers": { "x-app-id": "app_id" } } });
    let mut vm = Vm::start(&process, &with(inline(), forward));
    process.imitate(HeaderQuirk::NothingChanges);
    for forged in [None, Some("forged")] {
        let mut request = vm.request().bearer(&good(&process));
        if let Some(forged) = forged {
            request = request.header("x-app-id", forged);
        }
        assert_eq!(request.send().code(), "InternalError");
    }
    let told = |line: &tollgate_second_host::Line| {
        line.text.contains("does not change the request header")
    };
    assert!(process.log().iter().any(told));
}

/// What a host shows of its headers is asked for once for each way of changing them, and not with every request.
#[test]
fn a_host_that_is_known_to_set_headers_is_not_asked_again() {
    let process = Process::new();
    let forward = json!({ "forward": { "headers": { "x-app-id": "app_id" } } });
    let mut vm = Vm::start(&process, &with(inline(), forward));
    let token = good(&process);
    assert!(vm.request().bearer(&token).send().is_forwarded());
    let reads = |vm: &mut Vm| {
        let before = process.count(Hostcall::GetHeaders);
        let stream = vm.request().bearer(&token).open();
        let reads = process.count(Hostcall::GetHeaders) - before;
        let _ = vm.finish(stream);
        reads
    };
    assert_eq!(reads(&mut vm), 1);
}

/// A host that hands the body over while the head is paused: it goes on only decided.
#[test]
fn l11_a_body_that_comes_while_its_request_waits_is_decided_before_it_goes_on() {
    const GPT: &[u8] = br#"{"model":"gpt-4o"}"#;
    const O1: &[u8] = br#"{"model":"o1-pro"}"#;
    for (pieces, expected) in [
        (vec![(GPT, true)], None),
        (vec![(O1, true)], Some("DeploymentNotAllowed")),
        (vec![(&GPT[..9], false), (GPT, true)], None),
        (
            vec![(&O1[..9], false), (O1, true)],
            Some("DeploymentNotAllowed"),
        ),
        (vec![(GPT, false)], Some("KeysUnavailable")),
        (vec![(&GPT[..9], false)], Some("KeysUnavailable")),
        (vec![(b"", true)], Some("BodyNotReadable")),
    ] {
        let process = Process::new();
        let app = json!({ "default_app": { "deployments": ["gpt-4o"] } });
        let mut vm = Vm::start(&process, &with(fetching(), app));
        let request = vm.request().path("/openai/v1/chat/completions");
        let stream = request.bearer(&good(&process)).open();
        for (held, end) in &pieces {
            assert!(vm.hold_body(stream, held, *end));
        }
        process.pass(seconds(1), &mut [&mut vm]);
        Entra::new(keys::jwks(&[keys::rsa(0)])).serve(&mut vm);
        process.pass(seconds(1), &mut [&mut vm]);
        match (vm.answer(stream), expected) {
            (answer, None) => assert!(answer.is_forwarded(), "{pieces:?}: {answer:?}"),
            (answer, Some(code)) => assert_eq!(answer.code(), code, "{pieces:?}"),
        }
        let told = vm.finish(stream);
        assert_eq!(
            told.state("passed").is_some(),
            expected.is_none(),
            "{pieces:?}"
        );
    }
}
