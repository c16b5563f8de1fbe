//! The form of message content that a template understands.

use serde_json::{Value, json};

use super::{ChatTemplate, Content, Message, Part};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Either,
    Lists,
    Strings,
}

const PROBE: &str = "prefixkvprobe";

/// See [`ChatTemplate`]: renders one user message with string content and one with list content.
pub(super) fn probe(template: &ChatTemplate) -> Shape {
    let takes = |content: Value| {
        let messages = vec![json!({ "role": "user", "content": content })];
        // A template for strings may print a list as it is, hence the look for the list's key.
        template.render_raw(messages, true).is_ok_and(|text| text.contains(PROBE) && !text.contains("'type'"))
    };
    match (takes(json!(PROBE)), takes(json!([{ "type": "text", "text": PROBE }]))) {
        (false, true) => Shape::Lists,
        (true, false) => Shape::Strings,
        (true, true) | (false, false) => Shape::Either,
    }
}

impl Shape {
    /// The message as the template sees it.
    pub(super) fn message(self, message: &Message) -> Value {
        let content = match (self, &message.content) {
            (Shape::Lists, Content::Text(text)) => json!([{ "type": "text", "text": text }]),
            (_, Content::Text(text)) => json!(text),
            (Shape::Strings, Content::Parts(parts)) => json!(joined(parts)),
            (_, Content::Parts(parts)) => parts.iter().map(seen).collect(),
        };
        json!({ "role": message.role, "content": content })
    }
}

fn seen(part: &Part) -> Value {
    match part {
        Part::Text { text } => json!({ "type": "text", "text": text }),
        Part::Image { .. } => json!({ "type": "image" }),
    }
}

/// Images first, as LLaVA was trained.
fn joined(parts: &[Part]) -> String {
    let images = parts.iter().filter(|part| matches!(part, Part::Image { .. })).map(|_| "<image>\n");
    let texts = parts.iter().filter_map(|part| if let Part::Text { text } = part { Some(text.as_str()) } else { None });
    images.chain(texts).collect()
}
