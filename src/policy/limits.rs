//! `limits`: so many calls per window.

use std::collections::BTreeSet;

use super::reader::{Members, Node, Read, Refused, Shape};
use super::time::{self, DAY, SECOND, Span};
use super::wording::{closest, quoted};
use super::{Count, Limit, Period, Window};
use crate::json::Value;

/// Most limits of one application: each costs every request of it.
const MAX_LIMITS: usize = 16;

/// Most calls per window. A double still holds every whole number up to here.
const MAX_CALLS: u64 = 1_000_000_000_000_000;

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
    keys: &["calls", "tokens", "per", "count"],
    refused: &[
        Refused::not_yet("reserve"),
        Refused::not_yet("operations"),
        Refused::not_yet("deployments"),
    ],
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
    let calls = calls(&members);
    let window = members.required("per", "add a window, such as \"60s\" or \"day\"", window);
    let count = members.or("count", Count::All, count);
    Ok(Limit {
        calls: calls?,
        window: window?,
        count: count?,
    })
}

/// A limit is of calls or of tokens, never both: a denial could not say which was used up.
fn calls(members: &Members<'_>) -> Read<u64> {
    let tokens = members.get("tokens").map(|node| node.note_not_yet());
    let calls = members.optional("calls", |node| node.integer(1..=MAX_CALLS));
    let limit = members.node();
    match (calls?, tokens) {
        (Some(calls), None) => Ok(calls),
        (None, Some(noted)) => Err(noted),
        (Some(_), Some(_)) => Err(limit.note(
            "limits both calls and tokens",
            "write two limits, one with each",
        )),
        (None, None) => Err(limit.note("limits nothing", "add \"calls\", such as \"calls\": 10")),
    }
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

fn count(node: &Node<'_>) -> Read<Count> {
    match node.value() {
        Value::Array(_) => statuses(node).map(Count::Statuses),
        Value::String(_) => node.choice(&[("all", Count::All), ("success", Count::Success)]),
        _ => Err(node.expected("\"all\", \"success\" or an array of statuses such as [200]")),
    }
}

fn statuses(node: &Node<'_>) -> Read<Vec<u16>> {
    let statuses = node.filled_list("[200]", usize::MAX, |status| status.status(100..=599))?;
    let statuses: BTreeSet<u16> = statuses.into_iter().collect();
    Ok(statuses.into_iter().collect())
}
