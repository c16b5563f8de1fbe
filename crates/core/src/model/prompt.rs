//! From tokens with image placeholders to positions.

use super::info::ImageInfo;
use crate::cache::{Modality, Span};
use crate::error::{Error, Result};

/// A prompt as positions: image placeholders are repeated once per image token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    pub tokens: Vec<u32>,
    /// What each position is, in order, without gaps.
    pub spans: Vec<Span>,
    /// Positions that belong to images.
    pub image_tokens: usize,
}

/// `places` are those of the tokens that stand for images, in order.
pub(super) fn expand(
    tokens: &[u32],
    places: &[usize],
    images: usize,
    image: Option<ImageInfo>,
    vocab: usize,
) -> Result<Prompt> {
    let prompt_error = |reason: String| Error::Prompt { reason };
    if tokens.is_empty() {
        return Err(prompt_error("it is empty".into()));
    }
    if images > 0 && image.is_none() {
        return Err(prompt_error(format!("{images} images were given, but this model is text-only")));
    }
    let past = |(at, token): &(usize, &u32)| **token as usize >= vocab && places.binary_search(at).is_err();
    if let Some((_, bad)) = tokens.iter().enumerate().find(past) {
        return Err(prompt_error(format!("token {bad} is past the vocabulary of {vocab}")));
    }
    if places.len() != images {
        let found = places.len();
        return Err(prompt_error(format!(
            "it has {found} image placeholders for {images} images; a raw `prompt` needs one for each image, and has no other way to \
             say where it goes (in `messages`, images are parts and a placeholder's text is text)"
        )));
    }
    let mut prompt = Prompt { tokens: Vec::with_capacity(tokens.len()), spans: Vec::new(), image_tokens: 0 };
    let mut index = 0;
    for (at, &token) in tokens.iter().enumerate() {
        let start = prompt.tokens.len();
        match image {
            Some(image) if places.get(index) == Some(&at) => {
                prompt.tokens.resize(start + image.tokens, token);
                prompt.spans.push(Span { modality: Modality::Image { index }, start, len: image.tokens });
                prompt.image_tokens += image.tokens;
                index += 1;
            }
            _ => {
                prompt.tokens.push(token);
                match prompt.spans.last_mut() {
                    Some(last) if last.modality == Modality::Text => last.len += 1,
                    _ => prompt.spans.push(Span { modality: Modality::Text, start, len: 1 }),
                }
            }
        }
    }
    Ok(prompt)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: ImageInfo = ImageInfo { tokens: 3, size: 28, patch: 14, placeholder: 9 };

    #[test]
    fn images_become_spans() {
        let prompt = expand(&[1, 9, 4, 5, 9], &[1, 4], 2, Some(IMAGE), 9).expect("two images for two placeholders");
        assert_eq!(prompt.tokens, [1, 9, 9, 9, 4, 5, 9, 9, 9]);
        assert_eq!(prompt.image_tokens, 6);
        let spans: Vec<(usize, usize)> = prompt.spans.iter().map(|span| (span.start, span.len)).collect();
        assert_eq!(spans, [(0, 1), (1, 3), (4, 2), (6, 3)]);
        assert_eq!(prompt.spans[3].modality, Modality::Image { index: 1 });
    }

    #[test]
    fn the_placeholders_id_elsewhere_is_a_token() {
        let prompt = expand(&[9, 9, 4], &[1], 1, Some(IMAGE), 10).expect("one image");
        assert_eq!(prompt.tokens, [9, 9, 9, 9, 4]);
        let spans: Vec<(usize, usize)> = prompt.spans.iter().map(|span| (span.start, span.len)).collect();
        assert_eq!(spans, [(0, 1), (1, 3), (4, 1)]);
    }

    #[test]
    fn mismatches_are_refused() {
        for (tokens, places, images, image) in [
            (&[1u32, 9][..], &[1][..], 2, Some(IMAGE)),
            (&[1], &[], 1, Some(IMAGE)),
            (&[1, 9], &[1], 0, Some(IMAGE)),
            (&[1, 9], &[], 0, Some(IMAGE)),
            (&[1], &[], 1, None),
            (&[], &[], 0, None),
            (&[12], &[], 0, Some(IMAGE)),
        ] {
            let error = expand(tokens, places, images, image, 9).expect_err("refused");
            assert_eq!(error.code(), "prompt");
        }
    }
}
