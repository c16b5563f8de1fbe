//! Shared by stores of coordinates: how many of them, in whose bases, behind which methods.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use prefixkv_kernels::codec::Basis;

use super::super::{Method, Positions};
use crate::error::Result;
use crate::fields::refuse;

/// The bases of the lanes so far, for a store that has one for the heads of a layer whatever it holds; forks share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct LaneBases(Arc<Mutex<HashMap<Heads, Arc<Basis>>>>);

/// A layer, and its heads that a lane has.
type Heads = (usize, Range<usize>);

impl LaneBases {
    /// The basis of some heads of a layer; `find` makes it the first time.
    pub(crate) fn of(
        &self,
        layer: usize,
        heads: Range<usize>,
        find: impl FnOnce(Range<usize>) -> Result<Arc<Basis>>,
    ) -> Result<Arc<Basis>> {
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
