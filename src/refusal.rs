//! Why a request is refused, and what that is called outside.
//!
//! A [`Refusal`] knows the details and is for the log. Its [`Code`] is all that an answer, a
//! metric or the filter state tells.

use std::borrow::Cow;
use std::fmt;

use crate::jwt::{ClaimError, ClaimRefusal, TokenError, VerifyError};
use crate::limits::Reached;
use crate::operations::Action;
use crate::policy::{Measure, Response, Responses, Window};
use crate::request::KeyPlace;
use crate::usage::BodyError;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no bearer token.
    NoToken,
    /// The credential has no scheme.
    NoScheme,
    /// There are several credentials.
    AmbiguousCredential,
    /// The token is malformed.
    Token(TokenError),
    /// The token's `alg` is not one that its issuer may use.
    Algorithm,
    /// `iss` is none of the policy's.
    Issuer,
    /// `kid` is none of the issuer's keys.
    KeyNotFound,
    /// The key belongs to another issuer.
    KeyOfAnother,
    /// The signature or the form of the claims is wrong.
    Verify(VerifyError),
    /// The claims do not hold now, or here.
    Claims(ClaimRefusal),
    /// The request carries an API key.
    ApiKey(KeyPlace),
    /// The application may not call.
    App,
    /// No role of the application grants what is asked for.
    Permission {
        /// The action that is missing; `None` where what is asked for is not known.
        action: Option<Action>,
    },
    /// The application may not use the deployment.
    Deployment,
    /// The body does not name a deployment once, in one way.
    Body(BodyError),
    /// The body has to be read, and has no single reading.
    BodyNotReadable(BodyError),
    /// The query has to be read, and has no single reading.
    QueryNotReadable {
        /// Which parameter of it.
        parameter: &'static str,
    },
    /// The body has to be read, and is compressed or not UTF-8.
    ContentEncoding,
    /// The caller may not send this parameter, or not with this value.
    Parameter {
        /// Its name: a member of the body, or a header.
        name: &'static str,
    },
    /// A limit is reached.
    Limit(Reached),
    /// The counters could not be kept, so the limit cannot be either.
    Counters,
    /// Too many requests of the application wait for their bodies.
    Undecided,
    /// The keys cannot be had; milliseconds until the next try.
    Keys {
        /// Milliseconds until the provider is asked again.
        retry_in: u64,
    },
    /// The host refused what the decision, or carrying it out, needs.
    Host,
}

/// What a refusal is called outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// 401
    TokenNotPresent,
    /// 401
    JwtInvalid,
    /// 401
    TokenSignatureKeyNotFound,
    /// 401
    TokenSignatureInvalid,
    /// 401
    TokenIssuerNotAllowed,
    /// 401
    TokenAudienceNotAllowed,
    /// 401
    TokenExpired,
    /// 401
    TokenNotYetValid,
    /// 401
    TokenClaimNotFound,
    /// 401
    TokenClaimValueNotAllowed,
    /// 400
    BodyNotReadable,
    /// 403
    AuthenticationTypeDisabled,
    /// 403
    AppNotAllowed,
    /// 403
    PermissionDenied,
    /// 403
    DeploymentNotAllowed,
    /// 403
    ParameterNotAllowed,
    /// 413
    CallExceedsLimit,
    /// 415
    ContentEncodingNotSupported,
    /// 429
    RateLimitExceeded,
    /// 429
    TokenLimitExceeded,
    /// 429
    QuotaExceeded,
    /// 503
    KeysUnavailable,
    /// 503
    InternalError,
}

/// What became of a request, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It went on to the backend.
    Allowed,
    /// No token, or a bad one.
    Unauthenticated,
    /// An API key.
    ApiKey,
    /// A caller without permission.
    Forbidden,
    /// A limit is reached.
    Limited,
    /// A quota is used up.
    Quota,
    /// The keys cannot be had, or the gateway failed.
    Unavailable,
    /// It ended before a decision: its caller left, or the backend refused it while its body was on the way.
    Undecided,
}

impl Refusal {
    /// What it is called outside.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::NoToken | Self::NoScheme => Code::TokenNotPresent,
            Self::AmbiguousCredential | Self::Token(_) | Self::Algorithm => Code::JwtInvalid,
            Self::Issuer | Self::KeyOfAnother | Self::Claims(ClaimRefusal::Tenant) => {
                Code::TokenIssuerNotAllowed
            }
            Self::KeyNotFound => Code::TokenSignatureKeyNotFound,
            Self::Verify(VerifyError::Signature) => Code::TokenSignatureInvalid,
            Self::Verify(VerifyError::Claim(error))
            | Self::Claims(ClaimRefusal::Application(error)) => match error {
                ClaimError::Missing(_) => Code::TokenClaimNotFound,
                ClaimError::Type(_) | ClaimError::Repeated(_) => Code::JwtInvalid,
                ClaimError::Value(_) => Code::TokenClaimValueNotAllowed,
            },
            Self::Claims(ClaimRefusal::Expired) => Code::TokenExpired,
            Self::Claims(ClaimRefusal::NotYetValid) => Code::TokenNotYetValid,
            Self::Claims(ClaimRefusal::Audience) => Code::TokenAudienceNotAllowed,
            Self::Claims(ClaimRefusal::ClaimNotFound(_)) => Code::TokenClaimNotFound,
            Self::Claims(ClaimRefusal::ClaimValue(_)) => Code::TokenClaimValueNotAllowed,
            Self::ApiKey(_) => Code::AuthenticationTypeDisabled,
            Self::App => Code::AppNotAllowed,
            Self::Permission { .. } => Code::PermissionDenied,
            Self::Deployment | Self::Body(_) => Code::DeploymentNotAllowed,
            Self::BodyNotReadable(_) | Self::QueryNotReadable { .. } => Code::BodyNotReadable,
            Self::ContentEncoding => Code::ContentEncodingNotSupported,
            Self::Parameter { .. } => Code::ParameterNotAllowed,
            Self::Limit(Reached { never: true, .. }) => Code::CallExceedsLimit,
            Self::Limit(reached) => match (reached.window, reached.measure) {
                (Window::Sliding { .. }, Measure::Calls) => Code::RateLimitExceeded,
                (Window::Sliding { .. }, Measure::Tokens { .. }) => Code::TokenLimitExceeded,
                (Window::Calendar(_), _) => Code::QuotaExceeded,
            },
            Self::Counters | Self::Undecided => Code::RateLimitExceeded,
            Self::Keys { .. } => Code::KeysUnavailable,
            Self::Host => Code::InternalError,
        }
    }
}

impl Refusal {
    /// What an answer says when the policy gives no message of its own. Tells the caller what to do, and nothing of
    /// the policy but what the caller needs to know.
    #[must_use]
    pub fn message(&self) -> Cow<'static, str> {
        match self {
            Self::NoScheme => {
                "The Authorization header has no scheme. Send it as: Bearer, a space, and the access token."
                    .into()
            }
            Self::AmbiguousCredential => {
                "The request carries several credentials. Send one access token, in one Authorization header."
                    .into()
            }
            Self::Token(TokenError::Opaque) => {
                "The bearer value is an API key or another secret, and no Microsoft Entra ID token. Send an access token."
                    .into()
            }
            Self::ApiKey(place) => {
                let [what, name] = place.parts();
                let parts = [self.code().message(), " There is one in the ", what, " `", name, "`."];
                parts.concat().into()
            }
            Self::Permission {
                action: Some(action),
            } => format!(
                "The principal lacks the required data action `{action}` to perform this operation."
            ).into(),
            Self::Permission { action: None } => {
                "The operation is not permitted: no known operation has this method and path. Paths begin with /openai/v1/ or /openai/."
                    .into()
            }
            Self::Body(error) => format!(
                "The request body must name `model` once, as a deployment's name: {error}."
            ).into(),
            Self::BodyNotReadable(error) => format!("The request body cannot be read: {error}.").into(),
            Self::QueryNotReadable { parameter } => {
                format!("The query must have the parameter `{parameter}` once.").into()
            }
            Self::Parameter { name } => {
                format!("The parameter `{name}` is not allowed as it was sent.").into()
            }
            Self::Limit(Reached {
                never: true, limit, ..
            }) => format!(
                "The call may use more than the {limit} tokens of its limit. Shorten the prompt, or lower max_tokens."
            ).into(),
            Self::Limit(reached)
                if reached.measure != Measure::Calls && self.code() == Code::QuotaExceeded =>
            {
                "Out of token quota.".into()
            }
            _ => self.code().message().into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoToken => formatter.write_str("no bearer token"),
            Self::NoScheme => formatter.write_str("a credential without a scheme"),
            Self::AmbiguousCredential => formatter.write_str("several credentials"),
            Self::Token(error) => write!(formatter, "malformed token: {error}"),
            Self::Algorithm => formatter.write_str("alg is not allowed for this issuer"),
            Self::Issuer => formatter.write_str("iss is none of the policy's issuers"),
            Self::KeyNotFound => formatter.write_str("kid is none of the issuer's keys"),
            Self::KeyOfAnother => formatter.write_str("the key belongs to another issuer"),
            Self::Verify(VerifyError::Signature) => formatter.write_str("the signature is wrong"),
            Self::Verify(VerifyError::Claim(error))
            | Self::Claims(ClaimRefusal::Application(error)) => error.fmt(formatter),
            Self::Claims(refusal) => write!(formatter, "{refusal:?}"),
            Self::ApiKey(place) => write!(formatter, "the request carries an API key in {place}"),
            Self::App => formatter.write_str("the application may not call"),
            Self::Permission {
                action: Some(action),
            } => write!(formatter, "no role of the application grants {action}"),
            Self::Permission { action: None } => {
                formatter.write_str("method and path are no operation that a role could grant")
            }
            Self::Deployment => formatter.write_str("the application may not use the deployment"),
            Self::Body(error) => write!(formatter, "the deployment is not known: {error}"),
            Self::BodyNotReadable(error) => error.fmt(formatter),
            Self::QueryNotReadable { parameter } => {
                write!(formatter, "the query has no single `{parameter}`")
            }
            Self::ContentEncoding => {
                formatter.write_str("the body is compressed or not UTF-8, and has to be read")
            }
            Self::Parameter { name } => write!(formatter, "`{name}` is not allowed as it was sent"),
            Self::Limit(reached) => {
                let measure = match reached.measure {
                    Measure::Calls => "calls",
                    Measure::Tokens { .. } => "tokens",
                };
                let (limit, remaining) = (reached.limit, reached.remaining);
                write!(
                    formatter,
                    "{limit} {measure} per {:?}, of which {remaining} are left",
                    reached.window
                )
            }
            Self::Counters => formatter.write_str("shared data failed"),
            Self::Undecided => formatter.write_str("too many requests wait for their bodies"),
            Self::Keys { retry_in } => {
                write!(formatter, "no usable keys; next try in {retry_in} ms")
            }
            Self::Host => formatter.write_str("the host refused what this takes"),
        }
    }
}

impl Code {
    /// All codes.
    pub const ALL: [Self; 23] = [
        Self::TokenNotPresent,
        Self::JwtInvalid,
        Self::TokenSignatureKeyNotFound,
        Self::TokenSignatureInvalid,
        Self::TokenIssuerNotAllowed,
        Self::TokenAudienceNotAllowed,
        Self::TokenExpired,
        Self::TokenNotYetValid,
        Self::TokenClaimNotFound,
        Self::TokenClaimValueNotAllowed,
        Self::BodyNotReadable,
        Self::AuthenticationTypeDisabled,
        Self::AppNotAllowed,
        Self::PermissionDenied,
        Self::DeploymentNotAllowed,
        Self::ParameterNotAllowed,
        Self::CallExceedsLimit,
        Self::ContentEncodingNotSupported,
        Self::RateLimitExceeded,
        Self::TokenLimitExceeded,
        Self::QuotaExceeded,
        Self::KeysUnavailable,
        Self::InternalError,
    ];

    /// The code's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TokenNotPresent => "TokenNotPresent",
            Self::JwtInvalid => "JwtInvalid",
            Self::TokenSignatureKeyNotFound => "TokenSignatureKeyNotFound",
            Self::TokenSignatureInvalid => "TokenSignatureInvalid",
            Self::TokenIssuerNotAllowed => "TokenIssuerNotAllowed",
            Self::TokenAudienceNotAllowed => "TokenAudienceNotAllowed",
            Self::TokenExpired => "TokenExpired",
            Self::TokenNotYetValid => "TokenNotYetValid",
            Self::TokenClaimNotFound => "TokenClaimNotFound",
            Self::TokenClaimValueNotAllowed => "TokenClaimValueNotAllowed",
            Self::BodyNotReadable => "BodyNotReadable",
            Self::AuthenticationTypeDisabled => "AuthenticationTypeDisabled",
            Self::AppNotAllowed => "AppNotAllowed",
            Self::PermissionDenied => "PermissionDenied",
            Self::DeploymentNotAllowed => "DeploymentNotAllowed",
            Self::ParameterNotAllowed => "ParameterNotAllowed",
            Self::CallExceedsLimit => "CallExceedsLimit",
            Self::ContentEncodingNotSupported => "ContentEncodingNotSupported",
            Self::RateLimitExceeded => "RateLimitExceeded",
            Self::TokenLimitExceeded => "TokenLimitExceeded",
            Self::QuotaExceeded => "QuotaExceeded",
            Self::KeysUnavailable => "KeysUnavailable",
            Self::InternalError => "InternalError",
        }
    }

    /// The outcome it belongs to.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        match self {
            Self::TokenNotPresent
            | Self::JwtInvalid
            | Self::TokenSignatureKeyNotFound
            | Self::TokenSignatureInvalid
            | Self::TokenIssuerNotAllowed
            | Self::TokenAudienceNotAllowed
            | Self::TokenExpired
            | Self::TokenNotYetValid
            | Self::TokenClaimNotFound
            | Self::TokenClaimValueNotAllowed => Outcome::Unauthenticated,
            Self::AuthenticationTypeDisabled => Outcome::ApiKey,
            Self::AppNotAllowed
            | Self::PermissionDenied
            | Self::DeploymentNotAllowed
            | Self::ParameterNotAllowed
            | Self::BodyNotReadable
            | Self::ContentEncodingNotSupported => Outcome::Forbidden,
            Self::RateLimitExceeded | Self::TokenLimitExceeded | Self::CallExceedsLimit => {
                Outcome::Limited
            }
            Self::QuotaExceeded => Outcome::Quota,
            Self::KeysUnavailable | Self::InternalError => Outcome::Unavailable,
        }
    }

    /// The status of a code that keeps its own, whatever the policy says of its outcome: clients go by it,
    /// and try a call again that cannot pass under another.
    #[must_use]
    pub fn fixed_status(self) -> Option<u16> {
        match self {
            Self::BodyNotReadable => Some(400),
            Self::CallExceedsLimit => Some(413),
            Self::ContentEncodingNotSupported => Some(415),
            _ => None,
        }
    }

    /// What an answer says when the policy gives no message of its own. Tells the caller what
    /// to do, and nothing of the policy.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::TokenNotPresent => {
                "Access token is missing. Send a Microsoft Entra ID token in the Authorization header."
            }
            Self::JwtInvalid => "The access token is malformed.",
            Self::TokenSignatureKeyNotFound => {
                "The access token is signed with a key that its issuer does not publish."
            }
            Self::TokenSignatureInvalid => "The signature of the access token is invalid.",
            Self::TokenIssuerNotAllowed => "The issuer of the access token is not accepted here.",
            Self::TokenAudienceNotAllowed => "The access token is meant for another audience.",
            Self::TokenExpired => "The access token has expired.",
            Self::TokenNotYetValid => "The access token is not valid yet.",
            Self::TokenClaimNotFound => "The access token lacks a required claim.",
            Self::TokenClaimValueNotAllowed => {
                "A claim of the access token has a value that is not accepted here."
            }
            Self::AuthenticationTypeDisabled => {
                "Key based authentication is disabled. Use a Microsoft Entra ID token and send no API key."
            }
            Self::AppNotAllowed => "The application is not allowed to call this service.",
            Self::PermissionDenied => "The operation is not permitted.",
            Self::DeploymentNotAllowed => "The application is not allowed to use this deployment.",
            Self::ParameterNotAllowed => "A parameter of the request is not allowed.",
            Self::BodyNotReadable => "The request cannot be read in one way only.",
            Self::CallExceedsLimit => "The call is larger than its limit.",
            Self::ContentEncodingNotSupported => {
                "The request body must be sent uncompressed, in UTF-8."
            }
            Self::RateLimitExceeded => "Rate limit is exceeded.",
            Self::TokenLimitExceeded => "Token limit is exceeded.",
            Self::QuotaExceeded => "Out of call volume quota.",
            Self::KeysUnavailable => {
                "The signing keys of the identity provider are temporarily unavailable."
            }
            Self::InternalError => "The gateway failed.",
        }
    }
}

impl Outcome {
    /// The outcome's name in logs, metrics and the filter state.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Unauthenticated => "unauthenticated",
            Self::ApiKey => "api_key",
            Self::Forbidden => "forbidden",
            Self::Limited => "limited",
            Self::Quota => "quota",
            Self::Unavailable => "unavailable",
            Self::Undecided => "undecided",
        }
    }

    /// The name of what would have been, in report mode.
    #[must_use]
    pub fn would_name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Unauthenticated => "would_unauthenticated",
            Self::ApiKey => "would_api_key",
            Self::Forbidden => "would_forbidden",
            Self::Limited => "would_limited",
            Self::Quota => "would_quota",
            Self::Unavailable => "would_unavailable",
            Self::Undecided => "undecided",
        }
    }
}

impl Responses {
    /// How an outcome is answered; `Allowed` and `Undecided` have no answer of the module's.
    #[must_use]
    pub fn of(&self, outcome: Outcome) -> Option<&Response> {
        match outcome {
            Outcome::Allowed | Outcome::Undecided => None,
            Outcome::Unauthenticated => Some(&self.unauthenticated),
            Outcome::ApiKey => Some(&self.api_key),
            Outcome::Forbidden => Some(&self.forbidden),
            Outcome::Limited => Some(&self.limited),
            Outcome::Quota => Some(&self.quota),
            Outcome::Unavailable => Some(&self.unavailable),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_has_its_name_its_outcome_and_a_message_of_its_own() {
        let mut messages = BTreeSet::new();
        for code in Code::ALL {
            let outcome = match code.name() {
                "AuthenticationTypeDisabled" => Outcome::ApiKey,
                "AppNotAllowed"
                | "PermissionDenied"
                | "DeploymentNotAllowed"
                | "ParameterNotAllowed"
                | "BodyNotReadable"
                | "ContentEncodingNotSupported" => Outcome::Forbidden,
                "RateLimitExceeded" | "TokenLimitExceeded" | "CallExceedsLimit" => Outcome::Limited,
                "QuotaExceeded" => Outcome::Quota,
                "KeysUnavailable" | "InternalError" => Outcome::Unavailable,
                _ => Outcome::Unauthenticated,
            };
            assert_eq!(code.name(), format!("{code:?}"));
            assert_eq!(code.outcome(), outcome);
            assert!(code.message().ends_with('.'), "{code:?}");
            assert!(messages.insert(code.message()), "{code:?}");
        }
        assert_eq!(messages.len(), 23);
    }

    #[test]
    fn what_would_have_been_is_named_after_it() {
        for (outcome, name) in [
            (Outcome::Allowed, "allowed"),
            (Outcome::Unauthenticated, "unauthenticated"),
            (Outcome::ApiKey, "api_key"),
            (Outcome::Forbidden, "forbidden"),
            (Outcome::Limited, "limited"),
            (Outcome::Quota, "quota"),
            (Outcome::Unavailable, "unavailable"),
            (Outcome::Undecided, "undecided"),
        ] {
            assert_eq!(outcome.name(), name);
            let is_refused = !matches!(outcome, Outcome::Allowed | Outcome::Undecided);
            let would = if is_refused {
                format!("would_{name}")
            } else {
                name.to_owned()
            };
            assert_eq!(outcome.would_name(), would);
        }
    }
}
