//! Options as people and the command line see them: tables of the guides, flags, and the readers of TypeScript.

use super::docs::Docs;
use super::shape::{Field, Form, Shape, Types};
use crate::typescript::{HEADER, WIDTH, property, string};
use crate::words;

/// Groups of options that become flags, by the names of the lists.
const FLAGS: &[(&str, &[&str])] = &[
    ("generationFlags", &["StoppingOptions", "SamplingOptions"]),
    ("scoreFlags", &["ScoreFields"]),
    ("engineFlags", &["EngineOptions"]),
];
/// Options without a flag of this kind: a command makes one request at a time and no file changes under it that it has mapped, `device` has
/// the default of the library, and no answer is scored without one.
const NO_FLAG: &[&str] = &["batch", "prefillChunk", "prefixCache", "device", "answer", "map"];
/// Groups of options that TypeScript reads from what a caller passes.
const RULES: &[(&str, &str)] = &[
    ("stoppingRules", "StoppingOptions"),
    ("samplingRules", "SamplingOptions"),
    ("logprobRules", "LogprobOptions"),
    ("scoreRules", "ScoreFields"),
    ("engineRules", "EngineOptions"),
];

/// The fields of an object.
fn fields(types: &Types, name: &str) -> Result<Vec<Field>, String> {
    match types.get(name).map(|one| &one.form) {
        Some(Form::Object(object)) => Ok(types.fields(object)),
        _ => Err(format!("`{name}` is no object that crosses a door")),
    }
}

/// `ts/generated/flags.ts`.
pub(super) fn flags(types: &Types) -> Result<String, String> {
    let mut text = HEADER.to_owned();
    for (list, groups) in FLAGS {
        text.push_str(&format!("\nexport const {list} = [\n"));
        for group in *groups {
            for field in fields(types, group)?.iter().filter(|field| !NO_FLAG.contains(&field.name.as_str())) {
                text.push_str(&flag(types, field)?);
            }
        }
        text.push_str("] as const;\n");
    }
    Ok(text)
}

fn flag(types: &Types, field: &Field) -> Result<String, String> {
    let (kind, value) = kind(types, field)?;
    let mut parts = vec![("name", string(&dashed(&field.name))), ("type", string(kind))];
    if !value.is_empty() {
        parts.push(("value", string(value)));
    }
    parts.push(("text", string(&help(field, kind))));
    let line = parts.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join(", ");
    let line = format!("  {{ {line} }},\n");
    if line.chars().count() <= WIDTH + 1 {
        return Ok(line);
    }
    let lines: String = parts.iter().map(|(name, value)| property(name, value, "    ")).collect();
    Ok(format!("  {{\n{lines}  }},\n"))
}

/// The type of a flag and the name of its value.
fn kind(types: &Types, field: &Field) -> Result<(&'static str, &'static str), String> {
    match &field.shape {
        Shape::Flag => Ok(("boolean", "")),
        Shape::Whole(..) => Ok(("integer", "N")),
        Shape::Number => Ok(("number", "X")),
        Shape::Text => Ok(("string", "TEXT")),
        Shape::List(inner) if **inner == Shape::Text => Ok(("strings", "TEXT")),
        Shape::Named(name) if name == "ByteSize" => Ok(("bytes", "SIZE")),
        Shape::Named(name) if types.get(name).is_some_and(|one| matches!(one.form, Form::Choice(_))) => {
            Ok(("string", "NAME"))
        }
        _ => Err(format!("`{}` has no form that a flag can have", field.name)),
    }
}

/// The text of a flag in the help.
fn help(field: &Field, kind: &str) -> String {
    let summary = field.docs.text.first().map(String::as_str).unwrap_or_default().trim_end_matches('.');
    let mut letters = summary.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_lowercase).collect();
    let mut text = format!("{first}{}", letters.as_str());
    if kind == "strings" {
        text.push_str("; may be given more than once");
    }
    if let Some(default) = field.docs.default.as_deref().filter(|_| !matches!(kind, "boolean" | "strings")) {
        text.push_str(&format!(" (default: {default})"));
    }
    text.replace('`', "")
}

/// `ts/generated/rules.ts`.
pub(super) fn rules(types: &Types) -> Result<String, String> {
    let mut used = Vec::new();
    let mut lists = String::new();
    for (list, group) in RULES {
        lists.push_str(&format!("\nexport const {list}: RulesFor<{group}> = {{\n"));
        for field in fields(types, group)? {
            lists.push_str(&format!("  {}: {},\n", field.name, rule(types, &field, &mut used)?));
        }
        lists.push_str("};\n");
    }
    used.extend(["type Rule", "type RulesFor"]);
    let mut groups: Vec<&str> = RULES.iter().map(|(_, group)| *group).chain(["Device"]).collect();
    for names in [&mut used, &mut groups] {
        names.sort_unstable_by_key(|name| name.trim_start_matches("type ").to_lowercase());
        names.dedup();
    }
    Ok(format!(
        "{HEADER}import {{ {} }} from \"../options/rules.ts\";\nimport type {{ {} }} from \"./wire.ts\";\n{lists}",
        used.join(", "),
        groups.join(", "),
    ))
}

fn rule(types: &Types, field: &Field, used: &mut Vec<&'static str>) -> Result<String, String> {
    let (name, call) = match &field.shape {
        Shape::Flag => ("flag", "flag".into()),
        Shape::Whole(..) => ("whole", "whole".into()),
        Shape::Number => ("number", "number".into()),
        Shape::Text => ("text", "text".into()),
        Shape::List(inner) if **inner == Shape::Text => {
            used.push("text");
            ("list", "list(text, \"an array of strings\")".into())
        }
        Shape::Named(name) => match (name.as_str(), types.get(name).map(|one| &one.form)) {
            ("ByteSize", _) => ("size", "size".into()),
            (_, Some(Form::Choice(values))) => {
                let values: Vec<String> = values.iter().map(|(value, _)| string(value)).collect();
                ("oneOf", format!("oneOf({})", values.join(", ")))
            }
            // Which texts there are is the engine's to say.
            _ => ("text", format!("text as Rule<{name}>")),
        },
        _ => return Err(format!("`{}` has no form that TypeScript has a rule for", field.name)),
    };
    used.push(name);
    Ok(call)
}

/// Beginnings of a table's mark.
const MARKS: [&str; 4] = ["<!-- options: ", "<!-- flags: ", "<!-- fields: ", "<!-- json: "];

/// A page with the tables between its marks written anew: `<!-- options: NAME ... -->`, `<!-- flags: NAME ... -->`,
/// `<!-- fields: NAME -->` or `<!-- json: NAME -->`, up to `<!-- end -->`.
pub(super) fn fill(types: &Types, page: &str) -> Result<String, String> {
    let mut text = String::new();
    let mut rest = page;
    while let Some(at) = MARKS.iter().filter_map(|mark| rest.find(mark)).min() {
        let (before, marked) = rest.split_at(at);
        let head = marked.find("-->").map(|end| &marked[..end + 3]).ok_or("a mark does not end")?;
        let end = marked.find("<!-- end -->").ok_or_else(|| format!("{head} has no <!-- end -->"))?;
        let mut words = head.trim_start_matches("<!-- ").trim_end_matches(" -->").split_whitespace();
        let kind = words.next().unwrap_or_default();
        let mut listed = Vec::new();
        for group in words {
            listed.extend(fields(types, group)?);
        }
        let table = match kind {
            "options:" => options_table(&listed),
            "flags:" => flags_table(types, &listed)?,
            "json:" => format!("| field | type | meaning |\n| --- | --- | --- |\n{}", json_rows(types, "", &listed)),
            _ => fields_table(&listed),
        };
        text.push_str(&format!("{before}{head}\n\n{table}\n"));
        rest = &marked[end..];
    }
    Ok(text + rest)
}

fn options_table(fields: &[Field]) -> String {
    let row = |Field { name, docs, .. }: &Field| {
        format!("| `{name}` | {} | {} |\n", docs.default.as_deref().unwrap_or("-"), cell(docs))
    };
    format!("| option | default | |\n| --- | --- | --- |\n{}", fields.iter().map(row).collect::<String>())
}

fn flags_table(types: &Types, fields: &[Field]) -> Result<String, String> {
    let mut rows = String::new();
    for field in fields.iter().filter(|field| !NO_FLAG.contains(&field.name.as_str())) {
        let (kind, value) = kind(types, field)?;
        let value = if value.is_empty() { String::new() } else { format!(" {value}") };
        let again = if kind == "strings" { "; may be given more than once" } else { "" };
        let default = match &field.docs.default {
            Some(default) if again.is_empty() && kind != "boolean" => format!("; {default} when not given"),
            _ => again.into(),
        };
        let text = field.docs.text.first().map(String::as_str).unwrap_or_default().trim_end_matches('.');
        rows.push_str(&format!("| `--{}{value}` | {text}{default} |\n", dashed(&field.name)));
    }
    Ok(format!("| flag | meaning |\n| --- | --- |\n{rows}"))
}

fn fields_table(fields: &[Field]) -> String {
    let row = |Field { name, docs, .. }: &Field| format!("| `{name}` | {} |\n", cell(docs));
    format!("| field | |\n| --- | --- |\n{}", fields.iter().map(row).collect::<String>())
}

/// The fields of an object as JSON, those of objects in it with a dot.
fn json_rows(types: &Types, prefix: &str, fields: &[Field]) -> String {
    let row = |field: &Field| {
        let name = format!("{prefix}{}", field.name);
        if let Some(inner) = object(types, &field.shape) {
            return json_rows(types, &format!("{name}."), &inner);
        }
        let optional = if field.optional { ", optional" } else { "" };
        let (kind, made) = (json_type(types, &field.shape), made_of(types, &field.shape));
        format!("| `{name}` | {kind}{optional} | {}{made} |\n", cell(&field.docs))
    };
    fields.iter().map(row).collect()
}

fn object(types: &Types, shape: &Shape) -> Option<Vec<Field>> {
    match shape {
        Shape::Named(name) => fields(types, name).ok(),
        _ => None,
    }
}

/// The values of a text, or the fields of an object that has no rows of its own.
fn made_of(types: &Types, shape: &Shape) -> String {
    let quoted = |names: Vec<&str>| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match shape {
        Shape::List(inner) | Shape::Several(inner, _) | Shape::Nullable(inner) => made_of(types, inner),
        Shape::Named(name) => match types.get(name).map(|one| &one.form) {
            Some(Form::Choice(values)) => {
                format!(" One of {}.", quoted(values.iter().map(|(value, _)| value.as_str()).collect()))
            }
            Some(Form::Object(object)) => {
                let fields = types.fields(object);
                format!(" With {}.", quoted(fields.iter().map(|field| field.name.as_str()).collect()))
            }
            _ => String::new(),
        },
        _ => String::new(),
    }
}

fn json_type(types: &Types, shape: &Shape) -> String {
    match shape {
        Shape::Flag => "boolean".into(),
        Shape::Number => "number".into(),
        Shape::Whole(..) => "integer".into(),
        Shape::List(inner) | Shape::Several(inner, _) => format!("{}[]", json_type(types, inner)),
        Shape::Nullable(inner) => format!("{} or null", json_type(types, inner)),
        Shape::Map(_) | Shape::Unknown => "object".into(),
        shape if object(types, shape).is_some() => "object".into(),
        _ => "string".into(),
    }
}

fn cell(docs: &Docs) -> String {
    words::sentence(&docs.text.join(" ")).replace('|', "\\|")
}

/// The name of a flag.
fn dashed(name: &str) -> String {
    let mut dashed = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() {
            dashed.push('-');
        }
        dashed.extend(letter.to_lowercase());
    }
    dashed
}
