//! Filters of sequences.

use std::collections::HashSet;

use super::super::arguments::{Arguments, flag, int, needed};
use super::super::budget;
use super::super::compare;
use super::super::fail::{Res, error};
use super::super::interpreter::Interpreter;
use super::super::methods::pieces;
use super::super::operators;
use super::super::text::Text;
use super::super::value::Value;
use super::text_of;

pub(super) fn call(name: &str, value: Value, arguments: Arguments, interpreter: &mut Interpreter<'_>) -> Res<Value> {
    match name {
        "list" => arguments.none(name).and_then(|()| Value::list(value.walk()?)),
        "first" | "last" => {
            arguments.none(name)?;
            let mut items = value.walk()?;
            let found = if name == "first" { items.into_iter().next() } else { items.pop() };
            Ok(found.unwrap_or_else(|| Value::undefined(format!("No {name} item, sequence was empty."))))
        }
        "reverse" => {
            arguments.none(name)?;
            if let Value::Text(_) = value {
                return operators::slice(&value, &[Value::None, Value::None, Value::Int(-1)]);
            }
            let mut items = value.walk()?;
            items.reverse();
            Value::iter(items)
        }
        "join" => {
            let [separator, attribute] = arguments.take(name, ["d", "attribute"])?;
            let separator = match separator {
                Some(separator) => text_of(&separator, interpreter)?,
                None => Text::plain(""),
            };
            let mut texts = Vec::new();
            for item in value.walk()? {
                let item = by_attribute(item, attribute.as_ref(), interpreter)?;
                texts.push(text_of(&item, interpreter)?);
            }
            pieces::join(&separator, &texts).map(Value::Text)
        }
        "batch" | "slice" => cut(name, value, arguments),
        "map" => map(value, arguments, interpreter),
        "select" | "reject" | "selectattr" | "rejectattr" => select(name, value, arguments, interpreter),
        "sum" => {
            let [attribute, start] = arguments.take(name, ["attribute", "start"])?;
            let mut total = start.unwrap_or(Value::Int(0));
            for item in value.walk()? {
                let item = by_attribute(item, attribute.as_ref(), interpreter)?;
                if let Value::Text(_) = item {
                    return error("unsupported operand type(s) for +: 'int' and 'str'");
                }
                total = operators::binary(super::super::ast::Operator::Add, &total, &item, interpreter)?;
            }
            Ok(total)
        }
        "max" | "min" => {
            let [case_sensitive, attribute] = arguments.take(name, ["case_sensitive", "attribute"])?;
            let sensitive = flag(case_sensitive, false);
            let mut best: Option<(Value, Value)> = None;
            for item in value.walk()? {
                let key = folded(by_attribute(item.clone(), attribute.as_ref(), interpreter)?, sensitive)?;
                let better = match &best {
                    None => true,
                    Some((other, _)) if name == "max" => compare::less(other, &key, "<")?,
                    Some((other, _)) => compare::less(&key, other, "<")?,
                };
                if better {
                    best = Some((key, item));
                }
            }
            Ok(best.map_or_else(|| Value::undefined("No aggregated item, sequence was empty."), |(_, item)| item))
        }
        "sort" => {
            let [reverse, case_sensitive, attribute] =
                arguments.take(name, ["reverse", "case_sensitive", "attribute"])?;
            let sensitive = flag(case_sensitive, false);
            let mut pairs = Vec::new();
            for item in value.walk()? {
                let mut keys = Vec::new();
                match &attribute {
                    Some(Value::Text(paths)) => {
                        for path in paths.as_str().split(',') {
                            let key = interpreter.get_path(&item, &Value::text(path))?;
                            keys.push(folded(key, sensitive)?);
                        }
                    }
                    other => keys.push(folded(by_attribute(item.clone(), other.as_ref(), interpreter)?, sensitive)?),
                }
                pairs.push((Value::list(keys)?, item));
            }
            Value::list(compare::sort(pairs, flag(reverse, false))?)
        }
        "unique" => {
            let [case_sensitive, attribute] = arguments.take(name, ["case_sensitive", "attribute"])?;
            let sensitive = flag(case_sensitive, false);
            let (mut seen, mut kept) = (HashSet::new(), Vec::new());
            for item in value.walk()? {
                let key = folded(by_attribute(item.clone(), attribute.as_ref(), interpreter)?, sensitive)?;
                budget::room(128 * (seen.len() + 1))?;
                if seen.insert(compare::key(&key)?) {
                    kept.push(item);
                }
            }
            Value::iter(kept)
        }
        "groupby" => {
            let [attribute, default, case_sensitive] =
                arguments.take(name, ["attribute", "default", "case_sensitive"])?;
            let attribute = needed(attribute, name, "attribute")?;
            let sensitive = flag(case_sensitive, false);
            let mut pairs = Vec::new();
            for item in value.walk()? {
                let mut key = interpreter.get_path(&item, &attribute)?;
                if let (Value::Undefined(_), Some(default)) = (&key, &default) {
                    key = default.clone();
                }
                let compared = folded(key.clone(), sensitive)?;
                pairs.push((compared.clone(), Value::tuple(vec![compared, key, item])?));
            }
            let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
            for entry in compare::sort(pairs, false)? {
                let [Some(compared), Some(key), Some(item)] = three(entry.walk()?) else { continue };
                match groups.last_mut() {
                    Some((last, _, items)) if compare::equal(last, &compared)? => items.push(item),
                    _ => groups.push((compared, key, vec![item])),
                }
            }
            let group = |(_, key, items): (Value, Value, Vec<Value>)| Value::tuple(vec![key, Value::list(items)?]);
            Value::list(groups.into_iter().map(group).collect::<Res<_>>()?)
        }
        _ => {
            let [case_sensitive, by, reverse] = arguments.take("dictsort", ["case_sensitive", "by", "reverse"])?;
            let by_value = match by.as_ref().and_then(Value::as_str) {
                None | Some("key") => false,
                Some("value") => true,
                Some(_) => return error("You can only sort by either \"key\" or \"value\""),
            };
            let Value::Dict(dict) = value else { return error("dictsort needs a mapping") };
            let sensitive = flag(case_sensitive, false);
            let mut pairs = Vec::new();
            for (key, value) in &dict.entries {
                let by = if by_value { value } else { key };
                let pair = Value::tuple(vec![key.clone(), value.clone()])?;
                pairs.push((folded(by.clone(), sensitive)?, pair));
            }
            Value::list(compare::sort(pairs, flag(reverse, false))?)
        }
    }
}

fn three(values: Vec<Value>) -> [Option<Value>; 3] {
    let mut values = values.into_iter();
    [values.next(), values.next(), values.next()]
}

fn by_attribute(item: Value, attribute: Option<&Value>, interpreter: &mut Interpreter<'_>) -> Res<Value> {
    match attribute {
        None | Some(Value::None) => Ok(item),
        Some(attribute) => interpreter.get_path(&item, attribute),
    }
}

/// Strings in small letters, unless case counts.
fn folded(value: Value, sensitive: bool) -> Res<Value> {
    match value {
        Value::Text(text) if !sensitive => pieces::lower(&text).map(Value::Text),
        other => Ok(other),
    }
}

fn cut(name: &str, value: Value, arguments: Arguments) -> Res<Value> {
    let [count, fill] = arguments.take(name, ["count", "fill_with"])?;
    let count = usize::try_from(int(Some(needed(count, name, "count")?), 1, name)?).unwrap_or(0);
    let fill = fill.filter(|fill| !matches!(fill, Value::None));
    let items = value.walk()?;
    let mut out = Vec::new();
    if name == "batch" {
        let mut batch = Vec::new();
        for item in items {
            if batch.len() == count && !batch.is_empty() {
                out.push(Value::list(std::mem::take(&mut batch))?);
            }
            batch.push(item);
        }
        if !batch.is_empty() {
            if let Some(fill) = fill.filter(|_| batch.len() < count) {
                budget::work(count)?;
                budget::room(count.saturating_mul(size_of::<Value>()))?;
                batch.resize(count, fill);
            }
            out.push(Value::list(batch)?);
        }
        return Value::iter(out);
    }
    if count == 0 {
        return error("integer division or modulo by zero");
    }
    budget::work(count)?;
    budget::room(count.saturating_mul(160))?;
    let (each, more) = (items.len() / count, items.len() % count);
    let mut rest = items.into_iter();
    for index in 0..count {
        let mut part: Vec<Value> = rest.by_ref().take(each + usize::from(index < more)).collect();
        if index >= more {
            part.extend(fill.clone());
        }
        out.push(Value::list(part)?);
    }
    Value::iter(out)
}

fn map(value: Value, mut arguments: Arguments, interpreter: &mut Interpreter<'_>) -> Res<Value> {
    let mut out = Vec::new();
    if arguments.positional.is_empty() {
        let [attribute, default] = arguments.take("map", ["attribute", "default"])?;
        let Some(attribute) = attribute else { return error("map requires a filter argument") };
        for item in value.walk()? {
            let found = interpreter.get_path(&item, &attribute)?;
            out.push(match (&found, &default) {
                (Value::Undefined(_), Some(default)) => default.clone(),
                _ => found,
            });
        }
        return Value::iter(out);
    }
    let name = arguments.positional.remove(0);
    let Some(name) = name.as_str().map(str::to_owned) else { return error("map requires the name of a filter") };
    for item in value.walk()? {
        budget::work(1 + arguments.positional.len() + arguments.named.len())?;
        let arguments = Arguments { positional: arguments.positional.clone(), named: arguments.named.clone() };
        out.push(interpreter.filter(&name, item, arguments)?);
    }
    Value::iter(out)
}

fn select(name: &str, value: Value, arguments: Arguments, interpreter: &mut Interpreter<'_>) -> Res<Value> {
    let mut given = arguments.positional.into_iter();
    let attribute = match name.ends_with("attr") {
        true => match given.next() {
            Some(attribute) => Some(attribute),
            None => return error("Missing parameter for attribute name"),
        },
        false => None,
    };
    let test = given.next();
    let rest: Vec<Value> = given.collect();
    let mut kept = Vec::new();
    for item in value.walk()? {
        budget::work(1)?;
        let looked_at = by_attribute(item.clone(), attribute.as_ref(), interpreter)?;
        let passes = match &test {
            Some(test) => match test.as_str() {
                Some(test) => interpreter.test(test, &looked_at, &rest)?,
                None => return error("the name of a test must be a string"),
            },
            None => looked_at.is_true(),
        };
        if passes == name.starts_with("select") {
            kept.push(item);
        }
    }
    Value::iter(kept)
}
