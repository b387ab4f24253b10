//! Limits and quotas: never one too many, never one too few for long.

use std::collections::VecDeque;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tollgate_second_host::{APP_ONE, APP_TWO, Answer, Process, Token, Vm, keys};

use crate::common::{good, inline, limited, seconds, with};

fn start(limit: Value) -> (Process, Vm, String) {
    let process = Process::new();
    let vm = Vm::start(&process, &limited(limit));
    // One token for the whole test, however long its clock runs.
    let exp = process.clock().seconds() + 400 * 86_400;
    let token = Token::v1(&process).claim("exp", exp).sign(keys::rsa(0));
    (process, vm, token)
}

/// Whether one request goes on; it is answered with 200 and ends.
fn passes(vm: &mut Vm, token: &str) -> bool {
    vm.request().bearer(token).send().is_forwarded()
}

#[test]
fn n_pass_and_then_none() {
    let (_, mut vm, token) = start(json!({ "calls": 3, "per": "60s" }));
    for _ in 0..3 {
        assert!(passes(&mut vm, &token));
    }
    let answer = vm.request().bearer(&token).send();
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (429, "RateLimitExceeded")
    );
    let headers = answer.headers();
    assert_eq!(headers.number("x-ratelimit-limit-requests"), 3);
    assert_eq!(headers.number("x-ratelimit-remaining-requests"), 0);
    assert!((60..=61).contains(&headers.number("x-ratelimit-reset-requests")));
    // What SDKs obey, though room comes a moment later.
    assert_eq!(headers.number("retry-after"), 60);
    assert_eq!(headers.number("retry-after-ms"), 59_999);
    assert!(!headers.contains("x-should-retry"));
}

#[test]
fn retry_after_is_long_enough_and_not_much_too_long() {
    for (per, window) in [("1s", 1_000), ("60s", 60_000), ("5m", 300_000)] {
        let (process, mut vm, token) = start(json!({ "calls": 2, "per": per }));
        assert!(passes(&mut vm, &token));
        process.clock().advance(Duration::from_millis(window / 7));
        assert!(passes(&mut vm, &token));
        let refused = vm.request().bearer(&token).send();
        let wait = refused.headers().number("retry-after-ms");
        let least = window - window / 7;
        assert!(
            (least..=least + window / 60 + 1).contains(&wait),
            "{per}: {wait} ms"
        );
        assert_eq!(refused.headers().number("retry-after"), wait.div_ceil(1000));
        process.clock().advance(Duration::from_millis(wait));
        assert!(passes(&mut vm, &token), "{per}: refused after {wait} ms");
        assert!(
            !passes(&mut vm, &token),
            "{per}: the second has not left the window"
        );
    }
}

#[test]
fn c2_nobody_is_sent_to_sleep_for_hours() {
    let (_, mut vm, token) = start(json!({ "calls": 1, "per": "24h" }));
    assert!(passes(&mut vm, &token));
    let refused = vm.request().bearer(&token).send();
    let headers = refused.headers();
    assert!(!headers.contains("retry-after") && !headers.contains("retry-after-ms"));
    assert_eq!(headers.get("x-should-retry").as_deref(), Some("false"));
    assert!(headers.number("x-ratelimit-reset-requests") >= 86_400);
}

#[test]
fn no_window_holds_too_many_and_none_is_refused_without_need() {
    const CALLS: usize = 5;
    const WINDOW: u64 = 60_000;
    let (process, mut vm, token) = start(json!({ "calls": CALLS, "per": "60s" }));
    let mut random = StdRng::seed_from_u64(11);
    let mut admitted: VecDeque<u64> = VecDeque::new();
    let mut now = 0_u64;
    for _ in 0..600 {
        let pause = random.random_range(0..2) * random.random_range(0..30_000);
        now += pause;
        process.clock().advance(Duration::from_millis(pause));
        let within = |span: u64| admitted.iter().filter(|at| now - **at < span).count();
        if passes(&mut vm, &token) {
            assert!(
                within(WINDOW) < CALLS,
                "one too many at {now} ms: {admitted:?}"
            );
            admitted.push_back(now);
        } else {
            assert!(
                within(WINDOW + WINDOW / 60 + 1) >= CALLS,
                "refused at {now} ms: {admitted:?}"
            );
        }
        while admitted.front().is_some_and(|at| now - at > 2 * WINDOW) {
            admitted.pop_front();
        }
    }
}

#[test]
fn a_quota_starts_anew_with_its_calendar_period() {
    // From 2025-06-15T15:06:40Z, a Sunday, to the end of the period.
    for (per, left) in [
        ("hour", 53 * 60 + 20),
        ("day", 8 * 3600 + 53 * 60 + 20),
        ("week", 8 * 3600 + 53 * 60 + 20),
        ("month", 15 * 86_400 + 8 * 3600 + 53 * 60 + 20),
    ] {
        let (process, mut vm, token) = start(json!({ "calls": 2, "per": per }));
        assert!(passes(&mut vm, &token));
        process.clock().advance(seconds(left - 10));
        assert!(passes(&mut vm, &token));
        let answer = vm.request().bearer(&token).send();
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (429, "QuotaExceeded"),
            "{per}"
        );
        let headers = answer.headers();
        assert_eq!(headers.get("x-should-retry").as_deref(), Some("false"));
        assert!(!headers.contains("retry-after"), "{per}");
        assert!(headers.number("x-ratelimit-reset-requests") <= 10, "{per}");
        process.clock().advance(seconds(9));
        assert!(!passes(&mut vm, &token), "{per}: a second too early");
        process.clock().advance(seconds(1));
        assert!(passes(&mut vm, &token), "{per}: {left} s");
        assert!(passes(&mut vm, &token), "{per}");
        assert!(!passes(&mut vm, &token), "{per}");
    }
}

#[test]
fn an_answer_that_does_not_count_gives_its_place_back() {
    for (count, keeps, gives) in [
        (json!([200]), vec![200], vec![201, 400, 429, 500]),
        (json!([200, 429]), vec![200, 429], vec![201, 500]),
        (
            json!("success"),
            vec![200, 201, 204, 299],
            vec![300, 404, 503],
        ),
        (json!("all"), vec![200, 400, 500], vec![]),
    ] {
        let limit = json!({ "calls": 1, "per": "60s", "count": count });
        for status in gives {
            let (_, mut vm, token) = start(limit.clone());
            for _ in 0..3 {
                let answer = vm.request().bearer(&token).backend(status).send();
                assert!(answer.is_forwarded(), "{count}: {status} was counted");
            }
        }
        for status in keeps {
            let (_, mut vm, token) = start(limit.clone());
            assert!(
                vm.request()
                    .bearer(&token)
                    .backend(status)
                    .send()
                    .is_forwarded()
            );
            assert!(
                !passes(&mut vm, &token),
                "{count}: {status} was not counted"
            );
        }
    }
}

#[test]
fn a_stream_that_ends_without_an_answer_gives_its_place_back() {
    let (_, mut vm, token) = start(json!({ "calls": 1, "per": "60s", "count": [200] }));
    for _ in 0..3 {
        let stream = vm.request().bearer(&token).open();
        assert!(vm.answer(stream).is_forwarded());
        let _ = vm.finish(stream);
    }
    assert!(passes(&mut vm, &token));
    assert!(!passes(&mut vm, &token));
}

#[test]
fn a_place_is_held_while_the_answer_is_open() {
    let (_, mut vm, token) = start(json!({ "calls": 1, "per": "60s", "count": [200] }));
    let open = vm.request().bearer(&token).open();
    assert!(!passes(&mut vm, &token), "two in flight");
    vm.respond(open, 500);
    assert!(
        passes(&mut vm, &token),
        "given back as soon as the answer is known"
    );
    let _ = vm.finish(open);
    assert!(!passes(&mut vm, &token), "given back twice");
}

#[test]
fn a_place_given_back_late_is_the_one_that_was_taken() {
    let (process, mut vm, token) = start(json!({ "calls": 2, "per": "60s", "count": [200] }));
    let long = vm.request().bearer(&token).open();
    process.clock().advance(seconds(90));
    assert!(passes(&mut vm, &token));
    assert!(passes(&mut vm, &token));
    // Its window has long passed: nothing of the others' is given back.
    vm.respond(long, 500);
    let _ = vm.finish(long);
    assert!(!passes(&mut vm, &token));
}

#[test]
fn a_refused_call_takes_no_place() {
    let process = Process::new();
    let both = json!([{ "calls": 1, "per": "10s" }, { "calls": 5, "per": "hour" }]);
    let policy = with(inline(), json!({ "default_app": { "limits": both } }));
    let mut vm = Vm::start(&process, &policy);
    let token = good(&process);
    for round in 0..5 {
        assert!(passes(&mut vm, &token), "round {round}");
        // With both used up, the one that takes longer is told.
        let code = if round < 4 {
            "RateLimitExceeded"
        } else {
            "QuotaExceeded"
        };
        for _ in 0..3 {
            let answer = vm.request().bearer(&token).send();
            assert_eq!(answer.code(), code, "round {round}");
        }
        process.clock().advance(seconds(11));
    }
    assert_eq!(vm.request().bearer(&token).send().code(), "QuotaExceeded");
}

#[test]
fn applications_have_counters_of_their_own() {
    let process = Process::new();
    let mut vm = Vm::start(
        &process,
        &with(
            inline(),
            json!({
                "apps": [{ "app_id": APP_ONE, "limits": [{ "calls": 1, "per": "60s" }] }],
                "default_app": { "limits": [{ "calls": 2, "per": "60s" }] },
            }),
        ),
    );
    let of = |app: &str| Token::v1(&process).app(app).sign(keys::rsa(0));
    let third = "aaaaaaaa-0000-0000-0000-000000000003";
    let mut count = |app: &str| {
        let token = of(app);
        (0..5).filter(|_| passes(&mut vm, &token)).count()
    };
    assert_eq!((count(APP_ONE), count(APP_TWO), count(third)), (1, 2, 2));
    // Written in other letters it is the same application.
    assert_eq!(
        (count(&APP_ONE.to_uppercase()), count(&third.to_uppercase())),
        (0, 0)
    );
}

#[test]
fn refused_tokens_count_against_nobody() {
    let (_, mut vm, token) = start(json!({ "calls": 1, "per": "60s" }));
    for _ in 0..5 {
        let forged = tollgate_second_host::flip_signature(&token);
        assert_eq!(
            vm.request().bearer(&forged).send().code(),
            "TokenSignatureInvalid"
        );
        let key = vm.request().bearer(&token).header("api-key", "k").send();
        assert_eq!(key.code(), "AuthenticationTypeDisabled");
    }
    assert!(passes(&mut vm, &token));
}

#[test]
fn counters_survive_an_update_and_a_new_vm() {
    let process = Process::new();
    let policy = |calls: u32, mode: &str| {
        with(
            limited(json!({ "calls": calls, "per": "60s" })),
            json!({ "mode": mode }),
        )
    };
    let token = good(&process);
    let mut vm = Vm::start(&process, &policy(2, "enforce"));
    assert!(passes(&mut vm, &token));
    assert!(passes(&mut vm, &token));
    vm.update(&with(
        policy(2, "enforce"),
        json!({ "cors_preflight": "pass" }),
    ))
    .expect("good");
    assert!(!passes(&mut vm, &token), "an update opened a new window");
    vm.reconfigure(&policy(2, "enforce")).expect("good");
    assert!(
        !passes(&mut vm, &token),
        "a reconfiguration opened a new window"
    );
    vm.update(&policy(3, "enforce")).expect("good");
    assert!(passes(&mut vm, &token), "a raised limit leaves one more");
    assert!(!passes(&mut vm, &token));
    drop(vm);
    let mut vm = Vm::start(&process, &policy(3, "enforce"));
    assert!(
        !passes(&mut vm, &token),
        "a restarted VM opened a new window"
    );
    process.clock().advance(seconds(62));
    assert!(passes(&mut vm, &token));
}

#[test]
fn a_limit_of_nothing_admits_nothing_or_is_no_limit_that_can_be_written() {
    let process = Process::new();
    let policy = limited(json!({ "calls": 0, "per": "60s" }));
    if let Ok(mut vm) = Vm::try_start(&process, policy.to_string()) {
        assert!(!passes(&mut vm, &good(&process)));
    }
}

#[test]
fn report_mode_refuses_nothing() {
    let process = Process::new();
    let policy = with(
        limited(json!({ "calls": 1, "per": "60s" })),
        json!({ "mode": "report" }),
    );
    let mut vm = Vm::start(&process, &policy);
    let token = good(&process);
    for _ in 0..3 {
        assert!(passes(&mut vm, &token));
    }
    assert!(matches!(vm.request().send(), Answer::Forwarded { .. }));
    assert!(matches!(
        vm.request().header("api-key", "k").send(),
        Answer::Forwarded { .. }
    ));
}

/// A record as the first version wrote it: two calls counted, under the id that it gave this limit.
#[test]
fn counters_survive_upgrades_from_the_first_version() {
    const RECORD: [u8; 36] = [
        2, 44, 207, 225, 178, 87, 195, 160, 11, 0, 0, 36, 165, 159, 0, 0, 0, 0, 110, 165, 0, 0, 0,
        0, 0, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0,
    ];
    let process = Process::new();
    process.clock().set(1_772_366_400);
    process.overwrite_shared(&format!("tollgate/1/tollgate/calls/{APP_ONE}"), &RECORD);
    let limit =
        json!({ "calls": 3, "per": "744h", "operations": ["*"], "deployments": ["gpt-4o"] });
    let mut vm = Vm::start(&process, &limited(limit));
    let token = Token::v1(&process).app(APP_ONE).sign(keys::rsa(0));
    assert!(passes(&mut vm, &token));
    assert!(!passes(&mut vm, &token));
}
