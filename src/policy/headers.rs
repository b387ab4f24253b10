//! `api_keys` and `forward`: which headers and parameters are looked for, and which are set.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::names::{header, hyphenated};
use super::reader::{Members, Node, Read, Shape, distinct};
use super::wording::{meant, quoted};
use super::{ApiKeyAction, ApiKeys, Forward, HeaderSource};

const API_KEY_HEADERS: [&str; 3] = ["api-key", "ocp-apim-subscription-key", "x-api-key"];
const API_KEY_QUERY: [&str; 2] = ["api-key", "subscription-key"];

/// Headers that carry the request itself or belong to one connection (RFC 9110 section 7.6.1).
const NOT_FORWARDED: [&str; 13] = [
    "authorization",
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

const SOURCES: [&str; 6] = [
    "app_id",
    "app_name",
    "tenant_id",
    "object_id",
    "roles",
    "claim.<name>",
];

static API_KEYS: Shape = Shape {
    example: r#"{"action": "strip"}"#,
    keys: &["action", "headers", "query"],
    refused: &[],
};

static FORWARD: Shape = Shape {
    example: r#"{"authorization": false, "headers": {"x-app-id": "app_id"}}"#,
    keys: &["authorization", "headers"],
    refused: &[],
};

pub(super) fn api_keys(policy: &Members<'_>) -> Read<ApiKeys> {
    let defaults = ApiKeys {
        action: ApiKeyAction::Deny,
        headers: API_KEY_HEADERS.map(str::to_owned).to_vec(),
        query: API_KEY_QUERY.map(str::to_owned).to_vec(),
    };
    let Some(node) = policy.get("api_keys") else {
        return Ok(defaults);
    };
    let members = node.members(&API_KEYS)?;
    let action = members.or("action", defaults.action, |node| {
        node.choice(&[("deny", ApiKeyAction::Deny), ("strip", ApiKeyAction::Strip)])
    });
    let headers = members.or("headers", defaults.headers, |node| {
        node.list("[\"api-key\"]", api_key_header).map(distinct)
    });
    let query = members.or("query", defaults.query, |node| {
        node.list("[\"api-key\"]", query_parameter).map(distinct)
    });
    Ok(ApiKeys {
        action: action?,
        headers: headers?,
        query: query?,
    })
}

fn api_key_header(node: &Node<'_>) -> Read<String> {
    let name = hyphenated(&header(node.string("api-key")?, node)?);
    if name == "authorization" {
        let problem = "\"authorization\" carries the token, so every request would be refused";
        return Err(node.note(problem, "leave it out"));
    }
    Ok(name)
}

fn query_parameter(node: &Node<'_>) -> Read<String> {
    let name = node.string("api-key")?;
    let is_plain = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
    if !is_plain {
        let problem = format!("{} is not a query parameter's name", quoted(name));
        let remedy = "write letters, digits and -._~, such as \"api-key\"";
        return Err(node.note(problem, remedy));
    }
    Ok(name.to_ascii_lowercase())
}

pub(super) fn forward(policy: &Members<'_>) -> Read<Forward> {
    let defaults = Forward {
        authorization: true,
        headers: Vec::new(),
    };
    let Some(node) = policy.get("forward") else {
        return Ok(defaults);
    };
    let members = node.members(&FORWARD)?;
    let authorization = members.or("authorization", defaults.authorization, |node| {
        node.boolean()
    });
    let headers = members.or("headers", defaults.headers, forwarded_headers);
    Ok(Forward {
        authorization: authorization?,
        headers: headers?,
    })
}

fn forwarded_headers(node: &Node<'_>) -> Read<Vec<(String, HeaderSource)>> {
    let mut taken = HashMap::new();
    node.map("{\"x-app-id\": \"app_id\"}", |name, source| {
        let header = forwarded_header(name, source, &mut taken);
        let source = header_source(source);
        Ok((header?, source?))
    })
}

fn forwarded_header(
    name: &str,
    at: &Node<'_>,
    taken: &mut HashMap<String, String>,
) -> Read<String> {
    let header = header(name, at)?;
    let key = hyphenated(&header);
    if NOT_FORWARDED.contains(&key.as_str()) {
        let problem = format!("{} belongs to the request itself", quoted(name));
        return Err(at.note(problem, "write a header of your own, such as \"x-app-id\""));
    }
    match taken.entry(key) {
        Entry::Vacant(entry) => {
            entry.insert(name.to_owned());
            Ok(header)
        }
        Entry::Occupied(first) => {
            let problem = format!(
                "{} is the same header as {}",
                quoted(name),
                quoted(first.get())
            );
            Err(at.note(
                problem,
                "keep one: letter case does not count, and _ equals -",
            ))
        }
    }
}

fn header_source(node: &Node<'_>) -> Read<HeaderSource> {
    let text = node.text("app_id")?;
    match text {
        "app_id" => Ok(HeaderSource::AppId),
        "app_name" => Ok(HeaderSource::AppName),
        "tenant_id" => Ok(HeaderSource::TenantId),
        "object_id" => Ok(HeaderSource::ObjectId),
        "roles" => Ok(HeaderSource::Roles),
        _ => match text.strip_prefix("claim.") {
            Some(name) if !name.is_empty() => Ok(HeaderSource::Claim(name.to_owned())),
            _ => {
                let problem = format!("{} is not a source", quoted(text));
                Err(node.note(problem, meant(text, &SOURCES)))
            }
        },
    }
}
