//! Notes of a layer of the tower: how much its class token looks at each patch, and the patches' keys.

use crate::backend::Heads;
use crate::method::pictures::Notes;

/// The notes of a layer from its fused projections, `[patches + 1, heads.fused()]`, the class token first.
pub(super) fn of(fused: &[f32], heads: Heads) -> Notes {
    let (dim, width) = (heads.dim, heads.width());
    let scale = 1.0 / (dim as f64).sqrt();
    let rows = fused.len() / heads.fused();
    let keys = |row: usize, head: usize| {
        let start = row * heads.fused() + width + head * dim;
        &fused[start..start + dim]
    };
    let mut attention = vec![0.0; rows];
    let mut means = vec![0.0; rows * dim];
    for head in 0..heads.kv {
        let query = &fused[head * dim..(head + 1) * dim];
        let product = |row| query.iter().zip(keys(row, head)).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>();
        let scores: Vec<f64> = (0..rows).map(|row| scale * product(row)).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
        let sum: f64 = weights.iter().sum();
        attention.iter_mut().zip(&weights).for_each(|(mean, weight)| *mean += weight / sum);
        for (row, mean) in means.chunks_exact_mut(dim).enumerate() {
            mean.iter_mut().zip(keys(row, head)).for_each(|(mean, key)| *mean += f64::from(*key));
        }
    }
    let mean = |sum: &f64| (sum / heads.kv as f64) as f32;
    Notes {
        lead: 0,
        attention: attention[1..].iter().map(mean).collect(),
        keys: means[dim..].iter().map(mean).collect(),
    }
}
