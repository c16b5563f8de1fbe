//! A store that stores nothing: keys stay whole, before their rotary embedding, and it is written down what keys and values are made from.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use prefixkv_kernels::codec::Dual;

use super::super::Method;
use super::super::keep::Price;
use super::super::plan::Plan;
use super::super::view::View;
use super::{Encoder, Store};
use crate::cache::Shape;
use crate::error::Result;

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

    /// A method that keeps everything and notes it here.
    pub fn method(&self) -> Arc<Method> {
        Arc::new(Method { store: Some(Box::new(self.clone())), ..Method::everything("inputs") })
    }

    /// The mean magnitudes by layer since it was last asked.
    pub fn take(&self) -> BTreeMap<usize, Vec<f64>> {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        seen.into_iter().map(|(layer, seen)| (layer, seen.means)).collect()
    }
}

impl Store for Inputs {
    fn name(&self) -> &'static str {
        "inputs"
    }

    fn check(&self, _: &Method) -> Result<()> {
        Ok(())
    }

    fn encoder(&self, _: &Shape) -> Result<Box<dyn Encoder>> {
        Ok(Box::new(self.clone()))
    }
}

impl Encoder for Inputs {
    fn dual(&self) -> Dual {
        Dual::None
    }

    fn before_rope(&self) -> bool {
        true
    }

    fn price(&self) -> Option<Price> {
        None
    }

    fn sees_inputs(&self) -> bool {
        self.wanted
    }

    fn see_inputs(&mut self, layer: usize, rows: usize, magnitudes: &[f64]) {
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = all.entry(layer).or_default();
        seen.means.resize(magnitudes.len(), 0.0);
        let share = rows as f64 / (seen.rows + rows).max(1) as f64;
        seen.means.iter_mut().zip(magnitudes).for_each(|(mean, x)| *mean += (x - *mean) * share);
        seen.rows += rows;
    }

    fn fork(&self) -> Box<dyn Encoder> {
        Box::new(self.clone())
    }

    fn encode(&mut self, _: usize, _: &View<'_>, _: &mut Plan) -> Result<()> {
        Ok(())
    }
}
