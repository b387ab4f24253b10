//! One issuer's keys in one VM: what it knows, what it shares, and the fetch it may have begun.

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::metadata::{Metadata, MetadataError};
use super::schedule::Schedule;
use super::set::{Key, KeySet, KeySetError};
use crate::policy::{FetchStart, Issuer, KeyFetch, KeySource};
use crate::store::{self, SharedStore};
use crate::time::Time;
use crate::url::Url;

/// One issuer's keys.
#[derive(Debug)]
pub enum IssuerKeys {
    /// From the policy.
    Inline(KeySet),
    /// Fetched, by this VM or another.
    Fetched(Box<FetchedKeys>),
}

/// Keys that are fetched.
#[derive(Debug)]
pub struct FetchedKeys {
    fetch: KeyFetch,
    issuers: Vec<String>,
    tenant: Option<String>,
    schedule_key: String,
    set_key: String,
    set: Option<KeySet>,
    /// The generation of `set`.
    generation: u64,
    schedule: Schedule,
    /// A request named a `kid` that is not known.
    wanted: bool,
    running: Option<Running>,
}

/// A fetch that this VM has begun.
#[derive(Clone, Debug)]
struct Running {
    attempt: u64,
    /// When it began, in milliseconds since 1970.
    began: u64,
    stage: Stage,
}

#[derive(Clone, Debug)]
enum Stage {
    Metadata(Url),
    Keys { cloud: Option<String> },
}

/// What is known of a `kid`.
#[derive(Debug)]
pub enum Lookup<'a> {
    /// The key.
    Found(&'a Key),
    /// The issuer does not have it, as of an answer that is fresh enough.
    Unknown,
    /// A fetch that may bring it is under way or about to begin.
    Wait,
    /// It may exist, but the provider cannot be asked: next try in so many milliseconds.
    Unavailable(u64),
}

/// A callout to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextCall {
    /// The gateway's cluster.
    pub cluster: String,
    /// What to GET.
    pub url: Url,
    /// Time limit, in milliseconds.
    pub timeout: u64,
    /// The attempt that it is part of.
    pub attempt: u64,
}

/// What follows from a callout's answer.
#[derive(Debug)]
pub enum Progress {
    /// Another callout.
    Call(NextCall),
    /// The fetch has ended.
    Done(FetchOutcome),
    /// The answer belongs to no fetch of this VM.
    Stray,
}

/// How a fetch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchOutcome {
    /// With a good set of so many keys.
    Good {
        /// Usable keys.
        keys: usize,
        /// Keys that were left out.
        skipped: usize,
    },
    /// The provider could not be reached or answered something else than 200.
    Unreachable(Unreachable),
    /// The metadata is not to be believed.
    Metadata(MetadataError),
    /// The key set is not one.
    Keys(KeySetError),
    /// The set is good, and shared data would not take it.
    NotStored,
}

/// Why there was no document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// The gateway could not make the call.
    NotSent,
    /// The call ended without an answer: refused, reset, timed out.
    NoAnswer,
    /// The answer's status is not 200. Redirects are not followed.
    Status(u16),
    /// The answer is larger than 1 MiB.
    TooLarge,
}

/// A callout's answer: status and body, as far as they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status; `None` without an answer.
    pub status: Option<u16>,
    /// Body; `None` when it is over 1 MiB.
    pub body: Option<Vec<u8>>,
}

impl fmt::Display for FetchOutcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good { keys, skipped: 0 } => write!(formatter, "{keys} keys"),
            Self::Good { keys, skipped } => write!(formatter, "{keys} keys, {skipped} left out"),
            Self::Unreachable(Unreachable::NotSent) => formatter
                .write_str("the gateway could not send the request; is there such a cluster, and an address for its host?"),
            Self::Unreachable(Unreachable::NoAnswer) => formatter.write_str("no answer"),
            Self::Unreachable(Unreachable::Status(status)) => {
                write!(formatter, "answered with status {status}, not 200")
            }
            Self::Unreachable(Unreachable::TooLarge) => {
                formatter.write_str("answered with more than 1 MiB")
            }
            Self::Metadata(error) => write!(formatter, "the metadata is refused: {error}"),
            Self::Keys(error) => write!(formatter, "the key set is refused: {error}"),
            Self::NotStored => formatter.write_str("shared data did not take the key set"),
        }
    }
}

impl FetchOutcome {
    /// The outcome's name in metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Good { .. } => "ok",
            Self::Unreachable(_) | Self::NotStored => "failed",
            Self::Metadata(_) | Self::Keys(_) => "refused",
        }
    }
}

impl IssuerKeys {
    /// The keys of an issuer, for the plugin of this name.
    #[must_use]
    pub fn new(issuer: &Issuer, plugin: &str) -> Self {
        match &issuer.keys {
            KeySource::Inline(set) => Self::Inline(set.clone()),
            KeySource::Fetched(fetch) => {
                Self::Fetched(Box::new(FetchedKeys::new(issuer, fetch, plugin)))
            }
        }
    }

    /// Looks a `kid` up. One that is not known asks for a fetch.
    pub fn lookup(&mut self, kid: &str, now: Time) -> Lookup<'_> {
        match self {
            Self::Inline(set) => set.find(kid).map_or(Lookup::Unknown, Lookup::Found),
            Self::Fetched(keys) => keys.lookup(kid, now.millis()),
        }
    }

    /// The part that is fetched.
    pub fn fetched(&mut self) -> Option<&mut FetchedKeys> {
        match self {
            Self::Inline(_) => None,
            Self::Fetched(keys) => Some(keys),
        }
    }

    /// Number of keys, for the metric.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Inline(set) => set.len(),
            Self::Fetched(keys) => keys.set.as_ref().map_or(0, KeySet::len),
        }
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Age of the last good set in seconds; `None` for keys from the policy, or none yet.
    #[must_use]
    pub fn age_seconds(&self, now: Time) -> Option<u64> {
        match self {
            Self::Fetched(keys) if keys.schedule.generation > 0 => {
                Some(now.millis().saturating_sub(keys.schedule.fetched_at) / 1000)
            }
            Self::Inline(_) | Self::Fetched(_) => None,
        }
    }
}

impl FetchedKeys {
    fn new(issuer: &Issuer, fetch: &KeyFetch, plugin: &str) -> Self {
        let (kind, url) = match &fetch.start {
            FetchStart::Metadata(url) => ("metadata", url),
            FetchStart::Keys(url) => ("keys", url),
        };
        // A policy may take only some of a tenant's tokens: the metadata is the tenant's all the same.
        let mut issuers = issuer.issuers.clone();
        if let Some(tenant) = &issuer.tenant {
            issuers.append(&mut tenant.issuers());
        }
        // Two policies that fetch the same from the same cluster for the same issuers share.
        let identity = format!("{kind} {url} {} {issuers:?}", fetch.cluster);
        let name = hex(&Sha256::digest(identity.as_bytes()));
        let prefix = format!("tollgate/1/{plugin}/keys/{name}");
        Self {
            fetch: fetch.clone(),
            issuers,
            tenant: issuer.tenant.as_ref().map(|tenant| tenant.id.to_string()),
            schedule_key: format!("{prefix}/schedule"),
            set_key: format!("{prefix}/set"),
            set: None,
            generation: 0,
            schedule: Schedule::default(),
            wanted: false,
            running: None,
        }
    }

    /// Sees what other workers have done. Answers whether the key set is another one now.
    pub fn sync(&mut self, store: &dyn SharedStore) -> bool {
        if let Ok(Some(found)) = store.read(&self.schedule_key) {
            self.schedule = Schedule::decode(&found.value);
        }
        if self.schedule.generation == self.generation {
            return false;
        }
        let Ok(Some(found)) = store.read(&self.set_key) else {
            return false;
        };
        let Some((generation, text)) = found.value.split_first_chunk::<8>() else {
            return false;
        };
        let Ok(set) = KeySet::parse(text) else {
            return false;
        };
        self.set = Some(set);
        self.generation = u64::from_le_bytes(*generation);
        true
    }

    /// What a change of the shared state looks like: waiting requests are decided anew when this
    /// changes. As long as there is no set, a failure ends nobody's wait.
    #[must_use]
    pub fn state(&self) -> (u64, u64, u64) {
        let failures = match self.set {
            Some(_) => self.schedule.failures,
            None => 0,
        };
        (self.generation, failures, self.schedule.fetched_at)
    }

    /// Whether there is a set that may serve now.
    #[must_use]
    pub fn usable(&self, now: Time) -> bool {
        self.set.is_some() && self.schedule.usable(now.millis(), &self.fetch.refresh)
    }

    /// How long a request may wait for this issuer's keys, in milliseconds: as long as the provider may
    /// take for an answer.
    #[must_use]
    pub fn patience(&self) -> u64 {
        self.fetch.refresh.timeout
    }

    fn lookup(&mut self, kid: &str, now: u64) -> Lookup<'_> {
        let refresh = &self.fetch.refresh;
        let Some(set) = self
            .set
            .as_ref()
            .filter(|_| self.schedule.usable(now, refresh))
        else {
            return Lookup::Wait;
        };
        if let Some(key) = set.find(kid) {
            return Lookup::Found(key);
        }
        if self.schedule.in_flight(now) || self.schedule.floor_passed(now, refresh) {
            self.wanted = true;
            return Lookup::Wait;
        }
        if self.schedule.failures > 0 {
            return Lookup::Unavailable(self.schedule.next_attempt_in(now, refresh));
        }
        Lookup::Unknown
    }

    /// Milliseconds until the provider is asked again.
    #[must_use]
    pub fn next_attempt_in(&self, now: Time) -> u64 {
        self.schedule
            .next_attempt_in(now.millis(), &self.fetch.refresh)
    }

    /// Begins a fetch when one is due and nobody else has.
    pub fn begin(&mut self, store: &dyn SharedStore, now: Time) -> Option<NextCall> {
        let (now, refresh, wanted) = (now.millis(), self.fetch.refresh, self.wanted);
        if !self.schedule.due(now, &refresh, wanted) {
            return None;
        }
        let begun = store::update(store, &self.schedule_key, |value| {
            let mut schedule = value.map(Schedule::decode).unwrap_or_default();
            if !schedule.due(now, &refresh, wanted) {
                return ((false, schedule), None);
            }
            schedule.begin(now, &refresh);
            ((true, schedule), Some(schedule.encode()))
        });
        let (mine, schedule) = begun.ok()?.answer;
        self.schedule = schedule;
        self.wanted = false;
        if !mine {
            return None;
        }
        let (stage, url) = match &self.fetch.start {
            FetchStart::Metadata(url) => (Stage::Metadata(url.clone()), url.clone()),
            FetchStart::Keys(url) => (Stage::Keys { cloud: None }, url.clone()),
        };
        self.running = Some(Running {
            attempt: schedule.attempt,
            began: now,
            stage,
        });
        Some(self.call(url, schedule.attempt))
    }

    fn call(&self, url: Url, attempt: u64) -> NextCall {
        let cluster = self.fetch.cluster.clone();
        NextCall {
            cluster,
            url,
            timeout: self.fetch.refresh.timeout,
            attempt,
        }
    }

    /// Goes on with the answer to a callout of an attempt.
    pub fn answer(
        &mut self,
        attempt: u64,
        answer: &Answer,
        store: &dyn SharedStore,
        now: Time,
    ) -> Progress {
        let Some(running) = self.running.take_if(|running| running.attempt == attempt) else {
            return Progress::Stray;
        };
        let outcome = match document(answer) {
            Err(unreachable) => FetchOutcome::Unreachable(unreachable),
            Ok(body) => match running.stage {
                Stage::Metadata(source) => {
                    match Metadata::parse(body, &source, &self.issuers, self.tenant.as_deref()) {
                        Ok(metadata) => {
                            let stage = Stage::Keys {
                                cloud: metadata.cloud,
                            };
                            self.running = Some(Running { stage, ..running });
                            return Progress::Call(self.call(metadata.jwks_uri, attempt));
                        }
                        Err(error) => FetchOutcome::Metadata(error),
                    }
                }
                Stage::Keys { cloud } => match KeySet::parse_for_cloud(body, cloud.as_deref()) {
                    Ok(set) => {
                        return self.succeed(&set, running.attempt, running.began, store, now);
                    }
                    Err(error) => FetchOutcome::Keys(error),
                },
            },
        };
        self.fail(running.attempt, store);
        Progress::Done(outcome)
    }

    /// Gives up a fetch whose answer will not come, so that another VM may begin one.
    pub fn abandon(&mut self, store: &dyn SharedStore) {
        if let Some(running) = self.running.take() {
            self.fail(running.attempt, store);
        }
    }

    /// The gateway could not make the callout.
    pub fn not_sent(&mut self, store: &dyn SharedStore) -> FetchOutcome {
        self.abandon(store);
        FetchOutcome::Unreachable(Unreachable::NotSent)
    }

    /// Shares a good set. An attempt whose lease another has taken still counts when it began
    /// after the set that is there: what it brings is newer.
    fn succeed(
        &mut self,
        set: &KeySet,
        attempt: u64,
        began: u64,
        store: &dyn SharedStore,
        now: Time,
    ) -> Progress {
        let text = set.normalized();
        let digest = Sha256::digest(text.as_bytes());
        let digest = digest
            .first_chunk()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let refresh = self.fetch.refresh;
        let end = |value: Option<&[u8]>| {
            let before = value.map(Schedule::decode).unwrap_or_default();
            let mine = before.attempt == attempt;
            if !mine && began <= before.fetched_at {
                return None;
            }
            let mut after = before;
            after.succeed(now.millis(), &refresh, digest, now.nanos());
            if !mine {
                after.lease_until = before.lease_until;
            }
            Some(after)
        };
        // The set first, so that whoever sees the new generation finds its keys.
        let found = store.read(&self.schedule_key);
        let next = found
            .ok()
            .and_then(|found| end(found.as_ref().map(|f| f.value.as_slice())));
        let Some(next) = next else {
            return Progress::Stray;
        };
        let bytes = [&next.generation.to_le_bytes()[..], text.as_bytes()].concat();
        let stored = store::update(store, &self.set_key, |_| ((), Some(bytes.clone()))).is_ok()
            && store::update(store, &self.schedule_key, |value| {
                let after = end(value);
                (after.is_some(), after.map(|after| after.encode()))
            })
            .is_ok_and(|updated| updated.answer);
        if !stored {
            self.fail(attempt, store);
            return Progress::Done(FetchOutcome::NotStored);
        }
        Progress::Done(FetchOutcome::Good {
            keys: set.len(),
            skipped: set.skipped().len(),
        })
    }

    fn fail(&mut self, attempt: u64, store: &dyn SharedStore) {
        self.end(attempt, store, Schedule::fail);
    }

    /// Ends an attempt, if it still holds the lease. When the host fails, the lease ends by itself.
    fn end(&self, attempt: u64, store: &dyn SharedStore, end: impl Fn(&mut Schedule)) {
        let _ = store::update(store, &self.schedule_key, |value| {
            let mut schedule = value.map(Schedule::decode).unwrap_or_default();
            if schedule.attempt != attempt {
                return ((), None);
            }
            end(&mut schedule);
            ((), Some(schedule.encode()))
        });
    }
}

/// The body of an answer that is one: status 200, complete, and not larger than the host holds.
fn document(answer: &Answer) -> Result<&[u8], Unreachable> {
    match (answer.status, &answer.body) {
        (None, _) => Err(Unreachable::NoAnswer),
        (Some(200), Some(body)) => Ok(body),
        (Some(200), _) => Err(Unreachable::TooLarge),
        (Some(status), _) => Err(Unreachable::Status(status)),
    }
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().take(16).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
