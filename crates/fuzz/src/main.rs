//! `npm run fuzz -- [--target T] [--minutes M] [--seed S]`, and one input again: `--target T --input FILE`.
#![allow(clippy::print_stdout, clippy::expect_used)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use prefixkv_fuzz::worker::{self, Until};
use prefixkv_fuzz::{TARGETS, Target, memory::Counting, supervisor, target};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const USAGE: &str = "usage: fuzz [--target T] [--minutes M | --inputs N] [--seed S], or fuzz --target T --input FILE";

struct Options {
    worker: bool,
    target: Option<&'static Target>,
    until: Until,
    seed: u64,
    input: Option<PathBuf>,
    current: PathBuf,
}

fn main() -> ExitCode {
    let options = match parse(env::args().skip(1)) {
        Ok(options) => options,
        Err(reason) => {
            eprintln!("{reason}; {USAGE}");
            return ExitCode::from(2);
        }
    };
    match (options.worker, options.target, &options.input) {
        (true, Some(target), None) => {
            worker::watch();
            worker::work(target, options.seed, options.until, &options.current);
            ExitCode::SUCCESS
        }
        (true, Some(target), Some(input)) => once(target, input),
        (true, None, _) | (false, None, Some(_)) => {
            eprintln!("--target is missing; {USAGE}");
            ExitCode::from(2)
        }
        (false, Some(target), Some(input)) => repeat(target, input),
        (false, one, None) => {
            let chosen: Vec<&Target> =
                TARGETS.iter().filter(|target| one.is_none_or(|one| one.name == target.name)).collect();
            all(&chosen, &options)
        }
    }
}

/// Each target for its part of the time, with a table at the end.
fn all(targets: &[&Target], options: &Options) -> ExitCode {
    let until = match options.until {
        Until::Time(time) => Until::Time(time / targets.len() as u32),
        inputs => inputs,
    };
    let program = env::current_exe().expect("this program's path");
    let mut crashes = 0;
    println!(
        "| target | inputs | outcomes | slowest, ms | peak, MiB | crashes |\n| --- | ---: | ---: | ---: | ---: | ---: |"
    );
    for target in targets {
        let found = supervisor::run(&program, target, options.seed, until);
        let (slowest, peak) = (found.slowest.as_millis(), found.peak as f64 / f64::from(1 << 20));
        println!(
            "| {} | {} | {} | {slowest} | {peak:.0} | {} |",
            target.name,
            found.inputs,
            found.kinds,
            found.crashes.len()
        );
        for (said, place) in &found.crashes {
            eprintln!(
                "{}: {said}\n  again: npm run fuzz -- --target {} --input {}",
                target.name,
                target.name,
                place.display()
            );
        }
        crashes += found.crashes.len();
    }
    if crashes == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn repeat(target: &Target, input: &Path) -> ExitCode {
    match supervisor::repeat(&env::current_exe().expect("this program's path"), target, input) {
        Ok(kind) => {
            println!("{}", kind.trim());
            ExitCode::SUCCESS
        }
        Err(said) => {
            eprintln!("{said}");
            ExitCode::FAILURE
        }
    }
}

fn once(target: &Target, input: &Path) -> ExitCode {
    let data = std::fs::read(input).expect("the input is a file");
    worker::watch();
    match worker::run(target, &data) {
        Ok((kind, took, peak)) => {
            println!("{kind} ({} ms, {} MiB)", took.as_millis(), peak >> 20);
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::from(101),
    }
}

fn parse(args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        worker: false,
        target: None,
        until: Until::Time(Duration::from_secs(60)),
        seed: 1,
        input: None,
        current: PathBuf::new(),
    };
    let mut args = args;
    while let Some(arg) = args.next() {
        if arg == "worker" {
            options.worker = true;
            continue;
        }
        let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{arg} {value} is no whole number"));
        match arg.as_str() {
            "--target" => {
                let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
                let unknown = || format!("unknown target {value}; there are {}", names.join(", "));
                options.target = Some(target(&value).ok_or_else(unknown)?);
            }
            "--minutes" => {
                let minutes = value.parse::<f64>().ok().filter(|minutes| *minutes > 0.0 && *minutes < 1e5);
                let minutes = minutes.ok_or_else(|| format!("--minutes {value} is no number of minutes"))?;
                options.until = Until::Time(Duration::from_secs_f64(minutes * 60.0));
            }
            "--milliseconds" => options.until = Until::Time(Duration::from_millis(number()?)),
            "--inputs" => options.until = Until::Inputs(number()?),
            "--seed" => options.seed = number()?,
            "--input" => options.input = Some(PathBuf::from(value)),
            "--current" => options.current = PathBuf::from(value),
            _ => return Err(format!("unknown option {arg}")),
        }
    }
    Ok(options)
}
