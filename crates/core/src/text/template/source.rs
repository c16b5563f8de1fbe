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
        {%- for part in content if part.type == 'image' -%}{{- '<image>\\n' -}}{%- endfor -%}
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

/// The file and its template.
pub(super) fn find(dir: &Path) -> Result<Option<(PathBuf, String)>> {
    let path = dir.join("chat_template.jinja");
    if let Some(text) = read_text(&path)? {
        return Ok(Some((path, text)));
    }
    for name in ["chat_template.json", "tokenizer_config.json", "processor_config.json"] {
        let path = dir.join(name);
        let Some(json) = read_json(&path)? else { continue };
        if let Some(template) = choose(&path, &json["chat_template"])? {
            return Ok(Some((path, template)));
        }
    }
    Ok(None)
}

fn choose(path: &Path, json: &Value) -> Result<Option<String>> {
    let named = match json {
        Value::Null => return Ok(None),
        Value::String(template) => return Ok(Some(template.clone())),
        Value::Array(list) => list,
        _ => return Err(unusable(path, "`chat_template` is neither a string nor a list of { name, template }")),
    };
    let default = named.iter().find(|entry| entry["name"] == "default");
    if let Some(template) = default.and_then(|entry| entry["template"].as_str()) {
        return Ok(Some(template.to_owned()));
    }
    let names: Vec<&str> = named.iter().filter_map(|entry| entry["name"].as_str()).collect();
    Err(unusable(path, format!("`chat_template` has no template named `default`, only {names:?}")))
}
