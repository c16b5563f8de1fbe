//! Filters of numbers.

use super::super::arguments::{Arguments, flag, int};
use super::super::budget;
use super::super::fail::{Res, error};
use super::super::interpreter::Interpreter;
use super::super::repr::overflow;
use super::super::value::Value;

pub(super) fn call(name: &str, value: Value, arguments: Arguments, interpreter: &mut Interpreter<'_>) -> Res<Value> {
    match name {
        "abs" => {
            arguments.none(name)?;
            match value {
                Value::Int(value) => value.checked_abs().map(Value::Int).ok_or_else(overflow),
                Value::Bool(value) => Ok(Value::Int(i64::from(value))),
                Value::Float(value) => Ok(Value::Float(value.abs())),
                other => {
                    other.defined()?;
                    error(format!("bad operand type for abs(): '{}'", other.type_name()))
                }
            }
        }
        "int" => {
            let [default, base] = arguments.take(name, ["default", "base"])?;
            let base = int(base, 10, name)?;
            budget::rewrite(value.as_str().map_or(0, str::len))?;
            Ok(whole(&value, base).map(Value::Int).or(default).unwrap_or(Value::Int(0)))
        }
        "float" => {
            let [default] = arguments.take(name, ["default"])?;
            budget::rewrite(value.as_str().map_or(0, str::len))?;
            let found = match &value {
                Value::Text(text) => parsed(text.as_str()),
                Value::Bool(value) => Some(f64::from(*value)),
                Value::Int(value) => Some(*value as f64),
                Value::Float(value) => Some(*value),
                _ => None,
            };
            Ok(found.map(Value::Float).or(default).unwrap_or(Value::Float(0.0)))
        }
        "round" => {
            let [precision, method] = arguments.take(name, ["precision", "method"])?;
            let precision = int(precision, 0, name)?.clamp(-400, 400) as i32;
            let method = match method {
                Some(method) => interpreter.str(&method)?.as_str().to_owned(),
                None => "common".to_owned(),
            };
            round(&value, precision, &method)
        }
        _ => {
            let [binary] = arguments.take(name, ["binary"])?;
            size(&value, flag(binary, false))
        }
    }
}

fn whole(value: &Value, base: i64) -> Option<i64> {
    match value {
        Value::Int(value) => Some(*value),
        Value::Bool(value) => Some(i64::from(*value)),
        Value::Float(value) if value.is_finite() && value.abs() < 9.2e18 => Some(value.trunc() as i64),
        Value::Text(text) => {
            let text = text.as_str().trim();
            let (negative, digits) = match text.as_bytes().first() {
                Some(b'-') => (true, &text[1..]),
                Some(b'+') => (false, &text[1..]),
                _ => (false, text),
            };
            let prefixed = |prefix: &str| digits.strip_prefix(prefix).or(digits.strip_prefix(&prefix.to_uppercase()));
            let digits = match base {
                16 => prefixed("0x"),
                8 => prefixed("0o"),
                2 => prefixed("0b"),
                _ => None,
            }
            .unwrap_or(digits);
            let base = u32::try_from(base).ok().filter(|base| (2..=36).contains(base))?;
            let plain = !digits.is_empty() && digits.chars().all(|c| c.is_digit(base) || c == '_');
            let tidy = !digits.starts_with('_') && !digits.ends_with('_') && !digits.contains("__");
            if plain && tidy {
                let value = i64::from_str_radix(&digits.replace('_', ""), base).ok()?;
                return Some(if negative { -value } else { value });
            }
            let value = parsed(text)?;
            (value.is_finite() && value.abs() < 9.2e18).then_some(value.trunc() as i64)
        }
        _ => None,
    }
}

/// Python's `float(text)`.
fn parsed(text: &str) -> Option<f64> {
    let text = text.trim();
    let letters = text.trim_start_matches(['+', '-']).to_ascii_lowercase();
    let special = matches!(letters.as_str(), "inf" | "infinity" | "nan");
    let digits = letters.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if !special && !digits {
        return None;
    }
    text.replace('_', "").parse().ok()
}

fn round(value: &Value, precision: i32, method: &str) -> Res<Value> {
    let (float, is_int) = match value {
        Value::Int(value) => (*value as f64, true),
        Value::Bool(value) => (f64::from(*value), true),
        Value::Float(value) => (*value, false),
        other => {
            other.defined()?;
            return error(format!("type {} doesn't define __round__ method", other.type_name()));
        }
    };
    budget::work(1)?;
    let factor = 10_f64.powi(precision);
    match method {
        "common" => match (is_int, precision) {
            (true, 0..) => Ok(match value {
                Value::Bool(value) => Value::Int(i64::from(*value)),
                other => other.clone(),
            }),
            (_, 0..) => {
                let places = precision as usize;
                let text = format!("{float:.places$}");
                Ok(Value::Float(text.parse().unwrap_or(float)))
            }
            (is_int, _) => {
                let unit = 10_f64.powi(-precision);
                let rounded = (float / unit).round_ties_even() * unit;
                Ok(if is_int { Value::Int(rounded as i64) } else { Value::Float(rounded) })
            }
        },
        "ceil" => Ok(Value::Float((float * factor).ceil() / factor)),
        "floor" => Ok(Value::Float((float * factor).floor() / factor)),
        _ => error("method must be common, ceil or floor"),
    }
}

fn size(value: &Value, binary: bool) -> Res<Value> {
    let bytes = match value {
        Value::Int(value) => *value as f64,
        Value::Float(value) => *value,
        Value::Bool(value) => f64::from(*value),
        Value::Text(text) => match parsed(text.as_str()) {
            Some(value) => value,
            None => return error("could not convert string to float"),
        },
        other => return error(format!("a {} is no size", other.type_name())),
    };
    let (base, units) = match binary {
        true => (1024_f64, ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"]),
        false => (1000_f64, ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"]),
    };
    if bytes == 1.0 {
        return Ok(Value::text("1 Byte"));
    }
    if bytes < base {
        return Ok(Value::text(format!("{} Bytes", bytes.trunc() as i64)));
    }
    let mut unit = base;
    for (index, name) in units.iter().enumerate() {
        unit *= base;
        if bytes < unit || index + 1 == units.len() {
            return Ok(Value::text(format!("{:.1} {name}", base * bytes / unit)));
        }
    }
    Ok(Value::text(""))
}
