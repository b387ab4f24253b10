//! Which tokens get through, and with which code the others are refused.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tollgate_second_host::{
    APP_ONE, APP_TWO, AUDIENCE, Process, TENANT, Token, Vm, flip_signature, keys,
};

use crate::common::{good, inline, with, with_issuer};

fn start(more: Value) -> (Process, Vm) {
    let process = Process::new();
    let vm = Vm::start(&process, &with_issuer(inline(), more));
    (process, vm)
}

#[test]
fn both_shapes_of_entra_are_accepted_again_and_again() {
    let (process, mut vm) = start(json!({}));
    for token in [Token::v1(&process), Token::v2(&process)] {
        let token = token.sign(keys::rsa(0));
        for _ in 0..3 {
            assert!(vm.request().bearer(&token).send().is_forwarded());
        }
    }
}

#[test]
fn audiences_are_equal_but_for_one_trailing_slash() {
    let (process, mut vm) = start(json!({}));
    for (audience, accepted) in [
        (json!(AUDIENCE), true),
        (json!(format!("{AUDIENCE}/")), true),
        (json!(["https://other", AUDIENCE]), true),
        (json!(format!("{AUDIENCE}//")), false),
        (json!(format!("{AUDIENCE}/x")), false),
        (json!(AUDIENCE.to_uppercase()), false),
        (json!([]), false),
        (json!("https://other"), false),
    ] {
        let token = Token::v1(&process)
            .claim("aud", audience.clone())
            .sign(keys::rsa(0));
        let answer = vm.request().bearer(&token).send();
        if accepted {
            assert!(answer.is_forwarded(), "{audience}");
        } else {
            assert_eq!(answer.code(), "TokenAudienceNotAllowed", "{audience}");
        }
    }
}

/// One refusal: what is changed in a good token, and the code it leads to.
type Case = (&'static str, fn(Token) -> Token, &'static str);

const REFUSED: &[Case] = &[
    (
        "iss of another tenant",
        |t| {
            t.claim(
                "iss",
                "https://sts.windows.net/99999999-2222-3333-4444-555555555555/",
            )
        },
        "TokenIssuerNotAllowed",
    ),
    ("iss missing", |t| t.without("iss"), "TokenIssuerNotAllowed"),
    ("tid missing", |t| t.without("tid"), "TokenClaimNotFound"),
    (
        "tid of another tenant",
        |t| t.claim("tid", "99999999-2222-3333-4444-555555555555"),
        "TokenClaimValueNotAllowed",
    ),
    (
        "v2 issuer in a v1 token",
        |t| {
            t.claim(
                "iss",
                format!("https://login.microsoftonline.com/{TENANT}/v2.0"),
            )
        },
        "TokenIssuerNotAllowed",
    ),
    (
        "kid unknown",
        |t| t.header("kid", "somebody-else"),
        "TokenSignatureKeyNotFound",
    ),
    (
        "exp long ago",
        |t| t.claim("exp", 1_600_000_000),
        "TokenExpired",
    ),
    (
        "nbf far ahead",
        |t| t.claim("nbf", 1_900_000_000),
        "TokenNotYetValid",
    ),
    (
        "aud missing",
        |t| t.without("aud"),
        "TokenAudienceNotAllowed",
    ),
    ("exp missing", |t| t.without("exp"), "TokenClaimNotFound"),
    (
        "exp of another type",
        |t| t.claim("exp", "1900000000"),
        "JwtInvalid",
    ),
    (
        "nbf of another type",
        |t| t.claim("nbf", json!([1])),
        "JwtInvalid",
    ),
    ("aud of another type", |t| t.claim("aud", 7), "JwtInvalid"),
    (
        "aud with another type in it",
        |t| t.claim("aud", json!([AUDIENCE, 7])),
        "JwtInvalid",
    ),
    ("iss of another type", |t| t.claim("iss", 7), "JwtInvalid"),
    (
        "kid missing",
        |t| t.header("kid", Value::Null),
        "JwtInvalid",
    ),
    ("kid of another type", |t| t.header("kid", 7), "JwtInvalid"),
    ("crit", |t| t.header("crit", json!(["exp"])), "JwtInvalid"),
    ("empty crit", |t| t.header("crit", json!([])), "JwtInvalid"),
    ("alg none", |t| t.header("alg", "none"), "JwtInvalid"),
    ("alg HS256", |t| t.header("alg", "HS256"), "JwtInvalid"),
    (
        "alg in other case",
        |t| t.header("alg", "rs256"),
        "JwtInvalid",
    ),
    (
        "alg not in the policy",
        |t| t.header("alg", "RS512"),
        "JwtInvalid",
    ),
    (
        "larger than 16 KiB",
        |t| t.claim("groups", "g".repeat(16 * 1024)),
        "JwtInvalid",
    ),
];

#[test]
fn each_fault_has_its_code() {
    let (process, mut vm) = start(json!({}));
    for (fault, change, code) in REFUSED {
        let token = change(Token::v1(&process)).sign(keys::rsa(0));
        let answer = vm.request().bearer(&token).send();
        assert!(!answer.is_forwarded(), "{fault}: accepted");
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (401, *code),
            "{fault}"
        );
    }
    // Nothing of that spoils the worker.
    assert!(vm.request().bearer(&good(&process)).send().is_forwarded());
}

#[test]
fn faults_that_no_claim_makes() {
    let (process, mut vm) = start(json!({}));
    let token = good(&process);
    let parts: Vec<_> = token.split('.').collect();
    let repeated = br#"{"aud":"a","aud":"b"}"#;
    for (fault, token, code) in [
        (
            "signature changed",
            flip_signature(&token),
            "TokenSignatureInvalid",
        ),
        (
            "another key of the same kid",
            { Token::v1(&process).sign(&keys::rsa(1).named(&keys::rsa(0).kid)) },
            "TokenSignatureInvalid",
        ),
        (
            "claims of another token",
            {
                let other = Token::v1(&process).app(APP_TWO).sign(keys::rsa(0));
                let payload = other.split('.').nth(1).expect("three parts").to_owned();
                format!("{}.{payload}.{}", parts[0], parts[2])
            },
            "TokenSignatureInvalid",
        ),
        (
            "no signature",
            format!("{}.{}.", parts[0], parts[1]),
            "JwtInvalid",
        ),
        (
            "two parts",
            format!("{}.{}", parts[0], parts[1]),
            "JwtInvalid",
        ),
        ("four parts", format!("{token}.x"), "JwtInvalid"),
        ("five parts", format!("{token}.x.y"), "JwtInvalid"),
        ("padding", format!("{token}="), "JwtInvalid"),
        (
            "foreign alphabet",
            format!("{}.{}.+{}", parts[0], parts[1], parts[2]),
            "JwtInvalid",
        ),
        ("not a token", "secret".to_owned(), "JwtInvalid"),
        (
            "a repeated member",
            Token::v1(&process).sign_raw(keys::rsa(0), repeated),
            "JwtInvalid",
        ),
        (
            "no object",
            Token::v1(&process).sign_raw(keys::rsa(0), b"[]"),
            "JwtInvalid",
        ),
        (
            "no JSON",
            Token::v1(&process).sign_raw(keys::rsa(0), b"\xff\xfe"),
            "JwtInvalid",
        ),
        (
            "100,000 brackets",
            { Token::v1(&process).sign_raw(keys::rsa(0), "[".repeat(100_000).as_bytes()) },
            "JwtInvalid",
        ),
        (
            "10,000 brackets",
            { Token::v1(&process).sign_raw(keys::rsa(0), "[".repeat(10_000).as_bytes()) },
            "JwtInvalid",
        ),
    ] {
        let answer = vm.request().bearer(&token).send();
        assert!(!answer.is_forwarded(), "{fault}: accepted");
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (401, code),
            "{fault}"
        );
    }
    assert!(vm.request().bearer(&token).send().is_forwarded());
}

#[test]
fn no_character_of_a_token_is_without_meaning() {
    let (process, mut vm) = start(json!({}));
    let token = good(&process);
    assert!(vm.request().bearer(&token).send().is_forwarded());
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..150 {
        let at = random.random_range(0..token.len());
        let old = token.as_bytes()[at];
        let new = b"ABCXYZabcxyz0189-_."[random.random_range(0..19)];
        if new == old {
            continue;
        }
        let mut changed = token.clone().into_bytes();
        changed[at] = new;
        let changed = String::from_utf8(changed).expect("ASCII");
        let answer = vm.request().bearer(&changed).send();
        assert!(
            !answer.is_forwarded(),
            "accepted with {new} at {at}: {changed}"
        );
    }
}

#[test]
fn expiry_and_start_have_the_skew_of_the_policy() {
    let (process, mut vm) = start(json!({ "clock_skew": "30s" }));
    let now = process.clock().seconds();
    for (claim, at, code) in [
        ("exp", now - 29, None),
        ("exp", now - 30, Some("TokenExpired")),
        ("nbf", now + 30, None),
        ("nbf", now + 31, Some("TokenNotYetValid")),
    ] {
        let token = Token::v1(&process).claim(claim, at).sign(keys::rsa(0));
        let answer = vm.request().bearer(&token).send();
        match code {
            None => assert!(answer.is_forwarded(), "{claim} {at}"),
            Some(code) => assert_eq!(answer.code(), code, "{claim} {at}"),
        }
    }
}

#[test]
fn a_token_that_was_good_expires() {
    let (process, mut vm) = start(json!({}));
    let token = good(&process);
    assert!(vm.request().bearer(&token).send().is_forwarded());
    process
        .clock()
        .advance(std::time::Duration::from_secs(3600 + 59));
    assert!(vm.request().bearer(&token).send().is_forwarded());
    process.clock().advance(std::time::Duration::from_secs(1));
    assert_eq!(vm.request().bearer(&token).send().code(), "TokenExpired");
}

#[test]
fn required_claims() {
    let (process, mut vm) = start(json!({ "required_claims": [
        { "name": "roles", "values": ["Caller", "Admin"], "match": "any" },
        { "name": "scp", "values": ["chat", "embed"], "separator": " " },
    ] }));
    let full = || {
        Token::v1(&process)
            .claim("roles", json!(["Caller"]))
            .claim("scp", "embed chat x")
    };
    let mut code = |token: Token| {
        let answer = vm.request().bearer(&token.sign(keys::rsa(0))).send();
        if answer.is_forwarded() {
            "forwarded".to_owned()
        } else {
            answer.code()
        }
    };
    assert_eq!(code(full()), "forwarded");
    assert_eq!(code(full().without("roles")), "TokenClaimNotFound");
    assert_eq!(code(full().without("scp")), "TokenClaimNotFound");
    assert_eq!(
        code(full().claim("roles", json!(["Reader"]))),
        "TokenClaimValueNotAllowed"
    );
    assert_eq!(
        code(full().claim("roles", json!([]))),
        "TokenClaimValueNotAllowed"
    );
    assert_eq!(
        code(full().claim("scp", "chat")),
        "TokenClaimValueNotAllowed"
    );
    assert_eq!(
        code(full().claim("scp", "chatembed")),
        "TokenClaimValueNotAllowed"
    );
}

#[test]
fn algorithms_are_those_of_the_policy() {
    let process = Process::new();
    let policy = json!({ "issuers": [{
        "tenant_id": TENANT,
        "audiences": [AUDIENCE],
        "jwks": keys::jwks(&[keys::rsa(0), keys::p256()]),
        "algorithms": ["RS384", "RS512", "PS256", "ES256"],
    }] });
    let mut vm = Vm::start(&process, &policy);
    for (algorithm, key) in [
        ("RS384", keys::rsa(0)),
        ("RS512", keys::rsa(0)),
        ("PS256", keys::rsa(0)),
        ("ES256", keys::p256()),
    ] {
        let token = Token::v1(&process).sign_as(algorithm, key);
        assert!(
            vm.request().bearer(&token).send().is_forwarded(),
            "{algorithm}"
        );
        let changed = flip_signature(&token);
        assert_eq!(
            vm.request().bearer(&changed).send().code(),
            "TokenSignatureInvalid"
        );
    }
    assert_eq!(
        vm.request().bearer(&good(&process)).send().code(),
        "JwtInvalid"
    );
}

#[test]
fn a_small_key_among_good_ones_is_left_out() {
    let process = Process::new();
    let keys_both = keys::jwks(&[keys::small_rsa(), keys::rsa(0)]);
    let mut vm = Vm::start(
        &process,
        &with_issuer(inline(), json!({ "jwks": keys_both })),
    );
    let small = Token::v1(&process).sign(keys::small_rsa());
    assert_eq!(
        vm.request().bearer(&small).send().code(),
        "TokenSignatureKeyNotFound"
    );
    assert!(vm.request().bearer(&good(&process)).send().is_forwarded());
}

#[test]
fn a_key_of_one_issuer_never_verifies_a_token_of_another() {
    let process = Process::new();
    let policy = json!({ "issuers": [
        { "tenant_id": TENANT, "audiences": [AUDIENCE], "jwks": keys::jwks(&[keys::rsa(0)]) },
        {
            "issuers": ["https://login.example.com/"],
            "audiences": ["https://example.com"],
            "app_claim": "client_id",
            "jwks": keys::jwks(&[keys::rsa(1)]),
        },
    ] });
    let mut vm = Vm::start(&process, &policy);
    let other = Token::v1(&process)
        .claim("iss", "https://login.example.com/")
        .claim("aud", "https://example.com")
        .claim("client_id", APP_TWO);
    assert!(
        vm.request()
            .bearer(&other.sign(keys::rsa(1)))
            .send()
            .is_forwarded()
    );
    assert_eq!(
        vm.request().bearer(&other.sign(keys::rsa(0))).send().code(),
        "TokenSignatureKeyNotFound",
    );
    let audience_of_the_other = Token::v1(&process).claim("aud", "https://example.com");
    assert_eq!(
        vm.request()
            .bearer(&audience_of_the_other.sign(keys::rsa(0)))
            .send()
            .code(),
        "TokenAudienceNotAllowed",
    );
}

#[test]
fn the_issuer_of_a_key_must_be_the_tokens() {
    let process = Process::new();
    let key = |issuer: String| {
        let mut jwks = keys::jwks(&[keys::rsa(0)]);
        jwks["keys"][0]["issuer"] = json!(issuer);
        with_issuer(inline(), json!({ "jwks": jwks }))
    };
    let token = Token::v2(&process).sign(keys::rsa(0));
    let base = "https://login.microsoftonline.com";
    for (issuer, accepted) in [
        (format!("{base}/{{tenantid}}/v2.0"), true),
        (format!("{base}/{TENANT}/v2.0"), true),
        (
            format!("{base}/99999999-2222-3333-4444-555555555555/v2.0"),
            false,
        ),
    ] {
        let answer = Vm::start(&process, &key(issuer.clone()))
            .request()
            .bearer(&token)
            .send();
        assert_eq!(answer.is_forwarded(), accepted, "{issuer}: {answer:?}");
    }
}

#[test]
fn applications() {
    let process = Process::new();
    let closed = with(
        inline(),
        json!({
            "apps": [{ "app_id": APP_ONE.to_uppercase() }],
            "default_app": { "access": "deny" },
        }),
    );
    let mut vm = Vm::start(&process, &closed);
    for token in [Token::v1(&process), Token::v2(&process)] {
        assert!(
            vm.request()
                .bearer(&token.sign(keys::rsa(0)))
                .send()
                .is_forwarded()
        );
        let answer = vm
            .request()
            .bearer(&token.app(APP_TWO).sign(keys::rsa(0)))
            .send();
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (403, "AppNotAllowed")
        );
    }
    // A v1 token names its application in appid; an azp in it means nothing.
    let confused = Token::v1(&process)
        .app(APP_TWO)
        .claim("azp", APP_ONE)
        .sign(keys::rsa(0));
    assert!(!vm.request().bearer(&confused).send().is_forwarded());

    let listed = with(
        inline(),
        json!({ "apps": [{ "app_id": APP_ONE, "access": "deny" }] }),
    );
    let mut vm = Vm::start(&process, &listed);
    assert_eq!(
        vm.request().bearer(&good(&process)).send().code(),
        "AppNotAllowed"
    );
    let other = Token::v1(&process).app(APP_TWO).sign(keys::rsa(0));
    assert!(vm.request().bearer(&other).send().is_forwarded());
}
