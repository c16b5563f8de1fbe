//! Runs a program: statements here, expressions in [`evaluate`], calls in [`call`].

mod call;
pub(super) mod evaluate;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::ast::{Filter, For, Macro, Program, Stmt, Target};
use super::budget;
use super::fail::{Fail, Res, error};
use super::looping::Loop;
use super::repr;
use super::text::{Builder, Origin, Text};
use super::value::Value;

/// Deepest nesting of statements, expressions and macro calls. Python ends near 1000 frames, some 100 macro calls deep.
const DEEPEST: usize = 1500;
/// Bytes counted for a macro, a namespace, an attribute or a loop beside its values.
const OVERHEAD: usize = 256;

/// Variables, and those around them.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    variables: RefCell<Vec<(Rc<str>, Value)>>,
    outer: Option<Rc<Scope>>,
}

impl Scope {
    fn within(outer: &Rc<Scope>) -> Rc<Scope> {
        Rc::new(Scope { variables: RefCell::default(), outer: Some(outer.clone()) })
    }

    fn get(&self, name: &str) -> Option<Value> {
        let mut scope = Some(self);
        while let Some(here) = scope {
            if let Some((_, value)) = here.variables.borrow().iter().find(|(found, _)| &**found == name) {
                return Some(value.clone());
            }
            scope = here.outer.as_deref();
        }
        None
    }

    pub(super) fn set(&self, name: &str, value: Value) {
        let mut variables = self.variables.borrow_mut();
        match variables.iter_mut().find(|(found, _)| &**found == name) {
            Some((_, old)) => *old = value,
            None => variables.push((name.into(), value)),
        }
    }
}

/// How a sequence of statements ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

/// A macro at work: what it is in the program, and where it was made.
struct Closure {
    of: usize,
    scope: Rc<Scope>,
}

pub(super) struct Interpreter<'a> {
    program: &'a Program,
    /// The text that is marked wherever the template has it.
    word: &'a str,
    closures: Vec<Closure>,
    namespaces: Vec<Vec<(Rc<str>, Value)>>,
    literals: HashMap<u32, Value>,
    depth: usize,
}

impl<'a> Interpreter<'a> {
    pub(super) fn new(program: &'a Program, word: &'a str) -> Self {
        Interpreter { program, word, closures: Vec::new(), namespaces: Vec::new(), literals: HashMap::new(), depth: 0 }
    }

    /// Renders to at most `limit` bytes.
    pub(super) fn run(mut self, variables: Vec<(String, Value)>, limit: usize) -> Res<Text> {
        let given = Rc::new(Scope::default());
        for (name, value) in variables {
            given.set(&name, value);
        }
        let scope = Scope::within(&given);
        let mut out = Out { text: Builder::default(), limit };
        let program = self.program;
        let flow = self.statements(&program.body, &scope, &mut out);
        // Macros hold on to scopes, which hold the values that name them.
        self.closures.clear();
        flow?;
        Ok(out.text.finish())
    }

    fn deeper<T>(&mut self, work: impl FnOnce(&mut Self) -> Res<T>) -> Res<T> {
        if self.depth >= DEEPEST {
            return Err(Fail::limit(format!("maximum recursion depth exceeded: it nests {DEEPEST} deep")));
        }
        self.depth += 1;
        let done = work(self);
        self.depth -= 1;
        done
    }

    fn statements(&mut self, body: &'a [Stmt], scope: &Rc<Scope>, out: &mut Out) -> Res<Flow> {
        for statement in body {
            budget::work(1)?;
            let flow = self.deeper(|this| this.statement(statement, scope, out))?;
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn statement(&mut self, statement: &'a Stmt, scope: &Rc<Scope>, out: &mut Out) -> Res<Flow> {
        match statement {
            Stmt::Data(text, place) => {
                let text = self.literal(text, *place)?;
                out.put(&text)?;
            }
            Stmt::Output(value) => {
                let value = self.evaluate(value, scope)?;
                let text = self.string(&value)?;
                out.put(&text)?;
            }
            Stmt::For(at) => {
                let program = self.program;
                let of = &program.loops[*at];
                let items = self.evaluate(&of.iter, scope)?;
                return self.walk(*at, of, &items, 0, scope, out).map(|()| Flow::On);
            }
            Stmt::If(branches, otherwise) => {
                for (test, body) in branches {
                    if self.evaluate(test, scope)?.is_true() {
                        return self.statements(body, scope, out);
                    }
                }
                return self.statements(otherwise, scope, out);
            }
            Stmt::Set(target, value) => {
                let value = self.evaluate(value, scope)?;
                self.assign(target, value, scope)?;
            }
            Stmt::SetBlock(target, filters, body) => {
                let text = self.captured(body, &Scope::within(scope))?;
                let value = self.filtered(filters, Value::Text(text), scope)?;
                self.assign(target, value, scope)?;
            }
            Stmt::With(bound, body) => {
                let inner = Scope::within(scope);
                for (target, value) in bound {
                    let value = self.evaluate(value, scope)?;
                    self.assign(target, value, &inner)?;
                }
                return self.statements(body, &inner, out);
            }
            Stmt::Macro(of) => {
                let program = self.program;
                let value = self.closure(*of, scope)?;
                self.bind(&program.macros[*of].name, value, scope)?;
            }
            Stmt::Call(call, of) => {
                let caller = self.closure(*of, scope)?;
                let value = self.call_expression(call, Some(caller), scope)?;
                let text = self.string(&value)?;
                out.put(&text)?;
            }
            Stmt::FilterBlock(filters, body) => {
                let inner = Scope::within(scope);
                let text = self.captured(body, &inner)?;
                let value = self.filtered(filters, Value::Text(text), &inner)?;
                let text = self.string(&value)?;
                out.put(&text)?;
            }
            Stmt::Scope(body) => return self.statements(body, &Scope::within(scope), out),
            Stmt::Break => return Ok(Flow::Break),
            Stmt::Continue => return Ok(Flow::Continue),
            Stmt::Refused(reason) => return error(*reason),
        }
        Ok(Flow::On)
    }

    fn captured(&mut self, body: &'a [Stmt], scope: &Rc<Scope>) -> Res<Text> {
        let mut out = Out { text: Builder::default(), limit: usize::MAX };
        self.statements(body, scope, &mut out)?;
        Ok(out.text.finish())
    }

    fn filtered(&mut self, filters: &'a [Filter], mut value: Value, scope: &Rc<Scope>) -> Res<Value> {
        for filter in filters {
            value = self.apply(filter, value, scope)?;
        }
        Ok(value)
    }

    fn closure(&mut self, of: usize, scope: &Rc<Scope>) -> Res<Value> {
        budget::hold(OVERHEAD)?;
        self.closures.push(Closure { of, scope: scope.clone() });
        Ok(Value::Macro(self.closures.len() - 1))
    }

    fn bind(&mut self, name: &str, value: Value, scope: &Rc<Scope>) -> Res<()> {
        scope.set(name, value);
        Ok(())
    }

    fn assign(&mut self, target: &Target, value: Value, scope: &Rc<Scope>) -> Res<()> {
        match target {
            Target::Name(name) => self.bind(name, value, scope),
            Target::Attribute(name, attribute) => match scope.get(name) {
                Some(Value::Namespace(at)) => self.set_attribute(at, attribute, value),
                _ => error("cannot assign attribute on non-namespace object"),
            },
            Target::Tuple(targets) => {
                if !value.is_iterable() {
                    return error(format!("cannot unpack non-iterable {} object", value.type_name()));
                }
                let values = value.walk()?;
                if values.len() != targets.len() {
                    let (found, wanted) = (values.len(), targets.len());
                    return match found > wanted {
                        true => error(format!("too many values to unpack (expected {wanted})")),
                        false => error(format!("not enough values to unpack (expected {wanted}, got {found})")),
                    };
                }
                for (target, value) in targets.iter().zip(values) {
                    self.assign(target, value, scope)?;
                }
                Ok(())
            }
        }
    }

    fn set_attribute(&mut self, namespace: usize, name: &str, value: Value) -> Res<()> {
        if name.starts_with('_') {
            return error(format!("a namespace cannot have the attribute '{name}', which begins with `_`"));
        }
        let attributes = &mut self.namespaces[namespace];
        match attributes.iter_mut().find(|(found, _)| &**found == name) {
            Some((_, old)) => *old = value,
            None => {
                budget::hold(OVERHEAD + name.len())?;
                attributes.push((name.into(), value));
            }
        }
        Ok(())
    }

    fn walk(
        &mut self,
        at: usize,
        of: &'a For,
        items: &Value,
        depth: usize,
        scope: &Rc<Scope>,
        out: &mut Out,
    ) -> Res<()> {
        let items = items.walk()?;
        let held = OVERHEAD + 2 * items.len() * size_of::<Value>();
        budget::hold(held)?;
        let looped = Rc::new(Loop::new(items, depth, at, scope));
        let done = self.rounds(of, &looped, scope, out);
        looped.end();
        budget::release(held);
        done
    }

    fn rounds(&mut self, of: &'a For, looped: &Rc<Loop>, scope: &Rc<Scope>, out: &mut Out) -> Res<()> {
        for index in 0.. {
            budget::work(1)?;
            self.look(looped, index + 1)?;
            let Some(item) = looped.item(index) else {
                if index == 0 {
                    self.statements(&of.otherwise, &Scope::within(scope), out)?;
                }
                break;
            };
            looped.index.set(index);
            let inner = Scope::within(scope);
            inner.set("loop", Value::Loop(looped.clone()));
            self.assign(&of.target, item, &inner)?;
            if self.statements(&of.body, &inner, out)? == Flow::Break {
                break;
            }
        }
        Ok(())
    }

    /// Tests items of a loop until so many have passed, as late as jinja2 does it: what the body sets may count.
    fn look(&mut self, looped: &Rc<Loop>, wanted: usize) -> Res<()> {
        let program = self.program;
        let of = &program.loops[looped.of];
        while looped.known() < wanted {
            let Some(item) = looped.take() else { break };
            budget::work(1)?;
            let scope = looped.scope.borrow().clone();
            if let (Some(test), Some(scope)) = (&of.test, scope) {
                let inner = Scope::within(&scope);
                self.assign(&of.target, item.clone(), &inner)?;
                if !self.evaluate(test, &inner)?.is_true() {
                    continue;
                }
            }
            looped.pass(item);
        }
        Ok(())
    }

    /// Text of the template's source, with the watched word marked.
    fn literal(&mut self, text: &str, place: u32) -> Res<Text> {
        if let Some(Value::Text(text)) = self.literals.get(&place) {
            return Ok(text.clone());
        }
        let made = Text::with_literals(text, self.word, Origin::Literal(place));
        self.literals.insert(place, Value::Text(made.clone()));
        Ok(made)
    }

    /// Python's `str(value)`, and nothing for an undefined value.
    fn string(&self, value: &Value) -> Res<Text> {
        repr::string(value, &|value, out| self.object(value, out))
    }

    /// Prints a value that lives here.
    fn object(&self, value: &Value, out: &mut Builder) -> Res<()> {
        match value {
            Value::Macro(at) => out.str(&format!("<Macro '{}'>", self.macro_of(*at).name)),
            Value::Namespace(_) => out.str("<Namespace>"),
            Value::Loop(looped) => out.str(&format!("<LoopContext {}/{}>", looped.index.get() + 1, looped.len())),
            other => out.str(&format!("<{} object>", other.type_name())),
        }
    }

    fn macro_of(&self, at: usize) -> &'a Macro {
        &self.program.macros[self.closures[at].of]
    }
}

/// Text on its way out.
struct Out {
    text: Builder,
    limit: usize,
}

impl Out {
    fn put(&mut self, text: &Text) -> Res<()> {
        if self.text.len() + text.as_str().len() > self.limit {
            return Err(Fail::limit(format!("the prompt is longer than {} bytes", self.limit)));
        }
        self.text.text(text)
    }
}

impl Interpreter<'_> {
    /// Python's `repr(value)`.
    pub(super) fn repr(&self, value: &Value) -> Res<Text> {
        let mut out = Builder::default();
        repr::repr(value, &mut out, &|value, out| self.object(value, out))?;
        Ok(out.finish())
    }
}
