//! Text in and out: tokenizer, chat template, incremental decoding and stop strings.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::single_range_in_vec_init))]

mod bound;
mod detokenize;
mod expansion;
mod files;
mod jinja;
mod stop;
mod template;
mod token_bytes;
mod tokenizer;

#[cfg(test)]
mod fixtures;

pub(crate) use tokenizer::{declared_id, gguf::ends};

pub use {
    detokenize::Detokenizer,
    expansion::Written,
    stop::{StopStrings, Stopped},
    template::{ChatTemplate, Content, Message, Part, Probed, Rendered, ToolCall},
    tokenizer::{Encoded, SpecialTokens, Tokenizer},
};
