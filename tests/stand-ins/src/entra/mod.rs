//! The Entra ID stand-in: metadata, key sets, the token endpoint, and `/control/...` for tests.

mod behaviour;
mod metadata;
mod token_endpoint;

use std::sync::atomic::{AtomicU64, Ordering};

use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;

use crate::keys::KeyStore;
use crate::message::{Action, Outcome, Received, Reply};
use crate::random;
use crate::server::Site;
use crate::tokens::{self, MintRequest, mint};
use behaviour::{Behaviours, Document, NewBehaviour};
use token_endpoint::Refusal;

/// The stand-in for Entra ID.
#[derive(Default)]
pub struct Entra {
    public_url: Option<String>,
    keys: KeyStore,
    behaviours: Behaviours,
    tokens_asked: AtomicU64,
}

impl Entra {
    /// With an address of its own for issuers, or with the address that the caller uses.
    pub fn new(public_url: Option<&str>) -> Self {
        let public_url = public_url.map(|url| url.trim_end_matches('/').to_owned());
        Self {
            public_url,
            ..Self::default()
        }
    }

    fn route(&self, received: &Received) -> Outcome {
        let get = matches!(received.method, Method::GET | Method::HEAD);
        let post = received.method == Method::POST;
        match received.segments().as_slice() {
            ["control", what] => self.control(received, what).into(),
            [tenant, "v2.0", ".well-known", "openid-configuration"] if get => {
                self.metadata(received, tenant, tokens::Version::V2)
            }
            [tenant, ".well-known", "openid-configuration"] if get => {
                self.metadata(received, tenant, tokens::Version::V1)
            }
            [_, "discovery", "v2.0", "keys"] | [_, "discovery", "keys"] if get => {
                self.keys(received)
            }
            [tenant, "oauth2", "v2.0", "token"] | [tenant, "oauth2", "token"] if post => {
                self.token(received, tenant).into()
            }
            _ => not_found().into(),
        }
    }

    /// What issuers begin with.
    fn authority(&self, received: &Received) -> String {
        self.public_url.clone().unwrap_or_else(|| received.base())
    }

    fn metadata(&self, received: &Received, tenant: &str, version: tokens::Version) -> Outcome {
        if !metadata::is_tenant(tenant) {
            return Refusal::unknown_tenant(tenant).reply().into();
        }
        let (base, authority) = (received.base(), self.authority(received));
        let document = match version {
            tokens::Version::V1 => metadata::v1(&base, tenant),
            tokens::Version::V2 => metadata::v2(&base, &authority, tenant),
        };
        self.behaviours
            .apply(Document::Metadata, document, received)
    }

    fn keys(&self, received: &Received) -> Outcome {
        let issuer = format!("{}/{{tenantid}}/v2.0", self.authority(received));
        self.behaviours
            .apply(Document::Keys, self.keys.set(&issuer), received)
    }

    fn token(&self, received: &Received, tenant: &str) -> Reply {
        self.tokens_asked.fetch_add(1, Ordering::Relaxed);
        token_endpoint::answer(received, tenant, &self.authority(received), &self.keys)
    }

    fn control(&self, received: &Received, what: &str) -> Reply {
        match (&received.method, what) {
            (&Method::POST, "mint") => self.mint(received),
            (&Method::POST, "rotate") => self.rotate(received),
            (&Method::POST, "behaviour") => match received.json::<NewBehaviour>() {
                Ok(new) => {
                    self.behaviours.set(new);
                    Reply::ok(&json!({}))
                }
                Err(error) => Reply::refused(&error),
            },
            (&Method::GET, "stats") => Reply::ok(&json!({
                "metadata": self.behaviours.asked(Document::Metadata),
                "keys": self.behaviours.asked(Document::Keys),
                "token": self.tokens_asked.load(Ordering::Relaxed),
            })),
            (&Method::POST, "reset") => {
                self.behaviours.reset();
                self.tokens_asked.store(0, Ordering::Relaxed);
                Reply::ok(&json!({}))
            }
            _ => not_found(),
        }
    }

    fn mint(&self, received: &Received) -> Reply {
        match received.json::<MintRequest>() {
            Ok(request) => {
                let authority = self.authority(received);
                let mint = || mint(&request, &authority, &self.keys, tokens::now());
                match request.count {
                    None => Reply::ok(&json!({ "access_token": mint() })),
                    Some(count) if count <= MintRequest::MAX_COUNT => {
                        let tokens: Vec<_> = (0..count).map(|_| mint()).collect();
                        Reply::ok(&json!({ "access_tokens": tokens }))
                    }
                    Some(_) => {
                        Reply::refused(&format!("count is more than {}", MintRequest::MAX_COUNT))
                    }
                }
            }
            Err(error) => Reply::refused(&error),
        }
    }

    fn rotate(&self, received: &Received) -> Reply {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Rotation {
            #[serde(default)]
            keep_old: bool,
        }
        match received.json::<Rotation>() {
            Ok(rotation) => {
                self.keys.rotate(rotation.keep_old);
                Reply::ok(&json!({}))
            }
            Err(error) => Reply::refused(&error),
        }
    }
}

impl Site for Entra {
    fn answer(&self, received: &Received) -> Outcome {
        let mut outcome = self.route(received);
        if let Action::Send(reply) = outcome.action {
            let reply = reply.with("x-ms-request-id", &random::guid());
            outcome.action = Action::Send(reply);
        }
        outcome
    }
}

fn not_found() -> Reply {
    Reply::json(StatusCode::NOT_FOUND, &json!({ "error": "not_found" }))
}

#[cfg(test)]
mod tests;
