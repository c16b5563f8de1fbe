//! Device operations of a pass through the network: launches, allocations and writes, each of which costs as much as a small kernel.

use prefixkv_core::model::WeightFormat;
use prefixkv_cuda_shim::Shim;
use serde_json::json;

use crate::{Reader, argmax, cuda, root, shim};

/// Launches, allocations and writes of one thing after the other.
struct Counter<'a> {
    shim: &'a Shim,
    launched: usize,
}

impl Counter<'_> {
    fn since(&mut self) -> [usize; 3] {
        let (all, traffic) = (self.shim.launched().len(), self.shim.traffic());
        let launches = all - std::mem::replace(&mut self.launched, all);
        [launches, traffic.allocations, traffic.writes]
    }
}

/// An image, a prompt, and a token that finds room in its lanes.
fn counts(weights: WeightFormat) -> [[usize; 3]; 3] {
    let shim = shim();
    let reader = Reader::picture(cuda(&shim), weights);
    let mut counter = Counter { shim: &shim, launched: 0 };
    let bytes = std::fs::read(root().join("data/scenes/scene-001.png")).expect("a scene");
    let pixels = reader.model.image_processor().expect("takes images").process(&bytes, 0).expect("a picture");
    counter.since();
    drop(reader.model.encode_images(&[pixels], &|| Ok(())).expect("encodes"));
    let image = counter.since();
    let mut sequence = reader.sequence(&json!({ "method": "full" }));
    let logits = reader.prefill(&mut sequence);
    let prompt = counter.since();
    let logits = reader.model.decode(argmax(&logits), &mut sequence).expect("decodes");
    counter.since();
    reader.model.decode(argmax(&logits), &mut sequence).expect("decodes");
    [image, prompt, counter.since()]
}

#[test]
fn a_pass_asks_no_more_of_a_device_than_it_needs() {
    let found = [WeightFormat::F32, WeightFormat::F16].map(counts);
    // More in f16 before the products of what attention to many rows, or the host, gives in f32.
    // Allocations are those of entries, and of working memory that none before was large enough for.
    let f32 = [[49, 1, 9], [52, 20, 22], [62, 0, 1]];
    let f16 = [[55, 1, 9], [62, 20, 22], [62, 0, 1]];
    assert_eq!(found, [f32, f16]);
}
