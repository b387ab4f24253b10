//! A policy with every default filled in.

use serde_json::{Map, Value, json};
use tollgate::policy::{
    Access, AnswerFormat, ApiKeyAction, App, AppClaim, CorsPreflight, FetchStart, Issuer,
    KeySource, Mode, Policy, Responses, StreamOptions, default_separator,
};
use tollgate::telling::field_name;

use crate::place::Embedded;

/// What is written stays as it is; what is left out takes its default from the policy in force.
pub(super) fn print(embedded: &Embedded, policy: &Policy) -> String {
    let written = embedded
        .read
        .as_ref()
        .ok()
        .map(|root| root.to_value().to_json());
    let written = written.and_then(|text| serde_json::from_str(&text).ok());
    let mut effective: Value = written.unwrap_or_default();
    if let Some(root) = effective.as_object_mut() {
        fill(root, policy);
    }
    crate::pretty::print(&effective)
}

fn fill(root: &mut Map<String, Value>, policy: &Policy) {
    let issuers = root.get_mut("issuers").and_then(Value::as_array_mut);
    for (written, issuer) in issuers.into_iter().flatten().zip(&policy.issuers) {
        complete(written, &defaults_of_issuer(issuer, written));
        for claim in written
            .get_mut("required_claims")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let mut defaults = json!({ "values": [], "match": "all" });
            let name = claim.get("name").and_then(Value::as_str);
            if let Some(separator) = name.and_then(default_separator) {
                complete(&mut defaults, &json!({ "separator": separator }));
            }
            complete(claim, &defaults);
        }
    }
    complete_root(root, policy);
    let apps = root.get_mut("apps").and_then(Value::as_array_mut);
    for (written, app) in apps.into_iter().flatten().zip(&policy.apps.listed) {
        complete(
            written,
            &json!({ "name": app.name, "access": "allow", "limits": [], "caps": of_caps(app) }),
        );
        complete_limits(written);
    }
    if let Some(written) = root.get_mut("default_app") {
        complete(written, &of_default_app(&policy.apps.default_app));
        complete_limits(written);
    }
}

fn complete_root(root: &mut Map<String, Value>, policy: &Policy) {
    let defaults = json!({
        "api_keys": {
            "action": match policy.api_keys.action {
                ApiKeyAction::Deny => "deny",
                ApiKeyAction::Strip => "strip",
            },
            "headers": policy.api_keys.headers,
            "query": policy.api_keys.query,
        },
        "apps": [],
        "default_app": of_default_app(&policy.apps.default_app),
        "public_paths": [],
        "cors_preflight": match policy.cors_preflight {
            CorsPreflight::Check => "check",
            CorsPreflight::Pass => "pass",
        },
        "forward": { "authorization": policy.forward.authorization, "headers": {} },
        "responses": of_responses(&policy.responses),
        "mode": match policy.mode {
            Mode::Enforce => "enforce",
            Mode::Report => "report",
        },
        "usage": {
            "read": policy.usage.read,
            "image_tokens": policy.usage.image_tokens,
            "stream_options": match policy.usage.stream_options {
                StreamOptions::Keep => "keep",
                StreamOptions::Inject => "inject",
            },
        },
        "log": {
            "requests": policy.log.requests,
            "filter_state": policy.log.filter_state.iter()
                .map(|field| field_name(*field).trim_start_matches("tollgate."))
                .collect::<Vec<_>>(),
        },
        "max_undecided": policy.max_undecided,
    });
    for (name, default) in defaults.as_object().into_iter().flatten() {
        match root.get_mut(name) {
            None => {
                root.insert(name.clone(), default.clone());
            }
            Some(written) => complete(written, default),
        }
    }
}

fn defaults_of_issuer(issuer: &Issuer, written: &Value) -> Value {
    let mut defaults = Map::new();
    let mut set = |name: &str, value: Value| defaults.insert(name.to_owned(), value);
    let common = json!({
        "name": issuer.name,
        "issuers": issuer.issuers,
        "required_claims": [],
        "algorithms": issuer.algorithms.iter().map(|one| one.name()).collect::<Vec<_>>(),
        "clock_skew": format!("{}s", issuer.clock_skew),
    });
    for (name, value) in common.as_object().into_iter().flatten() {
        set(name, value.clone());
    }
    if let Some(tenant) = &issuer.tenant {
        set("authority", tenant.authority.clone().into());
    }
    if let AppClaim::Named(name) = &issuer.app_claim {
        set("app_claim", name.clone().into());
    }
    if let KeySource::Fetched(fetch) = &issuer.keys {
        let refresh = &fetch.refresh;
        set(
            "refresh",
            json!({
                "every": millis(refresh.every), "at_most_every": millis(refresh.at_most_every),
                "keep_stale_for": millis(refresh.keep_stale_for), "timeout": millis(refresh.timeout),
            }),
        );
        if let (FetchStart::Metadata(url), None) = (&fetch.start, written.get("jwks_uri")) {
            set("openid_config", url.to_string().into());
        }
    }
    Value::Object(defaults)
}

fn of_default_app(app: &App) -> Value {
    let access = match app.access {
        Access::Allow => "allow",
        Access::Deny => "deny",
    };
    json!({ "access": access, "limits": [], "caps": of_caps(app) })
}

fn of_caps(app: &App) -> Value {
    json!({ "content_filter_override": app.caps.content_filter_override })
}

fn of_responses(responses: &Responses) -> Value {
    json!({
        "format": match responses.format {
            AnswerFormat::OpenAi => "openai",
            AnswerFormat::Apim => "apim",
        },
        "unauthenticated": { "status": responses.unauthenticated.status },
        "api_key": { "status": responses.api_key.status },
        "forbidden": { "status": responses.forbidden.status },
        "limited": { "status": responses.limited.status },
        "quota": { "status": responses.quota.status },
        "unavailable": { "status": responses.unavailable.status },
    })
}

fn complete_limits(app: &mut Value) {
    for limit in app
        .get_mut("limits")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        complete(limit, &json!({ "count": "all" }));
        if limit.get("tokens").is_some() {
            complete(limit, &json!({ "reserve": false }));
        }
    }
}

/// Adds the members that are not written, in objects inside of them too.
fn complete(written: &mut Value, defaults: &Value) {
    let (Some(written), Some(defaults)) = (written.as_object_mut(), defaults.as_object()) else {
        return;
    };
    for (name, default) in defaults {
        match written.get_mut(name) {
            Some(inner) => complete(inner, default),
            None => {
                written.insert(name.clone(), default.clone());
            }
        }
    }
}

/// A duration as a policy has it, in the largest unit that is whole.
fn millis(millis: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let whole = |(unit, _): &&(u64, &str)| millis > 0 && millis.is_multiple_of(*unit);
    match UNITS.iter().find(whole) {
        Some((unit, name)) => format!("{}{name}", millis.checked_div(*unit).unwrap_or_default()),
        None => format!("{millis}ms"),
    }
}
