//! Access tokens as Entra issues them to applications, and every kind of wrong one.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::keys::{Algorithm, KeyChoice, KeyStore};
use crate::random;

/// The demo's tenant.
pub const TENANT: &str = "11111111-2222-3333-4444-555555555555";
/// The demo's first application.
pub const CLIENT: &str = "aaaaaaaa-0000-0000-0000-000000000001";
/// What Azure OpenAI wants as `aud`.
pub const AUDIENCE: &str = "https://cognitiveservices.azure.com";

/// How long a token is good for.
pub const LIFETIME: u64 = 3600;
/// How far Entra dates `iat` and `nbf` back.
const BACK_DATED: u64 = 300;

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The two shapes of Entra's access tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Version {
    /// `iss` sts.windows.net, `appid`.
    #[default]
    V1,
    /// `iss` with `/v2.0`, `azp`.
    V2,
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            1 => Ok(Self::V1),
            2 => Ok(Self::V2),
            _ => Err(serde::de::Error::custom("version must be 1 or 2")),
        }
    }
}

/// Who asks for what: all that Entra needs to know for a token.
#[derive(Debug)]
pub struct Grant<'a> {
    /// The tenant.
    pub tenant: &'a str,
    /// The application.
    pub client: &'a str,
    /// The resource.
    pub audience: &'a str,
    /// The shape.
    pub version: Version,
}

impl Grant<'_> {
    /// The claims of an app-only token.
    pub fn claims(&self, authority: &str, now: u64) -> Map<String, Value> {
        let (tenant, client) = (self.tenant, self.client);
        let sts = format!("https://sts.windows.net/{tenant}/");
        let object = random::guid_of(&format!("{tenant}/{client}"));
        let issued = now.saturating_sub(BACK_DATED);
        let claims = json!({
            "aud": self.audience, "iat": issued, "nbf": issued, "exp": now + LIFETIME,
            "aio": random::text::<42>(), "idtyp": "app", "oid": object, "sub": object,
            "rh": random::text::<36>(), "tid": tenant, "uti": random::text::<16>(),
        });
        let by_version = match self.version {
            Version::V1 => json!({
                "iss": sts, "appid": client, "appidacr": "1", "idp": sts, "ver": "1.0",
            }),
            Version::V2 => json!({
                "iss": format!("{authority}/{tenant}/v2.0"), "azp": client, "azpacr": "1",
                "ver": "2.0",
            }),
        };
        let parts = [claims, by_version].into_iter();
        parts
            .filter_map(|part| part.as_object().cloned())
            .flatten()
            .collect()
    }
}

/// The body of `POST /control/mint`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MintRequest {
    /// `tid` and the tenant in `iss`.
    pub tenant: Option<String>,
    /// `appid` or `azp`.
    pub client_id: Option<String>,
    /// 1 or 2.
    pub version: Version,
    /// `aud`.
    pub audience: Option<String>,
    /// Claims to set; null removes one.
    pub claims: Map<String, Value>,
    /// Header members to set; null removes one.
    pub header: Map<String, Value>,
    /// How it is signed.
    pub alg: Algorithm,
    /// With which key.
    pub key: KeyChoice,
    /// The payload, whatever it is, in place of claims.
    pub raw_payload: Option<String>,
    /// So many tokens at once.
    pub count: Option<usize>,
    /// Each token is of an application that nobody has seen.
    pub new_clients: bool,
}

impl MintRequest {
    /// More are asked for in several requests: no answer is larger than some megabytes.
    pub const MAX_COUNT: usize = 10_000;
}

/// A signed token, made to order.
pub fn mint(request: &MintRequest, authority: &str, keys: &KeyStore, now: u64) -> String {
    let new_client = request.new_clients.then(random::guid);
    let client = new_client.as_deref().or(request.client_id.as_deref());
    let grant = Grant {
        tenant: request.tenant.as_deref().unwrap_or(TENANT),
        client: client.unwrap_or(CLIENT),
        audience: request.audience.as_deref().unwrap_or(AUDIENCE),
        version: request.version,
    };
    let payload = match &request.raw_payload {
        Some(raw) => raw.clone(),
        None => {
            let mut claims = grant.claims(authority, now);
            change(&mut claims, &request.claims);
            Value::Object(claims).to_string()
        }
    };
    let (message, signature) = keys.sign(request.key, request.alg, |kid| {
        let mut header = header(request.alg, request.version, kid);
        change(&mut header, &request.header);
        let header = URL_SAFE_NO_PAD.encode(Value::Object(header).to_string());
        format!("{header}.{}", URL_SAFE_NO_PAD.encode(&payload))
    });
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn header(algorithm: Algorithm, version: Version, kid: &str) -> Map<String, Value> {
    let mut header = Map::new();
    header.insert("typ".into(), "JWT".into());
    header.insert("alg".into(), algorithm.name().into());
    if version == Version::V1 {
        header.insert("x5t".into(), kid.into());
    }
    header.insert("kid".into(), kid.into());
    header
}

fn change(members: &mut Map<String, Value>, changes: &Map<String, Value>) {
    for (name, value) in changes {
        if value.is_null() {
            members.remove(name);
        } else {
            members.insert(name.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256,
        RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
        RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
        UnparsedPublicKey,
    };

    use super::*;

    const AUTHORITY: &str = "https://login.microsoftonline.com";
    const NOW: u64 = 1_700_000_000;

    struct Token {
        header: Value,
        payload: Value,
        message: String,
        signature: Vec<u8>,
    }

    fn decode(part: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(part).unwrap()
    }

    fn mint_with(keys: &KeyStore, request: Value) -> Token {
        let request: MintRequest = serde_json::from_value(request).unwrap();
        let token = mint(&request, AUTHORITY, keys, NOW);
        let (message, signature) = token.rsplit_once('.').unwrap();
        let (header, payload) = message.split_once('.').unwrap();
        Token {
            header: serde_json::from_slice(&decode(header)).unwrap(),
            payload: serde_json::from_slice(&decode(payload)).unwrap_or(Value::Null),
            message: message.to_owned(),
            signature: decode(signature),
        }
    }

    fn verifies(token: &Token, jwk: &Value) -> bool {
        let rsa = |parameters: &RsaParameters| {
            let n = decode(jwk["n"].as_str().unwrap());
            let e = decode(jwk["e"].as_str().unwrap());
            let key = RsaPublicKeyComponents { n, e };
            key.verify(parameters, token.message.as_bytes(), &token.signature)
                .is_ok()
        };
        let point = || {
            let coordinate = |name| decode(jwk[name].as_str().unwrap());
            [vec![4], coordinate("x"), coordinate("y")].concat()
        };
        let message = token.message.as_bytes();
        match token.header["alg"].as_str().unwrap() {
            "RS256" => rsa(&RSA_PKCS1_2048_8192_SHA256),
            "RS384" => rsa(&RSA_PKCS1_2048_8192_SHA384),
            "RS512" => rsa(&RSA_PKCS1_2048_8192_SHA512),
            "PS256" => rsa(&RSA_PSS_2048_8192_SHA256),
            "PS384" => rsa(&RSA_PSS_2048_8192_SHA384),
            "PS512" => rsa(&RSA_PSS_2048_8192_SHA512),
            "ES256" => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point())
                .verify(message, &token.signature)
                .is_ok(),
            "ES384" => UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point())
                .verify(message, &token.signature)
                .is_ok(),
            other => panic!("not a signature: {other}"),
        }
    }

    fn published(keys: &KeyStore, token: &Token) -> Option<Value> {
        let set = keys.set("");
        let found = set["keys"]
            .as_array()
            .unwrap()
            .iter()
            .find(|k| k["kid"] == token.header["kid"]);
        found.cloned()
    }

    #[test]
    fn every_algorithm_verifies_with_the_published_key() {
        let keys = KeyStore::default();
        let algorithms = [
            "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384",
        ];
        for algorithm in algorithms {
            for choice in ["current", "previous"] {
                let mut token = mint_with(&keys, json!({ "alg": algorithm, "key": choice }));
                let key = published(&keys, &token).unwrap();
                assert_eq!(token.header["alg"], algorithm);
                assert!(verifies(&token, &key), "{algorithm} {choice}");
                token.signature[7] ^= 1;
                assert!(!verifies(&token, &key), "{algorithm} {choice}, changed");
            }
            let foreign = mint_with(&keys, json!({ "alg": algorithm, "key": "foreign" }));
            assert!(
                !verifies(&foreign, &published(&keys, &foreign).unwrap()),
                "{algorithm}"
            );
            let unknown = mint_with(&keys, json!({ "alg": algorithm, "key": "unpublished" }));
            assert_eq!(published(&keys, &unknown), None, "{algorithm}");
        }
    }

    #[test]
    fn version_1_has_entras_shape() {
        let token = mint_with(&KeyStore::default(), json!({}));
        let payload = &token.payload;
        assert_eq!(payload["iss"], format!("https://sts.windows.net/{TENANT}/"));
        assert_eq!(payload["aud"], AUDIENCE);
        assert_eq!(payload["appid"], CLIENT);
        assert_eq!(payload["appidacr"], "1");
        assert_eq!(payload["tid"], TENANT);
        assert_eq!(payload["ver"], "1.0");
        assert_eq!(payload["idtyp"], "app");
        assert_eq!(payload["exp"], NOW + 3600);
        assert_eq!(payload["nbf"], payload["iat"]);
        assert!(payload["iat"].as_u64().unwrap() <= NOW);
        assert!(random::is_guid(payload["oid"].as_str().unwrap()));
        assert_eq!(payload["uti"].as_str().unwrap().len(), 22);
        assert!(payload.get("azp").is_none());
        assert_eq!(token.header["typ"], "JWT");
        assert_eq!(token.header["x5t"], token.header["kid"]);
    }

    #[test]
    fn version_2_has_entras_shape() {
        let token = mint_with(
            &KeyStore::default(),
            json!({ "version": 2, "audience": CLIENT }),
        );
        let payload = &token.payload;
        assert_eq!(payload["iss"], format!("{AUTHORITY}/{TENANT}/v2.0"));
        assert_eq!(payload["aud"], CLIENT);
        assert_eq!(payload["azp"], CLIENT);
        assert_eq!(payload["azpacr"], "1");
        assert_eq!(payload["ver"], "2.0");
        assert!(payload.get("appid").is_none());
        assert!(token.header.get("x5t").is_none());
    }

    #[test]
    fn overrides_set_and_null_removes() {
        let token = mint_with(
            &KeyStore::default(),
            json!({
                "tenant": "t", "client_id": "c", "audience": "a",
                "claims": { "roles": ["x"], "exp": null, "appid": 7 },
                "header": { "kid": null, "crit": ["b64"], "alg": "RS512" },
            }),
        );
        assert_eq!(token.payload["tid"], "t");
        assert_eq!(token.payload["aud"], "a");
        assert_eq!(token.payload["roles"], json!(["x"]));
        assert_eq!(token.payload["appid"], 7);
        assert!(token.payload.get("exp").is_none());
        assert!(token.header.get("kid").is_none());
        assert_eq!(token.header["crit"], json!(["b64"]));
        assert_eq!(token.header["alg"], "RS512");
    }

    #[test]
    fn a_raw_payload_is_taken_verbatim_and_signed() {
        let keys = KeyStore::default();
        let raw = r#"{"aud":"a","aud":"b"} "#;
        let token = mint_with(&keys, json!({ "raw_payload": raw }));
        assert_eq!(
            decode(token.message.split_once('.').unwrap().1),
            raw.as_bytes()
        );
        assert!(verifies(&token, &published(&keys, &token).unwrap()));
    }

    #[test]
    fn none_has_no_signature() {
        let token = mint_with(&KeyStore::default(), json!({ "alg": "none" }));
        assert_eq!(token.header["alg"], "none");
        assert!(token.signature.is_empty());
    }

    #[test]
    fn the_confused_hmac_names_the_published_key() {
        let keys = KeyStore::default();
        let token = mint_with(&keys, json!({ "alg": "HS256-with-public-key" }));
        assert_eq!(token.header["alg"], "HS256");
        assert_eq!(published(&keys, &token).unwrap()["kty"], "RSA");
        assert_eq!(token.signature.len(), 32);
    }

    #[test]
    fn mistakes_in_a_request_are_refused() {
        for wrong in [
            json!({ "version": 3 }),
            json!({ "alg": "RS1" }),
            json!({ "aud": "x" }),
        ] {
            assert!(
                serde_json::from_value::<MintRequest>(wrong.clone()).is_err(),
                "{wrong}"
            );
        }
    }
}
