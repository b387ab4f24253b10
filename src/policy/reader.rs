//! Walks a JSON value with the path of every step, and notes all that is wrong on the way.
//!
//! Each reading function returns `Read<T>`: the value, or the proof that an error was noted.
//! Read every part first and use `?` last, so that one error does not hide another.

use std::cell::RefCell;
use std::ops::RangeInclusive;

use super::error::{PolicyError, PolicyErrors};
use super::wording::{alternatives, closest, meant, quoted, quoted_message};
use crate::json::{self, Object, Value};

/// A value, or the proof that its error was noted.
pub(super) type Read<T> = Result<T, Noted>;

/// Proof that an error was noted; only [`Errors::note`] makes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noted(());

/// Longest text accepted where nothing shorter is said, in bytes.
const MAX_TEXT: usize = 2048;

/// The errors noted so far.
#[derive(Default)]
pub(super) struct Errors(RefCell<PolicyErrors>);

impl Errors {
    pub(super) fn note(&self, path: String, problem: String, remedy: String) -> Noted {
        self.0.borrow_mut().push(PolicyError {
            path,
            problem,
            remedy,
        });
        Noted(())
    }

    /// What was read, if nothing at all was wrong.
    pub(super) fn judge<T>(self, read: Read<T>) -> Result<T, PolicyErrors> {
        match (read, self.0.into_inner()) {
            (Ok(value), errors) if errors.is_empty() => Ok(value),
            (_, errors) => Err(errors),
        }
    }
}

/// Where a value stands: the way to it from the root.
#[derive(Clone, Copy)]
struct Place<'a> {
    parent: Option<&'a Self>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Member(&'a str),
    Element(usize),
}

impl Place<'_> {
    const ROOT: Self = Self {
        parent: None,
        step: Step::Root,
    };

    /// `apps[2].limits[0].per`; `$` for the root.
    fn path(&self) -> String {
        let mut path = String::new();
        self.append_to(&mut path);
        if path.is_empty() {
            path.push('$');
        }
        path
    }

    fn append_to(&self, path: &mut String) {
        if let Some(parent) = self.parent {
            parent.append_to(path);
        }
        match self.step {
            Step::Root => {}
            Step::Element(index) => path.push_str(&format!("[{index}]")),
            Step::Member(name) if !is_plain(name) => {
                path.push_str(&format!("[{}]", quoted(name)));
            }
            Step::Member(name) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
            }
        }
    }
}

fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 80
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// A value of the policy at its place.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    value: &'a Value<'a>,
    place: Place<'a>,
    errors: &'a Errors,
}

impl<'a> Node<'a> {
    pub(super) fn root(value: &'a Value<'a>, errors: &'a Errors) -> Self {
        Self {
            value,
            place: Place::ROOT,
            errors,
        }
    }

    pub(super) fn value(&self) -> &'a Value<'a> {
        self.value
    }

    pub(super) fn path(&self) -> String {
        self.place.path()
    }

    /// Notes that this value is wrong.
    pub(super) fn note(&self, problem: impl Into<String>, remedy: impl Into<String>) -> Noted {
        self.errors.note(self.path(), problem.into(), remedy.into())
    }

    /// Notes that this value is of the wrong type.
    pub(super) fn expected(&self, wanted: &str) -> Noted {
        let found = self.value.kind();
        self.note(format!("expected {wanted}, found {found}"), "")
    }

    pub(super) fn boolean(&self) -> Read<bool> {
        match self.value {
            Value::Bool(value) => Ok(*value),
            _ => Err(self.expected("true or false")),
        }
    }

    /// A whole number. `1e3` is one: a gateway that passes the policy as a structure holds
    /// every number as a double and may write it so. So is text of digits: Envoy writes integers of YAML from 2^31 on
    /// as text into a structure.
    pub(super) fn integer(&self, range: RangeInclusive<u64>) -> Read<u64> {
        let (least, most) = (range.start(), range.end());
        let remedy = || format!("write a whole number from {least} to {most}");
        if let Some(digits) = self.value.as_str()
            && !digits.is_empty()
            && digits.bytes().all(|byte| byte.is_ascii_digit())
        {
            let value = digits.parse().ok();
            return value
                .filter(|value| range.contains(value))
                .ok_or_else(|| self.note(format!("{} is out of range", quoted(digits)), remedy()));
        }
        let Value::Number(number) = self.value else {
            return Err(self.expected(&format!("a number from {least} to {most}")));
        };
        if number.as_f64().is_some_and(|value| value.fract() != 0.0) {
            return Err(self.note(format!("{number} is not a whole number"), remedy()));
        }
        json::whole(number)
            .filter(|value| range.contains(value))
            .ok_or_else(|| self.note(format!("{number} is out of range"), remedy()))
    }

    /// An HTTP status.
    pub(super) fn status(&self, range: RangeInclusive<u16>) -> Read<u16> {
        let number = self.integer(u64::from(*range.start())..=u64::from(*range.end()))?;
        u16::try_from(number).map_err(|_| self.expected("a status"))
    }

    pub(super) fn string(&self, example: &str) -> Read<&'a str> {
        self.value
            .as_str()
            .ok_or_else(|| self.expected(&format!("a string such as {}", quoted(example))))
    }

    /// A string that says something: not empty, not long, nothing invisible.
    pub(super) fn text(&self, example: &str) -> Read<&'a str> {
        let text = self.string(example)?;
        if text.is_empty() {
            let remedy = format!("write a string such as {}", quoted(example));
            return Err(self.note("is empty", remedy));
        }
        if text.len() > MAX_TEXT {
            let problem = format!("is {} bytes long", text.len());
            return Err(self.note(problem, format!("write at most {MAX_TEXT} bytes")));
        }
        if text.chars().any(char::is_control) {
            let problem = format!("{} has a control character", quoted(text));
            return Err(self.note(problem, "remove it"));
        }
        if text.trim() != text {
            let problem = format!("{} begins or ends with white space", quoted(text));
            return Err(self.note(problem, "remove it"));
        }
        Ok(text)
    }

    /// One of a few words.
    pub(super) fn choice<T: Clone>(&self, choices: &[(&str, T)]) -> Read<T> {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let Some(given) = self.value.as_str() else {
            return Err(self.expected(&alternatives(&names)));
        };
        choices
            .iter()
            .find(|(name, _)| *name == given)
            .map(|(_, choice)| choice.clone())
            .ok_or_else(|| {
                let problem = format!("{} is not one of the choices", quoted(given));
                self.note(problem, meant(given, &names))
            })
    }

    /// Every element of an array.
    pub(super) fn list<T>(
        &self,
        example: &str,
        mut read: impl FnMut(&Node<'_>) -> Read<T>,
    ) -> Read<Vec<T>> {
        self.elements(example, &mut read)
    }

    /// One piece of code for all lists of a type: there are many, and the module is to be small.
    fn elements<T>(
        &self,
        example: &str,
        read: &mut dyn FnMut(&Node<'_>) -> Read<T>,
    ) -> Read<Vec<T>> {
        let Some(values) = self.value.as_array() else {
            return Err(self.expected(&format!("an array such as {example}")));
        };
        let elements: Vec<Read<T>> = values
            .iter()
            .enumerate()
            .map(|(index, value)| read(&self.child(value, Step::Element(index))))
            .collect();
        elements.into_iter().collect()
    }

    /// Every element of an array that holds at least one and at most `most`.
    pub(super) fn filled_list<T>(
        &self,
        example: &str,
        most: usize,
        read: impl FnMut(&Node<'_>) -> Read<T>,
    ) -> Read<Vec<T>> {
        match self.value.as_array().map(<[Value<'_>]>::len) {
            Some(0) => Err(self.note("is empty", format!("for example {example}"))),
            Some(length) if length > most => Err(self.too_many(length, most)),
            _ => self.list(example, read),
        }
    }

    pub(super) fn too_many(&self, length: usize, most: usize) -> Noted {
        self.note(
            format!("has {length} entries"),
            format!("write at most {most}"),
        )
    }

    /// Every member of an object whose names are the policy's own.
    pub(super) fn map<T>(
        &self,
        example: &str,
        mut read: impl FnMut(&str, &Node<'_>) -> Read<T>,
    ) -> Read<Vec<T>> {
        let Some(object) = self.value.as_object() else {
            return Err(self.expected(&format!("an object such as {example}")));
        };
        let members: Vec<Read<T>> = object
            .iter()
            .map(|(name, value)| read(name, &self.child(value, Step::Member(name))))
            .collect();
        members.into_iter().collect()
    }

    /// The members of an object whose names are fixed. Others are noted, each at its path.
    pub(super) fn members(&self, shape: &'static Shape) -> Read<Members<'_>> {
        let Some(object) = self.value.as_object() else {
            return Err(self.expected(&format!("an object such as {}", shape.example)));
        };
        for (name, value) in object.iter() {
            if !shape.keys.contains(&name) {
                shape.refuse(name, &self.child(value, Step::Member(name)));
            }
        }
        Ok(Members { object, node: self })
    }

    fn child<'c>(&'c self, value: &'c Value<'c>, step: Step<'c>) -> Node<'c> {
        Node {
            value,
            place: Place {
                parent: Some(&self.place),
                step,
            },
            errors: self.errors,
        }
    }
}

/// The keys of an object.
pub(super) struct Shape {
    /// What one looks like.
    pub(super) example: &'static str,
    /// The keys that are read.
    pub(super) keys: &'static [&'static str],
    /// Keys that have a sentence of their own.
    pub(super) refused: &'static [Refused],
}

/// A key that is known and refused.
pub(super) struct Refused {
    pub(super) key: &'static str,
    pub(super) problem: &'static str,
    pub(super) remedy: &'static str,
}

impl Shape {
    fn refuse(&self, name: &str, at: &Node<'_>) {
        if let Some(known) = self.refused.iter().find(|refused| refused.key == name) {
            at.note(known.problem, known.remedy);
            return;
        }
        let remedy = closest(name, self.keys).map_or_else(
            || format!("the keys here are {}", self.keys.join(", ")),
            |key| format!("did you mean {}?", quoted(key)),
        );
        at.note("unknown key", remedy);
    }
}

/// The members of an object whose names are fixed.
pub(super) struct Members<'a> {
    object: &'a Object<'a>,
    node: &'a Node<'a>,
}

impl<'a> Members<'a> {
    /// The object itself.
    pub(super) fn node(&self) -> &'a Node<'a> {
        self.node
    }

    pub(super) fn get(&self, key: &'static str) -> Option<Node<'a>> {
        let value = self.object.get(key)?;
        Some(self.node.child(value, Step::Member(key)))
    }

    pub(super) fn has(&self, key: &'static str) -> bool {
        self.object.get(key).is_some()
    }

    /// A member that must be there.
    pub(super) fn required<T>(
        &self,
        key: &'static str,
        remedy: &str,
        read: impl FnOnce(&Node<'_>) -> Read<T>,
    ) -> Read<T> {
        match self.get(key) {
            Some(node) => read(&node),
            None => Err(self.note_missing(key, remedy)),
        }
    }

    /// A member that may be left out.
    pub(super) fn optional<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&Node<'_>) -> Read<T>,
    ) -> Read<Option<T>> {
        self.get(key).map(|node| read(&node)).transpose()
    }

    /// A member with a default.
    pub(super) fn or<T>(
        &self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&Node<'_>) -> Read<T>,
    ) -> Read<T> {
        self.get(key).map_or(Ok(default), |node| read(&node))
    }

    fn note_missing(&self, key: &'static str, remedy: &str) -> Noted {
        let missing = self.node.child(self.node.value, Step::Member(key));
        missing.note("is missing", remedy)
    }
}

/// The text of an error that was made elsewhere.
pub(super) fn foreign(error: &impl ToString) -> String {
    quoted_message(&error.to_string())
}

/// The values without repeats, in order. For short lists.
pub(super) fn distinct<T: PartialEq>(values: Vec<T>) -> Vec<T> {
    values.into_iter().fold(Vec::new(), |mut kept, value| {
        if !kept.contains(&value) {
            kept.push(value);
        }
        kept
    })
}
