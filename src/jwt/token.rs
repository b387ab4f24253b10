//! The outside of a token: size, shape and header. Nothing here is believed yet.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::json::{self, Object, Value};

/// Largest token, in bytes.
pub const MAX_TOKEN: usize = 16 * 1024;

/// Longest `kid`, in bytes. Entra's have 27 or 43.
const MAX_KID: usize = 256;

/// A JWS in its compact form (RFC 7515 section 7.1), taken apart and no more.
///
/// jwt-compact has such a type, but it takes the last of repeated members where RFC 7515 section 4
/// wants them refused, and refuses tokens whose `x5t`, which nothing here looks at, is not a
/// thumbprint. `tests/differential.rs` holds the two against each other.
#[derive(Debug)]
pub struct Jws<'a> {
    /// `alg`, as written.
    pub algorithm: String,
    /// `kid`, where there is one.
    pub kid: Option<String>,
    /// `typ`, where there is one.
    pub typ: Option<String>,
    /// What is signed, decoded.
    pub payload: Vec<u8>,
    /// What the signature is over.
    pub signed: &'a [u8],
    /// The signature, decoded.
    pub signature: Vec<u8>,
}

/// A token that is well formed: a JWS with a `kid`, whose payload is a JSON object.
///
/// Its signature has not been looked at, so it offers only what is needed to find the key.
#[derive(Debug)]
pub struct UntrustedToken<'j> {
    pub(super) jws: &'j Jws<'j>,
    pub(super) payload: Object<'j>,
}

/// Why bytes are not a token. Every one is `JwtInvalid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// Longer than [`MAX_TOKEN`].
    TooLarge,
    /// No JWT at all: it has no dots, or begins like a key or an ephemeral secret of OpenAI.
    Opaque,
    /// Not three non-empty parts of base64url (RFC 7515 section 7.1).
    Shape,
    /// The header is not a JSON object, or repeats a member.
    Header,
    /// The header has no `kid`, or one that is not a string of 1 to 256 bytes.
    Kid,
    /// The header has `crit` (RFC 7515 section 4.1.11) or `b64` (RFC 7797).
    Critical,
    /// `typ` is neither absent nor a kind of JWT.
    Type,
    /// The payload is not a JSON object, or repeats a member.
    Payload,
}

/// How OpenAI's keys and ephemeral secrets begin, which no JWT does.
const SECRETS: [&[u8]; 2] = [b"sk-", b"ek_"];

impl fmt::Display for TokenError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::TooLarge => "longer than 16 KiB",
            Self::Opaque => "an API key or another secret, and no JWT",
            Self::Shape => "not three parts of base64url",
            Self::Header => "the header is not a JSON object with unique members",
            Self::Kid => "the header has no usable kid",
            Self::Critical => "the header has crit or b64",
            Self::Type => "typ is not JWT",
            Self::Payload => "the payload is not a JSON object with unique members",
        })
    }
}

impl<'a> Jws<'a> {
    /// Takes a JWS apart.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn parse(token: &'a [u8]) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLarge);
        }
        let is_secret = |start: &&[u8]| token.starts_with(start);
        if !token.contains(&b'.') || SECRETS.iter().any(is_secret) {
            return Err(TokenError::Opaque);
        }
        let parts = Parts::split(token).ok_or(TokenError::Shape)?;
        if parts.header.is_empty() || parts.signature.is_empty() {
            return Err(TokenError::Shape);
        }
        let (payload, signature) = (decode(parts.payload)?, decode(parts.signature)?);
        let header = decode(parts.header)?;
        let header = object(&header).ok_or(TokenError::Header)?;
        if header.get("crit").is_some() || header.get("b64").is_some() {
            return Err(TokenError::Critical);
        }
        Ok(Self {
            algorithm: text(&header, "alg", TokenError::Header)?.ok_or(TokenError::Header)?,
            kid: text(&header, "kid", TokenError::Kid)?,
            typ: text(&header, "typ", TokenError::Type)?,
            payload,
            signed: parts.signed,
            signature,
        })
    }
}

impl<'j> UntrustedToken<'j> {
    /// Reads a token.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn read(jws: &'j Jws<'j>) -> Result<Self, TokenError> {
        if !jws
            .kid
            .as_ref()
            .is_some_and(|kid| (1..=MAX_KID).contains(&kid.len()))
        {
            return Err(TokenError::Kid);
        }
        let payload = object(&jws.payload).ok_or(TokenError::Payload)?;
        Ok(Self { jws, payload })
    }

    /// `alg`, as written.
    #[must_use]
    pub fn algorithm(&self) -> &str {
        &self.jws.algorithm
    }

    /// `kid`: which key is said to have signed the token. Never empty.
    #[must_use]
    pub fn kid(&self) -> &str {
        self.jws.kid.as_deref().unwrap_or_default()
    }

    /// `iss`, unverified: it chooses whose keys may verify the token, and is believed only
    /// because those keys do. `Err` when it is there but not a string.
    ///
    /// # Errors
    /// [`TokenError::Payload`] for an `iss` of another type.
    pub fn unverified_issuer(&self) -> Result<Option<&str>, TokenError> {
        match self.payload.get("iss") {
            None => Ok(None),
            Some(Value::String(issuer)) => Ok(Some(issuer)),
            Some(_) => Err(TokenError::Payload),
        }
    }

    /// Whether `typ` is acceptable. Entra says `JWT`; other issuers may follow RFC 9068.
    ///
    /// # Errors
    /// [`TokenError::Type`].
    pub fn check_type(&self, entra: bool) -> Result<(), TokenError> {
        let Some(typ) = self.jws.typ.as_deref() else {
            return Ok(());
        };
        let access_token = ["at+jwt", "application/at+jwt"];
        if typ.eq_ignore_ascii_case("JWT")
            || (!entra
                && access_token
                    .iter()
                    .any(|name| typ.eq_ignore_ascii_case(name)))
        {
            return Ok(());
        }
        Err(TokenError::Type)
    }
}

/// Base64url without padding, foreign characters or stray bits (RFC 7515 section 2).
fn decode(part: &[u8]) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Shape)
}

/// The three parts of a token, as they stand there.
struct Parts<'a> {
    header: &'a [u8],
    payload: &'a [u8],
    signature: &'a [u8],
    /// The first two, with the dot between them.
    signed: &'a [u8],
}

impl<'a> Parts<'a> {
    /// Looks for the first dot and the last. One between them is found when the payload is decoded, which
    /// takes none.
    fn split(token: &'a [u8]) -> Option<Self> {
        let is_dot = |byte: &u8| *byte == b'.';
        let first = token.iter().position(is_dot)?;
        let last = token.iter().rposition(is_dot)?;
        let (signed, signature) = token.split_at_checked(last)?;
        let (header, payload) = signed.split_at_checked(first)?;
        Some(Self {
            header,
            payload: payload.get(1..)?,
            signature: signature.get(1..)?,
            signed,
        })
    }
}

fn object(text: &[u8]) -> Option<Object<'_>> {
    match json::parse(text) {
        Ok(Value::Object(object)) => Some(object),
        Ok(_) | Err(_) => None,
    }
}

/// A header parameter that is a string where it is there at all.
fn text(header: &Object<'_>, name: &str, error: TokenError) -> Result<Option<String>, TokenError> {
    match header.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.to_string())),
        Some(_) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, payload: &str, signature: &str) -> String {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!(
            "{}.{}.{}",
            encode(header),
            encode(payload),
            encode(signature)
        )
    }

    fn error(token: &str) -> TokenError {
        Jws::parse(token.as_bytes())
            .and_then(|jws| UntrustedToken::read(&jws).map(|_| ()))
            .err()
            .unwrap_or_else(|| panic!("accepted: {token}"))
    }

    const HEADER: &str = r#"{"alg":"RS256","kid":"k","typ":"JWT"}"#;

    #[test]
    fn reads_what_finds_the_key() {
        let text = token(HEADER, r#"{"iss":"i"}"#, "s");
        let jws = Jws::parse(text.as_bytes()).unwrap();
        let token = UntrustedToken::read(&jws).unwrap();
        assert_eq!(token.algorithm(), "RS256");
        assert_eq!(token.kid(), "k");
        assert_eq!(token.unverified_issuer(), Ok(Some("i")));
    }

    #[test]
    fn shape_is_checked_before_anything_is_decoded() {
        let good = token(HEADER, "{}", "s");
        for bad in [
            ".".into(),
            "..".into(),
            "a.b".into(),
            format!("{good}."),
            format!(".{good}"),
            format!("{good}.x.y"),
            good.replace('.', ".."),
            good.replacen('.', ". ", 1),
            format!("{good}="),
            format!("{good} "),
            good.replacen('e', "+", 1),
            format!("{good}\u{e9}"),
            token(HEADER, "{}", ""),
        ] {
            assert_eq!(error(&bad), TokenError::Shape, "{bad:?}");
        }
        for secret in [
            "",
            "dummy",
            "sk-abc",
            "sk-proj-a.b.c",
            "ek_abc",
            "ek_a.b.c",
            "0123456789abcdef0123456789abcdef",
        ] {
            assert_eq!(error(secret), TokenError::Opaque, "{secret:?}");
        }
        assert_eq!(error(&"a".repeat(MAX_TOKEN + 1)), TokenError::TooLarge);
        // Stray bits: two texts for the same bytes would be two cache keys for one token.
        let stray = format!("{}.e30.AB", URL_SAFE_NO_PAD.encode(HEADER));
        assert_eq!(error(&stray), TokenError::Shape);
    }

    #[test]
    fn a_token_has_16_kib_at_most() {
        let start = token(HEADER, "{}", "");
        let of = |size: usize| start.clone() + &"A".repeat(size - start.len());
        for size in [16_384, 16_383, 16_382] {
            // Of four sizes one is none of base64's.
            let read = Jws::parse(of(size).as_bytes()).map(|_| ());
            assert_ne!(read, Err(TokenError::TooLarge), "{size}");
        }
        assert_eq!(error(&of(16_385)), TokenError::TooLarge);
    }

    #[test]
    fn headers_that_change_the_meaning_are_refused() {
        for (header, expected) in [
            (r#"{"alg":"RS256"}"#, TokenError::Kid),
            (r#"{"alg":"RS256","kid":7}"#, TokenError::Kid),
            (r#"{"alg":"RS256","kid":null}"#, TokenError::Kid),
            (r#"{"alg":"RS256","kid":["k"]}"#, TokenError::Kid),
            (r#"{"alg":"RS256","kid":""}"#, TokenError::Kid),
            (
                r#"{"alg":"RS256","kid":"k","crit":[]}"#,
                TokenError::Critical,
            ),
            (
                r#"{"alg":"RS256","kid":"k","crit":null}"#,
                TokenError::Critical,
            ),
            (
                r#"{"alg":"RS256","kid":"k","b64":true}"#,
                TokenError::Critical,
            ),
            (
                r#"{"alg":"RS256","kid":"k","alg":"none"}"#,
                TokenError::Header,
            ),
            (r#"{"alg":["RS256"],"kid":"k"}"#, TokenError::Header),
            (r#"{"kid":"k"}"#, TokenError::Header),
            (r#"["RS256"]"#, TokenError::Header),
            (r#"{"alg":"RS256","kid":"k","typ":1}"#, TokenError::Type),
        ] {
            assert_eq!(error(&token(header, "{}", "s")), expected, "{header}");
        }
        let long = format!(r#"{{"alg":"RS256","kid":"{}"}}"#, "k".repeat(257));
        assert_eq!(error(&token(&long, "{}", "s")), TokenError::Kid);
    }

    #[test]
    fn payloads_are_objects_with_unique_members() {
        for payload in [
            "[]",
            "1",
            "\"x\"",
            "null",
            "{",
            r#"{"aud":"a","aud":"b"}"#,
            "{}{}",
        ] {
            assert_eq!(
                error(&token(HEADER, payload, "s")),
                TokenError::Payload,
                "{payload}"
            );
        }
    }

    #[test]
    fn the_type_depends_on_the_issuer() {
        for (typ, entra, ok) in [
            ("JWT", true, true),
            ("jwt", true, true),
            ("at+jwt", true, false),
            ("at+jwt", false, true),
            ("AT+JWT", false, true),
            ("application/at+jwt", false, true),
            ("application/at+jwt", true, false),
            ("application/jwt", false, false),
            ("JWE", false, false),
            ("", false, false),
        ] {
            let text = token(
                &format!(r#"{{"alg":"RS256","kid":"k","typ":"{typ}"}}"#),
                "{}",
                "s",
            );
            let jws = Jws::parse(text.as_bytes()).unwrap();
            let token = UntrustedToken::read(&jws).unwrap();
            assert_eq!(token.check_type(entra).is_ok(), ok, "{typ} {entra}");
        }
    }
}
