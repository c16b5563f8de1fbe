//! Keys and values that nobody needs are not computed: counted over the process, so this is the only test of its file.

use std::path::Path;

use prefixkv_core::engine::about;
use prefixkv_core::method::Method;
use prefixkv_core::model::{LoadOptions, Model};
use prefixkv_core::sequence::Sequence;
use serde_json::{Value, json};

#[test]
fn keys_and_values_are_computed_where_a_sequence_keeps_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny-llava");
    let model = Model::load(&LoadOptions::new(folder), &mut |_| Ok(())).expect("loads");
    let tokens: Vec<u32> = (0..60u32).map(|i| (i * 7919 + i * i * 31) % 700 + 5).collect();
    let prompt = model.expand(&tokens, 0).expect("text");
    let skipped = |work: &mut dyn FnMut()| {
        let before = about().live;
        work();
        (about().live.rows_run - before.rows_run, about().live.rows_shared - before.rows_shared)
    };
    let start = |cache: Value| {
        let method = Method::parse(&cache).expect("a method");
        let mut sequence = model.new_sequence_with(method, false).expect("no cap");
        let found = skipped(&mut || {
            model.prefill(&prompt, &[], &mut sequence, &|| Ok(())).expect("reads");
        });
        (sequence, found)
    };
    let map = |sources: Value| json!({ "method": "kvsharer", "sources": sources });
    let (mut plain, found) = start(json!({ "method": "full" }));
    assert_eq!(found, (600, 0));
    let (mut three, found) = start(map(json!({ "6": 2, "9": 6, "3": 1 })));
    assert_eq!(found, (600, 180));
    let (mut two, found) = start(json!([map(json!({ "9": 8, "3": 0 })), { "method": "h2o", "keep": 0.5 }]));
    assert_eq!(found, (600, 120));
    let step = |sequences: &mut [&mut Sequence]| {
        let given = vec![7; sequences.len()];
        skipped(&mut || {
            model.decode_batch(&given, sequences).expect("decodes");
        })
    };
    assert_eq!(step(&mut [&mut three]), (10, 3));
    assert_eq!(step(&mut [&mut two]), (10, 2));
    // Layers 3 and 9 in both; one that keeps entries of its own needs them for its row, and all rows go together.
    assert_eq!(step(&mut [&mut three, &mut two]), (20, 4));
    assert_eq!(step(&mut [&mut three, &mut two, &mut plain]), (30, 0));
}
