//! JSON as a security product reads it: bounded depth, and no member twice.
//!
//! RFC 7515 section 4 demands unique member names in a JOSE header, and two readers that
//! disagree on which of two `aud` counts are a way in. So one parser reads everything that
//! comes from outside (tokens, key sets, metadata, policies), and it refuses repeats.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Error;

/// Deepest nesting accepted, arrays and objects counted together.
///
/// Real tokens and key sets nest three deep; 32 leaves room and keeps the stack flat.
pub const MAX_DEPTH: u8 = 32;

/// A JSON value whose objects hold each name once. Strings without escapes are those of the text that
/// was read: most are, and a token is read on the request path.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'t> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// Any number
    Number(serde_json::Number),
    /// A string, unescaped
    String(Cow<'t, str>),
    /// An array
    Array(Vec<Self>),
    /// An object
    Object(Object<'t>),
}

/// The members of an object, in the order they were written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object<'t>(Vec<(Cow<'t, str>, Value<'t>)>);

/// Why text is not the JSON that is wanted.
#[derive(Debug)]
pub struct JsonError(Error);

impl fmt::Display for JsonError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Most characters shown: a member's name may be as long as the input.
        const MAX: usize = 200;
        let text = self.0.to_string();
        let end = text
            .char_indices()
            .nth(MAX)
            .map_or(text.len(), |(at, _)| at);
        formatter.write_str(text.get(..end).unwrap_or_default())
    }
}

/// Reads one JSON text (RFC 8259) and nothing after it.
///
/// # Errors
/// Malformed text, a repeated member name, nesting deeper than [`MAX_DEPTH`].
pub fn parse(text: &[u8]) -> Result<Value<'_>, JsonError> {
    // Once for all of its strings.
    let text = str::from_utf8(text).map_err(|error| JsonError(Error::custom(error)))?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Node { depth: MAX_DEPTH }
        .deserialize(&mut reader)
        .map_err(JsonError)?;
    reader.end().map_err(JsonError)?;
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

impl<'t> Value<'t> {
    /// The same value, of its own text.
    #[must_use]
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(value),
            Self::Number(number) => Value::Number(number),
            Self::String(text) => Value::String(text.into_owned().into()),
            Self::Array(values) => {
                Value::Array(values.into_iter().map(Value::into_owned).collect())
            }
            Self::Object(object) => Value::Object(object.into_owned()),
        }
    }

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
    pub fn as_object(&self) -> Option<&Object<'t>> {
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

impl<'t> Object<'t> {
    /// An object of these members; `None` when a name is repeated.
    #[must_use]
    pub fn from_members(members: Vec<(Cow<'t, str>, Value<'t>)>) -> Option<Self> {
        let repeated = first_repeat(&members).is_some();
        (!repeated).then_some(Self(members))
    }

    /// The same object, of its own text.
    #[must_use]
    pub fn into_owned(self) -> Object<'static> {
        let own = |(name, value): (Cow<'_, str>, Value<'_>)| {
            (Cow::Owned(name.into_owned()), value.into_owned())
        };
        Object(self.0.into_iter().map(own).collect())
    }

    /// The value under a name. Names are compared exactly.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value<'t>> {
        self.0
            .iter()
            .find(|(member, _)| is_same(member, name))
            .map(|(_, value)| value)
    }

    /// All members in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value<'t>)> {
        self.0.iter().map(|(name, value)| (&**name, value))
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

impl serde::Serialize for Value<'_> {
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
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node {
    type Value = Value<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value<'de>, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value<'de>, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value<'de>, E> {
        serde_json::Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value<'de>, E> {
        Ok(Value::String(value.to_owned().into()))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::String(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value<'de>, A::Error> {
        let depth = self.deeper().map_err(A::Error::custom)?;
        let mut values = Vec::new();
        while let Some(value) = elements.next_element_seed(Self { depth })? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value<'de>, A::Error> {
        let depth = self.deeper().map_err(A::Error::custom)?;
        // No room beforehand: a text can be all objects, and empty ones.
        let mut object: Vec<(Cow<'de, str>, Value<'de>)> = Vec::new();
        let mut shapes = Shapes::default();
        while let Some(name) = members.next_key_seed(Name)? {
            if shapes.may_repeat(&name)
                && object
                    .iter()
                    .take(SMALL_OBJECT)
                    .any(|(known, _)| is_same(known, &name))
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

/// Reads the name of a member.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }
}

/// Whether two names are the same. Most are not, and differ in length or at the end: comparing the rest
/// costs a call.
fn is_same(one: &str, other: &str) -> bool {
    one.len() == other.len() && one.as_bytes().last() == other.as_bytes().last() && one == other
}

/// The shapes of the names that an object has: a new one cannot be a repeat, and most are new.
#[derive(Default)]
struct Shapes(u64);

impl Shapes {
    /// Whether a name has the shape of an earlier one.
    fn may_repeat(&mut self, name: &str) -> bool {
        let (first, last) = match name.as_bytes() {
            [] => (0, 0),
            [only] => (*only, *only),
            [first, .., last] => (*first, *last),
        };
        let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
        let shape = length.wrapping_mul(7) ^ u32::from(first) ^ u32::from(last).wrapping_mul(5);
        let bit = 1_u64.rotate_left(shape);
        let earlier = self.0 & bit != 0;
        self.0 |= bit;
        earlier
    }
}

/// A name that stands twice, in an object too large to be searched member by member.
fn repeated<'m>(members: &'m [(Cow<'_, str>, Value<'_>)]) -> Option<&'m str> {
    if members.len() <= SMALL_OBJECT {
        return None;
    }
    first_repeat(members)
}

fn first_repeat<'m>(members: &'m [(Cow<'_, str>, Value<'_>)]) -> Option<&'m str> {
    let mut names: Vec<&str> = members.iter().map(|(name, _)| &**name).collect();
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
        assert_eq!((object.len(), object.is_empty()), (2, false));
        let inner = object.get("a").unwrap().as_object().unwrap();
        assert_eq!((inner.len(), inner.is_empty()), (0, true));
        assert_eq!(object.clone().into_owned(), *object);
    }

    #[test]
    fn kinds_are_named() {
        for (text, kind) in [
            ("null", "null"),
            ("true", "a boolean"),
            ("1", "a number"),
            (r#""x""#, "a string"),
            ("[]", "an array"),
            ("{}", "an object"),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap().kind(), kind);
        }
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
