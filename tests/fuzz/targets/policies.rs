//! Policies, as text and as a structure.

use serde_json::{Value, json};
use tollgate::crypto::Crypto;
use tollgate::gateway::Gateway;
use tollgate::policy::{KeySource, Policy, PolicyErrors};
use tollgate::protobuf::{Field, fields, push_bytes};

use super::Target;
use crate::common::{APP, AUDIENCE, OTHER_APP, SIGNER, TENANT};

/// Policies: one with every key, those with what does not go together with that, and bad ones.
fn policies() -> [Value; 7] {
    let smallest = json!({ "tenant_id": TENANT, "audiences": [AUDIENCE], "cluster": "entra" });
    let full = json!({
        "issuers": [{
            "name": "own", "tenant_id": TENANT, "authority": "https://login.microsoftonline.us",
            "audiences": [AUDIENCE], "cluster": "entra", "algorithms": ["RS256", "PS256"], "clock_skew": "0s",
            "required_claims": [{ "name": "scp", "values": ["a"], "match": "any", "separator": "," }],
            "refresh": { "every": "2h", "at_most_every": "1m", "keep_stale_for": "1h", "timeout": "2s" },
        }, {
            "issuers": ["https://i/"], "audiences": ["a"], "app_claim": "client",
            "jwks": { "keys": [SIGNER.jwk()] },
        }],
        "api_keys": { "action": "strip", "headers": ["x-key"], "query": ["key"] },
        "apps": [{
            "app_id": APP, "name": "one", "access": "allow",
            "roles": ["Cognitive Services OpenAI User", "own"], "deployments": ["gpt-4o", "text-*"],
            "limits": [
                { "calls": 1, "per": "60s", "count": [200] },
                { "tokens": 9, "per": "month", "reserve": true, "count": "success",
                  "operations": ["images/*"], "deployments": ["x"] },
            ],
        }, { "app_id": OTHER_APP }],
        "default_app": { "name": "others", "access": "deny" },
        "roles": { "own": { "data_actions": ["*"], "not_data_actions": ["*/read"] } },
        "public_paths": ["/status", "/p/*"],
        "cors_preflight": "pass",
        "forward": { "authorization": false, "headers": { "x-app": "app_id", "x-upn": "claim.upn" } },
        "responses": { "format": "apim", "limited": { "status": 503, "message": "m" } },
        "mode": "report",
        "usage": { "read": true, "stream_options": "inject" },
        "log": { "requests": false, "filter_state": ["code"] },
        "max_undecided": 8,
    });
    [
        json!({ "issuers": [smallest] }),
        full,
        json!({ "issuers": [{ "issuers": ["i"], "jwks_uri": "http://h/k", "cluster": "c", "audiences": ["a"],
            "app_claim": "x" }] }),
        json!({ "issuers": [{ "issuers": ["i"], "openid_config": "http://h/m", "cluster": "c",
            "audiences": ["a"] }], "usage": { "read": false } }),
        json!({ "issuers": [smallest], "mode": "x", "unknown": 1 }),
        json!({}),
        json!({ "issuers": [smallest], "apps": [{ "app_id": "x", "limits": [{ "calls": 0, "per": 60 }] }] }),
    ]
}

const OUTCOMES: &[&str] = &["good", "1 error", "2 errors", "3 errors"];

const WORDS: &[&str] = &[
    "\"issuers\":",
    "\"tenant_id\":",
    "\"audiences\":",
    "\"cluster\":",
    "\"apps\":",
    "\"app_id\":",
    "\"limits\":",
    "\"calls\":",
    "\"tokens\":",
    "\"per\":",
    "\"reserve\":",
    "\"count\":",
    "\"roles\":",
    "\"deployments\":",
    "\"jwks\":",
    "\"refresh\":",
    "\"every\":",
    "\"60s\"",
    "\"month\"",
    "\"1ms\"",
    "\"9999999999h\"",
    "\"deny\"",
    "*",
    "\"public_paths\":",
    "\"forward\":",
    "\"headers\":",
    "\"claim.\"",
    "\"responses\":",
    "\"status\":",
    "{",
    "}",
    "[",
    "]",
    ",",
    "null",
    "0",
    "-1",
    "1e30",
    "\"\"",
    "\\n",
    "\\u0000",
    "\u{1b}",
];

// Text

pub(super) const POLICY: Target = Target {
    name: "policy",
    seeds: || {
        policies()
            .map(|policy| policy.to_string().into_bytes())
            .into()
    },
    check: policy,
    outcomes: OUTCOMES,
    words: WORDS,
};

fn policy(input: &[u8]) -> String {
    let parsed = Policy::parse(input);
    if let Ok(policy) = &parsed {
        check_policy(policy);
        check_meaning(input, policy);
    }
    outcome(parsed)
}

fn outcome(parsed: Result<Policy, PolicyErrors>) -> String {
    match parsed {
        Ok(policy) => {
            let _ = Gateway::new(policy.into(), "fuzz", Crypto::pure());
            "good".to_owned()
        }
        Err(errors) => match check_errors(&errors) {
            1 => "1 error".to_owned(),
            count => format!("{count} errors"),
        },
    }
}

/// Each error has a place and a text, and none of them writes a line or colours of its own into the log.
fn check_errors(errors: &PolicyErrors) -> usize {
    let told = errors.iter().count();
    assert!((1..=50).contains(&told));
    for error in errors.iter() {
        assert!(
            !error.path.is_empty() && !error.problem.is_empty(),
            "{error:?}"
        );
    }
    let text = errors.to_string();
    assert!(
        !text.chars().any(|char| char.is_control() && char != '\n'),
        "{text:?}"
    );
    let lines = told + usize::from(errors.more() > 0);
    assert_eq!(text.lines().count(), lines, "{text}");
    assert!(text.len() < 100_000);
    told
}

/// What later code relies on.
fn check_policy(policy: &Policy) {
    assert!(!policy.issuers.is_empty());
    for issuer in &policy.issuers {
        assert!(
            !issuer.issuers.is_empty() && !issuer.audiences.is_empty() && !issuer.name.is_empty()
        );
        assert!(!issuer.algorithms.is_empty() && issuer.clock_skew <= 600);
        assert!(
            issuer
                .required_claims
                .iter()
                .all(|claim| claim.separator.as_deref() != Some(""))
        );
        match &issuer.keys {
            KeySource::Inline(set) => assert!(!set.is_empty()),
            KeySource::Fetched(fetch) => {
                let refresh = fetch.refresh;
                assert!(!fetch.cluster.is_empty() && refresh.timeout > 0);
                assert!(0 < refresh.at_most_every && refresh.at_most_every <= refresh.every);
            }
        }
    }
    let mut accepted: Vec<_> = policy
        .issuers
        .iter()
        .flat_map(|issuer| &issuer.issuers)
        .collect();
    accepted.sort_unstable();
    assert!(
        accepted.windows(2).all(|two| two[0] != two[1]),
        "an issuer twice"
    );
    for (id, index) in &policy.apps.by_id {
        assert_eq!(policy.apps.listed[*index].id, Some(*id));
    }
    assert_eq!(policy.apps.by_id.len(), policy.apps.listed.len());
    let all = policy.apps.listed.iter().chain([&policy.apps.default_app]);
    assert!(
        all.flat_map(|app| &app.limits)
            .all(|limit| limit.amount > 0)
    );
    let responses = &policy.responses;
    for response in [
        &responses.unauthenticated,
        &responses.limited,
        &responses.unavailable,
    ] {
        assert!((400..600).contains(&response.status));
    }
}

/// Written in another way it means the same, and with a key that nobody knows it is refused.
fn check_meaning(input: &[u8], policy: &Policy) {
    let meaning = |policy: &Policy| {
        let apps = (&policy.apps.listed, &policy.apps.default_app);
        format!(
            "{:?} {apps:?} {:?} {:?}",
            policy.issuers, policy.forward, policy.responses
        )
    };
    let Ok(mut value) = serde_json::from_slice::<Value>(input) else {
        return;
    };
    let again = Policy::parse(value.to_string().as_bytes()).unwrap();
    let in_order = value["forward"]["headers"].is_null();
    assert!(!in_order || meaning(&again) == meaning(policy));
    value["unknown"] = json!(1);
    let errors = Policy::parse(value.to_string().as_bytes()).unwrap_err();
    assert_eq!(errors.iter().count(), 1);
}

// Structures

pub(super) const STRUCTURE: Target = Target {
    name: "structure",
    seeds: || {
        let policies = policies();
        let texts = policies
            .iter()
            .map(|policy| policy.to_string().into_bytes());
        let messages = policies.iter().map(|policy| encode_struct(policy).unwrap());
        texts.chain(messages).collect()
    },
    check: structure,
    outcomes: OUTCOMES,
    words: WORDS,
};

/// A message, or JSON text that is to mean the same as the message that says it.
fn structure(input: &[u8]) -> String {
    if let Some(read) = fields(input) {
        assert!(read.len() <= input.len());
        let inside = |field: &(u64, Field<'_>)| match field.1 {
            Field::Bytes(bytes) => bytes.len() < input.len(),
            Field::Varint(_) | Field::Fixed64(_) => true,
        };
        assert!(read.iter().all(inside));
    }
    let message = serde_json::from_slice::<Value>(input).ok();
    let Some(message) = message.as_ref().and_then(encode_struct) else {
        return outcome(Policy::parse(input));
    };
    let (by_text, by_message) = (Policy::parse(input), Policy::parse(&message));
    match (&by_text, &by_message) {
        (Ok(one), Ok(other)) => {
            assert_eq!(format!("{:?}", one.issuers), format!("{:?}", other.issuers));
            assert_eq!(one.apps.listed, other.apps.listed);
        }
        // The text may repeat a member or nest too deeply, and the second parser takes what it says last.
        (Err(error), _) if error.to_string().starts_with("$: not valid JSON") => {}
        // A structure knows doubles only.
        (Err(one), Err(other)) => {
            assert_eq!(one.iter().count(), other.iter().count(), "{one}\n{other}");
        }
        (one, other) => panic!("{one:?}\n{other:?}"),
    }
    outcome(by_message)
}

/// A JSON object as `google.protobuf.Struct`; `None` for another value.
fn encode_struct(value: &Value) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    for (name, value) in value.as_object()? {
        let mut entry = Vec::new();
        push_bytes(1, name.as_bytes(), &mut entry);
        push_bytes(2, &encode_value(value), &mut entry);
        push_bytes(1, &entry, &mut message);
    }
    Some(message)
}

fn encode_value(value: &Value) -> Vec<u8> {
    let mut message = Vec::new();
    match value {
        Value::Null => message.extend([0x08, 0]),
        Value::Number(number) => {
            message.push(0x11);
            message.extend(number.as_f64().unwrap().to_le_bytes());
        }
        Value::String(text) => push_bytes(3, text.as_bytes(), &mut message),
        Value::Bool(value) => message.extend([0x20, u8::from(*value)]),
        Value::Object(_) => push_bytes(5, &encode_struct(value).unwrap_or_default(), &mut message),
        Value::Array(values) => {
            let mut list = Vec::new();
            for value in values {
                push_bytes(1, &encode_value(value), &mut list);
            }
            push_bytes(6, &list, &mut message);
        }
    }
    message
}
