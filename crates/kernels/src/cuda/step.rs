//! A step through all layers, described before its first launch.
//!
//! Where the entries of a step go, and which of them attention reads, is known before the step begins. So the descriptors of all layers are
//! sent in one write, and a launch takes them by their address.

use std::ops::Range;

use super::codec::transform_in_place;
use super::decode::{self, Described};
use super::gather::{self, DescribedMoves};
use super::memory::{Held, Table};
use super::rotary::{self as rows, DescribedAppend, Queries};
use super::{Angles, AppendItem, Buffer, Element, Error, Gpu, Lane, MoveItem, New, Result, SliceMut, require};
use crate::attention::AttentionParams;
use crate::codec::Transform;
use crate::rotary;

/// A lane that one row of a step attends to.
pub struct StepLane<'a> {
    pub lane: Lane<'a>,
    /// The memory of its runs.
    pub held: Vec<Held>,
    /// The row of the step, and the first KV head of the lane among those of the layer.
    pub row: usize,
    pub first_head: usize,
    /// Whether the probabilities of its entries are asked for.
    pub gathers: bool,
}

/// The descriptors of one layer.
struct Layer {
    params: AttentionParams,
    append: Option<DescribedAppend>,
    decode: Option<Described>,
    /// Transforms of the queries of rows: row, query heads, transform.
    turns: Vec<(usize, Range<usize>, Transform)>,
}

/// The launches of a step, on the host.
#[derive(Default)]
pub struct Planner {
    moves: Option<DescribedMoves>,
    layers: Vec<Layer>,
    held: Vec<Held>,
    /// Rows of the step.
    rows: usize,
    /// Sums that are asked for, lane by lane of all layers.
    asked: Vec<usize>,
    /// All together.
    gathered: usize,
}

impl Planner {
    /// For a step of `rows` rows.
    pub fn new(rows: usize) -> Self {
        Planner { rows, ..Planner::default() }
    }

    /// Refuses memory that nobody holds.
    fn hold<'m>(&mut self, held: &[Held], memory: impl Iterator<Item = (u64, usize)> + 'm) -> Result<()> {
        for (address, bytes) in memory {
            require(bytes == 0 || held.iter().any(|held| held.covers(address, bytes)), || {
                format!("{bytes} bytes at {address:#x}, which are in no memory that a step holds")
            })?;
        }
        self.held.extend(held.iter().cloned());
        Ok(())
    }

    /// Rows that are copied before anything else, of all layers.
    pub fn moves(&mut self, items: &[(MoveItem<'_>, Held)]) -> Result<()> {
        for (item, held) in items {
            self.hold(std::slice::from_ref(held), std::iter::once((item.rows.address(), item.rows.len())))?;
        }
        let items: Vec<&MoveItem<'_>> = items.iter().map(|(item, _)| item).collect();
        self.moves = gather::describe_moves(&items)?;
        Ok(())
    }

    /// Adds a layer: where the new entries go, if it stores any.
    pub fn layer(&mut self, params: &AttentionParams, new: Option<&[(AppendItem<'_>, Held)]>) -> Result<()> {
        let mut append = None;
        if let Some(new) = new {
            for (item, held) in new {
                let parts = [&item.keys, &item.values].map(|part| (part.address(), part.len()));
                self.hold(std::slice::from_ref(held), parts.into_iter())?;
            }
            let items: Vec<&AppendItem<'_>> = new.iter().map(|(item, _)| item).collect();
            append = Some(rows::describe(&items, (params.kv_heads, self.rows), params.dim)?);
        }
        self.layers.push(Layer { params: *params, append, decode: None, turns: Vec::new() });
        Ok(())
    }

    /// The lanes that the last layer that was added reads once its entries are there. How they are cut follows from all of them, as in
    /// [`decode`](super::decode()).
    pub fn attend(&mut self, gpu: &Gpu, lanes: &[StepLane<'_>]) -> Result<()> {
        let Some(params) = self.layers.last().map(|layer| layer.params) else {
            return Err(Error::Argument("lanes of no layer".into()));
        };
        let (group, dim) = (params.group(), params.dim);
        let width = params.query_heads * dim;
        let (mut parts, mut turns) = (Vec::with_capacity(lanes.len()), Vec::new());
        for StepLane { lane, held, row, first_head, gathers } in lanes {
            let memory = lane.runs.iter().flat_map(|run| {
                let parts = &run.parts;
                [parts.keys, parts.key_scales, parts.values, parts.value_scales]
                    .map(|part| (part.address(), part.len()))
            });
            self.hold(held, memory)?;
            require(*row < self.rows && first_head + lane.heads <= params.kv_heads, || {
                format!("row {row} of {}, heads {first_head}+{} of {}", self.rows, lane.heads, params.kv_heads)
            })?;
            let heads = first_head * group..(first_head + lane.heads) * group;
            if !lane.dual().keys().is_none() {
                turns.push((*row, heads.clone(), lane.dual().keys()));
            }
            let at = (row * width + heads.start * dim) as u64;
            let sums = gathers.then_some(self.gathered as u64);
            if *gathers {
                self.asked.push(lane.len());
                self.gathered += lane.len();
            }
            parts.push(decode::Part { lane, queries: at, out: at, sums });
        }
        if let (Some(layer), false) = (self.layers.last_mut(), parts.is_empty()) {
            layer.decode = Some(decode::describe(gpu, &params, &parts)?);
            layer.turns = turns;
        }
        Ok(())
    }

    /// Sends the descriptors, and the angles of the rows by each of the rotary embeddings, and makes the moves.
    pub fn send(mut self, gpu: &Gpu, angles: &[rotary::Angles]) -> Result<Step> {
        let mut table = Table::default();
        let angles: Vec<_> = angles.iter().map(|angles| rows::place(&mut table, angles)).collect::<Result<_>>()?;
        let moves = self.moves.as_mut().map(|moves| moves.place(&mut table));
        for layer in &mut self.layers {
            if let Some(append) = &mut layer.append {
                append.place(&mut table);
            }
            if let Some(decode) = &mut layer.decode {
                decode.place(&mut table);
            }
        }
        let sent = table.send(gpu)?;
        let base = sent.all().address();
        if let (Some(moves), Some(at)) = (&self.moves, moves) {
            // SAFETY: the rows were checked when they were described, and are held.
            unsafe { moves.launch(gpu, base, at)? };
        }
        let angles = angles.into_iter().map(|placed| placed.at(&sent)).collect();
        let sums = Buffer::working(gpu, self.gathered)?;
        Ok(Step {
            gpu: gpu.clone(),
            layers: self.layers,
            rows: self.rows,
            asked: self.asked,
            angles,
            sums,
            sent,
            _held: self.held,
        })
    }
}

/// A step whose descriptors are on the device. The memory that they name stays as long as it.
pub struct Step {
    gpu: Gpu,
    layers: Vec<Layer>,
    rows: usize,
    asked: Vec<usize>,
    angles: Vec<Angles>,
    /// Of all lanes of all layers that were asked for.
    sums: Buffer<f32>,
    sent: Buffer<u8>,
    _held: Vec<Held>,
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Step({} layers of {} rows)", self.layers.len(), self.rows)
    }
}

impl Step {
    /// Angles of the rows, by each rotary embedding.
    pub fn angles(&self) -> &[Angles] {
        &self.angles
    }

    fn layer(&self, layer: usize) -> Result<&Layer> {
        let found = self.layers.get(layer);
        found.ok_or_else(|| Error::Argument(format!("layer {layer} of a step of {}", self.layers.len())))
    }

    /// Writes the new entries of a layer, and rotates queries.
    pub fn append<A: Element>(&self, layer: usize, new: New<'_, A>, queries: Queries<'_, A>) -> Result<()> {
        let Layer { params, append, .. } = self.layer(layer)?;
        let Some(append) = append else {
            return Err(Error::Argument(format!("layer {layer} of a step stores nothing")));
        };
        require(new.rows == self.rows && new.heads == params.kv_heads, || {
            format!(
                "{} rows of {} heads, where {} of {} were described",
                new.rows, new.heads, self.rows, params.kv_heads
            )
        })?;
        // SAFETY: described for these rows and heads, and sent; the targets are held.
        unsafe { rows::launch(&self.gpu, append, self.sent.all().address(), new, Some(queries), params.dim) }
    }

    /// Attends the rows of a layer to its lanes: `queries` are `[rows, query_heads, dim]`, rotated, and may be changed; `out` is as long.
    /// Rows without a lane are left as they are.
    pub fn decode<O: Element>(&self, layer: usize, queries: &mut Buffer<f32>, out: SliceMut<'_, O>) -> Result<()> {
        let Layer { params, decode, turns, .. } = self.layer(layer)?;
        let width = params.query_heads * params.dim;
        require(queries.len() == self.rows * width && out.len() == self.rows * width, || {
            format!("{} queries and {} results for {} rows of {width}", queries.len(), out.len(), self.rows)
        })?;
        let Some(decode) = decode else { return Ok(()) };
        for (row, heads, through) in turns {
            let at = row * width + heads.start * params.dim;
            let at = queries.all_mut().address() + (at * size_of::<f32>()) as u64;
            // SAFETY: these heads of the row are among the queries, which are borrowed uniquely.
            unsafe { transform_in_place(&self.gpu, *through, at, heads.len(), params.dim)? };
        }
        let bases = decode::Bases {
            queries: queries.all().address(),
            out: out.address(),
            sums: self.sums.all().address(),
            sets_sums: true,
        };
        // SAFETY: the lanes were checked when they were described, and are held; offsets are within queries and results of this length, and
        // within the sums.
        unsafe { decode::launch::<O>(&self.gpu, decode, self.sent.all().address(), &bases) }
    }

    /// The probabilities that were asked for in steps of one device, lane by lane, in the order in which the lanes were described. One read.
    pub fn sums(steps: &[&Step]) -> Result<Vec<Vec<f32>>> {
        let asked: Vec<&Step> = steps.iter().filter(|step| !step.asked.is_empty()).copied().collect();
        let all = match asked[..] {
            [] => return Ok(Vec::new()),
            [only] => only.sums.read()?,
            [first, ..] => {
                let mut joined = Buffer::working(&first.gpu, asked.iter().map(|step| step.sums.len()).sum())?;
                let mut at = 0;
                for step in &asked {
                    joined.copy(at, step.sums.all())?;
                    at += step.sums.len();
                }
                joined.read()?
            }
        };
        let mut rest = &all[..];
        let lens = asked.iter().flat_map(|step| &step.asked);
        let parts = lens.map(|len| {
            let (part, left) = rest.split_at(*len);
            rest = left;
            part.to_vec()
        });
        Ok(parts.collect())
    }
}
