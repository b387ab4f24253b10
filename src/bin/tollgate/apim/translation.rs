//! Walks the XML, and takes over what it means.

mod applications;
mod headers;
mod limits;
mod validation;

use std::collections::HashMap;
use std::ops::Range;

use roxmltree::{Document, Node};

use super::Imported;
use super::draft::{Block, Draft, Effects};
use super::expression::{self, Expression};
use super::meaning::{Meaning, Variables};
use super::pieces;
use super::xml::{self, Escaped};
use crate::report::{Finding, Severity};

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
        let meaning = Meaning::of(&value, &self.variables);
        if meaning == Meaning::Other {
            self.note(node, "is not understood, and kept where nothing uses it");
        }
        self.variables.insert(name, meaning);
    }
}

fn elements<'a, 'i>(node: Node<'a, 'i>) -> impl Iterator<Item = Node<'a, 'i>> + use<'a, 'i> {
    node.children().filter(Node::is_element)
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
