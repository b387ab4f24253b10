//! What codes mean, and what helps.

use std::io::Write;

use serde_json::{Value, json};
use tollgate::refusal::Code;

use crate::Ended;
use crate::failure::Failure;
use crate::request_log::{self, Found};

/// What a code means and what helps: for the caller, then for the operator.
fn advice(code: Code) -> [&'static str; 2] {
    match code {
        Code::TokenNotPresent => [
            "Send `authorization: Bearer <token>`, with one token for https://cognitiveservices.azure.com.",
            "A proxy in front may take the header away. Paths that need no token go under public_paths.",
        ],
        Code::JwtInvalid => [
            "Send an access token as Entra ID issued it: not an ID token, not cut, not quoted, and one only.",
            "At level debug the log says what is wrong with it. Other algorithms than RS256 go under issuers[].algorithms.",
        ],
        Code::TokenSignatureKeyNotFound => [
            "Get a new token; the one sent is signed with a key that the issuer does not publish.",
            "After a key rotation a new key may take refresh.at_most_every to be known. A steady flow points to a foreign issuer, or to jwks in the policy that is out of date.",
        ],
        Code::TokenSignatureInvalid => [
            "Get a new token, and send it as it is. Tokens for Microsoft Graph cannot be verified by others.",
            "Many of these are an attack, or callers with tokens for Microsoft Graph.",
        ],
        Code::TokenIssuerNotAllowed => [
            "Get the token from the tenant that the service trusts.",
            "Compare iss, ver and tid of the token with issuers. Each tenant needs an entry of its own.",
        ],
        Code::TokenAudienceNotAllowed => [
            "Get the token for the right resource: scope https://cognitiveservices.azure.com/.default.",
            "Compare aud of the token with issuers[].audiences. v1 tokens have an address there, v2 tokens a GUID.",
        ],
        Code::TokenExpired => [
            "Get a new token; libraries such as MSAL renew it by themselves.",
            "If many callers are told so, compare the clocks of gateway and callers; clock_skew allows for 60 s.",
        ],
        Code::TokenNotYetValid => [
            "Compare the caller's clock with the time: nbf or iat lies in the future.",
            "Compare the gateway's clock with the time; clock_skew allows for 60 s.",
        ],
        Code::TokenClaimNotFound => [
            "Ask for the role or scope that the service requires, then get a new token.",
            "The token lacks exp, ver, tid, the application's id, or a claim of required_claims.",
        ],
        Code::TokenClaimValueNotAllowed => [
            "Ask for the role or scope that the service requires, then get a new token.",
            "A claim of required_claims has none of the wanted values, or tid is that of another tenant.",
        ],
        Code::AuthenticationTypeDisabled => [
            "Send no API key, also none beside a token: leave AZURE_OPENAI_API_KEY unset and use a token credential.",
            "Keys are looked for where api_keys says. \"action\": \"strip\" removes them and lets the token decide.",
        ],
        Code::AppNotAllowed => [
            "Ask the operator to list the application.",
            "The application has \"access\": \"deny\", its own or that of default_app.",
        ],
        Code::PermissionDenied => [
            "Ask the operator for a role that grants the data action which the message names.",
            "`tollgate operations --role NAME` lists what a role lets through. What is no known operation, or has two readings, no role grants.",
        ],
        Code::DeploymentNotAllowed => [
            "Use a deployment that the application may use, and name it once, in a plain way.",
            "The deployment is none of the application's deployments, or stands where a gateway cannot see it.",
        ],
        Code::ParameterNotAllowed => [
            "Leave out the parameter that the message names, or send it once and with a value that is allowed.",
            "The policy does not allow the application to send this parameter.",
        ],
        Code::BodyNotReadable => [
            "Send plain JSON in UTF-8, each member once; the message says what is wrong.",
            "A limit or deployments need the body read, and two servers could read this one differently.",
        ],
        Code::ContentEncodingNotSupported => [
            "Send the body uncompressed, without content-encoding, and in UTF-8.",
            "A limit or deployments need the body read, and the gateway does not decompress it.",
        ],
        Code::CallExceedsLimit => [
            "Shorten the prompt, or lower max_tokens: the call is larger than its limit and can never pass.",
            "A limit with reserve is smaller than what one call may use. Raise tokens, or have callers name max_tokens.",
        ],
        Code::RateLimitExceeded => [
            "Wait for as long as retry-after says; the OpenAI SDKs do so by themselves. Without it the wait is longer than 5 minutes.",
            "The application made all the calls of a limit's window. Raise calls, or count successes only.",
        ],
        Code::TokenLimitExceeded => [
            "Wait for as long as retry-after says.",
            "The application used all the tokens of a limit's window, or has reserved them.",
        ],
        Code::QuotaExceeded => [
            "Wait for the next period: x-ratelimit-reset-requests or -tokens says how long.",
            "The application has used up its quota of the calendar period.",
        ],
        Code::KeysUnavailable => [
            "Try again after retry-after; the token may be good.",
            "The issuer's keys could not be fetched: look for tollgate_key_fetches with another result than ok, and at the cluster.",
        ],
        Code::InternalError => [
            "Try again.",
            "The gateway refused what the module asked of it, so nothing passed: compare its allowed_capabilities with those of envoy/envoy.yaml.",
        ],
    }
}

/// Explains the first line of a request log.
pub(super) fn explain_line(
    name: &str,
    text: &str,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<Ended, Failure> {
    let line = text.lines().find_map(record).ok_or_else(|| {
        let remedy = "give a line with {\"time\":...,\"outcome\":...}, as Tollgate writes one per request; what log collectors put around it does not matter";
        Failure::with_remedy(format!("{name}: no line of the request log"), remedy)
    })?;
    let code = line.get("code").and_then(Value::as_str);
    let outcome = line
        .get("outcome")
        .and_then(Value::as_str)
        .unwrap_or("none");
    let found = code.and_then(|name| Code::ALL.into_iter().find(|code| code.name() == name));
    let advice = found.map(advice);
    let message = found.map_or("", Code::message);
    if as_json {
        let advice =
            advice.map(|[caller, operator]| json!({ "caller": caller, "operator": operator }));
        let explained =
            json!({ "outcome": outcome, "code": code, "message": message, "advice": advice });
        writeln!(out, "{explained:#}")?;
    } else {
        write!(out, "{}", in_words(&line, outcome, code, message, advice))?;
    }
    Ok(Ended::Well)
}

/// The record in a line of a log, whatever it is wrapped in.
fn record(line: &str) -> Option<Value> {
    match request_log::find(line.as_bytes()) {
        Found::Record(text) => serde_json::from_slice(&text).ok(),
        Found::Broken | Found::Other => None,
    }
}

fn in_words(
    line: &Value,
    outcome: &str,
    code: Option<&str>,
    message: &str,
    advice: Option<[&str; 2]>,
) -> String {
    let member = |name: &str| match line.get(name) {
        Some(Value::String(text)) => Some(text.escape_debug().to_string()),
        None | Some(Value::Null) => None,
        Some(other) => Some(other.to_string()),
    };
    let shown = |name| member(name).unwrap_or_else(|| "?".to_owned());
    let mut text = format!("{}: {} {}\n", shown("time"), shown("method"), shown("path"));
    let told = [
        ("application", "app_name"),
        ("id", "app_id"),
        ("tenant", "tenant_id"),
        ("action", "action"),
        ("deployment", "deployment"),
        ("status", "status"),
        ("took ms", "duration_ms"),
        ("tokens", "total_tokens"),
        ("from", "client_ip"),
    ];
    for (label, name) in told {
        if let Some(value) = member(name) {
            text.push_str(&format!("  {label:12} {value}\n"));
        }
    }
    let reported = match outcome.strip_prefix("would_") {
        Some(_) => " (report mode: it was not refused, and would have been)",
        None => "",
    };
    text.push_str(&format!("\n{outcome}{reported}"));
    match (code, advice) {
        (None, _) => text.push_str(": it went on to the backend, whose status is told.\n"),
        (Some(code), None) => text.push_str(&format!(": {code}, a code of another version.\n")),
        (Some(code), Some([caller, operator])) => {
            text.push_str(&format!(": {code}. {message}\n"));
            text.push_str(&format!(
                "\n  The caller: {caller}\n  The operator: {operator}\n"
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_listed_once() {
        for (index, code) in Code::ALL.iter().enumerate() {
            assert_eq!(
                Code::ALL.iter().position(|other| other == code),
                Some(index)
            );
            assert!(advice(*code).iter().all(|advice| advice.ends_with('.')));
        }
    }
}
