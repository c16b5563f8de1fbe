//! Stored rows to f32.

use super::{Codec, Scales};
use crate::element::Element;
use crate::simd;
use half::f16;

/// The entries of `head` from entry `from` on, as many rows of `dim` as `to` holds; `numbers` and `scales` are the parts of a run with
/// room for `capacity` entries per head.
pub fn decode_rows(
    codec: Codec,
    numbers: &[u8],
    scales: &[u8],
    (head, capacity): (usize, usize),
    from: usize,
    dim: usize,
    to: &mut [f32],
) {
    let (row, n) = (codec.row(dim), to.len() / dim);
    assert!(to.len() == n * dim && from + n <= capacity, "entries {from}+{n} of {capacity}");
    let start = (head * capacity + from) * row;
    let numbers = &numbers[start..start + n * row];
    match codec.scales {
        Scales::None => simd::decode_floats(codec.dtype, numbers, to),
        Scales::PerEntry { group, .. } => {
            let pairs = codec.scales_row(dim);
            let start = (head * capacity + from) * pairs;
            let scales = f16::of_bytes(&scales[start..start + n * pairs]);
            match codec.levels.table(codec.dtype) {
                None => simd::decode_entries(codec.dtype, numbers, scales, group.into(), to),
                Some(table) => simd::decode_levels(codec.dtype, table, numbers, scales, group.into(), to),
            }
        }
        Scales::Apart { .. } => panic!("{codec:?} without what was found"),
        Scales::PerChannel { group, .. } => {
            let (group, pairs) = (usize::from(group), codec.scales_row(dim));
            let mut done = 0;
            while done < n {
                let index = (from + done) / group;
                let take = ((index + 1) * group - from).min(n) - done;
                let start = (head * (capacity / group) + index) * pairs;
                let pairs = f16::of_bytes(&scales[start..start + pairs]);
                let numbers = &numbers[done * row..(done + take) * row];
                simd::decode_channels(codec.dtype, numbers, pairs, dim, &mut to[done * dim..(done + take) * dim]);
                done += take;
            }
        }
    }
}
