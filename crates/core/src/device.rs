//! Where a model runs.

use std::str::FromStr;

use prefixkv_kernels::cuda::Gpu;

use crate::error::{Error, Result};

/// A device by its name: `cpu`, `cuda`, `cuda:1`, `auto`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    #[default]
    Cpu,
    Cuda(usize),
    /// A GPU if this build can use one, else the CPU.
    Auto,
}

/// A device that is there.
#[derive(Clone, Debug)]
pub enum Place {
    Cpu,
    Gpu {
        gpu: Gpu,
        /// As [`Device`] names it.
        device: String,
    },
}

impl Place {
    /// The name of the device: `cpu`, `cuda:0`.
    pub fn name(&self) -> &str {
        match self {
            Place::Cpu => "cpu",
            Place::Gpu { device, .. } => device,
        }
    }
}

impl Device {
    /// Starts the device. Errors when this build cannot run there, or when there is none.
    pub fn open(self) -> Result<Place> {
        match self {
            Device::Cpu => Ok(Place::Cpu),
            Device::Auto => Ok(open(0).unwrap_or(Place::Cpu)),
            Device::Cuda(index) => open(index),
        }
    }

    /// What `device` can be in this build on this machine, and why it cannot be more.
    pub fn available() -> (Vec<String>, Option<String>) {
        let (count, reason) = found();
        let names = std::iter::once("cpu".to_owned()).chain((0..count).map(|index| Device::Cuda(index).to_string()));
        (names.collect(), reason)
    }
}

#[cfg(feature = "cuda")]
fn open(index: usize) -> Result<Place> {
    let device = Device::Cuda(index).to_string();
    match prefixkv_kernels::cuda::device::Device::new(index) {
        Ok(gpu) => Ok(Place::Gpu { gpu: Gpu::new(gpu), device }),
        Err(error) => Err(Error::Device { device, reason: error.to_string() }),
    }
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
fn open(index: usize) -> Result<Place> {
    Err(Error::Device { device: Device::Cuda(index).to_string(), reason: CPU_ONLY.into() })
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
        match name {
            "cpu" => Ok(Device::Cpu),
            "auto" => Ok(Device::Auto),
            "cuda" => Ok(Device::Cuda(0)),
            _ => match name.strip_prefix("cuda:").map(str::parse) {
                Some(Ok(index)) => Ok(Device::Cuda(index)),
                _ => Err(Error::Option {
                    reason: format!("`device` must be `cpu`, `cuda`, `cuda:N` or `auto`, found `{name}`"),
                    suggestion: None,
                }),
            },
        }
    }
}
