//! The policy as a whole, and its keys that are one value.

use super::answers::{log, responses};
use super::apps::apps;
use super::error::PolicyErrors;
use super::headers::{api_keys, forward};
use super::issuers::issuers;
use super::reader::{Errors, Members, Node, Read, Shape, foreign};
use super::roles::definitions;
use super::structure;
use super::usage::usage;
use super::wording::quoted;
use super::{CorsPreflight, Mode, Pattern, Policy};
use crate::json;

const SMALLEST: &str = concat!(
    r#"{"issuers": [{"tenant_id": "11111111-2222-3333-4444-555555555555", "#,
    r#""audiences": ["https://cognitiveservices.azure.com"], "cluster": "entra"}]}"#
);

/// Requests of one application and worker that may wait for their bodies unless the policy says otherwise: well
/// below the 1,024 requests that Envoy's circuit breaker lets be under way to a cluster by default.
const MAX_UNDECIDED: usize = 256;

static POLICY: Shape = Shape {
    example: SMALLEST,
    keys: &[
        "issuers",
        "api_keys",
        "apps",
        "default_app",
        "roles",
        "public_paths",
        "cors_preflight",
        "forward",
        "responses",
        "mode",
        "usage",
        "log",
        "max_undecided",
    ],
    refused: &[],
};

pub(super) fn policy(configuration: &[u8]) -> Result<Policy, PolicyErrors> {
    let errors = Errors::default();
    let policy = read_text(configuration, &errors);
    errors.judge(policy)
}

fn read_text(configuration: &[u8], errors: &Errors) -> Read<Policy> {
    let note = |problem, remedy| errors.note("$".to_owned(), problem, remedy);
    if configuration.iter().all(u8::is_ascii_whitespace) {
        return Err(note("the configuration is empty".to_owned(), at_least()));
    }
    // Text first: a structure is never JSON text.
    let value = match json::parse(configuration) {
        Ok(value) => value,
        Err(error) => structure::parse(configuration).ok_or_else(|| {
            let problem = format!("not valid JSON: {}", foreign(&error));
            note(problem, "a policy is one JSON object".to_owned())
        })?,
    };
    read_policy(&Node::root(&value, errors))
}

fn at_least() -> String {
    format!("a policy is required, at least {SMALLEST}")
}

fn read_policy(root: &Node<'_>) -> Read<Policy> {
    let members = root.members(&POLICY)?;
    let issuers = members.required("issuers", &at_least(), issuers);
    let api_keys = api_keys(&members);
    let (roles, defined) = definitions(&members);
    let apps = apps(&members, &roles);
    let public_paths = members.or("public_paths", Vec::new(), |node| {
        node.list("[\"/status\"]", path_pattern)
    });
    let cors_preflight = cors_preflight(&members);
    let forward = forward(&members);
    let responses = responses(&members);
    let mode = mode(&members);
    let usage = usage(&members, &apps);
    let log = log(&members);
    let max_undecided = max_undecided(&members);
    defined?;
    Ok(Policy {
        issuers: issuers?,
        api_keys: api_keys?,
        apps: apps?,
        public_paths: public_paths?,
        cors_preflight: cors_preflight?,
        forward: forward?,
        responses: responses?,
        mode: mode?,
        usage: usage?,
        log: log?,
        max_undecided: max_undecided?,
    })
}

fn cors_preflight(policy: &Members<'_>) -> Read<CorsPreflight> {
    let choices = [
        ("check", CorsPreflight::Check),
        ("pass", CorsPreflight::Pass),
    ];
    policy.or("cors_preflight", CorsPreflight::Check, |node| {
        node.choice(&choices)
    })
}

fn max_undecided(policy: &Members<'_>) -> Read<usize> {
    policy.or("max_undecided", MAX_UNDECIDED, |node| {
        let most = node.integer(1..=10_000)?;
        usize::try_from(most).map_err(|_| node.expected("a number"))
    })
}

fn mode(policy: &Members<'_>) -> Read<Mode> {
    let choices = [("enforce", Mode::Enforce), ("report", Mode::Report)];
    policy.or("mode", Mode::Enforce, |node| node.choice(&choices))
}

fn path_pattern(node: &Node<'_>) -> Read<Pattern> {
    let text = node.text("/status")?;
    if let Some((problem, remedy)) = path_fault(text) {
        return Err(node.note(format!("{} {problem}", quoted(text)), remedy));
    }
    Ok(match text.strip_suffix('*') {
        Some(prefix) => Pattern::Prefix(prefix.to_owned()),
        None => Pattern::Exact(text.to_owned()),
    })
}

/// What is wrong with a path pattern. A path that two servers could read in two ways must not
/// open anything.
fn path_fault(text: &str) -> Option<(&'static str, &'static str)> {
    let (path, star) = match text.strip_suffix('*') {
        Some(prefix) => (prefix, true),
        None => (text, false),
    };
    let fault = if !text.starts_with('/') {
        (
            "does not begin with /",
            "write an absolute path, such as \"/status\"",
        )
    } else if path.contains('*') {
        ("has * before its end", "write * only as the last character")
    } else if star && path == "/" {
        (
            "would make every path public",
            "write the paths that are public",
        )
    } else if path.contains(['?', '#']) {
        (
            "has a query or fragment",
            "write the path alone: queries are not compared",
        )
    } else if path.contains(['%', '\\', ';']) || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        (
            "has characters that servers read differently",
            "write a path without %, \\, ; and spaces",
        )
    } else if path.contains("//") || path.contains("..") || has_dot_segment(path) {
        (
            "has an empty or dot segment",
            "write the path without //, /./ and ..",
        )
    } else {
        return None;
    };
    Some(fault)
}

fn has_dot_segment(path: &str) -> bool {
    path.split('/').any(|segment| segment == ".")
}
