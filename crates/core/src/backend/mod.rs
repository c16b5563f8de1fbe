//! What a model computes with: one folder per kind of device.

use std::fmt::Debug;

use crate::cache::Memory;
use crate::check::Check;
use crate::device::{Cpu, Cuda, Place};
use crate::error::Result;
use crate::nn::Matrix;
use crate::nn::attention::{self, Heads, Rotary};
use crate::sequence::Pass;
use prefixkv_kernels::cuda::Number;

/// A kind of device that models run on, and a handle to one. All of a model is of one back end, its caches included: that those of two
/// never meet is for the compiler to say.
///
/// ```compile_fail,E0308
/// use prefixkv_core::cache::Pool;
/// use prefixkv_core::device::Cuda;
/// use prefixkv_core::model::Model;
///
/// fn met(model: &Model<Cuda>) -> &Pool {
///     model.pool()
/// }
/// ```
pub trait Backend: Clone + Debug + Send + Sync + 'static {
    /// Where the caches of its models lie.
    type Memory: Memory;

    fn memory(&self) -> Self::Memory;

    fn place(&self) -> Place;

    /// See [`attention::causal`].
    fn causal(
        fused: &Matrix,
        heads: Heads,
        rotary: &Rotary,
        layer: usize,
        pass: &mut Pass<'_, '_, Self::Memory>,
        number: Number,
        check: Check<'_>,
    ) -> Result<Matrix>;
}

impl Backend for Cpu {
    type Memory = Cpu;

    fn memory(&self) -> Cpu {
        Cpu
    }

    fn place(&self) -> Place {
        Place::Cpu
    }

    fn causal(
        fused: &Matrix,
        heads: Heads,
        rotary: &Rotary,
        layer: usize,
        pass: &mut Pass<'_, '_>,
        _: Number,
        check: Check<'_>,
    ) -> Result<Matrix> {
        attention::causal_on_cpu(fused, heads, rotary, layer, pass, check)
    }
}

impl Backend for Cuda {
    type Memory = Cuda;

    fn memory(&self) -> Cuda {
        self.clone()
    }

    fn place(&self) -> Place {
        self.clone().into()
    }

    fn causal(
        fused: &Matrix,
        heads: Heads,
        rotary: &Rotary,
        layer: usize,
        pass: &mut Pass<'_, '_, Cuda>,
        number: Number,
        _: Check<'_>,
    ) -> Result<Matrix> {
        attention::causal_on_gpu(fused, heads, rotary, layer, pass, number)
    }
}
