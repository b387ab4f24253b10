//! The behaviour table on the core: requests and what becomes of them.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::string_slice,
    reason = "tests compute on their own constants"
)]

mod admission;
mod common;

use common::{
    APP, AUDIENCE, Bench, NOON, OTHER, OTHER_APP, SIGNER, TENANT, code, policy, told_apart,
    v1_claims, v2_claims, with,
};
use serde_json::{Value, json};
use tollgate::answer::{Answer, ResponseContext};
use tollgate::gateway::{Patience, Verdict};
use tollgate::jwt::{ClaimError, ClaimRefusal, TokenError, VerifyError};
use tollgate::limits::Reached;
use tollgate::limits::{ResponseStatus, Settlement};
use tollgate::operations::Action;
use tollgate::policy::{Measure, Window};
use tollgate::refusal::Code::{self, *};
use tollgate::refusal::Refusal;
use tollgate::request::{HeaderMap, KeyPlace};
use tollgate::store::{Expected, SharedStore, StoreError, Versioned, Written};
use tollgate::time::Time;
use tollgate::usage::{BodyError, Member};

/// Checks the code of a token with changed claims, and that the same token with one bit of its
/// signature flipped is refused.
fn check(bench: &mut Bench, claims: &Value, expected: Option<Code>) {
    let token = SIGNER.token(claims);
    assert_eq!(bench.code(&token), expected, "{claims}");
    let mut flipped = token.into_bytes();
    let at = flipped.len() - 20;
    flipped[at] = if flipped[at] == b'A' { b'B' } else { b'A' };
    let got = bench.code(std::str::from_utf8(&flipped).unwrap());
    assert!(got.is_some(), "forged: {claims}");
}

#[test]
fn tokens_of_both_versions_pass() {
    let mut bench = Bench::new(&policy(&json!({})));
    check(&mut bench, &v1_claims(), None);
    check(&mut bench, &v2_claims(), None);
}

#[test]
fn claims_are_checked() {
    let now = NOON / 1000;
    let other = "99999999-2222-3333-4444-555555555555";
    let mut bench = Bench::new(&policy(&json!({})));
    for (changes, expected) in [
        // B1: exp
        (json!({ "exp": null }), Some(TokenClaimNotFound)),
        (json!({ "exp": "never" }), Some(JwtInvalid)),
        (json!({ "exp": (now + 100).to_string() }), Some(JwtInvalid)),
        (json!({ "exp": true }), Some(JwtInvalid)),
        (json!({ "exp": [now + 100] }), Some(JwtInvalid)),
        (json!({ "exp": -1 }), Some(JwtInvalid)),
        (json!({ "exp": 2.001e+206 }), Some(JwtInvalid)),
        (json!({ "exp": u64::MAX }), Some(JwtInvalid)),
        (json!({ "exp": 0 }), Some(TokenExpired)),
        (json!({ "exp": 1_772_366_400.5 }), None),
        // B2: the skew of 60 s, to the second
        (json!({ "exp": now - 59 }), None),
        (json!({ "exp": now - 60 }), Some(TokenExpired)),
        (json!({ "nbf": now + 60 }), None),
        (json!({ "nbf": now + 61 }), Some(TokenNotYetValid)),
        // B3
        (json!({ "nbf": i64::MAX }), Some(TokenNotYetValid)),
        (
            json!({ "nbf": 253_402_300_799_u64 }),
            Some(TokenNotYetValid),
        ),
        (json!({ "nbf": null, "iat": null }), None),
        (json!({ "nbf": "soon" }), Some(JwtInvalid)),
        (json!({ "iat": now + 61 }), Some(TokenNotYetValid)),
        // B4: aud
        (json!({ "aud": format!("{AUDIENCE}/") }), None),
        (
            json!({ "aud": format!("{AUDIENCE}//") }),
            Some(TokenAudienceNotAllowed),
        ),
        (json!({ "aud": [AUDIENCE] }), None),
        (json!({ "aud": ["x", AUDIENCE] }), None),
        (json!({ "aud": [AUDIENCE, 7] }), Some(JwtInvalid)),
        (json!({ "aud": [] }), Some(TokenAudienceNotAllowed)),
        (json!({ "aud": {} }), Some(JwtInvalid)),
        (json!({ "aud": 7 }), Some(JwtInvalid)),
        (json!({ "aud": null }), Some(TokenAudienceNotAllowed)),
        (
            json!({ "aud": "https://cognitiveservices.azure.co" }),
            Some(TokenAudienceNotAllowed),
        ),
        (
            json!({ "aud": "HTTPS://COGNITIVESERVICES.AZURE.COM" }),
            Some(TokenAudienceNotAllowed),
        ),
        (
            json!({ "aud": "cognitiveservices.azure.com" }),
            Some(TokenAudienceNotAllowed),
        ),
        (json!({ "aud": "" }), Some(TokenAudienceNotAllowed)),
        // B5, C2, C3: iss, ver and tid belong together
        (json!({ "iss": null }), Some(TokenIssuerNotAllowed)),
        (json!({ "iss": 7 }), Some(JwtInvalid)),
        (
            json!({ "iss": format!("https://sts.windows.net/{TENANT}") }),
            Some(TokenIssuerNotAllowed),
        ),
        (
            json!({ "iss": format!("https://sts.windows.net/{other}/") }),
            Some(TokenIssuerNotAllowed),
        ),
        (
            json!({ "iss": "https://sts.windows.net/{tenantid}/" }),
            Some(TokenIssuerNotAllowed),
        ),
        (
            json!({ "iss": format!("https://login.microsoftonline.com/{TENANT}/v2.0") }),
            Some(TokenIssuerNotAllowed),
        ),
        (json!({ "tid": other }), Some(TokenClaimValueNotAllowed)),
        (json!({ "tid": null }), Some(TokenClaimNotFound)),
        (json!({ "tid": "common" }), Some(JwtInvalid)),
        (json!({ "tid": 7 }), Some(JwtInvalid)),
        (json!({ "tid": TENANT.to_uppercase() }), None),
        (json!({ "ver": null }), Some(TokenClaimNotFound)),
        (json!({ "ver": "3.0" }), Some(TokenClaimValueNotAllowed)),
        (json!({ "ver": 1.0 }), Some(JwtInvalid)),
        // C1, C6, C9: the application
        (json!({ "appid": null }), Some(TokenClaimNotFound)),
        (
            json!({ "appid": null, "azp": APP }),
            Some(TokenClaimNotFound),
        ),
        (json!({ "azp": APP }), None),
        (json!({ "azp": OTHER_APP }), Some(TokenClaimValueNotAllowed)),
        (json!({ "azp": 5 }), Some(JwtInvalid)),
        (json!({ "azp": "not an id" }), Some(JwtInvalid)),
        (json!({ "appid": APP.to_uppercase() }), None),
        (json!({ "appid": format!("{{{APP}}}") }), Some(JwtInvalid)),
        (json!({ "appid": format!(" {APP}") }), Some(JwtInvalid)),
        (json!({ "appid": "app\u{0}" }), Some(JwtInvalid)),
        // B6, B8
        (json!({ "oid": "x\r\nset-cookie: a" }), Some(JwtInvalid)),
        (
            json!({ "uti": "x".repeat(5000), "scp": ["a"], "roles": "x", "jti": 7 }),
            None,
        ),
        (json!({ "_claim_names": { "groups": "src1" } }), None),
    ] {
        check(&mut bench, &with(v1_claims(), &changes), expected);
    }
}

/// Of two faults the one that is looked at first is told: the algorithm before the issuer, the token before its caller.
/// A token that has no beginning would be good in 1970, which is when a clock that fails stands still.
#[test]
fn without_a_clock_no_token_is_good() {
    let mut bench = Bench::new(&policy(&json!({})));
    let token = SIGNER.token(&with(v1_claims(), &json!({ "nbf": null, "iat": null })));
    assert_eq!(bench.code(&token), None);
    let now = std::mem::take(&mut bench.now);
    assert_eq!(bench.code(&token), Some(InternalError));
    bench.now = now;
    assert_eq!(bench.code(&token), None);
}

#[test]
fn the_first_fault_is_told() {
    let now = NOON / 1000;
    let mut bench = Bench::new(&policy(&json!({})));
    let stranger = with(v1_claims(), &json!({ "iss": "https://elsewhere.example/" }));
    for (alg, expected) in [
        ("none", JwtInvalid),
        ("HS256", JwtInvalid),
        ("RS999", JwtInvalid),
        ("RS512", JwtInvalid),
        ("RS256", TokenIssuerNotAllowed),
    ] {
        let header = json!({ "alg": alg, "kid": SIGNER.kid });
        let token = SIGNER.sign(&header, &stranger.to_string());
        assert_eq!(bench.code(&token), Some(expected), "{alg}");
    }

    let (expired, early) = (json!({ "exp": now - 60 }), json!({ "nbf": now + 61 }));
    let (elsewhere, foreign) = (json!({ "aud": "x" }), json!({ "tid": OTHER_APP }));
    let v2 = json!({ "iss": format!("https://login.microsoftonline.com/{TENANT}/v2.0") });
    for nobody in [
        json!({ "appid": null }),
        json!({ "azp": OTHER_APP }),
        json!({ "ver": "3.0" }),
        json!({ "ver": null }),
    ] {
        for (fault, expected) in [
            (&expired, TokenExpired),
            (&early, TokenNotYetValid),
            (&elsewhere, TokenAudienceNotAllowed),
            (&foreign, TokenClaimValueNotAllowed),
        ] {
            let claims = with(with(v1_claims(), &nobody), fault);
            let verdict = bench.code(&SIGNER.token(&claims));
            assert_eq!(verdict, Some(expected), "{nobody} {fault}");
        }
    }
    // The version says where the application stands, and the form of iss says which it is.
    check(
        &mut bench,
        &with(v1_claims(), &json!({ "ver": "2.0" })),
        Some(TokenIssuerNotAllowed),
    );
    check(
        &mut bench,
        &with(with(v1_claims(), &v2), &json!({ "appid": null })),
        Some(TokenIssuerNotAllowed),
    );
}

/// Who is not named is not told either, and the token is looked at anew each time.
#[test]
fn a_token_without_an_application_is_not_remembered() {
    let mut bench = Bench::new(&policy(&json!({})));
    let token = SIGNER.token(&with(v1_claims(), &json!({ "appid": null })));
    for _ in 0..3 {
        let Verdict::Refuse(refused) =
            bench.decide(&[("authorization", &format!("Bearer {token}"))])
        else {
            panic!()
        };
        assert_eq!(refused.refusal.code(), TokenClaimNotFound);
        assert_eq!(refused.claims, None);
    }
}

/// TRACE has the backend send back what it got, the token among it.
#[test]
fn nobody_traces() {
    let token = format!("Bearer {}", SIGNER.token(&v1_claims()));
    let mut bench = Bench::new(&policy(&json!({})));
    for (method, path, expected) in [
        ("TRACE", "/openai/models", Some(PermissionDenied)),
        ("TRACE", "/", Some(PermissionDenied)),
        ("trace", "/", Some(PermissionDenied)),
        ("GET", "/", None),
        ("PROPFIND", "/openai/models", None),
    ] {
        let head = [
            (":method", method),
            (":path", path),
            ("authorization", &token),
        ];
        assert_eq!(bench.code_of(&head), expected, "{method} {path}");
    }
}

/// Some servers take `post` for POST (ASP.NET Core, `HttpMethods.IsPost`): what the call uses counts.
#[test]
fn l1_a_call_is_measured_in_whatever_case_its_method_is() {
    let token = format!("Bearer {}", SIGNER.token(&v1_claims()));
    let mut bench = Bench::new(&policy(&json!({})));
    for (method, is_measured) in [
        ("POST", true),
        ("post", true),
        ("Post", true),
        ("GET", false),
    ] {
        let path = "/openai/deployments/gpt-4o/chat/completions";
        let head = [
            (":method", method),
            (":path", path),
            ("authorization", &token),
        ];
        let Verdict::Allow(allow) = bench.decide(&head) else {
            panic!("{method} is refused");
        };
        assert_eq!(allow.meter.is_some(), is_measured, "{method}");
    }
}

/// D10: a token in the query is none, and does not go on beside one that is.
#[test]
fn a_token_in_the_query_stays_here() {
    let token = SIGNER.token(&v1_claims());
    let bearer = format!("Bearer {token}");
    let mut bench = Bench::new(&policy(&json!({ "public_paths": ["/status"] })));
    let path = |path: &str| format!("{path}?a=1&access_token={token}&b=2");
    let models = path("/openai/models");
    let alone = [(":method", "GET"), (":path", models.as_str())];
    assert_eq!(bench.code_of(&alone), Some(TokenNotPresent));
    let status = path("/status");
    for (head, rest) in [
        (
            vec![(":path", models.as_str()), ("authorization", &bearer)],
            "/openai/models?a=1&b=2",
        ),
        (vec![(":path", status.as_str())], "/status?a=1&b=2"),
    ] {
        let head: Vec<_> = [(":method", "GET")].into_iter().chain(head).collect();
        let Verdict::Allow(allow) = bench.decide(&head) else {
            panic!("{head:?}")
        };
        assert_eq!(allow.changes.set, [(":path".to_owned(), rest.into())]);
    }
}

#[test]
fn headers_are_checked() {
    let mut bench = Bench::new(&policy(&json!({})));
    let good = json!({ "alg": "RS256", "typ": "JWT", "kid": SIGNER.kid });
    for (changes, expected) in [
        (json!({}), None),
        (json!({ "typ": null }), None),
        (json!({ "typ": "at+jwt" }), Some(JwtInvalid)), // A17
        (json!({ "alg": "none" }), Some(JwtInvalid)),   // A1
        (json!({ "alg": "NONE" }), Some(JwtInvalid)),
        (json!({ "alg": "HS256" }), Some(JwtInvalid)), // A2
        (json!({ "alg": "RS384" }), Some(JwtInvalid)), // A3
        (json!({ "alg": "PS256" }), Some(JwtInvalid)),
        (json!({ "alg": "ES256" }), Some(JwtInvalid)),
        (json!({ "alg": "rs256" }), Some(JwtInvalid)),
        (json!({ "crit": ["exp"] }), Some(JwtInvalid)), // A5
        (json!({ "b64": false }), Some(JwtInvalid)),
        (
            json!({ "kid": "../../dev/null" }),
            Some(TokenSignatureKeyNotFound),
        ), // A6
        (
            json!({ "kid": "key-1\u{0}" }),
            Some(TokenSignatureKeyNotFound),
        ),
        (
            json!({ "kid": "' or 1=1 --" }),
            Some(TokenSignatureKeyNotFound),
        ),
        (json!({ "kid": "KEY-1" }), Some(TokenSignatureKeyNotFound)),
        (json!({ "kid": null }), Some(JwtInvalid)), // A7
        // A4: keys that the token brings along are not looked at
        (
            json!({ "jwk": OTHER.jwk(), "jku": "https://evil/", "x5u": "https://evil/" }),
            None,
        ),
    ] {
        let header = with(good.clone(), &changes);
        let token = SIGNER.sign(&header, &v1_claims().to_string());
        assert_eq!(bench.code(&token), expected, "{header}");
    }
    // A4, the other half: signed with the key that it brings along.
    let header = with(good, &json!({ "jwk": OTHER.jwk() }));
    let token = OTHER.sign(&header, &v1_claims().to_string());
    assert_eq!(bench.code(&token), Some(TokenSignatureInvalid));
}

#[test]
fn repeated_members_are_refused() {
    let mut bench = Bench::new(&policy(&json!({})));
    let header = json!({ "alg": "RS256", "kid": SIGNER.kid });
    let claims = v1_claims().to_string();
    let repeated = format!("{},\"aud\":\"{AUDIENCE}\"}}", &claims[..claims.len() - 1]);
    assert_eq!(
        bench.code(&SIGNER.sign(&header, &repeated)),
        Some(JwtInvalid)
    );
    for payload in ["", "[]", "7", "\"x\"", "{", "null"] {
        assert_eq!(
            bench.code(&SIGNER.sign(&header, payload)),
            Some(JwtInvalid),
            "{payload}"
        );
    }
}

/// Who reads names without their case must find the same tenant.
#[test]
fn two_tenants_that_differ_in_the_case_of_their_name_are_refused() {
    let mut bench = Bench::new(&policy(&json!({})));
    let header = json!({ "alg": "RS256", "kid": SIGNER.kid });
    let claims = v1_claims().to_string();
    let (start, rest) = (claims.trim_end_matches('}'), claims.trim_start_matches('{'));
    for name in ["TID", "Tid", "t\\u0049d"] {
        let other = format!("\"{name}\":{}", v1_claims()["tid"]);
        for both in [format!("{start},{other}}}"), format!("{{{other},{rest}")] {
            let token = SIGNER.sign(&header, &both);
            assert_eq!(bench.code(&token), Some(JwtInvalid), "{both}");
        }
    }
    // Alone it is no `tid`.
    let mut alone = v1_claims();
    let tenant = alone.as_object_mut().unwrap().remove("tid").unwrap();
    alone["TID"] = tenant;
    assert_eq!(bench.code(&SIGNER.token(&alone)), Some(TokenClaimNotFound));
}

#[test]
fn every_bit_of_the_signature_counts() {
    let mut bench = Bench::new(&policy(&json!({})));
    let token = SIGNER.token(&v1_claims());
    assert_eq!(bench.code(&token), None);
    let start = token.rfind('.').unwrap() + 1;
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for at in start..token.len() {
        let mut bytes = token.clone().into_bytes();
        let value = alphabet
            .iter()
            .position(|letter| *letter == bytes[at])
            .unwrap();
        for bit in [1, 32] {
            bytes[at] = alphabet[value ^ bit];
            let forged = std::str::from_utf8(&bytes).unwrap();
            assert!(bench.code(forged).is_some(), "at {at}, bit {bit}");
        }
        assert!(bench.code(&token[..at]).is_some(), "cut at {at}");
    }
}

#[test]
fn keys_of_one_issuer_never_verify_tokens_of_another() {
    let tenant = "22222222-2222-3333-4444-555555555555";
    let mut both = policy(&json!({}));
    both["issuers"].as_array_mut().unwrap().push(json!({
        "tenant_id": tenant, "audiences": [AUDIENCE], "jwks": { "keys": [OTHER.jwk()] },
    }));
    let mut bench = Bench::new(&both);
    let of_other = with(
        v1_claims(),
        &json!({ "tid": tenant, "iss": format!("https://sts.windows.net/{tenant}/") }),
    );
    assert_eq!(bench.code(&OTHER.token(&of_other)), None);
    assert_eq!(bench.code(&SIGNER.token(&v1_claims())), None);
    assert_eq!(
        bench.code(&SIGNER.token(&of_other)),
        Some(TokenSignatureKeyNotFound)
    );
    assert_eq!(
        bench.code(&OTHER.token(&v1_claims())),
        Some(TokenSignatureKeyNotFound)
    );
}

/// C4: a key may name the issuer that it belongs to.
#[test]
fn a_keys_own_issuer_must_be_the_tokens() {
    for (issuer, expected) in [
        ("https://login.microsoftonline.com/{tenantid}/v2.0", None),
        (
            &format!("https://login.microsoftonline.com/{TENANT}/v2.0"),
            None,
        ),
        (&format!("https://sts.windows.net/{TENANT}/"), None),
        (
            "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0",
            Some(TokenIssuerNotAllowed),
        ),
        (
            "https://login.microsoftonline.com/{tenant}/v2.0",
            Some(TokenIssuerNotAllowed),
        ),
        (
            "https://login.microsoftonline.us/{tenantid}/v2.0",
            Some(TokenIssuerNotAllowed),
        ),
        (
            "https://login.microsoftonline.com/{tenantid}/v2.0/x",
            Some(TokenIssuerNotAllowed),
        ),
    ] {
        let key = with(SIGNER.jwk(), &json!({ "issuer": issuer }));
        let mut document = policy(&json!({}));
        document["issuers"][0]["jwks"] = json!({ "keys": [key] });
        let mut bench = Bench::new(&document);
        assert_eq!(
            bench.code(&SIGNER.token(&v1_claims())),
            expected,
            "{issuer}"
        );
    }
}

/// RFC 7517 section 4.4: a key may name the algorithm that it is for.
#[test]
fn a_keys_own_algorithm_is_the_only_one() {
    for (alg, expected) in [
        ("RS256", None),
        ("RS384", Some(TokenSignatureInvalid)),
        ("PS256", Some(TokenSignatureInvalid)),
    ] {
        let mut document = policy(&json!({}));
        let key = with(SIGNER.jwk(), &json!({ "alg": alg }));
        document["issuers"][0]["jwks"] = json!({ "keys": [key] });
        document["issuers"][0]["algorithms"] = json!(["RS256", "RS384", "PS256"]);
        let mut bench = Bench::new(&document);
        assert_eq!(bench.code(&SIGNER.token(&v1_claims())), expected, "{alg}");
    }
}

#[test]
fn c8_required_claims_are_matched_and_split_only_where_asked() {
    let mut claims = with(
        v1_claims(),
        &json!({
            "scp": "Read Write", "scope": "chat files", "department": "Not Finance", "groups": ["g1", "g2"], "mfa": true, "level": 3, "more": { "a": 1 },
        }),
    );
    claims["nothing"] = Value::Null;
    let token = SIGNER.token(&claims);
    for (required, expected) in [
        (json!({ "name": "roles", "values": ["Reader"] }), None),
        (
            json!({ "name": "roles", "values": ["Reader", "Writer"] }),
            None,
        ),
        (
            json!({ "name": "roles", "values": ["Reader", "Admin"] }),
            Some(TokenClaimValueNotAllowed),
        ),
        (
            json!({ "name": "roles", "values": ["Reader", "Admin"], "match": "any" }),
            None,
        ),
        (
            json!({ "name": "roles", "values": ["Read"] }),
            Some(TokenClaimValueNotAllowed),
        ),
        (json!({ "name": "scp", "values": ["Write", "Read"] }), None),
        (
            json!({ "name": "scp", "values": ["Read"], "separator": "," }),
            Some(TokenClaimValueNotAllowed),
        ),
        (
            json!({ "name": "department", "values": ["Finance"] }),
            Some(TokenClaimValueNotAllowed),
        ),
        (
            json!({ "name": "department", "values": ["Not Finance"] }),
            None,
        ),
        (
            json!({ "name": "department", "values": ["Finance"], "separator": " " }),
            None,
        ),
        (json!({ "name": "scope", "values": ["chat"] }), None),
        (json!({ "name": "mfa", "values": ["true"] }), None),
        (
            json!({ "name": "mfa", "values": ["false"] }),
            Some(TokenClaimValueNotAllowed),
        ),
        (json!({ "name": "level", "values": ["3"] }), None),
        (
            json!({ "name": "more", "values": ["a"] }),
            Some(TokenClaimValueNotAllowed),
        ),
        (
            json!({ "name": "wids", "values": ["x"] }),
            Some(TokenClaimNotFound),
        ),
        (json!({ "name": "groups" }), None),
        (json!({ "name": "wids" }), Some(TokenClaimNotFound)),
        (json!({ "name": "nothing" }), Some(TokenClaimNotFound)),
        (
            json!({ "name": "nothing", "values": ["null"] }),
            Some(TokenClaimNotFound),
        ),
    ] {
        let mut document = policy(&json!({}));
        document["issuers"][0]["required_claims"] = json!([required]);
        let mut bench = Bench::new(&document);
        assert_eq!(bench.code(&token), expected, "{required}");
        assert_eq!(
            bench.code(&token),
            expected,
            "{required}, again from the cache"
        );
    }
}

/// As written in one place and copied to another: in an audience, in a value of a claim, alone or among others.
#[test]
fn guids_compare_without_case() {
    const ID: &str = "aaaaaaaa-0000-0000-0000-00000000000a";
    let mut document = policy(&json!({}));
    document["issuers"][0]["audiences"] = json!([ID.to_uppercase(), "api://a"]);
    document["issuers"][0]["required_claims"] =
        json!([{ "name": "groups", "values": [ID.to_uppercase(), "Readers"], "separator": " " }]);
    let mut bench = Bench::new(&document);
    let list = format!("Readers {ID}");
    for (aud, groups, expected) in [
        (ID, json!([ID, "Readers"]), None),
        (ID, json!(list), None),
        ("api://a", json!([ID.to_uppercase(), "Readers"]), None),
        ("api://A", json!(list), Some(TokenAudienceNotAllowed)),
        (ID, json!([ID, "readers"]), Some(TokenClaimValueNotAllowed)),
        (ID, json!(["Readers"]), Some(TokenClaimValueNotAllowed)),
        (
            ID,
            json!(format!("Readers,{ID}")),
            Some(TokenClaimValueNotAllowed),
        ),
    ] {
        let claims = with(v1_claims(), &json!({ "aud": aud, "groups": groups }));
        assert_eq!(bench.code(&SIGNER.token(&claims)), expected, "{claims}");
    }
}

/// C8: a policy can ask for applications that prove who they are, and leave out users and public clients.
#[test]
fn users_and_public_clients_can_be_left_out() {
    let mut document = policy(&json!({}));
    document["issuers"][0]["required_claims"] = json!([
        { "name": "idtyp", "values": ["app"] },
        { "name": "appidacr", "values": ["1", "2"], "match": "any" },
    ]);
    let mut bench = Bench::new(&document);
    for (changes, expected) in [
        (json!({}), None),
        (json!({ "appidacr": "2" }), None),
        (json!({ "appidacr": "0" }), Some(TokenClaimValueNotAllowed)),
        (json!({ "appidacr": null }), Some(TokenClaimNotFound)),
        (
            json!({ "idtyp": "user", "scp": "user_impersonation" }),
            Some(TokenClaimValueNotAllowed),
        ),
        (
            json!({ "idtyp": null, "scp": "user_impersonation" }),
            Some(TokenClaimNotFound),
        ),
    ] {
        check(&mut bench, &with(v1_claims(), &changes), expected);
    }
}

#[test]
fn credentials_are_one_bearer_token() {
    let mut bench = Bench::new(&policy(&json!({})));
    let token = SIGNER.token(&v1_claims());
    let other = SIGNER.token(&with(v1_claims(), &json!({ "uti": "x" })));
    let bearer = format!("Bearer {token}");
    for (values, expected) in [
        (vec![], Some(TokenNotPresent)),
        (vec![String::new()], Some(TokenNotPresent)),
        (vec!["Basic YTpi".to_owned()], Some(TokenNotPresent)),
        (vec![format!("bearer {token}")], None),
        (vec![bearer.clone(), bearer.clone()], None),
        (vec![format!("{bearer},{bearer}")], None),
        (vec![format!("{bearer},Bearer {other}")], Some(JwtInvalid)), // D1
        (
            vec![bearer.clone(), format!("Bearer {other}")],
            Some(JwtInvalid),
        ),
        (vec![format!("{bearer} {token}")], Some(JwtInvalid)),
        (vec!["Bearer 0123456789abcdef".to_owned()], Some(JwtInvalid)),
        (
            vec![format!("Bearer {}", "a".repeat(59_000))],
            Some(JwtInvalid),
        ), // A18
    ] {
        let headers: Vec<_> = values
            .iter()
            .map(|v| ("authorization", v.as_str()))
            .collect();
        assert_eq!(bench.code_of(&headers), expected, "{values:?}");
    }
    // A repeated token goes on as one.
    let doubled = format!("{bearer},{bearer}");
    let Verdict::Allow(allow) = bench.decide(&[("authorization", &doubled)]) else {
        panic!()
    };
    assert_eq!(
        allow.changes.set,
        [("authorization".to_owned(), bearer.into_bytes())]
    );
    let verdict =
        bench.decide_bytes(&[(b"authorization", b"Bearer \xff\xfe"), (b"x\xff", b"\xff")]);
    assert_eq!(code(&verdict), Some(JwtInvalid)); // D7
}

#[test]
fn api_keys_are_denied_wherever_they_are() {
    let token = format!("Bearer {}", SIGNER.token(&v1_claims()));
    let public = json!({ "public_paths": ["/status"] });
    let mut bench = Bench::new(&policy(&public));
    for (name, value) in [
        ("api-key", "k"),
        ("x-api-key", "k"),
        ("Api-Key", "k"),
        ("api_key", "k"),
        ("ocp-apim-subscription-key", "k"),
        (":path", "/openai/x?api-key=k"),
        (":path", "/openai/x?a=1&API%2DKEY=k"),
        (":path", "/openai/x?subscription-key=;x"),
        (":path", "/status?api-key=k"),
        (
            "sec-websocket-protocol",
            "realtime, openai-insecure-api-key.k",
        ),
    ] {
        let expected = Some(AuthenticationTypeDisabled);
        assert_eq!(bench.code_of(&[(name, value)]), expected, "{name}: {value}");
        let both = [("authorization", token.as_str()), (name, value)];
        assert_eq!(
            bench.code_of(&both),
            expected,
            "{name}: {value}, beside a token"
        );
    }
    for (name, value) in [
        ("my-api-key", "k"),
        (":path", "/openai/x?key=api-key"),
        ("sec-websocket-protocol", "realtime"),
    ] {
        let both = [("authorization", token.as_str()), (name, value)];
        assert_eq!(bench.code_of(&both), None, "{name}: {value}");
    }
}

#[test]
fn j4_an_empty_key_is_none_and_does_not_reach_the_backend() {
    let token = format!("Bearer {}", SIGNER.token(&v1_claims()));
    let public = json!({ "public_paths": ["/status"] });
    for document in [
        policy(&public),
        policy(&with(public, &json!({ "api_keys": { "action": "strip" } }))),
    ] {
        let mut bench = Bench::new(&document);
        for (name, value) in [
            ("api-key", ""),
            ("Api-Key", " \t "),
            ("x-api-key", ""),
            ("ocp_apim_subscription_key", ""),
        ] {
            let Verdict::Allow(allow) = bench.decide(&[("authorization", &token), (name, value)])
            else {
                panic!("{name}")
            };
            assert_eq!(allow.changes.remove, [name.as_bytes()]);
            assert_eq!(bench.code_of(&[(name, value)]), Some(TokenNotPresent));
            assert_eq!(bench.code_of(&[(":path", "/status"), (name, value)]), None);
        }
        for (path, rest) in [
            ("/openai/x?api-key=", "/openai/x"),
            ("/openai/x?api-key", "/openai/x"),
            ("/openai/x?a=1&subscription-key=&b=2", "/openai/x?a=1&b=2"),
            ("/openai/x?API%5fKEY=%20+%09&b=2", "/openai/x?b=2"),
            ("/openai/x?api-key[]=", "/openai/x"),
            ("/openai/x?api-key=&api-key=+", "/openai/x"),
            ("/status?api-key=", "/status"),
        ] {
            let Verdict::Allow(allow) = bench.decide(&[("authorization", &token), (":path", path)])
            else {
                panic!("{path}")
            };
            let set = [(":path".to_owned(), rest.as_bytes().to_vec())];
            assert_eq!(allow.changes.set, set, "{path}");
        }
    }
    let mut bench = Bench::new(&policy(&json!({})));
    for more in [
        &[("api-key", ""), ("api-key", "k")][..],
        &[("api-key", "k"), ("api_key", "")],
        &[("api-key", ",")],
        &[(":path", "/openai/x?api-key=&api-key=k")],
        &[(":path", "/openai/x?api-key=%2B")],
        &[(":path", "/openai/x?api-key==")],
        &[(":path", "/openai/x?api-key=?k")],
        &[(":path", "/openai/x?api-key=;k")],
    ] {
        let headers = [&[("authorization", &*token)], more].concat();
        let expected = Some(AuthenticationTypeDisabled);
        assert_eq!(bench.code_of(&headers), expected, "{more:?}");
    }
    // Report mode changes nothing of what it would refuse.
    let mut report = Bench::new(&policy(&json!({ "mode": "report" })));
    let headers = [
        ("authorization", &*token),
        ("api-key", ""),
        ("api-key", "k"),
    ];
    let Verdict::Allow(allow) = report.decide(&headers) else {
        panic!()
    };
    assert_eq!(allow.changes.remove, Vec::<Vec<u8>>::new());
}

#[test]
fn c5_the_token_in_a_key_header_is_no_key() {
    let token = SIGNER.token(&v1_claims());
    let bearer = format!("Bearer {token}");
    let other = SIGNER.token(&with(v1_claims(), &json!({ "uti": "x" })));
    let more = json!({ "public_paths": ["/status"], "cors_preflight": "pass" });
    let mut bench = Bench::new(&policy(&more));
    let good = ("authorization", &*bearer);
    for name in ["api-key", "x-api-key", "Ocp_Apim_Subscription_Key"] {
        let Verdict::Allow(allow) = bench.decide(&[good, (name, &token)]) else {
            panic!("{name}")
        };
        assert_eq!(allow.changes.remove, [name.as_bytes()]);
    }
    let both = [good, ("api-key", &*token), ("x-api-key", &*token)];
    assert_eq!(bench.code_of(&both), None);
    // A bad token decides, not the key.
    let forged = format!("{}x", &token[..token.len() - 4]);
    let copies = [
        ("authorization", &*format!("Bearer {forged}")),
        ("api-key", &*forged),
    ];
    assert_ne!(bench.code_of(&copies), Some(AuthenticationTypeDisabled));
    let query = format!("/openai/x?api-key={token}");
    let scheme = format!("Bearer {token}");
    for headers in [
        &[good, ("api-key", &*other)][..],
        &[good, ("api-key", &*scheme)],
        &[good, ("api-key", &*token), ("api-key", &*token)],
        &[good, ("api-key", &*token), ("api_key", &*token)],
        &[good, ("api-key", &*token), ("x-api-key", "k")],
        &[good, (":path", &*query)],
        &[good, (":path", "/status"), ("api-key", &*token)],
        &[
            good,
            (":method", "OPTIONS"),
            ("access-control-request-method", "POST"),
            ("api-key", &*token),
        ],
        &[("authorization", "Bearer KEY"), ("api-key", "KEY")],
        &[("authorization", "Bearer a.b"), ("api-key", "a.b")],
        &[("authorization", "Bearer a..b"), ("api-key", "a..b")],
        &[("api-key", &*token)],
        &[
            good,
            ("authorization", &*format!("Bearer {other}")),
            ("api-key", &*token),
        ],
    ] {
        let expected = Some(AuthenticationTypeDisabled);
        assert_eq!(bench.code_of(headers), expected, "{headers:?}");
    }
}

#[test]
fn j5_the_place_of_a_key_is_named_and_never_its_value() {
    let mut bench = Bench::new(&policy(&json!({})));
    let header = |name: &str| KeyPlace::Header(name.to_owned());
    let parameter = |name: &str| KeyPlace::Parameter(name.to_owned());
    for (name, value, expected) in [
        ("Api_Key", "dummy", header("api-key")),
        ("x-api-key", "dummy", header("x-api-key")),
        (
            ":path",
            "/openai/x?api-key=&subscription%5Fkey=dummy",
            parameter("subscription-key"),
        ),
        (
            "sec-websocket-protocol",
            "openai-insecure-api-key.dummy",
            KeyPlace::Subprotocol,
        ),
    ] {
        let Verdict::Refuse(refuse) = bench.decide(&[(name, value)]) else {
            panic!("{name}")
        };
        assert_eq!(refuse.refusal, Refusal::ApiKey(expected.clone()), "{name}");
        let message = refuse.refusal.message();
        assert!(message.contains(&expected.to_string()), "{message}");
        assert!(!message.contains("dummy"), "{message}");
    }
}

#[test]
fn j6_credentials_that_are_no_token_are_told_apart() {
    let mut bench = Bench::new(&policy(&json!({})));
    let token = SIGNER.token(&v1_claims());
    let bearer = format!("Bearer {token}");
    for (values, expected) in [
        (
            &["Bearer dummy", &*bearer][..],
            Refusal::AmbiguousCredential,
        ),
        (&[&*token], Refusal::NoScheme),
        (&["Bearer ek_abc"], Refusal::Token(TokenError::Opaque)),
        (&["Bearer sk-abc"], Refusal::Token(TokenError::Opaque)),
        (&["Bearer dummy"], Refusal::Token(TokenError::Opaque)),
        (&["Bearer a.b"], Refusal::Token(TokenError::Shape)),
        (&["Basic YTpi"], Refusal::NoToken),
    ] {
        let headers: Vec<_> = values
            .iter()
            .map(|value| ("authorization", *value))
            .collect();
        let Verdict::Refuse(refuse) = bench.decide(&headers) else {
            panic!("{values:?}")
        };
        assert_eq!(refuse.refusal, expected, "{values:?}");
    }
}

#[test]
fn stripped_keys_do_not_reach_the_backend() {
    let document = policy(&json!({ "api_keys": { "action": "strip" } }));
    let token = format!("Bearer {}", SIGNER.token(&v1_claims()));
    let mut bench = Bench::new(&document);
    let verdict = bench.decide(&[
        ("authorization", &token),
        ("api-key", "k"),
        ("Ocp_Apim_Subscription_Key", "k"),
        (":path", "/openai/x?api-key=k&api-version=1"),
        (
            "sec-websocket-protocol",
            "realtime,openai-insecure-api-key.k",
        ),
        ("Sec_WebSocket_Protocol", "openai-insecure-api-key.k2"),
    ]);
    let Verdict::Allow(allow) = verdict else {
        panic!("{verdict:?}")
    };
    assert_eq!(
        allow.changes.remove,
        [
            &b"api-key"[..],
            b"Ocp_Apim_Subscription_Key",
            b"Sec_WebSocket_Protocol",
        ]
    );
    assert_eq!(
        allow.changes.set,
        [
            (":path".to_owned(), b"/openai/x?api-version=1".to_vec()),
            ("sec-websocket-protocol".to_owned(), b"realtime".to_vec()),
        ]
    );
    assert_eq!(bench.code_of(&[("api-key", "k")]), Some(TokenNotPresent));
}

#[test]
fn identity_headers_are_the_gateways_alone() {
    let document = policy(&json!({
        "public_paths": ["/status"],
        "apps": [{ "app_id": APP, "name": "batch" }],
        "forward": { "authorization": false, "headers": {
            "x-app": "app_id", "x-name": "app_name", "x-tenant": "tenant_id", "x-oid": "object_id",
            "x-roles": "roles", "x-sub": "claim.sub", "x-none": "claim.nothing",
            "x-request-id": "claim.nothing",
        } },
    }));
    let token = format!("Bearer {}", SIGNER.token(&v1_claims()));
    let spoofed = [
        ("x-request-id", "evil"),
        ("X-App", "evil"),
        ("x_app", "evil"),
        ("x-none", "evil"),
        ("x-http-method-override", "DELETE"),
    ];
    let mut bench = Bench::new(&document);
    let mut headers = vec![("authorization", token.as_str())];
    headers.extend(spoofed);
    let Verdict::Allow(allow) = bench.decide(&headers) else {
        panic!()
    };
    for (name, _) in spoofed {
        assert!(
            allow
                .changes
                .remove
                .iter()
                .any(|removed| removed == name.as_bytes()),
            "{name}"
        );
    }
    assert!(allow.changes.remove.contains(&b"authorization".to_vec()));
    let mut set: Vec<_> = allow
        .changes
        .set
        .iter()
        .map(|(name, value)| (name.as_str(), std::str::from_utf8(value).unwrap()))
        .collect();
    set.sort_unstable();
    assert_eq!(
        set,
        [
            ("x-app", APP),
            ("x-name", "batch"),
            ("x-oid", "bbbbbbbb-0000-0000-0000-000000000001"),
            ("x-roles", "Reader,Writer"),
            ("x-sub", "bbbbbbbb-0000-0000-0000-000000000001"),
            ("x-tenant", TENANT),
        ]
    );
    let Verdict::Allow(allow) = bench.decide(&[(":path", "/status"), ("x-app", "evil")]) else {
        panic!()
    };
    assert!(allow.changes.remove.contains(&b"x-app".to_vec()));
    assert!(allow.changes.set.is_empty());
}

#[test]
fn preflights_pass_where_the_policy_says_so() {
    let request = [
        (":method", "OPTIONS"),
        ("access-control-request-method", "POST"),
    ];
    assert_eq!(
        Bench::new(&policy(&json!({}))).code_of(&request),
        Some(TokenNotPresent)
    );
    let mut bench = Bench::new(&policy(&json!({ "cors_preflight": "pass" })));
    assert_eq!(bench.code_of(&request), None);
    assert_eq!(bench.code_of(&request[..1]), Some(TokenNotPresent));
    assert_eq!(
        bench.code_of(&[(":method", "POST"), request[1]]),
        Some(TokenNotPresent)
    );
    let with_key = [request[0], request[1], ("api-key", "k")];
    assert_eq!(bench.code_of(&with_key), Some(AuthenticationTypeDisabled));
}

#[test]
fn applications_are_listed_or_not() {
    let other = SIGNER.token(&with(v1_claims(), &json!({ "appid": OTHER_APP })));
    let mine = SIGNER.token(&v1_claims());
    let mut bench = Bench::new(&policy(&json!({
        "apps": [{ "app_id": APP.to_uppercase(), "access": "deny" }],
    })));
    assert_eq!(bench.code(&mine), Some(AppNotAllowed));
    assert_eq!(bench.code(&other), None);
    let mut bench = Bench::new(&policy(&json!({
        "apps": [{ "app_id": APP }], "default_app": { "access": "deny" },
    })));
    assert_eq!(bench.code(&mine), None);
    assert_eq!(bench.code(&other), Some(AppNotAllowed));
}

#[test]
fn applications_have_limits_of_their_own() {
    let mut bench = Bench::new(&policy(&json!({
        "apps": [
            { "app_id": APP, "limits": [{ "calls": 2, "per": "60s" }] },
            { "app_id": OTHER_APP, "limits": [{ "calls": 3, "per": "day" }] },
        ],
        "default_app": { "limits": [{ "calls": 1, "per": "60s" }] },
    })));
    let token = |app: &str| SIGNER.token(&with(v1_claims(), &json!({ "appid": app })));
    let third = "aaaaaaaa-0000-0000-0000-000000000003";
    let fourth = "aaaaaaaa-0000-0000-0000-000000000004";
    for (app, passes, code) in [
        (APP, 2, RateLimitExceeded),
        (OTHER_APP, 3, QuotaExceeded),
        (third, 1, RateLimitExceeded),
        (fourth, 1, RateLimitExceeded),
    ] {
        for _ in 0..passes {
            assert_eq!(bench.code(&token(app)), None, "{app}");
        }
        assert_eq!(bench.code(&token(app)), Some(code), "{app}");
    }
    bench.now += 61_000;
    assert_eq!(bench.code(&token(APP)), None);
    assert_eq!(bench.code(&token(OTHER_APP)), Some(QuotaExceeded));
}

/// A bench with one limit of one application, and the header of its token.
fn limited(limit: &Value) -> (Bench, String) {
    let apps = json!({ "apps": [{ "app_id": APP, "limits": [limit] }] });
    let authorization = format!("Bearer {}", SIGNER.token(&v1_claims()));
    (Bench::new(&policy(&apps)), authorization)
}

/// Asks, and ends the call with what it used.
fn call(bench: &mut Bench, authorization: &str, body: &str, status: u16, tokens: u64) {
    let headers = [(":path", common::PATH), ("authorization", authorization)];
    let Verdict::Allow(allow) = bench.decide_body(&headers, body) else {
        panic!("{body} is refused")
    };
    let (now, store) = (Time::from_millis(bench.now), &*bench.store);
    let admission = allow.admission.unwrap();
    let settlement = Settlement {
        status: ResponseStatus::Code(status),
        tokens,
    };
    bench.gateway.settle(admission, settlement, &|| now, store);
}

/// Which requests a limit on tokens is for: a call that can never fit is refused by the limits that are
/// for it.
#[test]
fn limits_on_tokens_are_for_what_they_name_and_for_what_is_not_known() {
    const CHAT: &str = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21";
    const O1: &str = "/openai/deployments/o1/chat/completions?api-version=2024-10-21";
    const EMBEDDINGS: &str = "/openai/deployments/gpt-4o/embeddings?api-version=2024-10-21";
    const V1: &str = "/openai/v1/chat/completions";
    const LONG: &str = r#"{"input":"more than forty bytes, that is ten tokens"}"#;
    const BOUND: &str = r#"{"max_tokens":100}"#;
    const GPT: &str = r#"{"model":"GPT-4o","max_tokens":100}"#;
    const OTHER_MODEL: &str = r#"{"model":"o1","max_tokens":100}"#;
    let all = json!({});
    let chat = json!({ "operations": ["deployments/Chat/completions/action"] });
    let embeddings = json!({ "operations": ["*/embeddings/action"] });
    let gpt = json!({ "deployments": ["gpt-*"] });
    let both = with(chat.clone(), &gpt);
    for (scope, path, body, applies) in [
        (&all, CHAT, BOUND, true),
        (&all, V1, BOUND, true),
        (&all, EMBEDDINGS, LONG, true),
        // Neither an operation nor a limited one: it may use tokens, or it uses none.
        (&all, "/openai/x", BOUND, true),
        (&all, "/openai/files?api-version=2024-10-21", LONG, false),
        // What stops a run uses none, whatever its action's others use.
        (&all, "/openai/v1/threads/t-1/runs/r-1/cancel", BOUND, false),
        (&all, "/openai/v1/responses/r-1/cancel", LONG, false),
        (&chat, CHAT, BOUND, true),
        (&chat, O1, BOUND, true),
        (&chat, V1, BOUND, true),
        (&chat, EMBEDDINGS, LONG, false),
        (&chat, "/openai/x", BOUND, true),
        (&chat, "/openai/deployments/o1//embeddings", LONG, true),
        (&chat, "/openai/deployments/o1/%65mbeddings", LONG, true),
        (&embeddings, EMBEDDINGS, LONG, true),
        (&embeddings, CHAT, BOUND, false),
        (&gpt, CHAT, BOUND, true),
        (&gpt, EMBEDDINGS, LONG, true),
        (&gpt, O1, BOUND, false),
        // The path decides, not a model beside it.
        (&gpt, O1, GPT, false),
        (&gpt, CHAT, OTHER_MODEL, true),
        (&gpt, V1, GPT, true),
        (&gpt, V1, OTHER_MODEL, false),
        // No model.
        (&gpt, V1, BOUND, true),
        // Models in files, and in what was stored.
        (&gpt, "/openai/v1/batches", LONG, true),
        (&gpt, "/openai/v1/threads/t-1/runs", BOUND, true),
        (&gpt, "/openai/v1/threads/t-1/runs", OTHER_MODEL, false),
        (&gpt, "/openai/x", BOUND, true),
        (&both, CHAT, BOUND, true),
        (&both, O1, BOUND, false),
        (&both, EMBEDDINGS, LONG, false),
        (&both, "/openai/x", BOUND, true),
    ] {
        let limit = json!({ "tokens": 10, "per": "60s", "reserve": true });
        let (mut bench, authorization) = limited(&with(limit, scope));
        let headers = [(":path", path), ("authorization", &*authorization)];
        let expected = applies.then_some(CallExceedsLimit);
        let verdict = bench.decide_body(&headers, body);
        assert_eq!(code(&verdict), expected, "{scope} {path} {body}");
    }
}

#[test]
fn limits_on_tokens_are_answered_with_what_is_left() {
    let exceeded = "Token limit is exceeded. Try again in 60 seconds.";
    let too_large = "The call may use more than the 100 tokens of its limit. \
                     Shorten the prompt, or lower max_tokens.";
    // The body counts as five tokens. After a first call that used so many of 100: the second.
    for (limit, used, body, expected, message, waits, left) in [
        (
            json!({ "per": "60s", "reserve": true }),
            85,
            r#"{"max_tokens":80}"#,
            TokenLimitExceeded,
            exceeded,
            60_938,
            15,
        ),
        (
            json!({ "per": "60s" }),
            130,
            "{}",
            TokenLimitExceeded,
            exceeded,
            60_938,
            0,
        ),
        (
            json!({ "per": "month", "reserve": true }),
            85,
            r#"{"max_tokens":80}"#,
            QuotaExceeded,
            "Out of token quota. Try again in 2635200 seconds.",
            2_635_200_000,
            15,
        ),
        (
            json!({ "per": "hour" }),
            100,
            "{}",
            QuotaExceeded,
            "Out of token quota. Try again in 3600 seconds.",
            3_600_000,
            0,
        ),
        (
            json!({ "per": "60s", "reserve": true }),
            40,
            r#"{"max_tokens":96}"#,
            CallExceedsLimit,
            too_large,
            60_000,
            60,
        ),
        (
            json!({ "per": "day", "reserve": true }),
            40,
            r#"{"max_tokens":96}"#,
            CallExceedsLimit,
            too_large,
            43_200_000,
            60,
        ),
    ] {
        let limit = with(json!({ "tokens": 100 }), &limit);
        let (mut bench, authorization) = limited(&limit);
        call(&mut bench, &authorization, r#"{"max_tokens":9}"#, 200, used);
        let headers = [(":path", common::PATH), ("authorization", &*authorization)];
        let Verdict::Refuse(refuse) = bench.decide_body(&headers, body) else {
            panic!("{limit} {body}")
        };
        let answer = Answer::new(
            &refuse.refusal,
            &bench.gateway.policy().responses,
            &ResponseContext::default(),
        );
        let kind = match expected {
            QuotaExceeded => "insufficient_quota",
            _ => "tokens",
        };
        let waits: u64 = waits;
        let reset = match limit["per"].as_str().unwrap() {
            "60s" => 61,
            _ => waits / 1_000,
        };
        let mut headers = vec![
            ("content-type", "application/json".to_owned()),
            ("x-tollgate-code", expected.name().to_owned()),
        ];
        let status = match expected {
            CallExceedsLimit => 413,
            QuotaExceeded => {
                headers.push(("x-should-retry", "false".to_owned()));
                429
            }
            _ => {
                headers.push(("retry-after", "60".to_owned()));
                headers.push(("retry-after-ms", "59999".to_owned()));
                429
            }
        };
        headers.push(("x-ratelimit-limit-tokens", "100".to_owned()));
        headers.push(("x-ratelimit-remaining-tokens", left.to_string()));
        headers.push(("x-ratelimit-reset-tokens", reset.to_string()));
        let told = answer.headers.into_iter();
        let told: Vec<_> = told
            .map(|(name, value)| (name, value.into_owned()))
            .collect();
        assert_eq!((answer.status, told), (status, headers), "{limit}");
        let expected = json!({ "error": {
            "code": expected.name(), "message": message, "type": kind, "param": null,
        } });
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(body, expected, "{limit}");
    }
}

#[test]
fn what_a_call_used_is_charged_when_it_ends() {
    let held = r#"{"max_tokens":80}"#;
    for (limit, status, used, cost) in [
        (json!({ "reserve": true }), 200, 20, 20),
        (json!({ "reserve": true }), 200, 94, 94),
        (json!({ "reserve": true }), 429, 0, 0),
        (json!({ "reserve": true, "count": [201] }), 200, 20, 0),
        (json!({}), 200, 20, 20),
        (json!({}), 500, 0, 0),
        (json!({ "count": "success" }), 500, 20, 0),
    ] {
        let limit = with(json!({ "tokens": 100, "per": "60s" }), &limit);
        let (mut bench, authorization) = limited(&limit);
        call(&mut bench, &authorization, held, status, used);
        // What is left fits, and not one more. The same count stands under a limit that reserves.
        let reserving = with(limit.clone(), &json!({ "reserve": true }));
        let (mut rest, _) = limited(&reserving);
        rest.store = bench.store;
        let headers = [(":path", common::PATH), ("authorization", &*authorization)];
        let beyond = if cost == 0 {
            CallExceedsLimit
        } else {
            TokenLimitExceeded
        };
        for (more, expected) in [(1, Some(beyond)), (0, None)] {
            let most = 100 - cost - 5 + more;
            let body = format!("{:17}", format!("{{\"max_tokens\":{most}}}"));
            let verdict = rest.decide_body(&headers, &body);
            assert_eq!(code(&verdict), expected, "{limit} {used:?} {most}");
        }
    }
}

/// A picture of 40 KB is no text of 10,000 tokens.
#[test]
fn l13_a_picture_is_held_as_one() {
    let data = "QUJD".repeat(10_000);
    let picture = format!("data:image/png;base64,{data}");
    let chat = |part: String| format!(r#"{{"messages":[{{"role":"user","content":[{part}]}}]}}"#);
    let pictures = [
        chat(format!(r#"{{"image_url":{{"url":"{picture}"}}}}"#)),
        chat(format!(
            r#"{{"type":"input_image","image_url":"{picture}"}}"#
        )),
        chat(format!(
            r#"{{"file":{{"file_data":"data:application/pdf;base64,{data}"}}}}"#
        )),
        chat(format!(r#"{{"file":{{"file_data":"{data}"}}}}"#)),
        chat(format!(
            r#"{{"input_audio":{{"data":"{data}","format":"wav"}}}}"#
        )),
    ];
    let texts = [
        chat(format!(r#"{{"type":"text","text":"{picture}"}}"#)),
        chat(format!(r#"{{"image_url":{{"url":"{picture} and more"}}}}"#)),
        chat(format!(r#"{{"image_url":{{"url":"https://x/{data}"}}}}"#)),
        format!(r#"{{"messages":[{{"role":"user","content":"{picture}"}}]}}"#),
    ];
    let limit = json!({ "tokens": 6_000, "per": "60s", "reserve": true });
    let verdict = |body: &str, image_tokens: u64| {
        let apps = json!({
            "apps": [{ "app_id": APP, "limits": [limit] }],
            "usage": { "image_tokens": image_tokens },
        });
        let authorization = format!("Bearer {}", SIGNER.token(&v1_claims()));
        let headers = [(":path", common::PATH), ("authorization", &*authorization)];
        code(&Bench::new(&policy(&apps)).decide_body(&headers, body))
    };
    for body in &pictures {
        assert_eq!(verdict(body, 1_500), None, "{}", &body[..60]);
        assert!(verdict(body, 2_000).is_some(), "{}", &body[..60]);
    }
    for body in &texts {
        assert!(verdict(body, 1).is_some(), "{}", &body[..60]);
    }
}

#[test]
fn a_limit_that_is_not_for_a_call_leaves_no_trace_of_it() {
    let limit = json!({ "tokens": 10, "per": "60s", "deployments": ["o1"] });
    for apps in [
        json!({ "apps": [{ "app_id": APP, "limits": [limit] }] }),
        json!({ "default_app": { "limits": [limit] } }),
    ] {
        let mut bench = Bench::new(&policy(&apps));
        assert_eq!(bench.code(&SIGNER.token(&v1_claims())), None);
        for key in [APP, "unlisted"] {
            let key = format!("tollgate/1/test/calls/{key}");
            assert_eq!(bench.store.read(&key), Ok(None), "{apps}");
        }
    }
}

/// A host whose shared data fails, on reading or on writing.
struct Failing {
    on_read: bool,
}

impl SharedStore for Failing {
    fn read(&self, _: &str) -> Result<Option<Versioned>, StoreError> {
        if self.on_read {
            Err(StoreError)
        } else {
            Ok(None)
        }
    }

    fn write(&self, _: &str, _: &[u8], _: Expected) -> Result<Written, StoreError> {
        Err(StoreError)
    }
}

#[test]
fn limits_that_cannot_be_counted_let_nothing_through() {
    let limits = json!([{ "calls": 1_000, "per": "60s" }]);
    for apps in [
        json!({ "apps": [{ "app_id": APP, "limits": limits }] }),
        json!({ "default_app": { "limits": limits } }),
    ] {
        for on_read in [true, false] {
            let mut bench = Bench::new(&policy(&apps));
            let authorization = format!("Bearer {}", SIGNER.token(&v1_claims()));
            let headers = HeaderMap::from_pairs([
                (&b":method"[..], &b"GET"[..]),
                (b":path", b"/"),
                (b"authorization", authorization.as_bytes()),
            ]);
            let now = Time::from_millis(bench.now);
            let store = Failing { on_read };
            let gateway = &mut bench.gateway;
            let verdict = gateway.decide(&headers, &|| now, &store, Patience::Wait);
            assert_eq!(code(&verdict), Some(RateLimitExceeded), "{apps}");
        }
    }
}

#[test]
fn the_cache_answers_for_the_signature_only() {
    let mut bench = Bench::new(&policy(&json!({})));
    let token = SIGNER.token(&v1_claims());
    assert_eq!(bench.code(&token), None);
    assert_eq!(bench.code(&token), None);
    let tallies = bench.gateway.take_tallies();
    assert_eq!((tallies.cache_hits, tallies.cache_misses), (1, 1));
    // G2: same header and payload, other signature.
    let cut = token.rfind('.').unwrap();
    let forged = format!("{}.{}", &token[..cut], "A".repeat(342));
    assert_eq!(bench.code(&forged), Some(TokenSignatureInvalid));
    // Never outlives exp.
    bench.now += 3_659_000;
    assert_eq!(bench.code(&token), None);
    bench.now += 1_000;
    assert_eq!(bench.code(&token), Some(TokenExpired));
    assert_eq!(bench.code(&token), Some(TokenExpired));
}

#[test]
fn report_mode_denies_nothing_and_tells_everything() {
    let mut bench = Bench::new(&policy(&json!({
        "mode": "report", "default_app": { "limits": [{ "calls": 1, "per": "60s" }] },
    })));
    let token = format!("Bearer {}", SIGNER.token(&v1_claims()));
    let told = |verdict: Verdict| match verdict {
        Verdict::Allow(allow) => allow.would_refuse.map(|refusal| refusal.code()),
        other => panic!("{other:?}"),
    };
    assert_eq!(told(bench.decide(&[])), Some(TokenNotPresent));
    assert_eq!(
        told(bench.decide(&[("api-key", "k")])),
        Some(AuthenticationTypeDisabled)
    );
    assert_eq!(told(bench.decide(&[("authorization", &token)])), None);
    assert_eq!(
        told(bench.decide(&[("authorization", &token)])),
        Some(RateLimitExceeded)
    );
}

/// R1: no mutation of a good token is accepted. `tests/generated.rs` has more of them, of every algorithm.
#[test]
fn mutated_tokens_are_refused() {
    const MUTATIONS: u64 = 20_000;
    let mut bench = Bench::new(&policy(&json!({})));
    let token = SIGNER.token(&v1_claims()).into_bytes();
    let mut seed = 1_u64;
    let mut next = |bound: usize| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % bound
    };
    for round in 0..MUTATIONS {
        let mut mutated = token.clone();
        for _ in 0..=next(3) {
            let at = next(mutated.len());
            match next(4) {
                0 => mutated[at] ^= 1 << next(8),
                1 => drop(mutated.remove(at)),
                2 => mutated.insert(at, u8::try_from(next(256)).unwrap()),
                _ => {
                    let other = next(mutated.len());
                    mutated.swap(at, other);
                }
            }
        }
        if mutated == token {
            continue;
        }
        let value = [b"Bearer ", &mutated[..]].concat();
        let verdict = bench.decide_bytes(&[(b"authorization", &value)]);
        // White space around a token, and a comma after it, are not part of it.
        let text = String::from_utf8_lossy(&mutated);
        let same = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>();
        if same == [String::from_utf8_lossy(&token)] {
            continue;
        }
        assert!(
            matches!(verdict, Verdict::Refuse(_)),
            "round {round}: {text}"
        );
    }
}

/// What the log says of a refusal: one line, and another for each.
#[test]
fn refusals_are_told_apart() {
    let claim = |error| Refusal::Verify(VerifyError::Claim(error));
    let reached = |measure| {
        Refusal::Limit(Reached {
            measure,
            limit: 7,
            remaining: 2,
            window: Window::Sliding { millis: 1_000 },
            never: false,
            room_in: 1,
            retry_in: 1,
            reset_in: 1,
        })
    };
    let tokens = [
        TokenError::TooLarge,
        TokenError::Shape,
        TokenError::Header,
        TokenError::Kid,
        TokenError::Critical,
        TokenError::Type,
        TokenError::Payload,
    ];
    let bodies = [
        BodyError::MediaType,
        BodyError::NotJson,
        BodyError::NotAnObject,
        BodyError::TooDeep,
        BodyError::Truncated,
        BodyError::Repeated(Member::Model),
        BodyError::Repeated(Member::MaxTokens),
        BodyError::OtherCase(Member::N),
        BodyError::WrongType(Member::Stream),
        BodyError::TooLong(Member::Model),
    ];
    let mut refusals = vec![
        Refusal::NoToken,
        Refusal::NoScheme,
        Refusal::AmbiguousCredential,
        Refusal::Algorithm,
        Refusal::Issuer,
        Refusal::KeyNotFound,
        Refusal::KeyOfAnother,
        Refusal::Verify(VerifyError::Signature),
        claim(ClaimError::Missing("exp".to_owned())),
        claim(ClaimError::Type("exp")),
        claim(ClaimError::Value("ver")),
        claim(ClaimError::Repeated("tid")),
        Refusal::Claims(ClaimRefusal::Expired),
        Refusal::ApiKey(KeyPlace::Header("api-key".to_owned())),
        Refusal::ApiKey(KeyPlace::Parameter("api-key".to_owned())),
        Refusal::ApiKey(KeyPlace::Subprotocol),
        Refusal::App,
        Refusal::Permission { action: None },
        Refusal::Permission {
            action: Some(Action::Audio),
        },
        Refusal::Deployment,
        reached(Measure::Calls),
        reached(Measure::Tokens { reserve: true }),
        Refusal::Counters,
        Refusal::Keys { retry_in: 7 },
    ];
    refusals.extend(tokens.map(Refusal::Token));
    refusals.extend(bodies.map(Refusal::Body));
    told_apart(&refusals);
}

#[test]
fn a_refused_caller_is_known_once_the_signature_is_good() {
    let mut bench = Bench::new(&policy(&json!({})));
    for (changes, known) in [
        (json!({ "exp": 0 }), true),
        (json!({ "aud": "https://graph.microsoft.com" }), true),
        (
            json!({ "tid": "99999999-2222-3333-4444-555555555555" }),
            true,
        ),
        (json!({ "iss": "https://evil/" }), false),
    ] {
        let claims = with(v1_claims(), &changes);
        for signer in [&*SIGNER, &common::Signer::load("foreign.pem", &SIGNER.kid)] {
            let header = format!("Bearer {}", signer.token(&claims));
            let Verdict::Refuse(refuse) = bench.decide(&[("authorization", &header)]) else {
                panic!("{changes}");
            };
            let expected = known && std::ptr::eq(signer, &*SIGNER);
            assert_eq!(refuse.claims.is_some(), expected, "{changes}");
        }
    }
}

#[test]
fn what_only_the_log_shows_is_kept_as_far_as_it_is_short() {
    let mut bench = Bench::new(&policy(&json!({})));
    for (length, kept) in [(1, true), (128, true), (129, false)] {
        let id = "x".repeat(length);
        let claims = with(v1_claims(), &json!({ "uti": id, "idtyp": id }));
        let header = format!("Bearer {}", SIGNER.token(&claims));
        let Verdict::Allow(allow) = bench.decide(&[("authorization", &header)]) else {
            panic!("{length}");
        };
        let claims = allow.claims.unwrap();
        let expected = kept.then_some(id);
        assert_eq!((&claims.uti, &claims.idtyp), (&expected, &expected));
    }
}

#[test]
fn other_issuers_need_a_version_only_where_it_names_the_application() {
    let issuer = |more: Value| {
        let issuer = json!({
            "issuers": ["https://i/"], "audiences": [AUDIENCE], "jwks": { "keys": [SIGNER.jwk()] },
        });
        json!({ "issuers": [with(issuer, &more)] })
    };
    let mut named = Bench::new(&issuer(json!({ "app_claim": "appid" })));
    let mut by_version = Bench::new(&issuer(json!({})));
    for (ver, expected) in [
        (json!("1.0"), None),
        (json!("2.0"), Some(TokenClaimNotFound)),
        (json!("3.0"), Some(TokenClaimValueNotAllowed)),
        (json!(1), Some(JwtInvalid)),
        (json!(null), Some(TokenClaimNotFound)),
    ] {
        let change = json!({ "iss": "https://i/", "ver": ver });
        let token = SIGNER.token(&with(v1_claims(), &change));
        assert_eq!(named.code(&token), None, "{ver}");
        assert_eq!(by_version.code(&token), expected, "{ver}");
    }
}

#[test]
fn audiences_are_a_thousand_at_most() {
    let mut bench = Bench::new(&policy(&json!({})));
    for (others, expected) in [(999, None), (1_000, Some(JwtInvalid))] {
        let mut all = vec!["x"; others];
        all.push(AUDIENCE);
        let claims = with(v1_claims(), &json!({ "aud": all }));
        assert_eq!(bench.code(&SIGNER.token(&claims)), expected);
    }
}
