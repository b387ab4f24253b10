//! `issuers`: who may sign tokens, and which tokens of theirs are good.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::key_source::key_source;
use super::names::label;
use super::reader::{Members, Node, Read, Shape, distinct};
use super::time::{SECOND, Span, duration};
use super::wording::{alternatives, quoted};
use super::{AppClaim, ClaimMatch, Issuer, RequiredClaim, Tenant};
use crate::guid::Guid;
use crate::jwt::Algorithm;
use crate::url::Url;

/// Most issuers of one policy. Each has keys in memory and a fetch of its own.
const MAX_ISSUERS: usize = 100;

const DEFAULT_AUTHORITY: &str = "https://login.microsoftonline.com";

/// The Chinese cloud, the one cloud whose v1 issuer has another host.
const CHINA_AUTHORITY: &str = "https://login.partner.microsoftonline.cn";

const DEFAULT_CLOCK_SKEW: u64 = 60;

const CLOCK_SKEW: Span = Span {
    millis: 0..=600 * SECOND,
    words: "0s to 600s",
};

pub(super) static ISSUER: Shape = Shape {
    example: r#"{"tenant_id": "11111111-2222-3333-4444-555555555555", "audiences": ["https://cognitiveservices.azure.com"], "cluster": "entra"}"#,
    keys: &[
        "name",
        "tenant_id",
        "authority",
        "issuers",
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
    ],
    refused: &[],
};

static REQUIRED_CLAIM: Shape = Shape {
    example: r#"{"name": "roles", "values": ["Caller"]}"#,
    keys: &["name", "values", "match", "separator"],
    refused: &[],
};

/// What earlier issuers took, and where.
#[derive(Default)]
struct Taken {
    iss: HashMap<String, String>,
    names: HashMap<String, String>,
}

pub(super) fn issuers(node: &Node<'_>) -> Read<Vec<Issuer>> {
    let mut taken = Taken::default();
    let example = format!("[{}]", ISSUER.example);
    node.filled_list(&example, MAX_ISSUERS, |element| issuer(element, &mut taken))
}

fn issuer(node: &Node<'_>, taken: &mut Taken) -> Read<Issuer> {
    let members = node.members(&ISSUER)?;
    let tenant = tenant(&members);
    let issuers = accepted_issuers(&members, &tenant, taken);
    let name = name(&members, &tenant, &issuers, taken);
    let keys = key_source(&members, &tenant);
    let audiences = members.required(
        "audiences",
        "add the accepted values of aud, such as [\"https://cognitiveservices.azure.com\"]",
        audiences,
    );
    let required_claims = members.or("required_claims", Vec::new(), |node| {
        node.list(&format!("[{}]", REQUIRED_CLAIM.example), required_claim)
    });
    let algorithms = members.or("algorithms", vec![Algorithm::Rs256], algorithms);
    let app_claim = members.or("app_claim", AppClaim::ByVersion, app_claim);
    let clock_skew = members.or("clock_skew", DEFAULT_CLOCK_SKEW, clock_skew);
    Ok(Issuer {
        name: name?,
        tenant: tenant?,
        issuers: issuers?,
        audiences: audiences?,
        keys: keys?,
        required_claims: required_claims?,
        algorithms: algorithms?,
        app_claim: app_claim?,
        clock_skew: clock_skew?,
    })
}

fn tenant(members: &Members<'_>) -> Read<Option<Tenant>> {
    let id = members.optional("tenant_id", tenant_id);
    let authority = members.optional("authority", authority);
    if let Some(node) = members.get("authority")
        && !members.has("tenant_id")
    {
        return Err(node.note(
            "has no effect without tenant_id",
            "add tenant_id, or leave it out",
        ));
    }
    let authority = authority?;
    Ok(id?.map(|id| Tenant {
        id,
        authority: authority.unwrap_or_else(|| DEFAULT_AUTHORITY.to_owned()),
    }))
}

fn tenant_id(node: &Node<'_>) -> Read<Guid> {
    const EXAMPLE: &str = "11111111-2222-3333-4444-555555555555";
    let text = node.string(EXAMPLE)?;
    if matches!(text, "common" | "organizations" | "consumers") {
        let problem = format!("{} stands for many tenants", quoted(text));
        return Err(node.note(problem, "write one issuer for each tenant, with its GUID"));
    }
    Guid::parse(text).ok_or_else(|| {
        let problem = format!("{} is not a GUID", quoted(text));
        let remedy = format!("write the tenant's id, such as \"{EXAMPLE}\"");
        node.note(problem, remedy)
    })
}

fn authority(node: &Node<'_>) -> Read<String> {
    let text = node.string(DEFAULT_AUTHORITY)?;
    match Url::parse(text) {
        Some(url) if url.path == "/" => Ok(format!("{}://{}", url.scheme.as_str(), url.authority)),
        _ => {
            let problem = format!("{} is not the URL of a host alone", quoted(text));
            let remedy = format!("write scheme and host, such as \"{DEFAULT_AUTHORITY}\"");
            Err(node.note(problem, remedy))
        }
    }
}

/// The values of `iss`: those that are written, or those of the tenant.
fn accepted_issuers(
    members: &Members<'_>,
    tenant: &Read<Option<Tenant>>,
    taken: &mut Taken,
) -> Read<Vec<String>> {
    if let Some(node) = members.get("issuers") {
        let example = "[\"https://login.example.com/\"]";
        return node.filled_list(example, usize::MAX, |element| {
            let iss = exact_issuer(element)?;
            claim_iss(iss, element, taken)
        });
    }
    let Some(tenant) = tenant.as_ref().map_err(|noted| *noted)? else {
        return Err(members.node().note(
            "names no issuer",
            "add tenant_id (Entra ID) or issuers (exact values of iss)",
        ));
    };
    let at = members.get("tenant_id");
    let at = at.as_ref().unwrap_or_else(|| members.node());
    tenant
        .issuers()
        .into_iter()
        .map(|iss| claim_iss(&iss, at, taken))
        .collect()
}

fn exact_issuer<'a>(node: &Node<'a>) -> Read<&'a str> {
    let iss = node.text("https://login.example.com/")?;
    if iss.contains(['{', '}']) {
        let problem = format!(
            "{} has a placeholder, but iss is compared exactly",
            quoted(iss)
        );
        return Err(node.note(problem, "write the tenant's issuer, or use tenant_id"));
    }
    Ok(iss)
}

impl Tenant {
    /// Its v1 and v2 issuers (Microsoft identity platform, access token claims).
    #[inline(never)]
    pub(crate) fn issuers(&self) -> Vec<String> {
        let Self { id, authority } = self;
        let v1_host = if authority == CHINA_AUTHORITY {
            "sts.chinacloudapi.cn"
        } else {
            "sts.windows.net"
        };
        vec![
            format!("https://{v1_host}/{id}/"),
            format!("{authority}/{id}/v2.0"),
        ]
    }
}

/// An `iss` in two issuers would let either's keys sign for it.
fn claim_iss(iss: &str, at: &Node<'_>, taken: &mut Taken) -> Read<String> {
    match taken.iss.entry(iss.to_owned()) {
        Entry::Vacant(entry) => {
            entry.insert(at.path());
            Ok(iss.to_owned())
        }
        Entry::Occupied(first) => {
            let problem = format!(
                "the issuer {} is already that of {}",
                quoted(iss),
                first.get()
            );
            Err(at.note(problem, "write each value of iss once"))
        }
    }
}

fn name(
    members: &Members<'_>,
    tenant: &Read<Option<Tenant>>,
    issuers: &Read<Vec<String>>,
    taken: &mut Taken,
) -> Read<String> {
    let explicit = members.get("name");
    let name = match (&explicit, issuers, tenant) {
        (Some(node), _, _) => label(node)?,
        // Its issuers are refused: whether its name is free does not matter any more.
        (None, Err(noted), _) => return Err(*noted),
        (None, Ok(_), Ok(Some(tenant))) => tenant.id.to_string(),
        (None, Ok(issuers), _) => issuers.first().cloned().unwrap_or_default(),
    };
    let at = explicit.as_ref().unwrap_or_else(|| members.node());
    match taken.names.entry(name) {
        Entry::Vacant(entry) => {
            let name = entry.key().clone();
            entry.insert(at.path());
            Ok(name)
        }
        Entry::Occupied(first) => {
            let problem = format!(
                "the name {} is taken by {}",
                quoted(first.key()),
                first.get()
            );
            Err(at.note(problem, "give each issuer a \"name\" of its own"))
        }
    }
}

fn audiences(node: &Node<'_>) -> Read<Vec<String>> {
    const EXAMPLE: &str = "https://cognitiveservices.azure.com";
    let example = format!("[{EXAMPLE:?}]");
    node.filled_list(&example, usize::MAX, |element| {
        let text = element.text(EXAMPLE)?;
        match text.strip_suffix('/').unwrap_or(text) {
            "" => Err(element.note("\"/\" is no audience", format!("for example {EXAMPLE:?}"))),
            audience => Ok(audience.to_owned()),
        }
    })
    .map(distinct)
}

fn required_claim(node: &Node<'_>) -> Read<RequiredClaim> {
    let members = node.members(&REQUIRED_CLAIM)?;
    let name = members.required("name", "add the claim's name, such as \"roles\"", |node| {
        node.text("roles").map(str::to_owned)
    });
    let values = members.or("values", Vec::new(), |node| {
        node.list("[\"Caller\"]", |value| {
            value.text("Caller").map(str::to_owned)
        })
    });
    let matching = members.or("match", ClaimMatch::All, |node| {
        node.choice(&[("all", ClaimMatch::All), ("any", ClaimMatch::Any)])
    });
    let separator = members.optional("separator", separator);
    let name = name?;
    let separator = separator?.or_else(|| default_separator(&name).map(str::to_owned));
    Ok(RequiredClaim {
        name,
        values: values?,
        matching: matching?,
        separator,
    })
}

/// What splits a claim that is one text, unless the policy says so: scopes are words with spaces between (RFC 8693 section
/// 4.2; `scp` of Entra ID). Any other text is one value: people choose names such as "Not Finance".
#[must_use]
pub fn default_separator(claim: &str) -> Option<&'static str> {
    matches!(claim, "scp" | "scope").then_some(" ")
}

fn separator(node: &Node<'_>) -> Read<String> {
    match node.string(" ")? {
        "" => Err(node.note("is empty", "write at least one character, such as \",\"")),
        separator => Ok(separator.to_owned()),
    }
}

fn algorithms(node: &Node<'_>) -> Read<Vec<Algorithm>> {
    node.filled_list("[\"RS256\"]", usize::MAX, algorithm)
        .map(distinct)
}

fn algorithm(node: &Node<'_>) -> Read<Algorithm> {
    let text = node.string("RS256")?;
    if let Some(algorithm) = Algorithm::from_name(text) {
        return Ok(algorithm);
    }
    let unsigned = text.eq_ignore_ascii_case("none");
    let shared_secret = text
        .get(..2)
        .is_some_and(|start| start.eq_ignore_ascii_case("hs"));
    let given = quoted(text);
    Err(if unsigned {
        let problem = format!("{given} means unsigned tokens, which are never accepted");
        node.note(problem, "leave it out")
    } else if shared_secret {
        let problem = format!("{given} is HMAC, a shared secret, which is never accepted");
        node.note(problem, "leave it out")
    } else {
        let remedy = format!(
            "write {}",
            alternatives(&Algorithm::ALL.map(Algorithm::name))
        );
        node.note(format!("{given} is not a supported algorithm"), remedy)
    })
}

fn app_claim(node: &Node<'_>) -> Read<AppClaim> {
    let name = node.text("client_id")?;
    Ok(AppClaim::Named(name.to_owned()))
}

/// In seconds, as the dates in a token are.
fn clock_skew(node: &Node<'_>) -> Read<u64> {
    let millis = duration(node, &CLOCK_SKEW)?;
    if !millis.is_multiple_of(SECOND) {
        return Err(node.note(
            "is not a whole number of seconds",
            "write seconds, such as \"60s\"",
        ));
    }
    Ok(millis / SECOND)
}
