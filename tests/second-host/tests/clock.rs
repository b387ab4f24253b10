//! Wall clocks that jump: nothing opens for free, nothing stays shut.

use serde_json::json;
use tollgate_second_host::{Answer, Entra, Process, Token, Vm, keys};

use crate::common::{fetching, good, hours, inline, limited, live, seconds};

#[test]
fn an_hour_back_neither_opens_nor_shuts_a_window() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &limited(json!({ "calls": 2, "per": "60s" })));
    let token = good(&process);
    assert!(vm.request().bearer(&token).send().is_forwarded());
    assert!(vm.request().bearer(&token).send().is_forwarded());
    process.clock().set_back(hours(1));
    let token = good(&process);
    assert_eq!(
        vm.request().bearer(&token).send().code(),
        "RateLimitExceeded"
    );
    process.clock().advance(seconds(62));
    assert!(
        vm.request().bearer(&token).send().is_forwarded(),
        "shut for longer than a window"
    );
    assert!(vm.request().bearer(&token).send().is_forwarded());
    assert_eq!(
        vm.request().bearer(&token).send().code(),
        "RateLimitExceeded"
    );
}

#[test]
fn a_day_forward_opens_every_window() {
    for per in ["60s", "day"] {
        let process = Process::new();
        let mut vm = Vm::start(&process, &limited(json!({ "calls": 1, "per": per })));
        assert!(vm.request().bearer(&good(&process)).send().is_forwarded());
        assert!(!vm.request().bearer(&good(&process)).send().is_forwarded());
        process.clock().set_forward(hours(24));
        assert!(
            vm.request().bearer(&good(&process)).send().is_forwarded(),
            "{per}"
        );
        assert!(
            !vm.request().bearer(&good(&process)).send().is_forwarded(),
            "{per}"
        );
    }
}

#[test]
fn a_clock_that_flutters_lets_nobody_through_twice() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &limited(json!({ "calls": 5, "per": "60s" })));
    let token = good(&process);
    let mut passed = 0;
    for n in 0..40 {
        if n % 2 == 0 {
            process.clock().set_back(seconds(1));
        } else {
            process.clock().set_forward(seconds(1));
        }
        passed += u32::from(vm.request().bearer(&token).send().is_forwarded());
    }
    assert_eq!(passed, 5);
}

#[test]
fn fetched_keys_outlive_an_hour_back() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &fetching());
    let mut entra = Entra::new(keys::jwks(&[keys::rsa(0)]));
    live(&process, &mut entra, seconds(2), 4, &mut [&mut vm]);
    process.clock().set_back(hours(1));
    assert!(vm.request().bearer(&good(&process)).send().is_forwarded());
    // The schedule does not stand still for an hour: a rotation is still seen in time.
    entra.jwks = keys::jwks(&[keys::rsa(1)]);
    live(&process, &mut entra, seconds(3_700), 370, &mut [&mut vm]);
    let new = Token::v1(&process).sign(keys::rsa(1));
    assert!(
        vm.request().bearer(&new).send().is_forwarded(),
        "{}",
        process.log_text()
    );
    assert!(entra.key_requests <= 4, "{} requests", entra.key_requests);
}

#[test]
fn a_day_forward_fetches_anew_before_old_keys_count() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &fetching());
    let mut entra = Entra::new(keys::jwks(&[keys::rsa(0)]));
    live(&process, &mut entra, seconds(2), 4, &mut [&mut vm]);
    process.clock().set_forward(hours(26));
    let stream = vm.request().bearer(&good(&process)).open();
    assert_eq!(vm.answer(stream), Answer::Waiting);
    live(&process, &mut entra, seconds(2), 8, &mut [&mut vm]);
    assert!(vm.answer(stream).is_forwarded(), "{}", process.log_text());
    assert_eq!(entra.key_requests, 2);
}

#[test]
fn an_hour_back_strands_nobody_who_waits() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &fetching());
    let stream = vm.request().bearer(&good(&process)).open();
    process.clock().set_back(hours(1));
    process.pass(seconds(15), &mut [&mut vm]);
    assert_eq!(
        vm.answer(stream).code(),
        "KeysUnavailable",
        "still waiting after 15 s"
    );
    // Nor those who come later, once the provider answers.
    let mut entra = Entra::new(keys::jwks(&[keys::rsa(0)]));
    live(&process, &mut entra, seconds(30), 60, &mut [&mut vm]);
    assert!(vm.request().bearer(&good(&process)).send().is_forwarded());
}

#[test]
fn a_token_is_judged_by_the_clock_of_the_moment() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &inline());
    let token = good(&process);
    assert!(vm.request().bearer(&token).send().is_forwarded());
    process.clock().set_forward(hours(24));
    assert_eq!(vm.request().bearer(&token).send().code(), "TokenExpired");
    process.clock().set_back(hours(26));
    assert_eq!(
        vm.request().bearer(&token).send().code(),
        "TokenNotYetValid"
    );
    process.clock().set_forward(hours(2));
    assert!(vm.request().bearer(&token).send().is_forwarded());
}

#[test]
fn the_beginning_and_the_end_of_time() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &limited(json!({ "calls": 5, "per": "60s" })));
    let token = Token::v1(&Process::new()).claim("nbf", 0).claim("iat", 0);
    let token = token.claim("exp", 20_000_000_000_u64).sign(keys::rsa(0));
    for at in [1, 4_102_444_800, 18_000_000_000] {
        process.clock().set(at);
        assert!(vm.request().bearer(&token).send().is_forwarded(), "at {at}");
        vm.tick();
    }
    // Where a clock that fails stands.
    process.clock().set(0);
    assert_eq!(vm.request().bearer(&token).send().code(), "InternalError");
    vm.tick();
}
