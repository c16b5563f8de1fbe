//! The probability of a given answer, token by token.
//!
//! The answer is never tokenized alone, since a tokenizer may treat its first characters differently there. Prompt and answer
//! are tokenized together, and the answer's tokens are those after the longest common start with the tokens of the prompt. So
//! where the tokenizer merges the end of the prompt with the start of the answer, the merged token counts to the answer.

use std::time::Instant;

use serde_json::json;

use super::clock::milliseconds;
use super::generate::Asked;
use super::ticket::Events;
use super::{generate, positions, prompt};
use crate::backend::Backend;
use crate::cache::{Kept, Memory};
use crate::error::{Error, Result};
use crate::fields::refuse;
use crate::model::{ImagePlan, Model, Prompt};
use crate::sample::{divergence, log_softmax_at};
use crate::sequence::Sequence;
use crate::text::{Encoded, Rendered};
use crate::wire::{Event, Score, ScoreRequest, Source, SourceText, Timings};

/// An answer on its way: its first token from the logits of the whole prompt; then the method acts, and each other token comes from a
/// decoding step over the token before it, as generation would have met it. With `kl`, a second sequence with the full cache goes
/// along step by step; its time counts in `total` only and its bytes are in no report.
pub(super) struct Scoring<M: Memory> {
    prompt: Prompt,
    answer: Vec<u32>,
    pub(super) sequence: Sequence<M>,
    logits: Vec<f32>,
    /// The token that is to be decoded before the next [`Scoring::advance`].
    next: Option<u32>,
    logprobs: Vec<f32>,
    /// Whether to say what is left after the prompt, and that.
    kept: Option<Vec<Vec<Kept>>>,
    full: Option<Full<M>>,
    timings: Timings,
}

/// A sequence whose token is to be decoded, alone or together with those of others.
pub(super) struct Next<'a, M: Memory> {
    pub(super) sequence: &'a mut Sequence<M>,
    /// Where its logits go.
    pub(super) logits: &'a mut Vec<f32>,
    /// Where the likeliest token goes, if that is all that is wanted and the device has found it. None: logits are wanted.
    pub(super) likeliest: Option<&'a mut Option<u32>>,
    /// Where the milliseconds are added, if they are to be.
    pub(super) time: Option<&'a mut f64>,
}

/// The full cache beside a method.
struct Full<M: Memory> {
    sequence: Sequence<M>,
    logits: Vec<f32>,
    kl: Vec<f64>,
}

impl<M: Memory> Scoring<M> {
    /// Reads the prompt.
    pub(super) fn start<B: Backend<Memory = M>>(
        model: &Model<B>,
        request: &ScoreRequest,
        images: &[Vec<u8>],
        events: &Events,
    ) -> Result<Scoring<M>> {
        let started = Instant::now();
        let mut timings = Timings { queued: milliseconds(started - events.submitted()), ..Timings::default() };
        let plans = prompt::plans(model, images, &request.source.order)?;
        let (tokens, answer) = split(model, &request.source, &request.answer, &plans)?;
        let prompt = prompt::expand(model, &tokens, &plans, request.source.order.len())?;
        let mut sequence = model.new_sequence_with(request.method.clone(), false)?;
        positions::room(&sequence, &prompt, Some(answer.len()), model.max_positions())?;
        if request.kl {
            prompt::room(0, &prompt, Some(answer.len()), model.max_positions())?;
        }
        let order = &request.source.order;
        let features = prompt::features(model, images, order, order.len(), sequence.pictures(), events, &mut timings)?;
        let start = Instant::now();
        let logits = model.prefill(&prompt, &features, &mut sequence, &|| events.check())?;
        timings.prefill = milliseconds(start.elapsed());
        timings.first_token = milliseconds(events.submitted().elapsed());
        let full = match request.kl {
            true => {
                let features = match sequence.pictures() {
                    None => features,
                    Some(_) => {
                        prompt::features(model, images, order, order.len(), None, events, &mut Timings::default())?
                    }
                };
                let mut sequence = model.new_sequence_with(None, false)?;
                let logits = model.prefill(&prompt, &features, &mut sequence, &|| events.check())?;
                Some(Full { sequence, logits, kl: Vec::with_capacity(answer.len()) })
            }
            false => None,
        };
        events.send(Event::Prompt { usage: prompt::usage(0, &prompt, 0) })?;
        let logprobs = Vec::with_capacity(answer.len());
        let kept = request.kept.then(Vec::new);
        Ok(Scoring { prompt, answer, sequence, logits, next: None, logprobs, kept, full, timings })
    }

    /// Scores the next token; true when the answer is done and has been sent. Where a method outside is to be asked, asks it instead.
    pub(super) fn advance(&mut self, events: &Events) -> Result<bool> {
        events.check()?;
        if generate::plan(&mut self.sequence, events)? == Asked::Waits {
            return Ok(false);
        }
        let index = self.logprobs.len();
        if let Some(kept) = self.kept.as_mut().filter(|_| index == 0) {
            *kept = self.sequence.kept();
        }
        self.logprobs.push(log_softmax_at(&self.logits, self.answer[index] as usize).max(f32::MIN));
        if let Some(Full { logits, kl, .. }) = &mut self.full {
            kl.push(divergence(logits, &self.logits));
        }
        if self.logprobs.len() == self.answer.len() {
            self.finish(events);
            return Ok(true);
        }
        self.next = Some(self.answer[index]);
        Ok(false)
    }

    /// The token to decode, if there is one, and what it goes to: the sequence, and where there is one, the full cache beside it.
    pub(super) fn take_next(&mut self) -> Option<(u32, Next<'_, M>, Option<Next<'_, M>>)> {
        let token = self.next.take()?;
        let time = Some(&mut self.timings.decode);
        let own = Next { sequence: &mut self.sequence, logits: &mut self.logits, likeliest: None, time };
        let full = self.full.as_mut();
        Some((
            token,
            own,
            full.map(|Full { sequence, logits, .. }| Next { sequence, logits, likeliest: None, time: None }),
        ))
    }

    fn finish(&mut self, events: &Events) {
        self.timings.total = milliseconds(events.submitted().elapsed());
        let mean = self.logprobs.iter().copied().map(f64::from).sum::<f64>() / self.logprobs.len() as f64;
        events.finish(Event::Scored(Box::new(Score {
            usage: prompt::usage(0, &self.prompt, self.answer.len()),
            tokens: std::mem::take(&mut self.answer),
            logprobs: std::mem::take(&mut self.logprobs),
            // Values past the greatest number are given as that number: JSON knows no infinity.
            ppl: (-mean).exp().min(f64::MAX),
            timings: self.timings,
            memory: self.sequence.memory(),
            spans: self.kept.is_some().then(|| self.sequence.kept_spans()),
            kept: self.kept.take(),
            kl: self.full.take().map(|full| full.kl),
        })));
    }
}

/// The tokens of the prompt and of the answer. With messages, the answer ends with the end-of-sequence token that the template puts
/// after it, as a generation ends; white space behind that is not scored. With a raw prompt nothing is added.
pub(super) fn split<B: Backend>(
    model: &Model<B>,
    source: &Source,
    answer: &str,
    plans: &[ImagePlan],
) -> Result<(Encoded, Vec<u32>)> {
    let encode = |chat: &Rendered| prompt::encode(model, chat, plans, source.special);
    let (prompt, whole) = match &source.text {
        SourceText::Raw(text) => {
            let answered = format!("{text}{answer}");
            (prompt::encode_raw(model, text, plans)?, prompt::encode_raw(model, &answered, plans)?)
        }
        SourceText::Messages(messages) => {
            let answer = serde_json::from_value(json!({ "role": "assistant", "content": answer }));
            let answer = answer.map_err(|error| Error::Internal(error.to_string()))?;
            let mut answered = messages.clone();
            answered.push(answer);
            let (prompt, whole) = (prompt::render(model, messages, true)?, prompt::render(model, &answered, false)?);
            if !whole.text.starts_with(&prompt.text) {
                return Err(Error::Prompt {
                    reason:
                        "the chat template writes the prompt differently once an answer follows; use a raw `prompt`"
                            .into(),
                });
            }
            (encode(&prompt)?, encode(&whole)?)
        }
    };
    let Encoded { tokens: mut whole, mut pictures } = whole;
    let common = prompt.tokens.iter().zip(&whole).take_while(|(a, b)| a == b).count();
    let mut answer = whole.split_off(common);
    pictures.retain(|place| *place < common);
    if matches!(source.text, SourceText::Messages(_)) {
        end_with_eos(model, &mut answer)?;
    }
    match (whole.is_empty(), answer.is_empty()) {
        (true, _) => Err(Error::Prompt { reason: "the prompt has no token of its own before the answer".into() }),
        (_, true) => Err(refuse("`answer` has no tokens; there is nothing to score")),
        _ => Ok((Encoded { tokens: whole, pictures }, answer)),
    }
}

/// Takes away white space that a template has put behind the last end-of-sequence token: ChatML's newline, which no generation reaches.
fn end_with_eos<B: Backend>(model: &Model<B>, answer: &mut Vec<u32>) -> Result<()> {
    let Some(end) = answer.iter().rposition(|token| model.eos_tokens().contains(token)) else { return Ok(()) };
    if model.tokenizer().decode(&answer[end + 1..], false)?.trim().is_empty() {
        answer.truncate(end + 1);
    }
    Ok(())
}
