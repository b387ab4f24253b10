//! Tokens shaped as Entra's.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use crate::keys::Key;
use crate::process::Process;

/// The tenant of every token, unless a test says otherwise.
pub const TENANT: &str = "11111111-2222-3333-4444-555555555555";
/// The audience of every token, unless a test says otherwise.
pub const AUDIENCE: &str = "https://cognitiveservices.azure.com";
/// An application: the one in every token, unless a test says otherwise.
pub const APP_ONE: &str = "aaaaaaaa-0000-0000-0000-000000000001";
/// Another application.
pub const APP_TWO: &str = "aaaaaaaa-0000-0000-0000-000000000002";

/// A token to be signed.
#[derive(Clone, Debug)]
pub struct Token {
    header: Map<String, Value>,
    claims: Map<String, Value>,
    app_claim: &'static str,
}

impl Token {
    /// As Entra's v1.0 endpoint issues them to an application.
    #[must_use]
    pub fn v1(process: &Process) -> Self {
        Self::new(
            process,
            "appid",
            json!({
                "iss": format!("https://sts.windows.net/{TENANT}/"),
                "idp": format!("https://sts.windows.net/{TENANT}/"),
                "appid": APP_ONE,
                "appidacr": "1",
                "ver": "1.0",
            }),
        )
    }

    /// As Entra's v2.0 endpoint issues them to an application.
    #[must_use]
    pub fn v2(process: &Process) -> Self {
        Self::new(
            process,
            "azp",
            json!({
                "iss": format!("https://login.microsoftonline.com/{TENANT}/v2.0"),
                "azp": APP_ONE,
                "azpacr": "1",
                "ver": "2.0",
            }),
        )
    }

    fn new(process: &Process, app_claim: &'static str, own: Value) -> Self {
        let now = process.clock().seconds();
        let common = json!({
            "aud": AUDIENCE,
            "iat": now - 300,
            "nbf": now - 300,
            "exp": now + 3600,
            "aio": "k2RgYJj+9tr3m/cTAA==",
            "idtyp": "app",
            "oid": "dddddddd-0000-0000-0000-000000000001",
            "rh": "1.AAAA",
            "sub": "dddddddd-0000-0000-0000-000000000001",
            "tid": TENANT,
            "uti": "Jx8s5WvQx0u1m3zB9kQCAA",
        });
        let mut claims = object(common);
        claims.extend(object(own));
        Self {
            header: object(json!({ "typ": "JWT" })),
            claims,
            app_claim,
        }
    }

    /// With this claim.
    #[must_use]
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Without that claim.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    /// Of this application.
    #[must_use]
    pub fn app(self, app_id: &str) -> Self {
        let name = self.app_claim;
        self.claim(name, app_id)
    }

    /// With this member of the JOSE header, instead of what signing would set.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    /// Signed with RS256, or with ES256 where the key is one of P-256.
    #[must_use]
    pub fn sign(&self, key: &Key) -> String {
        let algorithm = if key.jwk()["kty"] == "EC" {
            "ES256"
        } else {
            "RS256"
        };
        self.sign_as(algorithm, key)
    }

    /// Signed with the algorithm of that JWS name.
    #[must_use]
    pub fn sign_as(&self, algorithm: &str, key: &Key) -> String {
        let payload = Value::Object(self.claims.clone()).to_string();
        self.sign_payload(algorithm, key, payload.as_bytes())
    }

    /// Signed with RS256 over these bytes instead of the claims.
    #[must_use]
    pub fn sign_raw(&self, key: &Key, payload: &[u8]) -> String {
        self.sign_payload("RS256", key, payload)
    }

    /// Not signed: with this text as its signature, and the names of RS256 and `key`.
    #[must_use]
    pub fn with_signature(&self, key: &Key, signature: &str) -> String {
        let payload = Value::Object(self.claims.clone()).to_string();
        format!(
            "{}.{signature}",
            self.signing_input("RS256", key, payload.as_bytes())
        )
    }

    fn sign_payload(&self, algorithm: &str, key: &Key, payload: &[u8]) -> String {
        let input = self.signing_input(algorithm, key, payload);
        let signature = key.sign(algorithm, input.as_bytes());
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn signing_input(&self, algorithm: &str, key: &Key, payload: &[u8]) -> String {
        let mut header = object(json!({ "alg": algorithm, "kid": key.kid }));
        header.extend(self.header.clone());
        header.retain(|_, value| !value.is_null());
        let header = Value::Object(header).to_string();
        format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(payload)
        )
    }
}

/// The token with one bit of its signature flipped.
#[must_use]
pub fn flip_signature(token: &str) -> String {
    let (input, signature) = token.rsplit_once('.').expect("three parts");
    let mut signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    let middle = signature.len() / 2;
    signature[middle] ^= 1;
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is not an object"),
    }
}
