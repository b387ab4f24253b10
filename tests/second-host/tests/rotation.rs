//! Keys over time: refresh, rotation, unknown kids, and how long an old set serves.

use serde_json::{Value, json};
use tollgate_second_host::{Answer, Entra, Process, Reply, Token, Vm, keys};

use crate::common::{fetching, good, hours, live, seconds, with_issuer};

/// A VM that has fetched the set with key 0.
fn loaded(policy: &Value) -> (Process, Vm, Entra) {
    let process = Process::new();
    let mut vm = Vm::start(&process, policy);
    let mut entra = Entra::new(keys::jwks(&[keys::rsa(0)]));
    live(&process, &mut entra, seconds(2), 4, &mut [&mut vm]);
    assert_eq!(entra.key_requests, 1);
    (process, vm, entra)
}

fn unknown(process: &Process, kid: &str) -> String {
    Token::v1(process).sign(&keys::rsa(1).named(kid))
}

#[test]
fn refreshed_every_hour_and_no_more_often() {
    let (process, mut vm, mut entra) = loaded(&fetching());
    live(&process, &mut entra, hours(10), 10 * 120, &mut [&mut vm]);
    // Ten, or one more because each comes a little early by chance.
    assert!(
        (10..=12).contains(&entra.key_requests),
        "{} requests",
        entra.key_requests
    );
}

#[test]
fn an_unknown_kid_is_fetched_once_and_the_request_waits_for_it() {
    let (process, mut vm, mut entra) = loaded(&fetching());
    live(&process, &mut entra, seconds(301), 10, &mut [&mut vm]);
    entra.jwks = keys::jwks(&[keys::rsa(0), keys::rsa(1)]);

    let token = Token::v1(&process).sign(keys::rsa(1));
    let waiting = vm.request().bearer(&token).open();
    assert_eq!(vm.answer(waiting), Answer::Waiting);
    live(&process, &mut entra, seconds(2), 4, &mut [&mut vm]);
    assert_eq!(entra.key_requests, 2);
    assert!(vm.answer(waiting).is_forwarded(), "{}", process.log_text());
    vm.respond(waiting, 200);
    let _ = vm.finish(waiting);
    assert!(vm.request().bearer(&token).send().is_forwarded());
}

#[test]
fn unknown_kids_cause_one_fetch_within_the_floor() {
    let (process, mut vm, mut entra) = loaded(&fetching());
    // The set has just come: no kid brings another fetch.
    for n in 0..50 {
        let answer = vm
            .request()
            .bearer(&unknown(&process, &format!("kid-{n}")))
            .send();
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (401, "TokenSignatureKeyNotFound")
        );
    }
    live(&process, &mut entra, seconds(200), 100, &mut [&mut vm]);
    assert_eq!(entra.key_requests, 1);

    live(&process, &mut entra, seconds(101), 10, &mut [&mut vm]);
    for n in 0..200 {
        let stream = vm
            .request()
            .bearer(&unknown(&process, &format!("later-{n}")))
            .open();
        live(&process, &mut entra, seconds(1), 1, &mut [&mut vm]);
        let answer = vm.answer(stream);
        assert_eq!(answer.code(), "TokenSignatureKeyNotFound", "after {n} more");
        let _ = vm.finish(stream);
    }
    assert_eq!(
        entra.key_requests, 2,
        "200 seconds are within the floor of 300"
    );
}

#[test]
fn a_provider_that_fails_is_not_asked_more_often_either() {
    let (process, mut vm, mut entra) = loaded(&fetching());
    entra.fail(Reply::with(500, "{}"));
    live(&process, &mut entra, hours(3), 3 * 720, &mut [&mut vm]);
    let asked = entra.key_requests - 1;
    assert!(asked >= 2, "the provider was given up after {asked} tries");
    assert!(
        asked <= 3 * 12,
        "{asked} requests in three hours; one in five minutes is the floor"
    );
}

#[test]
fn a_retired_key_is_refused() {
    let (process, mut vm, mut entra) = loaded(&fetching());
    entra.jwks = keys::jwks(&[keys::rsa(1)]);
    assert!(vm.request().bearer(&good(&process)).send().is_forwarded());
    live(&process, &mut entra, seconds(4000), 200, &mut [&mut vm]);
    let old = vm.request().bearer(&good(&process)).open();
    live(&process, &mut entra, seconds(10), 20, &mut [&mut vm]);
    assert_eq!(vm.answer(old).code(), "TokenSignatureKeyNotFound");
    let new = Token::v1(&process).sign(keys::rsa(1));
    assert!(vm.request().bearer(&new).send().is_forwarded());
}

#[test]
fn k1_one_answer_without_a_key_refuses_no_token_of_it() {
    let (process, mut vm, mut entra) = loaded(&fetching());
    let token = Token::v1(&process).claim("exp", process.clock().seconds() + 86_400);
    let token = token.sign(keys::rsa(0));
    assert!(vm.request().bearer(&token).send().is_forwarded());
    entra.jwks = keys::jwks(&[keys::rsa(1)]);
    let asked = entra.key_requests;
    while entra.key_requests == asked {
        live(&process, &mut entra, seconds(10), 10, &mut [&mut vm]);
    }
    entra.jwks = keys::jwks(&[keys::rsa(0), keys::rsa(1)]);
    for _ in 0..40 {
        live(&process, &mut entra, seconds(10), 10, &mut [&mut vm]);
        assert!(vm.request().bearer(&token).send().is_forwarded());
        assert!(vm.request().bearer(&good(&process)).send().is_forwarded());
    }
    assert_eq!(
        entra.key_requests,
        asked + 2,
        "asked again after five minutes"
    );
}

#[test]
fn a_key_that_changed_under_its_kid_is_the_new_one() {
    let (process, mut vm, mut entra) = loaded(&fetching());
    let replaced = keys::rsa(1).named(&keys::rsa(0).kid);
    entra.jwks = keys::jwks(&[&replaced]);
    let old = good(&process);
    assert!(vm.request().bearer(&old).send().is_forwarded());
    live(&process, &mut entra, seconds(3700), 200, &mut [&mut vm]);
    let new = Token::v1(&process).sign(&replaced);
    assert!(vm.request().bearer(&new).send().is_forwarded());
    let fresh_but_old_key = Token::v1(&process).sign(keys::rsa(0));
    assert_eq!(
        vm.request().bearer(&fresh_but_old_key).send().code(),
        "TokenSignatureInvalid"
    );
}

#[test]
fn a_cached_token_of_a_retired_key_is_refused() {
    let (process, mut vm, mut entra) = loaded(&fetching());
    let now = process.clock().seconds();
    let token = Token::v1(&process)
        .claim("exp", now + 86_400)
        .sign(keys::rsa(0));
    assert!(vm.request().bearer(&token).send().is_forwarded());
    entra.jwks = keys::jwks(&[keys::rsa(1)]);
    live(&process, &mut entra, seconds(4000), 200, &mut [&mut vm]);
    let stream = vm.request().bearer(&token).open();
    live(&process, &mut entra, seconds(10), 20, &mut [&mut vm]);
    assert_eq!(vm.answer(stream).code(), "TokenSignatureKeyNotFound");
}

#[test]
fn the_last_good_set_serves_for_a_day_and_no_longer() {
    let (process, mut vm, mut entra) = loaded(&fetching());
    entra.fail(Reply::failed());
    live(&process, &mut entra, hours(23), 23 * 60, &mut [&mut vm]);
    assert!(vm.request().bearer(&good(&process)).send().is_forwarded());

    live(&process, &mut entra, hours(3), 3 * 60, &mut [&mut vm]);
    let waiting = vm.request().bearer(&good(&process)).open();
    assert_eq!(
        vm.answer(waiting),
        Answer::Waiting,
        "old keys serve after 26 hours"
    );
    live(&process, &mut entra, seconds(10), 20, &mut [&mut vm]);
    let answer = vm.answer(waiting);
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (503, "KeysUnavailable")
    );

    entra.recover();
    live(&process, &mut entra, seconds(30), 60, &mut [&mut vm]);
    assert!(vm.request().bearer(&good(&process)).send().is_forwarded());
}

#[test]
fn a_cached_token_passes_no_longer_than_its_keys_serve() {
    let (process, mut vm, mut entra) = loaded(&fetching());
    let exp = process.clock().seconds() + 30 * 86_400;
    let token = Token::v1(&process).claim("exp", exp).sign(keys::rsa(0));
    assert!(vm.request().bearer(&token).send().is_forwarded());
    entra.fail(Reply::failed());
    live(&process, &mut entra, hours(26), 26 * 60, &mut [&mut vm]);
    let stream = vm.request().bearer(&token).open();
    assert!(
        !vm.answer(stream).is_forwarded(),
        "a day after its keys went stale"
    );
}

#[test]
fn the_policy_sets_the_times() {
    let refresh = json!({ "refresh": {
        "every": "10m", "at_most_every": "30s", "keep_stale_for": "20m", "timeout": "2s",
    } });
    let process = Process::new();
    let mut vm = Vm::start(&process, &with_issuer(fetching(), refresh));
    process.pass(seconds(1), &mut [&mut vm]);
    let callouts = vm.callouts();
    assert_eq!(callouts[0].timeout, seconds(2));
    let mut entra = Entra::new(keys::jwks(&[keys::rsa(0)]));
    for callout in callouts {
        let reply = entra.reply(&callout);
        vm.reply(callout, reply);
    }
    live(&process, &mut entra, hours(1), 720, &mut [&mut vm]);
    assert!(
        (6..=8).contains(&(entra.key_requests - 1)),
        "{} requests",
        entra.key_requests
    );
    entra.fail(Reply::failed());
    live(
        &process,
        &mut entra,
        seconds(35 * 60),
        35 * 12,
        &mut [&mut vm],
    );
    let stream = vm.request().bearer(&good(&process)).open();
    assert!(!vm.answer(stream).is_forwarded());
}
