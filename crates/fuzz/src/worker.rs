//! One process that tries inputs until it is done or one of them ends it.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::memory;
use crate::mutate::mutate;
use crate::random::Random;
use crate::target::Target;

/// Seconds that one input may take: a hang, or work that no input is worth, also on a busy machine.
pub const SECONDS: u64 = 20;
/// The exit code of a worker whose input took longer.
pub const HANG: i32 = 71;
/// Most inputs that are kept to make others from.
const POOL: usize = 4096;

/// When a worker stops.
#[derive(Clone, Copy)]
pub enum Until {
    Inputs(u64),
    Time(Duration),
}

/// Nanoseconds from the start at which the input began; 0 between inputs.
static BEGAN: AtomicU64 = AtomicU64::new(0);

/// Ends the process when an input takes too long.
pub fn watch() {
    let start = Instant::now();
    BEGAN.store(0, Relaxed);
    thread::spawn(move || {
        loop {
            thread::sleep(Duration::from_millis(200));
            let began = BEGAN.load(Relaxed);
            if began > 0 && millis(start) > began + SECONDS * 1000 {
                eprintln!("an input takes more than {SECONDS} s");
                process::exit(HANG);
            }
        }
    });
    START.set(start).expect("watched once");
}

static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();

fn millis(start: Instant) -> u64 {
    start.elapsed().as_millis() as u64 + 1
}

/// Runs one input under the limits; a panic comes back as what it says.
pub fn run(target: &Target, data: &[u8]) -> Result<(String, Duration, usize), String> {
    let start = START.get().expect("the worker is watched");
    memory::allow(target.memory);
    BEGAN.store(millis(*start), Relaxed);
    let clock = Instant::now();
    let caught = panic::catch_unwind(AssertUnwindSafe(|| (target.run)(data)));
    let took = clock.elapsed();
    BEGAN.store(0, Relaxed);
    let peak = memory::peak(target.memory);
    memory::allow(usize::MAX / 2);
    match caught {
        Ok(kind) => Ok((kind, took, peak)),
        Err(_) => Err("a panic".into()),
    }
}

/// Tries inputs. `current` always holds the number of inputs tried (eight bytes) and the one that runs.
#[allow(clippy::print_stdout)]
pub fn work(target: &Target, seed: u64, until: Until, current: &Path) {
    let mut file = File::create(current).expect("a file for the running input");
    let mut random = Random::new(seed);
    let mut pool = (target.seeds)();
    let seeds = pool.len();
    let mut kinds = HashSet::new();
    let (mut slowest, mut highest) = (Duration::ZERO, 0);
    let clock = Instant::now();
    // Whatever is made once and kept is made before memory counts.
    let first = panic::catch_unwind(|| (target.run)(&(target.seeds)()[0]));
    drop(first);
    let mut tried: u64 = 0;
    loop {
        let done = match until {
            Until::Inputs(most) => tried >= most,
            Until::Time(most) => clock.elapsed() >= most,
        };
        if done {
            break;
        }
        let data = match pool.get(tried as usize).filter(|_| (tried as usize) < seeds) {
            Some(seed) => seed.clone(),
            None => mutate(target, &pool, &mut random),
        };
        tried += 1;
        keep(&mut file, tried, &data);
        match run(target, &data) {
            Ok((kind, took, peak)) => {
                slowest = slowest.max(took);
                highest = highest.max(peak);
                if kinds.insert(kind) && tried as usize > seeds && pool.len() < POOL && data.len() < 1 << 16 {
                    pool.push(data);
                }
            }
            Err(_) => process::exit(101),
        }
    }
    let report = serde_json::json!({
        "inputs": tried,
        "kinds": kinds.len(),
        "slowest": slowest.as_millis() as u64,
        "peak": highest,
    });
    println!("{report}");
    drop(fs::remove_file(current));
}

fn keep(file: &mut File, tried: u64, data: &[u8]) {
    let all = [&tried.to_le_bytes()[..], data].concat();
    let written =
        file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&all)).and_then(|()| file.set_len(all.len() as u64));
    written.expect("the running input is written");
}
