//! Starts workers, and keeps the inputs that ended one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::folder::repository;
use crate::target::Target;
use crate::worker::{HANG, SECONDS, Until};

/// Different crashes of one target after which it is left.
const ENOUGH: usize = 20;

/// Result of fuzzing a target.
#[derive(Debug, Default)]
pub struct Outcome {
    pub inputs: u64,
    /// Ways in which inputs ended.
    pub kinds: u64,
    pub slowest: Duration,
    /// Most bytes held by an input.
    pub peak: u64,
    /// Crashes: the last message of each, and the file with its input.
    pub crashes: BTreeMap<String, PathBuf>,
}

/// Tries inputs in processes of their own, `program` being this crate's binary.
pub fn run(program: &Path, target: &Target, seed: u64, until: Until) -> Outcome {
    let folder = repository(".cache/fuzz").join(target.name);
    fs::create_dir_all(&folder).expect("a folder for crashes");
    // Runs at the same time must not share it.
    let current = folder.join(format!("current-{}", std::process::id()));
    let clock = Instant::now();
    let mut outcome = Outcome::default();
    for start in 0.. {
        let left = match until {
            Until::Inputs(most) => ("--inputs", most.saturating_sub(outcome.inputs)),
            Until::Time(most) => ("--milliseconds", most.saturating_sub(clock.elapsed()).as_millis() as u64),
        };
        if left.1 == 0 || outcome.crashes.len() >= ENOUGH {
            break;
        }
        let args =
            ["--target", target.name, left.0, &left.1.to_string(), "--seed", &seed.wrapping_add(start).to_string()]
                .map(ToOwned::to_owned);
        let output = worker(program, &args, &current);
        if let Some(report) = output.status.success().then(|| report(&output)).flatten() {
            let number = |name: &str| report[name].as_u64().unwrap_or_default();
            outcome.inputs += number("inputs");
            outcome.kinds = outcome.kinds.max(number("kinds"));
            outcome.slowest = outcome.slowest.max(Duration::from_millis(number("slowest")));
            outcome.peak = outcome.peak.max(number("peak"));
            continue;
        }
        let Some((tried, input)) = split(&current) else {
            outcome.crashes.insert(said(&output), PathBuf::from("no input: the worker did not start"));
            break;
        };
        outcome.inputs += tried;
        let place = folder.join(format!("{:016x}", hash(&input)));
        fs::write(&place, &input).expect("the input is kept");
        outcome.crashes.entry(said(&output)).or_insert(place);
    }
    drop(fs::remove_file(&current));
    outcome
}

/// Runs one input in a process of its own.
pub fn repeat(program: &Path, target: &Target, file: &Path) -> Result<String, String> {
    let args = ["--target", target.name, "--input", &file.display().to_string()].map(ToOwned::to_owned);
    let output = worker(program, &args, Path::new("-"));
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(said(&output)),
    }
}

fn worker(program: &Path, args: &[String], current: &Path) -> Output {
    Command::new(program)
        .arg("worker")
        .args(args)
        .arg("--current")
        .arg(current)
        .env("RAYON_NUM_THREADS", "1")
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .output()
        .expect("a worker starts")
}

fn report(output: &Output) -> Option<Value> {
    serde_json::from_slice(&output.stdout).ok()
}

fn split(current: &Path) -> Option<(u64, Vec<u8>)> {
    let bytes = fs::read(current).ok()?;
    let (tried, input) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*tried), input.to_vec()))
}

/// How a worker ended: what it said, without what differs between inputs.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let text = text.trim().lines().rev().take(6).collect::<Vec<_>>();
    let text: Vec<&str> = text.into_iter().rev().filter(|line| !line.starts_with("note:")).collect();
    let place = text.iter().find_map(|line| line.split_once("panicked at ")).map(|(_, place)| place.to_owned());
    let why = match output.status.code() {
        Some(HANG) => return format!("hang: more than {SECONDS} s"),
        Some(code) => format!("exit {code}"),
        None => format!("{}", output.status),
    };
    match place {
        Some(place) => format!("panic at {place} {}", text.last().unwrap_or(&"").chars().take(160).collect::<String>()),
        None => format!("{why}: {}", text.join(" ").chars().take(200).collect::<String>()),
    }
}

fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
