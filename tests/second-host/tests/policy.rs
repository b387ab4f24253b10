//! Good policies start, bad ones are refused with everything that is wrong, and a refused
//! update changes nothing.

use serde_json::json;
use tollgate_second_host::{Process, TENANT, Vm};

use crate::common::{discovering, fetching, good, inline, limited, with};

#[test]
fn the_policies_of_these_tests_are_good() {
    for policy in [inline(), fetching(), discovering()] {
        let _ = Vm::start(&Process::new(), &policy);
    }
}

#[test]
fn the_smallest_policy_of_the_documentation_is_good() {
    let policy = json!({
        "issuers": [{
            "tenant_id": TENANT,
            "audiences": ["https://cognitiveservices.azure.com"],
            "cluster": "entra",
        }],
        "responses": { "unauthenticated": { "status": 403, "message": "Forbidden" } },
    });
    let _ = Vm::start(&Process::new(), &policy);
}

#[test]
fn what_is_not_a_json_object_is_refused() {
    let deep = "[".repeat(100_000);
    for text in [
        "",
        "null",
        "[]",
        "\"x\"",
        "{",
        "{\"issuers\": []",
        "\u{0}",
        deep.as_str(),
    ] {
        let refused = Vm::try_start(&Process::new(), text).err();
        let shown: String = text.chars().take(20).collect();
        let refused = refused.unwrap_or_else(|| panic!("{shown:?} was accepted"));
        assert!(
            !refused.errors.is_empty(),
            "{shown:?} was refused without a word"
        );
    }
    assert!(Vm::try_start(&Process::new(), b"{\"issuers\": \"\xff\"}").is_err());
}

#[test]
fn every_error_is_reported_with_its_path() {
    let bad = json!({
        "issuers": [{
            "tenant_id": "not-a-guid",
            "audiences": [],
            "algorithms": ["none"],
            "clock_skew": "601s",
            "colour": "red",
        }],
        "apps": [
            { "app_id": "aaaaaaaa-0000-0000-0000-000000000001" },
            { "app_id": "AAAAAAAA-0000-0000-0000-000000000001", "limits": [
                { "calls": 1, "per": "60" },
            ] },
        ],
        "mode": "lenient",
        "surprise": true,
    });
    let refused = Vm::try_start(&Process::new(), bad.to_string())
        .err()
        .expect("refused");
    let log = refused.errors.join("\n");
    for path in [
        "issuers[0].tenant_id",
        "issuers[0].audiences",
        "issuers[0].algorithms[0]",
        "issuers[0].clock_skew",
        "issuers[0].colour",
        "apps[1].app_id",
        "apps[1].limits[0].per",
        "mode",
        "surprise",
    ] {
        assert!(log.contains(path), "nothing about {path} in:\n{log}");
    }
}

#[test]
fn a_repeated_member_is_an_error() {
    let twice =
        inline()
            .to_string()
            .replacen('{', "{\"mode\": \"report\", \"mode\": \"enforce\",", 1);
    let refused = Vm::try_start(&Process::new(), twice)
        .err()
        .expect("refused");
    assert!(refused.errors.join("\n").contains("mode"), "{refused:?}");
}

#[test]
fn an_issuer_that_fetches_needs_a_cluster() {
    let bad = json!({ "issuers": [{ "tenant_id": TENANT, "audiences": ["a"] }] });
    let refused = Vm::try_start(&Process::new(), bad.to_string())
        .err()
        .expect("refused");
    assert!(
        refused.errors.join("\n").contains("issuers[0].cluster"),
        "{refused:?}"
    );
}

#[test]
fn inline_keys_that_cannot_be_used_are_an_error() {
    for jwks in [
        json!({}),
        json!({ "keys": [] }),
        json!({ "keys": [{ "kty": "oct", "k": "AA" }] }),
    ] {
        let bad = json!({ "issuers": [{ "tenant_id": TENANT, "audiences": ["a"], "jwks": jwks }] });
        let refused = Vm::try_start(&Process::new(), bad.to_string()).err();
        let refused = refused.unwrap_or_else(|| panic!("{jwks} was accepted"));
        assert!(
            refused.errors.join("\n").contains("issuers[0].jwks"),
            "{refused:?}"
        );
    }
}

#[test]
fn a_refused_update_leaves_the_policy_in_place() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &limited(json!({ "calls": 1, "per": "60s" })));
    let refused = vm.update(&with(inline(), json!({ "surprise": 1 })));
    assert!(
        refused
            .expect_err("refused")
            .errors
            .join("\n")
            .contains("surprise")
    );
    assert!(vm.request().bearer(&good(&process)).send().is_forwarded());
    assert_eq!(
        vm.request().bearer(&good(&process)).send().code(),
        "RateLimitExceeded"
    );
}

#[test]
fn an_update_takes_effect() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &inline());
    assert!(vm.request().bearer(&good(&process)).send().is_forwarded());
    vm.update(&with(
        inline(),
        json!({ "default_app": { "access": "deny" } }),
    ))
    .expect("good");
    assert_eq!(
        vm.request().bearer(&good(&process)).send().code(),
        "AppNotAllowed"
    );
}

#[test]
fn requests_in_flight_outlive_an_update() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &inline());
    let before = vm.request().bearer(&good(&process)).open();
    vm.update(&with(
        inline(),
        json!({ "default_app": { "access": "deny" } }),
    ))
    .expect("good");
    vm.respond(before, 200);
    let told = vm.finish(before);
    assert!(told.answer.is_forwarded());
    assert_eq!(told.field("status"), 200);
}
