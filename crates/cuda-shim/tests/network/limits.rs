//! Features that do not run on a GPU say so before any work.

use prefixkv_core::device::{Cpu, Cuda};
use prefixkv_core::error::Error;
use prefixkv_core::method::Method;
use prefixkv_core::model::{Device, LoadOptions, Model, Place, WeightFormat};
use serde_json::json;

use crate::{FOLDER, Reader, cuda, root, shim};

#[test]
fn formats_and_methods_of_the_cpu_are_refused() {
    let shim = shim();
    for weights in [WeightFormat::Q8_0, WeightFormat::Q4K] {
        let options = LoadOptions { weights, ..LoadOptions::new(root().join("models/tiny-llava")) };
        let error = Model::load_on(cuda(&shim), &options, &mut |_| Ok(())).err().expect("no kernel reads it");
        assert_eq!(error.code(), "device");
        assert!(error.to_string().contains("f16"), "{error}");
    }
    let reader = Reader::text(FOLDER, cuda(&shim), 16);
    let info = reader.model.info();
    let order: Vec<Vec<usize>> = vec![(0..info.head_dim).rev().collect(); info.kv_heads];
    let side = json!({ "order": order, "clip2": 1, "clip4": 1 });
    let layers = vec![json!({ "keys": side, "values": side }); info.layers];
    let calibration = json!({
        "format": "prefixkv-channels", "version": 1, "model": { "layers": info.layers }, "group": 8, "sinks": 0, "layers": layers,
    });
    for (cache, instead) in [
        (json!({ "method": "streaming", "keep": 0.5, "positions": "cache" }), "\"true\""),
        (json!({ "method": "kivi", "rope": "before" }), "`rope: \"after\"`"),
        (json!({ "method": "skvq", "calibration": calibration }), "use another store, or the CPU"),
        (json!({ "method": "minicache", "bits": "4" }), "with a size for each, which the CUDA kernels do not read"),
    ] {
        let method = Method::parse(&cache).expect("a method");
        let error = reader.model.new_sequence_with(method, false).expect_err("no kernel reads it");
        assert!(error.code() == "option" && error.to_string().contains(instead), "{error}");
    }
    assert!(shim.launched().is_empty(), "nothing ran");
}

#[test]
fn without_a_gpu_auto_is_the_cpu_and_says_so_in_its_info() {
    assert!(matches!(Device::Auto.open().expect("there is a CPU"), Place::Cpu(_)));
    let model = Model::load(&LoadOptions::new(root().join(FOLDER)), &mut |_| Ok(())).expect("loads");
    assert_eq!(model.info().device, "cpu");
    let error = Device::Cuda(0).open().expect_err("these tests are built without CUDA");
    assert!(error.code() == "device" && error.to_string().contains("this build runs on the CPU only"), "{error}");
}

#[test]
fn weights_that_do_not_fit_are_refused_with_what_helps_on_a_gpu() {
    let shim = shim();
    shim.set_memory(1000);
    for (weights, half) in [(WeightFormat::F32, true), (WeightFormat::F16, false)] {
        let options = LoadOptions { weights, ..LoadOptions::new(root().join("models/tiny-llava")) };
        let error = Model::load_on(cuda(&shim), &options, &mut |_| Ok(())).err().expect("1000 bytes are too few");
        let text = error.to_string();
        assert!(matches!(error, Error::OutOfMemory { available: 1000, needed, .. } if needed > 100_000), "{text}");
        assert_eq!(text.contains("\"f16\" take half"), half, "{text}");
        // They do not run there.
        assert!(!text.contains("q8_0") && !text.contains("q4_k") && text.contains("GPU"), "{text}");
    }
    assert_eq!(shim.traffic().allocations, 0, "refused before anything is allocated");
}

#[test]
fn a_model_says_what_its_device_counts() {
    let shim = shim();
    let reader = Reader::text(FOLDER, cuda(&shim), 48);
    let counted = |model: &Model<Cuda>| {
        let memory = model.device_memory().expect("answers");
        assert_eq!(memory.device, "cuda:0");
        memory.gpu.expect("a GPU counts")
    };
    let loaded = counted(&reader.model);
    assert_eq!((loaded.pool.used, loaded.total - loaded.free), (shim.allocated() as u64, shim.allocated() as u64));
    assert!(loaded.pool.used >= reader.model.info().weight_bytes);
    let mut sequence = reader.sequence(&json!({ "method": "full" }));
    reader.prefill(&mut sequence);
    let read = counted(&reader.model);
    assert!(read.pool.used >= loaded.pool.used + sequence.memory().payload, "the cache is among it");
    assert!(read.pool.most_used > read.pool.used, "so is what reading took");
    drop(sequence);
    assert_eq!(counted(&reader.model).pool.used, loaded.pool.used);
    let cpu = Reader::text(FOLDER, Cpu, 16).model.device_memory().expect("answers");
    assert_eq!(json!(cpu), json!({ "device": "cpu" }));
}

#[test]
fn a_load_that_finds_the_gpu_full_leaves_nothing() {
    let shim = shim();
    let options = LoadOptions::new(root().join(FOLDER));
    let mut failed = 0;
    loop {
        shim.fail_allocations(failed..failed + 1);
        match Model::load_on(cuda(&shim), &options, &mut |_| Ok(())) {
            Ok(_) => break,
            Err(error) => {
                let text = error.to_string();
                assert!(error.code() == "out-of-memory" && text.contains("\"f16\" take half"), "{failed}: {text}");
                assert_eq!(shim.allocated(), 0, "allocation {failed}");
            }
        }
        failed += 1;
    }
    assert!(failed > 10, "every tensor is one");
}

#[test]
fn images_that_find_the_gpu_full_can_be_tried_again() {
    let shim = shim();
    let model = crate::load("tests/golden/fixtures/llava-gqa64", cuda(&shim), WeightFormat::F32);
    let side = model.info().image.as_ref().and_then(|image| image.size).expect("takes images");
    let bytes = std::fs::read(root().join("data/scenes/scene-001.png")).expect("a scene");
    let pixels = [model.image_processor().expect("takes images").process(&bytes, 0).expect("a picture")];
    // The tower's too: they came with the load.
    let weights = shim.allocated();
    for allocation in [0, 4, 9] {
        shim.fail_allocations(allocation..allocation + 1);
        let error = model.encode_images(&pixels, &|| Ok(())).expect_err("the GPU is full");
        assert_eq!(error.code(), "out-of-memory", "{error}");
        assert_eq!(shim.allocated(), weights, "allocation {allocation} of {side} pixels");
    }
    shim.fail_allocations(0..0);
    let features = model.encode_images(&pixels, &|| Ok(())).expect("there is room");
    drop(features);
    assert_eq!(shim.allocated(), weights, "what a forward pass takes is given back, whether it fails or not");
}
