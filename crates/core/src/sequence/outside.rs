//! Methods outside the engine: what they are shown, and what they answer.

use super::view::Held;
use super::{Asked, Sequence, Working, compaction};
use crate::cache::Memory;
use crate::error::{Error, Result};
use crate::method::external::{MethodView, PlanReply};
use crate::method::view::{Sums, View};

impl<M: Memory> Sequence<M> {
    /// The view that a method outside the engine is to be shown before the sequence can go on; None when it waits for no plan.
    pub fn question(&self) -> Result<Option<MethodView>> {
        let (Some(asked), Some(method)) = (&self.asked, &self.method) else { return Ok(None) };
        let held = self.held();
        method.planner.shown(asked.moment, &self.asked_view(asked, method, &held)).map(Some)
    }

    /// Carries out what a method outside has answered to [`Sequence::question`]. After an error the sequence refuses further work.
    pub fn answer(&mut self, reply: &PlanReply) -> Result<()> {
        let (Some(asked), Some(method)) = (self.asked, &mut self.method) else {
            return Err(Error::Plan { reason: "nothing waits for a plan".into() });
        };
        let held = Held { layers: &self.layers, owners: self.layout.managed() };
        let (sums, queries) = (std::mem::take(&mut method.sums), std::mem::take(&mut method.queries));
        let Asked { moment, past, n } = asked;
        let (spans, sums, blocks) = (&self.spans, Sums::All(&sums), self.layout.has_blocks());
        let view = View { cache: &held, past, n, spans, sums, queries: &queries, shown: None, blocks };
        let plan = method.answer(moment, &view, self.layout.managed(), reply)?;
        compaction::carry_out(plan, &mut self.layers, self.layout.managed())?;
        method.forget();
        self.asked = None;
        self.leave_behind()?;
        self.encode_all(moment, past, n)
    }

    fn asked_view<'a>(&'a self, asked: &Asked, method: &'a Working, cache: &'a Held<'a, M>) -> View<'a> {
        let Asked { past, n, .. } = *asked;
        View {
            cache,
            past,
            n,
            spans: &self.spans,
            sums: Sums::All(&method.sums),
            queries: &method.queries,
            shown: None,
            blocks: self.layout.has_blocks(),
        }
    }

    /// The last queries of the prompt by layer of the model, for a method that wants to see them.
    pub(crate) fn take_queries(&mut self) -> Vec<Vec<f32>> {
        let Some(method) = &mut self.method else { return Vec::new() };
        let queries = std::mem::take(&mut method.queries);
        method.forget();
        queries.into_iter().map(|queries| queries.rows).collect()
    }
}
