//! JSON and YAML with the place of every value.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use jsonc_parser::ast;
use jsonc_parser::common::Ranged as _;
use jsonc_parser::{CollectOptions, ParseOptions};
use saphyr::Scalar;
use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use tollgate::json::{self, Object, Value};

/// Deepest nesting, as the core has it.
const MAX_DEPTH: usize = 64;
/// Most values of a document. Aliases of YAML make many out of few.
const MAX_VALUES: usize = 500_000;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Located {
    /// Bytes of the text.
    pub(crate) span: Range<usize>,
    pub(crate) data: Data,
}

#[derive(Clone, Debug)]
pub(crate) enum Data {
    /// `null`, booleans, numbers.
    Plain(Value<'static>),
    /// A string; `literal` when it stands in a block of its own (`|` in YAML), line by line.
    Text {
        text: String,
        literal: bool,
    },
    List(Vec<Located>),
    Map(Vec<(Key, Located)>),
}

/// A member's name and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) span: Range<usize>,
}

/// Why a text is no document.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    pub(crate) problem: String,
    pub(crate) at: usize,
}

impl Located {
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        self.member(name).map(|(_, value)| value)
    }

    pub(crate) fn member(&self, name: &str) -> Option<(&Key, &Self)> {
        let members = self.members().iter();
        members
            .map(|(key, value)| (key, value))
            .find(|(key, _)| key.name == name)
    }

    pub(crate) fn members(&self) -> &[(Key, Self)] {
        match &self.data {
            Data::Map(members) => members,
            _ => &[],
        }
    }

    pub(crate) fn elements(&self) -> &[Self] {
        match &self.data {
            Data::List(elements) => elements,
            _ => &[],
        }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.data {
            Data::Text { text, .. } => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is_composite(&self) -> bool {
        matches!(self.data, Data::List(_) | Data::Map(_))
    }

    /// The value alone.
    pub(crate) fn to_value(&self) -> Value<'static> {
        match &self.data {
            Data::Plain(value) => value.clone(),
            Data::Text { text, .. } => Value::String(text.clone().into()),
            Data::List(elements) => Value::Array(elements.iter().map(Self::to_value).collect()),
            Data::Map(members) => {
                let members = members
                    .iter()
                    .map(|(key, value)| (key.name.clone().into(), value.to_value()));
                // Both readers refuse repeats.
                Value::Object(Object::from_members(members.collect()).unwrap_or_default())
            }
        }
    }
}

/// Reads JSON, as strictly as the core does.
pub(crate) fn read_json(text: &str) -> Result<Located, Malformed> {
    if let Err(error) = json::parse(text.as_bytes()) {
        return Err(of_json(text, &error.to_string()));
    }
    let strict = ParseOptions {
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_trailing_commas: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    let malformed = |problem: String| Malformed { problem, at: 0 };
    let parsed = jsonc_parser::parse_to_ast(text, &CollectOptions::default(), &strict)
        .map_err(|error| malformed(error.to_string()))?;
    let root = parsed.value.ok_or_else(|| malformed("empty".to_owned()))?;
    Ok(of_ast(&root))
}

/// An error of serde_json, whose place is told at its end.
pub(crate) fn of_json(text: &str, error: &str) -> Malformed {
    let place = error.rsplit_once(" at line ").and_then(|(problem, place)| {
        let (line, column) = place.split_once(" column ")?;
        let (line, column) = (line.parse().ok()?, column.parse().ok()?);
        Some((problem, offset(text, line, column)))
    });
    let (problem, at) = place.unwrap_or((error, 0));
    Malformed {
        problem: problem.to_owned(),
        at,
    }
}

/// The byte at a line and a column, both from 1; columns count bytes, as serde_json's do.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let lines = text.split_inclusive('\n').take(line.saturating_sub(1));
    let start: usize = lines.map(str::len).sum();
    start.saturating_add(column.saturating_sub(1))
}

fn of_ast(value: &ast::Value<'_>) -> Located {
    let range = value.range();
    let data = match value {
        ast::Value::StringLit(string) => Data::Text {
            text: string.value.to_string(),
            literal: false,
        },
        ast::Value::NumberLit(number) => {
            let value = json::parse(number.value.as_bytes()).unwrap_or(Value::Null);
            Data::Plain(value.into_owned())
        }
        ast::Value::BooleanLit(boolean) => Data::Plain(Value::Bool(boolean.value)),
        ast::Value::NullKeyword(_) => Data::Plain(Value::Null),
        ast::Value::Array(array) => Data::List(array.elements.iter().map(of_ast).collect()),
        ast::Value::Object(object) => {
            let members = object.properties.iter().map(|member| {
                let span = member.name.range();
                let key = Key {
                    name: member.name.as_str().to_owned(),
                    span: span.start..span.end,
                };
                (key, of_ast(&member.value))
            });
            Data::Map(members.collect())
        }
    };
    Located {
        span: range.start..range.end,
        data,
    }
}

/// Reads every document of a YAML text.
pub(crate) fn read_yaml(text: &str) -> Result<Vec<Located>, Malformed> {
    let offsets = Offsets::new(text);
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| Malformed {
            problem: format!("not valid YAML: {}", error.info()),
            at: offsets.of(error.marker().index()),
        })?;
        let span = offsets.span(&span);
        let at = span.start;
        builder
            .take(event, span)
            .map_err(|problem| Malformed { problem, at })?;
    }
    Ok(builder.documents)
}

/// Characters, which the parser counts, as bytes.
struct Offsets(Option<Vec<usize>>, usize);

impl Offsets {
    fn new(text: &str) -> Self {
        let table = (!text.is_ascii()).then(|| text.char_indices().map(|(at, _)| at).collect());
        Self(table, text.len())
    }

    fn of(&self, index: usize) -> usize {
        let at = match &self.0 {
            None => Some(index),
            Some(table) => table.get(index).copied(),
        };
        at.unwrap_or(self.1).min(self.1)
    }

    fn span(&self, span: &Span) -> Range<usize> {
        self.of(span.start.index())..self.of(span.end.index())
    }
}

/// Puts values together out of YAML's events.
#[derive(Default)]
struct Builder {
    documents: Vec<Located>,
    open: Vec<Open>,
    anchors: HashMap<usize, Located>,
    values: usize,
}

/// A list or map that has not ended.
struct Open {
    span: Range<usize>,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Located>),
    Map {
        members: Vec<(Key, Located)>,
        names: HashSet<String>,
        key: Option<Key>,
    },
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Range<usize>) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = tag.is_some_and(|tag| tag.suffix == "str");
                let data = match style {
                    ScalarStyle::Plain if !is_text => plain(&text),
                    style => Data::Text {
                        text: text.into_owned(),
                        literal: style == ScalarStyle::Literal,
                    },
                };
                self.add(Located { span, data }, anchor)
            }
            Event::SequenceStart(anchor, _) => self.begin(span, anchor, Content::List(Vec::new())),
            Event::MappingStart(anchor, _) => {
                let content = Content::Map {
                    members: Vec::new(),
                    names: HashSet::new(),
                    key: None,
                };
                self.begin(span, anchor, content)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(&span),
            Event::Alias(anchor) => {
                let found = self.anchors.get(&anchor).cloned();
                let mut value = found.ok_or("an alias inside of what it stands for")?;
                self.count(count(&value))?;
                value.span = span;
                self.add(value, 0)
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, span: Range<usize>, anchor: usize, content: Content) -> Result<(), String> {
        if self.open.len() >= MAX_DEPTH {
            return Err("nested too deeply".to_owned());
        }
        self.open.push(Open {
            span,
            anchor,
            content,
        });
        Ok(())
    }

    fn end(&mut self, end: &Range<usize>) -> Result<(), String> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let data = match open.content {
            Content::List(elements) => Data::List(elements),
            Content::Map { members, .. } => Data::Map(members),
        };
        let span = open.span.start..end.end.max(open.span.end);
        self.add(Located { span, data }, open.anchor)
    }

    fn add(&mut self, value: Located, anchor: usize) -> Result<(), String> {
        self.count(1)?;
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.documents.push(value);
            return Ok(());
        };
        match &mut open.content {
            Content::List(elements) => elements.push(value),
            Content::Map {
                members,
                names,
                key,
            } => match key.take() {
                Some(key) => members.push((key, value)),
                None => {
                    let name = key_name(&value)?;
                    if !names.insert(name.clone()) {
                        return Err(format!("repeated member {name:?}"));
                    }
                    let span = value.span;
                    *key = Some(Key { name, span });
                }
            },
        }
        Ok(())
    }

    fn count(&mut self, more: usize) -> Result<(), String> {
        self.values = self.values.saturating_add(more);
        if self.values > MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values"));
        }
        Ok(())
    }
}

fn key_name(value: &Located) -> Result<String, String> {
    match &value.data {
        Data::Text { text, .. } => Ok(text.clone()),
        Data::Plain(value) => Ok(value.to_json()),
        Data::List(_) | Data::Map(_) => Err("the name of a member is a structure".to_owned()),
    }
}

fn count(value: &Located) -> usize {
    let inner = value.elements().iter();
    let inner = inner.chain(value.members().iter().map(|(_, value)| value));
    inner.map(count).fold(1, usize::saturating_add)
}

/// A scalar without quotes, by YAML's core schema.
fn plain(text: &str) -> Data {
    match Scalar::parse_from_cow(text.into()) {
        Scalar::Null => Data::Plain(Value::Null),
        Scalar::Boolean(value) => Data::Plain(Value::Bool(value)),
        Scalar::Integer(value) => Data::Plain(Value::Number(value.into())),
        Scalar::FloatingPoint(value) => match serde_json::Number::from_f64(value.into_inner()) {
            Some(number) => Data::Plain(Value::Number(number)),
            None => string(text),
        },
        Scalar::String(text) => string(&text),
    }
}

fn string(text: &str) -> Data {
    Data::Text {
        text: text.to_owned(),
        literal: false,
    }
}
