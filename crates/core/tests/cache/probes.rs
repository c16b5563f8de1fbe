//! Shapes of cache that later methods need, on the bones as they are: heads of their own length, four-bit groups, keys without rotation. None of them may need a case of its own in attention or in the pool.

use std::sync::Arc;

use prefixkv_core::cache::{Format, LaneOptions, Modality, New, Pool, Recode, Rotation, Shape, Span};
use prefixkv_core::sequence::{Layout, Placing, Sequence};
use prefixkv_kernels::attention::{AttentionParams, DecodeItem, LaneView, Mask, Rows, decode};
use prefixkv_kernels::codec::{Codec, Dtype, KvCodec};
use prefixkv_kernels::reference;
use prefixkv_kernels::rotary::{Angles, Turns};

const SHAPE: Shape = Shape { layers: 2, kv_heads: 3, head_dim: 32, format: Format::F32 };
const GROUP_OF_QUERIES: usize = 2;
const GROUP: usize = 32;
/// Keys per channel over a group of entries, values per entry.
const FOUR_BITS: KvCodec =
    KvCodec { key: Codec::per_channel(Dtype::U4, 32), value: Codec::per_entry(Dtype::U4, 32), ..KvCodec::F32 };

fn noise(seed: usize, n: usize) -> Vec<f32> {
    (0..n).map(|i| ((((i + seed) * 7919 + seed * 104_729) % 10_007) as f32 / 10_007.0 - 0.5) * 2.0).collect()
}

fn options(rotation: Rotation) -> LaneOptions {
    LaneOptions { head_dim: SHAPE.head_dim, codec: SHAPE.format.codec(), folded: false, rotation, scored: false }
}

fn frequencies() -> Vec<f32> {
    (0..SHAPE.head_dim / 2).map(|i| 10_000f32.powf(-(i as f32) / 16.0)).collect()
}

/// A sequence with a prompt of `n` positions in every layer.
fn filled(pool: &Pool, rotation: Rotation, per_head: bool, n: usize) -> Sequence {
    let split = |_| -> Vec<std::ops::Range<usize>> {
        if per_head {
            (0..SHAPE.kv_heads).map(|head| head..head + 1).collect()
        } else {
            std::iter::once(0..3).collect()
        }
    };
    let mut sequence =
        Sequence::with_lanes(SHAPE, Arc::new(Layout::plain(SHAPE.layers)), pool, options(rotation), split)
            .expect("no cap");
    let width = SHAPE.kv_heads * SHAPE.head_dim;
    let angles = Angles::new(0..n as u32, &frequencies(), 1.0);
    let angles = (rotation == Rotation::Stored).then_some(&angles);
    sequence.begin_prompt(&[Span { modality: Modality::Text, start: 0, len: n }], &Placing::InOrder).expect("begins");
    for layer in 0..SHAPE.layers {
        let (keys, values) = (noise(layer * 10 + 1, n * width), noise(layer * 10 + 2, n * width));
        sequence.store(layer, Rows::dense(&keys, width), Rows::dense(&values, width), angles).expect("stores");
        sequence.attended(layer, &[]).expect("nothing to free");
    }
    sequence.finish_prompt().expect("ends");
    sequence
}

/// Attention of one query to all lanes, against the slow twin.
fn check_attention(views: &[LaneView<'_>]) -> Vec<f32> {
    let dim = SHAPE.head_dim;
    let heads: usize = views.iter().map(|view| view.heads).sum();
    let queries = noise(99, heads * GROUP_OF_QUERIES * dim);
    let mut out = vec![0.0; queries.len()];
    let (mut rest_in, mut rest_out, mut items) = (&queries[..], &mut out[..], Vec::new());
    for view in views {
        let (queries, left_in) = rest_in.split_at(view.heads * GROUP_OF_QUERIES * dim);
        let (out, left_out) = rest_out.split_at_mut(queries.len());
        (rest_in, rest_out) = (left_in, left_out);
        items.push(DecodeItem { lane: view.clone(), queries, out, sums: None });
    }
    let params = AttentionParams { scale: 0.2, ..AttentionParams::new(heads * GROUP_OF_QUERIES, heads, dim) };
    decode(&params, &mut items);
    drop(items);
    let want = reference::attention(&AttentionParams { mask: Mask::None, ..params }, &queries, 1, views);
    for (got, want) in out.iter().zip(&want) {
        assert!((got - want).abs() < 1e-4, "{got} for {want}");
    }
    out
}

#[test]
fn heads_of_one_layer_have_lengths_of_their_own() {
    let pool = Pool::unlimited();
    let mut sequence = filled(&pool, Rotation::Stored, true, 120);
    let full = sequence.memory().payload;
    for (head, keep) in [(0, 100), (1, 3), (2, 41)] {
        let lane = &mut sequence.lanes_mut(0)[head];
        let places: Vec<u32> = lane.sorted().iter().skip(head).step_by(1).take(keep).map(|entry| entry.place).collect();
        lane.retain(&places).expect("all there");
    }
    let memory = sequence.memory();
    assert_eq!(memory.kept_per_layer, [(100 + 3 + 41) as f64 / 3.0, 120.0]);
    let head_entry = (2 * SHAPE.head_dim * 4) as u64;
    assert_eq!(full - memory.payload, (20 + 117 + 79) * head_entry);
    assert_eq!(memory.resident, memory.payload + memory.metadata, "freed bytes go back at once");
    let views: Vec<LaneView<'_>> = sequence.lanes(0).iter().map(|lane| lane.view(None)).collect();
    check_attention(&views);
    let kept = sequence.kept();
    assert_eq!(kept[0][1].positions, [1, 2, 3]);
}

#[test]
fn four_bit_groups_are_freed_when_they_are_empty() {
    let pool = Pool::unlimited();
    let mut sequence = filled(&pool, Rotation::Stored, false, 2 * GROUP + 20);
    let before = check_attention(&[sequence.lanes(0)[0].view(None)]);
    let full = sequence.memory();
    for start in [0, GROUP] {
        let lane = &mut sequence.lanes_mut(0)[0];
        // The oldest entries that are not in a group yet.
        let places: Vec<u32> = lane.sorted()[start..start + GROUP].iter().map(|entry| entry.place).collect();
        lane.recode(&[Recode::new(FOUR_BITS, places)]).expect("all there");
    }
    let lane = &sequence.lanes(0)[0];
    assert_eq!(lane.len(), 2 * GROUP + 20);
    assert_eq!(lane.positions(), (0..(2 * GROUP + 20) as u32).collect::<Vec<_>>());
    let after = check_attention(&[lane.view(None)]);
    let worst = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst > 0.0 && worst < 0.1, "four bits are near, and not the same: {worst}");
    let memory = sequence.memory();
    assert!(memory.payload < full.payload - full.payload / 5, "{} of {}", memory.payload, full.payload);

    norms_are_those_of_the_keys_that_attention_reads(&sequence);

    // Of one group all entries go, of the other all but one.
    let gone: Vec<u32> = (0..2 * GROUP as u32).filter(|position| *position != 40).collect();
    let mut resident = Vec::new();
    for position in gone {
        let lane = &mut sequence.lanes_mut(0)[0];
        let entry = lane.entries().find(|entry| entry.position == position).expect("still there");
        lane.delete(entry.place).expect("there");
        resident.push(sequence.memory().resident);
        check_attention(&[sequence.lanes(0)[0].view(None)]);
    }
    let memory = sequence.memory();
    assert_eq!(resident[0], resident[GROUP - 2], "a group's bytes stay while one of its entries is there");
    assert!(resident[GROUP - 1] < resident[GROUP - 2], "and go with the last one");
    assert!(memory.dead > 0, "what is deleted but held is shown");
    assert_eq!(sequence.lanes(0)[0].len(), 21);
    assert_eq!(memory.resident, memory.payload + memory.scales + memory.metadata + memory.dead);

    // A plan keeps single entries of a group as well.
    let lane = &mut sequence.lanes_mut(0)[0];
    let places: Vec<u32> = lane.sorted().iter().take(5).map(|entry| entry.place).collect();
    lane.retain(&places).expect("all there");
    assert_eq!(lane.positions()[0], 40);
    check_attention(&[sequence.lanes(0)[0].view(None)]);
    drop(sequence);
    assert_eq!(pool.used(), 0);
}

fn norms_are_those_of_the_keys_that_attention_reads(sequence: &Sequence) {
    let lane = &sequence.lanes(0)[0];
    let mut want = Vec::new();
    for run in lane.view(None).runs {
        for entry in 0..run.len {
            let of = |head: usize| -> f32 {
                let mut key = vec![0.0; SHAPE.head_dim];
                run.read_keys(head, entry, SHAPE.head_dim, &mut key);
                key.iter().map(|x| x * x).sum::<f32>().sqrt()
            };
            want.push((0..SHAPE.kv_heads).map(of).sum::<f32>() / SHAPE.kv_heads as f32);
        }
    }
    let got = lane.key_norms().expect("on the CPU");
    assert_eq!(got.len(), want.len());
    for (place, (got, want)) in got.iter().zip(&want).enumerate() {
        let one = lane.key_norm(place as u32).expect("there");
        assert!(*want > 0.5 && (got - want).abs() < 1e-4 && (one - want).abs() < 1e-4, "{got} and {one} for {want}");
    }
}

#[test]
fn keys_without_rotation_are_rotated_when_read() {
    let pool = Pool::unlimited();
    let n = 50;
    let stored = filled(&pool, Rotation::Stored, false, n);
    let mut on_read = filled(&pool, Rotation::OnRead, false, n);
    let want = check_attention(&[stored.lanes(0)[0].view(None)]);
    let angles = Angles::new(0..n as u32, &frequencies(), 1.0);
    let ranks = on_read.lanes(0)[0].ranks();
    let got = check_attention(&[on_read.lanes(0)[0].view(Some(Turns { angles: &angles, of: &ranks }))]);
    for (got, want) in got.iter().zip(&want) {
        assert!((got - want).abs() < 1e-5, "with all entries there, rank and position are the same");
    }
    // After an eviction and an append into the freed place, ranks follow positions, not physical order.
    let lane = &mut on_read.lanes_mut(0)[0];
    let third = lane.sorted()[3].place;
    lane.delete(third).expect("there");
    let row = noise(5, SHAPE.kv_heads * SHAPE.head_dim);
    let rows = Rows::dense(&row, row.len());
    let place = lane.append_one(New { keys: rows, values: rows, angles: None }, n as u32).expect("room");
    let ranks_now = lane.ranks();
    assert_eq!(ranks_now[place as usize], n as u32 - 1);
    let mut sorted = ranks_now.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..n as u32).collect::<Vec<_>>());
    check_attention(&[on_read.lanes(0)[0].view(Some(Turns { angles: &angles, of: &ranks_now }))]);
}
