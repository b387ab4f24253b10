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
use tollgate::usage::BodyReader as _;

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

    fn form(&mut self, path: &str, body: &str) -> Option<Code> {
        code(&self.ask(path, FORM, body))
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
        let headers = answer.headers.into_iter();
        let headers = headers.map(|(name, value)| (name, value.into_owned()));
        (headers.collect(), message)
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
        (r#"{"model":"gpt-4o"} x"#, Some(BodyNotReadable)),
        (r#"{"model":"gpt-4o""#, Some(BodyNotReadable)),
        (r#"{'model':'gpt-4o'}"#, Some(BodyNotReadable)),
        ("{}", Some(DeploymentNotAllowed)),
        ("[]", Some(BodyNotReadable)),
        ("", Some(BodyNotReadable)),
    ] {
        for path in [V1_CHAT, "/openai/v1/responses", "/openai/responses"] {
            assert_eq!(caller.code(path, body), expected, "{path} {body}");
        }
    }
}

/// What a backend could make another name of.
#[test]
fn l8_a_model_in_a_body_has_the_form_of_a_deployments_name() {
    let app = json!({ "deployments": ["text-embedding-*", "*"] });
    let mut caller = Caller::new(app, &json!({}));
    let long = "x".repeat(65);
    for name in [
        "text-embedding-x/../o1-pro",
        "text-embedding-\\u0000o1",
        "text-embedding-x?model=o1",
        "text-embedding-x%2fo1",
        "text-embedding-x#",
        "text-embedding-\u{e4}",
        "text-embedding-x ",
        "text-embedding-x\\n",
        "text-embedding-x,o1",
        "",
        &long,
    ] {
        let body = format!(r#"{{"model":"{name}"}}"#);
        for path in [V1_CHAT, "/openai/v1/embeddings", "/openai/responses"] {
            assert_eq!(
                caller.code(path, &body),
                Some(DeploymentNotAllowed),
                "{name}"
            );
        }
        if !name.contains('\\') {
            let code = caller.form("/openai/v1/audio/translations", &model_part(name));
            assert_eq!(code, Some(DeploymentNotAllowed), "{name}");
        }
    }
    for name in ["text-embedding-3.large_v2", &"x".repeat(64)] {
        let body = format!(r#"{{"model":"{name}"}}"#);
        assert_eq!(caller.code(V1_CHAT, &body), None, "{name}");
    }
}

#[test]
fn u7_a_refusal_says_that_the_body_names_the_model_once() {
    let mut caller = Caller::new(json!({ "deployments": ["gpt-4o"] }), &json!({}));
    for (body, why) in [
        ("{}", "`model` is missing"),
        (r#"{"model":null}"#, "`model` is missing"),
        (
            r#"{"model":"gpt-4o","model":"gpt-4o"}"#,
            "`model` is repeated",
        ),
        (r#"{"Model":"gpt-4o"}"#, "`model` is written in another way"),
        (r#"{"model":7}"#, "`model` has the wrong type"),
        (r#"{"model":"a/b"}"#, "`model` is not a deployment's name"),
    ] {
        let (headers, message) = caller.refusal(V1_CHAT, body);
        assert_eq!(headers["x-tollgate-code"], "DeploymentNotAllowed", "{body}");
        let start = "The request body must name `model` once, as a deployment's name: ";
        assert_eq!(message, format!("{start}{why}."), "{body}");
    }
    let (_, message) = caller.refusal(V1_CHAT, r#"{"model":"o1"}"#);
    assert_eq!(
        message,
        "The application is not allowed to use this deployment."
    );
    for (body, why) in [
        ("x", "the body is not JSON"),
        ("[]", "the body is not a JSON object"),
        (r#"{"model":"gpt-4o","n":1.5}"#, "`n` has the wrong type"),
    ] {
        let (headers, message) = caller.refusal(V1_CHAT, body);
        assert_eq!(headers["x-tollgate-code"], "BodyNotReadable", "{body}");
        assert_eq!(
            message,
            format!("The request body cannot be read: {why}."),
            "{body}"
        );
    }
}

const FORM: &str = "multipart/form-data; boundary=x";

/// The paths under which SDKs send forms with a model.
const FORM_PATHS: [&str; 5] = [
    "/openai/v1/audio/transcriptions",
    "/openai/v1/audio/translations",
    "/openai/v1/images/edits",
    "/openai/v1/images/variations",
    "/openai/v1/videos",
];

/// A form of this boundary, of fields by name.
fn form(fields: &[(&str, &str)]) -> String {
    let fields = fields.iter().map(|(name, value)| {
        format!("--x\r\nContent-Disposition: form-data; name={name}\r\n\r\n{value}\r\n")
    });
    format!("{}--x--\r\n", fields.collect::<String>())
}

fn model_part(name: &str) -> String {
    form(&[("\"model\"", name)])
}

const FILE: (&str, &str) = ("\"file\"; filename=\"a.wav\"", "RIFF");

#[test]
fn c4_a_model_in_a_form_is_a_deployment() {
    let app = json!({ "deployments": ["whisper", "gpt-image-*"] });
    let mut caller = Caller::new(app, &json!({}));
    let named = |name| ("\"model\"", name);
    for (fields, expected) in [
        (vec![named("whisper"), FILE], None),
        (vec![FILE, named("Whisper")], None),
        (vec![FILE, named("gpt-image-1"), FILE], None),
        (vec![FILE, named("o1")], Some(DeploymentNotAllowed)),
        (vec![FILE], Some(DeploymentNotAllowed)),
        (vec![], Some(DeploymentNotAllowed)),
        (
            vec![named("whisper"), named("whisper")],
            Some(DeploymentNotAllowed),
        ),
        (
            vec![named("whisper"), ("MODEL", "o1")],
            Some(DeploymentNotAllowed),
        ),
        (
            vec![named("whisper"), ("a; name*=b", "o1")],
            Some(DeploymentNotAllowed),
        ),
        (
            vec![("model; filename=m", "whisper")],
            Some(DeploymentNotAllowed),
        ),
        (
            vec![named("whisper"), ("a; b=c", "")],
            Some(BodyNotReadable),
        ),
        (vec![named("whisper"), ("a", "--x")], Some(BodyNotReadable)),
    ] {
        for path in FORM_PATHS {
            assert_eq!(
                caller.form(path, &form(&fields)),
                expected,
                "{path} {fields:?}"
            );
        }
    }
    let good = form(&[named("whisper")]);
    for (content_type, body, expected) in [
        ("multipart/form-data", &*good, BodyNotReadable),
        ("multipart/form-data; boundary=y", &good, BodyNotReadable),
        ("multipart/mixed; boundary=x", &good, BodyNotReadable),
        (
            "application/x-www-form-urlencoded",
            "model=whisper",
            BodyNotReadable,
        ),
        (FORM, "--x", BodyNotReadable),
        (FORM, r#"{"model":"whisper"}"#, BodyNotReadable),
        (FORM, &format!("{good}{good}"), BodyNotReadable),
        ("application/json", &good, BodyNotReadable),
    ] {
        let verdict = caller.ask(FORM_PATHS[0], content_type, body);
        assert_eq!(code(&verdict), Some(expected), "{content_type} {body}");
    }
    // Where no SDK sends a form, there is none.
    assert_eq!(caller.form(V1_CHAT, &good), Some(BodyNotReadable));
    // JSON is read there as everywhere.
    assert_eq!(
        caller.code("/openai/v1/images/edits", r#"{"model":"whisper"}"#),
        None
    );
    // Where the path names the model, a form is nobody's business here.
    let dated = "/openai/deployments/whisper/audio/transcriptions?api-version=2024-10-21";
    for body in [&*form(&[named("o1")]), "--x"] {
        assert_eq!(caller.form(dated, body), None);
    }
    let verdict = caller.ask(FORM_PATHS[0], FORM, &good);
    let Verdict::Allow(allow) = verdict else {
        panic!("{verdict:?}")
    };
    assert_eq!(allow.asked.deployment.as_deref(), Some("whisper"));
}

#[test]
fn c4_without_anything_that_needs_it_any_form_passes() {
    for app in [
        json!({}),
        json!({ "limits": [{ "tokens": 9, "per": "60s" }] }),
    ] {
        let mut caller = Caller::new(app, &json!({}));
        for body in [&*form(&[FILE]), "--x", "x", ""] {
            assert_eq!(caller.form(FORM_PATHS[0], body), None, "{body}");
        }
    }
}

#[test]
fn l12_a_limit_by_deployment_counts_the_model_of_a_form() {
    let limit = json!({ "calls": 1, "per": "60s", "deployments": ["gpt-4o"] });
    let mut caller = Caller::new(json!({ "limits": [limit] }), &json!({}));
    for path in FORM_PATHS {
        assert_eq!(caller.form(path, &model_part("whisper")), None, "{path}");
    }
    assert_eq!(caller.code(V1_CHAT, r#"{"model":"gpt-4o"}"#), None);
    for (body, expected) in [
        (model_part("gpt-4o"), Some(RateLimitExceeded)),
        (model_part("whisper"), None),
        (form(&[FILE]), Some(DeploymentNotAllowed)),
        (
            form(&[("model", "a"), ("model", "b")]),
            Some(DeploymentNotAllowed),
        ),
        ("--x".to_owned(), Some(BodyNotReadable)),
    ] {
        assert_eq!(caller.form(FORM_PATHS[0], &body), expected, "{body}");
    }
}

/// As from the moment a limit on tokens needs what the body says.
#[test]
fn l6_under_a_limit_on_tokens_a_body_has_one_reading() {
    const CHAT: &str = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21";
    let tokens = json!({ "tokens": 1_000_000, "per": "60s" });
    let reserving = with(&tokens, "reserve", json!(true));
    for limit in [&tokens, &reserving] {
        let mut caller = Caller::new(json!({ "limits": [limit] }), &json!({}));
        for path in [
            CHAT,
            V1_CHAT,
            "/openai/v1/completions",
            "/openai/v1/responses",
            "/openai/responses?api-version=2025-04-01-preview",
            "/openai/v1/threads/t/runs",
        ] {
            for body in [
                r#"{"model":"a","n":1,"n":1}"#,
                r#"{"model":"a","stream":true,"stream":true}"#,
                r#"{"model":"a","stream":false,"str\u0065am":true}"#,
                r#"{"model":"a","Stream":true}"#,
                r#"{"model":"a","max_tokens":100.5}"#,
                r#"{"model":"a","max_output_tokens":-1}"#,
                r#"{"model":"a","max_completion_tokens":"1"}"#,
                r#"{"model":"a","n":"2"}"#,
                r#"{"model":"a","stream":"true"}"#,
                r#"{"model":"a","stream_options":{},"stream_options":{}}"#,
                r#"{"model":"a","stream_options":7}"#,
                r#"{"model":"a","model":"a"}"#,
                r#"{"model":"a"} {}"#,
                r#"{"model":"a""#,
                "[]",
                "",
            ] {
                assert_eq!(
                    caller.code(path, body),
                    Some(BodyNotReadable),
                    "{path} {body}"
                );
            }
            let good = r#"{"model":"a","stream":true,"n":1}"#;
            for content_type in ["application/x-www-form-urlencoded", FORM, "text/html", ""] {
                let got = code(&caller.ask(path, content_type, good));
                assert_eq!(got, Some(BodyNotReadable), "{path} {content_type}");
            }
            for content_type in [
                "application/json; charset=us-ascii",
                "application/json;charset=UTF-16",
                "text/plain; charset=latin1",
            ] {
                let got = code(&caller.ask(path, content_type, good));
                assert_eq!(
                    got,
                    Some(ContentEncodingNotSupported),
                    "{path} {content_type}"
                );
            }
            for content_type in [
                "application/json",
                "text/plain",
                "text/plain; charset=utf-8",
            ] {
                let got = code(&caller.ask(path, content_type, good));
                assert_eq!(got, None, "{path} {content_type}");
            }
            assert_eq!(
                caller.code(path, &format!("\u{feff}{good}")),
                None,
                "{path}"
            );
        }
    }
    // Where nothing needs it, it is the backend's to judge.
    let calls = json!({ "calls": 1_000, "per": "60s" });
    let embeddings = with(&tokens, "operations", json!(["*/embeddings/action"]));
    let others = with(&tokens, "deployments", json!(["o1"]));
    for limit in [&calls, &embeddings, &others] {
        let mut caller = Caller::new(json!({ "limits": [limit] }), &json!({}));
        for body in [r#"{"n":1,"n":1}"#, "x", ""] {
            assert_eq!(caller.code(CHAT, body), None, "{limit} {body}");
        }
    }
    let mut caller = Caller::new(json!({ "limits": [tokens] }), &json!({}));
    let embeddings = "/openai/deployments/gpt-4o/embeddings?api-version=2024-10-21";
    for path in [embeddings, "/openai/v1/embeddings", "/openai/v1/files"] {
        assert_eq!(
            caller.code(path, r#"{"model":"a","n":1,"n":1}"#),
            None,
            "{path}"
        );
    }
}

#[test]
fn l6_under_a_limit_on_tokens_a_dated_call_has_one_version() {
    let tokens = json!({ "limits": [{ "tokens": 1_000_000, "per": "60s" }] });
    let mut limited = Caller::new(tokens, &json!({}));
    let mut free = Caller::new(json!({}), &json!({}));
    for path in [
        "/openai/deployments/gpt-4o/chat/completions",
        "/openai/responses",
    ] {
        for query in [
            "api-version=2024-10-21&api-version=2024-10-21",
            "api-version=2024-02-01&x=1&Api-Version=2024-10-21",
            "api%2Dversion=2024-10-21&api-version=2024-02-01",
            "api-version=2024-02-01;api-version=2024-10-21",
            "api-version=2024-02-01?api-version=2024-10-21",
        ] {
            let path = format!("{path}?{query}");
            assert_eq!(
                limited.code(&path, r#"{"model":"a"}"#),
                Some(BodyNotReadable),
                "{path}"
            );
            assert_eq!(free.code(&path, r#"{"model":"a"}"#), None, "{path}");
        }
        for query in [
            "",
            "?api-version=2024-10-21",
            "?API%2dVERSION=2024-10-21&x=api-version",
        ] {
            let path = format!("{path}{query}");
            assert_eq!(limited.code(&path, r#"{"model":"a"}"#), None, "{path}");
        }
    }
    let v1 = format!("{V1_CHAT}?api-version=preview&api-version=v1");
    assert_eq!(limited.code(&v1, r#"{"model":"a"}"#), None);
    let (_, message) = limited.refusal(
        "/openai/responses?api-version=1&api-version=2",
        r#"{"model":"a"}"#,
    );
    assert!(message.contains("`api-version`"), "{message}");
}

/// However it names its version, and with a slash at its end.
#[test]
fn l6_a_stream_is_made_to_ask_for_usage_as_azure_reads_its_path() {
    let inject = json!({ "usage": { "stream_options": "inject" } });
    let tokens = json!({ "limits": [{ "tokens": 1_000_000, "per": "60s" }] });
    let mut caller = Caller::new(tokens, &inject);
    let chat = "/openai/deployments/gpt-4o/chat/completions";
    for (path, asks) in [
        (format!("{chat}?api-version=2024-10-21"), true),
        (format!("{chat}?Api-Version=2024-10-21"), true),
        (format!("{chat}?x=1&api%2Dversion=2024%2D10-21"), true),
        (format!("{chat}/?api-version=2025-01-01-PREVIEW"), true),
        (format!("{V1_CHAT}/"), true),
        (format!("{chat}?api-version=2024-02-01"), false),
    ] {
        let authorization = caller.authorization.clone();
        let headers = [
            (":method", "POST"),
            (":path", &path),
            ("authorization", &authorization),
        ];
        let headers = headers.iter();
        let headers = headers.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let (headers, bench) = (HeaderMap::from_pairs(headers), &mut caller.bench);
        let (clock, store) = (|| Time::from_millis(bench.now), &*bench.store);
        let verdict = bench
            .gateway
            .decide(&headers, &clock, store, Patience::Wait);
        let Verdict::Read(mut read) = verdict else {
            panic!("{path}: {verdict:?}")
        };
        read.body.push(br#"{"model":"a","stream":true}"#, true);
        assert_eq!(read.body.usage_was_injected(), asks, "{path}");
    }
}

#[test]
fn l6_a_slash_at_the_end_leads_past_no_rule() {
    let chat = "/openai/deployments/o1/chat/completions";
    let mut narrowed = Caller::new(json!({ "deployments": ["gpt-4o"] }), &json!({}));
    let other_role = json!({ "roles": ["Own"] });
    let own = json!({ "roles": { "Own": { "data_actions":
        ["Microsoft.CognitiveServices/accounts/OpenAI/deployments/embeddings/action"] } } });
    let mut other = Caller::new(other_role, &own);
    for slash in ["", "/"] {
        let path = format!("{chat}{slash}");
        assert_eq!(
            narrowed.code(&path, "{}"),
            Some(DeploymentNotAllowed),
            "{path}"
        );
        assert_eq!(other.code(&path, "{}"), Some(PermissionDenied), "{path}");
        let v1 = format!("{V1_CHAT}{slash}");
        let body = r#"{"model":"o1"}"#;
        assert_eq!(narrowed.code(&v1, body), Some(DeploymentNotAllowed), "{v1}");
    }
    for path in [
        format!("{chat}//"),
        format!("{chat}/./"),
        format!("{chat}/%2f"),
    ] {
        assert_eq!(narrowed.code(&path, "{}"), Some(PermissionDenied), "{path}");
    }
}

#[test]
fn l7_members_that_the_operation_does_not_read_reserve_nothing() {
    let limit = json!({ "tokens": 20_000, "per": "60s", "reserve": true });
    for (path, body) in [
        (PATH, r#"{"max_output_tokens":1}"#),
        (PATH, r#"{"max_tokens":0}"#),
        ("/openai/v1/responses", r#"{"model":"a","max_tokens":1}"#),
        (
            "/openai/v1/completions",
            r#"{"model":"a","max_completion_tokens":1}"#,
        ),
        (
            "/openai/v1/threads/t/runs",
            r#"{"model":"a","max_tokens":1}"#,
        ),
    ] {
        let mut caller = Caller::new(json!({ "limits": [limit] }), &json!({}));
        let passed = (0..40)
            .filter(|_| caller.code(path, body).is_none())
            .count();
        assert_eq!(passed, 4, "{path} {body}");
    }
}

#[test]
fn j12_a_compressed_body_that_has_to_be_read_is_not_supported() {
    let reserve = json!({ "tokens": 100, "per": "60s", "reserve": true });
    let embeddings = "/openai/deployments/gpt-4o/embeddings?api-version=2024-10-21";
    let speech = "/openai/deployments/tts/audio/speech?api-version=2024-10-21";
    for (app, paths) in [
        (
            json!({ "deployments": ["gpt-4o"] }),
            &[V1_CHAT, FORM_PATHS[0]][..],
        ),
        (
            json!({ "limits": [{ "calls": 9, "per": "60s", "deployments": ["gpt-4o"] }] }),
            &[V1_CHAT, FORM_PATHS[0], "/openai/v1/embeddings"],
        ),
        (
            json!({ "limits": [{ "tokens": 9, "per": "60s" }] }),
            &[V1_CHAT, PATH],
        ),
        (
            json!({ "limits": [reserve] }),
            &[V1_CHAT, PATH, embeddings, speech, "/unknown", FORM_PATHS[2]],
        ),
    ] {
        let mut caller = Caller::new(app.clone(), &json!({}));
        for path in paths {
            for (encoding, expected) in [
                ("gzip", Some(ContentEncodingNotSupported)),
                ("br", Some(ContentEncodingNotSupported)),
                ("identity, gzip", Some(ContentEncodingNotSupported)),
                ("", None),
                ("identity", None),
            ] {
                let authorization = caller.authorization.clone();
                let headers = [
                    (":path", *path),
                    ("authorization", &*authorization),
                    ("content-encoding", encoding),
                ];
                let body = r#"{"model":"gpt-4o","max_tokens":1}"#;
                let got = code(&caller.bench.decide_body(&headers, body));
                // What has no bound is larger than the limit.
                let got = got.filter(|code| *code != CallExceedsLimit);
                assert_eq!(got, expected, "{app} {path} {encoding}");
            }
        }
    }
    // Where nothing has to be read, it goes on.
    let mut free = Caller::new(
        json!({ "limits": [{ "calls": 9, "per": "60s" }] }),
        &json!({}),
    );
    let authorization = free.authorization.clone();
    for path in [V1_CHAT, PATH] {
        let gzip = ("content-encoding", "gzip");
        let headers = [(":path", path), ("authorization", &*authorization), gzip];
        assert_eq!(code(&free.bench.decide_body(&headers, "\u{1f}")), None);
    }
}

/// By which a caller has Azure run a deployment that neither path nor body names.
#[test]
fn c6_a_deployment_in_a_header_is_one_too() {
    for header in [
        "x-ms-oai-image-generation-deployment",
        "x-ms-spillover-deployment",
        "azureml-model-deployment",
        "X-Ms_Spillover-Deployment",
        "AzureML_Model_Deployment",
    ] {
        let ask = |caller: &mut Caller, path: &str, names: &[&str]| {
            let authorization = caller.authorization.clone();
            let mut headers = vec![(":path", path), ("authorization", &*authorization)];
            headers.extend(names.iter().map(|name| (header, *name)));
            code(&caller.bench.decide_body(&headers, r#"{"model":"gpt-4o"}"#))
        };
        let app = json!({ "deployments": ["gpt-4o", "gpt-4o-*"] });
        let mut narrowed = Caller::new(app, &json!({}));
        for path in [PATH, V1_CHAT, "/openai/files"] {
            for names in [&[][..], &["gpt-4o"], &["GPT-4o-mini", "gpt-4o"]] {
                assert_eq!(ask(&mut narrowed, path, names), None, "{header} {names:?}");
            }
            for names in [
                &["secret-o3"][..],
                &["gpt-4o", "secret-o3"],
                &["gpt-4o,secret-o3"],
                &["gpt-4o, gpt-4o"],
                &["\"gpt-4o\""],
                &["gpt-4o;q=1"],
                &["gpt%2d4o"],
                &[""],
            ] {
                let got = ask(&mut narrowed, path, names);
                assert_eq!(got, Some(DeploymentNotAllowed), "{header} {names:?}");
            }
        }
        // A limit for it counts the call.
        let limit = json!({ "calls": 1, "per": "60s", "deployments": ["o3"] });
        let mut limited = Caller::new(json!({ "limits": [limit] }), &json!({}));
        assert_eq!(ask(&mut limited, PATH, &["o3"]), None);
        assert_eq!(ask(&mut limited, PATH, &[]), None);
        let again = ask(&mut limited, V1_CHAT, &["o3"]);
        assert_eq!(again, Some(RateLimitExceeded), "{header}");
    }
}

#[test]
fn c6_a_content_filter_is_replaced_only_where_the_policy_allows_it() {
    let allow = json!({ "caps": { "content_filter_override": true } });
    for (app, expected) in [
        (json!({}), Some(ParameterNotAllowed)),
        (json!({ "caps": {} }), Some(ParameterNotAllowed)),
        (
            json!({ "caps": { "content_filter_override": false } }),
            Some(ParameterNotAllowed),
        ),
        (allow, None),
    ] {
        let mut caller = Caller::new(app.clone(), &json!({}));
        let authorization = caller.authorization.clone();
        for (name, value) in [
            ("x-policy-id", "no-filter"),
            ("X-Policy-Id", "no-filter"),
            ("x_policy_id", "no-filter"),
            ("x-policy-id", ""),
        ] {
            for path in [PATH, V1_CHAT, "/openai/files", "/unknown"] {
                let headers = [
                    (":path", path),
                    ("authorization", &*authorization),
                    (name, value),
                ];
                let verdict = caller.bench.decide_body(&headers, r#"{"model":"a"}"#);
                assert_eq!(code(&verdict), expected, "{app} {name} {path}");
                if let Verdict::Allow(allow) = verdict {
                    assert!(!allow.changes.remove.contains(&name.as_bytes().to_vec()));
                }
            }
        }
    }
}

fn with(limit: &Value, member: &str, value: Value) -> Value {
    let mut limit = limit.clone();
    limit[member] = value;
    limit
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
        assert_eq!(caller.code(PATH, body), Some(BodyNotReadable), "{body}");
    }
    let huge = format!(r#"{{"max_tokens":{},"n":9}}"#, u64::MAX);
    assert_eq!(caller.code(PATH, &huge), Some(CallExceedsLimit));
}

/// In pieces and without a length: its size is not known when the reading ends.
#[test]
fn l6_a_body_whose_reading_ends_before_its_size_is_known_is_not_readable() {
    let limit = json!({ "tokens": 5000, "per": "60s", "reserve": true });
    let mut caller = Caller::new(json!({ "limits": [limit] }), &json!({}));
    let path = "/openai/deployments/e/embeddings?api-version=2024-10-21";
    let (json, bytes) = ("application/json", "application/octet-stream");
    for (content_type, length, expected) in [
        (json, None, Some(BodyNotReadable)),
        (json, Some("400"), None),
        (bytes, None, Some(BodyNotReadable)),
        (bytes, Some("400"), None),
    ] {
        let mut pairs = vec![
            (":method", "POST"),
            (":path", path),
            ("authorization", &*caller.authorization),
            ("content-type", content_type),
        ];
        pairs.extend(length.map(|length| ("content-length", length)));
        let pairs = pairs.iter();
        let headers = HeaderMap::from_pairs(pairs.map(|(n, v)| (n.as_bytes(), v.as_bytes())));
        let Bench {
            gateway,
            store,
            now,
            ..
        } = &mut caller.bench;
        let now = Time::from_millis(*now);
        let clock = || now;
        let decided = gateway.decide(&headers, &clock, &**store, Patience::Wait);
        let Verdict::Read(mut read) = decided else {
            panic!("{decided:?}")
        };
        read.body.push(br#"{"n":1,"n":2,"input":"#, false);
        assert!(read.body.is_complete());
        let decided = gateway.decide_on_body(read.pending, &read.body, &clock, &**store);
        assert_eq!(code(&decided), expected, "{content_type} {length:?}");
    }
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
    for (body, expected) in [
        (r#"{"model":"o1"}"#, DeploymentNotAllowed),
        ("x", BodyNotReadable),
    ] {
        let Verdict::Allow(allow) = caller.ask(V1_CHAT, "application/json", body) else {
            panic!("refused")
        };
        let refusal = allow.would_refuse.map(|refusal| refusal.code());
        assert_eq!(refusal, Some(expected));
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
