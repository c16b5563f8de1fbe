//! The full cache, with a view of a prompt's queries.

use std::sync::Arc;

use super::plan::{Moment, Plan};
use super::planner::{Moments, Needs, Planner, Plans};
use super::view::View;
use super::{Lanes, Positions};
use crate::error::Result;

/// Keeps everything, and the last queries of a prompt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watching {
    pub queries: usize,
}

impl Plans for Watching {
    fn check_layers(&self, _: usize) -> Result<()> {
        Ok(())
    }

    fn planner(self: Arc<Self>) -> Box<dyn Planner> {
        Box::new(*self)
    }
}

impl Planner for Watching {
    fn needs(&self) -> Needs {
        Needs {
            moments: Moments::default(),
            lanes: Lanes::PerLayer,
            positions: Positions::True,
            scores: false,
            accumulates: false,
            left: 1.0,
            external: false,
            queries: self.queries,
            ahead: None,
            rows: false,
            repeats: false,
        }
    }

    fn fork(&self) -> Box<dyn Planner> {
        Box::new(*self)
    }

    fn begin(&mut self, _: &View<'_>) -> Result<Option<usize>> {
        Ok(None)
    }

    fn growth(&self, _: &View<'_>) -> Result<Option<usize>> {
        Ok(None)
    }

    fn queries(&self, _: usize, _: &View<'_>) -> Option<Vec<f32>> {
        None
    }

    fn plan(&mut self, _: Moment, _: &View<'_>, _: &mut Plan) -> Result<()> {
        Ok(())
    }

    fn is_settled(&self) -> bool {
        true
    }
}
