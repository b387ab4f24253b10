//! The steps of a decision, told from the core's verdict.
//!
//! The rules are not repeated here. A refusal names the step at which it fell; those before it
//! passed, those after it were not reached. What each looked at is read from the request by the
//! core's own readers.

use clap::builder::styling::{AnsiColor, Style};
use tollgate::gateway::Verdict;
use tollgate::jwt::{ClaimError, ClaimRefusal, Claims, Jws, TokenError, VerifyError};
use tollgate::limits::Reached;
use tollgate::operations::Unread;
use tollgate::policy::Policy;
use tollgate::refusal::Refusal;
use tollgate::request::{HeaderMap, same_name};
use tollgate::time::Time;
use tollgate::usage::BodyError;

use super::facts::{Facts, lossy, number, payload};

/// What is explained.
pub(super) struct Asked<'a> {
    /// Whether the keys that are fetched were.
    pub(super) has_keys: bool,
    pub(super) policy: &'a Policy,
    pub(super) headers: &'a HeaderMap,
    /// The model that the body names, where the body decided.
    pub(super) model: Option<Result<Option<String>, BodyError>>,
    pub(super) now: Time,
}

/// A step: what was looked at, and what came out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) outcome: Outcome,
    pub(super) found: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    Refused,
    /// In report mode: it would have been refused.
    WouldRefuse,
    /// It cannot be told.
    Undecided,
    /// Nothing was looked at any more.
    NotReached,
}

/// The steps in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    ApiKey,
    Public,
    Credential,
    Token,
    Algorithm,
    Issuer,
    Key,
    Signature,
    Claims,
    Time,
    Audience,
    Tenant,
    Required,
    Application,
    Operation,
    Deployment,
    Caps,
    Limits,
}

const STAGES: [(Stage, &str); 18] = [
    (Stage::ApiKey, "API key"),
    (Stage::Public, "public path"),
    (Stage::Credential, "credential"),
    (Stage::Token, "token"),
    (Stage::Algorithm, "algorithm"),
    (Stage::Issuer, "issuer"),
    (Stage::Key, "key"),
    (Stage::Signature, "signature"),
    (Stage::Claims, "claims"),
    (Stage::Time, "time"),
    (Stage::Audience, "audience"),
    (Stage::Tenant, "tenant"),
    (Stage::Required, "required claims"),
    (Stage::Application, "application"),
    (Stage::Operation, "operation"),
    (Stage::Deployment, "deployment"),
    (Stage::Caps, "caps"),
    (Stage::Limits, "limits"),
];

impl Outcome {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Refused => "refused",
            Self::WouldRefuse => "would refuse",
            Self::Undecided => "undecided",
            Self::NotReached => "not reached",
        }
    }

    pub(super) fn style(self) -> Style {
        match self {
            Self::Passed => AnsiColor::Green.on_default(),
            Self::Refused => AnsiColor::Red.on_default().bold(),
            Self::WouldRefuse | Self::Undecided => AnsiColor::Yellow.on_default().bold(),
            Self::NotReached => Style::new().dimmed(),
        }
    }
}

/// Where a decision ended.
enum End<'a> {
    Refused(&'a Refusal),
    WouldRefuse(&'a Refusal),
    /// Admitted without a caller.
    Public,
    Keys,
    Allowed,
}

pub(super) fn steps(asked: &Asked<'_>, verdict: &Verdict) -> Vec<Step> {
    let facts = Facts::read(asked, claims(verdict));
    let end = match verdict {
        // In report mode nothing waits for keys.
        Verdict::Allow(allow)
            if !asked.has_keys && matches!(allow.would_refuse, Some(Refusal::Keys { .. })) =>
        {
            End::Keys
        }
        Verdict::Refuse(refused) => End::Refused(&refused.refusal),
        Verdict::Wait { .. } | Verdict::Read(_) => End::Keys,
        Verdict::Allow(allow) => match (&allow.would_refuse, &allow.claims) {
            (Some(refusal), _) => End::WouldRefuse(refusal),
            (None, None) => End::Public,
            (None, Some(_)) => End::Allowed,
        },
    };
    let (last, outcome, why) = match end {
        End::Refused(refusal) => (stage_of(refusal, &facts), Outcome::Refused, Some(refusal)),
        End::WouldRefuse(refusal) => (
            stage_of(refusal, &facts),
            Outcome::WouldRefuse,
            Some(refusal),
        ),
        End::Keys => (Stage::Key, Outcome::Undecided, None),
        End::Public => (Stage::Public, Outcome::Passed, None),
        End::Allowed => (Stage::Limits, Outcome::Passed, None),
    };
    let step = |(stage, name): &(Stage, &'static str)| {
        let (outcome, found) = if *stage > last {
            (Outcome::NotReached, String::new())
        } else {
            let found = facts.found(*stage);
            let why = why
                .filter(|_| *stage == last)
                .map(|why| reason(why, &facts));
            let found = match (found.is_empty(), why) {
                (_, None) => found,
                (true, Some(why)) => why,
                (false, Some(why)) => format!("{why}; {found}"),
            };
            let outcome = if *stage == last {
                outcome
            } else {
                Outcome::Passed
            };
            (outcome, found)
        };
        Step {
            name,
            outcome,
            found,
        }
    };
    STAGES.iter().map(step).collect()
}

/// What is good to know beside the steps.
pub(super) fn notes(asked: &Asked<'_>, verdict: &Verdict) -> Vec<String> {
    let facts = Facts::read(asked, claims(verdict));
    let mut notes = Vec::new();
    let refusal = match verdict {
        Verdict::Refuse(refused) => Some(&refused.refusal),
        _ => None,
    };
    if let Some(Refusal::Claims(ClaimRefusal::Expired)) = refusal {
        notes.push("what would have followed: add --at issued".to_owned());
    }
    if let Some(Refusal::Verify(VerifyError::Signature)) = refusal
        && facts
            .payload
            .as_ref()
            .is_some_and(|payload| payload.get("nonce").is_some())
    {
        notes.push(
            "tokens for Microsoft Graph have a nonce, and only Graph can verify them".to_owned(),
        );
    }
    if let Verdict::Allow(allow) = verdict {
        for name in &allow.changes.remove {
            let name = lossy(name);
            let why = why_unseen(&name, asked.policy);
            notes.push(format!("the backend does not see {name}: {why}"));
        }
        for (name, value) in &allow.changes.set {
            // The token itself is never shown.
            let value = if name == "authorization" {
                "Bearer ...".to_owned()
            } else {
                lossy(value)
            };
            notes.push(format!("the backend sees {name}: {value}"));
        }
    }
    notes
}

/// Why a header does not go on.
fn why_unseen(name: &str, policy: &Policy) -> &'static str {
    let is = |known: &String| same_name(name.as_bytes(), known);
    let mut identities = policy.forward.headers.iter();
    match name.to_ascii_lowercase().replace('_', "-").as_str() {
        _ if policy.api_keys.headers.iter().any(is) => "the policy has API keys removed",
        _ if identities.any(|(known, _)| is(known)) => "only the gateway may set it",
        "accept-encoding" => "the answer is read for its usage, and must not be compressed",
        "content-length" => "usage is asked for in streams, so the body may grow",
        "authorization" => "the policy keeps the token from the backend",
        "sec-websocket-protocol" => "it holds nothing but API keys",
        _ => "it could replace the path or the method that was looked at",
    }
}

/// When a token says that it was issued, in seconds since 1970; a second later, it is valid for sure.
pub(super) fn issued_at(token: &str) -> Option<u64> {
    let payload = payload(&Jws::parse(token.as_bytes()).ok()?)?;
    let date = |name| payload.get(name).and_then(number);
    let issued = date("iat").max(date("nbf"))?;
    u64::try_from(issued).ok()?.checked_add(1)
}

fn claims(verdict: &Verdict) -> Option<&Claims> {
    match verdict {
        Verdict::Allow(allow) => allow.claims.as_deref(),
        Verdict::Refuse(refused) => refused.claims.as_deref(),
        Verdict::Read(_) | Verdict::Wait { .. } => None,
    }
}

/// At which step a refusal falls.
fn stage_of(refusal: &Refusal, facts: &Facts<'_>) -> Stage {
    match refusal {
        Refusal::ApiKey(_) => Stage::ApiKey,
        Refusal::NoToken | Refusal::NoScheme | Refusal::AmbiguousCredential => Stage::Credential,
        Refusal::Token(TokenError::Type) | Refusal::Algorithm => Stage::Algorithm,
        Refusal::Token(_) => Stage::Token,
        Refusal::Issuer => Stage::Issuer,
        Refusal::KeyNotFound | Refusal::KeyOfAnother | Refusal::Keys { .. } => Stage::Key,
        Refusal::Verify(VerifyError::Signature) => Stage::Signature,
        Refusal::Verify(VerifyError::Claim(_)) => Stage::Claims,
        Refusal::Claims(ClaimRefusal::Expired | ClaimRefusal::NotYetValid) => Stage::Time,
        Refusal::Claims(ClaimRefusal::Audience) => Stage::Audience,
        Refusal::Claims(ClaimRefusal::Tenant) => Stage::Tenant,
        Refusal::Claims(ClaimRefusal::ClaimNotFound(name) | ClaimRefusal::ClaimValue(name))
            if name == "tid" && facts.is_of_tenant() =>
        {
            Stage::Tenant
        }
        Refusal::Claims(ClaimRefusal::ClaimNotFound(_) | ClaimRefusal::ClaimValue(_)) => {
            Stage::Required
        }
        Refusal::Claims(ClaimRefusal::Application(error))
            if is_about_version(error) && facts.is_of_tenant() =>
        {
            Stage::Tenant
        }
        Refusal::App | Refusal::Claims(ClaimRefusal::Application(_)) => Stage::Application,
        Refusal::Permission { .. } => Stage::Operation,
        Refusal::Deployment | Refusal::Body(_) => Stage::Deployment,
        Refusal::Parameter { .. } => Stage::Caps,
        Refusal::BodyNotReadable(_)
        | Refusal::QueryNotReadable { .. }
        | Refusal::ContentEncoding
        | Refusal::Limit(_)
        | Refusal::Counters
        | Refusal::Undecided
        | Refusal::Host => Stage::Limits,
    }
}

fn is_about_version(error: &ClaimError) -> bool {
    *error == ClaimError::Missing("ver".to_owned()) || *error == ClaimError::Value("ver")
}

/// A refusal in words: the core's, where they say enough.
fn reason(refusal: &Refusal, facts: &Facts<'_>) -> String {
    match refusal {
        Refusal::Claims(ClaimRefusal::Expired) => "the token has expired".to_owned(),
        Refusal::Claims(ClaimRefusal::NotYetValid) => "the token is not valid yet".to_owned(),
        Refusal::Claims(ClaimRefusal::Audience) => {
            "the token is meant for another audience".to_owned()
        }
        Refusal::Claims(ClaimRefusal::Tenant) => {
            "iss, ver and tid do not belong together".to_owned()
        }
        Refusal::Claims(ClaimRefusal::ClaimNotFound(name)) => format!("the token has no {name}"),
        Refusal::Claims(ClaimRefusal::ClaimValue(name)) => {
            format!("{name} has none of the wanted values")
        }
        Refusal::Limit(Reached {
            never: true, limit, ..
        }) => {
            format!("the call may use more than the {limit} tokens of a limit")
        }
        Refusal::Permission { action: None } => match facts.operation {
            Err(Unread::Ambiguous) => "two servers could read the path differently".to_owned(),
            _ => refusal.to_string(),
        },
        other => other.to_string(),
    }
}
