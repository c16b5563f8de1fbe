//! What a load tries of a template with a short message.

use super::super::jinja::Share;
use super::shape::{PROBE, Shape};
use super::{ChatTemplate, Content, Message, Part, Probed, pictures};

fn message(picture: bool) -> Message {
    let text = Part::Text { text: PROBE.to_owned() };
    let parts = if picture { vec![Part::Image { index: 0 }, text] } else { vec![text] };
    Message { role: "user".to_owned(), content: Content::Parts(parts) }
}

/// Whether a message without image comes out with a placeholder.
pub(super) fn writes_placeholders(template: &ChatTemplate) -> bool {
    let message = message(false);
    let values = || Ok(vec![template.shape.message(&message, &template.placeholder, 0)?]);
    template
        .run(values, true, Share::Probe)
        .is_ok_and(|(text, marks)| !pictures::literals(&text, &marks, &template.placeholder).is_empty())
}

pub(super) fn image(template: &ChatTemplate) -> Probed {
    let message = [message(true)];
    // Whether it fails for the image or for the message as such, only its text tells.
    let values = || Ok(vec![template.shape.message(&message[0], &template.placeholder, 0)?]);
    let Ok((text, _)) = template.run(values, true, Share::Probe) else { return Probed::Failed };
    match pictures::render(template, &message, true, Share::Probe) {
        Ok(_) if template.shape == Shape::Strings => Probed::Inserted,
        Ok(_) if template.is_fallback() => Probed::Inserted,
        Ok(_) => Probed::Written,
        Err(_) => Probed::Missing(text.chars().take(200).collect()),
    }
}
