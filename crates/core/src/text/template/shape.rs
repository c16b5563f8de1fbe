//! The form of message content that a template understands.

use super::super::jinja::{Builder, Fail, Origin, Share, Text, Value};
use super::{ChatTemplate, Content, Message, Part, tools};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Either,
    Lists,
    Strings,
}

pub(super) const PROBE: &str = "prefixkvprobe";

/// See [`ChatTemplate`]: renders one user message with string content and one with list content.
pub(super) fn probe(template: &ChatTemplate) -> Shape {
    let takes = |content: Content| {
        let message = Message { role: "user".to_owned(), content, tool_calls: Vec::new() };
        let rendered = template.run(|| Ok(vec![Shape::Either.message(&message, template, 0)?]), true, Share::Probe);
        // A template for strings may print a list as it is, hence the look for the list's key.
        let keys = ["'type'", "&#39;type"];
        rendered.is_ok_and(|(text, _)| {
            let text = text.to_lowercase();
            text.contains(PROBE) && !keys.iter().any(|key| text.contains(key))
        })
    };
    let part = Part::Text { text: PROBE.to_owned() };
    match (takes(Content::Text(PROBE.to_owned())), takes(Content::Parts(vec![part]))) {
        (false, true) => Shape::Lists,
        (true, false) => Shape::Strings,
        (true, true) | (false, false) => Shape::Either,
    }
}

impl Shape {
    /// The message as the template sees it, whose first image or video has the number `first`.
    pub(super) fn message(self, message: &Message, template: &ChatTemplate, first: usize) -> Result<Value, Fail> {
        let content = match (self, &message.content) {
            (Shape::Lists, Content::Text(text)) => Value::list(vec![part(text)?])?,
            (_, Content::Text(text)) => said(text),
            (Shape::Strings, Content::Parts(parts)) => joined(parts, template, first)?,
            (_, Content::Parts(parts)) => Value::list(parts.iter().map(seen).collect::<Result<_, _>>()?)?,
        };
        let mut fields = vec![(Value::text("role"), role(&message.role)), (Value::text("content"), content)];
        if !message.tool_calls.is_empty() {
            fields.push((Value::text("tool_calls"), tools::calls(&message.tool_calls)?));
        }
        Value::dict(fields)
    }
}

/// Templates make tokens of roles, as in `<|user|>`. A role that is no plain name is text like any other.
fn role(role: &str) -> Value {
    let plain = role.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if plain { Value::text(role) } else { said(role) }
}

fn said(text: &str) -> Value {
    Value::Text(Text::of(text, Origin::Input))
}

fn part(text: &str) -> Result<Value, Fail> {
    Value::dict([(Value::text("type"), Value::text("text")), (Value::text("text"), said(text))])
}

fn seen(of: &Part) -> Result<Value, Fail> {
    match of {
        Part::Text { text } => part(text),
        Part::Image { .. } => Value::dict([(Value::text("type"), Value::text("image"))]),
        Part::Video { .. } => Value::dict([(Value::text("type"), Value::text("video"))]),
    }
}

/// Images first, as LLaVA was trained.
fn joined(parts: &[Part], template: &ChatTemplate, first: usize) -> Result<Value, Fail> {
    let mut out = Builder::default();
    let placeholder = |part: &Part| match part {
        Part::Text { .. } => None,
        Part::Image { .. } => Some(template.placeholder.as_str()),
        Part::Video { .. } => Some(template.video_placeholder().unwrap_or_default()),
    };
    for (number, placeholder) in parts.iter().filter_map(placeholder).enumerate() {
        out.text(&Text::of(placeholder, Origin::Picture((first + number) as u32)))?;
        out.str("\n")?;
    }
    for part in parts {
        if let Part::Text { text } = part {
            out.text(&Text::of(text, Origin::Input))?;
        }
    }
    Ok(Value::Text(out.finish()))
}
