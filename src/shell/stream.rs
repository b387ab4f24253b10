//! One request: headers in, verdict applied, answer settled, line written.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use super::abi;
use super::interlock::Interlock;
use super::plugin::Plugin;
use crate::answer::{Answer, ResponseContext};
use crate::api_version::ApiVersion;
use crate::body::RequestBody;
use crate::gateway::{Allow, Patience, Pending, Read, Refuse, Verdict, after};
use crate::limits::{Admission, ResponseStatus, Settlement};
use crate::metering::{Charge, Meter, is_timeout};
use crate::policy::{FilterStateField, Policy, Responses};
use crate::refusal::{Code, Outcome, Refusal};
use crate::request::{HeaderMap, RequestHead};
use crate::telling::{Asked, RequestLine, Told, field_name, is_known_early};
use crate::time::Time;
use crate::usage::{BodyReader, Passed};

/// What the host's answer details say before the code.
const DETAILS_PREFIX: &str = "tollgate_";

/// A request, shared by its context and, while it waits, by the plugin.
pub(super) struct Stream {
    id: u32,
    /// When it came.
    began: Time,
    headers: HeaderMap,
    /// The head is all of the request.
    has_no_body: bool,
    /// Its body comes though the head is paused, and is held by the host; whether that is all of it.
    held: Cell<Option<bool>>,
    phase: Cell<Phase>,
    /// The decision that waits for the body.
    pending: RefCell<Option<Pending>>,
    body: RefCell<Option<Box<RequestBody>>>,
    meter: RefCell<Option<Meter>>,
    /// The filter state tells what is known, though nothing is decided.
    told_early: Cell<bool>,
    told: RefCell<Option<Told>>,
    interlock: Interlock,
    admission: RefCell<Option<Admission>>,
    status: Cell<ResponseStatus>,
    /// What the call is charged, once that is settled.
    charge: Cell<Option<Charge>>,
    /// What of that is in filter state.
    told_charge: Cell<Charge>,
    /// How often it was set there before the end.
    told_times: Cell<u64>,
}

/// How far a request has come. It moves forward only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No decision yet.
    New,
    /// Paused, for keys.
    Waiting,
    /// The head is on its way; the body decides.
    Reading,
    /// On its way to the backend.
    Passed,
    /// Answered here.
    Answered,
    /// Gone from the host.
    Gone,
}

impl Stream {
    fn new(id: u32, headers: HeaderMap, has_no_body: bool) -> Self {
        Self {
            id,
            began: abi::now(),
            headers,
            has_no_body,
            held: Cell::new(None),
            phase: Cell::new(Phase::New),
            pending: RefCell::default(),
            body: RefCell::default(),
            meter: RefCell::default(),
            told_early: Cell::new(false),
            told: RefCell::default(),
            interlock: Interlock::default(),
            admission: RefCell::default(),
            status: Cell::new(ResponseStatus::Absent),
            charge: Cell::new(None),
            told_charge: Cell::new(Charge::default()),
            told_times: Cell::new(0),
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
        let clock = after(self.began, &abi::now);
        let verdict = match plugin.decide(self, &clock, Patience::Wait) {
            Some(Verdict::Wait { issuer }) if plugin.wait(Rc::clone(self), issuer) => {
                self.phase.set(Phase::Waiting);
                return Action::Pause;
            }
            Some(Verdict::Wait { .. }) => plugin.decide(self, &clock, Patience::Over),
            decided => decided,
        };
        match verdict {
            Some(Verdict::Allow(allow)) => {
                if self.allow(plugin, allow) {
                    return Action::Continue;
                }
            }
            Some(Verdict::Read(read)) => {
                if self.read(plugin, read) {
                    return Action::Continue;
                }
            }
            Some(Verdict::Refuse(refuse)) => self.refuse(plugin, refuse),
            // Over is never told to wait.
            Some(Verdict::Wait { .. }) | None => self.answer_broken(plugin),
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
        if self.held.get() == Some(false) {
            self.refuse_held(plugin);
            return None;
        }
        match plugin.decide(self, &abi::now, patience) {
            Some(Verdict::Wait { issuer }) => return Some(issuer),
            Some(Verdict::Allow(allow)) => {
                if self.allow(plugin, allow) && self.see_held(plugin) {
                    resume();
                }
            }
            Some(Verdict::Read(read)) => {
                if self.read(plugin, read) && self.see_held(plugin) {
                    resume();
                }
            }
            Some(Verdict::Refuse(refuse)) => self.refuse(plugin, refuse),
            None => self.answer_broken(plugin),
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
        // What no answer changes needs no settling.
        let admission = allow.admission.filter(Admission::depends_on_answer);
        put(&self.admission, admission);
        put(&self.body, allow.body);
        put(&self.meter, allow.meter);
        if let Some(reserved) = with(&self.admission, |admission| admission.reserved()) {
            with(&self.meter, |meter| meter.reserve(reserved));
        }
        if plugin.writer.apply(&allow.changes, &self.headers).is_err() {
            self.answer_broken(plugin);
            return false;
        }
        self.interlock.open(plugin);
        self.tell(plugin, told);
        self.phase.set(Phase::Passed);
        true
    }

    /// Lets the head go on and has the body decide. `false` when the request was answered instead.
    fn read(&self, plugin: &Plugin, read: Read) -> bool {
        put(&self.body, Some(read.body));
        put(&self.meter, read.meter);
        let caller = read.pending.told();
        put(&self.pending, Some(read.pending));
        self.phase.set(Phase::Reading);
        if plugin.writer.apply(&read.changes, &self.headers).is_err() {
            self.answer_broken(plugin);
            return false;
        }
        // The filters that follow see the head now; a global limit asks for the application. And should it
        // end before a decision, the gateway's loggers are to know.
        self.set_fields(plugin, &caller, |_| true);
        self.told_early.set(true);
        if self.has_no_body || self.headers.first("content-length") == Some(b"0") {
            // Decided before the head goes on: only an allowed request opens the interlock.
            return self.see_request(plugin, 0, true) == Action::Continue;
        }
        if self.held.get().is_some() {
            return self.see_held(plugin);
        }
        self.interlock.open(plugin);
        true
    }

    /// Sees a body that the host holds, before it goes on with its head. `false` when the request was answered.
    fn see_held(&self, plugin: &Plugin) -> bool {
        if self.held.take().is_none() {
            return true;
        }
        match size_of(abi::Buffer::RequestBody) {
            Ok(size) => self.see_request(plugin, size, true) == Action::Continue,
            Err(_) => {
                self.answer_broken(plugin);
                false
            }
        }
    }

    /// Refuses a request of whose body a part is held: Envoy would not show this module all that follows it.
    fn refuse_held(&self, plugin: &Plugin) {
        let Told { claims, asked, .. } = self.ended(plugin);
        let refuse = Refuse {
            refusal: Refusal::Keys { retry_in: 0 },
            claims,
            asked,
        };
        self.refuse(plugin, refuse);
    }

    /// Sees a piece of the request's body.
    fn see_request(&self, plugin: &Plugin, size: usize, end: bool) -> Action {
        if self.is_waiting() {
            self.held.set(Some(end));
        }
        if !matches!(self.phase.get(), Phase::Reading | Phase::Passed) {
            return Action::Pause;
        }
        with(&self.meter, |meter| meter.see_request(size));
        let passed = with(&self.body, |body| {
            if body.is_passed() {
                return Ok(());
            }
            pass(abi::Buffer::RequestBody, size, end, &mut **body)
        });
        if passed.is_some_and(|passed| passed.is_err()) {
            // Trailers have come: what was held back has no place any more. A refusal goes first.
            if self.decide_on_body(plugin) {
                self.answer_broken(plugin);
            }
            return Action::Pause;
        }
        let complete = with(&self.body, |body| body.is_complete()).unwrap_or(true);
        if (complete || end) && !self.decide_on_body(plugin) {
            return Action::Pause;
        }
        Action::Continue
    }

    /// Sees the request's trailers, which end it. Backends may take them for headers (RFC 9110 section 6.5.1):
    /// what no caller may send as a header goes.
    fn see_trailers(&self, plugin: &Plugin) -> Action {
        if self.phase.get() != Phase::Answered && clean_trailers(&plugin.policy).is_err() {
            self.answer_broken(plugin);
            return Action::Pause;
        }
        self.see_request(plugin, 0, true)
    }

    /// Decides, if the decision waited for the body. `false` when the request was answered.
    fn decide_on_body(&self, plugin: &Plugin) -> bool {
        let Some(pending) = take(&self.pending) else {
            return true;
        };
        let verdict = with(&self.body, |body| plugin.decide_on_body(pending, body));
        match verdict.flatten() {
            Some(Verdict::Allow(allow)) => return self.allow(plugin, allow),
            Some(Verdict::Refuse(refuse)) => self.refuse(plugin, refuse),
            Some(Verdict::Read(_) | Verdict::Wait { .. }) | None => self.answer_broken(plugin),
        }
        false
    }

    /// Ends a decision that waited for the body: answers what the call holds in limits.
    fn give_up(&self) -> Option<Admission> {
        with(&self.pending, Pending::give_up).flatten()
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
        self.answer(&refuse.refusal, &plugin.policy.responses);
    }

    fn answer(&self, refusal: &Refusal, responses: &Responses) {
        let context = ResponseContext::read(&self.headers);
        let answer = Answer::new(refusal, responses, &context);
        self.phase.set(Phase::Answered);
        self.status.set(ResponseStatus::Code(answer.status));
        let headers = HeaderMap::from_pairs(
            answer
                .headers
                .iter()
                .map(|(name, value)| (name.as_bytes(), value.as_bytes())),
        );
        let details = [DETAILS_PREFIX, refusal.code().name()].concat();
        let sent =
            abi::send_local_response(answer.status, &details, &headers, answer.body.as_bytes());
        if let Err(failed) = sent {
            log::error!("an answer could not be sent: {failed:?}");
        }
    }

    /// Answers what cannot be decided, or not carried out: the host refused something, and nothing passes.
    fn answer_broken(&self, plugin: &Plugin) {
        log::error!("{}: compare its allowed_capabilities", Refusal::Host);
        if let Ok(mut gateway) = plugin.gateway.try_borrow_mut() {
            gateway.release(self.give_up(), &*plugin.store);
        }
        let Told { claims, asked, .. } = self.ended(plugin);
        let refuse = Refuse {
            refusal: Refusal::Host,
            claims,
            asked,
        };
        self.refuse(plugin, refuse);
    }

    /// Sets the filter state, for the gateway's own loggers.
    fn tell(&self, plugin: &Plugin, told: Told) {
        let told_early = self.told_early.get();
        self.set_fields(plugin, &told, |field| {
            !(told_early && is_known_early(field))
        });
        put(&self.told, Some(told));
    }

    fn set_fields(&self, plugin: &Plugin, told: &Told, which: impl Fn(FilterStateField) -> bool) {
        let fields = plugin.policy.log.filter_state.iter();
        for field in fields.filter(|field| which(**field)) {
            if let Some(value) = told.field(*field, &plugin.policy) {
                plugin.set_state(field_name(*field), value.as_bytes());
            }
        }
    }

    /// Sees the head of the answer.
    fn see_answer(&self, plugin: &Plugin) -> Action {
        match self.phase.get() {
            Phase::Answered => {
                self.keep_status();
                return Action::Continue;
            }
            Phase::Waiting => self.see_wait_ended(plugin),
            Phase::New | Phase::Reading | Phase::Passed | Phase::Gone => {}
        }
        if self.needs_no_answer(plugin) {
            return Action::Continue;
        }
        let headers = self.answer_headers();
        let status = headers.first(":status").and_then(|status| {
            let status = str::from_utf8(status).ok()?;
            status.parse().ok()
        });
        if self.phase.get() == Phase::Reading && !self.see_early_answer(plugin, status) {
            return Action::Pause;
        }
        let status = status.map_or(ResponseStatus::Unknown, ResponseStatus::Code);
        self.status.set(status);
        self.begin_metering(status, &headers);
        if with(&self.admission, |admission| !admission.counts_tokens()).unwrap_or(false) {
            self.settle_calls(plugin);
        }
        Action::Continue
    }

    /// The gateway ended the wait before this module did, by a time limit of its own.
    fn see_wait_ended(&self, plugin: &Plugin) {
        self.phase.set(Phase::Gone);
        let told = Told {
            outcome: Outcome::Unavailable,
            code: Some(Code::KeysUnavailable),
            ..self.undecided(plugin)
        };
        self.tell(plugin, told);
    }

    /// What there is to tell of a request without a decision.
    fn undecided(&self, plugin: &Plugin) -> Told {
        if let Some(pending) = take(&self.pending) {
            return pending.told();
        }
        let head = RequestHead::read(&self.headers, &plugin.policy);
        Told::undecided(None, Asked::of(head.operation().as_ref().ok()))
    }

    /// What became of it: what was told, or what is left to tell at its end.
    fn ended(&self, plugin: &Plugin) -> Told {
        take(&self.told).unwrap_or_else(|| self.undecided(plugin))
    }

    /// The backend answers a request that is not decided on, because its body is not all there. An error
    /// may pass; of what else it says nothing does without a decision. `false` when the request was
    /// answered instead.
    fn see_early_answer(&self, plugin: &Plugin, status: Option<u16>) -> bool {
        if status.is_some_and(|status| status >= 400) {
            self.phase.set(Phase::Gone);
            put(&self.admission, self.give_up());
            return true;
        }
        self.decide_on_body(plugin)
    }

    /// Whether nothing depends on the answer: then its head is not asked for.
    fn needs_no_answer(&self, plugin: &Plugin) -> bool {
        self.phase.get() == Phase::Passed
            && !plugin.policy.log.requests
            && with(&self.meter, |_| ()).is_none()
            && with(&self.admission, |_| ()).is_none()
    }

    /// The headers of the answer: all where it is measured, else the status alone.
    fn answer_headers(&self) -> HeaderMap {
        const STATUS: &str = ":status";
        if with(&self.meter, |_| ()).is_some() {
            return abi::headers(abi::Map::Response).unwrap_or_default();
        }
        let status = abi::header(abi::Map::Response, STATUS).unwrap_or_default();
        HeaderMap::from_pairs([(STATUS.as_bytes(), status.as_slice())])
    }

    fn begin_metering(&self, status: ResponseStatus, headers: &HeaderMap) {
        let injected = with(&self.body, |body| body.usage_was_injected()).unwrap_or(false);
        with(&self.meter, |meter| {
            // Only the gateway tells its own response on timing out from one of the backend.
            let timed_out = status.is_failure()
                && abi::property("response\0code_details")
                    .is_ok_and(|details| is_timeout(&details));
            meter.begin_answer(status, headers, timed_out, injected);
            if meter.reader().is_some_and(|reader| reader.is_filter()) {
                // What is taken out makes the answer shorter than it was.
                let _ = abi::remove_header(abi::Map::Response, b"content-length");
            }
        });
    }

    /// Sees a piece of the answer's body.
    fn see_answer_body(&self, plugin: &Plugin, size: usize, end: bool) -> Action {
        let passed = with(&self.meter, |meter| {
            meter.on_response_body(size);
            let Some(reader) = meter.reader() else {
                return Ok(());
            };
            pass(abi::Buffer::ResponseBody, size, end, reader)
        });
        if passed.is_some_and(|passed| passed.is_err()) {
            log::error!("an answer could not be read: its usage is not known");
        }
        if end {
            self.settle(plugin);
        } else if let Some(charge) = self.measured() {
            // Should no end be seen, it is too late after this: access loggers come before the last callback.
            self.tell_charge_early(plugin, &charge);
        }
        Action::Continue
    }

    /// Keeps the status of a refusal: Envoy turns local answers to gRPC requests into 200, and what
    /// watches statuses would see no refusal.
    fn keep_status(&self) {
        let is_grpc = |value: &[u8]| value.starts_with(b"application/grpc");
        if self.headers.first("content-type").is_some_and(is_grpc)
            && let Some(status) = self.status.get().code()
        {
            let _ = abi::set_response_status(status);
        }
    }

    /// Settles the call, once: what it is charged is counted and told.
    fn settle(&self, plugin: &Plugin) {
        if self.charge.get().is_none()
            && let Some(charge) = self.measured()
        {
            self.charge.set(Some(charge));
            self.tell_charge(plugin, &charge);
        }
        self.settle_calls(plugin);
    }

    /// What a call that passed is charged, were it to end now, where it is measured.
    fn measured(&self) -> Option<Charge> {
        if self.phase.get() != Phase::Passed {
            return None;
        }
        let body = self.body.try_borrow().ok()?;
        with(&self.meter, |meter| meter.charge(body.as_deref()))
    }

    /// Gives back, and charges, what the call took in limits.
    fn settle_calls(&self, plugin: &Plugin) {
        if let Some(admission) = take(&self.admission).or_else(|| self.give_up())
            && let Ok(mut gateway) = plugin.gateway.try_borrow_mut()
        {
            let settlement = Settlement {
                status: self.status.get(),
                tokens: self.charge.get().unwrap_or_default().tokens(),
            };
            gateway.settle(admission, settlement, &abi::now, &*plugin.store);
        }
    }

    fn tell_charge(&self, plugin: &Plugin, charge: &Charge) {
        let counters = with(&self.told, |told| {
            told.token_counters(charge, &plugin.policy)
        });
        for (counter, count) in counters.unwrap_or_default() {
            plugin.metrics.count(counter, count, &plugin.policy);
        }
        self.set_charge_fields(plugin, charge);
    }

    /// The same before the response ends. A host call for every event would make long streams slow, so an
    /// estimate that is set often enough is set again only when it has grown by a share of itself.
    fn tell_charge_early(&self, plugin: &Plugin, charge: &Charge) {
        const OFTEN: u64 = 32;
        let told = self.told_charge.get();
        let times = self.told_times.get();
        let before = told.estimated.unwrap_or_default();
        let more = charge.estimated.unwrap_or_default().saturating_sub(before);
        let grown = more > 0 && times < OFTEN || more.saturating_mul(OFTEN) > before;
        if grown || charge.usage != told.usage {
            self.told_times.set(times.saturating_add(1));
            self.set_charge_fields(plugin, charge);
        }
    }

    /// Sets the fields of filter state that are about tokens, where they differ from this.
    fn set_charge_fields(&self, plugin: &Plugin, charge: &Charge) {
        let told = self.told_charge.replace(*charge);
        for field in &plugin.policy.log.filter_state {
            let count = Told::charge_field(*field, charge);
            if count == Told::charge_field(*field, &told) {
                continue;
            }
            // A field cannot be taken back: of what was estimated before there was usage, nothing is left.
            let count = count.unwrap_or_default().to_string();
            plugin.set_state(field_name(*field), count.as_bytes());
        }
    }

    /// Writes the request's line and counts it.
    fn log(&self, plugin: &Plugin) {
        let told = self.ended(plugin);
        plugin
            .metrics
            .count(told.counter(&plugin.policy), 1, &plugin.policy);
        if !plugin.policy.log.requests || !log::log_enabled!(log::Level::Info) {
            return;
        }
        let head = RequestHead::read(&self.headers, &plugin.policy);
        let client = abi::property("source\0address").ok();
        let api_version = head.api_version();
        let line = RequestLine {
            time: self.began,
            end: abi::now(),
            told: &told,
            policy: &plugin.policy,
            method: head.method_to_tell(),
            path: &head.path_to_tell(&plugin.policy.api_keys.query),
            api_version: api_version.as_ref().map(ApiVersion::as_bytes),
            status: self.status.get().code(),
            client: client.as_deref(),
            request_id: head.request_id_to_tell(),
            client_request_id: head.client_request_id_to_tell(),
            stream: with(&self.meter, |meter| meter.is_stream()).flatten(),
            charge: self.charge.get().unwrap_or_default(),
        };
        log::info!("{}", line.to_json());
    }
}

/// Works on what a cell holds, if it holds something.
fn with<T, R>(cell: &RefCell<Option<T>>, work: impl FnOnce(&mut T) -> R) -> Option<R> {
    cell.try_borrow_mut().ok()?.as_mut().map(work)
}

fn take<T>(cell: &RefCell<Option<T>>) -> Option<T> {
    cell.try_borrow_mut().ok()?.take()
}

/// Puts something into a cell, if there is something.
fn put<T>(cell: &RefCell<Option<T>>, value: Option<T>) {
    if let (Some(value), Ok(mut held)) = (value, cell.try_borrow_mut()) {
        *held = Some(value);
    }
}

fn resume() {
    if abi::resume_request().is_err() {
        log::error!("a request could not be resumed");
    }
}

/// Most bytes of a buffer that are copied into this VM at once: its memory never shrinks.
const MAX_PIECE: usize = 64 * 1024;

/// Shows what a buffer holds to a reader, piece by piece, and puts what the reader makes of it in
/// its place.
fn pass(
    buffer: abi::Buffer,
    size: usize,
    end: bool,
    reader: &mut impl BodyReader,
) -> Result<(), abi::Failed> {
    let mut output: Option<Vec<u8>> = None;
    let mut at = 0_usize;
    loop {
        let bytes = match size.saturating_sub(at).min(MAX_PIECE) {
            0 => Vec::new(),
            length => abi::buffer(buffer, at, length)?,
        };
        let next = at.saturating_add(bytes.len());
        // A host that hands over less than there is would never come to an end.
        let is_last = next >= size || bytes.is_empty();
        match (reader.push(&bytes, end && is_last), &mut output) {
            (Passed::Unchanged, None) => {}
            (Passed::Unchanged, Some(output)) => output.extend_from_slice(&bytes),
            (Passed::Replaced(instead), Some(output)) => output.extend_from_slice(instead),
            (Passed::Replaced(instead), None) => {
                let before = match at {
                    0 => Vec::new(),
                    at => abi::buffer(buffer, 0, at)?,
                };
                output = Some([&before, instead].concat());
            }
        }
        if is_last {
            break;
        }
        at = next;
    }
    output.map_or(Ok(()), |output| abi::replace_buffer(buffer, size, &output))
}

/// How many bytes a buffer holds.
fn size_of(buffer: abi::Buffer) -> Result<usize, abi::Failed> {
    let mut size = 0_usize;
    loop {
        let length = abi::buffer(buffer, size, MAX_PIECE)?.len();
        size = size.saturating_add(length);
        if length < MAX_PIECE {
            return Ok(size);
        }
    }
}

fn clean_trailers(policy: &Policy) -> Result<(), abi::Failed> {
    let trailers = abi::headers(abi::Map::RequestTrailers)?;
    for name in RequestHead::read(&trailers, policy).unfit_for_trailers() {
        abi::remove_header(abi::Map::RequestTrailers, name)?;
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

impl Context for StreamContext {
    /// The stream has ended, however: what is left is settled and told. Envoy would call `on_log` as
    /// well, just before; one callback is enough.
    fn on_done(&mut self) -> bool {
        if let (Some(stream), Some(plugin), false) = (&self.stream, &self.plugin, self.logged) {
            self.logged = true;
            stream.settle(plugin);
            stream.log(plugin);
        }
        true
    }
}

impl HttpContext for StreamContext {
    fn on_http_request_headers(&mut self, _num_headers: usize, end_of_stream: bool) -> Action {
        let headers = abi::headers(abi::Map::Request);
        #[cfg(feature = "chaos")]
        headers.iter().for_each(super::chaos::obey);
        let broken = headers.is_err();
        let headers = headers.unwrap_or_default();
        let stream = Rc::new(Stream::new(self.id, headers, end_of_stream));
        self.stream = Some(Rc::clone(&stream));
        match &self.plugin {
            Some(plugin) if !broken => stream.decide(plugin),
            // Without headers to decide on, or without a policy, nothing passes.
            Some(plugin) => {
                stream.answer_broken(plugin);
                Action::Pause
            }
            None => {
                stream.answer(&Refusal::Host, &Responses::default());
                Action::Pause
            }
        }
    }

    fn on_http_request_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        match (&self.stream, &self.plugin) {
            (Some(stream), Some(plugin)) => stream.see_request(plugin, body_size, end_of_stream),
            _ => Action::Pause,
        }
    }

    fn on_http_request_trailers(&mut self, _num_trailers: usize) -> Action {
        match (&self.stream, &self.plugin) {
            (Some(stream), Some(plugin)) => stream.see_trailers(plugin),
            _ => Action::Pause,
        }
    }

    fn on_http_response_headers(&mut self, _num_headers: usize, _end_of_stream: bool) -> Action {
        match (&self.stream, &self.plugin) {
            (Some(stream), Some(plugin)) => stream.see_answer(plugin),
            _ => Action::Continue,
        }
    }

    fn on_http_response_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        match (&self.stream, &self.plugin) {
            (Some(stream), Some(plugin)) => {
                stream.see_answer_body(plugin, body_size, end_of_stream)
            }
            _ => Action::Continue,
        }
    }
}

impl Drop for StreamContext {
    /// A stream that ends without its last callback still gives back what it holds.
    fn drop(&mut self) {
        if let (Some(stream), Some(plugin)) = (&self.stream, &self.plugin) {
            stream.settle(plugin);
            stream.phase.set(Phase::Gone);
        }
    }
}
