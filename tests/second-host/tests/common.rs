//! Policies and steps that several topics share.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate_second_host::{AUDIENCE, Entra, Process, TENANT, Token, Vm, keys};

/// One Entra tenant whose keys stand in the policy: nothing is fetched.
pub(crate) fn inline() -> Value {
    json!({ "issuers": [{
        "tenant_id": TENANT,
        "audiences": [AUDIENCE],
        "jwks": keys::jwks(&[keys::rsa(0)]),
    }] })
}

/// One Entra tenant whose keys are fetched from a named address, one call for each fetch.
pub(crate) fn fetching() -> Value {
    json!({ "issuers": [{
        "tenant_id": TENANT,
        "audiences": [AUDIENCE],
        "jwks_uri": Entra::jwks_uri(),
        "cluster": "entra",
    }] })
}

/// One Entra tenant, found through its metadata.
pub(crate) fn discovering() -> Value {
    json!({ "issuers": [{ "tenant_id": TENANT, "audiences": [AUDIENCE], "cluster": "entra" }] })
}

/// The policy with more top-level keys.
pub(crate) fn with(mut policy: Value, more: Value) -> Value {
    let Value::Object(more) = more else {
        panic!("{more} is not an object")
    };
    policy.as_object_mut().expect("a policy").extend(more);
    policy
}

/// The policy with more keys in its first issuer.
pub(crate) fn with_issuer(mut policy: Value, more: Value) -> Value {
    let issuer = policy["issuers"][0].take();
    policy["issuers"][0] = with(issuer, more);
    policy
}

/// The inline policy with one limit for every application.
pub(crate) fn limited(limit: Value) -> Value {
    with(inline(), json!({ "default_app": { "limits": [limit] } }))
}

/// A token that every policy here accepts.
pub(crate) fn good(process: &Process) -> String {
    Token::v1(process).sign(keys::rsa(0))
}

pub(crate) const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub(crate) const fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}

/// Time passes in `steps` steps, while the identity provider replies to every VM.
pub(crate) fn live(
    process: &Process,
    entra: &mut Entra,
    span: Duration,
    steps: u32,
    vms: &mut [&mut Vm],
) {
    for _ in 0..steps {
        process.clock().advance(span / steps);
        for vm in vms.iter_mut() {
            vm.tick();
            entra.serve(vm);
        }
    }
}
