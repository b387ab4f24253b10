//! Tollgate guards Azure OpenAI behind Envoy: only callers with a valid Entra ID token get
//! through, API keys never do, and every application has limits of its own.
//!
//! The core is pure: no host calls, no clock, no globals, no logging. Time, headers and answers
//! come in as values, verdicts go out as values. A request meets the modules in this order:
//!
//! | module | owns |
//! | --- | --- |
//! | `shell` | the proxy-wasm callbacks; the only code that talks to the host (wasm32 only) |
//! | [`policy`] | what the operator wrote, as meaning |
//! | [`gateway`] | the straight path of a request; composes all that follows |
//! | [`request`] | the head of a request, as bytes |
//! | [`credential`] | exactly one bearer token |
//! | [`jwt`] | from bytes to a verified caller; the cache of verified tokens |
//! | [`keys`] | issuers' key sets, and when they are fetched |
//! | [`crypto`] | signature verification, by the host or in Rust |
//! | [`operations`] | what a request asks for: its data action, and the model that it runs |
//! | [`roles`] | what an application may ask for |
//! | [`limits`] | sliding windows and quotas, exact across workers |
//! | [`usage`] | tokens, from answers as they stream by; `model`, from request bodies |
//! | [`body`] | what is read of a request body, and added to it |
//! | [`metering`] | what a call used |
//! | [`forward`] | what the backend receives |
//! | [`refusal`] | why not, and what that is called outside |
//! | [`answer`] | codes as HTTP |
//! | [`telling`] | request log, filter state, metric names |
//! | [`secrets`] | what looks like a token or a key, and is not told |
//! | [`request_ids`] | by which a request is found again |
//! | [`store`] | shared data |
//! | [`json`], [`protobuf`], [`guid`], [`url`], [`time`], [`api_version`] | small types that all of them use |
#![cfg_attr(
    test,
    allow(
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::string_slice,
        reason = "tests compute on their own constants"
    )
)]

pub mod answer;
pub mod api_version;
pub mod body;
pub mod credential;
pub mod crypto;
pub mod forward;
pub mod gateway;
pub mod guid;
pub mod json;
pub mod jwt;
pub mod keys;
pub mod limits;
pub mod metering;
pub mod operations;
pub mod policy;
pub mod protobuf;
pub mod refusal;
pub mod request;
pub mod request_ids;
pub mod roles;
pub mod secrets;
pub mod store;
pub mod telling;
pub mod time;
pub mod url;
pub mod usage;

#[cfg(target_arch = "wasm32")]
mod shell;
