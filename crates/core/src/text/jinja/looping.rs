//! The `loop` of a `for`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::interpreter::Scope;
use super::value::Value;

#[derive(Debug)]
pub(crate) struct Loop {
    /// Items that have passed the loop's test so far. Emptied when the loop ends, so that no reference cycle is left.
    items: RefCell<Vec<Value>>,
    /// Items not looked at yet.
    rest: RefCell<std::vec::IntoIter<Value>>,
    pub(super) index: Cell<usize>,
    pub(super) depth: usize,
    pub(super) changed: RefCell<Option<Value>>,
    /// Which loop of the program it is, and where it stands.
    pub(super) of: usize,
    pub(super) scope: RefCell<Option<Rc<Scope>>>,
}

impl Loop {
    pub(super) fn new(items: Vec<Value>, depth: usize, of: usize, scope: &Rc<Scope>) -> Loop {
        Loop {
            items: RefCell::default(),
            rest: RefCell::new(items.into_iter()),
            index: Cell::new(0),
            depth,
            changed: RefCell::new(None),
            of,
            scope: RefCell::new(Some(scope.clone())),
        }
    }

    /// Items in all, those included whose test is not known yet.
    pub(super) fn len(&self) -> usize {
        self.items.borrow().len() + self.rest.borrow().len()
    }

    /// Items whose test is known and passed.
    pub(super) fn known(&self) -> usize {
        self.items.borrow().len()
    }

    pub(super) fn take(&self) -> Option<Value> {
        self.rest.borrow_mut().next()
    }

    pub(super) fn pass(&self, item: Value) {
        self.items.borrow_mut().push(item);
    }

    pub(super) fn item(&self, index: usize) -> Option<Value> {
        self.items.borrow().get(index).cloned()
    }

    pub(super) fn end(&self) {
        self.items.borrow_mut().clear();
        *self.rest.borrow_mut() = Vec::new().into_iter();
        self.changed.borrow_mut().take();
        self.scope.borrow_mut().take();
    }

    /// How many items must be known for an attribute.
    pub(super) fn needs(&self, name: &str) -> usize {
        match name {
            "length" | "revindex" | "revindex0" => usize::MAX,
            "last" | "nextitem" => self.index.get() + 2,
            _ => 0,
        }
    }

    pub(super) fn attribute(&self, name: &str) -> Option<Value> {
        let (index, len) = (self.index.get(), self.known());
        let int = |value: usize| Some(Value::Int(value as i64));
        match name {
            "index" => int(index + 1),
            "index0" => int(index),
            "revindex" => int(len.saturating_sub(index)),
            "revindex0" => int(len.saturating_sub(index + 1)),
            "length" => int(len),
            "depth" => int(self.depth + 1),
            "depth0" => int(self.depth),
            "first" => Some(Value::Bool(index == 0)),
            "last" => Some(Value::Bool(index + 1 >= len)),
            "previtem" => Some(match index.checked_sub(1).and_then(|index| self.item(index)) {
                Some(item) => item,
                None => Value::undefined("there is no previous item"),
            }),
            "nextitem" => Some(self.item(index + 1).unwrap_or_else(|| Value::undefined("there is no next item"))),
            _ => None,
        }
    }
}
