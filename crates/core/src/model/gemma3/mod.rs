//! Gemma 3 with a vision tower: its language model. The tower is not built, so prompts with images are refused. Gemma Team 2025,
//! arXiv 2503.19786.

use super::config::ConfigFile;
use super::llama::{Llama, LlamaConfig};
use super::network::Family;
use crate::backend::Backend;
use crate::error::Result;

const ARCHITECTURE: &str = "Gemma3ForConditionalGeneration";

/// Names on the hub, and in memory, as transformers 5 saves them.
const TEXT: &[&str] = &["language_model.model.", "model.language_model."];
const HEAD: &[&str] = &["language_model.lm_head", "lm_head"];

pub(super) fn family<B: Backend>() -> Family<B> {
    Family {
        architectures: &[ARCHITECTURE],
        implied: |model_type| (model_type == "gemma3").then_some(ARCHITECTURE),
        inspect: |file| Ok(Box::new(text(file)?)),
        load: |file, loader, loaded| Ok(Box::new(Llama::load(text(file)?, loader, TEXT, HEAD, loaded)?)),
        // Nothing of the tower is held.
        vision: &[],
    }
}

/// Whether the head is tied is said outside of the section, where transformers looks for it.
fn text(file: &ConfigFile) -> Result<LlamaConfig> {
    let mut text = LlamaConfig::parse_as(file, Some("text_config"), "gemma3_text")?;
    let root = file.section(None)?;
    text.tie_word_embeddings = root.get("tie_word_embeddings").and_then(serde_json::Value::as_bool).unwrap_or(true);
    Ok(text)
}
