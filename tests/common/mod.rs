//! What the native tests share: keys that sign, tokens, policies, requests.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests compute on their own constants"
)]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rsa::PrivateKey;
use rsa::pkcs1::EncodeRsaPrivateKey as _;
use rsa::pkcs1v15::SigningKey;
use rsa::pkcs8::DecodePrivateKey as _;
use rsa::signature::{SignatureEncoding as _, Signer as _};
use rsa::traits::PublicKeyParts as _;
use serde_json::{Value, json};
use sha2::Sha256;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::rc::Rc;
use std::sync::LazyLock;

use tollgate::crypto::Crypto;
use tollgate::gateway::{Gateway, Patience, Read, Verdict};
use tollgate::policy::Policy;
use tollgate::refusal::Code;
use tollgate::request::HeaderMap;
use tollgate::store::MemoryStore;
use tollgate::time::Time;
use tollgate::usage::BodyReader as _;

/// 2026-03-01T12:00:00Z
pub(crate) const NOON: u64 = 1_772_366_400_000;
pub(crate) const TENANT: &str = "11111111-2222-3333-4444-555555555555";
pub(crate) const APP: &str = "aaaaaaaa-0000-0000-0000-000000000001";
pub(crate) const OTHER_APP: &str = "aaaaaaaa-0000-0000-0000-000000000002";
pub(crate) const AUDIENCE: &str = "https://cognitiveservices.azure.com";

/// Random enough, and the same every time (xorshift64*).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 32).unwrap() % bound
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// Cuts into up to 32 pieces, some of them empty.
    pub(crate) fn cut<'a>(&mut self, text: &'a [u8]) -> Vec<&'a [u8]> {
        let mut places: Vec<_> = (0..self.below(32))
            .map(|_| self.below(text.len() + 1))
            .collect();
        places.extend([0, text.len()]);
        places.sort_unstable();
        places.windows(2).map(|two| &text[two[0]..two[1]]).collect()
    }
}

/// How much a test does: what the environment asks for, or a little.
pub(crate) fn amount(variable: &str, little: usize) -> usize {
    std::env::var(variable).map_or(little, |text| text.parse().unwrap())
}

/// Says that a test does not check what it is for, which `REQUIRE_VECTORS` forbids.
pub(crate) fn not_checked(why: &str) {
    assert!(std::env::var_os("REQUIRE_VECTORS").is_none(), "{why}");
    eprintln!("NOT CHECKED: {why}");
}

/// Appends what was measured for a goal to the file that `FIGURES` names, if it names one.
pub(crate) fn figure(goal: &str, what: &str, figure: &str, met: bool) {
    let Ok(path) = std::env::var("FIGURES") else {
        return;
    };
    let line = json!({ "goal": goal, "what": what, "figure": figure, "met": met });
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Each of these says something on one line, and no two say the same.
pub(crate) fn told_apart(reasons: &[impl ToString]) {
    let mut texts: Vec<_> = reasons.iter().map(ToString::to_string).collect();
    assert!(
        texts
            .iter()
            .all(|text| text.len() > 5 && !text.contains('\n'))
    );
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), reasons.len(), "{texts:#?}");
}

/// A key that signs, under a kid.
pub(crate) struct Signer {
    pub(crate) kid: String,
    key: PrivateKey,
}

pub(crate) static SIGNER: LazyLock<Signer> = LazyLock::new(|| Signer::load("rsa-1.pem", "key-1"));
pub(crate) static OTHER: LazyLock<Signer> = LazyLock::new(|| Signer::load("rsa-2.pem", "key-2"));

impl Signer {
    /// A test key of the stand-ins.
    pub(crate) fn load(file: &str, kid: &str) -> Self {
        // The fuzz targets are a package of their own, one folder down.
        let folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        let mut keys = folders.map(|folder| folder.join("tests/stand-ins/keys"));
        let folder = keys.find(|keys| keys.is_dir()).unwrap();
        let pem = std::fs::read_to_string(folder.join(file)).unwrap();
        // What stands before the first marker is a warning to people.
        let body: String = pem
            .lines()
            .skip_while(|line| !line.starts_with("-----BEGIN"))
            .filter(|line| !line.starts_with("-----"))
            .collect();
        let der = base64::engine::general_purpose::STANDARD
            .decode(body)
            .unwrap();
        Self {
            kid: kid.to_owned(),
            key: PrivateKey::from_pkcs8_der(&der).unwrap(),
        }
    }

    /// The private key, for other libraries.
    pub(crate) fn pkcs1(&self) -> Vec<u8> {
        self.key.to_pkcs1_der().unwrap().as_bytes().to_vec()
    }

    pub(crate) fn jwk(&self) -> Value {
        let encode = |number: &rsa::BoxedUint| {
            let bytes = number.to_be_bytes();
            let start = bytes.iter().position(|byte| *byte != 0).unwrap();
            URL_SAFE_NO_PAD.encode(&bytes[start..])
        };
        json!({
            "kty": "RSA", "use": "sig", "kid": self.kid,
            "n": encode(self.key.n().as_ref()), "e": encode(self.key.e()),
        })
    }

    pub(crate) fn sign(&self, header: &Value, payload: &str) -> String {
        let head = URL_SAFE_NO_PAD.encode(header.to_string());
        let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(payload));
        let signature = SigningKey::<Sha256>::new(self.key.clone()).sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_vec()))
    }

    pub(crate) fn token(&self, claims: &Value) -> String {
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": self.kid });
        self.sign(&header, &claims.to_string())
    }
}

/// Claims of a v1 token as Entra issues it for Azure OpenAI.
pub(crate) fn v1_claims() -> Value {
    json!({
        "aud": AUDIENCE,
        "iss": format!("https://sts.windows.net/{TENANT}/"),
        "iat": NOON / 1000 - 300, "nbf": NOON / 1000 - 300, "exp": NOON / 1000 + 3600,
        "appid": APP, "appidacr": "1", "idtyp": "app",
        "oid": "bbbbbbbb-0000-0000-0000-000000000001",
        "sub": "bbbbbbbb-0000-0000-0000-000000000001",
        "tid": TENANT, "uti": "AbCdEfGh", "ver": "1.0",
        "roles": ["Reader", "Writer"],
    })
}

/// Claims of a v2 token.
pub(crate) fn v2_claims() -> Value {
    let mut claims = v1_claims();
    let members = claims.as_object_mut().unwrap();
    members.remove("appid");
    members.insert("azp".into(), APP.into());
    members.insert("ver".into(), "2.0".into());
    members.insert(
        "iss".into(),
        format!("https://login.microsoftonline.com/{TENANT}/v2.0").into(),
    );
    claims
}

/// Claims with some set, and some (null) removed.
pub(crate) fn with(mut claims: Value, changes: &Value) -> Value {
    let members = claims.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            members.remove(name);
        } else {
            members.insert(name.clone(), value.clone());
        }
    }
    claims
}

/// A policy with the signer's key inline, and more on top.
pub(crate) fn policy(more: &Value) -> Value {
    let mut policy = json!({
        "issuers": [{
            "tenant_id": TENANT,
            "audiences": [AUDIENCE],
            "jwks": { "keys": [SIGNER.jwk()] },
        }],
    });
    for (name, value) in more.as_object().unwrap() {
        policy
            .as_object_mut()
            .unwrap()
            .insert(name.clone(), value.clone());
    }
    policy
}

/// A gateway with its time and shared data.
pub(crate) struct Bench {
    pub(crate) gateway: Gateway,
    pub(crate) store: Rc<MemoryStore>,
    pub(crate) now: u64,
}

impl Bench {
    pub(crate) fn new(policy: &Value) -> Self {
        Self::sharing(policy, Rc::new(MemoryStore::default()))
    }

    pub(crate) fn sharing(policy: &Value, store: Rc<MemoryStore>) -> Self {
        let policy = Policy::parse(policy.to_string().as_bytes())
            .unwrap_or_else(|errors| panic!("{errors}"));
        let gateway = Gateway::new(Rc::new(policy), "test", Crypto::pure());
        Self {
            gateway,
            store,
            now: NOON,
        }
    }

    pub(crate) fn decide(&mut self, headers: &[(&str, &str)]) -> Verdict {
        self.decide_bytes(
            &headers
                .iter()
                .map(|(n, v)| (n.as_bytes(), v.as_bytes()))
                .collect::<Vec<_>>(),
        )
    }

    pub(crate) fn decide_bytes(&mut self, headers: &[(&[u8], &[u8])]) -> Verdict {
        let mut all: Vec<(&[u8], &[u8])> = Vec::new();
        for (name, value) in [(":method", "POST"), (":path", PATH)] {
            if !headers.iter().any(|(given, _)| *given == name.as_bytes()) {
                all.push((name.as_bytes(), value.as_bytes()));
            }
        }
        all.extend_from_slice(headers);
        self.decide_whole(&HeaderMap::from_pairs(all), b"{}")
    }

    /// Decides on a request with this body.
    pub(crate) fn decide_body(&mut self, headers: &[(&str, &str)], body: &str) -> Verdict {
        let method = (&b":method"[..], &b"POST"[..]);
        let given = headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
        self.decide_whole(
            &HeaderMap::from_pairs(std::iter::once(method).chain(given)),
            body.as_bytes(),
        )
    }

    fn decide_whole(&mut self, headers: &HeaderMap, body: &[u8]) -> Verdict {
        let now = Time::from_millis(self.now);
        let (clock, store) = (|| now, &*self.store);
        match self.gateway.decide(headers, &clock, store, Patience::Wait) {
            Verdict::Read(mut read) => {
                read.body.push(body, true);
                let Read { pending, body, .. } = read;
                self.gateway.decide_on_body(pending, &body, &clock, store)
            }
            decided => decided,
        }
    }

    /// The code of a request with a bearer token; `None` when it is allowed.
    pub(crate) fn code(&mut self, token: &str) -> Option<Code> {
        self.code_of(&[("authorization", &format!("Bearer {token}"))])
    }

    /// The code of a request; `None` when it is allowed.
    pub(crate) fn code_of(&mut self, headers: &[(&str, &str)]) -> Option<Code> {
        code(&self.decide(headers))
    }
}

pub(crate) const PATH: &str = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21";

pub(crate) fn code(verdict: &Verdict) -> Option<Code> {
    match verdict {
        Verdict::Allow(_) => None,
        Verdict::Refuse(refuse) => Some(refuse.refusal.code()),
        Verdict::Wait { .. } | Verdict::Read(_) => panic!("not decided"),
    }
}
