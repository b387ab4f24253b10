//! OpenID Connect metadata: where the keys are, if the document is the right one.

use std::fmt;

use super::set::MAX_DOCUMENT;
use crate::json::{self, Value};
use crate::url::Url;

/// What a key fetch needs of a metadata document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Where the key set is.
    pub jwks_uri: Url,
    /// `cloud_instance_name`: which Entra cloud the tenant lives in.
    pub cloud: Option<String>,
}

/// Why a metadata document is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataError {
    /// Over 1 MiB.
    TooLarge,
    /// Not a JSON object.
    NotAnObject,
    /// `issuer` is missing or none of the policy's.
    Issuer,
    /// `jwks_uri` is missing or not an absolute URL.
    JwksUri,
    /// `jwks_uri` leads to another host or scheme than the document came from. The policy's
    /// cluster reaches one host, and a document must not choose whose keys are believed.
    OtherHost,
}

impl fmt::Display for MetadataError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::TooLarge => "larger than 1 MiB",
            Self::NotAnObject => "not a JSON object",
            Self::Issuer => "its issuer is none of the policy's issuers",
            Self::JwksUri => "its jwks_uri is not an absolute URL",
            Self::OtherHost => "its jwks_uri leads to another host",
        })
    }
}

impl Metadata {
    /// Reads a document that came from `source`, for tokens of these issuers.
    ///
    /// Tenant-independent metadata of Entra ID has the literal text `{tenantid}` in `issuer`;
    /// `tenant` takes its place.
    ///
    /// # Errors
    /// See [`MetadataError`].
    pub fn parse(
        text: &[u8],
        source: &Url,
        issuers: &[String],
        tenant: Option<&str>,
    ) -> Result<Self, MetadataError> {
        if text.len() > MAX_DOCUMENT {
            return Err(MetadataError::TooLarge);
        }
        let value = json::parse(text).map_err(|_| MetadataError::NotAnObject)?;
        let document = value.as_object().ok_or(MetadataError::NotAnObject)?;
        let text = |name| document.get(name).and_then(Value::as_str);

        let issuer = text("issuer").ok_or(MetadataError::Issuer)?;
        let issuer = match tenant {
            Some(tenant) => issuer.replace("{tenantid}", tenant),
            None => issuer.to_owned(),
        };
        if !issuers.contains(&issuer) {
            return Err(MetadataError::Issuer);
        }
        let jwks_uri = text("jwks_uri")
            .and_then(Url::parse)
            .ok_or(MetadataError::JwksUri)?;
        if jwks_uri.authority != source.authority || jwks_uri.scheme != source.scheme {
            return Err(MetadataError::OtherHost);
        }
        Ok(Self {
            jwks_uri,
            cloud: text("cloud_instance_name").map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Metadata, MetadataError> {
        let source = Url::parse("https://login.example/t/.well-known/openid-configuration");
        let issuers = ["https://login.example/t/v2.0".to_owned()];
        Metadata::parse(text.as_bytes(), &source.unwrap(), &issuers, Some("t"))
    }

    #[test]
    fn follows_a_jwks_uri_of_the_same_host() {
        for issuer in [
            "https://login.example/t/v2.0",
            "https://login.example/{tenantid}/v2.0",
        ] {
            let metadata = parse(&format!(
                r#"{{"issuer":"{issuer}","jwks_uri":"https://login.example/t/keys",
                    "cloud_instance_name":"microsoftonline.com"}}"#
            ))
            .unwrap();
            assert_eq!(metadata.jwks_uri.path, "/t/keys");
            assert_eq!(metadata.cloud.as_deref(), Some("microsoftonline.com"));
        }
    }

    #[test]
    fn refuses_documents_that_lie() {
        use MetadataError::{Issuer, JwksUri, NotAnObject, OtherHost, TooLarge};
        let good = "https://login.example/t/v2.0";
        for (text, error) in [
            ("<html>".to_owned(), NotAnObject),
            ("[]".to_owned(), NotAnObject),
            ("{}".to_owned(), Issuer),
            (r#"{"issuer":"https://evil/t/v2.0"}"#.to_owned(), Issuer),
            (
                format!(r#"{{"issuer":"{good}","issuer":"{good}"}}"#),
                NotAnObject,
            ),
            (format!(r#"{{"issuer":"{good}"}}"#), JwksUri),
            (format!(r#"{{"issuer":"{good}","jwks_uri":7}}"#), JwksUri),
            (
                format!(r#"{{"issuer":"{good}","jwks_uri":"/keys"}}"#),
                JwksUri,
            ),
            (
                format!(r#"{{"issuer":"{good}","jwks_uri":"https://evil/keys"}}"#),
                OtherHost,
            ),
            (
                format!(r#"{{"issuer":"{good}","jwks_uri":"http://login.example/k"}}"#),
                OtherHost,
            ),
            (
                format!(r#"{{"issuer":"{good}","jwks_uri":"https://login.example:444/k"}}"#),
                OtherHost,
            ),
            (" ".repeat(MAX_DOCUMENT), NotAnObject),
            (" ".repeat(MAX_DOCUMENT + 1), TooLarge),
        ] {
            let short: String = text.chars().take(80).collect();
            assert_eq!(parse(&text), Err(error), "{short}");
        }
    }
}
