//! What a round sends: calls that every guarded gateway denies.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::token::Token;

/// Lists of models, which cost nothing where a gateway is open.
const MODELS: &str = "/openai/v1/models";
const DATED_MODELS: &str = "/openai/models?api-version=2024-10-21";

/// Headers and query parameters where keys are looked for.
const KEY_HEADERS: [&str; 3] = ["api-key", "ocp-apim-subscription-key", "x-api-key"];
const KEY_PARAMETERS: [&str; 2] = ["api-key", "subscription-key"];

/// A `GET` with credentials that nobody has issued, or, with `--token-file`, with a good token.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// Path and query, to the letter.
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) credential: Credential,
    pub(crate) form: Form,
}

/// What a call carries, which decides what the module can respond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Credential {
    None,
    /// A token that no issuer has signed.
    MadeUpToken,
    /// An API key that nobody has.
    MadeUpKey,
    /// Both.
    MadeUpKeyAndToken,
    /// The token of `--token-file`.
    Good,
}

/// How a call is written on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// HTTP/2 where the gateway offers it, otherwise HTTP/1.1.
    Negotiated,
    Http1,
    /// HTTP/1.1 with the whole address in the request line, as clients of a proxy write it.
    Absolute,
}

impl Call {
    fn new(name: impl Into<String>, path: &str, credential: Credential) -> Self {
        Self {
            name: name.into(),
            path: path.to_owned(),
            headers: Vec::new(),
            credential,
            form: Form::Negotiated,
        }
    }

    fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn with_token(self, token: &str) -> Self {
        self.with_header("authorization", format!("Bearer {token}"))
    }

    fn with_form(mut self, form: Form) -> Self {
        self.form = form;
        self
    }

    /// The path without the query.
    pub(crate) fn shown_path(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }
}

/// The call by which a gateway is watched.
pub(crate) fn without_token() -> Call {
    Call::new("no token", MODELS, Credential::None)
}

/// All calls of one round. The first tells whether there is a gateway at all.
pub(crate) fn round(tls: bool, token: Option<&Token>) -> Vec<Call> {
    let mut calls = tokens();
    calls.extend(keys());
    calls.extend(path_forms(tls));
    if let Some(token) = token {
        for path in [MODELS, DATED_MODELS] {
            let call = Call::new("token of --token-file", path, Credential::Good);
            calls.push(call.with_token(token.secret()));
        }
    }
    calls
}

fn tokens() -> Vec<Call> {
    let mut calls = Vec::new();
    for path in [MODELS, DATED_MODELS] {
        calls.push(Call::new("no token", path, Credential::None));
        let empty = Call::new("empty token", path, Credential::None);
        calls.push(empty.with_header("authorization", "Bearer"));
        let signed = Call::new("token of a made-up issuer", path, Credential::MadeUpToken);
        calls.push(signed.with_token(&made_up_token()));
        let unsigned = Call::new("unsigned token", path, Credential::MadeUpToken);
        calls.push(unsigned.with_token(&unsigned_token()));
    }
    calls
}

/// A key in every place, alone and with a token.
fn keys() -> Vec<Call> {
    let mut calls = Vec::new();
    for with_token in [false, true] {
        let call = |place: String, path: &str| {
            if with_token {
                let credential = Credential::MadeUpKeyAndToken;
                Call::new(format!("API key and token, {place}"), path, credential)
                    .with_token(&made_up_token())
            } else {
                Call::new(format!("API key, {place}"), path, Credential::MadeUpKey)
            }
        };
        for name in KEY_HEADERS {
            let header = call(format!("header {name}"), MODELS);
            calls.push(header.with_header(name, made_up_key()));
        }
        for name in KEY_PARAMETERS {
            let path = format!("{MODELS}?{name}={}", made_up_key());
            calls.push(call(format!("query {name}"), &path));
        }
        let protocols = format!("realtime, openai-insecure-api-key.{}", made_up_key());
        let websocket = call("WebSocket subprotocol".to_owned(), MODELS);
        calls.push(websocket.with_header("sec-websocket-protocol", protocols));
    }
    calls
}

/// The same path in spellings that a proxy and a backend may read differently.
fn path_forms(tls: bool) -> Vec<Call> {
    const FORMS: [(&str, &str); 10] = [
        ("upper case", "/OPENAI/v1/models"),
        ("double slash", "//openai/v1/models"),
        ("double slash inside", "/openai//v1/models"),
        ("escaped letter", "/%6fpenai/v1/models"),
        ("escaped slash", "/openai%2Fv1%2Fmodels"),
        ("trailing slash", "/openai/v1/models/"),
        ("dot segments", "/status/../openai/v1/models"),
        ("escaped dot segments", "/status/%2e%2e/openai/v1/models"),
        ("path parameter", "/openai;x=1/v1/models"),
        ("backslash", "/openai\\v1\\models"),
    ];
    let mut calls: Vec<_> = FORMS
        .into_iter()
        .map(|(name, path)| Call::new(format!("path: {name}"), path, Credential::None))
        .collect();
    let absolute = Call::new("path: absolute form", MODELS, Credential::None);
    calls.push(absolute.with_form(Form::Absolute));
    if tls {
        let http1 = Call::new("no token, HTTP/1.1", MODELS, Credential::None);
        calls.push(http1.with_form(Form::Http1));
    }
    calls
}

/// A key that says in a log where it comes from.
fn made_up_key() -> String {
    format!("tollgate-probe-no-key-{:016x}", chance())
}

/// A token of the right form, whose issuer does not exist and whose signature is noise.
fn made_up_token() -> String {
    let mut signature = Vec::with_capacity(256);
    while signature.len() < 256 {
        signature.extend_from_slice(&chance().to_be_bytes());
    }
    let header = json!({ "alg": "RS256", "typ": "JWT", "kid": "tollgate-probe" });
    let signature = URL_SAFE_NO_PAD.encode(signature);
    format!("{}.{signature}", signed_part(&header))
}

fn unsigned_token() -> String {
    format!("{}.", signed_part(&json!({ "alg": "none", "typ": "JWT" })))
}

fn signed_part(header: &serde_json::Value) -> String {
    let claims = json!({
        "iss": "https://tollgate-probe.invalid/",
        "aud": "https://cognitiveservices.azure.com",
        "appid": "00000000-0000-0000-0000-000000000000",
        "iat": 1_700_000_000,
        "nbf": 1_700_000_000,
        // The end of the year 2099.
        "exp": 4_102_444_799_u64,
    });
    let [header, claims] = [header, &claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    format!("{header}.{claims}")
}

/// Unpredictable enough for what is meant to be worthless: the standard library's hash seed.
fn chance() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The most calls of one round.
    const MAX_CALLS: usize = 40;

    #[test]
    fn a_round_has_at_most_40_calls_each_unlike_the_others() {
        let token = Token::parse(b"header.claims.signature").unwrap();
        let calls = round(true, Some(&token));
        assert!((30..=MAX_CALLS).contains(&calls.len()), "{}", calls.len());
        let mut seen = std::collections::BTreeSet::new();
        for call in &calls {
            assert!(
                seen.insert((&call.name, call.shown_path())),
                "{}",
                call.name
            );
        }
        let good = calls
            .iter()
            .filter(|call| call.credential == Credential::Good);
        assert_eq!(good.count(), 2);
    }

    #[test]
    fn every_place_of_a_key_is_tried_alone_and_with_a_token() {
        for credential in [Credential::MadeUpKey, Credential::MadeUpKeyAndToken] {
            let calls = keys()
                .into_iter()
                .filter(|call| call.credential == credential);
            let places: Vec<_> = calls
                .map(|call| {
                    let has_token = call
                        .headers
                        .iter()
                        .any(|(name, _)| *name == "authorization");
                    assert_eq!(has_token, credential == Credential::MadeUpKeyAndToken);
                    let text = format!("{}{:?}", call.path, call.headers);
                    assert_eq!(text.matches("tollgate-probe-no-key-").count(), 1, "{text}");
                    call.name
                })
                .collect();
            assert_eq!(places.len(), 6, "{places:?}");
        }
    }

    #[test]
    fn made_up_credentials_differ_each_time_and_have_the_right_form() {
        assert_ne!(made_up_key(), made_up_key());
        let (first, second) = (made_up_token(), made_up_token());
        assert_ne!(first, second);
        let parts: Vec<_> = first.split('.').collect();
        assert_eq!(parts.len(), 3);
        assert_eq!(URL_SAFE_NO_PAD.decode(parts[2]).unwrap().len(), 256);
        assert!(unsigned_token().ends_with('.'));
    }
}
