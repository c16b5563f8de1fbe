//! Reading structs with serde's derive, which knows the names of their fields, with the errors of [`Fields`].

use std::fmt::Display;
use std::marker::PhantomData;

use serde::de::value::{Error as NamesError, StrDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::Value;

use super::{Fields, refuse};
use crate::error::{Error, Result};

/// Structs that an object is made of.
pub(crate) trait Parts: Sized {
    /// The names of all their fields.
    fn names() -> Vec<&'static str>;
    fn read(fields: &mut Fields) -> Result<Self>;
}

impl Fields {
    /// Reads an object that is made of these structs, and has no other fields than theirs and `extra`.
    pub(crate) fn parts<P: Parts>(value: Value, place: &str, extra: &[&'static str]) -> Result<P> {
        let known = [extra, &P::names()].concat();
        P::read(&mut Fields::new(value, place, &known)?)
    }
}

macro_rules! parts {
    ($($part:ident),*) => {
        impl<$($part: DeserializeOwned),*> Parts for ($($part,)*) {
            fn names() -> Vec<&'static str> {
                [$(names::<$part>()),*].concat()
            }

            fn read(_fields: &mut Fields) -> Result<Self> {
                Ok(($(read::<$part>(_fields)?,)*))
            }
        }
    };
}

impl Parts for () {
    fn names() -> Vec<&'static str> {
        Vec::new()
    }

    fn read(_: &mut Fields) -> Result<Self> {
        Ok(())
    }
}

parts!(A);
parts!(A, B);
parts!(A, B, C);
parts!(A, B, C, D);
parts!(A, B, C, D, E);

/// The names of the fields of a struct, as serde's derive gives them.
fn names<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut found: &[&str] = &[];
    // It ends with an error once it has named its fields.
    let _ = T::deserialize(Names(&mut found));
    found
}

struct Names<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = NamesError;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, NamesError> {
        *self.0 = fields;
        Err(NamesError::custom("these are its fields"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, NamesError> {
        Err(NamesError::custom("not a struct"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
        tuple tuple_struct map enum identifier ignored_any
    }
}

fn read<T: DeserializeOwned>(fields: &mut Fields) -> Result<T> {
    T::deserialize(Part(fields)).map_err(|failure| match failure {
        Failure::Missing(name) => refuse(format!("{} needs `{name}`", fields.place)),
        Failure::Refused(error) => error,
    })
}

#[derive(Debug)]
enum Failure {
    Missing(&'static str),
    Refused(Error),
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Failure {}

impl serde::de::Error for Failure {
    fn custom<T: Display>(message: T) -> Self {
        Failure::Refused(refuse(message.to_string()))
    }

    fn missing_field(name: &'static str) -> Self {
        Failure::Missing(name)
    }
}

struct Part<'a>(&'a mut Fields);

impl<'de> Deserializer<'de> for Part<'_> {
    type Error = Failure;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_map(Access { fields: self.0, names: names.iter(), name: "" })
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Failure> {
        Err(Failure::Refused(Error::Internal("an object is read into something else than a struct".into())))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
        tuple tuple_struct map enum identifier ignored_any
    }
}

struct Access<'a> {
    fields: &'a mut Fields,
    names: std::slice::Iter<'static, &'static str>,
    name: &'static str,
}

impl<'de> MapAccess<'de> for Access<'_> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Failure> {
        let Some(name) = self.names.by_ref().find(|name| self.fields.has(name)) else { return Ok(None) };
        self.name = name;
        seed.deserialize(StrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Failure> {
        self.fields.read(self.name, seed).map_err(Failure::Refused)
    }
}

/// A whole number from `LEAST` to `MOST`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whole<const LEAST: usize, const MOST: usize>(pub(crate) usize);

impl<'de, const LEAST: usize, const MOST: usize> Deserialize<'de> for Whole<LEAST, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = usize::deserialize(deserializer)?;
        match (LEAST..=MOST).contains(&found) {
            true => Ok(Whole(found)),
            false => Err(D::Error::custom(format!("must be from {LEAST} to {MOST}, found {found}"))),
        }
    }
}

/// A value of the form of `T` that is read later, with errors of its own.
#[derive(Debug)]
pub(crate) struct Unread<T>(pub(crate) Value, PhantomData<T>);

impl<'de, T> Deserialize<'de> for Unread<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(|value| Unread(value, PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct One {
        first_name: String,
        count: Option<Whole<1, 9>>,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Two {
        top_k: usize,
    }

    fn refused(value: Value) -> (String, Option<String>) {
        match Fields::parts::<(One, Two)>(value, "this", &["op"]) {
            Err(Error::Option { reason, suggestion }) => (reason, suggestion),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn structs_know_the_names_of_their_fields() {
        assert_eq!(<(One, Two)>::names(), ["firstName", "count", "topK"]);
        let (one, two): (One, Two) =
            Fields::parts(json!({ "op": "x", "topK": 3, "firstName": "a" }), "this", &["op"]).unwrap();
        assert_eq!((one.first_name.as_str(), one.count.is_none(), two.top_k), ("a", true, 3));
    }

    #[test]
    fn errors_name_the_field_and_the_place() {
        assert_eq!(refused(json!({})).0, "this needs `firstName`");
        assert_eq!(refused(json!({ "firstName": "a", "first_name": "b" })).1.unwrap(), "firstName");
        assert_eq!(
            refused(json!({ "firstName": "a", "count": 10 })).0,
            "`count` of this must be from 1 to 9, found 10"
        );
        assert!(refused(json!({ "firstName": 5 })).0.starts_with("`firstName` of this: invalid type: integer `5`"));
        assert!(refused(json!({ "firstName": "a", "topK": null })).0.contains("`topK` of this is null"));
        assert_eq!(refused(json!([])).0, "this must be an object, found an array");
    }
}
