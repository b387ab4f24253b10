//! What is legal in a policy, and probably not meant.

use std::collections::HashMap;

use serde_json::Value;
use tollgate::policy::{Access, ApiKeyAction, App, FetchStart, KeySource, Mode, Pattern, Policy};
use tollgate::telling::{NO_APP, UNLISTED, label_value};
use tollgate::url::Scheme;

use crate::place::Embedded;
use crate::report::{Finding, Severity};

/// Longest clock skew that goes without saying, in seconds: what Microsoft's own libraries allow.
const USUAL_SKEW: u64 = 300;

/// Claims of Entra ID that are lists, or texts that hold one value.
const UNSPLIT_CLAIMS: [&str; 20] = [
    "acr",
    "acrs",
    "amr",
    "appid",
    "appidacr",
    "azp",
    "azpacr",
    "email",
    "groups",
    "idp",
    "idtyp",
    "ipaddr",
    "oid",
    "preferred_username",
    "roles",
    "sub",
    "tid",
    "upn",
    "ver",
    "wids",
];

/// Audiences of services that are not Azure OpenAI. Their tokens are in many hands.
const FOREIGN_AUDIENCES: [(&str, &str); 7] = [
    ("00000003-0000-0000-c000-000000000000", "Microsoft Graph"),
    ("https://graph.microsoft.com", "Microsoft Graph"),
    ("00000002-0000-0000-c000-000000000000", "Azure AD Graph"),
    ("https://graph.windows.net", "Azure AD Graph"),
    ("https://management.azure.com", "Azure Resource Manager"),
    (
        "https://management.core.windows.net",
        "Azure Resource Manager",
    ),
    (
        "797f4846-ba00-4fd7-ba43-dac1f8f63013",
        "Azure Resource Manager",
    ),
];

/// Where the API is.
const API: &str = "/openai/";

pub(super) fn warnings(embedded: &Embedded, policy: &Policy) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut warn = |path: &str, problem: &str, remedy: &str| {
        findings.push(embedded.finding(Severity::Warning, path, problem, remedy));
    };
    issuers(policy, &mut warn);
    unused_fetches(embedded, policy, &mut warn);
    every_deployment(policy, &mut warn);
    limits(policy, &mut warn);
    labels(policy, &mut warn);
    public_paths(policy, &mut warn);
    keys_and_mode(policy, &mut warn);
    findings.sort_by_key(|finding| finding.span.start);
    findings
}

type Warn<'a> = &'a mut dyn FnMut(&str, &str, &str);

fn issuers(policy: &Policy, warn: Warn<'_>) {
    for (index, issuer) in policy.issuers.iter().enumerate() {
        let at = |member: &str| format!("issuers[{index}].{member}");
        for (position, audience) in issuer.audiences.iter().enumerate() {
            let foreign = FOREIGN_AUDIENCES
                .iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(audience));
            if let Some((_, service)) = foreign {
                let problem = format!(
                    "{audience:?} is the audience of {service}: whoever got its tokens may call here"
                );
                let remedy =
                    "write the audience of Azure OpenAI, \"https://cognitiveservices.azure.com\"";
                warn(&at(&format!("audiences[{position}]")), &problem, remedy);
            }
        }
        for (position, claim) in issuer.required_claims.iter().enumerate() {
            let splits = claim.separator.is_some() || UNSPLIT_CLAIMS.contains(&&*claim.name);
            if !splits && !claim.values.is_empty() {
                let problem = format!(
                    "a text in {:?} is compared as a whole: it is not split at spaces",
                    claim.name
                );
                let remedy = r#"add "separator": " " if it holds several values in one text, or "separator": "\n" if it holds one"#;
                warn(
                    &at(&format!("required_claims[{position}]")),
                    &problem,
                    remedy,
                );
            }
        }
        if issuer.clock_skew > USUAL_SKEW {
            let problem = format!(
                "{} s: a token serves that long after it has expired",
                issuer.clock_skew
            );
            warn(&at("clock_skew"), &problem, "write at most \"300s\"");
        }
        if let KeySource::Fetched(fetch) = &issuer.keys {
            let (member, url) = match &fetch.start {
                FetchStart::Metadata(url) => ("openid_config", url),
                FetchStart::Keys(url) => ("jwks_uri", url),
            };
            if url.scheme == Scheme::Http {
                let problem =
                    "keys are fetched without TLS: whoever stands between can sign tokens";
                warn(&at(member), problem, "write an https address");
            }
        }
    }
}

/// What would fetch keys, beside keys: it stands in the text and not in the policy.
fn unused_fetches(embedded: &Embedded, policy: &Policy, warn: Warn<'_>) {
    let text: Value = serde_json::from_str(&embedded.configuration).unwrap_or_default();
    for (index, issuer) in policy.issuers.iter().enumerate() {
        if !matches!(issuer.keys, KeySource::Inline(_)) {
            continue;
        }
        for member in ["cluster", "refresh"] {
            let written = text.pointer(&format!("/issuers/{index}/{member}"));
            if written.is_some() {
                let problem = "has no effect: nothing is fetched with jwks";
                let path = format!("issuers[{index}].{member}");
                warn(&path, problem, "leave it out, or write jwks_uri");
            }
        }
    }
}

/// Lists of deployments that leave none out.
fn every_deployment(policy: &Policy, warn: Warn<'_>) {
    let mut look = |path: &str, app: &App| {
        let deployments = app.deployments.as_ref();
        // Only `*` begins the empty name.
        if deployments.is_some_and(|deployments| deployments.include("")) {
            let problem = "names every deployment";
            let remedy = "leave it out: whose deployment cannot be seen is refused with it";
            warn(path, problem, remedy);
        }
    };
    for (index, app) in policy.apps.listed.iter().enumerate() {
        look(&format!("apps[{index}].deployments"), app);
    }
    look("default_app.deployments", &policy.apps.default_app);
}

fn limits(policy: &Policy, warn: Warn<'_>) {
    let unlimited = |app: &App| app.limits.is_empty();
    let apps = &policy.apps;
    let others_limited = apps.default_app.access == Access::Deny || !unlimited(&apps.default_app);
    if apps.listed.iter().all(unlimited) && (unlimited(&apps.default_app)) {
        let problem = "nobody has a limit, of calls or of tokens";
        warn("$", problem, "add \"limits\" to apps and default_app");
    } else if !others_limited {
        let problem = "applications that are not listed have no limits";
        let remedy = "add \"default_app\" with \"limits\", or with \"access\": \"deny\"";
        warn("default_app", problem, remedy);
    }
}

/// Applications that metrics cannot tell apart, because their names read alike there.
fn labels(policy: &Policy, warn: Warn<'_>) {
    let mut taken = HashMap::from([
        (
            NO_APP.to_owned(),
            "requests without an application".to_owned(),
        ),
        (
            UNLISTED.to_owned(),
            "applications without a name".to_owned(),
        ),
    ]);
    let listed = policy.apps.listed.iter().enumerate();
    let named = listed.filter_map(|(index, app)| Some((index, app.name.as_deref()?)));
    for (index, name) in named {
        let label = label_value(name);
        match taken.get(&label) {
            Some(others) => {
                let problem =
                    format!("{name:?} is {label:?} in metrics, where {others} are counted too");
                let remedy = "write a name that differs in letters, digits, \"_\" or \"-\"";
                warn(&format!("apps[{index}].name"), &problem, remedy);
            }
            None => drop(taken.insert(label, format!("the calls of {name:?}"))),
        }
    }
}

fn public_paths(policy: &Policy, warn: Warn<'_>) {
    for (index, pattern) in policy.public_paths.iter().enumerate() {
        let covers = match pattern {
            Pattern::Exact(path) => is_api(path),
            Pattern::Prefix(prefix) => is_api(prefix) || starts_with(API, prefix),
        };
        if covers {
            let problem = "opens the API, or a part of it, to everybody without a token";
            let remedy = "write paths outside of /openai/";
            warn(&format!("public_paths[{index}]"), problem, remedy);
        }
    }
}

fn is_api(path: &str) -> bool {
    starts_with(path, API) || path.eq_ignore_ascii_case("/openai")
}

/// Azure's router ignores letter case.
fn starts_with(path: &str, prefix: &str) -> bool {
    let start = path.as_bytes().get(..prefix.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

fn keys_and_mode(policy: &Policy, warn: Warn<'_>) {
    if policy.mode == Mode::Report {
        let remedy = "leave it out once the log shows what you expect";
        warn("mode", "\"report\" denies nothing", remedy);
    }
    let keys = &policy.api_keys;
    for header in ["api-key", "ocp-apim-subscription-key", "x-api-key"] {
        if keys.action == ApiKeyAction::Deny && !keys.headers.iter().any(|known| known == header) {
            let problem = format!("keys in the header {header:?} reach the backend");
            warn("api_keys.headers", &problem, "add the header");
        }
    }
}
