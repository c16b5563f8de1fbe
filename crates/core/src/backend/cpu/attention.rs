//! Attention on the CPU.

use prefixkv_kernels::attention::{self as kernel, AnyRun, DecodeItem, Gather, LaneView, Rows, Run};
use prefixkv_kernels::rotary::{self, Angles, New};

use super::storable::{attendable, storable};
use crate::backend::Heads;
use crate::cache::Lane;
use crate::check::Check;
use crate::error::{Error, Result};
use crate::sequence::{BatchItem, Pass, Sequence};

/// The rotations of the positions that one pass through the layers adds: one for a prompt, else one per sequence.
pub struct Rotary(Vec<RopeAngles>);

pub(super) struct RopeAngles {
    /// One per new position.
    pub(super) angles: Angles,
    /// One per rank of an entry, for lanes whose keys are rotated when they are read.
    pub(super) ranks: Option<Angles>,
}

impl Rotary {
    pub(super) fn new(inverse_frequencies: &[f32], pass: &Pass<'_, '_>, rows: usize) -> Self {
        let n = pass.rows_each(rows);
        let turn = |sequence: &&Sequence| {
            let angles = |range| Angles::new(range, inverse_frequencies, 1.0);
            let ranks = sequence.rotates_on_read().then(|| angles(0..(sequence.longest_lane() + n) as u32));
            let first = sequence.next_phase();
            RopeAngles { angles: angles(first..first + n as u32), ranks }
        };
        Rotary(pass.sequences().iter().map(turn).collect())
    }
}

pub(super) fn causal(
    fused: &[f32],
    heads: Heads,
    Rotary(turns): &Rotary,
    layer: usize,
    pass: &mut Pass<'_, '_>,
    check: Check<'_>,
) -> Result<Vec<f32>> {
    match pass {
        Pass::Prompt(sequence) => prompt(fused, heads, &turns[0], layer, sequence, check),
        Pass::Step(members) => step(fused, heads, turns, layer, members),
    }
}

/// Where queries, keys and values of a fused projection are, from row `row` on.
fn parts(fused: &[f32], heads: Heads, row: usize) -> [Rows<'_>; 3] {
    let width = heads.fused();
    let at = |head: usize| Rows::strided(fused, row * width + head * heads.dim, width);
    [at(0), at(heads.query), at(heads.query + heads.kv)]
}

/// The rotated queries of the `n` positions that `layer` holds last, to `out`.
fn rotate(queries: Rows<'_>, n: usize, heads: Heads, turn: &RopeAngles, lanes: &[Lane], out: &mut [f32]) -> Result<()> {
    match &turn.ranks {
        None => rotary::rotate(queries, heads.query, heads.dim, &turn.angles, out),
        Some(ranks) => {
            // The last entries of a lane are the queries' own.
            let len = lanes.first().map_or(0, Lane::len);
            if lanes.iter().any(|lane| lane.len() != len) {
                return Err(Error::Internal("ranks need lanes of one length in a layer".into()));
            }
            let own: Vec<u32> = (len - n..len).map(|rank| rank as u32).collect();
            rotary::rotate(queries, heads.query, heads.dim, &ranks.select(&own), out);
        }
    }
    Ok(())
}

/// An angle for every place of the lanes whose keys are rotated when they are read.
fn phases(lanes: &[Lane], turn: &RopeAngles) -> Vec<Option<Angles>> {
    lanes.iter().map(|lane| turn.ranks.as_ref().map(|ranks| ranks.select(&lane.ranks()))).collect()
}

fn views<'a>(lanes: &'a [Lane], phases: &'a [Option<Angles>]) -> Vec<LaneView<'a>> {
    lanes.iter().zip(phases).map(|(lane, phases)| lane.view(phases.as_ref())).collect()
}

fn prompt(
    fused: &[f32],
    heads: Heads,
    turn: &RopeAngles,
    layer: usize,
    sequence: &mut Sequence,
    check: Check<'_>,
) -> Result<Vec<f32>> {
    let n = turn.angles.positions();
    let mut out = vec![0.0; n * heads.width()];
    let [queries, keys, values] = parts(fused, heads, 0);
    storable([queries, keys, values], n, heads, turn, layer, sequence.format())?;
    sequence.store(layer, keys, values, &turn.angles)?;
    let lanes = sequence.lanes(layer);
    let phases = phases(lanes, turn);
    let views = views(lanes, &phases);
    let mut rotated = vec![0.0; out.len()];
    rotate(queries, n, heads, turn, lanes, &mut rotated)?;
    let wanted = sequence.wanted_queries().min(n);
    let last = rotated.len() - wanted * heads.width();
    let queries = Rows::dense(&rotated, heads.width());
    let mut sums = Vec::new();
    let weights = sequence.query_weights(layer);
    let gather = weights.as_deref().map(|weights| Gather { weights, sums: &mut sums });
    let _workspace = match gather {
        Some(_) => Some(sequence.charge_sums(layer)?),
        None => None,
    };
    let stopped = || check().is_err();
    kernel::prefill_unless(&stopped, &heads.params(), queries, n, &views, gather, &mut out);
    drop(views);
    check()?;
    if wanted > 0 {
        sequence.keep_queries(layer, &rotated[last..])?;
    }
    sequence.attended(layer, &sums)?;
    Ok(out)
}

fn step(
    fused: &[f32],
    heads: Heads,
    turns: &[RopeAngles],
    layer: usize,
    members: &mut [BatchItem<'_>],
) -> Result<Vec<f32>> {
    let (group, width) = (heads.query / heads.kv, heads.width());
    let mut out = vec![0.0; members.len() * width];
    let mut rotated = vec![0.0; out.len()];
    for (row, ((member, turn), rotated)) in members.iter_mut().zip(turns).zip(rotated.chunks_mut(width)).enumerate() {
        member.attempt(|sequence| {
            let [queries, keys, values] = parts(fused, heads, row);
            storable([queries, keys, values], 1, heads, turn, layer, sequence.format())?;
            sequence.store(layer, keys, values, &turn.angles)?;
            rotate(queries, 1, heads, turn, sequence.lanes(layer), rotated)
        });
    }
    // Per sequence and lane.
    let phases: Vec<Vec<Option<Angles>>> =
        members.iter().zip(turns).map(|(member, turn)| phases(member.sequence.lanes(layer), turn)).collect();
    let mut sums: Vec<Vec<Vec<f32>>> = members
        .iter()
        .map(|member| {
            let gathers = member.sequence.gathers_step(layer);
            let of = |lane: &Lane| vec![0.0; if gathers { lane.places() } else { 0 }];
            member.sequence.lanes(layer).iter().map(of).collect()
        })
        .collect();
    let mut items = Vec::new();
    let rows = rotated.chunks(width).zip(out.chunks_mut(width));
    for (((member, phases), sums), (mut queries, mut out)) in members.iter().zip(&phases).zip(&mut sums).zip(rows) {
        if member.failed.is_some() {
            continue;
        }
        let lanes = member.sequence.lanes(layer);
        let gathers = member.sequence.gathers_step(layer);
        for ((lane, view), sums) in lanes.iter().zip(views(lanes, phases)).zip(sums) {
            let width = lane.heads().len() * group * heads.dim;
            let (query, queries_left) = queries.split_at(width);
            let (to, out_left) = out.split_at_mut(width);
            (queries, out) = (queries_left, out_left);
            items.push(DecodeItem { lane: view, queries: query, out: to, sums: gathers.then_some(&mut sums[..]) });
        }
    }
    kernel::decode(&heads.params(), &mut items);
    drop(items);
    for (member, sums) in members.iter_mut().zip(&sums) {
        member.attempt(|sequence| {
            let gathers = sequence.gathers_step(layer);
            sequence.stepped(layer, if gathers { sums } else { &[] });
            Ok(())
        });
    }
    Ok(out)
}

pub(super) fn bidirectional(fused: &[f32], n: usize, heads: Heads) -> Result<Vec<f32>> {
    let mut out = vec![0.0; n * heads.width()];
    let [queries, keys, values] = parts(fused, heads, 0);
    attendable([queries, keys, values], n, heads)?;
    let (mut to_keys, mut to_values) = (vec![0.0f32; n * heads.kv * heads.dim], vec![0.0f32; n * heads.kv * heads.dim]);
    let new = New { keys, values, skip: 0, n, angles: None };
    rotary::append(new, 0..heads.kv, heads.dim, &mut to_keys, &mut to_values, 0);
    let run = AnyRun::F32(Run { keys: &to_keys, values: &to_values, len: n, capacity: n });
    let lane = LaneView::new(heads.kv, vec![run]);
    kernel::prefill(&heads.every(), queries, n, &[lane], None, &mut out);
    Ok(out)
}
