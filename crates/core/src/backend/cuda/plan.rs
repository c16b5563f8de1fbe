//! A step through the layers, planned before it: new entries are counted in many layers, and one write tells the device where they go and
//! which entries attention reads.

use std::cell::RefCell;

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
    step: Option<RefCell<Plan>>,
}

/// The plan of a step, which is made group by group of layers: the device works on one while the host plans the next.
#[derive(Debug)]
struct Plan {
    kinds: Vec<LayerKind>,
    groups: Vec<Group>,
    /// Layers in the groups.
    planned: usize,
}

/// Layers that were planned together.
#[derive(Debug)]
struct Group {
    step: cuda::Step,
    /// The number of the first layer.
    first: usize,
    /// Whether new entries of each layer are written.
    stores: Vec<bool>,
    /// New entries, per layer and row.
    reserved: Vec<Vec<Vec<Entry>>>,
    /// The layers and rows whose probabilities are asked for, in the order of the step's sums, and how many lanes each has.
    asked: Vec<(usize, usize, usize)>,
}

/// Lanes that the first group has at most, unless one layer has more: as long as they are planned, the device waits. Each further group may have
/// four times as many as the one before.
const FIRST_LANES: usize = 128;

impl Rotary {
    pub(super) fn of_rows(angles: Vec<Angles>) -> Self {
        Rotary { angles, step: None }
    }

    /// Begins to plan a step through layers of `kinds`.
    pub(super) fn of_step(
        cuda: &Cuda,
        angles: &[rotary::Angles],
        kinds: &[LayerKind],
        pass: &mut Pass<'_, '_, Cuda>,
    ) -> Result<Self> {
        let Pass::Step(members) = pass else { return Err(Error::Internal("a prompt planned as a step".into())) };
        let mut plan = Plan { kinds: kinds.to_vec(), groups: Vec::new(), planned: 0 };
        plan.go_on(&cuda.gpu, angles, members)?;
        let angles = plan.groups.first().map_or(Vec::new(), |group| group.step.angles().to_vec());
        Ok(Rotary { angles, step: Some(RefCell::new(plan)) })
    }

    pub(super) fn angles(&self, rope: usize) -> Result<&Angles> {
        let all = &self.angles;
        all.get(rope).ok_or_else(|| Error::Internal(format!("rotary embedding {rope} of {}", all.len())))
    }

    /// The attention of a step in the layer of `kind`, by `attend`, once it is planned.
    pub(super) fn step<T>(
        &self,
        gpu: &Gpu,
        kind: &LayerKind,
        members: &mut [BatchItem<'_, Cuda>],
        attend: impl FnOnce(Planned<'_>, &mut [BatchItem<'_, Cuda>]) -> Result<T>,
    ) -> Result<T> {
        let Some(plan) = &self.step else { return Err(Error::Internal("a step without a plan".into())) };
        let mut plan = plan.borrow_mut();
        let found = plan.kinds.iter().position(|planned| planned.layer == kind.layer);
        let number = found.ok_or_else(|| Error::Internal(format!("layer {} is not in the plan", kind.layer)))?;
        while number >= plan.planned {
            plan.go_on(gpu, &[], members)?;
        }
        let group = plan.groups.iter().rfind(|group| group.first <= number);
        let group = group.ok_or_else(|| Error::Internal(format!("layer {number} was not planned")))?;
        let in_group = number - group.first;
        // It may store nothing any more, if the only sequence with entries of its own has failed since.
        let stores = kind.stores() && group.stores[in_group];
        let planned = Planned { step: &group.step, number: in_group, stores, reserved: &group.reserved[in_group] };
        let out = attend(planned, members)?;
        if number + 1 == plan.kinds.len() {
            plan.stepped(members)?;
        }
        Ok(out)
    }
}

/// A layer of a plan.
pub(super) struct Planned<'a> {
    pub(super) step: &'a cuda::Step,
    /// Its number there.
    pub(super) number: usize,
    /// Whether its new entries are written.
    pub(super) stores: bool,
    reserved: &'a [Vec<Entry>],
}

impl Planned<'_> {
    /// Tells the sequences that the new entries of the layer are there.
    pub(super) fn written(&self, layer: usize, members: &mut [BatchItem<'_, Cuda>]) {
        for (member, entries) in members.iter_mut().zip(self.reserved) {
            member.attempt(|sequence| sequence.written(layer, entries));
        }
    }
}

impl Plan {
    /// Makes room for the new entries of the next layers, and plans these.
    fn go_on(&mut self, gpu: &Gpu, angles: &[rotary::Angles], members: &mut [BatchItem<'_, Cuda>]) -> Result<()> {
        let first = self.planned;
        let most = FIRST_LANES << (2 * self.groups.len().min(8));
        let mut planner = Planner::new(members.len());
        let (mut asked, mut reserved, mut stores, mut lanes) = (Vec::new(), Vec::new(), Vec::new(), 0);
        // Before any layer is described, because all moves are one launch.
        let mut last = first;
        for kind in &self.kinds[first..] {
            let of_layer: usize = members.iter().map(|member| member.sequence.lanes(kind.layer).len()).sum();
            if last > first && lanes + of_layer > most {
                break;
            }
            lanes += of_layer;
            last += 1;
            reserved.push(reserve(kind, members));
        }
        plan_moves(&mut planner, &self.kinds[first..last], members)?;
        for kind in &self.kinds[first..last] {
            // As those see it that have found room.
            let kind = kind.in_pass(&Pass::Step(&mut *members));
            stores.push(kind.stores());
            plan_entries(&mut planner, &kind, members)?;
            plan_attention(&mut planner, gpu, &kind, members, &mut asked)?;
        }
        let step = planner.send(gpu, angles)?;
        self.groups.push(Group { step, first, stores, reserved, asked });
        self.planned = last;
        Ok(())
    }

    /// Behind the last layer, gives the sequences the probabilities that they asked for.
    fn stepped(&self, members: &mut [BatchItem<'_, Cuda>]) -> Result<()> {
        let steps: Vec<&cuda::Step> = self.groups.iter().map(|group| &group.step).collect();
        let mut sums = cuda::Step::sums(&steps)?.into_iter();
        for (layer, row, lanes) in self.groups.iter().flat_map(|group| &group.asked) {
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
fn reserve(kind: &LayerKind, members: &mut [BatchItem<'_, Cuda>]) -> Vec<Vec<Entry>> {
    let stores = kind.in_pass(&Pass::Step(&mut *members)).stores();
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

fn plan_moves(planner: &mut Planner, kinds: &[LayerKind], members: &mut [BatchItem<'_, Cuda>]) -> Result<()> {
    let (Some(first), Some(last)) = (kinds.first(), kinds.last()) else { return Ok(()) };
    let layers = first.layer..last.layer + 1;
    let mut moves: Vec<(MoveItem<'_>, Held)> = Vec::new();
    for (_, member) in working(members) {
        moves.extend(member.sequence.all_lanes_mut(layers.clone()).flat_map(Lane::moves));
    }
    if moves.is_empty() {
        return Ok(());
    }
    planner.moves(&moves)?;
    drop(moves);
    for (_, member) in working(members) {
        member.sequence.all_lanes_mut(layers.clone()).for_each(Lane::moved);
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
