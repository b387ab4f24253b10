//! The head of a request, as the gateway gives it and as decisions see it.

use std::borrow::Cow;
use std::fmt;

use crate::api_version::ApiVersion;
use crate::credential::{Credential, is_jwt};
use crate::operations::{Operation, Unread};
use crate::policy::{CorsPreflight, Pattern, Policy};
use crate::request_ids;
use crate::secrets;

/// Request headers that change what a backend does without changing what was decided.
/// They are removed from every request.
const OVERRIDES: [&str; 5] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
];

/// The subprotocols that a WebSocket's client offers (RFC 6455 section 11.3.4), as it is sent to the backend.
pub const PROTOCOLS: &str = "sec-websocket-protocol";

/// By which a request names one more deployment: that makes images for it (Azure OpenAI, "Image generation tool"),
/// that serves it when the first fails ("Manage traffic with spillover"), that serves it in the place of the
/// endpoint's (Azure Machine Learning, "Deploy to online endpoints").
const DEPLOYMENTS: [&str; 3] = [
    "x-ms-oai-image-generation-deployment",
    "x-ms-spillover-deployment",
    "azureml-model-deployment",
];

/// By which a request replaces the content filter of its deployment (Azure OpenAI, "Content filtering").
pub const CONTENT_FILTER: &str = "x-policy-id";

/// By which a request goes on in another protocol (RFC 9110 section 7.8).
const UPGRADE: &str = "upgrade";

/// The subprotocol by which browsers hand OpenAI keys to WebSocket endpoints.
const KEY_SUBPROTOCOL: &[u8] = b"openai-insecure-api-key.";

/// The query parameter that names the version of a dated API.
pub const API_VERSION: &str = "api-version";

/// The query parameter that holds a token (RFC 6750 section 2.3).
const ACCESS_TOKEN: &str = "access_token";

/// Header pairs in the host's own format (proxy-wasm ABI 0.2.1, "Header maps"): a count, the
/// sizes of every name and value, then names and values, each ended by a zero byte. All
/// integers are 32 bits, little-endian. Names and values are bytes, not text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderMap {
    bytes: Vec<u8>,
}

impl HeaderMap {
    /// Takes what the host gave, its names in lower case: some hosts hand them over as they were sent. Whatever does
    /// not read as pairs is not there.
    #[must_use]
    pub fn from_host(mut bytes: Vec<u8>) -> Self {
        lower_names(&mut bytes);
        Self { bytes }
    }

    /// Writes pairs in the host's format.
    #[must_use]
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let pairs: Vec<_> = pairs.into_iter().collect();
        let size = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
        let mut bytes = size(pairs.len()).to_vec();
        for (name, value) in &pairs {
            bytes.extend_from_slice(&size(name.len()));
            bytes.extend_from_slice(&size(value.len()));
        }
        for (name, value) in &pairs {
            for part in [name, value] {
                bytes.extend_from_slice(part);
                bytes.push(0);
            }
        }
        Self { bytes }
    }

    /// The pairs in the host's format.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All pairs, repeats included.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let (count, rest) = split_size(&self.bytes).unwrap_or((0, &[]));
        let table = count
            .checked_mul(8)
            .filter(|table| *table <= rest.len())
            .unwrap_or(0);
        let (mut sizes, mut data) = rest.split_at_checked(table).unwrap_or((&[], &[]));
        std::iter::from_fn(move || {
            let (name_size, rest) = split_size(sizes)?;
            let (value_size, rest) = split_size(rest)?;
            sizes = rest;
            let (name, rest) = split_text(data, name_size)?;
            let (value, rest) = split_text(rest, value_size)?;
            data = rest;
            Some((name, value))
        })
    }

    /// The first value under a lower-case name.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.iter()
            .find(|(found, _)| *found == name.as_bytes())
            .map(|(_, value)| value)
    }
}

/// Writes the names in lower case, as far as the bytes read as pairs.
fn lower_names(bytes: &mut [u8]) {
    let Some((count, _)) = split_size(bytes) else {
        return;
    };
    let table = count.checked_mul(8).and_then(|size| size.checked_add(4));
    let Some((table, mut data)) = table.and_then(|size| bytes.split_at_mut_checked(size)) else {
        return;
    };
    let mut sizes = table.get(4..).unwrap_or_default();
    while let Some((name_size, rest)) = split_size(sizes)
        && let Some((value_size, rest)) = split_size(rest)
        && let Some((name, after)) = data.split_at_mut_checked(name_size)
    {
        name.make_ascii_lowercase();
        let next = value_size.saturating_add(2);
        (sizes, data) = (rest, after.get_mut(next..).unwrap_or_default());
    }
}

fn split_size(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (size, rest) = bytes.split_first_chunk::<4>()?;
    Some((usize::try_from(u32::from_le_bytes(*size)).ok()?, rest))
}

fn split_text(bytes: &[u8], size: usize) -> Option<(&[u8], &[u8])> {
    let (text, rest) = bytes.split_at_checked(size)?;
    Some((text, rest.split_first()?.1))
}

/// What decisions look at.
#[derive(Debug, Default)]
pub struct RequestHead<'a> {
    /// `:method`
    pub method: &'a [u8],
    /// `:path` up to the query. Empty for `CONNECT` without a path.
    pub path: &'a [u8],
    /// The query, without its question mark.
    pub query: Option<&'a [u8]>,
    /// Every value of `authorization`.
    pub authorization: Vec<&'a [u8]>,
    /// Headers that hold API keys: names as they were sent, and values.
    pub key_headers: Vec<(&'a [u8], &'a [u8])>,
    /// Whether the query holds an API key.
    pub key_in_query: bool,
    /// Whether the query has a parameter for an API key with nothing in it.
    pub empty_key_in_query: bool,
    /// Whether the query holds a token (RFC 6750 section 2.3), which is none of the ways to send one here.
    pub token_in_query: bool,
    /// Every `sec-websocket-protocol`, its name as it was sent and its value, when one of them holds an API key.
    pub key_protocols: Option<Vec<(&'a [u8], &'a [u8])>>,
    /// Names of headers that do not go on: identity headers and overrides, which callers must not send, and
    /// headers for an API key that hold none.
    pub foreign: Vec<&'a [u8]>,
    /// Every header that names a deployment, its name as it was sent and its value: a second one that the request
    /// may run.
    pub deployments: Vec<(&'a [u8], &'a [u8])>,
    /// Names of headers that replace a content filter, as they were sent.
    pub content_filters: Vec<&'a [u8]>,
    /// `access-control-request-method` is there.
    pub asks_for_method: bool,
    /// `accept-encoding` is there.
    pub accepts_encodings: bool,
    /// `upgrade` is there: another protocol follows (RFC 9110 section 7.8).
    pub upgrades: bool,
    /// `x-request-id`
    pub request_id: Option<&'a [u8]>,
    /// `x-ms-client-request-id`
    pub client_request_id: Option<&'a [u8]>,
}

impl<'a> RequestHead<'a> {
    /// Reads the headers in one pass.
    #[must_use]
    pub fn read(headers: &'a HeaderMap, policy: &Policy) -> Self {
        let mut head = Self::default();
        let mut protocols = Vec::new();
        let mut empty_keys = Vec::new();
        let special = Lengths::of_special(policy);
        for (name, value) in headers.iter() {
            match name {
                b":method" => {
                    head.method = value;
                    continue;
                }
                b":path" => {
                    (head.path, head.query) = split_query(value);
                    continue;
                }
                b"x-request-id" => head.request_id = Some(value),
                b"x-ms-client-request-id" => head.client_request_id = Some(value),
                b"accept-encoding" => head.accepts_encodings = true,
                b"access-control-request-method" => head.asks_for_method = true,
                b"authorization" => {
                    head.authorization.push(value);
                    continue;
                }
                _ if same_name(name, "authorization") => {
                    head.authorization.push(value);
                    continue;
                }
                _ if same_name(name, PROTOCOLS) => protocols.push((name, value)),
                _ => {}
            }
            // A policy may name one of the others, too.
            if special.include(name.len()) {
                head.note_special(name, value, policy, &mut empty_keys);
            }
        }
        if protocols.iter().any(|(_, value)| list_holds_key(value)) {
            head.key_protocols = Some(protocols);
        }
        if let Some(query) = head.query {
            for (name, value) in parameters(query) {
                if is_key(name, &policy.api_keys.query) {
                    let is_empty = is_blank(value);
                    head.key_in_query |= !is_empty;
                    head.empty_key_in_query |= is_empty;
                }
                head.token_in_query |= reads_as(name, ACCESS_TOKEN);
            }
        }
        if !head.key_headers.is_empty() {
            head.pass_over_token_copies(policy);
        }
        if !empty_keys.is_empty() {
            // Next to a key under the same name, it is removed with that key or not at all.
            let held = |name: &&[u8]| head.key_headers.iter().any(|(other, _)| same(other, name));
            empty_keys.retain(|name| !held(name));
            head.foreign.append(&mut empty_keys);
        }
        head
    }

    /// A key header with the bearer token in it is no key: some clients send the token in both (llama-index). It is
    /// removed. Where no token is looked at, it stays a key.
    #[cold]
    #[inline(never)]
    fn pass_over_token_copies(&mut self, policy: &Policy) {
        let Credential::Bearer { token, .. } = Credential::read(&self.authorization) else {
            return;
        };
        if !is_jwt(token) || self.needs_no_token(policy) {
            return;
        }
        let all = std::mem::take(&mut self.key_headers);
        let (copies, keys): (Vec<_>, Vec<_>) = all.iter().copied().partition(|(name, value)| {
            let of_name = all.iter().filter(|(other, _)| same(other, name)).count();
            of_name == 1 && *value == token
        });
        self.key_headers = keys;
        self.foreign
            .extend(copies.into_iter().map(|(name, _)| name));
    }

    fn note_special(
        &mut self,
        name: &'a [u8],
        value: &'a [u8],
        policy: &Policy,
        empty_keys: &mut Vec<&'a [u8]>,
    ) {
        if DEPLOYMENTS.iter().any(|known| same_name(name, known)) {
            self.deployments.push((name, value));
        }
        if same_name(name, CONTENT_FILTER) {
            self.content_filters.push(name);
        }
        self.upgrades |= same_name(name, UPGRADE);
        if policy
            .api_keys
            .headers
            .iter()
            .any(|known| same_name(name, known))
        {
            if value.trim_ascii().is_empty() {
                empty_keys.push(name);
            } else {
                self.key_headers.push((name, value));
            }
        }
        if policy
            .forward
            .headers
            .iter()
            .any(|(known, _)| same_name(name, known))
            || OVERRIDES.iter().any(|known| same_name(name, known))
        {
            self.foreign.push(name);
        }
    }

    /// Names that have no business in trailers: those of what decides, in any policy.
    pub fn unfit_for_trailers(&self) -> impl Iterator<Item = &'a [u8]> {
        let credential = (!self.authorization.is_empty()).then_some(&b"authorization"[..]);
        let deployments = self.deployments.iter().map(|(name, _)| *name);
        let keys = self.key_headers.iter().map(|(name, _)| *name);
        let named = keys.chain(self.foreign.iter().copied());
        let named = named.chain(self.content_filters.iter().copied());
        named.chain(deployments).chain(credential)
    }

    /// Whether the gateway hands over no method, or no path where one has to be (RFC 9113 section 8.3.1): then nothing
    /// can be decided.
    #[must_use]
    pub fn lacks_target(&self) -> bool {
        self.method.is_empty() || (self.path.is_empty() && self.method != b"CONNECT")
    }

    /// Whether this is a CORS preflight request (Fetch standard, "CORS protocol").
    #[must_use]
    pub fn is_preflight(&self) -> bool {
        self.method == b"OPTIONS" && self.asks_for_method
    }

    /// Whether the request passes without a token.
    #[must_use]
    pub fn needs_no_token(&self, policy: &Policy) -> bool {
        let preflight = policy.cors_preflight == CorsPreflight::Pass && self.is_preflight();
        preflight || self.is_public(&policy.public_paths)
    }

    /// Where the request holds an API key, if it holds one.
    #[must_use]
    pub fn key_place(&self, policy: &Policy) -> Option<KeyPlace> {
        let keys = &policy.api_keys;
        if let Some((name, _)) = self.key_headers.first() {
            let known = keys.headers.iter().find(|known| same_name(name, known));
            return Some(KeyPlace::Header(known.cloned().unwrap_or_default()));
        }
        if self.key_in_query {
            let known = parameters(self.query.unwrap_or_default())
                .filter(|(_, value)| !is_blank(value))
                .find_map(|(name, _)| keys.query.iter().find(|known| reads_as(name, known)));
            return Some(KeyPlace::Parameter(known.cloned().unwrap_or_default()));
        }
        self.key_protocols.as_ref().map(|_| KeyPlace::Subprotocol)
    }

    /// Whether the path is one of these, and only one reader's view of it exists.
    #[must_use]
    pub fn is_public(&self, patterns: &[Pattern]) -> bool {
        !patterns.is_empty()
            && is_plain(self.path)
            && patterns.iter().any(|pattern| match pattern {
                Pattern::Exact(path) => path.as_bytes() == self.path,
                Pattern::Prefix(prefix) => self.path.starts_with(prefix.as_bytes()),
            })
    }

    /// What is asked for.
    ///
    /// # Errors
    /// It is ambiguous, or no known operation.
    pub fn operation(&self) -> Result<Operation<'a>, Unread> {
        let operation = Operation::read(self.method, self.path, self.query)?;
        if self.upgrades {
            return operation.over_websocket();
        }
        Ok(operation)
    }

    /// `api-version`, where it is one: the first, however it is written.
    #[must_use]
    pub fn api_version(&self) -> Option<ApiVersion> {
        let value = self.api_versions().next()?;
        ApiVersion::read(Decoded(value.trim_ascii()))
    }

    /// Whether there are several `api-version`s, of which readers take one or the other.
    #[must_use]
    pub fn has_api_versions(&self) -> bool {
        self.api_versions().nth(1).is_some()
    }

    fn api_versions(&self) -> impl Iterator<Item = &'a [u8]> {
        let pairs = self.query.unwrap_or_default();
        pairs
            .split(|byte| matches!(byte, b'&' | b';' | b'?'))
            .filter_map(|pair| {
                let end = pair.iter().position(|byte| *byte == b'=');
                let (name, value) = pair.split_at_checked(end.unwrap_or(pair.len()))?;
                reads_as(name, API_VERSION).then(|| value.strip_prefix(b"=").unwrap_or_default())
            })
    }

    /// The path, for the log.
    #[must_use]
    pub fn path_to_tell(&self, names: &[String]) -> Cow<'a, [u8]> {
        secrets::hide(self.path, names)
    }

    /// `x-request-id`, for the log.
    #[must_use]
    pub fn request_id_to_tell(&self) -> Option<&'a str> {
        self.request_id.and_then(request_ids::request_id)
    }

    /// `x-ms-client-request-id`, for the log.
    #[must_use]
    pub fn client_request_id_to_tell(&self) -> Option<&'a str> {
        self.client_request_id
            .and_then(request_ids::client_request_id)
    }

    /// The method, for the log, if it may be one: HTTP/2 lets a caller write anything there.
    #[must_use]
    pub fn method_to_tell(&self) -> &'a [u8] {
        const MAX: usize = 20;
        let is_plain = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'-';
        if self.method.len() <= MAX && self.method.iter().all(is_plain) {
            self.method
        } else {
            secrets::HIDDEN
        }
    }

    /// `:path` without the query parameters that hold tokens, or API keys under one of these names.
    #[must_use]
    pub fn path_without(&self, keys: &[String]) -> Vec<u8> {
        self.path_but_for(|name, _| is_key(name, keys))
    }

    /// `:path` without the query parameters that hold tokens, or are for API keys and empty.
    #[must_use]
    pub fn path_without_empty(&self, keys: &[String]) -> Vec<u8> {
        self.path_but_for(|name, value| is_blank(value) && is_key(name, keys))
    }

    fn path_but_for(&self, goes: impl Fn(&[u8], &[u8]) -> bool) -> Vec<u8> {
        let is_kept = |part: &&[u8]| {
            !parameters(part).any(|(name, value)| reads_as(name, ACCESS_TOKEN) || goes(name, value))
        };
        let query = self.query.unwrap_or_default();
        let parts = query.split(|byte| *byte == b'&');
        let kept: Vec<&[u8]> = parts.filter(is_kept).collect();
        let mut path = self.path.to_vec();
        if !kept.is_empty() {
            path.push(b'?');
            path.extend_from_slice(&kept.join(&b'&'));
        }
        path
    }
}

/// Lengths of names: a header of another length is none of them, which most are.
#[derive(Clone, Copy, Debug, Default)]
struct Lengths(u64);

impl Lengths {
    /// Those of the names that [`RequestHead::note_special`] looks for.
    fn of_special(policy: &Policy) -> Self {
        let keys = policy.api_keys.headers.iter().map(String::len);
        let identity = policy.forward.headers.iter().map(|(name, _)| name.len());
        let lengths = keys.chain(identity);
        Self(lengths.fold(Self::OURS, |all, length| all | Self::bit(length)))
    }

    /// Those of the names that are special under any policy.
    const OURS: u64 =
        Self::of(&OVERRIDES) | Self::of(&DEPLOYMENTS) | Self::of(&[CONTENT_FILTER, UPGRADE]);

    const fn of(mut names: &[&str]) -> u64 {
        let mut all = 0;
        while let [name, rest @ ..] = names {
            all |= Self::bit(name.len());
            names = rest;
        }
        all
    }

    fn include(self, length: usize) -> bool {
        self.0 & Self::bit(length) != 0
    }

    /// Lengths that differ by a multiple of 64 share one.
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        reason = "only the lowest bits count"
    )]
    const fn bit(length: usize) -> u64 {
        1_u64.rotate_left(length as u32)
    }
}

/// The protocols of `sec-websocket-protocol` headers that hold no API key, as one value.
#[must_use]
pub fn protocols_without_keys(headers: &[(&[u8], &[u8])]) -> Vec<u8> {
    let kept: Vec<&[u8]> = headers
        .iter()
        .flat_map(|(_, value)| value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|protocol| !is_key_protocol(protocol) && !protocol.is_empty())
        .collect();
    kept.join(&b", "[..])
}

/// Whether two names are the same, however they are written: many backends take `_` for `-` (CGI,
/// WSGI), so a name in that spelling is the same name.
#[inline]
#[must_use]
pub fn same_name(name: &[u8], known: &str) -> bool {
    same(name, known.as_bytes())
}

/// Most names differ in their lengths, which is not worth a call.
#[inline]
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && same_bytes(one, other)
}

#[inline(never)]
fn same_bytes(one: &[u8], other: &[u8]) -> bool {
    let mut pairs = one.iter().zip(other);
    pairs.all(|(byte, other)| byte == other || folded(*byte) == folded(*other))
}

/// A byte of a name, as readers that do not tell case, `_` and `-` apart take it.
pub(crate) fn folded(byte: u8) -> u8 {
    if byte == b'_' {
        b'-'
    } else {
        byte.to_ascii_lowercase()
    }
}

fn split_query(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    let end = path.iter().position(|byte| *byte == b'?');
    match end.and_then(|end| path.split_at_checked(end)) {
        None => (path, None),
        Some((path, query)) => (path, query.split_first().map(|(_, query)| query)),
    }
}

/// A path that everybody reads alike: nothing encoded, no dot segments, no empty segments.
fn is_plain(path: &[u8]) -> bool {
    path.first() == Some(&b'/')
        && path
            .iter()
            .all(|byte| byte.is_ascii_graphic() && !b"%\\;#".contains(byte))
        && !path.windows(2).any(|pair| pair == b"//")
        && !path
            .split(|byte| *byte == b'/')
            .any(|segment| segment == b"." || segment == b"..")
}

fn list_holds_key(value: &[u8]) -> bool {
    value
        .split(|byte| *byte == b',')
        .any(|protocol| is_key_protocol(protocol.trim_ascii()))
}

/// Whether a protocol is an API key, or holds one behind a separator that the list has not (RFC 6455
/// section 4.1: commas only), but a reader may take for one.
fn is_key_protocol(protocol: &[u8]) -> bool {
    protocol
        .split(|byte| matches!(byte, b';' | b' ' | b'\t' | b'"'))
        .filter_map(|part| part.split_at_checked(KEY_SUBPROTOCOL.len()))
        .any(|(start, _)| start.eq_ignore_ascii_case(KEY_SUBPROTOCOL))
}

/// Where a request holds an API key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    /// In a header, by its name in the policy.
    Header(String),
    /// In a query parameter, by its name in the policy.
    Parameter(String),
    /// Among the subprotocols of a WebSocket.
    Subprotocol,
}

impl KeyPlace {
    /// What holds the key, and its name.
    pub(crate) fn parts(&self) -> [&str; 2] {
        match self {
            Self::Header(name) => ["header", name],
            Self::Parameter(name) => ["query parameter", name],
            Self::Subprotocol => ["header", PROTOCOLS],
        }
    }
}

impl fmt::Display for KeyPlace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [what, name] = self.parts();
        write!(formatter, "the {what} `{name}`")
    }
}

/// A query's parameters: names without what no reader counts before them ([`reads_as`]), which may be long and is
/// then read once, and values up to the next `&`. `;` and a second `?` begin a name too, since some readers split
/// there; to others they are part of the value.
fn parameters(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query.split(|byte| *byte == b'&').flat_map(|part| {
        let mut rest = Some(part);
        std::iter::from_fn(move || {
            let from_name = rest?;
            let mut pieces = from_name.splitn(2, |byte| matches!(byte, b';' | b'?'));
            let pair = pieces.next()?;
            rest = pieces.next();
            let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
            let value = from_name.get(name.len().saturating_add(1)..);
            Some((without_skipped(name), value.unwrap_or_default()))
        })
    })
}

/// A name without what no reader counts before it.
fn without_skipped(name: &[u8]) -> &[u8] {
    if name.first().is_some_and(|byte| is_plain_in_name(*byte)) {
        return name;
    }
    let mut name = Decoded(name);
    let mut rest = name.clone();
    while rest.next().is_some_and(is_skipped) {
        name = rest.clone();
    }
    name.0
}

/// Whether a parameter's value is nothing but spaces and control characters, to every reader.
fn is_blank(value: &[u8]) -> bool {
    value
        .split(|byte| *byte == b'+')
        .all(|piece| Decoded(piece).all(|byte| byte <= b' '))
}

/// Whether readers skip a byte before a parameter's name.
fn is_skipped(byte: u8) -> bool {
    byte <= b' ' || matches!(byte, b'+' | b'?')
}

/// Whether a parameter's name is one of these, however it is encoded.
fn is_key(name: &[u8], keys: &[String]) -> bool {
    keys.iter().any(|known| reads_as(name, known))
}

/// Whether some reader takes an encoded parameter name for `known`: names are cut at a zero byte (C) and at
/// a bracket (arrays in PHP and Rails), spaces and question marks before them do not count, `+` is a space, and case, `_`,
/// dots and spaces within differ nowhere (PHP).
pub(crate) fn reads_as(encoded: &[u8], known: &str) -> bool {
    // Nothing that is encoded is shorter than what it stands for.
    if encoded.len() < known.len() {
        return false;
    }
    // Most names differ before anything is in them that has another reading.
    for (byte, wanted) in encoded.iter().zip(known.bytes()) {
        if !is_plain_in_name(*byte) {
            break;
        }
        if folded(*byte) != folded(wanted) {
            return false;
        }
    }
    reads_slowly_as(encoded, known)
}

/// Whether a byte of an encoded name stands for itself, to every reader but for its case.
fn is_plain_in_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

#[inline(never)]
fn reads_slowly_as(encoded: &[u8], known: &str) -> bool {
    let mut name = Decoded(encoded)
        .skip_while(|byte| is_skipped(*byte))
        .map(|byte| if byte == b'+' { b' ' } else { byte });
    let same = |byte: u8, wanted: u8| match byte {
        b'.' | b' ' => wanted == b'.' || folded(wanted) == b'-',
        byte => folded(byte) == folded(wanted),
    };
    known
        .bytes()
        .all(|wanted| name.next().is_some_and(|byte| same(byte, wanted)))
        && name.next().is_none_or(|byte| byte <= b' ' || byte == b'[')
}

/// The bytes of percent-encoded text. What is no escape stands for itself.
#[derive(Clone)]
pub(crate) struct Decoded<'a>(pub(crate) &'a [u8]);

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let (byte, rest) = self.0.split_first()?;
        if *byte == b'%'
            && let [high, low, rest @ ..] = rest
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            self.0 = rest;
            return u8::try_from(high << 4 | low).ok();
        }
        self.0 = rest;
        Some(*byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::Action;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        HeaderMap::from_pairs(
            pairs
                .iter()
                .map(|(name, value)| (name.as_bytes(), value.as_bytes())),
        )
    }

    #[test]
    fn h3_names_from_a_host_are_in_lower_case() {
        let pairs: [(&[u8], &[u8]); 4] = [
            (b":Method", b"POST"),
            (b"Content-Type", b"Application/JSON"),
            (b"X-REQUEST-ID", b"A"),
            (b"", b""),
        ];
        let sent = HeaderMap::from_pairs(pairs);
        let read = HeaderMap::from_host(sent.as_bytes().to_vec());
        let lower: Vec<_> = pairs
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec()))
            .collect();
        let found: Vec<_> = read
            .iter()
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect();
        assert_eq!(found, lower);
        // What is cut off reads as before.
        for end in 0..sent.as_bytes().len() {
            let cut = HeaderMap::from_host(sent.as_bytes()[..end].to_vec());
            let before = HeaderMap {
                bytes: sent.as_bytes()[..end].to_vec(),
            };
            assert_eq!(cut.iter().count(), before.iter().count(), "{end}");
            assert!(
                cut.iter()
                    .all(|(name, _)| name == name.to_ascii_lowercase())
            );
        }
        let huge = [0xff; 64];
        assert_eq!(HeaderMap::from_host(huge.to_vec()).iter().count(), 0);
    }

    #[test]
    fn names_that_differ_early_are_what_a_longer_look_says() {
        let names = [
            "api-key",
            "API_KEY",
            "api.key",
            "api key",
            "api+key",
            "api%2Dkey",
            "%61pi-key",
            "apj-key",
            "api-kez",
            "api-keys",
            "api-key[]",
            "api-key[x]",
            "api-key%00",
            "api-key ",
            "?api-key",
            "+api-key",
            "%20api-key",
            "api-ke",
            "api%",
            "api%4",
            "access_token",
            "access-token",
            "access.token",
            "",
        ];
        for (name, known) in names.iter().flat_map(|name| {
            let known = ["api-key", "access_token", "api-version"];
            known.map(|known| (name.as_bytes(), known))
        }) {
            let text = String::from_utf8_lossy(name);
            assert_eq!(
                reads_as(name, known),
                reads_slowly_as(name, known),
                "{text} {known}"
            );
            let mut decoded = Decoded(name).skip_while(|byte| is_skipped(*byte));
            let begins = decoded.next();
            assert_eq!(Decoded(without_skipped(name)).next(), begins, "{text}");
        }
    }

    #[test]
    fn reads_the_hosts_format() {
        let headers = HeaderMap::from_pairs([
            (&b":path"[..], &b"/a?b"[..]),
            (b"x", b""),
            (b"x", b"\xff\0\xfe"),
        ]);
        let pairs: Vec<_> = headers.iter().collect();
        assert_eq!(pairs[2], (&b"x"[..], &b"\xff\0\xfe"[..]));
        assert_eq!(headers.first("x"), Some(&b""[..]));
        assert_eq!(headers.first("y"), None);
    }

    #[test]
    fn the_hosts_bytes_go_back_as_they_came() {
        let bytes = map(&[("a", "b")]).as_bytes().to_vec();
        assert_eq!(bytes, b"\x01\0\0\0\x01\0\0\0\x01\0\0\0a\0b\0");
        assert_eq!(HeaderMap::from_host(bytes.clone()).as_bytes(), bytes);
    }

    #[test]
    fn bytes_that_are_no_pairs_are_harmless() {
        let good = map(&[("a", "b"), ("c", "d")]);
        for end in 0..good.bytes.len() {
            assert!(
                HeaderMap::from_host(good.bytes[..end].to_vec())
                    .iter()
                    .count()
                    < 2
            );
        }
        for garbage in [vec![0xff; 4], vec![0xff; 100], vec![1, 0, 0, 0], vec![0; 3]] {
            assert_eq!(HeaderMap::from_host(garbage).iter().count(), 0);
        }
    }

    const POLICY: &str = r#"{"issuers":[{"openid_config":"https://login.example/c","cluster":"c","issuers":["i"],
        "audiences":["a"]}],"forward":{"headers":{"x-app-id":"app_id"}}}"#;

    #[test]
    fn one_pass_finds_what_decides() {
        let policy = Policy::parse(POLICY.as_bytes()).unwrap();
        let headers = map(&[
            (":method", "POST"),
            (":path", "/a?b"),
            ("accept", "x"),
            ("x-request-id", "r"),
            ("Authorization", "one"),
            ("authorization", "two"),
            ("Api_Key", "k"),
            ("x-app-id", "evil"),
            ("x-original-url", "/status"),
            ("X-MS-OAI-Image_Generation-Deployment", "d"),
            ("x-ms-spillover_deployment", "e"),
            ("AzureML-Model-Deployment", "f"),
            ("X-Policy_ID", "g"),
        ]);
        let head = RequestHead::read(&headers, &policy);
        assert_eq!((head.method, head.path), (&b"POST"[..], &b"/a"[..]));
        assert_eq!(head.query, Some(&b"b"[..]));
        assert_eq!(head.request_id_to_tell(), Some("r"));
        assert_eq!(head.authorization, [b"one", b"two"]);
        assert_eq!(head.key_headers, [(&b"Api_Key"[..], &b"k"[..])]);
        assert_eq!(head.foreign, [&b"x-app-id"[..], b"x-original-url"]);
        let image: &[u8] = b"X-MS-OAI-Image_Generation-Deployment";
        let (spillover, azureml) = (b"x-ms-spillover_deployment", b"AzureML-Model-Deployment");
        assert_eq!(
            head.deployments,
            [(image, &b"d"[..]), (spillover, b"e"), (azureml, b"f")]
        );
        assert_eq!(head.content_filters, [b"X-Policy_ID"]);
        let unfit: Vec<_> = head.unfit_for_trailers().collect();
        let expected = [
            b"Api_Key",
            &b"x-app-id"[..],
            b"x-original-url",
            b"X-Policy_ID",
            image,
            spillover,
            azureml,
            b"authorization",
        ];
        assert_eq!(unfit, expected);
        assert!(!head.asks_for_method && !head.accepts_encodings && !head.is_preflight());
        assert_eq!(*head.path_to_tell(&[]), *b"/a");

        let headers = map(&[
            (":method", "OPTIONS"),
            ("access-control-request-method", "POST"),
            ("accept-encoding", "gzip"),
            ("x-request-id", "eyJhbGciOiJSUzI1NiJ9.e30.c2ln"),
        ]);
        let head = RequestHead::read(&headers, &policy);
        assert!(head.asks_for_method && head.accepts_encodings && head.is_preflight());
        assert_eq!(head.request_id_to_tell(), None);
        assert_eq!(head.unfit_for_trailers().count(), 0);
    }

    #[test]
    fn what_upgrades_is_another_operation() {
        let policy = Policy::parse(POLICY.as_bytes()).unwrap();
        let ask = |more: &[(&str, &str)]| {
            let start = [(":method", "GET"), (":path", "/openai/v1/responses")];
            let headers = map(&[&start, more].concat());
            let head = RequestHead::read(&headers, &policy);
            head.operation().unwrap().action
        };
        assert_eq!(ask(&[("connection", "upgrade")]), Action::ResponsesRead);
        for name in ["upgrade", "Upgrade"] {
            assert_eq!(ask(&[(name, "websocket")]), Action::ResponsesWrite);
        }
    }

    #[test]
    fn names_are_the_same_in_any_spelling() {
        for name in ["api-key", "Api-Key", "API_KEY", "api_key"] {
            assert!(same_name(name.as_bytes(), "api-key"), "{name}");
        }
        assert!(same_name(b"X-App-Id", "x_app_id"));
        for name in ["apikey", "api-key ", "my-api-key", "api.key", ""] {
            assert!(!same_name(name.as_bytes(), "api-key"), "{name}");
        }
    }

    #[test]
    fn query_parameters_are_found_however_they_are_written() {
        let holds = |query: &str, keys: &[String]| {
            parameters(query.as_bytes()).any(|(name, _)| is_key(name, keys))
        };
        let keys = ["api-key".to_owned(), "subscription-key".to_owned()];
        for query in [
            "api-key=1",
            "api-key",
            "api-key=",
            "a=b&api-key=1",
            "Api-Key=1",
            "api%2Dkey=1",
            "%61pi-key=1",
            "a;subscription-key=2",
            "api-version=1&&API%2dKEY=1",
            "?api-key=1",
            "%3fapi-key=1",
            "%20api-key=1",
            "+api-key+=1",
            "%09api-key%0a",
            "api_key=1",
            "api%5Fkey=1",
            "api-key%00=1",
            "api-key%00x=1",
            "api-key[]=1",
            "api-key%5B0%5D=1",
            "api.key=1",
            "api+key=1",
            "api%20key%0b=1",
            "%00%0capi-key=1",
            "x=1?api-key=2",
        ] {
            assert!(holds(query, &keys), "{query}");
        }
        for query in [
            "",
            "api-version=1",
            "x=api-key",
            "api-keys=1",
            "xapi-key=1",
            "api%2key=1",
            "api-key]=1",
            "api%00key=1",
            "a+api-key=1",
            "a.i-key=1",
            "[api-key]=1",
            "api",
            "%",
            "%2",
        ] {
            assert!(!holds(query, &keys), "{query}");
        }
        for query in ["api_key=1", "api-key=1", "API%5fKEY"] {
            assert!(holds(query, &["api_key".to_owned()]));
        }
        for query in ["my.key=1", "my+key=1"] {
            assert!(holds(query, &["my.key".to_owned()]));
        }
        let head = RequestHead {
            path: b"/p",
            query: Some(b"a=1&api%2dkey=2&b=3&x;subscription-key=1"),
            ..RequestHead::default()
        };
        assert_eq!(head.path_without(&keys), b"/p?a=1&b=3");
        assert_eq!(
            head.path_without(&[]),
            b"/p?a=1&api%2dkey=2&b=3&x;subscription-key=1"
        );
        let head = RequestHead {
            path: b"/p",
            query: Some(b"api-key=2"),
            ..RequestHead::default()
        };
        assert_eq!(head.path_without(&keys), b"/p");
    }

    #[test]
    fn tokens_in_a_query_are_found_and_taken_out() {
        const TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImsifQ.eyJpc3MiOiJpIn0.c2lnbmF0dXJlIQ";
        let policy = Policy::parse(POLICY.as_bytes()).unwrap();
        for (path, rest) in [
            (format!("/p?access_token={TOKEN}"), "/p"),
            (format!("/p?a=1&Access%5fToken={TOKEN}&b=2"), "/p?a=1&b=2"),
            (format!("/p?a=1;access-token={TOKEN}"), "/p"),
            (
                format!("/p?access_token={TOKEN}&access_token={TOKEN}"),
                "/p",
            ),
        ] {
            let headers = map(&[(":path", &path)]);
            let head = RequestHead::read(&headers, &policy);
            assert!(head.token_in_query && !head.key_in_query, "{path}");
            assert_eq!(head.path_without(&[]), rest.as_bytes(), "{path}");
        }
        for path in [
            "/p",
            "/access_token=ey",
            "/p?access_tokens=ey",
            "/p?x=access_token=ey",
        ] {
            let headers = map(&[(":path", path)]);
            assert!(
                !RequestHead::read(&headers, &policy).token_in_query,
                "{path}"
            );
        }
    }

    #[test]
    fn an_api_version_is_told_and_nothing_else() {
        for (query, expected) in [
            ("api-version=2024-10-21", Some("2024-10-21")),
            ("a=1&api-version=preview&b", Some("preview")),
            (
                "api-version=2024-10-21&api-version=preview",
                Some("2024-10-21"),
            ),
            ("Api-Version=2024-10-21", Some("2024-10-21")),
            (
                "a=1&api%2Dversion=2024%2d10-21-Preview",
                Some("2024-10-21-preview"),
            ),
            ("%41pi-versio%6e=%202024-10-21", None),
            ("api-version", None),
            ("xapi-version=2024-10-21", None),
            ("api-version=2024-10-21;api-key=secret", Some("2024-10-21")),
            ("api-version=0123456789abcdef0123456789abcdef", None),
            ("x=1", None),
        ] {
            let head = RequestHead {
                query: Some(query.as_bytes()),
                ..RequestHead::default()
            };
            let version = head.api_version();
            let version = version.as_ref().map(ApiVersion::as_bytes);
            assert_eq!(version, expected.map(str::as_bytes), "{query}");
        }
    }

    #[test]
    fn the_method_is_told_if_it_may_be_one() {
        for (method, expected) in [
            ("POST", "POST"),
            ("VERSION-CONTROL", "VERSION-CONTROL"),
            ("eyJhbGciOiJSUzI1NiJ9.e30.c2ln", "..."),
            ("0123456789abcdef", "..."),
            ("", ""),
        ] {
            let head = RequestHead {
                method: method.as_bytes(),
                ..RequestHead::default()
            };
            assert_eq!(head.method_to_tell(), expected.as_bytes(), "{method}");
        }
    }

    #[test]
    fn websocket_protocols_give_up_their_keys() {
        let named = |value: &'static str| (PROTOCOLS.as_bytes(), value.as_bytes());
        let values = ["realtime, OpenAI-insecure-api-key.sk-1", "openai-beta.x"].map(named);
        assert!(list_holds_key(values[0].1));
        assert!(!list_holds_key(values[1].1));
        for list in [
            "a;openai-insecure-api-key.sk-1",
            "a openai-insecure-api-key.sk-1",
            "\"OPENAI-insecure-api-key.sk-1\"",
        ] {
            assert!(list_holds_key(list.as_bytes()), "{list}");
            assert_eq!(protocols_without_keys(&[named(list)]), b"", "{list}");
        }
        assert!(!list_holds_key(b"x-openai-insecure-api-key.sk-1"));
        assert_eq!(protocols_without_keys(&values), b"realtime, openai-beta.x");
    }

    #[test]
    fn public_paths_have_one_reading() {
        let patterns = [
            Pattern::Exact("/status".into()),
            Pattern::Prefix("/public/".into()),
        ];
        let public = |path: &str| {
            let (path, query) = split_query(path.as_bytes());
            RequestHead {
                path,
                query,
                ..RequestHead::default()
            }
            .is_public(&patterns)
        };
        for path in [
            "/status",
            "/status?x=/..",
            "/public/",
            "/public/a/b.txt",
            "/public/..a",
        ] {
            assert!(public(path), "{path}");
        }
        for path in [
            "/Status",
            "/status/",
            "/status/x",
            "//status",
            "/public",
            "/public/../openai",
            "/public/%2e%2e/openai",
            "/public/a//b",
            "/public/a\\..\\b",
            "/public/a;b",
            "/public/.",
            "/public/a/..",
            "/public/%61",
            "/public/\u{e9}",
            "status",
            "",
            "/x/status",
            "/status#",
        ] {
            assert!(!public(path), "{path}");
        }
    }
}
