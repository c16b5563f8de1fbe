//! The TypeScript of wire types, in the format of the repository's formatter.

use std::collections::HashSet;

use serde_json::Value;

use super::docs::Docs;
use super::shape::{Field, Form, Object, Shape, Type, Types};
use crate::typescript::{WIDTH, string, wrapped};

const HEADER: &str = "// Written by `cargo xtask gen` from the types of crates/core; edit those instead.\n";

/// `ts/generated/wire.ts`. Lists of `inputs` are readonly.
pub(super) fn types(types: &Types, inputs: &HashSet<String>) -> Result<String, String> {
    let mut text = HEADER.to_owned();
    for one in &types.list {
        text.push('\n');
        text.push_str(
            &declaration(one, inputs.contains(&one.name)).map_err(|reason| format!("{}: {reason}", one.name))?,
        );
    }
    Ok(text)
}

fn declaration(one: &Type, input: bool) -> Result<String, String> {
    let Type { name, docs, form } = one;
    let choices = if let Form::Choice(values) = form { values.as_slice() } else { &[] };
    let comment = comment(docs, choices, "");
    let value = match form {
        Form::Object(object) => return Ok(comment + &interface(name, object, input)),
        Form::Choice(values) => values.iter().map(|(value, _)| string(value)).collect(),
        Form::Union(shapes) => shapes.iter().map(|shape| typed(shape, input)).collect(),
        Form::Alias(shape) => vec![typed(shape, input)],
        Form::Opaque => match (&docs.typescript, &docs.schema) {
            (Some(text), _) => text.lines().map(|line| line.trim_start_matches("| ").to_owned()).collect(),
            (None, Some(schema)) => vec![of_schema(schema)?],
            (None, None) => return Err("its doc comment has no `json` with its schema".into()),
        },
    };
    Ok(comment + &alias(name, &value))
}

/// A type by a name; members that do not fit one line go to lines of their own.
fn alias(name: &str, members: &[String]) -> String {
    let line = format!("export type {name} = {};\n", members.join(" | "));
    match line.chars().count() > WIDTH + 1 {
        true => {
            let members: String = members.iter().map(|member| format!("\n  | {member}")).collect();
            format!("export type {name} ={members};\n")
        }
        false => line,
    }
}

fn interface(name: &str, object: &Object, input: bool) -> String {
    let base = |(name, partial): &(String, bool)| if *partial { format!("Partial<{name}>") } else { name.clone() };
    let bases: Vec<String> = object.bases.iter().map(base).collect();
    let extends = if bases.is_empty() { String::new() } else { format!(" extends {}", bases.join(", ")) };
    let fields: String = object.fields.iter().map(|field| property(field, input)).collect();
    match fields.is_empty() {
        true => format!("export interface {name}{extends} {{}}\n"),
        false => format!("export interface {name}{extends} {{\n{fields}}}\n"),
    }
}

fn property(field: &Field, input: bool) -> String {
    let mark = if field.optional { "?" } else { "" };
    format!("{}  {}{mark}: {};\n", comment(&field.docs, &[], "  "), field.name, typed(&field.shape, input))
}

fn typed(shape: &Shape, input: bool) -> String {
    let read_only = if input { "readonly " } else { "" };
    match shape {
        Shape::Text => "string".into(),
        Shape::Flag => "boolean".into(),
        Shape::Number | Shape::Whole(..) => "number".into(),
        Shape::Unknown => "unknown".into(),
        Shape::Constant(text) => string(text),
        Shape::Named(name) => name.clone(),
        Shape::Map(inner) => format!("Record<string, {}>", typed(inner, input)),
        Shape::Nullable(inner) => format!("{} | null", typed(inner, input)),
        Shape::List(inner) => match typed(inner, input) {
            item if item.contains(' ') => format!("{read_only}({item})[]"),
            item => format!("{read_only}{item}[]"),
        },
        Shape::Several(inner, length) => {
            format!("{read_only}[{}]", vec![typed(inner, input); *length].join(", "))
        }
    }
}

/// The TypeScript of a small schema.
fn of_schema(schema: &Value) -> Result<String, String> {
    if let Some(any) = schema["anyOf"].as_array() {
        return any.iter().map(of_schema).collect::<Result<Vec<_>, _>>().map(|members| members.join(" | "));
    }
    if let Some(values) = schema["enum"].as_array() {
        return Ok(values
            .iter()
            .map(|value| string(value.as_str().unwrap_or_default()))
            .collect::<Vec<_>>()
            .join(" | "));
    }
    match schema["type"].as_str() {
        Some("string") => Ok("string".into()),
        Some("number" | "integer") => Ok("number".into()),
        Some("boolean") => Ok("boolean".into()),
        _ => Err("its schema says too little for TypeScript; add a `typescript` block".into()),
    }
}

/// A doc comment, on one line where it fits.
fn comment(docs: &Docs, choices: &[(String, Docs)], indent: &str) -> String {
    let mut paragraphs: Vec<String> = docs.text.clone();
    paragraphs.extend(docs.default.iter().map(|default| format!("Default: {default}.")));
    let choices: Vec<String> =
        choices.iter().map(|(value, docs)| format!("- `{}`: {}", string(value), docs.text.join(" "))).collect();
    if paragraphs.is_empty() && choices.is_empty() && docs.example.is_none() {
        return String::new();
    }
    if let ([one], [], None) = (paragraphs.as_slice(), choices.as_slice(), &docs.example) {
        let line = format!("{indent}/** {one} */\n");
        if line.chars().count() <= WIDTH + 1 {
            return line;
        }
    }
    let prefix = format!("{indent} * ");
    let mut parts: Vec<String> = paragraphs.iter().map(|paragraph| wrapped(paragraph, &prefix)).collect();
    if !choices.is_empty() {
        parts.push(choices.iter().map(|choice| wrapped(choice, &prefix)).collect());
    }
    if let Some(example) = &docs.example {
        let lines: String =
            example.lines().map(|line| format!("{indent} * {line}\n").replace(" * \n", " *\n")).collect();
        parts.push(format!("{indent} * @example\n{indent} * ```ts\n{lines}{indent} * ```\n"));
    }
    format!("{indent}/**\n{}{indent} */\n", parts.join(&format!("{indent} *\n")))
}
