//! The functions that take bytes from outside, under changed seeds, in-process.
//!
//! `FUZZ_SECONDS` says how long each target runs; `make fuzz-smoke` asks for ten seconds. The same targets run
//! under libFuzzer, which sees what code an input reaches: `make fuzz`.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests compute on their own constants, and have a clock"
)]

#[path = "../common/mod.rs"]
mod common;
mod mutator;
mod targets;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use common::{Random, amount, figure};
use mutator::Pool;
use targets::Target;

/// Longest that one input may take. Where the machine was busy, one of many tries is quicker.
const MAX_TIME: Duration = Duration::from_millis(100);
const TRIES: usize = 20;

/// Seconds that a target may go on for outcomes that it has not come to: the machine may be busy.
const PATIENCE: u64 = 60;

/// Runs a target once; a panic tells its input.
fn check(target: &Target, input: &[u8]) -> String {
    let checked = catch_unwind(AssertUnwindSafe(|| (target.check)(input)));
    checked.unwrap_or_else(|panic| {
        eprintln!("{}: b\"{}\"", target.name, input.escape_ascii());
        resume_unwind(panic)
    })
}

/// The same, within its time.
fn check_quickly(target: &Target, input: &[u8]) -> String {
    let timed = || {
        let start = Instant::now();
        (check(target, input), start.elapsed())
    };
    let (outcome, mut best) = timed();
    for _ in 0..TRIES {
        if best <= MAX_TIME {
            break;
        }
        best = best.min(timed().1);
    }
    assert!(
        best <= MAX_TIME,
        "{}: {best:?} for b\"{}\"",
        target.name,
        input.escape_ascii()
    );
    outcome
}

/// Each target's seeds alone come as far as it goes.
#[test]
fn seeds_reach_every_outcome() {
    assert_eq!(targets::ALL.map(|target| target.name), NAMES);
    let mut missing = Vec::new();
    for target in targets::ALL {
        let seeds = (target.seeds)();
        let reached: Vec<_> = seeds.iter().map(|seed| check(target, seed)).collect();
        let is_missing = |outcome: &&&str| !reached.iter().any(|found| found == **outcome);
        let outcomes = target.outcomes.iter().filter(is_missing);
        missing
            .extend(outcomes.map(|outcome| format!("{}: {outcome}, but {reached:?}", target.name)));
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

macro_rules! tests {
    ($($name:ident),*) => {
        const NAMES: [&str; targets::ALL.len()] = [$(stringify!($name)),*];
        $(#[test]
        fn $name() {
            fuzz(targets::named(stringify!($name)));
        })*
    };
}

tests!(
    credential,
    token,
    header,
    claims,
    key_set,
    metadata,
    shared_keys,
    policy,
    structure,
    head,
    path,
    body,
    form,
    json,
    events,
    limits
);

fn fuzz(target: &Target) {
    let mut random = Random(0x7011_6a7e);
    let mut pool = Pool::default();
    for seed in (target.seeds)() {
        pool.add(check(target, &seed), seed, &mut random);
    }
    let seconds = u64::try_from(amount("FUZZ_SECONDS", 1)).unwrap();
    let start = Instant::now();
    let mut outcomes = BTreeMap::<String, u64>::new();
    let lacks = |outcomes: &BTreeMap<String, u64>| {
        let is_missing = |outcome: &&&str| !outcomes.contains_key(**outcome);
        target.outcomes.iter().find(is_missing).copied()
    };
    let may_go_on = |outcomes: &BTreeMap<String, u64>| {
        let more = lacks(outcomes).map_or(0, |_| PATIENCE);
        start.elapsed() < Duration::from_secs(seconds + more)
    };
    while may_go_on(&outcomes) {
        let input = pool.change(target, &mut random);
        let outcome = check_quickly(target, &input);
        *outcomes.entry(outcome.clone()).or_default() += 1;
        pool.add(outcome, input, &mut random);
    }
    let inputs: u64 = outcomes.values().sum();
    println!("{}: {inputs} inputs: {outcomes:?}", target.name);
    assert_eq!(lacks(&outcomes), None, "{}", target.name);
    let what = format!("fuzzing in-process: {}", target.name);
    let figures = format!(
        "{inputs} inputs, 0 crashes, 0 over {} ms",
        MAX_TIME.as_millis()
    );
    figure("R5", &what, &figures, true);
}
