//! JWK Sets (RFC 7517), read the way Entra ID writes them: no `alg`, an `issuer` per key.

use std::fmt::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::crypto::{KeyError, PublicKey};
use crate::json::{self, Object, Value};
use crate::jwt::Algorithm;

/// Largest metadata document or key set, in bytes.
pub const MAX_DOCUMENT: usize = 1024 * 1024;
/// Most keys in a set.
pub const MAX_KEYS: usize = 1_000;
/// Longest `kid`, in bytes.
const MAX_KID: usize = 256;

/// The usable keys of a set, by `kid`.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    /// By `kid`. A set has a dozen, and they are searched when a token is new.
    keys: Vec<(String, Key)>,
    /// The usable keys as a JWK Set of their own, for the other workers.
    normalized: String,
    skipped: Vec<SkipReason>,
}

/// A key that is fit to verify tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key material.
    pub public: PublicKey,
    /// The only algorithm it may be used with, when the set says so.
    pub algorithm: Option<Algorithm>,
    /// The issuer it belongs to, when the set says so (Entra: may hold `{tenantid}`).
    pub issuer: Option<String>,
}

/// What an earlier key with the same `kid` became.
fn twin_of<'f, T>(found: &'f mut [(String, T)], kid: &str) -> Option<&'f mut T> {
    let mut found = found.iter_mut();
    found.find(|(known, _)| known == kid).map(|(_, twin)| twin)
}

/// Why a document is not a key set that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySetError {
    /// Over [`MAX_DOCUMENT`] bytes.
    TooLarge,
    /// Over [`MAX_KEYS`] keys.
    TooManyKeys,
    /// Not a JSON object with an array `keys`.
    NotAKeySet,
    /// It holds no key that can verify a token; the first reason, if there was a key at all.
    NoUsableKey(Option<SkipReason>),
}

/// Why one key is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// No `kid` of 1 to 256 bytes.
    Kid,
    /// Two different keys have its `kid`.
    Ambiguous,
    /// `use` or `key_ops` mark it for something else than verifying.
    Use,
    /// `kty`, `crv` or `alg` is not one that tokens may use.
    Kind,
    /// A member is missing, of the wrong type, or not base64url.
    Malformed,
    /// It belongs to another cloud (`cloud_instance_name`).
    OtherCloud,
    /// The key material is weak or broken.
    Material(KeyError),
}

impl fmt::Display for KeySetError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => formatter.write_str("larger than 1 MiB"),
            Self::TooManyKeys => formatter.write_str("more than 1000 keys"),
            Self::NotAKeySet => formatter.write_str("not a JSON object with an array \"keys\""),
            Self::NoUsableKey(None) => formatter.write_str("no keys"),
            Self::NoUsableKey(Some(reason)) => write!(formatter, "no usable key: {reason}"),
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kid => formatter.write_str("a key has no kid of 1 to 256 bytes"),
            Self::Ambiguous => formatter.write_str("two different keys have the same kid"),
            Self::Use => formatter.write_str("a key is not for verifying signatures"),
            Self::Kind => formatter.write_str("a key is neither RSA, P-256 nor P-384"),
            Self::Malformed => formatter.write_str("a key has a missing or malformed member"),
            Self::OtherCloud => formatter.write_str("a key belongs to another cloud"),
            Self::Material(error) => error.fmt(formatter),
        }
    }
}

impl KeySet {
    /// Reads a JWK Set.
    ///
    /// # Errors
    /// See [`KeySetError`]. A key that cannot be used is left out and spoils nothing.
    pub fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        Self::parse_for_cloud(text, None)
    }

    /// Reads the JWK Set of one Entra cloud: keys that name another cloud are left out.
    ///
    /// # Errors
    /// See [`KeySetError`].
    pub fn parse_for_cloud(text: &[u8], cloud: Option<&str>) -> Result<Self, KeySetError> {
        if text.len() > MAX_DOCUMENT {
            return Err(KeySetError::TooLarge);
        }
        let value = json::parse(text).map_err(|_| KeySetError::NotAKeySet)?;
        Self::read(&value, cloud)
    }

    /// Reads a JWK Set that is part of a larger document.
    ///
    /// # Errors
    /// See [`KeySetError`].
    pub fn from_value(value: &Value<'_>) -> Result<Self, KeySetError> {
        Self::read(value, None)
    }

    fn read(value: &Value, cloud: Option<&str>) -> Result<Self, KeySetError> {
        let entries = value
            .as_object()
            .and_then(|set| set.get("keys"))
            .and_then(Value::as_array)
            .ok_or(KeySetError::NotAKeySet)?;
        if entries.len() > MAX_KEYS {
            return Err(KeySetError::TooManyKeys);
        }
        let mut found: Vec<(String, Option<(Key, String)>)> = Vec::new();
        let mut skipped = Vec::new();
        for entry in entries {
            match read_key(entry, cloud) {
                Ok((kid, key, text)) => match twin_of(&mut found, &kid) {
                    None => found.push((kid, Some((key, text)))),
                    Some(twin) if twin.as_ref().is_some_and(|(twin, _)| *twin == key) => {}
                    // Which of the two signs is anybody's guess, so neither does.
                    Some(twin) => {
                        *twin = None;
                        skipped.push(SkipReason::Ambiguous);
                    }
                },
                Err(reason) => skipped.push(reason),
            }
        }
        Self::from_found(found, skipped)
    }

    fn from_found(
        found: Vec<(String, Option<(Key, String)>)>,
        skipped: Vec<SkipReason>,
    ) -> Result<Self, KeySetError> {
        let mut keys = Vec::new();
        let mut texts = Vec::new();
        for (kid, entry) in found {
            if let Some((key, text)) = entry {
                keys.push((kid, key));
                texts.push(text);
            }
        }
        if keys.is_empty() {
            return Err(KeySetError::NoUsableKey(skipped.first().copied()));
        }
        // Sorted, so that the same keys in another order are the same text.
        texts.sort_unstable();
        let normalized = format!("{{\"keys\":[{}]}}", texts.join(","));
        Ok(Self {
            keys,
            normalized,
            skipped,
        })
    }

    /// The key with this `kid`, compared exactly.
    #[must_use]
    pub fn find(&self, kid: &str) -> Option<&Key> {
        let mut keys = self.keys.iter();
        keys.find(|(known, _)| known == kid).map(|(_, key)| key)
    }

    /// Number of usable keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no usable key; never so for a set that was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The usable keys as JSON, in an order of their own: equal text for equal keys.
    #[must_use]
    pub fn normalized(&self) -> &str {
        &self.normalized
    }

    /// Why keys were left out.
    #[must_use]
    pub fn skipped(&self) -> &[SkipReason] {
        &self.skipped
    }
}

/// Reads one JWK: its `kid`, the key, and the members that matter as JSON.
fn read_key(entry: &Value<'_>, cloud: Option<&str>) -> Result<(String, Key, String), SkipReason> {
    let jwk = entry.as_object().ok_or(SkipReason::Malformed)?;
    let kid = match jwk.get("kid") {
        Some(Value::String(kid)) if (1..=MAX_KID).contains(&kid.len()) => kid.to_string(),
        Some(_) | None => return Err(SkipReason::Kid),
    };
    check_use(jwk)?;
    check_cloud(jwk, cloud)?;
    let (public, material) = read_material(jwk)?;
    let algorithm = read_algorithm(jwk, &public)?;
    let issuer = optional_text(jwk, "issuer")?.map(str::to_owned);

    let mut text = String::from("{");
    let mut member = |name: &str, value: &str| {
        let separator = if text.len() > 1 { "," } else { "" };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{separator}\"{name}\":{}",
            Value::String(value.into()).to_json()
        );
    };
    member("kid", &kid);
    for (name, value) in material {
        member(name, value);
    }
    if let Some(algorithm) = algorithm {
        member("alg", algorithm.name());
    }
    if let Some(issuer) = &issuer {
        member("issuer", issuer);
    }
    text.push('}');
    Ok((
        kid,
        Key {
            public,
            algorithm,
            issuer,
        },
        text,
    ))
}

fn optional_text<'a>(jwk: &'a Object<'_>, name: &str) -> Result<Option<&'a str>, SkipReason> {
    match jwk.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(SkipReason::Malformed),
    }
}

/// `use` and `key_ops` (RFC 7517 sections 4.2 and 4.3): absent, or for signatures.
fn check_use(jwk: &Object<'_>) -> Result<(), SkipReason> {
    if optional_text(jwk, "use")?.is_some_and(|purpose| purpose != "sig") {
        return Err(SkipReason::Use);
    }
    match jwk.get("key_ops") {
        None => Ok(()),
        Some(Value::Array(operations)) => {
            if operations
                .iter()
                .any(|operation| operation.as_str() == Some("verify"))
            {
                Ok(())
            } else {
                Err(SkipReason::Use)
            }
        }
        Some(_) => Err(SkipReason::Malformed),
    }
}

fn check_cloud(jwk: &Object<'_>, cloud: Option<&str>) -> Result<(), SkipReason> {
    match (optional_text(jwk, "cloud_instance_name")?, cloud) {
        (Some(of_key), Some(of_metadata)) if of_key != of_metadata => Err(SkipReason::OtherCloud),
        _ => Ok(()),
    }
}

type Material<'a> = Vec<(&'static str, &'a str)>;

fn read_material<'k>(jwk: &'k Object<'_>) -> Result<(PublicKey, Material<'k>), SkipReason> {
    let text = |name| optional_text(jwk, name)?.ok_or(SkipReason::Malformed);
    let bytes = |name| {
        URL_SAFE_NO_PAD
            .decode(text(name)?)
            .map_err(|_| SkipReason::Malformed)
    };
    match text("kty")? {
        "RSA" => {
            let key = PublicKey::rsa(&bytes("n")?, &bytes("e")?).map_err(SkipReason::Material)?;
            Ok((
                key,
                vec![("kty", "RSA"), ("n", text("n")?), ("e", text("e")?)],
            ))
        }
        "EC" => {
            let curve = text("crv")?;
            let key = match curve {
                "P-256" => PublicKey::p256(&bytes("x")?, &bytes("y")?),
                "P-384" => PublicKey::p384(&bytes("x")?, &bytes("y")?),
                _ => return Err(SkipReason::Kind),
            };
            let key = key.map_err(SkipReason::Material)?;
            Ok((
                key,
                vec![
                    ("kty", "EC"),
                    ("crv", curve),
                    ("x", text("x")?),
                    ("y", text("y")?),
                ],
            ))
        }
        _ => Err(SkipReason::Kind),
    }
}

/// `alg`: absent (Entra never sends it), or an algorithm that the key fits.
fn read_algorithm(jwk: &Object<'_>, key: &PublicKey) -> Result<Option<Algorithm>, SkipReason> {
    let Some(name) = optional_text(jwk, "alg")? else {
        return Ok(None);
    };
    let algorithm = Algorithm::from_name(name).ok_or(SkipReason::Kind)?;
    if key.fits(algorithm) {
        Ok(Some(algorithm))
    } else {
        Err(SkipReason::Kind)
    }
}
