//! Kinds of layers, as on the CPU: shared ones, windows, soft caps, normalised heads, phases along three axes.

use prefixkv_core::device::Cpu;
use prefixkv_core::model::{LoadOptions, Model};
use serde_json::json;

use crate::golden::goldens;
use crate::methods::{TOLERANCE, check};
use crate::{Reader, cuda, shim, worst};

#[test]
fn changed_layers_answer_as_on_the_cpu() {
    let shim = shim();
    for case in goldens() {
        let dir = case.folder();
        let options = LoadOptions::new(dir.path());
        let cpu = Model::load(&options, &mut |_| Ok(())).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        let gpu =
            Model::load_on(cuda(&shim), &options, &mut |_| Ok(())).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        assert_eq!(cpu.info().weight_bytes, gpu.info().weight_bytes, "{}", case.name);
        let prompt = case.prompt(&cpu);
        let (mut on_cpu, mut on_gpu) = (cpu.new_sequence().expect("room"), gpu.new_sequence().expect("room"));
        let mut want = cpu.prefill(&prompt, &[], &mut on_cpu, &|| Ok(())).expect("reads");
        let mut got = gpu.prefill(&prompt, &[], &mut on_gpu, &|| Ok(())).expect("reads");
        for token in &case.tokens[case.prompt..] {
            let difference = worst(&want, &got);
            assert!(difference <= TOLERANCE, "{}: logits differ by {difference}", case.name);
            want = cpu.decode(*token, &mut on_cpu).expect("decodes");
            got = gpu.decode(*token, &mut on_gpu).expect("decodes");
        }
        assert_eq!(on_cpu.kept(), on_gpu.kept(), "{}", case.name);
        assert_eq!(on_cpu.memory().payload, on_gpu.memory().payload, "{}", case.name);
    }
}

#[test]
fn windows_and_methods_keep_the_same_entries() {
    let shim = shim();
    for fixture in ["mistral-window", "qwen2-mixed", "qwen3-norms"] {
        let folder = format!("tests/golden/fixtures/{fixture}");
        let cpu = Reader::text(&folder, Cpu, 70);
        let gpu = Reader::text(&folder, cuda(&shim), 70);
        for cache in [
            json!({ "method": "full" }),
            json!({ "method": "prefixkv", "keep": 0.5 }),
            json!({ "method": "h2o", "keep": 0.4 }),
            json!({ "method": "h2o", "keep": { "tokens": 30 } }),
        ] {
            check(&cpu, &gpu, &cache, 20, TOLERANCE);
        }
    }
}
