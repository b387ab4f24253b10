//! Several VMs of one process: one fetch for all, one count for all.

use std::time::Duration;

use serde_json::json;
use tollgate_second_host::{Answer, Entra, Process, Token, Vm, keys};

use crate::common::{discovering, fetching, good, hours, limited, live, seconds, with};

#[test]
fn one_fetch_serves_three_workers() {
    for policy in [fetching(), discovering()] {
        let process = Process::new();
        let [mut a, mut b, mut c] = [(); 3].map(|()| Vm::start(&process, &policy));
        let mut entra = Entra::new(keys::jwks(&[keys::rsa(0)]));
        let token = good(&process);
        let waiting = [&mut a, &mut b, &mut c].map(|vm| vm.request().bearer(&token).open());
        live(
            &process,
            &mut entra,
            seconds(3),
            12,
            &mut [&mut a, &mut b, &mut c],
        );
        assert_eq!(entra.key_requests, 1);
        assert!(entra.metadata_requests <= 1);
        for (vm, stream) in [&mut a, &mut b, &mut c].into_iter().zip(waiting) {
            assert!(vm.answer(stream).is_forwarded(), "{}", process.log_text());
            assert!(vm.request().bearer(&token).send().is_forwarded());
        }
        // And for hours to come.
        live(
            &process,
            &mut entra,
            hours(5),
            5 * 60,
            &mut [&mut a, &mut b, &mut c],
        );
        assert!(
            (5..=7).contains(&(entra.key_requests - 1)),
            "{} requests",
            entra.key_requests
        );
    }
}

#[test]
fn a_worker_that_starts_later_needs_no_fetch() {
    let process = Process::new();
    let mut first = Vm::start(&process, &fetching());
    let mut entra = Entra::new(keys::jwks(&[keys::rsa(0)]));
    live(&process, &mut entra, seconds(2), 4, &mut [&mut first]);
    let mut later = Vm::start(&process, &fetching());
    live(&process, &mut entra, seconds(1), 2, &mut [&mut later]);
    assert!(
        later
            .request()
            .bearer(&good(&process))
            .send()
            .is_forwarded()
    );
    assert_eq!(entra.key_requests, 1);
}

#[test]
fn one_unknown_kid_on_every_worker_is_one_fetch() {
    let process = Process::new();
    let [mut a, mut b, mut c] = [(); 3].map(|()| Vm::start(&process, &fetching()));
    let mut entra = Entra::new(keys::jwks(&[keys::rsa(0)]));
    live(
        &process,
        &mut entra,
        seconds(1),
        10,
        &mut [&mut a, &mut b, &mut c],
    );
    live(
        &process,
        &mut entra,
        seconds(301),
        60,
        &mut [&mut a, &mut b, &mut c],
    );
    assert_eq!(entra.key_requests, 1);
    entra.jwks = keys::jwks(&[keys::rsa(0), keys::rsa(1)]);
    let token = Token::v1(&process).sign(keys::rsa(1));
    let waiting = [&mut a, &mut b, &mut c].map(|vm| vm.request().bearer(&token).open());
    live(
        &process,
        &mut entra,
        seconds(3),
        12,
        &mut [&mut a, &mut b, &mut c],
    );
    assert_eq!(entra.key_requests, 2);
    for (vm, stream) in [&mut a, &mut b, &mut c].into_iter().zip(waiting) {
        assert!(vm.answer(stream).is_forwarded());
    }
}

#[test]
fn a_worker_that_dies_with_the_fetch_does_not_hold_up_the_others() {
    let process = Process::new();
    let mut first = Vm::start(&process, &fetching());
    process.pass(seconds(1), &mut [&mut first]);
    assert_eq!(first.callouts().len(), 1);
    drop(first);
    let mut second = Vm::start(&process, &fetching());
    let mut entra = Entra::new(keys::jwks(&[keys::rsa(0)]));
    live(&process, &mut entra, seconds(30), 60, &mut [&mut second]);
    assert_eq!(entra.key_requests, 1);
    assert!(
        second
            .request()
            .bearer(&good(&process))
            .send()
            .is_forwarded()
    );
}

#[test]
fn a_late_reply_to_an_abandoned_fetch_is_harmless() {
    let process = Process::new();
    let mut slow = Vm::start(&process, &fetching());
    process.pass(seconds(1), &mut [&mut slow]);
    let late = slow.callouts().remove(0);
    let mut quick = Vm::start(&process, &fetching());
    let mut entra = Entra::new(keys::jwks(&[keys::rsa(1)]));
    live(&process, &mut entra, seconds(30), 60, &mut [&mut quick]);
    let token = Token::v1(&process).sign(keys::rsa(1));
    assert!(quick.request().bearer(&token).send().is_forwarded());

    let outdated = tollgate_second_host::Reply::json(&keys::jwks(&[keys::rsa(0)]));
    slow.reply(late, outdated);
    live(
        &process,
        &mut entra,
        seconds(2),
        4,
        &mut [&mut slow, &mut quick],
    );
    assert!(
        quick.request().bearer(&token).send().is_forwarded(),
        "the newer set was lost"
    );
}

#[test]
fn plugins_of_other_names_keep_apart() {
    let process = Process::new();
    let policy = with(
        fetching(),
        json!({ "default_app": { "limits": [{ "calls": 1, "per": "60s" }] } }),
    );
    let mut east = Vm::start_as(&process, "east", &policy);
    let mut west = Vm::start_as(&process, "west", &policy);
    let mut entra = Entra::new(keys::jwks(&[keys::rsa(0)]));
    live(
        &process,
        &mut entra,
        seconds(2),
        4,
        &mut [&mut east, &mut west],
    );
    assert_eq!(entra.key_requests, 2);
    let token = good(&process);
    assert!(east.request().bearer(&token).send().is_forwarded());
    assert_eq!(
        east.request().bearer(&token).send().code(),
        "RateLimitExceeded"
    );
    assert!(west.request().bearer(&token).send().is_forwarded());
}

#[test]
fn a_limit_is_exact_over_interleaved_workers() {
    let process = Process::new();
    let policy = limited(json!({ "calls": 10, "per": "60s" }));
    let mut a = Vm::start(&process, &policy);
    let mut b = Vm::start(&process, &policy);
    let token = good(&process);
    let mut passed = 0;
    for _ in 0..20 {
        for vm in [&mut a, &mut b] {
            // All in flight at once: none ends before the last begins.
            let stream = vm.request().bearer(&token).open();
            passed += u32::from(vm.answer(stream).is_forwarded());
        }
    }
    assert_eq!(passed, 10);
    process.clock().advance(seconds(62));
    for _ in 0..5 {
        assert!(a.request().bearer(&token).send().is_forwarded());
        assert!(b.request().bearer(&token).send().is_forwarded());
    }
    assert_eq!(
        a.request().bearer(&token).send().code(),
        "RateLimitExceeded"
    );
    assert_eq!(
        b.request().bearer(&token).send().code(),
        "RateLimitExceeded"
    );
}

#[test]
fn a_limit_is_exact_over_parallel_workers() {
    const WORKERS: usize = 4;
    const LIMIT: usize = 100;
    let process = Process::new();
    let policy = limited(json!({ "calls": LIMIT, "per": "60s" }));
    let token = good(&process);
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (mut vm, token) = (Vm::start(&process, &policy), token.clone());
            std::thread::spawn(move || {
                (0..LIMIT)
                    .filter(|_| vm.request().bearer(&token).send().is_forwarded())
                    .count()
            })
        })
        .collect();
    let passed: usize = workers
        .into_iter()
        .map(|w| w.join().expect("no panic"))
        .sum();
    assert_eq!(passed, LIMIT);
}

#[test]
fn a_counter_that_others_write_is_retried() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &limited(json!({ "calls": 3, "per": "60s" })));
    let token = good(&process);
    assert!(vm.request().bearer(&token).send().is_forwarded());
    process.contend(3);
    assert!(vm.request().bearer(&token).send().is_forwarded());
    assert!(vm.request().bearer(&token).send().is_forwarded());
    assert_eq!(
        vm.request().bearer(&token).send().code(),
        "RateLimitExceeded"
    );
    vm.tick();
    let retries = process
        .metrics()
        .into_iter()
        .find(|(name, _)| name.contains("counter_retries"));
    assert_eq!(
        retries
            .unwrap_or_else(|| panic!("{:#?}", process.metrics()))
            .1,
        3
    );
}

#[test]
fn a_counter_that_cannot_be_written_refuses() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &limited(json!({ "calls": 3, "per": "60s" })));
    let token = good(&process);
    assert!(vm.request().bearer(&token).send().is_forwarded());
    process.contend(u32::MAX);
    let answer = vm.request().bearer(&token).send();
    assert!(matches!(answer, Answer::Local { .. }), "{answer:?}");
    process.contend(0);
    assert!(vm.request().bearer(&token).send().is_forwarded());
}

#[test]
fn shared_data_that_means_nothing_is_begun_anew() {
    let process = Process::new();
    let policy = with(
        fetching(),
        json!({ "default_app": { "limits": [{ "calls": 5, "per": "60s" }] } }),
    );
    let mut vm = Vm::start(&process, &policy);
    let mut entra = Entra::new(keys::jwks(&[keys::rsa(0)]));
    live(&process, &mut entra, seconds(2), 4, &mut [&mut vm]);
    let token = good(&process);
    assert!(vm.request().bearer(&token).send().is_forwarded());
    for garbage in [
        b"".as_slice(),
        b"\0",
        b"\xff\xff\xff\xff",
        &[7; 100],
        &[0; 4096],
    ] {
        for key in process.shared_keys() {
            process.overwrite_shared(&key, garbage);
        }
        let mut fresh = Vm::start(&process, &policy);
        for _ in 0..8 {
            let stream = fresh.request().bearer(&token).open();
            live(
                &process,
                &mut entra,
                Duration::from_millis(500),
                1,
                &mut [&mut vm, &mut fresh],
            );
            let _ = fresh.answer(stream);
            let _ = fresh.finish(stream);
        }
        live(
            &process,
            &mut entra,
            seconds(70),
            140,
            &mut [&mut vm, &mut fresh],
        );
        for vm in [&mut vm, &mut fresh] {
            let answer = vm.request().bearer(&token).send();
            assert!(
                answer.is_forwarded(),
                "{garbage:?}: {answer:?}\n{}",
                process.log_text()
            );
        }
        let passed = (0..6).filter(|_| vm.request().bearer(&token).send().is_forwarded());
        assert_eq!(passed.count(), 3, "{garbage:?}: two of five were used");
        process.clock().advance(seconds(70));
    }
}
