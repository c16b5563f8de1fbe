//! Filters of text.

mod wrap;

use super::super::arguments::{Arguments, flag, int, needed};
use super::super::budget;
use super::super::fail::{Res, error};
use super::super::format;
use super::super::interpreter::Interpreter;
use super::super::methods::pieces;
use super::super::text::{Builder, Text};
use super::super::value::Value;
use super::text_of;

pub(super) fn call(name: &str, value: Value, arguments: Arguments, interpreter: &mut Interpreter<'_>) -> Res<Value> {
    let text = text_of(&value, interpreter)?;
    let source = text.as_str();
    let done = |text: Res<Text>| text.map(Value::Text);
    match name {
        "upper" => arguments.none(name).and_then(|()| done(pieces::upper(&text))),
        "lower" => arguments.none(name).and_then(|()| done(pieces::lower(&text))),
        "capitalize" => arguments.none(name).and_then(|()| done(pieces::capitalize(&text))),
        "title" => arguments.none(name).and_then(|()| {
            let mut starts = true;
            done(text.map_chars(|_, c| -> Vec<char> {
                let here = starts;
                starts = pieces::is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<');
                if here { c.to_uppercase().collect() } else { c.to_lowercase().collect() }
            }))
        }),
        "trim" => {
            let [chars] = arguments.take(name, ["chars"])?;
            let chars = match chars {
                None | Some(Value::None) => None,
                Some(Value::Text(chars)) => Some(chars),
                Some(_) => return error("strip arg must be None or str"),
            };
            done(pieces::strip(&text, chars.as_ref().map(Text::as_str), true, true))
        }
        "replace" => {
            let [old, new, count] = arguments.take(name, ["s", "new", "count"])?;
            let old = text_of(&needed(old, name, "old")?, interpreter)?;
            let new = text_of(&needed(new, name, "new")?, interpreter)?;
            let count = count.filter(|count| !matches!(count, Value::None));
            done(pieces::replace(&text, old.as_str(), &new, int(count, -1, name)?))
        }
        "center" => {
            let [width] = arguments.take(name, ["width"])?;
            let width = usize::try_from(int(width, 80, name)?).unwrap_or(0);
            done(pieces::center(&text, width, ' '))
        }
        "format" => {
            let Arguments { positional, named } = arguments;
            let given = match (positional.is_empty(), named.is_empty()) {
                (false, false) => return error("can't handle positional and keyword arguments at the same time"),
                (_, false) => Value::dict(named.into_iter().map(|(name, value)| (Value::text(name), value)))?,
                _ => Value::tuple(positional)?,
            };
            done(format::percent(&text, &given, interpreter))
        }
        "indent" => {
            let [width, first, blank] = arguments.take(name, ["width", "first", "blank"])?;
            let indention = match width {
                Some(Value::Text(text)) => text,
                width => {
                    let mut out = Builder::default();
                    out.repeat(' ', usize::try_from(int(width, 4, name)?).unwrap_or(0))?;
                    out.finish()
                }
            };
            done(indent(&text, &indention, flag(first, false), flag(blank, false)))
        }
        "truncate" => {
            let [length, kill, end, leeway] = arguments.take(name, ["length", "killwords", "end", "leeway"])?;
            let length = usize::try_from(int(length, 255, name)?).unwrap_or(0);
            let leeway =
                usize::try_from(int(leeway.filter(|leeway| !matches!(leeway, Value::None)), 5, name)?).unwrap_or(0);
            let end = match end {
                Some(end) => text_of(&end, interpreter)?,
                None => Text::plain("..."),
            };
            if length < end.chars() {
                return error(format!("expected length >= {}, got {length}", end.chars()));
            }
            if text.chars() <= length.saturating_add(leeway) {
                return Ok(Value::Text(text));
            }
            let mut cut = text.byte_of(length - end.chars());
            if !flag(kill, false) {
                cut = source[..cut].rfind(' ').unwrap_or(cut);
            }
            let mut out = Builder::default();
            out.slice(&text, 0..cut)?;
            out.text(&end)?;
            Ok(Value::Text(out.finish()))
        }
        "wordcount" => {
            arguments.none(name)?;
            budget::scan(source.len())?;
            let words = source.split(|c: char| !(c == '_' || c.is_alphanumeric())).filter(|word| !word.is_empty());
            Ok(Value::Int(words.count() as i64))
        }
        "wordwrap" => {
            let names = ["width", "break_long_words", "wrapstring", "break_on_hyphens"];
            let [width, long, separator, hyphens] = arguments.take(name, names)?;
            let width = usize::try_from(int(width, 79, name)?).unwrap_or(0);
            let separator = match separator.filter(|separator| !matches!(separator, Value::None)) {
                Some(separator) => text_of(&separator, interpreter)?,
                None => Text::plain("\n"),
            };
            if width == 0 {
                return error("invalid width 0 (must be > 0)");
            }
            done(wrap::wordwrap(&text, width, flag(long, true), flag(hyphens, true), &separator))
        }
        "e" | "escape" | "forceescape" => {
            arguments.none(name)?;
            budget::rewrite(source.len())?;
            let mut out = Builder::default();
            for (_, c, origin) in text.origins() {
                let escaped = match c {
                    '&' => "&amp;",
                    '<' => "&lt;",
                    '>' => "&gt;",
                    '\'' => "&#39;",
                    '"' => "&#34;",
                    c => {
                        out.char(c, origin)?;
                        continue;
                    }
                };
                super::super::repr::escape(escaped, origin, &mut out)?;
            }
            Ok(Value::Text(out.finish()))
        }
        "striptags" => {
            arguments.none(name)?;
            budget::scan(source.len())?;
            done(strip_tags(&text))
        }
        "urlencode" => {
            arguments.none(name)?;
            match &value {
                Value::Dict(_) | Value::List(_) | Value::Tuple(_) | Value::Iter(_) => {
                    let pairs = match &value {
                        Value::Dict(dict) => Value::View(super::View::Items, dict.clone()).walk()?,
                        other => other.walk()?,
                    };
                    let mut out = Builder::default();
                    for (index, pair) in pairs.into_iter().enumerate() {
                        let pair = pair.walk()?;
                        let [key, value] = pair.as_slice() else { return error("urlencode needs pairs") };
                        if index > 0 {
                            out.str("&")?;
                        }
                        percent_encoded(&text_of(key, interpreter)?, true, &mut out)?;
                        out.str("=")?;
                        percent_encoded(&text_of(value, interpreter)?, true, &mut out)?;
                    }
                    Ok(Value::Text(out.finish()))
                }
                _ => {
                    let mut out = Builder::default();
                    percent_encoded(&text, false, &mut out)?;
                    Ok(Value::Text(out.finish()))
                }
            }
        }
        other => error(format!("no filter named '{other}'")),
    }
}

fn indent(text: &Text, indention: &Text, first: bool, blank: bool) -> Res<Text> {
    // As in jinja2, one more line end makes the last line count.
    let mut ended = Builder::default();
    ended.text(text)?;
    ended.str("\n")?;
    let lines = pieces::lines(&ended.finish(), false)?;
    let mut out = Builder::default();
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            out.str("\n")?;
        }
        if (index == 0 && first) || (index > 0 && (blank || !line.as_str().is_empty())) {
            out.text(indention)?;
        }
        out.text(line)?;
    }
    Ok(out.finish())
}

/// Without comments and tags, and with single spaces.
fn strip_tags(text: &Text) -> Res<Text> {
    let mut out = Builder::default();
    let source = text.as_str();
    let mut at = 0;
    while at < source.len() {
        let rest = &source[at..];
        if rest.starts_with("<!--")
            && let Some(end) = rest.find("-->")
        {
            at += end + 3;
        } else if rest.starts_with('<')
            && let Some(end) = rest.find('>')
        {
            budget::scan(end)?;
            at += end + 1;
        } else {
            let length = rest[1..].find('<').map_or(rest.len(), |next| next + 1);
            let length = if rest.is_char_boundary(length) { length } else { rest.len() };
            if rest.starts_with('<') {
                // It never ends, nor does any after it.
                budget::scan(rest.len())?;
            }
            out.slice(text, at..at + length)?;
            at += length;
        }
    }
    let words = pieces::split(&out.finish(), None, -1, false)?;
    let words: Vec<Text> =
        words.into_iter().filter_map(|word| if let Value::Text(word) = word { Some(word) } else { None }).collect();
    pieces::join(&Text::plain(" "), &words)
}

fn percent_encoded(text: &Text, form: bool, out: &mut Builder) -> Res<()> {
    budget::rewrite(4 * text.as_str().len())?;
    for byte in text.as_str().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => out.char(char::from(byte), None)?,
            b'/' if !form => out.char('/', None)?,
            b' ' if form => out.char('+', None)?,
            byte => out.str(&format!("%{byte:02X}"))?,
        }
    }
    Ok(())
}
