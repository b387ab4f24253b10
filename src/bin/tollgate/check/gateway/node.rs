//! Values of configurations: members under either of their names, and walks.

use std::ops::Range;

use tollgate::json::Value;

use crate::document::{Data, Located};

/// A member by its name in protobuf or in JSON made of it: `http_filters`, `httpFilters`.
pub(super) fn field<'a>(value: &'a Located, name: &str) -> Option<&'a Located> {
    let members = value.members().iter();
    members
        .filter(|(key, _)| is_named(&key.name, name))
        .map(|(_, value)| value)
        .next()
}

/// A member of a member, and so on.
pub(super) fn at<'a>(value: &'a Located, path: &[&str]) -> Option<&'a Located> {
    let mut steps = path.iter();
    steps.try_fold(value, |value, name| field(value, name))
}

/// The text of a member.
pub(super) fn text<'a>(value: &'a Located, path: &[&str]) -> Option<&'a str> {
    at(value, path).and_then(Located::as_str)
}

/// Whether a member's name is this one of protobuf, in either spelling.
pub(super) fn is_named(key: &str, name: &str) -> bool {
    if key == name {
        return true;
    }
    let mut letters = key.chars();
    let mut upper = false;
    for expected in name.chars() {
        if expected == '_' {
            upper = true;
            continue;
        }
        let expected = if upper {
            expected.to_ascii_uppercase()
        } else {
            expected
        };
        upper = false;
        if letters.next() != Some(expected) {
            return false;
        }
    }
    letters.next().is_none()
}

pub(super) fn is_true(value: Option<&Located>) -> bool {
    matches!(
        value.map(|value| &value.data),
        Some(Data::Plain(Value::Bool(true)))
    )
}

/// A message of `Any`: the name of its type without package, and its body. `TypedStruct` is looked through.
pub(super) fn typed(value: &Located) -> Option<(&str, &Located)> {
    let url = text(value, &["@type"])?;
    if url.ends_with(".TypedStruct")
        && let Some(inner) = text(value, &["type_url"])
        && let Some(body) = field(value, "value")
    {
        return Some((last(inner), body));
    }
    Some((last(url), value))
}

fn last(url: &str) -> &str {
    url.rsplit(['.', '/']).next().unwrap_or(url)
}

/// What a finding about a value points at: its name where it has one, else where it begins.
pub(super) fn place(value: &Located) -> Range<usize> {
    let name = field(value, "name").filter(|name| name.as_str().is_some());
    name.map_or_else(
        || {
            if value.is_composite() {
                value.span.start..value.span.start.saturating_add(1)
            } else {
                value.span.clone()
            }
        },
        |name| name.span.clone(),
    )
}

/// Whether any value, this one or inside of it, is such.
pub(super) fn any(value: &Located, is_such: &mut dyn FnMut(&Located) -> bool) -> bool {
    is_such(value)
        || value.elements().iter().any(|inner| any(inner, is_such))
        || value.members().iter().any(|(_, inner)| any(inner, is_such))
}

/// Calls a function with every map, this one or inside of it.
pub(super) fn each_map<'a>(value: &'a Located, with: &mut dyn FnMut(&'a Located)) {
    if matches!(value.data, Data::Map(_)) {
        with(value);
    }
    for inner in value.elements() {
        each_map(inner, with);
    }
    for (_, inner) in value.members() {
        each_map(inner, with);
    }
}
