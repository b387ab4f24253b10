//! What a response says about who decides.

use tollgate::refusal::{Code, Outcome};

use super::calls::Credential;
use super::client::{CODE_HEADER, Response, Unanswered};

/// What the shipped files answer themselves, by the interlock and by `local_reply_config`, and what that says.
const GUARD_CODES: [(&str, Guard); 9] = [
    (
        "GatewayNotGuarded",
        Guard::Denied("the interlock: the module is missing, replaced or has failed open"),
    ),
    (
        "RequestNotAccepted",
        Guard::Denied("Envoy does not accept the request"),
    ),
    ("RouteNotFound", Guard::Denied("Envoy has no route for it")),
    (
        "RequestTimeout",
        Guard::Denied("Envoy waited too long for the request"),
    ),
    (
        "RequestTooLarge",
        Guard::Denied("Envoy does not accept a request of this size"),
    ),
    (
        "HeadersTooLarge",
        Guard::Denied("Envoy does not accept headers of this size"),
    ),
    (
        "LimitsUnavailable",
        Guard::Denied("Envoy's rate limit service does not respond"),
    ),
    ("BackendUnavailable", Guard::Passed),
    ("BackendTimeout", Guard::Passed),
];

#[derive(Clone, Copy)]
enum Guard {
    /// It was denied, for this reason.
    Denied(&'static str),
    /// Envoy sent it on, and had no response of the backend.
    Passed,
}

/// Who decides, as far as one call shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The module denied it.
    Deciding,
    /// A shipped file denied it.
    Guarded,
    /// Something else responded.
    Open,
    /// A call with a good token passed.
    Passed,
    /// A call with a good token was denied.
    Denied,
    /// There was no response.
    Unanswered,
}

impl Verdict {
    pub(crate) const STATES: [Self; 4] =
        [Self::Deciding, Self::Guarded, Self::Open, Self::Unanswered];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Deciding => "deciding",
            Self::Guarded => "guarded",
            Self::Open => "open",
            Self::Passed => "passed",
            Self::Denied => "denied",
            Self::Unanswered => "unanswered",
        }
    }
}

/// A verdict with what it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    pub(crate) verdict: Verdict,
    pub(crate) status: Option<u16>,
    pub(crate) protocol: Option<&'static str>,
    /// A known code, or an unknown one made printable.
    pub(crate) code: Option<String>,
    /// In words; empty where the code says it all.
    pub(crate) reason: String,
    /// Nothing can be concluded from it: there was no response, and not because the connection was closed.
    pub(crate) is_undecided: bool,
}

/// What a response to a call says.
pub(crate) fn judge(credential: Credential, result: Result<Response, Unanswered>) -> Judgement {
    let response = match result {
        Ok(response) => response,
        Err(error) => {
            return Judgement {
                verdict: Verdict::Unanswered,
                status: None,
                protocol: None,
                code: None,
                is_undecided: !error.is_close(),
                reason: error.to_string(),
            };
        }
    };
    let (verdict, reason) = if credential == Credential::Good {
        judge_good(&response)
    } else {
        judge_bad(credential, &response)
    };
    Judgement {
        verdict,
        status: Some(response.status),
        protocol: Some(response.protocol),
        code: response.shown_code(),
        reason,
        is_undecided: false,
    }
}

/// A call that has to be denied.
fn judge_bad(credential: Credential, response: &Response) -> (Verdict, String) {
    let open = |reason: &str| (Verdict::Open, reason.to_owned());
    match response.status {
        400..=599 => {}
        200..=299 => {
            return open("passed: no module, a policy with \"mode\": \"report\", or a public path");
        }
        300..=399 => return open("a redirect of something else; not followed"),
        _ => return open("a response of something else"),
    }
    let code = match response.codes.as_slice() {
        [] if matches!(response.status, 401 | 403) => {
            return open("a refusal of something else, not of the module");
        }
        [] => return open("a response of something else"),
        [code] => code,
        _ => return open("several codes: something else sends them too"),
    };
    match (module_code(code), guard(code)) {
        (Some(known), _) if fits(known, credential) => (Verdict::Deciding, String::new()),
        (Some(_), _) => {
            open("the module does not respond with this code here: something else sends it")
        }
        (None, Some(Guard::Denied(reason))) => (Verdict::Guarded, reason.to_owned()),
        (None, Some(Guard::Passed)) => {
            open("passed to the backend, which did not respond to Envoy")
        }
        (None, None) => {
            open("an unknown code: something else sends it, or a later version of the module")
        }
    }
}

/// A call with a good token: whatever the backend responds, the module and Envoy have to let it pass.
fn judge_good(response: &Response) -> (Verdict, String) {
    let denied = response
        .codes
        .iter()
        .find_map(|code| match (module_code(code), guard(code)) {
            (Some(_), _) => Some("the module denies the token"),
            (None, Some(Guard::Denied(reason))) => Some(reason),
            _ => None,
        });
    match denied {
        Some(reason) => (Verdict::Denied, reason.to_owned()),
        None if (200..=299).contains(&response.status) => (Verdict::Passed, String::new()),
        None => (
            Verdict::Passed,
            "not denied; the response is the backend's".to_owned(),
        ),
    }
}

fn module_code(name: &str) -> Option<Code> {
    Code::ALL.into_iter().find(|code| code.name() == name)
}

fn guard(name: &str) -> Option<Guard> {
    let mut codes = GUARD_CODES.iter();
    codes
        .find(|(known, _)| *known == name)
        .map(|(_, guard)| *guard)
}

/// Whether the module responds with a code to such a call, whatever its policy: a backend that sends the header
/// itself, always with the same code, is not taken for the module.
fn fits(code: Code, credential: Credential) -> bool {
    if matches!(code, Code::KeysUnavailable | Code::InternalError) {
        return true;
    }
    let is_of_key = code == Code::AuthenticationTypeDisabled;
    let is_of_none = matches!(code, Code::TokenNotPresent | Code::JwtInvalid);
    let is_of_token = code.outcome() == Outcome::Unauthenticated && code != Code::TokenNotPresent;
    match credential {
        Credential::None => is_of_none,
        Credential::MadeUpToken => is_of_token,
        // With `"action": "strip"` the rest of the call decides.
        Credential::MadeUpKey => is_of_key || is_of_none,
        Credential::MadeUpKeyAndToken => is_of_key || is_of_token,
        Credential::Good => false,
    }
}

impl Response {
    /// The code for people and programs: one that the gateway made up is cut and printable.
    fn shown_code(&self) -> Option<String> {
        let code = match self.codes.as_slice() {
            [] => return None,
            [code] => code,
            _ => return Some(format!("{CODE_HEADER} is repeated")),
        };
        let printable = code.chars().map(|character| match character {
            ' '..='~' => character,
            _ => '?',
        });
        Some(printable.take(64).collect())
    }
}
