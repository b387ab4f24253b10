//! Key sets, metadata, and what workers share about keys.

use std::rc::Rc;

use serde_json::{Value, json};
use tollgate::crypto::Crypto;
use tollgate::gateway::{Patience, Verdict};
use tollgate::jwt::Algorithm;
use tollgate::keys::{Answer, FetchOutcome, KeySet, KeySetError, MAX_KEYS, Metadata};
use tollgate::policy::Policy;
use tollgate::request::HeaderMap;
use tollgate::store::{Expected, MemoryStore, SharedStore, StoreError, Versioned, Written};
use tollgate::time::Time;
use tollgate::url::Url;

use super::{Members, Target, bench};
use crate::common::{AUDIENCE, NOON, OTHER, SIGNER, TENANT, v1_claims, with};

// Key sets

const P256: &str = r#"{"kty":"EC","crv":"P-256","kid":"ec","use":"sig","alg":"ES256",
    "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}"#;

pub(super) const KEY_SET: Target = Target {
    name: "key_set",
    seeds: || {
        let one = |change: Value| json!({ "keys": [with(SIGNER.jwk(), &change)] }).to_string();
        let two = |other: &str| format!(r#"{{"keys":[{},{other}]}}"#, SIGNER.jwk());
        let same_kid = with(OTHER.jwk(), &json!({ "kid": SIGNER.kid })).to_string();
        [
            one(json!({ "issuer": "https://login.microsoftonline.com/{tenantid}/v2.0", "use": null })),
            one(json!({ "alg": "RS256", "key_ops": ["verify"], "cloud_instance_name": "c" })),
            one(json!({ "use": "enc" })),
            one(json!({ "cloud_instance_name": "other" })),
            one(json!({ "kid": "" })),
            two(P256),
            two(&OTHER.jwk().to_string()),
            two(&same_kid),
            two(r#"{"kty":"oct","kid":"key-1","k":"AA"}"#),
            r#"{"keys":[]}"#.to_owned(),
            "[]".to_owned(),
        ]
        .map(String::into_bytes)
        .into()
    },
    check: key_set,
    outcomes: &[
        "1 key",
        "2 keys",
        "NotAKeySet",
        "NoUsableKey",
        "some left out",
    ],
    words: &[
        "\"keys\":",
        "\"kid\":",
        "\"kty\":",
        "\"use\":",
        "\"alg\":",
        "\"key_ops\":",
        "\"issuer\":",
        "\"RSA\"",
        "\"EC\"",
        "\"oct\"",
        "\"sig\"",
        "\"enc\"",
        "\"RS256\"",
        "\"verify\"",
        "\"AQAB\"",
        "\"key-1\"",
        "\"key-2\"",
        "\"n\":",
        "\"e\":",
        "{",
        "}",
        "[",
        "]",
        ",",
        "AA",
    ],
};

/// A key set of the cloud `c`.
fn key_set(input: &[u8]) -> String {
    let set = match KeySet::parse_for_cloud(input, Some("c")) {
        Ok(set) => set,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return match error {
                KeySetError::NoUsableKey(_) => "NoUsableKey".to_owned(),
                other => format!("{other:?}"),
            };
        }
    };
    assert!((1..=MAX_KEYS).contains(&set.len()) && !set.is_empty());
    // What is written of it is the same set.
    let again = KeySet::parse(set.normalized().as_bytes()).unwrap();
    assert_eq!(again.len(), set.len());
    assert_eq!(again.normalized(), set.normalized());

    let document = Members::read(input).unwrap();
    let entries = document.get("keys").unwrap().as_array().unwrap();
    let mut usable = Vec::new();
    for entry in entries {
        let kid = entry["kid"].as_str();
        let Some((kid, key)) = kid.and_then(|kid| Some((kid, set.find(kid)?))) else {
            continue;
        };
        assert!(again.find(kid).is_some());
        let twins = entries.iter().filter(|other| other["kid"] == entry["kid"]);
        // Unless it is a twin that was left out, the key is what stands there.
        if twins.count() == 1 {
            check_key(entry, key);
        }
        usable.push(kid);
    }
    usable.sort_unstable();
    usable.dedup();
    // Two keys of one `kid` may be two, and may be none.
    assert!(!usable.is_empty());
    match set.len() {
        _ if !set.skipped().is_empty() => "some left out".to_owned(),
        1 => "1 key".to_owned(),
        keys => format!("{keys} keys"),
    }
}

fn check_key(entry: &Value, key: &tollgate::keys::Key) {
    let fits = |algorithm| key.public.fits(algorithm);
    match entry["kty"].as_str().unwrap() {
        "RSA" => {
            assert!(fits(Algorithm::Rs256) && fits(Algorithm::Ps512) && !fits(Algorithm::Es256));
        }
        "EC" => {
            assert!(fits(Algorithm::Es256) != fits(Algorithm::Es384) && !fits(Algorithm::Rs256));
        }
        other => panic!("a key of the kind {other}"),
    }
    let member = |name: &str| entry.get(name).filter(|value| !value.is_null());
    assert!(member("use").is_none_or(|purpose| purpose == "sig"));
    assert!(member("key_ops").is_none_or(|all| {
        let all = all.as_array().unwrap();
        all.is_empty() || all.contains(&json!("verify"))
    }));
    assert!(member("cloud_instance_name").is_none_or(|cloud| cloud == "c"));
    assert_eq!(
        member("alg").map(|name| name.as_str().unwrap()),
        key.algorithm.map(Algorithm::name)
    );
    assert_eq!(
        member("issuer").map(|name| name.as_str().unwrap()),
        key.issuer.as_deref()
    );
}

// Metadata

const SOURCE: &str = "https://login.example/t/.well-known/openid-configuration";

pub(super) const METADATA: Target = Target {
    name: "metadata",
    seeds: || {
        let document =
            |issuer: &str, uri: &str| json!({ "issuer": issuer, "jwks_uri": uri }).to_string();
        let good = "https://login.example/t/v2.0";
        [
            document(good, "https://login.example/t/keys"),
            document(
                "https://login.example/{tenantid}/v2.0",
                "HTTPS://LOGIN.example/keys?x=1",
            ),
            document(good, "https://evil.example/keys"),
            document(good, "http://login.example/keys"),
            document(good, "/keys"),
            document(
                "https://login.example/other/v2.0",
                "https://login.example/keys",
            ),
            r#"{"issuer":"https://login.example/t/v2.0","cloud_instance_name":"c"}"#.to_owned(),
            "[]".to_owned(),
        ]
        .map(String::into_bytes)
        .into()
    },
    check: metadata,
    outcomes: &["good", "NotAnObject", "Issuer", "JwksUri", "OtherHost"],
    words: &[
        "\"issuer\":",
        "\"jwks_uri\":",
        "https://login.example",
        "http://",
        "@",
        ":443",
        "#",
        "?",
        "/",
        "{tenantid}",
        "\\u002f",
        "\"cloud_instance_name\":",
        "%2f",
        "\\\\",
    ],
};

fn metadata(input: &[u8]) -> String {
    let source = Url::parse(SOURCE).unwrap();
    let issuers = ["https://login.example/t/v2.0".to_owned()];
    let metadata = match Metadata::parse(input, &source, &issuers, Some("t")) {
        Ok(metadata) => metadata,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return format!("{error:?}");
        }
    };
    let document = Members::read(input).unwrap();
    assert!(document.are_unique());
    let issuer = document.text("issuer").unwrap().replace("{tenantid}", "t");
    assert_eq!(issuer, issuers[0]);
    // Wherever it leads, that is the host that was asked, by the same scheme, and read so again.
    let uri = metadata.jwks_uri.to_string();
    assert!(uri.starts_with("https://login.example/"), "{uri}");
    assert_eq!(Url::parse(&uri), Some(metadata.jwks_uri));
    let written = document.text("jwks_uri").unwrap().to_ascii_lowercase();
    let rest = written.strip_prefix("https://login.example").unwrap();
    // The default port, or an empty one, is the same host.
    let rest = rest
        .strip_prefix(":443")
        .or_else(|| rest.strip_prefix(':'))
        .unwrap_or(rest);
    assert!(rest.is_empty() || rest.starts_with(['/', '?']), "{written}");
    assert!(!rest.contains(['#', '\\', ' ']), "{written}");
    "good".to_owned()
}

// Shared data

thread_local! {
    static FETCHING: Rc<Policy> = {
        let issuer = json!({ "tenant_id": TENANT, "audiences": [AUDIENCE], "cluster": "entra" });
        let policy = json!({ "issuers": [issuer] }).to_string();
        Rc::new(Policy::parse(policy.as_bytes()).unwrap())
    };
    static TOKEN: String = SIGNER.token(&with(v1_claims(), &json!({ "exp": NOON / 1000 + 10_000_000 })));
}

/// Bytes of the record of fetches; what follows is the key set.
const SCHEDULE: usize = 65;

pub(super) const SHARED_KEYS: Target = Target {
    name: "shared_keys",
    seeds: || {
        let set = |signer: &crate::common::Signer| json!({ "keys": [signer.jwk()] }).to_string();
        let record = |fields: [u64; 8], generation: u64, set: String| {
            let fields: Vec<_> = fields
                .iter()
                .flat_map(|field| field.to_le_bytes())
                .collect();
            [&[1][..], &fields, &generation.to_le_bytes(), set.as_bytes()].concat()
        };
        let at = NOON - 60_000;
        let fresh = [1, 7, at, NOON + 3_000_000, at, 1, 0, 0];
        vec![
            record(fresh, 1, set(&SIGNER)),
            record(fresh, 1, set(&OTHER)),
            record(fresh, 9, set(&SIGNER)),
            record([1, 7, 1, 1, 1, 1, 0, 3], 1, set(&SIGNER)),
            record([1, 7, at, 1, at, 2, NOON + 5_000, 0], 1, set(&OTHER)),
            record(
                [1, 7, u64::MAX, u64::MAX, u64::MAX, 1, u64::MAX, u64::MAX],
                1,
                set(&SIGNER),
            ),
            record(fresh, 1, "{}".to_owned()),
            vec![1],
            Vec::new(),
        ]
    },
    check: shared_keys,
    outcomes: &["allowed", "refused", "waits"],
    words: &[
        "\u{1}\0\0\0\0\0\0\0",
        "\0\0\0\0\0\0\0\0",
        "\"kid\"",
        "key-1",
        "key-2",
        "{\"keys\":[",
    ],
};

/// What others wrote, and a store for what is written from then on.
struct Found<'a> {
    schedule: &'a [u8],
    set: &'a [u8],
    written: MemoryStore,
}

impl SharedStore for Found<'_> {
    fn read(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        if let Some(found) = self.written.read(key)? {
            return Ok(Some(found));
        }
        let value = if key.ends_with("/schedule") {
            self.schedule
        } else {
            self.set
        };
        self.written.write(key, value, Expected::Absent)?;
        self.written.read(key)
    }

    fn write(&self, key: &str, value: &[u8], expected: Expected) -> Result<Written, StoreError> {
        self.written.write(key, value, expected)
    }
}

/// The records that workers share, whatever is in them: no key is trusted but those of the set, one fetch
/// begins at most, and a good fetch heals everything.
fn shared_keys(input: &[u8]) -> String {
    let (schedule, set) = input.split_at(input.len().min(SCHEDULE));
    let store = Found {
        schedule,
        set,
        written: MemoryStore::default(),
    };
    let mut gateway = FETCHING.with(|policy| bench(policy, Crypto::pure()).gateway);
    let authorization = TOKEN.with(|token| format!("Bearer {token}"));
    let headers = HeaderMap::from_pairs([
        (&b":method"[..], &b"GET"[..]),
        (b":path", b"/openai/models"),
        (b"authorization", authorization.as_bytes()),
    ]);
    let now = Time::from_millis(NOON);
    gateway.sync(&store, now);
    let verdict = gateway.decide(&headers, &|| now, &store, Patience::Wait);
    let outcome = match verdict {
        Verdict::Allow(_) => {
            let set = KeySet::parse(set.get(8..).unwrap()).unwrap();
            assert!(set.find(&SIGNER.kid).is_some());
            "allowed"
        }
        Verdict::Refuse(_) => "refused",
        Verdict::Wait { .. } => "waits",
        Verdict::Read(_) => panic!("nothing to read"),
    };
    gateway.begin_fetches(&store, now);
    assert!(
        gateway.begin_fetches(&store, now).is_empty(),
        "two fetches at a time"
    );

    // No lease is that long, and no set serves that long.
    let later = Time::from_millis(NOON + 3 * 86_400_000);
    gateway.abandon_fetches(&store);
    gateway.sync(&store, later);
    let (issuer, call) = gateway
        .begin_fetches(&store, later)
        .pop()
        .expect("a fetch is due");
    let host = "https://login.microsoftonline.com";
    let metadata = json!({
        "issuer": format!("{host}/{TENANT}/v2.0"), "jwks_uri": format!("{host}/{TENANT}/keys"),
    });
    let keys = json!({ "keys": [SIGNER.jwk()] });
    let good = |document: &Value| Answer {
        status: Some(200),
        body: Some(document.to_string().into_bytes()),
    };
    let call = gateway
        .answer(issuer, call.attempt, &good(&metadata), &store, later)
        .unwrap();
    let ended = gateway.answer(issuer, call.attempt, &good(&keys), &store, later);
    let outcome_of_fetch = ended.unwrap_err().unwrap().outcome;
    let FetchOutcome::Good {
        keys: 1,
        skipped,
        missing,
    } = outcome_of_fetch
    else {
        panic!("{outcome_of_fetch:?}");
    };
    assert!(skipped.is_empty());
    // What the record holds beyond that serves on for a while, and nothing else does.
    for kid in missing {
        let set = KeySet::parse(set.get(8..).unwrap()).unwrap();
        assert!(set.find(&kid).is_some() && kid != SIGNER.kid, "{kid}");
    }
    gateway.sync(&store, later);
    let verdict = gateway.decide(&headers, &|| later, &store, Patience::Wait);
    assert!(matches!(verdict, Verdict::Allow(_)), "{verdict:?}");
    outcome.to_owned()
}
