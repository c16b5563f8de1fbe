//! Shared by stores of coordinates: how many of them, in whose bases, behind which methods.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use prefixkv_kernels::codec::Basis;

use super::super::{Lanes, Method, Positions};
use crate::error::Result;
use crate::fields::refuse;

/// The bases of the lanes so far, for a store that has one for the heads of a layer, or of a pair of them, whatever it holds; forks share them.
#[derive(Clone, Debug)]
pub(crate) struct LaneBases<T = Arc<Basis>>(Arc<Mutex<HashMap<Heads, T>>>);

/// A layer, and its heads that a lane has.
type Heads = (usize, Range<usize>);

impl<T> Default for LaneBases<T> {
    fn default() -> Self {
        LaneBases(Arc::default())
    }
}

impl<T: Clone> LaneBases<T> {
    /// The basis of some heads of a layer; `find` makes it the first time.
    pub(crate) fn of(
        &self,
        layer: usize,
        heads: Range<usize>,
        find: impl FnOnce(Range<usize>) -> Result<T>,
    ) -> Result<T> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(basis) = known.get(&(layer, heads.clone())) {
            return Ok(basis.clone());
        }
        let basis = find(heads.clone())?;
        known.insert((layer, heads), basis.clone());
        Ok(basis)
    }
}

/// How many of `size` coordinates a share is: at least one, and a multiple of 8 as far as there are as many.
pub(crate) fn width(share: f64, size: usize) -> usize {
    let whole = (share * size as f64 - 1e-9).ceil().max(1.0) as usize;
    whole.next_multiple_of(8).min(size)
}

/// Refuses a method whose heads may keep other entries each, for directions of all heads together.
pub(crate) fn check_joint(method: &Method) -> Result<()> {
    match method.recipe().is_none_or(|recipe| recipe.lanes == Lanes::PerHead) {
        true => Err(refuse(format!(
            "directions of all heads together store all heads of an entry together, and {} may keep others for each head; calibrate \
             with `heads: \"each\"`",
            method.name
        ))),
        false => Ok(()),
    }
}

/// Refuses a method that rotates keys to their ranks.
pub(crate) fn check_positions(name: &str, method: &Method) -> Result<()> {
    if method.recipe().is_some_and(|recipe| recipe.positions == Positions::Cache) {
        return Err(refuse(format!(
            "{name} stores keys for their own positions, and {} with positions \"cache\" rotates them to others",
            method.name
        )));
    }
    Ok(())
}
