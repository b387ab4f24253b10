//! The straight path of a request, and the only place that composes the parts.
//!
//! A [`Gateway`] is one plugin in one VM. Time, headers, shared data and callout answers come in
//! as values; verdicts and callouts go out as values. Nothing here acts.

mod needs;
mod reading;
mod undecided;

use std::borrow::Cow;
use std::cell::Cell;
use std::rc::Rc;

use crate::body::RequestBody;
use crate::credential::Credential;
use crate::crypto::Crypto;
use crate::forward::HeaderChanges;
use crate::guid::Guid;
use crate::jwt::{
    self, Algorithm, CachedToken, Caller, Claims, Jws, TokenCache, UntrustedToken, Verified,
    VerifyError,
};
use crate::keys::{Answer, FetchOutcome, IssuerKeys, Lookup, NextCall, Progress, Wanted};
use crate::limits::{self, Admission, Admitted, Asking, CounterKeys, NamedLimit, Settlement};
use crate::metering::Meter;
use crate::operations::{ModelPlace, Operation, Unread, is_deployment};
use crate::policy::{Access, ApiKeyAction, App, HeaderSource, Issuer, Mode, Policy};
use crate::refusal::Refusal;
use crate::request::{HeaderMap, RequestHead};
use crate::store::SharedStore;
use crate::telling::{Asked, Told};
use crate::time::Time;

use needs::{Needs, permit_headers, permit_model, permit_query};
use reading::{Reading, is_tellable};
use undecided::{Undecided, UndecidedSlot};

/// Most requests that wait for keys at one time, in one VM.
pub const MAX_WAITING: usize = 1_000;
/// Longest that a request waits for keys, in milliseconds.
pub const MAX_WAIT_MILLIS: u64 = 5_000;

/// One plugin in one VM.
pub struct Gateway {
    policy: Rc<Policy>,
    crypto: Crypto,
    issuers: Vec<IssuerState>,
    /// Names of the limits of `policy.apps`, in the same order; the default application's last.
    limits: Vec<Vec<NamedLimit>>,
    counters: CounterKeys,
    undecided: Undecided,
    cache: TokenCache,
    tallies: Tallies,
}

struct IssuerState {
    keys: IssuerKeys,
    /// Claims that the policy names for tokens of this issuer.
    wanted_claims: Vec<String>,
    /// Whether there was a usable set when last seen.
    usable: bool,
    /// The state of the keys that `sync` told last. A request may see a newer one before.
    told: (u64, u64, u64),
}

/// What a decision reads and writes beside the request.
struct Around<'a> {
    /// When the request came.
    now: Time,
    clock: &'a dyn Fn() -> Time,
    store: &'a dyn SharedStore,
}

/// Whom and what a decision is about.
struct Subject {
    claims: Option<Rc<Claims>>,
    asked: Asked,
}

/// Counts since they were last taken, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tallies {
    /// Tokens found in the cache.
    pub cache_hits: u64,
    /// Tokens verified anew.
    pub cache_misses: u64,
    /// Lost tries of compare-and-swap.
    pub counter_retries: u32,
}

/// What is to become of a request. It has no default, and `Allow` is made in one place.
#[derive(Debug)]
pub enum Verdict {
    /// It goes on to the backend.
    Allow(Allow),
    /// It is answered here.
    Refuse(Refuse),
    /// Its head goes on, and its body decides, see [`Gateway::decide_on_body`].
    Read(Read),
    /// It waits for keys. Asked again, it may still wait; its time is bounded by the caller of
    /// [`Gateway::decide`].
    Wait {
        /// Which issuer's keys.
        issuer: usize,
    },
}

/// A request whose body decides.
#[derive(Debug)]
pub struct Read {
    /// Changes to the request's headers.
    pub changes: HeaderChanges,
    /// What is to be read.
    pub body: Box<RequestBody>,
    /// Measures what the call uses.
    pub meter: Option<Meter>,
    /// What was found out so far.
    pub pending: Pending,
}

/// A decision that waits for the request's body.
#[derive(Debug)]
pub struct Pending {
    caller: Caller,
    /// The call's places in the limits that its head decided.
    admission: Option<Admission>,
    /// It counts as undecided as long as it has this.
    slot: Option<UndecidedSlot>,
    asked: Asked,
    place: ModelPlace,
    needs: Needs,
    /// The head names another deployment that the request runs.
    runs_another: bool,
}

/// A request that goes on.
#[derive(Debug)]
pub struct Allow {
    /// Whose token it is, once its signature is good; `None` on public paths, for preflights, and in
    /// report mode without such a token.
    pub claims: Option<Rc<Claims>>,
    /// What is asked for.
    pub asked: Asked,
    /// Changes to the request's headers.
    pub changes: HeaderChanges,
    /// The body, where it has to ask for usage.
    pub body: Option<Box<RequestBody>>,
    /// Measures what the call uses, where that can be read.
    pub meter: Option<Meter>,
    /// The call's places in the limits.
    pub admission: Option<Admission>,
    /// In report mode: why it would have been refused.
    pub would_refuse: Option<Refusal>,
}

/// A request that is answered here.
#[derive(Debug)]
pub struct Refuse {
    /// Why.
    pub refusal: Refusal,
    /// Whose token it is, once its signature is good, so that it is known who was refused.
    pub claims: Option<Rc<Claims>>,
    /// What is asked for.
    pub asked: Asked,
}

/// Whether a request may wait for keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// There is room and time.
    Wait,
    /// There is none: what would wait is unavailable.
    Over,
}

/// Where the steps of a decision lead.
enum Step {
    /// Nothing more decides.
    Admitted(Option<Admission>),
    /// The request is to be read on.
    Body(AwaitsBody),
}

/// What a request whose body decides has so far.
struct AwaitsBody {
    caller: Caller,
    admission: Option<Admission>,
    slot: UndecidedSlot,
    needs: Needs,
}

/// Where they ended.
enum Stop {
    Refused(Refusal),
    Wait { issuer: usize },
}

impl Pending {
    /// Who asks, and for what as far as it is known.
    #[must_use]
    pub fn told(&self) -> Told {
        Told::undecided(Some(Rc::clone(self.caller.claims())), self.asked.clone())
    }

    /// It will not be decided any more: answers what the call holds in limits, which is to be settled.
    pub fn give_up(&mut self) -> Option<Admission> {
        self.slot = None;
        self.admission.take()
    }

    fn new(
        so_far: AwaitsBody,
        asked: Asked,
        operation: &Result<Operation<'_>, Unread>,
        head: &RequestHead<'_>,
    ) -> Self {
        Self {
            caller: so_far.caller,
            admission: so_far.admission,
            slot: Some(so_far.slot),
            needs: so_far.needs,
            asked,
            place: reading::place(operation),
            runs_another: !head.deployments.is_empty(),
        }
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A fetch that ended.
#[derive(Debug)]
pub struct FetchReport {
    /// Which issuer's.
    pub issuer: usize,
    /// How.
    pub outcome: FetchOutcome,
}

impl Gateway {
    /// A plugin with its policy. `plugin` is Envoy's plugin name, which keeps the counters and
    /// keys of several plugins of one process apart.
    #[must_use]
    pub fn new(policy: Rc<Policy>, plugin: &str, crypto: Crypto) -> Self {
        let issuers = policy
            .issuers
            .iter()
            .map(|issuer| IssuerState {
                keys: IssuerKeys::new(issuer, plugin),
                wanted_claims: wanted_claims(issuer, &policy),
                usable: false,
                told: (0, 0, 0),
            })
            .collect();
        let apps = policy.apps.listed.iter().chain([&policy.apps.default_app]);
        let limits = apps.map(|app| limits::name_limits(&app.limits)).collect();
        Self {
            issuers,
            limits,
            counters: CounterKeys::new(plugin),
            undecided: Undecided::default(),
            cache: TokenCache::default(),
            tallies: Tallies::default(),
            policy,
            crypto,
        }
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> &Rc<Policy> {
        &self.policy
    }

    /// Decides on a request. `clock` is read again where another worker's count is later.
    pub fn decide(
        &mut self,
        headers: &HeaderMap,
        clock: &dyn Fn() -> Time,
        store: &dyn SharedStore,
        patience: Patience,
    ) -> Verdict {
        let policy = Rc::clone(&self.policy);
        let now = clock();
        let clock = &after(now, clock);
        let around = Around { now, clock, store };
        let head = RequestHead::read(headers, &policy);
        let operation = head.operation();
        let mut claims = None;
        let mut changes = HeaderChanges::cleaning(&head, &policy);
        let step = self.steps(&head, &operation, &around, &mut claims, &mut changes);
        let asked = Asked::of(operation.as_ref().ok());
        let reading = match &claims {
            Some(_) => Reading::new(&head, &operation, headers, &policy, &mut changes),
            None => Reading::default(),
        };
        let decided = match (step, policy.mode, patience) {
            (Ok(Step::Admitted(admission)), ..) => Ok(admission),
            (Ok(Step::Body(so_far)), ..) => {
                return Verdict::Read(Read {
                    changes,
                    body: reading.body.unwrap_or_else(|| {
                        Box::new(reading::body(&operation, headers, false, &policy))
                    }),
                    meter: reading.meter,
                    pending: Pending::new(so_far, asked, &operation, &head),
                });
            }
            (Err(Stop::Wait { issuer }), Mode::Enforce, Patience::Wait) => {
                return Verdict::Wait { issuer };
            }
            (Err(Stop::Wait { issuer }), ..) => Err(self.keys_unavailable(issuer, now)),
            (Err(Stop::Refused(refusal)), ..) => Err(refusal),
        };
        let subject = Subject { claims, asked };
        conclude(decided, policy.mode, subject, changes, reading)
    }

    /// Decides on a request whose body was to be read first: [`RequestBody::is_complete`], or it will
    /// not become so any more.
    pub fn decide_on_body(
        &mut self,
        pending: Pending,
        body: &RequestBody,
        clock: &dyn Fn() -> Time,
        store: &dyn SharedStore,
    ) -> Verdict {
        let policy = Rc::clone(&self.policy);
        let Pending {
            caller,
            admission,
            slot: _,
            mut asked,
            place,
            needs,
            runs_another,
        } = pending;
        let claims = caller.into_claims();
        let app = policy.apps.find(claims.app_id);
        let model = body.model();
        let permitted = match (&app.deployments, place) {
            (Some(deployments), ModelPlace::Body) => permit_model(deployments, model),
            _ => Ok(()),
        };
        let path = asked.deployment.take();
        // A model beside a deployment in the path is nothing to Azure.
        let named = match place {
            ModelPlace::Body => model.ok().flatten(),
            _ => path.as_deref(),
        };
        asked.deployment = named.filter(|name| is_tellable(name)).map(str::to_owned);
        let asking = Asking {
            action: asked.action,
            deployment: reading::deployment(place, named, runs_another),
            reserve: Some(body.bound(asked.action)),
        };
        let decided = match permitted.and_then(|()| needs.permit(body, asked.action)) {
            Ok(()) => self.count(app, claims.app_id, admission, &asking, clock, store),
            Err(refusal) => {
                self.release(admission, store);
                Err(refusal)
            }
        };
        let subject = Subject {
            claims: Some(claims),
            asked,
        };
        conclude(
            decided,
            policy.mode,
            subject,
            HeaderChanges::default(),
            Reading::default(),
        )
    }

    /// The steps of a decision, in order. `claims` is set as soon as the token's signature is good,
    /// and `changes` when it is known who calls.
    fn steps(
        &mut self,
        head: &RequestHead<'_>,
        operation: &Result<Operation<'_>, Unread>,
        around: &Around<'_>,
        claims: &mut Option<Rc<Claims>>,
        changes: &mut HeaderChanges,
    ) -> Result<Step, Stop> {
        let policy = Rc::clone(&self.policy);
        if head.lacks_target() {
            return Err(Refusal::Host.into());
        }
        if policy.api_keys.action == ApiKeyAction::Deny
            && let Some(place) = head.key_place(&policy)
        {
            return Err(Refusal::ApiKey(place).into());
        }
        if head.needs_no_token(&policy) {
            return Ok(Step::Admitted(None));
        }
        let (credential, found) = self.credential(&head.authorization);
        let token = match credential {
            Credential::Absent => return Err(Refusal::NoToken.into()),
            Credential::NoScheme => return Err(Refusal::NoScheme.into()),
            Credential::Ambiguous => return Err(Refusal::AmbiguousCredential.into()),
            Credential::Bearer { token, .. } => token,
        };
        let admitted = self.authenticate(token, found, around.now, around.store, claims)?;
        let app = policy.apps.find(admitted.claims().app_id);
        changes.identify(&admitted, app, &credential, &policy);
        let app_id = admitted.claims().app_id;
        if app.access == Access::Deny {
            return Err(Refusal::App.into());
        }
        permit(app, operation, head)?;
        permit_headers(app, head)?;
        let needs = Needs::of(app, head, operation, &policy);
        permit_query(needs, head, operation)?;
        if reading::body_decides(app, needs, operation, &policy) {
            // Else its head would go on, and the next one's, as long as their bodies do not end.
            let most = policy.max_undecided;
            let slot = self.undecided.enter(app_id, most);
            let slot = slot.ok_or(Refusal::Undecided)?;
            let asking = reading::asking_of_head(operation, head);
            let admission = self.count(app, app_id, None, &asking, around.clock, around.store)?;
            return Ok(Step::Body(AwaitsBody {
                caller: admitted,
                admission,
                slot,
                needs,
            }));
        }
        let asking = reading::asking(operation, head);
        let admission = self.count(app, app_id, None, &asking, around.clock, around.store)?;
        Ok(Step::Admitted(admission))
    }

    /// The credential, and what is known of its token. A header that is a good token as a whole need
    /// not be searched for a second credential.
    fn credential<'a>(&mut self, values: &[&'a [u8]]) -> (Credential<'a>, Option<CachedToken>) {
        if let Some(token) = Credential::whole(values)
            && let Some(found) = self.cache.find(token)
        {
            let repeated = false;
            return (Credential::Bearer { token, repeated }, Some(found));
        }
        let credential = Credential::read(values);
        let found = match credential {
            Credential::Bearer { token, .. } => self.cache.find(token),
            Credential::Absent | Credential::NoScheme | Credential::Ambiguous => None,
        };
        (credential, found)
    }

    /// A caller for a token: one that was found, or is verified now.
    fn authenticate(
        &mut self,
        token: &[u8],
        found: Option<CachedToken>,
        now: Time,
        store: &dyn SharedStore,
        known: &mut Option<Rc<Claims>>,
    ) -> Result<Caller, Stop> {
        if !now.is_known() {
            return Err(Refusal::Host.into());
        }
        let policy = Rc::clone(&self.policy);
        if let Some(found) = found
            && let Some(issuer) = policy.issuers.get(found.issuer)
        {
            self.tallies.cache_hits = self.tallies.cache_hits.saturating_add(1);
            *known = Some(Rc::clone(&found.claims));
            return Caller::admit(&found.claims, issuer, now.seconds()).map_err(|refusal| {
                self.cache.forget(token);
                Refusal::Claims(refusal).into()
            });
        }
        let jws = Jws::parse(token).map_err(Refusal::Token)?;
        let untrusted = UntrustedToken::read(&jws).map_err(Refusal::Token)?;
        let algorithm = find_algorithm(&untrusted, &policy)?;
        let (index, issuer) = find_issuer(&untrusted, &policy)?;
        check_header(&untrusted, algorithm, issuer)?;
        let verified = self.verify(&untrusted, algorithm, index, issuer, now, store)?;
        let claims = Rc::new(verified.claims);
        if verified.fault.is_none() {
            *known = Some(Rc::clone(&claims));
        }
        let caller = Caller::admit_first(&claims, verified.fault, issuer, now.seconds())
            .map_err(Refusal::Claims)?;
        self.cache.keep(token, index, claims);
        Ok(caller)
    }

    /// Finds the key and verifies the signature.
    fn verify(
        &mut self,
        token: &UntrustedToken<'_>,
        algorithm: Algorithm,
        index: usize,
        issuer: &Issuer,
        now: Time,
        store: &dyn SharedStore,
    ) -> Result<Verified, Stop> {
        let unavailable = Refusal::Keys { retry_in: 0 };
        let state = self.issuers.get_mut(index).ok_or(unavailable)?;
        let belongs = |of_key: Option<&str>| key_belongs(of_key, token, issuer);
        let wanted = Wanted {
            kid: token.kid(),
            algorithm,
            belongs: &belongs,
        };
        let found = match state.keys.lookup(&wanted, now) {
            found @ Lookup::Found(_) => found,
            _ => {
                // Another worker may have fetched what is missing here.
                if let Some(keys) = state.keys.fetched()
                    && keys.sync(store, now)
                {
                    self.cache.clear();
                }
                state.keys.lookup(&wanted, now)
            }
        };
        let key = match found {
            Lookup::Found(key) => key,
            Lookup::Unfit => return Err(Refusal::Verify(VerifyError::Signature).into()),
            Lookup::OfAnother => return Err(Refusal::KeyOfAnother.into()),
            Lookup::Unknown => return Err(Refusal::KeyNotFound.into()),
            Lookup::Wait => return Err(Stop::Wait { issuer: index }),
            Lookup::Unavailable(retry_in) => return Err(Refusal::Keys { retry_in }.into()),
        };
        self.tallies.cache_misses = self.tallies.cache_misses.saturating_add(1);
        jwt::verify(
            token,
            algorithm,
            &key.public,
            &self.crypto,
            issuer,
            &state.wanted_claims,
        )
        .map_err(|error| Refusal::Verify(error).into())
    }

    /// Takes the call's place in every limit of its application that it is not in yet. `admission` is what it holds.
    fn count(
        &mut self,
        app: &App,
        app_id: Guid,
        admission: Option<Admission>,
        asking: &Asking<'_>,
        clock: &dyn Fn() -> Time,
        store: &dyn SharedStore,
    ) -> Result<Option<Admission>, Refusal> {
        if !app.limits.iter().any(|limit| limit.is_for(asking)) {
            return Ok(admission);
        }
        let listed = self.policy.apps.by_id.get(&app_id);
        let index = listed.copied().unwrap_or(self.policy.apps.listed.len());
        let limits = self.limits.get(index).ok_or(Refusal::Counters)?;
        let retries = &mut self.tallies.counter_retries;
        let admitted = if let Some(admission) = admission {
            admission.extend(store, limits, asking, clock, retries)
        } else {
            let key = match listed {
                Some(_) => self.counters.listed(app_id),
                None => self
                    .counters
                    .unlisted(store, app_id)
                    .map_err(|_| Refusal::Counters)?,
            };
            limits::admit(store, key, limits, asking, clock, retries)
        };
        match admitted {
            Ok(Admitted::Counted(admission)) => Ok(Some(admission)),
            Ok(Admitted::Reached(reached)) => Err(Refusal::Limit(reached)),
            Err(_) => Err(Refusal::Counters),
        }
    }

    /// Gives back what a call that is refused holds in limits.
    pub fn release(&mut self, admission: Option<Admission>, store: &dyn SharedStore) {
        if let Some(admission) = admission {
            // When the host fails the call stays counted, which errs on the side of the limit.
            let _ = admission.release(store, &mut self.tallies.counter_retries);
        }
    }

    /// Settles a call whose answer is known, or known never to come.
    pub fn settle(
        &mut self,
        admission: Admission,
        settlement: Settlement,
        clock: &dyn Fn() -> Time,
        store: &dyn SharedStore,
    ) {
        let retries = &mut self.tallies.counter_retries;
        // When the host fails the call stays counted, which errs on the side of the limit.
        let _ = admission.settle(store, &settlement, clock, retries);
    }

    fn keys_unavailable(&mut self, issuer: usize, now: Time) -> Refusal {
        let keys = self
            .issuers
            .get_mut(issuer)
            .and_then(|state| state.keys.fetched());
        Refusal::Keys {
            retry_in: keys.map_or(0, |keys| keys.next_attempt_in(now)),
        }
    }

    /// How many requests may wait for one issuer's keys, so that a provider that is silent
    /// cannot take the room of the others.
    #[must_use]
    pub fn waiting_share(&self) -> usize {
        MAX_WAITING
            .checked_div(self.issuers.len())
            .unwrap_or(MAX_WAITING)
            .max(1)
    }

    /// How long a request may wait for an issuer's keys, in milliseconds.
    pub fn patience(&mut self, issuer: usize) -> u64 {
        let keys = self
            .issuers
            .get_mut(issuer)
            .and_then(|state| state.keys.fetched());
        keys.map_or(0, |keys| keys.patience()).min(MAX_WAIT_MILLIS)
    }

    /// Sees what other workers fetched. Answers the issuers about which something is new.
    pub fn sync(&mut self, store: &dyn SharedStore, now: Time) -> Vec<usize> {
        let mut changed = Vec::new();
        for (index, state) in self.issuers.iter_mut().enumerate() {
            let Some(keys) = state.keys.fetched() else {
                continue;
            };
            // Tokens verified with keys that are gone, or too old to serve, count no more.
            let new_set = keys.sync(store, now);
            let usable = keys.usable(now);
            if new_set || (state.usable && !usable) {
                self.cache.clear();
            }
            state.usable = usable;
            let told = std::mem::replace(&mut state.told, keys.state());
            if keys.state() != told {
                changed.push(index);
            }
        }
        changed
    }

    /// Begins the fetches that are due and that nobody else in the process has begun.
    pub fn begin_fetches(&mut self, store: &dyn SharedStore, now: Time) -> Vec<(usize, NextCall)> {
        let begin = |(index, state): (usize, &mut IssuerState)| {
            Some((index, state.keys.fetched()?.begin(store, now)?))
        };
        self.issuers
            .iter_mut()
            .enumerate()
            .filter_map(begin)
            .collect()
    }

    /// Goes on with a callout's answer: another callout, or the end of a fetch.
    pub fn answer(
        &mut self,
        issuer: usize,
        attempt: u64,
        answer: &Answer,
        store: &dyn SharedStore,
        now: Time,
    ) -> Result<NextCall, Option<FetchReport>> {
        let keys = self
            .issuers
            .get_mut(issuer)
            .and_then(|state| state.keys.fetched());
        let progress = keys.map(|keys| keys.answer(attempt, answer, store, now));
        match progress {
            None | Some(Progress::Stray) => Err(None),
            Some(Progress::Call(call)) => Ok(call),
            Some(Progress::Done(outcome)) => Err(Some(FetchReport { issuer, outcome })),
        }
    }

    /// The gateway could not make a callout.
    pub fn not_sent(&mut self, issuer: usize, store: &dyn SharedStore) -> Option<FetchReport> {
        let keys = self.issuers.get_mut(issuer)?.keys.fetched()?;
        Some(FetchReport {
            issuer,
            outcome: keys.not_sent(store),
        })
    }

    /// Gives up the fetches that this VM has begun, because their answers will not come.
    pub fn abandon_fetches(&mut self, store: &dyn SharedStore) {
        for keys in self
            .issuers
            .iter_mut()
            .filter_map(|state| state.keys.fetched())
        {
            keys.abandon(store);
        }
    }

    /// Name, number of keys and age of the set in seconds, for every issuer.
    pub fn key_gauges(&self, now: Time) -> impl Iterator<Item = (&str, usize, Option<u64>)> {
        self.policy
            .issuers
            .iter()
            .zip(&self.issuers)
            .map(move |(issuer, state)| {
                (
                    issuer.name.as_str(),
                    state.keys.len(),
                    state.keys.age_seconds(now),
                )
            })
    }

    /// Takes the counts since the last time.
    pub fn take_tallies(&mut self) -> Tallies {
        std::mem::take(&mut self.tallies)
    }
}

/// A clock of which one reading is there already, and told first: a reading is a call of the host.
pub(crate) fn after(now: Time, clock: &dyn Fn() -> Time) -> impl Fn() -> Time {
    let read = Cell::new(Some(now));
    move || read.take().unwrap_or_else(clock)
}

/// Whether an application may do what is asked. One that is narrowed in any way may do nothing that
/// is not known, or that has two readings.
fn permit(
    app: &App,
    operation: &Result<Operation<'_>, Unread>,
    head: &RequestHead<'_>,
) -> Result<(), Refusal> {
    let Ok(operation) = operation else {
        // TRACE has the server send back what it got, and so the token (RFC 9110 section 9.3.8).
        let is_trace = head.method.eq_ignore_ascii_case(b"TRACE");
        let is_free = app.roles.is_none() && app.deployments.is_none() && !is_trace;
        return if is_free {
            Ok(())
        } else {
            Err(Refusal::Permission { action: None })
        };
    };
    let action = operation.action;
    if app.roles.is_some_and(|roles| !roles.grant(action)) {
        let action = Some(action);
        return Err(Refusal::Permission { action });
    }
    let Some(deployments) = &app.deployments else {
        return Ok(());
    };
    let is_included = |(_, name): &(&[u8], &[u8])| {
        str::from_utf8(name).is_ok_and(|name| is_deployment(name) && deployments.include(name))
    };
    if !head.deployments.iter().all(is_included) {
        return Err(Refusal::Deployment);
    }
    match (operation.deployment, operation.model) {
        (Some(name), _) if deployments.include(name) => Ok(()),
        // The body decides.
        (None, ModelPlace::Nowhere | ModelPlace::Body | ModelPlace::Earlier) => Ok(()),
        // Named where nobody here can see it, or not at all.
        (Some(_) | None, _) => Err(Refusal::Deployment),
    }
}

/// The end of a decision, and the only place where `Allow` is made.
fn conclude(
    decided: Result<Option<Admission>, Refusal>,
    mode: Mode,
    Subject { claims, asked }: Subject,
    changes: HeaderChanges,
    reading: Reading,
) -> Verdict {
    let (admission, would_refuse) = match (decided, mode) {
        (Ok(admission), _) => (admission, None),
        (Err(refusal), Mode::Report) => (None, Some(refusal)),
        (Err(refusal), Mode::Enforce) => {
            return Verdict::Refuse(Refuse {
                refusal,
                claims,
                asked,
            });
        }
    };
    Verdict::Allow(Allow {
        claims,
        asked,
        changes,
        body: reading.body,
        meter: reading.meter,
        admission,
        would_refuse,
    })
}

/// Claims that decisions or headers need beyond the registered ones.
fn wanted_claims(issuer: &Issuer, policy: &Policy) -> Vec<String> {
    let required = issuer
        .required_claims
        .iter()
        .map(|claim| claim.name.clone());
    let forwarded = policy
        .forward
        .headers
        .iter()
        .filter_map(|(_, source)| match source {
            HeaderSource::Roles => Some("roles".to_owned()),
            HeaderSource::Claim(name) => Some(name.clone()),
            HeaderSource::AppId
            | HeaderSource::AppName
            | HeaderSource::TenantId
            | HeaderSource::ObjectId => None,
        });
    let mut names: Vec<_> = required.chain(forwarded).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The issuer whose keys may verify a token. Issuers are unique in a policy.
fn find_issuer<'p>(
    token: &UntrustedToken<'_>,
    policy: &'p Policy,
) -> Result<(usize, &'p Issuer), Refusal> {
    let iss = token
        .unverified_issuer()
        .map_err(Refusal::Token)?
        .ok_or(Refusal::Issuer)?;
    policy
        .issuers
        .iter()
        .enumerate()
        .find(|(_, issuer)| issuer.issuers.iter().any(|accepted| accepted == iss))
        .ok_or(Refusal::Issuer)
}

/// The token's algorithm, if any issuer may use it.
fn find_algorithm(token: &UntrustedToken<'_>, policy: &Policy) -> Result<Algorithm, Refusal> {
    let mut issuers = policy.issuers.iter();
    Algorithm::from_name(token.algorithm())
        .filter(|algorithm| issuers.any(|issuer| issuer.algorithms.contains(algorithm)))
        .ok_or(Refusal::Algorithm)
}

fn check_header(
    token: &UntrustedToken<'_>,
    algorithm: Algorithm,
    issuer: &Issuer,
) -> Result<(), Refusal> {
    token
        .check_type(issuer.tenant.is_some())
        .map_err(Refusal::Token)?;
    if issuer.algorithms.contains(&algorithm) {
        Ok(())
    } else {
        Err(Refusal::Algorithm)
    }
}

/// Whether a key's own issuer is the token's. Entra publishes keys of several issuers in one set
/// and marks each: with the tenant's issuer, or with `{tenantid}` for any tenant. Keys name
/// the v2 issuer, which stands for the tenant's v1 tokens too (IdentityModel, IDX40005).
fn key_belongs(of_key: Option<&str>, token: &UntrustedToken<'_>, issuer: &Issuer) -> bool {
    let (Some(of_key), Some(tenant)) = (of_key, &issuer.tenant) else {
        return true;
    };
    let tid = tenant.id.text();
    let tid = str::from_utf8(&tid).unwrap_or_default();
    let of_key = match of_key.split_once('{') {
        Some((before, after)) => match after.strip_prefix("tenantid}") {
            Some(after) => Cow::Owned([before, tid, after].concat()),
            None => return false,
        },
        None => Cow::Borrowed(of_key),
    };
    let v2_issuer = [&tenant.authority, "/", tid, "/v2.0"];
    token.unverified_issuer() == Ok(Some(&of_key))
        || v2_issuer
            .iter()
            .try_fold(&*of_key, |rest, part| rest.strip_prefix(part))
            == Some("")
}
