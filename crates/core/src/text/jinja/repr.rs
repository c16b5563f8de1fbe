//! Printed forms of values: Python's `str` and `repr`.

use super::budget;
use super::fail::{Fail, Res};
use super::text::{Builder, Origin, Text};
use super::value::{Value, View};

/// Writes a value that only the interpreter knows.
type Objects<'a> = &'a dyn Fn(&Value, &mut Builder) -> Res<()>;

/// Python's `str(value)`; nothing for an undefined value, as jinja2 has it.
pub(super) fn string(value: &Value, objects: Objects<'_>) -> Res<Text> {
    if let Value::Text(text) = value {
        return Ok(text.clone());
    }
    let mut out = Builder::default();
    if !value.is_undefined() {
        write(value, &mut out, objects)?;
    }
    Ok(out.finish())
}

/// Python's `repr(value)`.
pub(super) fn repr(value: &Value, out: &mut Builder, objects: Objects<'_>) -> Res<()> {
    write(value, out, objects)
}

/// The beginning of a value's `repr`, for messages.
pub(super) fn short(value: &Value) -> String {
    let mut out = Builder::default();
    let plain = |value: &Value, out: &mut Builder| out.str(&format!("<{}>", value.type_name()));
    match write(value, &mut out, &plain) {
        Ok(()) => out.finish().as_str().chars().take(80).collect(),
        Err(_) => format!("a {}", value.type_name()),
    }
}

fn write(value: &Value, out: &mut Builder, objects: Objects<'_>) -> Res<()> {
    budget::work(1)?;
    let sequence = |open: &str, entries: &[Value], close: &str, out: &mut Builder| {
        out.str(open)?;
        for (index, entry) in entries.iter().enumerate() {
            if index > 0 {
                out.str(", ")?;
            }
            write(entry, out, objects)?;
        }
        out.str(close)
    };
    match value {
        Value::Undefined(_) => out.str("Undefined"),
        Value::None => out.str("None"),
        Value::Bool(true) => out.str("True"),
        Value::Bool(false) => out.str("False"),
        Value::Int(value) => out.str(&value.to_string()),
        Value::Float(value) => out.str(&float(*value)),
        Value::Text(text) => quoted(text, out),
        Value::List(items) => sequence("[", &items.entries, "]", out),
        Value::Tuple(items) => {
            let close = if items.entries.len() == 1 { ",)" } else { ")" };
            sequence("(", &items.entries, close, out)
        }
        Value::Dict(dict) => {
            out.str("{")?;
            for (index, (key, value)) in dict.entries.iter().enumerate() {
                if index > 0 {
                    out.str(", ")?;
                }
                write(key, out, objects)?;
                out.str(": ")?;
                write(value, out, objects)?;
            }
            out.str("}")
        }
        Value::View(view, _) => {
            let name = match view {
                View::Keys => "dict_keys([",
                View::Values => "dict_values([",
                View::Items => "dict_items([",
            };
            sequence(name, &value.walk()?, "])", out)
        }
        Value::Range(range) => match range.step {
            1 => out.str(&format!("range({}, {})", range.start, range.stop)),
            step => out.str(&format!("range({}, {}, {step})", range.start, range.stop)),
        },
        Value::Iter(_) => out.str("<generator object>"),
        Value::Bytes(bytes) => {
            budget::room(4 * bytes.len())?;
            let mut text = String::from("b'");
            for byte in bytes.iter() {
                match byte {
                    b'\\' => text.push_str("\\\\"),
                    b'\'' => text.push_str("\\'"),
                    b'\n' => text.push_str("\\n"),
                    b'\r' => text.push_str("\\r"),
                    b'\t' => text.push_str("\\t"),
                    b' '..=b'~' => text.push(char::from(*byte)),
                    byte => text.push_str(&format!("\\x{byte:02x}")),
                }
            }
            text.push('\'');
            out.str(&text)
        }
        other => objects(other, out),
    }
}

fn quoted(text: &Text, out: &mut Builder) -> Res<()> {
    budget::rewrite(text.as_str().len())?;
    let quote = if text.as_str().contains('\'') && !text.as_str().contains('"') { '"' } else { '\'' };
    out.char(quote, None)?;
    for (_, c, origin) in text.origins() {
        let escaped = match c {
            '\\' => "\\\\".to_owned(),
            '\n' => "\\n".to_owned(),
            '\r' => "\\r".to_owned(),
            '\t' => "\\t".to_owned(),
            c if c == quote => format!("\\{c}"),
            c if printable(c) => {
                out.char(c, origin)?;
                continue;
            }
            c if u32::from(c) < 0x100 => format!("\\x{:02x}", u32::from(c)),
            c if u32::from(c) < 0x10000 => format!("\\u{:04x}", u32::from(c)),
            c => format!("\\U{:08x}", u32::from(c)),
        };
        escape(&escaped, origin, out)?;
    }
    out.char(quote, None)
}

/// Text in the place of a character.
pub(super) fn escape(text: &str, origin: Option<Origin>, out: &mut Builder) -> Res<()> {
    text.chars().try_for_each(|c| out.char(c, origin))
}

/// Python's `str.isprintable` of one character, nearly: unassigned code points count as printable here.
pub(super) fn printable(c: char) -> bool {
    let invisible = matches!(c, '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{e000}'..='\u{f8ff}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0001}'..='\u{e007f}' | '\u{f0000}'..='\u{10ffff}');
    c == ' ' || !(c.is_control() || c.is_whitespace() || invisible)
}

/// Python's `repr` of a float.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        return if plain.contains('.') { plain } else { format!("{plain}.0") };
    }
    format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// A message about an integer that does not fit.
pub(super) fn overflow() -> Fail {
    Fail::limit("an integer does not fit 64 bits")
}
