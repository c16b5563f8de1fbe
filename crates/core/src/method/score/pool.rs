//! Joining the scores of neighbours, so that what is kept hangs together (SnapKV, Li et al. 2024, arXiv 2404.14469).

/// How neighbouring scores are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    None,
    /// The highest of the neighbourhood.
    Max,
    /// The mean, places beyond the ends counting as 0.
    Mean,
}

/// Every score joined with those of the `size` around it, itself in the middle.
pub(super) fn pool(scores: &[f32], kind: Pooling, size: usize) -> Vec<f32> {
    let half = size / 2;
    (0..scores.len())
        .map(|i| {
            let near = &scores[i.saturating_sub(half)..(i + half + 1).min(scores.len())];
            match kind {
                Pooling::Max => near.iter().copied().fold(f32::NEG_INFINITY, f32::max),
                _ => near.iter().sum::<f32>() / size as f32,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_joined() {
        let scores = [1.0, 0.0, 0.0, 5.0, 0.0];
        assert_eq!(pool(&scores, Pooling::Max, 3), [1.0, 1.0, 5.0, 5.0, 5.0]);
        assert_eq!(pool(&scores, Pooling::Mean, 5), [0.2, 1.2, 1.2, 1.0, 1.0]);
    }
}
