//! Python's `json.dumps`, which transformers' `tojson` is.

use serde_json::Value;

/// Arguments of `json.dumps` that templates can set.
pub(super) struct Style {
    pub(super) ensure_ascii: bool,
    /// Spaces per level, on lines of their own; `None`: all on one line.
    pub(super) indent: Option<usize>,
    pub(super) item_separator: String,
    pub(super) key_separator: String,
    pub(super) sort_keys: bool,
}

pub(super) fn dumps(value: &Value, style: &Style) -> String {
    let mut out = String::new();
    write(value, style, 0, &mut out);
    out
}

fn write(value: &Value, style: &Style, level: usize, out: &mut String) {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => out.push_str(&value.to_string()),
        Value::String(text) => string(text, style, out),
        Value::Array(items) => {
            let write_item = |item: &Value, out: &mut String| write(item, style, level + 1, out);
            sequence(('[', ']'), items.iter(), write_item, style, level, out);
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            if style.sort_keys {
                entries.sort_by_key(|(key, _)| *key);
            }
            let write_entry = |(key, item): (&String, &Value), out: &mut String| {
                string(key, style, out);
                out.push_str(&style.key_separator);
                write(item, style, level + 1, out);
            };
            sequence(('{', '}'), entries.into_iter(), write_entry, style, level, out);
        }
    }
}

fn sequence<T>(
    (open, close): (char, char),
    items: impl ExactSizeIterator<Item = T>,
    mut write_item: impl FnMut(T, &mut String),
    style: &Style,
    level: usize,
    out: &mut String,
) {
    let empty = items.len() == 0;
    let new_line = |level: usize, out: &mut String| {
        if let Some(indent) = style.indent.filter(|_| !empty) {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * level));
        }
    };
    out.push(open);
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push_str(&style.item_separator);
        }
        new_line(level + 1, out);
        write_item(item, out);
    }
    new_line(level, out);
    out.push(close);
}

fn string(text: &str, style: &Style, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' || (style.ensure_ascii && !(' '..='~').contains(&c)) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
