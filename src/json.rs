//! JSON as a security product reads it: bounded depth, and no member twice.
//!
//! RFC 7515 section 4 demands unique member names in a JOSE header, and two readers that
//! disagree on which of two `aud` counts are a way in. So one parser reads everything that
//! comes from outside (tokens, key sets, metadata, policies), and it refuses repeats.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// Deepest nesting accepted, arrays and objects counted together.
///
/// Real tokens and key sets nest three deep; 32 leaves room and keeps the stack flat.
pub const MAX_DEPTH: u8 = 32;

/// A JSON value whose objects hold each name once.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// Any number
    Number(serde_json::Number),
    /// A string, unescaped
    String(String),
    /// An array
    Array(Vec<Self>),
    /// An object
    Object(Object),
}

/// The members of an object, in the order they were written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object(Vec<(String, Value)>);

/// Why text is not the JSON that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError(String);

impl JsonError {
    /// Longest text kept: a member's name may be as long as the input.
    const MAX: usize = 200;

    #[expect(clippy::needless_pass_by_value, reason = "for map_err")]
    fn new(error: serde_json::Error) -> Self {
        Self(error.to_string().chars().take(Self::MAX).collect())
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Reads one JSON text (RFC 8259) and nothing after it.
///
/// # Errors
/// Malformed text, a repeated member name, nesting deeper than [`MAX_DEPTH`].
pub fn parse(text: &[u8]) -> Result<Value, JsonError> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Node { depth: MAX_DEPTH }
        .deserialize(&mut reader)
        .map_err(JsonError::new)?;
    reader.end().map_err(JsonError::new)?;
    Ok(value)
}

/// A whole number, also where it is written with a fraction of zeros or an exponent. JSON makes no
/// difference, and a gateway that passes a structure on may write it so.
#[must_use]
pub fn whole(number: &serde_json::Number) -> Option<u64> {
    if let Some(whole) = number.as_u64() {
        return Some(whole);
    }
    let double = number.as_f64().filter(|double| double.fract() == 0.0)?;
    // Printing a double that has no fraction is exact, and needs no cast.
    format!("{double:.0}").parse().ok()
}

impl Value {
    /// The text of a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The members of an object.
    #[must_use]
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The elements of an array.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(values) => Some(values),
            _ => None,
        }
    }

    /// The value as JSON text.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Only a map with keys that are not strings can fail, and there is none.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What kind of value this is, with its article, for error messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

impl Object {
    /// An object of these members; `None` when a name is repeated.
    #[must_use]
    pub fn from_members(members: Vec<(String, Value)>) -> Option<Self> {
        let repeated = first_repeat(&members).is_some();
        (!repeated).then_some(Self(members))
    }

    /// The value under a name. Names are compared exactly.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0
            .iter()
            .find(|(member, _)| member == name)
            .map(|(_, value)| value)
    }

    /// All members in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl serde::Serialize for Value {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(number) => serde::Serialize::serialize(number, serializer),
            Self::String(text) => serializer.serialize_str(text),
            Self::Array(values) => serializer.collect_seq(values),
            Self::Object(object) => serializer.collect_map(object.iter()),
        }
    }
}

/// Reads one value with the depth that is left.
struct Node {
    depth: u8,
}

impl<'de> DeserializeSeed<'de> for Node {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        serde_json::Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let depth = self.deeper().map_err(A::Error::custom)?;
        let mut values = Vec::new();
        while let Some(value) = elements.next_element_seed(Self { depth })? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let depth = self.deeper().map_err(A::Error::custom)?;
        let mut object: Vec<(String, Value)> = Vec::new();
        while let Some(name) = members.next_key::<String>()? {
            if object
                .iter()
                .take(SMALL_OBJECT)
                .any(|(known, _)| *known == name)
            {
                return Err(A::Error::custom(format_args!("repeated member {name:?}")));
            }
            let value = members.next_value_seed(Self { depth })?;
            object.push((name, value));
        }
        match repeated(&object) {
            Some(name) => Err(A::Error::custom(format_args!("repeated member {name:?}"))),
            None => Ok(Value::Object(Object(object))),
        }
    }
}

/// A name that stands twice, in an object too large to be searched member by member.
fn repeated(members: &[(String, Value)]) -> Option<&String> {
    if members.len() <= SMALL_OBJECT {
        return None;
    }
    first_repeat(members)
}

fn first_repeat(members: &[(String, Value)]) -> Option<&String> {
    let mut names: Vec<_> = members.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    names.windows(2).find_map(|pair| {
        matches!(pair, [a, b] if a == b)
            .then(|| pair.first().copied())
            .flatten()
    })
}

/// Objects up to this size are searched for repeats without a set.
const SMALL_OBJECT: usize = 32;

impl Node {
    fn deeper(&self) -> Result<u8, &'static str> {
        self.depth.checked_sub(1).ok_or("nested too deeply")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_and_finds_members() {
        let value = parse(br#"{"b":[1,2.5,"x",null,true],"a":{}}"#).unwrap();
        let object = value.as_object().unwrap();
        assert_eq!(
            object.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            ["b", "a"]
        );
        assert_eq!(object.get("b").unwrap().as_array().unwrap().len(), 5);
        assert!(object.get("c").is_none());
    }

    #[test]
    fn refuses_repeated_members_at_any_depth_and_size() {
        for text in [
            r#"{"a":1,"a":1}"#.to_owned(),
            r#"[{"x":{"a":1,"b":2,"a":3}}]"#.to_owned(),
            r#"{"a":1,"\u0061":2}"#.to_owned(),
            {
                let members: Vec<_> = (0..100).map(|n| format!("\"m{n}\":0")).collect();
                format!("{{{},\"m70\":1}}", members.join(","))
            },
            {
                let members: Vec<_> = (0..100).map(|n| format!("\"m{n}\":0")).collect();
                format!("{{{},\"m7\":1}}", members.join(","))
            },
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(
                error.to_string().contains("repeated member"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(32).as_bytes()).is_ok());
        assert!(parse(nested(33).as_bytes()).is_err());
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
        assert!(parse("{\"a\":".repeat(100_000).as_bytes()).is_err());
    }

    #[test]
    fn refuses_what_is_not_one_json_text() {
        for text in [
            &b""[..],
            b"{} {}",
            b"{}x",
            b"{'a':1}",
            b"{\"a\":1,}",
            b"// c\n{}",
            b"\xef\xbb\xbf{}",
            b"\"\xff\"",
            b"\"\\ud800\"",
            b"1e400",
            b"NaN",
            b"{\"a\":\"\n\"}",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
