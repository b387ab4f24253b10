//! The interlock: Envoy's own filter between the module and the router, which lets pass only what the module
//! has let pass. Where the module is missing, replaced or failed open, nothing sets that filter state.

use std::ops::Range;

use tollgate::json::Value;

use super::node::{any, field, is_true, place, text, typed};
use super::{error, warning};
use crate::document::{Data, Located};
use crate::report::Finding;

/// The filter state that the module sets once, when it lets a request go on.
const KEY: &str = "wasm.tollgate.passed";
const VALUE: &str = "true";

/// What would be right, for every problem with one.
pub(super) const REMEDY: &str = "add envoy.filters.http.rbac between the module and the router with \
    rules: {action: ALLOW, policies: {passed: {permissions: [{any: true}], principals: [{filter_state: \
    {key: wasm.tollgate.passed, string_match: {exact: \"true\"}}}]}}}";

/// Whether an HTTP filter is meant as the interlock, right or wrong.
pub(super) fn is_meant(filter: &Located) -> bool {
    let is_rbac = field(filter, "typed_config")
        .and_then(typed)
        .is_some_and(|(name, _)| name == "RBAC");
    let named = text(filter, &["name"]).is_some_and(|name| name.contains("interlock"));
    is_rbac && (named || mentions_the_module(filter))
}

/// Whether a text in it names the module's filter state.
pub(super) fn mentions_the_module(value: &Located) -> bool {
    any(value, &mut |inner| {
        let text = inner.as_str();
        text.is_some_and(|text| text.contains("wasm.tollgate."))
    })
}

/// What is wrong with one, whatever its position.
pub(super) fn faults(filter: &Located) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(disabled) = field(filter, "disabled")
        && is_true(Some(disabled))
    {
        let problem = "the interlock is switched off";
        found.push(error(disabled.span.clone(), problem, "leave disabled out"));
    }
    match field(filter, "typed_config").and_then(typed) {
        Some((_, body)) => rules(body, place(filter), &mut found),
        None => found.push(error(place(filter), "the interlock has no rules", REMEDY)),
    }
    found
}

/// What is wrong with the rules of RBAC.
pub(super) fn rules(body: &Located, at: Range<usize>, found: &mut Vec<Finding>) {
    // Envoy ignores the rules next to one.
    if let Some(matcher) = field(body, "matcher") {
        let problem = "a matcher decides here, in place of any rules, and is not checked";
        found.push(error(matcher.span.clone(), problem, REMEDY));
        return;
    }
    let Some(rules) = field(body, "rules") else {
        let problem = "RBAC without rules lets every request pass";
        found.push(error(at, problem, REMEDY));
        return;
    };
    match field(rules, "action") {
        None => {
            let problem = "the action is not written: Envoy takes ALLOW";
            found.push(warning(at.clone(), problem, "add action: ALLOW"));
        }
        Some(action) if !is_allow(action) => {
            let problem = "only ALLOW holds back what no policy names: DENY and LOG let it pass";
            found.push(error(action.span.clone(), problem, "write ALLOW"));
        }
        Some(_) => {}
    }
    let policies = field(rules, "policies").map_or(&[][..], Located::members);
    if policies.is_empty() {
        found.push(error(at, "RBAC without policies lets nothing pass", REMEDY));
    }
    for (name, policy) in policies {
        let principals = field(policy, "principals").map_or(&[][..], Located::elements);
        if principals.is_empty() {
            let problem = "a policy without principals is none";
            found.push(error(name.span.clone(), problem, REMEDY));
        }
        for principal in principals {
            if !is_passed(principal) {
                found.push(of_principal(principal));
            }
        }
    }
}

/// `ALLOW`, by name or by number.
fn is_allow(action: &Located) -> bool {
    match &action.data {
        Data::Plain(Value::Number(number)) => number.as_u64() == Some(0),
        _ => action.as_str() == Some("ALLOW"),
    }
}

/// Whether it is fulfilled only where the module has let a request pass.
fn is_passed(principal: &Located) -> bool {
    let ids = |name| {
        let set = field(principal, name)?;
        field(set, "ids").map(Located::elements)
    };
    if let Some(all) = ids("and_ids") {
        return all.iter().any(is_passed);
    }
    if let Some(some) = ids("or_ids") {
        return !some.is_empty() && some.iter().all(is_passed);
    }
    let Some(state) = field(principal, "filter_state") else {
        return false;
    };
    let exact = field(state, "string_match").and_then(|matcher| field(matcher, "exact"));
    text(state, &["key"]) == Some(KEY) && exact.and_then(Located::as_str) == Some(VALUE)
}

fn of_principal(principal: &Located) -> Finding {
    let Some(state) = field(principal, "filter_state") else {
        let problem = "lets pass what the module has not let pass";
        return error(principal.span.clone(), problem, REMEDY);
    };
    let key = field(state, "key");
    if let Some(key) = key.filter(|key| key.as_str() != Some(KEY)) {
        let problem = format!(
            "{:?} is not what the module sets when it lets a request pass",
            key.as_str().unwrap_or_default()
        );
        return error(key.span.clone(), problem, format!("write {KEY}"));
    }
    let matcher = field(state, "string_match");
    let exact = matcher.and_then(|matcher| field(matcher, "exact"));
    match (key, exact, matcher) {
        (None, ..) => error(
            place(state),
            "names no filter state",
            format!("add key: {KEY}"),
        ),
        (_, Some(exact), _) if exact.as_str().is_none() => {
            let problem = "is no text: Envoy refuses it";
            error(
                exact.span.clone(),
                problem,
                "write it in quotes: exact: \"true\"",
            )
        }
        (_, Some(exact), _) => {
            let problem = "is not the value that the module sets";
            error(exact.span.clone(), problem, "write exact: \"true\"")
        }
        (_, None, Some(matcher)) => {
            let problem = "matches more than the value that the module sets";
            error(matcher.span.clone(), problem, "write exact: \"true\"")
        }
        (_, None, None) => {
            let problem = "names no value of the filter state";
            error(place(state), problem, "add string_match: {exact: \"true\"}")
        }
    }
}

/// What is wrong with an expression of CEL that is to let pass only what the module has let pass.
pub(super) fn cel_fault(expression: &str) -> Option<&'static str> {
    let compact: String = expression.split_whitespace().collect();
    let compact = compact.replace('"', "'");
    if compact.contains("||") || compact.contains('?') || compact.contains('!') {
        return Some("may let pass what the module has not let pass");
    }
    let present = format!("'{KEY}'infilter_state");
    let value = format!("filter_state['{KEY}']");
    let exact = [
        format!("{value}==b'{VALUE}'"),
        format!("b'{VALUE}'=={value}"),
        format!("{value}in[b'{VALUE}']"),
        format!("string({value})=='{VALUE}'"),
    ];
    let mut parts = compact
        .split("&&")
        .map(|part| part.trim_matches(['(', ')']));
    let is_right = |part: &str| {
        // `string(...)` has lost nothing at its ends.
        part == present
            || exact
                .iter()
                .any(|right| part == right.trim_matches(['(', ')']))
    };
    if parts.any(is_right) {
        return None;
    }
    if compact.contains(&format!("{value}=='{VALUE}'")) {
        return Some("compares bytes with a text, and so lets nothing pass");
    }
    Some("does not look at what the module sets when it lets a request pass")
}

/// What would be right in CEL.
pub(super) const CEL_REMEDY: &str = "write \"filter_state['wasm.tollgate.passed'] == b'true'\"";
