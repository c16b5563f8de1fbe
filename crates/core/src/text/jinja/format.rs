//! Python's two ways to format: `'%5d' % x` and `'{:>5}'.format(x)`.

mod number;
mod spec;

use super::arguments::Arguments;
use super::budget;
use super::fail::{Res, error};
use super::interpreter::Interpreter;
use super::repr;
use super::text::{Builder, Text};
use super::value::Value;
use number::{Style, float};
use spec::Spec;

/// Widest field, in characters; wider ones meet the bound on memory anyway.
const WIDEST: usize = 1 << 24;
/// Most digits after the point.
const PRECISEST: usize = 1000;

/// `text % arguments`
pub(super) fn percent(text: &Text, arguments: &Value, interpreter: &Interpreter<'_>) -> Res<Text> {
    let source = text.as_str();
    budget::scan(source.len())?;
    let mut out = Builder::default();
    let mut given: Box<dyn Iterator<Item = Value>> = match arguments {
        Value::Tuple(items) => Box::new(items.entries.clone().into_iter()),
        other => Box::new(std::iter::once(other.clone())),
    };
    let mut used = matches!(arguments, Value::Dict(_) | Value::List(_));
    let mut at = 0;
    while let Some(found) = source[at..].find('%') {
        out.slice(text, at..at + found)?;
        at += found + 1;
        let mut field = Field { source, at };
        let key = field.key()?;
        let mut spec = Spec { align: Some('>'), ..Spec::default() };
        loop {
            match field.peek() {
                Some('-') => spec.align = Some('<'),
                Some('0') => spec.zero = true,
                Some('+') => spec.sign = '+',
                Some(' ') if spec.sign != '+' => spec.sign = ' ',
                Some(' ') => {}
                Some('#') => spec.alternate = true,
                _ => break,
            }
            field.at += 1;
        }
        let mut next =
            || given.next().ok_or_else(|| super::fail::Fail::error("not enough arguments for format string"));
        if field.eat('*') {
            match next()? {
                Value::Int(width) => {
                    if width < 0 {
                        spec.align = Some('<');
                    }
                    spec.width = limited(width.unsigned_abs() as usize)?;
                }
                _ => return error("* wants int"),
            }
        } else {
            spec.width = limited(field.number().unwrap_or(0))?;
        }
        if field.eat('.') {
            let precision = match field.eat('*') {
                true => match next()? {
                    Value::Int(precision) => usize::try_from(precision).unwrap_or(0),
                    _ => return error("* wants int"),
                },
                false => field.number().unwrap_or(0),
            };
            spec.precision = Some(precision);
        }
        while matches!(field.peek(), Some('h' | 'l' | 'L')) {
            field.at += 1;
        }
        let Some(kind) = field.peek() else { return error("incomplete format") };
        at = field.at + kind.len_utf8();
        if kind == '%' {
            out.str("%")?;
            continue;
        }
        let value = match &key {
            Some(key) => match arguments {
                Value::Dict(dict) => match dict.get_str(key) {
                    Some(value) => value.clone(),
                    None => return error(format!("KeyError: '{key}'")),
                },
                _ => return error("format requires a mapping"),
            },
            None => next()?,
        };
        used |= key.is_some();
        converted(kind, &value, spec, &mut out, interpreter)?;
    }
    out.slice(text, at..source.len())?;
    // A mapping or a list may stay unused; anything else may not.
    let unused = given.next().is_some();
    match unused && (!used || matches!(arguments, Value::Tuple(_))) {
        true => error("not all arguments converted during string formatting"),
        false => Ok(out.finish()),
    }
}

struct Field<'a> {
    source: &'a str,
    at: usize,
}

impl Field<'_> {
    fn peek(&self) -> Option<char> {
        self.source[self.at..].chars().next()
    }

    fn eat(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        if found {
            self.at += c.len_utf8();
        }
        found
    }

    fn number(&mut self) -> Option<usize> {
        let rest = &self.source[self.at..];
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        self.at += digits;
        (digits > 0).then(|| rest[..digits].parse().unwrap_or(usize::MAX))
    }

    fn key(&mut self) -> Res<Option<String>> {
        if !self.eat('(') {
            return Ok(None);
        }
        let rest = &self.source[self.at..];
        let mut depth = 1;
        for (at, c) in rest.char_indices() {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                self.at += at + 1;
                return Ok(Some(rest[..at].to_owned()));
            }
        }
        error("incomplete format key")
    }
}

fn limited(width: usize) -> Res<usize> {
    match width > WIDEST {
        true => Err(super::fail::Fail::limit(format!("a field may be {WIDEST} characters wide"))),
        false => Ok(width),
    }
}

fn converted(kind: char, value: &Value, spec: Spec, out: &mut Builder, interpreter: &Interpreter<'_>) -> Res<()> {
    match kind {
        's' | 'r' | 'a' => {
            let text = match kind {
                's' => interpreter.str(value)?,
                _ => interpreter.repr(value)?,
            };
            let text = if kind == 'a' { ascii(&text)? } else { text };
            spec::text(&text, &Spec { zero: false, ..spec }, out)
        }
        'c' => match value {
            Value::Int(code) => match u32::try_from(*code).ok().and_then(char::from_u32) {
                Some(c) => spec::text(&Text::plain(c), &Spec { zero: false, precision: None, ..spec }, out),
                None => error("%c arg not in range(0x110000)"),
            },
            Value::Text(text) if text.chars() == 1 => {
                spec::text(text, &Spec { zero: false, precision: None, ..spec }, out)
            }
            _ => error("%c requires int or char"),
        },
        'd' | 'i' | 'u' | 'x' | 'X' | 'o' => {
            let whole = matches!(kind, 'd' | 'i' | 'u');
            let number = match value {
                Value::Bool(value) => i128::from(*value),
                Value::Int(value) => i128::from(*value),
                Value::Float(value) if whole && value.is_finite() => value.trunc() as i128,
                other => {
                    other.defined()?;
                    let wanted = if whole { "a real number is required" } else { "an integer is required" };
                    return error(format!("%{kind} format: {wanted}, not {}", other.type_name()));
                }
            };
            let (prefix, mut digits) = number::digits(number.unsigned_abs(), kind, spec.alternate);
            if let Some(precision) = spec.precision {
                if precision > PRECISEST {
                    return Err(super::fail::Fail::limit(format!("a number may have {PRECISEST} digits of precision")));
                }
                digits = format!("{digits:0>precision$}");
            }
            spec::number(number < 0, &prefix, &digits, &spec, out)
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let number = match value {
                Value::Bool(value) => f64::from(*value),
                Value::Int(value) => *value as f64,
                Value::Float(value) => *value,
                other => {
                    other.defined()?;
                    return error(format!("must be real number, not {}", other.type_name()));
                }
            };
            let digits = float(number, Style::of(kind), spec.precision.unwrap_or(6), spec.alternate)?;
            spec::number(number.is_sign_negative() && !number.is_nan(), "", &digits, &spec, out)
        }
        other => error(format!("unsupported format character '{other}'")),
    }
}

/// With everything that is not ASCII escaped.
fn ascii(text: &Text) -> Res<Text> {
    let mut out = Builder::default();
    for (_, c, origin) in text.origins() {
        let code = u32::from(c);
        let escaped = match code {
            0..=0x7f => c.to_string(),
            0x80..=0xff => format!("\\x{code:02x}"),
            0x100..=0xffff => format!("\\u{code:04x}"),
            _ => format!("\\U{code:08x}"),
        };
        repr::escape(&escaped, origin, &mut out)?;
    }
    Ok(out.finish())
}

/// `text.format(...)`
pub(super) fn braces(text: &Text, arguments: &Arguments, interpreter: &mut Interpreter<'_>) -> Res<Text> {
    let mut out = Builder::default();
    let mut automatic = 0;
    fields(text, arguments, interpreter, &mut automatic, 2, &mut out)?;
    Ok(out.finish())
}

fn fields(
    text: &Text,
    arguments: &Arguments,
    interpreter: &mut Interpreter<'_>,
    automatic: &mut usize,
    depth: usize,
    out: &mut Builder,
) -> Res<()> {
    let source = text.as_str();
    budget::scan(source.len())?;
    if depth == 0 {
        return error("Max string recursion exceeded");
    }
    let mut at = 0;
    while let Some(found) = source[at..].find(['{', '}']) {
        out.slice(text, at..at + found)?;
        at += found;
        let rest = &source[at..];
        if rest.starts_with("{{") || rest.starts_with("}}") {
            out.slice(text, at..at + 1)?;
            at += 2;
            continue;
        }
        if rest.starts_with('}') {
            return error("Single '}' encountered in format string");
        }
        let mut open = 0;
        let end = rest.char_indices().find_map(|(place, c)| {
            match c {
                '{' => open += 1,
                '}' => open -= 1,
                _ => {}
            }
            (open == 0).then_some(place)
        });
        let Some(end) = end else { return error("expected '}' before end of string") };
        let field = &rest[1..end];
        let name_end = field.find(['!', ':']).unwrap_or(field.len());
        let (name, tail) = field.split_at(name_end);
        let (conversion, spec_start) = match tail.strip_prefix('!') {
            Some(tail) => {
                let conversion = tail.chars().next();
                let after = conversion.map_or(tail, |c| &tail[c.len_utf8()..]);
                if !(after.is_empty() || after.starts_with(':')) {
                    return error("expected ':' after conversion specifier");
                }
                (conversion, field.len() - after.len())
            }
            None => (None, name_end),
        };
        let mut value = named(name, arguments, interpreter, automatic)?;
        match conversion {
            None => {}
            Some('s') => value = Value::Text(interpreter.str(&value)?),
            Some('r') => value = Value::Text(interpreter.repr(&value)?),
            Some('a') => value = Value::Text(ascii(&interpreter.repr(&value)?)?),
            Some(other) => return error(format!("Unknown conversion specifier {other}")),
        }
        let mut spec = String::new();
        if let Some(raw) = field[spec_start..].strip_prefix(':') {
            spec = match raw.contains(['{', '}']) {
                true => {
                    let mut inner = Builder::default();
                    fields(&Text::plain(raw), arguments, interpreter, automatic, depth - 1, &mut inner)?;
                    inner.finish().as_str().to_owned()
                }
                false => raw.to_owned(),
            };
        }
        spec::formatted(&value, &spec, out, interpreter)?;
        at += end + 1;
    }
    out.slice(text, at..source.len())
}

fn named(name: &str, arguments: &Arguments, interpreter: &mut Interpreter<'_>, automatic: &mut usize) -> Res<Value> {
    let first_end = name.find(['.', '[']).unwrap_or(name.len());
    let (first, mut path) = name.split_at(first_end);
    let positional = match first.parse::<usize>() {
        Ok(index) => Some(index),
        Err(_) if first.is_empty() => {
            *automatic += 1;
            Some(*automatic - 1)
        }
        Err(_) => None,
    };
    let value = match positional {
        Some(index) => arguments.positional.get(index).cloned(),
        None => arguments.named.iter().find(|(found, _)| found == first).map(|(_, value)| value.clone()),
    };
    let mut value = match (value, positional) {
        (Some(value), _) => value,
        (None, Some(index)) => {
            return error(format!("Replacement index {index} out of range for positional args tuple"));
        }
        (None, None) => return error(format!("KeyError: '{}'", first.chars().take(80).collect::<String>())),
    };
    while !path.is_empty() {
        budget::work(1)?;
        if let Some(rest) = path.strip_prefix('.') {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            value = interpreter.get_attribute(&value, &rest[..end])?;
            path = &rest[end..];
        } else if let Some((index, rest)) = path[1..].split_once(']') {
            let index = index.parse().map_or_else(|_| Value::text(index), Value::Int);
            value = interpreter.get_item(&value, &index)?;
            path = rest;
        } else {
            return error("Missing ']' in format string");
        }
        value.defined()?;
    }
    Ok(value)
}
