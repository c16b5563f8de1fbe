//! Calls: of macros, methods, functions, filters and tests.

use std::cell::Cell;
use std::rc::Rc;

use super::super::arguments::{Arguments, int, needed};
use super::super::ast::{self, Expr, Filter};
use super::super::budget;
use super::super::fail::{Fail, Res, error};
use super::super::filters;
use super::super::strftime;
use super::super::text::{Builder, Text};
use super::super::value::{Cycler, Joiner, Range, Value};
use super::super::{methods, predicates};
use super::{Interpreter, OVERHEAD, Out, Scope};

/// Most entries of a `range`, as in jinja2's sandbox.
const MAX_RANGE: usize = 100_000;

/// A function that every template can name.
pub(super) fn global(name: &str) -> Option<Value> {
    let known = ["range", "dict", "namespace", "cycler", "joiner", "raise_exception", "strftime_now"].into_iter();
    known.into_iter().find(|known| *known == name).map(Value::Function)
}

impl<'a> Interpreter<'a> {
    pub(super) fn arguments(&mut self, given: &'a ast::Arguments, scope: &Rc<Scope>) -> Res<Arguments> {
        let mut found = Arguments::default();
        for value in &given.positional {
            found.positional.push(self.evaluate(value, scope)?);
        }
        for (name, value) in &given.named {
            found.named.push((name.clone(), self.evaluate(value, scope)?));
        }
        if let Some(star) = &given.star {
            found.positional.extend(self.evaluate(star, scope)?.walk()?);
        }
        if let Some(star_star) = &given.star_star {
            let Value::Dict(dict) = self.evaluate(star_star, scope)? else {
                return error("argument after ** must be a mapping");
            };
            for (key, value) in &dict.entries {
                let Some(name) = key.as_str() else { return error("keywords must be strings") };
                budget::copy(name.len())?;
                budget::room(name.len())?;
                found.named.push((name.to_owned(), value.clone()));
            }
        }
        Ok(found)
    }

    /// A call, perhaps with the macro that is a call block's body.
    pub(super) fn call_expression(&mut self, call: &'a Expr, caller: Option<Value>, scope: &Rc<Scope>) -> Res<Value> {
        let Expr::Call(of, given) = call else { return error("not a call") };
        let of = self.evaluate(of, scope)?;
        let mut arguments = self.arguments(given, scope)?;
        arguments.named.extend(caller.map(|caller| ("caller".to_owned(), caller)));
        self.call(&of, arguments)
    }

    pub(super) fn call(&mut self, of: &Value, arguments: Arguments) -> Res<Value> {
        of.defined()?;
        match of {
            Value::Macro(at) => self.deeper(|this| this.call_macro(*at, arguments)),
            Value::Method(method) => {
                let (of, name) = &**method;
                match of {
                    Value::Loop(looped) => self.loop_method(looped, name, arguments),
                    Value::Cycler(cycler) => cycler_method(cycler, name),
                    of => methods::call(of, name, arguments, self),
                }
            }
            Value::Function(name) => self.function(name, arguments),
            Value::Joiner(joiner) => {
                arguments.none("joiner")?;
                let first = !joiner.used.replace(true);
                Ok(Value::Text(if first { Text::plain("") } else { joiner.separator.clone() }))
            }
            Value::Loop(looped) => {
                let [items] = arguments.take("loop", ["iterable"])?;
                let items = needed(items, "loop", "iterable")?;
                let (at, scope) = (looped.of, looped.scope.borrow().clone());
                let Some(scope) = scope.filter(|_| self.program.loops[at].recursive) else {
                    return error("the loop must have the 'recursive' marker to be called recursively");
                };
                let program = self.program;
                let mut out = Out { text: Builder::default(), limit: usize::MAX };
                let depth = looped.depth + 1;
                self.deeper(|this| this.walk(at, &program.loops[at], &items, depth, &scope, &mut out))?;
                Ok(Value::Text(out.text.finish()))
            }
            of => error(format!("'{}' object is not callable", of.type_name())),
        }
    }

    fn call_macro(&mut self, at: usize, arguments: Arguments) -> Res<Value> {
        let (of, scope) = (self.macro_of(at), Scope::within(&self.closures[at].scope));
        let Arguments { positional, mut named } = arguments;
        let mut positional = positional.into_iter();
        if of.uses.caller && !of.arguments.iter().any(|(name, _)| name == "caller") {
            let given = named.iter().position(|(name, _)| name == "caller").map(|at| named.remove(at).1);
            scope.set("caller", given.unwrap_or_else(|| Value::undefined("No caller defined")));
        }
        for (name, default) in &of.arguments {
            let given = named.iter().position(|(found, _)| found == name);
            let value = match (positional.next(), given, default) {
                (Some(_), Some(_), _) => {
                    return error(format!("macro '{}' got multiple values for argument '{name}'", of.name));
                }
                (Some(value), None, _) => value,
                (None, Some(at), _) => named.remove(at).1,
                (None, None, Some(default)) => self.evaluate(default, &scope)?,
                (None, None, None) => Value::undefined(format!("parameter '{name}' was not provided")),
            };
            scope.set(name, value);
        }
        let rest: Vec<Value> = positional.collect();
        if of.uses.varargs {
            scope.set("varargs", Value::tuple(rest)?);
        } else if !rest.is_empty() {
            return error(format!("macro '{}' takes not more than {} argument(s)", of.name, of.arguments.len()));
        }
        if of.uses.kwargs {
            scope.set("kwargs", Value::dict(named.into_iter().map(|(name, value)| (Value::text(name), value)))?);
        } else if let Some((name, _)) = named.first() {
            return error(format!("macro '{}' takes no keyword argument '{name}'", of.name));
        }
        self.captured(&of.body, &scope).map(Value::Text)
    }

    fn function(&mut self, name: &str, arguments: Arguments) -> Res<Value> {
        match name {
            "range" => {
                let [first, second, third] = arguments.take("range", ["start", "stop", "step"])?;
                let (start, stop) = match second {
                    Some(stop) => (int(first, 0, "range")?, int(Some(stop), 0, "range")?),
                    None => (0, int(Some(needed(first, "range", "stop")?), 0, "range")?),
                };
                let range = Range { start, stop, step: int(third, 1, "range")? };
                if range.step == 0 {
                    return error("range() arg 3 must not be zero");
                }
                if range.len() > MAX_RANGE {
                    return error(format!(
                        "Range too big. The sandbox blocks ranges larger than MAX_RANGE ({MAX_RANGE})."
                    ));
                }
                Ok(Value::Range(Rc::new(range)))
            }
            "dict" => dict_of(arguments),
            "namespace" => {
                let Value::Dict(dict) = dict_of(arguments)? else { return error("namespace() takes names and values") };
                budget::hold(OVERHEAD)?;
                self.namespaces.push(Vec::new());
                let at = self.namespaces.len() - 1;
                for (name, value) in &dict.entries {
                    let Some(name) = name.as_str() else { return error("attribute names must be strings") };
                    self.set_attribute(at, name, value.clone())?;
                }
                Ok(Value::Namespace(at))
            }
            "cycler" => {
                if arguments.positional.is_empty() || !arguments.named.is_empty() {
                    return error("at least one item has to be provided");
                }
                let Value::Tuple(items) = Value::tuple(arguments.positional)? else { return error("no items") };
                Ok(Value::Cycler(Rc::new(Cycler { items, at: Cell::new(0) })))
            }
            "joiner" => {
                let [separator] = arguments.take("joiner", ["sep"])?;
                let separator = match separator {
                    Some(separator) => self.string(&separator)?,
                    None => Text::plain(", "),
                };
                Ok(Value::Joiner(Rc::new(Joiner { separator, used: Cell::new(false) })))
            }
            "raise_exception" => {
                let [message] = arguments.take("raise_exception", ["message"])?;
                let message = self.string(&needed(message, "raise_exception", "message")?)?;
                Err(Fail::Raised(message.as_str().chars().take(4096).collect()))
            }
            "strftime_now" => {
                let [format] = arguments.take("strftime_now", ["format"])?;
                let format = needed(format, "strftime_now", "format")?;
                let Some(format) = format.as_str() else { return error("strftime_now() takes a string") };
                budget::scan(format.len())?;
                budget::room(format.len().saturating_mul(16))?;
                Ok(Value::text(strftime::now(format)))
            }
            _ => error(format!("'{name}' is undefined")),
        }
    }

    fn loop_method(&mut self, looped: &Rc<super::Loop>, name: &str, arguments: Arguments) -> Res<Value> {
        match name {
            "cycle" => match arguments.positional.len() {
                0 => error("no items for cycling given"),
                count => Ok(arguments.positional[looped.index.get() % count].clone()),
            },
            _ => {
                let now = Value::tuple(arguments.positional)?;
                let before = looped.changed.borrow().clone();
                let same = match before {
                    Some(before) => super::super::compare::equal(&before, &now)?,
                    None => false,
                };
                *looped.changed.borrow_mut() = Some(now);
                Ok(Value::Bool(!same))
            }
        }
    }

    /// A filter with its arguments still to be evaluated.
    pub(super) fn apply(&mut self, filter: &'a Filter, value: Value, scope: &Rc<Scope>) -> Res<Value> {
        let arguments = self.arguments(&filter.arguments, scope)?;
        self.filter(&filter.name, value, arguments)
    }

    pub(in super::super) fn filter(&mut self, name: &str, value: Value, arguments: Arguments) -> Res<Value> {
        self.deeper(|this| filters::call(name, value, arguments, this))
    }

    pub(in super::super) fn test(&mut self, name: &str, value: &Value, arguments: &[Value]) -> Res<bool> {
        predicates::call(name, value, arguments)
    }

    /// Python's `str(value)`.
    pub(in super::super) fn str(&self, value: &Value) -> Res<Text> {
        self.string(value)
    }

    pub(in super::super) fn get_path(&mut self, of: &Value, path: &Value) -> Res<Value> {
        self.path(of, path)
    }

    pub(in super::super) fn get_attribute(&mut self, of: &Value, name: &str) -> Res<Value> {
        self.attribute(of, name)
    }

    pub(in super::super) fn get_item(&mut self, of: &Value, index: &Value) -> Res<Value> {
        self.item(of, index)
    }
}

fn dict_of(arguments: Arguments) -> Res<Value> {
    let Arguments { positional, named } = arguments;
    let mut entries = Vec::new();
    match positional.as_slice() {
        [] => {}
        [Value::Dict(dict)] => entries.extend(dict.entries.iter().cloned()),
        [pairs] => {
            for pair in pairs.walk()? {
                let mut pair = pair.walk()?.into_iter();
                match (pair.next(), pair.next(), pair.next()) {
                    (Some(key), Some(value), None) => entries.push((key, value)),
                    _ => return error("dictionary update sequence elements must have length 2"),
                }
            }
        }
        more => return error(format!("dict expected at most 1 argument, got {}", more.len())),
    }
    entries.extend(named.into_iter().map(|(name, value)| (Value::text(name), value)));
    Value::dict(entries)
}

fn cycler_method(cycler: &Cycler, name: &str) -> Res<Value> {
    match name {
        "next" => {
            let at = cycler.at.get();
            cycler.at.set((at + 1) % cycler.items.entries.len());
            Ok(cycler.items.entries[at].clone())
        }
        _ => {
            cycler.at.set(0);
            Ok(Value::None)
        }
    }
}
