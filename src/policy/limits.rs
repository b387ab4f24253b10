//! `limits`: so many calls, or tokens, per window.

use std::collections::BTreeSet;

use super::deployments::deployments;
use super::reader::{Members, Node, Read, Shape};
use super::roles::operations;
use super::time::{self, DAY, SECOND, Span};
use super::wording::{closest, quoted};
use super::{Count, Limit, Measure, Period, Scope, Window};
use crate::json::Value;

/// Most limits of one application: each costs every request of it.
const MAX_LIMITS: usize = 16;

/// Most calls or tokens per window. A double still holds every whole number up to here.
const MAX_AMOUNT: u64 = 1_000_000_000_000_000;

const SLIDING: Span = Span {
    millis: SECOND..=31 * DAY,
    words: "1s to 744h (31 days)",
};

const PERIODS: [(&str, Period); 4] = [
    ("hour", Period::Hour),
    ("day", Period::Day),
    ("week", Period::Week),
    ("month", Period::Month),
];

static LIMIT: Shape = Shape {
    example: r#"{"calls": 10, "per": "60s"}"#,
    keys: &[
        "calls",
        "tokens",
        "reserve",
        "per",
        "count",
        "operations",
        "deployments",
    ],
    refused: &[],
};

pub(super) fn limits(node: &Node<'_>) -> Read<Vec<Limit>> {
    if let Some(values) = node.value().as_array()
        && values.len() > MAX_LIMITS
    {
        return Err(node.too_many(values.len(), MAX_LIMITS));
    }
    node.list(r#"[{"calls": 10, "per": "60s"}]"#, limit)
}

fn limit(node: &Node<'_>) -> Read<Limit> {
    let members = node.members(&LIMIT)?;
    let amount = amount(&members);
    let reserve = reserve(&members);
    let window = members.required("per", "add a window, such as \"60s\" or \"day\"", window);
    let count = members.or("count", Count::All, |node| {
        count(node, members.has("tokens"))
    });
    let operations = members.optional("operations", operations);
    let deployments = members.optional("deployments", deployments);
    let reserve = reserve?;
    let (measure, amount) = match amount? {
        Amount::Calls(calls) => (Measure::Calls, calls),
        Amount::Tokens(tokens) => (Measure::Tokens { reserve }, tokens),
    };
    Ok(Limit {
        measure,
        amount,
        window: window?,
        count: count?,
        scope: Scope {
            operations: operations?,
            deployments: deployments?,
        },
    })
}

enum Amount {
    Calls(u64),
    Tokens(u64),
}

/// A limit is of calls or of tokens, never both: a denial could not say which was used up.
fn amount(members: &Members<'_>) -> Read<Amount> {
    let calls = members.optional("calls", |node| node.integer(1..=MAX_AMOUNT));
    let tokens = members.optional("tokens", |node| node.integer(1..=MAX_AMOUNT));
    let limit = members.node();
    match (calls?, tokens?) {
        (Some(calls), None) => Ok(Amount::Calls(calls)),
        (None, Some(tokens)) => Ok(Amount::Tokens(tokens)),
        (Some(_), Some(_)) => Err(limit.note(
            "limits both calls and tokens",
            "write two limits, one with each",
        )),
        (None, None) => Err(limit.note(
            "limits nothing",
            "add \"calls\" or \"tokens\", such as \"calls\": 10",
        )),
    }
}

fn reserve(members: &Members<'_>) -> Read<bool> {
    members.or("reserve", false, |node| {
        let reserve = node.boolean()?;
        if reserve && !members.has("tokens") {
            return Err(node.note("only tokens can be reserved", "leave it out"));
        }
        Ok(reserve)
    })
}

fn window(node: &Node<'_>) -> Read<Window> {
    let text = time::duration_text(node)?;
    if let Some((_, period)) = PERIODS.iter().find(|(name, _)| *name == text) {
        return Ok(Window::Calendar(*period));
    }
    let Some(millis) = time::parse(text) else {
        let remedy = closest(text, &PERIODS.map(|(name, _)| name)).map_or_else(
            || format!("write {}, or hour, day, week or month", time::FORM),
            |period| format!("did you mean {}?", quoted(period)),
        );
        return Err(node.note(format!("{} is not a window", quoted(text)), remedy));
    };
    let millis = time::check(node, text, millis, &SLIDING)?;
    Ok(Window::Sliding { millis })
}

fn count(node: &Node<'_>, of_tokens: bool) -> Read<Count> {
    match node.value() {
        Value::Array(_) => {
            let statuses = statuses(node)?;
            // Other answers use no tokens.
            if of_tokens && !statuses.iter().any(|status| (200..300).contains(status)) {
                let remedy = "add a 2xx status, such as 200, or leave it out";
                return Err(node.note("answers with these statuses use no tokens", remedy));
            }
            Ok(Count::Statuses(statuses))
        }
        Value::String(_) => node.choice(&[("all", Count::All), ("success", Count::Success)]),
        _ => Err(node.expected("\"all\", \"success\" or an array of statuses such as [200]")),
    }
}

fn statuses(node: &Node<'_>) -> Read<Vec<u16>> {
    let statuses = node.filled_list("[200]", usize::MAX, |status| status.status(100..=599))?;
    let statuses: BTreeSet<u16> = statuses.into_iter().collect();
    Ok(statuses.into_iter().collect())
}
