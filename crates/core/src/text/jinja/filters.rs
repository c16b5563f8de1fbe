//! The filters of jinja2: those of sequences are in [`sequence`], those of text in [`string`], numbers in [`number`].

mod number;
mod sequence;
mod string;

use super::arguments::{Arguments, flag, int, needed};
use super::fail::{Fail, Res, error};
use super::interpreter::Interpreter;
use super::json;
use super::text::Text;
use super::value::{Value, View};

const NAMES: [&str; 51] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "filesizeformat",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "wordcount",
    "wordwrap",
];

pub(super) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

pub(super) fn call(name: &str, value: Value, arguments: Arguments, interpreter: &mut Interpreter<'_>) -> Res<Value> {
    match name {
        "default" | "d" => {
            let [default, falsy] = arguments.take(name, ["default_value", "boolean"])?;
            let absent = value.is_undefined() || (flag(falsy, false) && !value.is_true());
            Ok(if absent { default.unwrap_or_else(|| Value::text("")) } else { value })
        }
        "length" | "count" => {
            arguments.none(name)?;
            match value.len() {
                Some(length) => Ok(Value::Int(length as i64)),
                None => error(format!("object of type '{}' has no len()", value.type_name())),
            }
        }
        "string" => arguments.none(name).and_then(|()| interpreter.str(&value).map(Value::Text)),
        "pprint" => {
            let [_] = arguments.take(name, ["verbose"])?;
            interpreter.repr(&value).map(Value::Text)
        }
        "safe" => arguments.none(name).map(|()| value),
        "attr" => {
            let [attribute] = arguments.take(name, ["name"])?;
            let attribute = needed(attribute, name, "name")?;
            let attribute = interpreter.str(&attribute)?;
            match value {
                // Keys are no attributes.
                Value::Dict(_) if super::methods::known(&value, attribute.as_str()).is_none() => {
                    Ok(Value::undefined(format!("'dict object' has no attribute '{}'", attribute.as_str())))
                }
                value => interpreter.get_attribute(&value, attribute.as_str()),
            }
        }
        "items" => {
            arguments.none(name)?;
            match value {
                Value::Undefined(_) => Value::iter(Vec::new()),
                Value::Dict(dict) => Value::iter(Value::View(View::Items, dict).walk()?),
                _ => error("Can only get item pairs from a mapping."),
            }
        }
        "tojson" => tojson(&value, arguments, interpreter),
        "abs" | "int" | "float" | "round" | "filesizeformat" => number::call(name, value, arguments, interpreter),
        "batch" | "slice" | "first" | "last" | "list" | "join" | "reverse" | "map" | "select" | "reject"
        | "selectattr" | "rejectattr" | "sum" | "max" | "min" | "sort" | "unique" | "groupby" | "dictsort" => {
            sequence::call(name, value, arguments, interpreter)
        }
        name if is_known(name) => string::call(name, value, arguments, interpreter),
        other => error(format!("no filter named '{}'", other.chars().take(40).collect::<String>())),
    }
}

/// `tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`
fn tojson(value: &Value, arguments: Arguments, interpreter: &mut Interpreter<'_>) -> Res<Value> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let [ensure_ascii, indent, separators, sort_keys] = arguments.take("tojson", names)?;
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Text(text)) if text.as_str().len() <= 64 => Some(text.as_str().to_owned()),
        Some(Value::Text(_)) => return Err(Fail::limit("an indent may have 64 characters")),
        other => Some(" ".repeat(usize::try_from(int(other, 0, "tojson")?).unwrap_or(0).min(64))),
    };
    let mut style = json::Style {
        ensure_ascii: flag(ensure_ascii, false),
        item_separator: if indent.is_some() { "," } else { ", " }.to_owned(),
        indent,
        key_separator: ": ".to_owned(),
        sort_keys: flag(sort_keys, false),
    };
    if let Some(separators) = separators.filter(Value::is_true) {
        let mut each = separators.walk()?.into_iter();
        let mut next = || match each.next() {
            Some(Value::Text(text)) => Ok(text.as_str().to_owned()),
            _ => error("separators must be two strings"),
        };
        (style.item_separator, style.key_separator) = (next()?, next()?);
    }
    let _ = interpreter;
    json::dumps(value, &style).map(Value::Text)
}

/// The text of a value, as filters take it.
fn text_of(value: &Value, interpreter: &Interpreter<'_>) -> Res<Text> {
    interpreter.str(value)
}
