//! Signing keys, their rotation, and the key set as Entra publishes it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
    RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use ring::{digest, hmac};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::random;

/// The signing keys that take turns. Test keys, see `keys/README.md`.
const RSA_POOL: [&str; 6] = [
    include_str!("../keys/rsa-1.pem"),
    include_str!("../keys/rsa-2.pem"),
    include_str!("../keys/rsa-3.pem"),
    include_str!("../keys/rsa-4.pem"),
    include_str!("../keys/rsa-5.pem"),
    include_str!("../keys/rsa-6.pem"),
];
/// Never published.
const RSA_FOREIGN: &str = include_str!("../keys/foreign.pem");

/// How a token is signed, or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are RFC 7518's")]
pub enum Algorithm {
    #[default]
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    /// No signature.
    #[serde(rename = "none")]
    Unsigned,
    /// An HMAC whose secret is the public key as everybody can read it: the classic confusion.
    #[serde(rename = "HS256-with-public-key")]
    Hs256WithPublicKey,
}

impl Algorithm {
    /// The value of `alg` in the header.
    pub fn name(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::Unsigned => "none",
            Self::Hs256WithPublicKey => "HS256",
        }
    }
}

/// A key for each family of algorithms.
pub struct KeyMaterial {
    rsa: Arc<RsaKeyPair>,
    p256: EcdsaKeyPair,
    p384: EcdsaKeyPair,
}

impl KeyMaterial {
    fn new(rsa: Arc<RsaKeyPair>) -> Self {
        Self {
            rsa,
            p256: ec_key(&ECDSA_P256_SHA256_FIXED_SIGNING),
            p384: ec_key(&ECDSA_P384_SHA384_FIXED_SIGNING),
        }
    }

    /// Signs a token's first two parts.
    pub fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        match algorithm {
            Algorithm::RS256 => self.rsa_sign(&RSA_PKCS1_SHA256, message),
            Algorithm::RS384 => self.rsa_sign(&RSA_PKCS1_SHA384, message),
            Algorithm::RS512 => self.rsa_sign(&RSA_PKCS1_SHA512, message),
            Algorithm::PS256 => self.rsa_sign(&RSA_PSS_SHA256, message),
            Algorithm::PS384 => self.rsa_sign(&RSA_PSS_SHA384, message),
            Algorithm::PS512 => self.rsa_sign(&RSA_PSS_SHA512, message),
            Algorithm::ES256 => ec_sign(&self.p256, message),
            Algorithm::ES384 => ec_sign(&self.p384, message),
            Algorithm::Unsigned => Vec::new(),
            Algorithm::Hs256WithPublicKey => {
                let secret = hmac::Key::new(hmac::HMAC_SHA256, public_pem(&self.rsa).as_bytes());
                hmac::sign(&secret, message).as_ref().to_vec()
            }
        }
    }

    fn rsa_sign(&self, encoding: &'static dyn RsaEncoding, message: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.rsa.public().modulus_len()];
        self.rsa
            .sign(encoding, &SystemRandom::new(), message, &mut signature)
            .expect("an RSA key signs");
        signature
    }
}

fn ec_key(algorithm: &'static EcdsaSigningAlgorithm) -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("an EC key can be made");
    EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).expect("a key just made is good")
}

fn ec_sign(key: &EcdsaKeyPair, message: &[u8]) -> Vec<u8> {
    let signature = key
        .sign(&SystemRandom::new(), message)
        .expect("an EC key signs");
    signature.as_ref().to_vec()
}

fn rsa_key(pem: &str) -> Arc<RsaKeyPair> {
    let base64: String = pem
        .lines()
        .skip_while(|line| !line.starts_with("-----BEGIN"))
        .skip(1)
        .take_while(|line| !line.starts_with("-----END"))
        .collect();
    let der = STANDARD.decode(base64).expect("an embedded key is PEM");
    Arc::new(RsaKeyPair::from_pkcs8(&der).expect("an embedded key is RSA"))
}

/// The public key as `openssl pkey -pubout` prints it.
fn public_pem(key: &RsaKeyPair) -> String {
    // SubjectPublicKeyInfo of an RSA-2048 key, up to where the key itself begins.
    const PREFIX: [u8; 24] = [
        0x30, 0x82, 0x01, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01,
        0x01, 0x01, 0x05, 0x00, 0x03, 0x82, 0x01, 0x0f, 0x00,
    ];
    let base64 = STANDARD.encode([&PREFIX[..], key.public_key().as_ref()].concat());
    let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
    for line in base64.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem + "-----END PUBLIC KEY-----\n"
}

/// Keys that became current together.
pub struct Generation {
    material: KeyMaterial,
    rsa_kid: String,
    p256_kid: String,
    p384_kid: String,
}

impl Generation {
    /// The same RSA key gets a new `kid` each time its turn comes.
    fn new(number: usize, rsa: Arc<RsaKeyPair>) -> Self {
        let material = KeyMaterial::new(rsa);
        Self {
            rsa_kid: thumbprint(number, material.rsa.public_key().as_ref()),
            p256_kid: thumbprint(number, material.p256.public_key().as_ref()),
            p384_kid: thumbprint(number, material.p384.public_key().as_ref()),
            material,
        }
    }

    /// The `kid` that goes with an algorithm.
    pub fn kid(&self, algorithm: Algorithm) -> &str {
        match algorithm {
            Algorithm::ES256 => &self.p256_kid,
            Algorithm::ES384 => &self.p384_kid,
            _ => &self.rsa_kid,
        }
    }

    /// Its keys.
    pub fn material(&self) -> &KeyMaterial {
        &self.material
    }

    fn jwks(&self, issuer: &str) -> [Value; 3] {
        [
            rsa_jwk(&self.material.rsa, &self.rsa_kid, issuer),
            ec_jwk(&self.material.p256, "P-256", &self.p256_kid, issuer),
            ec_jwk(&self.material.p384, "P-384", &self.p384_kid, issuer),
        ]
    }
}

/// As long as Entra's, which are SHA-1 thumbprints of certificates.
fn thumbprint(number: usize, public_key: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(&number.to_be_bytes());
    context.update(public_key);
    URL_SAFE_NO_PAD.encode(context.finish())
}

fn rsa_jwk(key: &RsaKeyPair, kid: &str, issuer: &str) -> Value {
    let public = PublicKeyComponents::<Vec<u8>>::from(key.public());
    json!({
        "kty": "RSA", "use": "sig", "kid": kid, "x5t": kid,
        "n": URL_SAFE_NO_PAD.encode(public.n), "e": URL_SAFE_NO_PAD.encode(public.e),
        "issuer": issuer,
    })
}

fn ec_jwk(key: &EcdsaKeyPair, curve: &str, kid: &str, issuer: &str) -> Value {
    // An uncompressed point: one byte of form, then both coordinates.
    let point = &key.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    json!({
        "kty": "EC", "use": "sig", "kid": kid, "x5t": kid, "crv": curve,
        "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        "issuer": issuer,
    })
}

/// Which key signs a token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyChoice {
    /// The newest published key.
    #[default]
    Current,
    /// The one before it, published or not.
    Previous,
    /// Another key under the current key's `kid`.
    Foreign,
    /// Another key under a `kid` that nobody publishes, a new one each time.
    Unpublished,
}

/// All keys of the stand-in.
pub struct KeyStore {
    pool: Vec<Arc<RsaKeyPair>>,
    foreign: KeyMaterial,
    state: Mutex<State>,
}

struct State {
    made: usize,
    answers: usize,
    published: Vec<Arc<Generation>>,
    current: Arc<Generation>,
    previous: Arc<Generation>,
}

impl Default for KeyStore {
    fn default() -> Self {
        let pool: Vec<_> = RSA_POOL.into_iter().map(rsa_key).collect();
        let previous = Arc::new(Generation::new(0, Arc::clone(&pool[0])));
        let current = Arc::new(Generation::new(1, Arc::clone(&pool[1])));
        let published = vec![Arc::clone(&previous), Arc::clone(&current)];
        let state = State {
            made: 2,
            answers: 0,
            published,
            current,
            previous,
        };
        let foreign = KeyMaterial::new(rsa_key(RSA_FOREIGN));
        Self {
            pool,
            foreign,
            state: Mutex::new(state),
        }
    }
}

impl KeyStore {
    /// Makes a new key the current one; the older ones stay published or not.
    pub fn rotate(&self, keep_old: bool) {
        let mut state = self.state();
        let rsa = Arc::clone(&self.pool[state.made % self.pool.len()]);
        let new = Arc::new(Generation::new(state.made, rsa));
        state.made += 1;
        state.previous = std::mem::replace(&mut state.current, Arc::clone(&new));
        if !keep_old {
            state.published.clear();
        }
        state.published.push(new);
    }

    /// Signs with the chosen key: `write` gets the `kid` and gives the text to sign.
    pub fn sign(
        &self,
        choice: KeyChoice,
        algorithm: Algorithm,
        write: impl FnOnce(&str) -> String,
    ) -> (String, Vec<u8>) {
        let (current, previous) = {
            let state = self.state();
            (Arc::clone(&state.current), Arc::clone(&state.previous))
        };
        let unknown = random::text::<20>();
        let (kid, material) = match choice {
            KeyChoice::Current => (current.kid(algorithm), current.material()),
            KeyChoice::Previous => (previous.kid(algorithm), previous.material()),
            KeyChoice::Foreign => (current.kid(algorithm), &self.foreign),
            KeyChoice::Unpublished => (unknown.as_str(), &self.foreign),
        };
        let message = write(kid);
        let signature = material.sign(algorithm, message.as_bytes());
        (message, signature)
    }

    /// The key set. Its order means nothing, and differs from answer to answer as Entra's does.
    pub fn set(&self, issuer: &str) -> Value {
        let mut state = self.state();
        let mut keys: Vec<Value> = state
            .published
            .iter()
            .flat_map(|generation| generation.jwks(issuer))
            .collect();
        let first = state.answers % keys.len();
        keys.rotate_left(first);
        state.answers += 1;
        json!({ "keys": keys })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ISSUER: &str = "https://login.microsoftonline.com/{tenantid}/v2.0";

    fn published(keys: &KeyStore, kty: &str) -> BTreeSet<String> {
        let set = keys.set(ISSUER);
        let of_type = set["keys"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|key| key["kty"] == kty);
        of_type
            .map(|key| key["kid"].as_str().unwrap().to_owned())
            .collect()
    }

    fn kid(keys: &KeyStore, choice: KeyChoice) -> String {
        keys.sign(choice, Algorithm::RS256, str::to_owned).0
    }

    #[test]
    fn the_set_looks_like_entras() {
        let set = KeyStore::default().set(ISSUER);
        let keys = set["keys"].as_array().unwrap();
        let rsa: Vec<_> = keys.iter().filter(|key| key["kty"] == "RSA").collect();
        assert_eq!(rsa.len(), 2);
        for key in rsa {
            let members: BTreeSet<_> = key
                .as_object()
                .unwrap()
                .keys()
                .map(String::as_str)
                .collect();
            assert_eq!(
                members,
                ["e", "issuer", "kid", "kty", "n", "use", "x5t"].into()
            );
            assert_eq!(key["use"], "sig");
            assert_eq!(key["e"], "AQAB");
            assert_eq!(key["kid"], key["x5t"]);
            assert_eq!(key["kid"].as_str().unwrap().len(), 27);
            assert_eq!(key["issuer"], ISSUER);
            let modulus = URL_SAFE_NO_PAD.decode(key["n"].as_str().unwrap()).unwrap();
            assert_eq!(modulus.len(), 256);
            assert!(modulus[0] >= 0x80);
        }
        for (curve, length) in [("P-256", 32), ("P-384", 48)] {
            let key = keys.iter().find(|key| key["crv"] == curve).unwrap();
            assert!(key.get("alg").is_none());
            for coordinate in ["x", "y"] {
                let bytes = URL_SAFE_NO_PAD
                    .decode(key[coordinate].as_str().unwrap())
                    .unwrap();
                assert_eq!(bytes.len(), length);
            }
        }
    }

    #[test]
    fn the_order_differs_from_answer_to_answer() {
        let keys = KeyStore::default();
        let (one, two) = (keys.set(ISSUER), keys.set(ISSUER));
        assert_ne!(one, two);
        assert_eq!(one["keys"][1], two["keys"][0]);
    }

    #[test]
    fn rotation_keeps_the_old_keys_or_drops_them() {
        let keys = KeyStore::default();
        let first = kid(&keys, KeyChoice::Current);
        assert!(published(&keys, "RSA").contains(&first));

        keys.rotate(true);
        let second = kid(&keys, KeyChoice::Current);
        assert_eq!(kid(&keys, KeyChoice::Previous), first);
        assert!(published(&keys, "RSA").is_superset(&[first, second.clone()].into()));
        assert_eq!(published(&keys, "EC").len(), 6);

        keys.rotate(false);
        let third = kid(&keys, KeyChoice::Current);
        assert_eq!(kid(&keys, KeyChoice::Previous), second);
        assert_eq!(published(&keys, "RSA"), [third].into());
        assert_eq!(published(&keys, "EC").len(), 2);
    }

    #[test]
    fn no_kid_ever_comes_back() {
        let keys = KeyStore::default();
        let rotations = RSA_POOL.len() * 2;
        for _ in 0..rotations {
            keys.rotate(true);
        }
        assert_eq!(published(&keys, "RSA").len(), rotations + 2);
    }

    #[test]
    fn unpublished_and_foreign_keys_are_not_in_the_set() {
        let keys = KeyStore::default();
        let known = published(&keys, "RSA");
        let (one, two) = (
            kid(&keys, KeyChoice::Unpublished),
            kid(&keys, KeyChoice::Unpublished),
        );
        assert_ne!(one, two);
        assert!(!known.contains(&one) && !known.contains(&two));
        assert_eq!(
            kid(&keys, KeyChoice::Foreign),
            kid(&keys, KeyChoice::Current)
        );
        let sign = |choice| {
            keys.sign(choice, Algorithm::RS256, |_| "same text".to_owned())
                .1
        };
        assert_ne!(sign(KeyChoice::Foreign), sign(KeyChoice::Current));
    }

    #[test]
    fn the_confused_hmac_is_keyed_with_the_public_key_as_openssl_prints_it() {
        // openssl pkey -in keys/rsa-1.pem -pubout
        let public = include_str!("../keys/rsa-1.pub.pem");
        let secret = hmac::Key::new(hmac::HMAC_SHA256, public.as_bytes());
        let material = KeyMaterial::new(rsa_key(RSA_POOL[0]));
        let signature = material.sign(Algorithm::Hs256WithPublicKey, b"text");
        assert!(hmac::verify(&secret, b"text", &signature).is_ok());
    }
}
