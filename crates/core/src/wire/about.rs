//! The abilities of a build.

use serde::Serialize;
use serde_json::{Value, json};

use crate::metrics::Live;

/// Capabilities of an installation's native code.
///
/// ```ts
/// import { about, type About } from "prefixkv";
///
/// const { architectures }: About = await about();
/// console.log(architectures.includes("LlavaForConditionalGeneration"));
/// ```
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// The version of the native code.
    pub version: &'static str,
    /// Every error code that the core can raise.
    pub error_codes: Vec<&'static str>,
    /// `architectures[0]` values that load.
    pub architectures: Vec<&'static str>,
    /// What `device` can be in this native file on this machine.
    pub devices: Vec<String>,
    /// Why `devices` has no GPU; null where it has.
    pub no_gpu: Option<String>,
    /// SIMD features that the kernels use on this machine, e.g. `["avx2", "fma", "f16c"]`.
    pub cpu: Vec<&'static str>,
    /// Threads the process-wide pool has, or would start with.
    pub threads: usize,
    /// Counts of everything alive in this process now, over all models, workers and bindings.
    pub live: Live,
}

impl About {
    /// The form in which it crosses a door.
    pub fn to_json(&self) -> Value {
        json!(self)
    }
}
