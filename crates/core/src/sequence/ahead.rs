//! Hints of a prompt at the tokens to come: its queries without their rotary embedding, and the rotations of the positions behind it.

use std::sync::Arc;

use prefixkv_kernels::attention::AttentionParams;
use prefixkv_kernels::rotary::{Angles, Frequencies};
use rayon::prelude::*;

use super::{Phases, Placing, Sequence, Work};
use crate::cache::{Charge, Memory};
use crate::error::{Error, Result};
use crate::method::normal::{Ahead, Normal, ToCome};

/// How the rows of a prompt that are on their way were rotated, and how the positions behind the prompt will be.
#[derive(Debug)]
pub(super) struct Turns {
    /// Turn the rows on their way back.
    back: Angles,
    /// The mean of the rotations of the positions to come, of which this is the first.
    ahead: Arc<Angles>,
    behind: u32,
    _charge: Charge,
}

impl Turns {
    /// Adds the queries from position `first` on, `[queries, query heads, head_dim]`, the last ones on their way, to the distributions of
    /// their heads.
    pub(super) fn add(
        &self,
        ahead: Ahead,
        first: usize,
        params: &AttentionParams,
        queries: &[f32],
        to: &mut Option<ToCome>,
    ) -> Result<()> {
        let AttentionParams { query_heads, dim, .. } = *params;
        let n = queries.len() / (query_heads * dim);
        let Some(before) = self.back.positions().checked_sub(n) else {
            return Err(Error::Internal(format!("{n} queries on their way, and {} rotations", self.back.positions())));
        };
        let skipped = ahead.sinks.saturating_sub(first).min(n);
        let of = |head: usize| {
            let own = queries.chunks_exact(dim).skip(head).step_by(query_heads).skip(skipped);
            let mut rows: Vec<f32> = own.flatten().copied().collect();
            self.back.turn(before + skipped, &mut rows);
            Normal::of(rows, dim, ahead.covariance)
        };
        let heads: Vec<Normal> = (0..query_heads).into_par_iter().map(of).collect();
        match to {
            Some(to) => to.heads.iter_mut().zip(&heads).for_each(|(all, new)| all.join(new)),
            None => *to = Some(ToCome { heads, turn: self.ahead.clone() }),
        }
        Ok(())
    }
}

impl<M: Memory> Sequence<M> {
    /// Where the method looks ahead, prepares [`Sequence::keep_queries`] for the prompt's `n` rows on their way: their rotations, and those
    /// behind the prompt, by each of the model's rotary embeddings. Errors when they do not fit.
    pub fn look_ahead(&mut self, ropes: &[Frequencies], n: usize) -> Result<()> {
        let Some(ahead) = self.method.as_ref().and_then(|method| method.needs.ahead) else { return Ok(()) };
        let Work::Prompt(reach) = self.work else { return Ok(()) };
        let Phases::Stored(phases) = self.phases(n) else {
            return Err(Error::Internal("a method that looks ahead has keys without their rotary embedding".into()));
        };
        let advance = match &self.placing {
            Placing::InOrder => reach.n as u32,
            Placing::Placed { advance, .. } => *advance,
        };
        let behind = self.next_phase() + advance;
        let Some(method) = &mut self.method else { return Ok(()) };
        let before = method.take_turns();
        let known = |rope: usize| before.get(rope).filter(|turns| turns.behind == behind).map(|turns| &turns.ahead);
        let to_come = (behind..behind.saturating_add(ahead.positions as u32)).map(|phase| [phase; 3]);
        let turns = |(index, rope): (usize, &Frequencies)| {
            // A cosine and a sine for each frequency.
            let bytes = 2 * size_of_val(rope.inverse()) * (n + 1);
            let charge = self.account.charge(bytes as u64)?;
            let ahead = known(index).map_or_else(|| Arc::new(rope.mean(to_come.clone())), Arc::clone);
            Ok(Turns { back: rope.angles(phases.iter().copied()).back(), ahead, behind, _charge: charge })
        };
        let turns = ropes.iter().enumerate().map(turns).collect::<Result<Vec<_>>>()?;
        method.set_turns(turns);
        Ok(())
    }
}
