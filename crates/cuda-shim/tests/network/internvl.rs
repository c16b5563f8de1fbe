//! Towers whose branches are scaled, with norms of either kind, also of whole queries and keys.

use prefixkv_core::device::Cpu;

use super::qwen_vl::seen;
use super::{cuda, shim, worst};

#[test]
fn towers_of_internvl_are_those_of_the_cpu() {
    for name in ["internvl3", "internvl3.5"] {
        let folder = format!("tests/golden/fixtures/{name}");
        let shim = shim();
        let text = "<IMG_CONTEXT>What is in the picture?";
        let (cpu, gpu) = (seen(&folder, text, Cpu), seen(&folder, text, cuda(&shim)));
        assert_eq!((cpu.len(), gpu.len()), (3, 3), "{name}");
        for (at, (cpu, gpu)) in cpu.iter().zip(&gpu).enumerate() {
            let worst = worst(cpu, gpu);
            assert!(worst < 1e-3, "{name}: list {at} is off by {worst}");
        }
    }
}
