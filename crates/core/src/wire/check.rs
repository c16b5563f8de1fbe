//! The outcome of a device's self-check.

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
    pub ceilings: Option<DeviceCeilings>,
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

/// The speed of a device, measured.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceCeilings {
    /// GB (10^9 bytes) per second that copies within the device read and write.
    pub copy: f64,
    /// GB per second that a kernel reads that writes next to nothing.
    pub read: f64,
    /// GB per second of weights that a product of one row reads, in f16.
    pub row: f64,
    /// GB per second from the host.
    pub upload: f64,
    /// TFLOP (10^12 additions and multiplications) per second of products of f16 matrices.
    pub product_f16: f64,
    /// The same for f32.
    pub product_f32: f64,
    /// Launches of a kernel that does next to nothing, per second.
    pub launches: f64,
    /// Writes of 1 KiB from the host, per second.
    pub writes: f64,
    /// Attention of a decode step to 32 heads of 128 elements, in f16.
    pub decode: Vec<DecodeRate>,
    /// Causal attention over a prompt, in f16.
    pub prefill: Vec<PrefillRate>,
}

/// The speed of a decode step.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DecodeRate {
    /// Sequences in one launch.
    pub sequences: usize,
    /// Entries of each.
    pub entries: usize,
    /// GB per second of keys and values.
    pub read: f64,
}

/// The speed of reading a prompt.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PrefillRate {
    /// Positions of the prompt.
    pub positions: usize,
    /// TFLOP per second.
    pub tflops: f64,
}
