//! Vectors from elsewhere: Wycheproof, the JOSE cookbook, the JSON test suite, captures of Entra ID
//! and Microsoft's samples.
//!
//! They are not part of the repository. `VECTORS` names their folder (default:
//! `../shared/vectors`); without it these tests say so and check nothing. With it, every test demands
//! the number of rows that its suite has.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::string_slice,
    reason = "tests on known files"
)]

use std::fs;
use std::path::{Path, PathBuf};

mod common;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::{Bench, SIGNER, figure, policy, with};
use serde_json::{Value, json};
use tollgate::crypto::{Crypto, KeyError};
use tollgate::json;
use tollgate::jwt::{Algorithm, Jws};
use tollgate::keys::{KeySet, KeySetError, Metadata, MetadataError, SkipReason};
use tollgate::refusal::Code;
use tollgate::url::Url;

fn folder() -> Option<PathBuf> {
    let folder = std::env::var("VECTORS").map_or_else(
        |_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors"),
        PathBuf::from,
    );
    if folder.is_dir() {
        return Some(folder);
    }
    common::not_checked(&format!(
        "no vectors in {}; set VECTORS to their folder",
        folder.display()
    ));
    None
}

/// All rows of a suite came out as they are to.
fn passed(suite: &str, rows: &str) {
    println!("{suite}: {rows}");
    figure("R1", suite, rows, true);
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The decision of the signature layer: a well-formed JWS, an allowed algorithm, a usable key
/// found by `kid` (or the only one, where the row names none), a good signature.
fn accepts(jws: &str, set: &Value, allowed: &[Algorithm]) -> bool {
    let mut set = set.clone();
    // The gate demands a kid; the layer below is tested on rows that have none.
    for key in set["keys"].as_array_mut().unwrap() {
        let key = key.as_object_mut().unwrap();
        key.entry("kid").or_insert_with(|| "only".into());
    }
    let Ok(jws) = Jws::parse(jws.as_bytes()) else {
        return false;
    };
    let Some(algorithm) = Algorithm::from_name(&jws.algorithm).filter(|a| allowed.contains(a))
    else {
        return false;
    };
    let Ok(keys) = KeySet::parse(set.to_string().as_bytes()) else {
        return false;
    };
    let only = set["keys"][0]["kid"].as_str().unwrap();
    let Some(key) = keys.find(jws.kid.as_deref().unwrap_or(only)) else {
        return false;
    };
    key.algorithm.is_none_or(|only| only == algorithm)
        && Crypto::pure().verify(algorithm, &key.public, jws.signed, &jws.signature)
}

#[test]
fn wycheproof_jws() {
    let Some(folder) = folder() else { return };
    let rows = read(&folder.join("derived/wycheproof_jws_flat.json"));
    let (mut checked, mut accepted) = (0, 0);
    for row in rows["tests"].as_array().unwrap() {
        let name = format!("{} {}", row["tcId"], row["comment"]);
        let set = serde_json::json!({ "keys": [row["jwk"]] });
        let jws = row["jws"].as_str().unwrap_or_default();

        let by_rs256 = accepts(jws, &set, &[Algorithm::Rs256]);
        assert_eq!(by_rs256, row["gateway_rs256_only"] == "accept", "{name}");
        accepted += u32::from(by_rs256);

        // Every algorithm: HMAC rows stay refused, whatever the vectors say of them.
        let symmetric = row["jwk"]["kty"] == "oct";
        let es512 = jws_algorithm(jws) == "ES512";
        if row["strict_result"] != "skip" && !symmetric && !es512 {
            let expected = row["strict_result"] == "valid";
            assert_eq!(
                accepts(jws, &set, &Algorithm::ALL),
                expected,
                "{name}, all algorithms"
            );
        } else {
            assert!(
                !accepts(jws, &set, &Algorithm::ALL),
                "{name}, all algorithms"
            );
        }
        checked += 1;
    }
    assert_eq!((checked, accepted), (401, 8));
    passed(
        "Wycheproof JWS",
        &format!("{checked} rows, {accepted} accepted"),
    );
}

fn jws_algorithm(jws: &str) -> String {
    Jws::parse(jws.as_bytes())
        .map(|jws| jws.algorithm)
        .unwrap_or_default()
}

#[test]
fn wycheproof_jwk() {
    let Some(folder) = folder() else { return };
    let rows = read(&folder.join("derived/wycheproof_jwk_flat.json"));
    let mut accepted = Vec::new();
    let rows = rows["tests"].as_array().unwrap();
    for row in rows {
        let symmetric = row["keyset"]["keys"][0]["kty"] == "oct";
        // A key of the ROCA kind can be told only by factoring hints, which a gateway does not
        // try: its issuer publishes it, and its issuer is trusted.
        let roca = row["comment"] == "rejectsKeyWithRocaVulnerability";
        let expected = roca || (row["result"] == "valid" && !symmetric);
        let got = accepts(
            row["jws"].as_str().unwrap(),
            &row["keyset"],
            &Algorithm::ALL,
        );
        assert_eq!(got, expected, "{} {}", row["tcId"], row["comment"]);
        if got && !roca {
            accepted.push(row["tcId"].as_u64().unwrap());
        }
    }
    assert_eq!((rows.len(), accepted), (26, vec![5]));
    passed("Wycheproof JWK", &format!("{} rows", rows.len()));
}

#[test]
fn wycheproof_signatures() {
    let Some(folder) = folder() else { return };
    for (file, algorithm, key, expected, weak) in [
        (
            "rsa_signature_2048_sha256_test.json",
            Algorithm::Rs256,
            "keyJwk",
            259,
            2,
        ),
        (
            "rsa_signature_3072_sha384_test.json",
            Algorithm::Rs384,
            "keyJwk",
            259,
            0,
        ),
        (
            "rsa_signature_4096_sha256_test.json",
            Algorithm::Rs256,
            "keyJwk",
            258,
            0,
        ),
        (
            "rsa_pss_2048_sha256_mgf1_32_test.json",
            Algorithm::Ps256,
            "publicKeyJwk",
            108,
            0,
        ),
        (
            "ecdsa_secp256r1_sha256_p1363_test.json",
            Algorithm::Es256,
            "publicKeyJwk",
            262,
            0,
        ),
        (
            "ecdsa_secp384r1_sha384_p1363_test.json",
            Algorithm::Es384,
            "publicKeyJwk",
            280,
            0,
        ),
    ] {
        let document = read(&folder.join("wycheproof").join(file));
        let (mut rows, mut on_weak_keys) = (0, 0);
        for group in document["testGroups"].as_array().unwrap() {
            let tests = group["tests"].as_array().unwrap();
            rows += tests.len();
            let jwk = match &group[key] {
                // Some points stand there in hexadecimal only.
                Value::Null => point(&group["publicKey"]),
                jwk => jwk.clone(),
            };
            let jwk = with(jwk, &json!({ "kid": "k" }));
            let keys = KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes());
            let Ok(keys) = keys else {
                let weak = SkipReason::Material(KeyError::RsaExponent);
                assert_eq!(keys.err(), Some(KeySetError::NoUsableKey(Some(weak))));
                on_weak_keys += tests.len();
                continue;
            };
            let public = &keys.find("k").unwrap().public;
            for test in tests {
                let message = hex(test["msg"].as_str().unwrap());
                let signature = hex(test["sig"].as_str().unwrap());
                let good = Crypto::pure().verify(algorithm, public, &message, &signature);
                // "acceptable" is a missing NULL: refused.
                assert_eq!(good, test["result"] == "valid", "{file} {}", test["tcId"]);
            }
        }
        assert_eq!((rows, on_weak_keys), (expected, weak), "{file}");
        passed(
            file,
            &format!("{rows} rows, {on_weak_keys} on keys that the gate refuses"),
        );
    }
}

fn point(key: &Value) -> Value {
    let crv = match key["curve"].as_str().unwrap() {
        "secp256r1" => "P-256",
        "secp384r1" => "P-384",
        other => panic!("{other}"),
    };
    let coordinate = |name: &str| URL_SAFE_NO_PAD.encode(hex(key[name].as_str().unwrap()));
    json!({ "kty": "EC", "crv": crv, "x": coordinate("wx"), "y": coordinate("wy") })
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
fn json_suite() {
    let Some(folder) = folder() else { return };
    let (mut yes, mut no, mut either) = (0, 0, 0);
    for entry in fs::read_dir(folder.join("jsontestsuite/test_parsing")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read(&path).unwrap();
        let parsed = json::parse(&text);
        // Repeated members are JSON by the letter, and refused here.
        let repeats = name.contains("duplicated_key");
        match name.as_bytes()[0] {
            b'y' => {
                assert_eq!(parsed.is_ok(), !repeats, "{name}");
                yes += 1;
            }
            b'n' => {
                assert!(parsed.is_err(), "{name}");
                no += 1;
            }
            _ => either += 1,
        }
    }
    assert_eq!((yes, no, either), (95, 188, 35));
    let mut transforms = 0;
    for entry in fs::read_dir(folder.join("jsontestsuite/test_transform")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read(&path).unwrap();
        let parsed = json::parse(&text);
        // A repeated member has two readings, half a surrogate pair none.
        let refused = name.contains("same_key") || name.contains("invalid_codepoint");
        assert_eq!(parsed.is_err(), refused, "{name}");
        transforms += 1;
    }
    assert_eq!(transforms, 22);
    passed(
        "JSON test suite",
        &format!("{yes} + {no} + {either} texts, {transforms} transforms"),
    );
}

/// The examples of RFC 7520: two of the gate's algorithms, and what must not pass.
#[test]
fn jose_cookbook() {
    let Some(folder) = folder() else { return };
    let folder = folder.join("jose_cookbook");
    let mut rows = 0;
    for (file, accepted) in [
        ("jws/4_1.rsa_v15_signature", true),
        ("jws/4_2.rsa-pss_signature", true),
        // ES512, HMAC, a payload elsewhere, headers outside the signature, several signatures,
        // Ed25519, a payload that is not encoded.
        ("jws/4_3.ecdsa_signature", false),
        ("jws/4_4.hmac-sha2_integrity_protection", false),
        ("jws/4_5.signature_with_detached_content", false),
        ("jws/4_6.protecting_specific_header_fields", false),
        ("jws/4_7.protecting_content_only", false),
        ("jws/4_8.multiple_signatures", false),
        ("curve25519/jws", false),
        ("rfc7797/4.2.hmac-sha2_b64_false", false),
        ("rfc7797/hmac-sha2_b64_false", false),
    ] {
        let example = read(&folder.join(format!("{file}.json")));
        let keys = match &example["input"]["key"] {
            Value::Array(keys) => keys.clone(),
            key => vec![key.clone()],
        };
        let set = json!({ "keys": keys });
        for (form, text) in example["output"].as_object().unwrap() {
            let jws = text
                .as_str()
                .map_or_else(|| text.to_string(), str::to_owned);
            let expected = accepted && form == "compact";
            assert_eq!(
                accepts(&jws, &set, &Algorithm::ALL),
                expected,
                "{file} {form}"
            );
            rows += 1;
        }
    }
    let nested = read(&folder.join("6.nesting_signatures_and_encryption.json"));
    let jwe = find_text(&nested, "compact").unwrap();
    assert!(Jws::parse(jwe.as_bytes()).is_err(), "{jwe}");
    assert_eq!(rows, 28);
    passed("JOSE cookbook", &format!("{rows} serializations"));
}

/// The first text under a name, at any depth.
fn find_text(value: &Value, name: &str) -> Option<String> {
    match value {
        Value::Object(members) => members
            .get(name)
            .and_then(Value::as_str)
            .map(str::to_owned)
            .or_else(|| members.values().find_map(|value| find_text(value, name))),
        Value::Array(values) => values.iter().find_map(|value| find_text(value, name)),
        _ => None,
    }
}

#[test]
fn jose_cookbook_keys() {
    let Some(folder) = folder() else { return };
    for (file, expected) in [
        ("3_1.ec_public_key", Err(SkipReason::Kind)),
        ("3_2.ec_private_key", Err(SkipReason::Kind)),
        ("3_3.rsa_public_key", Ok(())),
        // What is private in it is not looked at.
        ("3_4.rsa_private_key", Ok(())),
        ("3_5.symmetric_key_mac_computation", Err(SkipReason::Kind)),
        ("3_6.symmetric_key_encryption", Err(SkipReason::Use)),
    ] {
        let key = read(&folder.join(format!("jose_cookbook/jwk/{file}.json")));
        let set = json!({ "keys": [key] }).to_string();
        let expected = expected.map_err(|reason| KeySetError::NoUsableKey(Some(reason)));
        let found = KeySet::parse(set.as_bytes()).map(|_| ());
        assert_eq!(found, expected, "{file}");
    }
    passed("JOSE cookbook", "6 keys");
}

#[test]
fn entra_key_sets() {
    let Some(folder) = folder() else { return };
    let captures = read(&folder.join("entra_identitymodel/openid_config_strings.json"));
    let mut sets = 0;
    for name in ["AADCommonV1JwksString", "AADCommonV2JwksString"] {
        let text = captures["strings"][name]["text"].as_str().unwrap();
        let set = KeySet::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
        sets += 1;
        let keys: Value = serde_json::from_str(text).unwrap();
        let keys = keys["keys"].as_array().unwrap();
        assert_eq!(
            set.len() + set.skipped().len(),
            keys.len(),
            "{name}: {:?}",
            set.skipped()
        );
        for key in keys {
            let found = set.find(key["kid"].as_str().unwrap()).unwrap();
            assert_eq!(found.issuer.as_deref(), key["issuer"].as_str(), "{name}");
            assert_eq!(found.algorithm, None, "{name}: Entra sends no alg");
        }
    }
    assert_eq!(sets, 2);
    passed("Entra ID", &format!("{sets} captured key sets"));
}

/// Microsoft's own key sets and metadata documents, good and bad.
#[test]
fn identity_model_key_sets() {
    let Some(folder) = folder() else { return };
    let folder = folder.join("entra_identitymodel/metadata");
    let unusable = |reason| Err(KeySetError::NoUsableKey(Some(reason)));
    let mut rows = 0;
    for (file, expected) in [
        // Their moduli are in the standard alphabet of base64, which RFC 7518 does not have.
        (
            "JsonWebKeySetBadBase64Data",
            unusable(SkipReason::Malformed),
        ),
        ("JsonWebKeySetBadX509Data", unusable(SkipReason::Malformed)),
        ("JsonWebKeySetEnd2End", unusable(SkipReason::Malformed)),
        ("ValidJson", unusable(SkipReason::Malformed)),
        // No modulus.
        (
            "JsonWebKeySetSingleX509Data",
            unusable(SkipReason::Malformed),
        ),
        (
            "JsonWebKeySetBadRsaDataMissingComponent",
            unusable(SkipReason::Kid),
        ),
        // An operation that RFC 7517 does not have.
        ("JsonWebKeySet", unusable(SkipReason::Use)),
        ("JsonWebKeySetUnrecognizedKty", unusable(SkipReason::Use)),
        // Begins with a byte order mark (RFC 8259 section 8.1).
        ("JsonWebKeySetEnd2EndEC", Err(KeySetError::NotAKeySet)),
        ("PingLabsJWKS", Ok(3)),
    ] {
        let text = fs::read(folder.join(format!("{file}.json"))).unwrap();
        let found = KeySet::parse(&text).map(|set| set.len());
        assert_eq!(found, expected, "{file}");
        rows += 1;
    }
    let text = fs::read(folder.join("JsonWebKeySetEnd2EndEC.json")).unwrap();
    let without_mark = text.strip_prefix(b"\xef\xbb\xbf").unwrap();
    let set = KeySet::parse(without_mark).unwrap();
    let skipped: Vec<_> = set.skipped().iter().map(|key| key.reason).collect();
    assert_eq!((set.len(), skipped), (2, vec![SkipReason::Kind]));
    passed("IdentityModel", &format!("{rows} key sets"));
}

#[test]
fn identity_model_metadata() {
    let Some(folder) = folder() else { return };
    let captures = read(&folder.join("entra_identitymodel/openid_config_strings.json"));
    let captured = |name: &str| {
        let text = captures["strings"][name]["text"].as_str().unwrap();
        text.as_bytes().to_vec()
    };
    let file = |name: &str| {
        let folder = folder.join("entra_identitymodel/metadata");
        fs::read(folder.join(format!("{name}.json"))).unwrap()
    };
    const ENTRA: &str = "https://login.microsoftonline.com/t/.well-known/openid-configuration";
    const STS: &str = "https://sts.windows.net/d062b2b0-9aca-4ff7-b32a-ba47231a4002/";
    const PING: &str = "https://connect-interop.pinglabs.org:9031";
    let mut rows = 0;
    let mut check = |text: Vec<u8>, source: &str, issuer: &str, expected: Result<&str, _>| {
        let source = Url::parse(source).unwrap();
        let found = Metadata::parse(&text, &source, &[issuer.to_owned()], Some("t"));
        let found = found.map(|metadata| metadata.jwks_uri.to_string());
        assert_eq!(found, expected.map(str::to_owned), "{}", rows);
        rows += 1;
    };
    for (name, issuer, expected) in [
        (
            "AADCommonV1Json",
            "https://sts.windows.net/t/",
            Ok("https://login.microsoftonline.com/common/discovery/keys"),
        ),
        (
            "AADCommonV2Json",
            "https://login.microsoftonline.com/t/v2.0",
            Ok("https://login.microsoftonline.com/common/discovery/v2.0/keys"),
        ),
        // The metadata of one version is not that of the other's tokens.
        (
            "AADCommonV1Json",
            "https://login.microsoftonline.com/t/v2.0",
            Err(MetadataError::Issuer),
        ),
        (
            "OpenIdConnectMetadataBadX509DataString",
            STS,
            Err(MetadataError::Issuer),
        ),
        (
            "OpenIdConnectMetadataBadFormatString",
            STS,
            Err(MetadataError::NotAnObject),
        ),
        (
            "OpenIdConnectMetatadataBadJson",
            STS,
            Err(MetadataError::NotAnObject),
        ),
        ("JsonAllValues", STS, Err(MetadataError::JwksUri)),
        (
            "AccountsGoogleComJson",
            "https://accounts.google.com",
            Err(MetadataError::OtherHost),
        ),
    ] {
        check(captured(name), ENTRA, issuer, expected);
    }
    for (name, issuer, expected) in [
        ("IssuerMetadata", STS, Err(MetadataError::JwksUri)),
        ("IssuerMetadata2", STS, Err(MetadataError::Issuer)),
        // Addresses of files.
        ("OpenIdConnectMetadata", STS, Err(MetadataError::JwksUri)),
        ("OpenIdConnectMetadata2", STS, Err(MetadataError::Issuer)),
        (
            "OpenIdConnectMetadataEnd2End",
            STS,
            Err(MetadataError::JwksUri),
        ),
        (
            "OpenIdConnectMetadataEnd2EndEC",
            STS,
            Err(MetadataError::NotAnObject),
        ),
        (
            "google-openid-configuration",
            "accounts.google.com",
            Err(MetadataError::OtherHost),
        ),
    ] {
        check(file(name), ENTRA, issuer, expected);
    }
    let ping = Ok("https://connect-interop.pinglabs.org:9031/pf/JWKS");
    check(file("PingLabs-openid-configuration"), PING, PING, ping);
    passed("IdentityModel", &format!("{rows} metadata documents"));

    // Of all that there is, one is the metadata of the tenant's v2 tokens.
    let names = captures["strings"].as_object().unwrap().keys();
    let mut all: Vec<_> = names.map(|name| (name.clone(), captured(name))).collect();
    for entry in fs::read_dir(folder.join("entra_identitymodel/metadata")).unwrap() {
        let path = entry.unwrap().path();
        all.push((path.display().to_string(), fs::read(path).unwrap()));
    }
    let source = Url::parse(ENTRA).unwrap();
    let issuer = ["https://login.microsoftonline.com/t/v2.0".to_owned()];
    let is_good = |text: &[u8]| Metadata::parse(text, &source, &issuer, Some("t")).is_ok();
    let good = all.iter().filter(|(_, text)| is_good(text));
    let good: Vec<_> = good.map(|(name, _)| name.as_str()).collect();
    assert_eq!(good, ["AADCommonV2Json"]);
    assert_eq!(all.len(), 40 + 24);
    passed(
        "IdentityModel",
        &format!("{} documents taken for metadata", all.len()),
    );
}

/// `AadIssuerValidatorTests`: which `iss` belongs to which template and tenant.
#[test]
fn identity_model_issuers() {
    let Some(folder) = folder() else { return };
    let cases = read(&folder.join("entra_identitymodel/issuer_validation_cases.json"));
    let cases = cases["cases"].as_array().unwrap();
    let source = "https://login.example/t/.well-known/openid-configuration";
    for case in cases {
        let text = |name: &str| case[name].as_str().unwrap();
        let document = json!({
            "issuer": text("TemplatedIssuer"),
            "jwks_uri": "https://login.example/keys",
        });
        let tenant = text("TenantIdClaim");
        let found = Metadata::parse(
            document.to_string().as_bytes(),
            &Url::parse(source).unwrap(),
            &[text("TokenIssuer").to_owned()],
            Some(tenant),
        );
        let expected = case["ExpectedResult"].as_bool().unwrap();
        assert_eq!(found.is_ok(), expected, "{}", case["id"]);
    }
    assert_eq!(cases.len(), 10);
    passed("IdentityModel", &format!("{} issuers", cases.len()));
}

/// Their signatures are cut off.
#[test]
fn entra_sample_tokens_are_refused() {
    let Some(folder) = folder() else { return };
    let samples = read(&folder.join("entra_docs/access_token_samples.json"));
    let samples = samples["tokens"].as_array().unwrap();
    for sample in samples {
        let payload = &sample["payload"];
        let kid = &sample["header"]["kid"];
        let issuer = json!({
            "issuers": [payload["iss"]],
            "audiences": [payload["aud"]],
            "jwks": { "keys": [with(SIGNER.jwk(), &json!({ "kid": kid }))] },
        });
        let token = sample["token_as_printed"].as_str().unwrap();
        let mut bench = Bench::new(&policy(&json!({ "issuers": [issuer] })));
        bench.now = (payload["iat"].as_u64().unwrap() + 60) * 1000;
        let code = bench.code(token);
        assert!(
            matches!(code, Some(Code::JwtInvalid | Code::TokenSignatureInvalid)),
            "{code:?} {}",
            sample["version"]
        );

        // Under a whole signature the same claims pass.
        let signed = SIGNER.sign(&sample["header"], &payload.to_string());
        assert_eq!(bench.code(&signed), None, "{}", sample["version"]);
    }
    assert_eq!(samples.len(), 2);
    passed("Microsoft's samples", &format!("{} tokens", samples.len()));
}
