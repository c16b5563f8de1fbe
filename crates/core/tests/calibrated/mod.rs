//! Calibrations of models of which nothing is known but their shape.

use prefixkv_core::method::latent::{LayerDirections, PARTS};
use prefixkv_core::method::{MethodSpec, OptionKind};
use serde_json::{Value, json};

/// The calibration that a method needs; None for one that needs none.
pub(crate) fn calibration(spec: &MethodSpec, layers: usize, kv_heads: usize, head_dim: usize) -> Option<Value> {
    spec.options.iter().find_map(|option| match option.kind {
        OptionKind::Codebooks => Some(codebooks(layers, kv_heads, head_dim, 4)),
        OptionKind::Directions => Some(directions(layers, kv_heads, head_dim)),
        OptionKind::Latents => Some(latents(layers, kv_heads, head_dim)),
        OptionKind::Heads => Some(heads(layers, kv_heads)),
        _ => None,
    })
}

/// Scores of heads that differ, in layers that methods size; some are 0.
fn heads(layers: usize, kv_heads: usize) -> Value {
    let score = |layer: usize, head: usize| (layer * 7 + head * 5 + 3) % 11;
    let of = |layer| (0..kv_heads).map(|head| score(layer, head)).collect::<Vec<_>>();
    json!({
        "format": "prefixkv-heads", "version": 1, "measure": "image-hits",
        "model": { "layers": layers, "kvHeads": kv_heads },
        "scores": (0..layers).map(of).collect::<Vec<_>>(),
    })
}

/// Evenly spaced codebooks.
pub(crate) fn codebooks(layers: usize, kv_heads: usize, head_dim: usize, bits: u32) -> Value {
    let levels: Vec<f64> =
        (0..1 << bits).map(|code| (f64::from(code) + 0.5) / f64::from(1 << (bits - 1)) - 1.0).collect();
    let (scales, zeros) = (vec![2.0; kv_heads * head_dim], vec![0.01; kv_heads * head_dim]);
    let of = |layer| json!({ "layer": layer, "keys": levels, "values": levels, "scales": scales, "zeros": zeros });
    json!({
        "format": "prefixkv-codebooks", "version": 1, "bits": bits, "outliers": 0.01,
        "model": { "layers": layers, "kvHeads": kv_heads, "headDim": head_dim },
        "layers": (0..layers).map(of).collect::<Vec<_>>(),
    })
}

/// All directions of each head: reflections of its channels, so that each takes from all of them.
fn directions(layers: usize, kv_heads: usize, head_dim: usize) -> Value {
    let codes: Vec<i8> =
        (0..kv_heads * head_dim * head_dim).map(|at| reflected(at % (head_dim * head_dim), head_dim)).collect();
    let of = |layer| LayerDirections::new(layer, [codes.clone(), codes.clone()]);
    json!({
        "format": "prefixkv-directions", "version": 1, "init": "covariance", "heads": "each", "rank": head_dim,
        "model": { "layers": layers, "kvHeads": kv_heads, "headDim": head_dim },
        "layers": (0..layers).map(of).collect::<Vec<_>>(),
    })
}

/// As [`directions`], of two layers together.
fn latents(layers: usize, kv_heads: usize, head_dim: usize) -> Value {
    let size = PARTS * head_dim;
    let of = |layer: usize| {
        let side = |side: usize| -> Vec<i8> {
            let part = (layer % 2 * 2 + side) * head_dim;
            // From the four parts in turn.
            let row = |at: usize| at / head_dim % size % PARTS * head_dim + at / head_dim % size / PARTS;
            let code = |at: usize| reflected(row(at) * size + part + at % head_dim, size);
            (0..kv_heads * size * head_dim).map(code).collect()
        };
        let sizes = Some([1.0 + layer as f64, 0.5 + layer as f64]);
        LayerDirections { sizes, ..LayerDirections::new(layer, [side(0), side(1)]) }
    };
    json!({
        "format": "prefixkv-directions", "version": 1, "init": "covariance", "heads": "each", "span": "pair", "rank": size,
        "model": { "layers": layers, "kvHeads": kv_heads, "headDim": head_dim },
        "layers": (0..layers / 2 * 2).map(of).collect::<Vec<_>>(),
    })
}

/// An element of I - 2 / n of ones, in whole numbers.
pub(crate) fn reflected(at: usize, n: usize) -> i8 {
    let own = if at / n == at % n { 1.0 } else { 0.0 };
    (127.0 * (own - 2.0 / n as f64) / (1.0 - 2.0 / n as f64)).round() as i8
}
