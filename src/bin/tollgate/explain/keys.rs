//! Keys for `explain`: from a file, or fetched as the module fetches them.

use std::io::Read as _;

use tollgate::gateway::Gateway;
use tollgate::keys::{Answer, KeySet, MAX_DOCUMENT, NextCall};
use tollgate::policy::{KeySource, Policy};
use tollgate::store::MemoryStore;
use tollgate::time::Time;

use crate::failure::Failure;
use crate::input::Input;

/// Takes the keys of every issuer from a file, where the policy has none itself.
pub(super) fn from_file(policy: &mut Policy, file: &Input) -> Result<(), Failure> {
    let set = KeySet::parse(&file.bytes).map_err(|error| {
        let remedy = "give a JWK Set, such as the answer of the issuer's jwks_uri";
        Failure::with_remedy(format!("{}: {error}", file.name), remedy)
    })?;
    for issuer in &mut policy.issuers {
        if matches!(issuer.keys, KeySource::Fetched(_)) {
            issuer.keys = KeySource::Inline(set.clone());
        }
    }
    Ok(())
}

/// Fetches the keys of every issuer. Says how each fetch ended.
pub(super) fn fetch(
    gateway: &mut Gateway,
    policy: &Policy,
    store: &MemoryStore,
    now: Time,
) -> Result<Vec<String>, Failure> {
    let mut notes = Vec::new();
    for (issuer, mut call) in gateway.begin_fetches(store, now) {
        let name = policy.issuers.get(issuer).map(|issuer| issuer.name.clone());
        let name = name.unwrap_or_default();
        loop {
            let (answer, said) = get(&call);
            match gateway.answer(issuer, call.attempt, &answer, store, now) {
                Ok(next) => call = next,
                Err(report) => {
                    let outcome = report.map(|report| report.outcome);
                    let ended = outcome.as_ref().map(ToString::to_string);
                    if outcome.is_none_or(|outcome| outcome.label() != "ok") {
                        return Err(Failure::new(format!(
                            "the keys of {name} from {}: {}",
                            call.url,
                            said.or(ended).unwrap_or_default()
                        )));
                    }
                    notes.push(format!(
                        "fetched {} of {name} from {}",
                        ended.unwrap_or_default(),
                        call.url
                    ));
                    break;
                }
            }
        }
    }
    gateway.sync(store, now);
    Ok(notes)
}

/// One GET, as the gateway makes it: redirects are not followed, and a document has up to 1 MiB.
fn get(call: &NextCall) -> (Answer, Option<String>) {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(std::time::Duration::from_millis(call.timeout)))
        .max_redirects(0)
        .http_status_as_error(false)
        .build()
        .new_agent();
    match agent.get(call.url.to_string()).call() {
        Ok(response) => {
            let status = response.status().as_u16();
            let mut body = Vec::new();
            let limit = u64::try_from(MAX_DOCUMENT)
                .unwrap_or(u64::MAX)
                .saturating_add(1);
            let read = response
                .into_body()
                .into_reader()
                .take(limit)
                .read_to_end(&mut body);
            let whole = read.is_ok() && body.len() <= MAX_DOCUMENT;
            let answer = Answer {
                status: Some(status),
                body: whole.then_some(body),
            };
            (answer, None)
        }
        Err(error) => {
            let answer = Answer {
                status: None,
                body: None,
            };
            (answer, Some(error.to_string()))
        }
    }
}
