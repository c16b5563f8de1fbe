//! Methods of Python's types; those of strings are in [`string`], what they are made of in [`pieces`].

pub(super) mod pieces;
mod string;

use super::arguments::{Arguments, int, needed};
use super::compare;
use super::fail::{Res, error};
use super::interpreter::Interpreter;
use super::value::{Value, View};

const DICT: [&str; 6] = ["get", "items", "keys", "values", "copy", "fromkeys"];
const LIST: [&str; 3] = ["copy", "count", "index"];

/// The method that a value has under a name.
pub(super) fn known(of: &Value, name: &str) -> Option<&'static str> {
    let names: &[&'static str] = match of {
        Value::Text(_) => &string::NAMES,
        Value::Dict(_) => &DICT,
        Value::List(_) => &LIST,
        Value::Tuple(_) => &LIST[1..],
        Value::Function("dict") => &DICT[5..],
        Value::Loop(_) => &["cycle", "changed"],
        Value::Cycler(_) => &["next", "reset"],
        Value::Bytes(_) => &["decode", "hex"],
        Value::Float(_) => &["is_integer"],
        Value::Int(_) => &["bit_length"],
        _ => &[],
    };
    names.iter().find(|known| **known == name).copied()
}

pub(super) fn call(of: &Value, name: &str, arguments: Arguments, interpreter: &mut Interpreter<'_>) -> Res<Value> {
    match (of, name) {
        (Value::Text(text), name) => string::call(text, name, arguments, interpreter),
        (Value::Dict(dict), "get") => {
            let [key, default] = arguments.take("get", ["key", "default"])?;
            let found = dict.get(&needed(key, "get", "key")?)?.cloned();
            Ok(found.or(default).unwrap_or(Value::None))
        }
        (Value::Dict(dict), "items" | "keys" | "values") => {
            arguments.none(name)?;
            let view = match name {
                "items" => View::Items,
                "keys" => View::Keys,
                _ => View::Values,
            };
            Ok(Value::View(view, dict.clone()))
        }
        (Value::Dict(_), "fromkeys") | (Value::Function(_), "fromkeys") => {
            let [keys, value] = arguments.take("fromkeys", ["iterable", "value"])?;
            let value = value.unwrap_or(Value::None);
            let keys = needed(keys, "fromkeys", "iterable")?.walk()?;
            Value::dict(keys.into_iter().map(|key| (key, value.clone())))
        }
        (Value::Dict(_) | Value::List(_), "copy") => {
            arguments.none("copy")?;
            Ok(of.clone())
        }
        (Value::List(items) | Value::Tuple(items), "count") => {
            let [wanted] = arguments.take("count", ["value"])?;
            let wanted = needed(wanted, "count", "value")?;
            let mut found = 0;
            for item in &items.entries {
                found += i64::from(compare::equal(item, &wanted)?);
            }
            Ok(Value::Int(found))
        }
        (Value::List(items) | Value::Tuple(items), "index") => {
            let [wanted, start, stop] = arguments.take("index", ["value", "start", "stop"])?;
            let wanted = needed(wanted, "index", "value")?;
            let length = items.entries.len() as i64;
            let place = |value: i64| if value < 0 { (value + length).max(0) } else { value.min(length) } as usize;
            let (start, stop) = (place(int(start, 0, "index")?), place(int(stop, length, "index")?));
            for at in start..stop.max(start) {
                if compare::equal(&items.entries[at], &wanted)? {
                    return Ok(Value::Int(at as i64));
                }
            }
            error(format!("{} is not in list", super::repr::short(&wanted)))
        }
        (Value::Bytes(bytes), "decode") => match String::from_utf8(bytes.to_vec()) {
            Ok(text) => Ok(Value::text(text)),
            Err(_) => error("'utf-8' codec can't decode the bytes"),
        },
        (Value::Bytes(bytes), "hex") => {
            super::budget::room(2 * bytes.len())?;
            Ok(Value::text(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
        }
        (Value::Float(value), "is_integer") => Ok(Value::Bool(value.fract() == 0.0)),
        (Value::Int(value), "bit_length") => Ok(Value::Int(i64::from(64 - value.unsigned_abs().leading_zeros()))),
        (of, name) => error(format!("'{}' object has no method '{name}'", of.type_name())),
    }
}
