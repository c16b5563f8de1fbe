//! Prompts that begin with the same pictures read them once.
//!
//! With `prefixCache` every prompt with pictures is read in two parts, up to its last picture and from there on, whether somebody has asked about them
//! before or not: so an answer does not hang on who was first. The first part is kept, bounded in bytes, for the next prompt with the same tokens, the
//! same bytes of pictures and the same method. It is read as a [prefix](super::prefix) is: a method that needs no question acts on it, one that chooses by
//! the question acts behind the second part, on a copy. Methods that can do neither read their prompts whole and share nothing.

use std::collections::VecDeque;

use sha2::{Digest, Sha256};

use super::generate::{PreparedPrompt, queued};
use super::ticket::Events;
use super::{positions, prompt};
use crate::backend::Backend;
use crate::cache::Span;
use crate::error::Result;
use crate::method::Method;
use crate::model::{Model, Prompt};
use crate::sample::SamplerOptions;
use crate::sequence::Sequence;
use crate::text::{Encoded, StopStrings};
use crate::wire::{GenerateRequest, SourceText, Timings};

/// Prefixes that were read, the one that was wanted last in front.
pub(super) struct Reuse<B: Backend> {
    /// Most bytes of all of them; 0: nothing is kept.
    most: u64,
    kept: VecDeque<(Key, Sequence<B::Memory>)>,
}

/// A hash of all that the entries of a prefix hang on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key([u8; 32]);

/// The part of a prompt behind its last picture, and how to go on from it.
pub(super) struct Rest {
    prompt: Prompt,
    context: Vec<u32>,
    history: Vec<u32>,
    room: usize,
    trim: bool,
    sampler: SamplerOptions,
    stop: StopStrings,
    ignore_eos: bool,
    logprobs: Option<usize>,
}

/// A prompt in two parts.
pub(super) enum Halves<B: Backend> {
    /// The first was read before.
    Known(Box<PreparedPrompt<B>>),
    /// The first is to be read.
    New(Box<PreparedPrompt<B>>, Box<(Key, Rest)>),
}

impl Rest {
    /// The second part behind a first that has been read, of whose positions `read` were read for this request.
    pub(super) fn behind<B: Backend>(
        self,
        sequence: Sequence<B::Memory>,
        timings: Timings,
        read: usize,
    ) -> PreparedPrompt<B> {
        let Rest { prompt, context, history, room, trim, sampler, stop, ignore_eos, logprobs } = self;
        let features = Vec::new();
        PreparedPrompt {
            prompt,
            features,
            sequence,
            context,
            history,
            room,
            trim,
            sampler,
            stop,
            ignore_eos,
            logprobs,
            timings,
            read,
            silent: false,
        }
    }
}

impl<B: Backend> Reuse<B> {
    pub(super) fn new(most: u64) -> Self {
        Reuse { most, kept: VecDeque::new() }
    }

    pub(super) fn is_on(&self) -> bool {
        self.most > 0
    }

    /// Frees the prefix that nobody has wanted for longest; false when there is none.
    pub(super) fn drop_oldest(&mut self) -> bool {
        self.kept.pop_back().is_some()
    }

    fn find(&mut self, key: Key) -> Option<&Sequence<B::Memory>> {
        let place = self.kept.iter().position(|(known, _)| *known == key)?;
        let found = self.kept.remove(place)?;
        self.kept.push_front(found);
        self.kept.front().map(|(_, sequence)| sequence)
    }

    /// Keeps a first part that has been read.
    pub(super) fn put(&mut self, key: Key, sequence: &Sequence<B::Memory>) -> Result<()> {
        if sequence.account().used() > self.most || self.find(key).is_some() {
            return Ok(());
        }
        // No room for its bookkeeping is no reason to end the request.
        if let Ok(fork) = sequence.fork() {
            self.kept.push_front((key, fork));
        }
        let bytes = |kept: &VecDeque<(Key, Sequence<B::Memory>)>| -> u64 {
            kept.iter().map(|(_, sequence)| sequence.account().used()).sum()
        };
        while bytes(&self.kept) > self.most && self.drop_oldest() {}
        Ok(())
    }

    /// A request in two parts; None for one that is read whole.
    pub(super) fn halves(
        &mut self,
        model: &Model<B>,
        request: &GenerateRequest,
        images: &[Vec<u8>],
        events: &Events,
        alone: bool,
    ) -> Result<Option<Halves<B>>> {
        let order = &request.source.order;
        if !self.is_on() || order.is_empty() {
            return Ok(None);
        }
        let name = request.method.as_ref().map_or("", |method| &method.name);
        let mut sequence = model.new_sequence_with(request.method.clone(), true)?;
        if sequence.begin_prefix(name).is_err() {
            return Ok(None);
        }
        let mut timings = queued(events);
        let plans = prompt::plans(model, images, order)?;
        let Encoded { tokens, pictures } = prompt::tokens(model, &request.source, &plans)?;
        let Some(past) = pictures.last().map(|place| place + 1).filter(|past| *past < tokens.len()) else {
            return Ok(None);
        };
        let mut first = model.expand_at(&tokens[..past], &pictures, &plans, order.len())?;
        let mut rest = model.expand_at(&tokens[past..], &[], &[], 0)?;
        // The second part says how many positions are those of pictures.
        rest.image_tokens = first.image_tokens;
        // For its errors, about the prompt as it was asked.
        let room = positions::room_behind(&sequence, &first, &rest, request.max_tokens, model.max_positions())?;
        let rest = Rest {
            prompt: rest,
            history: tokens[..past].to_vec(),
            context: tokens,
            room,
            trim: matches!(request.source.text, SourceText::Messages(_)),
            sampler: request.sampler.clone(),
            stop: request.stop.clone(),
            ignore_eos: request.ignore_eos,
            logprobs: request.logprobs,
        };
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        add(Method::written(request.cache.as_ref()).as_bytes());
        add(format!("{:?} {plans:?} {order:?}", &rest.history).as_bytes());
        images.iter().for_each(|image| add(image));
        let key = Key(hash.finalize().into());
        if let Some(found) = self.find(key) {
            let sequence = found.fork()?;
            if !alone {
                prompt::admit(&sequence, &rest.prompt)?;
            }
            return Ok(Some(Halves::Known(Box::new(rest.behind(sequence, timings, 0)))));
        }
        if !alone {
            // Of both parts, before pictures are seen.
            let both: Vec<Span> = first.spans.iter().chain(&rest.prompt.spans).copied().collect();
            sequence.admit(&both)?;
        }
        let features = prompt::features(model, images, order, order.len(), sequence.pictures(), events, &mut timings)?;
        first.image_tokens = 0;
        let ready = PreparedPrompt {
            prompt: first,
            features,
            sequence,
            context: rest.context.clone(),
            history: Vec::new(),
            room: 1,
            trim: true,
            sampler: SamplerOptions::default(),
            stop: StopStrings::new(Vec::new())?,
            ignore_eos: true,
            logprobs: None,
            timings,
            read: 0,
            silent: true,
        };
        Ok(Some(Halves::New(Box::new(ready), Box::new((key, rest)))))
    }
}
