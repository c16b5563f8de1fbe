//! Methods of `str`.

use super::super::arguments::{Arguments, flag, int, needed};
use super::super::budget;
use super::super::fail::{Res, error};
use super::super::format;
use super::super::interpreter::Interpreter;
use super::super::predicates::is_case;
use super::super::text::{Builder, Text};
use super::super::value::Value;
use super::pieces;

pub(super) const NAMES: [&str; 45] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
];

pub(super) fn call(text: &Text, name: &str, arguments: Arguments, interpreter: &mut Interpreter<'_>) -> Res<Value> {
    let source = text.as_str();
    let given = |value: Result<Text, super::super::fail::Fail>| value.map(Value::Text);
    match name {
        "format" => given(format::braces(text, &arguments, interpreter)),
        "format_map" => {
            let [map] = arguments.take(name, ["mapping"])?;
            let Value::Dict(dict) = needed(map, name, "mapping")? else { return error("format_map() needs a mapping") };
            let mut named = Vec::new();
            for (key, value) in &dict.entries {
                named.extend(key.as_str().map(|key| (key.to_owned(), value.clone())));
            }
            given(format::braces(text, &Arguments { positional: Vec::new(), named }, interpreter))
        }
        "capitalize" => arguments.none(name).and_then(|()| given(pieces::capitalize(text))),
        "lower" | "casefold" => arguments
            .none(name)
            .and_then(|()| given(if name == "lower" { pieces::lower(text) } else { casefold(text) })),
        "upper" => arguments.none(name).and_then(|()| given(pieces::upper(text))),
        "swapcase" => arguments.none(name).and_then(|()| {
            given(text.map_chars(|at, c| {
                if c.is_uppercase() { pieces::lowered(source, at, c) } else { c.to_uppercase().collect() }
            }))
        }),
        "title" => arguments.none(name).and_then(|()| {
            let mut in_word = false;
            given(text.map_chars(|at, c| {
                let before = in_word;
                in_word = c.is_lowercase() || c.is_uppercase();
                if before { pieces::lowered(source, at, c) } else { pieces::titled(c) }
            }))
        }),
        "center" | "ljust" | "rjust" => {
            let [width, fill] = arguments.take(name, ["width", "fillchar"])?;
            let width = usize::try_from(int(Some(needed(width, name, "width")?), 0, name)?).unwrap_or(0);
            let fill = match fill {
                None => ' ',
                Some(Value::Text(fill)) if fill.chars() == 1 => fill.as_str().chars().next().unwrap_or(' '),
                Some(_) => return error("The fill character must be exactly one character long"),
            };
            let padding = width.saturating_sub(text.chars());
            let mut out = Builder::default();
            match name {
                "center" => return given(pieces::center(text, width, fill)),
                "ljust" => {
                    out.text(text)?;
                    out.repeat(fill, padding)?;
                }
                _ => {
                    out.repeat(fill, padding)?;
                    out.text(text)?;
                }
            }
            Ok(Value::Text(out.finish()))
        }
        "zfill" => {
            let [width] = arguments.take(name, ["width"])?;
            let width = usize::try_from(int(Some(needed(width, name, "width")?), 0, name)?).unwrap_or(0);
            let sign = usize::from(source.starts_with(['+', '-']));
            let mut out = Builder::default();
            out.slice(text, 0..sign)?;
            out.repeat('0', width.saturating_sub(text.chars()))?;
            out.slice(text, sign..source.len())?;
            Ok(Value::Text(out.finish()))
        }
        "count" | "find" | "index" | "rfind" | "rindex" => search(text, name, arguments),
        "startswith" | "endswith" => {
            let [part, start, end] = arguments.take(name, ["prefix", "start", "end"])?;
            let part = needed(part, name, "prefix")?;
            let Some((from, to)) = bounds(text, start, end, name)? else { return Ok(Value::Bool(false)) };
            let within = &source[from..to];
            let fits = |part: &Value| match part {
                Value::Text(part) => {
                    budget::copy(part.as_str().len())?;
                    Ok(match name {
                        "startswith" => within.starts_with(part.as_str()),
                        _ => within.ends_with(part.as_str()),
                    })
                }
                other => error(format!("{name} first arg must be str or a tuple of str, not {}", other.type_name())),
            };
            match &part {
                Value::Tuple(parts) => {
                    for part in &parts.entries {
                        if fits(part)? {
                            return Ok(Value::Bool(true));
                        }
                    }
                    Ok(Value::Bool(false))
                }
                part => fits(part).map(Value::Bool),
            }
        }
        "expandtabs" => {
            let [size] = arguments.take(name, ["tabsize"])?;
            let size = usize::try_from(int(size, 8, name)?).unwrap_or(0);
            let mut out = Builder::default();
            let mut column = 0;
            budget::rewrite(source.len())?;
            for (_, c, origin) in text.origins() {
                match c {
                    '\t' if size > 0 => {
                        out.repeat(' ', size - column % size)?;
                        column += size - column % size;
                    }
                    '\t' => {}
                    c => {
                        column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
                        out.char(c, origin)?;
                    }
                }
            }
            Ok(Value::Text(out.finish()))
        }
        "join" => {
            let [parts] = arguments.take(name, ["iterable"])?;
            let mut texts = Vec::new();
            for (index, part) in needed(parts, name, "iterable")?.walk()?.into_iter().enumerate() {
                match part {
                    Value::Text(part) => texts.push(part),
                    other => {
                        let found = other.type_name();
                        return error(format!("sequence item {index}: expected str instance, {found} found"));
                    }
                }
            }
            given(pieces::join(text, &texts))
        }
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = arguments.take(name, ["chars"])?;
            let chars = match chars {
                None | Some(Value::None) => None,
                Some(Value::Text(chars)) => Some(chars),
                Some(_) => return error(format!("{name} arg must be None or str")),
            };
            let chars = chars.as_ref().map(Text::as_str);
            given(pieces::strip(text, chars, name != "rstrip", name != "lstrip"))
        }
        "partition" | "rpartition" => {
            let [separator] = arguments.take(name, ["sep"])?;
            let separator = string(needed(separator, name, "sep")?, name)?;
            if separator.as_str().is_empty() {
                return error("empty separator");
            }
            budget::scan(source.len())?;
            let last = name == "rpartition";
            let found = if last { source.rfind(separator.as_str()) } else { source.find(separator.as_str()) };
            let empty = || Value::text("");
            let parts = match found {
                Some(at) => vec![
                    Value::Text(text.slice(0..at)?),
                    Value::Text(text.slice(at..at + separator.as_str().len())?),
                    Value::Text(text.slice(at + separator.as_str().len()..source.len())?),
                ],
                None if last => vec![empty(), empty(), Value::Text(text.clone())],
                None => vec![Value::Text(text.clone()), empty(), empty()],
            };
            Value::tuple(parts)
        }
        "removeprefix" | "removesuffix" => {
            let [part] = arguments.take(name, ["prefix"])?;
            let part = string(needed(part, name, "prefix")?, name)?;
            let end = source.len();
            let kept = match name {
                "removeprefix" => source.strip_prefix(part.as_str()).map(|rest| end - rest.len()..end),
                _ => source.strip_suffix(part.as_str()).map(|rest| 0..rest.len()),
            };
            given(text.slice(kept.unwrap_or(0..end)))
        }
        "replace" => {
            let [old, new, count] = arguments.take(name, ["old", "new", "count"])?;
            let old = string(needed(old, name, "old")?, name)?;
            let new = string(needed(new, name, "new")?, name)?;
            given(pieces::replace(text, old.as_str(), &new, int(count, -1, name)?))
        }
        "split" | "rsplit" => {
            let [separator, most] = arguments.take(name, ["sep", "maxsplit"])?;
            let separator = match separator {
                None | Some(Value::None) => None,
                Some(separator) => Some(string(separator, name)?),
            };
            let separator = separator.as_ref().map(Text::as_str);
            Value::list(pieces::split(text, separator, int(most, -1, name)?, name == "rsplit")?)
        }
        "splitlines" => {
            let [keep] = arguments.take(name, ["keepends"])?;
            Value::list(pieces::lines(text, flag(keep, false))?.into_iter().map(Value::Text).collect())
        }
        "encode" => {
            let [_, _] = arguments.take(name, ["encoding", "errors"])?;
            budget::room(source.len())?;
            Ok(Value::Bytes(source.as_bytes().into()))
        }
        _ => {
            arguments.none(name)?;
            budget::scan(source.len())?;
            is(source, name).map(Value::Bool)
        }
    }
}

fn casefold(text: &Text) -> Res<Text> {
    text.map_chars(|_, c| -> Vec<char> {
        match c {
            'ß' | 'ẞ' => vec!['s', 's'],
            'ς' => vec!['σ'],
            c => c.to_lowercase().collect(),
        }
    })
}

fn string(value: Value, name: &str) -> Res<Text> {
    match value {
        Value::Text(text) => Ok(text),
        other => {
            other.defined()?;
            error(format!("{name}() argument must be str, not {}", other.type_name()))
        }
    }
}

/// The bytes between two characters; None where the first is past the text or the second.
fn bounds(text: &Text, start: Option<Value>, end: Option<Value>, name: &str) -> Res<Option<(usize, usize)>> {
    let length = text.chars() as i64;
    let none = |value: Option<Value>| value.filter(|value| !matches!(value, Value::None));
    let place = |value: i64| if value < 0 { value.saturating_add(length).max(0) } else { value };
    let start = place(int(none(start), 0, name)?);
    let end = place(int(none(end), length, name)?).min(length);
    if start > end {
        return Ok(None);
    }
    budget::copy(text.as_str().len())?;
    Ok(Some((text.byte_of(start as usize), text.byte_of(end as usize))))
}

fn search(text: &Text, name: &str, arguments: Arguments) -> Res<Value> {
    let [part, start, end] = arguments.take(name, ["sub", "start", "end"])?;
    let part = string(needed(part, name, "sub")?, name)?;
    let part = part.as_str();
    budget::scan(text.as_str().len() + part.len())?;
    let within = bounds(text, start, end, name)?;
    if name == "count" {
        return Ok(Value::Int(match within {
            Some((from, to)) if part.is_empty() => text.as_str()[from..to].chars().count() as i64 + 1,
            Some((from, to)) => text.as_str()[from..to].matches(part).count() as i64,
            None => 0,
        }));
    }
    let found = within.and_then(|(from, to)| {
        let within = &text.as_str()[from..to];
        let at = if name.starts_with('r') { within.rfind(part) } else { within.find(part) };
        at.map(|at| text.char_of(from + at) as i64)
    });
    match found {
        Some(at) => Ok(Value::Int(at)),
        None if name.ends_with("index") => error("substring not found"),
        None => Ok(Value::Int(-1)),
    }
}

fn is(text: &str, name: &str) -> Res<bool> {
    let all = |test: fn(char) -> bool| !text.is_empty() && text.chars().all(test);
    Ok(match name {
        "isalnum" => all(char::is_alphanumeric),
        "isalpha" => all(char::is_alphabetic),
        "isascii" => text.is_ascii(),
        "isdecimal" => all(|c| c.is_numeric() && decimal(c)),
        "isdigit" => {
            all(|c| decimal(c) || matches!(c, '²' | '³' | '¹' | '\u{2070}'..='\u{2079}' | '\u{2080}'..='\u{2089}'))
        }
        "isnumeric" => all(char::is_numeric),
        "isspace" => all(pieces::is_space),
        "isprintable" => text.chars().all(super::super::repr::printable),
        "islower" => is_case(text, false),
        "isupper" => is_case(text, true),
        "isidentifier" => {
            let starts = text.chars().next().is_some_and(|c| c == '_' || c.is_alphabetic());
            starts && text.chars().all(|c| c == '_' || c.is_alphanumeric())
        }
        "istitle" => {
            let (mut found, mut in_word) = (false, false);
            for c in text.chars() {
                match (c.is_uppercase(), c.is_lowercase()) {
                    (true, _) if in_word => return Ok(false),
                    (_, true) if !in_word => return Ok(false),
                    (upper, lower) => {
                        in_word = upper || lower;
                        found |= in_word;
                    }
                }
            }
            found
        }
        other => return error(format!("'str' object has no method '{other}'")),
    })
}

/// The ten digits of a script.
fn decimal(c: char) -> bool {
    const ZEROS: [u32; 20] = [
        0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xe50, 0xed0, 0xf20,
        0x1040, 0x17e0, 0x1810, 0xff10,
    ];
    ZEROS.iter().any(|zero| (*zero..*zero + 10).contains(&u32::from(c)))
}
