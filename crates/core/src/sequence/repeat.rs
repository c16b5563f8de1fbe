//! A prompt that is read again behind itself: rows that see all of it, say what they look at, and leave nothing.

use std::borrow::Cow;

use prefixkv_kernels::attention::AttentionParams;
use prefixkv_kernels::rotary::Phase;
use rayon::prelude::*;

use super::{Sequence, Work};
use crate::cache::{Charge, Entry, Memory};
use crate::error::{Error, Result};
use crate::fields::refuse;
use crate::method::score::rows::{attend, heads_apart};
use crate::method::view::ReadLane;

/// The rows that repeat a prompt: an instruction, then the prompt from its row `first` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat {
    pub first: usize,
    pub rows: usize,
}

/// The queries of a repetition in the layer that has just attended.
#[derive(Debug)]
pub(super) struct Repeated {
    params: AttentionParams,
    /// `[rows, query heads, head_dim]`.
    queries: Vec<f32>,
    _charge: Charge,
}

impl<M: Memory> Sequence<M> {
    /// Says how many tokens come between a prompt and its repetition, if its method asks for one.
    pub fn set_instruction(&mut self, tokens: usize) {
        self.instruction = tokens;
    }

    /// Whether prompts are to be repeated.
    pub fn wants_repeats(&self) -> bool {
        self.method.as_ref().is_some_and(|method| method.needs.repeats)
    }

    /// The rows that come behind a prompt of `n` positions. The first position of a sequence, from which attention rests, is not repeated.
    pub fn repeats(&self, n: usize) -> Option<Repeat> {
        let first = usize::from(self.next_position == 0 && n > 1);
        self.wants_repeats().then_some(Repeat { first, rows: self.instruction + n - first })
    }

    /// Rows that repeat the prompt on its way.
    pub(super) fn tail(&self) -> usize {
        match self.work {
            Work::Prompt(reach) => reach.tail,
            _ => 0,
        }
    }

    /// Where a family that places prompts turns the `tail` rows that repeat one, behind its `phases`: as if it were there a second time, with
    /// the instruction between the two.
    pub(super) fn repeated_phases(&self, phases: &[Phase], advance: u32, tail: usize) -> Vec<Phase> {
        let again = tail.saturating_sub(self.instruction).min(phases.len());
        let again = &phases[phases.len() - again..];
        let between = (0..(tail - again.len()) as u32).map(|row| [advance + row; 3]);
        let from = advance + (tail - again.len()) as u32;
        let start = again.first().map_or(0, |phase| phase[0]);
        between.chain(again.iter().map(|phase| phase.map(|axis| from + axis - start))).collect()
    }

    /// Bytes that the repetition takes beside the prompt: its rows in one layer, and the lanes of that layer a second time when they are
    /// dropped.
    pub(super) fn repeat_bytes(&self, n: usize) -> u64 {
        let Some(Repeat { rows, .. }) = self.repeats(n) else { return 0 };
        (self.entry_bytes() * (rows + self.longest_lane() + n)) as u64
    }

    /// Refuses a prompt whose keys are not stored as they attend.
    pub(super) fn require_repeatable(&self) -> Result<()> {
        if self.wants_repeats() && (self.rotates_to_ranks() || self.track.is_some()) {
            return Err(refuse(
                "a method that repeats its prompts needs keys that are stored rotated, to their true positions",
            ));
        }
        Ok(())
    }

    /// Keeps the queries of the repetition, the last rows of `queries`, until [`Sequence::attended`]; gives the others.
    pub(super) fn keep_repeated<'q>(&mut self, params: &AttentionParams, queries: &'q [f32]) -> Result<&'q [f32]> {
        let numbers = self.tail() * params.query_heads * params.dim;
        let Some(method) = self.method.as_mut().filter(|_| numbers > 0) else { return Ok(queries) };
        let Some(before) = queries.len().checked_sub(numbers) else {
            return Err(Error::Internal(format!("{numbers} numbers of queries are wanted, found {}", queries.len())));
        };
        let (others, own) = queries.split_at(before);
        let _charge = self.account.charge(size_of_val(own) as u64)?;
        method.repeated = Some(Repeated { params: *params, queries: own.to_vec(), _charge });
        Ok(others)
    }

    /// Drops the entries of the repetition from `layer`. Gives the most attention that any of its queries has given each entry, per KV head, in
    /// the order of places.
    pub(super) fn forget_tail(&mut self, layer: usize) -> Result<Cow<'static, [Vec<f32>]>> {
        let end = self.first_position() + self.positions_on_the_way() as u32;
        let repeated = self.method.as_mut().and_then(|method| method.repeated.take());
        let Some(repeated) = repeated else {
            return Err(Error::Internal(format!("no queries of a repetition in layer {layer}")));
        };
        let tail = end as usize..end as usize + self.tail();
        let sights: Vec<usize> = match self.layout.has_blocks() {
            true => tail.map(|position| self.sight(position)).collect(),
            false => tail.map(|position| position + 1).collect(),
        };
        let mut received = Vec::new();
        for lane in &mut self.layers[layer] {
            let sorted = lane.sorted();
            let stay = sorted.partition_point(|entry| entry.position < end);
            let most = repeated.received(lane, &sorted, stay, &sights)?;
            let places: Vec<u32> = sorted[..stay].iter().map(|entry| entry.place).collect();
            lane.retain(&places)?;
            let (sorted, places) = (lane.sorted(), lane.places());
            received.extend(most.into_iter().map(|most| {
                let mut by_place = vec![0.0; places];
                sorted.iter().zip(most).for_each(|(entry, most)| by_place[entry.place as usize] = most);
                by_place
            }));
        }
        Ok(received.into())
    }
}

impl Repeated {
    /// For each KV head of a lane, the most attention that a query of any of its query heads gives the first `stay` of its entries. Queries see what
    /// lies before the positions `sights`. Takes as many numbers as there are entries for each thread, and the products of attention once more.
    fn received(&self, lane: &dyn ReadLane, sorted: &[Entry], stay: usize, sights: &[usize]) -> Result<Vec<Vec<f32>>> {
        /// Queries that a thread takes together.
        const BLOCK: usize = 32;
        let AttentionParams { dim, query_heads, .. } = self.params;
        let (own, group) = (lane.heads(), self.params.group());
        let keys = heads_apart(&lane.keys(sorted)?, own.len(), dim);
        let rows = self.queries.len() / (query_heads * dim);
        // The rows of the repetition are the last entries.
        let first = sorted.len() - rows;
        let of = |head: usize, block: usize| {
            let mut most = vec![0.0f32; stay];
            let mut row = vec![0.0; sorted.len()];
            let keys = &keys[(head - own.start) * sorted.len() * dim..];
            for (query, sight) in sights.iter().enumerate().take((block + BLOCK).min(rows)).skip(block) {
                let at = first + query;
                let since = self.params.since(sorted[at].position);
                let seen = sorted.partition_point(|entry| entry.position < since)
                    ..sorted.partition_point(|entry| (entry.position as usize) < *sight);
                for query_head in head * group..(head + 1) * group {
                    let start = (query * query_heads + query_head) * dim;
                    let asked = &self.queries[start..start + dim];
                    attend(&self.params, asked, &keys[seen.start * dim..seen.end * dim], &mut row[seen.clone()]);
                    most[seen.start.min(stay)..].iter_mut().zip(&row[seen.start..]).for_each(|(most, share)| {
                        *most = most.max(*share);
                    });
                }
            }
            most
        };
        let larger = |mut most: Vec<f32>, other: Vec<f32>| {
            most.iter_mut().zip(other).for_each(|(most, other)| *most = most.max(other));
            most
        };
        let head = |head: usize| {
            let blocks = (0..rows.div_ceil(BLOCK)).into_par_iter().map(|block| of(head, block * BLOCK));
            blocks.reduce(|| vec![0.0; stay], larger)
        };
        Ok(own.clone().map(head).collect())
    }
}
