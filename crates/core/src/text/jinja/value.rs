//! The values of templates, which are those of Python. They cannot be changed once they are made, as in the sandbox of
//! transformers, so a value never contains itself.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

use super::budget;
use super::fail::{Res, error};
use super::looping::Loop;
use super::text::Text;

/// Deepest lists in lists.
const DEEPEST: usize = 128;
/// Bytes counted for a list or dict beside its entries.
const OVERHEAD: usize = 96;
/// Most parts of the tuple that is a key.
const LONGEST_KEY: usize = 10_000;
/// Entries from which a dict has an index.
const INDEXED: usize = 8;

#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// With the message of the error that its use raises.
    Undefined(Rc<str>),
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Text),
    List(Rc<Items>),
    Tuple(Rc<Items>),
    Dict(Rc<Dict>),
    /// `dict.items()` and its like.
    View(View, Rc<Dict>),
    Range(Rc<Range>),
    /// Can be walked once.
    Iter(Rc<Iter>),
    Bytes(Rc<[u8]>),
    Namespace(usize),
    Macro(usize),
    Loop(Rc<Loop>),
    Cycler(Rc<Cycler>),
    Joiner(Rc<Joiner>),
    /// A method and what it is of.
    Method(Rc<(Value, &'static str)>),
    /// A function by its name.
    Function(&'static str),
}

/// The entries of a list or tuple.
#[derive(Debug)]
pub(crate) struct Items {
    pub(super) entries: Vec<Value>,
    depth: usize,
    held: usize,
}

impl Drop for Items {
    fn drop(&mut self) {
        budget::release(self.held);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    Keys,
    Values,
    Items,
}

#[derive(Debug)]
pub(crate) struct Range {
    pub(super) start: i64,
    pub(super) stop: i64,
    pub(super) step: i64,
}

impl Range {
    pub(super) fn len(&self) -> usize {
        let (span, step) = match self.step > 0 {
            true => (i128::from(self.stop) - i128::from(self.start), i128::from(self.step)),
            false => (i128::from(self.start) - i128::from(self.stop), -i128::from(self.step)),
        };
        usize::try_from((span + step - 1) / step).unwrap_or(0)
    }

    pub(super) fn at(&self, index: usize) -> i64 {
        self.start.saturating_add(self.step.saturating_mul(index as i64))
    }
}

#[derive(Debug)]
pub(crate) struct Iter {
    items: Rc<Items>,
    pub(super) walked: Cell<bool>,
}

#[derive(Debug)]
pub(crate) struct Cycler {
    pub(super) items: Rc<Items>,
    pub(super) at: Cell<usize>,
}

#[derive(Debug)]
pub(crate) struct Joiner {
    pub(super) separator: Text,
    pub(super) used: Cell<bool>,
}

/// A dict in the order of insertion.
#[derive(Debug, Default)]
pub(crate) struct Dict {
    pub(super) entries: Vec<(Value, Value)>,
    index: HashMap<Key, usize>,
    depth: usize,
    held: usize,
}

impl Drop for Dict {
    fn drop(&mut self) {
        budget::release(self.held);
    }
}

/// What Python takes as the same key: `1`, `1.0` and `True`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Text(String),
    Int(i64),
    Float(u64),
    Tuple(Vec<Key>),
    Other(String),
}

impl Dict {
    pub(super) fn insert(&mut self, key: Value, value: Value) -> Res<()> {
        budget::work(8)?;
        let index = key.key()?;
        if let Some(at) = self.find(&key, &index)? {
            self.entries[at].1 = value;
        } else {
            let cost = 2 * size_of::<Value>() + 64;
            budget::hold(cost)?;
            self.held += cost;
            self.entries.push((key, value));
            if self.entries.len() == INDEXED {
                for (at, (key, _)) in self.entries.iter().enumerate() {
                    self.index.insert(key.key()?, at);
                }
            } else if self.entries.len() > INDEXED {
                self.index.insert(index, self.entries.len() - 1);
            }
        }
        let depth = self.entries.last().map_or(0, |(key, value)| key.depth().max(value.depth()));
        self.depth = self.depth.max(depth);
        check_depth(self.depth)
    }

    fn find(&self, key: &Value, index: &Key) -> Res<Option<usize>> {
        if self.entries.len() >= INDEXED {
            return Ok(self.index.get(index).copied());
        }
        for (at, (other, _)) in self.entries.iter().enumerate() {
            let same = match (key, other) {
                (Value::Text(a), Value::Text(b)) => a.as_str() == b.as_str(),
                _ => other.key()? == *index,
            };
            if same {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    pub(super) fn get(&self, key: &Value) -> Res<Option<&Value>> {
        let at = self.find(key, &key.key()?)?;
        Ok(at.map(|at| &self.entries[at].1))
    }

    pub(super) fn get_str(&self, name: &str) -> Option<&Value> {
        let is_name = |key: &Value| matches!(key, Value::Text(text) if text.as_str() == name);
        if self.entries.len() >= INDEXED {
            return self.index.get(&Key::Text(name.to_owned())).map(|at| &self.entries[*at].1);
        }
        self.entries.iter().find(|(key, _)| is_name(key)).map(|(_, value)| value)
    }
}

fn check_depth(depth: usize) -> Res<()> {
    match depth >= DEEPEST {
        true => Err(super::fail::Fail::limit(format!("lists may be nested {DEEPEST} deep"))),
        false => Ok(()),
    }
}

impl Value {
    pub(crate) fn text(text: impl Into<String>) -> Value {
        Value::Text(Text::plain(text))
    }

    pub(super) fn undefined(reason: impl Into<String>) -> Value {
        Value::Undefined(reason.into().into())
    }

    fn items(entries: Vec<Value>) -> Res<Rc<Items>> {
        let depth = entries.iter().map(Value::depth).max().unwrap_or(0);
        check_depth(depth)?;
        let held = OVERHEAD + entries.capacity() * size_of::<Value>();
        budget::work(entries.len() / 8)?;
        budget::hold(held)?;
        Ok(Rc::new(Items { entries, depth, held }))
    }

    pub(crate) fn list(entries: Vec<Value>) -> Res<Value> {
        Value::items(entries).map(Value::List)
    }

    pub(super) fn tuple(entries: Vec<Value>) -> Res<Value> {
        Value::items(entries).map(Value::Tuple)
    }

    /// A generator of Python, worked out already.
    pub(super) fn iter(entries: Vec<Value>) -> Res<Value> {
        let items = Value::items(entries)?;
        Ok(Value::Iter(Rc::new(Iter { items, walked: Cell::new(false) })))
    }

    pub(crate) fn dict(entries: impl IntoIterator<Item = (Value, Value)>) -> Res<Value> {
        budget::hold(OVERHEAD)?;
        let mut dict = Dict::default();
        dict.held = OVERHEAD;
        for (key, value) in entries {
            dict.insert(key, value)?;
        }
        Ok(Value::Dict(Rc::new(dict)))
    }

    fn depth(&self) -> usize {
        match self {
            Value::List(items) | Value::Tuple(items) => 1 + items.depth,
            Value::Dict(dict) | Value::View(_, dict) => 1 + dict.depth,
            Value::Iter(iter) => 1 + iter.items.depth,
            Value::Method(method) => 1 + method.0.depth(),
            Value::Cycler(cycler) => 1 + cycler.items.depth,
            Value::Loop(_) => 1,
            _ => 0,
        }
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        if let Value::Text(text) = self { Some(text.as_str()) } else { None }
    }

    pub(super) fn is_undefined(&self) -> bool {
        matches!(self, Value::Undefined(_))
    }

    /// The name of the type in Python.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Value::Undefined(_) => "Undefined",
            Value::None => "NoneType",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Text(_) => "str",
            Value::List(_) => "list",
            Value::Tuple(_) => "tuple",
            Value::Dict(_) => "dict",
            Value::View(View::Keys, _) => "dict_keys",
            Value::View(View::Values, _) => "dict_values",
            Value::View(View::Items, _) => "dict_items",
            Value::Range(_) => "range",
            Value::Iter(_) => "generator",
            Value::Bytes(_) => "bytes",
            Value::Namespace(_) => "Namespace",
            Value::Macro(_) => "Macro",
            Value::Loop(_) => "LoopContext",
            Value::Cycler(_) => "Cycler",
            Value::Joiner(_) => "Joiner",
            Value::Method(_) => "builtin_function_or_method",
            Value::Function(_) => "function",
        }
    }

    /// An error for an undefined value; others pass.
    pub(super) fn defined(&self) -> Res<()> {
        match self {
            Value::Undefined(reason) => error(reason.to_string()),
            _ => Ok(()),
        }
    }

    pub(super) fn is_true(&self) -> bool {
        match self {
            Value::Undefined(_) | Value::None => false,
            Value::Bool(value) => *value,
            Value::Int(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            Value::Text(text) => !text.as_str().is_empty(),
            Value::List(items) | Value::Tuple(items) => !items.entries.is_empty(),
            Value::Dict(dict) | Value::View(_, dict) => !dict.entries.is_empty(),
            Value::Range(range) => range.len() > 0,
            Value::Bytes(bytes) => !bytes.is_empty(),
            Value::Loop(looped) => looped.len() > 0,
            _ => true,
        }
    }

    /// Python's `len`; None where there is none.
    pub(super) fn len(&self) -> Option<usize> {
        match self {
            Value::Undefined(_) => Some(0),
            Value::Text(text) => Some(text.chars()),
            Value::List(items) | Value::Tuple(items) => Some(items.entries.len()),
            Value::Dict(dict) | Value::View(_, dict) => Some(dict.entries.len()),
            Value::Range(range) => Some(range.len()),
            Value::Bytes(bytes) => Some(bytes.len()),
            Value::Loop(looped) => Some(looped.len()),
            _ => None,
        }
    }

    pub(super) fn is_iterable(&self) -> bool {
        self.len().is_some() || matches!(self, Value::Iter(_))
    }

    /// The entries that a `for` walks, in a vector of their own.
    pub(super) fn walk(&self) -> Res<Vec<Value>> {
        let entries = match self {
            Value::Iter(iter) if iter.walked.replace(true) => return Ok(Vec::new()),
            Value::Loop(_) => return error("a loop cannot be walked"),
            Value::Iter(iter) => iter.items.entries.len(),
            other => match other.len() {
                Some(len) => len,
                None => return error(format!("'{}' object is not iterable", other.type_name())),
            },
        };
        budget::work(entries / 4 + 1)?;
        budget::room(entries.saturating_mul(size_of::<Value>()))?;
        Ok(match self {
            Value::Text(text) => {
                budget::room(entries.saturating_mul(128))?;
                let mut all = Vec::with_capacity(entries);
                for (at, c) in text.as_str().char_indices() {
                    all.push(Value::Text(text.slice(at..at + c.len_utf8())?));
                }
                all
            }
            Value::List(items) | Value::Tuple(items) => items.entries.clone(),
            Value::Iter(iter) => iter.items.entries.clone(),
            Value::Dict(dict) => dict.entries.iter().map(|(key, _)| key.clone()).collect(),
            Value::View(view, dict) => {
                let entry = |(key, value): &(Value, Value)| match view {
                    View::Keys => Ok(key.clone()),
                    View::Values => Ok(value.clone()),
                    View::Items => Value::tuple(vec![key.clone(), value.clone()]),
                };
                dict.entries.iter().map(entry).collect::<Res<_>>()?
            }
            Value::Range(range) => (0..entries).map(|index| Value::Int(range.at(index))).collect(),
            Value::Bytes(bytes) => bytes.iter().map(|byte| Value::Int(i64::from(*byte))).collect(),
            _ => Vec::new(),
        })
    }

    /// The key that stands for it in a dict and in `unique`.
    pub(super) fn key(&self) -> Res<Key> {
        self.key_within(&mut 0)
    }

    /// `parts` counts what the key consists of: a tuple that shares its parts can have very many.
    fn key_within(&self, parts: &mut usize) -> Res<Key> {
        *parts += 1;
        if *parts > LONGEST_KEY {
            return Err(super::fail::Fail::limit(format!("a key may have {LONGEST_KEY} parts")));
        }
        Ok(match self {
            Value::Text(text) => {
                budget::copy(text.as_str().len())?;
                budget::room(text.as_str().len())?;
                Key::Text(text.as_str().to_owned())
            }
            Value::Bool(value) => Key::Int(i64::from(*value)),
            Value::Int(value) => Key::Int(*value),
            Value::Float(value) if value.fract() == 0.0 && value.abs() < 9e15 => Key::Int(*value as i64),
            Value::Float(value) => Key::Float(value.to_bits()),
            Value::Tuple(items) => {
                budget::work(items.entries.len() + 1)?;
                Key::Tuple(items.entries.iter().map(|item| item.key_within(parts)).collect::<Res<_>>()?)
            }
            Value::List(_) | Value::Dict(_) => return error(format!("unhashable type: '{}'", self.type_name())),
            Value::None | Value::Undefined(_) => Key::Other(self.type_name().to_owned()),
            Value::Namespace(at) | Value::Macro(at) => Key::Other(format!("{} {at}", self.type_name())),
            Value::Function(name) => Key::Other((*name).to_owned()),
            Value::Range(range) => Key::Other(format!("{range:?}")),
            Value::Bytes(bytes) => Key::Other(format!("{bytes:?}")),
            other => return error(format!("a {} cannot be a key here", other.type_name())),
        })
    }
}
