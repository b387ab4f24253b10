//! Credentials and tokens: nothing that the key has not signed is ever taken.

use std::rc::Rc;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tollgate::credential::Credential;
use tollgate::crypto::Crypto;
use tollgate::jwt::{Jws, MAX_TOKEN};
use tollgate::policy::Policy;

use super::{Members, Target, agreeable, bench, outcome, trusting};
use crate::common::{
    APP, AUDIENCE, Bench, NOON, OTHER, SIGNER, TENANT, v1_claims, v2_claims, with,
};

thread_local! {
    static TRUSTING: Rc<Policy> = trusting(&json!({}));
    static DEMANDING: Rc<Policy> = trusting(&json!({ "issuers": [{
        "tenant_id": TENANT, "audiences": [AUDIENCE], "jwks": { "keys": [SIGNER.jwk()] },
        "required_claims": [{ "name": "roles", "values": ["Reader"] }],
    }]}));
}

/// What the gate says of `authorization: Bearer <token>`.
fn decide(bench: &mut Bench, token: &[u8]) -> String {
    let value = [b"Bearer ", token].concat();
    let verdict = bench.decide_bytes(&[(b"authorization", &value)]);
    outcome(&verdict)
}

// Credentials

pub(super) const CREDENTIAL: Target = Target {
    name: "credential",
    seeds: || {
        let seeds: [&[u8]; 9] = [
            b"Bearer abc.def.ghi",
            b"bearer  t\nBearer t",
            b"Bearer t,Bearer t",
            b"Bearer t, Bearer u",
            b"Basic YTpi",
            b"abc.def.ghi",
            b"Digest username=\"a\", realm=\"b\"",
            b"Negotiate x, Bearer t",
            b"",
        ];
        seeds.map(<[u8]>::to_vec).into()
    },
    check: credential,
    outcomes: &["absent", "no scheme", "one", "repeated", "ambiguous"],
    words: &[
        "Bearer ", "bearer", "BEARER\t", ",", "\n", " ", "Basic ", "t", "\0", "\u{a0}",
    ],
};

/// Lines are values of `authorization`.
fn credential(input: &[u8]) -> String {
    let values: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    let read = Credential::read(&values);

    let parts = values
        .iter()
        .flat_map(|value| value.split(|byte| *byte == b','));
    let parts: Vec<_> = parts
        .map(<[u8]>::trim_ascii)
        .filter(|part| !part.is_empty())
        .collect();
    let tokens: Vec<_> = parts.iter().map(|part| bearer(part)).collect();
    let expected = match tokens.iter().flatten().next() {
        None if !parts.is_empty() && parts.iter().all(|part| is_word(part)) => Credential::NoScheme,
        None => Credential::Absent,
        Some(token) if tokens.iter().all(|other| *other == Some(token)) => Credential::Bearer {
            token,
            repeated: tokens.len() > 1,
        },
        Some(_) => Credential::Ambiguous,
    };
    assert_eq!(read, expected);

    // What is asked of the cache first is the token, or nothing that a cache could hold.
    if let Some(token) = Credential::whole(&values)
        && token == token.trim_ascii()
        && !token.contains(&b',')
    {
        let repeated = false;
        assert_eq!(read, Credential::Bearer { token, repeated });
    }
    match read {
        Credential::Absent => "absent",
        Credential::NoScheme => "no scheme",
        Credential::Bearer {
            repeated: false, ..
        } => "one",
        Credential::Bearer { repeated: true, .. } => "repeated",
        Credential::Ambiguous => "ambiguous",
    }
    .to_owned()
}

fn is_word(part: &[u8]) -> bool {
    !part.eq_ignore_ascii_case(b"bearer") && part.split(u8::is_ascii_whitespace).count() == 1
}

fn bearer(part: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = part.split_at_checked(7)?;
    let token = token.trim_ascii_start();
    let is_bearer = scheme.eq_ignore_ascii_case(b"bearer ");
    // Only spaces stand between the two.
    let gap = &part[7..part.len() - token.len()];
    match gap.iter().position(|byte| *byte != b' ') {
        _ if !is_bearer => None,
        Some(at) => Some(&part[7 + at..]),
        None => (!token.is_empty()).then_some(token),
    }
}

// Whole tokens

static GOOD: LazyLock<Vec<String>> = LazyLock::new(|| {
    let audience = json!({ "aud": [AUDIENCE, "api://other"] });
    [v1_claims(), v2_claims(), with(v2_claims(), &audience)]
        .iter()
        .map(|claims| SIGNER.token(claims))
        .collect()
});

pub(super) const TOKEN: Target = Target {
    name: "token",
    seeds: || {
        let mut tokens = GOOD.clone();
        let header = |change: Value| {
            let header = json!({ "alg": "RS256", "typ": "JWT", "kid": SIGNER.kid });
            SIGNER.sign(&with(header, &change), &v1_claims().to_string())
        };
        tokens.extend([
            OTHER.token(&v1_claims()),
            SIGNER.token(&with(v1_claims(), &json!({ "exp": NOON / 1000 - 3600 }))),
            header(json!({ "alg": "none" })),
            header(json!({ "alg": "HS256" })),
            header(json!({ "kid": "key-2" })),
            header(json!({ "crit": ["exp"] })),
            format!("{},Bearer {}", GOOD[0], GOOD[0]),
            format!("{}.", GOOD[0].rsplit_once('.').unwrap().0),
            GOOD[0].rsplit_once('.').unwrap().0.to_owned()
                + "."
                + GOOD[1].rsplit_once('.').unwrap().1,
            "e30.e30.AA".to_owned(),
        ]);
        tokens.into_iter().map(String::into_bytes).collect()
    },
    check: token,
    outcomes: &[
        "allowed",
        "JwtInvalid",
        "TokenSignatureInvalid",
        "TokenSignatureKeyNotFound",
        "TokenExpired",
    ],
    words: &[
        ".", "=", "-", "_", "eyJ", "e30", "AA", "bm9uZQ", ",", "Bearer ",
    ],
};

/// A token, as it came.
fn token(input: &[u8]) -> String {
    if let Ok(jws) = Jws::parse(input) {
        check_form(input, &jws);
    }
    let mut bench = TRUSTING.with(|policy| bench(policy, Crypto::pure()));
    let outcome = decide(&mut bench, input);
    if outcome == "allowed" {
        let parts = input.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        let parts: Vec<_> = parts
            .filter(|part| !part.is_empty())
            .map(|part| bearer(part).unwrap_or(part))
            .collect();
        let is_good = |good: &String| parts.iter().all(|part| *part == good.as_bytes());
        assert!(GOOD.iter().any(is_good), "signed by nobody");
    }
    assert_eq!(decide(&mut bench, input), outcome, "the second time");
    outcome
}

/// A token has one text: written anew from what was read of it, it is the same.
fn check_form(token: &[u8], jws: &Jws<'_>) {
    assert!(token.len() <= MAX_TOKEN);
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes).into_bytes();
    let (signed, signature) = (jws.signed, encode(&jws.signature));
    assert_eq!(token, [signed, b".", &signature].concat());
    let mut parts = signed.split(|byte| *byte == b'.');
    let header = URL_SAFE_NO_PAD.decode(parts.next().unwrap()).unwrap();
    assert_eq!(parts.next().unwrap(), encode(&jws.payload));
    assert_eq!(parts.next(), None);
    assert!(!jws.signature.is_empty());
    let header = Members::read(&header).unwrap();
    assert_eq!(header.text("alg"), Some(&*jws.algorithm));
    assert_eq!(header.text("kid"), jws.kid.as_deref());
    assert_eq!(header.text("typ"), jws.typ.as_deref());
    assert!(header.are_unique() && header.get("crit").is_none() && header.get("b64").is_none());
}

// Headers and claims of tokens whose signature is good

fn write(header: &[u8], payload: &[u8]) -> Vec<u8> {
    let [header, payload] = [header, payload].map(|part| URL_SAFE_NO_PAD.encode(part));
    format!("{header}.{payload}.AAAA").into_bytes()
}

pub(super) const HEADER: Target = Target {
    name: "header",
    seeds: || {
        let seeds = [
            r#"{"alg":"RS256","typ":"JWT","kid":"key-1"}"#,
            r#"{"alg":"RS256","kid":"key-1","x5t":"key-1","jku":"https://e/","jwk":{"kty":"oct"}}"#,
            r#"{"typ":"at+jwt","alg":"RS256","kid":"key-1"}"#,
            r#"{"alg":"none","kid":"key-1"}"#,
            r#"{"alg":"PS256","kid":"key-1"}"#,
            r#"{"alg":"RS256","kid":"key-2"}"#,
            r#"{"alg":"RS256","kid":"key-1","crit":["b64"],"b64":false}"#,
            r#"{"alg":"RS256","kid":"key-1","alg":"none"}"#,
        ];
        seeds.map(|seed| seed.as_bytes().to_vec()).into()
    },
    check: header,
    outcomes: &["allowed", "JwtInvalid", "TokenSignatureKeyNotFound"],
    words: &[
        "\"alg\":",
        "\"kid\":",
        "\"typ\":",
        "\"crit\":",
        "\"b64\":",
        "\"RS256\"",
        "\"none\"",
        "\"key-1\"",
        "\"JWT\"",
        "\"jwt\"",
        "\"at+jwt\"",
        ",",
        "}",
        "null",
        "\\u0061lg",
    ],
};

/// The JOSE header of a token that is good otherwise.
fn header(input: &[u8]) -> String {
    let mut bench = TRUSTING.with(|policy| bench(policy, agreeable()));
    let token = write(input, v1_claims().to_string().as_bytes());
    let outcome = decide(&mut bench, &token);
    if outcome == "allowed" {
        let header = Members::read(input).unwrap();
        assert!(header.are_unique());
        assert_eq!(header.text("alg"), Some("RS256"));
        assert_eq!(header.text("kid"), Some("key-1"));
        assert!(
            header
                .text("typ")
                .is_none_or(|typ| typ.eq_ignore_ascii_case("JWT"))
        );
        assert!(header.get("crit").is_none() && header.get("b64").is_none());
    }
    outcome
}

pub(super) const CLAIMS: Target = Target {
    name: "claims",
    seeds: || {
        let now = NOON / 1000;
        [
            v1_claims(),
            v2_claims(),
            with(
                v1_claims(),
                &json!({ "aud": ["api://x", format!("{AUDIENCE}/")] }),
            ),
            with(
                v1_claims(),
                &json!({ "roles": "Writer Reader", "azp": APP }),
            ),
            with(
                v2_claims(),
                &json!({ "exp": 1.0e10, "nbf": null, "iat": 7.5 }),
            ),
            with(v1_claims(), &json!({ "exp": now - 60 })),
            with(v1_claims(), &json!({ "nbf": now + 61 })),
            with(v1_claims(), &json!({ "aud": "https://other" })),
            with(v1_claims(), &json!({ "ver": "2.0", "azp": APP })),
            with(v1_claims(), &json!({ "tid": APP })),
            with(v1_claims(), &json!({ "roles": null })),
            with(
                v1_claims(),
                &json!({ "iss": "https://sts.windows.net/other/" }),
            ),
            with(v1_claims(), &json!({ "exp": "never" })),
            json!({ "iss": v1_claims()["iss"] }),
        ]
        .map(|claims| claims.to_string().into_bytes())
        .into()
    },
    check: claims,
    outcomes: &[
        "allowed",
        "JwtInvalid",
        "TokenAudienceNotAllowed",
        "TokenClaimNotFound",
        "TokenClaimValueNotAllowed",
        "TokenExpired",
        "TokenIssuerNotAllowed",
        "TokenNotYetValid",
    ],
    words: &[
        "\"aud\":",
        "\"exp\":",
        "\"nbf\":",
        "\"iat\":",
        "\"iss\":",
        "\"tid\":",
        "\"ver\":",
        "\"appid\":",
        "\"azp\":",
        "\"roles\":",
        "\"oid\":",
        "\"1.0\"",
        "\"2.0\"",
        "\"Reader\"",
        "Reader",
        ",",
        "/",
        "1772366460",
        "1772366340",
        "9007199254740992",
        "1e99",
        "-0",
        "null",
        "[",
        "]",
        "\\u0061",
        "11111111-2222-3333-4444-555555555555",
        "aaaaaaaa-0000-0000-0000-000000000001",
    ],
};

/// The payload of a token whose signature is good.
fn claims(input: &[u8]) -> String {
    let mut bench = DEMANDING.with(|policy| bench(policy, agreeable()));
    let token = write(br#"{"alg":"RS256","kid":"key-1"}"#, input);
    let outcome = decide(&mut bench, &token);
    assert_eq!(decide(&mut bench, &token), outcome, "the second time");
    if outcome == "allowed" {
        let claims = Members::read(input).unwrap();
        let exp = check_claims(&claims);
        // It is known by now, and ends all the same. The clock ends in 2554.
        if exp < 1.8e10 {
            let end = json!(exp).as_f64().map(|exp| format!("{:.0}", exp.floor()));
            bench.now = (end.unwrap().parse::<u64>().unwrap() + 60) * 1000;
            assert_eq!(decide(&mut bench, &token), "TokenExpired");
        }
    }
    outcome
}

/// What must hold of claims that were taken; answers `exp`.
fn check_claims(claims: &Members) -> f64 {
    assert!(claims.are_unique());
    let now = f64::from(u32::try_from(NOON / 1000).unwrap());
    let date = |name| claims.get(name).map(|date| date.as_f64().unwrap());
    let exp = date("exp").unwrap();
    assert!(now < exp.floor() + 60.0, "expired: {exp}");
    for name in ["nbf", "iat"] {
        let date = date(name).unwrap_or_default();
        assert!(date.floor() <= now + 60.0, "{name}: {date}");
    }
    let is_own = |audience: &Value| {
        let text = audience.as_str().unwrap();
        text == AUDIENCE || text.strip_suffix('/') == Some(AUDIENCE)
    };
    let audience = claims.get("aud").unwrap();
    assert!(
        audience
            .as_array()
            .map_or_else(|| is_own(audience), |all| all.iter().any(is_own))
    );
    assert!(claims.text("tid").unwrap().eq_ignore_ascii_case(TENANT));
    let v1 = (format!("https://sts.windows.net/{TENANT}/"), "1.0", "appid");
    let v2 = (
        format!("https://login.microsoftonline.com/{TENANT}/v2.0"),
        "2.0",
        "azp",
    );
    let of = |iss: &str| [v1, v2].into_iter().find(|version| version.0 == iss);
    let (_, ver, app) = of(claims.text("iss").unwrap()).unwrap();
    assert_eq!(claims.text("ver"), Some(ver));
    assert_eq!(claims.text(app).unwrap().len(), APP.len());
    for other in ["appid", "azp"] {
        let id = claims.text(other).map(str::to_ascii_lowercase);
        assert!(id.is_none_or(|id| id == claims.text(app).unwrap().to_ascii_lowercase()));
    }
    assert!(match claims.get("roles").unwrap() {
        Value::String(text) => text.split(' ').any(|role| role == "Reader"),
        Value::Array(roles) => roles.iter().any(|role| role == "Reader"),
        _ => false,
    });
    exp
}
