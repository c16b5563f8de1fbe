//! From a request's text and images to what the model reads.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::clock::milliseconds;
use super::pictures;
use super::ticket::Events;
use crate::backend::Backend;
use crate::cache::Memory;
use crate::error::{Error, Result};
use crate::fields::refuse;
use crate::media::{Clip, Prepared, require_light, upright_size};
use crate::method::pictures::Pictures;
use crate::model::{Features, ImagePlan, Model, Prompt};
use crate::sequence::Sequence;
use crate::text::{Encoded, Message, Rendered, SpecialTokens};
use crate::wire::{Medium, Source, SourceText, Timings, Usage, Video};

/// Most tokens of an answer when the request does not say.
const DEFAULT_TOKENS: usize = 512;

/// The pieces that the images and videos of a request become, in the order of their placeholders. Only families that need it have the sizes of
/// images read, from their headers; none of a text-only model.
pub(super) fn plans<B: Backend, I: AsRef<[u8]>>(
    model: &Model<B>,
    images: &[I],
    order: &[Medium],
) -> Result<Vec<ImagePlan>> {
    // A family knows no numbers of images.
    let numbered = |error: Error, index: usize| match error {
        Error::Image { reason, .. } => Error::Image { index, reason },
        other => other,
    };
    let plan = |medium: &Medium| {
        let planned = match medium {
            Medium::Image(index) => model.plan_of(order.len(), &mut || upright_size(images[*index].as_ref(), *index)),
            Medium::Video(video) => plan_video(model, images, video).map(Some),
        };
        planned.map_err(|error| numbered(error, medium.images().start)).transpose()
    };
    order.iter().filter_map(plan).collect()
}

fn plan_video<B: Backend, I: AsRef<[u8]>>(model: &Model<B>, images: &[I], video: &Video) -> Result<ImagePlan> {
    let processor = model.video_processor()?;
    let bytes: u64 = images[video.frames.clone()].iter().map(|frame| frame.as_ref().len() as u64).sum();
    require_light(bytes)?;
    let clip = clip(images, video)?;
    for (frame, index) in video.frames.clone().enumerate() {
        let (width, height) = upright_size(images[index].as_ref(), index)?;
        if (width, height) != (clip.width, clip.height) {
            return Err(refuse(format!(
                "frame {frame} of a video has {width} x {height} pixels, and its first one {} x {}; all must have one size",
                clip.width, clip.height
            )));
        }
    }
    processor.plan(&clip)
}

/// A video as its first frame and its times say.
fn clip<'v, I: AsRef<[u8]>>(images: &[I], video: &'v Video) -> Result<Clip<'v>> {
    let first = video.frames.start;
    let (width, height) = upright_size(images[first].as_ref(), first)?;
    Ok(Clip { width, height, timing: &video.timing })
}

/// The tokens of a source, with a placeholder for each piece of its images.
pub(super) fn tokens<B: Backend>(model: &Model<B>, source: &Source, plans: &[ImagePlan]) -> Result<Encoded> {
    match &source.text {
        SourceText::Messages(messages) => {
            let called = messages.iter().any(|message| !message.tool_calls.is_empty());
            let chat = match source.tools.as_slice() {
                [] if !called => render(model, messages, true)?,
                tools => model.template().with_tools(tools)?.render(messages, true)?,
            };
            encode(model, &chat, plans, source.special)
        }
        SourceText::Raw(text) => encode_raw(model, text, plans),
    }
}

/// The tokens of a rendered conversation.
pub(super) fn encode<B: Backend>(
    model: &Model<B>,
    chat: &Rendered,
    plans: &[ImagePlan],
    special: SpecialTokens,
) -> Result<Encoded> {
    require_short(model, &chat.text)?;
    model.encode(chat, plans, special)
}

/// The tokens of a raw prompt, where every placeholder is an image.
pub(super) fn encode_raw<B: Backend>(model: &Model<B>, text: &str, plans: &[ImagePlan]) -> Result<Encoded> {
    require_short(model, text)?;
    model.encode_raw(text, plans)
}

/// From this many bytes on, a text is first looked at for whether it can fit at all.
const LONG: usize = 64 << 10;

/// Refuses a prompt that has more tokens than the model has positions, however it is encoded: encoding takes hundreds of bytes and
/// about a microsecond for each of its bytes.
fn require_short<B: Backend>(model: &Model<B>, text: &str) -> Result<()> {
    if text.len() >= LONG {
        let (needed, available) = (model.tokenizer().least_tokens(text), model.max_positions());
        if needed > available {
            return Err(Error::ContextOverflow { needed, available, image_tokens: 0 });
        }
    }
    Ok(())
}

/// The messages as the model's own chat format.
pub(super) fn render<B: Backend>(
    model: &Model<B>,
    messages: &[Message],
    add_generation_prompt: bool,
) -> Result<Rendered> {
    model.template().render(messages, add_generation_prompt)
}

/// The prompt with the placeholders of its `images` images, which become `plans`, expanded.
pub(super) fn expand<B: Backend>(
    model: &Model<B>,
    encoded: &Encoded,
    plans: &[ImagePlan],
    images: usize,
) -> Result<Prompt> {
    if images > 0 && model.image_processor().is_none() {
        return Err(Error::Prompt { reason: "this model reads no images".into() });
    }
    model.expand_at(&encoded.tokens, &encoded.pictures, plans, images)
}

/// How many tokens may follow `past` positions and `prompt`: the asked number, which must fit, or by default what is left of
/// the positions.
pub(super) fn room(past: usize, prompt: &Prompt, asked: Option<usize>, available: usize) -> Result<usize> {
    let used = past + prompt.tokens.len();
    let needed = used + asked.unwrap_or(1);
    if needed > available {
        return Err(Error::ContextOverflow { needed, available, image_tokens: prompt.image_tokens });
    }
    Ok(asked.unwrap_or(DEFAULT_TOKENS).min(available - used))
}

/// Refuses a prompt that finds no room in the pool now, on top of what `sequence` holds. All else that may be wrong with it is for its
/// reading to say.
pub(super) fn admit<M: Memory>(sequence: &Sequence<M>, prompt: &Prompt) -> Result<()> {
    match sequence.admit(&prompt.spans) {
        Err(error @ Error::OutOfMemory { .. }) => Err(error),
        _ => Ok(()),
    }
}

/// The features of the images and videos, in the order of their placeholders, for a method that may choose `pictures`; each is decoded and
/// seen once. `all` is how many pictures the conversation has.
pub(super) fn features<B: Backend, I: AsRef<[u8]> + Sync>(
    model: &Model<B>,
    images: &[I],
    order: &[Medium],
    all: usize,
    pictures: Option<&dyn Pictures>,
    events: &Events,
    timings: &mut Timings,
) -> Result<Vec<Features<B>>> {
    let Some(processor) = model.image_processor_of(all).filter(|_| !order.is_empty()) else { return Ok(Vec::new()) };
    let (start, mut seeing) = (Instant::now(), Duration::ZERO);
    let mut see = |prepared: &[Prepared]| {
        let start = Instant::now();
        let seen = model.encode_images_for(prepared, pictures, &|| events.check());
        seeing += start.elapsed();
        seen
    };
    let mut stills: Vec<usize> = order
        .iter()
        .filter_map(|medium| match medium {
            Medium::Image(index) => Some(*index),
            Medium::Video(_) => None,
        })
        .collect();
    stills.sort_unstable();
    stills.dedup();
    let mut seen = Vec::with_capacity(stills.len());
    pictures::process(processor, images, &stills, events, |prepared| {
        seen.extend(see(prepared)?);
        Ok(())
    })?;
    let mut known: HashMap<usize, Features<B>> = stills.into_iter().zip(seen).collect();
    for medium in order {
        let Medium::Video(video) = medium else { continue };
        if known.contains_key(&video.frames.start) {
            continue;
        }
        let (processor, clip) = (model.video_processor()?, clip(images, video)?);
        let mut groups = Vec::new();
        for first in video.frames.clone().step_by(processor.together().max(1)) {
            let group = first..video.frames.end.min(first + processor.together().max(1));
            let prepared = pictures::frames(processor, images, group, &clip, events)?;
            groups.extend(see(std::slice::from_ref(&prepared))?);
        }
        known.insert(video.frames.start, Features::joined(groups)?);
    }
    timings.images = milliseconds(start.elapsed().saturating_sub(seeing));
    timings.vision = milliseconds(seeing);
    let of = |medium: &Medium| {
        let missing = || Error::Internal("an image that nobody has seen".into());
        known.get(&medium.images().start).cloned().ok_or_else(missing)
    };
    order.iter().map(of).collect()
}

/// The usage of a request that continues `cached` positions and has got `completion` tokens so far.
pub(super) fn usage(cached: usize, prompt: &Prompt, completion: usize) -> Usage {
    usage_behind(0, cached, prompt, completion)
}

/// As [`usage`], where `read` more positions were read before `prompt`.
pub(super) fn usage_behind(read: usize, cached: usize, prompt: &Prompt, completion: usize) -> Usage {
    Usage {
        prompt_tokens: cached + read + prompt.tokens.len(),
        cached_tokens: cached,
        image_tokens: prompt.image_tokens,
        completion_tokens: completion,
    }
}
