//! Every interleaving of two workers that fetch keys: in none is a key gone because one answer lacked it, does
//! one serve longer than two answers without it or twice `at_most_every`, or does an older answer replace a newer.
//!
//! As in `interleavings.rs`: an operation reads and writes shared data, and between any two of these the other
//! worker may get in, or time pass.
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
use std::rc::Rc;

use serde_json::json;
use tollgate::jwt::Algorithm;
use tollgate::keys::{Answer, FetchOutcome, IssuerKeys, Lookup, NextCall, Progress, Wanted};
use tollgate::policy::Policy;
use tollgate::store::{Expected, SharedStore, StoreError, Versioned, Written};
use tollgate::time::Time;

mod common;

use common::figure;

const NOON: u64 = 1_772_366_400_000;
/// `at_most_every`.
const FLOOR: u64 = 20_000;
const KIDS: [&str; 3] = ["a", "b", "c"];

/// What a worker does.
#[derive(Clone, Copy, Debug)]
enum Task {
    /// A tick: sees what others did, and begins a fetch that is due.
    Tick,
    /// The answer to its fetch, if it has one: these keys.
    Answer(&'static [&'static str]),
    /// No answer to its fetch.
    Fail,
}

/// What an operation got from shared data.
#[derive(Clone, Debug)]
enum Got {
    Read(Option<Versioned>),
    Written(Written),
}

#[derive(Debug)]
enum Asked {
    Read(String),
    Write(String, Vec<u8>, Expected),
}

/// Gives an operation what it got the last time, and notes what it asks for beyond that.
struct Replay<'a> {
    got: &'a [Got],
    at: Cell<usize>,
    asked: RefCell<Option<Asked>>,
}

impl Replay<'_> {
    fn next(&self, asked: Asked) -> Option<Got> {
        let next = self.got.get(self.at.get()).cloned();
        self.at.set(self.at.get() + 1);
        if next.is_none() {
            self.asked.borrow_mut().get_or_insert(asked);
        }
        next
    }
}

impl SharedStore for Replay<'_> {
    fn read(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        match self.next(Asked::Read(key.to_owned())) {
            Some(Got::Read(found)) => Ok(found),
            None => Err(StoreError),
            other => panic!("{other:?} where a read was asked for"),
        }
    }

    fn write(&self, key: &str, value: &[u8], expected: Expected) -> Result<Written, StoreError> {
        match self.next(Asked::Write(key.to_owned(), value.to_vec(), expected)) {
            Some(Got::Written(written)) => Ok(written),
            None => Err(StoreError),
            other => panic!("{other:?} where a write was asked for"),
        }
    }
}

/// All shared data, for a look at it between two steps.
struct Whole<'a>(&'a BTreeMap<String, Versioned>);

impl SharedStore for Whole<'_> {
    fn read(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        Ok(self.0.get(key).cloned())
    }

    fn write(&self, _: &str, _: &[u8], _: Expected) -> Result<Written, StoreError> {
        Err(StoreError)
    }
}

#[derive(Clone, Debug)]
struct Worker {
    keys: IssuerKeys,
    done: usize,
    /// When the task that is going on began.
    at: Option<u64>,
    got: Vec<Got>,
    /// Its fetch, and when it began.
    call: Option<(NextCall, u64)>,
}

/// An answer that is in shared data.
#[derive(Clone, Copy, Debug)]
struct Good {
    attempt: u64,
    asked: u64,
    came: u64,
    keys: &'static [&'static str],
}

#[derive(Clone, Debug)]
struct World {
    store: BTreeMap<String, Versioned>,
    now: u64,
    passed: usize,
    workers: Vec<Worker>,
    ledger: Vec<Good>,
}

/// What is tried, from a world that has fetched all keys.
struct Scenario {
    policy: Rc<Policy>,
    tasks: Vec<Vec<Task>>,
    passing: Vec<u64>,
    /// Writes overwrite whatever is there.
    overwrites: bool,
}

enum Ended {
    Begun(Option<NextCall>),
    Answered(Option<FetchOutcome>),
}

impl Scenario {
    fn new(tasks: &[&[Task]], passing: &[u64]) -> Self {
        let policy = json!({ "issuers": [{
            "issuers": ["https://i/"], "jwks_uri": "https://i/keys", "cluster": "c", "audiences": ["a"],
            "app_claim": "app", "algorithms": ["ES256"],
            "refresh": { "every": "1m", "at_most_every": "20s" },
        }] });
        let policy = Policy::parse(policy.to_string().as_bytes()).unwrap();
        Self {
            policy: Rc::new(policy),
            tasks: tasks.iter().map(|tasks| tasks.to_vec()).collect(),
            passing: passing.to_vec(),
            overwrites: false,
        }
    }

    fn worker(&self) -> Worker {
        Worker {
            keys: IssuerKeys::new(&self.policy.issuers[0], "p"),
            done: 0,
            at: None,
            got: Vec::new(),
            call: None,
        }
    }

    /// All keys were fetched a minute ago.
    fn begin(&self) -> World {
        let first = Self {
            policy: Rc::clone(&self.policy),
            tasks: vec![vec![Task::Tick, Task::Answer(&KIDS)]],
            passing: Vec::new(),
            overwrites: false,
        };
        let mut world = World {
            store: BTreeMap::new(),
            now: NOON,
            passed: 0,
            workers: vec![self.worker()],
            ledger: Vec::new(),
        };
        while let Some(next) = first.step(&world, 0) {
            world = next;
        }
        world.workers = self.tasks.iter().map(|_| self.worker()).collect();
        world.now += 60_000;
        world
    }

    fn run(worker: &mut Worker, task: Task, now: u64) -> Result<Ended, Asked> {
        let got = worker.got.clone();
        let replay = Replay {
            got: &got,
            at: Cell::new(0),
            asked: RefCell::new(None),
        };
        let mut keys = worker.keys.clone();
        let time = Time::from_millis(now);
        let fetched = keys.fetched().unwrap();
        let ended = match (task, &worker.call) {
            (Task::Tick, None) => {
                fetched.sync(&replay, time);
                Ended::Begun(fetched.begin(&replay, time))
            }
            (Task::Answer(kids), Some((call, _))) => {
                let answer = Answer {
                    status: Some(200),
                    body: Some(set(kids)),
                };
                match fetched.answer(call.attempt, &answer, &replay, time) {
                    Progress::Done(outcome) => Ended::Answered(Some(outcome)),
                    Progress::Stray => Ended::Answered(None),
                    Progress::Call(call) => panic!("{call:?}"),
                }
            }
            (Task::Fail, Some((call, _))) => {
                let answer = Answer {
                    status: None,
                    body: None,
                };
                fetched.answer(call.attempt, &answer, &replay, time);
                Ended::Answered(None)
            }
            (Task::Tick, Some(_)) | (Task::Answer(_) | Task::Fail, None) => Ended::Begun(None),
        };
        if let Some(asked) = replay.asked.into_inner() {
            return Err(asked);
        }
        worker.keys = keys;
        Ok(ended)
    }

    /// The world after a worker's next step; `None` if it has nothing left to do.
    fn step(&self, world: &World, index: usize) -> Option<World> {
        let task = *self.tasks[index].get(world.workers[index].done)?;
        let mut next = world.clone();
        let mut worker = next.workers[index].clone();
        let now = *worker.at.get_or_insert(world.now);
        if let Err(asked) = Self::run(&mut worker, task, now) {
            let got = next.give(asked, self.overwrites, &worker, task, now);
            worker.got.push(got);
        }
        if let Ok(ended) = Self::run(&mut worker, task, now) {
            match (task, ended) {
                (Task::Tick, Ended::Begun(Some(call))) => worker.call = Some((call, now)),
                (Task::Tick, _) => {}
                (_, Ended::Answered(Some(outcome))) => {
                    assert!(matches!(outcome, FetchOutcome::Good { .. }), "{outcome}");
                    worker.call = None;
                }
                (..) => worker.call = None,
            }
            worker.got.clear();
            worker.at = None;
            worker.done += 1;
        }
        next.workers[index] = worker;
        Some(next)
    }

    /// What holds at every moment.
    fn check(&self, world: &World) {
        let found = serving(&mut self.worker(), world);
        let by_rule = expected(&world.ledger, world.now);
        assert_eq!(found, by_rule, "not by the rule: {world:#?}");
        let newest = world.ledger.len();
        let mut attempts = world.ledger.windows(2);
        assert!(
            attempts.all(|two| two[0].attempt < two[1].attempt),
            "not by the rule: an older answer replaced a newer: {world:#?}"
        );
        let is_done = (0..self.tasks.len()).all(|index| {
            let worker = &world.workers[index];
            worker.done == self.tasks[index].len() || worker.got.is_empty()
        });
        for worker in &world.workers {
            let found = serving(&mut worker.clone(), world);
            // The generation that makes it read the last set may not be written yet, of each worker's.
            let behind = if is_done { 0 } else { self.tasks.len() };
            let mut possible = (newest.saturating_sub(behind).max(1)..=newest)
                .map(|length| expected(&world.ledger[..length], world.now));
            assert!(
                possible.any(|keys| keys == found),
                "not by the rule: {found:?}: {:#?}",
                world.ledger
            );
        }
    }

    fn explore(&self, world: &World, known: &mut HashMap<(u64, u64), u128>) -> u128 {
        let name = fingerprint(world);
        if let Some(orders) = known.get(&name) {
            return *orders;
        }
        self.check(world);
        let mut orders = 0;
        for index in 0..self.tasks.len() {
            if let Some(next) = self.step(world, index) {
                orders += self.explore(&next, known);
            }
        }
        // An operation that takes an answer reads the clock once, and takes no seconds.
        let is_taking = |index: usize| {
            let worker = &world.workers[index];
            let task = self.tasks[index].get(worker.done);
            matches!(task, Some(Task::Answer(_))) && !worker.got.is_empty()
        };
        let may_pass = !(0..self.tasks.len()).any(is_taking);
        if let Some(millis) = self.passing.get(world.passed).filter(|_| may_pass) {
            let mut next = world.clone();
            next.now += millis;
            next.passed += 1;
            orders += self.explore(&next, known);
        }
        let orders = orders.max(1);
        known.insert(name, orders);
        orders
    }

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
    /// Does what an operation asks for. A set that is written is an answer that counts.
    fn give(
        &mut self,
        asked: Asked,
        overwrites: bool,
        worker: &Worker,
        task: Task,
        now: u64,
    ) -> Got {
        let (key, value, expected) = match asked {
            Asked::Read(key) => return Got::Read(self.store.get(&key).cloned()),
            Asked::Write(key, value, expected) => (key, value, expected),
        };
        let found = self.store.get(&key).map(|found| found.version);
        let is_as_expected = match expected {
            Expected::Absent => found.is_none(),
            Expected::Version(version) => found == Some(version),
        };
        let is_set = key.ends_with("/set");
        if !(is_as_expected || (overwrites && is_set)) {
            return Got::Written(Written::Conflict);
        }
        if let (true, Task::Answer(keys), Some((call, asked))) = (is_set, task, &worker.call) {
            self.ledger.push(Good {
                attempt: call.attempt,
                asked: *asked,
                came: now,
                keys,
            });
        }
        let version = found.unwrap_or(0) + 1;
        self.store.insert(key, Versioned { value, version });
        Got::Written(Written::Stored)
    }
}

/// The keys that serve by the rule: each from an answer that has it until a second answer lacks it that was asked
/// for `FLOOR` after the first without it came, and no longer than twice that.
fn expected(ledger: &[Good], now: u64) -> Vec<&'static str> {
    let serves = |kid: &&str| {
        let mut missing_since = None;
        let mut is_there = false;
        for good in ledger {
            if good.keys.contains(kid) {
                (is_there, missing_since) = (true, None);
            } else if is_there {
                let since = *missing_since.get_or_insert(good.came);
                is_there = good.asked < since + FLOOR && good.came < since + 2 * FLOOR;
            }
        }
        is_there && missing_since.is_none_or(|since| now < since + 2 * FLOOR)
    };
    KIDS.into_iter().filter(serves).collect()
}

/// The keys that a worker finds once it has seen what is in shared data.
fn serving(worker: &mut Worker, world: &World) -> Vec<&'static str> {
    // When no write was ever seen there is none.
    let now = Time::from_millis(world.now);
    if let Some(fetched) = worker.keys.fetched() {
        fetched.sync(&Whole(&world.store), now);
    }
    let mut is_found = |kid: &&'static str| {
        let wanted = Wanted {
            kid,
            algorithm: Algorithm::Es256,
            belongs: &|_| true,
        };
        matches!(worker.keys.lookup(&wanted, now), Lookup::Found(_))
    };
    KIDS.into_iter().filter(|kid| is_found(kid)).collect()
}

fn set(kids: &[&str]) -> Vec<u8> {
    let key = |kid| {
        json!({
            "kty": "EC", "crv": "P-256", "kid": kid,
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
        })
    };
    let keys: Vec<_> = kids.iter().map(key).collect();
    json!({ "keys": keys }).to_string().into_bytes()
}

/// Tells worlds apart.
fn fingerprint(world: &World) -> (u64, u64) {
    let states: Vec<_> = world
        .workers
        .iter()
        .map(|worker| format!("{:?}", worker.keys))
        .collect();
    let half = |seed: u8| {
        let mut hasher = DefaultHasher::new();
        (seed, &states, world.now, world.passed).hash(&mut hasher);
        for (key, found) in &world.store {
            (key, found.version, &found.value).hash(&mut hasher);
        }
        for worker in &world.workers {
            let call = worker.call.as_ref().map(|(call, at)| (call.attempt, at));
            (worker.done, worker.at, call).hash(&mut hasher);
            for got in &worker.got {
                match got {
                    Got::Read(Some(found)) => (found.version, &found.value).hash(&mut hasher),
                    Got::Read(None) => 0_u8.hash(&mut hasher),
                    Got::Written(written) => (*written == Written::Stored).hash(&mut hasher),
                }
            }
        }
        for good in &world.ledger {
            (good.attempt, good.asked, good.came, good.keys).hash(&mut hasher);
        }
        hasher.finish()
    };
    (half(0), half(1))
}

const ALL: Task = Task::Answer(&KIDS);
const NO_A: Task = Task::Answer(&["b", "c"]);
const NO_B: Task = Task::Answer(&["a", "c"]);
const ONLY_C: Task = Task::Answer(&["c"]);
const TICK: Task = Task::Tick;

#[test]
fn k1_no_interleaving_loses_a_key_that_one_answer_lacks_or_keeps_one_that_two_lack() {
    let scenarios = [
        // One after the other, at the floor and past the end.
        Scenario::new(
            &[&[TICK, NO_A, TICK, NO_A], &[TICK]],
            &[FLOOR - 1, 1, FLOOR],
        ),
        Scenario::new(&[&[TICK, NO_A], &[TICK, ALL]], &[FLOOR, FLOOR]),
        // An outage meanwhile.
        Scenario::new(&[&[TICK, NO_A, TICK, Task::Fail], &[TICK]], &[FLOOR, FLOOR]),
        // Two at the same time, as the lease of the first has ended by then.
        Scenario::new(&[&[TICK, NO_A], &[TICK, ONLY_C]], &[FLOOR]),
        Scenario::new(&[&[TICK, NO_A], &[TICK, NO_B, TICK]], &[FLOOR, FLOOR]),
        Scenario::new(&[&[TICK, NO_A], &[TICK, ALL]], &[FLOOR]),
    ];
    let orders: Vec<u128> = scenarios
        .iter()
        .map(|scenario| scenario.try_all(1_000))
        .collect();
    let sum: u128 = orders.iter().sum();
    let told = format!("{sum} interleavings of {} scenarios", orders.len());
    println!("{told}: {orders:?}");
    figure(
        "R17",
        "all interleavings of 2 workers that fetch keys",
        &told,
        true,
    );
}

#[test]
#[should_panic(expected = "not by the rule")]
fn a_store_that_lets_a_set_be_lost_is_found_out() {
    let lossy = Scenario {
        overwrites: true,
        ..Scenario::new(&[&[TICK, NO_A], &[TICK, NO_B]], &[FLOOR])
    };
    lossy.try_all(0);
}
