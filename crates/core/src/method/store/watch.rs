//! The attention that the positions of prompts get, for calibrations.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::listener::Notes;

/// Sums of attention by layer and position.
type Sums = BTreeMap<usize, BTreeMap<u32, f64>>;

/// The attention that the positions of prompts get in each layer, the mean over its heads and summed over all queries.
#[derive(Clone, Debug, Default)]
pub struct Watch(Arc<Mutex<Sums>>);

impl Watch {
    /// The attention that the positions of a layer have got since it was last asked; nothing of a layer that gathers none.
    pub fn take(&self, layer: usize) -> BTreeMap<u32, f64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&layer).unwrap_or_default()
    }
}

impl Notes for Watch {
    const NAME: &'static str = "watch";

    fn queries(&self, n: usize) -> Option<Vec<f32>> {
        Some(vec![1.0; n])
    }

    fn see_sums(&self, layer: usize, sums: &[(u32, f32)]) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = all.entry(layer).or_default();
        sums.iter().for_each(|(position, sum)| *of.entry(*position).or_default() += f64::from(*sum));
    }
}
