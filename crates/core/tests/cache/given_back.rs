//! Keys and values as stores give them back, against numpy (tests/golden/stores.py and kvquant.py).

use std::collections::HashSet;
use std::path::Path;

use prefixkv_core::cache::{Format, Modality, Piece, Pool, Shape, Span};
use prefixkv_core::method::Method;
use prefixkv_core::method::codebooks::{CodebookCalibration, LayerCodebooks};
use prefixkv_core::sequence::{Placing, Sequence};
use prefixkv_kernels::attention::{AttentionParams, Rows};
use prefixkv_kernels::rotary::Angles;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Golden {
    heads: usize,
    positions: usize,
    /// Start and length.
    image: [usize; 2],
    /// Of the shown rows every so many channels.
    stride: usize,
    cases: Vec<Case>,
    /// Positions that codebooks are found from.
    #[serde(default)]
    calibrated: usize,
}

#[derive(Deserialize)]
struct Case {
    dim: usize,
    cache: Value,
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    /// Positions whose rows are there, of head `position % heads`.
    shown: Vec<usize>,
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
}

fn noise(seed: usize, n: usize) -> Vec<f32> {
    (0..n).map(|i| ((((i + seed) * 7919 + seed * 104_729) % 10_007) as f32 / 10_007.0 - 0.5) * 2.0).collect()
}

/// The prompt of the golden: text, an image, text.
fn fill(sequence: &mut Sequence, golden: &Golden, dim: usize) {
    let Golden { heads, positions: n, image: [start, len], .. } = *golden;
    let image = Modality::Image { index: 0, piece: Piece::base(1, len) };
    let spans = [(Modality::Text, 0, start), (image, start, len), (Modality::Text, start + len, n - start - len)];
    let spans = spans.map(|(modality, start, len)| Span { modality, start, len });
    sequence.begin_prompt(&spans, &Placing::InOrder).expect("begins");
    let frequencies: Vec<f32> = (0..dim / 2).map(|i| 10_000f32.powf(-2.0 * i as f32 / dim as f32)).collect();
    let angles = Angles::new(0..n as u32, &frequencies, 1.0);
    let width = heads * dim;
    for layer in 0..2 {
        let (mut keys, values) = (noise(10 * layer + 1, n * width), noise(10 * layer + 2, n * width));
        keys.chunks_exact_mut(dim).for_each(|row| row[3] *= 8.0);
        sequence.store(layer, Rows::dense(&keys, width), Rows::dense(&values, width), Some(&angles)).expect("stores");
        let sums: Vec<f32> = noise(70 + layer, n).iter().map(|sum| sum.abs()).collect();
        let gathered = if sequence.query_weights(layer).is_some() { vec![sums; heads] } else { Vec::new() };
        // Two query heads for each head.
        let queries = noise(30 + layer, 2 * sequence.wanted_queries() * width);
        if !queries.is_empty() {
            sequence.keep_queries(layer, &AttentionParams::new(2 * heads, heads, dim), &queries).expect("shown");
        }
        sequence.attended(layer, &gathered).expect("frees");
        if sequence.watches(layer) {
            sequence.see_peaks(&noise(5, n).iter().map(|peak| peak.abs()).collect::<Vec<_>>());
        }
    }
    sequence.finish_prompt().expect("ends");
}

#[test]
fn keys_and_values_come_back_as_numpy_says() {
    let stores = ["stores.json", "kvquant.json"].map(|name| come_back(&golden(name)));
    assert!(stores[0].len() >= 6 && stores[1].len() == 1, "{stores:?}");
}

fn golden(name: &str) -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/data").join(name);
    serde_json::from_slice(&std::fs::read(path).expect("the golden")).expect("is JSON")
}

/// The names of the stores.
fn come_back(golden: &Golden) -> HashSet<String> {
    let mut stores = HashSet::new();
    for Case { dim, cache, layers } in &golden.cases {
        let shape = Shape { layers: layers.len(), kv_heads: golden.heads, head_dim: *dim, format: Format::F32 };
        let method = Method::parse(cache).unwrap_or_else(|e| panic!("{cache}: {e}"));
        let mut sequence = Sequence::with_method(shape, &Pool::unlimited(), method, false).expect("fits");
        fill(&mut sequence, golden, *dim);
        stores.insert(cache["method"].to_string());
        for (layer, want) in layers.iter().enumerate() {
            let lane = &sequence.lanes(layer)[0];
            let held = lane.sorted();
            assert_eq!(held.len(), golden.positions, "{cache}");
            for (row, &position) in want.shown.iter().enumerate() {
                let entry = &held[position..=position];
                for (side, got, want) in
                    [("keys", lane.keys(entry), &want.keys), ("values", lane.values(entry), &want.values)]
                {
                    let got = got.expect("there");
                    let head = &got[position % golden.heads * dim..][..*dim];
                    for (got, want) in head.iter().step_by(golden.stride).zip(&want[row]) {
                        assert!(
                            (got - want).abs() < 1e-5,
                            "{} {dim} {side} of {position}: {got} for {want}",
                            cache["method"]
                        );
                    }
                }
            }
        }
    }
    stores
}

#[test]
fn codebooks_are_found_as_numpy_says() {
    let golden = golden("kvquant.json");
    let found = golden.cases.iter().flat_map(|case| {
        let calibration = CodebookCalibration::parse(&case.cache["calibration"]).expect("a calibration");
        let CodebookCalibration { bits, outliers, layers, .. } = calibration;
        layers.into_iter().map(move |books| (case.dim, bits, outliers, books))
    });
    let mut all = 0;
    for (dim, bits, outliers, want) in found {
        all += 1;
        let (n, width, layer) = (golden.calibrated, golden.heads * dim, want.layer);
        let cubes = |seed: usize| noise(seed, n * width).iter().map(|x| x * x * x).collect::<Vec<f32>>();
        let (mut keys, values) = (cubes(100 + 10 * layer), cubes(101 + 10 * layer));
        keys.chunks_exact_mut(dim).for_each(|row| row[3] *= 8.0);
        let weights: Vec<f64> = noise(102 + layer, n).iter().map(|x| f64::from(x.abs()) + 0.05).collect();
        let got = LayerCodebooks::find(layer, &keys, &values, &weights, (width, dim), bits, outliers);
        assert_eq!((got.layer, want.keys.len()), (layer, 1 << bits));
        for (name, got, want) in [
            ("scales", &got.scales, &want.scales),
            ("zeros", &got.zeros, &want.zeros),
            ("keys", &got.keys, &want.keys),
            ("values", &got.values, &want.values),
        ] {
            assert_eq!(got.len(), want.len(), "{name}");
            for (got, want) in got.iter().zip(want) {
                assert!((got - want).abs() < 1e-5, "{name} of {dim}, {bits} bits: {got} for {want}");
            }
        }
    }
    assert_eq!(all, 24);
}
