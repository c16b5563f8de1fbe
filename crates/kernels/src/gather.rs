//! The moves and measures of an eviction: chosen entries of a lane copied together, and the norms of its keys.
//!
//! Both are bound by memory: a copy reads and writes each kept element once, norms read each key once.

use half::f16;
use rayon::prelude::*;

use crate::codec::Run;
use crate::simd;

/// Keys that are brought to f32 at a time.
const ROWS: usize = 32;

/// Below this many bytes one thread is faster than waking others.
const PARALLEL_FROM: usize = 512 * 1024;

/// Copies the entries `slots`, in that order, of `from` `[heads, capacity, dim]` to the entries `at ..` of `to`
/// `[heads, to_capacity, dim]`: of a part of any codec, with its bytes for elements.
#[allow(clippy::too_many_arguments)]
pub fn gather<T: Copy + Send + Sync>(
    from: &[T],
    capacity: usize,
    slots: &[u32],
    heads: usize,
    dim: usize,
    to: &mut [T],
    to_capacity: usize,
    at: usize,
) {
    assert_eq!(from.len(), heads * capacity * dim);
    assert_eq!(to.len(), heads * to_capacity * dim);
    assert!(at + slots.len() <= to_capacity, "{} entries at {at} of {to_capacity}", slots.len());
    if slots.is_empty() || from.is_empty() {
        return;
    }
    let one = |(from, to): (&[T], &mut [T])| {
        let mut done = 0;
        for piece in slots.chunk_by(|a, b| a + 1 == *b) {
            let start = piece[0] as usize;
            let (source, target) = (start * dim..(start + piece.len()) * dim, (at + done) * dim);
            to[target..target + source.len()].copy_from_slice(&from[source]);
            done += piece.len();
        }
    };
    if heads * slots.len() * dim * size_of::<T>() < PARALLEL_FROM {
        from.chunks_exact(capacity * dim).zip(to.chunks_exact_mut(to_capacity * dim)).for_each(one);
    } else {
        from.par_chunks_exact(capacity * dim).zip(to.par_chunks_exact_mut(to_capacity * dim)).for_each(one);
    }
}

/// The Euclidean norms `[heads, run.len]` of the keys of each head, whatever their codec.
pub fn key_norms(run: &Run<'_, &[u8]>, heads: usize, dim: usize, out: &mut [f32]) {
    assert!(run.len <= run.capacity && out.len() == heads * run.len);
    if out.is_empty() {
        return;
    }
    let one = |(head, out): (usize, &mut [f32])| {
        if let Some(keys) = run.keys::<f32>(head, 0..run.len, dim) {
            simd::norms(keys, dim, out);
        } else if let Some(keys) = run.keys::<f16>(head, 0..run.len, dim) {
            simd::norms(keys, dim, out);
        } else {
            let mut wide = vec![0.0; ROWS.min(run.len) * dim];
            for (index, out) in out.chunks_mut(ROWS).enumerate() {
                let wide = &mut wide[..out.len() * dim];
                run.read_keys(head, index * ROWS, dim, wide);
                simd::norms(wide, dim, out);
            }
        }
    };
    if heads * run.len * dim * size_of::<f32>() < PARALLEL_FROM {
        out.chunks_exact_mut(run.len).enumerate().for_each(one);
    } else {
        out.par_chunks_exact_mut(run.len).enumerate().for_each(one);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reference;

    proptest! {
        #[test]
        fn chosen_entries_arrive_in_order(
            heads in 1usize..4, capacity in 1usize..50, dim in 1usize..9, at in 0usize..5, spare in 0usize..5,
            picks in prop::collection::vec((0u32..1000, 1u32..8), 0..10),
        ) {
            let slots: Vec<u32> = picks
                .iter()
                .flat_map(|&(start, n)| (0..n).map(move |i| (start + i) % capacity as u32))
                .collect();
            let from: Vec<u32> = (0..(heads * capacity * dim) as u32).collect();
            let to_capacity = at + slots.len() + spare;
            let mut to = vec![u32::MAX; heads * to_capacity * dim];
            gather(&from, capacity, &slots, heads, dim, &mut to, to_capacity, at);
            for (i, got) in to.iter().enumerate() {
                let (head, entry, channel) = (i / dim / to_capacity, i / dim % to_capacity, i % dim);
                let want = match entry.checked_sub(at).and_then(|entry| slots.get(entry)) {
                    Some(slot) => ((head * capacity + *slot as usize) * dim + channel) as u32,
                    None => u32::MAX,
                };
                prop_assert_eq!(*got, want);
            }
        }

        #[test]
        fn norms_equal_the_reference(
            heads in 1usize..4, len in 0usize..40, spare in 0usize..5, dim in 1usize..150, seed in 0usize..1000,
        ) {
            let capacity = len + spare;
            let keys: Vec<f32> =
                (0..heads * capacity * dim).map(|i| ((i * 7919 + seed) % 1013) as f32 / 500.0 - 1.0).collect();
            let half: Vec<f16> = keys.iter().map(|x| f16::from_f32(*x)).collect();
            let mut got = vec![f32::NAN; heads * len];
            let run = Run::plain(&keys, &keys, len, capacity);
            key_norms(&run, heads, dim, &mut got);
            let close = |got: &[f32], want: &[f64]| {
                got.iter().zip(want).all(|(got, want)| (f64::from(*got) - want).abs() <= 1e-5 * want)
            };
            prop_assert!(close(&got, &reference::key_norms(&run, len, heads, dim)));
            let run = Run::plain(&half, &half, len, capacity);
            key_norms(&run, heads, dim, &mut got);
            prop_assert!(close(&got, &reference::key_norms(&run, len, heads, dim)));
        }
    }

    #[test]
    fn large_lanes_are_split_over_heads() {
        let (heads, capacity, dim) = (3, 1500, 64);
        let from: Vec<f32> = (0..heads * capacity * dim).map(|i| (i % 9973) as f32).collect();
        let slots: Vec<u32> = (0..1400).map(|i| i + i / 700 * 50).collect();
        let mut to = vec![0.0; heads * 1400 * dim];
        gather(&from, capacity, &slots, heads, dim, &mut to, 1400, 0);
        for head in 0..heads {
            for (i, slot) in slots.iter().enumerate() {
                let (from, to) =
                    (&from[(head * capacity + *slot as usize) * dim..][..dim], &to[(head * 1400 + i) * dim..][..dim]);
                assert_eq!(from, to);
            }
        }
        let mut norms = vec![0.0; heads * capacity];
        let run = Run::plain(&from, &from, capacity, capacity);
        key_norms(&run, heads, dim, &mut norms);
        let want = reference::key_norms(&run, capacity, heads, dim);
        assert!(norms.iter().zip(&want).all(|(got, want)| (f64::from(*got) - want).abs() <= 1e-5 * want));
    }
}
