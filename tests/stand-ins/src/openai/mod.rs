//! The Azure OpenAI stand-in: the data plane's answers, and a record of what was asked.

mod answers;
mod events;
mod record;
mod usage;

use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::message::{Action, Outcome, Received, Reply};
use crate::random;
use crate::server::Site;
use record::Record;

/// The stand-in for Azure OpenAI.
#[derive(Default)]
pub struct OpenAi {
    record: Record,
}

impl Site for OpenAi {
    fn answer(&self, received: &Received) -> Outcome {
        let mut outcome = match received.segments().as_slice() {
            ["control", what] => self.control(received, what).into(),
            _ => {
                self.record.add(received);
                switched(received)
            }
        };
        if let Action::Send(reply) = outcome.action {
            outcome.action = Action::Send(signed(reply));
        }
        outcome
    }
}

impl OpenAi {
    fn control(&self, received: &Received, what: &str) -> Reply {
        match (&received.method, what) {
            (&Method::GET, "requests") => Reply::ok(&self.record.latest()),
            (&Method::GET, "count") => Reply::ok(&json!({ "count": self.record.count() })),
            (&Method::POST, "reset") => {
                self.record.clear();
                Reply::ok(&json!({}))
            }
            _ => answers::not_found(),
        }
    }
}

/// What every answer of the stand-in carries, so that nobody takes it for the gateway's.
fn signed(reply: Reply) -> Reply {
    reply
        .with("x-stand-in", "azure-openai")
        .with("x-request-id", &random::guid())
        .with("apim-request-id", &random::guid())
        .with("x-ms-region", "Sweden Central")
}

/// The answer, as the request's own `x-stand-in-...` headers change it.
fn switched(received: &Received) -> Outcome {
    let delay =
        number(received, "x-stand-in-delay-ms").map_or(Duration::ZERO, Duration::from_millis);
    let action = match received.header("x-stand-in-reset") {
        Some("before-headers") => Action::Reset,
        Some("mid-body") => Action::Send(Reply {
            cut: true,
            ..with_status(received)
        }),
        Some(other) => Action::Send(Reply::refused(&format!("x-stand-in-reset: {other}"))),
        None => Action::Send(with_status(received)),
    };
    Outcome { delay, action }
}

fn with_status(received: &Received) -> Reply {
    let status = number(received, "x-stand-in-status")
        .and_then(|status| u16::try_from(status).ok())
        .and_then(|status| StatusCode::from_u16(status).ok())
        // An informational status is not an answer.
        .filter(|status| !status.is_informational());
    match status {
        None => route(received),
        Some(status) if status.is_success() => Reply {
            status,
            ..route(received)
        },
        Some(status) => answers::error(status),
    }
}

fn number(received: &Received, name: &str) -> Option<u64> {
    received.header(name).and_then(|value| value.parse().ok())
}

fn route(received: &Received) -> Reply {
    let method = &received.method;
    match received.segments().as_slice() {
        ["status"] if method == Method::GET => Reply::ok(&json!({ "status": "ok" })),
        ["openai", "echo"] => Reply::ok(&record::echo(received, usize::MAX)),
        ["openai", "v1", operation @ ..] | ["openai", operation @ ..]
            if method != Method::POST || operation.first() == Some(&"files") =>
        {
            answers::resource(method, operation, received).unwrap_or_else(answers::not_found)
        }
        ["openai", "deployments", deployment, operation @ ..] => {
            generate(Some(deployment), operation, received)
        }
        ["openai", "v1", operation @ ..] => generate(None, operation, received),
        ["openai", "responses"] => generate(None, &["responses"], received),
        _ => answers::not_found(),
    }
}

/// The operations that use tokens. `/openai/v1` has the model in the body.
fn generate(deployment: Option<&str>, operation: &[&str], received: &Received) -> Reply {
    let Ok(body) = received.json::<Value>() else {
        return answers::unreadable();
    };
    match operation {
        ["chat", "completions"] => answers::chat(&body, deployment),
        ["completions"] => answers::completion(&body, deployment),
        ["embeddings"] => answers::embeddings(&body, deployment),
        ["images", "generations"] => answers::image(&body),
        ["responses"] if deployment.is_none() => answers::response(&body),
        _ => answers::not_found(),
    }
}

#[cfg(test)]
mod tests;
