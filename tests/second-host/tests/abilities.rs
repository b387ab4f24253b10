//! Hosts that lack something: the log names it, and nothing passes for it.

use serde_json::json;
use tollgate_second_host::{Hostcall, LogLevel, Process, Status, Vm, flip_signature};

use crate::common::{fetching, good, inline, limited, seconds};

/// A process without these abilities.
fn without(calls: &[Hostcall]) -> Process {
    let process = Process::new();
    for call in calls {
        process.fail(*call, Status::Unimplemented);
    }
    process
}

fn warnings(process: &Process) -> Vec<String> {
    let lines = process.log().into_iter();
    lines
        .filter(|line| line.level >= LogLevel::Warn)
        .map(|line| line.text)
        .collect()
}

/// The one warning, and what it has to name.
fn assert_named(process: &Process, what: &str) {
    let told = warnings(process);
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].contains(what), "{told:#?}");
}

fn assert_decides(process: &Process, vm: &mut Vm) {
    let token = good(process);
    assert!(vm.request().bearer(&token).complete().answer.is_forwarded());
    let forged = vm.request().bearer(&flip_signature(&token)).send();
    assert_eq!(forged.code(), "TokenSignatureInvalid");
    assert_eq!(vm.request().send().code(), "TokenNotPresent");
}

#[test]
fn a_host_with_everything_gets_no_warning() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &inline());
    assert_decides(&process, &mut vm);
    assert_eq!(warnings(&process), [""; 0]);
}

#[test]
fn without_crypto_signatures_are_verified_here() {
    let process = without(&[Hostcall::CallForeignFunction]);
    let mut vm = Vm::start(&process, &inline());
    let start = process.log().remove(0).text;
    assert!(
        start.ends_with("signatures verified by the host: none"),
        "{start}"
    );
    assert_decides(&process, &mut vm);
}

#[test]
fn without_shared_data_each_vm_keeps_its_limits() {
    let process = without(&[Hostcall::GetSharedData, Hostcall::SetSharedData]);
    let policy = limited(json!({ "calls": 1, "per": "60s" }));
    let mut vms = [Vm::start(&process, &policy), Vm::start(&process, &policy)];
    assert_eq!(warnings(&process).len(), 2);
    assert!(warnings(&process)[0].contains("no shared data"));
    let token = good(&process);
    for vm in &mut vms {
        assert!(vm.request().bearer(&token).send().is_forwarded());
        let more = vm.request().bearer(&token).send();
        assert_eq!(more.code(), "RateLimitExceeded");
    }
}

#[test]
fn without_callouts_nothing_passes_by_keys_that_have_to_be_fetched() {
    let process = without(&[Hostcall::HttpCall]);
    let mut vm = Vm::start(&process, &fetching());
    let waiting = vm.request().bearer(&good(&process)).open();
    process.pass(seconds(8), &mut [&mut vm]);
    assert_eq!(vm.answer(waiting).code(), "KeysUnavailable");
    assert!(
        warnings(&process)[0].contains("could not send the request"),
        "{:#?}",
        warnings(&process)
    );
}

#[test]
fn without_metrics_nothing_is_counted() {
    let process = without(&[Hostcall::DefineMetric]);
    let mut vm = Vm::start(&process, &inline());
    assert_named(&process, "no metrics");
    assert_decides(&process, &mut vm);
    vm.tick();
    assert_named(&process, "no metrics");
}

#[test]
fn without_filter_state_the_first_request_tells() {
    let process = without(&[Hostcall::SetProperty]);
    let mut vm = Vm::start(&process, &inline());
    assert_eq!(warnings(&process), [""; 0]);
    assert_decides(&process, &mut vm);
    assert_decides(&process, &mut vm);
    assert_named(&process, "filter state");
}

#[test]
fn without_properties_lines_have_no_address() {
    let process = without(&[Hostcall::GetProperty]);
    let mut vm = Vm::start(&process, &inline());
    assert_decides(&process, &mut vm);
    let told = vm.request().bearer(&good(&process)).complete();
    assert_eq!(*told.field("client_ip"), json!(null));
}

#[test]
fn without_anything_nothing_passes() {
    let process = without(&Hostcall::ALL);
    let mut vm = Vm::start(&process, &inline());
    let stream = vm.request().bearer(&good(&process)).open();
    assert!(!vm.answer(stream).is_forwarded());
}
