//! Kinds of layers, as on the CPU: shared ones, windows, soft caps, normalised heads, phases along three axes.

use prefixkv_core::device::Cpu;
use prefixkv_core::method::Method;
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
        let cache = case.method.clone().unwrap_or_else(|| json!({ "method": "full" }));
        let method = || Method::parse(&cache).expect("a method");
        let mut on_cpu = cpu.new_sequence_with(method(), false).expect("room");
        let mut on_gpu = gpu.new_sequence_with(method(), false).expect("room");
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
fn layers_share_as_on_the_cpu() {
    let shim = shim();
    for (fixture, sources) in [
        ("llama-deep", json!({ "4": 0, "9": 4, "11": 2, "12": 11 })),
        ("qwen2-mixed", json!({ "1": 0, "3": 2 })),
        ("qwen3-norms", json!({ "1": 0 })),
    ] {
        let folder = format!("tests/golden/fixtures/{fixture}");
        let (cpu, gpu) = (Reader::text(&folder, Cpu, 70), Reader::text(&folder, cuda(&shim), 70));
        let map = json!({ "method": "kvsharer", "sources": sources });
        // The last hidden states, by which maps are searched.
        let want = cpu.model.hidden(&cpu.prompt, &[], &mut cpu.sequence(&map), &|| Ok(())).expect("reads");
        let got = gpu.model.hidden(&gpu.prompt, &[], &mut gpu.sequence(&map), &|| Ok(())).expect("reads");
        assert!(worst(&want, &got) <= TOLERANCE, "{fixture}: hidden states");
        check(&cpu, &gpu, &map, 20, TOLERANCE);
        check(&cpu, &gpu, &json!([map, { "method": "prefixkv", "keep": 0.5 }]), 20, TOLERANCE);
        check(
            &cpu,
            &gpu,
            &json!([map, { "method": "h2o", "keep": 0.4 }, { "method": "int8", "window": 8 }]),
            20,
            TOLERANCE,
        );
    }
}

#[test]
fn windows_and_methods_keep_the_same_entries() {
    let shim = shim();
    for fixture in ["mistral-window", "qwen2-mixed", "qwen3-norms", "gemma2-caps", "gemma3-local", "phi3-fused"] {
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
