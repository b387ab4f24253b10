//! The host's side of every stream of one VM.

use std::collections::BTreeMap;
use std::sync::Arc;

use proxy_wasm_host::abi::v0_2_1::types::{BufferType, MapType, Status, StreamType};
use proxy_wasm_host::abi::v0_2_1::{
    Access, ContextId, ForeignCall, Invocation, LocalResponse, StreamState,
};
use proxy_wasm_host::{Buffer, HeaderMap, HeaderMapExt};

use crate::header_map::FieldMap;
use crate::headers::Headers;
use crate::process::Script;

/// The host calls that a test can make fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "named after the host calls")]
pub enum Hostcall {
    CallForeignFunction,
    ContinueStream,
    DefineMetric,
    GetBuffer,
    GetHeaders,
    GetProperty,
    GetSharedData,
    HttpCall,
    IncrementMetric,
    RecordMetric,
    SendLocalResponse,
    SetBuffer,
    SetHeaders,
    SetProperty,
    SetSharedData,
}

impl Hostcall {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::CallForeignFunction,
        Self::ContinueStream,
        Self::DefineMetric,
        Self::GetBuffer,
        Self::GetHeaders,
        Self::GetProperty,
        Self::GetSharedData,
        Self::HttpCall,
        Self::IncrementMetric,
        Self::RecordMetric,
        Self::SendLocalResponse,
        Self::SetBuffer,
        Self::SetHeaders,
        Self::SetProperty,
        Self::SetSharedData,
    ];
}

/// A response that the module sent in place of the backend's.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    pub(crate) status: u32,
    pub(crate) headers: Headers,
    pub(crate) body: Vec<u8>,
}

/// What the host knows of one stream.
#[derive(Default)]
pub(crate) struct StreamFacts {
    pub(crate) request_headers: FieldMap,
    pub(crate) request_trailers: FieldMap,
    pub(crate) response_headers: FieldMap,
    pub(crate) request_body: Vec<u8>,
    pub(crate) response_body: Vec<u8>,
    pub(crate) properties: BTreeMap<String, Vec<u8>>,
    pub(crate) filter_state: BTreeMap<String, Vec<u8>>,
    /// What was set, in order. A native host lets nothing be set twice.
    pub(crate) states_set: Vec<String>,
    pub(crate) local: Vec<Local>,
    /// The request headers as they went on to the backend.
    pub(crate) forwarded: Option<Headers>,
    /// The body was on its way when the module answered.
    pub(crate) answered_in_body: bool,
}

impl StreamFacts {
    pub(crate) fn forward(&mut self) {
        self.forwarded = Some(Headers::new(self.request_headers.pairs()));
    }
}

/// The streams of one VM. The module may act on any of them from any callback.
pub(crate) struct FakeHost {
    pub(crate) streams: BTreeMap<ContextId, StreamFacts>,
    script: Arc<Script>,
}

impl FakeHost {
    pub(crate) fn new(script: Arc<Script>) -> Self {
        Self {
            streams: BTreeMap::new(),
            script,
        }
    }

    fn stream(&mut self, call: Invocation, absent: Status) -> Result<&mut StreamFacts, Status> {
        self.streams.get_mut(&call.context).ok_or(absent)
    }
}

impl StreamState for FakeHost {
    fn header_map(
        &mut self,
        call: Invocation,
        access: Access,
        map: MapType,
    ) -> Result<&mut dyn HeaderMap, Status> {
        self.script.check(match access {
            Access::Read => Hostcall::GetHeaders,
            Access::Write => Hostcall::SetHeaders,
        })?;
        let quirk = self.script.header_quirk();
        let stream = self.stream(call, Status::BadArgument)?;
        match map {
            MapType::HttpRequestHeaders => {
                stream.request_headers.quirk = quirk;
                Ok(&mut stream.request_headers)
            }
            MapType::HttpRequestTrailers => Ok(&mut stream.request_trailers),
            MapType::HttpResponseHeaders => Ok(&mut stream.response_headers),
            _ => Err(Status::BadArgument),
        }
    }

    fn buffer(
        &mut self,
        call: Invocation,
        access: Access,
        buffer: BufferType,
    ) -> Result<&mut dyn Buffer, Status> {
        self.script.check(match access {
            Access::Read => Hostcall::GetBuffer,
            Access::Write => Hostcall::SetBuffer,
        })?;
        let stream = self.stream(call, Status::NotFound)?;
        match buffer {
            BufferType::HttpRequestBody => Ok(&mut stream.request_body),
            BufferType::HttpResponseBody => Ok(&mut stream.response_body),
            _ => Err(Status::NotFound),
        }
    }

    fn continue_stream(&mut self, call: Invocation, _: StreamType) -> Result<(), Status> {
        self.script.check(Hostcall::ContinueStream)?;
        let stream = self.stream(call, Status::Unimplemented)?;
        assert!(stream.local.is_empty(), "a refused request was let go on");
        stream.forward();
        Ok(())
    }

    fn send_local_response(
        &mut self,
        call: Invocation,
        response: LocalResponse<'_>,
    ) -> Result<(), Status> {
        self.script.check(Hostcall::SendLocalResponse)?;
        let stream = self.stream(call, Status::Unimplemented)?;
        let response = response.into_owned();
        let headers = response.headers.into_iter();
        stream.local.push(Local {
            status: response.status_code,
            headers: Headers::new(
                headers
                    .map(|(name, value)| (name.into_owned(), value.into_owned()))
                    .collect(),
            ),
            body: response.body.into_owned(),
        });
        Ok(())
    }

    fn property(
        &mut self,
        call: Invocation,
        path: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Result<(), Status> {
        self.script.check(Hostcall::GetProperty)?;
        let stream = self.stream(call, Status::NotFound)?;
        let value = stream
            .properties
            .get(&dotted(path))
            .ok_or(Status::NotFound)?;
        out.extend_from_slice(value);
        Ok(())
    }

    fn set_property(
        &mut self,
        call: Invocation,
        path: &[&[u8]],
        value: &[u8],
    ) -> Result<(), Status> {
        self.script.check(Hostcall::SetProperty)?;
        let stream = self.stream(call, Status::NotFound)?;
        // Envoy makes filter state of a path with one element, and of no other.
        let [name] = path else {
            return Err(Status::NotFound);
        };
        let name = format!("wasm.{}", String::from_utf8_lossy(name));
        stream.states_set.push(name.clone());
        stream.filter_state.insert(name, value.to_vec());
        Ok(())
    }

    fn call_foreign_function(
        &mut self,
        _: Invocation,
        request: ForeignCall<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Status> {
        self.script.check(Hostcall::CallForeignFunction)?;
        let verifier = match request.name.as_ref() {
            b"verify_signature" => self.script.verifier(),
            _ => None,
        };
        let answer = verifier.ok_or(Status::NotFound)?(&request.arguments)?;
        out.extend_from_slice(&answer);
        Ok(())
    }
}

fn dotted(path: &[&[u8]]) -> String {
    path.iter()
        .map(|part| String::from_utf8_lossy(part))
        .collect::<Vec<_>>()
        .join(".")
}
