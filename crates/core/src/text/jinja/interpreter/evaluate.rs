//! Expressions.

use std::rc::Rc;

use super::super::ast::{Comparison, Expr};
use super::super::budget;
use super::super::compare;
use super::super::fail::{Res, error};
use super::super::operators;
use super::super::text::Builder;
use super::super::value::{Value, View};
use super::super::{methods, repr};
use super::{Interpreter, Scope};

impl<'a> Interpreter<'a> {
    pub(super) fn evaluate(&mut self, expression: &'a Expr, scope: &Rc<Scope>) -> Res<Value> {
        budget::work(1)?;
        self.deeper(|this| this.evaluate_here(expression, scope))
    }

    fn evaluate_here(&mut self, expression: &'a Expr, scope: &Rc<Scope>) -> Res<Value> {
        match expression {
            Expr::None => Ok(Value::None),
            Expr::Bool(value) => Ok(Value::Bool(*value)),
            Expr::Int(value) => Ok(Value::Int(*value)),
            Expr::Float(value) => Ok(Value::Float(*value)),
            Expr::Text(text, place) => self.literal(text, *place).map(Value::Text),
            Expr::Name(name, place) => self.name(name, *place, scope),
            Expr::List(items) => Value::list(self.all(items, scope)?),
            Expr::Tuple(items) => Value::tuple(self.all(items, scope)?),
            Expr::Dict(items) => {
                let mut entries = Vec::with_capacity(items.len());
                for (key, value) in items {
                    entries.push((self.evaluate(key, scope)?, self.evaluate(value, scope)?));
                }
                Value::dict(entries)
            }
            Expr::Attribute(of, name) => {
                let of = self.evaluate(of, scope)?;
                self.attribute(&of, name)
            }
            Expr::Item(of, index) => {
                let of = self.evaluate(of, scope)?;
                let index = self.evaluate(index, scope)?;
                self.item(&of, &index)
            }
            Expr::Slice(of, bounds) => {
                let of = self.evaluate(of, scope)?;
                let mut values = [const { Value::None }; 3];
                for (value, bound) in values.iter_mut().zip(bounds.iter()) {
                    if let Some(bound) = bound {
                        *value = self.evaluate(bound, scope)?;
                    }
                }
                operators::slice(&of, &values)
            }
            Expr::Call(..) => self.call_expression(expression, None, scope),
            Expr::Filter(value, filter) => {
                let value = self.evaluate(value, scope)?;
                self.apply(filter, value, scope)
            }
            Expr::Test(value, test) => {
                let value = self.evaluate(value, scope)?;
                let arguments = self.arguments(&test.arguments, scope)?;
                self.test(&test.name, &value, &arguments.positional).map(Value::Bool)
            }
            Expr::Not(value) => Ok(Value::Bool(!self.evaluate(value, scope)?.is_true())),
            Expr::Negative(value) => operators::negative(&self.evaluate(value, scope)?),
            Expr::Positive(value) => operators::positive(self.evaluate(value, scope)?),
            Expr::And(left, right) => {
                let left = self.evaluate(left, scope)?;
                if left.is_true() { self.evaluate(right, scope) } else { Ok(left) }
            }
            Expr::Or(left, right) => {
                let left = self.evaluate(left, scope)?;
                if left.is_true() { Ok(left) } else { self.evaluate(right, scope) }
            }
            Expr::Compare(left, rest) => {
                let mut left = self.evaluate(left, scope)?;
                for (comparison, right) in rest {
                    let right = self.evaluate(right, scope)?;
                    if !compared(*comparison, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            Expr::Binary(operator, left, right) => {
                let left = self.evaluate(left, scope)?;
                let right = self.evaluate(right, scope)?;
                operators::binary(*operator, &left, &right, self)
            }
            Expr::Concat(parts) => {
                let mut out = Builder::default();
                for value in self.all(parts, scope)? {
                    out.text(&self.string(&value)?)?;
                }
                Ok(Value::Text(out.finish()))
            }
            Expr::If(test, value, other) => match (self.evaluate(test, scope)?.is_true(), other) {
                (true, _) => self.evaluate(value, scope),
                (false, Some(other)) => self.evaluate(other, scope),
                (false, None) => {
                    Ok(Value::undefined("the inline if-expression evaluated to false and no else section was defined"))
                }
            },
        }
    }

    fn all(&mut self, expressions: &'a [Expr], scope: &Rc<Scope>) -> Res<Vec<Value>> {
        expressions.iter().map(|expression| self.evaluate(expression, scope)).collect()
    }

    fn name(&mut self, name: &str, place: u32, scope: &Rc<Scope>) -> Res<Value> {
        match scope.get(name) {
            // A variable that holds a placeholder may be written in several places, and where is what counts.
            Some(Value::Text(text)) if text.has_literal() => {
                budget::copy(text.as_str().len())?;
                Ok(Value::Text(text.relabelled(place)))
            }
            Some(value) => Ok(value),
            None => Ok(super::call::global(name).unwrap_or_else(|| Value::undefined(format!("'{name}' is undefined")))),
        }
    }

    /// `of.name`
    pub(super) fn attribute(&mut self, of: &Value, name: &str) -> Res<Value> {
        of.defined()?;
        if let Some(method) = methods::known(of, name) {
            return Ok(Value::Method(Rc::new((of.clone(), method))));
        }
        let found = match of {
            Value::Dict(dict) => dict.get_str(name).cloned(),
            Value::Namespace(at) => {
                self.namespaces[*at].iter().find(|(found, _)| &**found == name).map(|(_, value)| value.clone())
            }
            Value::Loop(looped) => {
                self.look(looped, looped.needs(name))?;
                looped.attribute(name)
            }
            // The pairs of `groupby`.
            Value::Tuple(items) if items.entries.len() == 2 && name == "grouper" => Some(items.entries[0].clone()),
            Value::Tuple(items) if items.entries.len() == 2 && name == "list" => Some(items.entries[1].clone()),
            Value::Cycler(cycler) if name == "current" => cycler.items.entries.get(cycler.at.get()).cloned(),
            Value::Macro(at) => {
                let of = self.macro_of(*at);
                match name {
                    "name" => Some(Value::text(&of.name)),
                    "arguments" => {
                        Some(Value::tuple(of.arguments.iter().map(|(name, _)| Value::text(name)).collect())?)
                    }
                    "catch_kwargs" => Some(Value::Bool(of.uses.kwargs)),
                    "catch_varargs" => Some(Value::Bool(of.uses.varargs)),
                    "caller" => Some(Value::Bool(of.uses.caller)),
                    _ => None,
                }
            }
            Value::Int(value) => match name {
                "real" | "numerator" => Some(Value::Int(*value)),
                "imag" => Some(Value::Int(0)),
                "denominator" => Some(Value::Int(1)),
                _ => None,
            },
            _ => None,
        };
        Ok(found.unwrap_or_else(|| missing(of, name)))
    }

    /// `of[index]`
    pub(super) fn item(&mut self, of: &Value, index: &Value) -> Res<Value> {
        of.defined()?;
        let at = |length: usize| {
            let index = match index {
                Value::Int(index) => *index,
                Value::Bool(index) => i64::from(*index),
                _ => return None,
            };
            let index = if index < 0 { index + length as i64 } else { index };
            usize::try_from(index).ok().filter(|index| *index < length)
        };
        let found = match of {
            Value::Dict(dict) => match index {
                Value::List(_) | Value::Dict(_) | Value::View(..) => None,
                index => dict.get(index)?.cloned(),
            },
            Value::List(items) | Value::Tuple(items) => at(items.entries.len()).map(|at| items.entries[at].clone()),
            Value::Text(text) => match at(text.chars()) {
                Some(at) => {
                    budget::copy(text.as_str().len())?;
                    let start = text.byte_of(at);
                    let length = text.as_str()[start..].chars().next().map_or(0, char::len_utf8);
                    Some(Value::Text(text.slice(start..start + length)?))
                }
                None => None,
            },
            Value::Range(range) => at(range.len()).map(|at| Value::Int(range.at(at))),
            Value::Bytes(bytes) => at(bytes.len()).map(|at| Value::Int(i64::from(bytes[at]))),
            _ => None,
        };
        if let Some(found) = found {
            return Ok(found);
        }
        if let Some(name) = index.as_str() {
            if !matches!(of, Value::Dict(_)) || methods::known(of, name).is_some() {
                return self.attribute(of, name);
            }
            return Ok(missing(of, name));
        }
        let index = repr::short(index);
        Ok(Value::undefined(format!("{} has no element {index}", described(of))))
    }

    /// `of.a.b.0`, as filters take it.
    pub(super) fn path(&mut self, of: &Value, path: &Value) -> Res<Value> {
        let Some(path) = path.as_str() else { return self.item(of, path) };
        let mut value = of.clone();
        for part in path.split('.') {
            budget::work(1)?;
            let index = match part.parse::<i64>() {
                Ok(index) if part.bytes().all(|byte| byte.is_ascii_digit()) => Value::Int(index),
                _ => Value::text(part),
            };
            value = self.item(&value, &index)?;
        }
        Ok(value)
    }
}

fn described(of: &Value) -> String {
    match of {
        Value::None => "None".to_owned(),
        of => format!("'{} object'", of.type_name()),
    }
}

fn missing(of: &Value, name: &str) -> Value {
    let name: String = name.chars().take(80).collect();
    let unsafe_name = match of {
        Value::List(_) => {
            matches!(name.as_str(), "append" | "extend" | "insert" | "pop" | "remove" | "reverse" | "sort" | "clear")
        }
        Value::Dict(_) => matches!(name.as_str(), "pop" | "popitem" | "setdefault" | "update" | "clear"),
        _ => false,
    };
    match unsafe_name {
        true => Value::undefined(format!("access to attribute '{name}' of '{}' object is unsafe", of.type_name())),
        false => Value::undefined(format!("{} has no attribute '{name}'", described(of))),
    }
}

pub(in super::super) fn compared(comparison: Comparison, left: &Value, right: &Value) -> Res<bool> {
    match comparison {
        Comparison::Equal => compare::equal(left, right),
        Comparison::Unequal => compare::equal(left, right).map(|equal| !equal),
        Comparison::Less => compare::less(left, right, "<"),
        Comparison::Greater => compare::less(right, left, ">"),
        Comparison::LessEqual => compare::less_equal(left, right, "<="),
        Comparison::GreaterEqual => compare::less_equal(right, left, ">="),
        Comparison::In => contains(right, left),
        Comparison::NotIn => contains(right, left).map(|found| !found),
    }
}

/// Python's `item in of`.
pub(in super::super) fn contains(of: &Value, item: &Value) -> Res<bool> {
    match of {
        Value::Text(text) => match item.as_str() {
            Some(part) => {
                budget::scan(text.as_str().len() + part.len())?;
                Ok(text.as_str().contains(part))
            }
            None => {
                item.defined()?;
                error(format!("'in <string>' requires string as left operand, not {}", item.type_name()))
            }
        },
        Value::Dict(dict) | Value::View(View::Keys, dict) => dict.get(item).map(|found| found.is_some()),
        of if of.is_iterable() => {
            for other in of.walk()? {
                if compare::equal(&other, item)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        of => error(format!("argument of type '{}' is not iterable", of.type_name())),
    }
}
