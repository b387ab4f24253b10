//! Walks the XML, and takes over what it means.

use std::collections::HashMap;
use std::ops::Range;

use roxmltree::{Document, Node};
use serde_json::{Map, Value, json};

use super::Imported;
use super::draft::{Answered, Block, Draft, Effects, Who};
use super::expression::{self, Condition, Expression, Meaning, Variables};
use super::pieces;
use super::tokens::Trust;
use super::xml::{self, Escaped};
use crate::report::{Finding, Severity};

/// Seconds of the calendar quotas.
const PERIODS: [(u64, &str); 3] = [(3_600, "hour"), (86_400, "day"), (604_800, "week")];

/// Longest sliding window, in seconds.
const MAX_WINDOW: u64 = 31 * 86_400;

/// Attributes that name variables: they have no effect but where these are used, and that is told.
const VARIABLE: &str = "-variable-name";

/// Takes a policy over.
///
/// # Errors
/// What stands in the way of any policy.
pub(super) fn import(
    text: &str,
    values: &HashMap<String, String>,
) -> Result<Imported, Vec<Finding>> {
    let escaped = Escaped::new(text);
    let document = Document::parse(&escaped.text).map_err(|error| {
        let malformed = xml::malformed(&error, &escaped);
        vec![Finding {
            severity: Severity::Error,
            problem: malformed.problem,
            remedy: String::new(),
            span: malformed.at..malformed.at.saturating_add(1),
        }]
    })?;
    let mut translation = Translation {
        escaped: &escaped,
        values,
        draft: Draft::default(),
        variables: Variables::new(),
        findings: Vec::new(),
        fatal: false,
    };
    translation.root(document.root_element());
    translation.finish(document.root_element())
}

struct Translation<'a> {
    escaped: &'a Escaped,
    values: &'a HashMap<String, String>,
    draft: Draft,
    variables: Variables,
    findings: Vec<Finding>,
    /// No policy can come of it.
    fatal: bool,
}

/// How many applications a limit is written for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// One: any counter is its own.
    One,
    /// Several or all.
    Many,
}

impl Translation<'_> {
    fn root(&mut self, root: Node<'_, '_>) {
        match root.tag_name().name() {
            "policies" => {
                for section in elements(root) {
                    match section.tag_name().name() {
                        "inbound" => self.inbound(section),
                        "backend" => self.only(section, &["base", "forward-request"]),
                        "outbound" | "on-error" => self.only(section, &["base"]),
                        _ => self.lost(section, "no section of a policy", ""),
                    }
                }
            }
            "inbound" | "fragment" => self.inbound(root),
            _ => {
                self.lost(root, "no policy", "give a document with <policies>");
                self.fatal = true;
            }
        }
    }

    fn finish(mut self, root: Node<'_, '_>) -> Result<Imported, Vec<Finding>> {
        if self.draft.issuers.is_empty() && !self.fatal {
            self.fatal = true;
            let remedy = "add validate-jwt or validate-azure-ad-token: Tollgate lets nobody in without a token";
            self.lost(root, "no policy says whose tokens are good", remedy);
        }
        self.findings.sort_by_key(|finding| finding.span.start);
        if self.fatal {
            return Err(self.findings);
        }
        Ok(Imported {
            policy: self.draft.policy(),
            envoy: pieces::write(&self.draft),
            findings: self.findings,
        })
    }

    // What is said

    fn say(&mut self, severity: Severity, node: Node<'_, '_>, problem: &str, remedy: &str) {
        let start = self.escaped.original(node.range().start);
        let length = node.tag_name().name().len().saturating_add(1);
        self.findings.push(Finding {
            severity,
            problem: format!("{}: {problem}", node.tag_name().name()),
            remedy: remedy.to_owned(),
            span: start..start.saturating_add(length),
        });
    }

    /// It has no counterpart.
    fn lost(&mut self, node: Node<'_, '_>, problem: &str, remedy: &str) {
        self.say(Severity::Error, node, problem, remedy);
    }

    /// It means something else now.
    fn changed(&mut self, node: Node<'_, '_>, problem: &str, remedy: &str) {
        self.say(Severity::Warning, node, problem, remedy);
    }

    fn note(&mut self, node: Node<'_, '_>, problem: &str) {
        self.say(Severity::Note, node, problem, "");
    }

    fn attribute_span(&self, range: &Range<usize>) -> Range<usize> {
        self.escaped.original(range.start)..self.escaped.original(range.end)
    }

    /// Reports the attributes that nothing looked at.
    fn known(&mut self, node: Node<'_, '_>, names: &[&str]) {
        for attribute in node.attributes() {
            let name = attribute.name();
            if names.contains(&name) || name == "id" {
                continue;
            }
            let (severity, problem) = if name.ends_with(VARIABLE) {
                (Severity::Note, "variables are not kept")
            } else {
                (Severity::Error, "has no counterpart")
            };
            let span = self.attribute_span(&attribute.range());
            self.findings.push(Finding {
                severity,
                problem: format!("{} {name}: {problem}", node.tag_name().name()),
                remedy: String::new(),
                span,
            });
        }
    }

    fn only(&mut self, section: Node<'_, '_>, names: &[&str]) {
        for node in elements(section) {
            if !names.contains(&node.tag_name().name()) {
                let remedy = "Envoy's own filters may do it";
                self.lost(node, "has no counterpart", remedy);
            }
        }
    }

    // What is read

    /// A text with its named values.
    fn fill(&mut self, node: Node<'_, '_>, text: &str) -> String {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((name, after)) = after.split_once("}}") else {
                break;
            };
            filled.push_str(before);
            match self.values.get(name.trim()) {
                Some(value) => filled.push_str(value),
                None => {
                    self.fatal = true;
                    let problem = format!("the named value {:?} is not given", name.trim());
                    self.lost(node, &problem, "give it with --named-values FILE");
                }
            }
            rest = after;
        }
        filled.push_str(rest);
        filled
    }

    fn attribute(&mut self, node: Node<'_, '_>, name: &str) -> Option<String> {
        let text = node.attribute(name)?.to_owned();
        Some(self.fill(node, &text))
    }

    fn text(&mut self, node: Node<'_, '_>) -> String {
        let text: String = node.children().filter_map(|child| child.text()).collect();
        self.fill(node, text.trim())
    }

    fn texts(&mut self, node: Node<'_, '_>) -> Vec<String> {
        elements(node).map(|child| self.text(child)).collect()
    }

    fn number(&mut self, node: Node<'_, '_>, name: &str) -> Option<u64> {
        let text = self.attribute(node, name)?;
        let number = text.trim().parse().ok();
        if number.is_none() {
            let problem = format!("{name}=\"{text}\" is no whole number");
            self.lost(node, &problem, "write the number itself");
        }
        number
    }

    /// An expression, or a text that stands for itself.
    fn expression(&mut self, node: Node<'_, '_>, name: &str) -> Option<Expression> {
        let text = self.attribute(node, name)?;
        if text.trim_start().starts_with('@') {
            return expression::read(&text);
        }
        Some(Expression::Text(text))
    }

    // Inbound

    fn inbound(&mut self, section: Node<'_, '_>) {
        for node in elements(section) {
            match node.tag_name().name() {
                "base" => {}
                "choose" => self.choose(node),
                "validate-jwt" => self.validate_jwt(node),
                "validate-azure-ad-token" => self.validate_azure_ad_token(node),
                "set-variable" => self.set_variable(node),
                "set-header" => self.set_header(node),
                "set-backend-service" => self.set_backend_service(node),
                "check-header" => self.check_header(node),
                "llm-emit-token-metric" | "azure-openai-emit-token-metric" => {
                    self.note(
                        node,
                        "tokens are counted by application, in tollgate_tokens",
                    );
                }
                "authentication-managed-identity" => self.lost(
                    node,
                    "the caller's own token goes on to the backend",
                    "give the callers a role on the resource, or let another filter set the token",
                ),
                "cors" => self.lost(
                    node,
                    "has no counterpart",
                    "use Envoy's cors filter, before this one",
                ),
                _ => {
                    if let Some(effects) = self.effect(node, Scope::Many) {
                        self.draft.blocks.push(Block::all(effects));
                    }
                }
            }
        }
    }

    /// A policy whose effect may differ by application. What it is not is reported.
    fn effect(&mut self, node: Node<'_, '_>, scope: Scope) -> Option<Effects> {
        let limits = match node.tag_name().name() {
            "rate-limit" | "rate-limit-by-key" => self.rate_limit(node, scope),
            "quota" | "quota-by-key" => self.quota(node, scope),
            "llm-token-limit" | "azure-openai-token-limit" => self.token_limit(node, scope),
            _ => {
                self.lost(node, "has no counterpart", "");
                return None;
            }
        };
        Some(Effects {
            deny: false,
            limits,
        })
    }

    fn set_variable(&mut self, node: Node<'_, '_>) {
        let (Some(name), Some(value)) =
            (self.attribute(node, "name"), self.expression(node, "value"))
        else {
            // It has an effect only where it is used, and that is reported.
            self.note(node, "is not understood, and kept where nothing uses it");
            return;
        };
        let meaning = expression::meaning(&value, &self.variables);
        if meaning == Meaning::Other {
            self.note(node, "is not understood, and kept where nothing uses it");
        }
        self.variables.insert(name, meaning);
    }

    // Tokens

    fn validate_jwt(&mut self, node: Node<'_, '_>) {
        self.known(
            node,
            &[
                "header-name",
                "failed-validation-httpcode",
                "failed-validation-error-message",
                "require-expiration-time",
                "require-scheme",
                "require-signed-tokens",
                "clock-skew",
                "output-token-variable-name",
                "token-value",
                "query-parameter-name",
            ],
        );
        let mut trust = self.common_trust(node);
        for (name, problem) in [
            (
                "require-expiration-time",
                "a token without exp is refused all the same",
            ),
            (
                "require-signed-tokens",
                "an unsigned token is refused all the same",
            ),
        ] {
            if node.attribute(name) == Some("false") {
                self.changed(node, &format!("{name}: {problem}"), "");
            }
        }
        let skew = self.number(node, "clock-skew").unwrap_or(0);
        trust.clock_skew = Some(format!("{skew}s"));
        for child in elements(node) {
            match child.tag_name().name() {
                "openid-config" => trust.metadata.extend(self.attribute(child, "url")),
                "issuers" => trust.issuers = self.texts(child),
                "audiences" => trust.audiences.extend(self.texts(child)),
                "required-claims" => self.required_claims(child, &mut trust),
                "issuer-signing-keys" => self.signing_keys(child, &mut trust),
                _ => self.lost(child, "has no counterpart", ""),
            }
        }
        self.trust(node, trust);
    }

    fn validate_azure_ad_token(&mut self, node: Node<'_, '_>) {
        self.known(
            node,
            &[
                "tenant-id",
                "header-name",
                "failed-validation-httpcode",
                "failed-validation-error-message",
                "output-token-variable-name",
                "token-value",
                "query-parameter-name",
            ],
        );
        let mut trust = self.common_trust(node);
        match self.attribute(node, "tenant-id") {
            Some(id) if tollgate::guid::Guid::parse(&id).is_some() => trust.tenants.push(id),
            Some(id) => {
                let problem = format!("tenant-id {id:?} is not the id of one tenant");
                self.lost(node, &problem, "write the tenant's GUID");
            }
            None => self.lost(node, "tenant-id is missing", "write the tenant's GUID"),
        }
        for child in elements(node) {
            match child.tag_name().name() {
                "audiences" => trust.audiences.extend(self.texts(child)),
                "required-claims" => self.required_claims(child, &mut trust),
                "client-application-ids" => self.client_applications(child),
                _ => self.lost(child, "has no counterpart", ""),
            }
        }
        self.trust(node, trust);
    }

    /// Where the token stands, what is answered without one, under which name it is kept.
    fn common_trust(&mut self, node: Node<'_, '_>) -> Trust {
        let header = self.attribute(node, "header-name");
        let is_usual = header.is_none_or(|name| name.eq_ignore_ascii_case("authorization"));
        if !is_usual || node.has_attribute("query-parameter-name") {
            let remedy = "let callers send the token in the Authorization header";
            self.changed(
                node,
                "the token is looked for in Authorization only",
                remedy,
            );
        }
        if node.has_attribute("token-value") {
            let value = self.expression(node, "token-value");
            let found = value.map(|value| expression::meaning(&value, &self.variables));
            if found != Some(Meaning::Header("authorization".to_owned())) {
                self.changed(
                    node,
                    "token-value: the token is looked for in Authorization only",
                    "",
                );
            }
        }
        if let Some(variable) = self.attribute(node, "output-token-variable-name") {
            self.variables.insert(variable, Meaning::Token);
        }
        let status = self.number(node, "failed-validation-httpcode");
        let status = status.and_then(|status| u16::try_from(status).ok());
        if status.is_some_and(|status| !(400..=599).contains(&status)) {
            self.changed(
                node,
                "failed-validation-httpcode: a refusal has a status from 400 to 599",
                "",
            );
        }
        let answered = Answered {
            status: status.filter(|status| (400..=599).contains(status)),
            message: self
                .attribute(node, "failed-validation-error-message")
                .filter(|text| !text.is_empty()),
        };
        self.draft.unauthenticated = answered;
        Trust::default()
    }

    fn required_claims(&mut self, node: Node<'_, '_>, trust: &mut Trust) {
        for claim in elements(node) {
            self.known(claim, &["name", "match", "separator"]);
            let Some(name) = self.attribute(claim, "name") else {
                self.lost(claim, "name is missing", "");
                continue;
            };
            let values = self.texts(claim);
            // A token has one audience as a rule, and a list of them is written where they belong.
            if name == "aud" {
                if values.len() > 1 && claim.attribute("match") != Some("any") {
                    self.changed(
                        claim,
                        "one of the audiences is enough",
                        "write match=\"any\"",
                    );
                }
                trust.audiences.extend(values);
                continue;
            }
            let mut required = Map::new();
            required.insert("name".to_owned(), name.into());
            if !values.is_empty() {
                required.insert("values".to_owned(), values.into());
            }
            if claim.attribute("match") == Some("any") {
                required.insert("match".to_owned(), "any".into());
            }
            if let Some(separator) = self.attribute(claim, "separator") {
                required.insert("separator".to_owned(), separator.into());
            }
            trust.required.push(Value::Object(required));
        }
    }

    fn signing_keys(&mut self, node: Node<'_, '_>, trust: &mut Trust) {
        for (index, key) in elements(node).enumerate() {
            let (modulus, exponent) = (self.attribute(key, "n"), self.attribute(key, "e"));
            let (Some(modulus), Some(exponent)) = (modulus, exponent) else {
                let remedy = "tokens signed with a shared secret are never accepted; for a certificate write its n and e";
                self.lost(key, "is no public RSA key", remedy);
                continue;
            };
            let id = self.attribute(key, "id");
            if id.is_none() {
                self.changed(
                    key,
                    "tokens have to name their key by kid",
                    "write the key's id",
                );
            }
            let kid = id.unwrap_or_else(|| format!("key-{index}"));
            trust
                .keys
                .push(json!({ "kty": "RSA", "kid": kid, "n": modulus, "e": exponent }));
        }
    }

    fn client_applications(&mut self, node: Node<'_, '_>) {
        let apps = self
            .texts(node)
            .iter()
            .map(|app| app.to_ascii_lowercase())
            .collect();
        self.draft.blocks.push(Block {
            branches: vec![(Who::These(apps), Effects::default())],
            otherwise: Effects {
                deny: true,
                limits: Vec::new(),
            },
        });
        if self.draft.forbidden == Answered::default() {
            self.draft.forbidden = self.draft.unauthenticated.clone();
            if self.draft.forbidden.status.is_none() {
                self.draft.forbidden.status = Some(401);
            }
        }
    }

    fn trust(&mut self, node: Node<'_, '_>, mut trust: Trust) {
        if !self.draft.issuers.is_empty() {
            // Each had to pass there; here any of several issuers is enough.
            self.fatal = true;
            let remedy = "make one validation of them, which asks for all that they ask for";
            self.lost(node, "a token is validated once here", remedy);
            return;
        }
        if trust.audiences.is_empty() {
            let problem = "any audience was good; now it has to be that of Azure OpenAI";
            let remedy = "add <audiences> with the audiences of your callers' tokens";
            self.changed(node, problem, remedy);
            trust
                .audiences
                .push("https://cognitiveservices.azure.com".to_owned());
        }
        if !trust.keys.is_empty() && !trust.metadata.is_empty() {
            self.lost(
                node,
                "keys in the policy beside metadata",
                "keep one of the two",
            );
        }
        let (issuers, untaken) = trust.issuers();
        for one in untaken {
            self.lost(node, &format!("{}: {}", one.what, one.why), &one.remedy);
        }
        if !self.draft.strips_keys {
            self.note(
                node,
                "requests with an API key are refused, also beside a good token",
            );
        }
        self.draft.issuers.extend(issuers);
    }

    // Applications

    fn choose(&mut self, choose: Node<'_, '_>) {
        let mut block = Block::default();
        for branch in elements(choose) {
            match branch.tag_name().name() {
                "when" => self.when(branch, &mut block),
                "otherwise" => block.otherwise = self.branch(branch, Scope::Many),
                _ => self.lost(branch, "no part of choose", ""),
            }
        }
        if !block.branches.is_empty() || block.otherwise != Effects::default() {
            self.draft.blocks.push(block);
        }
    }

    fn when(&mut self, branch: Node<'_, '_>, block: &mut Block) {
        let condition = self.expression(branch, "condition");
        let condition = condition.and_then(|found| expression::condition(&found, &self.variables));
        match condition {
            None => {
                let remedy = "conditions on the application of the token are taken over, and those on a key's header";
                self.lost(
                    branch,
                    "its condition has no counterpart, so what stands in it is left out",
                    remedy,
                );
            }
            Some(Condition::Header(header)) => self.refused_keys(branch, &header),
            Some(condition) => {
                let Some(who) = Who::of(&condition) else {
                    return;
                };
                let strange = who
                    .apps()
                    .iter()
                    .find(|app| tollgate::guid::Guid::parse(app).is_none());
                if let Some(app) = strange.cloned() {
                    self.lost(
                        branch,
                        &format!("{app:?} is not the id of an application"),
                        "write its GUID",
                    );
                    return;
                }
                let scope = match &who {
                    Who::These(apps) if apps.len() == 1 => Scope::One,
                    _ => Scope::Many,
                };
                let effects = self.branch(branch, scope);
                block.branches.push((who, effects));
            }
        }
    }

    fn branch(&mut self, branch: Node<'_, '_>, scope: Scope) -> Effects {
        let mut effects = Effects::default();
        for node in elements(branch) {
            let found = match node.tag_name().name() {
                "return-response" => self.return_response(node),
                "validate-jwt" | "validate-azure-ad-token" => {
                    let remedy = "validate the token before, and for everybody";
                    self.lost(node, "tokens are validated under no condition here", remedy);
                    None
                }
                _ => self.effect(node, scope),
            };
            if let Some(found) = found {
                effects.deny |= found.deny;
                effects.limits.extend(found.limits);
            }
        }
        effects
    }

    /// A refusal of the applications of a branch.
    fn return_response(&mut self, node: Node<'_, '_>) -> Option<Effects> {
        let answered = self.answered(node);
        if answered
            .status
            .is_none_or(|status| !(400..=599).contains(&status))
        {
            self.lost(node, "an answer that is no refusal", "");
            return None;
        }
        if self.draft.forbidden != Answered::default() && self.draft.forbidden != answered {
            self.changed(
                node,
                "there is one answer for forbidden applications, the first",
                "",
            );
        } else {
            self.draft.forbidden = answered;
        }
        Some(Effects {
            deny: true,
            limits: Vec::new(),
        })
    }

    fn answered(&mut self, node: Node<'_, '_>) -> Answered {
        let mut answered = Answered::default();
        for child in elements(node) {
            match child.tag_name().name() {
                "set-status" => {
                    let status = self.number(child, "code");
                    answered.status = status.and_then(|status| u16::try_from(status).ok());
                }
                "set-body" => {
                    let body = self.text(child);
                    let json: Option<Value> = serde_json::from_str(&body).ok();
                    let message = json.as_ref().and_then(|body| {
                        body.get("message")
                            .or_else(|| body.pointer("/error/message"))?
                            .as_str()
                    });
                    match message {
                        Some(message) => answered.message = Some(message.to_owned()),
                        None if body.starts_with('@') || json.is_some() => {
                            self.changed(child, "the body is that of API Management's errors", "");
                        }
                        None => answered.message = Some(body).filter(|body| !body.is_empty()),
                    }
                }
                _ => self.changed(child, "is left out of the answer", ""),
            }
        }
        answered
    }

    // Keys

    /// Requests with a key are refused here anyway.
    fn refused_keys(&mut self, branch: Node<'_, '_>, header: &str) {
        let inner: Vec<_> = elements(branch).collect();
        let [only] = inner.as_slice() else {
            self.lost(branch, "more than a refusal of requests with a key", "");
            return;
        };
        if only.tag_name().name() != "return-response" {
            self.lost(
                branch,
                "something else than a refusal of requests with a key",
                "",
            );
            return;
        }
        self.draft.api_key = self.answered(*only);
        self.draft.key_headers.push(header.to_owned());
    }

    fn check_header(&mut self, node: Node<'_, '_>) {
        let name = self
            .attribute(node, "name")
            .unwrap_or_default()
            .to_ascii_lowercase();
        let is_key = name.ends_with("key");
        if name == "authorization" && elements(node).next().is_none() {
            return;
        }
        if !is_key {
            self.lost(
                node,
                "has no counterpart",
                "Envoy's rbac filter can ask for headers",
            );
            return;
        }
        let problem = format!(
            "callers were let in by a key in {name}; now a key there is refused, and they need a token"
        );
        self.changed(
            node,
            &problem,
            "give the callers an application in Entra ID",
        );
        self.draft.key_headers.push(name);
    }

    fn set_header(&mut self, node: Node<'_, '_>) {
        self.known(node, &["name", "exists-action"]);
        let name = self
            .attribute(node, "name")
            .unwrap_or_default()
            .to_ascii_lowercase();
        let action = node.attribute("exists-action").unwrap_or("override");
        if action == "delete" {
            match name.as_str() {
                "authorization" => self.draft.drops_token = true,
                "api-key" | "ocp-apim-subscription-key" => self.draft.strips_keys = true,
                _ => self.lost(
                    node,
                    "has no counterpart",
                    "use request_headers_to_remove of Envoy's routes",
                ),
            }
            return;
        }
        let values: Vec<_> = elements(node).collect();
        let source = match values.as_slice() {
            [value] => {
                let text = self.text(*value);
                let read = expression::read(&text);
                read.and_then(|read| source(&expression::meaning(&read, &self.variables)))
            }
            _ => None,
        };
        match source {
            Some(source) if action == "override" && name != "authorization" => {
                self.draft.headers.push((name, source));
            }
            _ => self.lost(
                node,
                "has no counterpart",
                "use request_headers_to_add of Envoy's routes",
            ),
        }
    }

    fn set_backend_service(&mut self, node: Node<'_, '_>) {
        self.known(node, &["base-url", "backend-id"]);
        match self.attribute(node, "base-url") {
            Some(url) if tollgate::url::Url::parse(&url).is_some() => {
                let path = tollgate::url::Url::parse(&url).map(|url| url.path);
                if path.is_some_and(|path| !matches!(path.as_str(), "/" | "/openai" | "/openai/")) {
                    let remedy = "let the route rewrite its prefix";
                    self.changed(node, "the path of base-url is left to the route", remedy);
                }
                self.draft.backend = Some(url);
            }
            _ => {
                let remedy = "point the cluster azure_openai at it";
                self.lost(node, "no address of a host", remedy);
            }
        }
    }

    // Limits

    fn rate_limit(&mut self, node: Node<'_, '_>, scope: Scope) -> Vec<Value> {
        self.known(
            node,
            &[
                "calls",
                "renewal-period",
                "counter-key",
                "increment-condition",
                "increment-count",
                "retry-after-header-name",
            ],
        );
        self.nested(node);
        let (calls, period) = (
            self.number(node, "calls"),
            self.number(node, "renewal-period"),
        );
        let (Some(calls), Some(period)) = (calls, period) else {
            self.lost(node, "calls and renewal-period are missing", "");
            return Vec::new();
        };
        if !self.counter(node, scope) {
            return Vec::new();
        }
        self.limit(node, "calls", calls, format!("{period}s"))
    }

    fn quota(&mut self, node: Node<'_, '_>, scope: Scope) -> Vec<Value> {
        self.known(
            node,
            &[
                "calls",
                "renewal-period",
                "counter-key",
                "increment-condition",
                "increment-count",
                "bandwidth",
                "first-period-start",
            ],
        );
        self.nested(node);
        if node.has_attribute("bandwidth") {
            self.lost(node, "bandwidth: bytes are not counted", "");
        }
        let (calls, period) = (
            self.number(node, "calls"),
            self.number(node, "renewal-period"),
        );
        let (Some(calls), Some(period)) = (calls, period) else {
            return Vec::new();
        };
        if !self.counter(node, scope) {
            return Vec::new();
        }
        let calendar = PERIODS.iter().find(|(seconds, _)| *seconds == period);
        let per = match calendar {
            _ if period == 0 || period > MAX_WINDOW => {
                let remedy = "write a renewal-period of up to 31 days";
                self.lost(node, &format!("a quota of {period} seconds"), remedy);
                return Vec::new();
            }
            Some((_, name)) if !node.has_attribute("first-period-start") => (*name).to_owned(),
            _ => {
                let problem =
                    "the period slides with every call, where it began anew at fixed times";
                self.changed(node, problem, "");
                format!("{period}s")
            }
        };
        self.draft.has_quota |= calendar.is_some();
        self.limit(node, "calls", calls, per)
    }

    fn token_limit(&mut self, node: Node<'_, '_>, scope: Scope) -> Vec<Value> {
        self.known(
            node,
            &[
                "counter-key",
                "tokens-per-minute",
                "token-quota",
                "token-quota-period",
                "estimate-prompt-tokens",
                "retry-after-header-name",
            ],
        );
        if !self.counter(node, scope) {
            return Vec::new();
        }
        let reserve = self.attribute(node, "estimate-prompt-tokens").as_deref() == Some("true");
        let mut limits = Vec::new();
        if let Some(tokens) = self.number(node, "tokens-per-minute") {
            limits.extend(self.limit(node, "tokens", tokens, "60s".to_owned()));
        }
        if let Some(tokens) = self.number(node, "token-quota") {
            let period = self
                .attribute(node, "token-quota-period")
                .unwrap_or_default();
            let per = match period.as_str() {
                "Hourly" => "hour",
                "Daily" => "day",
                "Weekly" => "week",
                "Monthly" => "month",
                other => {
                    let remedy = "write Hourly, Daily, Weekly or Monthly";
                    self.lost(node, &format!("a token-quota-period {other:?}"), remedy);
                    return limits;
                }
            };
            self.draft.has_quota = true;
            limits.extend(self.limit(node, "tokens", tokens, per.to_owned()));
        }
        if limits.is_empty() {
            self.lost(node, "neither tokens-per-minute nor token-quota", "");
        }
        if reserve {
            for limit in limits.iter_mut().filter_map(Value::as_object_mut) {
                limit.insert("reserve".to_owned(), true.into());
            }
        }
        limits
    }

    fn nested(&mut self, node: Node<'_, '_>) {
        for child in elements(node) {
            let remedy = "limits can be for some \"operations\" and \"deployments\"";
            self.lost(child, "limits inside of limits have no counterpart", remedy);
        }
    }

    /// Whether what a counter is kept by has a counterpart: here it is the application.
    fn counter(&mut self, node: Node<'_, '_>, scope: Scope) -> bool {
        const PER_APP: &str = "is counted for each application";
        if !node.has_attribute("counter-key") {
            if node.tag_name().name().ends_with("-by-key") {
                self.lost(node, "counter-key is missing", "");
                return false;
            }
            self.changed(
                node,
                "was counted by subscription, and now for each application",
                "",
            );
            return true;
        }
        let Some(key) = self.expression(node, "counter-key") else {
            self.lost(
                node,
                "counter-key is not understood, so there is no limit",
                PER_APP,
            );
            return false;
        };
        let parts = expression::parts(&key, &self.variables);
        let is_app = |part: &Meaning| *part == Meaning::App;
        let is_caller = |part: &Meaning| matches!(part, Meaning::Subscriber | Meaning::Claim(_));
        let before = if parts.is_empty() && scope == Scope::One {
            return true;
        } else if parts.is_empty() {
            "for all together"
        } else if parts.iter().all(is_app) {
            return true;
        } else if parts.iter().any(is_app) {
            "by application and more"
        } else if parts.iter().all(is_caller) {
            "by user or subscription"
        } else {
            let problem =
                "is counted by something else than the caller's application, so there is no limit";
            self.lost(node, problem, "use Envoy's local_ratelimit filter");
            return false;
        };
        let problem = format!("was counted {before}, and now for each application");
        self.changed(node, &problem, "");
        true
    }

    fn limit(&mut self, node: Node<'_, '_>, what: &str, amount: u64, per: String) -> Vec<Value> {
        if amount == 0 {
            self.fatal = true;
            let remedy = "leave the limit out, and refuse the application with return-response";
            self.lost(node, "a limit of 0 lets nobody pass", remedy);
            return Vec::new();
        }
        if node
            .attribute("increment-count")
            .is_some_and(|count| count != "1")
        {
            self.lost(node, "increment-count: a call counts once", "");
        }
        if node
            .attribute("retry-after-header-name")
            .is_some_and(|name| !name.eq_ignore_ascii_case("retry-after"))
        {
            self.changed(
                node,
                "retry-after-header-name: the header is retry-after",
                "",
            );
        }
        let mut limit = Map::new();
        limit.insert(what.to_owned(), amount.into());
        limit.insert("per".to_owned(), per.into());
        match self.count(node) {
            Some(count) => {
                limit.extend(count.map(|count| ("count".to_owned(), count)));
                vec![limit.into()]
            }
            None => Vec::new(),
        }
    }

    /// Which answers count; `None` where a limit cannot be taken over.
    fn count(&mut self, node: Node<'_, '_>) -> Option<Option<Value>> {
        if !node.has_attribute("increment-condition") {
            return Some(None);
        }
        let condition = self.expression(node, "increment-condition");
        let condition = condition.map(|condition| match condition {
            Expression::Text(text) => Expression::Truth(text == "true"),
            other => other,
        });
        let Some(statuses) = condition.as_ref().and_then(expression::statuses) else {
            self.changed(
                node,
                "increment-condition looks at more than the status, so every call counts",
                "",
            );
            return Some(None);
        };
        if statuses.is_empty() {
            self.changed(
                node,
                "increment-condition holds for no answer, so there is no limit",
                "",
            );
            return None;
        }
        Some(if statuses.len() == 500 {
            None
        } else if statuses == (200..300).collect::<Vec<u16>>() {
            Some("success".into())
        } else {
            Some(statuses.into())
        })
    }
}

fn elements<'a, 'i>(node: Node<'a, 'i>) -> impl Iterator<Item = Node<'a, 'i>> + use<'a, 'i> {
    node.children().filter(Node::is_element)
}

/// What an identity header is set from.
fn source(meaning: &Meaning) -> Option<String> {
    match meaning {
        Meaning::App => Some("app_id".to_owned()),
        Meaning::Claim(name) => Some(match name.as_str() {
            "tid" => "tenant_id".to_owned(),
            "oid" => "object_id".to_owned(),
            "roles" => "roles".to_owned(),
            other => format!("claim.{other}"),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../../../../tests/cli/samples/limits-per-application.xml");

    /// Whatever is cut out, doubled or put in: an answer, and places within the text.
    #[test]
    fn damaged_policies_are_refused_or_taken_and_nothing_else() {
        let values: HashMap<String, String> = ["tenant-id", "app-batch", "app-chat"]
            .map(|name| {
                (
                    name.to_owned(),
                    "11111111-2222-3333-4444-555555555555".to_owned(),
                )
            })
            .into();
        let pieces = [
            "\"", "<", "@(", ")", "{{", "}}", "é", "<when>", "&", "0", "-1", "<!--", "||",
        ];
        let mut state: u64 = 11;
        let mut next = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            usize::try_from(state >> 33).unwrap() % below
        };
        let (mut taken, mut refused) = (0, 0);
        for _ in 0..1_500 {
            let mut text = SAMPLE.to_owned();
            for _ in 0..=next(3) {
                let start = next(text.len());
                let end = (start + next(40)).min(text.len());
                if text.is_char_boundary(start) && text.is_char_boundary(end) {
                    text.replace_range(start..end, pieces[next(pieces.len())]);
                }
            }
            let findings = match import(&text, &values) {
                Ok(imported) => {
                    taken += 1;
                    imported.findings
                }
                Err(findings) => {
                    refused += 1;
                    findings
                }
            };
            for finding in findings {
                assert!(finding.span.start <= text.len(), "{finding:?}\n{text}");
            }
        }
        assert!(taken > 100 && refused > 100, "{taken} {refused}");
    }
}
