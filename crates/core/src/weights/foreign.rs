//! Folders and files in other formats than safetensors: what they are, and what helps.

use std::path::Path;

use crate::error::Error;

/// Most names of a folder that are looked at.
const MAX_NAMES: usize = 10_000;

/// The error of a GGUF file that has another name.
pub(super) fn gguf(path: &Path) -> Error {
    Error::UnsupportedModel {
        reason: format!("{} is a GGUF file: give it a name that ends in .gguf, and load that", path.display()),
        known: vec![],
    }
}

/// The error of a folder that lacks config.json or weights, where its content says more than that.
pub(crate) fn instead_of_a_model(path: &Path) -> Option<Error> {
    let names = names(path);
    let adapter = names.iter().any(|name| name == "adapter_config.json");
    adapter.then(|| Error::UnsupportedModel {
        reason: format!(
            "{} holds an adapter (LoRA), not a model: load the model that it was made for, with this folder as `adapter`",
            path.display()
        ),
        known: vec![],
    })
}

/// The error of a folder without `model.safetensors` and without its index.
pub(super) fn without_weights(dir: &Path) -> Error {
    let names = names(dir);
    let found = |what: fn(&str) -> bool| names.iter().find(|name| what(name));
    let missing = |reason: String| Error::ModelNotFound { path: dir.to_owned(), reason };
    if let Some(name) = found(|name| name.starts_with("model-") && name.ends_with(".safetensors")) {
        return missing(format!("has {name}, but not model.safetensors.index.json, which says what each shard holds"));
    }
    if let Some(name) = found(|name| name.starts_with("model.") && name.ends_with(".safetensors")) {
        return missing(format!("has only {name}, a variant of the weights: rename it to model.safetensors to use it"));
    }
    if let Some(name) = found(|name| name.starts_with("model.safetensors.index.") && name.ends_with(".json")) {
        return missing(format!(
            "has only {name}, a variant of the weights: rename it to model.safetensors.index.json to use it"
        ));
    }
    let pickled = |name: &str| {
        [".bin", ".bin.index.json", ".pth", ".pt", ".ckpt"].iter().any(|ending| name.ends_with(ending))
            && ["pytorch_model", "consolidated", "model"].iter().any(|start| name.starts_with(start))
    };
    if let Some(name) = found(pickled) {
        return missing(format!("only {name} is there, and pickled weights are not read: convert to safetensors"));
    }
    if let Some(error) = instead_of_a_model(dir) {
        return error;
    }
    missing("has neither model.safetensors nor model.safetensors.index.json".into())
}

/// The names in a folder, in order.
pub(super) fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let names = entries.take(MAX_NAMES).filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}
