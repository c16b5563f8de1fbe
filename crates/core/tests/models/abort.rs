//! Work that is no longer wanted ends inside a layer.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use prefixkv_core::Error;
use prefixkv_core::method::Method;
use prefixkv_core::model::{LoadOptions, Model};
use serde_json::json;

#[test]
fn a_prompt_is_asked_about_within_its_layers_and_ends_there() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/fixtures/llama-linear-tied");
    let model = Model::load(&LoadOptions::new(source), &mut |_| Ok(())).expect("loads");
    let tokens: Vec<u32> = (0..1500).map(|i| (i * 37) % 400 + 5).collect();
    let prompt = model.expand(&tokens, 0).expect("text");
    let (layers, heads, blocks) = (model.info().layers, 4, 1500usize.div_ceil(64));
    for cache in [json!({ "method": "full" }), json!({ "method": "prefixkv", "keep": 0.5 })] {
        let new = |model: &Model| model.new_sequence_with(Method::parse(&cache).expect("parses"), false).expect("fits");
        let asked = AtomicUsize::new(0);
        let count = || {
            asked.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        model.prefill(&prompt, &[], &mut new(&model), &count).expect("reads");
        let whole = asked.load(Ordering::Relaxed);
        assert!(whole >= layers * heads * blocks, "asked {whole} times");
        for end in [1, 5, heads * blocks / 2, whole / 2, whole - 1] {
            asked.store(0, Ordering::Relaxed);
            let check = || if asked.fetch_add(1, Ordering::Relaxed) >= end { Err(Error::Aborted) } else { Ok(()) };
            let mut sequence = new(&model);
            let ended = model.prefill(&prompt, &[], &mut sequence, &check);
            assert!(matches!(ended, Err(Error::Aborted)), "{cache}, after {end}: {ended:?}");
            // The blocks that are left are asked for once each, and none is computed.
            assert!(asked.load(Ordering::Relaxed) <= end + heads * blocks + 2, "{cache}: {asked:?} after {end}");
            assert!(!sequence.is_sound());
            let bytes = model.pool().used();
            drop(sequence);
            assert!(model.pool().used() < bytes && model.pool().used() == 0);
        }
    }
}
