//! A Llama of 7B widths with two layers against transformers. Its weights are computed, not stored: `tests/golden/wide.py` and
//! this file share a formula in integers (tests/golden/README.md), and the golden says what the first of them are.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use candle_core::Tensor;
use half::f16;
use prefixkv_core::model::{LoadOptions, Model};
use prefixkv_core::sample::argmax;
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::folder::root;

#[derive(Deserialize)]
struct Golden {
    config: Value,
    input_ids: Vec<u32>,
    tokens: Vec<u32>,
    tensors: BTreeMap<String, Plan>,
}

#[derive(Deserialize)]
struct Plan {
    shape: Vec<usize>,
    /// None for a norm.
    scale: Option<f32>,
    first_bits: Vec<u16>,
    sum_of_bits: u64,
}

/// The weights of a tensor: splitmix64 over a counter, seeded by the FNV-1a hash of the name.
fn weights(name: &str, plan: &Plan) -> Vec<f16> {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let norm = plan.shape.len() == 1;
    (0..plan.shape.iter().product::<usize>() as u64)
        .into_par_iter()
        .map(|i| {
            let mut z = seed.wrapping_add((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let u = z ^ (z >> 31);
            let x = ((u >> 40) as f32 / (1 << 24) as f32 - 0.5) * 2.0;
            f16::from_f32(if norm { 1.0 + 0.1 * x } else { plan.scale.expect("a scale") * x })
        })
        .collect()
}

/// Writes the folder, one tensor in memory at a time.
fn write(dir: &Path, golden: &Golden) {
    let tokenizer = root().join("tests/golden/fixtures/llama3-rope");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(tokenizer.join(name), dir.join(name)).expect("copied");
    }
    std::fs::write(dir.join("config.json"), golden.config.to_string()).expect("written");
    let mut header = serde_json::Map::new();
    let mut at = 0usize;
    for (name, plan) in &golden.tensors {
        let end = at + 2 * plan.shape.iter().product::<usize>();
        header.insert(name.clone(), json!({ "dtype": "F16", "shape": plan.shape, "data_offsets": [at, end] }));
        at = end;
    }
    let mut header = Value::Object(header).to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut file = std::fs::File::create(dir.join("model.safetensors")).expect("created");
    file.write_all(&(header.len() as u64).to_le_bytes()).expect("written");
    file.write_all(header.as_bytes()).expect("written");
    for (name, plan) in &golden.tensors {
        let weights = weights(name, plan);
        let first: Vec<u16> = weights.iter().take(plan.first_bits.len()).map(|w| w.to_bits()).collect();
        assert_eq!(first, plan.first_bits, "{name}: the generator differs");
        let sum: u64 = weights.par_iter().map(|w| u64::from(w.to_bits())).sum();
        assert_eq!(sum, plan.sum_of_bits, "{name}: the generator differs");
        let bytes: Vec<u8> = weights.par_iter().flat_map_iter(|w| w.to_bits().to_le_bytes()).collect();
        file.write_all(&bytes).expect("written");
    }
}

#[test]
fn seven_billion_widths_equal_transformers() {
    let data = root().join("tests/golden/data");
    let text = std::fs::read_to_string(data.join("wide.json")).expect("readable");
    let golden: Golden = serde_json::from_str(&text).expect("golden");
    let arrays = candle_core::safetensors::load(data.join("wide.safetensors"), &candle_core::Device::Cpu);
    let want: Tensor = arrays.expect("arrays").remove("logits").expect("logits");
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("temporary folder");
    write(dir.path(), &golden);

    let options = LoadOptions::new(dir.path().to_owned());
    let model = Model::load(&options, &mut |_| Ok(())).expect("loads");
    let prompt = model.expand(&golden.input_ids, 0).expect("tokens of the vocabulary");
    let mut sequence = model.new_sequence().expect("no cap");
    let logits = model.prefill_all(&prompt, &[], &mut sequence, &|| Ok(())).map(|logits| logits.0).expect("runs");
    let worst: f32 = (logits.sub(&want).and_then(|d| d.abs()?.flatten_all()?.max(0)))
        .and_then(|worst| worst.to_scalar())
        .expect("two matrices of one shape");
    eprintln!("largest difference of the logits: {worst:e}");
    assert!(worst <= 1e-3, "largest difference {worst}");

    let mut row: Vec<f32> = logits.get(golden.input_ids.len() - 1).and_then(|row| row.to_vec1()).expect("last row");
    for (step, want) in golden.tokens.iter().enumerate() {
        // The golden's best two logits are never near a tie.
        let token = argmax(&row) as u32;
        assert_eq!(token, *want, "token {step}");
        row = model.decode(token, &mut sequence).expect("decodes");
    }
}
