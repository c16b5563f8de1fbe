//! Gemma 3 under the names and in the sections of a model with a vision tower.

use candle_core::{Device, Tensor};
use prefixkv_core::model::Model;
use serde_json::{Map, Value, json};

use crate::layers::golden::root;

use crate::folder::load;

fn logits(model: &Model) -> Vec<f32> {
    let tokens: Vec<u32> = (0..60).map(|i| 5 + i * 37 % 400).collect();
    let prompt = model.expand(&tokens, 0).expect("text");
    let mut sequence = model.new_sequence().expect("no cap");
    model.prefill(&prompt, &[], &mut sequence, &|| Ok(())).expect("reads")
}

#[test]
fn the_language_model_of_a_vision_model_is_the_text_model() {
    let fixture = root().join("tests/golden/fixtures/gemma3-local");
    let want = logits(&load(&fixture));
    let config: Map<String, Value> =
        serde_json::from_str(&std::fs::read_to_string(fixture.join("config.json")).expect("readable")).expect("JSON");
    let tensors = candle_core::safetensors::load(fixture.join("model.safetensors"), &Device::Cpu).expect("weights");
    for (prefix, typed) in [("language_model.model.", true), ("model.language_model.", false)] {
        let dir = tempfile::tempdir().expect("room");
        for file in ["tokenizer.json", "tokenizer_config.json"] {
            std::fs::copy(fixture.join(file), dir.path().join(file)).expect("room");
        }
        let mut text = config.clone();
        text.remove("architectures");
        if !typed {
            text.remove("model_type");
        }
        let whole = json!({
            "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text,
            "vision_config": { "hidden_size": 32 }, "mm_tokens_per_image": 4,
        });
        std::fs::write(dir.path().join("config.json"), whole.to_string()).expect("room");
        let renamed = |(name, tensor): (&String, &Tensor)| (name.replacen("model.", prefix, 1), tensor.clone());
        let mut all: std::collections::HashMap<String, Tensor> = tensors.iter().map(renamed).collect();
        let tower = Tensor::zeros(8, candle_core::DType::F32, &Device::Cpu).expect("room");
        all.insert("vision_tower.vision_model.post_layernorm.weight".into(), tower);
        candle_core::safetensors::save(&all, dir.path().join("model.safetensors")).expect("room");
        let model = load(dir.path());
        assert_eq!(model.info().architecture, "Gemma3ForConditionalGeneration");
        assert_eq!(logits(&model), want, "{prefix}");
        assert!(model.info().image.is_none() && model.info().vision_bytes == 0);
        let refused = model.expand(&[5, 6], 1).unwrap_err();
        assert!(refused.code() == "prompt" && refused.to_string().contains("text-only"), "{refused}");
    }
}
