//! One request: headers in, verdict applied, answer settled, line written.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use super::abi;
use super::plugin::Plugin;
use crate::answer::Answer;
use crate::forward::HeaderChanges;
use crate::gateway::{Allow, Patience, Refuse, Verdict};
use crate::limits::Admission;
use crate::refusal::{Code, Outcome};
use crate::request::{HeaderMap, RequestHead};
use crate::telling::{Asked, RequestLine, Told, field_name};
use crate::time::Time;

/// What the host's answer details say before the code.
const DETAILS_PREFIX: &str = "tollgate_";

/// A request, shared by its context and, while it waits, by the plugin.
pub(super) struct Stream {
    id: u32,
    began: Time,
    headers: HeaderMap,
    phase: Cell<Phase>,
    told: OnceCell<Told>,
    admission: RefCell<Option<Admission>>,
    status: Cell<Option<u16>>,
}

/// How far a request has come. It moves forward only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No decision yet.
    New,
    /// Paused, for keys.
    Waiting,
    /// On its way to the backend.
    Passed,
    /// Answered here.
    Answered,
    /// Gone from the host.
    Gone,
}

impl Stream {
    fn new(id: u32, headers: HeaderMap) -> Self {
        Self {
            id,
            began: abi::now(),
            headers,
            phase: Cell::new(Phase::New),
            told: OnceCell::new(),
            admission: RefCell::default(),
            status: Cell::new(None),
        }
    }

    pub(super) fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.phase.get() == Phase::Waiting
    }

    /// Decides for the first time, in the stream's own callback.
    fn decide(self: &Rc<Self>, plugin: &Rc<Plugin>) -> Action {
        let verdict = match plugin.decide(self, Patience::Wait) {
            Some(Verdict::Wait { issuer }) if plugin.wait(Rc::clone(self), issuer) => {
                self.phase.set(Phase::Waiting);
                return Action::Pause;
            }
            Some(Verdict::Wait { .. }) => plugin.decide(self, Patience::Over),
            decided => decided,
        };
        match verdict {
            Some(Verdict::Allow(allow)) => {
                if self.allow(plugin, allow) {
                    return Action::Continue;
                }
            }
            Some(Verdict::Refuse(refuse)) => self.refuse(plugin, refuse),
            // Over is never told to wait.
            Some(Verdict::Wait { .. }) | None => self.answer_broken(),
        }
        Action::Pause
    }

    /// Decides again, from the root. Answers for whose keys the request still waits, if it does.
    pub(super) fn decide_again(
        self: &Rc<Self>,
        plugin: &Rc<Plugin>,
        patience: Patience,
    ) -> Option<usize> {
        if !self.is_waiting() || abi::set_effective_context(self.id).is_err() {
            return None;
        }
        match plugin.decide(self, patience) {
            Some(Verdict::Wait { issuer }) => return Some(issuer),
            Some(Verdict::Allow(allow)) => {
                if self.allow(plugin, allow) && abi::resume_request().is_err() {
                    log::error!("a request could not be resumed");
                }
            }
            Some(Verdict::Refuse(refuse)) => self.refuse(plugin, refuse),
            None => self.answer_broken(),
        }
        None
    }

    /// Applies an allowing verdict. `false` when the host refused a change: then the request
    /// is answered instead, because it must not go on as it is.
    fn allow(&self, plugin: &Plugin, allow: Allow) -> bool {
        let refusal = allow.would_refuse;
        let told = Told {
            outcome: refusal
                .as_ref()
                .map_or(Outcome::Allowed, |refusal| refusal.code().outcome()),
            code: refusal.as_ref().map(|refusal| refusal.code()),
            only_reported: refusal.is_some(),
            claims: allow.claims,
            asked: allow.asked,
        };
        if let Ok(mut admission) = self.admission.try_borrow_mut() {
            *admission = allow.admission;
        }
        if apply(&allow.changes).is_err() {
            self.answer_broken();
            return false;
        }
        self.tell(plugin, told);
        self.phase.set(Phase::Passed);
        true
    }

    fn refuse(&self, plugin: &Plugin, refuse: Refuse) {
        let code = refuse.refusal.code();
        log::debug!("refused: {}", refuse.refusal);
        let told = Told {
            outcome: code.outcome(),
            code: Some(code),
            only_reported: false,
            claims: refuse.claims,
            asked: refuse.asked,
        };
        self.tell(plugin, told);
        let answer = Answer::new(&refuse.refusal, &plugin.policy.responses);
        self.answer(&answer, code.name());
    }

    fn answer(&self, answer: &Answer, details: &str) {
        self.phase.set(Phase::Answered);
        self.status.set(Some(answer.status));
        let headers = HeaderMap::from_pairs(
            answer
                .headers
                .iter()
                .map(|(name, value)| (name.as_bytes(), value.as_bytes())),
        );
        let details = [DETAILS_PREFIX, details].concat();
        let sent =
            abi::send_local_response(answer.status, &details, &headers, answer.body.as_bytes());
        if let Err(failed) = sent {
            log::error!("an answer could not be sent: {failed:?}");
        }
    }

    /// Answers what cannot be decided: the host or this module is broken, and nothing passes.
    fn answer_broken(&self) {
        let body = "{\"error\":{\"code\":\"InternalError\",\"message\":\"The gateway failed.\",\
                    \"type\":\"server_error\",\"param\":null}}";
        let headers = vec![("content-type", "application/json".to_owned())];
        self.answer(
            &Answer {
                status: 503,
                headers,
                body: body.to_owned(),
            },
            "InternalError",
        );
    }

    /// Sets the filter state, for the gateway's own loggers.
    fn tell(&self, plugin: &Plugin, told: Told) {
        for field in &plugin.policy.log.filter_state {
            if let Some(value) = told.field(*field, &plugin.policy) {
                // A host without filter state loses a field of its log, not a request.
                let _ = abi::set_property(field_name(*field), value.as_bytes());
            }
        }
        let _ = self.told.set(told);
    }

    /// Sees the answer's status; settles the call at once when that decides.
    fn see_status(&self, plugin: &Plugin) {
        if self.phase.get() == Phase::Answered {
            self.keep_status();
            return;
        }
        let status = abi::header(abi::Map::Response, ":status")
            .ok()
            .and_then(|status| std::str::from_utf8(&status).ok()?.parse().ok());
        if status.is_some() {
            self.status.set(status);
            self.settle(plugin, status);
        }
        if self.phase.get() == Phase::Waiting {
            // The gateway ended the wait before this module did, by a time limit of its own.
            self.phase.set(Phase::Gone);
            let code = Some(Code::KeysUnavailable);
            let outcome = Outcome::Unavailable;
            let head = RequestHead::read(&self.headers, &plugin.policy);
            let asked = Asked::of(head.operation().as_ref().ok());
            self.tell(
                plugin,
                Told {
                    outcome,
                    code,
                    only_reported: false,
                    claims: None,
                    asked,
                },
            );
        }
    }

    /// Keeps the status of a refusal: Envoy turns local answers to gRPC requests into 200, and what
    /// watches statuses would see no refusal.
    fn keep_status(&self) {
        let is_grpc = |value: &[u8]| value.starts_with(b"application/grpc");
        if self.headers.first("content-type").is_some_and(is_grpc)
            && let Some(status) = self.status.get()
        {
            let _ = abi::set_response_status(status);
        }
    }

    /// Settles the call, once.
    fn settle(&self, plugin: &Plugin, status: Option<u16>) {
        let admission = self
            .admission
            .try_borrow_mut()
            .ok()
            .and_then(|mut held| held.take());
        if let Some(admission) = admission
            && let Ok(mut gateway) = plugin.gateway.try_borrow_mut()
        {
            gateway.settle(admission, status, &*plugin.store);
        }
    }

    /// Writes the request's line and counts it.
    fn log(&self, plugin: &Plugin) {
        if let Some(told) = self.told.get() {
            plugin.metrics.add(told.counter(&plugin.policy), 1);
        }
        if !plugin.policy.log.requests || !log::log_enabled!(log::Level::Info) {
            return;
        }
        let head = RequestHead::read(&self.headers, &plugin.policy);
        let client = abi::property("source\0address").ok();
        let line = RequestLine {
            time: self.began,
            end: abi::now(),
            told: self.told.get(),
            policy: &plugin.policy,
            method: head.method,
            path: head.path,
            api_version: head.api_version(),
            status: self.status.get(),
            client: client.as_deref(),
            request_id: head.request_id,
        };
        log::info!("{}", line.to_json());
    }
}

fn apply(changes: &HeaderChanges) -> Result<(), abi::Failed> {
    for name in &changes.remove {
        abi::remove_request_header(name)?;
    }
    for (name, value) in &changes.set {
        abi::set_request_header(name, value)?;
    }
    Ok(())
}

/// The SDK's context of one request.
pub(super) struct StreamContext {
    id: u32,
    plugin: Option<Rc<Plugin>>,
    stream: Option<Rc<Stream>>,
    logged: bool,
}

impl StreamContext {
    pub(super) fn new(id: u32, plugin: Option<Rc<Plugin>>) -> Self {
        Self {
            id,
            plugin,
            stream: None,
            logged: false,
        }
    }
}

impl Context for StreamContext {}

impl HttpContext for StreamContext {
    fn on_http_request_headers(&mut self, _num_headers: usize, _end_of_stream: bool) -> Action {
        let headers = abi::headers(abi::Map::Request);
        let broken = headers.is_err();
        let stream = Rc::new(Stream::new(self.id, headers.unwrap_or_default()));
        self.stream = Some(Rc::clone(&stream));
        match &self.plugin {
            Some(plugin) if !broken => stream.decide(plugin),
            // Without a policy, or without headers to decide on, nothing passes.
            Some(_) | None => {
                stream.answer_broken();
                Action::Pause
            }
        }
    }

    fn on_http_response_headers(&mut self, _num_headers: usize, _end_of_stream: bool) -> Action {
        if let (Some(stream), Some(plugin)) = (&self.stream, &self.plugin) {
            stream.see_status(plugin);
        }
        Action::Continue
    }

    fn on_log(&mut self) {
        if let (Some(stream), Some(plugin), false) = (&self.stream, &self.plugin, self.logged) {
            self.logged = true;
            stream.settle(plugin, stream.status.get());
            stream.log(plugin);
        }
    }
}

impl Drop for StreamContext {
    /// A stream that ends without its log callback still gives back what it holds.
    fn drop(&mut self) {
        if let (Some(stream), Some(plugin)) = (&self.stream, &self.plugin) {
            stream.settle(plugin, stream.status.get());
            stream.phase.set(Phase::Gone);
        }
    }
}
