//! Every interleaving of two and three workers on one application's record: in none is a call too many
//! admitted, one refused that had room, or one lost.
//!
//! An operation of the limits asks the world for three things: to read a record, the time, to write. Between any
//! two of these any other worker may get in. A world is a value here, so every order is tried from every state;
//! states that were reached before are not tried again, and the orders that lead through them are counted.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests compute on their own constants"
)]

use std::cell::{Cell, RefCell};
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash as _, Hasher as _};

use tollgate::guid::Guid;
use tollgate::limits::{
    Admission, Admitted, Asking, CounterKeys, Deployment, MAX_UNLISTED, NamedLimit, ResponseStatus,
    Settlement, admit, name_limits,
};
use tollgate::policy::{Count, Deployments, Limit, Measure, Pattern, Scope, Window};
use tollgate::store::{Expected, SharedStore, StoreError, Versioned, Written};
use tollgate::time::Time;

mod common;

use common::figure;

const NOON: u64 = 1_772_366_400_000;
const MINUTE: u64 = 60_000;
/// How late room may come back.
const SLOT: u64 = MINUTE.div_ceil(60);

/// What a worker does.
#[derive(Clone, Copy, Debug)]
enum Task {
    /// Asks to be admitted as an application, with so many tokens to reserve.
    Ask { app: u32, reserve: u64 },
    /// Asks with its head alone, to be admitted with its body: see `Body`.
    Head,
    /// Asks with the body of its oldest call, if it has one, which names a limited deployment and reserves so
    /// many tokens.
    Body(u64),
    /// Its oldest call, if it has one, is refused for its body.
    Refused,
    /// Settles its oldest call, if it has one: status, and tokens used.
    Settle(u16, u64),
}

/// An application's call of no tokens.
const CALL: Task = Task::Ask { app: 0, reserve: 0 };

/// What an operation got from the world.
#[derive(Clone, Debug)]
enum Got {
    Read(Option<Versioned>),
    Time(Time),
    Written(Written),
}

/// What it wants next.
#[derive(Debug)]
enum Wanted {
    Read(String),
    Time,
    Write(String, Vec<u8>, Expected),
}

/// Gives an operation what it got the last time, and notes what it wants beyond that.
struct Replay<'a> {
    got: &'a [Got],
    at: Cell<usize>,
    wanted: RefCell<Option<Wanted>>,
}

impl Replay<'_> {
    fn next(&self, wanted: Wanted) -> Option<Got> {
        let next = self.got.get(self.at.get()).cloned();
        self.at.set(self.at.get() + 1);
        if next.is_none() {
            // What comes after it is not real.
            self.wanted.borrow_mut().get_or_insert(wanted);
        }
        next
    }

    fn time(&self) -> Time {
        match self.next(Wanted::Time) {
            Some(Got::Time(time)) => time,
            None => Time::default(),
            other => panic!("{other:?} where the time was asked for"),
        }
    }
}

impl SharedStore for Replay<'_> {
    fn read(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        match self.next(Wanted::Read(key.to_owned())) {
            Some(Got::Read(found)) => Ok(found),
            None => Err(StoreError),
            other => panic!("{other:?} where a read was asked for"),
        }
    }

    fn write(&self, key: &str, value: &[u8], expected: Expected) -> Result<Written, StoreError> {
        match self.next(Wanted::Write(key.to_owned(), value.to_vec(), expected)) {
            Some(Got::Written(written)) => Ok(written),
            None => Err(StoreError),
            other => panic!("{other:?} where a write was asked for"),
        }
    }
}

/// Something that counts: for whom, in which limit, since when, how much.
#[derive(Clone, Copy, Debug)]
struct Entry {
    app: u32,
    limit: usize,
    at: u64,
    amount: u64,
}

#[derive(Clone, Debug)]
struct Worker {
    /// Tasks done.
    done: usize,
    /// What the task that is going on got.
    got: Vec<Got>,
    /// What counted when it last read.
    seen: Vec<Entry>,
    /// Calls in flight, and where the ledger has them.
    calls: Vec<(Admission, Vec<usize>)>,
    keys: CounterKeys,
}

#[derive(Clone, Debug)]
struct World {
    store: BTreeMap<String, Versioned>,
    now: u64,
    /// How often time has passed.
    passed: usize,
    workers: Vec<Worker>,
    ledger: Vec<Entry>,
}

/// How a task ended.
enum Ended {
    Asked(Admitted),
    Settled(Option<Vec<usize>>),
}

/// What is tried.
struct Scenario {
    limits: Vec<NamedLimit>,
    tasks: Vec<Vec<Task>>,
    /// Milliseconds that pass, once each, at any moment.
    passing: Vec<u64>,
    /// Applications are in no list; so many others have records already.
    unlisted: Option<u32>,
    /// Creating a record overwrites one that is there.
    overwrites: bool,
}

fn app(number: u32) -> Guid {
    Guid::parse(&format!("aaaaaaaa-0000-0000-0000-{number:012}")).unwrap()
}

impl Scenario {
    fn new(limit: Limit, tasks: &[&[Task]]) -> Self {
        Self {
            limits: name_limits(&[limit]),
            tasks: tasks.iter().map(|tasks| tasks.to_vec()).collect(),
            passing: Vec::new(),
            unlisted: None,
            overwrites: false,
        }
    }

    fn amount(&self, limit: usize) -> u64 {
        self.limits[limit].limit.amount
    }

    /// There may be no records left for both applications, one of which both workers may be about to make.
    fn is_bound_near(&self) -> bool {
        self.unlisted
            .is_some_and(|others| others + 3 > MAX_UNLISTED)
    }

    fn needed(&self, limit: usize, reserve: u64) -> u64 {
        match self.limits[limit].limit.measure {
            Measure::Calls => 1,
            Measure::Tokens { .. } => reserve,
        }
    }

    fn begin(&self) -> World {
        let worker = Worker {
            done: 0,
            got: Vec::new(),
            seen: Vec::new(),
            calls: Vec::new(),
            keys: CounterKeys::new("p"),
        };
        let mut store = BTreeMap::new();
        if let Some(others) = self.unlisted {
            let value = others.to_le_bytes().to_vec();
            store.insert(granted_key(), Versioned { value, version: 1 });
        }
        World {
            store,
            now: NOON,
            passed: 0,
            workers: vec![worker; self.tasks.len()],
            ledger: Vec::new(),
        }
    }

    /// Runs a worker's task with what it got so far: what it wants next, or its end.
    fn run(&self, worker: &mut Worker, task: Task) -> Result<Ended, Wanted> {
        let got = worker.got.clone();
        let replay = Replay {
            got: &got,
            at: Cell::new(0),
            wanted: RefCell::new(None),
        };
        let mut keys = worker.keys.clone();
        let mut retries = 0;
        let ended = match task {
            Task::Ask {
                app: number,
                reserve,
            } => {
                let asking = Asking {
                    action: None,
                    deployment: Deployment::Unknown,
                    reserve: Some(reserve),
                };
                let key = match self.unlisted {
                    Some(_) => keys.unlisted(&replay, app(number)),
                    None => Ok(keys.listed(app(number))),
                };
                key.and_then(|key| {
                    let clock = || replay.time();
                    admit(&replay, key, &self.limits, &asking, &clock, &mut retries)
                })
                .map(Ended::Asked)
            }
            Task::Head => {
                let asking = Asking {
                    action: None,
                    deployment: Deployment::InBody,
                    reserve: None,
                };
                let (key, clock) = (keys.listed(app(0)), || replay.time());
                admit(&replay, key, &self.limits, &asking, &clock, &mut retries).map(Ended::Asked)
            }
            Task::Body(reserve) => match worker.calls.first().cloned() {
                None => Ok(Ended::Settled(None)),
                Some((admission, _)) => {
                    let asking = Asking {
                        action: None,
                        deployment: Deployment::Named("gpt-4o"),
                        reserve: Some(reserve),
                    };
                    let clock = || replay.time();
                    let limits = &self.limits;
                    let extended = admission.extend(&replay, limits, &asking, &clock, &mut retries);
                    extended.map(Ended::Asked)
                }
            },
            Task::Refused => match worker.calls.first().cloned() {
                None => Ok(Ended::Settled(None)),
                Some((admission, entries)) => {
                    let released = admission.release(&replay, &mut retries);
                    released.map(|()| Ended::Settled(Some(entries)))
                }
            },
            Task::Settle(status, used) => match worker.calls.first().cloned() {
                None => Ok(Ended::Settled(None)),
                Some((admission, entries)) => {
                    let settlement = Settlement {
                        status: ResponseStatus::Code(status),
                        tokens: used,
                    };
                    let clock = || replay.time();
                    let settled = admission.settle(&replay, &settlement, &clock, &mut retries);
                    settled.map(|()| Ended::Settled(Some(entries)))
                }
            },
        };
        if let Some(wanted) = replay.wanted.into_inner() {
            return Err(wanted);
        }
        worker.keys = keys;
        Ok(ended.expect("a store that works, and fewer tries than there may be"))
    }

    /// The world after a worker's next step; `None` if it has nothing left to do.
    fn step(&self, world: &World, index: usize) -> Option<World> {
        let task = *self.tasks[index].get(world.workers[index].done)?;
        let mut next = world.clone();
        let mut worker = next.workers[index].clone();
        if let Err(wanted) = self.run(&mut worker, task) {
            if matches!(wanted, Wanted::Read(_)) {
                worker.seen = next.ledger.clone();
            }
            worker.got.push(next.give(wanted, self.overwrites));
        }
        // Coming to its end is no step of its own: nobody else can tell.
        if let Ok(ended) = self.run(&mut worker, task) {
            self.enter(&mut next, &mut worker, task, ended);
            worker.got.clear();
            worker.seen.clear();
            worker.done += 1;
        }
        next.workers[index] = worker;
        self.check(&next);
        Some(next)
    }

    /// Keeps the books, and refuses refusals that had room.
    fn enter(&self, world: &mut World, worker: &mut Worker, task: Task, ended: Ended) {
        let at = worker.got.iter().rev().find_map(|got| match got {
            Got::Time(time) => Some(time.millis()),
            Got::Read(_) | Got::Written(_) => None,
        });
        match (task, ended) {
            (Task::Ask { app, reserve }, Ended::Asked(Admitted::Counted(admission))) => {
                worker.calls.push((admission, vec![world.ledger.len()]));
                let at = at.expect("a call is admitted at some time");
                let (limit, amount) = (0, self.needed(0, reserve));
                world.ledger.push(Entry {
                    app,
                    limit,
                    at,
                    amount,
                });
            }
            (Task::Head, ended @ Ended::Asked(_)) => {
                self.enter(world, worker, CALL, ended);
            }
            (Task::Body(reserve), Ended::Asked(Admitted::Counted(admission))) => {
                let (held, entries) = &mut worker.calls[0];
                *held = admission;
                entries.push(world.ledger.len());
                world.ledger.push(Entry {
                    app: 0,
                    limit: 1,
                    at: at.expect("a call is admitted at some time"),
                    amount: self.needed(1, reserve),
                });
            }
            (Task::Body(reserve), Ended::Asked(Admitted::Reached(_))) => {
                let at = at.expect("a call is refused at some time");
                let used = used(&worker.seen, 0, 1, at, SLOT);
                let needed = self.needed(1, reserve);
                assert!(
                    used + needed > self.amount(1),
                    "refused with room: {world:#?}"
                );
                for entry in worker.calls.remove(0).1 {
                    world.ledger[entry].amount = 0;
                }
            }
            (Task::Refused, Ended::Settled(Some(entries))) => {
                worker.calls.remove(0);
                for entry in entries {
                    world.ledger[entry].amount = 0;
                }
            }
            (Task::Ask { app, reserve }, Ended::Asked(Admitted::Reached(_))) => {
                let at = at.expect("a call is refused at some time");
                let used = used(&worker.seen, app, 0, at, SLOT);
                let needed = self.needed(0, reserve);
                assert!(
                    used + needed > self.amount(0) || self.is_bound_near(),
                    "refused with room: {world:#?}"
                );
            }
            (Task::Settle(status, tokens), Ended::Settled(Some(entries))) => {
                worker.calls.remove(0);
                for entry in entries {
                    let limit = &self.limits[world.ledger[entry].limit].limit;
                    let counted = limit.count == Count::All || status == 200;
                    world.ledger[entry].amount = match limit.measure {
                        _ if !counted => 0,
                        Measure::Calls => 1,
                        Measure::Tokens { .. } => tokens,
                    };
                }
            }
            (_, Ended::Settled(None)) => {}
            (task, _) => panic!("{task:?} ended as another"),
        }
    }

    /// What holds at every moment.
    fn check(&self, world: &World) {
        // Where the last records are given away, a call that comes meanwhile may count in the one that the rest
        // shares.
        let more = u64::from(self.is_bound_near());
        for (app, limit) in self.apps_and_limits() {
            let used = used(&world.ledger, app, limit, world.now, 0);
            let amount = self.amount(limit);
            assert!(used <= amount + more, "{used} of {amount}: {world:#?}");
        }
        if let Some(others) = self.unlisted {
            assert!(others + world.own_records() <= MAX_UNLISTED, "{world:#?}");
        }
    }

    /// What holds when everybody is done: what is free is all that nobody uses.
    fn check_end(&self, world: &World) {
        if let Some(others) = self.unlisted {
            assert_eq!(world.granted(), others + world.own_records(), "{world:#?}");
        }
        if self.is_bound_near() {
            return;
        }
        let probe = |app, limit: usize| Self {
            tasks: vec![vec![Task::Ask { app, reserve: 1 }]],
            limits: vec![self.limits[limit].clone()],
            passing: Vec::new(),
            unlisted: self.unlisted,
            overwrites: self.overwrites,
        };
        for (app, limit) in self.apps_and_limits() {
            let left = |late| self.amount(limit) - used(&world.ledger, app, limit, world.now, late);
            let mut world = world.clone();
            world.ledger.retain(|entry| entry.limit == limit);
            world.ledger.iter_mut().for_each(|entry| entry.limit = 0);
            let before = world.ledger.len();
            loop {
                let tried = world.ledger.len();
                world.workers[0].done = 0;
                while let Some(next) = probe(app, limit).step(&world, 0) {
                    world = next;
                }
                if world.ledger.len() == tried {
                    break;
                }
            }
            let free = u64::try_from(world.ledger.len() - before).unwrap();
            assert!(
                (left(SLOT)..=left(0)).contains(&free),
                "{free} are free: {world:#?}"
            );
        }
    }

    fn apps_and_limits(&self) -> impl Iterator<Item = (u32, usize)> {
        let limits = self.limits.len();
        (0..2).flat_map(move |app| (0..limits).map(move |limit| (app, limit)))
    }

    /// Every order from here: how many there are.
    fn explore(&self, world: &World, known: &mut HashMap<(u64, u64), u128>) -> u128 {
        let name = fingerprint(world);
        if let Some(orders) = known.get(&name) {
            return *orders;
        }
        let mut orders = 0;
        for index in 0..self.tasks.len() {
            if let Some(next) = self.step(world, index) {
                orders += self.explore(&next, known);
            }
        }
        if let Some(millis) = self.passing.get(world.passed) {
            let mut next = world.clone();
            next.now += millis;
            next.passed += 1;
            self.check(&next);
            orders += self.explore(&next, known);
        }
        if orders == 0 {
            self.check_end(world);
            orders = 1;
        }
        known.insert(name, orders);
        orders
    }

    /// Tries all orders; there are at least so many.
    fn try_all(&self, at_least: u128) -> u128 {
        let mut known = HashMap::new();
        let orders = self.explore(&self.begin(), &mut known);
        assert!(
            orders >= at_least,
            "only {orders} orders in {} states",
            known.len()
        );
        orders
    }
}

impl World {
    /// Does what an operation wants.
    fn give(&mut self, wanted: Wanted, overwrites: bool) -> Got {
        match wanted {
            Wanted::Read(key) => Got::Read(self.store.get(&key).cloned()),
            Wanted::Time => Got::Time(Time::from_millis(self.now)),
            Wanted::Write(key, value, expected) => {
                let found = self.store.get(&key).map(|found| found.version);
                let is_as_expected = match expected {
                    Expected::Absent => found.is_none() || overwrites,
                    Expected::Version(version) => found == Some(version),
                };
                if !is_as_expected {
                    return Got::Written(Written::Conflict);
                }
                let version = found.unwrap_or(0) + 1;
                self.store.insert(key, Versioned { value, version });
                Got::Written(Written::Stored)
            }
        }
    }

    /// How many of the two applications have records of their own.
    fn own_records(&self) -> u32 {
        let keys = CounterKeys::new("p");
        let own = (0..2).filter(|number| self.store.contains_key(&keys.listed(app(*number))));
        u32::try_from(own.count()).unwrap()
    }

    fn granted(&self) -> u32 {
        let value = &self.store[&granted_key()].value;
        u32::from_le_bytes(value.as_slice().try_into().unwrap())
    }
}

/// Where the number of unlisted applications with records of their own stands.
fn granted_key() -> String {
    let own = CounterKeys::new("p").listed(app(0));
    own.replace(&app(0).to_string(), "unlisted")
}

/// What counts of an application, if what is older than a window counts so much longer.
fn used(ledger: &[Entry], app: u32, limit: usize, now: u64, late: u64) -> u64 {
    let counts =
        |entry: &&Entry| (entry.app, entry.limit) == (app, limit) && entry.at + MINUTE + late > now;
    ledger.iter().filter(counts).map(|entry| entry.amount).sum()
}

/// Tells worlds apart.
fn fingerprint(world: &World) -> (u64, u64) {
    let text = format!("{world:?}");
    let half = |seed: u8| {
        let mut hasher = DefaultHasher::new();
        (seed, &text).hash(&mut hasher);
        hasher.finish()
    };
    (half(0), half(1))
}

fn calls(amount: u64, count: Count) -> Limit {
    Limit {
        measure: Measure::Calls,
        amount,
        window: Window::Sliding { millis: MINUTE },
        count,
        scope: Scope::default(),
    }
}

fn reserved(amount: u64) -> Limit {
    Limit {
        measure: Measure::Tokens { reserve: true },
        ..calls(amount, Count::All)
    }
}

const fn tokens(reserve: u64) -> Task {
    Task::Ask { app: 0, reserve }
}

#[test]
fn r17_no_interleaving_admits_too_many_or_loses_one() {
    let success = || Count::Statuses(vec![200]);
    let (good, bad) = (Task::Settle(200, 0), Task::Settle(500, 0));
    let scenarios = [
        // First use: nobody has created the record.
        Scenario::new(
            calls(2, Count::All),
            &[&[CALL, CALL, CALL], &[CALL, CALL, CALL]],
        ),
        Scenario::new(
            calls(3, Count::All),
            &[&[CALL, CALL], &[CALL, CALL], &[CALL, CALL]],
        ),
        // Places that are given back.
        Scenario::new(
            calls(1, success()),
            &[&[CALL, bad, CALL], &[CALL, good, CALL]],
        ),
        Scenario::new(
            calls(2, success()),
            &[&[CALL, bad], &[CALL, bad], &[CALL, CALL]],
        ),
        // Tokens that are held, and given back in part.
        Scenario::new(
            reserved(10),
            &[
                &[tokens(6), Task::Settle(200, 2), tokens(5)],
                &[tokens(5), Task::Settle(200, 5), tokens(3)],
            ],
        ),
        Scenario::new(
            reserved(10),
            &[
                &[tokens(6), Task::Settle(200, 1)],
                &[tokens(6)],
                &[tokens(4), tokens(4)],
            ],
        ),
        // Time passes between any two steps: to where room comes back, and beyond.
        Scenario {
            passing: vec![MINUTE - 1, 1 + SLOT, MINUTE / 2],
            ..Scenario::new(calls(1, Count::All), &[&[CALL, CALL], &[CALL, CALL]])
        },
        Scenario {
            passing: vec![MINUTE + SLOT],
            ..Scenario::new(calls(1, success()), &[&[CALL, bad, CALL], &[CALL, good]])
        },
    ];
    let orders: Vec<u128> = scenarios
        .iter()
        .map(|scenario| scenario.try_all(10_000))
        .collect();
    let told = format!(
        "{} interleavings of {} scenarios, 0 over, 0 under, 0 lost",
        orders.iter().sum::<u128>(),
        orders.len()
    );
    println!("{told}: {orders:?}");
    figure(
        "R17",
        "all interleavings of 2 and 3 workers on a record",
        &told,
        true,
    );
}

/// A limit that the head decides, and one that waits for the body: the same rules hold in both, and a call that its
/// body has refused is in neither.
#[test]
fn l9_no_interleaving_of_heads_and_bodies_admits_too_many_or_loses_one() {
    let gpt = || Scope {
        deployments: Some(Deployments(vec![Pattern::Exact("gpt-4o".to_owned())])),
        ..Scope::default()
    };
    let in_body = |limit| Limit {
        scope: gpt(),
        ..limit
    };
    let success = || Count::Statuses(vec![200]);
    let (good, bad) = (Task::Settle(200, 2), Task::Settle(500, 0));
    let scenario = |limits: [Limit; 2], tasks: &[&[Task]]| Scenario {
        limits: name_limits(&limits),
        ..Scenario::new(limits[0].clone(), tasks)
    };
    let [head, body, refused] = [Task::Head, Task::Body(4), Task::Refused];
    let scenarios = [
        scenario(
            [calls(2, Count::All), in_body(calls(1, Count::All))],
            &[&[head, body, head], &[head, body, head]],
        ),
        scenario(
            [calls(1, Count::All), in_body(calls(1, Count::All))],
            &[&[head, refused, head, body], &[head, refused, head]],
        ),
        scenario(
            [calls(2, success()), in_body(reserved(6))],
            &[&[head, body, good, head], &[head, body, bad]],
        ),
        scenario(
            [calls(2, success()), in_body(reserved(4))],
            &[&[head, body], &[head, body], &[head, bad]],
        ),
        Scenario {
            passing: vec![MINUTE + SLOT],
            ..scenario(
                [calls(1, Count::All), in_body(calls(1, Count::All))],
                &[&[head, body], &[head, refused, head]],
            )
        },
    ];
    let orders: Vec<u128> = scenarios
        .iter()
        .map(|scenario| scenario.try_all(1_000))
        .collect();
    let told = format!(
        "{} interleavings of {} scenarios, 0 over, 0 under, 0 lost",
        orders.iter().sum::<u128>(),
        orders.len()
    );
    println!("{told}: {orders:?}");
    figure("R17", "the same, admitted in two steps", &told, true);
}

#[test]
#[should_panic(expected = "3 of 2")]
fn a_store_that_lets_one_be_lost_is_found_out() {
    let lossy = Scenario {
        overwrites: true,
        ..Scenario::new(calls(2, Count::All), &[&[CALL, CALL], &[CALL, CALL]])
    };
    lossy.try_all(0);
}

#[test]
fn r9_no_interleaving_makes_a_record_too_many() {
    let other = Task::Ask { app: 1, reserve: 0 };
    let left = [MAX_UNLISTED, 3, 2, 1, 0];
    let scenarios = left.map(|left| Scenario {
        unlisted: Some(MAX_UNLISTED - left),
        ..Scenario::new(calls(1, Count::All), &[&[CALL, other], &[other, CALL]])
    });
    let orders: u128 = scenarios
        .iter()
        .map(|scenario| scenario.try_all(1_000))
        .sum();
    let told = format!("{orders} interleavings, at most {MAX_UNLISTED} records in each");
    println!("{told}");
    figure(
        "R9",
        "first use of unlisted applications by 2 workers",
        &told,
        true,
    );
}
