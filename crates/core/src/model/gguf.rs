//! The configuration of a GGUF file, written as Hugging Face has it.

mod pair;
mod projectors;
mod tower;

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::config::ConfigFile;
use crate::error::{Error, Result};
use crate::text;
use crate::weights::gguf::{Architecture, Gguf, Metadata, ROPE, SHORT_ROPE, Tensor};
pub(super) use pair::{Pair, pair};

/// Keys of an architecture that change what its layers compute in ways that are not known here.
const UNKNOWN: &[&str] = &[
    "attention.clamp_kqv",
    "attention.max_alibi_bias",
    "attention.scale",
    "attention.temperature_scale",
    "embedding_scale",
    "final_logit_softcapping",
    "logit_scale",
    "residual_scale",
    "rope.scaling.alpha",
    "rope.scaling.yarn_log_multiplier",
];

const EPSILON: &str = "attention.layer_norm_rms_epsilon";

/// Metadata of one architecture.
struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: &'static str,
}

impl Keys<'_> {
    fn name(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn size(&self, name: &str) -> Result<Option<usize>> {
        self.metadata.of_all_layers(&self.name(name))
    }

    fn need(&self, name: &str) -> Result<usize> {
        self.size(name)?.ok_or_else(|| self.metadata.missing(&self.name(name)))
    }

    fn number(&self, name: &str) -> Result<Option<f64>> {
        self.metadata.number(&self.name(name))
    }

    fn text(&self, name: &str) -> Result<Option<&str>> {
        self.metadata.text(&self.name(name))
    }

    fn unsupported(&self, name: &str, reason: &str) -> Error {
        let reason = format!("{} says `{}`: {reason}", self.metadata.path().display(), self.name(name));
        Error::UnsupportedModel { reason, known: vec![] }
    }
}

/// The configuration that a config.json of the model would have.
///
/// # Errors
/// [`Error::UnsupportedModel`] for an architecture, or something that it asks for, which is not known; [`Error::ModelFile`] for metadata
/// that are missing or cannot be.
pub(super) fn config(file: &Gguf) -> Result<ConfigFile> {
    Ok(ConfigFile::of_gguf(file.path(), language(file)?, divisors(file)?))
}

/// The configuration of a language model, alone or under a tower.
fn language(file: &Gguf) -> Result<Map<String, Value>> {
    let architecture = Architecture::of(file)?;
    let keys = Keys { metadata: file.metadata(), architecture: architecture.name };
    let unknown = |name: &&&str| !architecture.knows.contains(name) && file.metadata().get(&keys.name(name)).is_some();
    if let Some(name) = UNKNOWN.iter().find(unknown) {
        return Err(keys.unsupported(name, "that is not implemented"));
    }
    if keys.size("expert_count")?.is_some_and(|experts| experts > 0) {
        return Err(keys.unsupported("expert_count", "mixtures of experts are not implemented"));
    }
    let embeddings = file.tensor("token_embd.weight").filter(|table| table.shape.len() == 2);
    let Some(embeddings) = embeddings else {
        return Err(crate::folder::unusable(file.path(), "has no table of embeddings, the tensor `token_embd.weight`"));
    };
    let heads = keys.need("attention.head_count")?;
    let hidden = keys.need("embedding_length")?;
    let width = keys.size("attention.key_length")?.or(hidden.checked_div(heads)).unwrap_or(0);
    if keys.size("attention.value_length")?.is_some_and(|values| values != width) {
        return Err(keys.unsupported("attention.value_length", "values of another width than keys are not implemented"));
    }
    let epsilon = keys.number(EPSILON)?.ok_or_else(|| keys.metadata.missing(&keys.name(EPSILON)))?;
    let has = |name: &str| file.tensor(name).is_some();
    let window = keys.size("attention.sliding_window")?.filter(|window| *window > 0);
    let model_type = match (architecture.model_type, window) {
        // llama.cpp converts both as `llama`.
        ("llama", Some(_)) => "mistral",
        (other, Some(_)) if architecture.windows => other,
        (_, Some(_)) => {
            return Err(
                keys.unsupported("attention.sliding_window", "but not which layers have it; take a file without")
            );
        }
        (other, None) => other,
    };
    let Value::Object(mut root) = json!({
        "architectures": [super::implied(model_type)],
        "model_type": model_type,
        "vocab_size": embeddings.shape[0],
        "hidden_size": hidden,
        "intermediate_size": keys.need("feed_forward_length")?,
        "num_hidden_layers": keys.need("block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": keys.size("attention.head_count_kv")?.unwrap_or(heads),
        "head_dim": width,
        "max_position_embeddings": keys.need("context_length")?,
        "rms_norm_eps": epsilon,
        "rope_scaling": scaling(file, &keys)?,
        "sliding_window": window,
        "attn_logit_softcapping": keys.number("attn_logit_softcapping")?,
        "final_logit_softcapping": keys.number("final_logit_softcapping")?,
        "tie_word_embeddings": !has("output.weight"),
        "attention_bias": has("blk.0.attn_q.bias"),
        "mlp_bias": has("blk.0.ffn_up.bias"),
        "eos_token_id": text::ends(file.metadata())?,
    }) else {
        return Err(Error::Internal("a configuration that is no object".into()));
    };
    // Where nothing is said, it is as the class has it.
    let said = [
        ("rope_theta", keys.number("rope.freq_base")?.map(|base| json!(base))),
        ("rope_local_base_freq", keys.number("rope.freq_base_swa")?.map(|base| json!(base))),
        (
            "original_max_position_embeddings",
            keys.size("rope.scaling.original_context_length")?.map(|length| json!(length)),
        ),
        ("sliding_window_pattern", keys.size("attention.sliding_window_pattern")?.map(|every| json!(every))),
    ];
    root.extend(said.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    let scalar = if architecture.scaled_by_hidden == Some(keys.need("block_count")?) { hidden / heads } else { width };
    root.insert("query_pre_attn_scalar".into(), json!(scalar));
    if let Some(part) = keys.size("rope.dimension_count")?.filter(|part| *part != width) {
        root.insert("partial_rotary_factor".into(), json!(part as f64 / width as f64));
    }
    Ok(root)
}

/// `rope_scaling` as Hugging Face has it.
fn scaling(file: &Gguf, keys: &Keys<'_>) -> Result<Value> {
    let attention = keys.number("rope.scaling.attn_factor")?;
    if let Some(short) = numbers(file, SHORT_ROPE)? {
        return Ok(json!({ "rope_type": "longrope", "short_factor": short, "attention_factor": attention }));
    }
    // Old files have the factor alone.
    let factor = match keys.number("rope.scaling.factor")? {
        Some(factor) => Some(factor),
        None => keys.number("rope.scale_linear")?,
    };
    let kind = keys.text("rope.scaling.type")?.unwrap_or("linear");
    // 0 is llama.cpp's word for no factor at all.
    let factor = factor.filter(|factor| kind != "none" && *factor != 0.0);
    let is_yarn = kind == "yarn" && factor.is_some();
    // Numbers by which queries and keys are multiplied beside what YaRN says itself.
    let mut more = 1.0;
    for name in ["rope.scaling.attn_factor", "rope.scaling.yarn_attn_factor"] {
        match keys.number(name)?.filter(|by| *by != 1.0) {
            Some(by) if is_yarn => more *= by,
            Some(_) => return Err(keys.unsupported(name, "that is implemented for YaRN alone")),
            None => {}
        }
    }
    // How much YaRN keeps of frequencies that turn often: all, which a negative number leaves to the program.
    let name = "rope.scaling.yarn_ext_factor";
    if keys.number(name)?.is_some_and(|kept| kept >= 0.0 && kept != if is_yarn { 1.0 } else { 0.0 }) {
        return Err(keys.unsupported(name, "only 1 is implemented, with YaRN"));
    }
    let Some(factor) = factor else { return Ok(Value::Null) };
    let mut section = Map::from_iter([("rope_type".to_owned(), json!(kind)), ("factor".to_owned(), json!(factor))]);
    for (theirs, ours) in [
        ("original_max_position_embeddings", "rope.scaling.original_context_length"),
        ("beta_fast", "rope.scaling.yarn_beta_fast"),
        ("beta_slow", "rope.scaling.yarn_beta_slow"),
    ] {
        section.extend(keys.number(ours)?.map(|number| (theirs.to_owned(), json!(number))));
    }
    if more != 1.0 {
        let own = if factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 };
        section.insert("attention_factor".into(), json!(own * more));
    }
    Ok(Value::Object(section))
}

/// The numbers by which a file has the frequencies of rotary embedding divided: Llama 3's scaling, worked out.
fn divisors(file: &Gguf) -> Result<Option<Arc<[f32]>>> {
    Ok(numbers(file, ROPE)?.map(Into::into))
}

/// A row of positive numbers, by which frequencies are divided.
fn numbers(file: &Gguf, name: &str) -> Result<Option<Vec<f32>>> {
    let Some(tensor) = file.tensor(name) else { return Ok(None) };
    let bad = |reason: String| crate::folder::unusable(file.path(), format!("tensor `{name}` {reason}"));
    let Tensor { shape, kind, .. } = tensor;
    if kind.name != "F32" || shape.len() != 1 || shape[0] > 4096 {
        return Err(bad(format!("is {} of shape {shape:?}, expected a row of F32", kind.name)));
    }
    let numbers: Vec<f32> = bytemuck::pod_collect_to_vec(&file.read(tensor)?);
    match numbers.iter().find(|number| !(number.is_normal() && **number > 0.0)) {
        Some(number) => Err(bad(format!("holds {number}, expected positive numbers"))),
        None => Ok(Some(numbers)),
    }
}
