//! Calibrations of models of which nothing is known but their shape.

use prefixkv_core::method::latent::LayerDirections;
use prefixkv_core::method::{MethodSpec, OptionKind};
use serde_json::{Value, json};

/// The calibration that a method needs; None for one that needs none.
pub(crate) fn calibration(spec: &MethodSpec, layers: usize, kv_heads: usize, head_dim: usize) -> Option<Value> {
    spec.options.iter().find_map(|option| match option.kind {
        OptionKind::Codebooks => Some(codebooks(layers, kv_heads, head_dim, 4)),
        OptionKind::Directions => Some(directions(layers, kv_heads, head_dim)),
        _ => None,
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
    // I - 2 / n of ones, in whole numbers.
    let code = |row: usize, column: usize| {
        let own = if row == column { 1.0 } else { 0.0 };
        (127.0 * (own - 2.0 / head_dim as f64) / (1.0 - 2.0 / head_dim as f64)).round() as i8
    };
    let codes: Vec<i8> =
        (0..kv_heads * head_dim * head_dim).map(|at| code(at / head_dim % head_dim, at % head_dim)).collect();
    let of = |layer| LayerDirections::new(layer, [codes.clone(), codes.clone()]);
    json!({
        "format": "prefixkv-directions", "version": 1, "init": "covariance", "heads": "each", "rank": head_dim,
        "model": { "layers": layers, "kvHeads": kv_heads, "headDim": head_dim },
        "layers": (0..layers).map(of).collect::<Vec<_>>(),
    })
}
