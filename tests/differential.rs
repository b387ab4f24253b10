//! The token reader against jwt-compact's own: whatever is accepted here, it accepts too.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "tests compute on their own constants"
)]

mod common;

use common::{OTHER, SIGNER, v1_claims, v2_claims, with};
use jwt_compact::{AlgorithmExt as _, UntrustedToken};
use serde_json::{Value, json};
use tollgate::crypto::Crypto;
use tollgate::jwt::{Algorithm, Jws, JwsAlgorithm};
use tollgate::keys::KeySet;

/// Signature and form by this crate, and by jwt-compact over the same verifier.
fn both(token: &str) -> (bool, bool) {
    let set = json!({ "keys": [SIGNER.jwk()] }).to_string();
    let keys = KeySet::parse(set.as_bytes()).unwrap();
    let key = &keys.find(&SIGNER.kid).unwrap().public;
    let crypto = Crypto::pure();
    let verifier = JwsAlgorithm {
        algorithm: Algorithm::Rs256,
        crypto: &crypto,
    };
    let ours = Jws::parse(token.as_bytes()).is_ok_and(|jws| {
        jws.algorithm == "RS256" && crypto.verify(Algorithm::Rs256, key, jws.signed, &jws.signature)
    });
    let theirs = UntrustedToken::new(token).is_ok_and(|untrusted| {
        verifier
            .validator::<serde_json::Map<String, Value>>(key)
            .validate(&untrusted)
            .is_ok()
    });
    (ours, theirs)
}

#[test]
fn good_and_bad_tokens_get_the_same_answer() {
    let header = json!({ "alg": "RS256", "kid": SIGNER.kid, "typ": "JWT" });
    let mut tokens = vec![
        SIGNER.token(&v1_claims()),
        SIGNER.token(&v2_claims()),
        OTHER.token(&v1_claims()),
        SIGNER.sign(&with(header.clone(), &json!({ "alg": "none" })), "{}"),
        SIGNER.sign(&with(header.clone(), &json!({ "alg": "PS256" })), "{}"),
        SIGNER.sign(&header, "{}"),
    ];
    let good = tokens[0].clone();
    for at in (0..good.len()).step_by(7) {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
        tokens.push(String::from_utf8(bytes).unwrap());
        tokens.push(good[..at].to_owned());
        tokens.push(format!("{}={}", &good[..at], &good[at..]));
    }
    let mut accepted = 0;
    for token in &tokens {
        let (ours, theirs) = both(token);
        assert_eq!(ours, theirs, "{token}");
        accepted += u32::from(ours);
    }
    assert_eq!(accepted, 3);
}

/// Where they differ, and why.
#[test]
fn known_differences() {
    let header = json!({ "alg": "RS256", "kid": SIGNER.kid });
    for (change, ours, theirs) in [
        // Nothing looks at x5t, so its form is nobody's business.
        (json!({ "x5t": "key-1" }), true, false),
        // RFC 7515 section 4.1.11: what is critical and not understood is refused.
        (json!({ "crit": ["exp"], "exp": 1 }), false, true),
        (json!({ "b64": true }), false, true),
        // cty names the payload's type; jwt-compact knows JSON only.
        (json!({ "cty": "JWT" }), true, false),
    ] {
        let token = SIGNER.sign(&with(header.clone(), &change), "{}");
        assert_eq!(both(&token), (ours, theirs), "{change}");
    }
}
