//! Every method: the same logits, tokens, positions and bytes as on the CPU.

use half::f16;
use prefixkv_core::backend::{Activations, Backend};
use prefixkv_core::device::Cpu;
use prefixkv_core::method::{METHODS, MethodSpec};
use prefixkv_core::model::WeightFormat;
use serde_json::{Value, json};

use crate::{FOLDER, Reader, argmax, cuda, shim, worst};

/// The differences between two orders of sums in f32 through all layers; parity with transformers allows 1e-3.
pub(crate) const TOLERANCE: f32 = 1e-3;

pub(crate) fn check<B: Backend>(cpu: &Reader<Cpu>, gpu: &Reader<B>, cache: &Value, tokens: usize, tolerance: f32) {
    let (mut on_cpu, mut on_gpu) = (cpu.sequence(cache), gpu.sequence(cache));
    on_cpu.keep_plans();
    on_gpu.keep_plans();
    let (mut want, mut got) = (cpu.prefill(&mut on_cpu), gpu.prefill(&mut on_gpu));
    for token in 0..tokens {
        let difference = worst(&want, &got);
        assert!(difference <= tolerance, "{cache}: token {token}: logits differ by {difference}");
        assert_eq!(on_cpu.kept(), on_gpu.kept(), "{cache}: kept at token {token}");
        let next = argmax(&want);
        assert_eq!(argmax(&got), next, "{cache}: token {token}");
        want = cpu.model.decode(next, &mut on_cpu).expect("decodes");
        got = gpu.model.decode(next, &mut on_gpu).unwrap_or_else(|error| panic!("{cache}: token {token}: {error}"));
    }
    assert_eq!(on_gpu.take_plans(), on_cpu.take_plans(), "{cache}: plans");
    let (want, got) = (on_cpu.memory(), on_gpu.memory());
    assert_eq!((want.payload, want.kept_per_layer), (got.payload, got.kept_per_layer), "{cache}");
    // The bookkeeping of an entry on a GPU is a little larger.
    assert_eq!(want.resident - want.metadata, got.resident - got.metadata, "{cache}: room beside the entries");
}

#[test]
fn the_embedded_model_answers_as_on_the_cpu() {
    let shim = shim();
    let cpu = Reader::picture(Cpu, WeightFormat::F32);
    let gpu = Reader::picture(cuda(&shim), WeightFormat::F32);
    let (want, got) = (cpu.features[0].rows().to_vec().expect("read"), gpu.features[0].rows().to_vec().expect("read"));
    let difference = worst(&want, &got);
    assert!(difference <= TOLERANCE, "image features differ by {difference}");
    check(&cpu, &gpu, &json!({ "method": "full" }), 16, TOLERANCE);
    check(&cpu, &gpu, &json!({ "method": "prefixkv", "keep": 0.5 }), 16, TOLERANCE);
    check(&cpu, &gpu, &json!({ "method": "fastv", "images": 0.3 }), 16, TOLERANCE);
    let pyramid = json!({ "method": "pyramidInfer", "share": 0.7, "recent": 0.02, "block": 4 });
    check(&cpu, &gpu, &pyramid, 16, TOLERANCE);
    check(&cpu, &gpu, &json!({ "method": "visionZip" }), 16, TOLERANCE);
    check(
        &cpu,
        &gpu,
        &json!([{ "method": "visionZip", "images": 0.2 }, { "method": "int8", "window": 8 }]),
        16,
        TOLERANCE,
    );
    drop(gpu);
    assert_eq!(shim.allocated(), 0, "everything is freed with the model");
}

#[test]
fn every_method_keeps_the_same_entries() {
    let shim = shim();
    let cpu = Reader::text(FOLDER, Cpu, 96);
    let gpu = Reader::text(FOLDER, cuda(&shim), 96);
    let weights = shim.allocated();
    let mut caches = vec![
        json!([{ "method": "h2o", "keep": 0.4 }, { "method": "merge" }]),
        json!([{ "method": "prefixkv", "keep": 0.4 }, { "method": "merge", "weight": 0.5 }]),
        json!({ "method": "full" }),
        json!({ "method": "prefixkv", "keep": 0.5 }),
        json!({ "method": "prefixkv", "keep": 0.3, "variant": "paper" }),
        json!({ "method": "prefixkv", "keep": 0.3, "variant": "paper", "decode": "lowest-score" }),
        json!({ "method": "prefixkv", "keep": 0.5, "variant": "official" }),
        json!({ "method": "prefixkv", "keep": { "tokens": 40 } }),
        json!({ "method": "h2o", "keep": 0.4 }),
        json!({ "method": "h2o", "keep": { "tokens": 40 } }),
        json!({ "method": "streaming", "keep": 0.4, "positions": "true" }),
        json!({ "method": "custom", "keep": 0.4, "budget": "ada", "score": "window" }),
        json!({ "method": "custom", "keep": { "tokens": 40 }, "budget": "ada", "score": "columns" }),
        json!({ "method": "kvzip", "keep": 0.4 }),
        json!([{ "method": "kvzip", "keep": 0.4, "budget": "uniform" }, { "method": "int8", "window": 8 }]),
        json!({ "method": "int8", "window": 16 }),
        json!({ "method": "int4", "window": 16 }),
        json!({ "method": "int2", "window": 16 }),
        json!({ "method": "int8", "window": 16, "rotate": true }),
        json!({ "method": "kvtuner", "window": 16, "pairs": [[8, 4], [16, 2]] }),
        json!({ "method": "kvtuner", "window": 16, "keys": "entry", "pairs": [[16, 2], [8, 4]] }),
        json!({ "method": "skvq", "window": 16, "clip": 0.9 }),
        json!([{ "method": "h2o", "keep": 0.5 }, { "method": "int8", "window": 8 }]),
        json!([{ "method": "prefixkv", "keep": 0.5 }, { "method": "int4", "window": 8 }]),
        json!({ "method": "kvsharer", "sources": { "1": 0 } }),
        json!([{ "method": "kvsharer", "sources": { "1": 0 } }, { "method": "prefixkv", "keep": 0.5 }, { "method": "int8", "window": 8 }]),
    ];
    let on_read = json!({ "method": "streaming", "keep": 0.4, "positions": "cache" });
    assert_eq!(gpu.refusal(&on_read).code(), "option", "keys are rotated before they are stored");
    let (layers, kv_heads) = (cpu.model.sized_layers().len(), cpu.model.info().kv_heads);
    let of = |layer: usize| (0..kv_heads).map(|head| (layer * 7 + head * 5 + 3) % 11).collect::<Vec<_>>();
    let heads = json!({
        "format": "prefixkv-heads", "version": 1, "measure": "copies", "model": { "layers": layers, "kvHeads": kv_heads },
        "scores": (0..layers).map(of).collect::<Vec<_>>(),
    });
    for name in ["headKv", "sparseMm"] {
        caches.push(json!({ "method": name, "keep": 0.4, "calibration": heads }));
        caches.push(json!({ "method": name, "keep": { "tokens": 40 }, "calibration": heads }));
    }
    // A method without a case of its own has its defaults.
    let plain = |spec: &&MethodSpec| spec.takes_keep() && caches.iter().all(|cache| cache["method"] != spec.name);
    let defaults: Vec<Value> =
        METHODS.iter().filter(plain).map(|spec| json!({ "method": spec.name, "keep": 0.5 })).collect();
    caches.extend(defaults);
    for cache in caches {
        check(&cpu, &gpu, &cache, 40, TOLERANCE);
        assert_eq!(shim.allocated(), weights, "{cache}: a sequence that is gone leaves nothing");
    }
}

#[test]
fn half_precision_is_near_that_of_the_cpu() {
    let shim = shim();
    let cpu = Reader::picture(Cpu, WeightFormat::F16);
    let gpu = Reader::picture(cuda(&shim), WeightFormat::F16);
    assert_eq!(gpu.model.info().weight_bytes, cpu.model.info().weight_bytes);
    // On a GPU the input of each product is rounded to f16, here to 11 bits of logits up to about 20.
    let limit = 40.0 * f16::EPSILON.to_f32() * 20.0;
    check(&cpu, &gpu, &json!({ "method": "prefixkv", "keep": 0.5, "score": "text" }), 12, limit);
}
