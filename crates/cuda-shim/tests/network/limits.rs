//! What does not run on a GPU says so before any work.

use prefixkv_core::method::Method;
use prefixkv_core::model::{LoadOptions, Model, WeightFormat};
use serde_json::json;

use crate::{Reader, place, root, shim};

#[test]
fn formats_and_methods_of_the_cpu_are_refused() {
    let shim = shim();
    for weights in [WeightFormat::Q8_0, WeightFormat::Q4K] {
        let options = LoadOptions { weights, ..LoadOptions::new(root().join("models/tiny-llava")) };
        let error = Model::load_on(place(&shim), &options, &mut |_| Ok(())).err().expect("no kernel reads it");
        assert_eq!(error.code(), "device");
        assert!(error.to_string().contains("f16"), "{error}");
    }
    let reader = Reader::text("tests/golden/fixtures/llama-linear-tied", place(&shim), 16);
    let method = Method::parse(&json!({ "method": "streaming", "keep": 0.5, "positions": "cache" })).expect("a method");
    let error = reader.model.new_sequence_with(method, false).expect_err("no kernel rotates when it reads");
    assert!(error.code() == "option" && error.to_string().contains("\"true\""), "{error}");
    assert!(shim.launched().is_empty(), "nothing ran");
}
