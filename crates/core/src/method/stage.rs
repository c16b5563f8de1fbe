//! Stages behind the one that chooses: they change its plans before they are carried out.

use std::fmt::Debug;
use std::sync::Arc;

use super::Method;
use super::external::{MethodView, PlanReply};
use super::pictures::Pictures;
use super::plan::{Moment, Plan};
use super::planner::{Needs, Planner, Profile};
use super::trace::Record;
use super::view::{ReadLane, View};
use crate::cache::Entry;
use crate::error::Result;

/// A stage that changes plans.
pub trait Refine: Send + Sync + Debug {
    /// Changes the plan with which a moment was answered.
    fn refine(&self, moment: Moment, view: &View<'_>, plan: &mut Plan) -> Result<()>;
}

/// A planner and the stages behind it.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) first: Box<dyn Planner>,
    pub(super) method: Arc<Method>,
}

impl Planner for Staged {
    fn needs(&self) -> Needs {
        self.first.needs()
    }

    fn fork(&self) -> Box<dyn Planner> {
        Box::new(Staged { first: self.first.fork(), method: self.method.clone() })
    }

    fn begin(&mut self, view: &View<'_>) -> Result<Option<usize>> {
        self.first.begin(view)
    }

    fn growth(&self, view: &View<'_>) -> Result<Option<usize>> {
        self.first.growth(view)
    }

    fn queries(&self, layer: usize, view: &View<'_>) -> Option<Vec<f32>> {
        self.first.queries(layer, view)
    }

    fn asks_question(&self) -> bool {
        self.first.asks_question()
    }

    fn pictures(&self) -> Option<&dyn Pictures> {
        self.first.pictures()
    }

    fn plan(&mut self, moment: Moment, view: &View<'_>, plan: &mut Plan) -> Result<()> {
        self.first.plan(moment, view, plan)?;
        self.method.stages.iter().try_for_each(|stage| stage.refine(moment, view, plan))
    }

    fn answer(&mut self, moment: Moment, view: &View<'_>, reply: &PlanReply, plan: &mut Plan) -> Result<()> {
        self.first.answer(moment, view, reply, plan)?;
        self.method.stages.iter().try_for_each(|stage| stage.refine(moment, view, plan))
    }

    fn shown(&self, moment: Moment, view: &View<'_>) -> Result<MethodView> {
        self.first.shown(moment, view)
    }

    fn is_settled(&self) -> bool {
        self.first.is_settled()
    }

    fn workspace(&self) -> usize {
        self.first.workspace()
    }

    fn fresh(&self, layer: usize, lane: &dyn ReadLane, entry: Entry) -> Result<f32> {
        self.first.fresh(layer, lane, entry)
    }

    fn positions_within(&self, view: &View<'_>, most: usize) -> Result<usize> {
        self.first.positions_within(view, most)
    }

    fn profile(&mut self, keeps: Vec<f64>) {
        self.first.profile(keeps);
    }

    fn take_profile(&mut self) -> Profile {
        self.first.take_profile()
    }

    fn record(&mut self) {
        self.first.record();
    }

    fn take_record(&mut self) -> Option<Record> {
        self.first.take_record()
    }
}
