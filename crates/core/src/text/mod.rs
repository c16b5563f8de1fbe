//! Text in and out: tokenizer, chat template, incremental decoding and stop strings.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bound;
mod detokenize;
mod files;
mod stop;
mod template;
mod tokenizer;

#[cfg(test)]
mod fixtures;

pub use {
    detokenize::Detokenizer,
    stop::{StopStrings, Stopped},
    template::{ChatTemplate, Content, Message, Part},
    tokenizer::Tokenizer,
};
