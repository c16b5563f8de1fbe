//! Equality and order, as Python has them.

use std::cmp::Ordering;

use super::budget;
use super::fail::{Res, error};
use super::value::{Key, Value, View};

/// Python's `a == b`.
pub(super) fn equal(a: &Value, b: &Value) -> Res<bool> {
    budget::work(1)?;
    Ok(match (a, b) {
        (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
        (Value::Text(a), Value::Text(b)) => {
            budget::copy(a.as_str().len().min(b.as_str().len()))?;
            a.as_str() == b.as_str()
        }
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            all_equal(a.entries.iter().zip(&b.entries), a.entries.len() == b.entries.len())?
        }
        (Value::Dict(a), Value::Dict(b)) => {
            if a.entries.len() != b.entries.len() {
                return Ok(false);
            }
            for (key, value) in &a.entries {
                match b.get(key)? {
                    Some(other) if equal(value, other)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        (Value::View(a, x), Value::View(b, y)) if a == b && *a != View::Values => {
            equal(&Value::Dict(x.clone()), &Value::Dict(y.clone()))?
        }
        (Value::Range(_), Value::Range(_)) => {
            let (a, b) = (a.walk()?, b.walk()?);
            all_equal(a.iter().zip(&b), a.len() == b.len())?
        }
        (Value::Bytes(a), Value::Bytes(b)) => a == b,
        (Value::Namespace(a), Value::Namespace(b)) | (Value::Macro(a), Value::Macro(b)) => a == b,
        (Value::Function(a), Value::Function(b)) => a == b,
        _ => number_order(a, b) == Some(Some(Ordering::Equal)),
    })
}

fn all_equal<'a>(pairs: impl Iterator<Item = (&'a Value, &'a Value)>, same_length: bool) -> Res<bool> {
    if !same_length {
        return Ok(false);
    }
    for (a, b) in pairs {
        if !equal(a, b)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Python's `a is b`, as far as it can be told.
pub(super) fn same(a: &Value, b: &Value) -> Res<bool> {
    Ok(a.type_name() == b.type_name() && equal(a, b)?)
}

/// None for what is no number, Some(None) beside NaN.
fn number_order(a: &Value, b: &Value) -> Option<Option<Ordering>> {
    enum Number {
        Int(i64),
        Float(f64),
    }
    let number = |value: &Value| match value {
        Value::Bool(value) => Some(Number::Int(i64::from(*value))),
        Value::Int(value) => Some(Number::Int(*value)),
        Value::Float(value) => Some(Number::Float(*value)),
        _ => None,
    };
    Some(match (number(a)?, number(b)?) {
        (Number::Int(a), Number::Int(b)) => Some(a.cmp(&b)),
        (Number::Int(a), Number::Float(b)) => (a as f64).partial_cmp(&b),
        (Number::Float(a), Number::Int(b)) => a.partial_cmp(&(b as f64)),
        (Number::Float(a), Number::Float(b)) => a.partial_cmp(&b),
    })
}

/// None where they cannot be ordered in Python, or only with NaN.
fn order(a: &Value, b: &Value, operator: &str) -> Res<Option<Ordering>> {
    budget::work(1)?;
    if let Some(order) = number_order(a, b) {
        return Ok(order);
    }
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => {
            budget::copy(a.as_str().len().min(b.as_str().len()))?;
            Ok(Some(a.as_str().cmp(b.as_str())))
        }
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            for (a, b) in a.entries.iter().zip(&b.entries) {
                if !equal(a, b)? {
                    return order(a, b, operator);
                }
            }
            Ok(Some(a.entries.len().cmp(&b.entries.len())))
        }
        (Value::Bytes(a), Value::Bytes(b)) => Ok(Some(a.cmp(b))),
        _ => {
            a.defined()?;
            b.defined()?;
            let (a, b) = if operator.starts_with('>') { (b, a) } else { (a, b) };
            error(format!(
                "'{operator}' not supported between instances of '{}' and '{}'",
                a.type_name(),
                b.type_name()
            ))
        }
    }
}

/// Python's `a < b`; `operator` is what the template says, which may be `>` with both exchanged.
pub(super) fn less(a: &Value, b: &Value, operator: &str) -> Res<bool> {
    Ok(order(a, b, operator)? == Some(Ordering::Less))
}

pub(super) fn less_equal(a: &Value, b: &Value, operator: &str) -> Res<bool> {
    Ok(matches!(order(a, b, operator)?, Some(Ordering::Less | Ordering::Equal)))
}

/// Sorts pairs of a key and a value by their keys; equal ones stay in order.
pub(super) fn sort(pairs: Vec<(Value, Value)>, reverse: bool) -> Res<Vec<Value>> {
    budget::work(pairs.len())?;
    budget::room(pairs.len().saturating_mul(160))?;
    let mut runs: Vec<Vec<(Value, Value)>> = pairs.into_iter().map(|pair| vec![pair]).collect();
    while runs.len() > 1 {
        let mut merged = Vec::with_capacity(runs.len().div_ceil(2));
        let mut pending = runs.into_iter();
        while let Some(left) = pending.next() {
            merged.push(match pending.next() {
                Some(right) => merge(left, right, reverse)?,
                None => left,
            });
        }
        runs = merged;
    }
    Ok(runs.into_iter().flatten().map(|(_, value)| value).collect())
}

fn merge(left: Vec<(Value, Value)>, right: Vec<(Value, Value)>, reverse: bool) -> Res<Vec<(Value, Value)>> {
    budget::room((left.len() + right.len()) * 2 * size_of::<(Value, Value)>())?;
    let mut out = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some((a, _)), Some((b, _))) = (left.peek(), right.peek()) {
        let right_first = if reverse { less(a, b, "<")? } else { less(b, a, "<")? };
        out.extend(if right_first { right.next() } else { left.next() });
    }
    out.extend(left);
    out.extend(right);
    Ok(out)
}

/// The key that makes `unique` and `groupby` see values as the same.
pub(super) fn key(value: &Value) -> Res<Key> {
    value.key()
}
