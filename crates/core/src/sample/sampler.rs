//! Drawing a token.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::candidates::Candidates;
use super::{SamplerOptions, argmax};
use crate::{Error, Result};

/// Chooses the tokens of one sequence, in the order of steps that transformers has: repetition penalty (and behind it the
/// penalties of OpenAI), temperature, top-k, top-p, min-p, then a draw.
#[derive(Debug)]
pub struct Sampler {
    options: SamplerOptions,
    seed: u64,
    random: ChaCha8Rng,
    candidates: Candidates,
    penalised: Penalised,
    /// How often each token was chosen, where that matters.
    chosen: HashMap<u32, u32>,
}

impl Sampler {
    /// Without a seed in the options, a random one below 2^53 (a JavaScript number holds it) is taken.
    ///
    /// # Errors
    /// As [`SamplerOptions::validate`].
    pub fn new(options: &SamplerOptions) -> Result<Sampler> {
        options.validate()?;
        let seed = options.seed.unwrap_or_else(fresh_seed);
        Ok(Sampler {
            options: options.clone(),
            seed,
            random: ChaCha8Rng::seed_from_u64(seed),
            candidates: Candidates::default(),
            penalised: Penalised::default(),
            chosen: HashMap::new(),
        })
    }

    /// The next token. `history` is the prompt and what was generated; ids past the logits are ignored. The logits are
    /// changed.
    ///
    /// # Errors
    /// [`Error::Numbers`] when the logits are empty, have NaN or infinity, or are minus infinity throughout.
    pub fn sample(&mut self, logits: &mut [f32], history: &[u32]) -> Result<u32> {
        let token = self.choose(logits, history)?;
        if self.counts() {
            *self.chosen.entry(token).or_default() += 1;
        }
        Ok(token)
    }

    /// Whether every token is the likeliest, by the logits as they come.
    pub fn is_greedy(&self) -> bool {
        self.options.temperature == 0.0 && self.options.repetition_penalty == 1.0 && !self.counts()
    }

    fn counts(&self) -> bool {
        self.options.frequency_penalty != 0.0 || self.options.presence_penalty != 0.0
    }

    fn choose(&mut self, logits: &mut [f32], history: &[u32]) -> Result<u32> {
        if self.options.repetition_penalty != 1.0 {
            self.penalised.apply(self.options.repetition_penalty, logits, history);
        }
        if self.counts() {
            let SamplerOptions { frequency_penalty, presence_penalty, .. } = self.options;
            for (&token, &count) in &self.chosen {
                if let Some(logit) = logits.get_mut(token as usize) {
                    *logit -= count as f32 * frequency_penalty + presence_penalty;
                }
            }
        }
        let best = argmax(logits);
        let max = logits.get(best).copied().unwrap_or(f32::NEG_INFINITY);
        if !max.is_finite() || logits.iter().any(|logit| logit.is_nan()) {
            return Err(Error::Numbers {
                reason: complaint(logits, self.options.repetition_penalty),
                fits: Vec::new(),
            });
        }
        if self.options.temperature == 0.0 {
            return token(best);
        }
        self.narrow(logits, max);
        let point = (self.random.next_u64() >> 11) as f64 * (-53f64).exp2();
        match self.candidates.at(point) {
            Some(token) => Ok(token),
            None => token(best),
        }
    }

    /// The seed in use.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    fn narrow(&mut self, logits: &[f32], max: f32) {
        self.candidates.fill(logits, max, self.options.temperature);
        self.candidates.top_k(self.options.top_k);
        self.candidates.top_p(self.options.top_p);
        self.candidates.min_p(self.options.min_p);
    }
}

fn token(index: usize) -> Result<u32> {
    u32::try_from(index).map_err(|_| Error::Internal(format!("{index} is no token id")))
}

fn complaint(logits: &[f32], penalty: f32) -> String {
    let nan = logits.iter().filter(|logit| logit.is_nan()).count();
    let infinite = logits.iter().filter(|logit| logit.is_infinite()).count();
    let found = format!("no token can be chosen: of {} logits, {nan} are NaN and {infinite} infinite", logits.len());
    match penalty {
        1.0 => format!("{found}; take another revision of the model, or other `weights`"),
        _ => format!("{found} after a `repetitionPenalty` of {penalty}; take one nearer to 1"),
    }
}

fn fresh_seed() -> u64 {
    // The standard library seeds every RandomState from the operating system.
    RandomState::new().build_hasher().finish() >> 11
}

/// Applies the repetition penalty once per distinct token.
#[derive(Debug, Default)]
struct Penalised {
    /// For each token, the round in which it was last penalised; saves clearing a set at each step.
    rounds: Vec<u64>,
    round: u64,
}

impl Penalised {
    fn apply(&mut self, penalty: f32, logits: &mut [f32], history: &[u32]) {
        self.rounds.resize(logits.len(), 0);
        self.round += 1;
        for &token in history {
            let index = token as usize;
            let Some(logit) = logits.get_mut(index) else { continue };
            if self.rounds[index] != self.round {
                self.rounds[index] = self.round;
                *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
            }
        }
    }
}

#[cfg(test)]
mod tests;
