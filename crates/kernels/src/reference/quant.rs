//! Weights and activations in blocks.

use half::f16;

use crate::quant::{BLOCK, Weights};

/// Numbers in steps of `step`, at most `most` of them.
fn rounded(block: &[f32], step: f32, most: f64) -> impl Iterator<Item = f64> {
    let (inverse, step) = (if step == 0.0 { 0.0 } else { 1.0 / step }, f64::from(step));
    // The product in f32, as in the kernel, so that a tie goes the same way.
    block.iter().map(move |x| f64::from(x * inverse).round_ties_even().clamp(-most, most) * step)
}

fn largest(block: &[f32]) -> f32 {
    block.iter().fold(0.0, |largest, x| largest.max(x.abs()))
}

/// Finite weights in q8_0.
pub fn q8_0(x: &[f32]) -> Vec<f64> {
    x.chunks(BLOCK).flat_map(|block| rounded(block, f16::from_f32(largest(block) / 127.0).to_f32(), 127.0)).collect()
}

/// Finite activations in 8 bits.
pub fn activations(x: &[f32]) -> Vec<f64> {
    let block = |block: &[f32]| -> Vec<f64> {
        let (largest, inverse) = (largest(block), 127.0 / largest(block));
        let codes = block.iter().map(|x| f64::from(x * inverse).round_ties_even());
        if largest == 0.0 {
            vec![0.0; block.len()]
        } else {
            codes.map(|code| code * f64::from(largest / 127.0)).collect()
        }
    };
    x.chunks(BLOCK).flat_map(block).collect()
}

/// `[n, rows]` products of rows of activations in 8 bits with weights in blocks.
pub fn product(weights: &Weights, x: &[f32]) -> Vec<f64> {
    let columns = weights.columns();
    let mut row = vec![0.0; columns];
    let rows: Vec<Vec<f64>> = (0..weights.rows())
        .map(|index| {
            weights.dequantise(index, &mut row);
            row.iter().map(|w| f64::from(*w)).collect()
        })
        .collect();
    let dot = |x: &[f64], row: &Vec<f64>| x.iter().zip(row).map(|(x, w)| x * w).sum::<f64>();
    x.chunks(columns).map(activations).flat_map(|x| rows.iter().map(|row| dot(&x, row)).collect::<Vec<_>>()).collect()
}
