//! One issuer's keys in one VM: what it knows, what it shares, and the fetch it may have begun.

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::metadata::{Metadata, MetadataError};
use super::schedule::{self, GoodSet, Schedule};
use super::set::{Key, KeySet, KeySetError, Skipped};
use crate::jwt::Algorithm;
use crate::policy::{FetchStart, Issuer, KeyFetch, KeySource};
use crate::store::{self, SharedStore, StoreError};
use crate::time::Time;
use crate::url::Url;

/// One issuer's keys.
#[derive(Clone, Debug)]
pub enum IssuerKeys {
    /// From the policy.
    Inline(KeySet),
    /// Fetched, by this VM or another.
    Fetched(Box<FetchedKeys>),
}

/// Keys that are fetched.
#[derive(Clone, Debug)]
pub struct FetchedKeys {
    fetch: KeyFetch,
    issuers: Vec<String>,
    tenant: Option<String>,
    schedule_key: String,
    set_key: String,
    set: Option<KeySet>,
    /// The digest of `set` as it was shared.
    seen: Option<u64>,
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

/// Which key a token needs.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// Its `kid`.
    pub kid: &'a str,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// Whether a key that names this issuer, or none, may verify it.
    pub belongs: &'a dyn Fn(Option<&str>) -> bool,
}

/// What is known of a key.
#[derive(Debug)]
pub enum Lookup<'a> {
    /// The key.
    Found(&'a Key),
    /// There are keys of this `kid`, none of them for this algorithm.
    Unfit,
    /// The key belongs to another issuer.
    OfAnother,
    /// The issuer does not have it, as of an answer that is fresh enough; or two different keys are meant.
    Unknown,
    /// A fetch that may bring it is under way or about to begin.
    Wait,
    /// It may exist, but the provider cannot be asked: next try in so many milliseconds.
    Unavailable(u64),
}

/// Chooses among the keys of one `kid`; `None` where none is meant, or two different ones.
fn choose<'k>(keys: impl Iterator<Item = &'k Key>, wanted: &Wanted<'_>) -> Option<Lookup<'k>> {
    let mut chosen: Option<&Key> = None;
    let mut otherwise = None;
    for key in keys {
        if !key.fits(wanted.algorithm) {
            otherwise.get_or_insert(Lookup::Unfit);
        } else if !(wanted.belongs)(key.issuer.as_deref()) {
            otherwise = Some(Lookup::OfAnother);
        } else if chosen.is_some_and(|chosen| chosen.public.spki() != key.public.spki()) {
            // Which of the two signs is anybody's guess, so neither does.
            return None;
        } else {
            chosen = Some(key);
        }
    }
    chosen.map(Lookup::Found).or(otherwise)
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
        skipped: Vec<Skipped>,
        /// The `kid`s of keys that serve though the answer lacks them.
        missing: Vec<String>,
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
            Self::Good {
                keys,
                skipped,
                missing,
            } => {
                write!(formatter, "{keys} keys")?;
                if !skipped.is_empty() {
                    write!(formatter, ", {} left out", skipped.len())?;
                }
                if !missing.is_empty() {
                    let missing: Vec<_> = missing.iter().map(String::as_str).collect();
                    write!(formatter, ", {missing:?} kept until the next answer lacks them too")?;
                }
                Ok(())
            }
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

    /// Looks a key up. One that is not known asks for a fetch.
    pub fn lookup<'s>(&'s mut self, wanted: &Wanted<'s>, now: Time) -> Lookup<'s> {
        match self {
            Self::Inline(set) => {
                let keys = set.all_of(wanted.kid, |_| false);
                choose(keys, wanted).unwrap_or(Lookup::Unknown)
            }
            Self::Fetched(keys) => keys.lookup(wanted, now.millis()),
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
            seen: None,
            schedule: Schedule::default(),
            wanted: false,
            running: None,
        }
    }

    /// Sees what other workers have done, and what time has ended. Whether the key set is another one now.
    pub fn sync(&mut self, store: &dyn SharedStore, now: Time) -> bool {
        let is_new = self.read_shared(store);
        let refresh = self.fetch.refresh;
        let now = now.millis();
        let Some(set) = &mut self.set else {
            return is_new;
        };
        let is_over = |since: u64| {
            let end = since.saturating_add(refresh.at_most_every.saturating_mul(2));
            now >= end
        };
        let has_dropped = set.drop_departed(is_over);
        // While the clock is behind, such a key serves nobody and is not lost either.
        is_new
            || has_dropped
            || set.has_departed(|since| schedule::is_departed(since, now, &refresh))
    }

    fn read_shared(&mut self, store: &dyn SharedStore) -> bool {
        if let Ok(Some(found)) = store.read(&self.schedule_key) {
            self.schedule = Schedule::decode(&found.value);
        }
        if self.schedule.generation == 0 || self.seen == Some(self.schedule.digest) {
            return false;
        }
        let Ok(Some(found)) = store.read(&self.set_key) else {
            return false;
        };
        let Some((set, _)) = decode_set(&found.value) else {
            return false;
        };
        // A set is written before its digest, and so what is read may be newer: then it is read again.
        let digest = digest(&set);
        if self.seen == Some(digest) {
            return false;
        }
        self.set = Some(set);
        self.seen = Some(digest);
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
        (self.seen.unwrap_or(0), failures, self.schedule.fetched_at)
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

    fn lookup<'s>(&'s mut self, wanted: &Wanted<'s>, now: u64) -> Lookup<'s> {
        let refresh = self.fetch.refresh;
        let Some(set) = self
            .set
            .as_ref()
            .filter(|_| self.schedule.usable(now, &refresh))
        else {
            return Lookup::Wait;
        };
        let is_departed = move |since| schedule::is_departed(since, now, &refresh);
        if let Some(known) = choose(set.all_of(wanted.kid, is_departed), wanted) {
            return known;
        }
        let refresh = &refresh;
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

    /// Ends an attempt with a good set. An attempt whose lease another has taken still counts, unless what a later one
    /// brought is there.
    fn succeed(
        &mut self,
        answer: &KeySet,
        attempt: u64,
        began: u64,
        store: &dyn SharedStore,
        now: Time,
    ) -> Progress {
        // The set first, so that whoever sees the new digest finds its keys.
        let set = match self.share(answer, attempt, began, store, now) {
            Ok(Some(set)) => set,
            Ok(None) => return Progress::Stray,
            Err(_) => return self.not_stored(attempt, store),
        };
        if self.schedule_after(&set, attempt, store, now).is_err() {
            return self.not_stored(attempt, store);
        }
        Progress::Done(FetchOutcome::Good {
            keys: answer.len(),
            skipped: answer.skipped().to_vec(),
            missing: set.departing().map(str::to_owned).collect(),
        })
    }

    /// Shares a good set with the keys of the one before that serve on; `None` where what a later attempt brought is
    /// there.
    fn share(
        &self,
        answer: &KeySet,
        attempt: u64,
        began: u64,
        store: &dyn SharedStore,
        now: Time,
    ) -> Result<Option<KeySet>, StoreError> {
        let refresh = self.fetch.refresh;
        let found = store.read(&self.schedule_key).ok().flatten();
        let before = found.map(|found| Schedule::decode(&found.value));
        let before = before.unwrap_or_default();
        let shared = store::update(store, &self.set_key, |value| {
            let there = value.and_then(decode_set);
            if there
                .as_ref()
                .is_some_and(|(_, of)| *of > attempt && self.has_begun(*of, store))
            {
                return (None, None);
            }
            let mut set = answer.clone();
            if let Some((earlier, _)) = there.filter(|_| before.usable(now.millis(), &refresh)) {
                set.keep_missing(&earlier, now.millis(), |since| {
                    schedule::confirms(since, began, now.millis(), &refresh)
                        || schedule::is_departed(since, now.millis(), &refresh)
                });
            }
            // Earlier versions read a generation first.
            let generation = before.after_set(digest(&set)).generation;
            let bytes = [
                &generation.to_le_bytes()[..],
                set.to_shared(attempt).as_bytes(),
            ]
            .concat();
            (Some(set), Some(bytes))
        })?;
        Ok(shared.answer)
    }

    /// Plans the next attempt after this set, or after the one that another worker has shared since: whoever is last
    /// here names the set that is there.
    fn schedule_after(
        &self,
        set: &KeySet,
        attempt: u64,
        store: &dyn SharedStore,
        now: Time,
    ) -> Result<(), StoreError> {
        store::update(store, &self.schedule_key, |value| {
            let before = value.map(Schedule::decode).unwrap_or_default();
            let there = store.read(&self.set_key).ok().flatten();
            let there = there.and_then(|found| decode_set(&found.value));
            let good = good_set(there.as_ref().map_or(set, |(there, _)| there), now);
            let mut after = before;
            after.succeed(now.millis(), &self.fetch.refresh, good);
            if before.attempt != attempt {
                after.lease_until = before.lease_until;
            }
            ((), Some(after.encode()))
        })?;
        Ok(())
    }

    /// Whether there was such an attempt. A set that claims one which nobody has begun is of no schedule that there
    /// is, and nothing is newer than such a set.
    fn has_begun(&self, attempt: u64, store: &dyn SharedStore) -> bool {
        let schedule = store.read(&self.schedule_key);
        let begun = |found: Option<store::Versioned>| {
            found.map_or(0, |found| Schedule::decode(&found.value).attempt)
        };
        schedule.is_ok_and(|found| attempt <= begun(found))
    }

    fn not_stored(&mut self, attempt: u64, store: &dyn SharedStore) -> Progress {
        self.fail(attempt, store);
        Progress::Done(FetchOutcome::NotStored)
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

/// A set as it stands in shared data, and the attempt that brought it. Before it stands its generation, which
/// earlier versions go by.
fn decode_set(bytes: &[u8]) -> Option<(KeySet, u64)> {
    let (_, text) = bytes.split_first_chunk::<8>()?;
    KeySet::parse_shared(text).ok()
}

fn good_set(set: &KeySet, now: Time) -> GoodSet {
    GoodSet {
        digest: digest(set),
        missing: set.departing().next().is_some(),
        seed: now.nanos(),
    }
}

/// Tells equal sets from others.
fn digest(set: &KeySet) -> u64 {
    let digest = Sha256::digest(set.normalized().as_bytes());
    let digest = digest.first_chunk();
    digest.map_or(0, |bytes| u64::from_le_bytes(*bytes))
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
