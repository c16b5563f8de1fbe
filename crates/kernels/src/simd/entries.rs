//! Scores and weighted sums of entries at the best level of this machine.

use super::*;

dispatch! {
    /// [`scores`] in eight lanes.
    fn narrow_scores<T: Element>(
        queries: &[f32], dim: usize, keys: &[T], scale: f32, scores: &mut [f32], step: usize,
    ) = scores_body
}
dispatch! {
    /// [`weighted_sums`] in eight lanes.
    fn narrow_sums<T: Element>(
        weights: &[f32], step: usize, values: &[T], dim: usize, sums: &mut [f32],
    ) = weighted_sums_body
}

/// `scores[q * step + i] = scale * queries[q] . keys[i]`; `queries` and `keys` have rows of `dim` elements.
pub fn scores<T: Element>(queries: &[f32], dim: usize, keys: &[T], scale: f32, scores: &mut [f32], step: usize) {
    #[cfg(target_arch = "x86_64")]
    if dim.is_multiple_of(LANES) && wide::available() {
        let whole = keys.len() / dim / LANES * LANES;
        let (eights, rest) = keys.split_at(whole * dim);
        match (T::as_f32(eights), T::as_f16(eights)) {
            // SAFETY: the required features were just detected.
            (Some(keys), _) => unsafe { wide::scores(queries, dim, keys, scale, scores, step) },
            // SAFETY: as above.
            (_, Some(keys)) => unsafe { wide::scores(queries, dim, keys, scale, scores, step) },
            _ => return narrow_scores(queries, dim, keys, scale, scores, step),
        }
        if !rest.is_empty() {
            narrow_scores(queries, dim, rest, scale, &mut scores[whole..], step);
        }
        return;
    }
    narrow_scores(queries, dim, keys, scale, scores, step);
}

/// `sums[q] += weights[q * step + i] * values[i]` over i; `values` and `sums` have rows of `dim` elements.
pub fn weighted_sums<T: Element>(weights: &[f32], step: usize, values: &[T], dim: usize, sums: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if dim.is_multiple_of(2 * LANES) && wide::available() {
        // SAFETY: the required features were just detected.
        unsafe {
            match (T::as_f32(values), T::as_f16(values)) {
                (Some(values), _) => return wide::weighted_sums(weights, step, values, dim, sums),
                (_, Some(values)) => return wide::weighted_sums(weights, step, values, dim, sums),
                _ => {}
            }
        }
    }
    narrow_sums(weights, step, values, dim, sums);
}
