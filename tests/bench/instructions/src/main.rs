//! The core's hot functions, each to be run so many times under a counter of instructions: see `count.py`.
//!
//! `instructions` names the cases; `instructions CASE TIMES` prepares one and runs it in [`measured`],
//! whose instructions are what counts.

use std::cell::Cell;
use std::hint::black_box;
use std::process::ExitCode;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use tollgate::answer::{Answer, ResponseContext};
use tollgate::crypto::{Crypto, HostVerifier};
use tollgate::gateway::{Gateway, Patience, Verdict};
use tollgate::keys::KeySet;
use tollgate::metering::Charge;
use tollgate::policy::Policy;
use tollgate::refusal::Outcome;
use tollgate::request::{HeaderMap, RequestHead};
use tollgate::store::MemoryStore;
use tollgate::telling::{RequestLine, Told};
use tollgate::time::Time;
use tollgate::usage::{AnswerReader, BodyReader as _};

/// 2026-03-01T12:00:00Z
const NOON: u64 = 1_772_366_400_000;
const TENANT: &str = "11111111-2222-3333-4444-555555555555";
const APP: &str = "aaaaaaaa-0000-0000-0000-000000000001";
const AUDIENCE: &str = "https://cognitiveservices.azure.com";
const CHAT: &str = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21";
/// What an event stream may come in: Envoy hands over what one read gave it.
const PIECE: usize = 1_400;

/// A case: prepares what it needs, and answers with what is counted.
type Case = (&'static str, fn() -> Box<dyn FnMut()>);

const CASES: [Case; 12] = [
    ("known token", || known(&json!({}))),
    ("known token, one limit", || known(&limits(1))),
    ("known token, four limits", || known(&limits(4))),
    ("known token, roles and deployments", || known(&narrowed())),
    ("new token, without the signature", new_token),
    ("API key", || {
        refused(("api-key", "0123456789abcdef0123456789abcdef"))
    }),
    ("garbage token", || {
        refused(("authorization", "Bearer garbage.garbage.garbage"))
    }),
    ("request line", request_line),
    ("path of 2 KB without words, told", || told("~")),
    ("JSON answer of 4 KB", || {
        read_answer("application/json", json_answer())
    }),
    ("200 events", || read_answer("text/event-stream", events())),
    ("key set of 8 keys", key_set),
];

/// Everything that is counted happens in here.
#[inline(never)]
fn measured(times: usize, work: &mut dyn FnMut()) {
    for _ in 0..times {
        work();
    }
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let case = |wanted: &String| CASES.iter().find(|(name, _)| name == wanted);
    match arguments.as_slice() {
        [] => {
            for (name, _) in CASES {
                println!("{name}");
            }
        }
        [name, times] if case(name).is_some() => {
            let (Some((_, prepare)), Ok(times)) = (case(name), times.parse()) else {
                return ExitCode::FAILURE;
            };
            let mut work = prepare();
            // The first runs make tables and buffers that stay.
            for _ in 0..3 {
                work();
            }
            measured(times, &mut work);
        }
        _ => {
            eprintln!("usage: instructions [CASE TIMES]");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// A host that verifies at no cost: what is counted is this project's code.
struct FreeVerifier;

impl HostVerifier for FreeVerifier {
    fn verify(&self, _: &str, _: &[u8], _: &[u8], message: &[u8]) -> Option<bool> {
        // The known answers have to come out right.
        Some(message != b"another message")
    }
}

fn jwk(kid: &str) -> Value {
    let mut modulus = [0xa5_u8; 256];
    modulus
        .iter_mut()
        .zip(1..)
        .for_each(|(byte, place)| *byte ^= place);
    json!({
        "kty": "RSA", "use": "sig", "kid": kid,
        "n": URL_SAFE_NO_PAD.encode(modulus), "e": "AQAB",
        "issuer": "https://login.microsoftonline.com/{tenantid}/v2.0",
    })
}

fn gateway(app: &Value) -> Gateway {
    let policy = json!({
        "issuers": [{
            "tenant_id": TENANT, "audiences": [AUDIENCE], "jwks": { "keys": [jwk("key-1")] },
        }],
        "apps": [{ "app_id": APP }],
        "default_app": app,
    });
    let mut policy = policy;
    if let (Some(listed), Some(members)) = (policy["apps"][0].as_object_mut(), app.as_object()) {
        listed.extend(members.clone());
    }
    let policy = policy.to_string();
    let policy = Policy::parse(policy.as_bytes()).unwrap_or_else(|errors| panic!("{errors}"));
    Gateway::new(
        Rc::new(policy),
        "bench",
        Crypto::probe(Rc::new(FreeVerifier)),
    )
}

fn limits(count: usize) -> Value {
    let limit = |minutes: usize| json!({ "calls": 1_000_000, "per": format!("{minutes}m") });
    json!({ "limits": (1..=count).map(limit).collect::<Vec<_>>() })
}

fn narrowed() -> Value {
    json!({ "roles": ["Cognitive Services OpenAI User"], "deployments": ["gpt-4o", "gpt-4o-mini"] })
}

/// A token as Entra ID issues it, number so-and-so; its signature is never looked at.
fn token(number: u32) -> String {
    let header = json!({ "typ": "JWT", "alg": "RS256", "x5t": "key-1", "kid": "key-1" });
    let claims = json!({
        "aud": AUDIENCE, "iss": format!("https://sts.windows.net/{TENANT}/"),
        "iat": NOON / 1000 - 300, "nbf": NOON / 1000 - 300, "exp": NOON / 1000 + 3600,
        "aio": "k2RgYPj/39f6vb2b5mZ7MgEA0123456789abcdef", "appid": APP, "appidacr": "1",
        "idp": format!("https://sts.windows.net/{TENANT}/"), "idtyp": "app",
        "oid": "bbbbbbbb-0000-0000-0000-000000000001", "rh": "0.AAAA0123456789abcdef0123456789abcdef.",
        "sub": "bbbbbbbb-0000-0000-0000-000000000001", "tid": TENANT,
        "uti": format!("token-{number:08}"), "ver": "1.0",
    });
    let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signature: Vec<u8> = (0..256_u32)
        .map(|place| (place.wrapping_mul(number + 7) >> 2) as u8)
        .collect();
    format!(
        "{}.{}.{}",
        encode(header),
        encode(claims),
        URL_SAFE_NO_PAD.encode(signature)
    )
}

/// The head of a request as the OpenAI SDKs send it.
fn head(credential: (&str, &str)) -> HeaderMap {
    let pairs = [
        (":authority", "gateway.example.com"),
        (":path", CHAT),
        (":method", "POST"),
        (":scheme", "https"),
        ("accept", "application/json"),
        ("content-type", "application/json"),
        ("user-agent", "AzureOpenAI/Python 1.99.0"),
        ("x-stainless-lang", "python"),
        ("x-stainless-runtime", "CPython"),
        credential,
        ("content-length", "2048"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "0b3c5c1e-6f5c-4b9c-8d1d-0123456789ab"),
    ];
    HeaderMap::from_pairs(pairs.map(|(name, value)| (name.as_bytes(), value.as_bytes())))
}

fn clock() -> Time {
    Time::from_millis(NOON)
}

fn decide(gateway: &mut Gateway, head: &HeaderMap, store: &MemoryStore) -> Verdict {
    gateway.decide(black_box(head), &clock, store, Patience::Wait)
}

fn known(app: &Value) -> Box<dyn FnMut()> {
    let (mut gateway, store) = (gateway(app), MemoryStore::default());
    let head = head(("authorization", &format!("Bearer {}", token(1))));
    Box::new(move || {
        let verdict = decide(&mut gateway, &head, &store);
        assert!(
            matches!(black_box(&verdict), Verdict::Allow(_)),
            "{verdict:?}"
        );
    })
}

fn new_token() -> Box<dyn FnMut()> {
    let (mut gateway, store) = (gateway(&json!({})), MemoryStore::default());
    let heads: Vec<_> = (0..2_000)
        .map(|number| head(("authorization", &format!("Bearer {}", token(number)))))
        .collect();
    let next = Cell::new(0);
    Box::new(move || {
        let head = &heads[next.replace(next.get() + 1)];
        let verdict = decide(&mut gateway, head, &store);
        assert!(
            matches!(black_box(&verdict), Verdict::Allow(_)),
            "{verdict:?}"
        );
    })
}

fn refused(credential: (&str, &str)) -> Box<dyn FnMut()> {
    let (mut gateway, store) = (gateway(&json!({})), MemoryStore::default());
    let (head, policy) = (head(credential), Rc::clone(gateway.policy()));
    Box::new(move || {
        let Verdict::Refuse(refuse) = decide(&mut gateway, &head, &store) else {
            panic!("not refused");
        };
        black_box(Answer::new(
            &refuse.refusal,
            &policy.responses,
            &ResponseContext::default(),
        ));
    })
}

fn request_line() -> Box<dyn FnMut()> {
    let (mut gateway, store) = (gateway(&narrowed()), MemoryStore::default());
    let head = head(("authorization", &format!("Bearer {}", token(1))));
    let Verdict::Allow(allow) = decide(&mut gateway, &head, &store) else {
        panic!("not allowed");
    };
    let policy = Rc::clone(gateway.policy());
    let told = Told {
        outcome: Outcome::Allowed,
        code: None,
        only_reported: false,
        claims: allow.claims,
        asked: allow.asked,
    };
    Box::new(move || {
        let line = RequestLine {
            time: clock(),
            end: clock(),
            told: &told,
            policy: &policy,
            method: b"POST",
            path: &RequestHead::read(&head, &policy).path_to_tell(&policy.api_keys.query),
            api_version: Some(b"2024-10-21"),
            status: Some(200),
            client: Some(b"10.0.0.1:50000"),
            request_id: Some("0b3c5c1e-6f5c-4b9c-8d1d-0123456789ab"),
            client_request_id: None,
            stream: Some(false),
            charge: Charge::default(),
        };
        black_box(line.to_json());
    })
}

/// What is told of a path is searched for secrets first, whoever sent it.
fn told(piece: &str) -> Box<dyn FnMut()> {
    let policy = Rc::clone(gateway(&json!({})).policy());
    let path = format!("/{}", piece.repeat(2_047));
    let head = HeaderMap::from_pairs([(&b":path"[..], path.as_bytes())]);
    Box::new(move || {
        let head = RequestHead::read(black_box(&head), &policy);
        assert_eq!(head.path_to_tell(&policy.api_keys.query).len(), path.len());
    })
}

fn json_answer() -> String {
    let usage = json!({ "prompt_tokens": 9, "completion_tokens": 200, "total_tokens": 209 });
    let content = "A word or two. ".repeat(260);
    json!({ "choices": [{ "message": { "content": content } }], "usage": usage }).to_string()
}

fn events() -> String {
    let mut event = json!({
        "id": "chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz", "object": "chat.completion.chunk",
        "created": 1_730_000_000, "model": "gpt-4o-2024-08-06",
        "choices": [{ "index": 0, "delta": { "content": " token" }, "logprobs": null, "finish_reason": null }],
        "usage": null,
    });
    let mut stream = format!("data: {event}\n\n").repeat(199);
    event["usage"] = json!({ "prompt_tokens": 9, "completion_tokens": 200, "total_tokens": 209 });
    stream.push_str(&format!("data: {event}\n\ndata: [DONE]\n\n"));
    stream
}

fn read_answer(content_type: &'static str, body: String) -> Box<dyn FnMut()> {
    Box::new(move || {
        let mut reader = AnswerReader::new(Some(content_type.as_bytes()), None, false);
        let pieces = body.as_bytes().chunks(PIECE);
        let last = pieces.len() - 1;
        for (place, piece) in pieces.enumerate() {
            black_box(reader.push(black_box(piece), place == last));
        }
        assert_eq!(reader.usage().and_then(|usage| usage.tokens()), Some(209));
    })
}

fn key_set() -> Box<dyn FnMut()> {
    let keys: Vec<_> = (0..8).map(|number| jwk(&format!("key-{number}"))).collect();
    let text = json!({ "keys": keys }).to_string();
    Box::new(move || {
        assert_eq!(
            KeySet::parse(black_box(text.as_bytes())).map_or(0, |set| set.len()),
            8
        );
    })
}
