//! What the steps of a decision look at, in words.

use std::collections::BTreeSet;

use tollgate::credential::Credential;
use tollgate::json::{self, Object, Value};
use tollgate::jwt::{Claims, Jws};
use tollgate::operations::{ModelPlace, Operation, Unread};
use tollgate::policy::{
    Access, ApiKeyAction, App, CorsPreflight, Count, Deployments, Issuer, KeySource, Limit,
    Measure, Pattern, Period, Policy, Window,
};
use tollgate::request::{CONTENT_FILTER, RequestHead};
use tollgate::time::Time;
use tollgate::usage::BodyError;

use super::steps::{Asked, Stage};

/// What steps look at.
pub(super) struct Facts<'a> {
    policy: &'a Policy,
    head: RequestHead<'a>,
    credential: Credential<'a>,
    jws: Option<Jws<'a>>,
    pub(super) payload: Option<Object<'static>>,
    pub(super) issuer: Option<(usize, &'a Issuer)>,
    claims: Option<Claims>,
    pub(super) operation: Result<Operation<'a>, Unread>,
    model: Option<&'a Result<Option<String>, BodyError>>,
    now: Time,
}

impl<'a> Facts<'a> {
    pub(super) fn read(asked: &'a Asked<'_>, claims: Option<&Claims>) -> Self {
        let policy = asked.policy;
        let head = RequestHead::read(asked.headers, policy);
        let credential = Credential::read(&head.authorization);
        let jws = match credential {
            Credential::Bearer { token, .. } => Jws::parse(token).ok(),
            Credential::Absent | Credential::NoScheme | Credential::Ambiguous => None,
        };
        let payload = jws.as_ref().and_then(payload);
        let iss = payload
            .as_ref()
            .and_then(|payload| payload.get("iss")?.as_str());
        let issuer = iss.and_then(|iss| {
            let mut issuers = policy.issuers.iter().enumerate();
            issuers.find(|(_, issuer)| issuer.issuers.iter().any(|known| known == iss))
        });
        Self {
            policy,
            operation: head.operation(),
            credential,
            issuer,
            jws,
            payload,
            claims: claims.cloned(),
            model: asked.model.as_ref(),
            now: asked.now,
            head,
        }
    }

    pub(super) fn found(&self, stage: Stage) -> String {
        match stage {
            Stage::ApiKey => self.api_key(),
            Stage::Public => self.public(),
            Stage::Credential => self.credential(),
            Stage::Token => self.token(),
            Stage::Issuer => self.issuer(),
            Stage::Algorithm => self.algorithm(),
            Stage::Key => self.key(),
            Stage::Signature => match &self.jws {
                Some(jws) => format!("over {} bytes", jws.signed.len()),
                None => String::new(),
            },
            Stage::Claims => self.claims(),
            Stage::Time => self.time(),
            Stage::Audience => self.audience(),
            Stage::Tenant => self.tenant(),
            Stage::Required => self.required(),
            Stage::Application => self.application(),
            Stage::Operation => self.operation(),
            Stage::Deployment => self.deployment(),
            Stage::Caps => self.caps(),
            Stage::Limits => self.limits(),
        }
    }

    fn api_key(&self) -> String {
        let keys = &self.policy.api_keys;
        let mut found: Vec<String> = self
            .head
            .key_headers
            .iter()
            .map(|(name, _)| format!("header {}", lossy(name)))
            .collect();
        if self.head.key_in_query {
            found.push("the query".to_owned());
        }
        if self.head.key_protocols.is_some() {
            found.push("sec-websocket-protocol".to_owned());
        }
        if found.is_empty() {
            let (headers, query) = (keys.headers.join(", "), keys.query.join(", "));
            return format!("none in headers {headers}, query {query}, WebSocket subprotocols");
        }
        let done = match keys.action {
            ApiKeyAction::Deny => "",
            ApiKeyAction::Strip => ", removed",
        };
        format!("in {}{done}", found.join(" and "))
    }

    fn public(&self) -> String {
        if self.policy.cors_preflight == CorsPreflight::Pass && self.head.is_preflight() {
            return "a CORS preflight request, which needs no token".to_owned();
        }
        let path = lossy(self.head.path);
        if self.head.is_public(&self.policy.public_paths) {
            return format!("{path} is public, and needs no token");
        }
        format!(
            "{path} is none of {} public paths",
            self.policy.public_paths.len()
        )
    }

    fn credential(&self) -> String {
        match self.credential {
            Credential::Absent => match self.head.authorization.len() {
                0 => "no authorization header".to_owned(),
                _ => "authorization has another scheme than Bearer, or nothing after it".to_owned(),
            },
            Credential::NoScheme => "authorization has no scheme".to_owned(),
            Credential::Ambiguous => "different credentials in authorization".to_owned(),
            Credential::Bearer { repeated: true, .. } => {
                "one bearer token, sent more than once".to_owned()
            }
            Credential::Bearer {
                repeated: false, ..
            } => "one bearer token".to_owned(),
        }
    }

    fn token(&self) -> String {
        let (Credential::Bearer { token, .. }, Some(jws)) = (self.credential, &self.jws) else {
            return String::new();
        };
        let typ = jws.typ.as_deref().unwrap_or("absent");
        let kid = jws.kid.as_deref().unwrap_or("absent");
        format!(
            "{} bytes; alg {}, typ {typ}, kid {kid}",
            token.len(),
            jws.algorithm
        )
    }

    fn claim(&self, name: &str) -> String {
        let value = self.payload.as_ref().and_then(|payload| payload.get(name));
        value.map_or_else(|| "absent".to_owned(), Value::to_json)
    }

    fn issuer(&self) -> String {
        let iss = self.claim("iss");
        match self.issuer {
            Some((index, issuer)) => format!("iss {iss} is of issuers[{index}], {}", issuer.name),
            None => {
                let known = self
                    .policy
                    .issuers
                    .iter()
                    .flat_map(|issuer| &issuer.issuers);
                format!("iss {iss}; accepted: {}", listed(known))
            }
        }
    }

    fn algorithm(&self) -> String {
        let Some(jws) = &self.jws else {
            return String::new();
        };
        // Where the issuer is not known: what any may use.
        let issuers = match self.issuer {
            Some((_, issuer)) => std::slice::from_ref(issuer),
            None => &self.policy.issuers[..],
        };
        let accepted: BTreeSet<&str> = issuers
            .iter()
            .flat_map(|issuer| issuer.algorithms.iter().map(|one| one.name()))
            .collect();
        let accepted: Vec<&str> = accepted.into_iter().collect();
        format!("{}; accepted: {}", jws.algorithm, accepted.join(", "))
    }

    /// Whether the token's issuer is a tenant.
    pub(super) fn is_of_tenant(&self) -> bool {
        self.issuer
            .is_some_and(|(_, issuer)| issuer.tenant.is_some())
    }

    fn key(&self) -> String {
        let (Some(jws), Some((_, issuer))) = (&self.jws, self.issuer) else {
            return String::new();
        };
        let kid = jws.kid.as_deref().unwrap_or_default();
        match &issuer.keys {
            KeySource::Inline(set) => format!("kid {kid}, of {} keys", set.len()),
            KeySource::Fetched(_) => format!("kid {kid}"),
        }
    }

    fn claims(&self) -> String {
        let unverified = if self.claims.is_some() {
            ""
        } else {
            " (not verified)"
        };
        let shown = ["ver", "appid", "azp", "oid", "idtyp"];
        let present = shown.iter().filter(|name| self.claim(name) != "absent");
        let told: Vec<_> = present
            .map(|name| format!("{name} {}", self.claim(name)))
            .collect();
        format!("{}{unverified}", told.join(", "))
    }

    fn time(&self) -> String {
        let Some(payload) = &self.payload else {
            return String::new();
        };
        let skew = self.issuer.map(|(_, issuer)| issuer.clock_skew);
        let told = ["nbf", "exp"].iter().filter_map(|name| {
            let seconds = u64::try_from(number(payload.get(name)?)?).ok()?;
            let then = Time::from_millis(seconds.saturating_mul(1000));
            let away = self.now.seconds().abs_diff(then.seconds());
            let when = if then > self.now {
                format!("in {}", span(away))
            } else {
                format!("{} ago", span(away))
            };
            Some(format!("{name} {}, {when}", date(then)))
        });
        let told: Vec<_> = told.collect();
        let skew = skew
            .map(|skew| format!("; clock skew {skew} s"))
            .unwrap_or_default();
        format!("{}{skew}", told.join("; "))
    }

    fn audience(&self) -> String {
        let accepted = self.issuer.map(|(_, issuer)| listed(&issuer.audiences));
        format!(
            "aud {}; accepted: {}",
            self.claim("aud"),
            accepted.unwrap_or_default()
        )
    }

    fn tenant(&self) -> String {
        match self.issuer.and_then(|(_, issuer)| issuer.tenant.as_ref()) {
            None => "any: the issuer is no tenant of Entra ID".to_owned(),
            Some(tenant) => format!("tid {}; accepted: {}", self.claim("tid"), tenant.id),
        }
    }

    fn required(&self) -> String {
        let required = self
            .issuer
            .map(|(_, issuer)| issuer.required_claims.as_slice());
        let told = required.unwrap_or_default().iter().map(|claim| {
            let wanted = match claim.values.as_slice() {
                [] => "anything".to_owned(),
                values => format!("{:?} of {}", claim.matching, listed(values)).to_lowercase(),
            };
            format!(
                "{} {}; wanted: {wanted}",
                claim.name,
                self.claim(&claim.name)
            )
        });
        let told: Vec<_> = told.collect();
        if told.is_empty() {
            "none".to_owned()
        } else {
            told.join("; ")
        }
    }

    fn app(&self) -> Option<&App> {
        Some(self.policy.apps.find(self.claims.as_ref()?.app_id))
    }

    fn application(&self) -> String {
        let (Some(claims), Some(app)) = (&self.claims, self.app()) else {
            return String::new();
        };
        let place = match self.policy.apps.by_id.get(&claims.app_id) {
            Some(index) => format!("apps[{index}]"),
            None => "not listed: default_app".to_owned(),
        };
        let name = app
            .name
            .as_deref()
            .filter(|name| *name != claims.app_id.to_string());
        let name = name.map(|name| format!(" {name:?}")).unwrap_or_default();
        let access = match app.access {
            Access::Allow => "may call",
            Access::Deny => "may not call",
        };
        format!("{} is {place}{name}, which {access}", claims.app_id)
    }

    fn operation(&self) -> String {
        let what = match &self.operation {
            Ok(operation) => operation.action.to_string(),
            Err(Unread::Unknown) => "no known operation".to_owned(),
            Err(Unread::Ambiguous) => "a path with two readings".to_owned(),
        };
        let roles = match self.app().map(|app| app.roles) {
            Some(Some(_)) => "the application has roles",
            _ => "without roles everything is allowed",
        };
        format!("{what}; {roles}")
    }

    fn deployment(&self) -> String {
        let named = match (&self.operation, self.model) {
            (
                Ok(Operation {
                    model: ModelPlace::Nowhere,
                    ..
                }),
                _,
            ) => "none is run".to_owned(),
            (
                Ok(Operation {
                    model: ModelPlace::Earlier,
                    ..
                }),
                _,
            ) => "named by an earlier request".to_owned(),
            (
                Ok(Operation {
                    deployment: Some(name),
                    ..
                }),
                _,
            ) => format!("{name:?}"),
            (_, Some(Ok(Some(model)))) => format!("the body names {model:?}"),
            (_, Some(Ok(None))) => "the body names none".to_owned(),
            (_, Some(Err(error))) => format!("the body: {error}"),
            (
                Ok(Operation {
                    model: ModelPlace::Body,
                    ..
                }),
                None,
            ) => "named by the body".to_owned(),
            (Ok(_), None) => "named where a gateway does not see it".to_owned(),
            (Err(_), None) => "not known".to_owned(),
        };
        let accepted = self.app().and_then(|app| app.deployments.as_ref());
        format!(
            "{named}; accepted: {}",
            accepted.map_or_else(|| "all".to_owned(), patterns)
        )
    }

    fn caps(&self) -> String {
        let caps = self.app().map(|app| app.caps).unwrap_or_default();
        let allowed = if caps.content_filter_override {
            "allowed"
        } else {
            "not allowed"
        };
        let there = match self.head.content_filters.as_slice() {
            [] => "absent",
            [..] => "there",
        };
        format!("{CONTENT_FILTER} is {there}; content_filter_override: {allowed}")
    }

    fn limits(&self) -> String {
        let limits = self
            .app()
            .map(|app| app.limits.as_slice())
            .unwrap_or_default();
        if limits.is_empty() {
            return "none".to_owned();
        }
        let told: Vec<_> = limits.iter().map(limit).collect();
        format!("{}; counted from nothing", told.join(", "))
    }
}

pub(super) fn payload(jws: &Jws<'_>) -> Option<Object<'static>> {
    match json::parse(&jws.payload) {
        Ok(Value::Object(object)) => Some(object.into_owned()),
        _ => None,
    }
}

pub(super) fn number(value: &Value<'_>) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        _ => None,
    }
}

fn limit(limit: &Limit) -> String {
    let what = match limit.measure {
        Measure::Calls => "calls",
        Measure::Tokens { reserve: false } => "tokens",
        Measure::Tokens { reserve: true } => "tokens, reserved,",
    };
    let count = match &limit.count {
        Count::All => String::new(),
        Count::Success => ", counting 2xx".to_owned(),
        Count::Statuses(statuses) => format!(", counting {statuses:?}"),
    };
    let scope = &limit.scope;
    let narrow = match (&scope.operations, &scope.deployments) {
        (None, None) => String::new(),
        (Some(_), None) => " for some operations".to_owned(),
        (operations, Some(deployments)) => {
            let operations = operations
                .map(|_| " for some operations")
                .unwrap_or_default();
            format!("{operations} on {}", patterns(deployments))
        }
    };
    format!(
        "{} {what} per {}{count}{narrow}",
        limit.amount,
        window(limit.window)
    )
}

/// A window in words.
fn window(window: Window) -> String {
    match window {
        Window::Sliding { millis } => span(millis / 1000),
        Window::Calendar(Period::Hour) => "calendar hour".to_owned(),
        Window::Calendar(Period::Day) => "calendar day".to_owned(),
        Window::Calendar(Period::Week) => "calendar week".to_owned(),
        Window::Calendar(Period::Month) => "calendar month".to_owned(),
    }
}

fn patterns(deployments: &Deployments) -> String {
    let names = deployments.0.iter().map(|pattern| match pattern {
        Pattern::Exact(name) => name.clone(),
        Pattern::Prefix(prefix) => format!("{prefix}*"),
    });
    names.collect::<Vec<_>>().join(", ")
}

fn listed<'a>(values: impl IntoIterator<Item = &'a String>) -> String {
    let values: Vec<_> = values
        .into_iter()
        .map(|value| format!("{value:?}"))
        .collect();
    values.join(", ")
}

pub(super) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).escape_debug().to_string()
}

fn date(time: Time) -> String {
    time.rfc3339().replace(".000Z", "Z")
}

/// Seconds in the largest unit that says enough.
fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}
