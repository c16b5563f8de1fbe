//! Text to token ids and back.

mod bpe;
mod declared;
pub(crate) mod gguf;
mod growth;
mod marked;
mod slow;
mod vocabulary;
mod words;

use std::collections::HashSet;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokenizers::DecoderWrapper;

use super::bound::bytes_per_token;
use super::files::{read_text, unusable};
use super::template::Rendered;
use crate::weights::gguf::Metadata;
use crate::{Error, Result};
use declared::Declared;
pub(crate) use declared::declared_id;
use growth::Growth;
use marked::Matcher;
pub(super) use words::Pipeline;

/// Longest text that is encoded, in bytes.
const MAX_TEXT: usize = 4 << 20;

/// The tokenizer of a model folder, with the names of its special tokens.
pub struct Tokenizer {
    inner: Pipeline,
    /// tokenizer.json, or a GGUF file.
    path: PathBuf,
    special: HashSet<u32>,
    named: Vec<(String, String)>,
    /// Tokens that a file gives another id than they have: content, file, its id.
    misplaced: Vec<(String, &'static str, u32)>,
    eos_id: Option<u32>,
    adds_bos: bool,
    vocab_size: usize,
    decoding: Decoding,
    growth: Growth,
    matcher: Matcher,
    /// See [`bytes_per_token`]; found when a long text comes.
    bytes_per_token: OnceLock<Option<usize>>,
    /// See [`Tokenizer::digest`].
    digest: OnceLock<String>,
}

/// Treatment of a special token's text within a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpecialTokens {
    /// It becomes that token, as in transformers; only an image placeholder is text.
    #[default]
    Parse,
    /// It stays text.
    Text,
}

/// A prompt as tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    pub tokens: Vec<u32>,
    /// Where the tokens are that stand for images, in order. A placeholder's id elsewhere is a token like any other.
    pub pictures: Vec<usize>,
}

/// The kind of decoding, which decides how much of the decoded text is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decoding {
    /// Every token is a piece of UTF-8 bytes (GPT-2 style).
    ByteLevel,
    /// Tokens are text, but `<0xHH>` tokens are bytes and are decoded run by run (SentencePiece style).
    ByteFallback,
    /// Anything else.
    Plain,
}

impl Tokenizer {
    /// A hash of all that it does, the same wherever its files lie.
    pub(crate) fn digest(&self) -> Result<String> {
        if let Some(digest) = self.digest.get() {
            return Ok(digest.clone());
        }
        let written = self.inner.to_string(false).map_err(|error| Error::Internal(error.to_string()))?;
        let digits: String = Sha256::digest(written).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(self.digest.get_or_init(|| format!("sha256:{digits}")).clone())
    }

    /// Reads tokenizer.json, and as transformers merges them tokenizer_config.json, special_tokens_map.json and added_tokens.json: tokens
    /// that only these declare are added, with the next free ids. Of a Qwen2 tokenizer without a tokenizer.json, vocab.json and merges.txt
    /// take its place.
    ///
    /// Truncation and padding that tokenizer.json may ask for are switched off.
    ///
    /// # Errors
    /// [`Error::ModelNotFound`] without a tokenizer.json, [`Error::ModelFile`] for a file that cannot be used.
    pub fn from_folder(dir: &Path) -> Result<Tokenizer> {
        let path = dir.join("tokenizer.json");
        let (path, text) = match read_text(&path)? {
            Some(text) => (path, text),
            None => slow::written(dir)?.ok_or_else(|| missing(dir))?,
        };
        let declared = Declared::read(dir, &text)?;
        guarded(&path, || {
            let inner = Pipeline::from_bytes(text).map_err(|error| unusable(&path, error))?;
            Self::build(path.clone(), inner, declared)
        })?
    }

    /// The tokenizer of a GGUF file. `image` is the text of the token that stands for an image, which is added where the file has none; None of
    /// a text-only model.
    ///
    /// # Errors
    /// [`Error::UnsupportedModel`] for a kind or a pre-tokenizer that is not known; [`Error::ModelFile`] for metadata that cannot be used.
    pub fn from_gguf(metadata: &Metadata, image: Option<&str>) -> Result<Tokenizer> {
        let path = metadata.path().to_owned();
        guarded(&path, || {
            let (inner, declared) = gguf::read(metadata, image)?;
            Self::build(path.clone(), inner, declared)
        })?
    }

    fn build(path: PathBuf, mut inner: Pipeline, declared: Declared) -> Result<Tokenizer> {
        let bad = |error: tokenizers::Error| unusable(&path, error);
        inner.with_truncation(None).map_err(bad)?;
        inner.with_padding(None);
        let growth = Growth::of(&inner).map_err(|reason| unusable(&path, reason))?;
        let Declared { named, tokens, ids } = declared;
        inner.add_tokens(tokens).map_err(bad)?;

        let misplaced =
            ids.into_iter().filter(|(token, _, id)| inner.token_to_id(token).is_some_and(|found| found != *id));
        let misplaced = misplaced.collect();
        let special = inner.get_added_vocabulary().get_added_tokens_decoder();
        let special = special.iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect();
        let token = |name: &str| named.iter().find(|(found, _)| found == name).map(|(_, token)| token.as_str());
        let eos_id = token("eos_token").and_then(|eos| inner.token_to_id(eos));
        let bos_id = token("bos_token").and_then(|bos| inner.token_to_id(bos));
        // Some tokenizers panic at any text at all.
        inner.encode_fast("a b\n<c>", true).map_err(bad)?;
        let empty = inner.encode_fast("", true).map_err(bad)?;
        let adds_bos = bos_id.is_some() && empty.get_ids().first().copied() == bos_id;
        let vocab_size = inner.get_vocab_size(true);
        let decoding = decoding(&inner);
        let matcher = Matcher::new(&inner).map_err(|reason| unusable(&path, reason))?;
        Ok(Tokenizer {
            inner,
            path,
            special,
            named,
            misplaced,
            eos_id,
            adds_bos,
            vocab_size,
            decoding,
            bytes_per_token: OnceLock::new(),
            digest: OnceLock::new(),
            growth,
            matcher,
        })
    }

    /// The token ids of a text. Special tokens that are written out in the text are recognised;
    /// `add_special_tokens` also adds those that the tokenizer puts around every text.
    ///
    /// # Errors
    /// [`Error::Prompt`] for more than 4 MiB, or text that the tokenizer cannot encode; [`Error::ModelFile`] for a tokenizer that fails.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        self.check_length(text)?;
        let encoding = guarded(&self.path, || self.inner.encode_fast(text, add_special_tokens))?;
        Ok(encoding.map_err(cannot_encode)?.get_ids().to_vec())
    }

    fn check_length(&self, text: &str) -> Result<()> {
        let most = self.growth.most_text(MAX_TEXT);
        if text.len() > most {
            return Err(Error::Prompt {
                reason: format!("the text has {} bytes; at most {most} are encoded", text.len()),
            });
        }
        Ok(())
    }

    /// Like [`Tokenizer::encode`] with special tokens, but no second BOS when the text already begins with the BOS
    /// token's text, as chat templates often write it.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.without_second_bos(text, self.encode(text, true)?))
    }

    /// Like [`Tokenizer::encode_prompt`], of a prompt in which every placeholder is an image.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_raw(&self, text: &str, placeholder: Option<u32>) -> Result<Encoded> {
        let tokens = self.encode_prompt(text)?;
        let pictures =
            tokens.iter().enumerate().filter(|(_, token)| Some(**token) == placeholder).map(|(at, _)| at).collect();
        Ok(Encoded { tokens, pictures })
    }

    /// The tokens of a rendered conversation: the placeholder's id where an image stands, and nowhere else for its text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_chat(&self, chat: &Rendered, placeholder: Option<u32>, special: SpecialTokens) -> Result<Encoded> {
        self.encode_shown(chat, placeholder.as_slice(), special)
    }

    /// As [`Tokenizer::encode_chat`] with several placeholders: each picture becomes the one that its text spells, else the first.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_shown(&self, chat: &Rendered, placeholders: &[u32], special: SpecialTokens) -> Result<Encoded> {
        self.check_length(&chat.text)?;
        let encoded = guarded(&self.path, || self.matcher.encode(&self.inner, chat, placeholders, special))?;
        let mut tokens = self.without_second_bos(&chat.text, encoded.map_err(cannot_encode)?);
        let spelled: Vec<(u32, Option<String>)> = placeholders.iter().map(|id| (*id, self.token(*id))).collect();
        let of = |picture: &Range<usize>| {
            let text = &chat.text[picture.clone()];
            let own = spelled.iter().find(|(_, token)| token.as_deref() == Some(text));
            own.or(spelled.first()).map(|(id, _)| *id)
        };
        let mut shown = chat.pictures.iter();
        let mut pictures = Vec::with_capacity(chat.pictures.len());
        for (at, token) in tokens.iter_mut().enumerate() {
            if *token != marked::PICTURE {
                continue;
            }
            if let Some(placeholder) = shown.next().and_then(of) {
                *token = placeholder;
                pictures.push(at);
            }
        }
        Ok(Encoded { tokens, pictures })
    }

    fn without_second_bos(&self, text: &str, mut tokens: Vec<u32>) -> Vec<u32> {
        if self.adds_bos && self.bos().is_some_and(|bos| text.starts_with(bos)) && tokens.first() == tokens.get(1) {
            tokens.remove(0);
        }
        tokens
    }

    /// A number of tokens that [`Tokenizer::encode`] cannot fall below, found without encoding; 0 where there is none to be found.
    pub fn least_tokens(&self, text: &str) -> usize {
        let most = self.bytes_per_token.get_or_init(|| bytes_per_token(&self.inner));
        most.map_or(0, |most| text.len() / most)
    }

    /// The text of token ids; ids outside the vocabulary have no text. Bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`Error::ModelFile`] when the tokenizer's decoder fails, or makes more text than memory is meant for.
    pub fn decode(&self, tokens: &[u32], skip_special_tokens: bool) -> Result<String> {
        let length = |token: u32| self.inner.id_to_token(token).map_or(0, |token| token.len());
        self.growth.check_decode(tokens, length).map_err(|reason| unusable(&self.path, reason))?;
        let decoded = guarded(&self.path, || self.inner.decode(tokens, skip_special_tokens))?;
        decoded.map_err(|error| unusable(&self.path, format!("its decoder failed: {error}")))
    }

    /// The id of a token's exact text.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token as the vocabulary writes it, which is not its decoded text.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Every named special token and its text: `bos_token`, `pad_token`, `image_token` and what else the files name, in their order.
    pub fn named(&self) -> &[(String, String)] {
        &self.named
    }

    fn name(&self, name: &str) -> Option<&str> {
        self.named.iter().find(|(found, _)| found == name).map(|(_, token)| token.as_str())
    }

    /// The text of the token that the files call `name`.
    pub fn named_token(&self, name: &str) -> Option<&str> {
        self.name(name)
    }

    /// The text of the token that begins a sequence.
    pub fn bos(&self) -> Option<&str> {
        self.name("bos_token")
    }

    /// The text of the token that ends a sequence.
    pub fn eos(&self) -> Option<&str> {
        self.name("eos_token")
    }

    /// The text of the token that the files name as the image's.
    pub fn image(&self) -> Option<&str> {
        self.name("image_token")
    }

    /// The file and the id that it gives a token, where the token has come to have another id.
    pub fn misplaced(&self, token: &str) -> Option<(&'static str, u32)> {
        self.misplaced.iter().find(|(found, ..)| found == token).map(|(_, file, id)| (*file, *id))
    }

    /// tokenizer.json, or a GGUF file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The id of [`Tokenizer::eos`]; `None` also when the vocabulary lacks it.
    pub fn eos_id(&self) -> Option<u32> {
        self.eos_id
    }

    /// Tokens in the vocabulary, added ones included. The model may have more rows (padding).
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    pub(super) fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    pub(super) fn decoding(&self) -> Decoding {
        self.decoding
    }
}

/// Runs code of `tokenizers` that may panic for what a tokenizer.json says.
fn guarded<T>(path: &Path, work: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| {
        let reason = "it cannot be used: a part of it (normalizer, pre-tokenizer, model or decoder) does not fit what it is given";
        unusable(path, reason)
    })
}

fn cannot_encode(error: tokenizers::Error) -> Error {
    Error::Prompt { reason: format!("the text cannot be encoded: {error}") }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size)
            .field("named", &self.named)
            .field("decoding", &self.decoding)
            .finish_non_exhaustive()
    }
}

/// Bytes of the longest token, added ones included.
pub(super) fn longest(tokenizer: &Pipeline) -> usize {
    let added = tokenizer.get_added_vocabulary().get_vocab();
    added.keys().map(String::len).fold(tokenizer.get_model().longest(), usize::max)
}

fn decoding(tokenizer: &Pipeline) -> Decoding {
    let steps = match tokenizer.get_decoder() {
        Some(DecoderWrapper::Sequence(sequence)) => sequence.get_decoders(),
        Some(single) => std::slice::from_ref(single),
        None => &[],
    };
    if matches!(steps, [DecoderWrapper::ByteLevel(_)]) {
        Decoding::ByteLevel
    } else if steps.iter().any(|step| matches!(step, DecoderWrapper::ByteFallback(_))) {
        Decoding::ByteFallback
    } else {
        Decoding::Plain
    }
}

fn missing(dir: &Path) -> Error {
    let reason = if !dir.is_dir() {
        "is not a folder; give the path of a model folder that has a tokenizer.json".to_owned()
    } else if let Some(slow) = ["tokenizer.model", "vocab.json"].into_iter().find(|name| dir.join(name).exists()) {
        format!(
            "has {slow} but no tokenizer.json; a fast tokenizer is needed. Make one with Python's transformers: \
             AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
        )
    } else {
        "has no tokenizer.json; download it from the model's repository into this folder".to_owned()
    };
    Error::ModelNotFound { path: dir.to_path_buf(), reason }
}

#[cfg(test)]
mod tests;
