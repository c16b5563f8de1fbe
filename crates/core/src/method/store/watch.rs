//! A store that stores nothing: keys stay whole, before their rotary embedding, and the attention that positions get is written down.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use prefixkv_kernels::codec::Dual;

use super::super::Method;
use super::super::keep::Price;
use super::super::plan::Plan;
use super::super::view::View;
use super::{Encoder, LaneNumber, Store};
use crate::cache::Shape;
use crate::error::Result;

/// Sums of attention by layer and position.
type Sums = BTreeMap<usize, BTreeMap<u32, f64>>;

/// The attention that the positions of prompts get in each layer, the mean over its heads and summed over all queries.
#[derive(Clone, Debug, Default)]
pub struct Watch(Arc<Mutex<Sums>>);

impl Watch {
    /// A method that keeps everything and notes it here.
    pub fn method(&self) -> Arc<Method> {
        Arc::new(Method { store: Some(Box::new(self.clone())), ..Method::everything("watch") })
    }

    /// The attention that the positions of a layer have got since it was last asked; nothing of a layer that gathers none.
    pub fn take(&self, layer: usize) -> BTreeMap<u32, f64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&layer).unwrap_or_default()
    }
}

impl Store for Watch {
    fn name(&self) -> &'static str {
        "watch"
    }

    fn check(&self, _: &Method) -> Result<()> {
        Ok(())
    }

    fn encoder(&self, _: &Shape) -> Result<Box<dyn Encoder>> {
        Ok(Box::new(self.clone()))
    }
}

impl Encoder for Watch {
    fn dual(&self) -> Dual {
        Dual::None
    }

    fn before_rope(&self) -> bool {
        true
    }

    fn price(&self) -> Option<Price> {
        None
    }

    fn queries(&self, _: usize, n: usize) -> Option<Vec<f32>> {
        Some(vec![1.0; n])
    }

    fn see_sums(&mut self, lane: LaneNumber, _: &View<'_>, sums: &[(u32, f32)]) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = all.entry(lane.layer).or_default();
        sums.iter().for_each(|(position, sum)| *of.entry(*position).or_default() += f64::from(*sum));
    }

    fn fork(&self) -> Box<dyn Encoder> {
        Box::new(self.clone())
    }

    fn encode(&mut self, _: usize, _: &View<'_>, _: &mut Plan) -> Result<()> {
        Ok(())
    }
}
