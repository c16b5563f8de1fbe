//! How large the channels are that keys and values are made from, for calibrations.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::listener::Notes;

/// The mean magnitudes of what each layer makes keys and values from, over the rows of the prompts so far.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Whether it is asked for at all.
    wanted: bool,
    seen: Arc<Mutex<BTreeMap<usize, Seen>>>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    rows: usize,
    /// By channel.
    means: Vec<f64>,
}

impl Inputs {
    /// With `wanted` false nothing is written down, and entries are as they would be.
    pub fn new(wanted: bool) -> Inputs {
        Inputs { wanted, seen: Arc::default() }
    }

    /// The mean magnitudes by layer since it was last asked.
    pub fn take(&self) -> BTreeMap<usize, Vec<f64>> {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        seen.into_iter().map(|(layer, seen)| (layer, seen.means)).collect()
    }
}

impl Notes for Inputs {
    const NAME: &'static str = "inputs";

    fn sees_inputs(&self) -> bool {
        self.wanted
    }

    fn see_inputs(&self, layer: usize, rows: usize, magnitudes: &[f64]) {
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = all.entry(layer).or_default();
        seen.means.resize(magnitudes.len(), 0.0);
        let share = rows as f64 / (seen.rows + rows).max(1) as f64;
        seen.means.iter_mut().zip(magnitudes).for_each(|(mean, x)| *mean += (x - *mean) * share);
        seen.rows += rows;
    }
}
