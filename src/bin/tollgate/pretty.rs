//! Policies as text, their keys in the order of the documentation.

use std::borrow::Cow;

use serde_json::Value;
use tollgate::json;

/// Keys in the order in which people look for them; others follow by the alphabet.
const ORDER: [&str; 59] = [
    "issuers",
    "api_keys",
    "roles",
    "app_id",
    "name",
    "tenant_id",
    "authority",
    "openid_config",
    "jwks_uri",
    "jwks",
    "cluster",
    "audiences",
    "required_claims",
    "algorithms",
    "app_claim",
    "clock_skew",
    "refresh",
    "values",
    "match",
    "separator",
    "every",
    "at_most_every",
    "keep_stale_for",
    "timeout",
    "action",
    "access",
    "deployments",
    "apps",
    "default_app",
    "public_paths",
    "cors_preflight",
    "limits",
    "calls",
    "tokens",
    "per",
    "count",
    "reserve",
    "operations",
    "caps",
    "content_filter_override",
    "forward",
    "authorization",
    "headers",
    "query",
    "responses",
    "format",
    "unauthenticated",
    "api_key",
    "forbidden",
    "limited",
    "quota",
    "unavailable",
    "status",
    "message",
    "mode",
    "usage",
    "log",
    "requests",
    "max_undecided",
];

/// A policy, or a part of one.
pub(crate) fn print(value: &Value) -> String {
    serde_json::to_string_pretty(&ordered(value)).unwrap_or_default()
}

fn ordered(value: &Value) -> json::Value<'static> {
    match value {
        Value::Null => json::Value::Null,
        Value::Bool(value) => json::Value::Bool(*value),
        Value::Number(number) => json::Value::Number(number.clone()),
        Value::String(text) => json::Value::String(text.clone().into()),
        Value::Array(values) => json::Value::Array(values.iter().map(ordered).collect()),
        Value::Object(members) => {
            let mut members: Vec<(Cow<'static, str>, _)> = members
                .iter()
                .map(|(name, value)| (name.clone().into(), ordered(value)))
                .collect();
            let rank = |name: &str| {
                ORDER
                    .iter()
                    .position(|known| *known == name)
                    .unwrap_or(ORDER.len())
            };
            members.sort_by_key(|(name, _)| rank(name));
            json::Value::Object(json::Object::from_members(members).unwrap_or_default())
        }
    }
}
