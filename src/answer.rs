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

/// RFC 6750 section 3: no `error` when there was no token, or none that was looked at.
fn challenge(code: Code) -> String {
    if matches!(
        code,
        Code::TokenNotPresent | Code::AuthenticationTypeDisabled
    ) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Period, Policy, Window};

    const POLICY: &str = r#"{"issuers":[{"openid_config":"https://login.example/c","cluster":"c","issuers":["i"],
        "audiences":["a"]}]}"#;

    /// The answer by the policy's defaults: its headers but for the content type, `error.type` and the message.
    fn told(refusal: &Refusal) -> (Vec<(&'static str, String)>, String, String) {
        let policy = Policy::parse(POLICY.as_bytes()).unwrap();
        let answer = Answer::new(refusal, &policy.responses);
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        let text = |name: &str| body["error"][name].as_str().unwrap().to_owned();
        assert_eq!(text("code"), refusal.code().name());
        let mut headers = answer.headers;
        assert_eq!(headers.remove(0).0, "content-type");
        (headers, text("type"), text("message"))
    }

    fn pairs(headers: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
        let headers = headers.iter();
        headers
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect()
    }

    fn limit(measure: Measure, window: Window) -> Refusal {
        Refusal::Limit(Reached {
            measure,
            limit: 10,
            remaining: 3,
            window,
            never: false,
            room_in: 0,
            reset_in: 59_001,
        })
    }

    #[test]
    fn without_a_token_the_challenge_names_no_error() {
        let (headers, kind, _) = told(&Refusal::NoToken);
        assert_eq!(kind, "invalid_request_error");
        let challenge = "Bearer realm=\"tollgate\"";
        assert_eq!(headers, pairs(&[("www-authenticate", challenge)]));
        // For a key no token was looked at, whatever the status of its answer.
        assert_eq!(
            super::challenge(Code::AuthenticationTypeDisabled),
            challenge
        );

        let (headers, kind, message) = told(&Refusal::Issuer);
        assert_eq!(kind, "invalid_request_error");
        let challenge =
            format!("{challenge}, error=\"invalid_token\", error_description=\"{message}\"");
        assert_eq!(headers, pairs(&[("www-authenticate", &challenge)]));
    }

    #[test]
    fn who_may_not_is_not_challenged() {
        for refusal in [Refusal::ApiKey, Refusal::App, Refusal::Deployment] {
            let (headers, kind, _) = told(&refusal);
            assert_eq!((headers, &*kind), (Vec::new(), "permission_error"));
        }
    }

    #[test]
    fn where_waiting_helps_it_is_said_for_how_long() {
        let (headers, kind, message) = told(&Refusal::Counters);
        assert_eq!(kind, "requests");
        assert!(message.ends_with(" Try again in 1 seconds."), "{message}");
        assert_eq!(
            headers,
            pairs(&[("retry-after", "1"), ("retry-after-ms", "1000")])
        );
        for (retry_in, seconds, millis) in [(1, "1", "1000"), (1_500, "2", "1500")] {
            let (headers, kind, _) = told(&Refusal::Keys { retry_in });
            assert_eq!(kind, "server_error");
            assert_eq!(
                headers,
                pairs(&[("retry-after", seconds), ("retry-after-ms", millis)])
            );
        }
    }

    #[test]
    fn a_limit_tells_what_is_left_of_it() {
        let tokens = Measure::Tokens { reserve: false };
        let minute = Window::Sliding { millis: 60_000 };
        let month = Window::Calendar(Period::Month);
        for (measure, window, unit, kind, message) in [
            (
                Measure::Calls,
                minute,
                "requests",
                "requests",
                "Rate limit is exceeded.",
            ),
            (
                tokens,
                minute,
                "tokens",
                "tokens",
                "Token limit is exceeded.",
            ),
            (
                Measure::Calls,
                month,
                "requests",
                "insufficient_quota",
                "Out of call volume quota.",
            ),
            (
                tokens,
                month,
                "tokens",
                "insufficient_quota",
                "Out of token quota.",
            ),
        ] {
            let (headers, told_kind, told_message) = told(&limit(measure, window));
            assert_eq!(told_kind, kind);
            assert_eq!(told_message, format!("{message} Try again in 1 seconds."));
            let names: Vec<_> = headers
                .iter()
                .map(|(name, value)| format!("{name}: {value}"))
                .collect();
            let mut expected = vec![
                "retry-after: 1".to_owned(),
                "retry-after-ms: 1".to_owned(),
                format!("x-ratelimit-limit-{unit}: 10"),
                format!("x-ratelimit-remaining-{unit}: 3"),
                format!("x-ratelimit-reset-{unit}: 60"),
            ];
            if window == month {
                expected.push("x-should-retry: false".to_owned());
            }
            assert_eq!(names, expected);
        }
    }
}
