//! Python's `json.dumps`, which transformers' `tojson` is.

use super::budget;
use super::fail::{Res, error};
use super::repr;
use super::text::{Builder, Text};
use super::value::Value;

/// Arguments of `json.dumps` that templates can set.
pub(super) struct Style {
    pub(super) ensure_ascii: bool,
    /// Indentation of each level, on lines of their own; `None`: all on one line.
    pub(super) indent: Option<String>,
    pub(super) item_separator: String,
    pub(super) key_separator: String,
    pub(super) sort_keys: bool,
}

pub(super) fn dumps(value: &Value, style: &Style) -> Res<Text> {
    let mut out = Builder::default();
    write(value, style, 0, &mut out)?;
    Ok(out.finish())
}

fn write(value: &Value, style: &Style, level: usize, out: &mut Builder) -> Res<()> {
    budget::work(1)?;
    match value {
        Value::None => out.str("null"),
        Value::Bool(value) => out.str(if *value { "true" } else { "false" }),
        Value::Int(value) => out.str(&value.to_string()),
        Value::Float(value) => out.str(&float(*value)),
        Value::Text(text) => string(text, style, out),
        Value::List(items) | Value::Tuple(items) => {
            let write_item = |item: &Value, out: &mut Builder| write(item, style, level + 1, out);
            sequence(("[", "]"), items.entries.iter(), write_item, style, level, out)
        }
        Value::Dict(dict) => {
            let mut entries: Vec<(Text, &Value)> = Vec::with_capacity(dict.entries.len());
            for (key, value) in &dict.entries {
                let key = match key {
                    Value::Text(text) => text.clone(),
                    Value::None => Text::plain("null"),
                    Value::Bool(value) => Text::plain(if *value { "true" } else { "false" }),
                    Value::Int(value) => Text::plain(value.to_string()),
                    Value::Float(value) => Text::plain(float(*value)),
                    other => {
                        return error(format!("keys must be str, int, float, bool or None, not {}", other.type_name()));
                    }
                };
                entries.push((key, value));
            }
            if style.sort_keys {
                entries.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
            }
            let write_entry = |(key, item): (Text, &Value), out: &mut Builder| {
                string(&key, style, out)?;
                out.str(&style.key_separator)?;
                write(item, style, level + 1, out)
            };
            sequence(("{", "}"), entries.into_iter(), write_entry, style, level, out)
        }
        other => error(format!("Object of type {} is not JSON serializable", other.type_name())),
    }
}

fn float(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN".to_owned(),
        value if value.is_infinite() => if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        value => repr::float(value),
    }
}

fn sequence<T>(
    (open, close): (&str, &str),
    items: impl ExactSizeIterator<Item = T>,
    mut write_item: impl FnMut(T, &mut Builder) -> Res<()>,
    style: &Style,
    level: usize,
    out: &mut Builder,
) -> Res<()> {
    let empty = items.len() == 0;
    let new_line = |level: usize, out: &mut Builder| match style.indent.as_ref().filter(|_| !empty) {
        Some(indent) => {
            out.str("\n")?;
            (0..level).try_for_each(|_| out.str(indent))
        }
        None => Ok(()),
    };
    out.str(open)?;
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.str(&style.item_separator)?;
        }
        new_line(level + 1, out)?;
        write_item(item, out)?;
    }
    new_line(level, out)?;
    out.str(close)
}

fn string(text: &Text, style: &Style, out: &mut Builder) -> Res<()> {
    budget::rewrite(text.as_str().len())?;
    out.char('"', None)?;
    for (_, c, origin) in text.origins() {
        let escaped = match c {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            '\u{8}' => "\\b",
            '\u{c}' => "\\f",
            c if c < ' ' || (style.ensure_ascii && !(' '..='~').contains(&c)) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    repr::escape(&format!("\\u{unit:04x}"), origin, out)?;
                }
                continue;
            }
            c => {
                out.char(c, origin)?;
                continue;
            }
        };
        repr::escape(escaped, origin, out)?;
    }
    out.char('"', None)
}
