//! HTTP calls that the module makes, and how they end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use proxy_wasm_host::abi::v0_2_1::types::Status;
use proxy_wasm_host::abi::v0_2_1::{
    CalloutId, Callouts, ContextId, HeaderPairs, HttpCall, HttpCallRefusal, HttpCallResponse,
    Invocation,
};
use serde_json::Value;

use crate::headers::Headers;
use crate::host::Hostcall;
use crate::process::{Script, lock};

/// An HTTP call that the module made and nobody replied to yet.
#[derive(Clone, Debug)]
pub struct Callout {
    pub(crate) id: CalloutId,
    pub(crate) context: ContextId,
    /// The gateway's cluster.
    pub cluster: String,
    /// Its headers, pseudo-headers included.
    pub headers: Headers,
    /// Its body.
    pub body: Vec<u8>,
    /// How long the module will wait.
    pub timeout: Duration,
}

impl Callout {
    /// Its path, with the query.
    ///
    /// # Panics
    ///
    /// When it has none.
    #[must_use]
    pub fn path(&self) -> String {
        self.headers.get(":path").expect("a call has a path")
    }

    /// Its host.
    ///
    /// # Panics
    ///
    /// When it has none.
    #[must_use]
    pub fn authority(&self) -> String {
        self.headers
            .get(":authority")
            .expect("a call has an authority")
    }
}

/// How a call ends.
#[derive(Clone, Debug)]
pub struct Reply(HttpCallResponse<'static>);

impl Reply {
    /// 200 with this JSON.
    #[must_use]
    pub fn json(body: &Value) -> Self {
        Self::with(200, body.to_string())
    }

    /// Any status with any body.
    #[must_use]
    pub fn with(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let headers: HeaderPairs<'static> = vec![
            (
                b":status".as_slice().into(),
                status.to_string().into_bytes().into(),
            ),
            (
                b"content-type".as_slice().into(),
                b"application/json".as_slice().into(),
            ),
        ];
        Self(HttpCallResponse::received(headers).with_body(body.into()))
    }

    /// Headers as given, without `:status` if it is not among them.
    #[must_use]
    pub fn headers(pairs: &[(&str, &[u8])], body: impl Into<Vec<u8>>) -> Self {
        let headers = pairs
            .iter()
            .map(|(name, value)| (name.as_bytes().to_vec().into(), value.to_vec().into()))
            .collect();
        Self(HttpCallResponse::received(headers).with_body(body.into()))
    }

    /// No answer: timed out, refused or reset. The module sees no headers.
    #[must_use]
    pub fn failed() -> Self {
        Self(HttpCallResponse::failed())
    }

    pub(crate) fn into_inner(self) -> HttpCallResponse<'static> {
        self.0
    }
}

/// Receives the calls of one VM.
pub(crate) struct Outbox {
    pending: Mutex<Vec<Callout>>,
    script: Arc<Script>,
}

impl Outbox {
    pub(crate) fn new(script: Arc<Script>) -> Self {
        Self {
            pending: Mutex::default(),
            script,
        }
    }

    /// Forgets the calls of a context.
    pub(crate) fn cancel(&self, context: ContextId) {
        lock(&self.pending).retain(|callout| callout.context != context);
    }

    pub(crate) fn take(&self) -> Vec<Callout> {
        std::mem::take(&mut *lock(&self.pending))
    }
}

impl Callouts for Outbox {
    fn http_call(
        &self,
        call: Invocation,
        id: CalloutId,
        request: HttpCall<'_>,
    ) -> Result<(), HttpCallRefusal> {
        self.script
            .check(Hostcall::HttpCall)
            .map_err(|status| match status {
                Status::BadArgument => HttpCallRefusal::UnknownUpstream,
                _ => HttpCallRefusal::Failed,
            })?;
        let request = request.into_owned();
        let headers = request.headers.into_iter();
        lock(&self.pending).push(Callout {
            id,
            context: call.context,
            cluster: String::from_utf8_lossy(&request.upstream).into_owned(),
            headers: Headers::new(
                headers
                    .map(|(name, value)| (name.into_owned(), value.into_owned()))
                    .collect(),
            ),
            body: request.body.into_owned(),
            timeout: request.timeout,
        });
        Ok(())
    }
}
