//! The host's own verifier: used where it proves itself, never believed where it does not.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;
use tollgate_second_host::{Hostcall, Process, Status, Token, Vm, flip_signature, keys, verifier};

use crate::common::{good, inline, with_issuer};

#[test]
fn an_honest_verifier_is_used_once_for_each_token() {
    let process = Process::new();
    let (honest, calls) = verifier::honest();
    process.offer_verifier(honest);
    let mut vm = Vm::start(&process, &inline());
    let probes = calls.load(Ordering::SeqCst);
    assert!(probes > 0, "trusted without a known answer");
    let token = good(&process);
    for _ in 0..3 {
        assert!(vm.request().bearer(&token).send().is_forwarded());
    }
    assert_eq!(calls.load(Ordering::SeqCst), probes + 1);
    let forged = flip_signature(&token);
    assert_eq!(
        vm.request().bearer(&forged).send().code(),
        "TokenSignatureInvalid"
    );
}

#[test]
fn a_verifier_that_lies_is_not_believed() {
    let verifiers: [(&str, verifier::Verifier); 6] = [
        ("accepts everything", verifier::constant(true)),
        ("refuses everything", verifier::constant(false)),
        ("says nothing", verifier::saying(b"")),
        (
            "says rubbish",
            verifier::saying(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        ),
        (
            "says yes and no",
            verifier::saying(b"\x08\x01\x12\x03bad\x08\x00"),
        ),
        ("fails", Arc::new(|_| Err(Status::InternalFailure))),
    ];
    for (what, lying) in verifiers {
        let process = Process::new();
        process.offer_verifier(lying);
        let mut vm = Vm::start(&process, &inline());
        let token = good(&process);
        assert!(vm.request().bearer(&token).send().is_forwarded(), "{what}");
        let forged = flip_signature(&token);
        let answer = vm.request().bearer(&forged).send();
        assert!(!answer.is_forwarded(), "{what}");
        assert_eq!(answer.code(), "TokenSignatureInvalid", "{what}");
    }
}

#[test]
fn a_verifier_that_goes_away_is_replaced() {
    let process = Process::new();
    let (honest, _) = verifier::honest();
    process.offer_verifier(honest);
    let mut vm = Vm::start(&process, &inline());
    for status in [
        Status::NotFound,
        Status::BadArgument,
        Status::InternalFailure,
    ] {
        process.fail(Hostcall::CallForeignFunction, status);
        let token = Token::v1(&process)
            .claim("uti", format!("{status:?}"))
            .sign(keys::rsa(0));
        assert!(
            vm.request().bearer(&token).send().is_forwarded(),
            "{status:?}"
        );
        let forged = flip_signature(&token);
        assert_eq!(
            vm.request().bearer(&forged).send().code(),
            "TokenSignatureInvalid"
        );
    }
}

#[test]
fn what_the_host_cannot_do_is_done_here() {
    let process = Process::new();
    let (honest, _) = verifier::honest();
    process.offer_verifier(honest);
    let policy = with_issuer(
        inline(),
        json!({
            "jwks": keys::jwks(&[keys::rsa(0), keys::p256()]),
            "algorithms": ["RS256", "PS256", "ES256"],
        }),
    );
    let mut vm = Vm::start(&process, &policy);
    for (algorithm, key) in [
        ("RS256", keys::rsa(0)),
        ("PS256", keys::rsa(0)),
        ("ES256", keys::p256()),
    ] {
        let token = Token::v1(&process).sign_as(algorithm, key);
        assert!(
            vm.request().bearer(&token).send().is_forwarded(),
            "{algorithm}"
        );
        let forged = flip_signature(&token);
        assert_eq!(
            vm.request().bearer(&forged).send().code(),
            "TokenSignatureInvalid"
        );
    }
}
