//! The token endpoint: the client credentials grant, and Entra's errors.

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::keys::KeyStore;
use crate::message::{Received, Reply};
use crate::random::{self, is_guid};
use crate::tokens::{self, LIFETIME, MintRequest, Version, mint};

/// The one secret that every application has.
const SECRET: &str = "stand-in-secret";
/// What Entra says of a token's lifetime: a second less than it is.
const EXPIRES_IN: u64 = LIFETIME - 1;

pub(super) fn answer(received: &Received, tenant: &str, authority: &str, keys: &KeyStore) -> Reply {
    let reply = match grant(received, tenant, authority, keys) {
        Ok(body) => Reply::ok(&body),
        Err(refusal) => refusal.reply(),
    };
    reply
        .with("cache-control", "no-store, no-cache")
        .with("pragma", "no-cache")
}

fn grant(
    received: &Received,
    tenant: &str,
    authority: &str,
    keys: &KeyStore,
) -> Result<Value, Refusal> {
    if !is_guid(tenant) {
        return Err(Refusal::unknown_tenant(tenant));
    }
    match required(received, "grant_type")?.as_str() {
        "client_credentials" => {}
        other => return Err(Refusal::unsupported_grant(other)),
    }
    let client = required(received, "client_id")?;
    if !is_guid(&client) {
        return Err(Refusal::unknown_client(&client, tenant));
    }
    match received.form("client_secret") {
        Some(secret) if secret == SECRET => {}
        Some(_) => return Err(Refusal::wrong_secret(&client)),
        None => return Err(Refusal::no_secret()),
    }
    let resource = resource(received)?;
    let asked_for_v2 = [received.form("version"), received.query("version")]
        .into_iter()
        .any(|version| version.as_deref() == Some("2"));
    let request = MintRequest {
        tenant: Some(tenant.to_owned()),
        client_id: Some(client),
        audience: Some(resource.clone()),
        version: if asked_for_v2 || is_guid(&resource) {
            Version::V2
        } else {
            Version::V1
        },
        ..MintRequest::default()
    };
    let now = tokens::now();
    let token = mint(&request, authority, keys, now);
    Ok(body(received, &token, &resource, now))
}

/// The two endpoints differ: the older one writes numbers as text.
fn body(received: &Received, token: &str, resource: &str, now: u64) -> Value {
    if received.path().ends_with("/v2.0/token") {
        return json!({
            "token_type": "Bearer", "expires_in": EXPIRES_IN, "ext_expires_in": EXPIRES_IN,
            "access_token": token,
        });
    }
    json!({
        "token_type": "Bearer", "expires_in": EXPIRES_IN.to_string(),
        "ext_expires_in": EXPIRES_IN.to_string(), "expires_on": (now + LIFETIME).to_string(),
        "not_before": now.to_string(), "resource": resource, "access_token": token,
    })
}

fn required(received: &Received, name: &'static str) -> Result<String, Refusal> {
    let value = received.form(name).filter(|value| !value.is_empty());
    value.ok_or_else(|| Refusal::missing(name))
}

/// What the token is for: the resource, or the scope without `/.default`.
fn resource(received: &Received) -> Result<String, Refusal> {
    let given = |name| received.form(name).filter(|value| !value.is_empty());
    if let Some(resource) = given("resource") {
        return Ok(resource);
    }
    let scopes = given("scope").ok_or_else(|| Refusal::missing("scope"))?;
    let first = scopes.split_whitespace().next().unwrap_or_default();
    Ok(first.strip_suffix("/.default").unwrap_or(first).to_owned())
}

/// Why there is no token, in Entra's words.
pub(super) struct Refusal {
    status: StatusCode,
    error: &'static str,
    code: u32,
    text: String,
}

impl Refusal {
    fn bad_request(error: &'static str, code: u32, text: String) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            error,
            code,
            text,
        }
    }

    pub(super) fn unknown_tenant(tenant: &str) -> Self {
        let text = format!(
            "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and \
             are signing into the correct cloud."
        );
        Self::bad_request("invalid_tenant", 90002, text)
    }

    fn missing(name: &str) -> Self {
        let text = format!("The request body must contain the following parameter: '{name}'.");
        Self::bad_request("invalid_request", 900144, text)
    }

    fn unsupported_grant(grant: &str) -> Self {
        let text = format!("The app requested an unsupported grant type '{grant}'.");
        Self::bad_request("unsupported_grant_type", 70003, text)
    }

    fn unknown_client(client: &str, tenant: &str) -> Self {
        let text = format!(
            "Application with identifier '{client}' was not found in the directory '{tenant}'."
        );
        Self::bad_request("unauthorized_client", 700016, text)
    }

    fn no_secret() -> Self {
        let text = "The request body must contain the following parameter: 'client_assertion' or \
                    'client_secret'.";
        Self {
            status: StatusCode::UNAUTHORIZED,
            error: "invalid_client",
            code: 7000218,
            text: text.to_owned(),
        }
    }

    fn wrong_secret(client: &str) -> Self {
        let text = format!(
            "Invalid client secret provided. Ensure the secret being sent in the request is the \
             client secret value, not the client secret ID, for a secret added to app '{client}'."
        );
        Self {
            status: StatusCode::UNAUTHORIZED,
            error: "invalid_client",
            code: 7000215,
            text,
        }
    }

    pub(super) fn reply(self) -> Reply {
        let Self {
            status,
            error,
            code,
            text,
        } = self;
        let (trace, correlation) = (random::guid(), random::guid());
        let time = timestamp(tokens::now());
        let description = format!(
            "AADSTS{code}: {text} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {time}"
        );
        let body = json!({
            "error": error, "error_description": description, "error_codes": [code],
            "timestamp": time, "trace_id": trace, "correlation_id": correlation,
            "error_uri": format!("https://login.microsoftonline.com/error?code={code}"),
        });
        Reply::json(status, &body)
    }
}

/// `2024-05-31 08:15:00Z`, as Entra writes it.
fn timestamp(now: u64) -> String {
    let (days, seconds) = (now / 86_400, now % 86_400);
    // Years that begin in March have the leap day at their end.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::timestamp;

    #[test]
    fn timestamps_are_utc() {
        assert_eq!(timestamp(0), "1970-01-01 00:00:00Z");
        assert_eq!(timestamp(1_709_210_096), "2024-02-29 12:34:56Z");
        assert_eq!(timestamp(1_735_689_599), "2024-12-31 23:59:59Z");
    }
}
