//! Reading the fields of a JSON object with errors that name the field, what was found, and the nearest known name.
//!
//! Serde's derive says neither where a wrong type was found nor what an unknown field was meant to be, so objects are read field by
//! field; of the derive come the names and types of the fields.

mod derive;

use std::marker::PhantomData;

use serde::de::{DeserializeOwned, DeserializeSeed};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

pub(crate) use derive::{Parts, Unread, Whole};

/// The fields of one object that have not been read yet.
pub(crate) struct Fields {
    place: String,
    map: Map<String, Value>,
}

impl Fields {
    /// The fields of `value`, which must be an object with no other fields than `known`. `place` says in errors where it is.
    pub(crate) fn new(value: Value, place: impl Into<String>, known: &[&str]) -> Result<Fields> {
        let place = place.into();
        let Value::Object(map) = value else {
            return Err(refuse(format!("{place} must be an object, found {}", describe(&value))));
        };
        match map.keys().find(|key| !known.contains(&key.as_str())) {
            Some(unknown) => Err(Error::Option {
                reason: format!("unknown field `{unknown}` in {place}"),
                suggestion: nearest(unknown, known),
            }),
            None => Ok(Fields { place, map }),
        }
    }

    /// Whether a field is there and has not been read yet.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// The value of an optional field. `null` is refused, because JSON turns NaN and Infinity into it.
    pub(crate) fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>> {
        match self.has(name) {
            true => self.read(name, PhantomData::<T>).map(Some),
            false => Ok(None),
        }
    }

    fn read<'de, S: DeserializeSeed<'de>>(&mut self, name: &str, seed: S) -> Result<S::Value> {
        let value = self.map.remove(name).unwrap_or_default();
        if value.is_null() {
            return Err(refuse(format!("`{name}` of {} is null; leave it out to get its default", self.place)));
        }
        seed.deserialize(value).map_err(|error: serde_json::Error| {
            let error = error.to_string();
            let sign = if error.starts_with("must be ") { "" } else { ":" };
            refuse(format!("`{name}` of {}{sign} {error}", self.place))
        })
    }

    /// The value of a field that must be there.
    pub(crate) fn need<T: DeserializeOwned>(&mut self, name: &str) -> Result<T> {
        self.take(name)?.ok_or_else(|| refuse(format!("{} needs `{name}`", self.place)))
    }
}

/// An option error without a suggestion.
pub(crate) fn refuse(reason: impl Into<String>) -> Error {
    Error::Option { reason: reason.into(), suggestion: None }
}

/// Names the kind of a JSON value, for errors.
pub(crate) fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The known name that `found` was probably meant to be.
pub(crate) fn nearest(found: &str, known: &[&str]) -> Option<String> {
    let plain = |name: &str| name.replace(['_', '-'], "").to_lowercase();
    let wanted = plain(found);
    known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&plain(name), &wanted), name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_nearest_name_is_suggested() {
        let known = ["maxTokens", "topK", "topP", "temperature"];
        assert_eq!(nearest("max_tokens", &known).unwrap(), "maxTokens");
        assert_eq!(nearest("max_new_tokens", &known).unwrap(), "maxTokens");
        assert_eq!(nearest("temprature", &known).unwrap(), "temperature");
        assert_eq!(nearest("top_p", &known).unwrap(), "topP");
        assert_eq!(nearest("colour", &known), None);
    }

    #[test]
    fn errors_name_the_field_and_what_was_found() {
        let mut fields = Fields::new(json!({ "a": "x", "b": null }), "this", &["a", "b", "c"]).unwrap();
        let message = fields.take::<u32>("a").unwrap_err().to_string();
        assert!(message.contains("`a` of this") && message.contains("string \"x\""), "{message}");
        assert!(fields.take::<u32>("b").unwrap_err().to_string().contains("null"));
        assert!(fields.need::<u32>("c").unwrap_err().to_string().contains("needs `c`"));
        assert!(Fields::new(json!([1]), "this", &[]).err().unwrap().to_string().contains("found an array"));
    }
}
