//! Validation of tokens: whose are good, and which.

use roxmltree::Node;
use serde_json::{Map, Value, json};

use super::super::draft::{Answered, Block, Effects, Who};
use super::super::meaning::Meaning;
use super::super::tokens::Trust;
use super::{Translation, elements};

/// A separator that no claim holds: without one API Management compares a claim as a whole, where Tollgate splits
/// scopes.
const WHOLE: &str = "\n";

impl Translation<'_> {
    pub(super) fn validate_jwt(&mut self, node: Node<'_, '_>) {
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

    pub(super) fn validate_azure_ad_token(&mut self, node: Node<'_, '_>) {
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
            let found = value.map(|value| Meaning::of(&value, &self.variables));
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
                let separator = self.attribute(claim, "separator");
                let separator = separator.filter(|text| !text.is_empty());
                let separator = separator.unwrap_or_else(|| WHOLE.to_owned());
                required.insert("separator".to_owned(), separator.into());
                required.insert("values".to_owned(), values.into());
            }
            if claim.attribute("match") == Some("any") {
                required.insert("match".to_owned(), "any".into());
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
}
