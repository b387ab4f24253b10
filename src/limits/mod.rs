//! Limits on calls, exact across the workers of a process.
//!
//! All limits of one application stand in one record of shared data, so one compare-and-swap
//! admits a call to all of them or to none. A call takes its place when it is admitted and
//! gives it back when its answer does not count.

mod record;
mod window;

use sha2::{Digest as _, Sha256};

use crate::guid::Guid;
use crate::policy::{Count, Limit, Window};
use crate::store::{self, SharedStore, StoreError};
use crate::time::Time;

use record::Record;
pub use window::{Place, SLOTS};

/// Unlisted applications with counters of their own. The others share one
/// set: shared data is never freed, so its keys must not be made by callers without bound.
pub const MAX_UNLISTED: u32 = 10_000;

/// Names a limit in a record, so that its count survives a change of policy that leaves it be.
///
/// Window, counted answers and position among its likes: not the amount, so that raising or
/// lowering a limit keeps what was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LimitId([u8; 8]);

/// A limit and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedLimit {
    /// The name.
    pub id: LimitId,
    /// The limit.
    pub limit: Limit,
}

/// Names the limits of one application.
#[must_use]
pub fn name_limits(limits: &[Limit]) -> Vec<NamedLimit> {
    let mut named: Vec<NamedLimit> = Vec::with_capacity(limits.len());
    for limit in limits {
        let twins = named
            .iter()
            .filter(|other| other.limit.window == limit.window && other.limit.count == limit.count)
            .count();
        named.push(NamedLimit {
            id: LimitId::of(limit, twins),
            limit: limit.clone(),
        });
    }
    named
}

impl LimitId {
    fn of(limit: &Limit, twins: usize) -> Self {
        let text = format!("calls/{:?}/{:?}/{twins}", limit.window, limit.count);
        let digest = Sha256::digest(text.as_bytes());
        Self(digest.first_chunk().copied().unwrap_or_default())
    }
}

/// A call that was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    key: String,
    places: Vec<(LimitId, Place, Count, Window)>,
}

/// A limit that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Calls that pass in one window.
    pub limit: u64,
    /// The window.
    pub window: Window,
    /// Milliseconds until there is room in every limit of the application.
    pub room_in: u64,
    /// Milliseconds until nothing is counted any more.
    pub reset_in: u64,
}

/// What became of [`admit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// The call is counted.
    Counted(Admission),
    /// A limit is reached; nothing was counted.
    Reached(Reached),
}

/// Where an application's record stands in shared data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterKeys {
    prefix: String,
}

impl CounterKeys {
    /// For the counters of one plugin.
    #[must_use]
    pub fn new(plugin: &str) -> Self {
        Self {
            prefix: format!("tollgate/1/{plugin}/calls/"),
        }
    }

    /// The record of an application. It is the same whether the application is listed or not, so
    /// that a policy which lists it keeps its count.
    #[must_use]
    pub fn listed(&self, app: Guid) -> String {
        format!("{}{app}", self.prefix)
    }

    /// The record of an unlisted application: its own, for the first [`MAX_UNLISTED`] of them.
    ///
    /// # Errors
    /// The host failed.
    pub fn unlisted(&self, store: &dyn SharedStore, app: Guid) -> Result<String, StoreError> {
        let own = self.listed(app);
        if store.read(&own)?.is_some() {
            return Ok(own);
        }
        let count_key = format!("{}unlisted", self.prefix);
        let granted = store::update(store, &count_key, |value| {
            let count = read_count(value);
            if count >= MAX_UNLISTED {
                return (false, None);
            }
            (true, Some(count.saturating_add(1).to_le_bytes().to_vec()))
        })?;
        if !granted.answer {
            return Ok(format!("{}unlisted-rest", self.prefix));
        }
        let created = store::update(store, &own, |value| match value {
            Some(_) => (false, None),
            None => (true, Some(Record::default().encode())),
        })?;
        if !created.answer {
            // Another worker created it in between: one grant was one too many.
            store::update(store, &count_key, |value| {
                let count = read_count(value);
                ((), Some(count.saturating_sub(1).to_le_bytes().to_vec()))
            })?;
        }
        Ok(own)
    }
}

/// The number of unlisted applications with records of their own.
fn read_count(value: Option<&[u8]>) -> u32 {
    value
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

/// Counts a call against all limits of an application, or against none.
///
/// The clock is read after the record: a reading from before, by a worker that was held up, would
/// look like a clock that was set back.
///
/// # Errors
/// The host failed, or other workers were always first: the caller must refuse.
pub fn admit(
    store: &dyn SharedStore,
    key: String,
    limits: &[NamedLimit],
    clock: &dyn Fn() -> Time,
    retries: &mut u32,
) -> Result<Admitted, StoreError> {
    let updated = store::update(store, &key, |value| {
        let mut record = value.map(Record::decode).unwrap_or_default();
        let now = clock();
        match take_all(&mut record, limits, now) {
            Ok(places) => {
                record.drop_finished(limits, now);
                (Ok(places), Some(record.encode()))
            }
            // A clock that was set back must be written down, or the counts would stay in its
            // future.
            Err((reached, set_back)) => (Err(reached), set_back.then(|| record.encode())),
        }
    })?;
    *retries = retries.saturating_add(updated.retries);
    Ok(match updated.answer {
        Ok(places) => Admitted::Counted(Admission { key, places }),
        Err(reached) => Admitted::Reached(reached),
    })
}

type Places = Vec<(LimitId, Place, Count, Window)>;

/// Takes a place in every limit, or says which is reached and whether the clock was set back.
fn take_all(
    record: &mut Record,
    limits: &[NamedLimit],
    now: Time,
) -> Result<Places, (Reached, bool)> {
    let mut worst: Option<Reached> = None;
    let mut set_back = false;
    for NamedLimit { id, limit } in limits {
        let state = record.state(*id, limit.window);
        set_back |= state.advance(limit.window, now);
        let standing = state.standing(limit.window, limit.calls, now);
        if standing.used >= limit.calls
            && worst.is_none_or(|worst| standing.room_in > worst.room_in)
        {
            worst = Some(Reached {
                limit: limit.calls,
                window: limit.window,
                room_in: standing.room_in,
                reset_in: standing.reset_in,
            });
        }
    }
    if let Some(reached) = worst {
        return Err((reached, set_back));
    }
    let take = |NamedLimit { id, limit }: &NamedLimit| {
        let place = record.state(*id, limit.window).take();
        (*id, place, limit.count.clone(), limit.window)
    };
    Ok(limits.iter().map(take).collect())
}

impl Admission {
    /// Settles a call whose answer is known: gives its places back where the answer does not
    /// count. `status` is `None` when there was no answer (the caller left, the backend reset).
    ///
    /// Takes the admission: a call settles once.
    ///
    /// # Errors
    /// The host failed; the call then stays counted.
    pub fn settle(
        self,
        store: &dyn SharedStore,
        status: Option<u16>,
        retries: &mut u32,
    ) -> Result<(), StoreError> {
        let back: Vec<_> = self
            .places
            .into_iter()
            .filter(|(.., count, _)| !counts(count, status))
            .collect();
        if back.is_empty() {
            return Ok(());
        }
        let updated = store::update(store, &self.key, |value| {
            let Some(value) = value else {
                return ((), None);
            };
            let mut record = Record::decode(value);
            for (id, place, _, window) in &back {
                record.state(*id, *window).give_back(*place);
            }
            ((), Some(record.encode()))
        })?;
        *retries = retries.saturating_add(updated.retries);
        Ok(())
    }

    /// Whether any answer could give a place back.
    #[must_use]
    pub fn depends_on_answer(&self) -> bool {
        self.places
            .iter()
            .any(|(.., count, _)| *count != Count::All)
    }
}

fn counts(count: &Count, status: Option<u16>) -> bool {
    match count {
        Count::All => true,
        Count::Success => status.is_some_and(|status| (200..300).contains(&status)),
        Count::Statuses(statuses) => status.is_some_and(|status| statuses.contains(&status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Period;
    use crate::store::MemoryStore;

    const NOW: Time = Time::from_millis(1_772_366_400_000);

    fn limit(calls: u64, window: Window, count: Count) -> Limit {
        Limit {
            calls,
            window,
            count,
        }
    }

    const MINUTE: Window = Window::Sliding { millis: 60_000 };

    fn app(number: u32) -> Guid {
        Guid::parse(&format!("aaaaaaaa-0000-0000-0000-{number:012}")).unwrap()
    }

    fn call(store: &MemoryStore, limits: &[NamedLimit], now: Time) -> Result<Admission, Reached> {
        match admit(store, "app".into(), limits, &|| now, &mut 0).unwrap() {
            Admitted::Counted(admission) => Ok(admission),
            Admitted::Reached(reached) => Err(reached),
        }
    }

    #[test]
    fn a_call_counts_in_all_limits_or_in_none() {
        let store = MemoryStore::default();
        let limits = name_limits(&[
            limit(3, Window::Calendar(Period::Day), Count::All),
            limit(1, MINUTE, Count::All),
        ]);
        call(&store, &limits, NOW).unwrap();
        for _ in 0..10 {
            assert_eq!(call(&store, &limits, NOW).unwrap_err().window, MINUTE);
        }
        let later = |minutes: u64| Time::from_millis(NOW.millis() + minutes * 61_000);
        call(&store, &limits, later(1)).unwrap();
        call(&store, &limits, later(2)).unwrap();
        let reached = call(&store, &limits, later(3)).unwrap_err();
        assert_eq!(reached.window, Window::Calendar(Period::Day));
        assert_eq!(reached.limit, 3);
    }

    #[test]
    fn the_answer_decides_what_counts() {
        for (count, status, stays) in [
            (Count::All, Some(500), true),
            (Count::All, None, true),
            (Count::Success, Some(200), true),
            (Count::Success, Some(299), true),
            (Count::Success, Some(304), false),
            (Count::Success, None, false),
            (Count::Statuses(vec![200]), Some(200), true),
            (Count::Statuses(vec![200]), Some(201), false),
            (Count::Statuses(vec![200, 429]), Some(429), true),
            (Count::Statuses(vec![200]), None, false),
        ] {
            let store = MemoryStore::default();
            let limits = name_limits(&[limit(1, MINUTE, count.clone())]);
            let admission = call(&store, &limits, NOW).unwrap();
            admission.settle(&store, status, &mut 0).unwrap();
            assert_eq!(
                call(&store, &limits, NOW).is_err(),
                stays,
                "{count:?} {status:?}"
            );
        }
    }

    #[test]
    fn counts_survive_a_policy_that_changes_the_amount_or_adds_limits() {
        let store = MemoryStore::default();
        let before = name_limits(&[limit(2, MINUTE, Count::All)]);
        call(&store, &before, NOW).unwrap();
        call(&store, &before, NOW).unwrap();
        let after = name_limits(&[
            limit(5, Window::Calendar(Period::Day), Count::All),
            limit(3, MINUTE, Count::All),
        ]);
        call(&store, &after, NOW).unwrap();
        assert!(call(&store, &after, NOW).is_err());
        assert!(call(&store, &before, NOW).is_err());
    }

    #[test]
    fn twins_have_counts_of_their_own() {
        let store = MemoryStore::default();
        let limits = name_limits(&[limit(2, MINUTE, Count::All), limit(3, MINUTE, Count::All)]);
        assert_ne!(limits[0].id, limits[1].id);
        call(&store, &limits, NOW).unwrap();
        call(&store, &limits, NOW).unwrap();
        assert_eq!(call(&store, &limits, NOW).unwrap_err().limit, 2);
    }

    #[test]
    fn unlisted_applications_are_bounded() {
        let store = MemoryStore::default();
        let keys = CounterKeys::new("p");
        let first = keys.unlisted(&store, app(0)).unwrap();
        for number in 1..MAX_UNLISTED {
            assert_eq!(
                keys.unlisted(&store, app(number)),
                Ok(keys.listed(app(number)))
            );
        }
        let rest = keys.unlisted(&store, app(MAX_UNLISTED)).unwrap();
        assert_eq!(rest, keys.unlisted(&store, app(MAX_UNLISTED + 1)).unwrap());
        assert!(rest.ends_with("unlisted-rest"));
        assert_eq!(keys.unlisted(&store, app(0)).unwrap(), first);
        assert_eq!(keys.listed(app(0)), first);
    }
}
