//! Arithmetic, and slices.

use super::ast::Operator;
use super::budget;
use super::fail::{Fail, Res, error};
use super::format;
use super::interpreter::Interpreter;
use super::repr::overflow;
use super::text::Builder;
use super::value::{Range, Value};

enum Numbers {
    Ints(i64, i64),
    Floats(f64, f64),
}

fn numbers(a: &Value, b: &Value) -> Option<Numbers> {
    let int = |value: &Value| match value {
        Value::Bool(value) => Some(i64::from(*value)),
        Value::Int(value) => Some(*value),
        _ => None,
    };
    let float = |value: &Value| match value {
        Value::Float(value) => Some(*value),
        other => int(other).map(|value| value as f64),
    };
    match (int(a), int(b)) {
        (Some(a), Some(b)) => Some(Numbers::Ints(a, b)),
        _ => Some(Numbers::Floats(float(a)?, float(b)?)),
    }
}

pub(super) fn binary(operator: Operator, a: &Value, b: &Value, interpreter: &mut Interpreter<'_>) -> Res<Value> {
    if let (Operator::Modulo, Value::Text(text)) = (operator, a) {
        return format::percent(text, b, interpreter).map(Value::Text);
    }
    a.defined()?;
    b.defined()?;
    match (operator, numbers(a, b)) {
        (operator, Some(Numbers::Ints(a, b))) => ints(operator, a, b),
        (operator, Some(Numbers::Floats(a, b))) => floats(operator, a, b),
        (Operator::Add, None) => add(a, b),
        (Operator::Multiply, None) => match (a, b) {
            (Value::Int(times), other) | (other, Value::Int(times)) => repeated(other, *times, a, b),
            (Value::Bool(times), other) | (other, Value::Bool(times)) => repeated(other, i64::from(*times), a, b),
            _ => unsupported("*", a, b),
        },
        (operator, None) => unsupported(symbol(operator), a, b),
    }
}

fn symbol(operator: Operator) -> &'static str {
    match operator {
        Operator::Add => "+",
        Operator::Subtract => "-",
        Operator::Multiply => "*",
        Operator::Divide => "/",
        Operator::FloorDivide => "//",
        Operator::Modulo => "%",
        Operator::Power => "** or pow()",
    }
}

fn unsupported(symbol: &str, a: &Value, b: &Value) -> Res<Value> {
    error(format!("unsupported operand type(s) for {symbol}: '{}' and '{}'", a.type_name(), b.type_name()))
}

fn ints(operator: Operator, a: i64, b: i64) -> Res<Value> {
    let whole = |value: Option<i64>| value.map(Value::Int).ok_or_else(overflow);
    match operator {
        Operator::Add => whole(a.checked_add(b)),
        Operator::Subtract => whole(a.checked_sub(b)),
        Operator::Multiply => whole(a.checked_mul(b)),
        Operator::Divide if b == 0 => error("division by zero"),
        Operator::Divide => Ok(Value::Float(a as f64 / b as f64)),
        Operator::FloorDivide | Operator::Modulo if b == 0 => error("integer modulo by zero"),
        Operator::FloorDivide => {
            let quotient = a.checked_div(b).ok_or_else(overflow)?;
            whole(if a % b != 0 && (a < 0) != (b < 0) { quotient.checked_sub(1) } else { Some(quotient) })
        }
        Operator::Modulo => {
            let rest = a.checked_rem(b).unwrap_or(0);
            whole(if rest != 0 && (rest < 0) != (b < 0) { rest.checked_add(b) } else { Some(rest) })
        }
        Operator::Power if b < 0 && a == 0 => error("0.0 cannot be raised to a negative power"),
        Operator::Power if b < 0 => Ok(Value::Float((a as f64).powf(b as f64))),
        Operator::Power => whole(match (a, u32::try_from(b)) {
            (0 | 1, _) => Some(if b == 0 { 1 } else { a }),
            (-1, _) => Some(if b % 2 == 0 { 1 } else { -1 }),
            (_, Ok(exponent)) => a.checked_pow(exponent),
            (_, Err(_)) => None,
        }),
    }
}

fn floats(operator: Operator, a: f64, b: f64) -> Res<Value> {
    let zero = b == 0.0;
    Ok(Value::Float(match operator {
        Operator::Add => a + b,
        Operator::Subtract => a - b,
        Operator::Multiply => a * b,
        Operator::Divide if zero => return error("float division by zero"),
        Operator::Divide => a / b,
        Operator::FloorDivide if zero => return error("float floor division by zero"),
        Operator::Modulo if zero => return error("float modulo"),
        Operator::FloorDivide | Operator::Modulo => {
            let mut rest = a % b;
            let mut quotient = (a - rest) / b;
            if rest != 0.0 && (rest < 0.0) != (b < 0.0) {
                rest += b;
                quotient -= 1.0;
            }
            match operator {
                Operator::Modulo if rest == 0.0 => 0.0_f64.copysign(b),
                Operator::Modulo => rest,
                _ => quotient.round(),
            }
        }
        Operator::Power if a == 0.0 && b < 0.0 => return error("0.0 cannot be raised to a negative power"),
        Operator::Power => {
            let power = a.powf(b);
            if power.is_infinite() && a.is_finite() && b.is_finite() {
                return error("(34, 'Numerical result out of range')");
            }
            power
        }
    }))
}

fn add(a: &Value, b: &Value) -> Res<Value> {
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => {
            let mut out = Builder::default();
            out.text(a)?;
            out.text(b)?;
            Ok(Value::Text(out.finish()))
        }
        (Value::Text(_), other) => error(format!("can only concatenate str (not \"{}\") to str", other.type_name())),
        (Value::List(x), Value::List(y)) | (Value::Tuple(x), Value::Tuple(y)) => {
            let length = x.entries.len() + y.entries.len();
            budget::work(length / 4 + 1)?;
            budget::room(length * size_of::<Value>())?;
            let entries = x.entries.iter().chain(&y.entries).cloned().collect();
            match a {
                Value::List(_) => Value::list(entries),
                _ => Value::tuple(entries),
            }
        }
        _ => unsupported("+", a, b),
    }
}

fn repeated(value: &Value, times: i64, a: &Value, b: &Value) -> Res<Value> {
    let times = usize::try_from(times).unwrap_or(0);
    match value {
        Value::Text(text) => {
            budget::room(text.as_str().len().saturating_mul(times).saturating_mul(2))?;
            let mut out = Builder::default();
            for _ in 0..if text.as_str().is_empty() { 0 } else { times } {
                out.text(text)?;
            }
            Ok(Value::Text(out.finish()))
        }
        Value::List(items) | Value::Tuple(items) => {
            let length = items.entries.len().saturating_mul(times);
            budget::work(length / 4 + 1)?;
            budget::room(length.saturating_mul(size_of::<Value>()))?;
            let mut entries = Vec::with_capacity(length);
            for _ in 0..if items.entries.is_empty() { 0 } else { times } {
                entries.extend(items.entries.iter().cloned());
            }
            match value {
                Value::List(_) => Value::list(entries),
                _ => Value::tuple(entries),
            }
        }
        _ => unsupported("*", a, b),
    }
}

pub(super) fn negative(value: &Value) -> Res<Value> {
    value.defined()?;
    match value {
        Value::Bool(value) => Ok(Value::Int(-i64::from(*value))),
        Value::Int(value) => value.checked_neg().map(Value::Int).ok_or_else(overflow),
        Value::Float(value) => Ok(Value::Float(-value)),
        other => error(format!("bad operand type for unary -: '{}'", other.type_name())),
    }
}

pub(super) fn positive(value: Value) -> Res<Value> {
    value.defined()?;
    match value {
        Value::Bool(value) => Ok(Value::Int(i64::from(value))),
        Value::Int(_) | Value::Float(_) => Ok(value),
        other => error(format!("bad operand type for unary +: '{}'", other.type_name())),
    }
}

/// `of[start:stop:step]`
pub(super) fn slice(of: &Value, bounds: &[Value; 3]) -> Res<Value> {
    of.defined()?;
    let Some(length) = of.len().filter(|_| !matches!(of, Value::Dict(_) | Value::View(..) | Value::Loop(_))) else {
        return Ok(Value::undefined(format!("'{}' object has no slices", of.type_name())));
    };
    let bound = |value: &Value| match value {
        Value::None => Ok(None),
        Value::Int(value) => Ok(Some(*value)),
        Value::Bool(value) => Ok(Some(i64::from(*value))),
        _ => Err(Fail::error("slice indices must be integers or None or have an __index__ method")),
    };
    let [start, stop, step] = [bound(&bounds[0])?, bound(&bounds[1])?, bound(&bounds[2])?];
    let (step, length) = (step.unwrap_or(1), length as i64);
    if step == 0 {
        return error("slice step cannot be zero");
    }
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let clamp = |bound: i64| if bound < 0 { bound.saturating_add(length).max(low) } else { bound.min(high) };
    let start = start.map_or(if step > 0 { 0 } else { length - 1 }, clamp);
    let stop = stop.map_or(if step > 0 { length } else { -1 }, clamp);
    let picked = Range { start, stop, step };
    let count = picked.len();
    budget::work(count / 4 + 1)?;
    match of {
        Value::Text(text) if step == 1 => {
            budget::copy(text.as_str().len())?;
            let (start, stop) = (start as usize, stop.max(start) as usize);
            let bytes = text.byte_of(start)..text.byte_of(stop);
            text.slice(bytes).map(Value::Text)
        }
        Value::Text(text) => {
            budget::rewrite(text.as_str().len())?;
            budget::room(text.chars().saturating_mul(32))?;
            let chars: Vec<_> = text.origins().collect();
            let mut out = Builder::default();
            for index in 0..count {
                let (_, c, origin) = chars[picked.at(index) as usize];
                out.char(c, origin)?;
            }
            Ok(Value::Text(out.finish()))
        }
        Value::Range(range) => {
            let at = |index: i64| range.start.saturating_add(range.step.saturating_mul(index));
            let sliced = Range { start: at(start), stop: at(stop), step: range.step.saturating_mul(step) };
            Ok(Value::Range(std::rc::Rc::new(sliced)))
        }
        Value::Bytes(bytes) => Ok(Value::Bytes((0..count).map(|index| bytes[picked.at(index) as usize]).collect())),
        Value::List(items) | Value::Tuple(items) => {
            budget::room(count * size_of::<Value>())?;
            let entries = (0..count).map(|index| items.entries[picked.at(index) as usize].clone()).collect();
            match of {
                Value::List(_) => Value::list(entries),
                _ => Value::tuple(entries),
            }
        }
        other => Ok(Value::undefined(format!("'{}' object has no slices", other.type_name()))),
    }
}
