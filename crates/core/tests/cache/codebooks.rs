//! Stores of few bits against numpy and torch (`tests/golden/codebooks.py`): the levels of codebooks, what TurboQuant gives back, and
//! the roundings of floating-point formats.

use std::path::{Path, PathBuf};

use prefixkv_core::cache::{Format, Modality, Pool, Shape, Span};
use prefixkv_core::method::Method;
use prefixkv_core::sequence::{Placing, Sequence};
use prefixkv_kernels::attention::Rows;
use prefixkv_kernels::codec::{Codec, Dtype, Levels, decode_rows, encode};
use prefixkv_kernels::rotary::Angles;
use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Golden {
    levels: Tables,
    entries: usize,
    rows: Vec<usize>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Tables {
    #[serde(rename = "2")]
    two: Vec<f64>,
    #[serde(rename = "4")]
    four: Vec<f64>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    dim: usize,
    bits: usize,
    seed: u64,
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/data")
}

fn golden() -> (Golden, Vec<u8>) {
    let json = std::fs::read(data().join("codebooks.json")).expect("the golden");
    let arrays = std::fs::read(data().join("codebooks.safetensors")).expect("its arrays");
    (serde_json::from_slice(&json).expect("JSON"), arrays)
}

fn f32s(arrays: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let bytes = arrays.tensor(name).expect("there").data().to_vec();
    bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
}

/// Rows whose channel 5 is an outlier, by the formula of the golden.
fn rows(seed: u64, entries: usize, dim: usize) -> Vec<f32> {
    let number = |i: u64| {
        let mut z = seed.wrapping_add((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 24) as f32 * 2.0 - 1.0
    };
    (0..entries * dim).map(|i| number(i as u64) * if i % dim == 5 { 8.0 } else { 1.0 }).collect()
}

#[test]
fn levels_are_those_of_least_error() {
    let (golden, _) = golden();
    for (dtype, want) in [(Dtype::U2, &golden.levels.two), (Dtype::U4, &golden.levels.four)] {
        let table = Levels::Normal.table(dtype).expect("a table");
        assert_eq!(want.len(), usize::from(dtype.most()) + 1);
        for (got, want) in table.iter().zip(want) {
            assert!((f64::from(*got) - want).abs() < 1e-6, "{got} for {want}");
        }
    }
}

#[test]
fn turboquant_gives_back_what_the_reference_does() {
    let (golden, bytes) = golden();
    let arrays = SafeTensors::deserialize(&bytes).expect("arrays");
    assert_eq!(golden.cases.len(), 4);
    for case in &golden.cases {
        let Case { dim, bits, seed, .. } = *case;
        let n = golden.entries;
        let shape = Shape { layers: 1, kv_heads: 1, head_dim: dim, format: Format::F32 };
        let method = Method::parse(&json!({ "method": "turboquant", "bits": bits })).expect("sound");
        let mut sequence = Sequence::with_method(shape, &Pool::unlimited(), method, false).expect("stores");
        let (keys, values) = (rows(seed, n, dim), rows(seed + 1, n, dim));
        sequence
            .begin_prompt(&[Span { modality: Modality::Text, start: 0, len: n }], &Placing::InOrder)
            .expect("begins");
        // Angles of nothing: the keys are stored as they are.
        let angles = Angles::new(0..n as u32, &vec![0.0; dim / 2], 1.0);
        sequence.store(0, Rows::dense(&keys, dim), Rows::dense(&values, dim), Some(&angles)).expect("stores");
        sequence.finish_prompt().expect("ends");
        let bits = bits as f64 + 16.0 / dim as f64;
        assert_eq!(sequence.memory().effective_bits, bits, "all entries are stored in codes");
        let lane = &sequence.lanes(0)[0];
        let sorted = lane.sorted();
        let read = [lane.keys(&sorted).expect("on the CPU"), lane.values(&sorted).expect("on the CPU")];
        for (part, got) in ["keys", "values"].into_iter().zip(&read) {
            let want = f32s(&arrays, &format!("{}.{part}", case.name));
            let got = golden.rows.iter().flat_map(|row| &got[row * dim..(row + 1) * dim]);
            for (got, want) in got.zip(&want) {
                assert!((got - want).abs() < 1e-5, "{} {part}: {got} for {want}", case.name);
            }
        }
    }
}

#[test]
fn floating_point_entries_are_rounded_as_torch_does() {
    let (_, bytes) = golden();
    let arrays = SafeTensors::deserialize(&bytes).expect("arrays");
    let numbers = f32s(&arrays, "floats");
    for (dtype, name) in [(Dtype::Bf16, "floats.bf16"), (Dtype::F8, "floats.f8")] {
        let want = arrays.tensor(name).expect("there").data().to_vec();
        let (codec, n) = (Codec::plain(dtype), numbers.len());
        let mut stored = vec![0; n * dtype.bits() / 8];
        encode(codec, &numbers, 1, n, &mut stored, &mut [], 1, 0);
        assert!(stored == want, "{dtype}");
        let (mut back, mut again) = (vec![0.0; n], vec![0; stored.len()]);
        decode_rows(codec, &stored, &[], (0, 1), 0, n, &mut back);
        encode(codec, &back, 1, n, &mut again, &mut [], 1, 0);
        assert!(again == stored, "{dtype} there and back");
    }
}
