//! A step through all layers, planned before the first: new entries are counted everywhere, and one write tells the device where they go
//! and which entries attention reads.

use prefixkv_kernels::cuda::{self, Angles, Gpu, Held, MoveItem, Planner, StepLane};
use prefixkv_kernels::rotary;

use crate::backend::LayerKind;
use crate::cache::{Entry, Lane};
use crate::device::Cuda;
use crate::error::{Error, Result};
use crate::sequence::{BatchItem, Pass};

/// The rotations of the rows of a pass, by each of a model's rotary embeddings, and the plan of a step.
#[derive(Debug)]
pub struct Rotary {
    angles: Vec<Angles>,
    step: Option<Plan>,
}

/// The plan of a step.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) step: cuda::Step,
    kinds: Vec<LayerKind>,
    /// New entries, per layer and row.
    reserved: Vec<Vec<Vec<Entry>>>,
    /// The layers and rows whose probabilities are asked for, in the order of the step's sums, and how many lanes each has.
    asked: Vec<(usize, usize, usize)>,
}

impl Rotary {
    pub(super) fn of_rows(angles: Vec<Angles>) -> Self {
        Rotary { angles, step: None }
    }

    /// Makes room for a step's entries in all layers of `kinds`, and plans it.
    pub(super) fn of_step(
        cuda: &Cuda,
        angles: &[rotary::Angles],
        kinds: &[LayerKind],
        pass: &mut Pass<'_, '_, Cuda>,
    ) -> Result<Self> {
        let gpu = &cuda.gpu;
        let reserved = kinds.iter().map(|kind| reserve(kind, pass)).collect::<Vec<_>>();
        // As those see it that have found room.
        let kinds: Vec<LayerKind> = kinds.iter().map(|kind| kind.in_pass(pass)).collect();
        let members: &mut [BatchItem<'_, Cuda>] = match pass {
            Pass::Step(members) => members,
            Pass::Prompt(_) => return Err(Error::Internal("a prompt planned as a step".into())),
        };
        let mut planner = Planner::new(members.len());
        plan_moves(&mut planner, members)?;
        let mut asked = Vec::new();
        for kind in &kinds {
            plan_entries(&mut planner, kind, members)?;
            plan_attention(&mut planner, gpu, kind, members, &mut asked)?;
        }
        Ok(Rotary { angles: Vec::new(), step: Some(Plan { step: planner.send(gpu, angles)?, kinds, reserved, asked }) })
    }

    pub(super) fn angles(&self, rope: usize) -> Result<&Angles> {
        let all = self.step.as_ref().map_or(&self.angles[..], |plan| plan.step.angles());
        all.get(rope).ok_or_else(|| Error::Internal(format!("rotary embedding {rope} of {}", all.len())))
    }

    pub(super) fn plan(&self) -> Result<&Plan> {
        self.step.as_ref().ok_or_else(|| Error::Internal("a step without a plan".into()))
    }
}

impl Plan {
    /// The number of a layer in the plan, and whether its new entries are written.
    pub(super) fn number(&self, kind: &LayerKind) -> Result<(usize, bool)> {
        let found = self.kinds.iter().position(|planned| planned.layer == kind.layer);
        let number = found.ok_or_else(|| Error::Internal(format!("layer {} is not in the plan", kind.layer)))?;
        // It may store nothing any more, if the only sequence with entries of its own has failed since.
        Ok((number, kind.stores() && self.kinds[number].stores()))
    }

    /// Tells the sequences that the new entries of a layer are there.
    pub(super) fn written(&self, number: usize, members: &mut [BatchItem<'_, Cuda>]) {
        for (member, entries) in members.iter_mut().zip(&self.reserved[number]) {
            member.attempt(|sequence| sequence.written(self.kinds[number].layer, entries));
        }
    }

    /// Behind the last layer, gives the sequences the probabilities that they asked for.
    pub(super) fn stepped(&self, number: usize, members: &mut [BatchItem<'_, Cuda>]) -> Result<()> {
        if number + 1 < self.kinds.len() || self.asked.is_empty() {
            return Ok(());
        }
        let mut sums = self.step.sums()?.into_iter();
        for (layer, row, lanes) in &self.asked {
            let sums: Vec<Vec<f32>> = sums.by_ref().take(*lanes).collect();
            members[*row].attempt(|sequence| {
                sequence.stepped(*layer, &sums);
                Ok(())
            });
        }
        Ok(())
    }
}

/// The new entries of a layer, per row.
fn reserve(kind: &LayerKind, pass: &mut Pass<'_, '_, Cuda>) -> Vec<Vec<Entry>> {
    let stores = kind.in_pass(pass).stores();
    let Pass::Step(members) = pass else { return Vec::new() };
    let one = |member: &mut BatchItem<'_, Cuda>| {
        let mut entries = Vec::new();
        member.attempt(|sequence| {
            if stores {
                entries = sequence.reserve(kind.layer)?;
            }
            Ok(())
        });
        entries
    };
    members.iter_mut().map(one).collect()
}

/// Those that have not failed, with their rows.
fn working<'m, 's>(
    members: &'m mut [BatchItem<'s, Cuda>],
) -> impl Iterator<Item = (usize, &'m mut BatchItem<'s, Cuda>)> {
    members.iter_mut().enumerate().filter(|(_, member)| member.failed.is_none())
}

fn plan_moves(planner: &mut Planner, members: &mut [BatchItem<'_, Cuda>]) -> Result<()> {
    let mut moves: Vec<(MoveItem<'_>, Held)> = Vec::new();
    for (_, member) in working(members) {
        moves.extend(member.sequence.all_lanes_mut().flat_map(Lane::moves));
    }
    if moves.is_empty() {
        return Ok(());
    }
    planner.moves(&moves)?;
    drop(moves);
    for (_, member) in working(members) {
        member.sequence.all_lanes_mut().for_each(Lane::moved);
    }
    Ok(())
}

/// From here on the entries count as written: nothing reads them before the launch that writes them.
fn plan_entries(planner: &mut Planner, kind: &LayerKind, members: &mut [BatchItem<'_, Cuda>]) -> Result<()> {
    if !kind.stores() {
        planner.layer(&kind.params(), None)?;
        return Ok(());
    }
    let mut items = Vec::new();
    for (row, member) in working(members) {
        items.extend(member.sequence.lanes_mut(kind.layer).iter_mut().flat_map(|lane| lane.unwritten(row)));
    }
    planner.layer(&kind.params(), Some(&items))?;
    drop(items);
    for (_, member) in working(members) {
        member.sequence.lanes_mut(kind.layer).iter_mut().for_each(Lane::written);
    }
    Ok(())
}

fn plan_attention(
    planner: &mut Planner,
    gpu: &Gpu,
    kind: &LayerKind,
    members: &mut [BatchItem<'_, Cuda>],
    asked: &mut Vec<(usize, usize, usize)>,
) -> Result<()> {
    let layer = kind.layer;
    let working: Vec<(usize, &mut BatchItem<'_, Cuda>)> = working(members).collect();
    let positions: Vec<Vec<Option<Vec<u32>>>> =
        working.iter().map(|(_, member)| kind.positions(member.sequence.lanes(layer))).collect();
    let mut all = Vec::new();
    for ((row, member), positions) in working.iter().zip(&positions) {
        let (lanes, gathers) = (member.sequence.lanes(layer), member.sequence.gathers_step(layer));
        if gathers {
            asked.push((layer, *row, lanes.len()));
        }
        let mut first_head = 0;
        for (lane, positions) in lanes.iter().zip(positions) {
            let heads = lane.heads().len();
            let held = lane.held();
            let lane = cuda::Lane { positions: positions.as_deref(), ..lane.runs()? };
            all.push(StepLane { lane, held, row: *row, first_head, gathers });
            first_head += heads;
        }
    }
    Ok(planner.attend(gpu, &all)?)
}
