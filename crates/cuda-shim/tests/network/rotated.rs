//! Models that have the Hadamard transform of values in their weights.

use half::f16;
use prefixkv_core::backend::Backend;
use prefixkv_core::device::Cpu;
use prefixkv_core::method::Method;
use prefixkv_core::model::{LoadOptions, Model, WeightFormat};
use serde_json::{Value, json};

use crate::methods::TOLERANCE;
use crate::{FOLDER, cuda, root, shim, worst};

/// The logits of a prompt and of some tokens behind it.
fn logits<B: Backend>(backend: B, weights: WeightFormat, rotate_values: bool, cache: &Value) -> Vec<f32> {
    let options = LoadOptions { weights, rotate_values, ..LoadOptions::new(root().join(FOLDER)) };
    let model = Model::load_on(backend, &options, &mut |_| Ok(())).expect("loads");
    let tokens: Vec<u32> = (0..90).map(|i| (i * 7919 + i * i * 31) % 390 + 5).collect();
    let prompt = model.expand(&tokens, 0).expect("text");
    let method = Method::parse(cache).expect("a method");
    let mut sequence = model.new_sequence_with(method, false).expect("no cap");
    let mut all = model.prefill(&prompt, &[], &mut sequence, &|| Ok(())).expect("reads");
    for token in &tokens[..6] {
        all.extend(model.decode(*token, &mut sequence).expect("decodes"));
    }
    all
}

/// The weights are transformed before they go to the device, and its kernels do what is left: nothing for values, or the inverse.
#[test]
fn the_device_computes_what_the_cpu_does() {
    let shim = shim();
    for cache in [
        json!({ "method": "full" }),
        json!({ "method": "akvqVl", "window": 16 }),
        json!({ "method": "kivi", "window": 16 }),
        json!([{ "method": "snapkv", "keep": 0.5 }, { "method": "turboquant", "window": 8 }]),
    ] {
        let [want, got] =
            [logits(Cpu, WeightFormat::F32, true, &cache), logits(cuda(&shim), WeightFormat::F32, true, &cache)];
        assert!(worst(&got, &want) < TOLERANCE, "{cache}: {}", worst(&got, &want));
    }
    let full = json!({ "method": "full" });
    let [plain, rotated] = [false, true].map(|rotates| logits(cuda(&shim), WeightFormat::F32, rotates, &full));
    assert!(worst(&plain, &rotated) < TOLERANCE && plain != rotated, "{}", worst(&plain, &rotated));
    let [want, got] =
        [logits(Cpu, WeightFormat::F16, true, &full), logits(cuda(&shim), WeightFormat::F16, true, &full)];
    // On a GPU the input of each product is rounded to f16.
    let largest = want.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    assert!(worst(&got, &want) < 40.0 * f16::EPSILON.to_f32() * largest, "{}", worst(&got, &want));
}
