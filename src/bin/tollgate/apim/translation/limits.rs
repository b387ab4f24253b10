//! Limits on calls and tokens.

use roxmltree::Node;
use serde_json::{Map, Value};

use super::super::expression::Expression;
use super::super::meaning::{self, Meaning};
use super::{Scope, Translation, elements};

/// Seconds of the calendar quotas.
const PERIODS: [(u64, &str); 3] = [(3_600, "hour"), (86_400, "day"), (604_800, "week")];

/// Longest sliding window, in seconds.
const MAX_WINDOW: u64 = 31 * 86_400;

impl Translation<'_> {
    pub(super) fn rate_limit(&mut self, node: Node<'_, '_>, scope: Scope) -> Vec<Value> {
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

    pub(super) fn quota(&mut self, node: Node<'_, '_>, scope: Scope) -> Vec<Value> {
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

    pub(super) fn token_limit(&mut self, node: Node<'_, '_>, scope: Scope) -> Vec<Value> {
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
        let parts = meaning::parts(&key, &self.variables);
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
        let Some(statuses) = condition.as_ref().and_then(meaning::statuses) else {
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
