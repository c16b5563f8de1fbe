//! Positions of a picture that see each other, in layers with a window and without: logits, answers and what methods keep.

use prefixkv_core::backend::{Activations, Backend};
use prefixkv_core::device::Cpu;
use prefixkv_core::method::Method;
use prefixkv_core::model::WeightFormat;
use serde_json::json;

use super::{cuda, load, root, shim, worst};

const FOLDER: &str = "tests/golden/fixtures/gemma3-vision";

/// The rows of two pictures, logits of a prompt with them, whole and in pieces, those behind tokens, and what methods keep in every layer.
fn seen<B: Backend>(backend: B) -> (Vec<Vec<f32>>, Vec<Vec<u32>>) {
    let model = load(FOLDER, backend, WeightFormat::F32);
    let processor = model.image_processor().expect("takes images");
    let prepared = ["photo-97x211.png", "square-168.png"].map(|name| {
        let path = root().join("tests/golden/fixtures/images").join(name);
        processor.process(&std::fs::read(path).expect("a picture"), 0).expect("decodes")
    });
    let plan = model.plan(&mut || Ok((97, 211))).expect("fits").expect("takes images");
    let features = model.encode_images(&prepared, &|| Ok(())).expect("sees");
    let mut rows: Vec<Vec<f32>> = features.iter().map(|image| image.rows().to_vec().expect("f32")).collect();
    let plans = [plan.clone(), plan];
    let text = "Look at both, please: <start_of_image>and<start_of_image>";
    let encoded = model.encode_raw(text, &plans).expect("encodes");
    let prompt = model.expand_at(&encoded.tokens, &encoded.pictures, &plans, 2).expect("two images");
    let mut kept = Vec::new();
    for cache in [
        json!({ "method": "full" }),
        json!({ "method": "h2o", "keep": 0.5, "decode": "none" }),
        json!({ "method": "snapkv", "keep": 0.5, "window": 8 }),
    ] {
        let method = Method::parse(&cache).expect("a method");
        let mut sequence = model.new_sequence_with(method.clone(), false).expect("no cap");
        rows.push(model.prefill(&prompt, &features, &mut sequence, &|| Ok(())).expect("reads"));
        kept.extend(sequence.kept().iter().flatten().map(|lane| lane.positions.clone()));
        rows.extend([7, 300, 301].map(|token| model.decode(token, &mut sequence).expect("decodes")));
        let mut sequence = model.new_sequence_with(method, false).expect("no cap");
        let mut begun = model.begin_prefill(&prompt, &features, &mut sequence, 9).expect("begins");
        rows.push(loop {
            if let Some(row) = model.prefill_piece(&mut begun, &mut sequence, &|| Ok(())).expect("reads") {
                break row;
            }
        });
        kept.extend(sequence.kept().iter().flatten().map(|lane| lane.positions.clone()));
    }
    (rows, kept)
}

#[test]
fn pictures_that_are_seen_whole_are_those_of_the_cpu() {
    let shim = shim();
    let ((cpu, cpu_kept), (gpu, gpu_kept)) = (seen(Cpu), seen(cuda(&shim)));
    assert_eq!((cpu.len(), gpu.len()), (17, 17));
    for (at, (cpu, gpu)) in cpu.iter().zip(&gpu).enumerate() {
        let worst = worst(cpu, gpu);
        assert!(worst < 1e-3, "list {at} is off by {worst}");
    }
    assert_eq!(cpu_kept, gpu_kept);
}
