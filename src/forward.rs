//! What the backend receives of a request that goes on.

use crate::credential::Credential;
use crate::json::Value;
use crate::jwt::{Caller, Claims};
use crate::policy::{ApiKeyAction, App, HeaderSource, Policy};
use crate::request::{PROTOCOLS, RequestHead, protocols_without_keys};

/// Changes to the headers of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    /// Names to remove, with every value.
    pub remove: Vec<Vec<u8>>,
    /// Names and values to set, in place of any that are there.
    pub set: Vec<(String, Vec<u8>)>,
}

impl HeaderChanges {
    /// What every request loses before anything is set: identity headers and method overrides
    /// that the caller has no business to send, and keys where the policy strips them.
    #[must_use]
    pub fn cleaning(head: &RequestHead<'_>, policy: &Policy) -> Self {
        let mut changes = Self::default();
        changes
            .remove
            .extend(head.foreign.iter().map(|name| name.to_vec()));
        if !policy.forward.authorization {
            changes.remove.push(b"authorization".to_vec());
        }
        let query = head.token_in_query || head.empty_key_in_query;
        if query || policy.api_keys.action == ApiKeyAction::Strip {
            changes.strip(head, policy);
        }
        changes
    }

    /// Takes out what is no credential here: tokens in the query, parameters for a key with nothing in them, and keys
    /// where the policy strips them.
    #[cold]
    #[inline(never)]
    fn strip(&mut self, head: &RequestHead<'_>, policy: &Policy) {
        let strips = policy.api_keys.action == ApiKeyAction::Strip;
        if head.token_in_query || head.key_in_query || head.empty_key_in_query {
            let keys = &policy.api_keys.query;
            let path = if strips {
                head.path_without(keys)
            } else {
                head.path_without_empty(keys)
            };
            self.set.push((":path".to_owned(), path));
        }
        if !strips {
            return;
        }
        self.remove
            .extend(head.key_headers.iter().map(|(name, _)| name.to_vec()));
        if let Some(protocols) = &head.key_protocols {
            let names = protocols.iter().map(|(name, _)| *name);
            let others = names.filter(|name| *name != PROTOCOLS.as_bytes());
            self.remove.extend(others.map(<[u8]>::to_vec));
            self.set_or_remove(PROTOCOLS, protocols_without_keys(protocols));
        }
    }

    /// Adds what a caller's request gains and loses.
    pub fn identify(
        &mut self,
        caller: &Caller,
        app: &App,
        credential: &Credential<'_>,
        policy: &Policy,
    ) {
        for (name, source) in &policy.forward.headers {
            if let Some(value) = header_value(source, caller.claims(), app) {
                self.set.push((name.clone(), value.into_bytes()));
            }
        }
        if policy.forward.authorization
            && let Credential::Bearer {
                token,
                repeated: true,
            } = credential
        {
            self.set
                .push(("authorization".to_owned(), [b"Bearer ", *token].concat()));
        }
    }

    fn set_or_remove(&mut self, name: &str, value: Vec<u8>) {
        if value.is_empty() {
            self.remove.push(name.as_bytes().to_vec());
        } else {
            self.set.push((name.to_owned(), value));
        }
    }
}

/// The application's name for people: from the policy, else its id.
#[must_use]
pub fn app_name(app: &App, claims: &Claims) -> String {
    app.name
        .clone()
        .unwrap_or_else(|| claims.app_id.to_string())
}

fn header_value(source: &HeaderSource, claims: &Claims, app: &App) -> Option<String> {
    match source {
        HeaderSource::AppId => Some(claims.app_id.to_string()),
        HeaderSource::AppName => Some(app_name(app, claims)),
        HeaderSource::TenantId => claims.tid.map(|tid| tid.to_string()),
        HeaderSource::ObjectId => claims.oid.map(|oid| oid.to_string()),
        HeaderSource::Roles => claims.named("roles").and_then(claim_text),
        HeaderSource::Claim(name) => claims.named(name).and_then(claim_text),
    }
}

/// A claim as a header value: texts, numbers and booleans as they are, arrays of them joined
/// with commas. Whatever could end or split the value is percent-encoded.
fn claim_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(encode(text, false)),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Array(values) => {
            let texts: Option<Vec<_>> = values
                .iter()
                .map(|value| match value {
                    Value::String(text) => Some(encode(text, true)),
                    Value::Array(_) => None,
                    other => claim_text(other),
                })
                .collect();
            Some(texts?.join(","))
        }
        Value::Null | Value::Object(_) => None,
    }
}

fn encode(text: &str, in_list: bool) -> String {
    use std::fmt::Write as _;
    let last = text.len().saturating_sub(1);
    text.bytes().enumerate().fold(
        String::with_capacity(text.len()),
        |mut encoded, (at, byte)| {
            // Outer spaces would be lost on the way, and with them the difference to another value.
            let inner_space = byte == b' ' && at != 0 && at != last;
            let plain = (byte.is_ascii_graphic() || inner_space)
                && byte != b'%'
                && !(in_list && byte == b',');
            if plain {
                encoded.push(char::from(byte));
            } else {
                // Writing to a string cannot fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
            encoded
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn claims_become_one_safe_line() {
        for (claim, expected) in [
            (r#""plain text""#, Some("plain text")),
            (r#""J\u00fcrgen""#, Some("J%C3%BCrgen")),
            (r#""a\r\nx-admin: 1""#, Some("a%0D%0Ax-admin: 1")),
            (r#""100%""#, Some("100%25")),
            (r#""  boss ""#, Some("%20 boss%20")),
            (r#""a,b""#, Some("a,b")),
            (r#"["a","b,c",7,true]"#, Some("a,b%2Cc,7,true")),
            ("[]", Some("")),
            ("12", Some("12")),
            ("null", None),
            (r#"{"a":1}"#, None),
            ("[[1]]", None),
        ] {
            let value = json::parse(claim.as_bytes()).unwrap();
            assert_eq!(claim_text(&value).as_deref(), expected, "{claim}");
        }
    }

    #[test]
    fn claims_arrive_as_the_documentation_says() {
        let document = include_str!("../docs/configuration.md");
        for (claim, header) in [
            ("\"J\u{fc}rgen, 100%\"", "J%C3%BCrgen, 100%25"),
            (r#"" boss""#, "%20boss"),
            (r#"["a", "b,c", 7, true]"#, "a,b%2Cc,7,true"),
        ] {
            let value = json::parse(claim.as_bytes()).unwrap();
            assert_eq!(claim_text(&value).as_deref(), Some(header), "{claim}");
            assert!(document.contains(&format!("`{claim}`")), "{claim}");
            assert!(document.contains(&format!("`{header}`")), "{header}");
        }
        for nothing in ["[null]", r#"["a",{"b":1}]"#] {
            let value = json::parse(nothing.as_bytes()).unwrap();
            assert_eq!(claim_text(&value), None, "{nothing}");
        }
    }
}
