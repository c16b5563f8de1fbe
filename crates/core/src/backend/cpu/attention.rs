//! Attention on the CPU.

use std::sync::Arc;

use prefixkv_kernels::attention::{self as kernel, AttentionParams, DecodeItem, Gather, LaneView, Rows, Run};
use prefixkv_kernels::codec::Dual;
use prefixkv_kernels::rotary::{self, Angles, Frequencies, New, Phase, Turns};

use super::storable::{Projected, attendable, storable};
use crate::backend::{Heads, LayerKind};
use crate::cache::Lane;
use crate::check::Check;
use crate::error::{Error, Result};
use crate::metrics;
use crate::sequence::{BatchItem, Pass, Phases, Probes, Sequence};

/// The rotations of the positions that one pass through the layers adds, by each of a model's rotary embeddings: one for a prompt, else
/// one per sequence. Of the patches of an image, one by one.
pub struct Rotary(Vec<Vec<RopeAngles>>);

pub(super) enum RopeAngles {
    /// One per new position; keys are stored rotated.
    Stored(Angles),
    /// Keys are rotated when they are read.
    OnRead(Angles, Numbers),
}

/// The number of an entry's angle.
#[derive(Clone)]
pub(super) enum Numbers {
    /// Its rank among the entries of its lane.
    Rank,
    /// By its position, counted from the least one of all.
    Position { least: u32, numbers: Arc<[u32]> },
}

impl Numbers {
    /// Of `positions`, ascending, in their order.
    fn of(positions: &[u32]) -> Numbers {
        let least = positions.first().copied().unwrap_or(0);
        let mut numbers = vec![NONE; positions.last().map_or(0, |last| (last - least) as usize + 1)];
        for (number, position) in (0..).zip(positions) {
            numbers[(position - least) as usize] = number;
        }
        Numbers::Position { least, numbers: numbers.into() }
    }

    /// Of every place of a lane.
    fn of_lane(&self, lane: &Lane) -> Result<Vec<u32>> {
        match self {
            Numbers::Rank => Ok(lane.ranks()),
            Numbers::Position { .. } => lane.positions_in_order().into_iter().map(|at| self.of_position(at)).collect(),
        }
    }

    /// Of the `n` rows on their way in a layer.
    fn of_rows(&self, n: usize, layer: usize, sequence: &Sequence) -> Result<Vec<u32>> {
        if let Numbers::Position { .. } = self {
            return sequence.on_the_way(n).into_iter().map(|at| self.of_position(at)).collect();
        }
        // The last entries of a lane are the queries' own.
        let lanes = sequence.lanes(layer);
        let len = lanes.first().map_or(0, Lane::len);
        if lanes.iter().any(|lane| lane.len() != len) {
            return Err(Error::Internal("ranks need lanes of one length in a layer".into()));
        }
        Ok((len - n..len).map(|rank| rank as u32).collect())
    }

    fn of_position(&self, position: u32) -> Result<u32> {
        let number = match self {
            Numbers::Rank => None,
            Numbers::Position { least, numbers } => {
                position.checked_sub(*least).and_then(|at| numbers.get(at as usize)).filter(|number| **number != NONE)
            }
        };
        number.copied().ok_or_else(|| Error::Internal(format!("no angle for an entry at position {position}")))
    }
}

/// No angle.
const NONE: u32 = u32::MAX;

impl Rotary {
    pub(super) fn new(variants: &[Frequencies], pass: &Pass<'_, '_>, rows: usize) -> Self {
        let n = pass.rows_each(rows);
        let phases: Vec<Phases> = pass.sequences().iter().map(|sequence| sequence.phases(n)).collect();
        let numbers = |phases: &Phases| match phases {
            Phases::OnRead { positions, .. } => Numbers::of(positions),
            Phases::Stored(_) | Phases::Ranks(_) => Numbers::Rank,
        };
        let numbers: Vec<Numbers> = phases.iter().map(numbers).collect();
        let turn = |frequencies: &Frequencies, phases: &Phases, numbers: &Numbers| match phases {
            Phases::Stored(phases) => RopeAngles::Stored(frequencies.angles(phases.iter().copied())),
            Phases::Ranks(end) => {
                RopeAngles::OnRead(frequencies.angles((0..*end).map(|rank| [rank; 3])), numbers.clone())
            }
            Phases::OnRead { phases, .. } => {
                RopeAngles::OnRead(frequencies.angles(phases.iter().copied()), numbers.clone())
            }
        };
        let one = |frequencies| {
            phases.iter().zip(&numbers).map(|(phases, numbers)| turn(frequencies, phases, numbers)).collect()
        };
        Rotary(variants.iter().map(one).collect())
    }

    /// Of rows at `phases`, in no cache.
    pub(super) fn at(frequencies: &Frequencies, phases: &[Phase]) -> Self {
        Rotary(vec![vec![RopeAngles::Stored(frequencies.angles(phases.iter().copied()))]])
    }
}

pub(super) fn causal(
    fused: &[f32],
    kind: &LayerKind,
    Rotary(variants): &Rotary,
    pass: &mut Pass<'_, '_>,
    check: Check<'_>,
) -> Result<Vec<f32>> {
    let turns = &variants[kind.rope];
    match pass {
        Pass::Prompt(sequence) => prompt(fused, kind, &turns[0], sequence, check),
        Pass::Step(members) => step(fused, kind, turns, members),
    }
}

/// Where queries, keys and values of a projection of `width` columns are, from row `row` on.
fn parts(fused: &[f32], heads: Heads, width: usize, row: usize) -> [Rows<'_>; 3] {
    let at = |head: usize| Rows::strided(fused, row * width + head * heads.dim, width);
    [at(0), at(heads.query), at(heads.query + heads.kv)]
}

/// As [`parts`], of a layer: keys and values where the sequence keeps its own there.
fn projected<'a>(fused: &'a [f32], kind: &LayerKind, row: usize, sequence: &Sequence) -> Projected<'a> {
    let [queries, keys, values] = parts(fused, kind.heads, kind.fused(), row);
    let owns = kind.stores() && sequence.source(kind.layer) == kind.layer;
    Projected { queries, stored: owns.then_some([keys, values]) }
}

/// Checks and stores the `n` new rows.
fn store(rows: &Projected<'_>, n: usize, kind: &LayerKind, turn: &RopeAngles, sequence: &mut Sequence) -> Result<()> {
    storable(rows, n, kind, turn, sequence.format())?;
    let Some([keys, values]) = rows.stored else { return Ok(()) };
    let angles = match turn {
        RopeAngles::Stored(angles) => Some(angles),
        RopeAngles::OnRead(..) => None,
    };
    sequence.store(kind.layer, keys, values, angles)
}

/// The rotated queries of the `n` positions on their way, to `out`.
fn rotate(
    queries: Rows<'_>,
    n: usize,
    kind: &LayerKind,
    turn: &RopeAngles,
    sequence: &Sequence,
    out: &mut [f32],
) -> Result<()> {
    let heads = kind.heads;
    match turn {
        RopeAngles::Stored(angles) => rotary::rotate(queries, heads.query, heads.dim, angles, out),
        RopeAngles::OnRead(angles, numbers) => {
            let own = numbers.of_rows(n, kind.layer, sequence)?;
            rotary::rotate(queries, heads.query, heads.dim, &angles.select(&own), out);
        }
    }
    Ok(())
}

/// The needs of attention for a lane beside its entries.
struct Beside<'t> {
    /// The number of an angle for every place, of keys that are rotated when they are read.
    turns: Option<(&'t Angles, Vec<u32>)>,
    /// Of every place, where a window is.
    positions: Option<Vec<u32>>,
}

fn beside<'t>(lanes: &[Lane], kind: &LayerKind, turn: &'t RopeAngles) -> Result<Vec<Beside<'t>>> {
    let turns = |lane: &Lane| match turn {
        RopeAngles::Stored(_) => Ok(None),
        RopeAngles::OnRead(angles, numbers) => numbers.of_lane(lane).map(|of| Some((angles, of))),
    };
    let one = |(lane, positions)| Ok(Beside { turns: turns(lane)?, positions });
    lanes.iter().zip(kind.positions(lanes)).map(one).collect()
}

fn views<'a>(lanes: &'a [Lane], beside: &'a [Beside<'a>], ends: Option<&'a [u32]>) -> Vec<LaneView<'a>> {
    let one = |(lane, Beside { turns, positions }): (&'a Lane, &'a Beside<'a>)| LaneView {
        positions: positions.as_deref(),
        ends,
        ..lane.view(turns.as_ref().map(|(angles, of)| Turns { angles, of }))
    };
    lanes.iter().zip(beside).map(one).collect()
}

fn prompt(
    fused: &[f32],
    kind: &LayerKind,
    turn: &RopeAngles,
    sequence: &mut Sequence,
    check: Check<'_>,
) -> Result<Vec<f32>> {
    let (layer, heads) = (kind.layer, kind.heads);
    let n = fused.len() / kind.fused();
    let mut out = vec![0.0; n * heads.width()];
    let rows = projected(fused, kind, 0, sequence);
    store(&rows, n, kind, turn, sequence)?;
    let lanes = sequence.lanes(layer);
    let beside = beside(lanes, kind, turn)?;
    let ends = sequence.ends(n);
    let views = views(lanes, &beside, ends.as_deref());
    let mut rotated = vec![0.0; out.len()];
    rotate(rows.queries, n, kind, turn, sequence, &mut rotated)?;
    let wanted = sequence.wanted_queries().min(n);
    let last = rotated.len() - wanted * heads.width();
    let queries = Rows::dense(&rotated, heads.width());
    let mut sums = Vec::new();
    let probes = sequence.probes(layer);
    let weights = if probes.is_none() { sequence.query_weights(layer) } else { None };
    let _workspace = match weights.is_some() || probes.is_some() {
        true => Some(sequence.charge_sums(layer)?),
        false => None,
    };
    let stopped = || check().is_err();
    if let Some(Probes { rows, weights }) = probes {
        let gather = Gather { weights: &weights, sums: &mut sums };
        kernel::received(&stopped, &kind.params(), queries, (n, &rows), &views, gather);
        drop(views);
        check()?;
        let part = sequence.among(layer, &sums)?;
        among(&stopped, (queries, n), kind, turn, sequence, &part, &mut out)?;
        // They are scored, and nothing is mixed.
        metrics::PAIRS_RUN.add(kind.pairs(rows.into_iter(), (n, ends.as_deref()), sequence.lanes(layer)) / 2);
    } else {
        let gather = weights.as_deref().map(|weights| Gather { weights, sums: &mut sums });
        kernel::prefill_unless(&stopped, &kind.params(), queries, n, &views, gather, &mut out);
        drop(views);
        metrics::PAIRS_RUN.add(kind.pairs(0..n, (n, ends.as_deref()), sequence.lanes(layer)));
    }
    check()?;
    if wanted > 0 {
        sequence.keep_queries(layer, &kind.params(), &rotated[last..])?;
    }
    sequence.attended(layer, &sums)?;
    Ok(out)
}

/// The attention of those of the `n` rows on their way whose entries are `part` of their lane, over these; the others get zeros.
fn among(
    stopped: &(dyn Fn() -> bool + Sync),
    (queries, n): (Rows<'_>, usize),
    kind: &LayerKind,
    turn: &RopeAngles,
    sequence: &Sequence,
    part: &[Vec<usize>],
    out: &mut [f32],
) -> Result<()> {
    let (heads, lanes) = (kind.heads, sequence.lanes(kind.layer));
    let (group, width) = (heads.query / heads.kv, heads.width());
    let beside = beside(lanes, kind, turn)?;
    let ends = sequence.ends(n);
    for ((lane, view), part) in lanes.iter().zip(views(lanes, &beside, ends.as_deref())).zip(part) {
        let (own, first) = (lane.heads().len(), lane.heads().start * group * heads.dim);
        let params = AttentionParams { query_heads: own * group, kv_heads: own, ..kind.params() };
        let _copies = sequence.charge_copies(part.len(), own)?;
        kernel::prefill_among(stopped, &params, (queries.behind(first), n), &view, part, (&mut out[first..], width));
        let first = lane.places() - n;
        let asked = part.partition_point(|place| *place < first);
        let ahead = |own: usize| {
            let end = ends.as_deref().map_or(0, |ends| ends[part[own] - first] as usize);
            part[own + 1..].partition_point(|place| *place < first + end)
        };
        let scored = (asked..part.len()).map(|own| params.sees(own) + ahead(own)).sum::<usize>();
        metrics::PAIRS_RUN.add((scored * own * group) as u64);
    }
    Ok(())
}

fn step(fused: &[f32], kind: &LayerKind, turns: &[RopeAngles], members: &mut [BatchItem<'_>]) -> Result<Vec<f32>> {
    let (layer, heads) = (kind.layer, kind.heads);
    let (group, width) = (heads.query / heads.kv, heads.width());
    let mut out = vec![0.0; members.len() * width];
    let mut rotated = vec![0.0; out.len()];
    for (row, ((member, turn), rotated)) in members.iter_mut().zip(turns).zip(rotated.chunks_mut(width)).enumerate() {
        member.attempt(|sequence| {
            let rows = projected(fused, kind, row, sequence);
            store(&rows, 1, kind, turn, sequence)?;
            rotate(rows.queries, 1, kind, turn, sequence, rotated)
        });
    }
    // Per sequence and lane; nothing of one that has failed.
    let mut all: Vec<Vec<Beside<'_>>> = members.iter().map(|_| Vec::new()).collect();
    for ((member, turn), all) in members.iter_mut().zip(turns).zip(&mut all) {
        member.attempt(|sequence| {
            *all = beside(sequence.lanes(layer), kind, turn)?;
            Ok(())
        });
    }
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
    for (((member, beside), sums), (mut queries, mut out)) in members.iter().zip(&all).zip(&mut sums).zip(rows) {
        if member.failed.is_some() {
            continue;
        }
        let lanes = member.sequence.lanes(layer);
        let gathers = member.sequence.gathers_step(layer);
        for ((lane, view), sums) in lanes.iter().zip(views(lanes, beside, None)).zip(sums) {
            let width = lane.heads().len() * group * heads.dim;
            let (query, queries_left) = queries.split_at(width);
            let (to, out_left) = out.split_at_mut(width);
            (queries, out) = (queries_left, out_left);
            items.push(DecodeItem { lane: view, queries: query, out: to, sums: gathers.then_some(&mut sums[..]) });
        }
    }
    kernel::decode(&kind.params(), &mut items);
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
    let [queries, keys, values] = parts(fused, heads, heads.fused(), 0);
    attendable([queries, keys, values], n, heads)?;
    let (mut to_keys, mut to_values) = (vec![0.0f32; n * heads.kv * heads.dim], vec![0.0f32; n * heads.kv * heads.dim]);
    let new = New { keys, values, skip: 0, n, angles: None };
    rotary::append(new, Dual::None, 0..heads.kv, heads.dim, &mut to_keys, &mut to_values, 0);
    let run = Run::plain(&to_keys, &to_values, n, n);
    let lane = LaneView::new(heads.kv, vec![run]);
    kernel::prefill(&heads.every(), queries, n, &[lane], None, &mut out);
    Ok(out)
}

pub(super) fn segmented(
    fused: &[f32],
    heads: Heads,
    Rotary(variants): &Rotary,
    segments: &[usize],
    check: Check<'_>,
) -> Result<Vec<f32>> {
    let Some(RopeAngles::Stored(angles)) = variants.first().and_then(|turns| turns.first()) else {
        return Err(Error::Internal("patches without the angles of their places".into()));
    };
    let (n, width, kv) = (angles.positions(), heads.width(), heads.kv * heads.dim);
    if fused.len() != n * heads.fused() || segments.iter().sum::<usize>() != n {
        return Err(Error::Internal(format!(
            "{n} angles and segments of {segments:?} rows for {} numbers",
            fused.len()
        )));
    }
    attendable(parts(fused, heads, heads.fused(), 0), n, heads)?;
    let mut queries = vec![0.0; n * width];
    rotary::rotate(parts(fused, heads, heads.fused(), 0)[0], heads.query, heads.dim, angles, &mut queries);
    let longest = segments.iter().copied().max().unwrap_or(0);
    let (mut keys, mut values) = (vec![0.0f32; longest * kv], vec![0.0f32; longest * kv]);
    let mut out = vec![0.0; n * width];
    let mut first = 0;
    for &len in segments {
        check()?;
        let [_, new_keys, new_values] = parts(fused, heads, heads.fused(), first);
        let own = angles.select(&(first..first + len).map(|row| row as u32).collect::<Vec<_>>());
        let new = New { keys: new_keys, values: new_values, skip: 0, n: len, angles: Some(&own) };
        let (keys, values) = (&mut keys[..len * kv], &mut values[..len * kv]);
        rotary::append(new, Dual::None, 0..heads.kv, heads.dim, keys, values, 0);
        let lane = LaneView::new(heads.kv, vec![Run::plain(keys, values, len, len)]);
        let rows = first * width..(first + len) * width;
        let (asked, to) = (Rows::dense(&queries[rows.clone()], width), &mut out[rows]);
        kernel::prefill_unless(&|| check().is_err(), &heads.every(), asked, len, &[lane], None, to);
        first += len;
    }
    check()?;
    Ok(out)
}
