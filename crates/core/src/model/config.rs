//! config.json and generation_config.json of a model folder.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::folder::{CONFIGURATION, read_object};

/// The parsed config.json of a folder, with the folder.
#[derive(Debug)]
pub struct ConfigFile {
    dir: PathBuf,
    root: Map<String, Value>,
}

impl ConfigFile {
    pub fn read(dir: &Path) -> Result<Self> {
        if !dir.is_dir() {
            let reason = "is not a folder: give the path of a folder with config.json and model.safetensors".into();
            return Err(Error::ModelNotFound { path: dir.to_owned(), reason });
        }
        let path = dir.join("config.json");
        match read_object(&path, CONFIGURATION)? {
            Some(root) => Ok(ConfigFile { dir: dir.to_owned(), root }),
            None => Err(Error::ModelNotFound { path, reason: "is missing: the folder is no model".into() }),
        }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// `architectures[0]`, or the one that `model_type` implies.
    pub fn architecture(&self) -> Result<&str> {
        let named = self.root.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str);
        let implied = || match self.root.get("model_type").and_then(Value::as_str) {
            Some("llava") => Some("LlavaForConditionalGeneration"),
            Some("llama") => Some("LlamaForCausalLM"),
            _ => None,
        };
        named.or_else(implied).ok_or_else(|| self.bad("has neither `architectures` nor a known `model_type`"))
    }

    pub fn bad(&self, reason: impl Into<String>) -> Error {
        Error::ModelFile { path: self.dir.join("config.json"), reason: reason.into() }
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

    /// Parses a section; null means "use the default", as in Hugging Face's files.
    pub fn parse<T: DeserializeOwned>(&self, mut section: Map<String, Value>) -> Result<T> {
        section.retain(|_, value| !value.is_null());
        serde_json::from_value(Value::Object(section)).map_err(|e| {
            let message = e.to_string();
            match message.contains("unknown variant") {
                true => self.unsupported(format!("config.json asks for something that is not implemented: {message}")),
                false => self.bad(message),
            }
        })
    }

    /// End-of-sequence tokens: generation_config.json's, else config.json's, else Llama's and the tokenizer's own.
    pub fn eos_tokens(&self, tokenizer: Option<u32>) -> Result<Vec<u32>> {
        let generation = read_object(&self.dir.join("generation_config.json"), CONFIGURATION)?.unwrap_or_default();
        let text = self.section(Some("text_config"))?;
        let declared =
            [&generation, &self.root, &text].into_iter().find_map(|object| match object.get("eos_token_id") {
                None | Some(Value::Null) => None,
                Some(value) => Some(value.clone()),
            });
        match declared {
            Some(Value::Array(list)) => list.iter().map(|id| self.token_id(id)).collect(),
            Some(id) => Ok(vec![self.token_id(&id)?]),
            // 2 is what Hugging Face's LlamaConfig assumes.
            None => Ok(vec![tokenizer.unwrap_or(2)]),
        }
    }

    fn token_id(&self, value: &Value) -> Result<u32> {
        value
            .as_u64()
            .and_then(|id| u32::try_from(id).ok())
            .ok_or_else(|| self.bad(format!("`eos_token_id` must be a token id or a list of them, found {value}")))
    }
}

/// What transformers makes of configurations: `tests/golden/data/configs`.
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
                (want["model_type"] == kind).then(|| (name, ConfigFile { dir: dir.clone(), root: config }, want))
            })
            .collect()
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
        assert_eq!(want["rope"]["rope_theta"].as_f64(), Some(config.rope.theta), "{name}: rope_theta");
    }
}
