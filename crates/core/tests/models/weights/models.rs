//! Whole models: the same numbers in files of other formats give the same bits.

use std::path::{Path, PathBuf};

use prefixkv_core::model::{LoadOptions, Model, WeightFormat};
use safetensors::Dtype;
use serde_json::{Value, json};

use super::files::{FORMATS, Named, exact, write};

const HIDDEN: usize = 768;
const INNER: usize = 1280;
const KV: usize = 256;
const VOCABULARY: usize = 1300;
const LAYERS: usize = 2;
const VISION: usize = 192;
const VISION_INNER: usize = 640;
/// Patches of 14 in a side of 56.
const PATCHES: usize = 16;

const HELD: [WeightFormat; 4] = [WeightFormat::F32, WeightFormat::F16, WeightFormat::Q8_0, WeightFormat::Q4K];

/// The format of a tensor by its place in a file.
type File = fn(usize) -> Dtype;

/// Tensors with numbers that every format holds.
struct Tensors(Vec<Named>);

impl Tensors {
    fn add(&mut self, name: String, shape: &[usize], scale: f32) {
        let n = shape.iter().product();
        self.0.push(Named::new(name, shape, exact(self.0.len() as u64, n, scale)));
    }

    fn linear(&mut self, name: String, rows: usize, columns: usize, bias: bool) {
        self.add(format!("{name}.weight"), &[rows, columns], 1.0 / 4096.0);
        if bias {
            self.add(format!("{name}.bias"), &[rows], 1.0 / 1024.0);
        }
    }

    fn norm(&mut self, name: String, width: usize, bias: bool) {
        let ones = exact(self.0.len() as u64, width, 1.0 / 1024.0).into_iter().map(|x| 1.0 + (x * 8.0).round() / 8.0);
        self.0.push(Named::new(format!("{name}.weight"), &[width], ones.collect()));
        if bias {
            self.add(format!("{name}.bias"), &[width], 1.0 / 1024.0);
        }
    }

    fn llama(&mut self, model: &str, head: Option<&str>, bias: bool) {
        self.add(format!("{model}embed_tokens.weight"), &[VOCABULARY, HIDDEN], 1.0 / 128.0);
        for layer in 0..LAYERS {
            let at = |name: &str| format!("{model}layers.{layer}.{name}");
            for (name, rows, columns) in
                [("q", HIDDEN, HIDDEN), ("k", KV, HIDDEN), ("v", KV, HIDDEN), ("o", HIDDEN, HIDDEN)]
            {
                self.linear(at(&format!("self_attn.{name}_proj")), rows, columns, bias);
            }
            for (name, rows, columns) in [("gate", INNER, HIDDEN), ("up", INNER, HIDDEN), ("down", HIDDEN, INNER)] {
                self.linear(at(&format!("mlp.{name}_proj")), rows, columns, bias);
            }
            self.norm(at("input_layernorm"), HIDDEN, false);
            self.norm(at("post_attention_layernorm"), HIDDEN, false);
        }
        self.norm(format!("{model}norm"), HIDDEN, false);
        if let Some(head) = head {
            self.linear(head.to_owned(), VOCABULARY, HIDDEN, false);
        }
    }

    fn clip(&mut self, tower: &str) {
        self.add(format!("{tower}embeddings.class_embedding"), &[VISION], 1.0 / 128.0);
        self.add(format!("{tower}embeddings.patch_embedding.weight"), &[VISION, 3, 14, 14], 1.0 / 4096.0);
        self.add(format!("{tower}embeddings.position_embedding.weight"), &[PATCHES + 1, VISION], 1.0 / 128.0);
        self.norm(format!("{tower}pre_layrnorm"), VISION, true);
        for layer in 0..LAYERS {
            let at = |name: &str| format!("{tower}encoder.layers.{layer}.{name}");
            for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                self.linear(at(&format!("self_attn.{name}")), VISION, VISION, true);
            }
            self.linear(at("mlp.fc1"), VISION_INNER, VISION, true);
            self.linear(at("mlp.fc2"), VISION, VISION_INNER, true);
            self.norm(at("layer_norm1"), VISION, true);
            self.norm(at("layer_norm2"), VISION, true);
        }
        self.norm(format!("{tower}post_layernorm"), VISION, true);
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/fixtures").join(name)
}

fn llama_config(tied: bool, bias: bool) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": HIDDEN,
        "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": 12, "num_key_value_heads": 4,
        "head_dim": 64, "hidden_act": "silu", "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
        "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": tied, "attention_bias": bias, "mlp_bias": bias,
    })
}

fn copy(from: &str, dir: &Path, names: &[&str]) {
    for name in names {
        std::fs::copy(fixture(from).join(name), dir.join(name)).expect("copied");
    }
}

fn load(dir: &Path, weights: WeightFormat) -> Model {
    let options = LoadOptions { weights, ..LoadOptions::new(dir) };
    Model::load(&options, &mut |_| Ok(())).expect("loads")
}

/// All logits of a prompt, of a picture and a few tokens where the model takes pictures.
fn logits(model: &Model) -> Vec<f32> {
    let tokens: Vec<u32> = (3..20).collect();
    let mut images = Vec::new();
    let prompt = match model.image_processor() {
        Some(processor) => {
            let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/scenes/scene-001.png");
            let pixels = processor.process(&std::fs::read(picture).expect("a scene"), 0).expect("a picture");
            images = model.encode_images(&[pixels], &|| Ok(())).expect("encodes");
            model.expand(&[&[478], tokens.as_slice()].concat(), 1).expect("expands")
        }
        None => model.expand(&tokens, 0).expect("expands"),
    };
    let mut sequence = model.new_sequence().expect("no cap");
    let mut all = images.iter().flat_map(|image| image.rows().to_vec().expect("features")).collect::<Vec<f32>>();
    let logits = model.prefill_all(&prompt, &images, &mut sequence, &|| Ok(())).expect("reads");
    all.extend(logits.to_vec().expect("numbers"));
    all.extend(model.decode(7, &mut sequence).expect("decodes"));
    all
}

/// All files of one model against its f32 file, in each format of weights, and each format near the exact one.
fn check(dir: &Path, tensors: &Tensors, what: &str) {
    let mut want: Vec<Vec<f32>> = Vec::new();
    let files: [(&str, File); 6] = [
        ("f32", |_| Dtype::F32),
        ("f16", |_| Dtype::F16),
        ("bf16", |_| Dtype::BF16),
        ("mixed, f32 first", |index| FORMATS[index % 3]),
        ("mixed, f16 first", |index| FORMATS[(index + 1) % 3]),
        ("mixed, bf16 first", |index| FORMATS[(index + 2) % 3]),
    ];
    for (name, dtype) in files {
        write(dir, &tensors.0, dtype);
        for (index, held) in HELD.into_iter().enumerate() {
            let got = logits(&load(dir, held));
            assert!(got.iter().all(|x| x.is_finite()), "{what}, {name} as {held:?}");
            if name == "f32" {
                want.push(got);
                let (mut error, mut size) = (0.0, 0.0);
                for (got, exact) in want[index].iter().zip(&want[0]) {
                    error += f64::from(got - exact).powi(2);
                    size += f64::from(*exact).powi(2);
                }
                let share = (error / size).sqrt();
                eprintln!("{what} as {held:?}: {share:.2e} of the size away from f32");
                let bound = [0.0, 1e-4, 5e-3, 0.05][index];
                assert!(share <= bound, "{what} as {held:?}: {share} away from f32");
            } else {
                assert!(got == want[index], "{what}: {name} as {held:?} differs from the f32 file");
            }
        }
    }
}

#[test]
fn text_models_are_the_same_from_every_file() {
    for (tied, bias) in [(false, false), (true, false), (false, true), (true, true)] {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
        copy("llama-linear-tied", dir.path(), &["tokenizer.json", "tokenizer_config.json"]);
        std::fs::write(dir.path().join("config.json"), llama_config(tied, bias).to_string()).expect("written");
        let mut tensors = Tensors(Vec::new());
        tensors.llama("model.", (!tied).then_some("lm_head"), bias);
        check(dir.path(), &tensors, &format!("tied: {tied}, biases: {bias}"));
    }
}

#[test]
fn models_with_a_vision_tower_are_the_same_from_every_file() {
    const NAMES: [&str; 4] =
        ["tokenizer.json", "tokenizer_config.json", "chat_template.json", "preprocessor_config.json"];
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    copy("llava-gqa64", dir.path(), &NAMES);
    let text = std::fs::read_to_string(fixture("llava-gqa64").join("config.json")).expect("a configuration");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    config["text_config"] = llama_config(false, false);
    for (key, value) in [("hidden_size", VISION), ("intermediate_size", VISION_INNER), ("num_hidden_layers", LAYERS)] {
        config["vision_config"][key] = json!(value);
    }
    config["vision_feature_layer"] = json!(-1);
    std::fs::write(dir.path().join("config.json"), config.to_string()).expect("written");
    let mut tensors = Tensors(Vec::new());
    tensors.llama("language_model.model.", Some("language_model.lm_head"), false);
    tensors.clip("vision_tower.vision_model.");
    tensors.linear("multi_modal_projector.linear_1".into(), HIDDEN, VISION, true);
    tensors.linear("multi_modal_projector.linear_2".into(), HIDDEN, HIDDEN, true);
    check(dir.path(), &tensors, "LLaVA");
}
