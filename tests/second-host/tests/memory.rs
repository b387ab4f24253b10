//! Memory that callers could fill stays bounded. The VM has 32 MiB and traps beyond.

use serde_json::json;
use tollgate_second_host::{Process, Token, Vm, keys, verifier};

use crate::common::{good, inline, limited, with};

/// A VM that trusts the host's verifier, which from now on accepts everything: tokens without
/// number, without signing each of them.
fn credulous(process: &Process, policy: &serde_json::Value) -> Vm {
    let (honest, _) = verifier::honest();
    process.offer_verifier(honest);
    let vm = Vm::start(process, policy);
    process.offer_verifier(verifier::constant(true));
    vm
}

/// A signature for the credulous verifier: another one for each token, as real ones are.
fn signature(process: &Process, number: u32) -> String {
    let token = Token::v1(process).sign(keys::rsa(0));
    let good = token.rsplit('.').next().expect("three parts");
    let digits = format!("{number:08}");
    let (start, _) = good.split_at(good.len() - 12);
    format!("{start}{digits}{}", &good[good.len() - 4..])
}

#[test]
fn verified_tokens_do_not_pile_up() {
    let process = Process::new();
    let mut vm = credulous(&process, &inline());
    let template = signature(&process, 0);
    let signature = |number: u32| template.replace("00000000", &format!("{number:08}"));
    let filler = "g".repeat(11_000);
    // 90 MB of tokens, each cached: the second time it needs no verifier.
    for n in 0..6_000 {
        let token = Token::v1(&process)
            .claim("uti", n)
            .claim("groups", filler.as_str());
        let token = token.with_signature(keys::rsa(0), &signature(n));
        assert!(
            vm.request().bearer(&token).send().is_forwarded(),
            "token {n}"
        );
        if n % 100 == 0 {
            process.offer_verifier(verifier::constant(false));
            assert!(
                vm.request().bearer(&token).send().is_forwarded(),
                "token {n} again"
            );
            process.offer_verifier(verifier::constant(true));
        }
    }
}

#[test]
fn unlisted_applications_share_a_counter_beyond_ten_thousand() {
    let process = Process::new();
    let mut vm = credulous(&process, &limited(json!({ "calls": 1, "per": "24h" })));
    let template = signature(&process, 0);
    let signature = |number: u32| template.replace("00000000", &format!("{number:08}"));
    let mut send = |n: u32| {
        let app = format!("bbbbbbbb-0000-0000-0000-{n:012}");
        let token = Token::v1(&process).app(&app);
        vm.request()
            .bearer(&token.with_signature(keys::rsa(0), &signature(n)))
            .send()
    };
    for n in 0..10_000 {
        assert!(send(n).is_forwarded(), "application {n}");
    }
    assert_eq!(send(0).code(), "RateLimitExceeded");
    assert_eq!(send(9_999).code(), "RateLimitExceeded");
    let before = process.shared_keys().len();
    let passed = (10_000..10_200).filter(|n| send(*n).is_forwarded()).count();
    assert_eq!(passed, 1, "beyond the bound one counter serves all");
    assert!(process.shared_keys().len() <= before + 1);
    assert!(before <= 10_010, "{before} keys");
    // A metric for each application would be as unbounded.
    assert!(
        process.metrics().len() < 100,
        "{} metrics",
        process.metrics().len()
    );
}

#[test]
fn refused_requests_leave_nothing_behind() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &inline());
    let filler = "h".repeat(8_000);
    for n in 0..5_000 {
        let path = format!("/openai/{n}/{filler}");
        assert_eq!(vm.request().path(&path).send().status(), 401);
        let bad = format!("{n}.{filler}.x");
        assert_eq!(vm.request().bearer(&bad).send().status(), 401);
    }
}

/// 75 MB of policies, one after the other, and as many that are refused: more than a VM has.
#[test]
fn policies_that_were_replaced_leave_nothing_behind() {
    let process = Process::new();
    let policy = |number: u32| {
        let app = |n: u32| {
            json!({
                "app_id": format!("bbbbbbbb-0000-0000-{number:04}-{n:012}"),
                "name": format!("application {n} {}", "x".repeat(40)),
                "limits": [{ "calls": 10, "per": "60s" }],
            })
        };
        with(
            inline(),
            json!({ "apps": (0..1_000).map(app).collect::<Vec<_>>() }),
        )
    };
    let mut vm = Vm::start(&process, &policy(0));
    for number in 1..=500 {
        let mut bad = policy(number);
        vm.update(&bad).expect("good");
        bad["mode"] = json!("off");
        assert!(vm.update(&bad).is_err());
    }
    assert!(vm.request().bearer(&good(&process)).send().is_forwarded());
}
