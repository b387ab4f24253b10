//! What is told about each request: the log, the filter state, the metrics.

use serde_json::json;
use tollgate_second_host::{APP_ONE, LogLevel, Process, TENANT, Token, Vm, flip_signature, keys};

use crate::common::{good, inline, limited, with};

/// Every field of a line in the request log.
const FIELDS: [&str; 26] = [
    "time",
    "outcome",
    "code",
    "app_id",
    "app_name",
    "tenant_id",
    "object_id",
    "token_id",
    "idtyp",
    "action",
    "deployment",
    "api_version",
    "method",
    "path",
    "status",
    "duration_ms",
    "stream",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "estimated_tokens",
    "client_ip",
    "request_id",
    "client_request_id",
];

const CHAT: &str =
    "Microsoft.CognitiveServices/accounts/OpenAI/deployments/chat/completions/action";

fn start() -> (Process, Vm) {
    let process = Process::new();
    let policy = with(
        limited(json!({ "calls": 1, "per": "60s" })),
        json!({ "apps": [{ "app_id": APP_ONE, "name": "batch" }] }),
    );
    let vm = Vm::start(&process, &policy);
    (process, vm)
}

/// `make` names the commit to the build and to this test alike.
#[test]
fn the_start_tells_version_and_commit() {
    let (process, _) = start();
    let line = process.log().into_iter().next().expect("a line").text;
    let version = include_str!("../../../Cargo.toml")
        .lines()
        .find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'))
        .expect("a version");
    let commit = line
        .strip_prefix(&format!("tollgate {version} ("))
        .and_then(|rest| rest.split_once("): issuers: 1;"))
        .map(|(commit, _)| commit)
        .unwrap_or_else(|| panic!("{line}"));
    if let Ok(built) = std::env::var("TOLLGATE_COMMIT") {
        assert_eq!(commit, built, "run make build");
    }
    let hash = commit.trim_end_matches("-dirty");
    let is_hash = hash.len() >= 12 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(is_hash || commit == "unknown", "{commit}");
}

#[test]
fn one_line_with_every_field_for_each_request() {
    let (process, mut vm) = start();
    let token = good(&process);
    for told in [
        vm.request().bearer(&token).complete(),
        vm.request().complete(),
        vm.request().bearer("x").complete(),
        vm.request()
            .bearer(&token)
            .header("api-key", "k")
            .complete(),
        vm.request().bearer(&token).without_properties().complete(),
    ] {
        for field in FIELDS {
            let _ = told.field(field);
        }
    }
    assert_eq!(process.request_log().len(), 5);
}

#[test]
fn an_allowed_request() {
    let (process, mut vm) = start();
    let told = vm.request().bearer(&good(&process)).backend(201).complete();
    for (field, value) in [
        ("outcome", json!("allowed")),
        ("app_id", json!(APP_ONE)),
        ("app_name", json!("batch")),
        ("tenant_id", json!(TENANT)),
        ("object_id", json!("dddddddd-0000-0000-0000-000000000001")),
        ("token_id", json!("Jx8s5WvQx0u1m3zB9kQCAA")),
        ("idtyp", json!("app")),
        ("action", json!(CHAT)),
        ("deployment", json!("gpt-4o")),
        ("method", json!("POST")),
        ("path", json!("/openai/deployments/gpt-4o/chat/completions")),
        ("api_version", json!("2024-10-21")),
        ("status", json!(201)),
        ("client_ip", json!("10.1.2.3")),
        ("request_id", json!("b4a7f0c2-6f0a-4f55-9a3e-0d6f2f6f2a01")),
    ] {
        assert_eq!(*told.field(field), value, "{field}");
    }
    let time = told.field("time").as_str().expect("text");
    assert!(
        time.starts_with("2025-06-15T15:06:40") && time.ends_with('Z'),
        "{time}"
    );
    assert!(told.field("duration_ms").is_number());
}

#[test]
fn a_refused_request() {
    let (process, mut vm) = start();
    let told = vm
        .request()
        .bearer(&flip_signature(&good(&process)))
        .complete();
    assert_eq!(*told.field("outcome"), json!("unauthenticated"));
    assert_eq!(*told.field("code"), json!("TokenSignatureInvalid"));
    assert_eq!(*told.field("status"), json!(401));
    // What was not verified is nobody's name.
    for field in ["app_id", "app_name", "tenant_id", "object_id", "token_id"] {
        let value = told.field(field);
        assert!(value.is_null() || value == "", "{field}: {value}");
        assert_eq!(
            told.state(field).filter(|value| !value.is_empty()),
            None,
            "{field}"
        );
    }
}

#[test]
fn addresses_are_logged_without_their_port() {
    let (_, mut vm) = start();
    for (address, client_ip) in [
        ("10.1.2.3:43210", "10.1.2.3"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[::ffff:10.1.2.3]:1", "::ffff:10.1.2.3"),
    ] {
        let told = vm
            .request()
            .property("source.address", address.as_bytes())
            .complete();
        assert_eq!(*told.field("client_ip"), json!(client_ip));
    }
    for odd in [b"\xff\xfe".as_slice(), b"", b"@unix", b":", b"[::1"] {
        let told = vm.request().property("source.address", odd).complete();
        let _ = told.field("client_ip");
    }
    let told = vm.request().property("response.code", b"\x01").complete();
    assert_eq!(*told.field("outcome"), json!("unauthenticated"));
}

#[test]
fn what_callers_send_cannot_break_a_line() {
    let (process, mut vm) = start();
    let path = "/openai/\"},{\"outcome\":\"allowed\"\n\r\t\\x\u{1b}[31m?api-version=\"\n1";
    let told = vm.request().path(path).method("GE\"T").complete();
    let expected = path.split('?').next().expect("a path");
    assert_eq!(*told.field("path"), json!(expected));
    let told = vm
        .request()
        .path(b"/openai/\xff\xfe\x80".as_slice())
        .property("request.id", b"\"\n\xff")
        .complete();
    assert_eq!(*told.field("outcome"), json!("unauthenticated"));
    for line in process.log() {
        assert!(!line.text.contains(['\n', '\r', '\u{1b}']), "{line:?}");
    }
}

#[test]
fn no_token_and_no_key_in_any_line_or_state() {
    let (process, mut vm) = start();
    let token = good(&process);
    let key = "0123456789abcdef-key-0123456789abcdef";
    let mut states = Vec::new();
    for told in [
        vm.request().bearer(&token).complete(),
        vm.request().bearer(&token).complete(),
        vm.request().bearer(&flip_signature(&token)).complete(),
        vm.request().bearer(&format!("{token}.{key}")).complete(),
        vm.request()
            .header("authorization", format!("Basic {key}"))
            .complete(),
        vm.request()
            .bearer(&token)
            .header("api-key", key)
            .complete(),
        vm.request()
            .bearer(&token)
            .path(format!("/openai/models?api-key={key}"))
            .complete(),
        vm.request()
            .path(format!("/openai/models?subscription-key={key}"))
            .complete(),
        vm.request().bearer(&token).bearer(key).complete(),
        vm.request().header("cookie", key).complete(),
    ] {
        states.extend(told.filter_state.into_values());
    }
    let signature = token.rsplit('.').next().expect("three parts");
    let payload = token.split('.').nth(1).expect("three parts");
    for part in [
        &signature[..40],
        &signature[signature.len() / 2 + 4..],
        &payload[..40],
        key,
    ] {
        let logged = process.log_text();
        assert!(!logged.contains(part), "{part} in\n{logged}");
        assert!(
            !states
                .iter()
                .any(|value| String::from_utf8_lossy(value).contains(part)),
            "{part}"
        );
    }
}

#[test]
fn the_filter_state_has_what_access_loggers_need() {
    let (process, mut vm) = start();
    let told = vm.request().bearer(&good(&process)).complete();
    for (field, value) in [
        ("outcome", "allowed"),
        ("app_id", APP_ONE),
        ("app_name", "batch"),
        ("tenant_id", TENANT),
        ("object_id", "dddddddd-0000-0000-0000-000000000001"),
        ("action", CHAT),
        ("deployment", "gpt-4o"),
    ] {
        assert_eq!(told.state(field).as_deref(), Some(value), "{field}");
    }
    let told = vm.request().complete();
    assert_eq!(told.state("outcome").as_deref(), Some("unauthenticated"));
    assert_eq!(told.state("code").as_deref(), Some("TokenNotPresent"));
}

#[test]
fn the_filter_state_has_only_the_fields_of_the_policy() {
    let process = Process::new();
    let policy = with(
        inline(),
        json!({ "log": { "filter_state": ["app_id", "outcome"] } }),
    );
    let mut vm = Vm::start(&process, &policy);
    let told = vm.request().bearer(&good(&process)).complete();
    let names: Vec<_> = told.filter_state.keys().map(String::as_str).collect();
    // The interlock's is none of the policy's fields.
    let fields = ["app_id", "outcome", "passed"].map(|field| format!("wasm.tollgate.{field}"));
    assert_eq!(names, fields);
}

#[test]
fn the_request_log_can_be_switched_off() {
    let process = Process::new();
    let mut vm = Vm::start(
        &process,
        &with(inline(), json!({ "log": { "requests": false } })),
    );
    let told = vm.request().bearer(&good(&process)).complete();
    assert_eq!(told.log, None);
    assert_eq!(told.state("outcome").as_deref(), Some("allowed"));
    assert_eq!(process.request_log(), Vec::<serde_json::Value>::new());
}

#[test]
fn a_request_that_ends_without_an_answer_is_logged_too() {
    let (process, mut vm) = start();
    let stream = vm.request().bearer(&good(&process)).open();
    let told = vm.finish(stream);
    assert_eq!(*told.field("outcome"), json!("allowed"));
    let status = told.field("status");
    assert!(status.is_null() || status == 0, "{status}");
}

#[test]
fn report_mode_tells_what_would_have_been() {
    let process = Process::new();
    let policy = with(
        limited(json!({ "calls": 1, "per": "60s" })),
        json!({ "mode": "report" }),
    );
    let mut vm = Vm::start(&process, &policy);
    let token = good(&process);
    assert_eq!(
        *vm.request().bearer(&token).complete().field("outcome"),
        json!("allowed")
    );
    let told = vm.request().bearer(&token).complete();
    assert!(told.answer.is_forwarded());
    assert_eq!(*told.field("code"), json!("RateLimitExceeded"));
    assert_ne!(*told.field("outcome"), json!("allowed"));
    let told = vm.request().complete();
    assert!(told.answer.is_forwarded());
    assert_eq!(*told.field("code"), json!("TokenNotPresent"));
    assert_eq!(*told.field("status"), json!(200));
}

#[test]
fn requests_are_counted() {
    let (process, mut vm) = start();
    let token = good(&process);
    let count = |needles: &[&str]| -> u64 {
        process
            .metrics()
            .iter()
            .filter(|(name, _)| name.contains("requests"))
            .filter(|(name, _)| needles.iter().all(|needle| name.contains(needle)))
            .map(|(_, value)| value)
            .sum()
    };
    for _ in 0..3 {
        assert!(vm.request().bearer(&token).send().is_forwarded());
    }
    let _ = vm.request().send();
    let unlisted = Token::v1(&process).app("bbbbbbbb-0000-0000-0000-000000000001");
    let unlisted = unlisted.sign(keys::rsa(0));
    let _ = vm.request().bearer(&unlisted).send();
    let _ = vm.request().bearer(&unlisted).send();
    vm.tick();
    let names = process.metrics();
    assert_eq!(count(&[]), 6, "{names:#?}");
    assert_eq!(count(&["batch", "allowed"]), 3, "{names:#?}");
    assert_eq!(count(&["TokenNotPresent"]), 1, "{names:#?}");
    assert_eq!(count(&["RateLimitExceeded"]), 1, "{names:#?}");
    assert!(
        names.keys().all(|name| !name.contains("bbbbbbbb")),
        "{names:#?}"
    );
    assert!(
        names.keys().all(|name| name.contains("tollgate")),
        "{names:#?}"
    );
}

#[test]
fn keys_and_caches_are_measured() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &crate::common::fetching());
    let mut entra = tollgate_second_host::Entra::new(keys::jwks(&[keys::rsa(0), keys::rsa(1)]));
    let span = crate::common::seconds(20);
    crate::common::live(&process, &mut entra, span, 40, &mut [&mut vm]);
    let token = good(&process);
    for _ in 0..3 {
        assert!(vm.request().bearer(&token).send().is_forwarded());
    }
    vm.tick();
    let names = process.metrics();
    let sum = |needle: &str| -> u64 {
        names
            .iter()
            .filter(|(name, _)| name.contains(needle))
            .map(|(_, value)| value)
            .sum()
    };
    assert_eq!(sum("key_fetches"), 1, "{names:#?}");
    assert!((15..=20).contains(&sum("key_age_seconds")), "{names:#?}");
    assert_eq!(sum("token_cache"), 3, "{names:#?}");
    let keys: u64 = names
        .iter()
        .filter(|(name, _)| name.contains("keys") && !name.contains("key_"))
        .map(|(_, value)| value)
        .sum();
    assert_eq!(keys, 2, "{names:#?}");
}

#[test]
fn lines_other_than_requests_say_what_went_wrong() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &crate::common::fetching());
    let mut entra = tollgate_second_host::Entra::new(json!({}));
    entra.fail(tollgate_second_host::Reply::with(500, "{}"));
    let span = crate::common::seconds(60);
    crate::common::live(&process, &mut entra, span, 120, &mut [&mut vm]);
    let warnings = process
        .log()
        .into_iter()
        .filter(|line| line.level >= LogLevel::Warn)
        .collect::<Vec<_>>();
    assert!(
        !warnings.is_empty(),
        "a provider that fails for a minute goes unnoticed"
    );
    assert!(
        warnings.iter().any(|line| line.text.contains("500")),
        "{warnings:#?}"
    );
    assert!(
        warnings.len() <= 200,
        "{} warnings in a minute",
        warnings.len()
    );
}
