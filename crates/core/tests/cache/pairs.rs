//! Sequences whose layers are stored two by two, with the rows that they were given.

use std::collections::{HashMap, HashSet};

use prefixkv_core::cache::{Lane, Modality, Pool, Shape, Span};
use prefixkv_core::method::Method;
use prefixkv_core::sequence::{Placing, Planned, Sequence};
use prefixkv_kernels::attention::Rows;
use serde_json::Value;

use crate::attention::{attention, noise};

pub(crate) fn sequence(shape: Shape, pool: &Pool, cache: &Value) -> Sequence {
    let method = Method::parse(cache).unwrap_or_else(|e| panic!("{cache}: {e}"));
    Sequence::with_method(shape, pool, method, true).unwrap_or_else(|e| panic!("{cache}: {e}"))
}

/// Rows of a layer at positions: those of neighbours are alike.
pub(crate) fn rows_of(layer: usize, first: usize, n: usize, width: usize, seed: usize) -> Vec<f32> {
    let common = noise(seed + first + layer / 2, n * width);
    let own = noise(seed + first + 50 + layer, n * width);
    common.iter().zip(own).map(|(common, own)| common * (1.0 + layer as f32) + own / 2.0).collect()
}

/// The keys and values of each layer, head and position, as they were stored.
pub(crate) type Whole = HashMap<(usize, usize, u32), [Vec<f32>; 2]>;

/// A prompt of `n` positions, or a generated token where that is 1.
pub(crate) fn feed(sequence: &mut Sequence, n: usize, whole: &mut Whole) {
    let shape = sequence.shape();
    let (width, dim, past) = (shape.kv_heads * shape.head_dim, shape.head_dim, sequence.next_position() as usize);
    match n {
        1 => sequence.begin_step().expect("begins"),
        n => {
            let spans = [Span { modality: Modality::Text, start: past, len: n }];
            sequence.begin_prompt(&spans, &Placing::InOrder).expect("begins");
        }
    }
    for layer in 0..shape.layers {
        let [keys, values] = [0, 1000].map(|seed| rows_of(layer, past, n, width, seed));
        for (at, (key, value)) in keys.chunks_exact(dim).zip(values.chunks_exact(dim)).enumerate() {
            let place = (layer, at % shape.kv_heads, (past + at / shape.kv_heads) as u32);
            whole.insert(place, [key.to_vec(), value.to_vec()]);
        }
        sequence.store(layer, Rows::dense(&keys, width), Rows::dense(&values, width), None).expect("stores");
        if n == 1 {
            let gathers = sequence.gathers_step(layer);
            let of = |lane: &Lane| (0..lane.places()).map(|place| (place % 13) as f32 / 100.0).collect();
            let sums: Vec<Vec<f32>> = sequence.lanes(layer).iter().filter(|_| gathers).map(of).collect();
            sequence.stepped(layer, &sums);
        } else {
            let sums: Vec<f32> = noise(70 + layer, past + n).iter().map(|sum| sum.abs()).collect();
            let of = |lane: &Lane| sums[..lane.places()].to_vec();
            let per_head = |lane: &Lane| vec![of(lane); lane.heads().len()];
            let gathered = sequence.query_weights(layer).is_some();
            let sums: Vec<_> = sequence.lanes(layer).iter().filter(|_| gathered).flat_map(per_head).collect();
            sequence.attended(layer, &sums).expect("frees");
        }
    }
    match n {
        1 => sequence.finish_step().expect("ends"),
        _ => sequence.finish_prompt().expect("ends"),
    }
}

/// Two layers, a lane of either, and a position.
pub(crate) type Merged = HashSet<([usize; 2], usize, u32)>;

pub(crate) fn merged(plans: Vec<Planned>) -> Merged {
    let joins = plans.into_iter().flat_map(|planned| planned.plan.join);
    joins.flat_map(|join| join.positions.into_iter().map(move |at| (join.layers, join.lane, at))).collect()
}

pub(crate) fn pair_of(layer: usize, merged: &Merged, lane: usize, position: u32) -> Option<([usize; 2], usize)> {
    [[layer, layer + 1], [layer.wrapping_sub(1), layer]]
        .into_iter()
        .find(|pair| merged.contains(&(*pair, lane, position)))
        .map(|pair| (pair, usize::from(pair[1] == layer)))
}

/// The attention of one query per head to every layer, which must be the f64 reference's on the entries as they read.
pub(crate) fn attend(sequence: &Sequence) {
    for layer in 0..sequence.shape().layers {
        let [got, want] = attention(sequence, layer);
        let most = want.iter().fold(1.0, |most: f32, x| most.max(x.abs()));
        for (got, want) in got.iter().zip(&want) {
            assert!((got - want).abs() < 3e-5 * most, "{got} for {want}");
        }
    }
}

pub(crate) fn is_fresh(lane: &Lane, position: u32) -> bool {
    (0..).map_while(|index| lane.part(index)).any(|part| part.fresh && part.positions.contains(&position))
}
