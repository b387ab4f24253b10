//! A policy that Envoy passes as a structure: `google.protobuf.Struct`, serialised.
//!
//! Envoy documents that it turns a `Struct` into JSON; Envoy 1.40 passes the message as it is.

use std::borrow::Cow;

use crate::json::{MAX_DEPTH, Object, Value};
use crate::protobuf::{Field, fields};

/// Reads a serialised `Struct`; `None` when the bytes are none.
pub(super) fn parse(bytes: &[u8]) -> Option<Value<'static>> {
    read_struct(bytes, MAX_DEPTH)
}

/// `Struct`: 1 `fields`, a map, each entry with 1 `key` and 2 `value`.
fn read_struct(bytes: &[u8], depth: u8) -> Option<Value<'static>> {
    let depth = depth.checked_sub(1)?;
    let members = fields(bytes)?.into_iter().map(|field| match field {
        (1, Field::Bytes(entry)) => read_entry(entry, depth),
        _ => None,
    });
    Object::from_members(members.collect::<Option<_>>()?).map(Value::Object)
}

fn read_entry(bytes: &[u8], depth: u8) -> Option<(Cow<'static, str>, Value<'static>)> {
    let (mut name, mut value) = (Cow::Borrowed(""), Value::Null);
    for field in fields(bytes)? {
        match field {
            (1, Field::Bytes(text)) => name = String::from_utf8(text.to_vec()).ok()?.into(),
            (2, Field::Bytes(bytes)) => value = read_value(bytes, depth)?,
            _ => return None,
        }
    }
    Some((name, value))
}

/// `Value`: one of 1 `null_value`, 2 `number_value`, 3 `string_value`, 4 `bool_value`,
/// 5 `struct_value`, 6 `list_value`.
fn read_value(bytes: &[u8], depth: u8) -> Option<Value<'static>> {
    let fields = fields(bytes)?;
    let [field] = fields.as_slice() else {
        return None;
    };
    Some(match *field {
        (1, Field::Varint(_)) => Value::Null,
        (2, Field::Fixed64(bits)) => Value::Number(read_number(f64::from_bits(bits))?),
        (3, Field::Bytes(text)) => Value::String(String::from_utf8(text.to_vec()).ok()?.into()),
        (4, Field::Varint(value)) => Value::Bool(value != 0),
        (5, Field::Bytes(bytes)) => read_struct(bytes, depth)?,
        (6, Field::Bytes(bytes)) => read_list(bytes, depth)?,
        _ => return None,
    })
}

/// A structure knows doubles only: whole ones are integers again.
fn read_number(number: f64) -> Option<serde_json::Number> {
    /// 2^53: up to here every whole double is exact.
    const MAX: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() < MAX {
        #[expect(
            clippy::as_conversions,
            clippy::cast_possible_truncation,
            reason = "whole and in range by the guard"
        )]
        let whole = number as i64;
        return Some(whole.into());
    }
    serde_json::Number::from_f64(number)
}

/// `ListValue`: 1 `values`.
fn read_list(bytes: &[u8], depth: u8) -> Option<Value<'static>> {
    let depth = depth.checked_sub(1)?;
    let values = fields(bytes)?.into_iter().map(|field| match field {
        (1, Field::Bytes(value)) => read_value(value, depth),
        _ => None,
    });
    values.collect::<Option<_>>().map(Value::Array)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::json;
    use crate::protobuf::push_bytes;

    /// Writes a JSON object as Envoy serialises a `Struct`.
    pub(in crate::policy) fn encode(text: &str) -> Vec<u8> {
        let value = json::parse(text.as_bytes()).unwrap();
        encode_struct(value.as_object().unwrap())
    }

    fn encode_struct(object: &Object<'_>) -> Vec<u8> {
        let mut message = Vec::new();
        for (name, value) in object.iter() {
            let mut entry = Vec::new();
            push_bytes(1, name.as_bytes(), &mut entry);
            push_bytes(2, &encode_value(value), &mut entry);
            push_bytes(1, &entry, &mut message);
        }
        message
    }

    fn encode_value(value: &Value<'_>) -> Vec<u8> {
        let mut message = Vec::new();
        match value {
            Value::Null => message.extend([0x08, 0]),
            Value::Bool(value) => message.extend([0x20, u8::from(*value)]),
            Value::Number(number) => {
                message.push(0x11);
                message.extend(number.as_f64().unwrap().to_le_bytes());
            }
            Value::String(text) => push_bytes(3, text.as_bytes(), &mut message),
            Value::Object(object) => push_bytes(5, &encode_struct(object), &mut message),
            Value::Array(values) => {
                let mut list = Vec::new();
                for value in values {
                    push_bytes(1, &encode_value(value), &mut list);
                }
                push_bytes(6, &list, &mut message);
            }
        }
        message
    }

    #[test]
    fn reads_what_envoy_writes() {
        let text = r#"{"a":[1.5,"x",null,true,{"b":[]}],"c":{}}"#;
        assert_eq!(parse(&encode(text)).unwrap().to_json(), text);
    }

    #[test]
    fn refuses_what_is_no_structure() {
        let good = encode(r#"{"a":[1.5,"x",{"b":"c"}]}"#);
        for end in 1..good.len() {
            assert_eq!(parse(&good[..end]), None, "cut at {end}");
        }
        let mut twice = good.clone();
        twice.extend_from_slice(&good);
        assert_eq!(parse(&twice), None, "a repeated member");
        assert_eq!(parse(b"{\"a\":1}"), None);
        let deep = format!("{}{}", "[".repeat(31), "]".repeat(31));
        assert!(parse(&encode(&format!(r#"{{"a":{deep}}}"#))).is_some());
        let mut too_deep = Vec::new();
        for _ in 0..200 {
            let mut value = Vec::new();
            push_bytes(5, &too_deep, &mut value);
            let mut entry = Vec::new();
            push_bytes(1, b"a", &mut entry);
            push_bytes(2, &value, &mut entry);
            too_deep.clear();
            push_bytes(1, &entry, &mut too_deep);
        }
        assert_eq!(parse(&too_deep), None);
    }
}
