//! Attention over the lanes of a sequence beside the f64 reference's.

use prefixkv_core::sequence::Sequence;
use prefixkv_kernels::attention::{AttentionParams, DecodeItem, LaneView, decode};
use prefixkv_kernels::reference;

pub(crate) fn noise(seed: usize, n: usize) -> Vec<f32> {
    (0..n).map(|i| ((((i + seed) * 7919 + seed * 104_729) % 10_007) as f32 / 10_007.0 - 0.5) * 2.0).collect()
}

/// The attention of one query per head, three for each KV head, to a layer; and the reference's on the decoded entries.
pub(crate) fn attention(sequence: &Sequence, layer: usize) -> [Vec<f32>; 2] {
    let shape = sequence.shape();
    let (group, dim) = (3, shape.head_dim);
    let params = AttentionParams::new(group * shape.kv_heads, shape.kv_heads, dim);
    let queries = noise(99, group * shape.kv_heads * dim);
    let views: Vec<LaneView<'_>> = sequence.lanes(layer).iter().map(|lane| lane.view(None)).collect();
    let mut out = vec![f32::NAN; queries.len()];
    let (mut queries_left, mut out_left, mut items) = (&queries[..], &mut out[..], Vec::new());
    for lane in &views {
        let (queries, left) = queries_left.split_at(lane.heads * group * dim);
        let (out, rest) = out_left.split_at_mut(queries.len());
        (queries_left, out_left) = (left, rest);
        items.push(DecodeItem { lane: lane.clone(), queries, out, sums: None });
    }
    decode(&params, &mut items);
    drop(items);
    let want = reference::attention(&params, &queries, 1, &views);
    [out, want]
}
