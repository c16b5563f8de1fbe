//! The model of a tokenizer: [`Bpe`], or one of `tokenizers`' own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::BpeTrainer;
use tokenizers::{
    DecoderWrapper, Model, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, Token,
    TokenizerImpl,
};

use super::bpe::Bpe;

/// A tokenizer of `tokenizers` whose model may be ours.
pub(in crate::text) type Pipeline =
    TokenizerImpl<Words, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// How words become tokens.
#[derive(Serialize)]
#[serde(untagged)]
pub(in crate::text) enum Words {
    /// Of a GGUF file.
    Ours(Bpe),
    /// Of a tokenizer.json.
    Theirs(ModelWrapper),
}

impl Words {
    /// Bytes of the longest token.
    pub(in crate::text) fn longest(&self) -> usize {
        match self {
            Words::Ours(bpe) => bpe.vocabulary().longest(),
            Words::Theirs(model) => model.get_vocab().keys().map(String::len).max().unwrap_or(0),
        }
    }

    /// Whether words are merged of their characters, and if so, whether a character that is no token may be the tokens of its bytes.
    pub(in crate::text) fn merges(&self) -> Option<bool> {
        match self {
            Words::Ours(bpe) => Some(bpe.has_bytes()),
            Words::Theirs(ModelWrapper::BPE(bpe)) => Some(bpe.byte_fallback),
            Words::Theirs(_) => None,
        }
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ModelWrapper::deserialize(deserializer).map(Words::Theirs)
    }
}

impl Model for Words {
    type Trainer = TrainerWrapper;

    fn tokenize(&self, word: &str) -> tokenizers::Result<Vec<Token>> {
        match self {
            Words::Ours(bpe) => Ok(bpe.tokenize(word)),
            Words::Theirs(model) => model.tokenize(word),
        }
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        match self {
            Words::Ours(bpe) => bpe.vocabulary().id(token),
            Words::Theirs(model) => model.token_to_id(token),
        }
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        match self {
            Words::Ours(bpe) => bpe.vocabulary().token(id).map(str::to_owned),
            Words::Theirs(model) => model.id_to_token(id),
        }
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        match self {
            Words::Ours(bpe) => bpe.vocabulary().all().map(|(token, id)| (token.to_owned(), id)).collect(),
            Words::Theirs(model) => model.get_vocab(),
        }
    }

    fn get_vocab_size(&self) -> usize {
        match self {
            Words::Ours(bpe) => bpe.vocabulary().len(),
            Words::Theirs(model) => model.get_vocab_size(),
        }
    }

    fn save(&self, folder: &Path, prefix: Option<&str>) -> tokenizers::Result<Vec<PathBuf>> {
        match self {
            Words::Ours(_) => Err("the tokenizer of a GGUF file is not written to a folder".into()),
            Words::Theirs(model) => model.save(folder, prefix),
        }
    }

    fn get_trainer(&self) -> TrainerWrapper {
        match self {
            Words::Ours(_) => BpeTrainer::default().into(),
            Words::Theirs(model) => model.get_trainer(),
        }
    }
}
