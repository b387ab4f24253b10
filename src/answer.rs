//! The answer to a refused request: the one place where codes become HTTP.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::json::Value;
use crate::limits::Reached;
use crate::policy::{AnswerFormat, Measure, Responses, Window};
use crate::refusal::{Code, Outcome, Refusal};
use crate::request::HeaderMap;
use crate::request_ids::{self, CLIENT_REQUEST_ID, REQUEST_ID};

/// `WWW-Authenticate` without an error (RFC 6750 section 3).
const CHALLENGE: &str = "Bearer realm=\"tollgate\"";

/// Paths under which responses have the shape of Anthropic's API.
const ANTHROPIC_PATHS: &[u8] = b"/anthropic/";

/// Most headers that a response has: more make the vector grow.
const MOST_HEADERS: usize = 10;

type Headers = Vec<(&'static str, Cow<'static, str>)>;

/// An answer that the gateway sends itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Header names and values.
    pub headers: Headers,
    /// Body, JSON.
    pub body: String,
}

/// What a response needs of its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseContext<'a> {
    /// `x-request-id`, where it may be returned.
    pub request_id: Option<&'a str>,
    /// `x-ms-client-request-id`, where it may be returned.
    pub client_request_id: Option<&'a str>,
    /// The path is one of Anthropic's API.
    pub is_anthropic: bool,
}

impl<'a> ResponseContext<'a> {
    /// Reads the headers in one pass.
    #[must_use]
    pub fn read(headers: &'a HeaderMap) -> Self {
        let mut context = Self::default();
        for (name, value) in headers.iter() {
            match name {
                b":path" => {
                    // Azure's router ignores letter case.
                    let start = value.get(..ANTHROPIC_PATHS.len());
                    context.is_anthropic =
                        start.is_some_and(|start| start.eq_ignore_ascii_case(ANTHROPIC_PATHS));
                }
                _ if name == REQUEST_ID.as_bytes() => {
                    context.request_id = request_ids::request_id(value);
                }
                _ if name == CLIENT_REQUEST_ID.as_bytes() => {
                    context.client_request_id = request_ids::client_request_id(value);
                }
                _ => {}
            }
        }
        context
    }

    /// SDKs show these in their errors, so that a caller can name the request.
    fn id_headers(&self, headers: &mut Headers) {
        if let Some(id) = self.request_id {
            headers.push((REQUEST_ID, id.to_owned().into()));
            if self.is_anthropic {
                headers.push(("request-id", id.to_owned().into()));
            }
        }
        if let Some(id) = self.client_request_id {
            headers.push((CLIENT_REQUEST_ID, id.to_owned().into()));
        }
    }
}

impl Answer {
    /// The answer to a refusal.
    #[must_use]
    pub fn new(refusal: &Refusal, responses: &Responses, context: &ResponseContext<'_>) -> Self {
        let code = refusal.code();
        let response = responses.of(code.outcome());
        let configured = response.map_or(403, |response| response.status);
        let status = code.fixed_status().unwrap_or(configured);
        let retry = Retry::after(refusal);
        let message = match response.and_then(|response| response.message.as_deref()) {
            Some(message) => Cow::Borrowed(message),
            None => message(refusal, retry),
        };

        let mut headers = Vec::with_capacity(MOST_HEADERS);
        headers.push(("content-type", "application/json".into()));
        headers.push(("x-tollgate-code", code.name().into()));
        context.id_headers(&mut headers);
        if status == 401 {
            headers.push(("www-authenticate", challenge(refusal)));
        }
        retry.headers(&mut headers);
        limit_headers(refusal, &mut headers);
        let body = if context.is_anthropic {
            anthropic_body(code, &message)
        } else {
            body(refusal, status, &message, responses.format)
        };
        Self {
            status,
            headers,
            body,
        }
    }
}

/// Longest wait that every SDK obeys, in milliseconds: several pass over `retry-after` from 60 s on, and try at once or
/// not at all.
const MAX_OBEYED: u64 = 59_999;
/// Waits up to this are shortened to that. A window of 60 s moves in steps of almost a second, so that the wait for room in
/// it is a little longer at most; who comes too early gets another, short one.
const MAX_SHORTENED: u64 = 61_000;
/// Longest wait that is worth it: SDKs sleep for as long as `retry-after` says.
const MAX_WORTHWHILE: u64 = 300_000;

/// Whether waiting helps. Times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retry {
    /// Waiting has nothing to do with it.
    Irrelevant,
    /// The same request may succeed after so long.
    Soon(u64),
    /// It may, but clients should report the error rather than wait.
    Later(u64),
    /// It may, after longer than anybody should wait.
    TooLate(u64),
}

impl Retry {
    fn after(refusal: &Refusal) -> Self {
        match refusal {
            // The call is larger than its limit.
            Refusal::Limit(Reached { never: true, .. }) => Self::Irrelevant,
            Refusal::Limit(Reached {
                window: Window::Calendar(_),
                retry_in,
                ..
            }) => Self::TooLate(*retry_in),
            Refusal::Limit(Reached { retry_in, .. }) if *retry_in <= MAX_SHORTENED => {
                Self::soon((*retry_in).max(1))
            }
            Refusal::Limit(Reached { retry_in, .. }) if *retry_in <= MAX_WORTHWHILE => {
                Self::Later(*retry_in)
            }
            Refusal::Limit(Reached { retry_in, .. }) => Self::TooLate(*retry_in),
            Refusal::Counters | Refusal::Undecided => Self::Soon(1_000),
            Refusal::Keys { retry_in } => Self::soon((*retry_in).max(1_000)),
            _ => Self::Irrelevant,
        }
    }

    fn soon(millis: u64) -> Self {
        Self::Soon(millis.min(MAX_OBEYED))
    }

    /// `x-should-retry` keeps the OpenAI SDKs from trying again on their own schedule.
    fn headers(self, headers: &mut Headers) {
        if let Self::Soon(millis) | Self::Later(millis) = self {
            headers.push(("retry-after", seconds_up(millis).to_string().into()));
            headers.push(("retry-after-ms", millis.to_string().into()));
        }
        if let Self::Later(_) | Self::TooLate(_) = self {
            headers.push(("x-should-retry", "false".into()));
        }
    }
}

fn seconds_up(millis: u64) -> u64 {
    millis.div_ceil(1_000)
}

/// The refusal's own message; where waiting helps, for how long, as API Management says it.
fn message(refusal: &Refusal, retry: Retry) -> Cow<'static, str> {
    let mut message = refusal.message();
    if let Retry::Soon(millis) | Retry::Later(millis) | Retry::TooLate(millis) = retry {
        let seconds = seconds_up(millis);
        let unit = if seconds == 1 { "second" } else { "seconds" };
        // Writing to a string cannot fail.
        let _ = write!(message.to_mut(), " Try again in {seconds} {unit}.");
    }
    message
}

/// RFC 6750 section 3: no `error` when there was no token, or none that was looked at.
fn challenge(refusal: &Refusal) -> Cow<'static, str> {
    let error = match (refusal, refusal.code()) {
        (Refusal::NoScheme, _) => "invalid_request",
        (_, Code::TokenNotPresent | Code::AuthenticationTypeDisabled) => {
            return CHALLENGE.into();
        }
        _ => "invalid_token",
    };
    let description = refusal.message();
    let parts = [
        CHALLENGE,
        ", error=\"",
        error,
        "\", error_description=\"",
        &description,
        "\"",
    ];
    parts.concat().into()
}

/// `x-ratelimit-*` as Azure OpenAI writes them.
fn limit_headers(refusal: &Refusal, headers: &mut Headers) {
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
    headers.push((limit, reached.limit.to_string().into()));
    headers.push((remaining, reached.remaining.to_string().into()));
    headers.push((reset, seconds_up(reached.reset_in).to_string().into()));
}

fn body(refusal: &Refusal, status: u16, message: &str, format: AnswerFormat) -> String {
    let message = json_text(message);
    match format {
        AnswerFormat::Apim => format!("{{\"statusCode\":{status},\"message\":{message}}}"),
        AnswerFormat::OpenAi => {
            let code = refusal.code();
            let param = param(refusal).map_or(Cow::Borrowed("null"), json_text);
            let parts = [
                "{\"error\":{\"code\":\"",
                code.name(),
                "\",\"message\":",
                &message,
                ",\"type\":\"",
                error_type(code),
                "\",\"param\":",
                &param,
                "}}",
            ];
            parts.concat()
        }
    }
}

/// In the shape of Anthropic's API, whose SDKs read no other.
fn anthropic_body(code: Code, message: &str) -> String {
    let (name, kind, message) = (code.name(), anthropic_type(code), json_text(message));
    format!(
        "{{\"type\":\"error\",\"error\":{{\"type\":\"{kind}\",\"message\":{message},\"code\":\"{name}\"}}}}"
    )
}

/// A text as JSON. Most have nothing to escape (RFC 8259 section 7).
fn json_text(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte >= b' ' && !matches!(byte, b'"' | b'\\');
    if text.bytes().all(is_plain) {
        return ["\"", text, "\""].concat().into();
    }
    Value::String(text.into()).to_json().into()
}

/// `error.param`: which parameter of the request is wrong.
fn param(refusal: &Refusal) -> Option<&'static str> {
    match refusal {
        Refusal::Parameter { name } => Some(name),
        Refusal::QueryNotReadable { parameter } => Some(parameter),
        _ => None,
    }
}

/// `error.type`, in the words of Anthropic's API.
fn anthropic_type(code: Code) -> &'static str {
    match (code, code.outcome()) {
        (Code::CallExceedsLimit, _) => "request_too_large",
        (Code::BodyNotReadable | Code::ContentEncodingNotSupported, _) => "invalid_request_error",
        (_, Outcome::Unauthenticated) => "authentication_error",
        (_, Outcome::ApiKey | Outcome::Forbidden) => "permission_error",
        (_, Outcome::Limited | Outcome::Quota) => "rate_limit_error",
        (_, Outcome::Unavailable | Outcome::Allowed | Outcome::Undecided) => "api_error",
    }
}

/// `error.type`, in the words of OpenAI's API.
fn error_type(code: Code) -> &'static str {
    match (code, code.outcome()) {
        (Code::BodyNotReadable | Code::ContentEncodingNotSupported, _)
        | (_, Outcome::Allowed | Outcome::Undecided | Outcome::Unauthenticated) => {
            "invalid_request_error"
        }
        (_, Outcome::ApiKey | Outcome::Forbidden) => "permission_error",
        (Code::TokenLimitExceeded | Code::CallExceedsLimit, _) => "tokens",
        (_, Outcome::Limited) => "requests",
        (_, Outcome::Quota) => "insufficient_quota",
        (_, Outcome::Unavailable) => "server_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jwt::TokenError;
    use crate::policy::{Period, Policy};
    use crate::request::KeyPlace;
    use crate::usage::BodyError;

    const POLICY: &str = r#"{"issuers":[{"openid_config":"https://login.example/c","cluster":"c","issuers":["i"],
        "audiences":["a"]}]}"#;

    /// The answer by the policy's defaults: its headers but for the content type, `error.type` and the message.
    fn told(refusal: &Refusal) -> (Headers, String, String) {
        let policy = Policy::parse(POLICY.as_bytes()).unwrap();
        let answer = Answer::new(refusal, &policy.responses, &ResponseContext::default());
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        let text = |name: &str| body["error"][name].as_str().unwrap().to_owned();
        assert_eq!(text("code"), refusal.code().name());
        let mut headers = answer.headers;
        assert_eq!(headers.remove(0).0, "content-type");
        let code = ("x-tollgate-code", refusal.code().name().into());
        assert_eq!(headers.remove(0), code);
        (headers, text("type"), text("message"))
    }

    fn pairs(headers: &[(&'static str, &str)]) -> Headers {
        let headers = headers.iter();
        headers
            .map(|(name, value)| (*name, (*value).to_owned().into()))
            .collect()
    }

    fn limit(measure: Measure, window: Window, retry_in: u64) -> Refusal {
        Refusal::Limit(Reached {
            measure,
            limit: 10,
            remaining: 3,
            window,
            never: false,
            room_in: 99_000_000,
            retry_in,
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
        let key = Refusal::ApiKey(KeyPlace::Subprotocol);
        assert_eq!(super::challenge(&key), challenge);

        let (headers, kind, message) = told(&Refusal::Issuer);
        assert_eq!(kind, "invalid_request_error");
        let challenge =
            format!("{challenge}, error=\"invalid_token\", error_description=\"{message}\"");
        assert_eq!(headers, pairs(&[("www-authenticate", &challenge)]));
    }

    #[test]
    fn who_may_not_is_not_challenged() {
        let key = Refusal::ApiKey(KeyPlace::Header("api-key".to_owned()));
        for refusal in [key, Refusal::App, Refusal::Deployment] {
            let (headers, kind, _) = told(&refusal);
            assert_eq!((headers, &*kind), (Vec::new(), "permission_error"));
        }
    }

    #[test]
    fn where_waiting_helps_it_is_said_for_how_long() {
        let (headers, kind, message) = told(&Refusal::Counters);
        assert_eq!(kind, "requests");
        assert!(message.ends_with(" Try again in 1 second."), "{message}");
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
            let (headers, told_kind, told_message) = told(&limit(measure, window, 1_001));
            assert_eq!(told_kind, kind);
            assert_eq!(told_message, format!("{message} Try again in 2 seconds."));
            let expected = [
                (format!("x-ratelimit-limit-{unit}"), "10"),
                (format!("x-ratelimit-remaining-{unit}"), "3"),
                (format!("x-ratelimit-reset-{unit}"), "60"),
            ];
            for (name, value) in expected {
                let mut found = headers.iter().filter(|(known, _)| *known == name);
                assert_eq!(
                    found.next().map(|(_, value)| &**value),
                    Some(value),
                    "{name}"
                );
            }
        }
    }

    /// The three headers that say whether to try again.
    fn retries(refusal: &Refusal) -> [Option<String>; 3] {
        let answer = told_by(refusal, "{}", &ResponseContext::default());
        ["retry-after", "retry-after-ms", "x-should-retry"]
            .map(|name| header(&answer, name).map(str::to_owned))
    }

    #[test]
    fn j2_c2_a_wait_is_one_that_sdks_obey() {
        let minute = Window::Sliding { millis: 60_000 };
        for (room_in, expected, seconds) in [
            (0, ["1", "1", ""], "1 second"),
            (1, ["1", "1", ""], "1 second"),
            (1_000, ["1", "1000", ""], "1 second"),
            (1_001, ["2", "1001", ""], "2 seconds"),
            (59_999, ["60", "59999", ""], "60 seconds"),
            (60_000, ["60", "59999", ""], "60 seconds"),
            (60_938, ["60", "59999", ""], "60 seconds"),
            (61_001, ["62", "61001", "false"], "62 seconds"),
            (300_000, ["300", "300000", "false"], "300 seconds"),
            (300_001, ["", "", "false"], "301 seconds"),
            (45_000_000, ["", "", "false"], "45000 seconds"),
        ] {
            for measure in [Measure::Calls, Measure::Tokens { reserve: true }] {
                let refusal = limit(measure, minute, room_in);
                let expected = expected.map(|value| (!value.is_empty()).then(|| value.to_owned()));
                assert_eq!(retries(&refusal), expected, "{room_in}");
                let (_, _, message) = told(&refusal);
                assert!(
                    message.ends_with(&format!(" Try again in {seconds}.")),
                    "{message}"
                );
            }
        }
    }

    #[test]
    fn c2_a_calendar_quota_is_not_waited_for() {
        for room_in in [1, 1_000, 45_000_000] {
            let refusal = limit(Measure::Calls, Window::Calendar(Period::Day), room_in);
            assert_eq!(retries(&refusal), [None, None, Some("false".to_owned())]);
        }
    }

    #[test]
    fn a_provider_that_is_away_for_long_is_asked_again_soon() {
        let refusal = Refusal::Keys { retry_in: 900_000 };
        let expected = ["60", "59999"].map(|text| Some(text.to_owned()));
        assert_eq!(retries(&refusal)[..2], expected);
    }

    #[test]
    fn j5_the_refusal_of_a_key_names_its_place() {
        for (place, named) in [
            (
                KeyPlace::Header("api-key".to_owned()),
                "the header `api-key`",
            ),
            (
                KeyPlace::Parameter("subscription-key".to_owned()),
                "the query parameter `subscription-key`",
            ),
            (KeyPlace::Subprotocol, "the header `sec-websocket-protocol`"),
        ] {
            let (_, _, message) = told(&Refusal::ApiKey(place));
            assert!(
                message.ends_with(&format!("There is one in {named}.")),
                "{message}"
            );
        }
    }

    #[test]
    fn j6_what_is_wrong_with_a_credential_is_said_in_the_challenge_too() {
        for (refusal, error, words) in [
            (
                Refusal::AmbiguousCredential,
                "invalid_token",
                "several credentials",
            ),
            (Refusal::NoScheme, "invalid_request", "no scheme"),
            (
                Refusal::Token(TokenError::Opaque),
                "invalid_token",
                "an API key or another secret",
            ),
            (
                Refusal::Token(TokenError::Shape),
                "invalid_token",
                "malformed",
            ),
        ] {
            let (headers, kind, message) = told(&refusal);
            assert_eq!(kind, "invalid_request_error");
            assert!(message.contains(words), "{message}");
            let challenge = format!(
                "Bearer realm=\"tollgate\", error=\"{error}\", error_description=\"{message}\""
            );
            assert_eq!(headers, pairs(&[("www-authenticate", &challenge)]));
        }
    }

    fn told_by(refusal: &Refusal, responses: &str, context: &ResponseContext<'_>) -> Answer {
        let policy = POLICY.replacen('{', &format!("{{\"responses\":{responses},"), 1);
        let policy = Policy::parse(policy.as_bytes()).unwrap();
        Answer::new(refusal, &policy.responses, context)
    }

    fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
        let mut found = answer.headers.iter().filter(|(known, _)| *known == name);
        let value = found.next().map(|(_, value)| &**value);
        assert_eq!(found.next(), None, "{name} is repeated");
        value
    }

    const TOO_LARGE: Refusal = Refusal::Limit(Reached {
        measure: Measure::Tokens { reserve: true },
        limit: 10,
        remaining: 3,
        window: Window::Sliding { millis: 60_000 },
        never: true,
        room_in: 60_000,
        retry_in: 60_000,
        reset_in: 59_001,
    });

    #[test]
    fn j1_every_response_carries_the_code_and_the_ids_of_its_request() {
        let headers = HeaderMap::from_pairs([
            (&b":path"[..], &b"/openai/v1/models?anthropic/"[..]),
            (b"x-request-id", b"7f3c9b1e-0d52-4c1a-9a8e-2f1b6c7d8e90"),
            (b"x-ms-client-request-id", b"my-id"),
        ]);
        let context = ResponseContext::read(&headers);
        for responses in [
            "{}",
            r#"{"format":"apim"}"#,
            r#"{"unauthenticated":{"status":404,"message":"Not here"}}"#,
        ] {
            let answer = told_by(&Refusal::Issuer, responses, &context);
            assert_eq!(
                header(&answer, "x-tollgate-code"),
                Some("TokenIssuerNotAllowed")
            );
            assert_eq!(
                header(&answer, "x-request-id"),
                Some("7f3c9b1e-0d52-4c1a-9a8e-2f1b6c7d8e90")
            );
            assert_eq!(header(&answer, "x-ms-client-request-id"), Some("my-id"));
            assert_eq!(header(&answer, "request-id"), None);
        }
        let none = told_by(&Refusal::Issuer, "{}", &ResponseContext::default());
        assert_eq!(header(&none, "x-request-id"), None);
        assert_eq!(header(&none, "x-ms-client-request-id"), None);
    }

    #[test]
    fn j1_what_is_no_id_is_not_returned() {
        for value in [
            "",
            "two words",
            "eyJhbGciOiJSUzI1NiJ9.e30.c2ln",
            "sk-proj-0123456789abcdef",
        ] {
            let pairs = ["x-request-id", "x-ms-client-request-id"];
            let pairs = pairs.map(|name| (name.as_bytes(), value.as_bytes()));
            let headers = HeaderMap::from_pairs(pairs);
            assert_eq!(
                ResponseContext::read(&headers),
                ResponseContext::default(),
                "{value}"
            );
        }
    }

    #[test]
    fn j1_anthropic_paths_get_anthropics_body() {
        let headers = HeaderMap::from_pairs([
            (&b":path"[..], &b"/Anthropic/v1/messages?beta=true"[..]),
            (b"x-request-id", b"id-1"),
        ]);
        let context = ResponseContext::read(&headers);
        let parameter = Refusal::Parameter { name: "tools" };
        for (refusal, status, kind) in [
            (Refusal::NoToken, 401, "authentication_error"),
            (
                Refusal::ApiKey(KeyPlace::Subprotocol),
                403,
                "permission_error",
            ),
            (Refusal::App, 403, "permission_error"),
            (parameter, 403, "permission_error"),
            (Refusal::Counters, 429, "rate_limit_error"),
            (
                limit(Measure::Calls, Window::Calendar(Period::Month), 1),
                429,
                "rate_limit_error",
            ),
            (TOO_LARGE, 413, "request_too_large"),
            (Refusal::ContentEncoding, 415, "invalid_request_error"),
            (
                Refusal::BodyNotReadable(BodyError::NotJson),
                400,
                "invalid_request_error",
            ),
            (Refusal::Host, 503, "api_error"),
        ] {
            for format in ["{}", r#"{"format":"apim"}"#] {
                let answer = told_by(&refusal, format, &context);
                assert_eq!(answer.status, status, "{refusal}");
                assert_eq!(header(&answer, "request-id"), Some("id-1"));
                assert_eq!(header(&answer, "x-request-id"), Some("id-1"));
                let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
                let message = body["error"]["message"].as_str().unwrap();
                assert_eq!(
                    body,
                    serde_json::json!({ "type": "error", "error": {
                        "type": kind, "message": message, "code": refusal.code().name(),
                    } })
                );
            }
        }
        for path in [
            "/anthropic",
            "/openai/anthropic/",
            "/anthropics/v1/messages",
            "",
        ] {
            let headers = HeaderMap::from_pairs([(&b":path"[..], path.as_bytes())]);
            assert!(!ResponseContext::read(&headers).is_anthropic, "{path}");
        }
    }

    #[test]
    fn statuses_that_clients_go_by_are_not_the_policys() {
        let responses = r#"{"forbidden":{"status":404},"limited":{"status":503}}"#;
        let query = Refusal::QueryNotReadable {
            parameter: "api-version",
        };
        for (refusal, status) in [
            (Refusal::BodyNotReadable(BodyError::NotJson), 400),
            (query, 400),
            (TOO_LARGE, 413),
            (Refusal::ContentEncoding, 415),
            (Refusal::Parameter { name: "n" }, 404),
            (Refusal::Counters, 503),
        ] {
            let answer = told_by(&refusal, responses, &ResponseContext::default());
            assert_eq!(answer.status, status, "{refusal}");
        }
    }

    #[test]
    fn c3_j3_a_call_larger_than_its_limit_is_not_to_be_tried_again() {
        for responses in ["{}", r#"{"format":"apim"}"#] {
            let answer = told_by(&TOO_LARGE, responses, &ResponseContext::default());
            assert_eq!(answer.status, 413);
            for name in ["retry-after", "retry-after-ms", "x-should-retry"] {
                assert_eq!(header(&answer, name), None, "{name}");
            }
            assert_eq!(header(&answer, "x-ratelimit-limit-tokens"), Some("10"));
        }
    }

    #[test]
    fn texts_are_escaped_where_they_have_to_be() {
        let controls = (0..=0x7f_u8).map(|byte| char::from(byte).to_string());
        let texts = ["", "Send a token.", "caf\u{e9} \u{2028} \u{1f600}"].map(str::to_owned);
        for text in controls.chain(texts) {
            let json = json_text(&text);
            assert_eq!(json, serde_json::json!(text).to_string());
        }
    }

    #[test]
    fn the_parameter_that_is_wrong_is_named() {
        let query = Refusal::QueryNotReadable {
            parameter: "api-version",
        };
        for (refusal, param) in [
            (
                Refusal::Parameter { name: "max_tokens" },
                Some("max_tokens"),
            ),
            (query, Some("api-version")),
            (Refusal::App, None),
        ] {
            let answer = told_by(&refusal, "{}", &ResponseContext::default());
            let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
            assert_eq!(body["error"]["param"].as_str(), param);
            let message = body["error"]["message"].as_str().unwrap();
            assert!(
                param.is_none_or(|param| message.contains(param)),
                "{message}"
            );
        }
    }
}
