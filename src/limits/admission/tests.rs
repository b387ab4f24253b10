mod ledger;

use std::cell::RefCell;

use super::*;
use crate::limits::name_limits;
use crate::policy::{Deployments, Pattern, Period, Scope};
use crate::roles::Permissions;
use crate::store::MemoryStore;

const NOON: u64 = 1_772_366_400_000;
const MINUTE: u64 = 60_000;
const WINDOW: Window = Window::Sliding { millis: MINUTE };

fn tokens(amount: u64, reserve: bool, window: Window) -> Limit {
    Limit {
        measure: Measure::Tokens { reserve },
        amount,
        window,
        count: Count::All,
        scope: Scope::default(),
    }
}

fn asking(reserve: u64) -> Asking<'static> {
    Asking {
        action: Some(Action::ChatCompletions),
        deployment: Deployment::Named("gpt-4o"),
        reserve: Some(reserve),
    }
}

/// One application's counters and their clock.
struct Bench {
    store: MemoryStore,
    limits: Vec<NamedLimit>,
    now: u64,
}

impl Bench {
    fn new(limits: &[Limit]) -> Self {
        Self {
            store: MemoryStore::default(),
            limits: name_limits(limits),
            now: NOON,
        }
    }

    fn ask(&self, asking: &Asking<'_>) -> Result<Admission, Reached> {
        let clock = || Time::from_millis(self.now);
        match admit(
            &self.store,
            "app".into(),
            &self.limits,
            asking,
            &clock,
            &mut 0,
        )
        .unwrap()
        {
            Admitted::Counted(admission) => Ok(admission),
            Admitted::Reached(reached) => Err(reached),
        }
    }

    fn settle(&self, admission: Admission, status: ResponseStatus, tokens: u64) {
        let settlement = Settlement { status, tokens };
        let clock = || Time::from_millis(self.now);
        admission
            .settle(&self.store, &settlement, &clock, &mut 0)
            .unwrap();
    }

    fn used(&self, admission: Admission, tokens: u64) {
        self.settle(admission, ResponseStatus::Code(200), tokens);
    }

    /// What is left of the only limit, found by asking for one more than there is.
    fn remaining(&self) -> u64 {
        self.ask(&asking(u64::MAX)).unwrap_err().remaining
    }
}

/// Random enough, and the same every time (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % bound
    }
}

#[test]
fn room_comes_back_when_it_is_said_to_and_in_time() {
    let mut random = Random(7);
    for _ in 0..200 {
        let mut bench = Bench::new(&[tokens(1_000, true, WINDOW)]);
        for _ in 0..5 {
            bench.now += random.below(9_000);
            let admission = bench.ask(&asking(200)).unwrap();
            bench.used(admission, 200);
        }
        let needed = 1 + random.below(1_000);
        let refused_at = bench.now;
        let reached = bench.ask(&asking(needed)).unwrap_err();
        bench.now = refused_at + reached.room_in - 1;
        assert!(bench.ask(&asking(needed)).is_err());
        bench.now += 1;
        bench.ask(&asking(needed)).unwrap();
        // In a window and a sixtieth all of it is free again.
        assert!(reached.room_in <= MINUTE + MINUTE / 60);
    }
}

#[test]
fn what_a_quota_never_holds_is_told_with_its_end() {
    let bench = Bench::new(&[tokens(100, true, Window::Calendar(Period::Hour))]);
    for needed in [101, u64::MAX] {
        let reached = bench.ask(&asking(needed)).unwrap_err();
        assert!(reached.never);
        assert_eq!((reached.remaining, reached.room_in), (100, 3_600_000));
    }
}

#[test]
fn a_clock_set_back_is_written_down_when_nothing_is_admitted() {
    let mut bench = Bench::new(&[tokens(100, true, WINDOW)]);
    bench.ask(&asking(100)).unwrap();
    bench.now -= 3_600_000;
    assert!(bench.ask(&asking(1)).is_err());
    // A window after that, and not when the clock is where it was.
    bench.now += MINUTE + MINUTE / 60;
    bench.ask(&asking(1)).unwrap();
}

#[test]
fn a_call_that_outlives_its_window_charges_nothing_twice() {
    for window in [WINDOW, Window::Calendar(Period::Hour)] {
        let mut bench = Bench::new(&[tokens(100, true, window)]);
        let long = bench.ask(&asking(60)).unwrap();
        assert_eq!(bench.remaining(), 40);
        bench.now += 3_700_000;
        assert_eq!(bench.remaining(), 100);
        let other = bench.ask(&asking(10)).unwrap();
        // Less than it held: there is nothing left to give back.
        bench.used(long, 20);
        assert_eq!(bench.remaining(), 90);
        bench.used(other, 10);
        assert_eq!(bench.remaining(), 90);
        // More than it held counts when it is known.
        let long = bench.ask(&asking(60)).unwrap();
        bench.now += 3_700_000;
        bench.used(long, 75);
        assert_eq!(bench.remaining(), 85);
    }
}

#[test]
fn what_a_call_costs_depends_on_how_it_ends() {
    use ResponseStatus::{Absent, Code, Unknown};
    let created = || Count::Statuses(vec![201]);
    for (count, status, charged, cost) in [
        (Count::All, Code(200), 30, 30),
        (Count::All, Code(200), 70, 70),
        (Count::All, Code(500), 0, 0),
        (Count::All, Absent, 50, 50),
        (Count::All, Unknown, 60, 60),
        (Count::Success, Code(404), 30, 0),
        (Count::Success, Code(500), 30, 0),
        (Count::Success, Absent, 50, 0),
        (Count::Success, Unknown, 60, 60),
        (created(), Code(201), 30, 30),
        (created(), Code(200), 30, 0),
        (created(), Unknown, 60, 60),
    ] {
        for reserve in [true, false] {
            let limit = |reserve| Limit {
                count: count.clone(),
                ..tokens(100, reserve, WINDOW)
            };
            let bench = Bench::new(&[limit(reserve)]);
            let admission = bench.ask(&asking(50)).unwrap();
            assert_eq!(admission.reserved(), if reserve { 50 } else { 0 });
            bench.settle(admission, status, charged);
            let full = Bench {
                // The same limit with its reserve on, to see what is left.
                limits: name_limits(&[limit(true)]),
                ..bench
            };
            assert_eq!(
                full.remaining(),
                100 - cost,
                "{reserve} {count:?} {status:?} {charged}"
            );
        }
    }
}

#[test]
fn a_call_is_held_for_by_the_limits_that_reserve() {
    let calls = Limit {
        measure: Measure::Calls,
        ..tokens(9, false, WINDOW)
    };
    for (limits, reserved) in [
        (vec![calls.clone()], 0),
        (vec![calls.clone(), tokens(100, false, WINDOW)], 0),
        (
            vec![
                calls,
                tokens(90, false, WINDOW),
                tokens(100, true, WINDOW),
                tokens(200, true, Window::Calendar(Period::Hour)),
            ],
            50,
        ),
    ] {
        let admission = Bench::new(&limits).ask(&asking(50)).unwrap();
        assert_eq!(admission.reserved(), reserved, "{limits:?}");
    }
}

#[test]
fn a_call_larger_than_its_limit_never_fits() {
    let bench = Bench::new(&[tokens(100, true, WINDOW), tokens(500, true, WINDOW)]);
    let reached = bench.ask(&asking(101)).unwrap_err();
    assert!(reached.never);
    assert_eq!((reached.limit, reached.remaining), (100, 100));
    assert_eq!(reached.room_in, MINUTE);
    assert!(!bench.ask(&asking(100)).unwrap().held.is_empty());
    assert!(!bench.ask(&asking(100)).unwrap_err().never);
}

#[test]
fn excess_saturates() {
    let bench = Bench::new(&[tokens(100, false, WINDOW)]);
    let calls = [
        bench.ask(&asking(0)).unwrap(),
        bench.ask(&asking(0)).unwrap(),
    ];
    for call in calls {
        bench.used(call, u64::MAX);
        assert_eq!(bench.ask(&asking(0)).unwrap_err().remaining, 0);
    }
}

#[test]
fn a_limit_is_for_what_it_names_and_for_what_nobody_knows() {
    let narrowed = Limit {
        measure: Measure::Calls,
        amount: 1,
        window: WINDOW,
        count: Count::All,
        scope: Scope {
            operations: Some(Permissions::named("*/chat/completions/action")),
            deployments: Some(Deployments(vec![Pattern::Prefix("gpt-".to_owned())])),
        },
    };
    for (action, deployment, counts) in [
        (
            Some(Action::ChatCompletions),
            Deployment::Named("GPT-4o"),
            true,
        ),
        (
            Some(Action::ChatCompletions),
            Deployment::Named("o1"),
            false,
        ),
        (Some(Action::Embeddings), Deployment::Named("gpt-4o"), false),
        (None, Deployment::Named("gpt-4o"), true),
        (None, Deployment::Unknown, true),
        (Some(Action::ChatCompletions), Deployment::Unknown, true),
        (Some(Action::ChatCompletions), Deployment::None, false),
        (None, Deployment::None, false),
    ] {
        let bench = Bench::new(std::slice::from_ref(&narrowed));
        let asking = Asking {
            action,
            deployment,
            reserve: Some(0),
        };
        bench.ask(&asking).unwrap();
        assert_eq!(
            bench.ask(&asking).is_err(),
            counts,
            "{action:?} {deployment:?}"
        );
    }
    // Limits on tokens concern what uses tokens.
    let bench = Bench::new(&[tokens(1, true, WINDOW)]);
    let listing = Asking {
        action: Some(Action::ModelsRead),
        ..asking(5)
    };
    let cancelling = Asking {
        action: Some(Action::RunsWrite),
        deployment: Deployment::None,
        ..asking(5)
    };
    bench.ask(&listing).unwrap();
    bench.ask(&cancelling).unwrap();
    assert!(bench.ask(&asking(5)).is_err());
    // Before the body is read, nothing is known of the deployment.
    let in_body = Asking {
        deployment: Deployment::InBody,
        ..cancelling
    };
    let used_up = Bench::new(&[tokens(1, false, WINDOW)]);
    used_up.used(used_up.ask(&asking(0)).unwrap(), 1);
    assert!(used_up.ask(&in_body).is_err());
    used_up.ask(&cancelling).unwrap();
}

/// A worker that was held up between reading the clock and reading the record.
#[test]
fn a_time_older_than_what_is_counted_is_not_used() {
    const SECOND: u64 = 1_000;
    let window = Window::Sliding { millis: SECOND };
    let bench = Bench::new(&[Limit {
        measure: Measure::Calls,
        ..tokens(2, false, window)
    }]);
    let ask = |times: &[u64]| {
        let mut times = times.iter();
        let clock = RefCell::new(|| Time::from_millis(*times.next().expect("read too often")));
        let clock = || clock.borrow_mut()();
        let key = "app".to_owned();
        let admitted = admit(&bench.store, key, &bench.limits, &asking(0), &clock, &mut 0).unwrap();
        assert!(times.next().is_none(), "not read often enough");
        admitted
    };
    let later = NOON + 3 * SECOND;
    assert!(matches!(ask(&[later]), Admitted::Counted(_)));
    // Three windows ago: taken for now, what is counted would move there, and leave too early.
    assert!(matches!(ask(&[NOON, later]), Admitted::Counted(_)));
    let Admitted::Reached(reached) = ask(&[later + SECOND - 1]) else {
        panic!("one too many");
    };
    assert!(reached.room_in <= 1 + SECOND.div_ceil(60));
}

#[test]
fn u13_a_wait_takes_into_account_what_calls_in_flight_give_back() {
    const NEARLY_A_MINUTE: std::ops::RangeInclusive<u64> = MINUTE - 1_000..=MINUTE + MINUTE / 60;
    let mut bench = Bench::new(&[tokens(100, true, WINDOW)]);
    let refused = |bench: &Bench, needed| bench.ask(&asking(needed)).unwrap_err().retry_in;
    let one = bench.ask(&asking(40)).unwrap();
    let two = bench.ask(&asking(40)).unwrap();
    // All of it is held: room may come at any moment.
    assert_eq!(refused(&bench, 40), holds::SOON);
    bench.now += 1_500;
    bench.used(one, 3);
    bench
        .ask(&asking(40))
        .unwrap()
        .release(&bench.store, &mut 0)
        .unwrap();
    // What was used stays for its window; the rest comes back.
    bench.used(two, 40);
    bench
        .ask(&asking(57))
        .unwrap()
        .release(&bench.store, &mut 0)
        .unwrap();
    assert!(NEARLY_A_MINUTE.contains(&(refused(&bench, 58) + 1_500)));
    // What is held on top is not enough for a call that needs more than was ever left.
    let three = bench.ask(&asking(50)).unwrap();
    assert_eq!(refused(&bench, 57), holds::SOON);
    assert!(NEARLY_A_MINUTE.contains(&(refused(&bench, 58) + 1_500)));
    // A call that never ends leaves with its window.
    drop(three);
    bench.now += MINUTE + MINUTE / 60;
    bench.ask(&asking(100)).unwrap();
}

#[test]
fn u13_many_at_once_are_not_sent_away_for_a_window() {
    let mut bench = Bench::new(&[tokens(18_000, true, WINDOW)]);
    let calls: Vec<_> = (0..18)
        .map(|_| bench.ask(&asking(1_000)).unwrap())
        .collect();
    assert_eq!(bench.ask(&asking(1_000)).unwrap_err().retry_in, holds::SOON);
    bench.now += 1_500;
    for call in calls {
        bench.used(call, 30);
    }
    bench.ask(&asking(1_000)).unwrap();
}

#[test]
fn u13_without_reserve_nothing_is_given_back() {
    let bench = Bench::new(&[tokens(100, false, WINDOW)]);
    let admission = bench.ask(&asking(40)).unwrap();
    bench.used(admission, 100);
    assert!(bench.ask(&asking(1)).unwrap_err().retry_in >= MINUTE);
}
