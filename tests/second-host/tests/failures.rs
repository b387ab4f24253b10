//! Host calls that fail: the VM never traps, and nothing that matters is let through.

use serde_json::{Value, json};
use tollgate_second_host::{
    APP_ONE, Answer, Entra, Hostcall, Process, Status, Vm, flip_signature, keys,
};

use crate::common::{fetching, good, inline, live, seconds, with};

const STATUSES: [Status; 5] = [
    Status::NotFound,
    Status::BadArgument,
    Status::Empty,
    Status::InternalFailure,
    Status::Unimplemented,
];

/// A policy that makes the module use everything.
fn busy(base: Value) -> Value {
    with(
        base,
        json!({
            "apps": [{ "app_id": APP_ONE, "name": "batch", "limits": [
                { "calls": 1000, "per": "60s", "count": "success" },
                { "tokens": 1_000_000, "per": "60s", "reserve": true },
            ] }],
            "usage": { "stream_options": "inject" },
            "default_app": { "limits": [{ "calls": 1000, "per": "60s" }] },
            "forward": { "headers": { "x-app-id": "app_id", "x-tenant": "tenant_id" } },
            "api_keys": { "action": "strip" },
        }),
    )
}

/// Every kind of request, each to its end. Returns what became of the good one.
fn exercise(process: &Process, vm: &mut Vm) -> Answer {
    let token = good(process);
    let good_one = vm
        .request()
        .bearer(&token)
        .header("x-app-id", "forged")
        .header("api-key", "k")
        .open();
    let others = [
        vm.request().open(),
        vm.request().bearer(&flip_signature(&token)).open(),
        vm.request().bearer(&token).bearer(&token).open(),
        vm.request().bearer("x").open(),
    ];
    for _ in 0..4 {
        process.clock().advance(seconds(1));
        vm.tick();
    }
    if vm.answer(good_one).is_forwarded() {
        vm.send_body(good_one, br#"{"stream":true}"#, true);
    }
    let answer = vm.answer(good_one);
    if answer.is_forwarded() {
        let headers = [("content-type", "text/event-stream")];
        let event = b"data: {\"choices\":[],\"usage\":{\"total_tokens\":3}}\n\n";
        vm.respond_with(good_one, 200, &headers, event);
    }
    let _ = vm.finish(good_one);
    for stream in others {
        let _ = vm.finish(stream);
    }
    answer
}

fn each_failure(mut run: impl FnMut(Hostcall, Status)) {
    for call in Hostcall::ALL {
        for status in STATUSES {
            run(call, status);
        }
    }
}

#[test]
fn no_failing_call_stops_a_running_vm() {
    each_failure(|call, status| {
        let process = Process::new();
        let mut vm = Vm::start(&process, &busy(inline()));
        assert!(exercise(&process, &mut vm).is_forwarded());
        process.fail(call, status);
        let _ = exercise(&process, &mut vm);
        let _ = exercise(&process, &mut vm);
        process.heal();
        let answer = exercise(&process, &mut vm);
        assert!(answer.is_forwarded(), "{call:?} {status:?}: {answer:?}");
    });
}

#[test]
fn no_failing_call_stops_a_vm_that_starts() {
    each_failure(|call, status| {
        let process = Process::new();
        process.fail(call, status);
        let Ok(mut vm) = Vm::try_start(&process, busy(inline()).to_string()) else {
            panic!("{call:?} {status:?}: a good policy was refused");
        };
        let _ = exercise(&process, &mut vm);
        process.heal();
        let answer = exercise(&process, &mut vm);
        assert!(answer.is_forwarded(), "{call:?} {status:?}: {answer:?}");
    });
}

#[test]
fn no_failing_call_stops_a_vm_that_fetches() {
    each_failure(|call, status| {
        let process = Process::new();
        let mut entra = Entra::new(keys::jwks(&[keys::rsa(0)]));
        let mut vm = Vm::start(&process, &busy(fetching()));
        process.fail(call, status);
        for _ in 0..3 {
            let _ = exercise(&process, &mut vm);
            entra.serve(&mut vm);
        }
        process.heal();
        live(&process, &mut entra, seconds(60), 120, &mut [&mut vm]);
        let answer = exercise(&process, &mut vm);
        assert!(
            answer.is_forwarded(),
            "{call:?} {status:?}: {answer:?}\n{}",
            process.log_text()
        );
    });
}

#[test]
fn every_call_that_can_fail_was_tried() {
    let process = Process::new();
    let mut entra = Entra::new(keys::jwks(&[keys::rsa(0)]));
    let mut vm = Vm::start(&process, &busy(fetching()));
    let waiting = vm.request().bearer(&good(&process)).open();
    live(&process, &mut entra, seconds(2), 4, &mut [&mut vm]);
    assert!(vm.answer(waiting).is_forwarded());
    let _ = exercise(&process, &mut vm);
    let unused: Vec<_> = Hostcall::ALL
        .into_iter()
        .filter(|call| !process.reached(*call))
        .collect();
    assert_eq!(
        unused,
        [],
        "these tests prove nothing about calls that are never made"
    );
}

/// What may not be lost without refusing the request.
#[test]
fn what_matters_fails_closed() {
    for call in [
        Hostcall::GetHeaders,
        // A forged identity header or a key would go on.
        Hostcall::SetHeaders,
        // The limit could not be kept.
        Hostcall::GetSharedData,
        Hostcall::SetSharedData,
    ] {
        for status in [
            Status::BadArgument,
            Status::InternalFailure,
            Status::Unimplemented,
        ] {
            let process = Process::new();
            let mut vm = Vm::start(&process, &busy(inline()));
            process.fail(call, status);
            let answer = exercise(&process, &mut vm);
            assert!(!answer.is_forwarded(), "{call:?} {status:?}: let through");
        }
    }
}

/// A backend answers before the body that decides is there, and nobody can say what.
#[test]
fn an_early_answer_that_cannot_be_read_is_not_passed_on() {
    let policy = with(
        inline(),
        json!({ "default_app": { "deployments": ["gpt-4o"] } }),
    );
    for fails in [false, true] {
        let process = Process::new();
        let mut vm = Vm::start(&process, &policy);
        let path = "/openai/v1/chat/completions";
        let stream = vm.request().path(path).bearer(&good(&process)).open();
        if fails {
            process.fail(Hostcall::GetHeaders, Status::InternalFailure);
        }
        vm.respond(stream, 200);
        process.heal();
        assert_eq!(vm.answer(stream).status(), 400, "fails: {fails}");
        let _ = vm.finish(stream);
    }
}

#[test]
fn a_request_that_the_host_broke_is_not_told_as_allowed() {
    for call in [
        Hostcall::GetHeaders,
        Hostcall::SetHeaders,
        Hostcall::SetSharedData,
    ] {
        let process = Process::new();
        let mut vm = Vm::start(&process, &busy(inline()));
        process.fail(call, Status::InternalFailure);
        let told = vm
            .request()
            .bearer(&good(&process))
            .header("x-app-id", "forged")
            .complete();
        assert!(told.answer.status() >= 429, "{call:?}: {told:#?}");
        assert_eq!(
            told.field("status"),
            told.answer.status(),
            "{call:?}: {told:#?}"
        );
        let broken = call != Hostcall::SetSharedData;
        let (code, outcome) = if broken {
            ("InternalError", "unavailable")
        } else {
            ("RateLimitExceeded", "limited")
        };
        assert_eq!(told.answer.code(), code, "{told:#?}");
        assert_eq!(told.field("code"), code, "{told:#?}");
        assert_eq!(told.field("outcome"), outcome, "{told:#?}");
        assert_eq!(told.state("code").as_deref(), Some(code), "{told:#?}");
        assert_eq!(process.log_text().contains("allowed_capabilities"), broken);
        let counted = |part: &str| {
            let metrics = process.metrics();
            metrics
                .iter()
                .any(|(name, _)| name.contains("requests") && name.contains(part))
        };
        assert!(counted(code), "{:?}", process.metrics());
        assert_ne!(told.field("outcome"), "allowed", "{call:?}: {told:#?}");
        assert_ne!(
            told.state("outcome").as_deref(),
            Some("allowed"),
            "{call:?}: {told:#?}"
        );
        let allowed: u64 = process
            .metrics()
            .iter()
            .filter(|(name, _)| name.contains("requests") && name.contains("allowed"))
            .map(|(_, value)| value)
            .sum();
        assert_eq!(allowed, 0, "{call:?}");
    }
}

/// What is only told may be lost.
#[test]
fn what_is_only_told_fails_open() {
    for call in [
        Hostcall::CallForeignFunction,
        Hostcall::DefineMetric,
        Hostcall::GetProperty,
        Hostcall::IncrementMetric,
        Hostcall::RecordMetric,
        Hostcall::SetProperty,
    ] {
        for status in STATUSES {
            let process = Process::new();
            let mut vm = Vm::start(&process, &busy(inline()));
            process.fail(call, status);
            let answer = exercise(&process, &mut vm);
            assert!(answer.is_forwarded(), "{call:?} {status:?}: {answer:?}");
        }
    }
}

#[test]
fn a_refusal_that_cannot_be_sent_is_still_a_refusal() {
    for status in STATUSES {
        let process = Process::new();
        let mut vm = Vm::start(&process, &inline());
        process.fail(Hostcall::SendLocalResponse, status);
        let stream = vm.request().bearer(&flip_signature(&good(&process))).open();
        assert_eq!(vm.answer(stream), Answer::Waiting, "{status:?}");
        process.clock().advance(seconds(20));
        vm.tick();
        assert!(!vm.answer(stream).is_forwarded());
        let _ = vm.finish(stream);
    }
}

#[test]
fn a_call_that_cannot_be_made_is_made_later() {
    for status in [Status::BadArgument, Status::InternalFailure] {
        let process = Process::new();
        process.fail(Hostcall::HttpCall, status);
        let mut vm = Vm::start(&process, &fetching());
        let stream = vm.request().bearer(&good(&process)).open();
        process.pass(seconds(8), &mut [&mut vm]);
        assert_eq!(vm.answer(stream).code(), "KeysUnavailable");
        process.heal();
        let mut entra = Entra::new(keys::jwks(&[keys::rsa(0)]));
        live(&process, &mut entra, seconds(20), 40, &mut [&mut vm]);
        assert!(vm.request().bearer(&good(&process)).send().is_forwarded());
    }
}

#[test]
fn shared_data_that_comes_back_brings_the_keys_back() {
    for status in STATUSES {
        let process = Process::new();
        process.fail(Hostcall::GetSharedData, status);
        process.fail(Hostcall::SetSharedData, status);
        let mut vm = Vm::start(&process, &fetching());
        let mut entra = Entra::new(keys::jwks(&[keys::rsa(0)]));
        live(&process, &mut entra, seconds(10), 40, &mut [&mut vm]);
        process.heal();
        live(&process, &mut entra, seconds(30), 60, &mut [&mut vm]);
        let answer = vm.request().bearer(&good(&process)).send();
        assert!(
            answer.is_forwarded(),
            "{status:?}: {answer:?}\n{}",
            process.log_text()
        );
    }
}
