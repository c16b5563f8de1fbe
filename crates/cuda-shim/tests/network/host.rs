//! Steps on a device whose launches do nothing, for counting the instructions of the host: `docs/design/cuda-steps.md` says how.

use prefixkv_core::device::Cuda;
use prefixkv_core::sequence::Sequence;
use serde_json::json;

use crate::{Reader, cuda, shim};

fn number(name: &str) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

#[test]
#[ignore = "for a counter of instructions"]
fn some_steps() {
    let shim = shim();
    let reader: Reader<Cuda> = Reader::text("tests/golden/fixtures/llama-deep", cuda(&shim), 168);
    let (batch, steps) = (number("PREFIXKV_BATCH"), number("PREFIXKV_STEPS"));
    shim.set_hollow();
    let mut sequence = reader.sequence(&json!({ "method": "full" }));
    reader.prefill(&mut sequence);
    let mut sequences: Vec<_> = (0..batch).map(|_| sequence.fork().expect("no cap")).collect();
    for _ in 0..steps {
        let mut members: Vec<&mut Sequence<Cuda>> = sequences.iter_mut().collect();
        reader.model.decode_batch(&vec![7; batch], &mut members).expect("decodes");
    }
}
