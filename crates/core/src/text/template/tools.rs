//! Tools in a conversation: what a template sees of them, and whether it writes calls in the form that is read back.

use serde_json::{Number, Value as Json, json};

use super::super::jinja::{Fail, Origin, Share, Text, Value};
use super::shape::PROBE;
use super::{ChatTemplate, Content, Message, ToolCall};
use crate::{Error, Result};

/// The beginning of a call in the form of Hermes, which Qwen has too: `<tool_call>` around a JSON object with name and arguments.
const OPENING: &str = "<tool_call>";

/// A value of JSON as a template sees it. All texts in it, keys too, are text and never special tokens of the template.
pub(super) fn value(json: &Json) -> Result<Value, Fail> {
    Ok(match json {
        Json::Null => Value::None,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => self::number(number),
        Json::String(text) => said(text),
        Json::Array(items) => Value::list(items.iter().map(value).collect::<Result<_, _>>()?)?,
        Json::Object(fields) => {
            let field = |(name, field): (&String, &Json)| Ok((said(name), value(field)?));
            Value::dict(fields.iter().map(field).collect::<Result<Vec<_>, Fail>>()?)?
        }
    })
}

fn number(number: &Number) -> Value {
    match number.as_i64() {
        Some(whole) => Value::Int(whole),
        None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
    }
}

fn said(text: &str) -> Value {
    Value::Text(Text::of(text, Origin::Input))
}

/// The calls of a message, in the shape of OpenAI's that templates are written for.
pub(super) fn calls(calls: &[ToolCall]) -> Result<Value, Fail> {
    let call = |ToolCall { name, arguments }: &ToolCall| {
        let function = Value::dict([
            (Value::text("name"), said(name)),
            (Value::text("arguments"), value(&Json::Object(arguments.clone()))?),
        ])?;
        Value::dict([(Value::text("type"), Value::text("function")), (Value::text("function"), function)])
    };
    Value::list(calls.iter().map(call).collect::<Result<_, _>>()?)
}

/// Why a template can have no tools, if it cannot.
pub(super) fn refusal(template: &ChatTemplate) -> Option<String> {
    let ask = Message { role: "user".into(), content: Content::Text("x".into()), tool_calls: Vec::new() };
    let tool = json!({ "type": "function", "function": {
        "name": PROBE, "description": "x", "parameters": { "type": "object", "properties": {} },
    } });
    let with = template.clone().holding(vec![tool]);
    let shown = rendered(&with, std::slice::from_ref(&ask), true);
    if !shown.is_some_and(|text| text.contains(PROBE)) {
        return Some("the chat template of this model knows no tools".into());
    }
    let call = ToolCall { name: PROBE.into(), arguments: Default::default() };
    let answer = Message { role: "assistant".into(), content: Content::Text(String::new()), tool_calls: vec![call] };
    let text = rendered(template, &[ask, answer], false).unwrap_or_default();
    let body = text.split_once(OPENING).map(|(_, body)| body.trim_start());
    let known = body.is_some_and(|body| body.starts_with('{') && body.contains(&format!("\"name\": \"{PROBE}\"")));
    let reason = "the chat template of this model has tool calls of a form that is not read here; <tool_call> with JSON, as Hermes and Qwen have it, is";
    (!known).then(|| reason.into())
}

fn rendered(template: &ChatTemplate, messages: &[Message], add_generation_prompt: bool) -> Option<String> {
    super::pictures::run(template, messages, add_generation_prompt, Share::Probe).ok().map(|(text, _)| text)
}

impl ChatTemplate {
    /// The same template with tools to show, as OpenAI writes them: `{ "type": "function", "function": { "name", ... } }`.
    ///
    /// # Errors
    /// [`Error::Prompt`] for a template that shows no tools, or writes calls in another form than Hermes.
    pub fn with_tools(&self, tools: &[Json]) -> Result<ChatTemplate> {
        match self.no_tools.get_or_init(|| refusal(self)) {
            Some(reason) => Err(Error::Prompt { reason: reason.clone() }),
            None => Ok(self.clone().holding(tools.to_vec())),
        }
    }

    fn holding(mut self, tools: Vec<Json>) -> ChatTemplate {
        self.tools = std::sync::Arc::new(tools);
        self
    }
}
