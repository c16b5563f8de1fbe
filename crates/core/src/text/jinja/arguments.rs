//! The values that a call passes, matched with the names of what is called.

use super::fail::{Res, error};
use super::value::Value;

#[derive(Default)]
pub(super) struct Arguments {
    pub(super) positional: Vec<Value>,
    pub(super) named: Vec<(String, Value)>,
}

impl Arguments {
    /// One value for each name, in order; None where nothing is given.
    pub(super) fn take<const N: usize>(self, of: &str, names: [&str; N]) -> Res<[Option<Value>; N]> {
        if self.positional.len() > N {
            return error(format!("{of}() takes at most {N} arguments ({} given)", self.positional.len()));
        }
        let mut values = [const { None }; N];
        for (value, given) in values.iter_mut().zip(self.positional) {
            *value = Some(given);
        }
        for (name, given) in self.named {
            match names.iter().position(|known| *known == name) {
                Some(at) if values[at].is_some() => {
                    return error(format!("{of}() got multiple values for argument '{name}'"));
                }
                Some(at) => values[at] = Some(given),
                None => return error(format!("{of}() got an unexpected keyword argument '{}'", short(&name))),
            }
        }
        Ok(values)
    }

    pub(super) fn none(self, of: &str) -> Res<()> {
        self.take(of, []).map(|[]| ())
    }
}

fn short(name: &str) -> String {
    name.chars().take(80).collect()
}

/// The value of an argument that must be given.
pub(super) fn needed(value: Option<Value>, of: &str, name: &str) -> Res<Value> {
    match value {
        Some(value) => Ok(value),
        None => error(format!("{of}() missing required argument '{name}'")),
    }
}

/// The value of an integer argument.
pub(super) fn int(value: Option<Value>, default: i64, of: &str) -> Res<i64> {
    match value {
        None => Ok(default),
        Some(Value::Int(value)) => Ok(value),
        Some(Value::Bool(value)) => Ok(i64::from(value)),
        Some(other) => {
            other.defined()?;
            error(format!("{of}(): '{}' object cannot be interpreted as an integer", other.type_name()))
        }
    }
}

pub(super) fn flag(value: Option<Value>, default: bool) -> bool {
    value.map_or(default, |value| value.is_true())
}
