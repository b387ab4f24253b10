//! Generated tokens: what a second verifier says of them, and what becomes of them when they are
//! changed.
//!
//! The second verifier is `jsonwebtoken` over AWS-LC: another reader of tokens, and other cryptography.
//! `TOKENS` and `MUTATIONS` say how many; `make verify` asks for many.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests compute on their own constants"
)]

mod common;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::{
    APP, AUDIENCE, Bench, OTHER, OTHER_APP, Random, SIGNER, amount, figure, policy, with,
};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Validation, get_current_timestamp};
use p256::pkcs8::EncodePrivateKey as _;
use serde_json::{Map, Value, json};
use tollgate::guid::Guid;
use tollgate::refusal::Code;

const ISSUER: &str = "https://issuer.example/";
const SKEW: i64 = 60;
const ALGORITHMS: [Algorithm; 8] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
];

/// A key pair for both verifiers.
struct Pair {
    jwk: Value,
    signing: EncodingKey,
    verifying: DecodingKey,
    algorithms: Vec<Algorithm>,
}

impl Pair {
    fn new(jwk: Value, signing: EncodingKey, algorithms: &[Algorithm]) -> Self {
        let parsed: Jwk = serde_json::from_value(jwk.clone()).unwrap();
        Self {
            verifying: DecodingKey::from_jwk(&parsed).unwrap(),
            jwk,
            signing,
            algorithms: algorithms.to_vec(),
        }
    }

    fn kid(&self) -> &str {
        self.jwk["kid"].as_str().unwrap()
    }
}

/// The keys of the issuer, and last one that is not its own.
static PAIRS: LazyLock<Vec<Pair>> = LazyLock::new(|| {
    let rsa = |signer: &common::Signer| {
        let signing = EncodingKey::from_rsa_der(&signer.pkcs1());
        Pair::new(signer.jwk(), signing, &ALGORITHMS[..6])
    };
    let jwk = |crv, point: &[u8]| {
        let (x, y) = point[1..].split_at(point.len() / 2);
        let [x, y] = [x, y].map(|number| URL_SAFE_NO_PAD.encode(number));
        json!({ "kty": "EC", "crv": crv, "kid": crv, "x": x, "y": y })
    };
    let p256 = p256::SecretKey::from_slice(&[7; 32]).unwrap();
    let p384 = p384::SecretKey::from_slice(&[7; 48]).unwrap();
    let ec = |crv, point: &[u8], der: &[u8], algorithm| {
        Pair::new(jwk(crv, point), EncodingKey::from_ec_der(der), &[algorithm])
    };
    vec![
        rsa(&SIGNER),
        ec(
            "P-256",
            &p256.public_key().to_sec1_bytes(),
            p256.to_pkcs8_der().unwrap().as_bytes(),
            Algorithm::ES256,
        ),
        ec(
            "P-384",
            &p384.public_key().to_sec1_bytes(),
            p384.to_pkcs8_der().unwrap().as_bytes(),
            Algorithm::ES384,
        ),
        rsa(&OTHER),
    ]
});

fn own_pairs() -> &'static [Pair] {
    &PAIRS[..PAIRS.len() - 1]
}

fn signature(signed: &str, pair: &Pair, algorithm: Algorithm) -> String {
    jsonwebtoken::crypto::sign(signed.as_bytes(), &pair.signing, algorithm).unwrap()
}

fn name(algorithm: Algorithm) -> String {
    format!("{algorithm:?}")
}

/// The gate, trusting these keys with every algorithm.
fn gate(now: u64) -> Bench {
    let keys: Vec<_> = own_pairs().iter().map(|pair| &pair.jwk).collect();
    let issuer = json!({
        "issuers": [ISSUER], "audiences": [AUDIENCE], "app_claim": "app", "jwks": { "keys": keys },
        "algorithms": ALGORITHMS.map(name), "clock_skew": format!("{SKEW}s"),
    });
    let mut bench = Bench::new(&policy(&json!({ "issuers": [issuer] })));
    bench.now = now * 1000;
    bench
}

/// The second verifier, set up as its documents say for the same issuer.
fn second_accepts(token: &str) -> bool {
    let Ok(header) = jsonwebtoken::decode_header(token) else {
        return false;
    };
    let kid = header.kid.as_deref();
    let Some(pair) = own_pairs().iter().find(|pair| Some(pair.kid()) == kid) else {
        return false;
    };
    let mut validation = Validation::new(pair.algorithms[0]);
    validation.algorithms.clone_from(&pair.algorithms);
    validation.leeway = u64::try_from(SKEW).unwrap();
    validation.validate_nbf = true;
    // Equal but for one trailing slash, see docs/configuration.md.
    validation.set_audience(&[AUDIENCE.to_owned(), format!("{AUDIENCE}/")]);
    validation.set_issuer(&[ISSUER]);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    jsonwebtoken::decode::<Map<String, Value>>(token, &pair.verifying, &validation).is_ok()
}

/// A token before it is written.
struct Draft {
    header: Value,
    claims: Value,
    /// Put at the end of the claims' text.
    tail: &'static str,
    pair: usize,
    algorithm: Algorithm,
    forgery: Forgery,
}

/// What is wrong with the last steps of writing a token.
#[derive(Clone, Copy, PartialEq)]
enum Forgery {
    None,
    Bit,
    Cut,
    Longer,
    Empty,
    OfAnotherToken,
    OfAnotherKey,
    Padded,
    OtherAlphabet,
    Segments(usize),
}

impl Draft {
    fn new(random: &mut Random, now: i64) -> Self {
        // RS256 is what Entra uses: half of all.
        let algorithm = *random.pick(&ALGORITHMS);
        let algorithm = *random.pick(&[Algorithm::RS256, algorithm]);
        let owns = |pair: &Pair| pair.algorithms.contains(&algorithm);
        let pair = PAIRS.iter().position(owns).unwrap();
        let id = format!("{:016x}", random.next());
        Self {
            header: json!({ "alg": name(algorithm), "kid": PAIRS[pair].kid(), "typ": "JWT" }),
            claims: json!({
                "iss": ISSUER, "aud": AUDIENCE, "app": APP, "uti": id, "sub": id,
                "iat": now - 60, "nbf": now - 60, "exp": now + 3600,
            }),
            tail: "",
            pair,
            algorithm,
            forgery: Forgery::None,
        }
    }

    /// Up to three things are unusual about it, or wrong.
    fn generate(random: &mut Random, now: i64) -> Self {
        let mut draft = Self::new(random, now);
        for _ in 0..random.below(4) {
            match random.below(5) {
                0 => draft.change_header(random),
                1 => draft.change_time(random, now),
                2 | 3 => draft.change_claims(random),
                _ => draft.forge(random),
            }
        }
        draft
    }

    fn change_header(&mut self, random: &mut Random) {
        let jwk = &PAIRS[3].jwk;
        let change = match random.below(20) {
            0 => json!({ "alg": "none" }),
            1 => json!({ "alg": "HS256" }),
            2 => json!({ "alg": name(*random.pick(&ALGORITHMS)) }),
            3 => json!({ "alg": null }),
            4 => json!({ "alg": ["RS256"] }),
            5 => json!({ "kid": null }),
            6 => json!({ "kid": 7 }),
            7 => json!({ "kid": "" }),
            8 => json!({ "kid": own_pairs()[random.below(3)].kid() }),
            9 => json!({ "kid": PAIRS[3].kid() }),
            10 => json!({ "kid": format!("{}\u{0}", SIGNER.kid) }),
            11 => json!({ "jwk": jwk }),
            12 => json!({ "jku": "https://evil.example/keys" }),
            13 => json!({ "x5u": "https://evil.example/x", "cty": "JWT" }),
            14 => json!({ "typ": null }),
            15 => json!({ "typ": *random.pick(&["jwt", "at+jwt", "application/at+jwt"]) }),
            16 => json!({ "typ": "JWE" }),
            17 => json!({ "crit": ["exp"], "exp": 1 }),
            18 => json!({ "b64": random.below(2) == 0 }),
            _ => json!({ "unknown": [1, { "x": null }] }),
        };
        self.header = with(self.header.take(), &change);
    }

    fn change_time(&mut self, random: &mut Random, now: i64) {
        // Far enough from the edge for the second verifier, which asks the clock itself.
        let edge = [
            now - SKEW - 1000,
            now - SKEW + 1000,
            now + SKEW - 1000,
            now + SKEW + 1000,
        ];
        let name = *random.pick(&["exp", "nbf", "iat"]);
        let value = match random.below(12) {
            0..5 => json!(random.pick(&edge)),
            5 => json!(random.pick(&edge).to_string()),
            6 => json!(f64::from(u32::try_from(now).unwrap()) + 1800.5),
            7 => json!(-1),
            8 => json!(2.001e206),
            9 => json!(9.1e15),
            10 => json!([now]),
            _ => json!(true),
        };
        self.claims[name] = value;
    }

    fn change_claims(&mut self, random: &mut Random) {
        let mut many: Vec<_> = (0..1000).map(|number| format!("{number}")).collect();
        many.push(AUDIENCE.to_owned());
        let deep = (0..40).fold(json!(1), |inner, _| json!([inner]));
        let change = match random.below(26) {
            0 => json!({ "exp": null }),
            1 => json!({ "nbf": null, "iat": null }),
            2 => json!({ "aud": null }),
            3 => json!({ "aud": [] }),
            4 => json!({ "aud": format!("{AUDIENCE}/") }),
            5 => json!({ "aud": format!("{AUDIENCE}//") }),
            6 => json!({ "aud": ["api://other", AUDIENCE] }),
            7 => json!({ "aud": [AUDIENCE, 7] }),
            8 => json!({ "aud": { "0": AUDIENCE } }),
            9 => json!({ "aud": AUDIENCE.to_uppercase() }),
            10 => json!({ "aud": AUDIENCE.trim_end_matches('m') }),
            11 => json!({ "aud": many }),
            12 => json!({ "iss": null }),
            13 => json!({ "iss": ISSUER.trim_end_matches('/') }),
            14 => json!({ "iss": format!("{ISSUER}x") }),
            15 => json!({ "iss": 7 }),
            16 => json!({ "iss": [ISSUER] }),
            17 => json!({ "app": OTHER_APP }),
            18 => json!({ "app": null }),
            19 => json!({ "app": "not a guid" }),
            20 => json!({ "oid": "not a guid" }),
            21 => json!({ "tid": ["x"] }),
            22 => json!({ "roles": ["Reader", "Writer"], "scp": "a b c" }),
            23 => json!({ "padding": "x".repeat(random.below(24_000)) }),
            24 => json!({ "deep": deep }),
            _ => {
                self.tail = *random.pick(&[r#","app":"a"}"#, r#","sub":1,"sub":1}"#]);
                json!({})
            }
        };
        self.claims = with(self.claims.take(), &change);
    }

    fn forge(&mut self, random: &mut Random) {
        self.forgery = match random.below(12) {
            0..3 => Forgery::Bit,
            3 => Forgery::Cut,
            4 => Forgery::Longer,
            5 => Forgery::Empty,
            6 | 7 => Forgery::OfAnotherToken,
            8 => Forgery::OfAnotherKey,
            9 => Forgery::Padded,
            10 => Forgery::OtherAlphabet,
            _ => Forgery::Segments(random.below(6)),
        };
    }

    fn write(&self, random: &mut Random) -> String {
        let mut claims = self.claims.to_string();
        if !self.tail.is_empty() {
            claims.pop();
            claims.push_str(self.tail);
        }
        let [header, claims] =
            [self.header.to_string(), claims].map(|text| URL_SAFE_NO_PAD.encode(text));
        let signed = format!("{header}.{claims}");
        let pair = match self.forgery {
            Forgery::OfAnotherKey if self.pair == 0 => &PAIRS[3],
            Forgery::OfAnotherKey => &PAIRS[3 - self.pair],
            _ => &PAIRS[self.pair],
        };
        let algorithm = *pair
            .algorithms
            .iter()
            .find(|of_key| **of_key == self.algorithm)
            .unwrap_or(&pair.algorithms[0]);
        let of = match self.forgery {
            Forgery::OfAnotherToken => format!("{signed}A"),
            _ => signed.clone(),
        };
        let good = signature(&of, pair, algorithm);
        let token = format!("{signed}.{good}");
        let mut bytes = URL_SAFE_NO_PAD.decode(&good).unwrap();
        match self.forgery {
            Forgery::Bit => {
                let bit = random.below(bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            Forgery::Cut => bytes.truncate(random.below(bytes.len())),
            Forgery::Longer => bytes.insert(random.below(bytes.len()), 0),
            Forgery::Empty => bytes.clear(),
            Forgery::Padded => return format!("{token}="),
            Forgery::OtherAlphabet => return token.replace('_', "/").replace('-', "+") + "+",
            Forgery::Segments(number) => {
                let mut parts: Vec<_> = token.split('.').collect();
                parts.resize(number, parts[0]);
                return parts.join(".");
            }
            Forgery::None | Forgery::OfAnotherToken | Forgery::OfAnotherKey => return token,
        }
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

/// What one thread has seen.
#[derive(Debug, Default)]
struct Seen {
    accepted: usize,
    refused: usize,
    /// Refused here and accepted there, by the reason.
    stricter: BTreeMap<&'static str, usize>,
}

/// The longest token that is read (spec: bounds).
const MAX_TOKEN: usize = 16 * 1024;

/// The most audiences that are read.
const MAX_AUDIENCES: usize = 1_000;

/// Why the gate refuses, with this code, what the second verifier need not: what it does not read, or reads
/// otherwise, as it stands in the token.
fn stricter(draft: &Draft, token: &str, code: Code, now: i64) -> Option<&'static str> {
    let (header, claims) = (&draft.header, &draft.claims);
    let is_guid = |value: &Value| {
        value
            .as_str()
            .is_some_and(|text| Guid::parse(text).is_some())
    };
    let typ = header
        .get("typ")
        .map(|typ| typ.as_str().map(str::to_ascii_lowercase));
    let known = ["jwt", "at+jwt", "application/at+jwt"];
    let dates = ["exp", "nbf", "iat"].map(|name| claims.get(name));
    let iat = dates[2].map(|iat| {
        iat.as_f64()
            .map(|iat| iat > f64::from(u32::try_from(now + SKEW).unwrap()))
    });
    let reasons = [
        ("size", token.len() > MAX_TOKEN, Code::JwtInvalid),
        (
            "typ",
            typ.is_some_and(|typ| typ.is_none_or(|typ| !known.contains(&&*typ))),
            Code::JwtInvalid,
        ),
        ("crit", header.get("crit").is_some(), Code::JwtInvalid),
        ("b64", header.get("b64").is_some(), Code::JwtInvalid),
        ("repeated members", !draft.tail.is_empty(), Code::JwtInvalid),
        ("depth", claims.get("deep").is_some(), Code::JwtInvalid),
        (
            "no date is before 1970",
            dates
                .iter()
                .flatten()
                .any(|date| date.as_f64().is_some_and(|date| date < 0.0)),
            Code::JwtInvalid,
        ),
        (
            "no date is beyond 2^53",
            dates
                .iter()
                .flatten()
                .any(|date| date.as_f64().is_some_and(|date| date > 2_f64.powi(53))),
            Code::JwtInvalid,
        ),
        ("iat is a number", iat == Some(None), Code::JwtInvalid),
        (
            "iat is no date to come",
            iat == Some(Some(true)),
            Code::TokenNotYetValid,
        ),
        (
            "number of audiences",
            claims["aud"]
                .as_array()
                .is_some_and(|list| list.len() > MAX_AUDIENCES),
            Code::JwtInvalid,
        ),
        (
            "iss is one text",
            claims.get("iss").is_some_and(|iss| !iss.is_string()),
            Code::JwtInvalid,
        ),
        (
            "the application",
            claims.get("app").is_none(),
            Code::TokenClaimNotFound,
        ),
        (
            "the application",
            claims.get("app").is_some_and(|app| !is_guid(app)),
            Code::JwtInvalid,
        ),
        (
            "oid",
            claims.get("oid").is_some_and(|oid| !is_guid(oid)),
            Code::JwtInvalid,
        ),
        (
            "tid",
            claims.get("tid").is_some_and(|tid| !tid.is_string()),
            Code::JwtInvalid,
        ),
    ];
    let found = reasons
        .into_iter()
        .find(|(_, holds, leads_to)| *holds && *leads_to == code);
    found.map(|(why, ..)| why)
}

fn compare(count: usize, seed: u64) -> Seen {
    let now = get_current_timestamp();
    let date = i64::try_from(now).unwrap();
    let mut bench = gate(now);
    let mut random = Random(seed);
    let mut seen = Seen::default();
    while seen.accepted + seen.refused < count {
        let draft = Draft::generate(&mut random, date);
        let token = draft.write(&mut random);
        let code = bench.code(&token);
        match (code, second_accepts(&token)) {
            (None, true) => {
                for code in [
                    Code::JwtInvalid,
                    Code::TokenNotYetValid,
                    Code::TokenClaimNotFound,
                ] {
                    let why = stricter(&draft, &token, code, date);
                    assert_eq!(why, None, "accepted: {} {}", draft.header, draft.claims);
                }
                seen.accepted += 1;
            }
            (Some(_), false) => seen.refused += 1,
            (Some(code), true) => {
                let why = stricter(&draft, &token, code, date).unwrap_or_else(|| {
                    let Draft { header, claims, .. } = &draft;
                    panic!("only refused here, {code:?}: {header} {claims}")
                });
                *seen.stricter.entry(why).or_default() += 1;
            }
            (None, false) => panic!("only accepted here: {} {}", draft.header, draft.claims),
        }
    }
    seen
}

/// Runs with half of a count each, on two threads.
fn halves<T: Send>(count: usize, run: impl Fn(usize, u64) -> T + Sync) -> [T; 2] {
    let half = count.div_ceil(2);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| run(half, 0x5eed_0002));
        let one = run(half, 0x5eed_0001);
        [one, other.join().unwrap()]
    })
}

#[test]
fn a_second_verifier_agrees() {
    let count = amount("TOKENS", 2_000);
    let seen = halves(count, compare);
    let accepted: usize = seen.iter().map(|seen| seen.accepted).sum();
    let refused: usize = seen.iter().map(|seen| seen.refused).sum();
    assert!(accepted + refused >= count);
    // Neither verifier may say the same of everything.
    assert!(accepted > count / 4 && refused > count / 4, "{seen:?}");
    let agreed = format!("{accepted} tokens accepted by both, {refused} refused by both");
    println!("{agreed}");
    println!("refused here only: {:?}", seen.map(|seen| seen.stricter));
    let what = "tokens put to a second verifier, without a difference that has no reason";
    figure("R6", what, &agreed, accepted + refused >= 100_000);
}

// Mutations

/// One random change of a token's text.
fn mutate(token: &str, other: &str, random: &mut Random) -> Vec<u8> {
    const ALPHABET: &[u8] =
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ ";
    let mut bytes = token.as_bytes().to_vec();
    let at = random.below(bytes.len());
    match random.below(12) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = *random.pick(ALPHABET),
        2 => bytes.insert(at, *random.pick(ALPHABET)),
        3 => drop(bytes.remove(at)),
        4 => bytes.truncate(at),
        5 => bytes.swap(at, (at + 1) % token.len()),
        6 => bytes.make_ascii_lowercase(),
        7 => {
            let end = at + random.below(bytes.len() - at);
            bytes.drain(at..=end);
        }
        // A part of another token, or one twice.
        8 => {
            let mut parts: Vec<_> = token.split('.').collect();
            parts[random.below(3)] = other.split('.').nth(random.below(3)).unwrap();
            return parts.join(".").into_bytes();
        }
        // What the parts say, changed and written again.
        9 | 10 => return mutate_decoded(token, random),
        _ => {
            let start = random.below(other.len());
            let piece = &other.as_bytes()[start..];
            bytes.splice(
                at..at,
                piece[..random.below(piece.len() + 1)].iter().copied(),
            );
        }
    }
    bytes
}

fn mutate_decoded(token: &str, random: &mut Random) -> Vec<u8> {
    let mut parts: Vec<_> = token.split('.').map(str::to_owned).collect();
    let part = random.pick(&[0, 1, 1, 2]);
    let mut bytes = URL_SAFE_NO_PAD.decode(&parts[*part]).unwrap();
    let at = random.below(bytes.len());
    match random.below(5) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = *random.pick(b"0123456789\"{}[],: "),
        2 => bytes.insert(at, *random.pick(b"0123456789\"{}[],: \0")),
        3 => drop(bytes.remove(at)),
        _ => bytes[at] = bytes[at].wrapping_add(1),
    }
    parts[*part] = URL_SAFE_NO_PAD.encode(bytes);
    parts.join(".").into_bytes()
}

fn mutate_many(count: usize, seed: u64) -> BTreeMap<String, usize> {
    let now = get_current_timestamp();
    let mut bench = gate(now);
    let mut random = Random(seed);
    let mut write = |_| Draft::new(&mut random, i64::try_from(now).unwrap()).write(&mut Random(1));
    let good: Vec<String> = (0..40).map(&mut write).collect();
    for token in &good {
        assert_eq!(bench.code(token), None, "{token}");
    }
    let mut refused = BTreeMap::new();
    let mut tried = 0;
    while tried < count {
        let (token, other) = (random.pick(&good).clone(), random.pick(&good));
        let mutated = mutate(&token, other, &mut random);
        // Spaces and commas around it are the header's, not the token's.
        let bare = mutated.trim_ascii();
        if good.iter().any(|token| token.as_bytes() == bare) {
            continue;
        }
        let value = [b"Bearer ", &*mutated].concat();
        let verdict = bench.decide_bytes(&[(b"authorization", &value)]);
        let code = common::code(&verdict);
        let code = code.unwrap_or_else(|| panic!("accepted: {}", mutated.escape_ascii()));
        *refused.entry(format!("{code:?}")).or_default() += 1;
        tried += 1;
    }
    for token in &good {
        assert_eq!(bench.code(token), None, "{token}");
    }
    refused
}

#[test]
fn no_mutation_of_a_good_token_is_accepted() {
    let count = amount("MUTATIONS", 10_000);
    let halves = halves(count, mutate_many);
    let of = |code: &str| -> usize { halves.iter().filter_map(|half| half.get(code)).sum() };
    let refused: usize = halves.iter().flat_map(BTreeMap::values).sum();
    let verified = of("TokenSignatureInvalid");
    println!("{halves:?}");
    assert!(refused >= count);
    // What never comes to its signature says nothing of that check.
    assert!(verified > count / 10, "{verified}");
    let figures =
        format!("{refused} changed tokens, none accepted, {verified} refused for their signature");
    println!("{figures}");
    figure("R1", "good tokens, changed", &figures, refused >= 1_000_000);
}
