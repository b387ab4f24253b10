//! `choose`: what holds for some applications.

use roxmltree::Node;
use serde_json::Value;
use tollgate::guid::Guid;

use super::super::draft::{Answered, Block, Effects, Who};
use super::super::meaning::{self, Condition};
use super::{Scope, Translation, elements};

impl Translation<'_> {
    pub(super) fn choose(&mut self, choose: Node<'_, '_>) {
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
        let condition = condition.and_then(|found| meaning::condition(&found, &self.variables));
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
                let strange = who.apps().iter().find(|app| Guid::parse(app).is_none());
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
    pub(super) fn return_response(&mut self, node: Node<'_, '_>) -> Option<Effects> {
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

    pub(super) fn answered(&mut self, node: Node<'_, '_>) -> Answered {
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
}
