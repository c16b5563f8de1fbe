//! Limits on lists. Fuel counts instructions, and one instruction can make or walk a list of a hundred million entries.

use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, State, Value, escape_formatter, filters};

/// Most entries of a list that is printed or copied.
const MOST: usize = 1 << 17;

/// Puts limits on printing, and on the filters that copy a list or make many.
pub(super) fn set(environment: &mut Environment<'_>) {
    environment.set_formatter(|out, state, value| {
        check(value)?;
        escape_formatter(out, state, value)
    });
    environment.add_filter("list", |state: &State, value: Value| {
        check(&value)?;
        filters::list(state, value)
    });
    environment.add_filter("slice", |state: &State, value: Value, count: usize, fill: Option<Value>| {
        check(&value)?;
        within(count)?;
        filters::slice(state, value, count, fill)
    });
    environment.add_filter("batch", |state: &State, value: Value, count: usize, fill: Option<Value>| {
        check(&value)?;
        within(count)?;
        filters::batch(state, value, count, fill)
    });
}

/// Refuses a value with too many entries in all, those of its lists included.
pub(super) fn check(value: &Value) -> Result<(), Error> {
    count(value, &mut 0)
}

fn count(value: &Value, seen: &mut usize) -> Result<(), Error> {
    match value.kind() {
        // Walking one may use it up; its length says enough.
        ValueKind::Iterable => within(value.len().unwrap_or_default().saturating_add(*seen)),
        ValueKind::Seq => {
            within(value.len().unwrap_or_default().saturating_add(*seen))?;
            for entry in value.try_iter()? {
                *seen += 1;
                within(*seen)?;
                count(&entry, seen)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn within(entries: usize) -> Result<(), Error> {
    match entries > MOST {
        true => {
            Err(Error::new(ErrorKind::InvalidOperation, format!("a list may have {MOST} entries, found {entries}")))
        }
        false => Ok(()),
    }
}
