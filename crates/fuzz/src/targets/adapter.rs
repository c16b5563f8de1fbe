//! LoRA adapters beside a sound model: their configuration, and the names and shapes of their tensors.

use std::fs;
use std::path::Path;

use prefixkv_core::weights::{Checkpoint, Layouts};
use serde_json::{Map, Value, json};

use crate::target::{Kind, Target, outcome};

/// An input is a safetensors file whose header has two parts: the configuration, and the header of the adapter's own file.
pub const TARGET: Target = Target {
    name: "adapter",
    reads: "LoRA adapters: adapter_config.json and adapter_model.safetensors",
    kind: Kind::Safetensors,
    memory: 64 << 20,
    short: 1500,
    words: || {
        &[
            "r",
            "lora_alpha",
            "use_rslora",
            "use_dora",
            "rank_pattern",
            "alpha_pattern",
            "modules_to_save",
            "fan_in_fan_out",
            "bias",
            "lora_only",
            "target_modules",
            "init_lora_weights",
            "pissa",
            "ensure_weight_tying",
            "peft_type",
            "LOKR",
            "q_proj|.*",
            "(a*)*{1000}",
            "lora_A.weight",
            "lora_B.weight",
            "lora_embedding_A",
            "lora_magnitude_vector",
            "base_model.model.",
            "model.layers.0.self_attn.q_proj",
            "lm_head",
            "embed_tokens",
            "dtype",
            "F16",
            "BF16",
            "I8",
            "shape",
            "data_offsets",
            "4097",
            "1e308",
        ]
    },
    seeds,
    run,
};

const HIDDEN: usize = 4;
const VOCABULARY: usize = 6;
/// The tensors of the model.
const MODEL: [(&str, [usize; 2]); 4] = [
    ("model.embed_tokens.weight", [VOCABULARY, HIDDEN]),
    ("model.layers.0.self_attn.q_proj.weight", [HIDDEN, HIDDEN]),
    ("model.layers.0.mlp.down_proj.weight", [HIDDEN, 8]),
    ("lm_head.weight", [VOCABULARY, HIDDEN]),
];

/// A header of f32 tensors that lie one behind the other, and their bytes.
fn tensors(shapes: &[(String, [usize; 2])]) -> (Map<String, Value>, usize) {
    let mut end = 0;
    let header = shapes.iter().map(|(name, shape)| {
        let start = end;
        end += 4 * shape[0] * shape[1];
        (name.clone(), json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, end] }))
    });
    (header.collect(), end)
}

/// A file of so many bytes of numbers, all of them small.
fn written(header: &Value, bytes: usize) -> Vec<u8> {
    let text = header.to_string();
    let data = (0..bytes / 4).flat_map(|index| ((index % 7) as f32 / 8.0).to_le_bytes());
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat().into_iter().chain(data).collect()
}

/// An input of a configuration and tensors of these names and shapes.
fn input(config: &Value, shapes: &[(String, [usize; 2])]) -> Vec<u8> {
    let named = shapes.iter().map(|(name, shape)| (format!("base_model.model.{name}"), *shape));
    let (tensors, bytes) = tensors(&named.collect::<Vec<_>>());
    written(&json!({ "config": config, "tensors": tensors }), bytes)
}

fn seeds() -> Vec<Vec<u8>> {
    let pair = |module: &str, rows: usize, columns: usize| {
        [(format!("{module}.lora_A.weight"), [2, columns]), (format!("{module}.lora_B.weight"), [rows, 2])]
    };
    let (query, down) = (pair("model.layers.0.self_attn.q_proj", 4, 4), pair("model.layers.0.mlp.down_proj", 4, 8));
    let usual = json!({ "peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "down_proj"], "bias": "none" });
    let patterns = json!({ "peft_type": "LORA", "r": 8, "lora_alpha": 16, "use_rslora": true, "rank_pattern": { ".*_proj": 2 },
        "alpha_pattern": { "q_proj": 1.5 }, "modules_to_save": ["lm_head"], "base_model_name_or_path": "org/name" });
    let table = json!({ "peft_type": "LORA", "r": 2, "ensure_weight_tying": true });
    let head = ("lm_head.weight".to_owned(), [VOCABULARY, HIDDEN]);
    let embeddings = [
        ("model.embed_tokens.lora_embedding_A".to_owned(), [2, VOCABULARY]),
        ("model.embed_tokens.lora_embedding_B".to_owned(), [HIDDEN, 2]),
    ];
    vec![
        input(&usual, &[query.clone(), down].concat()),
        input(&patterns, &[&query[..], &[head]].concat()),
        input(&table, &embeddings),
    ]
}

/// Writes the two files of an adapter; an input that is no header is its weights.
fn write(dir: &Path, data: &[u8]) {
    let usual = json!({ "peft_type": "LORA", "r": 2 });
    let header = data.first_chunk::<8>().and_then(|length| {
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let end = length.checked_add(8)?;
        let header: Value = serde_json::from_slice(data.get(8..end)?).ok()?;
        Some((header, &data[end..]))
    });
    let (config, weights) = match header {
        Some((header, numbers)) if header.get("tensors").is_some() => {
            let text = header["tensors"].to_string();
            let weights = [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), numbers].concat();
            (header.get("config").cloned().unwrap_or(usual), weights)
        }
        _ => (usual, data.to_vec()),
    };
    fs::write(dir.join("adapter_config.json"), config.to_string()).expect("a temporary file");
    fs::write(dir.join("adapter_model.safetensors"), weights).expect("a temporary file");
}

fn run(data: &[u8]) -> String {
    const CODES: &[&str] = &["model-file", "model-not-found", "unsupported-model"];
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (header, bytes) = tensors(&MODEL.map(|(name, shape)| (name.to_owned(), shape)));
    fs::write(dir.path().join("model.safetensors"), written(&header.into(), bytes)).expect("a temporary file");
    let adapter = dir.path().join("adapter");
    fs::create_dir(&adapter).expect("a temporary folder");
    write(&adapter, data);
    let base = Checkpoint::open(dir.path()).expect("a sound model");
    let plain = base.fingerprint().expect("a fingerprint");
    let adapted = base.adapted(&adapter, &Layouts::USUAL);
    let Ok(checkpoint) = &adapted else { return outcome(&adapted.map(|_| ()), CODES) };
    let mut kind = String::from("ok");
    match checkpoint.fingerprint() {
        // An adapter without tensors changes nothing.
        Ok(found) => kind.push(if found == plain { '=' } else { '+' }),
        error => kind.push_str(&outcome(&error, CODES)),
    }
    for (name, shape) in MODEL {
        let read = checkpoint.f32(name, &shape);
        if let Ok(numbers) = &read {
            assert!(numbers.len() == shape[0] * shape[1] && numbers.iter().all(|number| number.is_finite()), "{name}");
        }
        kind.push_str(&outcome(&read, CODES));
    }
    kind
}
