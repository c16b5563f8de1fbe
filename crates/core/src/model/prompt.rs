//! From tokens with image placeholders to positions.

use super::images::ImagePlan;
use crate::cache::{Modality, Piece, Span};
use crate::error::{Error, Result};
use crate::sequence::Placing;

/// A prompt as positions: image placeholders are repeated once per image token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    pub tokens: Vec<u32>,
    /// The content of each position, in order, without gaps.
    pub spans: Vec<Span>,
    /// Where rotary embedding turns the positions.
    pub placing: Placing,
    /// Positions that belong to images.
    pub image_tokens: usize,
}

impl Prompt {
    /// Puts a generated token before all others: one that no cache holds yet.
    pub fn continue_from(&mut self, token: u32) {
        self.tokens.insert(0, token);
        self.spans.iter_mut().for_each(|span| span.start += 1);
        self.spans.insert(0, Span { modality: Modality::Generated, start: 0, len: 1 });
        if let Placing::Placed { phases, advance } = &mut self.placing {
            phases.iter_mut().for_each(|phase| *phase = phase.map(|axis| axis + 1));
            phases.insert(0, [0; 3]);
            *advance += 1;
        }
    }
}

/// `places` are those of the tokens that stand for the pieces of images, in order; `plans` what each image becomes, None of a text-only
/// model.
pub(super) fn expand(
    tokens: &[u32],
    places: &[usize],
    plans: Option<&[ImagePlan]>,
    images: usize,
    vocab: usize,
) -> Result<Prompt> {
    let prompt_error = |reason: String| Error::Prompt { reason };
    if tokens.is_empty() {
        return Err(prompt_error("it is empty".into()));
    }
    if images > 0 && plans.is_none() {
        return Err(prompt_error(format!("{images} images were given, but this model is text-only")));
    }
    let past = |(at, token): &(usize, &u32)| **token as usize >= vocab && places.binary_search(at).is_err();
    if let Some((_, bad)) = tokens.iter().enumerate().find(past) {
        return Err(prompt_error(format!("token {bad} is past the vocabulary of {vocab}")));
    }
    let pieces: Vec<(usize, Piece, usize)> = plans
        .unwrap_or(&[])
        .iter()
        .enumerate()
        .flat_map(|(index, plan)| plan.pieces().map(move |(piece, tokens)| (index, piece, tokens)))
        .collect();
    if places.len() != pieces.len() {
        let found = places.len();
        return Err(prompt_error(format!(
            "it has {found} image placeholders for {images} images; a raw `prompt` needs one for each image, and has no other way to \
             say where it goes (in `messages`, images are parts and a placeholder's text is text)"
        )));
    }
    let mut prompt = Prompt {
        tokens: Vec::with_capacity(tokens.len()),
        spans: Vec::new(),
        placing: Placing::InOrder,
        image_tokens: 0,
    };
    let mut pieces = places.iter().zip(pieces).peekable();
    for (at, &token) in tokens.iter().enumerate() {
        let start = prompt.tokens.len();
        if let Some((_, (index, piece, len))) = pieces.next_if(|(place, _)| **place == at) {
            prompt.tokens.resize(start + len, token);
            prompt.spans.push(Span { modality: Modality::Image { index, piece }, start, len });
            prompt.image_tokens += len;
            continue;
        }
        prompt.tokens.push(token);
        match prompt.spans.last_mut() {
            Some(last) if last.modality == Modality::Text => last.len += 1,
            _ => prompt.spans.push(Span { modality: Modality::Text, start, len: 1 }),
        }
    }
    Ok(prompt)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::cache::PieceKind;
    use crate::model::images::PlanPart;

    const PIECE: Piece = Piece { kind: PieceKind::Base, rows: 1, columns: 3 };

    /// Images of three positions.
    fn plans(images: usize) -> Vec<ImagePlan> {
        vec![ImagePlan::whole(PIECE, 3); images]
    }

    #[test]
    fn images_become_spans() {
        let prompt = expand(&[1, 9, 4, 5, 9], &[1, 4], Some(&plans(2)), 2, 9).expect("two images for two placeholders");
        assert_eq!(prompt.tokens, [1, 9, 9, 9, 4, 5, 9, 9, 9]);
        assert_eq!(prompt.image_tokens, 6);
        let spans: Vec<(usize, usize)> = prompt.spans.iter().map(|span| (span.start, span.len)).collect();
        assert_eq!(spans, [(0, 1), (1, 3), (4, 2), (6, 3)]);
        assert_eq!(prompt.spans[3].modality, Modality::Image { index: 1, piece: PIECE });
    }

    #[test]
    fn the_placeholders_id_elsewhere_is_a_token() {
        let prompt = expand(&[9, 9, 4], &[1], Some(&plans(1)), 1, 10).expect("one image");
        assert_eq!(prompt.tokens, [9, 9, 9, 9, 4]);
        let spans: Vec<(usize, usize)> = prompt.spans.iter().map(|span| (span.start, span.len)).collect();
        assert_eq!(spans, [(0, 1), (1, 3), (4, 1)]);
    }

    #[test]
    fn mismatches_are_refused() {
        for (tokens, places, images, takes) in [
            (&[1u32, 9][..], &[1][..], 2, true),
            (&[1], &[], 1, true),
            (&[1, 9], &[1], 0, true),
            (&[1, 9], &[], 0, true),
            (&[1], &[], 1, false),
            (&[], &[], 0, false),
            (&[12], &[], 0, true),
        ] {
            let plans = takes.then(|| plans(images));
            let error = expand(tokens, places, plans.as_deref(), images, 9).expect_err("refused");
            assert_eq!(error.code(), "prompt");
        }
    }

    #[test]
    fn an_image_of_several_pieces_has_a_span_for_each() {
        let tile = |column| PlanPart::Piece {
            piece: Piece { kind: PieceKind::Tile { row: 0, column }, rows: 1, columns: 2 },
            tokens: 2,
        };
        let plan = ImagePlan(vec![tile(0), PlanPart::Text("|".into()), tile(1)]);
        let prompt = expand(&[1, 9, 4, 9, 5], &[1, 3], Some(&[plan]), 1, 9).expect("one image");
        assert_eq!(prompt.tokens, [1, 9, 9, 4, 9, 9, 5]);
        let spans: Vec<(usize, usize)> = prompt.spans.iter().map(|span| (span.start, span.len)).collect();
        assert_eq!(spans, [(0, 1), (1, 2), (3, 1), (4, 2), (6, 1)]);
        let kind = |span: &Span| match span.modality {
            Modality::Image { index: 0, piece } => Some(piece.kind),
            _ => None,
        };
        assert_eq!(kind(&prompt.spans[3]), Some(PieceKind::Tile { row: 0, column: 1 }));
    }
}
