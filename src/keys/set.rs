//! JWK Sets (RFC 7517), read the way Entra ID writes them: no `alg`, an `issuer` per key.

use std::fmt::{self, Write as _};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use crate::crypto::{KeyError, PublicKey};
use crate::json::{self, Object, Value};
use crate::jwt::Algorithm;

/// Largest metadata document or key set, in bytes.
pub const MAX_DOCUMENT: usize = 1024 * 1024;
/// Most keys in a set.
pub const MAX_KEYS: usize = 1_000;
/// Longest `kid`, in bytes.
const MAX_KID: usize = 256;

/// Most keys that are shared: those of an answer, and as many that it lacks and that still serve.
const MAX_SHARED_KEYS: usize = 2 * MAX_KEYS;
/// Largest set in shared data, in bytes.
const MAX_SHARED: usize = 4 * MAX_DOCUMENT;

/// The usable keys of a set, by `kid`.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    /// In the order of the document. A set has a dozen, and they are searched when a token is new.
    entries: Vec<Entry>,
    skipped: Vec<Skipped>,
    /// Keys that can verify tokens; the same key under one `kid` is one.
    usable: usize,
}

/// A key and what is shared of it.
#[derive(Clone, Debug)]
struct Entry {
    kid: String,
    key: Key,
    /// The members that matter, as JSON, without the closing brace.
    text: String,
    /// When the answer came that lacked it, in milliseconds since 1970; `None` for a key of the newest.
    missing_since: Option<u64>,
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

/// A key that is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its `kid`, where it has a usable one.
    pub kid: Option<String>,
    /// Why.
    pub reason: SkipReason,
}

impl Key {
    /// Whether it may verify tokens of this algorithm.
    #[must_use]
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        self.public.fits(algorithm) && self.algorithm.is_none_or(|only| only == algorithm)
    }

    /// Whether there is an algorithm that both may be used with, and tokens for which both are good.
    fn competes_with(&self, other: &Self) -> bool {
        let both = |algorithm: &Algorithm| self.fits(*algorithm) && other.fits(*algorithm);
        let is_of_one_issuer =
            self.issuer.is_none() || other.issuer.is_none() || self.issuer == other.issuer;
        is_of_one_issuer && Algorithm::ALL.iter().any(both)
    }
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
    /// Another key has its `kid` and fits the same algorithms.
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

    /// Reads a set that a worker shared, and which attempt brought it. One that an earlier version wrote names no
    /// attempt, and none of its keys is missing.
    ///
    /// # Errors
    /// See [`KeySetError`].
    pub(super) fn parse_shared(text: &[u8]) -> Result<(Self, u64), KeySetError> {
        if text.len() > MAX_SHARED {
            return Err(KeySetError::TooLarge);
        }
        let value = json::parse(text).map_err(|_| KeySetError::NotAKeySet)?;
        let mut set = Self::default();
        for entry in entries(&value, MAX_SHARED_KEYS)? {
            if let Ok(mut read) = read_key(entry, None) {
                read.missing_since = whole(entry, MISSING_SINCE);
                set.entries.push(read);
            }
        }
        set.recount();
        if set.is_empty() {
            return Err(KeySetError::NoUsableKey(None));
        }
        Ok((set, whole(&value, ATTEMPT).unwrap_or(0)))
    }

    /// Writes a set for the other workers. An earlier version reads it too, and takes all keys for the newest.
    pub(super) fn to_shared(&self, attempt: u64) -> String {
        let normalized = self.normalized();
        let rest = normalized.strip_prefix('{').unwrap_or_default();
        format!("{{\"{ATTEMPT}\":{attempt},{rest}")
    }

    fn read(value: &Value, cloud: Option<&str>) -> Result<Self, KeySetError> {
        let set = Self::collect(value, cloud)?;
        if set.is_empty() {
            let first = set.skipped.first().map(|skipped| skipped.reason);
            return Err(KeySetError::NoUsableKey(first));
        }
        Ok(set)
    }

    fn collect(value: &Value, cloud: Option<&str>) -> Result<Self, KeySetError> {
        let mut set = Self::default();
        for entry in entries(value, MAX_KEYS)? {
            match read_key(entry, cloud) {
                Ok(read) if set.has(&read) => {}
                Ok(read) => set.entries.push(read),
                Err(reason) => set.skipped.push(Skipped {
                    kid: readable_kid(entry),
                    reason,
                }),
            }
        }
        let contested = set.entries.iter().filter(|entry| set.is_contested(entry));
        let contested: Vec<_> = contested.map(|entry| entry.kid.clone()).collect();
        set.skipped.extend(contested.into_iter().map(|kid| Skipped {
            kid: Some(kid),
            reason: SkipReason::Ambiguous,
        }));
        set.recount();
        Ok(set)
    }

    /// Whether the very same key is there already.
    fn has(&self, key: &Entry) -> bool {
        let mut entries = self.entries.iter();
        entries.any(|known| known.kid == key.kid && known.key == key.key)
    }

    /// Whether no token can be verified with a key, because for each of its algorithms there is another key of
    /// the same `kid`. It stays all the same, since it stands in the way of the other.
    fn is_contested(&self, entry: &Entry) -> bool {
        let rivals = self.entries.iter();
        let rivals: Vec<_> = rivals
            .filter(|other| other.kid == entry.kid && entry.stands_against(other))
            .collect();
        let is_contested = |algorithm: &Algorithm| {
            !entry.key.fits(*algorithm) || rivals.iter().any(|rival| rival.key.fits(*algorithm))
        };
        !rivals.is_empty() && Algorithm::ALL.iter().all(is_contested)
    }

    fn recount(&mut self) {
        let is_first = |index: usize, entry: &Entry| {
            let mut before = self.entries.iter().take(index);
            !before.any(|other| {
                other.kid == entry.kid && other.key.public.spki() == entry.key.public.spki()
            })
        };
        let entries = self.entries.iter().enumerate();
        self.usable = entries
            .filter(|(index, entry)| is_first(*index, entry) && !self.is_contested(entry))
            .count();
    }

    /// The first key with this `kid`, compared exactly.
    #[must_use]
    pub fn find(&self, kid: &str) -> Option<&Key> {
        let mut entries = self.entries.iter();
        entries
            .find(|entry| entry.kid == kid)
            .map(|entry| &entry.key)
    }

    /// The keys with this `kid` that serve: `is_over` tells when one that the newest answer lacks has served
    /// long enough.
    pub(super) fn all_of<'s>(
        &'s self,
        kid: &'s str,
        is_over: impl Fn(u64) -> bool + 's,
    ) -> impl Iterator<Item = &'s Key> {
        let of_kid = self.entries.iter().filter(move |entry| entry.kid == kid);
        of_kid
            .filter(move |entry| !entry.missing_since.is_some_and(&is_over))
            .map(|entry| &entry.key)
    }

    /// Number of usable keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.usable
    }

    /// Whether there is no usable key; never so for a set that was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The keys as JSON, in an order of their own: equal text for equal keys.
    #[must_use]
    pub fn normalized(&self) -> String {
        let mut texts: Vec<_> = self.entries.iter().map(Entry::shared).collect();
        // Sorted, so that the same keys in another order are the same text.
        texts.sort_unstable();
        format!("{{\"keys\":[{}]}}", texts.join(","))
    }

    /// Keys that were left out.
    #[must_use]
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// The `kid`s of keys that serve though the newest answer lacks them.
    pub(super) fn departing(&self) -> impl Iterator<Item = &str> {
        let departing = self.entries.iter();
        departing
            .filter(|entry| entry.missing_since.is_some())
            .map(|entry| entry.kid.as_str())
    }

    /// Whether a key that the newest answer lacks has served long enough.
    pub(super) fn has_departed(&self, is_over: impl Fn(u64) -> bool) -> bool {
        let mut missing = self.entries.iter().filter_map(|entry| entry.missing_since);
        missing.any(is_over)
    }

    /// Takes the keys out that the newest answer lacks and that have served long enough. Whether there were any.
    pub(super) fn drop_departed(&mut self, is_over: impl Fn(u64) -> bool) -> bool {
        let before = self.entries.len();
        self.entries
            .retain(|entry| !entry.missing_since.is_some_and(&is_over));
        let has_dropped = self.entries.len() != before;
        if has_dropped {
            self.recount();
        }
        has_dropped
    }

    /// Keeps the keys of the set before that this answer lacks: from the moment that one is first missing until
    /// `is_over`. An answer that has another key for its `kid` has replaced it.
    pub(super) fn keep_missing(&mut self, before: &Self, now: u64, is_over: impl Fn(u64) -> bool) {
        let room = MAX_SHARED_KEYS.saturating_sub(self.entries.len());
        let kept: Vec<_> = before
            .entries
            .iter()
            .filter(|old| !old.missing_since.is_some_and(&is_over))
            .filter(|old| !self.supersedes(old))
            .map(|old| Entry {
                missing_since: Some(old.missing_since.unwrap_or(now)),
                ..old.clone()
            })
            .take(room)
            .collect();
        self.entries.extend(kept);
        self.recount();
    }

    fn supersedes(&self, old: &Entry) -> bool {
        self.entries
            .iter()
            .any(|new| new.kid == old.kid && new.key.competes_with(&old.key))
    }
}

impl Entry {
    /// Whether only one of the two can be the key of a token.
    fn stands_against(&self, other: &Self) -> bool {
        self.key.public.spki() != other.key.public.spki() && self.key.competes_with(&other.key)
    }

    /// As it is shared.
    fn shared(&self) -> String {
        match self.missing_since {
            None => format!("{}}}", self.text),
            Some(since) => format!("{},\"{MISSING_SINCE}\":{since}}}", self.text),
        }
    }
}

/// The member of a shared key that the newest answer lacks.
const MISSING_SINCE: &str = "tollgate_missing_since";

/// The member of a shared set that names the attempt which brought it.
const ATTEMPT: &str = "tollgate_attempt";

fn whole(value: &Value<'_>, name: &str) -> Option<u64> {
    match value.as_object()?.get(name)? {
        Value::Number(number) => json::whole(number),
        _ => None,
    }
}

/// The elements of `keys`.
fn entries<'v>(value: &'v Value<'_>, most: usize) -> Result<&'v [Value<'v>], KeySetError> {
    let entries = value
        .as_object()
        .and_then(|set| set.get("keys"))
        .and_then(Value::as_array)
        .ok_or(KeySetError::NotAKeySet)?;
    if entries.len() > most {
        return Err(KeySetError::TooManyKeys);
    }
    Ok(entries)
}

fn readable_kid(entry: &Value<'_>) -> Option<String> {
    let kid = entry.as_object()?.get("kid")?.as_str()?;
    (!kid.is_empty()).then(|| kid.chars().take(MAX_KID).collect())
}

/// Reads one JWK: its `kid`, the key, and the members that matter as JSON.
fn read_key(entry: &Value<'_>, cloud: Option<&str>) -> Result<Entry, SkipReason> {
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
    for (name, value) in &material {
        member(name, value);
    }
    if let Some(algorithm) = algorithm {
        member("alg", algorithm.name());
    }
    if let Some(issuer) = &issuer {
        member("issuer", issuer);
    }
    Ok(Entry {
        kid,
        key: Key {
            public,
            algorithm,
            issuer,
        },
        text,
        missing_since: None,
    })
}

/// A member; `null` is none.
fn optional<'a>(jwk: &'a Object<'a>, name: &str) -> Option<&'a Value<'a>> {
    jwk.get(name).filter(|value| !matches!(value, Value::Null))
}

fn optional_text<'a>(jwk: &'a Object<'a>, name: &str) -> Result<Option<&'a str>, SkipReason> {
    match optional(jwk, name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(SkipReason::Malformed),
    }
}

/// `use` and `key_ops` (RFC 7517 sections 4.2 and 4.3): absent, or for signatures. An empty list of operations
/// is none.
fn check_use(jwk: &Object<'_>) -> Result<(), SkipReason> {
    if optional_text(jwk, "use")?.is_some_and(|purpose| purpose != "sig") {
        return Err(SkipReason::Use);
    }
    let is_verify = |operation: &Value<'_>| operation.as_str() == Some("verify");
    match optional(jwk, "key_ops") {
        None => Ok(()),
        Some(Value::Array(operations)) if operations.is_empty() => Ok(()),
        Some(Value::Array(operations)) if operations.iter().any(is_verify) => Ok(()),
        Some(Value::Array(_)) => Err(SkipReason::Use),
        Some(_) => Err(SkipReason::Malformed),
    }
}

fn check_cloud(jwk: &Object<'_>, cloud: Option<&str>) -> Result<(), SkipReason> {
    match (optional_text(jwk, "cloud_instance_name")?, cloud) {
        (Some(of_key), Some(of_metadata)) if of_key != of_metadata => Err(SkipReason::OtherCloud),
        _ => Ok(()),
    }
}

/// The members of the key itself, each written in one way.
type Material = Vec<(&'static str, String)>;

/// base64url with or without padding (RFC 7515 section 2 wants none; some providers write it).
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn read_material(jwk: &Object<'_>) -> Result<(PublicKey, Material), SkipReason> {
    let text = |name| optional_text(jwk, name)?.ok_or(SkipReason::Malformed);
    let bytes = |name| {
        BASE64URL
            .decode(text(name)?)
            .map_err(|_| SkipReason::Malformed)
    };
    let written = |name: &'static str, bytes: &[u8]| (name, BASE64URL.encode(bytes));
    match text("kty")? {
        "RSA" => {
            let (modulus, exponent) = (bytes("n")?, bytes("e")?);
            let (modulus, exponent) = (number(&modulus), number(&exponent));
            let key = PublicKey::rsa(modulus, exponent).map_err(SkipReason::Material)?;
            let kty = ("kty", "RSA".to_owned());
            let members = vec![kty, written("n", modulus), written("e", exponent)];
            Ok((key, members))
        }
        "EC" => {
            let curve = text("crv")?;
            let read = match curve {
                "P-256" => PublicKey::p256,
                "P-384" => PublicKey::p384,
                _ => return Err(SkipReason::Kind),
            };
            let (x, y) = (bytes("x")?, bytes("y")?);
            let key = read(&x, &y).map_err(SkipReason::Material)?;
            let kinds = [("kty", "EC".to_owned()), ("crv", curve.to_owned())];
            let point = [written("x", &x), written("y", &y)];
            Ok((key, kinds.into_iter().chain(point).collect()))
        }
        _ => Err(SkipReason::Kind),
    }
}

/// A number without leading zero bytes, which RFC 7518 section 2 wants none of and some providers write.
fn number(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|byte| *byte != 0);
    start
        .and_then(|start| bytes.get(start..))
        .unwrap_or_default()
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
