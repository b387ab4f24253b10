//! Limits on calls and tokens, exact across the workers of a process.
//!
//! All limits of one application stand in one record of shared data, so one compare-and-swap
//! admits a call to all of them or to none. A call takes its place when it is admitted and
//! gives it back when its answer does not count. Tokens are charged when the answer ends, or held from
//! admission on and settled then.

mod admission;
mod holds;
mod id;
mod record;
mod window;

use hashbrown::HashMap;

use crate::guid::Guid;
use crate::policy::Limit;
use crate::store::{self, SharedStore, StoreError};

pub use admission::{
    Admission, Admitted, Asking, Deployment, Reached, ResponseStatus, Settlement, admit,
};
pub use id::LimitId;
use record::Record;
pub use window::{Place, SLOTS};

/// Unlisted applications with counters of their own. The others share one
/// set: shared data is never freed, so its keys must not be made by callers without bound.
pub const MAX_UNLISTED: u32 = 10_000;

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
    let named = id::assign(limits).into_iter().zip(limits);
    named
        .map(|(id, limit)| NamedLimit {
            id,
            limit: limit.clone(),
        })
        .collect()
}

/// Where an application's record stands in shared data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterKeys {
    prefix: String,
    /// Unlisted applications seen with records of their own, which never go again.
    known: HashMap<Guid, usize>,
}

impl CounterKeys {
    /// For the counters of one plugin.
    #[must_use]
    pub fn new(plugin: &str) -> Self {
        Self {
            prefix: format!("tollgate/1/{plugin}/calls/"),
            known: HashMap::new(),
        }
    }

    /// The record of an application. It is the same whether the application is listed or not, so
    /// that a policy which lists it keeps its count.
    #[must_use]
    pub fn listed(&self, app: Guid) -> String {
        let text = app.text();
        [&self.prefix, str::from_utf8(&text).unwrap_or_default()].concat()
    }

    /// The record of an unlisted application: its own, for the first [`MAX_UNLISTED`] of them.
    ///
    /// # Errors
    /// The host failed.
    pub fn unlisted(&mut self, store: &dyn SharedStore, app: Guid) -> Result<String, StoreError> {
        let own = self.listed(app);
        if self.known.contains_key(&app) {
            return Ok(own);
        }
        if store.read(&own)?.is_some() {
            // The value is nothing: one type of map for the whole module.
            self.known.insert(app, 0);
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::policy::{Count, Measure, Period, Scope, Window};
    use crate::roles::Permissions;
    use crate::store::{Expected, MemoryStore, Versioned, Written};
    use crate::time::Time;

    const NOW: Time = Time::from_millis(1_772_366_400_000);

    fn limit(amount: u64, window: Window, count: Count) -> Limit {
        Limit {
            measure: Measure::Calls,
            amount,
            window,
            count,
            scope: Scope::default(),
        }
    }

    /// A call of which nothing more is known.
    const CALL: Asking<'_> = Asking {
        action: None,
        deployment: Deployment::Unknown,
        reserve: Some(0),
    };

    const MINUTE: Window = Window::Sliding { millis: 60_000 };

    fn app(number: u32) -> Guid {
        Guid::parse(&format!("aaaaaaaa-0000-0000-0000-{number:012}")).unwrap()
    }

    fn call(store: &MemoryStore, limits: &[NamedLimit], now: Time) -> Result<Admission, Reached> {
        match admit(store, "app".into(), limits, &CALL, &|| now, &mut 0).unwrap() {
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
    fn h2_the_answer_decides_what_counts_and_one_without_status_does() {
        use ResponseStatus::{Absent, Code, Unknown};
        for (count, status, stays) in [
            (Count::All, Code(500), true),
            (Count::All, Absent, true),
            (Count::Success, Code(200), true),
            (Count::Success, Code(299), true),
            (Count::Success, Code(304), false),
            (Count::Success, Absent, false),
            (Count::Success, Unknown, true),
            (Count::Statuses(vec![200]), Code(200), true),
            (Count::Statuses(vec![200]), Code(201), false),
            (Count::Statuses(vec![200, 429]), Code(429), true),
            (Count::Statuses(vec![200]), Absent, false),
            (Count::Statuses(vec![201]), Unknown, true),
        ] {
            let store = MemoryStore::default();
            let limits = name_limits(&[limit(1, MINUTE, count.clone())]);
            let admission = call(&store, &limits, NOW).unwrap();
            let settlement = Settlement { status, tokens: 0 };
            admission
                .settle(&store, &settlement, &|| NOW, &mut 0)
                .unwrap();
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
    fn of_limits_that_have_room_at_the_same_time_the_first_is_told() {
        let store = MemoryStore::default();
        let named = |first, second| {
            name_limits(&[
                limit(first, MINUTE, Count::All),
                limit(second, MINUTE, Count::Success),
            ])
        };
        for _ in 0..2 {
            call(&store, &named(5, 5), NOW).unwrap();
        }
        for (first, second) in [(1, 2), (2, 1)] {
            let reached = |limits: Vec<_>| call(&store, &limits, NOW).unwrap_err();
            let both = reached(named(first, second));
            assert_eq!(both, reached(named(first, 5)));
            assert_eq!(both.room_in, reached(named(5, second)).room_in);
        }
    }

    #[test]
    fn a_limit_keeps_its_name_whatever_stands_beside_it() {
        let calls = limit(2, MINUTE, Count::All);
        let tokens = Limit {
            measure: Measure::Tokens { reserve: true },
            ..calls.clone()
        };
        let scoped = |operations| Limit {
            scope: Scope {
                operations: Some(operations),
                ..Scope::default()
            },
            ..calls.clone()
        };
        let (nothing, all) = (Permissions::default(), Permissions::named("*"));
        let all = [scoped(nothing), scoped(all), tokens, calls];
        let alone: Vec<_> = all
            .iter()
            .map(|limit| name_limits(std::slice::from_ref(limit)).remove(0).id)
            .collect();
        assert_eq!(
            alone.iter().collect::<std::collections::HashSet<_>>().len(),
            4
        );
        let together: Vec<_> = name_limits(&all)
            .into_iter()
            .map(|limit| limit.id)
            .collect();
        assert_eq!(together, alone);
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
        let mut keys = CounterKeys::new("p");
        let first = keys.unlisted(&store, app(0)).unwrap();
        for number in 1..MAX_UNLISTED {
            let own = keys.listed(app(number));
            assert_eq!(keys.unlisted(&store, app(number)), Ok(own));
        }
        let rest = keys.unlisted(&store, app(MAX_UNLISTED)).unwrap();
        assert_eq!(rest, keys.unlisted(&store, app(MAX_UNLISTED + 1)).unwrap());
        assert!(rest.ends_with("unlisted-rest"));
        assert_eq!(keys.unlisted(&store, app(0)).unwrap(), first);
        assert_eq!(keys.listed(app(0)), first);
    }

    /// A store in which another worker creates the record between the reading and the writing of it.
    struct Race {
        store: MemoryStore,
        own: String,
        seen: Cell<bool>,
    }

    impl SharedStore for Race {
        fn read(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
            if key == self.own && !self.seen.replace(true) {
                self.store.write(key, &[2], Expected::Absent)?;
                return Ok(None);
            }
            self.store.read(key)
        }

        fn write(
            &self,
            key: &str,
            value: &[u8],
            expected: Expected,
        ) -> Result<Written, StoreError> {
            self.store.write(key, value, expected)
        }
    }

    #[test]
    fn two_workers_that_meet_an_application_at_once_take_one_grant() {
        let mut keys = CounterKeys::new("p");
        let store = Race {
            store: MemoryStore::default(),
            own: keys.listed(app(1)),
            seen: Cell::new(false),
        };
        assert_eq!(keys.unlisted(&store, app(1)), Ok(store.own.clone()));
        let count = |store: &Race| {
            let found = store.read("tollgate/1/p/calls/unlisted").unwrap();
            read_count(found.as_ref().map(|found| &*found.value))
        };
        // The other worker's grant is its own.
        assert_eq!(count(&store), 0);
        // Known or not, it takes no second one.
        for keys in [&mut keys, &mut CounterKeys::new("p")] {
            for _ in 0..3 {
                assert_eq!(keys.unlisted(&store, app(1)), Ok(store.own.clone()));
            }
        }
        assert_eq!(count(&store), 0);
        keys.unlisted(&store, app(2)).unwrap();
        assert_eq!(count(&store), 1);
        assert_eq!(read_count(None), 0);
        assert_eq!(read_count(Some(&[1, 0])), 0);
        assert_eq!(read_count(Some(&[1, 1, 0, 0])), 257);
    }

    #[test]
    fn the_answer_matters_where_it_changes_what_is_counted() {
        let tokens = Measure::Tokens { reserve: false };
        for (measure, count, depends, counts_tokens) in [
            (Measure::Calls, Count::All, false, false),
            (Measure::Calls, Count::Success, true, false),
            (tokens, Count::All, true, true),
            (tokens, Count::Success, true, true),
        ] {
            let store = MemoryStore::default();
            let all = limit(9, MINUTE, Count::All);
            let other = Limit {
                measure,
                ..limit(9, MINUTE, count)
            };
            let admission = call(&store, &name_limits(&[all, other]), NOW).unwrap();
            assert_eq!(admission.depends_on_answer(), depends, "{measure:?}");
            assert_eq!(admission.counts_tokens(), counts_tokens, "{measure:?}");
        }
    }
}
