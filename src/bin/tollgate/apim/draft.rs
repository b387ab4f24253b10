//! The policy as it comes together: effects on applications, and what holds for all.

use serde_json::{Map, Value, json};

use super::meaning::Condition;

/// What a part of the XML does to whom it concerns.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Effects {
    pub(super) deny: bool,
    pub(super) limits: Vec<Value>,
}

/// `choose`, or a policy that stands by itself: the first branch that fits counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Block {
    pub(super) branches: Vec<(Who, Effects)>,
    pub(super) otherwise: Effects,
}

/// Whom a branch concerns.
#[derive(Clone, Debug)]
pub(super) enum Who {
    These(Vec<String>),
    Others(Vec<String>),
}

/// How an outcome is answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Answered {
    pub(super) status: Option<u16>,
    pub(super) message: Option<String>,
}

/// The policy as it comes together.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) issuers: Vec<Value>,
    pub(super) blocks: Vec<Block>,
    pub(super) unauthenticated: Answered,
    pub(super) api_key: Answered,
    pub(super) forbidden: Answered,
    pub(super) has_quota: bool,
    /// Headers that hold keys, beside the usual ones.
    pub(super) key_headers: Vec<String>,
    pub(super) strips_keys: bool,
    pub(super) drops_token: bool,
    pub(super) headers: Vec<(String, String)>,
    pub(super) backend: Option<String>,
}

const USUAL_KEY_HEADERS: [&str; 3] = ["api-key", "ocp-apim-subscription-key", "x-api-key"];

impl Who {
    pub(super) fn of(condition: &Condition) -> Option<Self> {
        let lower = |apps: &[String]| apps.iter().map(|app| app.to_ascii_lowercase()).collect();
        match condition {
            Condition::Apps(apps) => Some(Self::These(lower(apps))),
            Condition::NotApps(apps) => Some(Self::Others(lower(apps))),
            Condition::Header(_) => None,
        }
    }

    pub(super) fn apps(&self) -> &[String] {
        match self {
            Self::These(apps) | Self::Others(apps) => apps,
        }
    }

    /// Whether it concerns an application; `None` is one that is named nowhere.
    fn concerns(&self, app: Option<&str>) -> bool {
        let is_named = |apps: &[String]| app.is_some_and(|app| apps.iter().any(|one| one == app));
        match self {
            Self::These(apps) => is_named(apps),
            Self::Others(apps) => !is_named(apps),
        }
    }
}

impl Block {
    /// What holds for everybody.
    pub(super) fn all(effects: Effects) -> Self {
        Self {
            branches: Vec::new(),
            otherwise: effects,
        }
    }

    fn effects(&self, app: Option<&str>) -> &Effects {
        let found = self.branches.iter().find(|(who, _)| who.concerns(app));
        found.map_or(&self.otherwise, |(_, effects)| effects)
    }
}

impl Draft {
    /// The applications that are named somewhere, in the order of the XML.
    fn named(&self) -> Vec<&str> {
        let mut named: Vec<&str> = Vec::new();
        let branches = self.blocks.iter().flat_map(|block| &block.branches);
        for app in branches.flat_map(|(who, _)| who.apps()) {
            if !named.contains(&app.as_str()) {
                named.push(app);
            }
        }
        named
    }

    fn app(&self, app: Option<&str>) -> Map<String, Value> {
        let mut entry = Map::new();
        let effects = self.blocks.iter().map(|block| block.effects(app));
        let mut limits: Vec<Value> = Vec::new();
        let mut deny = false;
        for effect in effects {
            deny |= effect.deny;
            limits.extend(effect.limits.iter().cloned());
        }
        if let Some(id) = app {
            entry.insert("app_id".to_owned(), id.into());
        }
        if deny {
            entry.insert("access".to_owned(), "deny".into());
        } else if !limits.is_empty() {
            entry.insert("limits".to_owned(), limits.into());
        }
        entry
    }

    /// The policy.
    pub(super) fn policy(&self) -> Value {
        let mut policy = Map::new();
        policy.insert("issuers".to_owned(), self.issuers.clone().into());
        let named = self.named();
        if !named.is_empty() {
            let apps = named
                .into_iter()
                .map(|app| Value::Object(self.app(Some(app))));
            policy.insert("apps".to_owned(), apps.collect());
        }
        let others = self.app(None);
        if !others.is_empty() {
            policy.insert("default_app".to_owned(), others.into());
        }
        policy.insert("responses".to_owned(), self.responses());
        if self.strips_keys || !self.key_headers.is_empty() {
            policy.insert("api_keys".to_owned(), self.api_keys());
        }
        if self.drops_token || !self.headers.is_empty() {
            policy.insert("forward".to_owned(), self.forward());
        }
        Value::Object(policy)
    }

    /// Callers go on to see the answers of API Management.
    fn responses(&self) -> Value {
        let mut responses = Map::new();
        responses.insert("format".to_owned(), "apim".into());
        let answers = [
            ("unauthenticated", &self.unauthenticated),
            ("api_key", &self.api_key),
            ("forbidden", &self.forbidden),
        ];
        for (name, answered) in answers {
            if *answered != Answered::default() {
                responses.insert(name.to_owned(), answered.to_value());
            }
        }
        if self.has_quota {
            responses.insert("quota".to_owned(), json!({ "status": 403 }));
        }
        Value::Object(responses)
    }

    fn api_keys(&self) -> Value {
        let mut keys = Map::new();
        if self.strips_keys {
            keys.insert("action".to_owned(), "strip".into());
        }
        let mut headers = USUAL_KEY_HEADERS.map(str::to_owned).to_vec();
        for header in &self.key_headers {
            if !headers.contains(header) {
                headers.push(header.clone());
            }
        }
        if headers.len() > USUAL_KEY_HEADERS.len() {
            keys.insert("headers".to_owned(), headers.into());
        }
        Value::Object(keys)
    }

    fn forward(&self) -> Value {
        let mut forward = Map::new();
        if self.drops_token {
            forward.insert("authorization".to_owned(), false.into());
        }
        if !self.headers.is_empty() {
            let headers = self
                .headers
                .iter()
                .map(|(name, source)| (name.clone(), source.clone().into()));
            forward.insert("headers".to_owned(), Value::Object(headers.collect()));
        }
        Value::Object(forward)
    }
}

impl Answered {
    fn to_value(&self) -> Value {
        let mut value = Map::new();
        if let Some(status) = self.status {
            value.insert("status".to_owned(), status.into());
        }
        if let Some(message) = &self.message {
            value.insert("message".to_owned(), message.clone().into());
        }
        Value::Object(value)
    }
}
