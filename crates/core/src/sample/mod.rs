//! The next token from the logits of a position.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod candidates;
mod likeliest;
mod logits;
mod options;
mod sampler;

pub use {
    likeliest::Likelihoods,
    logits::{argmax, divergence, log_softmax_at},
    options::SamplerOptions,
    sampler::Sampler,
};
