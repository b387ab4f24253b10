//! Keys over time, on the core: fetches, workers that share them, requests that wait.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests compute on their own constants"
)]

mod common;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::{
    APP, AUDIENCE, Bench, NOON, OTHER, SIGNER, TENANT, code, told_apart, v1_claims, v2_claims,
};
use serde_json::{Value, json};
use tollgate::crypto::KeyError;
use tollgate::gateway::{FetchReport, MAX_WAIT_MILLIS, MAX_WAITING, Patience, Tallies, Verdict};
use tollgate::keys::{
    Answer, FetchOutcome, KeySet, KeySetError, MAX_DOCUMENT, MetadataError, NextCall, Schedule,
    SkipReason, Skipped, Unreachable,
};
use tollgate::refusal::Code::{
    KeysUnavailable, TokenIssuerNotAllowed, TokenSignatureInvalid, TokenSignatureKeyNotFound,
};
use tollgate::refusal::Refusal;
use tollgate::request::HeaderMap;
use tollgate::store::{Expected, MemoryStore, SharedStore, StoreError, Versioned, Written};
use tollgate::time::Time;

fn policy() -> Value {
    json!({ "issuers": [{ "tenant_id": TENANT, "audiences": [AUDIENCE], "cluster": "entra" }] })
}

fn metadata_document() -> Value {
    json!({
        "issuer": format!("https://login.microsoftonline.com/{TENANT}/v2.0"),
        "jwks_uri": format!("https://login.microsoftonline.com/{TENANT}/discovery/v2.0/keys"),
    })
}

fn metadata() -> Answer {
    good(&metadata_document())
}

fn good(document: &Value) -> Answer {
    Answer {
        status: Some(200),
        body: Some(document.to_string().into_bytes()),
    }
}

fn nothing() -> Answer {
    Answer {
        status: None,
        body: None,
    }
}

/// One worker's view.
trait Worker {
    fn time(&self) -> Time;
    fn begin(&mut self) -> Option<NextCall>;
    fn reply(&mut self, call: &NextCall, answer: &Answer) -> Result<NextCall, Option<FetchReport>>;
    fn ask(&mut self, token: &str) -> Verdict;
    fn fetch(&mut self, keys: &Value) -> FetchOutcome;
    fn end(&mut self, call: &NextCall, keys: &Value) -> FetchOutcome;
}

impl Worker for Bench {
    fn time(&self) -> Time {
        Time::from_millis(self.now)
    }

    /// What a tick does.
    fn begin(&mut self) -> Option<NextCall> {
        let now = self.time();
        self.gateway.sync(&*self.store, now);
        self.gateway
            .begin_fetches(&*self.store, now)
            .pop()
            .map(|(_, call)| call)
    }

    fn reply(&mut self, call: &NextCall, answer: &Answer) -> Result<NextCall, Option<FetchReport>> {
        let now = self.time();
        let next = self
            .gateway
            .answer(0, call.attempt, answer, &*self.store, now);
        self.gateway.sync(&*self.store, now);
        next
    }

    fn ask(&mut self, token: &str) -> Verdict {
        self.decide(&[("authorization", &format!("Bearer {token}"))])
    }

    fn fetch(&mut self, keys: &Value) -> FetchOutcome {
        let call = self.begin().expect("a fetch is due");
        self.end(&call, keys)
    }

    fn end(&mut self, call: &NextCall, keys: &Value) -> FetchOutcome {
        let call = self
            .reply(call, &metadata())
            .expect("metadata leads to the keys");
        self.reply(&call, &good(keys))
            .unwrap_err()
            .expect("the fetch ends")
            .outcome
    }
}

fn set(signers: &[&common::Signer]) -> Value {
    json!({ "keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>() })
}

fn good_keys(keys: usize) -> FetchOutcome {
    FetchOutcome::Good {
        keys,
        skipped: Vec::new(),
        missing: Vec::new(),
    }
}

fn skipped(kid: &str, reason: SkipReason) -> Skipped {
    let kid = Some(kid.to_owned());
    Skipped { kid, reason }
}

fn waits(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Wait { .. })
}

#[test]
fn requests_that_wait_are_decided_though_a_later_one_saw_the_keys_first() {
    let store = Rc::new(MemoryStore::default());
    let mut one = Bench::sharing(&policy(), Rc::clone(&store));
    let mut two = Bench::sharing(&policy(), Rc::clone(&store));
    let token = SIGNER.token(&v1_claims());
    assert!(waits(&two.ask(&token)));
    assert!(two.gateway.sync(&*store, two.time()).is_empty(), "no news");
    one.fetch(&set(&[&*SIGNER]));
    assert!(!waits(&two.ask(&token)), "the later one");
    let now = two.time();
    assert_eq!(
        two.gateway.sync(&*store, now),
        [0],
        "the earlier one is told"
    );
    assert!(two.gateway.sync(&*store, now).is_empty(), "once");
}

/// A thousand requests may wait: they are not decided anew, to no avail, with every attempt.
#[test]
fn a_failure_is_no_news_as_long_as_there_is_no_set() {
    let store = Rc::new(MemoryStore::default());
    let mut one = Bench::sharing(&policy(), Rc::clone(&store));
    let mut two = Bench::sharing(&policy(), Rc::clone(&store));
    let mut fail = |one: &mut Bench, wait: u64| {
        one.now += wait;
        let call = one.begin().unwrap();
        one.reply(&call, &nothing()).unwrap_err();
        two.gateway.sync(&*store, one.time())
    };
    assert!(fail(&mut one, 0).is_empty());
    assert!(fail(&mut one, 250).is_empty());
    one.now += 500;
    one.fetch(&set(&[&*SIGNER]));
    // Now it is an answer for who waits for a key that the set does not have.
    assert_eq!(fail(&mut one, 3_600_000), [0]);
    assert_eq!(fail(&mut one, 300_000), [0]);
}

#[test]
fn the_first_request_waits_for_the_first_fetch() {
    let mut worker = Bench::new(&policy());
    let token = SIGNER.token(&v1_claims());
    assert!(waits(&worker.ask(&token)));
    let call = worker.begin().unwrap();
    assert_eq!(call.cluster, "entra");
    assert_eq!(
        call.url.to_string(),
        format!("https://login.microsoftonline.com/{TENANT}/v2.0/.well-known/openid-configuration")
    );
    assert_eq!(call.timeout, 5_000);
    assert!(worker.begin().is_none(), "one fetch at a time");
    let call = worker.reply(&call, &metadata()).unwrap();
    assert!(call.url.path.ends_with("/discovery/v2.0/keys"));
    assert!(waits(&worker.ask(&token)));
    let report = worker
        .reply(&call, &good(&set(&[&SIGNER])))
        .unwrap_err()
        .unwrap();
    assert_eq!(report.outcome, good_keys(1));
    assert_eq!(code(&worker.ask(&token)), None);
}

#[test]
fn one_fetch_serves_all_workers() {
    let store = Rc::new(MemoryStore::default());
    let mut workers: Vec<_> = (0..4)
        .map(|_| Bench::sharing(&policy(), Rc::clone(&store)))
        .collect();
    let token = SIGNER.token(&v1_claims());
    let begun: Vec<_> = workers.iter_mut().filter_map(Worker::begin).collect();
    assert_eq!(begun.len(), 1);
    let call = workers[0].reply(&begun[0], &metadata()).unwrap();
    workers[0]
        .reply(&call, &good(&set(&[&SIGNER])))
        .unwrap_err();
    for worker in &mut workers {
        assert_eq!(code(&worker.ask(&token)), None);
        assert!(worker.begin().is_none());
    }
}

/// Policies come and go in one process: what one fetched serves the next where it fetches the same.
#[test]
fn keys_from_elsewhere_are_others() {
    let store = Rc::new(MemoryStore::default());
    Bench::sharing(&policy(), Rc::clone(&store)).fetch(&set(&[&*SIGNER]));
    let token = SIGNER.token(&v1_claims());
    let mut elsewhere = policy();
    elsewhere["issuers"][0]["cluster"] = json!("other");
    for (policy, is_shared) in [(policy(), true), (elsewhere, false)] {
        let mut worker = Bench::sharing(&policy, Rc::clone(&store));
        assert_eq!(worker.begin().is_none(), is_shared);
        assert_eq!(!waits(&worker.ask(&token)), is_shared);
    }
}

#[test]
fn without_a_provider_requests_wait_and_then_are_unavailable() {
    let mut worker = Bench::new(&policy());
    let token = SIGNER.token(&v1_claims());
    let mut attempts = 0;
    for _ in 0..10_000 {
        if let Some(call) = worker.begin() {
            attempts += 1;
            worker.reply(&call, &nothing()).unwrap_err();
        }
        worker.now += 10;
    }
    // 100 s: 250, 500, 1000 ms, then every 1.5 s.
    assert!((60..75).contains(&attempts), "{attempts}");
    assert!(waits(&worker.ask(&token)));
    let headers = HeaderMap::from_pairs([
        (&b":method"[..], &b"GET"[..]),
        (b":path", b"/"),
        (b"authorization", format!("Bearer {token}").as_bytes()),
    ]);
    let now = worker.time();
    let verdict = worker
        .gateway
        .decide(&headers, &|| now, &*worker.store, Patience::Over);
    assert_eq!(code(&verdict), Some(KeysUnavailable));
    let Verdict::Refuse(refuse) = verdict else {
        panic!("a refusal")
    };
    let Refusal::Keys { retry_in } = refuse.refusal else {
        panic!("for want of keys")
    };
    // When the provider is asked again, and not before.
    assert!((2..=1_500).contains(&retry_in), "{retry_in}");
    worker.now += retry_in - 1;
    assert!(worker.begin().is_none());
    worker.now += 1;
    worker.fetch(&set(&[&SIGNER]));
    assert_eq!(code(&worker.ask(&token)), None);
}

#[test]
fn an_unknown_kid_asks_once_within_the_floor() {
    let mut worker = Bench::new(&policy());
    worker.fetch(&set(&[&SIGNER]));
    let (old, new) = (SIGNER.token(&v1_claims()), OTHER.token(&v1_claims()));
    assert_eq!(code(&worker.ask(&new)), Some(TokenSignatureKeyNotFound));
    assert!(worker.begin().is_none(), "the floor holds");
    worker.now += 300_000;
    assert!(waits(&worker.ask(&new)));
    worker.fetch(&set(&[&SIGNER, &OTHER]));
    assert_eq!(code(&worker.ask(&new)), None);
    assert_eq!(code(&worker.ask(&old)), None);
    // F8: whatever kids come, no more fetches than the floor allows.
    let mut fetches = 0;
    for round in 0..6_000 {
        let unknown = common::Signer::load("foreign.pem", &format!("kid-{round}"));
        if round % 100 == 0 {
            worker.ask(&unknown.token(&v1_claims()));
        }
        if let Some(call) = worker.begin() {
            fetches += 1;
            let call = worker.reply(&call, &metadata()).unwrap();
            worker
                .reply(&call, &good(&set(&[&SIGNER, &OTHER])))
                .unwrap_err();
        }
        worker.now += 100;
    }
    assert!(fetches <= 2, "{fetches} fetches in ten minutes");
}

/// A token that lasts for a day.
fn lasting(signer: &common::Signer) -> String {
    let mut claims = v1_claims();
    claims["exp"] = json!(NOON / 1000 + 86_400);
    signer.token(&claims)
}

#[test]
fn k1_a_key_that_two_answers_lack_is_refused_even_from_the_cache() {
    let store = Rc::new(MemoryStore::default());
    let mut one = Bench::sharing(&policy(), Rc::clone(&store));
    let mut two = Bench::sharing(&policy(), store);
    one.fetch(&set(&[&SIGNER, &OTHER]));
    let token = lasting(&OTHER);
    assert_eq!(code(&one.ask(&token)), None);
    assert_eq!(code(&two.ask(&token)), None);
    one.now += 3_600_000;
    let outcome = FetchOutcome::Good {
        keys: 1,
        skipped: Vec::new(),
        missing: vec![OTHER.kid.clone()],
    };
    assert_eq!(one.fetch(&set(&[&SIGNER])), outcome);
    for wait in [0, 299_999] {
        one.now += wait;
        two.now = one.now;
        for worker in [&mut one, &mut two] {
            assert!(worker.begin().is_none());
            let code_of = code(&worker.ask(&token));
            assert_eq!(code_of, None, "one answer lacked its key, {wait}");
            let fresh = OTHER.token(&with_exp(worker.now));
            assert_eq!(code(&worker.ask(&fresh)), None, "new tokens too");
        }
    }
    one.now += 1;
    two.now = one.now;
    assert_eq!(one.fetch(&set(&[&SIGNER])), good_keys(1));
    assert_eq!(code(&one.ask(&token)), Some(TokenSignatureKeyNotFound));
    assert!(two.begin().is_none(), "the tick of another worker");
    assert_eq!(code(&two.ask(&token)), Some(TokenSignatureKeyNotFound));
    assert_eq!(code(&one.ask(&lasting(&SIGNER))), None);
}

fn with_exp(now: u64) -> Value {
    common::with(v1_claims(), &json!({ "exp": now / 1000 + 60 }))
}

/// Providers answer from many places, and not all of them know the same keys at the same time.
#[test]
fn k1_no_token_is_refused_because_one_answer_lacked_its_key() {
    let (both, one, other) = (set(&[&*SIGNER, &*OTHER]), set(&[&*OTHER]), set(&[&*SIGNER]));
    let mut worker = Bench::new(&policy());
    worker.fetch(&both);
    let tokens = [lasting(&SIGNER), lasting(&OTHER)];
    for keys in [&one, &both, &other, &one, &other, &both, &one, &both] {
        let call = loop {
            for token in &tokens {
                assert_eq!(code(&worker.ask(token)), None);
            }
            if let Some(call) = worker.begin() {
                break call;
            }
            worker.now += 10_000;
        };
        worker.end(&call, keys);
        for signer in [&*SIGNER, &*OTHER] {
            let token = signer.token(&with_exp(worker.now));
            assert_eq!(code(&worker.ask(&token)), None, "{keys}");
        }
    }
}

#[test]
fn k1_a_missing_key_goes_after_twice_the_floor_though_nobody_can_be_asked() {
    let store = Rc::new(MemoryStore::default());
    let mut one = Bench::sharing(&policy(), Rc::clone(&store));
    let mut two = Bench::sharing(&policy(), store);
    one.fetch(&set(&[&SIGNER, &OTHER]));
    let token = lasting(&OTHER);
    one.now += 3_600_000;
    one.fetch(&set(&[&SIGNER]));
    let came = one.now;
    let mut failed = 0;
    while one.now < came + 600_000 {
        two.now = one.now;
        if let Some(call) = one.begin() {
            failed += 1;
            one.reply(&call, &nothing()).unwrap_err();
        }
        two.begin();
        assert_eq!(code(&one.ask(&token)), None);
        assert_eq!(code(&two.ask(&token)), None);
        one.now += 10_000;
    }
    assert_eq!(failed, 1, "asked for after at_most_every");
    for worker in [&mut one, &mut two] {
        worker.now = came + 600_000;
        let now = worker.time();
        worker.gateway.sync(&*worker.store, now);
        let verdict = worker.ask(&token);
        // The provider may be asked again, and so the request waits.
        assert!(waits(&verdict), "{verdict:?}");
        assert_eq!(code(&worker.ask(&lasting(&SIGNER))), None);
        assert_eq!(worker.gateway.key_gauges(now).next().unwrap().1, 1);
    }
}

#[test]
fn k1_a_key_that_comes_back_is_as_before() {
    let mut worker = Bench::new(&policy());
    worker.fetch(&set(&[&SIGNER, &OTHER]));
    worker.now += 3_600_000;
    worker.fetch(&set(&[&SIGNER]));
    worker.now += 300_000;
    assert_eq!(worker.fetch(&set(&[&SIGNER, &OTHER])), good_keys(2));
    worker.now += 600_000;
    assert!(worker.begin().is_none(), "nothing is to be confirmed");
    assert_eq!(code(&worker.ask(&lasting(&OTHER))), None);
    worker.now += 3_000_000;
    let outcome = worker.fetch(&set(&[&SIGNER]));
    assert!(
        matches!(outcome, FetchOutcome::Good { missing, .. } if missing == [OTHER.kid.clone()])
    );
    assert_eq!(
        code(&worker.ask(&lasting(&OTHER))),
        None,
        "its time begins anew"
    );
}

/// A provider that is asked after its keys had become too old has said nothing of the old ones.
#[test]
fn k1_a_set_that_is_too_old_to_serve_leaves_no_key() {
    let mut worker = Bench::new(&policy());
    worker.fetch(&set(&[&OTHER]));
    worker.now += 26 * 3_600_000;
    assert_eq!(worker.fetch(&set(&[&SIGNER])), good_keys(1));
    let token = OTHER.token(&with_exp(worker.now));
    assert_eq!(code(&worker.ask(&token)), Some(TokenSignatureKeyNotFound));
}

/// Notes what is read.
struct Noting {
    store: Rc<MemoryStore>,
    read: RefCell<Vec<String>>,
}

impl SharedStore for Noting {
    fn read(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        self.read.borrow_mut().push(key.to_owned());
        self.store.read(key)
    }

    fn write(&self, key: &str, value: &[u8], expected: Expected) -> Result<Written, StoreError> {
        self.store.write(key, value, expected)
    }
}

/// Where the set stands in shared data.
fn set_key(store: &Rc<MemoryStore>, now: Time) -> String {
    let noting = Noting {
        store: Rc::clone(store),
        read: RefCell::default(),
    };
    Bench::new(&policy()).gateway.sync(&noting, now);
    let mut read = noting.read.into_inner().into_iter();
    read.find(|key| key.ends_with("/set")).unwrap()
}

/// An update of the module keeps the keys that the version before has shared, and the other way round.
#[test]
fn k1_a_set_of_an_earlier_version_serves_and_is_kept() {
    let mut worker = Bench::new(&policy());
    worker.fetch(&set(&[&SIGNER, &OTHER]));
    let keys = KeySet::parse(set(&[&*SIGNER, &*OTHER]).to_string().as_bytes()).unwrap();
    let key = set_key(&worker.store, worker.time());
    let shared = worker.store.read(&key).unwrap().unwrap();
    // As written before there were missing keys: the generation, and the keys.
    let earlier = [&1_u64.to_le_bytes()[..], keys.normalized().as_bytes()].concat();
    let version = Expected::Version(shared.version);
    worker.store.write(&key, &earlier, version).unwrap();

    let mut updated = Bench::sharing(&policy(), Rc::clone(&worker.store));
    assert!(updated.begin().is_none());
    assert_eq!(code(&updated.ask(&lasting(&OTHER))), None);
    updated.now += 3_600_000;
    updated.fetch(&set(&[&SIGNER]));
    assert_eq!(code(&updated.ask(&lasting(&OTHER))), None);
    // What an earlier version reads of it: the same keys, none of them missing.
    let shared = updated.store.read(&key).unwrap().unwrap().value;
    let (generation, text) = shared.split_first_chunk::<8>().unwrap();
    assert_eq!(u64::from_le_bytes(*generation), 2);
    assert_eq!(KeySet::parse(text).unwrap().normalized(), keys.normalized());
}

#[test]
fn the_last_good_set_serves_while_it_may() {
    let mut worker = Bench::new(&policy());
    worker.fetch(&set(&[&SIGNER]));
    let started = worker.now;
    let until = started + 25 * 3_600_000;
    let mut attempts = 0;
    while worker.now < until {
        if let Some(call) = worker.begin() {
            attempts += 1;
            worker.reply(&call, &nothing()).unwrap_err();
        }
        let mut claims = v1_claims();
        claims["exp"] = json!(worker.now / 1000 + 60);
        assert_eq!(
            code(&worker.ask(&SIGNER.token(&claims))),
            None,
            "{}",
            worker.now - started
        );
        worker.now += 60_000;
    }
    assert!(attempts <= 290, "{attempts}: no more often than the floor");
    // A new kid meanwhile is unavailable, not unknown.
    if let Some(call) = worker.begin() {
        worker.reply(&call, &nothing()).unwrap_err();
    }
    worker.now = until - 1;
    assert_eq!(
        code(&worker.ask(&OTHER.token(&v1_claims()))),
        Some(KeysUnavailable)
    );
    worker.now = until + 1;
    worker.begin();
    let verdict = worker.ask(&SIGNER.token(&v1_claims()));
    assert!(waits(&verdict), "{verdict:?}");
}

/// F3 to F7: answers that are none keep the last good set and are told by their kind.
#[test]
fn bad_answers_change_nothing() {
    let html = Answer {
        status: Some(200),
        body: Some(b"<html>".to_vec()),
    };
    let brackets = Answer {
        status: Some(200),
        body: Some(vec![b'['; 100_000]),
    };
    let large = Answer {
        status: Some(200),
        body: None,
    };
    let status = |status| Answer {
        status: Some(status),
        body: Some(Vec::new()),
    };
    let many = json!({ "keys": vec![SIGNER.jwk(); 1_001] });
    let mut enc = SIGNER.jwk();
    enc["use"] = json!("enc");
    for (answer, label) in [
        (nothing(), "failed"),
        (status(500), "failed"),
        (status(404), "failed"),
        (status(204), "failed"),
        (status(302), "failed"),
        (large, "failed"),
        (html, "refused"),
        (brackets, "refused"),
        (status(200), "refused"),
        (good(&json!({})), "refused"),
        (good(&json!({ "keys": [] })), "refused"),
        (good(&json!({ "keys": 123 })), "refused"),
        (
            good(&json!({ "keys": [{ "kty": "oct", "kid": "k", "k": "AA" }] })),
            "refused",
        ),
        (good(&json!({ "keys": [enc] })), "refused"),
        (good(&many), "refused"),
    ] {
        let mut worker = Bench::new(&policy());
        worker.fetch(&set(&[&SIGNER]));
        worker.now += 3_600_000;
        for stage in 0..2 {
            let mut call = worker.begin().unwrap();
            if stage == 1 {
                call = worker.reply(&call, &metadata()).unwrap();
            }
            let report = worker.reply(&call, &answer).unwrap_err().unwrap();
            assert_eq!(
                report.outcome.label(),
                label,
                "stage {stage}: {}",
                report.outcome
            );
            worker.now += 300_000;
        }
        let mut claims = v1_claims();
        claims["exp"] = json!(worker.now / 1000 + 60);
        assert_eq!(code(&worker.ask(&SIGNER.token(&claims))), None);
    }
    // One bad key spoils nothing.
    let mut worker = Bench::new(&policy());
    let mut keys = set(&[&SIGNER]);
    keys["keys"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "kty": "RSA", "kid": "bad", "n": "AQ", "e": 7 }));
    let outcome = FetchOutcome::Good {
        keys: 1,
        skipped: vec![skipped("bad", SkipReason::Malformed)],
        missing: Vec::new(),
    };
    assert_eq!(worker.fetch(&keys), outcome);
}

/// A key says which of Entra's clouds it is of; the metadata says which cloud the tenant is in.
#[test]
fn a_key_of_another_cloud_is_left_out() {
    let mut worker = Bench::new(&policy());
    let mut keys = set(&[&SIGNER, &OTHER]);
    keys["keys"][0]["cloud_instance_name"] = json!("microsoftonline.com");
    keys["keys"][1]["cloud_instance_name"] = json!("microsoftonline.us");
    let call = worker.begin().unwrap();
    let mut document = metadata_document();
    document["cloud_instance_name"] = json!("microsoftonline.com");
    let call = worker.reply(&call, &good(&document)).unwrap();
    let report = worker.reply(&call, &good(&keys)).unwrap_err().unwrap();
    let outcome = FetchOutcome::Good {
        keys: 1,
        skipped: vec![skipped("key-2", SkipReason::OtherCloud)],
        missing: Vec::new(),
    };
    assert_eq!(report.outcome, outcome);
    assert_eq!(code(&worker.ask(&SIGNER.token(&v1_claims()))), None);
    assert_eq!(
        code(&worker.ask(&OTHER.token(&v1_claims()))),
        Some(TokenSignatureKeyNotFound)
    );
}

/// An application with signing keys of its own has metadata of its own, told by a parameter.
#[test]
fn an_application_may_have_keys_of_its_own() {
    let parameter = format!("?appid={APP}");
    let base = format!("https://login.microsoftonline.com/{TENANT}");
    let mut policy = policy();
    policy["issuers"][0]["openid_config"] = json!(format!(
        "{base}/.well-known/openid-configuration{parameter}"
    ));
    let mut worker = Bench::new(&policy);
    let call = worker.begin().unwrap();
    assert!(call.url.path.ends_with(&parameter), "{}", call.url);
    let mut document = metadata_document();
    document["jwks_uri"] = json!(format!("{base}/discovery/keys{parameter}"));
    let call = worker.reply(&call, &good(&document)).unwrap();
    assert_eq!(
        call.url.path,
        format!("/{TENANT}/discovery/keys{parameter}")
    );
    worker
        .reply(&call, &good(&set(&[&SIGNER])))
        .unwrap_err()
        .unwrap();
    assert_eq!(code(&worker.ask(&SIGNER.token(&v1_claims()))), None);
}

#[test]
fn a_late_answer_belongs_to_nobody() {
    let mut worker = Bench::new(&policy());
    let first = worker.begin().unwrap();
    worker.now += 11_000;
    let second = worker.begin().unwrap();
    assert_ne!(first.attempt, second.attempt);
    assert!(worker.reply(&first, &metadata()).unwrap_err().is_none());
    worker.reply(&second, &metadata()).unwrap();
}

#[test]
fn a_worker_that_goes_gives_up_its_lease() {
    let store = Rc::new(MemoryStore::default());
    let mut one = Bench::sharing(&policy(), Rc::clone(&store));
    let mut two = Bench::sharing(&policy(), store);
    one.begin().unwrap();
    assert!(two.begin().is_none());
    one.gateway.abandon_fetches(&*one.store);
    two.now += 250;
    assert!(two.begin().is_some());
}

#[test]
fn waiting_is_shared_among_issuers_and_bounded_by_what_an_answer_may_take() {
    let issuer = |name: &str, timeout: &str| {
        json!({
            "issuers": [name], "jwks_uri": "https://h/keys", "cluster": "entra", "audiences": ["a"],
            "app_claim": "app", "refresh": { "timeout": timeout },
        })
    };
    let inline = json!({
        "issuers": ["inline"], "jwks": { "keys": [SIGNER.jwk()] }, "audiences": ["a"], "app_claim": "app",
    });
    let issuers = [issuer("slow", "20s"), issuer("quick", "1s"), inline];
    let mut worker = Bench::new(&json!({ "issuers": issuers }));
    assert_eq!(worker.gateway.waiting_share(), MAX_WAITING / 3);
    let patience = [0, 1, 2, 3].map(|issuer| worker.gateway.patience(issuer));
    assert_eq!(patience, [MAX_WAIT_MILLIS, 1_000, 0, 0]);
    let one = Bench::new(&policy());
    assert_eq!(one.gateway.waiting_share(), MAX_WAITING);
}

#[test]
fn a_call_that_could_not_be_sent_ends_the_fetch() {
    let mut worker = Bench::new(&policy());
    worker.begin().unwrap();
    let report = worker.gateway.not_sent(0, &*worker.store).unwrap();
    assert_eq!(report.issuer, 0);
    assert_eq!(report.outcome.label(), "failed");
    assert!(worker.gateway.not_sent(1, &*worker.store).is_none());
    worker.now += 250;
    assert!(worker.begin().is_some(), "the next try");
}

#[test]
fn sets_are_gauged() {
    let mut worker = Bench::new(&policy());
    let gauges = |worker: &Bench| -> Vec<_> {
        let gauges = worker.gateway.key_gauges(worker.time());
        gauges
            .map(|(name, keys, age)| (name.to_owned(), keys, age))
            .collect()
    };
    assert_eq!(gauges(&worker), [(TENANT.to_owned(), 0, None)]);
    worker.fetch(&set(&[&SIGNER, &OTHER]));
    worker.now += 7_900;
    assert_eq!(gauges(&worker), [(TENANT.to_owned(), 2, Some(7))]);
    let inline = Bench::new(&common::policy(&json!({})));
    assert_eq!(gauges(&inline), [(TENANT.to_owned(), 1, None)]);
}

#[test]
fn a_tick_without_news_forgets_no_token() {
    let mut worker = Bench::new(&policy());
    worker.fetch(&set(&[&SIGNER]));
    let token = SIGNER.token(&v1_claims());
    for _ in 0..3 {
        assert_eq!(code(&worker.ask(&token)), None);
        assert!(worker.begin().is_none());
    }
    let tallies = worker.gateway.take_tallies();
    assert_eq!((tallies.cache_misses, tallies.cache_hits), (1, 2));
    assert_eq!(worker.gateway.take_tallies(), Tallies::default());
}

/// A set that is too old to serve takes the tokens with it that it verified.
#[test]
fn tokens_that_an_old_set_verified_go_with_it() {
    let mut worker = Bench::new(&policy());
    worker.fetch(&set(&[&SIGNER]));
    let claims = common::with(v1_claims(), &json!({ "exp": NOON / 1000 + 1_000_000 }));
    let token = SIGNER.token(&claims);
    assert_eq!(code(&worker.ask(&token)), None);
    worker.now += 25 * 3_600_000;
    let now = worker.time();
    worker.gateway.sync(&*worker.store, now);
    assert_eq!(code(&worker.ask(&token)), None, "to the last moment");
    worker.now += 1;
    let now = worker.time();
    worker.gateway.sync(&*worker.store, now);
    let verdict = worker.ask(&token);
    assert!(waits(&verdict), "{verdict:?}");
}

/// Shared data that takes no more writes from some moment on.
struct Full {
    store: Rc<MemoryStore>,
    is_full: Cell<bool>,
}

impl SharedStore for Full {
    fn read(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        self.store.read(key)
    }

    fn write(&self, key: &str, value: &[u8], expected: Expected) -> Result<Written, StoreError> {
        if self.is_full.get() {
            return Err(StoreError);
        }
        self.store.write(key, value, expected)
    }
}

#[test]
fn a_set_that_shared_data_does_not_take_is_not_used() {
    let mut worker = Bench::new(&policy());
    worker.fetch(&set(&[&SIGNER]));
    worker.now += 3_600_000;
    let now = worker.time();
    let store = Full {
        store: Rc::clone(&worker.store),
        is_full: Cell::new(false),
    };
    let (_, call) = worker.gateway.begin_fetches(&store, now).pop().unwrap();
    let call = worker.reply(&call, &metadata()).unwrap();
    store.is_full.set(true);
    let answer = good(&set(&[&OTHER]));
    let ended = worker.gateway.answer(0, call.attempt, &answer, &store, now);
    let outcome = ended.unwrap_err().unwrap().outcome;
    assert_eq!(
        (outcome.label(), &outcome),
        ("failed", &FetchOutcome::NotStored)
    );
    worker.gateway.sync(&store, now);
    let claims = common::with(v1_claims(), &json!({ "exp": worker.now / 1000 + 60 }));
    assert_eq!(code(&worker.ask(&SIGNER.token(&claims))), None);
}

/// The metadata that a tenant has by default names its v2 issuer, whatever tokens of it are taken.
#[test]
fn a_tenants_metadata_serves_for_some_of_its_issuers() {
    let metadata_url = "https://login.microsoftonline.com/t/.well-known/openid-configuration";
    let v1_only = json!({
        "issuers": [format!("https://sts.windows.net/{TENANT}/")],
        "audiences": [AUDIENCE], "cluster": "entra", "openid_config": metadata_url,
    });
    let of_tenant = common::with(v1_only.clone(), &json!({ "tenant_id": TENANT }));
    let mut worker = Bench::new(&json!({ "issuers": [of_tenant] }));
    worker.fetch(&set(&[&SIGNER]));
    assert_eq!(code(&worker.ask(&SIGNER.token(&v1_claims()))), None);
    let v2 = worker.ask(&SIGNER.token(&v2_claims()));
    assert_eq!(code(&v2), Some(TokenIssuerNotAllowed));

    // Whose metadata it is, nothing else says: what the tenant's worker found is not for a policy without the tenant.
    let mut worker = Bench::sharing(&json!({ "issuers": [v1_only] }), Rc::clone(&worker.store));
    let call = worker.begin().unwrap();
    let report = worker.reply(&call, &metadata()).unwrap_err().unwrap();
    let error = FetchOutcome::Metadata(MetadataError::Issuer);
    assert_eq!(report.outcome, error);
}

#[test]
fn keys_may_be_fetched_without_metadata() {
    let issuer = json!({
        "tenant_id": TENANT, "audiences": [AUDIENCE], "cluster": "entra",
        "jwks_uri": "https://login.microsoftonline.com/keys",
    });
    let mut worker = Bench::new(&json!({ "issuers": [issuer] }));
    let call = worker.begin().unwrap();
    assert_eq!(call.url.path, "/keys");
    let report = worker.reply(&call, &good(&set(&[&SIGNER]))).unwrap_err();
    assert_eq!(report.unwrap().outcome.label(), "ok");
    assert_eq!(code(&worker.ask(&SIGNER.token(&v1_claims()))), None);
}

#[test]
fn a_worker_that_has_not_seen_the_lease_takes_none() {
    let store = Rc::new(MemoryStore::default());
    let mut one = Bench::sharing(&policy(), Rc::clone(&store));
    let mut two = Bench::sharing(&policy(), Rc::clone(&store));
    one.begin().unwrap();
    let now = two.time();
    assert!(two.gateway.begin_fetches(&*store, now).is_empty());
}

/// An answer that comes after its lease counts all the same, unless a newer set is there.
#[test]
fn a_late_set_counts_unless_a_newer_one_is_there() {
    for newer in [false, true] {
        let store = Rc::new(MemoryStore::default());
        let mut one = Bench::sharing(&policy(), Rc::clone(&store));
        let mut two = Bench::sharing(&policy(), Rc::clone(&store));
        let slow = one.begin().unwrap();
        let slow = one.reply(&slow, &metadata()).unwrap();
        two.now += 12_000;
        let quick = two.begin().expect("the lease is over");
        let quick = two.reply(&quick, &metadata()).unwrap();
        if newer {
            two.reply(&quick, &good(&set(&[&OTHER]))).unwrap_err();
        }
        one.now = two.now + 1;
        let ended = one.reply(&slow, &good(&set(&[&SIGNER]))).unwrap_err();
        assert_eq!(ended.is_some(), !newer);
        let expected = newer.then_some(TokenSignatureKeyNotFound);
        let token = SIGNER.token(&v1_claims());
        assert_eq!(code(&one.ask(&token)), expected);
        let now = two.time();
        two.gateway.sync(&*store, now);
        assert_eq!(code(&two.ask(&token)), expected);
        if !newer {
            assert!(two.begin().is_none(), "its own fetch is still under way");
            two.reply(&quick, &good(&set(&[&SIGNER, &OTHER])))
                .unwrap_err();
            assert_eq!(code(&two.ask(&OTHER.token(&v1_claims()))), None);
        }
    }
}

/// A record that nobody here wrote loses no keys.
#[test]
fn a_set_in_shared_data_that_is_none_changes_nothing() {
    for garbage in [&b""[..], b"\x02\0\0\0\0\0\0", b"\x02\0\0\0\0\0\0\0{}"] {
        let mut worker = Bench::new(&policy());
        worker.fetch(&set(&[&SIGNER]));
        let now = worker.time();
        let store = Overlaid {
            store: Rc::clone(&worker.store),
            set: garbage,
        };
        assert!(worker.gateway.sync(&store, now).len() <= 1);
        assert_eq!(code(&worker.ask(&SIGNER.token(&v1_claims()))), None);
    }
}

/// Shared data whose record of fetches tells of another set, which is these bytes.
struct Overlaid {
    store: Rc<MemoryStore>,
    set: &'static [u8],
}

impl SharedStore for Overlaid {
    fn read(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        let mut found = self.store.read(key)?;
        if let Some(found) = &mut found {
            if key.ends_with("/set") {
                found.value = self.set.to_vec();
            } else {
                let mut schedule = Schedule::decode(&found.value);
                schedule.generation = 2;
                schedule.digest ^= 1;
                found.value = schedule.encode();
            }
        }
        Ok(found)
    }

    fn write(&self, key: &str, value: &[u8], expected: Expected) -> Result<Written, StoreError> {
        self.store.write(key, value, expected)
    }
}

fn p256() -> Value {
    json!({
        "kty": "EC", "crv": "P-256", "kid": "ec",
        "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
    })
}

#[test]
fn keys_are_left_out_for_a_reason() {
    use SkipReason::{Kid, Kind, Malformed, Material, OtherCloud, Use};
    let long = "k".repeat(256);
    for (key, change, expected) in [
        (SIGNER.jwk(), json!({}), None),
        (SIGNER.jwk(), json!({ "kid": null }), Some(Kid)),
        (SIGNER.jwk(), json!({ "kid": 7 }), Some(Kid)),
        (SIGNER.jwk(), json!({ "kid": "" }), Some(Kid)),
        (SIGNER.jwk(), json!({ "kid": long }), None),
        (
            SIGNER.jwk(),
            json!({ "kid": format!("{long}k") }),
            Some(Kid),
        ),
        (SIGNER.jwk(), json!({ "use": null }), None),
        (SIGNER.jwk(), json!({ "use": "enc" }), Some(Use)),
        (SIGNER.jwk(), json!({ "use": 7 }), Some(Malformed)),
        (SIGNER.jwk(), json!({ "key_ops": ["sign", "verify"] }), None),
        (SIGNER.jwk(), json!({ "key_ops": ["encrypt"] }), Some(Use)),
        (SIGNER.jwk(), json!({ "key_ops": [] }), None),
        (SIGNER.jwk(), json!({ "key_ops": [7] }), Some(Use)),
        (
            SIGNER.jwk(),
            json!({ "key_ops": "verify" }),
            Some(Malformed),
        ),
        (SIGNER.jwk(), json!({ "cloud_instance_name": "c" }), None),
        (
            SIGNER.jwk(),
            json!({ "cloud_instance_name": "d" }),
            Some(OtherCloud),
        ),
        (SIGNER.jwk(), json!({ "kty": "oct", "k": "AA" }), Some(Kind)),
        (SIGNER.jwk(), json!({ "kty": null }), Some(Malformed)),
        (SIGNER.jwk(), json!({ "n": null }), Some(Malformed)),
        (SIGNER.jwk(), json!({ "e": "AQA/" }), Some(Malformed)),
        (
            SIGNER.jwk(),
            json!({ "e": "Aw" }),
            Some(Material(KeyError::RsaExponent)),
        ),
        (
            SIGNER.jwk(),
            json!({ "n": "AQ" }),
            Some(Material(KeyError::RsaSize)),
        ),
        (SIGNER.jwk(), json!({ "alg": "PS512" }), None),
        (SIGNER.jwk(), json!({ "alg": "ES256" }), Some(Kind)),
        (SIGNER.jwk(), json!({ "alg": "RSA-OAEP" }), Some(Kind)),
        (SIGNER.jwk(), json!({ "alg": 7 }), Some(Malformed)),
        (SIGNER.jwk(), json!({ "issuer": 7 }), Some(Malformed)),
        (p256(), json!({}), None),
        (p256(), json!({ "alg": "ES256" }), None),
        (p256(), json!({ "alg": "ES384" }), Some(Kind)),
        (
            p256(),
            json!({ "crv": "P-384" }),
            Some(Material(KeyError::EcPoint)),
        ),
        (p256(), json!({ "crv": "P-521" }), Some(Kind)),
        (p256(), json!({ "crv": null }), Some(Malformed)),
        (
            p256(),
            json!({ "x": "AA" }),
            Some(Material(KeyError::EcPoint)),
        ),
        (p256(), json!({ "y": null }), Some(Malformed)),
    ] {
        let set = json!({ "keys": [common::with(key, &change)] }).to_string();
        let found = KeySet::parse_for_cloud(set.as_bytes(), Some("c"));
        let expected = expected.map(|reason| KeySetError::NoUsableKey(Some(reason)));
        assert_eq!(found.err(), expected, "{change}");
    }
    let set = json!({ "keys": ["x"] }).to_string();
    let error = KeySetError::NoUsableKey(Some(Malformed));
    assert_eq!(KeySet::parse(set.as_bytes()).err(), Some(error));
}

#[test]
fn sets_are_bounded_and_a_kid_is_one_key() {
    let parse = |keys: &[Value]| KeySet::parse(json!({ "keys": keys }).to_string().as_bytes());
    let many: Vec<_> = (0..1_001)
        .map(|number| common::with(p256(), &json!({ "kid": number.to_string() })))
        .collect();
    let set = parse(&many[..1_000]).unwrap();
    assert_eq!((set.len(), set.is_empty()), (1_000, false));
    assert_eq!(parse(&many).err(), Some(KeySetError::TooManyKeys));
    let mut padded = json!({ "keys": [p256()] }).to_string();
    padded.push_str(&" ".repeat(MAX_DOCUMENT - padded.len()));
    assert!(KeySet::parse(padded.as_bytes()).is_ok());
    padded.push(' ');
    assert_eq!(
        KeySet::parse(padded.as_bytes()).err(),
        Some(KeySetError::TooLarge)
    );

    let twin = common::with(OTHER.jwk(), &json!({ "kid": SIGNER.kid }));
    let set = parse(&[SIGNER.jwk(), p256(), SIGNER.jwk()]).unwrap();
    assert_eq!((set.len(), set.skipped()), (2, &[][..]));
    let set = parse(&[SIGNER.jwk(), p256(), twin.clone(), SIGNER.jwk()]).unwrap();
    let ambiguous = skipped(&SIGNER.kid, SkipReason::Ambiguous);
    assert_eq!(set.skipped(), [ambiguous.clone(), ambiguous]);
    assert_eq!((set.len(), set.find("ec").is_some()), (1, true));
    let error = KeySetError::NoUsableKey(Some(SkipReason::Ambiguous));
    assert_eq!(parse(&[SIGNER.jwk(), twin]).err(), Some(error));
    let issuer = json!({ "issuer": "https://i/", "alg": "RS256" });
    let of_issuer = common::with(SIGNER.jwk(), &issuer);
    let set = parse(&[SIGNER.jwk(), of_issuer.clone()]).unwrap();
    assert_eq!((set.len(), set.skipped()), (1, &[][..]));

    // The same keys in another order are the same text, with all that matters.
    let set = parse(&[of_issuer.clone(), p256()]).unwrap();
    assert_eq!(
        set.normalized(),
        parse(&[p256(), of_issuer]).unwrap().normalized()
    );
    let again = KeySet::parse(set.normalized().as_bytes()).unwrap();
    assert_eq!(again.find(&SIGNER.kid), set.find(&SIGNER.kid));
    assert_eq!(again.find("ec"), set.find("ec"));
}

/// A policy with these keys, for tokens of any algorithm.
fn with_keys(keys: &[Value]) -> Bench {
    let algorithms = ["RS256", "RS384", "RS512", "ES256"];
    Bench::new(&json!({ "issuers": [{
        "tenant_id": TENANT, "audiences": [AUDIENCE], "jwks": { "keys": keys }, "algorithms": algorithms,
    }] }))
}

#[test]
fn k2_a_kid_that_stands_twice_is_chosen_by_the_tokens_algorithm() {
    let signer = |change: Value| common::with(SIGNER.jwk(), &change);
    let other = |change: Value| {
        let jwk = common::with(OTHER.jwk(), &json!({ "kid": SIGNER.kid }));
        common::with(jwk, &change)
    };
    let (rs256, rs512) = (json!({ "alg": "RS256" }), json!({ "alg": "RS512" }));
    let plain = || json!({});
    let of_tenant = json!({ "issuer": "https://login.microsoftonline.com/{tenantid}/v2.0" });
    let of_another = json!({ "issuer": "https://login.microsoftonline.com/another/v2.0" });
    let curve = common::with(p256(), &json!({ "kid": SIGNER.kid }));
    let unknown = Some(TokenSignatureKeyNotFound);
    for (keys, expected) in [
        (vec![signer(rs256.clone()), other(rs512.clone())], None),
        (vec![other(rs512.clone()), signer(rs256.clone())], None),
        (vec![signer(rs256.clone()), signer(rs512.clone())], None),
        (vec![signer(plain()), signer(rs256.clone())], None),
        (vec![signer(plain()), signer(plain())], None),
        (vec![signer(plain()), other(rs512.clone())], None),
        (vec![curve.clone(), signer(plain())], None),
        (vec![signer(plain()), curve.clone()], None),
        (vec![signer(of_tenant), other(of_another)], None),
        // Two that fit: which of them signs is anybody's guess.
        (vec![signer(plain()), other(plain())], unknown),
        (vec![signer(plain()), other(rs256.clone())], unknown),
        (vec![signer(rs256.clone()), other(plain())], unknown),
        (
            vec![other(rs256.clone()), signer(plain()), curve.clone()],
            unknown,
        ),
        // None that fits.
        (
            vec![signer(rs512.clone()), curve],
            Some(TokenSignatureInvalid),
        ),
        (
            vec![other(rs256), signer(rs512)],
            Some(TokenSignatureInvalid),
        ),
    ] {
        // A key that others can do without, so that there is a set at all.
        let keys: Vec<_> = keys.into_iter().chain([p256()]).collect();
        let found = with_keys(&keys).code(&SIGNER.token(&v1_claims()));
        assert_eq!(found, expected, "{keys:?}");
        let mut worker = Bench::new(&policy());
        worker.fetch(&json!({ "keys": keys }));
        let found = code(&worker.ask(&SIGNER.token(&v1_claims())));
        assert_eq!(found, expected, "fetched {keys:?}");
    }
}

#[test]
fn k3_lenient_members_are_read_as_what_they_mean() {
    let pad = |text: &str| format!("{text}{}", "=".repeat((4 - text.len() % 4) % 4));
    let n = SIGNER.jwk()["n"].as_str().unwrap().to_owned();
    let zeros = |count: usize, text: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(text).unwrap();
        URL_SAFE_NO_PAD.encode([vec![0; count], bytes].concat())
    };
    let plain = KeySet::parse(set(&[&*SIGNER]).to_string().as_bytes()).unwrap();
    for (member, value) in [
        ("alg", json!(null)),
        ("use", json!(null)),
        ("key_ops", json!(null)),
        ("key_ops", json!([])),
        ("issuer", json!(null)),
        ("cloud_instance_name", json!(null)),
        ("x5c", json!(null)),
        ("n", json!(pad(&n))),
        ("n", json!(zeros(1, &n))),
        ("n", json!(zeros(3, &n))),
        ("n", json!(pad(&zeros(1, &n)))),
        ("e", json!("AAEAAQ")),
        ("e", json!("AAEAAQ==")),
        ("e", json!("AAAAAAAAAAAAAAABAAE")),
    ] {
        let mut jwk = SIGNER.jwk();
        jwk[member] = value;
        let keys = json!({ "keys": [jwk] });
        let found = KeySet::parse(keys.to_string().as_bytes());
        let found = found.unwrap_or_else(|error| panic!("{keys}: {error}"));
        assert_eq!(found.normalized(), plain.normalized(), "{keys}");
        let token = SIGNER.token(&v1_claims());
        assert_eq!(
            with_keys(&[keys["keys"][0].clone()]).code(&token),
            None,
            "{keys}"
        );
    }
    let point = p256();
    for member in ["x", "y"] {
        let mut jwk = point.clone();
        jwk[member] = json!(pad(point[member].as_str().unwrap()));
        assert!(KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes()).is_ok());
    }
}

#[test]
fn k5_a_default_port_leads_to_no_other_host() {
    for (port, is_same) in [(":443", true), (":", true), (":444", false), (":80", false)] {
        let mut worker = Bench::new(&policy());
        let call = worker.begin().unwrap();
        let mut document = metadata_document();
        document["jwks_uri"] = json!(format!("https://login.microsoftonline.com{port}/keys"));
        let next = worker.reply(&call, &good(&document));
        assert_eq!(next.is_ok(), is_same, "{port}");
        if let Ok(call) = next {
            assert_eq!(
                call.url.to_string(),
                "https://login.microsoftonline.com/keys"
            );
        }
    }
}

/// What the log says of a fetch: one line, and another for each end.
#[test]
fn ends_of_fetches_are_told_apart() {
    let reasons = [
        SkipReason::Kid,
        SkipReason::Ambiguous,
        SkipReason::Use,
        SkipReason::Kind,
        SkipReason::Malformed,
        SkipReason::OtherCloud,
        SkipReason::Material(KeyError::RsaSize),
        SkipReason::Material(KeyError::RsaModulus),
        SkipReason::Material(KeyError::RsaExponent),
        SkipReason::Material(KeyError::EcPoint),
    ];
    let sets = [
        KeySetError::TooLarge,
        KeySetError::TooManyKeys,
        KeySetError::NotAKeySet,
        KeySetError::NoUsableKey(None),
    ];
    let of_reasons = reasons.map(|reason| KeySetError::NoUsableKey(Some(reason)));
    let metadata = [
        MetadataError::TooLarge,
        MetadataError::NotAnObject,
        MetadataError::Issuer,
        MetadataError::JwksUri,
        MetadataError::OtherHost,
    ];
    let unreachable = [
        Unreachable::NotSent,
        Unreachable::NoAnswer,
        Unreachable::Status(500),
        Unreachable::TooLarge,
    ];
    let good = [(0, 0), (1, 0), (0, 1)].map(|(left_out, missing)| FetchOutcome::Good {
        keys: 2,
        skipped: vec![skipped("k", SkipReason::Use); left_out],
        missing: vec!["k".to_owned(); missing],
    });
    let mut ends = vec![FetchOutcome::NotStored];
    ends.extend(good);
    ends.extend(sets.into_iter().chain(of_reasons).map(FetchOutcome::Keys));
    ends.extend(metadata.map(FetchOutcome::Metadata));
    ends.extend(unreachable.map(FetchOutcome::Unreachable));
    told_apart(&ends);
}
