//! Trials of a template with a short message, at load.

use super::super::jinja::Share;
use super::shape::{PROBE, Shape};
use super::{ChatTemplate, Content, Message, Part, Probed, pictures};

fn message() -> Message {
    let parts = vec![Part::Image { index: 0 }, Part::Text { text: PROBE.to_owned() }];
    Message { role: "user".to_owned(), content: Content::Parts(parts), tool_calls: Vec::new() }
}

pub(super) fn image(template: &ChatTemplate) -> Probed {
    let message = [message()];
    // Whether it fails for the image or for the message as such, only its text tells.
    let values = || Ok(vec![template.shape.message(&message[0], template, 0)?]);
    let Ok((text, _)) = template.run(values, true, Share::Probe) else { return Probed::Failed };
    match pictures::render(template, &message, true, Share::Probe) {
        Ok(_) if template.shape == Shape::Strings => Probed::Inserted,
        Ok(_) if template.is_fallback() => Probed::Inserted,
        Ok(_) => Probed::Written,
        Err(_) => Probed::Missing(text.chars().take(200).collect()),
    }
}
