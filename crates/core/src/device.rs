//! Where a model runs.

use std::str::FromStr;
use std::sync::OnceLock;

use prefixkv_kernels::cuda::check::Sizes;
use prefixkv_kernels::cuda::{Gpu, Number, Result as GpuResult};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, Result};

/// A device by its name: the CPU, an NVIDIA GPU (`cuda` is the first, as is `cuda:0`), or the first GPU that can be used, else the CPU.
///
/// ```json
/// { "type": "string", "pattern": "^(cpu|auto|cuda(:[0-9]+)?)$" }
/// ```
///
/// ```typescript
/// "cpu" | "cuda" | `cuda:${number}` | "auto"
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    #[default]
    Cpu,
    Cuda(usize),
    /// A GPU if this build can use one, else the CPU.
    Auto,
}

/// Plays the part of the machine's GPUs.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct StandIn {
    /// How many there are.
    pub count: usize,
    pub open: fn(usize) -> GpuResult<Gpu>,
    /// What `ceilings` of a check measures there.
    pub sizes: fn() -> Sizes,
}

static STAND_IN: OnceLock<StandIn> = OnceLock::new();

/// Makes `cuda:N` something else than a GPU, for the tests of all that lies above. No door leads here.
#[doc(hidden)]
pub fn stand_in(gpus: StandIn) {
    STAND_IN.get_or_init(|| gpus);
}

/// The CPU, its memory and what computes there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpu;

/// A GPU, its memory and what computes there.
#[derive(Clone, Debug)]
pub struct Cuda {
    pub(crate) gpu: Gpu,
    /// As [`Device`] names it.
    pub(crate) device: String,
    /// Data type that the products of a model take.
    pub(crate) factors: Number,
}

impl Cuda {
    /// `device` is what [`Device`] calls it.
    pub fn new(gpu: Gpu, device: impl Into<String>) -> Self {
        Cuda { gpu, device: device.into(), factors: Number::F32 }
    }
}

/// A device that is there. A match on it is where all that follows becomes one for that kind of device.
#[derive(Clone, Debug)]
pub enum Place {
    Cpu(Cpu),
    Cuda(Cuda),
}

/// Bytes of a device by its own count; of the CPU there is none.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceMemory {
    /// The device as requests name it.
    pub device: String,
    /// None on the CPU, whose memory the system counts.
    #[serde(flatten)]
    pub gpu: Option<GpuMemory>,
}

/// Bytes of a GPU.
#[derive(Clone, Debug, Serialize)]
pub struct GpuMemory {
    /// Bytes that can be allocated, those that are kept for reuse included.
    pub free: u64,
    /// All bytes of the device.
    pub total: u64,
    /// Bytes of the pool from which the model allocates.
    pub pool: DevicePool,
}

/// Bytes of the pool from which this model allocates: weights, cache and working memory. Reserved bytes that are not used are kept for
/// the next allocation, or cannot be given back because a block among them is in use.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DevicePool {
    /// Bytes that the pool has of the device.
    pub reserved: u64,
    /// The highest value of `reserved`.
    pub most_reserved: u64,
    /// Bytes in use.
    pub used: u64,
    /// The highest value of `used`.
    pub most_used: u64,
}

impl Device {
    fn named(name: &str) -> Option<Device> {
        match name {
            "cpu" => Some(Device::Cpu),
            "auto" => Some(Device::Auto),
            "cuda" => Some(Device::Cuda(0)),
            _ => name.strip_prefix("cuda:")?.parse().ok().map(Device::Cuda),
        }
    }

    /// Starts the device. Errors when this build cannot run there, or when there is none.
    pub fn open(self) -> Result<Place> {
        match self {
            Device::Cpu => Ok(Place::Cpu(Cpu)),
            Device::Auto => Ok(open(0).unwrap_or(Place::Cpu(Cpu))),
            Device::Cuda(index) => open(index),
        }
    }

    /// What `device` can be in this build on this machine, and why it cannot be more.
    pub fn available() -> (Vec<String>, Option<String>) {
        let (count, reason) = match STAND_IN.get() {
            Some(gpus) => (gpus.count, None),
            None => found(),
        };
        let names = std::iter::once("cpu".to_owned()).chain((0..count).map(|index| Device::Cuda(index).to_string()));
        (names.collect(), reason)
    }

    /// Sizes that the check of a device measures.
    pub(crate) fn sizes() -> Sizes {
        STAND_IN.get().map_or_else(Sizes::default, |gpus| (gpus.sizes)())
    }
}

fn open(index: usize) -> Result<Place> {
    let device = Device::Cuda(index).to_string();
    let opened = match STAND_IN.get() {
        Some(gpus) => (gpus.open)(index).map_err(|error| error.to_string()),
        None => driver(index),
    };
    match opened {
        Ok(gpu) => Ok(Place::Cuda(Cuda::new(gpu, device))),
        Err(reason) => Err(Error::Device { device, reason }),
    }
}

#[cfg(feature = "cuda")]
fn driver(index: usize) -> std::result::Result<Gpu, String> {
    let device = prefixkv_kernels::cuda::device::Device::new(index);
    device.map(Gpu::new).map_err(|error| error.to_string())
}

#[cfg(feature = "cuda")]
fn found() -> (usize, Option<String>) {
    match prefixkv_kernels::cuda::device::count() {
        Ok(count) => (count, None),
        Err(error) => (0, Some(error.to_string())),
    }
}

#[cfg(not(feature = "cuda"))]
const CPU_ONLY: &str = "this build runs on the CPU only; use `cpu` or `auto`, or the build for CUDA";

#[cfg(not(feature = "cuda"))]
fn driver(_: usize) -> std::result::Result<Gpu, String> {
    Err(CPU_ONLY.into())
}

#[cfg(not(feature = "cuda"))]
fn found() -> (usize, Option<String>) {
    (0, Some(CPU_ONLY.into()))
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(index) => write!(f, "cuda:{index}"),
            Device::Auto => f.write_str("auto"),
        }
    }
}

impl FromStr for Device {
    type Err = Error;
    fn from_str(name: &str) -> Result<Self> {
        let reason = || format!("`device` {}", wrong(name));
        Device::named(name).ok_or_else(|| Error::Option { reason: reason(), suggestion: None })
    }
}

impl<'de> Deserialize<'de> for Device {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Device, D::Error> {
        let name = String::deserialize(deserializer)?;
        Device::named(&name).ok_or_else(|| D::Error::custom(wrong(&name)))
    }
}

fn wrong(name: &str) -> String {
    format!("must be `cpu`, `cuda`, `cuda:N` or `auto`, found `{name}`")
}
