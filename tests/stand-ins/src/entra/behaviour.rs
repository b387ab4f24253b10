//! How the metadata and the key set are served, and how they can be spoilt.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::message::{Action, Content, Outcome, Received, Reply};
use crate::random;

/// A tenant that nobody asked for.
const OTHER_TENANT: &str = "99999999-9999-4999-8999-999999999999";
/// An address that nobody should follow.
const OTHER_HOST: &str = "https://keys.other-host.example";
/// Larger than any document that a gateway should read.
const HUGE_BYTES: usize = 3 * 1024 * 1024;
/// Deeper than any parser's stack.
const BRACKETS: usize = 100_000;
/// Marks a request that followed the redirect.
const REDIRECTED: &str = "redirected";

/// The documents that gateways fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Document {
    Metadata,
    Keys,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Target {
    Metadata,
    Keys,
    All,
}

impl Target {
    fn covers(self, document: Document) -> bool {
        match self {
            Self::All => true,
            Self::Metadata => document == Document::Metadata,
            Self::Keys => document == Document::Keys,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    #[default]
    Ok,
    Status,
    Delay,
    Hang,
    Reset,
    ResetMidBody,
    Html,
    Truncated,
    EmptySet,
    Garbage,
    Huge,
    Brackets,
    Redirect,
    OtherIssuer,
    OtherHost,
    Flap,
}

/// The body of `POST /control/behaviour`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewBehaviour {
    target: Target,
    mode: Mode,
    #[serde(default = "server_error")]
    status: u16,
    #[serde(default)]
    delay_ms: u64,
    body: Option<String>,
}

fn server_error() -> u16 {
    500
}

#[derive(Debug, Clone, Default)]
struct Behaviour {
    mode: Mode,
    status: StatusCode,
    delay: Duration,
    body: Option<String>,
}

#[derive(Debug, Default)]
struct Slot {
    behaviour: Behaviour,
    /// Requests since the behaviour was set; `flap` counts on it.
    served: u64,
    /// Requests since the last reset.
    asked: u64,
}

/// One behaviour for each document; it stays until another is set.
#[derive(Debug, Default)]
pub(super) struct Behaviours {
    metadata: Mutex<Slot>,
    keys: Mutex<Slot>,
}

impl Behaviours {
    pub(super) fn set(&self, new: NewBehaviour) {
        let behaviour = Behaviour {
            mode: new.mode,
            status: StatusCode::from_u16(new.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            delay: Duration::from_millis(new.delay_ms),
            body: new.body,
        };
        for document in [Document::Metadata, Document::Keys] {
            if new.target.covers(document) {
                let mut slot = self.slot(document);
                slot.behaviour = behaviour.clone();
                slot.served = 0;
            }
        }
    }

    pub(super) fn reset(&self) {
        for document in [Document::Metadata, Document::Keys] {
            *self.slot(document) = Slot::default();
        }
    }

    pub(super) fn asked(&self, document: Document) -> u64 {
        self.slot(document).asked
    }

    /// Serves the document, as the behaviour set for it says.
    pub(super) fn apply(&self, document: Document, good: Value, received: &Received) -> Outcome {
        let (behaviour, served) = {
            let mut slot = self.slot(document);
            slot.asked += 1;
            slot.served += 1;
            (slot.behaviour.clone(), slot.served)
        };
        let failing = served % 2 == 1;
        let mode = match behaviour.mode {
            Mode::Flap if failing => Mode::Status,
            Mode::Flap => Mode::Ok,
            Mode::Redirect if received.query(REDIRECTED).is_some() => Mode::Ok,
            mode => mode,
        };
        Outcome {
            delay: behaviour.delay,
            action: action(mode, &behaviour, good, received),
        }
    }

    fn slot(&self, document: Document) -> MutexGuard<'_, Slot> {
        let slot = match document {
            Document::Metadata => &self.metadata,
            Document::Keys => &self.keys,
        };
        slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn action(mode: Mode, behaviour: &Behaviour, good: Value, received: &Received) -> Action {
    let mut reply = match mode {
        Mode::Hang => return Action::Hang,
        Mode::Reset => return Action::Reset,
        Mode::Ok | Mode::Delay | Mode::Flap => document(&good),
        Mode::ResetMidBody => Reply {
            cut: true,
            ..document(&good)
        },
        Mode::Status => {
            let text = "AADSTS90033: A transient error has occurred. Please try again.";
            let body = json!({ "error": "temporarily_unavailable", "error_description": text });
            Reply::json(behaviour.status, &body)
        }
        Mode::Html => {
            let page = "<!DOCTYPE html><html><head><title>Sign in</title></head></html>";
            let content = Content::Whole(Bytes::from_static(page.as_bytes()));
            Reply::new(StatusCode::OK, "text/html; charset=utf-8", content)
        }
        Mode::Truncated => {
            let text = good.to_string();
            literal(text.as_bytes()[..text.len() / 2].to_vec())
        }
        Mode::EmptySet => document(&emptied(&good)),
        Mode::Garbage => literal([&b"\xff\xfe\x00{"[..], &random::bytes::<512>()].concat()),
        Mode::Huge => document(&inflated(good)),
        Mode::Brackets => literal(vec![b'['; BRACKETS]),
        Mode::Redirect => redirect(received),
        Mode::OtherIssuer => document(&with_other_issuer(good, &received.base())),
        Mode::OtherHost => document(&with_other_host(good, received)),
    };
    if let Some(body) = &behaviour.body {
        reply.content = Content::Whole(Bytes::from(body.clone()));
    }
    Action::Send(reply)
}

fn document(value: &Value) -> Reply {
    Reply::ok(value).with("cache-control", "max-age=86400, private")
}

fn literal(body: Vec<u8>) -> Reply {
    Reply::new(
        StatusCode::OK,
        "application/json; charset=utf-8",
        Content::Whole(body.into()),
    )
}

fn redirect(received: &Received) -> Reply {
    let location = format!("{}{}?{REDIRECTED}=1", received.base(), received.path());
    let reply = literal(Vec::new()).with("location", &location);
    Reply {
        status: StatusCode::FOUND,
        ..reply
    }
}

/// A key set without keys; metadata without anything.
fn emptied(good: &Value) -> Value {
    if good.get("keys").is_some() {
        json!({ "keys": [] })
    } else {
        json!({})
    }
}

/// Valid, and far too large: good keys first, then others of the same shape.
fn inflated(mut good: Value) -> Value {
    let Some(keys) = good.get_mut("keys").and_then(Value::as_array_mut) else {
        good["padding"] = "x".repeat(HUGE_BYTES).into();
        return good;
    };
    let mut padding = keys
        .iter()
        .find(|key| key["kty"] == "RSA")
        .cloned()
        .unwrap_or_default();
    let copies = HUGE_BYTES / padding.to_string().len() + 1;
    for _ in 0..copies {
        padding["kid"] = random::text::<20>().into();
        padding["x5t"] = padding["kid"].clone();
        keys.push(padding.clone());
    }
    good
}

/// Another tenant's issuer: in the metadata, or on every key.
fn with_other_issuer(mut good: Value, base: &str) -> Value {
    let issuer = Value::from(format!("{base}/{OTHER_TENANT}/v2.0"));
    match good.get_mut("keys").and_then(Value::as_array_mut) {
        Some(keys) => keys
            .iter_mut()
            .for_each(|key| key["issuer"] = issuer.clone()),
        None => good["issuer"] = issuer,
    }
    good
}

/// Metadata whose keys are somewhere else; a key set names no hosts and stays as it is.
fn with_other_host(mut good: Value, received: &Received) -> Value {
    if let Some(address) = good.get("jwks_uri").and_then(Value::as_str) {
        good["jwks_uri"] = address.replacen(&received.base(), OTHER_HOST, 1).into();
    }
    good
}
