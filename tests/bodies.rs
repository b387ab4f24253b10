//! What bodies decide, and what it is answered with, on the core.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests on their own constants"
)]

mod common;

use std::collections::BTreeMap;

use common::{APP, Bench, PATH, SIGNER, code, policy, v1_claims};
use serde_json::{Value, json};
use tollgate::answer::{Answer, ResponseContext};
use tollgate::gateway::{Patience, Verdict};
use tollgate::refusal::Code::{self, *};
use tollgate::request::HeaderMap;
use tollgate::time::Time;

const V1_CHAT: &str = "/openai/v1/chat/completions";

struct Caller {
    bench: Bench,
    authorization: String,
}

impl Caller {
    fn new(app: Value, more: &Value) -> Self {
        let mut app = app;
        app["app_id"] = json!(APP);
        let mut all = json!({ "apps": [app] });
        for (name, value) in more.as_object().unwrap() {
            all[name] = value.clone();
        }
        Self {
            bench: Bench::new(&policy(&all)),
            authorization: format!("Bearer {}", SIGNER.token(&v1_claims())),
        }
    }

    fn ask(&mut self, path: &str, content_type: &str, body: &str) -> Verdict {
        let headers = [
            (":path", path),
            ("authorization", &*self.authorization.clone()),
            ("content-type", content_type),
        ];
        self.bench.decide_body(&headers, body)
    }

    fn code(&mut self, path: &str, body: &str) -> Option<Code> {
        code(&self.ask(path, "application/json", body))
    }

    /// The headers of the refusal, and its message.
    fn refusal(&mut self, path: &str, body: &str) -> (BTreeMap<&'static str, String>, String) {
        let Verdict::Refuse(refuse) = self.ask(path, "application/json", body) else {
            panic!("{body} is not refused")
        };
        let responses = &self.bench.gateway.policy().responses;
        let answer = Answer::new(&refuse.refusal, responses, &ResponseContext::default());
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        let message = body["error"]["message"].as_str().unwrap().to_owned();
        (answer.headers.into_iter().collect(), message)
    }
}

#[test]
fn models_in_bodies_are_deployments() {
    let mut caller = Caller::new(json!({ "deployments": ["gpt-4o", "text-*"] }), &json!({}));
    for (body, expected) in [
        (r#"{"model":"gpt-4o"}"#, None),
        (r#"{"model":"GPT-4O","input":{"model":"o1"}}"#, None),
        (r#"{"model":"text-embedding-3"}"#, None),
        (r#"{"mo\u0064el":"gpt-4o"}"#, None),
        (r#"{"model":"gpt-4\u006f"}"#, None),
        (r#"{"model":"o1"}"#, Some(DeploymentNotAllowed)),
        (r#"{"model":""}"#, Some(DeploymentNotAllowed)),
        (r#"{"model":" gpt-4o"}"#, Some(DeploymentNotAllowed)),
        (r#"{"model":null}"#, Some(DeploymentNotAllowed)),
        (r#"{"model":1}"#, Some(DeploymentNotAllowed)),
        (
            r#"{"model":"gpt-4o","model":"gpt-4o"}"#,
            Some(DeploymentNotAllowed),
        ),
        (
            r#"{"model":"gpt-4o","MODEL":"o1"}"#,
            Some(DeploymentNotAllowed),
        ),
        (r#"{"model":"gpt-4o"} x"#, Some(DeploymentNotAllowed)),
        (r#"{"model":"gpt-4o""#, Some(DeploymentNotAllowed)),
        (r#"{'model':'gpt-4o'}"#, Some(DeploymentNotAllowed)),
        ("{}", Some(DeploymentNotAllowed)),
        ("[]", Some(DeploymentNotAllowed)),
        ("", Some(DeploymentNotAllowed)),
    ] {
        for path in [V1_CHAT, "/openai/v1/responses", "/openai/responses"] {
            assert_eq!(caller.code(path, body), expected, "{path} {body}");
        }
    }
    let multipart = "multipart/form-data; boundary=x";
    let verdict = caller.ask("/openai/v1/audio/transcriptions", multipart, "--x");
    assert_eq!(code(&verdict), Some(DeploymentNotAllowed));
}

/// Azure OpenAI makes images with the deployment that this header names.
#[test]
fn a_deployment_for_images_is_one_too() {
    const HEADER: &str = "x-ms-oai-image-generation-deployment";
    const RESPONSES: &str = "/openai/v1/responses";
    let ask = |caller: &mut Caller, path: &str, images: &[&str]| {
        let authorization = caller.authorization.clone();
        let mut headers = vec![(":path", path), ("authorization", &*authorization)];
        headers.extend(images.iter().map(|name| (HEADER, *name)));
        code(&caller.bench.decide_body(&headers, r#"{"model":"gpt-4o"}"#))
    };
    let mut narrowed = Caller::new(json!({ "deployments": ["gpt-4o", "draw-*"] }), &json!({}));
    for path in [RESPONSES, PATH] {
        for allowed in [&[][..], &["draw-1"], &["Draw-2", "gpt-4o"]] {
            assert_eq!(
                ask(&mut narrowed, path, allowed),
                None,
                "{path} {allowed:?}"
            );
        }
        for refused in [
            &["gpt-image-1"][..],
            &[""],
            &["draw-1", "gpt-image-1"],
            &["draw-1,x"],
        ] {
            let code = ask(&mut narrowed, path, refused);
            assert_eq!(code, Some(DeploymentNotAllowed), "{path} {refused:?}");
        }
    }
    // A limit for it counts the call.
    let limit = json!({ "calls": 1, "per": "60s", "deployments": ["gpt-image-1"] });
    let mut limited = Caller::new(json!({ "limits": [limit] }), &json!({}));
    assert_eq!(ask(&mut limited, RESPONSES, &["gpt-image-1"]), None);
    for path in [RESPONSES, PATH] {
        assert_eq!(ask(&mut limited, path, &[]), None);
        let again = ask(&mut limited, path, &["gpt-image-1"]);
        assert_eq!(again, Some(RateLimitExceeded), "{path}");
    }
}

/// It counts in no limit for some deployments.
#[test]
fn an_operation_without_a_deployment_is_of_none() {
    let limit = json!({ "calls": 1, "per": "60s", "deployments": ["gpt-4o"] });
    let mut limited = Caller::new(json!({ "limits": [limit] }), &json!({}));
    for _ in 0..3 {
        assert_eq!(limited.code("/openai/files", ""), None);
    }
    assert_eq!(limited.code(PATH, "{}"), None);
    assert_eq!(limited.code(PATH, "{}"), Some(RateLimitExceeded));
}

/// An assistant that is changed names a model as one that is made does.
#[test]
fn a_change_of_an_assistant_names_a_deployment() {
    let mut caller = Caller::new(json!({ "deployments": ["gpt-4o"] }), &json!({}));
    for path in [
        "/openai/v1/assistants/asst_1",
        "/openai/assistants/asst_1?api-version=2024-10-21",
    ] {
        assert_eq!(caller.code(path, r#"{"model":"gpt-4o"}"#), None);
        for body in [r#"{"model":"o1"}"#, r#"{"name":"x"}"#] {
            let code = caller.code(path, body);
            assert_eq!(code, Some(DeploymentNotAllowed), "{path} {body}");
        }
    }
}

/// The head would go on, and again and again, as long as the body does not end.
#[test]
fn a_limit_that_is_reached_refuses_the_head() {
    let head = |caller: &mut Caller, path: &str| {
        let authorization = caller.authorization.clone();
        let pairs = [
            (":method", "POST"),
            (":path", path),
            ("authorization", &*authorization),
        ];
        let pairs = pairs.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let now = Time::from_millis(caller.bench.now);
        let headers = HeaderMap::from_pairs(pairs);
        let Bench { gateway, store, .. } = &mut caller.bench;
        match gateway.decide(&headers, &|| now, &**store, Patience::Wait) {
            Verdict::Refuse(refuse) => Some(refuse.refusal.code()),
            Verdict::Read(_) => None,
            other => panic!("{other:?}"),
        }
    };
    for (limit, refused) in [
        (json!({ "calls": 1, "per": "60s" }), Some(RateLimitExceeded)),
        (
            json!({ "calls": 1, "per": "60s", "operations": ["Microsoft.CognitiveServices/accounts/OpenAI/deployments/chat/completions/action"] }),
            Some(RateLimitExceeded),
        ),
        (
            json!({ "tokens": 1030, "per": "60s", "reserve": true }),
            None,
        ),
        (
            json!({ "tokens": 1001, "per": "60s", "reserve": true }),
            Some(TokenLimitExceeded),
        ),
        // Another deployment may be meant.
        (
            json!({ "calls": 1, "per": "60s", "deployments": ["gpt-4o"] }),
            None,
        ),
    ] {
        let mut caller = Caller::new(json!({ "limits": [limit] }), &json!({}));
        let body = r#"{"model":"gpt-4o","max_tokens":992}"#;
        assert_eq!(caller.code(V1_CHAT, body), None, "{limit}");
        assert_eq!(head(&mut caller, V1_CHAT), refused, "{limit}");
        // Calls are taken by the head, and nothing else is.
        caller.bench.now += 61_000;
        assert_eq!(head(&mut caller, V1_CHAT), None, "{limit}");
        let taken = refused.filter(|code| *code == RateLimitExceeded);
        assert_eq!(head(&mut caller, V1_CHAT), taken, "{limit}");
        assert_eq!(caller.code(V1_CHAT, body), taken, "{limit}");
    }
}

#[test]
fn what_the_body_names_is_told() {
    let mut caller = Caller::new(json!({}), &json!({}));
    let told = |verdict: Verdict| match verdict {
        Verdict::Allow(allow) => allow.asked.deployment,
        other => panic!("{other:?}"),
    };
    let mut ask = |path: &str, body: &str| told(caller.ask(path, "application/json", body));
    assert_eq!(
        ask(V1_CHAT, r#"{"model":"gpt-4o"}"#).as_deref(),
        Some("gpt-4o")
    );
    // A model beside a deployment in the path is nothing to Azure.
    assert_eq!(ask(PATH, r#"{"model":"o1"}"#).as_deref(), Some("gpt-4o"));
    for body in [
        "{}",
        "x",
        r#"{"model":"a\nb"}"#,
        r#"{"model":"a","model":"b"}"#,
    ] {
        assert_eq!(ask(V1_CHAT, body), None, "{body}");
    }
    let long = format!(r#"{{"model":"{}"}}"#, "m".repeat(500));
    assert_eq!(ask(V1_CHAT, &long), None);
}

#[test]
fn a_limit_on_tokens_is_answered_with_what_the_sdks_read() {
    let mut caller = Caller::new(
        json!({ "limits": [{ "tokens": 100, "per": "60s", "reserve": true }] }),
        &json!({}),
    );
    let body = r#"{"messages":[],"max_tokens":60}"#;
    assert_eq!(caller.code(PATH, body), None);
    assert_eq!(caller.code(PATH, body), Some(TokenLimitExceeded));
    let (headers, message) = caller.refusal(PATH, body);
    let header = |name| headers.get(name).map(String::as_str);
    assert_eq!(header("x-ratelimit-limit-tokens"), Some("100"));
    assert_eq!(header("x-ratelimit-remaining-tokens"), Some("32"));
    assert!(header("x-ratelimit-reset-tokens").is_some());
    assert!(header("retry-after").is_some() && header("retry-after-ms").is_some());
    assert_eq!(header("x-ratelimit-limit-requests"), None);
    assert_eq!(header("x-should-retry"), None);
    assert!(
        message.starts_with("Token limit is exceeded. Try again in "),
        "{message}"
    );
    // What never fits is not to be tried again.
    let (headers, message) = caller.refusal(PATH, r#"{"max_tokens":101}"#);
    assert!(headers.contains_key("x-ratelimit-limit-tokens"));
    for name in ["retry-after", "retry-after-ms", "x-should-retry"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    assert!(message.contains("100 tokens"), "{message}");
    // The smallest call still fits, and one that uses no tokens.
    assert_eq!(caller.code(PATH, r#"{"max_tokens":20}"#), None);
    let headers = [(":method", "GET"), (":path", "/openai/v1/models")];
    let authorization = ("authorization", &*caller.authorization.clone());
    let verdict = caller
        .bench
        .decide(&[headers[0], headers[1], authorization]);
    assert_eq!(code(&verdict), None);
}

#[test]
fn a_quota_of_tokens_says_so() {
    let mut caller = Caller::new(
        json!({ "limits": [{ "tokens": 100, "per": "month", "reserve": true }] }),
        &json!({}),
    );
    assert_eq!(caller.code(PATH, r#"{"max_tokens":80}"#), None);
    let (headers, message) = caller.refusal(PATH, r#"{"max_tokens":80}"#);
    assert_eq!(
        headers.get("x-should-retry").map(String::as_str),
        Some("false")
    );
    assert!(headers.contains_key("x-ratelimit-remaining-tokens"));
    assert!(message.starts_with("Out of token quota."), "{message}");
}

#[test]
fn bodies_that_cannot_be_bounded_are_refused_under_reserve() {
    let mut caller = Caller::new(
        json!({ "limits": [{ "tokens": 5000, "per": "60s", "reserve": true }] }),
        &json!({}),
    );
    for body in [
        r#"{"max_tokens":1,"max_tokens":100000}"#,
        r#"{"max_tokens":"1"}"#,
        r#"{"max_tokens":1"#,
    ] {
        assert_eq!(caller.code(PATH, body), Some(CallExceedsLimit), "{body}");
    }
    let huge = format!(r#"{{"max_tokens":{},"n":9}}"#, u64::MAX);
    assert_eq!(caller.code(PATH, &huge), Some(CallExceedsLimit));
}

/// A backend may trim or decode what is no deployment's name, and run the deployment.
#[test]
fn what_is_no_deployments_name_falls_under_every_limit_that_it_might() {
    let limit = json!({ "calls": 1, "per": "60s", "deployments": ["gpt-4o"] });
    let mut caller = Caller::new(json!({ "limits": [limit] }), &json!({}));
    assert_eq!(caller.code(V1_CHAT, r#"{"model":"gpt-4o"}"#), None);
    for model in [
        "gpt-4o",
        "gpt-4o ",
        "gpt-4o\\u0000",
        "models/gpt-4o",
        "gpt%2d4o",
        "",
    ] {
        let body = format!(r#"{{"model":"{model}"}}"#);
        assert_eq!(
            caller.code(V1_CHAT, &body),
            Some(RateLimitExceeded),
            "{model}"
        );
    }
    assert_eq!(caller.code(V1_CHAT, r#"{"model":"o1"}"#), None);
}

#[test]
fn in_report_mode_bodies_are_only_told_of() {
    let app = json!({ "deployments": ["gpt-4o"] });
    let mut caller = Caller::new(app, &json!({ "mode": "report" }));
    for body in [r#"{"model":"o1"}"#, "x"] {
        let Verdict::Allow(allow) = caller.ask(V1_CHAT, "application/json", body) else {
            panic!("refused")
        };
        let refusal = allow.would_refuse.map(|refusal| refusal.code());
        assert_eq!(refusal, Some(DeploymentNotAllowed));
    }
}

#[test]
fn without_usage_no_body_is_read_that_decides_nothing() {
    let usage = json!({ "usage": { "read": false } });
    let mut caller = Caller::new(json!({}), &usage);
    let Verdict::Allow(allow) = caller.ask(V1_CHAT, "application/json", "x") else {
        panic!("not allowed")
    };
    assert!(allow.meter.is_none() && allow.body.is_none());
    assert_eq!(allow.asked.deployment, None);
    let mut caller = Caller::new(json!({ "deployments": ["gpt-4o"] }), &usage);
    assert_eq!(
        caller.code(V1_CHAT, r#"{"model":"o1"}"#),
        Some(DeploymentNotAllowed)
    );
}

/// What would keep the answer's usage from being read, or the longer body from being sent.
#[test]
fn headers_go_where_a_call_is_measured() {
    let inject = json!({ "usage": { "stream_options": "inject" } });
    let silent = json!({ "usage": { "read": false } });
    let old = PATH.replace("2024-10-21", "2023-05-15");
    let models = "/openai/models?api-version=2024-10-21";
    for (more, method, path, encodings, length) in [
        (json!({}), "POST", PATH, true, false),
        (inject.clone(), "POST", PATH, true, true),
        // Versions that know no such option are not given it.
        (inject.clone(), "POST", &*old, true, false),
        (inject.clone(), "GET", models, false, false),
        (inject, "GET", PATH, false, false),
        (silent, "POST", PATH, false, false),
    ] {
        let mut caller = Caller::new(json!({}), &more);
        let authorization = caller.authorization.clone();
        let verdict = caller.bench.decide(&[
            (":method", method),
            (":path", path),
            ("authorization", &authorization),
            ("accept-encoding", "gzip"),
            ("content-length", "2"),
        ]);
        let Verdict::Allow(allow) = verdict else {
            panic!("{verdict:?}")
        };
        let removes = |name: &str| {
            let mut removed = allow.changes.remove.iter();
            removed.any(|removed| removed == name.as_bytes())
        };
        let found = (removes("accept-encoding"), removes("content-length"));
        assert_eq!(found, (encodings, length), "{more} {method} {path}");
        assert_eq!(allow.body.is_some(), length);
        assert_eq!(allow.meter.is_some(), encodings);
    }
}
