//! The protocol between a sequence and its method.

use std::fmt::Debug;
use std::sync::Arc;

use super::external::{MethodView, PlanReply};
use super::normal::Ahead;
use super::pictures::Pictures;
use super::plan::{Moment, Plan};
use super::trace::Record;
use super::view::{ReadLane, View};
use super::{Lanes, Positions};
use crate::cache::Entry;
use crate::error::{Error, Result};

/// A method's demands on the sequence, from its first entry to its last.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    pub moments: Moments,
    pub lanes: Lanes,
    pub positions: Positions,
    /// Every entry carries a score.
    pub scores: bool,
    /// The attention that entries get from generated tokens is added to their scores.
    pub accumulates: bool,
    /// The share of a score that is left when that is added: 1, or 0 where only the newest token's attention counts.
    pub left: f32,
    /// The moments are answered from outside the engine, and see the sums that all layers have gathered since the last one.
    pub external: bool,
    /// The last queries of a prompt that its moment sees.
    pub queries: usize,
    /// All queries of a prompt come as distributions instead, with what is known of the positions behind it.
    pub ahead: Option<Ahead>,
    /// Plans may name the rows of a prompt that later layers see. Such a prompt goes through the layers whole, and every layer must have
    /// lanes of its own.
    pub rows: bool,
    /// Prompts are read once more behind themselves, and layers see the sums of [`Planner::queries`] no more but, for every entry of each KV
    /// head, the most attention that a query of the repetition gives it. Such a prompt goes through the layers whole, and every layer must
    /// have lanes of its own.
    pub repeats: bool,
}

/// The moments at which a method is asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moments {
    pub images: bool,
    pub layer: bool,
    pub prompt: bool,
    pub token: bool,
    /// Every so many generated tokens; 0 for never.
    pub step: u64,
}

impl Needs {
    /// Whether some positions of a prompt may come to no layer, or no further than to the first ones.
    pub fn narrows(&self) -> bool {
        self.rows || self.moments.images
    }
}

impl Moments {
    pub fn has(self, moment: Moment) -> bool {
        match moment {
            Moment::Images => self.images,
            Moment::Layer(_) => self.layer,
            Moment::Prompt => self.prompt,
            Moment::Token(_) => self.token,
            Moment::Step(step) => self.step > 0 && (step + 1).is_multiple_of(self.step),
        }
    }
}

/// The retained shares per layer that a prompt asks for, one row per size.
pub type Profile = Vec<Vec<f64>>;

/// A method that is no recipe: it has planners of its own.
pub trait Plans: Send + Sync + Debug {
    /// Refuses a model of `layers` layers that the method cannot be used with.
    fn check_layers(&self, layers: usize) -> Result<()>;

    /// The method at work on a sequence of its own.
    fn planner(self: Arc<Self>) -> Box<dyn Planner>;
}

/// A method at work on one sequence.
pub trait Planner: Send + Debug {
    fn needs(&self) -> Needs;

    /// The same method with what it knows between two prompts, for a sequence that goes on from the same entries.
    fn fork(&self) -> Box<dyn Planner>;

    /// A prompt comes: `view` has its positions and the lanes without it. Refuses what cannot be kept to before any work. Gives the
    /// most entries that the prompt adds to those held, over all layers, a layer's entry counting one, where layers are settled one by
    /// one; None when all is held until it ends.
    fn begin(&mut self, view: &View<'_>) -> Result<Option<usize>>;

    /// The answer of [`Planner::begin`] to such a prompt; changes nothing.
    fn growth(&self, view: &View<'_>) -> Result<Option<usize>>;

    /// The weight with which each query of the prompt counts in the sums that a layer's attention gathers; None when the method
    /// needs none.
    fn queries(&self, layer: usize, view: &View<'_>) -> Option<Vec<f32>>;

    /// Whether it chooses by the queries of some positions of a prompt, those at its end or those of its text, rather than by those of all alike or by
    /// none.
    fn asks_question(&self) -> bool {
        false
    }

    /// How the images of a prompt become fewer positions, before its first layer; None where all of them go on. With it comes
    /// [`Moment::Images`].
    fn pictures(&self) -> Option<&dyn Pictures> {
        None
    }

    /// Answers a moment of [`Needs::moments`] in `plan`, which is empty.
    fn plan(&mut self, moment: Moment, view: &View<'_>, plan: &mut Plan) -> Result<()>;

    /// Answers a moment with what has come from outside; only with [`Needs::external`].
    fn answer(&mut self, moment: Moment, view: &View<'_>, reply: &PlanReply, plan: &mut Plan) -> Result<()> {
        let _ = (moment, view, reply, plan);
        Err(Error::Internal("a plan from outside for a method that makes its own".into()))
    }

    /// The view that a method outside the engine gets at a moment; only with [`Needs::external`].
    fn shown(&self, moment: Moment, view: &View<'_>) -> Result<MethodView> {
        let _ = (moment, view);
        Err(Error::Internal("a view for a method that makes its own plans".into()))
    }

    /// Whether what a layer of the prompt on its way holds after its moment is what stays when the prompt ends, so that it can already be
    /// stored in few bits.
    fn is_settled(&self) -> bool;

    /// Bytes of what the method holds of the prompt on its way.
    fn workspace(&self) -> usize {
        0
    }

    /// The score that a generated entry of a layer (by its number in the model) starts with.
    fn fresh(&self, layer: usize, lane: &dyn ReadLane, entry: Entry) -> Result<f32> {
        let _ = (layer, lane, entry);
        Ok(0.0)
    }

    /// For layers of one size, how many positions there may be until a lane holds `most` entries, when such a prompt comes next; the
    /// prompt itself is held whole for a moment.
    fn positions_within(&self, view: &View<'_>, most: usize) -> Result<usize> {
        let _ = view;
        Ok(most)
    }

    /// Finds the sizes for each of `keeps` at the next prompt and keeps everything.
    fn profile(&mut self, keeps: Vec<f64>) {
        let _ = keeps;
    }

    fn take_profile(&mut self) -> Profile {
        Profile::new()
    }

    /// Keeps how the next prompt's entries are ranked, for [`Planner::take_record`].
    fn record(&mut self) {}

    fn take_record(&mut self) -> Option<Record> {
        None
    }
}
