//! The Jinja environment of transformers, on minijinja.

use std::error::Error as _;
use std::fmt;
use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value, ValueKind, from_args};
use minijinja::{AutoEscape, Environment, ErrorKind, State};
use minijinja_contrib::pycompat;

use super::{generation, json, large_stack, limits, strftime};
use crate::{Error, Result};

const NAME: &str = "chat_template";
/// Longest template, in bytes; real ones have up to some ten thousand. Low because minijinja's time to compile a chain
/// of operators is quadratic.
const MAX_SOURCE: usize = 64 << 10;
/// Template instructions of one rendering. A message takes some dozens.
const FUEL: u64 = 500_000;
/// minijinja's units; a macro call costs about ten.
const RECURSION: usize = 300;

/// An environment with the template compiled.
pub(super) fn environment(source: &str) -> Result<Environment<'static>> {
    if source.len() > MAX_SOURCE {
        let reason = format!("the chat template has {} bytes; at most {MAX_SOURCE} are allowed", source.len());
        return Err(Error::Prompt { reason });
    }
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(prompt_error)?;
    environment.set_syntax(syntax);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION);
    environment.set_unknown_method_callback(method);
    limits::set(&mut environment);
    environment.add_filter("tojson", tojson);
    // Quadratic in the depth of a value, and no use to a prompt.
    environment.remove_filter("pprint");
    environment.remove_global("debug");
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", |format: &str| strftime::now(format));
    // A long chain such as `a.b.b.b` becomes a tree as deep, which minijinja compiles and drops by recursion.
    large_stack::run(move || {
        environment.add_template_owned(NAME, generation::rewrite(source)).map_err(prompt_error)?;
        Ok(environment)
    })
}

/// Renders to at most `limit` bytes.
pub(super) fn render(environment: &Environment<'_>, context: serde_json::Value, limit: usize) -> Result<String> {
    // Fuel allows values nested some ten thousand levels deep, and minijinja prints and drops them by recursion.
    large_stack::run(|| render_here(environment, context, limit))
}

fn render_here(environment: &Environment<'_>, context: serde_json::Value, limit: usize) -> Result<String> {
    let template = environment.get_template(NAME).map_err(prompt_error)?;
    let mut out = Limited { bytes: Vec::new(), limit };
    template.render_captured_to(Value::from(Serde(context)), &mut out).map_err(prompt_error)?;
    String::from_utf8(out.bytes).map_err(|error| Error::Internal(format!("the chat template's output: {error}")))
}

/// A message that the template itself gives, through `raise_exception`.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

fn raise_exception(message: &Value) -> std::result::Result<Value, minijinja::Error> {
    let raised = Raised(message.to_string());
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(raised))
}

fn prompt_error(error: minijinja::Error) -> Error {
    let mut cause = error.source();
    let mut causes = String::new();
    while let Some(source) = cause {
        if let Some(Raised(message)) = source.downcast_ref() {
            return Error::Prompt { reason: message.clone() };
        }
        causes += &format!(": {source}");
        cause = source.source();
    }
    Error::Prompt { reason: format!("the chat template fails: {error}{causes}") }
}

/// Python methods; first those that minijinja's own list lacks, or has otherwise.
fn method(
    state: &mut State,
    value: &Value,
    name: &str,
    args: &[Value],
) -> std::result::Result<Value, minijinja::Error> {
    match (value.as_str(), name) {
        (Some(text), "removeprefix") => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        (Some(text), "removesuffix") => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        (Some(text), "title") => {
            let () = from_args(args)?;
            Ok(Value::from(title(text)))
        }
        _ => pycompat::unknown_method_callback(state, value, name, args),
    }
}

/// As Python has it, a letter is capital after anything that is not a letter; minijinja wants a space.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_word = false;
    for c in text.chars() {
        if in_word {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        in_word = c.is_alphabetic();
    }
    out
}

/// `tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`
fn tojson(value: &Value, positional: &[Value], named: Kwargs) -> std::result::Result<Value, minijinja::Error> {
    limits::check(value)?;
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    if positional.len() > names.len() {
        return Err(minijinja::Error::from(ErrorKind::TooManyArguments));
    }
    let mut values = [const { Value::UNDEFINED }; 4];
    for (index, name) in names.into_iter().enumerate() {
        values[index] = match positional.get(index) {
            Some(value) => value.clone(),
            None => named.get::<Option<Value>>(name)?.unwrap_or_default(),
        };
    }
    named.assert_all_used()?;
    let [ensure_ascii, indent, separators, sort_keys] = values;
    let indent = match indent.kind() {
        ValueKind::Undefined | ValueKind::None => None,
        _ => Some(usize::try_from(indent)?.min(64)),
    };
    let mut style = json::Style {
        ensure_ascii: ensure_ascii.is_true(),
        indent,
        item_separator: if indent.is_some() { "," } else { ", " }.to_owned(),
        key_separator: ": ".to_owned(),
        sort_keys: sort_keys.is_true(),
    };
    if separators.is_true() {
        style.item_separator = separators.get_item_by_index(0)?.to_string();
        style.key_separator = separators.get_item_by_index(1)?.to_string();
    }
    let plain = serde_json::to_value(value)
        .map_err(|error| minijinja::Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    Ok(Value::from(json::dumps(&plain, &style)))
}

struct Limited {
    bytes: Vec<u8>,
    limit: usize,
}

impl io::Write for &mut Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.limit {
            return Err(io::Error::other(format!("the prompt is longer than {} bytes", self.limit)));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
