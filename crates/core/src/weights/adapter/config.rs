//! adapter_config.json: what kind of adapter it is, and the factor of each of its pairs.

use std::path::{Path, PathBuf};

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::folder::{CONFIGURATION, read_object, unusable};

pub(super) const CONFIG: &str = "adapter_config.json";
/// Highest rank of a pair.
const MAX_RANK: usize = 4096;
/// Most names that `rank_pattern` or `alpha_pattern` may have, and the most bytes that one may take when it is compiled.
const MAX_PATTERNS: usize = 10_000;
const MAX_PATTERN: usize = 1 << 20;

/// Features that change what the pairs mean, by their keys. They are switched on by whatever is not null, false or empty.
const UNKNOWN: &[(&str, &str)] = &[
    ("use_dora", "DoRA"),
    ("use_qalora", "QA-LoRA"),
    ("use_bdlora", "BD-LoRA"),
    ("lora_bias", "biases of `lora_B`"),
    ("alora_invocation_tokens", "activated LoRA, which begins in the middle of a prompt"),
    ("arrow_config", "Arrow, which chooses among adapters for each token"),
    ("kasa_config", "KaSA"),
    ("monteclora_config", "MonteCLoRA"),
    ("layer_replication", "replicated layers"),
    ("target_parameters", "adapters of bare parameters"),
    ("trainable_token_indices", "single tokens of the embeddings"),
];

/// Beginnings of `init_lora_weights` by which training starts from another model than the one that it names.
const OTHER_BASES: &[&str] = &["pissa", "olora", "corda", "loftq", "lora_ga"];

/// The checked configuration of an adapter.
#[derive(Debug)]
pub(super) struct AdapterConfig {
    path: PathBuf,
    rank: usize,
    alpha: f64,
    /// Whether the factor is `alpha / sqrt(rank)`.
    stabilised: bool,
    ranks: Vec<(Regex, usize)>,
    alphas: Vec<(Regex, f64)>,
    /// The modules that it holds whole, as it names them.
    pub(super) whole: Vec<String>,
    /// Whether an output layer that is the embeddings stays that when these are changed.
    pub(super) ties: bool,
    /// The model that it says it was made for.
    pub(super) base: Option<String>,
}

impl AdapterConfig {
    /// Reads the file of the folder `dir`.
    pub(super) fn read(dir: &Path) -> Result<AdapterConfig> {
        let missing = |path: &Path, reason: &str| Error::ModelNotFound { path: path.to_owned(), reason: reason.into() };
        if !dir.is_dir() {
            return Err(missing(
                dir,
                "is not a folder: an adapter is one with adapter_config.json and adapter_model.safetensors",
            ));
        }
        let path = dir.join(CONFIG);
        match read_object(&path, CONFIGURATION)? {
            Some(root) => AdapterConfig::parse(path, &root),
            None if dir.join("config.json").exists() => {
                Err(missing(&path, "is missing, but there is a config.json: the folder is a model, not an adapter"))
            }
            None => Err(missing(&path, "is missing: the folder is no adapter in the format of PEFT")),
        }
    }

    pub(super) fn parse(path: PathBuf, root: &Map<String, Value>) -> Result<AdapterConfig> {
        let reader = Reader { path: &path, root };
        reader.require_known()?;
        let rank = reader.count("r")?.unwrap_or(8);
        let config = AdapterConfig {
            rank: reader.rank("r", rank)?,
            alpha: reader.number("lora_alpha")?.unwrap_or(8.0),
            stabilised: reader.flag("use_rslora")?,
            ranks: reader.patterns("rank_pattern", |value| {
                let rank = usize::try_from(value.as_u64()?).ok()?;
                (1..=MAX_RANK).contains(&rank).then_some(rank)
            })?,
            alphas: reader.patterns("alpha_pattern", |value| value.as_f64().filter(|alpha| alpha.is_finite()))?,
            whole: reader.texts("modules_to_save")?,
            ties: reader.flag("ensure_weight_tying")?,
            base: root.get("base_model_name_or_path").and_then(Value::as_str).map(shown),
            path: path.clone(),
        };
        Ok(config)
    }

    /// The factor of the pair of `module`, as the adapter names it, whose rank its tensors have as `rank`.
    ///
    /// # Errors
    /// [`Error::ModelFile`] when the configuration says another rank.
    pub(super) fn scale(&self, module: &str, rank: usize) -> Result<f32> {
        let said = found(&self.ranks, module).unwrap_or(self.rank);
        if said != rank {
            let reason = format!("says that `{module}` has rank {said}, but its tensors have {rank}");
            return Err(unusable(&self.path, reason));
        }
        let alpha = found(&self.alphas, module).unwrap_or(self.alpha);
        let divisor = if self.stabilised { (rank as f64).sqrt() } else { rank as f64 };
        Ok((alpha / divisor) as f32)
    }
}

fn found<T: Copy>(patterns: &[(Regex, T)], module: &str) -> Option<T> {
    patterns.iter().find(|(pattern, _)| pattern.is_match(module)).map(|(_, value)| *value)
}

/// A text of anybody's, in a message.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

struct Reader<'a> {
    path: &'a Path,
    root: &'a Map<String, Value>,
}

impl Reader<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.root.get(key).filter(|value| !value.is_null())
    }

    fn bad(&self, key: &str, expected: &str, value: &Value) -> Error {
        unusable(self.path, format!("`{key}` must be {expected}, found {}", shown(&value.to_string())))
    }

    fn unsupported(&self, what: &str) -> Error {
        let reason = format!(
            "{} is an adapter with {what}, which is not read: merge it in Python (`merge_and_unload`), save the model and load that",
            self.path.display()
        );
        Error::UnsupportedModel { reason, known: vec![] }
    }

    /// Refuses whatever is more than pairs and whole tensors.
    fn require_known(&self) -> Result<()> {
        match self.get("peft_type").map(|kind| kind.as_str().unwrap_or_default()) {
            Some("LORA") => {}
            Some(other) => return Err(self.unsupported(&format!("`peft_type` {:?}", shown(other)))),
            None if self.get("r").is_some() => {}
            None => {
                let reason =
                    "has neither `peft_type` nor `r`: it is no configuration of a LoRA adapter as PEFT writes it";
                return Err(unusable(self.path, reason));
            }
        }
        let is_on = |value: &Value| match value {
            Value::Null | Value::Bool(false) => false,
            Value::Array(list) => !list.is_empty(),
            Value::Object(object) => !object.is_empty(),
            _ => true,
        };
        if let Some((key, what)) = UNKNOWN.iter().find(|(key, _)| self.root.get(*key).is_some_and(is_on)) {
            return Err(self.unsupported(&format!("{what} (`{key}`)")));
        }
        match self.get("bias") {
            None => {}
            Some(Value::String(bias)) if bias == "none" => {}
            Some(bias) => {
                return Err(self.unsupported(&format!("trained biases (`bias` {})", shown(&bias.to_string()))));
            }
        }
        let init = self.get("init_lora_weights").and_then(Value::as_str).unwrap_or_default();
        if let Some(start) = OTHER_BASES.iter().find(|start| init.starts_with(**start)) {
            let reason = format!(
                "{} says `init_lora_weights` {start:?}: training began from other weights than the base model's, so the pairs do not fit \
                 these; save it in PEFT with `path_initial_model_for_weight_conversion`, which makes an ordinary adapter of it",
                self.path.display()
            );
            return Err(Error::UnsupportedModel { reason, known: vec![] });
        }
        Ok(())
    }

    fn flag(&self, key: &str) -> Result<bool> {
        self.get(key).map_or(Ok(false), |value| value.as_bool().ok_or_else(|| self.bad(key, "true or false", value)))
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        let read =
            |value: &Value| value.as_f64().filter(|n| n.is_finite()).ok_or_else(|| self.bad(key, "a number", value));
        self.get(key).map(read).transpose()
    }

    fn count(&self, key: &str) -> Result<Option<usize>> {
        let read = |value: &Value| {
            let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
            count.ok_or_else(|| self.bad(key, "a whole number", value))
        };
        self.get(key).map(read).transpose()
    }

    fn rank(&self, key: &str, rank: usize) -> Result<usize> {
        match rank {
            1..=MAX_RANK => Ok(rank),
            _ => Err(unusable(self.path, format!("`{key}` is {rank}, expected 1 to {MAX_RANK}"))),
        }
    }

    fn texts(&self, key: &str) -> Result<Vec<String>> {
        let expected = "a list of names";
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => list
                .iter()
                .map(|value| value.as_str().map(str::to_owned).ok_or_else(|| self.bad(key, expected, value)))
                .collect(),
            Some(other) => Err(self.bad(key, expected, other)),
        }
    }

    /// The values of a map from patterns, which PEFT matches with the end of a module's name.
    fn patterns<T>(&self, key: &str, of: impl Fn(&Value) -> Option<T>) -> Result<Vec<(Regex, T)>> {
        let map = match self.get(key) {
            None => return Ok(Vec::new()),
            Some(Value::Object(map)) if map.len() <= MAX_PATTERNS => map,
            Some(Value::Object(map)) => {
                let reason = format!("`{key}` has {} names, expected {MAX_PATTERNS} at most", map.len());
                return Err(unusable(self.path, reason));
            }
            Some(other) => return Err(self.bad(key, "an object", other)),
        };
        let pattern = |(name, value): (&String, &Value)| {
            let within = format!("{key}.{}", shown(name));
            let number = of(value).ok_or_else(|| self.bad(&within, "a number that makes sense", value))?;
            let pattern = RegexBuilder::new(&format!(r"^(?:.*\.)?(?:{name})$")).size_limit(MAX_PATTERN).build();
            let pattern =
                pattern.map_err(|_| unusable(self.path, format!("`{within}` is no pattern that is understood")))?;
            Ok((pattern, number))
        };
        map.iter().map(pattern).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(mut config: Value) -> Result<AdapterConfig> {
        let root = config.as_object_mut().expect("an object");
        root.entry("peft_type").or_insert(json!("LORA"));
        AdapterConfig::parse(PathBuf::from("adapter_config.json"), root)
    }

    #[test]
    fn factors_are_those_of_peft() {
        let config = parse(json!({ "r": 4, "lora_alpha": 10 })).expect("parses");
        assert_eq!(config.scale("model.layers.0.self_attn.q_proj", 4).expect("its rank"), 2.5);
        let config = parse(json!({ "r": 4, "lora_alpha": 10, "use_rslora": true })).expect("parses");
        assert_eq!(config.scale("model.layers.0.self_attn.q_proj", 4).expect("its rank"), 5.0);
        assert_eq!(parse(json!({})).expect("parses").scale("x", 8).expect("the default"), 1.0);
    }

    #[test]
    fn patterns_mean_ends_of_names() {
        let config = parse(json!({
            "r": 2, "lora_alpha": 2,
            "rank_pattern": { "k_proj": 4, "layers\\.1\\..*": 8, "^model.layers.2.mlp.up_proj": 16 },
            "alpha_pattern": { "0.self_attn.k_proj": 12 },
        }));
        let config = config.expect("parses");
        for (module, rank, scale) in [
            ("model.layers.0.self_attn.k_proj", 4, 3.0),
            ("model.layers.3.self_attn.k_proj", 4, 0.5),
            ("model.layers.10.self_attn.k_proj", 4, 0.5),
            ("model.layers.1.self_attn.q_proj", 8, 0.25),
            ("model.layers.2.mlp.up_proj", 16, 0.125),
            ("model.model.layers.2.mlp.up_proj", 2, 1.0),
            ("model.layers.0.mlp.not_k_proj", 2, 1.0),
        ] {
            assert_eq!(config.scale(module, rank).expect(module), scale, "{module}");
        }
        let error = config.scale("model.layers.0.self_attn.k_proj", 2).expect_err("another rank").to_string();
        assert!(
            error.contains("says that `model.layers.0.self_attn.k_proj` has rank 4, but its tensors have 2"),
            "{error}"
        );
    }

    #[test]
    fn other_kinds_are_refused_by_name() {
        for (config, names) in [
            (json!({ "peft_type": "LOKR" }), "LOKR"),
            (json!({ "peft_type": "PROMPT_TUNING" }), "PROMPT_TUNING"),
            (json!({ "peft_type": 3 }), "peft_type"),
            (json!({ "use_dora": true }), "DoRA"),
            (json!({ "bias": "all" }), "`bias` \"all\""),
            (json!({ "bias": "lora_only" }), "`bias` \"lora_only\""),
            (json!({ "lora_bias": true }), "`lora_bias`"),
            (json!({ "trainable_token_indices": [3] }), "trainable_token_indices"),
            (json!({ "target_parameters": ["experts.w"] }), "target_parameters"),
            (json!({ "layer_replication": [[0, 2]] }), "layer_replication"),
            (json!({ "alora_invocation_tokens": [1] }), "alora_invocation_tokens"),
            (json!({ "init_lora_weights": "pissa_niter_4" }), "path_initial_model_for_weight_conversion"),
            (json!({ "init_lora_weights": "loftq" }), "loftq"),
        ] {
            let error = parse(config.clone()).expect_err("refused");
            assert!(error.code() == "unsupported-model" && error.to_string().contains(names), "{config}: {error}");
        }
        let off = json!({
            "use_dora": false, "bias": "none", "trainable_token_indices": null, "target_parameters": [], "loftq_config": {},
            "init_lora_weights": "gaussian", "fan_in_fan_out": true, "target_modules": "all-linear", "newer_key": { "x": 1 },
        });
        parse(off).expect("nothing of it is on");
    }

    #[test]
    fn bad_values_are_named() {
        for (config, names) in [
            (json!({ "r": 0 }), "`r` is 0, expected 1 to 4096"),
            (json!({ "r": 5000 }), "`r` is 5000"),
            (json!({ "r": -1 }), "`r` must be a whole number"),
            (json!({ "lora_alpha": "much" }), "`lora_alpha` must be a number"),
            (json!({ "use_rslora": "yes" }), "`use_rslora` must be true or false"),
            (json!({ "rank_pattern": [4] }), "`rank_pattern` must be an object"),
            (json!({ "rank_pattern": { "k_proj": 0 } }), "`rank_pattern.k_proj`"),
            (json!({ "alpha_pattern": { "(": 4 } }), "`alpha_pattern.(` is no pattern"),
            (json!({ "alpha_pattern": { "(a{1000}){1000}": 4 } }), "is no pattern"),
            (json!({ "modules_to_save": "lm_head" }), "`modules_to_save` must be a list"),
        ] {
            let error = parse(config.clone()).expect_err("refused");
            assert!(error.code() == "model-file" && error.to_string().contains(names), "{config}: {error}");
        }
        let root = json!({ "fine_tune_type": "lora" });
        let error =
            AdapterConfig::parse(PathBuf::from("x"), root.as_object().expect("an object")).expect_err("not PEFT's");
        assert!(error.to_string().contains("neither `peft_type` nor `r`"), "{error}");
    }
}
