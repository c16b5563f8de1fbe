//! Where a model folder keeps its chat template.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::files::{read_json, read_text, unusable};
use crate::Result;

/// See [`super::ChatTemplate`] for what it makes.
pub(super) const FALLBACK: &str = "\
{%- for message in messages -%}
    {%- set content = message.content -%}
    {%- if content is string -%}{%- set content = [{'type': 'text', 'text': content}] -%}{%- endif -%}
    {%- set text = content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join -%}
    {%- if message.role == 'user' -%}
        {{- 'USER: ' -}}
        {%- for part in content if part.type == 'image' -%}{{- image_placeholder + '\\n' -}}{%- endfor -%}
        {{- text + ' ASSISTANT:' -}}
    {%- elif message.role == 'assistant' -%}
        {{- ' ' + text + eos_token -}}
    {%- elif message.role == 'system' and loop.first -%}
        {{- text + ' ' -}}
    {%- elif message.role == 'system' -%}
        {{- raise_exception('a system message must come first') -}}
    {%- else -%}
        {{- raise_exception('unknown role `' + message.role + '`; use system, user or assistant') -}}
    {%- endif -%}
{%- endfor -%}";

type Find = fn(&Path) -> Result<Option<(PathBuf, String)>>;

const FILE: &str = "chat_template.jinja";
const ADDITIONAL: &str = "additional_chat_templates/default.jinja";

/// The file and its template, as [`super::ChatTemplate::from_folder`] says.
pub(super) fn find(dir: &Path, vision: bool) -> Result<Option<(PathBuf, String)>> {
    let order: &[Find] = match vision {
        true => &[processor_config, legacy, files_of_processor, tokenizer_config],
        false => &[files_of_tokenizer, tokenizer_config, legacy, processor_config],
    };
    for find in order {
        if let Some(found) = find(dir)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn processor_config(dir: &Path) -> Result<Option<(PathBuf, String)>> {
    in_json(dir.join("processor_config.json"))
}

fn tokenizer_config(dir: &Path) -> Result<Option<(PathBuf, String)>> {
    in_json(dir.join("tokenizer_config.json"))
}

fn legacy(dir: &Path) -> Result<Option<(PathBuf, String)>> {
    in_json(dir.join("chat_template.json"))
}

fn files_of_processor(dir: &Path) -> Result<Option<(PathBuf, String)>> {
    first_of([dir.join(FILE), dir.join(ADDITIONAL)])
}

/// Where both are, a tokenizer of transformers reads another one than a processor.
fn files_of_tokenizer(dir: &Path) -> Result<Option<(PathBuf, String)>> {
    first_of([dir.join(ADDITIONAL), dir.join(FILE)])
}

fn first_of(paths: [PathBuf; 2]) -> Result<Option<(PathBuf, String)>> {
    for path in paths {
        if let Some(text) = read_text(&path)? {
            return Ok(Some((path, text)));
        }
    }
    Ok(None)
}

fn in_json(path: PathBuf) -> Result<Option<(PathBuf, String)>> {
    let Some(json) = read_json(&path)? else { return Ok(None) };
    Ok(choose(&path, &json["chat_template"])?.map(|template| (path, template)))
}

/// A template, or the `default` of several: a list of `{ name, template }`, or an object.
fn choose(path: &Path, json: &Value) -> Result<Option<String>> {
    let (default, names): (Option<&Value>, Vec<&str>) = match json {
        Value::Null => return Ok(None),
        Value::String(template) => return Ok(Some(template.clone())),
        Value::Array(list) => (
            list.iter().rfind(|entry| entry["name"] == "default").map(|entry| &entry["template"]),
            list.iter().filter_map(|entry| entry["name"].as_str()).collect(),
        ),
        Value::Object(map) => (map.get("default"), map.keys().map(String::as_str).collect()),
        _ => return Err(unusable(path, "`chat_template` is neither a string nor a list of { name, template }")),
    };
    match default.and_then(Value::as_str) {
        Some(template) => Ok(Some(template.to_owned())),
        None => Err(unusable(path, format!("`chat_template` has no template named `default`, only {names:?}"))),
    }
}
