//! Images are encoded while another sequence decodes: a model is shared, not borrowed by one of the two.

use std::path::Path;
use std::thread;

use prefixkv_core::model::{LoadOptions, Model};
use prefixkv_core::sample::argmax;

#[test]
fn an_image_is_encoded_beside_a_sequence_that_decodes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let model = Model::load(&LoadOptions::new(root.join("models/tiny-llava")), &mut |_| Ok(())).expect("loads");
    let bytes = std::fs::read(root.join("data/scenes/scene-001.png")).expect("a scene");
    let pixels = [model.image_processor().expect("takes images").process(&bytes, 0).expect("a picture")];
    let encode = || -> Vec<f32> {
        let features = model.encode_images(&pixels, &|| Ok(())).expect("encodes");
        features[0].rows().to_vec().expect("on the CPU")
    };
    let tokens = model.tokenizer().encode_prompt("USER: What is in a picture? ASSISTANT:").expect("encodes");
    let prompt = model.expand(&tokens, 0).expect("text");
    let decode = || -> Vec<u32> {
        let mut sequence = model.new_sequence().expect("no cap");
        let mut logits = model.prefill(&prompt, &[], &mut sequence, &|| Ok(())).expect("reads");
        let mut next = || {
            let token = argmax(&logits) as u32;
            logits = model.decode(token, &mut sequence).expect("decodes");
            token
        };
        (0..40).map(|_| next()).collect()
    };
    let (features, answer) = (encode(), decode());
    thread::scope(|scope| {
        let images = scope.spawn(|| (0..4).map(|_| encode()).collect::<Vec<_>>());
        for _ in 0..4 {
            assert_eq!(decode(), answer);
        }
        assert!(images.join().expect("no panic").iter().all(|again| *again == features));
    });
}
