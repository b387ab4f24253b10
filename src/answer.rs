//! The answer to a refused request: the one place where codes become HTTP.

use std::fmt::Write as _;

use crate::json::Value;
use crate::limits::Reached;
use crate::policy::{AnswerFormat, Measure, Responses};
use crate::refusal::{Code, Outcome, Refusal};

/// `realm` of `WWW-Authenticate` (RFC 9110 section 11.5).
const REALM: &str = "tollgate";

/// An answer that the gateway sends itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Header names and values.
    pub headers: Vec<(&'static str, String)>,
    /// Body, JSON.
    pub body: String,
}

impl Answer {
    /// The answer to a refusal.
    #[must_use]
    pub fn new(refusal: &Refusal, responses: &Responses) -> Self {
        let code = refusal.code();
        let response = responses.of(code.outcome());
        let status = response.map_or(403, |response| response.status);
        let retry_in = retry_in(refusal);
        let message = match response.and_then(|response| response.message.clone()) {
            Some(message) => message,
            None => message(refusal, retry_in),
        };

        let mut headers = vec![("content-type", "application/json".to_owned())];
        if status == 401 {
            headers.push(("www-authenticate", challenge(code)));
        }
        if let Some(millis) = retry_in {
            headers.push(("retry-after", seconds_up(millis).to_string()));
            headers.push(("retry-after-ms", millis.to_string()));
        }
        limit_headers(refusal, &mut headers);
        Self {
            status,
            headers,
            body: body(code, status, &message, responses.format),
        }
    }
}

/// Milliseconds after which the same request may succeed, where that is known.
fn retry_in(refusal: &Refusal) -> Option<u64> {
    match refusal {
        Refusal::Limit(reached) => Some(reached.room_in.max(1)),
        Refusal::Counters => Some(1_000),
        Refusal::Keys { retry_in } => Some((*retry_in).max(1_000)),
        _ => None,
    }
}

fn seconds_up(millis: u64) -> u64 {
    millis.div_ceil(1_000)
}

/// The code's own message; the missing action as Azure names it; where waiting helps, for how
/// long, as API Management says it.
fn message(refusal: &Refusal, retry_in: Option<u64>) -> String {
    if let Refusal::Permission {
        action: Some(action),
    } = refusal
    {
        return format!(
            "The principal lacks the required data action `{action}` to perform this operation."
        );
    }
    if let Refusal::Limit(Reached {
        never: true, limit, ..
    }) = refusal
    {
        return format!(
            "The call may use more than the {limit} tokens of its limit. Shorten the prompt, or lower max_tokens."
        );
    }
    let mut message = match refusal {
        Refusal::Limit(reached)
            if reached.measure != Measure::Calls && refusal.code() == Code::QuotaExceeded =>
        {
            "Out of token quota.".to_owned()
        }
        _ => refusal.code().message().to_owned(),
    };
    if let Some(millis) = retry_in {
        // Writing to a string cannot fail.
        let _ = write!(message, " Try again in {} seconds.", seconds_up(millis));
    }
    message
}

/// RFC 6750 section 3: no `error` when there was no token.
fn challenge(code: Code) -> String {
    if code == Code::TokenNotPresent {
        return format!("Bearer realm=\"{REALM}\"");
    }
    let description = code.message();
    format!(
        "Bearer realm=\"{REALM}\", error=\"invalid_token\", error_description=\"{description}\""
    )
}

/// `x-ratelimit-*` as Azure OpenAI writes them; `x-should-retry` keeps the OpenAI SDKs from
/// retrying against a quota that is used up, or with a call that is too large.
fn limit_headers(refusal: &Refusal, headers: &mut Vec<(&'static str, String)>) {
    let Refusal::Limit(reached) = refusal else {
        return;
    };
    let [limit, remaining, reset] = match reached.measure {
        Measure::Calls => [
            "x-ratelimit-limit-requests",
            "x-ratelimit-remaining-requests",
            "x-ratelimit-reset-requests",
        ],
        Measure::Tokens { .. } => [
            "x-ratelimit-limit-tokens",
            "x-ratelimit-remaining-tokens",
            "x-ratelimit-reset-tokens",
        ],
    };
    headers.push((limit, reached.limit.to_string()));
    headers.push((remaining, reached.remaining.to_string()));
    headers.push((reset, seconds_up(reached.reset_in).to_string()));
    if reached.never || refusal.code() == Code::QuotaExceeded {
        headers.push(("x-should-retry", "false".to_owned()));
    }
}

fn body(code: Code, status: u16, message: &str, format: AnswerFormat) -> String {
    let message = Value::String(message.into()).to_json();
    match format {
        AnswerFormat::Apim => format!("{{\"statusCode\":{status},\"message\":{message}}}"),
        AnswerFormat::OpenAi => format!(
            "{{\"error\":{{\"code\":\"{}\",\"message\":{message},\"type\":\"{}\",\"param\":null}}}}",
            code.name(),
            error_type(code)
        ),
    }
}

/// `error.type`, in the words of OpenAI's API.
fn error_type(code: Code) -> &'static str {
    match code.outcome() {
        Outcome::Allowed | Outcome::Undecided | Outcome::Unauthenticated => "invalid_request_error",
        Outcome::ApiKey | Outcome::Forbidden => "permission_error",
        Outcome::Limited if code == Code::TokenLimitExceeded => "tokens",
        Outcome::Limited => "requests",
        Outcome::Quota => "insufficient_quota",
        Outcome::Unavailable => "server_error",
    }
}
