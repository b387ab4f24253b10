//! Requests that arrive before the keys: held for a while, never forgotten, never let through.

use std::time::Duration;

use serde_json::json;
use tollgate_second_host::{
    APP_TWO, Answer, Entra, Process, Reply, Stream, Token, Vm, flip_signature, keys,
};

use crate::common::{fetching, good, live, seconds, with};

const MOST: usize = 1000;

fn start() -> (Process, Vm, Entra) {
    let process = Process::new();
    let vm = Vm::start(&process, &fetching());
    (process, vm, Entra::new(keys::jwks(&[keys::rsa(0)])))
}

#[test]
fn released_when_the_keys_come_each_with_its_own_verdict() {
    let process = Process::new();
    let denied = json!({ "apps": [{ "app_id": APP_TWO, "access": "deny" }] });
    let mut vm = Vm::start(&process, &with(fetching(), denied));
    let mut entra = Entra::new(keys::jwks(&[keys::rsa(0)]));
    let token = good(&process);
    let good = vm.request().bearer(&token).open();
    let forged = vm.request().bearer(&flip_signature(&token)).open();
    let other = Token::v1(&process).app(APP_TWO).sign(keys::rsa(0));
    let other = vm.request().bearer(&other).open();
    for stream in [good, forged, other] {
        assert_eq!(vm.answer(stream), Answer::Waiting);
    }
    live(&process, &mut entra, seconds(1), 4, &mut [&mut vm]);
    assert!(vm.answer(good).is_forwarded(), "{}", process.log_text());
    assert_eq!(vm.answer(forged).code(), "TokenSignatureInvalid");
    assert_eq!(vm.answer(other).code(), "AppNotAllowed");
    vm.respond(good, 200);
    let told = vm.finish(good);
    assert_eq!(told.field("status"), 200);
    assert_eq!(told.state("outcome").as_deref(), Some("allowed"));
    assert_eq!(vm.finish(forged).field("code"), "TokenSignatureInvalid");
    assert_eq!(vm.finish(other).field("code"), "AppNotAllowed");
}

#[test]
fn a_caller_who_leaves_while_it_waits_is_told_undecided() {
    let (process, mut vm, _) = start();
    let stream = vm.request().bearer(&good(&process)).open();
    assert_eq!(vm.answer(stream), Answer::Waiting);
    let told = vm.finish(stream);
    assert_eq!(told.field("outcome"), "undecided");
    assert!(told.field("app_id").is_null());
    assert!(told.field("action").is_string());
    vm.tick();
    let name = "tollgate_requests.app.none.outcome.undecided.code.none";
    assert_eq!(process.metric(name), Some(1), "{:#?}", process.metrics());
}

#[test]
fn what_needs_no_key_does_not_wait() {
    let (process, mut vm, _) = start();
    let now = process.clock().seconds();
    for (answer, code) in [
        (vm.request().send(), "TokenNotPresent"),
        (vm.request().bearer("x.y.z").send(), "JwtInvalid"),
        (
            vm.request()
                .bearer(&good(&process))
                .header("api-key", "k")
                .send(),
            "AuthenticationTypeDisabled",
        ),
        (
            vm.request()
                .bearer(
                    &Token::v1(&process)
                        .claim("iss", "https://evil/")
                        .sign(keys::rsa(0)),
                )
                .send(),
            "TokenIssuerNotAllowed",
        ),
    ] {
        assert_eq!(answer.code(), code);
    }
    // An unverified claim decides nothing, also not that a token is too old to wait.
    let old = Token::v1(&process)
        .claim("exp", now - 9000)
        .sign(keys::rsa(0));
    let old = vm.request().bearer(&old).open();
    assert!(!vm.answer(old).is_forwarded());
}

#[test]
fn refused_with_retry_after_when_the_keys_do_not_come() {
    let (process, mut vm, _) = start();
    let stream = vm.request().bearer(&good(&process)).open();
    process.pass(Duration::from_millis(4_500), &mut [&mut vm]);
    assert_eq!(vm.answer(stream), Answer::Waiting, "gave up too early");
    process.pass(Duration::from_millis(2_000), &mut [&mut vm]);
    let answer = vm.answer(stream);
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (503, "KeysUnavailable")
    );
    assert!(
        (1..=60).contains(&answer.headers().number("retry-after")),
        "{answer:?}"
    );
    let told = vm.finish(stream);
    assert_eq!(told.field("outcome"), "unavailable");
    assert_eq!(told.field("status"), 503);
}

#[test]
fn a_provider_that_says_no_is_never_the_callers_fault() {
    for reply in [
        Reply::failed(),
        Reply::with(500, "{}"),
        Reply::with(200, "<html>"),
    ] {
        let (process, mut vm, mut entra) = start();
        entra.fail(reply);
        let mut answers = Vec::new();
        for _ in 0..40 {
            let stream = vm.request().bearer(&good(&process)).open();
            live(
                &process,
                &mut entra,
                Duration::from_millis(250),
                1,
                &mut [&mut vm],
            );
            answers.push(stream);
        }
        live(&process, &mut entra, seconds(10), 20, &mut [&mut vm]);
        for stream in answers {
            assert_eq!(vm.answer(stream).code(), "KeysUnavailable");
        }
    }
}

#[test]
fn bounded_at_a_thousand() {
    let (process, mut vm, mut entra) = start();
    let token = good(&process);
    let waiting: Vec<Stream> = (0..MOST)
        .map(|_| vm.request().bearer(&token).open())
        .collect();
    for stream in &waiting {
        assert_eq!(vm.answer(*stream), Answer::Waiting);
    }
    for _ in 0..20 {
        let answer = vm.request().bearer(&token).send();
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (503, "KeysUnavailable")
        );
        assert!(answer.headers().number("retry-after") >= 1);
    }
    live(&process, &mut entra, seconds(1), 50, &mut [&mut vm]);
    for stream in waiting {
        assert!(vm.answer(stream).is_forwarded());
        vm.respond(stream, 200);
        let _ = vm.finish(stream);
    }
}

/// Envoy nests the answers and resumptions that one call asks for, and hundreds exhaust the VM's stack.
#[test]
fn released_a_few_at_a_time() {
    let (process, mut vm, mut entra) = start();
    let token = good(&process);
    let streams: Vec<Stream> = (0..100)
        .map(|_| vm.request().bearer(&token).open())
        .collect();
    let left = |vm: &Vm| {
        let waits = |stream: &&Stream| vm.answer(**stream) == Answer::Waiting;
        streams.iter().filter(waits).count()
    };
    live(&process, &mut entra, seconds(1), 2, &mut [&mut vm]);
    let mut before = left(&vm);
    assert!((1..100).contains(&before), "{before}");
    while before > 0 {
        assert_eq!(vm.tick_period(), Some(Duration::from_millis(1)));
        vm.tick();
        let now = left(&vm);
        assert!((1..=32).contains(&(before - now)), "{before} to {now}");
        before = now;
    }
    assert_eq!(vm.tick_period(), Some(Duration::from_millis(100)));
}

#[test]
fn places_are_free_again_when_callers_leave() {
    let (process, mut vm, mut entra) = start();
    let token = good(&process);
    let first: Vec<Stream> = (0..MOST)
        .map(|_| vm.request().bearer(&token).open())
        .collect();
    for stream in first {
        assert_eq!(vm.finish(stream).answer, Answer::Waiting);
    }
    process.pass(Duration::from_millis(10), &mut [&mut vm]);
    let second: Vec<Stream> = (0..MOST)
        .map(|_| vm.request().bearer(&token).open())
        .collect();
    for stream in &second {
        assert_eq!(vm.answer(*stream), Answer::Waiting);
    }
    live(&process, &mut entra, seconds(1), 50, &mut [&mut vm]);
    for stream in second {
        assert!(vm.answer(stream).is_forwarded());
    }
}

#[test]
fn a_stream_that_ended_while_waiting_is_harmless() {
    let (process, mut vm, mut entra) = start();
    let token = good(&process);
    let streams: Vec<Stream> = (0..9).map(|_| vm.request().bearer(&token).open()).collect();
    let (gone, left): (Vec<_>, Vec<_>) = streams
        .into_iter()
        .enumerate()
        .partition(|(n, _)| n % 2 == 0);
    for (_, stream) in gone {
        let told = vm.finish(stream);
        assert_eq!(told.answer, Answer::Waiting);
    }
    live(&process, &mut entra, seconds(1), 4, &mut [&mut vm]);
    for (_, stream) in left {
        assert!(vm.answer(stream).is_forwarded());
    }

    // The same at the deadline.
    let (process, mut vm, _) = start();
    let token = good(&process);
    let gone = vm.request().bearer(&token).open();
    let left = vm.request().bearer(&token).open();
    let _ = vm.finish(gone);
    process.pass(seconds(7), &mut [&mut vm]);
    assert_eq!(vm.answer(left).code(), "KeysUnavailable");
}

#[test]
fn an_update_does_not_strand_those_who_wait() {
    let (process, mut vm, mut entra) = start();
    let stream = vm.request().bearer(&good(&process)).open();
    vm.update(&with(fetching(), json!({ "mode": "enforce" })))
        .expect("a good policy");
    for _ in 0..20 {
        process.clock().advance(Duration::from_millis(500));
        vm.tick();
        entra.serve(&mut vm);
    }
    assert_ne!(vm.answer(stream), Answer::Waiting, "stranded");
    assert!(vm.request().bearer(&good(&process)).send().is_forwarded());
}

/// A fetch is under way when `update` comes; a request that comes with the new policy passes.
fn passes_after(update: impl Fn(&mut Vm, &serde_json::Value)) {
    let (process, mut vm, mut entra) = start();
    process.pass(seconds(1), &mut [&mut vm]);
    update(
        &mut vm,
        &with(fetching(), json!({ "cors_preflight": "pass" })),
    );
    let stream = vm.request().bearer(&good(&process)).open();
    live(&process, &mut entra, seconds(6), 60, &mut [&mut vm]);
    let answer = vm.answer(stream);
    assert!(answer.is_forwarded(), "{answer:?}");
}

#[test]
fn an_update_during_a_fetch_does_not_leave_the_new_policy_without_keys() {
    // Envoy cancels the fetch with the root context that made it.
    passes_after(|vm, policy| vm.update(policy).expect("good"));
}

#[test]
fn a_reconfiguration_during_a_fetch_does_not_leave_the_new_policy_without_keys() {
    passes_after(|vm, policy| vm.reconfigure(policy).expect("good"));
}

#[test]
fn a_root_that_is_configured_again_keeps_those_who_wait() {
    let (process, mut vm, mut entra) = start();
    let stream = vm.request().bearer(&good(&process)).open();
    vm.reconfigure(&with(fetching(), json!({ "cors_preflight": "pass" })))
        .expect("good");
    live(&process, &mut entra, seconds(2), 20, &mut [&mut vm]);
    assert!(vm.answer(stream).is_forwarded(), "{:?}", vm.answer(stream));
}

#[test]
fn report_mode_waits_for_nothing() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &with(fetching(), json!({ "mode": "report" })));
    let told = vm.request().bearer(&good(&process)).complete();
    assert!(told.answer.is_forwarded());
    assert_eq!(told.field("code"), "KeysUnavailable");
}

#[test]
fn limits_count_a_waiting_request_when_it_goes_on() {
    let process = Process::new();
    let one = json!({ "default_app": { "limits": [{ "calls": 1, "per": "60s" }] } });
    let mut vm = Vm::start(&process, &with(fetching(), one));
    let mut entra = Entra::new(keys::jwks(&[keys::rsa(0)]));
    let token = good(&process);
    let first = vm.request().bearer(&token).open();
    let second = vm.request().bearer(&token).open();
    live(&process, &mut entra, seconds(1), 4, &mut [&mut vm]);
    let answers = [vm.answer(first), vm.answer(second)];
    let forwarded = answers
        .iter()
        .filter(|answer| answer.is_forwarded())
        .count();
    assert_eq!(forwarded, 1, "{answers:#?}");
    let refused = answers
        .iter()
        .find(|answer| !answer.is_forwarded())
        .expect("one");
    assert_eq!(refused.code(), "RateLimitExceeded");
}
