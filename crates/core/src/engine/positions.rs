//! How long a sequence may become.

use super::prompt;
use crate::cache::Memory;
use crate::error::Result;
use crate::model::Prompt;
use crate::sequence::Sequence;

/// How many tokens may follow `prompt` on top of what `sequence` has seen, of a model that knows `most` positions: the asked number,
/// which must fit, or by default what is left. Where keys are rotated to their ranks it is these that must fit: those of the prompt,
/// which is there whole for a moment, and those of what is kept while generating.
pub(super) fn room<M: Memory>(
    sequence: &Sequence<M>,
    prompt: &Prompt,
    asked: Option<usize>,
    most: usize,
) -> Result<usize> {
    if sequence.rotates_to_ranks() {
        prompt::room(sequence.longest_lane(), prompt, Some(1), most)?;
    }
    let available = sequence.positions_within(&prompt.spans, most)?;
    prompt::room(sequence.next_position() as usize, prompt, asked, available)
}

/// As [`room`] of a prompt in two parts, of which none has been read.
pub(super) fn room_behind<M: Memory>(
    sequence: &Sequence<M>,
    first: &Prompt,
    rest: &Prompt,
    asked: Option<usize>,
    most: usize,
) -> Result<usize> {
    if sequence.rotates_to_ranks() {
        prompt::room(first.tokens.len(), rest, Some(1), most)?;
    }
    let available = sequence.positions_within(&first.spans, most)?;
    prompt::room(first.tokens.len(), rest, asked, available)
}
