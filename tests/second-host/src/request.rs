//! Requests, and what becomes of them.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::header_map::FieldMap;
use crate::headers::Headers;
use crate::host::StreamFacts;
use crate::vm::{Stream, Vm};

/// What the module decided about a request.
#[derive(Clone, PartialEq, Eq)]
pub enum Answer {
    /// It goes on to the backend.
    Forwarded {
        /// With these headers.
        headers: Headers,
    },
    /// The module answered in place of the backend.
    Local {
        /// Status.
        status: u32,
        /// Headers.
        headers: Headers,
        /// Body.
        body: Vec<u8>,
    },
    /// The request is paused.
    Waiting,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forwarded { headers } => f
                .debug_struct("Forwarded")
                .field("headers", headers)
                .finish(),
            Self::Local {
                status,
                headers,
                body,
            } => f
                .debug_struct("Local")
                .field("status", status)
                .field("headers", headers)
                .field("body", &String::from_utf8_lossy(body))
                .finish(),
            Self::Waiting => f.write_str("Waiting"),
        }
    }
}

impl Answer {
    /// Whether the request goes on.
    #[must_use]
    pub fn is_forwarded(&self) -> bool {
        matches!(self, Self::Forwarded { .. })
    }

    /// The status that the module answered with.
    ///
    /// # Panics
    ///
    /// When it did not answer.
    #[must_use]
    pub fn status(&self) -> u32 {
        let Self::Local { status, .. } = self else {
            panic!("not refused: {self:#?}")
        };
        *status
    }

    /// The headers: of the forwarded request or of the module's answer.
    ///
    /// # Panics
    ///
    /// When the request is waiting.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        match self {
            Self::Forwarded { headers } | Self::Local { headers, .. } => headers,
            Self::Waiting => panic!("the request is waiting"),
        }
    }

    /// The body of the module's answer, as JSON.
    ///
    /// # Panics
    ///
    /// When it did not answer, or not in JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let Self::Local { body, .. } = self else {
            panic!("not refused: {self:#?}")
        };
        serde_json::from_slice(body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(body)))
    }

    /// The code of the module's answer: `error.code`.
    ///
    /// # Panics
    ///
    /// When it did not answer with one.
    #[must_use]
    pub fn code(&self) -> String {
        let body = self.json();
        let code = body["error"]["code"].as_str();
        code.unwrap_or_else(|| panic!("no error.code in {body}"))
            .to_owned()
    }
}

/// What was told about a request when it ended.
#[derive(Debug)]
pub struct Told {
    /// What the module decided.
    pub answer: Answer,
    /// Its line in the request log.
    pub log: Option<Value>,
    /// Its filter state, by full name (`wasm.tollgate.outcome`).
    pub filter_state: BTreeMap<String, Vec<u8>>,
    /// Names of the filter state in the order in which it was set.
    pub states_set: Vec<String>,
}

impl Told {
    /// A field of the request log.
    ///
    /// # Panics
    ///
    /// When nothing was logged or the field is missing.
    #[must_use]
    pub fn field(&self, name: &str) -> &Value {
        let log = self
            .log
            .as_ref()
            .unwrap_or_else(|| panic!("not logged: {self:#?}"));
        log.get(name)
            .unwrap_or_else(|| panic!("no {name} in {log}"))
    }

    /// How often a field of the filter state was set.
    #[must_use]
    pub fn times_set(&self, name: &str) -> usize {
        let name = format!("wasm.tollgate.{name}");
        self.states_set.iter().filter(|set| **set == name).count()
    }

    /// A field of the filter state, without the prefix `wasm.tollgate.`.
    #[must_use]
    pub fn state(&self, name: &str) -> Option<String> {
        let value = self.filter_state.get(&format!("wasm.tollgate.{name}"))?;
        Some(String::from_utf8_lossy(value).into_owned())
    }
}

/// A request to send. It starts as a chat completion without a token.
pub struct Request<'vm> {
    vm: &'vm mut Vm,
    headers: Headers,
    properties: BTreeMap<String, Vec<u8>>,
    end_of_stream: bool,
    backend_status: u16,
}

impl<'vm> Request<'vm> {
    pub(crate) fn new(vm: &'vm mut Vm) -> Self {
        let now = vm.process().clock().seconds() * 1_000_000_000;
        let properties = [
            ("source.address", b"10.1.2.3:43210".to_vec()),
            (
                "request.id",
                b"b4a7f0c2-6f0a-4f55-9a3e-0d6f2f6f2a01".to_vec(),
            ),
            ("request.time", now.to_le_bytes().to_vec()),
            ("request.duration", 7_000_000_u64.to_le_bytes().to_vec()),
        ];
        let mut headers = Headers::default();
        for (name, value) in [
            (":method", "POST"),
            (
                ":path",
                "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
            ),
            (":authority", "gateway.example.com"),
            (":scheme", "https"),
            ("content-type", "application/json"),
            ("user-agent", "AzureOpenAI/Python 1.99.0"),
            ("x-request-id", "b4a7f0c2-6f0a-4f55-9a3e-0d6f2f6f2a01"),
        ] {
            headers.push(name.as_bytes(), value.as_bytes());
        }
        Self {
            vm,
            headers,
            properties: properties
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
            end_of_stream: false,
            backend_status: 200,
        }
    }

    /// With this method.
    #[must_use]
    pub fn method(self, method: &str) -> Self {
        self.without(":method").header(":method", method)
    }

    /// To this path, query included.
    #[must_use]
    pub fn path(self, path: impl AsRef<[u8]>) -> Self {
        self.without(":path").header(":path", path)
    }

    /// With one more header. Repeats are kept apart.
    #[must_use]
    pub fn header(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.headers.push(name.as_ref(), value.as_ref());
        self
    }

    /// With `authorization: Bearer <token>`.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// Without any header `name`.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    /// With this value of a property of the stream.
    #[must_use]
    pub fn property(mut self, name: &str, value: &[u8]) -> Self {
        self.properties.insert(name.to_owned(), value.to_vec());
        self
    }

    /// On a host that knows no properties of a stream.
    #[must_use]
    pub fn without_properties(mut self) -> Self {
        self.properties.clear();
        self
    }

    /// The status that the backend will answer with; 200 if not set.
    #[must_use]
    pub fn backend(mut self, status: u16) -> Self {
        self.backend_status = status;
        self
    }

    /// Without a body.
    #[must_use]
    pub fn without_body(mut self) -> Self {
        self.end_of_stream = true;
        self
    }

    /// Sends the headers, and leaves the rest to the test.
    #[must_use]
    pub fn open(self) -> Stream {
        let method = self.headers.get(":method").unwrap_or_default();
        let path = self.headers.get(":path").unwrap_or_default();
        let mut properties = self.properties;
        if !properties.is_empty() {
            properties.insert("request.method".to_owned(), method.into_bytes());
            properties.insert("request.path".to_owned(), path.into_bytes());
        }
        let facts = StreamFacts {
            request_headers: FieldMap::from(self.headers.pairs().to_vec()),
            properties,
            ..StreamFacts::default()
        };
        self.vm.open(facts, self.end_of_stream)
    }

    /// The whole exchange: the backend answers if the request reaches it, and the stream ends.
    ///
    /// # Panics
    ///
    /// When the request has to wait: a test that expects that uses [`Request::open`].
    #[must_use]
    pub fn complete(self) -> Told {
        let Self {
            vm,
            headers,
            properties,
            end_of_stream,
            backend_status,
        } = self;
        let again = Request {
            vm: &mut *vm,
            headers,
            properties,
            end_of_stream,
            backend_status,
        };
        let stream = again.open();
        if !end_of_stream && vm.answer(stream).is_forwarded() {
            vm.send_body(stream, b"{\"model\":\"gpt-4o\"}", true);
        }
        match vm.answer(stream) {
            Answer::Forwarded { .. } => vm.respond(stream, backend_status),
            Answer::Local { .. } => {}
            Answer::Waiting => panic!("the request waits:\n{}", vm.process().log_text()),
        }
        vm.finish(stream)
    }

    /// [`Request::complete`], for its answer alone.
    #[must_use]
    pub fn send(self) -> Answer {
        self.complete().answer
    }
}
