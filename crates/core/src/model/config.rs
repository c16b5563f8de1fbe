//! config.json and generation_config.json of a model folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::folder::{CONFIGURATION, read_object, unusable};
use crate::weights::{instead_of_a_model, quantised};

/// The parsed config.json of a folder, with the folder; or what the metadata of a GGUF file come to.
#[derive(Debug)]
pub struct ConfigFile {
    /// The folder, or the GGUF file.
    source: PathBuf,
    /// The file that says it.
    path: PathBuf,
    root: Map<String, Value>,
    /// Numbers by which frequencies of rotary embedding are divided; only GGUF files have them.
    divisors: Option<Arc<[f32]>>,
}

impl ConfigFile {
    pub fn read(dir: &Path) -> Result<Self> {
        if let Some(error) = (!dir.join("config.json").exists()).then(|| instead_of_a_model(dir)).flatten() {
            return Err(error);
        }
        if !dir.is_dir() {
            let reason = "is not a folder: give the path of a folder with config.json and model.safetensors".into();
            return Err(Error::ModelNotFound { path: dir.to_owned(), reason });
        }
        let path = dir.join("config.json");
        match read_object(&path, CONFIGURATION)? {
            Some(root) => Ok(ConfigFile { source: dir.to_owned(), path, root, divisors: None }),
            None => Err(Error::ModelNotFound { path, reason: "is missing: the folder is no model".into() }),
        }
    }

    /// Of a GGUF file, whose metadata come to `root`.
    pub(super) fn of_gguf(path: &Path, root: Map<String, Value>, divisors: Option<Arc<[f32]>>) -> Self {
        ConfigFile { source: path.to_owned(), path: path.to_owned(), root, divisors }
    }

    /// The folder, or the GGUF file.
    pub fn dir(&self) -> &Path {
        &self.source
    }

    /// The file that says what is configured.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it comes of the metadata of a GGUF file, and the weights of the same file.
    pub(super) fn is_gguf(&self) -> bool {
        self.source == self.path
    }

    /// Numbers by which the frequencies of rotary embedding are divided, one for each.
    pub(super) fn divisors(&self) -> Option<&Arc<[f32]>> {
        self.divisors.as_ref()
    }

    /// `architectures[0]`; or the one that `model_type` implies, where that is a name of a derivative's own or there is none. transformers goes
    /// by `model_type` too.
    pub fn architecture(&self) -> Result<&str> {
        let named = self.root.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str);
        let implied = self.model_type().and_then(super::implied);
        // Classifiers and the like have the type of the model that they were made of, but are none that answers.
        let answers = |name: &str| name.ends_with("ForCausalLM") || name.ends_with("ForConditionalGeneration");
        match named {
            Some(name) if answers(name) && !super::architectures().contains(&name) => Ok(implied.unwrap_or(name)),
            Some(name) => Ok(name),
            None => implied.ok_or_else(|| self.bad("has neither `architectures` nor a known `model_type`")),
        }
    }

    /// `model_type`.
    pub(super) fn model_type(&self) -> Option<&str> {
        self.root.get("model_type")?.as_str()
    }

    /// The file of weights that is to be read in place of the usual ones.
    pub(crate) fn weights_file(&self) -> Option<&str> {
        self.root.get("transformers_weights")?.as_str()
    }

    /// The section that asks for quantised weights, and the format it names. As transformers, which looks at the language model's
    /// configuration too.
    pub(crate) fn quantisation(&self) -> Option<(&'static str, String)> {
        let text = self.root.get("text_config").or(self.root.get("llm_config")).and_then(Value::as_object);
        quantised::asked(&self.root).or_else(|| quantised::asked(text?))
    }

    /// Whether the file says something under `key`.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.root.get(key).is_some_and(|value| !value.is_null())
    }

    /// [`Error::ModelFile`] of config.json.
    pub fn bad(&self, reason: impl Into<String>) -> Error {
        Error::ModelFile { path: self.path.clone(), reason: reason.into() }
    }

    pub fn unsupported(&self, reason: impl Into<String>) -> Error {
        Error::UnsupportedModel { reason: reason.into(), known: super::architectures() }
    }

    /// The object under `key`, or the whole file for None. An absent or null key gives an empty object.
    pub fn section(&self, key: Option<&str>) -> Result<Map<String, Value>> {
        match key {
            None => Ok(self.root.clone()),
            Some(key) => match self.root.get(key) {
                None | Some(Value::Null) => Ok(Map::new()),
                Some(Value::Object(object)) => Ok(object.clone()),
                Some(other) => Err(self.bad(format!("`{key}` must be an object, found {other}"))),
            },
        }
    }

    /// Parses section `key`, or for None the whole file; null means "use the default", as in Hugging Face's files. Every field of `T` must
    /// have a default.
    pub fn parse<T: DeserializeOwned>(&self, key: Option<&str>, mut section: Map<String, Value>) -> Result<T> {
        section.retain(|_, value| !value.is_null());
        let error = match serde_json::from_value(Value::Object(section.clone())) {
            Ok(parsed) => return Ok(parsed),
            Err(error) => error.to_string(),
        };
        // The first field that cannot be parsed by itself is the one that the error is about.
        let alone = |(name, value): (&String, &Value)| {
            let field = Map::from_iter([(name.clone(), value.clone())]);
            serde_json::from_value::<T>(Value::Object(field)).is_err().then(|| path(key, name))
        };
        let at = section.iter().find_map(alone).map(|name| format!("`{name}`: ")).unwrap_or_default();
        Err(match error.contains("unknown variant") {
            true => self.unsupported(format!("config.json asks for something that is not implemented: {at}{error}")),
            false => self.bad(format!("{at}{error}")),
        })
    }

    /// Errors unless `value`, of `name` in section `key`, is above 0 and below 1, in f32 too.
    pub fn require_epsilon(&self, key: Option<&str>, name: &str, value: f64) -> Result<()> {
        if value as f32 >= f32::MIN_POSITIVE && value < 1.0 {
            return Ok(());
        }
        Err(self.bad(format!("`{}` is {value}, expected a number above 0 and below 1", path(key, name))))
    }

    /// End-of-sequence tokens: generation_config.json's, else config.json's, else Llama's and the tokenizer's own.
    ///
    /// # Errors
    /// [`Error::ModelFile`] of the file that says what cannot be a token.
    pub fn eos_tokens(&self, tokenizer: Option<u32>) -> Result<Vec<u32>> {
        const KEY: &str = "eos_token_id";
        let own = self.path.clone();
        let generation_path = self.source.join("generation_config.json");
        let generation = read_object(&generation_path, CONFIGURATION)?.unwrap_or_default();
        let text = self.section(Some("text_config"))?;
        let places =
            [(&generation, &generation_path, None), (&self.root, &own, None), (&text, &own, Some("text_config"))];
        for (object, file, key) in places {
            let id = |value: &Value| {
                value.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
                    let name = path(key, KEY);
                    unusable(file, format!("`{name}` must be a token id or a list of them, found {value}"))
                })
            };
            match object.get(KEY) {
                None | Some(Value::Null) => {}
                Some(Value::Array(list)) => return list.iter().map(id).collect(),
                Some(one) => return Ok(vec![id(one)?]),
            }
        }
        // 2 is what Hugging Face's LlamaConfig assumes.
        Ok(vec![tokenizer.unwrap_or(2)])
    }
}

/// The name of a key for a message: with its section, where it has one.
pub(crate) fn path(section: Option<&str>, name: &str) -> String {
    section.map_or_else(|| name.to_owned(), |section| format!("{section}.{name}"))
}

/// Leaves one of two spellings of a key, as `name`: what `wins` says, unless that is null or absent.
pub(crate) fn one_spelling(object: &mut Map<String, Value>, name: &str, wins: &str, loses: &str) {
    let mut take = |spelling: &str| object.remove(spelling).filter(|value| !value.is_null());
    let (first, second) = (take(wins), take(loses));
    if let Some(value) = first.or(second) {
        object.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
mod tests;

/// Configurations as transformers reads them: `tests/golden/data/configs`.
#[cfg(test)]
pub(super) mod golden {
    use super::*;
    use crate::model::llama::LlamaConfig;

    /// Name, file and resolved values of every golden of one model type.
    pub(crate) fn configs(kind: &str) -> Vec<(String, ConfigFile, Value)> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/data/configs");
        let files = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
        files
            .filter_map(|path| {
                let golden: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
                let (config, want) = (golden["config"].as_object().unwrap().clone(), golden["resolved"].clone());
                let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
                let file =
                    ConfigFile { source: dir.clone(), path: dir.join("config.json"), root: config, divisors: None };
                (want["model_type"] == kind).then_some((name, file, want))
            })
            .collect()
    }

    /// A config.json that lies nowhere.
    pub(crate) fn file(config: Value) -> ConfigFile {
        let root = config.as_object().unwrap().clone();
        ConfigFile { source: PathBuf::from("."), path: PathBuf::from("./config.json"), root, divisors: None }
    }

    pub(crate) fn check_llama(name: &str, config: &LlamaConfig, want: &Value) {
        let sizes = [
            ("hidden_size", config.hidden_size),
            ("intermediate_size", config.intermediate_size),
            ("num_hidden_layers", config.num_hidden_layers),
            ("num_attention_heads", config.num_attention_heads),
            ("num_key_value_heads", config.num_key_value_heads),
            ("head_dim", config.head_dim),
            ("max_position_embeddings", config.max_position_embeddings),
            ("vocab_size", config.vocab_size),
        ];
        for (key, got) in sizes {
            assert_eq!(want[key].as_u64(), Some(got as u64), "{name}: {key}");
        }
        let flags = [
            ("tie_word_embeddings", config.tie_word_embeddings),
            ("attention_bias", config.attention_bias),
            ("mlp_bias", config.mlp_bias),
        ];
        for (key, got) in flags {
            assert_eq!(want[key].as_bool(), Some(got), "{name}: {key}");
        }
        assert_eq!(want["rms_norm_eps"].as_f64(), Some(config.rms_norm_eps), "{name}: rms_norm_eps");
        assert_eq!(want["rope"]["rope_theta"].as_f64(), Some(config.ropes[0].theta), "{name}: rope_theta");
        let got = config.ropes[0].inverse_frequencies(config.head_dim);
        for (index, got) in [got[0], got[got.len() / 2], got[got.len() - 1]].into_iter().enumerate() {
            let want = want["frequencies"][index].as_f64().unwrap();
            assert!((f64::from(got) - want).abs() <= 2e-6 * want, "{name}: frequency {index}: {got} for {want}");
        }
    }
}
