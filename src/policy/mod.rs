//! The policy: what the operator wrote, as meaning.
//!
//! [`Policy::parse`] turns the plugin configuration (one JSON object) into
//! these types. A `Policy` that exists is valid: every default is filled in, every name is
//! resolved, and no later code checks it again.

mod answers;
mod apps;
mod caps;
mod deployments;
mod document;
mod error;
mod headers;
mod issuers;
mod key_source;
mod limits;
mod names;
mod reader;
mod roles;
mod structure;
#[cfg(test)]
mod tests;
mod time;
mod usage;
mod wording;

use hashbrown::HashMap;

use crate::guid::Guid;
use crate::jwt::Algorithm;
use crate::roles::Permissions;
use crate::url::Url;

pub use error::{PolicyError, PolicyErrors};
pub use issuers::default_separator;

/// A valid policy.
#[derive(Debug)]
pub struct Policy {
    /// Who may sign tokens. At least one.
    pub issuers: Vec<Issuer>,
    /// Where API keys are looked for, and what happens to them.
    pub api_keys: ApiKeys,
    /// Applications and their limits.
    pub apps: Apps,
    /// Paths that need no token.
    pub public_paths: Vec<Pattern>,
    /// What happens to CORS preflight requests.
    pub cors_preflight: CorsPreflight,
    /// What is forwarded to the backend.
    pub forward: Forward,
    /// How refusals are answered.
    pub responses: Responses,
    /// Whether refusals are carried out.
    pub mode: Mode,
    /// How it is learned what calls use.
    pub usage: UsageReading,
    /// What is told about each request.
    pub log: Log,
    /// How many requests of one application and worker may wait for their body's decision.
    pub max_undecided: usize,
}

/// One trusted issuer: a tenant of Entra ID or another provider.
#[derive(Debug)]
pub struct Issuer {
    /// For logs and metrics.
    pub name: String,
    /// The tenant that tokens must come from (`tid`), when the issuer is an Entra tenant.
    pub tenant: Option<Tenant>,
    /// Accepted values of `iss`, compared exactly.
    pub issuers: Vec<String>,
    /// Accepted values of `aud`, each without its trailing slash.
    pub audiences: Vec<String>,
    /// Where the keys come from.
    pub keys: KeySource,
    /// Claims every token must carry.
    pub required_claims: Vec<RequiredClaim>,
    /// Accepted signature algorithms.
    pub algorithms: Vec<Algorithm>,
    /// The claim that names the application.
    pub app_claim: AppClaim,
    /// Tolerance for `exp` and `nbf`, in seconds.
    pub clock_skew: u64,
}

/// An Entra tenant, from the `tenant_id` shorthand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// The tenant's id.
    pub id: Guid,
    /// Sign-in host with scheme, no trailing slash: `https://login.microsoftonline.com`.
    pub authority: String,
}

/// The claim that names the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppClaim {
    /// `appid` in tokens of version 1.0, `azp` in tokens of version 2.0 (Entra ID,
    /// access token claims reference).
    ByVersion,
    /// This claim, whatever the version.
    Named(String),
}

/// Where an issuer's keys come from.
#[derive(Debug)]
pub enum KeySource {
    /// A JWK Set in the policy; nothing is fetched.
    Inline(crate::keys::KeySet),
    /// Fetched through the gateway.
    Fetched(KeyFetch),
}

/// How an issuer's keys are fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFetch {
    /// What is asked for first.
    pub start: FetchStart,
    /// The gateway's cluster that reaches the host.
    pub cluster: String,
    /// How often, and for how long old keys serve.
    pub refresh: Refresh,
}

/// The first document of a key fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchStart {
    /// OpenID Connect metadata, whose `jwks_uri` is followed.
    Metadata(Url),
    /// The key set itself.
    Keys(Url),
}

/// Refresh timing, all in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refresh {
    /// Time between background refreshes.
    pub every: u64,
    /// Least time between two fetches.
    pub at_most_every: u64,
    /// How long the last good set serves when fetching fails.
    pub keep_stale_for: u64,
    /// Time limit of one callout.
    pub timeout: u64,
}

/// A claim that every token must carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredClaim {
    /// The claim's name.
    pub name: String,
    /// Wanted values. Empty: the claim must be there.
    pub values: Vec<String>,
    /// Whether all or any of the values are wanted.
    pub matching: ClaimMatch,
    /// Splits a string claim into values, where it is one of several. Never empty.
    pub separator: Option<String>,
}

/// How many of the wanted values a claim must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimMatch {
    /// Every one.
    All,
    /// At least one.
    Any,
}

/// Where API keys are looked for, and what happens to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeys {
    /// Deny the request or strip the key.
    pub action: ApiKeyAction,
    /// Header names, lower case, with `_` written as `-`.
    pub headers: Vec<String>,
    /// Query parameter names, lower case.
    pub query: Vec<String>,
}

/// What happens to a request that carries an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiKeyAction {
    /// It is refused, whatever else it carries.
    Deny,
    /// The key is removed and the token decides.
    Strip,
}

/// The applications of a policy.
#[derive(Debug)]
pub struct Apps {
    /// Listed applications, in the order of the policy.
    pub listed: Vec<App>,
    /// Index into `listed` by application id.
    pub by_id: HashMap<Guid, usize>,
    /// Serves every application that is not listed; its `id` is `None`.
    pub default_app: App,
}

/// What one application may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// The application (client) id; `None` for the default application.
    pub id: Option<Guid>,
    /// For logs and metrics: the id when the policy gives no name. Visible ASCII and
    /// single spaces, at most 64 characters. `None` for a default application without a name.
    pub name: Option<String>,
    /// Whether the application may call at all.
    pub access: Access,
    /// What its roles grant; `None` without roles, when it may ask for everything.
    pub roles: Option<Permissions>,
    /// The deployments that it may use; `None` for all.
    pub deployments: Option<Deployments>,
    /// How much it may call.
    pub limits: Vec<Limit>,
    /// What its requests may ask for.
    pub caps: Caps,
}

/// What the requests of an application may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// They may replace the content filter of a deployment.
    pub content_filter_override: bool,
}

/// Whether an application may call at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It may.
    Allow,
    /// It may not.
    Deny,
}

/// Some deployments. Letter case makes no other name, as in Azure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployments(pub Vec<Pattern>);

/// So much per window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What is counted.
    pub measure: Measure,
    /// How much of it passes in one window. At least 1.
    pub amount: u64,
    /// The window.
    pub window: Window,
    /// Which answers count.
    pub count: Count,
    /// Which requests it is for.
    pub scope: Scope,
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Measure {
    /// Calls.
    Calls,
    /// Tokens, as answers say that they were used.
    Tokens {
        /// What a call may use is held from its admission to its end.
        reserve: bool,
    },
}

/// Which requests a limit is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Only these operations.
    pub operations: Option<Permissions>,
    /// Only these deployments.
    pub deployments: Option<Deployments>,
}

/// The window of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// In no span of this many milliseconds do more pass.
    Sliding {
        /// Length in milliseconds: 1 s to 31 days.
        millis: u64,
    },
    /// A calendar quota.
    Calendar(Period),
}

/// A calendar period in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Period {
    /// From the full hour.
    Hour,
    /// From midnight.
    Day,
    /// From Monday's midnight (ISO 8601).
    Week,
    /// From the first of the month.
    Month,
}

/// Which answers count against a limit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Count {
    /// Every admitted call.
    All,
    /// Calls answered 2xx.
    Success,
    /// Calls answered with one of these statuses.
    Statuses(Vec<u16>),
}

/// A path or a name, exact or by prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// This one.
    Exact(String),
    /// All that begin so.
    Prefix(String),
}

/// What happens to CORS preflight requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CorsPreflight {
    /// They need a token like every request.
    Check,
    /// They pass.
    Pass,
}

/// What is forwarded to the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Whether the token goes on to the backend.
    pub authorization: bool,
    /// Request headers to set: lower-case name and source.
    pub headers: Vec<(String, HeaderSource)>,
}

/// Where the value of an identity header comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderSource {
    /// The application's id.
    AppId,
    /// The application's name in the policy.
    AppName,
    /// `tid`
    TenantId,
    /// `oid`
    ObjectId,
    /// `roles`, joined with commas.
    Roles,
    /// Any claim.
    Claim(String),
}

/// How refusals are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Responses {
    /// The shape of the body.
    pub format: AnswerFormat,
    /// No token, or a bad one. Default 401.
    pub unauthenticated: Response,
    /// An API key. Default 403.
    pub api_key: Response,
    /// A caller without permission. Default 403.
    pub forbidden: Response,
    /// A limit is reached. Default 429.
    pub limited: Response,
    /// A quota is used up. Default 429.
    pub quota: Response,
    /// The keys cannot be had. Default 503.
    pub unavailable: Response,
}

/// How one outcome is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// HTTP status, 400 to 599.
    pub status: u16,
    /// Replaces the message of every code of this outcome.
    pub message: Option<String>,
}

/// The shape of an error body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerFormat {
    /// `{"error":{...}}`, which the Azure and OpenAI SDKs read.
    OpenAi,
    /// `{"statusCode":...,"message":...}`, as API Management answers.
    Apim,
}

/// Whether refusals are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They are.
    Enforce,
    /// They are only told.
    Report,
}

/// What is told about each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// One line per request.
    pub requests: bool,
    /// Filter-state fields to set.
    pub filter_state: Vec<FilterStateField>,
}

/// A field of the filter state, `wasm.tollgate.<field>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FilterStateField {
    /// `outcome`
    Outcome,
    /// `code`
    Code,
    /// `app_id`
    AppId,
    /// `app_name`
    AppName,
    /// `tenant_id`
    TenantId,
    /// `object_id`
    ObjectId,
    /// `action`
    Action,
    /// `deployment`
    Deployment,
    /// `prompt_tokens`
    PromptTokens,
    /// `completion_tokens`
    CompletionTokens,
    /// `total_tokens`
    TotalTokens,
    /// `estimated_tokens`
    EstimatedTokens,
}

/// How it is learned what calls use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageReading {
    /// Whether answers are read for it.
    pub read: bool,
    /// What happens to streams whose caller does not ask for usage.
    pub stream_options: StreamOptions,
    /// What a picture or a file in a prompt is estimated at, in tokens.
    pub image_tokens: u64,
}

/// What happens to streams whose caller does not ask for usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamOptions {
    /// They say none.
    Keep,
    /// They are asked for it, and the caller does not see that.
    Inject,
}

impl Policy {
    /// Reads the plugin configuration.
    ///
    /// # Errors
    /// Everything that is wrong, each with its JSON path and what would be right.
    pub fn parse(configuration: &[u8]) -> Result<Self, PolicyErrors> {
        document::policy(configuration)
    }
}

impl Issuer {
    /// The gateway's cluster that keys are fetched by; empty when nothing is fetched.
    #[must_use]
    pub fn cluster(&self) -> &str {
        match &self.keys {
            KeySource::Inline(_) => "",
            KeySource::Fetched(fetch) => &fetch.cluster,
        }
    }
}

impl Apps {
    /// The rules for an application: its own, or those of the default application.
    #[must_use]
    pub fn find(&self, id: Guid) -> &App {
        self.by_id
            .get(&id)
            .and_then(|index| self.listed.get(*index))
            .unwrap_or(&self.default_app)
    }
}

impl Deployments {
    /// Whether a deployment is one of them.
    #[must_use]
    pub fn include(&self, name: &str) -> bool {
        let begins = |prefix: &str| {
            let start = name.as_bytes().get(..prefix.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
        };
        self.0.iter().any(|pattern| match pattern {
            Pattern::Exact(exact) => exact.eq_ignore_ascii_case(name),
            Pattern::Prefix(prefix) => begins(prefix),
        })
    }
}
