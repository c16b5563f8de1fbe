//! The outcome of a device's self-check.

use prefixkv_kernels::cuda::check::Ceilings;
use serde::Serialize;

/// Result of the check of a GPU.
///
/// ```ts
/// import { checkDevice, type DeviceCheck, DeviceError } from "prefixkv";
///
/// try {
///   const { passed, kernels }: DeviceCheck = await checkDevice("cuda");
///   console.log(passed, kernels.filter(({ failed }) => failed !== null));
/// } catch (error) {
///   if (!(error instanceof DeviceError)) throw error;
///   console.log(error.message);
/// }
/// ```
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceCheck {
    /// The device as `device` names it, e.g. `cuda:0`.
    pub device: String,
    /// The name that the device reports.
    pub name: String,
    /// The versions of the driver and of cuBLAS.
    pub software: Vec<String>,
    /// Multiprocessors.
    pub processors: u32,
    /// Bytes of the device before the check.
    pub memory: CheckedMemory,
    /// Whether every kernel gave what the CPU gives.
    pub passed: bool,
    /// Every kernel with each of its formats.
    pub kernels: Vec<KernelCheck>,
    /// Measured ceilings of the device; null when they were not asked for, or when a kernel has failed.
    pub ceilings: Option<Ceilings>,
}

/// Bytes of a device.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CheckedMemory {
    /// Bytes that can be allocated.
    pub free: u64,
    /// All bytes of the device.
    pub total: u64,
}

/// A kernel compared with the CPU.
#[derive(Clone, Debug, Serialize)]
pub struct KernelCheck {
    /// E.g. `decode f16`.
    pub kernel: String,
    /// Shapes that were tried.
    pub cases: usize,
    /// The largest error, in the unit of `tolerance`; null when a result was no number, or when there was none.
    pub worst: Option<f64>,
    /// The largest error that is allowed: 0 where the bits must be the same, else in parts of the largest result, of each sum of
    /// probabilities, or of the sum of the absolute products.
    pub tolerance: f64,
    /// The first case that went wrong, and how.
    pub failed: Option<String>,
}
