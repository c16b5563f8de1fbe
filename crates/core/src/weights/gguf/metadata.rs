//! The metadata of a GGUF file: values by key, read within limits and asked for by type.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::cursor::Cursor;
use crate::error::{Error, Result};
use crate::folder::unusable;

/// Most keys, most bytes of one, and most bytes of a text that stands alone (a chat template) or in a list (a token).
const MAX_KEYS: u64 = 65_536;
const MAX_KEY: u64 = 65_535;
const MAX_TEXT: u64 = 4 << 20;
const MAX_ITEM: u64 = 64 << 10;
/// Most items of all lists together: three lists of a million tokens, and as many merges.
const MAX_ITEMS: u64 = 6 << 20;

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Integer(i128),
    Float(f64),
    Flag(bool),
    Text(String),
    Integers(Vec<i64>),
    Floats(Vec<f64>),
    Flags(Vec<bool>),
    Texts(Texts),
}

/// Texts in one piece of memory: a vocabulary has hundreds of thousands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    text: String,
    /// Where each ends, which begins where the one before ends.
    ends: Vec<u32>,
}

impl Texts {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub fn get(&self, at: usize) -> Option<&str> {
        let end = *self.ends.get(at)? as usize;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        self.text.get(start..end)
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &str> + ExactSizeIterator {
        (0..self.len()).map(|at| self.get(at).unwrap_or_default())
    }

    /// Adds one, of which a header has no more than it has bytes.
    fn push(&mut self, text: &str) -> Result<(), String> {
        self.text.push_str(text);
        self.ends.push(u32::try_from(self.text.len()).map_err(|_| "its texts have more than 4 GiB")?);
        Ok(())
    }
}

impl Value {
    fn what(&self) -> String {
        match self {
            Value::Integer(value) => format!("{value}"),
            Value::Float(value) => format!("{value}"),
            Value::Flag(value) => format!("{value}"),
            Value::Text(_) => "a text".into(),
            Value::Integers(list) => format!("a list of {} integers", list.len()),
            Value::Floats(list) => format!("a list of {} numbers", list.len()),
            Value::Flags(list) => format!("a list of {} flags", list.len()),
            Value::Texts(list) => format!("a list of {} texts", list.len()),
        }
    }
}

/// The keys of a file with their values.
#[derive(Debug)]
pub struct Metadata {
    path: PathBuf,
    values: HashMap<String, Value>,
}

impl Metadata {
    /// Reads `count` keys with their values.
    pub(super) fn read(path: &Path, cursor: &mut Cursor, count: u64) -> Result<Metadata, String> {
        if count > MAX_KEYS {
            return Err(format!("it promises {count} keys of metadata; at most {MAX_KEYS} are read"));
        }
        let mut values = HashMap::new();
        let mut left = MAX_ITEMS;
        for _ in 0..count {
            let key = cursor.text(MAX_KEY, "a key of its metadata")?;
            let kind = cursor.u32()?;
            let value = value(cursor, kind, &key, &mut left)?;
            if values.contains_key(&key) {
                return Err(format!("its metadata have the key `{key}` twice"));
            }
            values.insert(key, value);
        }
        Ok(Metadata { path: path.to_owned(), values })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// The error of a key whose value cannot be used.
    pub fn bad(&self, key: &str, reason: impl AsRef<str>) -> Error {
        unusable(&self.path, format!("its metadata say `{key}`: {}", reason.as_ref()))
    }

    /// The error of a key that is not there.
    pub fn missing(&self, key: &str) -> Error {
        unusable(&self.path, format!("its metadata do not say `{key}`; convert the model anew with llama.cpp"))
    }

    fn expected(&self, key: &str, value: &Value, wanted: &str) -> Error {
        self.bad(key, format!("{}, where {wanted} is expected", value.what()))
    }

    /// A whole number that is not negative.
    pub fn size(&self, key: &str) -> Result<Option<usize>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Integer(value)) if usize::try_from(*value).is_ok() => Ok(usize::try_from(*value).ok()),
            Some(other) => Err(self.expected(key, other, "a whole number")),
        }
    }

    /// The one number of a list that says it of each of `layers` layers, or the number itself.
    pub fn of_all_layers(&self, key: &str) -> Result<Option<usize>> {
        let Some(Value::Integers(list)) = self.get(key) else { return self.size(key) };
        match list.first() {
            Some(first) if list.iter().all(|each| each == first) && *first >= 0 => Ok(usize::try_from(*first).ok()),
            _ => Err(Error::UnsupportedModel {
                reason: format!("{} says `{key}` of each layer, and they differ", self.path.display()),
                known: vec![],
            }),
        }
    }

    /// A finite number.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Float(value)) if value.is_finite() => Ok(Some(*value)),
            Some(Value::Integer(value)) => Ok(Some(*value as f64)),
            Some(other) => Err(self.expected(key, other, "a number")),
        }
    }

    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Flag(value)) => Ok(Some(*value)),
            Some(other) => Err(self.expected(key, other, "true or false")),
        }
    }

    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Text(value)) => Ok(Some(value)),
            Some(other) => Err(self.expected(key, other, "a text")),
        }
    }

    pub fn texts(&self, key: &str) -> Result<Option<&Texts>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Texts(value)) => Ok(Some(value)),
            Some(other) => Err(self.expected(key, other, "a list of texts")),
        }
    }

    pub fn integers(&self, key: &str) -> Result<Option<&[i64]>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Integers(value)) => Ok(Some(value)),
            Some(other) => Err(self.expected(key, other, "a list of integers")),
        }
    }

    pub fn flags(&self, key: &str) -> Result<Option<&[bool]>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Flags(value)) => Ok(Some(value)),
            Some(other) => Err(self.expected(key, other, "a list of flags")),
        }
    }

    pub fn numbers(&self, key: &str) -> Result<Option<&[f64]>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Floats(value)) => Ok(Some(value)),
            Some(other) => Err(self.expected(key, other, "a list of numbers")),
        }
    }
}

/// A value of a kind by its number in GGUF; `left` is how many items lists may still have.
fn value(cursor: &mut Cursor, kind: u32, key: &str, left: &mut u64) -> Result<Value, String> {
    Ok(match kind {
        6 => Value::Float(f64::from(f32::from_le_bytes(cursor.bytes()?))),
        12 => Value::Float(f64::from_le_bytes(cursor.bytes()?)),
        7 => Value::Flag(flag(cursor, key)?),
        8 => Value::Text(cursor.text(MAX_TEXT, &format!("the value of `{key}`"))?),
        9 => list(cursor, key, left)?,
        other => Value::Integer(integer(cursor, other, key)?),
    })
}

fn list(cursor: &mut Cursor, key: &str, left: &mut u64) -> Result<Value, String> {
    let kind = cursor.u32()?;
    let count = cursor.u64()?;
    *left = left.checked_sub(count).ok_or_else(|| {
        format!("the list `{key}` promises {count} items; at most {MAX_ITEMS} are read of all lists together")
    })?;
    fn all<T>(count: u64, mut one: impl FnMut() -> Result<T, String>) -> Result<Vec<T>, String> {
        let mut items = Vec::with_capacity(count.min(4096) as usize);
        for _ in 0..count {
            items.push(one()?);
        }
        Ok(items)
    }
    Ok(match kind {
        6 => Value::Floats(all(count, || Ok(f64::from(f32::from_le_bytes(cursor.bytes()?))))?),
        12 => Value::Floats(all(count, || cursor.bytes().map(f64::from_le_bytes))?),
        7 => Value::Flags(all(count, || flag(cursor, key))?),
        8 => {
            let what = format!("an item of `{key}`");
            let mut texts = Texts::default();
            for _ in 0..count {
                texts.push(&cursor.text(MAX_ITEM, &what)?)?;
            }
            Value::Texts(texts)
        }
        9 => return Err(format!("`{key}` is a list of lists, which GGUF does not have")),
        other => Value::Integers(all(count, || {
            let item = integer(cursor, other, key)?;
            i64::try_from(item).map_err(|_| format!("`{key}` has the item {item}, which is too large"))
        })?),
    })
}

fn flag(cursor: &mut Cursor, key: &str) -> Result<bool, String> {
    match cursor.bytes()? {
        [0] => Ok(false),
        [1] => Ok(true),
        [other] => Err(format!("`{key}` is neither true nor false, but {other}")),
    }
}

fn integer(cursor: &mut Cursor, kind: u32, key: &str) -> Result<i128, String> {
    Ok(match kind {
        0 => u8::from_le_bytes(cursor.bytes()?).into(),
        1 => i8::from_le_bytes(cursor.bytes()?).into(),
        2 => u16::from_le_bytes(cursor.bytes()?).into(),
        3 => i16::from_le_bytes(cursor.bytes()?).into(),
        4 => u32::from_le_bytes(cursor.bytes()?).into(),
        5 => i32::from_le_bytes(cursor.bytes()?).into(),
        10 => u64::from_le_bytes(cursor.bytes()?).into(),
        11 => i64::from_le_bytes(cursor.bytes()?).into(),
        other => return Err(format!("`{key}` has a value of the kind {other}, which GGUF does not have")),
    })
}
