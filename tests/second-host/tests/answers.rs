//! What a refused caller reads.

use serde_json::json;
use tollgate_second_host::{AUDIENCE, Process, TENANT, Token, Vm, flip_signature, keys};

use crate::common::{good, inline, limited, with};

#[test]
fn errors_read_as_openai_writes_them() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &inline());
    let answer = vm.request().send();
    let body = answer.json();
    let error = body["error"].as_object().expect("an object");
    assert_eq!(error["code"], "TokenNotPresent");
    assert!(!error["message"].as_str().expect("text").is_empty());
    assert!(!error["type"].as_str().expect("text").is_empty());
    assert!(error["param"].is_null());
    assert_eq!(error.len(), 4);
    let kind = answer
        .headers()
        .get("content-type")
        .expect("a content type");
    assert!(kind.starts_with("application/json"), "{kind}");
}

#[test]
fn a_401_names_the_scheme_and_the_error() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &inline());
    let absent = vm.request().send();
    let challenge = absent
        .headers()
        .get("www-authenticate")
        .expect("a challenge");
    assert!(challenge.starts_with("Bearer realm=\""), "{challenge}");
    assert!(!challenge.contains("error"), "{challenge}");
    let forged = vm.request().bearer(&flip_signature(&good(&process))).send();
    let challenge = forged
        .headers()
        .get("www-authenticate")
        .expect("a challenge");
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    assert!(challenge.contains("error_description=\""), "{challenge}");
    let key = vm.request().header("api-key", "k").send();
    assert!(!key.headers().contains("www-authenticate"));
}

#[test]
fn an_answer_tells_no_more_than_its_code() {
    let process = Process::new();
    let policy = with(
        inline(),
        json!({ "apps": [{ "app_id": "aaaaaaaa-0000-0000-0000-000000000009", "name": "secret-app" }] }),
    );
    let mut vm = Vm::start(&process, &policy);
    for token in [
        Token::v1(&process).claim("iss", "https://evil.example/"),
        Token::v1(&process).claim("aud", "https://evil.example/"),
        Token::v1(&process).claim("exp", 1_600_000_000),
        Token::v1(&process).header("kid", "evil-kid"),
    ] {
        let answer = vm.request().bearer(&token.sign(keys::rsa(0))).send();
        let text = format!("{answer:?}").to_lowercase();
        let body = answer.json().to_string().to_lowercase();
        for secret in [
            "evil",
            TENANT,
            AUDIENCE,
            "secret-app",
            &keys::rsa(0).kid,
            "1600000000",
        ] {
            assert!(
                !text.contains(secret) && !body.contains(secret),
                "{secret} in {body} {text}"
            );
        }
    }
}

#[test]
fn status_and_message_are_the_policys() {
    let process = Process::new();
    let policy = with(
        limited(json!({ "calls": 1, "per": "60s" })),
        json!({ "responses": {
            "unauthenticated": { "status": 403, "message": "Forbidden" },
            "api_key": { "status": 401, "message": "No \"keys\" \\ here, \u{fc}ber" },
            "limited": { "status": 503, "message": "Slow down" },
        } }),
    );
    let mut vm = Vm::start(&process, &policy);
    let answer = vm.request().send();
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (403, "TokenNotPresent")
    );
    assert_eq!(answer.json()["error"]["message"], "Forbidden");
    let answer = vm.request().header("api-key", "k").send();
    assert_eq!(answer.status(), 401);
    assert_eq!(
        answer.json()["error"]["message"],
        "No \"keys\" \\ here, \u{fc}ber"
    );
    assert!(vm.request().bearer(&good(&process)).send().is_forwarded());
    let answer = vm.request().bearer(&good(&process)).send();
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.json()["error"]["message"], "Slow down");
    assert!(answer.headers().contains("retry-after"));
}

#[test]
fn errors_read_as_api_management_writes_them() {
    let process = Process::new();
    let policy = with(
        limited(json!({ "calls": 1, "per": "60s" })),
        json!({ "responses": { "format": "apim" } }),
    );
    let mut vm = Vm::start(&process, &policy);
    let body = vm.request().send().json();
    assert_eq!(body["statusCode"], 401);
    assert!(!body["message"].as_str().expect("text").is_empty());
    assert_eq!(body.as_object().expect("an object").len(), 2);
    assert!(vm.request().bearer(&good(&process)).send().is_forwarded());
    let body = vm.request().bearer(&good(&process)).send().json();
    assert_eq!(body["statusCode"], 429);
}
