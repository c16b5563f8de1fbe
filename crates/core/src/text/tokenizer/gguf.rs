//! The tokenizer of a GGUF file, with the steps of the tokenizer.json that Hugging Face has for it.
//!
//! Two kinds: `gpt2`, byte-level BPE with its merges, whose pre-tokenizer is known by name alone; and `llama`, SentencePiece's BPE, whose
//! merges follow from the scores of the tokens.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokenizers::{AddedToken, TokenizerBuilder};

use super::super::files::unusable;
use super::bpe::Bpe;
use super::declared::Declared;
use super::vocabulary::Vocabulary;
use super::words::{Pipeline, Words};
use crate::error::{Error, Result};
use crate::weights::gguf::{Metadata, Texts};

/// `tokenizer.ggml.token_type` of the token for what no other token is, of tokens that are matched whole and never said, of others that are
/// matched whole, of those that nothing uses, and of bytes.
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
const UNUSED: i64 = 5;
const BYTE: i64 = 6;

/// What SentencePiece writes for a space.
const SPACE: &str = "\u{2581}";

/// Most bytes of a token of SentencePiece, whose own pieces have at most 16 characters unless it is told otherwise, and most merges that
/// follow from its tokens.
const MAX_PIECE: usize = 256;
const MAX_MERGES: usize = 4 << 20;

/// Tokens that end a turn or a text, whatever the file names as its end.
const ENDS: [&str; 8] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
];

/// A pre-tokenizer of byte-level BPE by its name in GGUF.
struct Splitter {
    names: &'static [&'static str],
    /// Splits into words; empty: as GPT-2 does.
    pattern: &'static str,
    /// Whether every digit is a word, before all else.
    digits: bool,
    /// Whether a word that is a token is that token, whatever the merges say.
    whole_words: bool,
    composes: bool,
    adds_bos: bool,
}

const GPT2: Splitter = Splitter {
    names: &["gpt-2", "default"],
    pattern: "",
    digits: false,
    whole_words: false,
    composes: false,
    adds_bos: false,
};

/// The pattern of Qwen2's tokenizer.json.
pub(super) const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The pattern of Llama 3's tokenizer.json.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const SPLITTERS: &[Splitter] = &[
    GPT2,
    Splitter { names: &["smollm", "starcoder"], digits: true, ..GPT2 },
    Splitter { names: &["qwen2"], pattern: QWEN2, composes: true, ..GPT2 },
    Splitter {
        names: &["llama-bpe", "llama3", "llama-v3"],
        pattern: LLAMA3,
        whole_words: true,
        adds_bos: true,
        ..GPT2
    },
    // Of Phi-4.
    Splitter { names: &["dbrx"], pattern: LLAMA3, ..GPT2 },
    // The pattern of tiktoken's o200k_base, which Phi-4-mini has.
    Splitter {
        names: &["gpt-4o"],
        pattern: concat!(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
            r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        ..GPT2
    },
    // The pattern of Mistral's tekken.
    Splitter {
        names: &["tekken"],
        pattern: concat!(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|",
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|",
            r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        whole_words: true,
        adds_bos: true,
        ..GPT2
    },
];

/// The tokens of a file, with their kinds.
struct Tokens<'a> {
    metadata: &'a Metadata,
    texts: &'a Texts,
    kinds: &'a [i64],
    /// The token that stands for an image, of a model that sees.
    image: Option<&'a str>,
}

/// The key of a value of the tokenizer.
fn key(name: &str) -> String {
    format!("tokenizer.ggml.{name}")
}

/// The parts of a tokenizer beside its model, as a tokenizer.json has them.
struct Steps {
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
}

/// A part of a tokenizer; None where it is null.
fn step<T: DeserializeOwned>(metadata: &Metadata, step: Value) -> Result<Option<T>> {
    serde_json::from_value(step).map_err(|error| unusable(metadata.path(), error))
}

impl<'a> Tokens<'a> {
    fn of(metadata: &'a Metadata) -> Result<Tokens<'a>> {
        let need = |name: &str| metadata.missing(&key(name));
        let texts = metadata.texts(&key("tokens"))?.ok_or_else(|| need("tokens"))?;
        let kinds = metadata.integers(&key("token_type"))?.ok_or_else(|| need("token_type"))?;
        if texts.is_empty() || kinds.len() != texts.len() {
            let reason = format!("{} kinds of {} tokens", kinds.len(), texts.len());
            return Err(metadata.bad(&key("token_type"), reason));
        }
        Ok(Tokens { metadata, texts, kinds, image: None })
    }

    /// The token that stands for an image, where the file does not have it.
    fn more(&self) -> Option<&'a str> {
        self.image.filter(|image| !self.texts.iter().any(|text| text == *image))
    }

    /// Tokens by their ids, but those that nothing uses.
    fn vocabulary(&self) -> Result<Vocabulary> {
        let used = self.texts.iter().zip(self.kinds).map(|(text, kind)| Some(text).filter(|_| *kind != UNUSED));
        Vocabulary::new(used.chain(self.more().map(Some))).map_err(|reason| unusable(self.metadata.path(), reason))
    }

    /// The token that the file names as its `name`: its id and its text.
    fn named(&self, name: &str) -> Result<Option<(u32, &'a str)>> {
        let key = key(&format!("{name}_token_id"));
        let Some(id) = self.metadata.size(&key)? else { return Ok(None) };
        match self.texts.get(id) {
            Some(text) => Ok(Some((id as u32, text))),
            None => Err(self.metadata.bad(&key, format!("{id}, but there are {} tokens", self.texts.len()))),
        }
    }

    /// Tokens that are matched before anything else.
    fn added(&self) -> impl Iterator<Item = AddedToken> {
        let is_image = |text: &str| Some(text) == self.image;
        let all = self.texts.iter().zip(self.kinds);
        let added = all.filter(move |(text, kind)| {
            !text.is_empty() && (matches!(**kind, UNKNOWN | CONTROL | USER_DEFINED) || is_image(text))
        });
        let added = added.map(move |(text, kind)| (text, *kind != USER_DEFINED || is_image(text)));
        let more = self.more().map(|text| (text, true));
        added.chain(more).map(|(text, special)| AddedToken::from(text, special).normalized(false))
    }

    /// The tokens around every text, as a post-processor.
    fn around(&self, bos: bool, eos: bool) -> Result<Value> {
        let bos = if bos { self.named("bos")? } else { None };
        let eos = if eos { self.named("eos")? } else { None };
        if bos.is_none() && eos.is_none() {
            return Ok(Value::Null);
        }
        let special = |(_, text): (u32, &str)| json!({ "SpecialToken": { "id": text, "type_id": 0 } });
        let template = |sequences: &[&str]| -> Vec<Value> {
            let texts = sequences.iter().map(|id| json!({ "Sequence": { "id": id, "type_id": 0 } }));
            bos.map(special).into_iter().chain(texts).chain(eos.map(special)).collect()
        };
        let entry = |(id, text): (u32, &str)| (text.to_owned(), json!({ "id": text, "ids": [id], "tokens": [text] }));
        let specials: Map<String, Value> = bos.into_iter().chain(eos).map(entry).collect();
        Ok(json!({
            "type": "TemplateProcessing", "single": template(&["A"]), "pair": template(&["A", "B"]), "special_tokens": specials,
        }))
    }
}

/// The tokenizer of a file, and the tokens that have names; `image` is the token that stands for an image, of a model that sees.
///
/// # Errors
/// [`Error::UnsupportedModel`] for a kind of tokenizer or a pre-tokenizer that is not known; [`Error::ModelFile`] for metadata that are
/// missing or contradict each other.
pub(super) fn read(metadata: &Metadata, image: Option<&str>) -> Result<(Pipeline, Declared)> {
    let tokens = Tokens { image, ..Tokens::of(metadata)? };
    let kind = metadata.text(&key("model"))?.ok_or_else(|| metadata.missing(&key("model")))?;
    let (steps, model) = match kind {
        "gpt2" => byte_level(&tokens)?,
        "llama" => sentence_piece(&tokens)?,
        other => {
            let other: String = other.chars().take(40).collect();
            let known = "`gpt2` (byte-level BPE) and `llama` (SentencePiece)";
            return Err(unknown(metadata, format!("a tokenizer of the kind {other:?}; known are {known}")));
        }
    };
    let bad = |error: tokenizers::Error| unusable(metadata.path(), error);
    let builder = TokenizerBuilder::new()
        .with_model(Words::Ours(model))
        .with_normalizer(step(metadata, steps.normalizer)?)
        .with_pre_tokenizer(step(metadata, steps.pre_tokenizer)?)
        .with_post_processor(step(metadata, steps.post_processor)?)
        .with_decoder(step(metadata, steps.decoder)?);
    let mut pipeline: Pipeline = builder.build().map_err(bad)?;
    pipeline.add_tokens(tokens.added()).map_err(bad)?;
    let mut named = Vec::new();
    for (name, in_file) in [
        ("bos_token", "bos"),
        ("eos_token", "eos"),
        ("unk_token", "unknown"),
        ("sep_token", "seperator"),
        ("pad_token", "padding"),
    ] {
        if let Some((_, text)) = tokens.named(in_file)? {
            named.push((name.to_owned(), text.to_owned()));
        }
    }
    named.extend(image.map(|image| ("image_token".to_owned(), image.to_owned())));
    Ok((pipeline, Declared { named, tokens: Vec::new(), ids: Vec::new() }))
}

/// The tokens that end an answer: those that the file names, and those of its control tokens that are known to end turns.
///
/// # Errors
/// [`Error::ModelFile`] for an id that is no token.
pub(crate) fn ends(metadata: &Metadata) -> Result<Vec<u32>> {
    let tokens = Tokens::of(metadata)?;
    let mut ends = Vec::new();
    for name in ["eos", "eot", "eom"] {
        ends.extend(tokens.named(name)?.map(|(id, _)| id));
    }
    let all = tokens.texts.iter().zip(tokens.kinds).enumerate();
    let known = all.filter(|(_, (text, kind))| **kind == CONTROL && ENDS.contains(text));
    ends.extend(known.map(|(id, _)| id as u32));
    ends.sort_unstable();
    ends.dedup();
    Ok(ends)
}

fn unknown(metadata: &Metadata, reason: String) -> Error {
    Error::UnsupportedModel { reason: format!("{} asks for {reason}", metadata.path().display()), known: vec![] }
}

fn byte_level(tokens: &Tokens<'_>) -> Result<(Steps, Bpe)> {
    let metadata = tokens.metadata;
    let name = metadata.text(&key("pre"))?.ok_or_else(|| metadata.missing(&key("pre")))?;
    let Some(splitter) = SPLITTERS.iter().find(|splitter| splitter.names.contains(&name)) else {
        let name: String = name.chars().take(40).collect();
        let known: Vec<&str> = SPLITTERS.iter().flat_map(|splitter| splitter.names).copied().collect();
        let reason = format!(
            "the pre-tokenizer {name:?}; known are {}. With another one the model would see other tokens than it was trained on",
            known.join(", ")
        );
        return Err(unknown(metadata, reason));
    };
    let merges = metadata.texts(&key("merges"))?.ok_or_else(|| metadata.missing(&key("merges")))?;
    if let Some(merge) = merges.iter().find(|merge| !merge.contains(' ')) {
        return Err(metadata.bad(&key("merges"), format!("{merge:?}, where two tokens are expected")));
    }
    let pairs = merges.iter().map(|merge| merge.split_once(' ').unwrap_or_default());
    let bytes = |use_regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex });
    let mut steps = Vec::new();
    if splitter.digits {
        steps.push(json!({ "type": "Digits", "individual_digits": true }));
    }
    if !splitter.pattern.is_empty() {
        steps.push(json!({ "type": "Split", "pattern": { "Regex": splitter.pattern }, "behavior": "Isolated", "invert": false }));
    }
    steps.push(bytes(splitter.pattern.is_empty()));
    let flag = |name: &str, default: bool| Ok::<_, Error>(metadata.flag(&key(name))?.unwrap_or(default));
    let steps = Steps {
        normalizer: if splitter.composes { json!({ "type": "NFC" }) } else { Value::Null },
        pre_tokenizer: json!({ "type": "Sequence", "pretokenizers": steps }),
        post_processor: tokens.around(flag("add_bos_token", splitter.adds_bos)?, flag("add_eos_token", false)?)?,
        decoder: bytes(true),
    };
    let model = Bpe::new(tokens.vocabulary()?, pairs, None, false, splitter.whole_words);
    Ok((steps, model.map_err(|reason| unusable(metadata.path(), reason))?))
}

fn sentence_piece(tokens: &Tokens<'_>) -> Result<(Steps, Bpe)> {
    let metadata = tokens.metadata;
    let scores = metadata.numbers(&key("scores"))?.ok_or_else(|| metadata.missing(&key("scores")))?;
    if scores.len() != tokens.texts.len() {
        let reason = format!("{} scores of {} tokens", scores.len(), tokens.texts.len());
        return Err(metadata.bad(&key("scores"), reason));
    }
    let flag = |name: &str, default: bool| Ok::<_, Error>(metadata.flag(&key(name))?.unwrap_or(default));
    let maps = metadata.get(&key("precompiled_charsmap")).is_some();
    if maps || flag("remove_extra_whitespaces", false)? {
        let reason =
            "a tokenizer that rewrites texts before it reads them (precompiled_charsmap, remove_extra_whitespaces)";
        return Err(unknown(metadata, reason.into()));
    }
    let prefix = flag("add_space_prefix", true)?;
    let space = json!({ "type": "Replace", "pattern": { "String": " " }, "content": SPACE });
    let normalizers = match prefix {
        true => vec![json!({ "type": "Prepend", "prepend": SPACE }), space],
        false => vec![space],
    };
    let mut decoders = vec![
        json!({ "type": "Replace", "pattern": { "String": SPACE }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if prefix {
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    let steps = Steps {
        normalizer: json!({ "type": "Sequence", "normalizers": normalizers }),
        pre_tokenizer: Value::Null,
        post_processor: tokens.around(flag("add_bos_token", true)?, flag("add_eos_token", false)?)?,
        decoder: json!({ "type": "Sequence", "decoders": decoders }),
    };
    let unknown = tokens.named("unknown")?.map(|(_, text)| text);
    let has_bytes = tokens.kinds.contains(&BYTE);
    let merges = merges(tokens, scores)?;
    let pairs = merges.iter().map(|merge| merge.pair(tokens));
    let model = Bpe::new(tokens.vocabulary()?, pairs, unknown, has_bytes, false);
    Ok((steps, model.map_err(|reason| unusable(metadata.path(), reason))?))
}

/// A token that comes of two others, cut after so many of its bytes.
struct Cut {
    score: f64,
    id: u32,
    cut: u16,
    /// Characters before the cut, and behind it.
    sides: (u16, u16),
}

impl Cut {
    fn pair<'a>(&self, tokens: &Tokens<'a>) -> (&'a str, &'a str) {
        let text = tokens.texts.get(self.id as usize).unwrap_or_default();
        text.split_at_checked(usize::from(self.cut)).unwrap_or_default()
    }
}

/// The pairs of tokens that make another token, the one with the better score first. Where a token comes of several pairs, that with the
/// longer left part goes first, as in transformers' conversion.
fn merges(tokens: &Tokens<'_>, scores: &[f64]) -> Result<Vec<Cut>> {
    let bad = |reason: String| Err(tokens.metadata.bad(&key("tokens"), reason));
    let is_plain = |kind: i64| !matches!(kind, UNKNOWN | CONTROL | USER_DEFINED | UNUSED | BYTE);
    let plain = tokens.texts.iter().zip(tokens.kinds).map(|(text, kind)| Some(text).filter(|_| is_plain(*kind)));
    let plain = Vocabulary::new(plain).map_err(|reason| unusable(tokens.metadata.path(), reason))?;
    let mut cuts = Vec::new();
    for (text, id) in plain.all() {
        if text.len() > MAX_PIECE {
            return bad(format!("a token of {} bytes; SentencePiece's have at most {MAX_PIECE}", text.len()));
        }
        let length = text.chars().count() as u16;
        for (before, (at, _)) in text.char_indices().enumerate().skip(1) {
            let (left, right) = text.split_at(at);
            if plain.id(left).is_some() && plain.id(right).is_some() {
                let sides = (before as u16, length - before as u16);
                cuts.push(Cut { score: scores[id as usize], id, cut: at as u16, sides });
            }
        }
        if cuts.len() > MAX_MERGES {
            return bad(format!("tokens that come of more than {MAX_MERGES} pairs of others"));
        }
    }
    cuts.sort_by(|a, b| b.score.total_cmp(&a.score).then(b.sides.cmp(&a.sides)));
    Ok(cuts)
}

/// The chat template of a file.
///
/// # Errors
/// [`Error::ModelFile`] when it is no text.
pub(crate) fn chat_template(metadata: &Metadata) -> Result<Option<String>> {
    Ok(metadata.text("tokenizer.chat_template")?.map(str::to_owned))
}
