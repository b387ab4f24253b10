//! Limits beside a ledger that is exact to the millisecond, with workers that get in between one another.

use std::cell::{Cell, RefCell};

use super::ResponseStatus::{Absent, Code, Unknown};
use super::*;
use crate::store::{Expected, Versioned, Written};

const HOUR: u64 = 3_600_000;

/// Which calls a limit is for.
#[derive(Clone, Copy, Debug)]
enum For {
    All,
    Chat,
    Gpt,
}

impl For {
    fn scope(self) -> Scope {
        let chat = || Permissions::named("*/deployments/chat/completions/action");
        let gpt = || Deployments(vec![Pattern::Prefix("gpt-".to_owned())]);
        Scope {
            operations: matches!(self, Self::Chat).then(chat),
            deployments: matches!(self, Self::Gpt).then(gpt),
        }
    }

    fn includes(self, measure: Measure, asking: &Asking<'_>) -> bool {
        let is_one = match self {
            Self::All => true,
            Self::Chat => matches!(asking.action, None | Some(Action::ChatCompletions)),
            Self::Gpt => matches!(
                asking.deployment,
                Deployment::Unknown | Deployment::Named("gpt-4o")
            ),
        };
        let may_use_tokens = match asking.action {
            None => true,
            Some(Action::ModelsRead) => false,
            // What stops a run, say, runs no model.
            Some(_) => asking.deployment != Deployment::None,
        };
        is_one && (measure == Measure::Calls || may_use_tokens)
    }
}

fn reserve(asking: &Asking<'_>) -> u64 {
    asking.reserve.expect("the whole request is known")
}

/// One limit, and everything that was ever counted in it.
struct Ledger {
    limit: Limit,
    scope: For,
    /// When, and how much.
    entries: Vec<(u64, u64)>,
    /// Charged since the last admission.
    since: u64,
}

impl Ledger {
    fn includes(&self, asking: &Asking<'_>) -> bool {
        self.scope.includes(self.limit.measure, asking)
    }

    /// When an entry counts no more, if room may come back so many sixtieths of the window late.
    fn end(&self, at: u64, sixtieths: u64) -> u64 {
        match self.limit.window {
            Window::Sliding { millis } => at + millis + sixtieths * millis.div_ceil(60),
            Window::Calendar(_) => (at / HOUR + 1) * HOUR,
        }
    }

    fn used(&self, now: u64, sixtieths: u64) -> u64 {
        let counts = |(at, _): &&(u64, u64)| self.end(*at, sixtieths) > now;
        self.entries
            .iter()
            .filter(counts)
            .map(|(_, used)| used)
            .sum()
    }

    fn needed(&self, asking: &Asking<'_>) -> u64 {
        match self.limit.measure {
            Measure::Tokens { reserve: true } => reserve(asking).max(1),
            Measure::Tokens { reserve: false } | Measure::Calls => 1,
        }
    }

    fn has_room(&self, asking: &Asking<'_>, now: u64, sixtieths: u64) -> bool {
        self.used(now, sixtieths) + self.needed(asking) <= self.limit.amount
    }

    /// Enters an admission; answers where.
    fn admit(&mut self, asking: &Asking<'_>, now: u64) -> usize {
        assert!(self.has_room(asking, now, 0), "admitted without room");
        let held = match self.limit.measure {
            Measure::Calls => 1,
            Measure::Tokens { reserve: reserves } => reserve(asking) * u64::from(reserves),
        };
        self.entries.push((now, held));
        self.since = 0;
        self.entries.len() - 1
    }

    fn settle(&mut self, entry: usize, settlement: &Settlement, now: u64) {
        let (_, held) = self.entries[entry];
        let counted = match (&self.limit.count, settlement.status) {
            (Count::All, _) | (Count::Success, Code(200) | Unknown) => true,
            (Count::Success, Absent | Code(500)) => false,
            other => panic!("{other:?} is not tried"),
        };
        let charged = settlement.tokens;
        let (kept, charged) = match self.limit.measure {
            _ if !counted => (0, 0),
            Measure::Calls => (1, 0),
            Measure::Tokens { reserve: true } => (charged.min(held), charged.saturating_sub(held)),
            Measure::Tokens { reserve: false } => (0, charged),
        };
        self.entries[entry].1 = kept;
        self.entries.push((now, charged));
        self.since += charged;
    }
}

/// Lets another worker do its part between the first read and the first write of this one.
struct Race<'a> {
    store: &'a MemoryStore,
    other: RefCell<Option<Box<dyn FnOnce() + 'a>>>,
}

impl SharedStore for Race<'_> {
    fn read(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        self.store.read(key)
    }

    fn write(&self, key: &str, value: &[u8], expected: Expected) -> Result<Written, StoreError> {
        let other = self.other.take();
        if let Some(other) = other {
            other();
        }
        self.store.write(key, value, expected)
    }
}

/// What a worker does.
enum Task {
    Ask(Asking<'static>),
    Settle(Call, Settlement),
}

/// A call in flight, and where the ledgers have it.
struct Call {
    asking: Asking<'static>,
    admission: Admission,
    entries: Vec<(usize, usize)>,
}

/// What came of it.
enum Done {
    Asked(Asking<'static>, Result<Admission, Reached>),
    Settled(Vec<(usize, usize)>, Settlement),
}

/// What is tested.
struct Counters {
    store: MemoryStore,
    limits: Vec<NamedLimit>,
    now: Cell<u64>,
}

impl Counters {
    fn ask(
        &self,
        store: &dyn SharedStore,
        asking: &Asking<'_>,
        clock: &dyn Fn() -> Time,
        retries: &mut u32,
    ) -> Result<Admission, Reached> {
        match admit(store, "app".into(), &self.limits, asking, clock, retries).unwrap() {
            Admitted::Counted(admission) => Ok(admission),
            Admitted::Reached(reached) => Err(reached),
        }
    }

    /// Does a task; answers when, too: that is when the clock was last read for it.
    fn run(&self, store: &dyn SharedStore, task: Task, retries: &mut u32) -> (Done, u64) {
        let read_at = Cell::new(self.now.get());
        let clock = || {
            read_at.set(self.now.get());
            Time::from_millis(read_at.get())
        };
        let done = match task {
            Task::Ask(asking) => {
                let asked = self.ask(store, &asking, &clock, retries);
                if let Err(reached) = asked
                    && !reached.never
                {
                    let at = read_at.get() + reached.room_in;
                    assert!(self.would_admit(&asking, at), "a promise not kept");
                    assert!(!self.would_admit(&asking, at - 1), "needless waiting");
                }
                Done::Asked(asking, asked)
            }
            Task::Settle(call, settlement) => {
                let settled = call.admission.settle(store, &settlement, &clock, retries);
                settled.unwrap();
                Done::Settled(call.entries, settlement)
            }
        };
        (done, read_at.get())
    }

    /// Whether the call would be admitted at another time, if nothing happened until then.
    fn would_admit(&self, asking: &Asking<'_>, now: u64) -> bool {
        let copy = MemoryStore::default();
        if let Some(found) = self.store.read("app").unwrap() {
            copy.write("app", &found.value, Expected::Absent).unwrap();
        }
        let clock = || Time::from_millis(now);
        self.ask(&copy, asking, &clock, &mut 0).is_ok()
    }
}

/// What is expected, and what happened.
struct Books {
    ledgers: Vec<Ledger>,
    in_flight: Vec<Call>,
    random: Random,
    /// Calls use no more than they reserve.
    honest: bool,
    admitted: u32,
    refused: u32,
    retries: u32,
}

impl Books {
    fn any<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.random.below(choices.len() as u64)).unwrap()]
    }

    fn task(&mut self) -> Task {
        let in_flight = self.in_flight.len() as u64;
        if in_flight < 100 && (in_flight == 0 || self.random.below(9) < 5) {
            return Task::Ask(self.asking());
        }
        let index = usize::try_from(self.random.below(in_flight)).unwrap();
        let call = self.in_flight.swap_remove(index);
        let most = reserve(&call.asking) * if self.honest { 1 } else { 2 };
        let used = self.random.below(most + 1);
        let settlement = Settlement {
            status: self.any(&[Code(200), Code(200), Code(500), Absent, Unknown]),
            tokens: used,
        };
        Task::Settle(call, settlement)
    }

    fn asking(&mut self) -> Asking<'static> {
        let chat = Some(Action::ChatCompletions);
        let embeddings = Some(Action::Embeddings);
        let (gpt, o1) = (Deployment::Named("gpt-4o"), Deployment::Named("o1"));
        let usual = 1 + self.random.below(200);
        Asking {
            action: self.any(&[chat, chat, embeddings, None, Some(Action::ModelsRead)]),
            deployment: self.any(&[gpt, gpt, o1, Deployment::None, Deployment::Unknown]),
            reserve: Some(self.any(&[usual, usual, usual, usual, usual, 0, 5_000])),
        }
    }

    fn enter(&mut self, (done, now): (Done, u64)) {
        match done {
            Done::Asked(asking, Ok(admission)) => {
                self.admitted += 1;
                let concerned = self.ledgers.iter_mut().enumerate();
                let entries = concerned
                    .filter(|(_, ledger)| ledger.includes(&asking))
                    .map(|(index, ledger)| (index, ledger.admit(&asking, now)))
                    .collect();
                self.in_flight.push(Call {
                    asking,
                    admission,
                    entries,
                });
            }
            Done::Asked(asking, Err(reached)) => {
                self.refused += 1;
                self.check_refusal(&asking, &reached, now);
            }
            Done::Settled(entries, settlement) => {
                for (index, entry) in entries {
                    self.ledgers[index].settle(entry, &settlement, now);
                }
            }
        }
        self.check_amounts(now);
    }

    /// Refusals are needed, and say when they end.
    fn check_refusal(&self, asking: &Asking<'_>, reached: &Reached, now: u64) {
        let concerned: Vec<&Ledger> = self
            .ledgers
            .iter()
            .filter(|ledger| ledger.includes(asking))
            .collect();
        let fit = |at, late| {
            let mut all = concerned.iter();
            all.all(|ledger| ledger.has_room(asking, at, late))
        };
        assert!(!fit(now, 1), "refused with room");
        let told = concerned.iter().find(|ledger| {
            let limit = &ledger.limit;
            let (measure, amount) = (limit.measure, limit.amount);
            (measure, amount, limit.window) == (reached.measure, reached.limit, reached.window)
        });
        let left = |late| {
            let told = told.unwrap();
            told.limit.amount.saturating_sub(told.used(now, late))
        };
        assert!((left(1)..=left(0)).contains(&reached.remaining));
        let never = |ledger: &&Ledger| ledger.needed(asking) > ledger.limit.amount;
        assert_eq!(reached.never, concerned.iter().any(never));
        if reached.never {
            return;
        }
        let earliest = |late| {
            let ends = concerned.iter().flat_map(|ledger| {
                let ends = ledger.entries.iter();
                ends.map(move |(at, _)| ledger.end(*at, late))
            });
            let mut moments: Vec<u64> = ends.chain([now]).filter(|at| *at >= now).collect();
            moments.sort_unstable();
            moments[moments.partition_point(|at| !fit(*at, late))]
        };
        let at = now + reached.room_in;
        assert!(at >= earliest(0), "room comes back early");
        assert!(at <= earliest(1), "room comes back late");
    }

    /// No window holds more than the limit, or than the limit and what was in flight when it was
    /// reached.
    fn check_amounts(&self, now: u64) {
        for ledger in &self.ledgers {
            let (used, amount) = (ledger.used(now, 0), ledger.limit.amount);
            match ledger.limit.measure {
                Measure::Calls => assert!(used <= amount, "{used} calls of {amount}"),
                Measure::Tokens { reserve: true } => {
                    assert!(used <= amount || !self.honest, "{used} of {amount}");
                }
                Measure::Tokens { reserve: false } => {
                    assert!(used < amount + ledger.since, "{used} of {amount}");
                }
            }
        }
    }
}

/// One step of two workers at once.
fn step(counters: &Counters, books: &mut Books) {
    let (first, second) = (books.task(), books.task());
    let pause = books.random.below(20);
    let between = RefCell::new(None);
    let race = Race {
        store: &counters.store,
        other: RefCell::new(Some(Box::new(|| {
            counters.now.set(counters.now.get() + pause);
            let done = counters.run(&counters.store, second, &mut 0);
            *between.borrow_mut() = Some(done);
        }))),
    };
    let done = counters.run(&race, first, &mut books.retries);
    let other = race.other.take();
    if let Some(earlier) = between.take() {
        books.enter(earlier);
    }
    books.enter(done);
    if let Some(other) = other {
        other();
    }
    if let Some(later) = between.take() {
        books.enter(later);
    }
}

/// Runs random calls against limits. `pace` bounds the milliseconds between them.
fn run(seed: u64, honest: bool, pace: u64, limits: &[(Limit, For)]) -> Books {
    let ledgers = limits.iter().map(|(limit, scope)| Ledger {
        limit: Limit {
            scope: scope.scope(),
            ..limit.clone()
        },
        scope: *scope,
        entries: Vec::new(),
        since: 0,
    });
    let mut books = Books {
        ledgers: ledgers.collect(),
        in_flight: Vec::new(),
        random: Random(seed),
        honest,
        admitted: 0,
        refused: 0,
        retries: 0,
    };
    let limits: Vec<Limit> = books.ledgers.iter().map(|one| one.limit.clone()).collect();
    let counters = Counters {
        store: MemoryStore::default(),
        limits: name_limits(&limits),
        now: Cell::new(NOON),
    };
    for _ in 0..400 {
        let pause = match books.random.below(100) {
            0 => HOUR,
            1..4 => 100 * pace,
            _ => books.random.below(pace),
        };
        counters.now.set(counters.now.get() + pause);
        step(&counters, &mut books);
    }
    books
}

/// The same for many seeds; what is tried must be enough to show something.
fn check(honest: bool, pace: u64, limits: &[(Limit, For)]) {
    for seed in 1..=12 {
        let books = run(seed, honest, pace, limits);
        let Books {
            admitted,
            refused,
            retries,
            ..
        } = books;
        assert!(
            admitted > 100 && refused > 20 && retries > 20,
            "seed {seed}: {admitted} admitted, {refused} refused, {retries} retries"
        );
    }
}

fn calls(amount: u64, window: Window) -> Limit {
    Limit {
        measure: Measure::Calls,
        ..tokens(amount, false, window)
    }
}

#[test]
fn with_reserve_no_window_holds_more_than_the_limit() {
    check(true, 2_000, &[(tokens(1_000, true, WINDOW), For::All)]);
}

#[test]
fn with_reserve_excess_counts_when_it_is_known() {
    check(false, 2_000, &[(tokens(1_000, true, WINDOW), For::All)]);
}

#[test]
fn without_reserve_only_what_is_in_flight_is_too_much() {
    check(false, 2_000, &[(tokens(1_000, false, WINDOW), For::All)]);
}

#[test]
fn short_windows_are_as_exact_as_long_ones() {
    let second = Window::Sliding { millis: 1_000 };
    let odd = Window::Sliding { millis: 7_777 };
    let limits = [
        (tokens(800, true, second), For::All),
        (tokens(2_000, false, odd), For::All),
    ];
    check(true, 60, &limits);
}

#[test]
fn all_kinds_of_limits_hold_at_once() {
    let hour = Window::Calendar(Period::Hour);
    let answered = Limit {
        count: Count::Success,
        ..tokens(2_000, true, hour)
    };
    let limits = [
        (tokens(1_000, true, WINDOW), For::Gpt),
        (tokens(900, false, WINDOW), For::Chat),
        (answered, For::All),
        (calls(20, WINDOW), For::Chat),
        (calls(150, hour), For::All),
    ];
    check(true, 2_000, &limits);
    check(false, 2_000, &limits);
}

#[test]
fn twins_hold_each() {
    let limits = [
        (tokens(700, true, WINDOW), For::All),
        (tokens(900, true, WINDOW), For::All),
        (calls(30, WINDOW), For::All),
        (calls(20, WINDOW), For::All),
    ];
    check(true, 2_000, &limits);
}
