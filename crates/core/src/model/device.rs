//! Where a model runs.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A device by its name: `cpu`, `cuda`, `cuda:1`, `auto`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Device {
    #[default]
    Cpu,
    Cuda(usize),
    /// A GPU if this build can use one, else the CPU.
    Auto,
}

impl Device {
    /// Errors when this build cannot run there.
    pub fn require(self) -> Result<()> {
        match self {
            Device::Cpu | Device::Auto => Ok(()),
            Device::Cuda(_) => Err(Error::Device {
                device: self.to_string(),
                reason: "this build runs on the CPU only; use `cpu` or `auto`".into(),
            }),
        }
    }
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
    type Err = String;
    fn from_str(name: &str) -> std::result::Result<Self, String> {
        match name {
            "cpu" => Ok(Device::Cpu),
            "auto" => Ok(Device::Auto),
            "cuda" => Ok(Device::Cuda(0)),
            _ => match name.strip_prefix("cuda:").map(str::parse) {
                Some(Ok(index)) => Ok(Device::Cuda(index)),
                _ => Err(format!("device must be `cpu`, `cuda`, `cuda:N` or `auto`, found `{name}`")),
            },
        }
    }
}

impl TryFrom<String> for Device {
    type Error = String;
    fn try_from(name: String) -> std::result::Result<Self, String> {
        name.parse()
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        device.to_string()
    }
}
