//! `validate-jwt` and `validate-azure-ad-token` as issuers.

use serde_json::{Map, Value, json};
use tollgate::guid::Guid;
use tollgate::url::Url;

/// What the XML says about tokens.
#[derive(Debug, Default)]
pub(super) struct Trust {
    /// Addresses of metadata.
    pub(super) metadata: Vec<String>,
    /// Accepted values of `iss`.
    pub(super) issuers: Vec<String>,
    /// Tenants of which both versions are accepted.
    pub(super) tenants: Vec<String>,
    pub(super) audiences: Vec<String>,
    pub(super) required: Vec<Value>,
    pub(super) keys: Vec<Value>,
    pub(super) clock_skew: Option<String>,
}

/// An address or issuer that cannot be taken over, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Untaken {
    pub(super) what: String,
    pub(super) why: String,
    pub(super) remedy: String,
}

/// Sign-in hosts of Entra ID, and the authority that each stands for.
const HOSTS: [(&str, &str); 5] = [
    (
        "login.microsoftonline.com",
        "https://login.microsoftonline.com",
    ),
    ("login.windows.net", "https://login.microsoftonline.com"),
    (
        "login.microsoftonline.us",
        "https://login.microsoftonline.us",
    ),
    (
        "login.partner.microsoftonline.cn",
        "https://login.partner.microsoftonline.cn",
    ),
    (
        "login.chinacloudapi.cn",
        "https://login.partner.microsoftonline.cn",
    ),
];

const DEFAULT_AUTHORITY: &str = "https://login.microsoftonline.com";

const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// A tenant, and which of its issuers are accepted.
#[derive(Debug)]
struct Tenant {
    id: String,
    authority: &'static str,
    v1: bool,
    v2: bool,
}

impl Trust {
    /// The issuers of the policy.
    pub(super) fn issuers(&self) -> (Vec<Value>, Vec<Untaken>) {
        let mut untaken = Vec::new();
        let mut tenants: Vec<Tenant> = Vec::new();
        let mut others: Vec<(String, Vec<String>)> = Vec::new();
        for id in &self.tenants {
            accept(&mut tenants, id, DEFAULT_AUTHORITY, true, true);
        }
        let mut foreign = Vec::new();
        for iss in &self.issuers {
            match of_iss(iss) {
                Some((id, authority, v1)) => accept(&mut tenants, &id, authority, v1, !v1),
                None => foreign.push(iss.clone()),
            }
        }
        let listed = tenants.len();
        for url in &self.metadata {
            match of_metadata(url) {
                Some((id, authority, v1)) if Guid::parse(&id).is_some() => {
                    accept(&mut tenants, &id, authority, v1, !v1);
                }
                // Metadata for many tenants: the issuers say which.
                Some(_) if listed > 0 => {}
                Some((tenant, ..)) => untaken.push(Untaken {
                    what: url.clone(),
                    why: format!("{tenant:?} names no single tenant"),
                    remedy: "write the tenant's id there, or list its issuer".to_owned(),
                }),
                None => others.push((url.clone(), std::mem::take(&mut foreign))),
            }
        }
        if !self.keys.is_empty() && self.metadata.is_empty() {
            return (vec![self.with_keys()], untaken);
        }
        untaken.extend(foreign.into_iter().map(|iss| Untaken {
            why: "no metadata says what keys it has".to_owned(),
            remedy: "add its openid-config".to_owned(),
            what: iss,
        }));
        let tenants = tenants.iter().map(|tenant| self.tenant(tenant));
        let others = others.iter().map(|(url, issuers)| self.other(url, issuers));
        (tenants.chain(others).collect(), untaken)
    }

    fn tenant(&self, tenant: &Tenant) -> Value {
        let Tenant { id, authority, .. } = tenant;
        let mut issuer = Map::new();
        issuer.insert("tenant_id".to_owned(), id.clone().into());
        if *authority != DEFAULT_AUTHORITY {
            issuer.insert("authority".to_owned(), (*authority).into());
        }
        if !(tenant.v1 && tenant.v2) {
            let v1_host = if authority.ends_with(".cn") {
                "sts.chinacloudapi.cn"
            } else {
                "sts.windows.net"
            };
            let (iss, metadata) = if tenant.v1 {
                (
                    format!("https://{v1_host}/{id}/"),
                    Some(format!("{authority}/{id}{WELL_KNOWN}")),
                )
            } else {
                (format!("{authority}/{id}/v2.0"), None)
            };
            issuer.insert("issuers".to_owned(), json!([iss]));
            if let Some(metadata) = metadata {
                issuer.insert("openid_config".to_owned(), metadata.into());
            }
        }
        self.complete(issuer, "entra")
    }

    fn other(&self, url: &str, issuers: &[String]) -> Value {
        let mut issuer = Map::new();
        // OpenID Connect Discovery section 4: metadata stands under the issuer's own address.
        let own = url.strip_suffix(WELL_KNOWN).unwrap_or(url).to_owned();
        let mut accepted = issuers.to_vec();
        if accepted.is_empty() {
            accepted.push(own);
        }
        issuer.insert("issuers".to_owned(), accepted.into());
        issuer.insert("openid_config".to_owned(), url.into());
        let host = Url::parse(url).map(|url| url.authority).unwrap_or_default();
        let cluster = host.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        self.complete(issuer, &cluster)
    }

    fn with_keys(&self) -> Value {
        let mut issuer = Map::new();
        issuer.insert("issuers".to_owned(), self.issuers.clone().into());
        issuer.insert("jwks".to_owned(), json!({ "keys": self.keys }));
        self.complete(issuer, "")
    }

    fn complete(&self, mut issuer: Map<String, Value>, cluster: &str) -> Value {
        issuer.insert("audiences".to_owned(), self.audiences.clone().into());
        if !cluster.is_empty() {
            issuer.insert("cluster".to_owned(), cluster.into());
        }
        if !self.required.is_empty() {
            issuer.insert("required_claims".to_owned(), self.required.clone().into());
        }
        if let Some(skew) = &self.clock_skew {
            issuer.insert("clock_skew".to_owned(), skew.clone().into());
        }
        Value::Object(issuer)
    }
}

fn accept(tenants: &mut Vec<Tenant>, id: &str, authority: &'static str, v1: bool, v2: bool) {
    let id = id.to_ascii_lowercase();
    match tenants.iter_mut().find(|tenant| tenant.id == id) {
        Some(tenant) => {
            tenant.v1 |= v1;
            tenant.v2 |= v2;
            // v1 issuers do not tell the cloud.
            if authority != DEFAULT_AUTHORITY {
                tenant.authority = authority;
            }
        }
        None => tenants.push(Tenant {
            id,
            authority,
            v1,
            v2,
        }),
    }
}

/// Tenant, authority and whether it is v1, of an issuer of Entra ID.
fn of_iss(iss: &str) -> Option<(String, &'static str, bool)> {
    let url = Url::parse(iss)?;
    let path = url.path.trim_matches('/');
    let (tenant, version) = path.split_once('/').unwrap_or((path, ""));
    Guid::parse(tenant)?;
    match url.authority.as_str() {
        "sts.windows.net" => Some((tenant.to_owned(), DEFAULT_AUTHORITY, true)),
        "sts.chinacloudapi.cn" => Some((
            tenant.to_owned(),
            "https://login.partner.microsoftonline.cn",
            true,
        )),
        host => {
            let (_, authority) = HOSTS.iter().find(|(known, _)| *known == host)?;
            (version == "v2.0").then(|| (tenant.to_owned(), *authority, false))
        }
    }
}

/// The same of an address of metadata.
fn of_metadata(address: &str) -> Option<(String, &'static str, bool)> {
    let url = Url::parse(address)?;
    let (_, authority) = HOSTS.iter().find(|(known, _)| *known == url.authority)?;
    let path = url.path.split('?').next()?.strip_suffix(WELL_KNOWN)?;
    let path = path.trim_matches('/');
    let (tenant, version) = path.split_once('/').unwrap_or((path, ""));
    match version {
        "" => Some((tenant.to_owned(), authority, true)),
        "v2.0" => Some((tenant.to_owned(), authority, false)),
        _ => None,
    }
}
