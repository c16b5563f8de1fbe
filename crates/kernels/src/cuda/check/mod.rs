//! Whether a device computes what the CPU does, and how fast it can.
//!
//! The tests run the kernels on the CPU; what only a device shows (the compiler's code, its memory model, cuBLAS, the copies) is
//! checked here, on the device that a user has. [`kernels`] runs every function of [`crate::cuda`] on fixed noise, with the edges of its
//! shapes, beside its twin; where a CPU plays the device, those of its shapes that are small ([`SMALL`]). [`ceilings`] measures what the device can do at most, which speeds are to be compared with.

mod attention;
mod ceilings;
mod memory;
mod moves;
mod network;
mod numbers;
mod product;

use std::fmt::Debug;

pub use ceilings::{Ceilings, DecodeRate, PrefillRate, Sizes, ceilings};

use super::{Gpu, Result};

/// Result of checking one kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The kernel that was checked, with its formats: `decode f16`.
    pub kernel: String,
    /// Shapes that were tried.
    pub cases: usize,
    /// The largest error of all cases; not finite when a result was no number, or when there was none.
    pub worst: f64,
    /// The largest error that is allowed; 0 where the bits must be the same.
    pub tolerance: f64,
    /// The first case that went wrong, and how.
    pub failed: Option<String>,
}

/// How far a check or a measurement has come.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The check just done, with its outcome.
    pub line: &'a str,
    pub done: usize,
    pub total: usize,
}

/// Which of the shapes of each kernel are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cases {
    /// All, but for the large ones where a CPU plays the device.
    #[default]
    All,
    /// Those that a slow device can compute in moments: a CPU that plays one, or a GPU that a tool watches at every access.
    Small,
}

/// Checks every kernel. An error of the device fails what it happened in. `progress` is told of each kernel; when it answers false
/// the check ends with what it has.
pub fn kernels(gpu: &Gpu, cases: Cases, progress: &mut dyn FnMut(Step<'_>) -> bool) -> Vec<Outcome> {
    some_kernels(gpu, cases, &|_| true, progress)
}

/// [`kernels`], but only those whose name is wanted.
pub fn some_kernels(
    gpu: &Gpu,
    cases: Cases,
    wanted: &dyn Fn(&str) -> bool,
    progress: &mut dyn FnMut(Step<'_>) -> bool,
) -> Vec<Outcome> {
    let mut total = 0;
    let small = cases == Cases::Small || gpu.is_emulated();
    all(&mut Check { work: Work::Count(&mut total), small, wanted, outcomes: Vec::new() });
    let mut check =
        Check { work: Work::Run { gpu, progress, total }, small, wanted, outcomes: Vec::with_capacity(total) };
    all(&mut check);
    check.outcomes
}

fn all(check: &mut Check<'_>) {
    memory::all(check);
    moves::all(check);
    network::all(check);
    attention::all(check);
    product::all(check);
}

/// The shapes of one case.
trait Case: Debug {
    /// Elements that are read and written, or multiplications: about what the case takes.
    fn work(&self) -> usize;
}

/// The most work of a small case.
const SMALL: usize = 500_000;

struct Check<'a> {
    work: Work<'a>,
    small: bool,
    wanted: &'a dyn Fn(&str) -> bool,
    outcomes: Vec<Outcome>,
}

enum Work<'a> {
    /// Only how many kernels there are.
    Count(&'a mut usize),
    Run {
        gpu: &'a Gpu,
        progress: &'a mut dyn FnMut(Step<'_>) -> bool,
        total: usize,
    },
    Stopped,
}

impl Check<'_> {
    /// Runs `one`, which gives the error of a case, on every case.
    fn kernel<C: Case>(&mut self, kernel: String, tolerance: f64, cases: &[C], one: impl Fn(&Gpu, &C) -> Result<f64>) {
        if !(self.wanted)(&kernel) {
            return;
        }
        let (gpu, progress, total) = match &mut self.work {
            Work::Count(count) => return **count += 1,
            Work::Run { gpu, progress, total } => (*gpu, progress, *total),
            Work::Stopped => return,
        };
        let mut outcome = Outcome { kernel, cases: 0, worst: 0.0, tolerance, failed: None };
        for case in cases.iter().filter(|case| !self.small || case.work() <= SMALL) {
            outcome.cases += 1;
            let error = one(gpu, case);
            let off = *error.as_ref().unwrap_or(&f64::INFINITY);
            // NaN is the worst there is.
            if off.is_nan() || off > outcome.worst {
                outcome.worst = off;
            }
            let passes = off <= tolerance;
            if !passes {
                outcome.failed = Some(match error {
                    Ok(off) => format!("{case:?}: off by {off:.2e}, {tolerance:.0e} is allowed"),
                    Err(error) => format!("{case:?}: {error}"),
                });
                break;
            }
        }
        let Outcome { kernel, cases, worst, failed, .. } = &outcome;
        let line = match failed {
            Some(failed) => format!("{kernel}: {failed}"),
            None => format!("{kernel}: {cases} cases, off by {worst:.1e} at most, {tolerance:.0e} is allowed"),
        };
        self.outcomes.push(outcome);
        if !progress(Step { line: &line, done: self.outcomes.len(), total }) {
            self.work = Work::Stopped;
        }
    }
}
