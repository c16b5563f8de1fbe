//! Model folders: config.json and its companions over sound weights.

use std::sync::LazyLock;

use prefixkv_core::model::{LoadOptions, Model, Vision, architectures};

use crate::folder::{files, object, scratch, write};
use crate::target::{Kind, Target, outcome};

/// Fields of configurations, and their values.
const FIELDS: &[&str] = &[
    "architectures",
    "model_type",
    "llava",
    "llama",
    "clip_vision_model",
    "text_config",
    "vision_config",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "gelu",
    "quick_gelu",
    "silu",
    "max_position_embeddings",
    "rms_norm_eps",
    "layer_norm_eps",
    "tie_word_embeddings",
    "attention_bias",
    "mlp_bias",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "rope_type",
    "llama3",
    "linear",
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
    "image_size",
    "patch_size",
    "num_channels",
    "projection_dim",
    "image_token_index",
    "image_token_id",
    "projector_hidden_act",
    "vision_feature_select_strategy",
    "full",
    "default",
    "vision_feature_layer",
    "multimodal_projector_bias",
    "eos_token_id",
    "bos_token_id",
    "vocab_size",
    "size",
    "crop_size",
    "image_seq_length",
    "chat_template",
];

pub const TARGET: Target = Target {
    name: "config",
    reads: "config.json, generation_config.json, processor files and tokenizer_config.json, up to a loaded model",
    kind: Kind::Json,
    memory: 256 << 20,
    short: 300,
    words,
    seeds,
    run,
};

const NAMES: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "chat_template.json",
];
const WEIGHTS: [&str; 2] =
    ["tests/golden/fixtures/llava-bare/model.safetensors", "tests/golden/fixtures/llava-bare/tokenizer.json"];

fn seeds() -> Vec<Vec<u8>> {
    let folders = ["llava-bare", "llama3-rope", "llava-gqa64", "llama-linear-tied"]
        .map(|name| format!("tests/golden/fixtures/{name}"));
    let mut seeds: Vec<_> = folders.iter().map(|folder| files(folder, &NAMES)).collect();
    seeds.push(files("models/tiny-llava", &NAMES));
    seeds.iter().map(|seed| seed.to_string().into_bytes()).collect()
}

fn run(data: &[u8]) -> String {
    let Some(files) = object(data) else { return "no files".into() };
    let dir = scratch(&WEIGHTS);
    write(dir.path(), &files, &NAMES);
    let codes = ["model-file", "model-not-found", "unsupported-model", "out-of-memory"];
    let info = Model::inspect(dir.path(), &Vision::Beside, None);
    let mut kind = outcome(&info, &codes);
    if let Ok(info) = &info {
        let info = serde_json::to_value(info).expect("facts are written");
        assert!(info.is_object());
        let loaded = Model::load(&LoadOptions::new(dir.path()), &mut |step| {
            assert!(step.done <= step.total);
            Ok(())
        });
        kind.push_str(&outcome(&loaded, &codes));
        if let Ok(model) = loaded {
            kind.push_str(&used(&model));
        }
    }
    kind
}

/// A prompt with an image, as far as the model goes with it. Loading has checked the sizes in the configuration.
fn used(model: &Model) -> String {
    let codes = ["prompt", "option", "context-overflow"];
    let tokens = [1, 5, 7, model.tokenizer().token_id("<image>").unwrap_or(3), 9];
    let images = usize::from(model.image_processor().is_some());
    let prompt = match model.expand(&tokens, images) {
        Ok(prompt) => prompt,
        Err(error) => return crate::target::refusal(&error.to_json(), &codes),
    };
    if prompt.tokens.len() > model.max_positions() || prompt.tokens.len() > 4096 {
        return "too long".into();
    }
    let picture = image_bytes();
    let pixels = model.image_processor().map(|processor| processor.process(&picture, 0).expect("a sound image"));
    let mut sequence = model.new_sequence().expect("an empty sequence");
    let features = model.encode_images(pixels.as_slice(), &|| Ok(())).expect("features of a sound image");
    let logits = model.prefill(&prompt, &features, &mut sequence, &|| Ok(())).expect("a forward pass");
    format!("used {}", logits.iter().all(|logit| logit.is_finite()))
}

fn words() -> &'static [&'static str] {
    static WORDS: LazyLock<Vec<&str>> = LazyLock::new(|| [FIELDS, &architectures()].concat());
    &WORDS
}

fn image_bytes() -> Vec<u8> {
    crate::folder::read("tests/golden/fixtures/images/rgb.png")
}
