//! Towers that turn their patches by rows and columns and attend in windows, and decoders that add rows of images behind their first layers.

use prefixkv_core::backend::{Activations, Backend};
use prefixkv_core::device::Cpu;
use prefixkv_core::model::WeightFormat;

use super::{cuda, load, root, shim, worst};

/// The rows of a picture, those for the first layers, the logits of a prompt with it, and those behind a token.
pub(super) fn seen<B: Backend>(folder: &str, text: &str, backend: B) -> Vec<Vec<f32>> {
    let model = load(folder, backend, WeightFormat::F32);
    let bytes = std::fs::read(root().join("tests/golden/fixtures/images/photo-97x211.png")).expect("a picture");
    let image = model.image_processor().expect("takes images").process(&bytes, 0).expect("decodes");
    let plan = model.plan(&mut || Ok((image.width, image.height))).expect("fits").expect("takes images");
    let features = model.encode_images(&[image], &|| Ok(())).expect("sees");
    let rows = std::iter::once(features[0].rows()).chain(features[0].behind());
    let mut found: Vec<Vec<f32>> = rows.map(|rows| rows.to_vec().expect("f32")).collect();
    let encoded = model.encode_raw(text, std::slice::from_ref(&plan)).expect("encodes");
    let prompt = model.expand_at(&encoded.tokens, &encoded.pictures, &[plan], 1).expect("one image");
    let mut sequence = model.new_sequence().expect("no cap");
    found.push(model.prefill(&prompt, &features, &mut sequence, &|| Ok(())).expect("reads"));
    found.push(model.decode(7, &mut sequence).expect("decodes"));
    found
}

#[test]
fn towers_and_decoders_of_qwen_vl_are_those_of_the_cpu() {
    for (name, lists) in [("qwen2-vl", 3), ("qwen2.5-vl", 3), ("qwen3-vl", 5)] {
        let folder = format!("tests/golden/fixtures/{name}");
        let shim = shim();
        let text = "<|vision_start|><|image_pad|><|vision_end|>What is in the picture?";
        let (cpu, gpu) = (seen(&folder, text, Cpu), seen(&folder, text, cuda(&shim)));
        assert_eq!((cpu.len(), gpu.len()), (lists, lists), "{name}");
        for (at, (cpu, gpu)) in cpu.iter().zip(&gpu).enumerate() {
            let worst = worst(cpu, gpu);
            assert!(worst < 1e-3, "{name}: list {at} is off by {worst}");
        }
    }
}
