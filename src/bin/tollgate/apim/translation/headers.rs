//! Headers: keys that are refused, identity that is told, the token that stays behind.

use roxmltree::Node;
use tollgate::url::Url;

use super::super::expression;
use super::super::meaning::Meaning;
use super::{Translation, elements};

impl Translation<'_> {
    /// Requests with a key are refused here anyway.
    pub(super) fn refused_keys(&mut self, branch: Node<'_, '_>, header: &str) {
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

    pub(super) fn check_header(&mut self, node: Node<'_, '_>) {
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

    pub(super) fn set_header(&mut self, node: Node<'_, '_>) {
        self.known(node, &["name", "exists-action"]);
        let name = self
            .attribute(node, "name")
            .unwrap_or_default()
            .to_ascii_lowercase();
        let action = node.attribute("exists-action").unwrap_or("override");
        if action == "delete" {
            match name.as_str() {
                "authorization" => self.draft.drops_token = true,
                "api-key" | "ocp-apim-subscription-key" | "x-api-key" => {
                    self.draft.strips_keys = true;
                }
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
                read.and_then(|read| source(&Meaning::of(&read, &self.variables)))
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

    pub(super) fn set_backend_service(&mut self, node: Node<'_, '_>) {
        self.known(node, &["base-url", "backend-id"]);
        match self.attribute(node, "base-url") {
            Some(url) if Url::parse(&url).is_some() => {
                let path = Url::parse(&url).map(|url| url.path);
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
