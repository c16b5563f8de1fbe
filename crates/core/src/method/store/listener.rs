//! A store that stores nothing: keys stay whole, before their rotary embedding, and what a calibration asks for is written down.

use std::fmt::Debug;
use std::sync::Arc;

use prefixkv_kernels::codec::Dual;

use super::super::Method;
use super::super::keep::Price;
use super::super::plan::Plan;
use super::super::view::View;
use super::{Encoder, LaneNumber, Store};
use crate::cache::Shape;
use crate::error::Result;

/// The notes that are taken while a prompt is read; clones share them.
pub trait Notes: Clone + Debug + Send + Sync + 'static {
    /// The name of the store and of its method.
    const NAME: &'static str;

    /// As [`Encoder::queries`], of a prompt of `n` positions.
    fn queries(&self, n: usize) -> Option<Vec<f32>> {
        let _ = n;
        None
    }

    /// As [`Encoder::see_sums`].
    fn see_sums(&self, layer: usize, sums: &[(u32, f32)]) {
        let _ = (layer, sums);
    }

    /// As [`Encoder::sees_inputs`].
    fn sees_inputs(&self) -> bool {
        false
    }

    /// As [`Encoder::see_inputs`].
    fn see_inputs(&self, layer: usize, rows: usize, magnitudes: &[f64]) {
        let _ = (layer, rows, magnitudes);
    }

    /// A method that keeps everything and notes it here.
    fn method(&self) -> Arc<Method> {
        let store = Some(Box::new(Listener(self.clone())) as Box<dyn Store>);
        Arc::new(Method { store, ..Method::everything(Self::NAME) })
    }
}

#[derive(Clone, Debug)]
struct Listener<N>(N);

impl<N: Notes> Store for Listener<N> {
    fn name(&self) -> &'static str {
        N::NAME
    }

    fn check(&self, _: &Method) -> Result<()> {
        Ok(())
    }

    fn before_rope(&self) -> bool {
        true
    }

    fn encoder(&self, _: &Shape) -> Result<Box<dyn Encoder>> {
        Ok(Box::new(self.clone()))
    }
}

impl<N: Notes> Encoder for Listener<N> {
    fn dual(&self) -> Dual {
        Dual::None
    }

    fn price(&self) -> Option<Price> {
        None
    }

    fn queries(&self, _: usize, n: usize) -> Option<Vec<f32>> {
        self.0.queries(n)
    }

    fn see_sums(&mut self, lane: LaneNumber, _: &View<'_>, sums: &[(u32, f32)]) {
        self.0.see_sums(lane.layer, sums);
    }

    fn sees_inputs(&self) -> bool {
        self.0.sees_inputs()
    }

    fn see_inputs(&mut self, layer: usize, rows: usize, magnitudes: &[f64]) {
        self.0.see_inputs(layer, rows, magnitudes);
    }

    fn fork(&self) -> Box<dyn Encoder> {
        Box::new(self.clone())
    }

    fn encode(&mut self, _: usize, _: &View<'_>, _: &mut Plan) -> Result<()> {
        Ok(())
    }
}
