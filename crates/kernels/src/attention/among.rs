//! Attention of a prompt's queries over some of a lane's entries, by the queries that these belong to.
//!
//! The rows of keys and values are copied next to each other first, so that they are multiplied as those of any lane: with E of N entries
//! 4 H d E^2 / 2 FLOPs where all of them would be 4 H d N^2 / 2, beside 2 E rows of all KV heads that are copied.

use super::prefill::{Asked, Output, attend};
use super::{AttentionParams, LaneView, Mask, Rows, Run};
use crate::codec::KvCodec;
use crate::shared::Disjoint;
use crate::tasks;

/// Entries that are brought to f32 at a time.
const TILE: usize = 512;

/// Attends the queries of `n` new positions, the last entries of `lane`, that are among `entries`, ascending, to these alone.
///
/// `params` has the heads of the lane; `queries` has their elements in every row, rotated. Of `out`, `n` rows of `width` elements, the
/// results of these queries are written. `stopped` is as in [`prefill_unless`](super::prefill_unless).
pub fn prefill_among(
    stopped: &(dyn Fn() -> bool + Sync),
    params: &AttentionParams,
    (queries, n): (Rows<'_>, usize),
    lane: &LaneView<'_>,
    entries: &[usize],
    (out, width): (&mut [f32], usize),
) {
    let len = lane.len();
    assert_eq!(params.mask, Mask::Causal);
    assert!(n <= len && width >= params.query_heads * params.dim, "{n} of {len} entries, rows of {width}");
    assert!(entries.is_sorted_by(|a, b| a < b) && entries.last().is_none_or(|last| *last < len), "entries of {len}");
    let own = entries.partition_point(|entry| *entry < len - n);
    let rows: Vec<usize> = entries[own..].iter().map(|entry| entry - (len - n)).collect();
    let (keys, values) = copies(lane, entries, params.dim);
    let dead: Option<Vec<bool>> = lane.dead.map(|dead| entries.iter().map(|entry| dead[*entry]).collect());
    let positions: Option<Vec<u32>> = lane.positions.map(|all| entries.iter().map(|entry| all[*entry]).collect());
    // Of those that a query sees, the ones that take part.
    let end = |row: &usize| rows.partition_point(|other| *other < lane.end_of(*row)) as u32;
    let ends: Option<Vec<u32>> = lane.ends.map(|_| rows.iter().map(end).collect());
    let run = Run::plain(&keys, &values, entries.len(), entries.len());
    let run = Run { codec: KvCodec { dual: lane.dual(), ..run.codec }, ..run };
    let some = LaneView {
        dead: dead.as_deref(),
        positions: positions.as_deref(),
        ends: ends.as_deref(),
        ..LaneView::new(lane.heads, vec![run])
    };
    let asked = Asked { queries, n: rows.len(), rows: Some(&rows), own: None, last: rows.len() };
    attend(stopped, params, asked, &[some], None, Some(Output { out, width }));
}

/// The numbers that [`prefill_among`] copies of so many entries.
pub fn copied(entries: usize, heads: usize, dim: usize) -> usize {
    2 * entries * heads * dim
}

/// Keys, as they attend, and values of some entries, `[heads, entries, dim]` each.
fn copies(lane: &LaneView<'_>, entries: &[usize], dim: usize) -> (Vec<f32>, Vec<f32>) {
    let size = entries.len() * dim;
    let (mut keys, mut values) = (vec![0.0; lane.heads * size], vec![0.0; lane.heads * size]);
    let to = [Disjoint::new(&mut keys), Disjoint::new(&mut values)];
    let tiles: Vec<&[usize]> = entries.chunk_by(|a, b| a / TILE == b / TILE).collect();
    let starts: Vec<usize> =
        tiles.iter().scan(0, |end, tile| Some(std::mem::replace(end, *end + tile.len()))).collect();
    tasks::in_order(2 * lane.heads * tiles.len(), |wide: &mut Vec<f32>, task| {
        let (side, head, tile) = (task % 2, task / 2 % lane.heads, task / 2 / lane.heads);
        let (first, last) = (tiles[tile][0], tiles[tile][tiles[tile].len() - 1]);
        let range = (first, last + 1);
        let rows = if side == 0 { lane.keys(head, range, dim, wide) } else { lane.values(head, range, dim, wide) };
        // SAFETY: (side, head, tile) belongs to this task alone.
        let to = unsafe { to[side].part(head * size + starts[tile] * dim, tiles[tile].len() * dim) };
        for (to, entry) in to.chunks_exact_mut(dim).zip(tiles[tile]) {
            to.copy_from_slice(&rows[(entry - first) * dim..(entry - first + 1) * dim]);
        }
    });
    (keys, values)
}
