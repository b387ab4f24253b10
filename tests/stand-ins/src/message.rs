//! Requests and answers as plain values, so that the stand-ins can be tested without sockets.

use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode, Uri};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A request, read to its end.
#[derive(Debug, Clone)]
pub struct Received {
    /// `http` or `https`: how it came in.
    pub scheme: &'static str,
    /// Its method.
    pub method: Method,
    /// Its target.
    pub uri: Uri,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Received {
    /// Scheme and host as the caller sees them: addresses in answers lead back the same way.
    pub fn base(&self) -> String {
        let host = self.headers.get("host").and_then(|host| host.to_str().ok());
        // HTTP/2 has the authority in the target.
        let host = host.or_else(|| self.uri.authority().map(|authority| authority.as_str()));
        format!("{}://{}", self.scheme, host.unwrap_or("localhost"))
    }

    /// The path without the query.
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// The path's segments, without the leading slash.
    pub fn segments(&self) -> Vec<&str> {
        self.path().trim_start_matches('/').split('/').collect()
    }

    /// The first query parameter of that name.
    pub fn query(&self, name: &str) -> Option<String> {
        field(self.uri.query().unwrap_or_default().as_bytes(), name)
    }

    /// The first form field of that name.
    pub fn form(&self, name: &str) -> Option<String> {
        field(&self.body, name)
    }

    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as JSON; an empty body counts as `{}`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        let body: &[u8] = if self.body.is_empty() {
            b"{}"
        } else {
            &self.body
        };
        serde_json::from_slice(body)
    }
}

fn field(encoded: &[u8], name: &str) -> Option<String> {
    form_urlencoded::parse(encoded)
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into())
}

/// What a stand-in does with a request.
#[derive(Debug)]
pub struct Outcome {
    /// How long it waits first.
    pub delay: Duration,
    /// What it does then.
    pub action: Action,
}

impl Outcome {
    /// Does it at once.
    pub fn now(action: Action) -> Self {
        Self {
            delay: Duration::ZERO,
            action,
        }
    }
}

impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Self {
        Self::now(Action::Send(reply))
    }
}

/// The three things that can happen to a request.
#[derive(Debug)]
pub enum Action {
    /// It is answered.
    Send(Reply),
    /// It is never answered; the connection stays open.
    Hang,
    /// Its connection is reset without an answer.
    Reset,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub content: Content,
    /// Whether the connection is reset when half of the body is out.
    pub cut: bool,
}

/// A body.
#[derive(Debug)]
pub enum Content {
    /// Sent at once, with a content length.
    Whole(Bytes),
    /// Sent piece by piece, without a content length.
    Pieces(Vec<Bytes>),
}

impl Reply {
    /// A body of any type.
    pub fn new(status: StatusCode, content_type: &'static str, content: Content) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self {
            status,
            headers,
            content,
            cut: false,
        }
    }

    /// A JSON answer.
    pub fn json(status: StatusCode, body: &Value) -> Self {
        let content = Content::Whole(body.to_string().into());
        Self::new(status, "application/json; charset=utf-8", content)
    }

    /// 200 with JSON.
    pub fn ok(body: &Value) -> Self {
        Self::json(StatusCode::OK, body)
    }

    /// 400 for a control request that makes no sense; a test must notice its own mistakes.
    pub fn refused(error: &dyn std::fmt::Display) -> Self {
        Self::json(
            StatusCode::BAD_REQUEST,
            &json!({ "error": error.to_string() }),
        )
    }

    /// Sets a header; text that no header can carry is left out.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }

    /// The whole body, for tests and for those who cut it short.
    pub fn bytes(&self) -> Bytes {
        match &self.content {
            Content::Whole(bytes) => bytes.clone(),
            Content::Pieces(pieces) => pieces.concat().into(),
        }
    }
}

/// Builders for the unit tests of the stand-ins.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A request as it comes in over plain HTTP.
    pub(crate) fn request(method: Method, target: &str, body: &str) -> Received {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("127.0.0.1:9101"));
        let uri = target.parse().expect("a target");
        Received {
            scheme: "http",
            method,
            uri,
            headers,
            body: Bytes::from(body.to_owned()),
        }
    }

    pub(crate) fn get(target: &str) -> Received {
        request(Method::GET, target, "")
    }

    pub(crate) fn post(target: &str, body: &Value) -> Received {
        request(Method::POST, target, &body.to_string())
    }

    /// The answer, where one is sent.
    pub(crate) fn reply(outcome: Outcome) -> Reply {
        match outcome.action {
            Action::Send(reply) => reply,
            other => panic!("no answer: {other:?}"),
        }
    }

    /// The answer's JSON.
    pub(crate) fn document(outcome: Outcome) -> Value {
        serde_json::from_slice(&reply(outcome).bytes()).expect("JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{get, request};
    use super::*;

    #[test]
    fn base_leads_back_to_the_caller() {
        assert_eq!(get("/x").base(), "http://127.0.0.1:9101");
        let mut over_http2 = get("https://localhost:9102/x");
        over_http2.headers.clear();
        over_http2.scheme = "https";
        assert_eq!(over_http2.base(), "https://localhost:9102");
    }

    #[test]
    fn form_and_query_are_decoded() {
        let body = "scope=https%3A%2F%2Fa.example%2F.default&x=a+b";
        let received = request(Method::POST, "/t?version=2&name=%C3%A9", body);
        assert_eq!(
            received.form("scope").as_deref(),
            Some("https://a.example/.default")
        );
        assert_eq!(received.form("x").as_deref(), Some("a b"));
        assert_eq!(received.query("version").as_deref(), Some("2"));
        assert_eq!(received.query("name").as_deref(), Some("é"));
        assert_eq!(received.form("version"), None);
    }
}
