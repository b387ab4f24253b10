//! One worker's VM.

use std::sync::Arc;
use std::time::Duration;

use proxy_wasm_host::abi::v0_2_1::types::Action;
use proxy_wasm_host::abi::v0_2_1::{
    CallScope, ContextId, ContextType, Guest, GuestError, PluginConfig,
};
use proxy_wasm_host::{HeaderMapExt as _, Limits};
use serde_json::Value;

use crate::callout::{Callout, Outbox, Reply};
use crate::header_map::FieldMap;
use crate::headers::Headers;
use crate::host::{FakeHost, StreamFacts};
use crate::module;
use crate::process::{Process, request_lines};
use crate::request::{Answer, Request, Told};

/// Envoy gives a VM more; what the module keeps must fit in this.
const MEMORY: usize = 32 * 1024 * 1024;
/// Generous, because several tests share few cores.
const CPU_TIME: Duration = Duration::from_secs(60);

/// A configuration that the module refused.
#[derive(Debug)]
pub struct Refused {
    /// What it logged at level error or above.
    pub errors: Vec<String>,
}

/// One worker's VM, configured.
pub struct Vm {
    guest: Guest,
    /// Lent to the guest for each call.
    host: Option<FakeHost>,
    outbox: Arc<Outbox>,
    process: Process,
    root: ContextId,
    /// Roots of earlier policies whose streams have not all ended.
    retired: Vec<ContextId>,
    name: String,
}

/// A request in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream(pub(crate) ContextId);

impl Vm {
    /// Starts a VM with `policy`, as the plugin `tollgate`.
    ///
    /// # Panics
    ///
    /// When the module refuses the policy.
    #[must_use]
    pub fn start(process: &Process, policy: &Value) -> Self {
        Self::start_as(process, "tollgate", policy)
    }

    /// Starts a VM with `policy`, as the plugin `name`.
    ///
    /// # Panics
    ///
    /// When the module refuses the policy.
    #[must_use]
    pub fn start_as(process: &Process, name: &str, policy: &Value) -> Self {
        Self::try_start_as(process, name, policy.to_string().as_bytes())
            .unwrap_or_else(|refused| panic!("the policy was refused: {:#?}", refused.errors))
    }

    /// Starts a VM with these bytes as its configuration.
    ///
    /// # Errors
    ///
    /// When the module refuses them.
    pub fn try_start(process: &Process, configuration: impl AsRef<[u8]>) -> Result<Self, Refused> {
        Self::try_start_as(process, "tollgate", configuration.as_ref())
    }

    fn try_start_as(process: &Process, name: &str, configuration: &[u8]) -> Result<Self, Refused> {
        let (host, module) = module::compiled();
        let outbox = Arc::new(Outbox::new(process.script()));
        let services = process.services(Arc::clone(&outbox) as _);
        let limits = Limits::default()
            .with_cpu_time(CPU_TIME)
            .with_memory_bytes(MEMORY);
        let mut guest = Guest::new(host, module, services, &limits).expect("the module loads");
        let root = guest
            .enter_root()
            .on_context_create(None)
            .expect("a root context");
        let host = Some(FakeHost::new(process.script()));
        let mut vm = Self {
            guest,
            host,
            outbox,
            process: process.clone(),
            root,
            retired: Vec::new(),
            name: name.to_owned(),
        };
        assert!(
            vm.call(|scope| scope.on_vm_start(root)),
            "the VM refused to start"
        );
        vm.configure(root, configuration)?;
        Ok(vm)
    }

    fn configure(&mut self, root: ContextId, configuration: &[u8]) -> Result<(), Refused> {
        let logged = self.process.logged();
        let plugin = PluginConfig::new()
            .with_name(self.name.as_bytes())
            .with_root_id(*b"tollgate")
            .with_configuration(configuration);
        if self.call(|scope| scope.on_configure(root, plugin)) {
            return Ok(());
        }
        let lines = self.process.log_since(logged, self.guest.id());
        let errors = lines
            .into_iter()
            .filter(|line| line.level >= crate::LogLevel::Error);
        Err(Refused {
            errors: errors.map(|line| line.text).collect(),
        })
    }

    /// Updates the policy as Envoy does: a new root context in the same VM takes the new
    /// requests, and the one before ends with its last stream.
    ///
    /// # Errors
    ///
    /// When the module refuses it. The VM then goes on with the policy it had.
    pub fn update(&mut self, policy: &Value) -> Result<(), Refused> {
        let new = self.call(|scope| scope.on_context_create(None));
        self.configure(new, policy.to_string().as_bytes())?;
        self.retired.push(std::mem::replace(&mut self.root, new));
        self.end_retired();
        Ok(())
    }

    /// Updates the policy as other hosts do: the root context is configured again.
    ///
    /// # Errors
    ///
    /// When the module refuses it.
    pub fn reconfigure(&mut self, policy: &Value) -> Result<(), Refused> {
        self.configure(self.root, policy.to_string().as_bytes())
    }

    fn end_retired(&mut self) {
        let guest = &self.guest;
        let (busy, ended): (Vec<_>, Vec<_>) = self
            .retired
            .iter()
            .partition(|root| guest.has_stream_contexts(**root));
        self.retired = busy;
        for root in ended {
            let _ = self.call(|scope| scope.on_done(root));
            // Envoy cancels the calls of a root that ends, without a word to the module. This
            // host would report them as failed, so a root with open calls is just left alone.
            self.outbox.cancel(root);
            let open = self.guest.open_callouts();
            if !open.iter().any(|callout| callout.caller == root) {
                self.call(|scope| scope.on_delete(root).map(drop));
            }
        }
    }

    /// A request, with the headers of a chat completion.
    #[must_use]
    pub fn request(&mut self) -> Request<'_> {
        Request::new(self)
    }

    /// The period the module ticks with, if it does.
    #[must_use]
    pub fn tick_period(&self) -> Option<Duration> {
        self.guest.tick_period(self.root)
    }

    /// One tick for each root that asked for ticks.
    pub fn tick(&mut self) {
        for root in self.retired.clone().into_iter().chain([self.root]) {
            if self.guest.tick_period(root).is_some() {
                self.call(|scope| scope.on_tick(root));
            }
        }
    }

    /// The calls that the module made since this was last asked.
    ///
    /// # Panics
    ///
    /// When a call was made for a stream: Envoy would cancel it when the stream ends.
    #[must_use]
    pub fn callouts(&mut self) -> Vec<Callout> {
        let callouts = self.outbox.take();
        for callout in &callouts {
            let kind = self.guest.context_type(callout.context);
            assert_eq!(
                kind,
                Some(ContextType::Root),
                "a stream made the call {callout:#?}"
            );
        }
        callouts
    }

    /// Ends a call.
    pub fn reply(&mut self, callout: Callout, reply: Reply) {
        self.call(|scope| {
            scope.on_http_call_response(callout.context, callout.id, reply.into_inner())
        });
    }

    /// What was decided about a request so far.
    ///
    /// # Panics
    ///
    /// When the module answered twice, or answered and let go on.
    #[must_use]
    pub fn answer(&self, stream: Stream) -> Answer {
        let facts = self.facts(stream);
        assert!(facts.local.len() < 2, "answered twice: {:#?}", facts.local);
        match (facts.local.first(), &facts.forwarded) {
            (None, None) => Answer::Waiting,
            (None, Some(headers)) => Answer::Forwarded {
                headers: headers.clone(),
            },
            // The head has gone on by then, and the body never comes to its end.
            (Some(local), forwarded) if forwarded.is_none() || facts.answered_in_body => {
                Answer::Local {
                    status: local.status,
                    headers: local.headers.clone(),
                    body: local.body.clone(),
                }
            }
            (Some(local), _) => panic!("answered {local:#?} and let go on"),
        }
    }

    /// A piece of the request's body arrives; answers what of it goes on to the backend.
    pub fn send_body(&mut self, stream: Stream, piece: &[u8], end: bool) -> Vec<u8> {
        let size = u32::try_from(piece.len()).expect("a piece under 4 GB");
        self.facts_mut(stream).request_body = piece.to_vec();
        let action = self.call(|scope| scope.on_request_body(stream.0, size, end));
        let facts = self.facts_mut(stream);
        facts.answered_in_body = !facts.local.is_empty();
        let passed = std::mem::take(&mut facts.request_body);
        if action == Action::Continue && !facts.answered_in_body {
            passed
        } else {
            Vec::new()
        }
    }

    /// The body so far arrives while the head is paused, as in Envoy with `allow_on_headers_stop_iteration`: the host holds
    /// it if it is told to. Answers whether it does.
    pub fn hold_body(&mut self, stream: Stream, so_far: &[u8], end: bool) -> bool {
        let size = u32::try_from(so_far.len()).expect("a piece under 4 GB");
        self.facts_mut(stream).request_body = so_far.to_vec();
        let action = self.call(|scope| scope.on_request_body(stream.0, size, end));
        action != Action::Continue
    }

    /// The request ends with trailers; answers those that go on.
    pub fn send_trailers(&mut self, stream: Stream, trailers: &[(&str, &str)]) -> Headers {
        let pairs = trailers
            .iter()
            .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        self.facts_mut(stream).request_trailers = FieldMap::from(pairs.collect::<Vec<_>>());
        let count = u32::try_from(trailers.len()).expect("few trailers");
        self.call(|scope| scope.on_request_trailers(stream.0, count));
        let facts = self.facts_mut(stream);
        facts.answered_in_body = !facts.local.is_empty();
        Headers::new(facts.request_trailers.pairs())
    }

    /// The backend answers with `status` and a body.
    pub fn respond(&mut self, stream: Stream, status: u16) {
        self.respond_with(
            stream,
            status,
            &[("content-type", "application/json")],
            b"{}",
        );
    }

    /// The backend answers.
    pub fn respond_with(
        &mut self,
        stream: Stream,
        status: u16,
        headers: &[(&str, &str)],
        body: &[u8],
    ) {
        let code = i64::from(status).to_le_bytes().to_vec();
        let facts = self.facts_mut(stream);
        facts.properties.insert("response.code".to_owned(), code);
        let status = status.to_string();
        let all = [(":status", status.as_str())].into_iter();
        let all: Vec<_> = all.chain(headers.iter().copied()).collect();
        if self.respond_head(stream, &all, body.is_empty()) && !body.is_empty() {
            self.respond_body(stream, body, true);
        }
    }

    /// A response begins with these headers, and whatever else is in them. Whether its body may follow.
    pub fn respond_head(&mut self, stream: Stream, headers: &[(&str, &str)], end: bool) -> bool {
        let pairs: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
            .collect();
        let count = u32::try_from(pairs.len()).expect("few headers");
        self.facts_mut(stream).response_headers = pairs.into();
        let action = self.call(|scope| scope.on_response_headers(stream.0, count, end));
        let facts = self.facts_mut(stream);
        // The module answers instead of the backend.
        facts.answered_in_body |= action == Action::Pause && !facts.local.is_empty();
        action == Action::Continue
    }

    /// Gives a stream another property.
    pub fn property(&mut self, stream: Stream, name: &str, value: &[u8]) {
        let properties = &mut self.facts_mut(stream).properties;
        properties.insert(name.to_owned(), value.to_vec());
    }

    /// A piece of a response's body.
    pub fn respond_body(&mut self, stream: Stream, piece: &[u8], end: bool) {
        let size = u32::try_from(piece.len()).expect("a piece under 4 GB");
        self.facts_mut(stream).response_body = piece.to_vec();
        self.call(|scope| scope.on_response_body(stream.0, size, end));
    }

    /// The stream ends: with the answer it had, or without one.
    pub fn finish(&mut self, stream: Stream) -> Told {
        let answer = self.answer(stream);
        // Envoy passes a filter's own answer through the filter's response callbacks too.
        if let Answer::Local {
            status,
            headers,
            body,
        } = &answer
        {
            let pairs = headers.pairs().iter();
            let text: Vec<_> = pairs
                .map(|(n, v)| (String::from_utf8_lossy(n), String::from_utf8_lossy(v)))
                .collect();
            let headers: Vec<_> = text.iter().map(|(n, v)| (n.as_ref(), v.as_ref())).collect();
            let status = u16::try_from(*status).expect("an HTTP status");
            self.respond_with(stream, status, &headers, body);
        }
        let logged = self.process.logged();
        self.call(|scope| {
            scope.on_done(stream.0)?;
            scope.on_log(stream.0)?;
            scope.on_delete(stream.0).map(drop)
        });
        let mut lines = request_lines(&self.process.log_since(logged, self.guest.id()));
        assert!(lines.len() < 2, "logged twice: {lines:#?}");
        let facts = self
            .host_mut()
            .streams
            .remove(&stream.0)
            .expect("the stream is open");
        self.end_retired();
        Told {
            answer,
            log: lines.pop(),
            filter_state: facts.filter_state,
            states_set: facts.states_set,
        }
    }

    /// A field of an open stream's filter state, without the prefix `wasm.tollgate.`.
    #[must_use]
    pub fn state(&self, stream: Stream, name: &str) -> Option<String> {
        let name = format!("wasm.tollgate.{name}");
        let value = self.facts(stream).filter_state.get(&name)?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    pub(crate) fn open(&mut self, facts: StreamFacts, end_of_stream: bool) -> Stream {
        let root = self.root;
        let count = proxy_wasm_host::HeaderMap::len(&facts.request_headers);
        let count = u32::try_from(count).expect("few headers");
        let id = self.call(|scope| scope.on_context_create(Some(root)));
        self.host_mut().streams.insert(id, facts);
        let action = self.call(|scope| scope.on_request_headers(id, count, end_of_stream));
        let stream = Stream(id);
        let facts = self.facts_mut(stream);
        if action == Action::Continue && facts.local.is_empty() {
            facts.forward();
        }
        stream
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    fn host_mut(&mut self) -> &mut FakeHost {
        self.host
            .as_mut()
            .expect("between calls the VM holds its host")
    }

    fn facts(&self, stream: Stream) -> &StreamFacts {
        let host = self
            .host
            .as_ref()
            .expect("between calls the VM holds its host");
        host.streams.get(&stream.0).expect("the stream is open")
    }

    fn facts_mut(&mut self, stream: Stream) -> &mut StreamFacts {
        self.host_mut()
            .streams
            .get_mut(&stream.0)
            .expect("the stream is open")
    }

    /// Every step into the guest. A trap fails the test with the log.
    fn call<R>(
        &mut self,
        body: impl FnOnce(&mut CallScope<'_, FakeHost>) -> Result<R, GuestError>,
    ) -> R {
        let host = self
            .host
            .take()
            .expect("between calls the VM holds its host");
        let (result, host) = self.guest.with(host, body);
        self.host = Some(host);
        result.unwrap_or_else(|error| {
            panic!(
                "the VM failed: {error:?}\nlog:\n{}",
                self.process.log_text()
            )
        })
    }
}
