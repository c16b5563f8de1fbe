//! The JSON schema of wire types, for callers in any language.

use serde_json::{Map, Value, json};

use super::docs::Docs;
use super::shape::{Form, Shape, Type, Types};

/// `docs/schema/wire.schema.json`.
pub(super) fn document(types: &Types) -> Result<String, String> {
    let mut definitions = Map::new();
    for one in &types.list {
        definitions.insert(one.name.clone(), definition(types, one)?);
    }
    let document = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "prefixkv: what crosses a door",
        "description": "Written by `cargo xtask gen` from the types of crates/core; edit those instead. Events may get more fields and kinds \
                        in later versions; requests have no others than these.",
        "$defs": definitions,
    });
    let text = serde_json::to_string_pretty(&document).map_err(|error| error.to_string())?;
    Ok(text + "\n")
}

fn definition(types: &Types, one: &Type) -> Result<Value, String> {
    let schema = match &one.form {
        Form::Object(object) => {
            let fields = types.fields(object);
            let properties: Map<String, Value> =
                fields.iter().map(|field| (field.name.clone(), described(of(&field.shape), &field.docs))).collect();
            let required: Vec<&String> =
                fields.iter().filter(|field| !field.optional).map(|field| &field.name).collect();
            let mut schema = json!({ "type": "object", "properties": properties });
            if !required.is_empty() {
                schema["required"] = json!(required);
            }
            schema
        }
        Form::Choice(values) => json!({ "enum": values.iter().map(|(value, _)| value).collect::<Vec<_>>() }),
        Form::Union(shapes) => json!({ "anyOf": shapes.iter().map(of).collect::<Vec<_>>() }),
        Form::Alias(shape) => of(shape),
        Form::Opaque => one
            .docs
            .schema
            .clone()
            .ok_or_else(|| format!("{}: its doc comment has no `json` with its schema", one.name))?,
    };
    Ok(described(schema, &one.docs))
}

/// A schema with its description in front.
fn described(schema: Value, docs: &Docs) -> Value {
    let text = docs.text.join(" ");
    let Value::Object(schema) = schema else { return schema };
    let mut all = Map::new();
    if !text.is_empty() {
        all.insert("description".into(), text.into());
    }
    all.extend(schema);
    Value::Object(all)
}

fn of(shape: &Shape) -> Value {
    match shape {
        Shape::Text => json!({ "type": "string" }),
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Number => json!({ "type": "number" }),
        Shape::Unknown => json!({}),
        Shape::Constant(text) => json!({ "const": text }),
        Shape::Named(name) => json!({ "$ref": format!("#/$defs/{name}") }),
        Shape::List(inner) => json!({ "type": "array", "items": of(inner) }),
        Shape::Several(inner, length) => {
            json!({ "type": "array", "items": of(inner), "minItems": length, "maxItems": length })
        }
        Shape::Map(inner) => match **inner {
            Shape::Unknown => json!({ "type": "object" }),
            _ => json!({ "type": "object", "additionalProperties": of(inner) }),
        },
        Shape::Whole(least, most) => {
            let mut schema = json!({ "type": "integer" });
            for (name, bound) in [("minimum", least), ("maximum", most)] {
                if let Some(bound) = bound {
                    schema[name] = json!(bound);
                }
            }
            schema
        }
        Shape::Nullable(inner) => match of(inner) {
            Value::Object(mut schema) if schema.get("type").is_some_and(Value::is_string) => {
                let kind = schema["type"].clone();
                schema.insert("type".into(), json!([kind, "null"]));
                Value::Object(schema)
            }
            schema => json!({ "anyOf": [schema, { "type": "null" }] }),
        },
    }
}
