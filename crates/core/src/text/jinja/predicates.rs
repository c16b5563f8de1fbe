//! The tests of `is`.

use super::ast::Comparison;
use super::budget;
use super::compare;
use super::fail::{Res, error};
use super::filters;
use super::interpreter::evaluate::{compared, contains};
use super::text::Text;
use super::value::Value;

const NAMES: [&str; 37] = [
    "boolean",
    "callable",
    "defined",
    "divisibleby",
    "eq",
    "equalto",
    "==",
    "escaped",
    "even",
    "false",
    "filter",
    "float",
    "ge",
    ">=",
    "gt",
    "greaterthan",
    ">",
    "in",
    "integer",
    "iterable",
    "le",
    "<=",
    "lower",
    "lt",
    "lessthan",
    "<",
    "mapping",
    "ne",
    "!=",
    "none",
    "number",
    "odd",
    "sameas",
    "sequence",
    "string",
    "test",
    "true",
];

pub(super) fn is_known(name: &str) -> bool {
    NAMES.contains(&name) || matches!(name, "undefined" | "upper")
}

pub(super) fn call(name: &str, value: &Value, arguments: &[Value]) -> Res<bool> {
    let argument = || match arguments.first() {
        Some(argument) => Ok(argument),
        None => error(format!("the test '{name}' needs an argument")),
    };
    let comparison = match name {
        "eq" | "equalto" | "==" => Some(Comparison::Equal),
        "ne" | "!=" => Some(Comparison::Unequal),
        "lt" | "lessthan" | "<" => Some(Comparison::Less),
        "le" | "<=" => Some(Comparison::LessEqual),
        "gt" | "greaterthan" | ">" => Some(Comparison::Greater),
        "ge" | ">=" => Some(Comparison::GreaterEqual),
        _ => None,
    };
    if let Some(comparison) = comparison {
        return compared(comparison, value, argument()?);
    }
    Ok(match name {
        "defined" => !value.is_undefined(),
        "undefined" => value.is_undefined(),
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => matches!(value, Value::Int(_) | Value::Float(_) | Value::Bool(_)),
        "string" => matches!(value, Value::Text(_)),
        "mapping" => matches!(value, Value::Dict(_)),
        "iterable" => value.is_iterable(),
        "sequence" => {
            let listed = matches!(value, Value::Text(_) | Value::List(_) | Value::Tuple(_) | Value::Dict(_));
            listed || matches!(value, Value::Undefined(_) | Value::Range(_) | Value::Bytes(_))
        }
        "callable" => matches!(
            value,
            Value::Undefined(_)
                | Value::Macro(_)
                | Value::Method(_)
                | Value::Function(_)
                | Value::Joiner(_)
                | Value::Loop(_)
        ),
        "escaped" => false,
        "sameas" => compare::same(value, argument()?)?,
        "in" => contains(argument()?, value)?,
        "filter" => value.as_str().is_some_and(filters::is_known),
        "test" => value.as_str().is_some_and(is_known),
        "even" | "odd" | "divisibleby" => {
            let by = if name == "divisibleby" { argument()? } else { &Value::Int(2) };
            let rest = match (value, by) {
                (Value::Int(value), Value::Int(by)) if *by != 0 => value.wrapping_rem(*by) as f64,
                (Value::Bool(value), Value::Int(by)) if *by != 0 => f64::from(*value) % *by as f64,
                (Value::Float(value), Value::Int(by)) if *by != 0 => value % *by as f64,
                (Value::Int(_), Value::Int(_)) => return error("integer modulo by zero"),
                _ => {
                    value.defined()?;
                    return error(format!(
                        "unsupported operand type(s) for %: '{}' and '{}'",
                        value.type_name(),
                        by.type_name()
                    ));
                }
            };
            (rest == 0.0) == (name != "odd")
        }
        "lower" | "upper" => {
            let text = match value {
                Value::Text(text) => text.clone(),
                other => Text::plain(super::repr::short(other)),
            };
            budget::scan(text.as_str().len())?;
            is_case(text.as_str(), name == "upper")
        }
        _ => return error(format!("no test named '{}'", name.chars().take(40).collect::<String>())),
    })
}

/// Python's `islower` and `isupper`: some letters, none of the other case.
pub(super) fn is_case(text: &str, upper: bool) -> bool {
    let (mut found, mut other) = (false, false);
    for c in text.chars() {
        found |= if upper { c.is_uppercase() } else { c.is_lowercase() };
        other |= if upper { c.is_lowercase() } else { c.is_uppercase() };
    }
    found && !other
}
