//! Where an issuer's keys come from: `openid_config`, `jwks_uri` or `jwks`.

use super::reader::{Members, Node, Read, Shape, foreign};
use super::time::{DAY, HOUR, MINUTE, SECOND, Span, duration};
use super::wording::quoted;
use super::{FetchStart, KeyFetch, KeySource, Refresh, Tenant};
use crate::json::Value;
use crate::keys::KeySet;
use crate::url::Url;

const DEFAULTS: Refresh = Refresh {
    every: HOUR,
    at_most_every: 5 * MINUTE,
    keep_stale_for: 24 * HOUR,
    timeout: 5 * SECOND,
};

const INTERVAL: Span = Span {
    millis: SECOND..=366 * DAY,
    words: "1s to 8784h (366 days)",
};

const STALE: Span = Span {
    millis: 0..=366 * DAY,
    words: "0s to 8784h (366 days)",
};

const TIMEOUT: Span = Span {
    millis: 100..=30 * SECOND,
    words: "100ms to 30s",
};

static REFRESH: Shape = Shape {
    example: r#"{"every": "1h"}"#,
    keys: &["every", "at_most_every", "keep_stale_for", "timeout"],
    refused: &[],
};

/// The keys of the policy that name a source.
const SOURCES: [&str; 3] = ["openid_config", "jwks_uri", "jwks"];

const JWK_SET: &str = r#"{"keys": [{"kty": "RSA", "kid": "...", "n": "...", "e": "AQAB"}]}"#;

pub(super) fn key_source(members: &Members<'_>, tenant: &Read<Option<Tenant>>) -> Read<KeySource> {
    let single = single_source(members);
    let cluster = |node: &Node<'_>| node.text("entra").map(str::to_owned);
    if members.has("jwks") {
        // What would fetch them has no effect, and may stay while they are tried out.
        let keys = members.required("jwks", JWK_SET, key_set);
        let cluster = members.optional("cluster", cluster);
        let refresh = members.optional("refresh", refresh);
        single.and(cluster).and(refresh)?;
        return Ok(KeySource::Inline(keys?));
    }
    let start = fetch_start(members, tenant);
    let cluster = members.required(
        "cluster",
        "add the gateway's cluster that reaches the host of the keys, such as \"entra\"",
        cluster,
    );
    let refresh = members.or("refresh", DEFAULTS, refresh);
    single?;
    Ok(KeySource::Fetched(KeyFetch {
        start: start?,
        cluster: cluster?,
        refresh: refresh?,
    }))
}

fn single_source(members: &Members<'_>) -> Read<()> {
    let given: Vec<&str> = SOURCES.into_iter().filter(|key| members.has(key)).collect();
    if given.len() <= 1 {
        return Ok(());
    }
    let problem = format!("takes its keys from {}", given.join(" and "));
    Err(members.node().note(problem, "keep one of them"))
}

/// A JWK Set, as an object or as the text of one.
fn key_set(node: &Node<'_>) -> Read<KeySet> {
    let keys = match node.value() {
        Value::String(text) => KeySet::parse(text.as_bytes()),
        value @ Value::Object(_) => KeySet::from_value(value),
        _ => return Err(node.expected(&format!("a JWK Set such as {JWK_SET}"))),
    };
    keys.map_err(|error| {
        node.note(
            foreign(&error),
            format!("write a JWK Set such as {JWK_SET}"),
        )
    })
}

fn fetch_start(members: &Members<'_>, tenant: &Read<Option<Tenant>>) -> Read<FetchStart> {
    let metadata = members.optional("openid_config", url);
    let keys = members.optional("jwks_uri", url);
    let tenant = tenant.as_ref().map_err(|noted| *noted)?;
    match (metadata?, keys?, tenant) {
        (Some(url), _, _) => Ok(FetchStart::Metadata(url)),
        (None, Some(url), _) => Ok(FetchStart::Keys(url)),
        (None, None, Some(tenant)) => tenant_metadata(members, tenant),
        (None, None, None) => Err(members.node().note(
            "has no keys",
            "add openid_config, jwks_uri or jwks (tenant_id brings openid_config)",
        )),
    }
}

fn tenant_metadata(members: &Members<'_>, tenant: &Tenant) -> Read<FetchStart> {
    let Tenant { id, authority } = tenant;
    let address = format!("{authority}/{id}/v2.0/.well-known/openid-configuration");
    Url::parse(&address)
        .map(FetchStart::Metadata)
        .ok_or_else(|| {
            let problem = format!("{} is not an address", quoted(&address));
            members.node().note(problem, "write openid_config")
        })
}

fn url(node: &Node<'_>) -> Read<Url> {
    const EXAMPLE: &str = "https://login.example.com/.well-known/openid-configuration";
    let text = node.string(EXAMPLE)?;
    Url::parse(text).ok_or_else(|| {
        let problem = format!("{} is not an http or https URL", quoted(text));
        node.note(
            problem,
            format!("write an absolute URL, such as {EXAMPLE:?}"),
        )
    })
}

fn refresh(node: &Node<'_>) -> Read<Refresh> {
    let members = node.members(&REFRESH)?;
    let interval = |node: &Node<'_>| duration(node, &INTERVAL);
    let every = members.or("every", DEFAULTS.every, interval);
    let at_most_every = members.optional("at_most_every", interval);
    let keep_stale_for = members.or("keep_stale_for", DEFAULTS.keep_stale_for, |node| {
        duration(node, &STALE)
    });
    let timeout = members.or("timeout", DEFAULTS.timeout, |node| duration(node, &TIMEOUT));
    let (every, at_most_every) = (every?, at_most_every?);
    if let Some(node) = members.get("at_most_every")
        && at_most_every.is_some_and(|least| least > every)
    {
        let problem = "is longer than every";
        return Err(node.note(problem, "write at most the value of every (default \"1h\")"));
    }
    Ok(Refresh {
        every,
        // The default must not stand in the way of a shorter `every`.
        at_most_every: at_most_every.unwrap_or(DEFAULTS.at_most_every).min(every),
        keep_stale_for: keep_stale_for?,
        timeout: timeout?,
    })
}
