//! What is told about a request: log line, filter state, metric names.

use std::fmt::{Display, Write as _};
use std::rc::Rc;

use crate::forward::app_name;
use crate::guid::Guid;
use crate::json::Value;
use crate::jwt::Claims;
use crate::metering::Charge;
use crate::operations::{Action, Operation};
use crate::policy::{App, FilterStateField, Policy};
use crate::refusal::{Code, Outcome};
use crate::secrets;
use crate::time::Time;

/// Longest text taken from a request into the log, in bytes.
const MAX_TEXT: usize = 1024;

/// The label `app` of requests without a known application.
pub const NO_APP: &str = "none";
/// The label `app` of applications without a name.
pub const UNLISTED: &str = "unlisted";

/// What became of a request, as it is told.
#[derive(Clone, Debug)]
pub struct Told {
    /// What became of it; in report mode, what would have.
    pub outcome: Outcome,
    /// Why it was, or would have been, refused.
    pub code: Option<Code>,
    /// Report mode: the refusal was not carried out.
    pub only_reported: bool,
    /// Whose token it was, once its signature was good.
    pub claims: Option<Rc<Claims>>,
    /// What was asked for.
    pub asked: Asked,
}

/// What a request asked for, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The data action.
    pub action: Option<Action>,
    /// The deployment, as the request names it.
    pub deployment: Option<String>,
}

impl Asked {
    /// Keeps what there is to tell of an operation.
    #[must_use]
    pub fn of(operation: Option<&Operation<'_>>) -> Self {
        Self {
            action: operation.map(|operation| operation.action),
            deployment: operation
                .and_then(|operation| operation.deployment)
                .map(str::to_owned),
        }
    }
}

impl Told {
    /// Of a request that is not decided on, or will never be.
    #[must_use]
    pub fn undecided(claims: Option<Rc<Claims>>, asked: Asked) -> Self {
        Self {
            outcome: Outcome::Undecided,
            code: None,
            only_reported: false,
            claims,
            asked,
        }
    }

    /// The outcome's name.
    #[must_use]
    pub fn outcome_name(&self) -> &'static str {
        if self.only_reported {
            self.outcome.would_name()
        } else {
            self.outcome.name()
        }
    }

    /// The deployment that was asked for, if what stands in its place may be one.
    fn deployment(&self) -> Option<&str> {
        let name = self.asked.deployment.as_deref()?;
        (!secrets::holds_secret(name.as_bytes())).then_some(name)
    }

    fn app<'p>(&self, policy: &'p Policy) -> Option<&'p App> {
        self.claims
            .as_ref()
            .map(|claims| policy.apps.find(claims.app_id))
    }

    /// The value of a filter-state field, when there is one before the answer is read.
    #[must_use]
    pub fn field(&self, field: FilterStateField, policy: &Policy) -> Option<String> {
        let claims = self.claims.as_deref();
        match field {
            FilterStateField::Outcome => Some(self.outcome_name().to_owned()),
            FilterStateField::Code => self.code.map(|code| code.name().to_owned()),
            FilterStateField::AppId => Some(claims?.app_id.to_string()),
            FilterStateField::AppName => Some(app_name(self.app(policy)?, claims?)),
            FilterStateField::TenantId => Some(claims?.tid?.to_string()),
            FilterStateField::ObjectId => Some(claims?.oid?.to_string()),
            FilterStateField::Action => Some(self.asked.action?.to_string()),
            FilterStateField::Deployment => self.deployment().map(str::to_owned),
            FilterStateField::PromptTokens
            | FilterStateField::CompletionTokens
            | FilterStateField::TotalTokens
            | FilterStateField::EstimatedTokens => None,
        }
    }

    /// The value of a filter-state field that is known once the answer was read.
    #[must_use]
    pub fn charge_field(field: FilterStateField, charge: &Charge) -> Option<u64> {
        let usage = charge.usage.unwrap_or_default();
        match field {
            FilterStateField::PromptTokens => usage.prompt,
            FilterStateField::CompletionTokens => usage.completion,
            FilterStateField::TotalTokens => usage.tokens(),
            FilterStateField::EstimatedTokens => charge.estimated,
            _ => None,
        }
    }

    /// The counters that a call adds to, and how much. What is estimated is counted apart.
    pub fn token_counters(&self, charge: &Charge, policy: &Policy) -> Vec<(Counter, u64)> {
        let app = self.app_label(policy);
        kinds(charge)
            .into_iter()
            .filter_map(|(kind, count)| Some((Counter::Tokens { app, kind }, count?)))
            .collect()
    }

    /// The request counter.
    #[must_use]
    pub fn counter(&self, policy: &Policy) -> Counter {
        Counter::Requests {
            app: self.app_label(policy),
            outcome: self.outcome_name(),
            code: self.code.map_or("none", Code::name),
        }
    }

    fn app_label(&self, policy: &Policy) -> AppLabel {
        match &self.claims {
            None => AppLabel::None,
            Some(claims) => match policy.apps.by_id.get(&claims.app_id) {
                None => AppLabel::Unlisted,
                Some(index) => AppLabel::Listed(*index),
            },
        }
    }
}

/// Which application a metric is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AppLabel {
    /// None is known.
    None,
    /// One of those that no list names; they share a label.
    Unlisted,
    /// One of the policy's.
    Listed(usize),
}

/// A counter, before its name is made: labels come from the policy and from closed lists, so the
/// number of metrics is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the fields are the labels")]
pub enum Counter {
    /// `tollgate_requests`
    Requests {
        app: AppLabel,
        outcome: &'static str,
        code: &'static str,
    },
    /// `tollgate_tokens`
    Tokens { app: AppLabel, kind: &'static str },
}

impl Counter {
    /// The metric's name.
    #[must_use]
    pub fn name(self, policy: &Policy) -> String {
        match self {
            Self::Requests { app, outcome, code } => {
                let labels = [
                    ("app", app.text(policy)),
                    ("outcome", outcome),
                    ("code", code),
                ];
                metric("tollgate_requests", &labels)
            }
            Self::Tokens { app, kind } => metric(
                "tollgate_tokens",
                &[("app", app.text(policy)), ("kind", kind)],
            ),
        }
    }
}

impl AppLabel {
    fn text(self, policy: &Policy) -> &str {
        let app = match self {
            Self::None => return NO_APP,
            Self::Unlisted => Some(&policy.apps.default_app),
            Self::Listed(index) => policy.apps.listed.get(index),
        };
        app.and_then(|app| app.name.as_deref()).unwrap_or(UNLISTED)
    }
}

/// The counts of a charge, by their names: it is the sum of `total` and `estimated`.
fn kinds(charge: &Charge) -> [(&'static str, Option<u64>); 6] {
    let usage = charge.usage.unwrap_or_default();
    [
        ("prompt", usage.prompt),
        ("completion", usage.completion),
        ("total", usage.tokens()),
        ("cached", usage.cached),
        ("reasoning", usage.reasoning),
        ("estimated", charge.estimated),
    ]
}

/// The field's name: `wasm.tollgate.<name>` once Envoy has it.
#[must_use]
pub fn field_name(field: FilterStateField) -> &'static str {
    match field {
        FilterStateField::Outcome => "tollgate.outcome",
        FilterStateField::Code => "tollgate.code",
        FilterStateField::AppId => "tollgate.app_id",
        FilterStateField::AppName => "tollgate.app_name",
        FilterStateField::TenantId => "tollgate.tenant_id",
        FilterStateField::ObjectId => "tollgate.object_id",
        FilterStateField::Action => "tollgate.action",
        FilterStateField::Deployment => "tollgate.deployment",
        FilterStateField::PromptTokens => "tollgate.prompt_tokens",
        FilterStateField::CompletionTokens => "tollgate.completion_tokens",
        FilterStateField::TotalTokens => "tollgate.total_tokens",
        FilterStateField::EstimatedTokens => "tollgate.estimated_tokens",
    }
}

/// Whether a field is known of a request whose body decides, before it does, and stays as it is.
#[must_use]
pub fn is_known_early(field: FilterStateField) -> bool {
    match field {
        FilterStateField::AppId
        | FilterStateField::AppName
        | FilterStateField::TenantId
        | FilterStateField::ObjectId
        | FilterStateField::Action => true,
        FilterStateField::Outcome
        | FilterStateField::Code
        | FilterStateField::Deployment
        | FilterStateField::PromptTokens
        | FilterStateField::CompletionTokens
        | FilterStateField::TotalTokens
        | FilterStateField::EstimatedTokens => false,
    }
}

/// A metric with labels, in the form that the shipped `stats_tags` take apart again.
#[must_use]
pub fn metric(name: &str, labels: &[(&str, &str)]) -> String {
    labels
        .iter()
        .fold(name.to_owned(), |mut metric, (label, value)| {
            metric.push('.');
            metric.push_str(label);
            metric.push('.');
            metric.push_str(&label_value(value));
            metric
        })
}

/// A label's value as it stands in a metric's name, which dots take apart.
#[must_use]
pub fn label_value(text: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "_-".contains(character);
    text.chars()
        .map(|character| if is_plain(character) { character } else { '_' })
        .collect()
}

/// One request, for its log line.
#[derive(Debug)]
pub struct RequestLine<'a> {
    /// When it came.
    pub time: Time,
    /// When it ended.
    pub end: Time,
    /// What became of it.
    pub told: &'a Told,
    /// The policy that decided.
    pub policy: &'a Policy,
    /// `:method`
    pub method: &'a [u8],
    /// `:path` without the query.
    pub path: &'a [u8],
    /// The query's `api-version`.
    pub api_version: Option<&'a [u8]>,
    /// The answer's status.
    pub status: Option<u16>,
    /// The caller's address, possibly with a port.
    pub client: Option<&'a [u8]>,
    /// `x-request-id`
    pub request_id: Option<&'a str>,
    /// `x-ms-client-request-id`
    pub client_request_id: Option<&'a str>,
    /// Whether the answer was a stream of events, where it was measured.
    pub stream: Option<bool>,
    /// What it was charged.
    pub charge: Charge,
}

impl RequestLine<'_> {
    /// The line: one JSON object, every field in it, `null` where there is
    /// nothing to tell. Everything from outside is cut and escaped.
    #[must_use]
    pub fn to_json(&self) -> String {
        let told = self.told;
        let claims = told.claims.as_deref();
        let app = claims.map(|claims| self.policy.apps.find(claims.app_id));
        let name = app.zip(claims).map(|(app, claims)| app_name(app, claims));
        let duration = self.end.nanos().saturating_sub(self.time.nanos());
        let action = told.asked.action;
        let usage = self.charge.usage.unwrap_or_default();

        let mut line = Line::new();
        line.text("time", Some(&self.time.rfc3339()));
        line.text("outcome", Some(told.outcome_name()));
        line.text("code", told.code.map(Code::name));
        line.id("app_id", claims.map(|claims| claims.app_id));
        line.text("app_name", name.as_deref());
        line.id("tenant_id", claims.and_then(|claims| claims.tid));
        line.id("object_id", claims.and_then(|claims| claims.oid));
        line.text("token_id", claims.and_then(|claims| claims.uti.as_deref()));
        line.text("idtyp", claims.and_then(|claims| claims.idtyp.as_deref()));
        line.text("action", action.map(|action| action.to_string()).as_deref());
        line.text("deployment", told.deployment());
        line.foreign("api_version", self.api_version);
        line.foreign("method", Some(self.method));
        line.foreign("path", Some(self.path));
        line.plain("status", self.status);
        line.plain("duration_ms", Some(duration / 1_000_000));
        line.plain("stream", self.stream);
        for (name, count) in [
            ("prompt_tokens", usage.prompt),
            ("completion_tokens", usage.completion),
            ("total_tokens", usage.tokens()),
            ("cached_tokens", usage.cached),
            ("reasoning_tokens", usage.reasoning),
            ("estimated_tokens", self.charge.estimated),
        ] {
            line.plain(name, count);
        }
        line.foreign("client_ip", self.client.map(without_port));
        line.text("request_id", self.request_id);
        line.text("client_request_id", self.client_request_id);
        line.end()
    }
}

/// A JSON object on one line, member by member: a serialiser that has to expect anything takes several times as
/// long, and most of what is told needs no escape.
struct Line(String);

impl Line {
    fn new() -> Self {
        let mut text = String::with_capacity(1024);
        text.push('{');
        Self(text)
    }

    fn name(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push('"');
        self.0.push_str(name);
        self.0.push_str("\":");
    }

    fn quoted(&mut self, text: &str) {
        self.0.push('"');
        self.0.push_str(text);
        self.0.push('"');
    }

    /// A text of ours, or one whose length is bounded.
    fn text(&mut self, name: &str, value: Option<&str>) {
        self.name(name);
        match value {
            Some(text) if is_literal(text.as_bytes()) => self.quoted(text),
            Some(text) => self
                .0
                .push_str(&ascii(Value::String(text.into()).to_json())),
            None => self.0.push_str("null"),
        }
    }

    /// Bytes from outside: cut, and what is not UTF-8 replaced.
    fn foreign(&mut self, name: &str, value: Option<&[u8]>) {
        let cut = value.map(|value| value.get(..MAX_TEXT).unwrap_or(value));
        self.text(name, cut.map(String::from_utf8_lossy).as_deref());
    }

    fn id(&mut self, name: &str, value: Option<Guid>) {
        self.name(name);
        match value.map(Guid::text) {
            Some(text) => self.quoted(str::from_utf8(&text).unwrap_or_default()),
            None => self.0.push_str("null"),
        }
    }

    /// A number or a boolean.
    fn plain(&mut self, name: &str, value: Option<impl Display>) {
        self.name(name);
        match value {
            // Writing to a string cannot fail.
            Some(value) => drop(write!(self.0, "{value}")),
            None => self.0.push_str("null"),
        }
    }

    fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// Whether a text stands in JSON as it is, and is ASCII.
fn is_literal(text: &[u8]) -> bool {
    text.iter()
        .all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'))
}

/// JSON in printable ASCII: what is not stands as an escape, so that no terminal takes it for a command
/// (bidirectional overrides, or DEL, which JSON does not escape). Outside of strings JSON is that anyway.
fn ascii(json: String) -> String {
    if json.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return json;
    }
    json.chars()
        .fold(String::with_capacity(json.len()), |mut ascii, character| {
            if matches!(character, ' '..='~') {
                ascii.push(character);
            } else {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    // Writing to a string cannot fail.
                    let _ = write!(ascii, "\\u{unit:04x}");
                }
            }
            ascii
        })
}

/// An address without its port: `192.0.2.1:80`, `[2001:db8::1]:80`, or either alone.
fn without_port(address: &[u8]) -> &[u8] {
    if let Some(rest) = address.strip_prefix(b"[") {
        return rest.split(|byte| *byte == b']').next().unwrap_or(rest);
    }
    let mut parts = address.split(|byte| *byte == b':');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(host), Some(_), None) => host,
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lose_their_port() {
        for (address, expected) in [
            ("192.0.2.1:80", "192.0.2.1"),
            ("192.0.2.1", "192.0.2.1"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("", ""),
        ] {
            assert_eq!(without_port(address.as_bytes()), expected.as_bytes());
        }
    }

    #[test]
    fn lines_are_ascii() {
        let json = "{\"a\":\"\u{202e}x\u{1f600}\\n\"}".to_owned();
        assert_eq!(ascii(json), r#"{"a":"\u202ex\ud83d\ude00\n"}"#);
        let delete = serde_json::to_string("a\u{7f}b").unwrap();
        assert_eq!(ascii(delete), r#""a\u007fb""#);
    }

    #[test]
    fn metric_labels_hold_no_separators() {
        let name = metric(
            "tollgate_requests",
            &[("app", "My app/1.0"), ("code", "none")],
        );
        assert_eq!(name, "tollgate_requests.app.My_app_1_0.code.none");
    }
}
