//! Bytes at random, from every side: nothing traps, nothing gets through that should not.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tollgate_second_host::{APP_ONE, Answer, Entra, Process, Reply, Vm, keys};

use crate::common::{discovering, fetching, good, inline, live, seconds, with};

/// Some bytes of `text` changed, doubled or dropped.
fn mutate(random: &mut StdRng, text: &[u8]) -> Vec<u8> {
    let mut bytes = text.to_vec();
    for _ in 0..random.random_range(1..4) {
        if bytes.is_empty() {
            break;
        }
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..5) {
            0 => bytes[at] = random.random_range(0..=255),
            1 => bytes[at] = b"\"\\{}[]:,.0-9eE \n\0"[random.random_range(0..17)],
            2 => drop(bytes.remove(at)),
            3 => bytes.truncate(at),
            _ => {
                let end = (at + random.random_range(1..40)).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
    bytes
}

fn noise(random: &mut StdRng) -> Vec<u8> {
    let length = random.random_range(0..60);
    (0..length).map(|_| random.random_range(0..=255)).collect()
}

#[test]
fn requests() {
    let process = Process::new();
    let policy = with(
        inline(),
        json!({
            "api_keys": { "action": "strip" },
            "public_paths": ["/status", "/docs/*"],
            "cors_preflight": "pass",
            "forward": { "headers": { "x-app-id": "app_id" } },
        }),
    );
    let mut vm = Vm::start(&process, &policy);
    let mut random = StdRng::seed_from_u64(3);
    let token = good(&process);
    for n in 0..1500 {
        let mut request = vm.request();
        if random.random_range(0..3) == 0 {
            let path = b"/docs/%2f..//\\?api-key=a&&=&x&subscription-key=%41#api-key=b";
            request = request.path(mutate(&mut random, path));
        }
        for name in [
            "api-key",
            "sec-websocket-protocol",
            "x-app-id",
            "cookie",
            "x-request-id",
        ] {
            if random.random_range(0..3) == 0 {
                request = request.header(name, noise(&mut random));
            }
        }
        if random.random_range(0..4) == 0 {
            request = request.property("source.address", &noise(&mut random));
        }
        let authorization = format!("Bearer {token}");
        let authorization = mutate(&mut random, authorization.as_bytes());
        let told = request.header("authorization", &authorization).complete();
        if let Answer::Forwarded { headers } = &told.answer {
            let path = headers.get(":path").unwrap_or_default();
            let public = path.starts_with("/status") || path.starts_with("/docs/");
            // Changes that leave the token as it was: spaces around it, or a repeat of it.
            let same = String::from_utf8_lossy(&authorization).contains(&token);
            assert!(public || same, "request {n}: {told:#?}");
            assert!(!headers.contains("api-key"), "request {n}: {told:#?}");
        }
    }
    assert!(vm.request().bearer(&token).send().is_forwarded());
}

#[test]
fn policies() {
    let policy = with(
        inline(),
        json!({
            "apps": [{ "app_id": APP_ONE, "name": "batch", "limits": [
                { "calls": 10, "per": "60s", "count": [200, 429] }, { "calls": 5, "per": "month" },
            ] }],
            "api_keys": { "action": "strip", "headers": ["x-key"], "query": ["k"] },
            "forward": { "authorization": false, "headers": { "x-a": "claim.a" } },
            "responses": { "format": "apim", "limited": { "status": 429, "message": "m" } },
            "log": { "requests": true, "filter_state": ["app_id"] },
            "mode": "report",
        }),
    )
    .to_string();
    let mut random = StdRng::seed_from_u64(5);
    let mut refused = 0;
    for _ in 0..400 {
        let process = Process::new();
        match Vm::try_start(&process, mutate(&mut random, policy.as_bytes())) {
            Ok(mut vm) => drop(vm.request().bearer(&good(&process)).send()),
            Err(refusal) => {
                refused += 1;
                assert!(!refusal.errors.is_empty());
            }
        }
    }
    assert!(refused > 200, "only {refused} of 400 refused");
}

#[test]
fn replies_of_the_provider() {
    let mut random = StdRng::seed_from_u64(9);
    for policy in [fetching(), discovering()] {
        let process = Process::new();
        let mut vm = Vm::start(&process, &policy);
        let metadata = Entra::metadata().to_string();
        let jwks = keys::jwks(&[keys::rsa(0), keys::p256()]).to_string();
        for _ in 0..300 {
            process.pass(Duration::from_millis(500), &mut [&mut vm]);
            for callout in vm.callouts() {
                let body = if callout.path().ends_with("openid-configuration") {
                    &metadata
                } else {
                    &jwks
                };
                let body = mutate(&mut random, body.as_bytes());
                vm.reply(callout, Reply::with(200, body));
            }
            let stream = vm.request().bearer(&good(&process)).open();
            let _ = vm.finish(stream);
        }
        let mut entra = Entra::new(keys::jwks(&[keys::rsa(0)]));
        live(&process, &mut entra, seconds(3700), 370, &mut [&mut vm]);
        let answer = vm.request().bearer(&good(&process)).send();
        assert!(answer.is_forwarded(), "{answer:?}");
    }
}
