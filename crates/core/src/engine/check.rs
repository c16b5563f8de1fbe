//! The self-check of a device: what `prefixkv_kernels::cuda::check` finds, as a [`DeviceCheck`].

use super::spawn;
use super::ticket::{Events, Ticket, stream};
use crate::device::Cuda;
use crate::error::{Error, Result};
use crate::model::{Device, Place};
use crate::panics;
use crate::wire::{CheckRequest, CheckedMemory, DeviceCheck, Event, KernelCheck, Progress};
use prefixkv_kernels::cuda::check::{Cases, Outcome, Sizes, Step, ceilings, kernels};
use prefixkv_kernels::cuda::{Error as GpuError, Gpu};

/// See [`super::Engine::check_device`].
pub(super) fn check_device(json: &str) -> Result<Ticket> {
    let CheckRequest { device, ceilings, cases } = CheckRequest::parse(json)?;
    let refuse = |reason: &str| Err(Error::Device { device: device.to_string(), reason: reason.into() });
    if device == Device::Cpu {
        return refuse("there is nothing to check on the CPU, which the kernels of GPUs are compared with");
    }
    let open = move || match device.open()? {
        Place::Cuda(Cuda { gpu, device, .. }) => Ok((gpu, device)),
        Place::Cpu(_) => Err(Error::Device { device: device.to_string(), reason: no_gpu() }),
    };
    check_gpu(open, cases, ceilings.then(Device::sizes))
}

/// Why `auto` finds no GPU.
fn no_gpu() -> String {
    Device::available().1.unwrap_or_else(|| "there is no GPU that can be used".into())
}

/// Checks the GPU that `open` gives with its name, on a thread of its own.
pub(super) fn check_gpu(
    open: impl FnOnce() -> Result<(Gpu, String)> + Send + 'static,
    cases: Cases,
    sizes: Option<Sizes>,
) -> Result<Ticket> {
    let (events, ticket) = stream();
    spawn("prefixkv-check", move || {
        panics::quiet_thread();
        let checked = panics::catch(|| {
            let (gpu, device) = open()?;
            report(&gpu, &device, cases, sizes.as_ref(), &events)
        });
        match checked.unwrap_or_else(|panic| Err(Error::Internal(panic))) {
            Ok(report) => events.finish(Event::Checked { report: Box::new(report) }),
            Err(error) => events.fail(&error),
        }
    })?;
    Ok(ticket)
}

fn report(gpu: &Gpu, device: &str, cases: Cases, sizes: Option<&Sizes>, events: &Events) -> Result<DeviceCheck> {
    let failed = |error: GpuError| failed(device, error);
    let memory = gpu.memory().map_err(failed)?;
    let tell = |stage| {
        move |step: Step<'_>| {
            events.offer(Event::Progress(Progress { stage, done: step.done as u64, total: step.total as u64 }));
            events.check().is_ok()
        }
    };
    let outcomes = kernels(gpu, cases, &mut tell("kernels"));
    events.check()?;
    let passed = outcomes.iter().all(|outcome| outcome.failed.is_none());
    let found = match sizes {
        // Of a device that computes wrong nothing is worth measuring.
        Some(sizes) if passed => ceilings(gpu, sizes, &mut tell("ceilings")).map_err(failed)?,
        _ => None,
    };
    events.check()?;
    Ok(DeviceCheck {
        device: device.into(),
        name: gpu.name(),
        software: gpu.software(),
        processors: gpu.processors(),
        memory: CheckedMemory { free: memory.free, total: memory.total },
        passed,
        kernels: outcomes.into_iter().map(kernel_check).collect(),
        ceilings: found,
    })
}

fn failed(device: &str, error: GpuError) -> Error {
    match error {
        GpuError::OutOfMemory { needed, free } => Error::OutOfMemory {
            needed,
            available: free,
            advice: format!("end what else uses the memory of `{device}`"),
        },
        error => Error::Device { device: device.into(), reason: error.to_string() },
    }
}

fn kernel_check(outcome: Outcome) -> KernelCheck {
    let Outcome { kernel, cases, worst, tolerance, failed } = outcome;
    KernelCheck { kernel, cases, worst: Some(worst).filter(|worst| worst.is_finite()), tolerance, failed }
}
