//! Text to token ids and back.

use std::collections::HashSet;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::Value;
use tokenizers::DecoderWrapper;

use super::bound::bytes_per_token;
use super::files::{read_json, read_text, unusable};
use crate::{Error, Result};

/// Longest text that is encoded, in bytes.
const MAX_TEXT: usize = 4 << 20;

/// The tokenizer of a model folder, with the names of its special tokens.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special: HashSet<u32>,
    bos: Option<String>,
    eos: Option<String>,
    eos_id: Option<u32>,
    adds_bos: bool,
    vocab_size: usize,
    decoding: Decoding,
    /// See [`bytes_per_token`]; found when a long text comes.
    bytes_per_token: OnceLock<Option<usize>>,
}

/// What decides which of the decoded text is final.
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
    /// Reads tokenizer.json, and tokenizer_config.json and special_tokens_map.json where they exist.
    ///
    /// Truncation and padding that tokenizer.json may ask for are switched off.
    ///
    /// # Errors
    /// [`Error::ModelNotFound`] without a tokenizer.json, [`Error::ModelFile`] for a file that cannot be used.
    pub fn from_folder(dir: &Path) -> Result<Tokenizer> {
        let path = dir.join("tokenizer.json");
        let Some(text) = read_text(&path)? else { return Err(missing(dir)) };
        let mut inner = tokenizers::Tokenizer::from_bytes(text).map_err(|error| unusable(&path, error))?;
        inner.with_truncation(None).map_err(|error| unusable(&path, error))?;
        inner.with_padding(None);

        let config = read_json(&dir.join("tokenizer_config.json"))?;
        let map = read_json(&dir.join("special_tokens_map.json"))?;
        let named = |name: &str| [&config, &map].into_iter().flatten().find_map(|json| token_text(&json[name]));
        let bos = named("bos_token");
        let eos = named("eos_token");

        let special = inner.get_added_vocabulary().get_added_tokens_decoder();
        let special = special.iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect();
        let eos_id = eos.as_deref().and_then(|eos| inner.token_to_id(eos));
        let bos_id = bos.as_deref().and_then(|bos| inner.token_to_id(bos));
        let empty = inner.encode_fast("", true).map_err(|error| unusable(&path, error))?;
        let adds_bos = bos_id.is_some() && empty.get_ids().first().copied() == bos_id;
        let vocab_size = inner.get_vocab_size(true);
        let decoding = decoding(&inner);
        Ok(Tokenizer {
            inner,
            special,
            bos,
            eos,
            eos_id,
            adds_bos,
            vocab_size,
            decoding,
            bytes_per_token: OnceLock::new(),
        })
    }

    /// The token ids of a text. Special tokens that are written out in the text are recognised;
    /// `add_special_tokens` also adds those that the tokenizer puts around every text.
    ///
    /// # Errors
    /// [`Error::Prompt`] for more than 4 MiB, or text that the tokenizer cannot encode.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        if text.len() > MAX_TEXT {
            return Err(Error::Prompt {
                reason: format!("the text has {} bytes; at most {MAX_TEXT} are encoded", text.len()),
            });
        }
        let encoding = self
            .inner
            .encode_fast(text, add_special_tokens)
            .map_err(|error| Error::Prompt { reason: format!("the text cannot be encoded: {error}") })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Like [`Tokenizer::encode`] with special tokens, but no second BOS when the text already begins with the BOS
    /// token's text, as chat templates often write it.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        let mut tokens = self.encode(text, true)?;
        if self.adds_bos && self.bos().is_some_and(|bos| text.starts_with(bos)) && tokens.first() == tokens.get(1) {
            tokens.remove(0);
        }
        Ok(tokens)
    }

    /// A number of tokens that [`Tokenizer::encode`] cannot fall below, found without encoding; 0 where there is none to be found.
    pub fn least_tokens(&self, text: &str) -> usize {
        let most = self.bytes_per_token.get_or_init(|| bytes_per_token(&self.inner));
        most.map_or(0, |most| text.len() / most)
    }

    /// The text of token ids; ids outside the vocabulary have no text. Bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`Error::Internal`] when the tokenizer's decoder fails.
    pub fn decode(&self, tokens: &[u32], skip_special_tokens: bool) -> Result<String> {
        self.inner
            .decode(tokens, skip_special_tokens)
            .map_err(|error| Error::Internal(format!("the tokenizer's decoder failed: {error}")))
    }

    /// The id of a token's exact text.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token as the vocabulary writes it, which is not its decoded text.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The text of the token that begins a sequence.
    pub fn bos(&self) -> Option<&str> {
        self.bos.as_deref()
    }

    /// The text of the token that ends a sequence.
    pub fn eos(&self) -> Option<&str> {
        self.eos.as_deref()
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

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size)
            .field("bos", &self.bos)
            .field("eos", &self.eos)
            .field("decoding", &self.decoding)
            .finish_non_exhaustive()
    }
}

fn decoding(tokenizer: &tokenizers::Tokenizer) -> Decoding {
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

/// A special token is written as its text, or as an object with `content`.
fn token_text(json: &Value) -> Option<String> {
    json.as_str().or_else(|| json["content"].as_str()).map(str::to_owned)
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
mod tests {
    use serde_json::json;

    use super::super::fixtures::{llama, llama_json, load, tiny_llava};
    use super::*;

    #[test]
    fn tiny_llava_as_transformers() {
        let tokenizer = tiny_llava();
        for (text, tokens, decoded) in [
            (
                "<s>USER: <image>\nWhat color is the circle? ASSISTANT:",
                vec![1, 452, 30, 225, 4, 203, 346, 444, 272, 264, 381, 35, 280, 30],
                "USER: \nWhat color is the circle? ASSISTANT:",
            ),
            (
                "A red circle \u{e9}\u{4e2d}\u{1f600}  x\n\n<image></s>",
                vec![37, 413, 381, 225, 132, 107, 165, 121, 260, 177, 258, 251, 227, 225, 225, 92, 203, 203, 4, 2],
                "A red circle \u{e9}\u{4e2d}\u{1f600}  x\n\n",
            ),
            ("\t\0 'll", vec![202, 193, 225, 11, 296], "\t\0 'll"),
        ] {
            assert_eq!(tokenizer.encode(text, false).unwrap(), tokens);
            assert_eq!(tokenizer.decode(&tokens, true).unwrap(), decoded);
        }
        assert_eq!(tokenizer.bos(), Some("<s>"));
        assert_eq!((tokenizer.eos(), tokenizer.eos_id()), (Some("</s>"), Some(2)));
        assert_eq!(tokenizer.vocab_size(), 718);
        assert_eq!(tokenizer.token_id("<image>"), Some(4));
        assert_eq!(tokenizer.token(4).as_deref(), Some("<image>"));
        assert_eq!(tokenizer.token(718), None);
    }

    #[test]
    fn bos_is_not_doubled() {
        for tokenizer in [tiny_llava(), llama()] {
            let plain = tokenizer.encode("ab", true).unwrap();
            assert_eq!(plain[0], 1);
            assert_eq!(tokenizer.encode_prompt("ab").unwrap(), plain);
            assert_eq!(tokenizer.encode_prompt("<s>ab").unwrap(), plain);
            assert_eq!(tokenizer.encode("<s>ab", true).unwrap()[..2], [1, 1]);
            assert_eq!(tokenizer.encode_prompt("<s><s>ab").unwrap()[..3], [1, 1, plain[1]]);
            assert_eq!(tokenizer.encode_prompt("").unwrap(), [1]);
        }
        let mut json = llama_json();
        json["post_processor"] = Value::Null;
        assert_eq!(load(&json).encode_prompt("<s><s>").unwrap(), [1, 1]);
    }

    #[test]
    fn truncation_of_the_file_is_off() {
        assert_eq!(llama().encode("a b a b a b a b", true).unwrap().len(), 9);
    }

    #[test]
    fn llama_round_trip() {
        let tokenizer = llama();
        let text = "ab a\n\u{1f600} \u{e9}";
        let tokens = tokenizer.encode(text, true).unwrap();
        assert_eq!(tokenizer.decode(&tokens, true).unwrap(), text);
        assert!(tokenizer.decode(&tokens, false).unwrap().starts_with("<s>"));
        assert_eq!(tokenizer.decode(&[u32::MAX, 5000], true).unwrap(), "");
    }

    #[test]
    fn too_long() {
        let error = tiny_llava().encode(&"a".repeat(MAX_TEXT + 1), true).unwrap_err();
        assert_eq!(error.code(), "prompt");
        assert!(error.to_string().contains("4194305 bytes"), "{error}");
    }

    #[test]
    fn folders_that_cannot_be_used() {
        let dir = tempfile::tempdir().unwrap();
        let fails = |code: &str, found: &str| {
            let error = Tokenizer::from_folder(dir.path()).unwrap_err();
            assert_eq!(error.code(), code, "{error}");
            assert!(error.to_string().contains(found), "{error}");
        };
        fails("model-not-found", "has no tokenizer.json");
        std::fs::write(dir.path().join("tokenizer.model"), "x").unwrap();
        fails("model-not-found", "save_pretrained");
        std::fs::write(dir.path().join("tokenizer.json"), "{").unwrap();
        fails("model-file", "tokenizer.json");
        std::fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
        fails("model-file", "tokenizer.json");
        std::fs::write(dir.path().join("tokenizer.json"), llama_json().to_string()).unwrap();
        let bare = Tokenizer::from_folder(dir.path()).unwrap();
        assert_eq!((bare.bos(), bare.eos(), bare.eos_id()), (None, None, None));
        let map = json!({ "bos_token": "<s>", "eos_token": { "content": "<nowhere>" } });
        std::fs::write(dir.path().join("special_tokens_map.json"), map.to_string()).unwrap();
        let named = Tokenizer::from_folder(dir.path()).unwrap();
        assert_eq!((named.bos(), named.eos(), named.eos_id()), (Some("<s>"), Some("<nowhere>"), None));
        std::fs::write(dir.path().join("tokenizer_config.json"), "[").unwrap();
        fails("model-file", "tokenizer_config.json");
        let error = Tokenizer::from_folder(&dir.path().join("absent")).unwrap_err();
        assert!(error.to_string().contains("is not a folder"), "{error}");
    }

    #[test]
    fn can_be_shared() {
        fn shared<T: Send + Sync>() {}
        shared::<Tokenizer>();
    }
}
