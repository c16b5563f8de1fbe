//! Which placeholders of a prompt stand for images.
//!
//! A text never does, whatever it spells: the strings that come from messages are marked, and the mark goes with them through all that
//! a template does. Where a template takes strings, the placeholders are ours and marked too. Where it writes them itself, those count
//! that the images of the messages make appear: a template can also mention the placeholder, in a system text for example.

use std::collections::HashMap;
use std::ops::Range;

use super::super::jinja::{Mark, Origin, Share};
use super::shape::Shape;
use super::{ChatTemplate, Content, Message, Part, Rendered};
use crate::{Error, Result};

pub(super) fn render(
    template: &ChatTemplate,
    messages: &[Message],
    add_generation_prompt: bool,
    share: Share,
) -> Result<Rendered> {
    let kinds: Vec<bool> = messages.iter().flat_map(Message::shown).collect();
    if !kinds.contains(&true) {
        return seen(template, messages, add_generation_prompt, share, ("image", kinds.len()));
    }
    let none = || Error::Prompt { reason: "this model reads no videos".into() };
    let videos = template.videos.as_deref().ok_or_else(none)?;
    let mut images = template.clone();
    if let Some((own, shape)) = &videos.template {
        (images.template, images.shape) = (own.clone(), *shape);
    }
    if images.shape == Shape::Strings {
        return seen(&images, messages, add_generation_prompt, share, ("picture", kinds.len()));
    }
    // One placeholder is followed at a time.
    let films = ChatTemplate { placeholder: videos.placeholder.clone(), ..images.clone() };
    let number = kinds.iter().filter(|video| **video).count();
    let films = seen(&films, messages, add_generation_prompt, share, ("video", number))?;
    let mut all = seen(&images, messages, add_generation_prompt, share, ("image", kinds.len() - number))?;
    let marked = |ranges: Vec<Range<usize>>, video: bool| ranges.into_iter().map(move |range| (range, video));
    let mut pictures: Vec<_> =
        marked(std::mem::take(&mut all.pictures), false).chain(marked(films.pictures, true)).collect();
    pictures.sort_by_key(|(range, _)| range.start);
    if all.text != films.text || !pictures.iter().map(|(_, video)| *video).eq(kinds) {
        let reason = "the chat template writes the images and videos of the messages in another order".into();
        return Err(Error::Prompt { reason });
    }
    all.pictures = pictures.into_iter().map(|(range, _)| range).collect();
    Ok(all)
}

/// The conversation with the places of the `wanted` pictures of a kind.
fn seen(
    template: &ChatTemplate,
    messages: &[Message],
    add_generation_prompt: bool,
    share: Share,
    (kind, wanted): (&str, usize),
) -> Result<Rendered> {
    let (text, marks) = run(template, messages, add_generation_prompt, share)?;
    let ours = marked(&marks)?;
    let pictures = match ours.is_empty() && wanted > 0 {
        false => in_order(ours, wanted)?,
        true => {
            let mut written = literals(&text, &marks, &template.placeholder);
            if written.len() != wanted {
                let without: Vec<Message> = messages.iter().map(without_pictures).collect();
                // A template that wants an image in every message has nothing to say about this.
                if let Ok((text, marks)) = run(template, &without, add_generation_prompt, share) {
                    let own = counts(&literals(&text, &marks, &template.placeholder));
                    let all = counts(&written);
                    written.retain(|(place, _)| all.get(place) > own.get(place));
                }
            }
            let written: Vec<Range<usize>> = written.into_iter().map(|(_, range)| range).collect();
            if written.len() != wanted {
                let (found, placeholder) = (written.len(), &template.placeholder);
                let reason = format!(
                    "the chat template writes {found} {kind} placeholders (`{placeholder}`) for the {wanted} {kind}s of the messages"
                );
                return Err(Error::Prompt { reason });
            }
            written
        }
    };
    let said = marks.into_iter().filter(|mark| mark.origin == Origin::Input).map(|mark| mark.bytes).collect();
    Ok(Rendered { text, pictures, said })
}

pub(super) fn run(
    template: &ChatTemplate,
    messages: &[Message],
    add_generation_prompt: bool,
    share: Share,
) -> Result<(String, Vec<Mark>)> {
    let values = || {
        let mut first = 0;
        let mut values = Vec::with_capacity(messages.len());
        for message in messages {
            values.push(template.shape.message(message, template, first)?);
            first += message.shown().count();
        }
        Ok(values)
    };
    template.run(values, add_generation_prompt, share)
}

fn without_pictures(message: &Message) -> Message {
    let content = match &message.content {
        Content::Parts(parts) => {
            Content::Parts(parts.iter().filter(|part| matches!(part, Part::Text { .. })).cloned().collect())
        }
        text => text.clone(),
    };
    Message { role: message.role.clone(), content, tool_calls: message.tool_calls.clone() }
}

/// The placeholders that were put into the messages, with the numbers of their images. One that a template has cut into pieces that
/// still lie together counts as one.
fn marked(marks: &[Mark]) -> Result<Vec<(u32, Range<usize>)>> {
    let mut found: Vec<(u32, Range<usize>)> = Vec::new();
    for mark in marks {
        let Origin::Picture(number) = mark.origin else { continue };
        match found.last_mut() {
            Some((last, range)) if *last == number && range.end == mark.bytes.start => range.end = mark.bytes.end,
            _ => found.push((number, mark.bytes.clone())),
        }
    }
    Ok(found)
}

fn in_order(found: Vec<(u32, Range<usize>)>, wanted: usize) -> Result<Vec<Range<usize>>> {
    let numbers = found.iter().map(|(number, _)| *number as usize);
    if numbers.eq(0..wanted) {
        return Ok(found.into_iter().map(|(_, range)| range).collect());
    }
    let written: Vec<String> = found.iter().map(|(number, _)| number.to_string()).collect();
    let reason = format!(
        "the chat template writes {} of the {wanted} images of the messages, in this order: {}; each must come once, in order",
        written.len(),
        written.join(", ")
    );
    Err(Error::Prompt { reason })
}

/// The placeholders that the template has written, each with the place of its source that it comes from (0 when several made it).
pub(super) fn literals(text: &str, marks: &[Mark], placeholder: &str) -> Vec<(u32, Range<usize>)> {
    if placeholder.is_empty() {
        return Vec::new();
    }
    let mut marks = marks.iter().peekable();
    let mut found = Vec::new();
    for (start, word) in text.match_indices(placeholder) {
        let range = start..start + word.len();
        while marks.next_if(|mark| mark.bytes.end <= range.start).is_some() {}
        let touching = marks.clone().take_while(|mark| mark.bytes.start < range.end);
        let (mut place, mut foreign) = (0, false);
        for mark in touching {
            match mark.origin {
                Origin::Literal(here) => place = here,
                _ => foreign = true,
            }
        }
        if !foreign {
            found.push((place, range));
        }
    }
    found
}

fn counts(found: &[(u32, Range<usize>)]) -> HashMap<u32, usize> {
    let mut counts = HashMap::new();
    for (place, _) in found {
        *counts.entry(*place).or_default() += 1;
    }
    counts
}
