//! With the feature `cuda`: compiles cuda/*.cu with nvcc to fatbins that `cuda::device` embeds. Else nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Instant;
use std::{env, fs, thread};

const KERNELS: [&str; 6] = ["codec", "decode", "gather", "network", "prefill", "rotary"];

/// Machine code for A100 and H100/H200, and PTX from which drivers make code for newer devices.
const FLAGS: [&str; 7] = [
    "-fatbin",
    "-O3",
    "-std=c++17",
    "-gencode",
    "arch=compute_80,code=[sm_80,compute_80]",
    "-gencode",
    "arch=compute_90a,code=sm_90a",
];

/// Sees whether the kernels compile, in a tenth of the time.
const QUICK: [&str; 2] = ["-Ofc", "max"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    println!("cargo:rerun-if-changed=cuda");
    for name in ["PREFIXKV_CUDA_CHECK", "CUDA_HOME", "CUDA_PATH"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // Sources and flags of what lies in OUT_DIR, so that a linter's run in between costs no second compilation.
    let stamp = out.join("inputs.txt");
    let check = env::var("PREFIXKV_CUDA_CHECK").unwrap_or_default();
    let flags: Vec<&str> = FLAGS.into_iter().chain(QUICK.into_iter().filter(|_| check == "quick")).collect();
    let inputs = inputs(&flags);
    if fs::read(&stamp).is_ok_and(|compiled| compiled == inputs) {
        return;
    }
    let _ = fs::remove_file(&stamp);
    if check == "1" {
        for kernel in KERNELS {
            fs::write(out.join(format!("{kernel}.fatbin")), []).expect("OUT_DIR can be written");
        }
        println!("cargo:warning=PREFIXKV_CUDA_CHECK: no CUDA kernel was compiled; the result only type-checks");
        return;
    }
    let nvcc = nvcc();
    let next = Mutex::new(KERNELS.into_iter());
    let report = Mutex::new(Vec::new());
    // The largest come first; as many at a time as cargo allows.
    let jobs = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1usize);
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, KERNELS.len()) {
            scope.spawn(|| {
                loop {
                    let Some(kernel) = next.lock().expect("no thread panicked").next() else { return };
                    let line = compile(&nvcc, &flags, kernel, &out);
                    report.lock().expect("no thread panicked").push(line);
                }
            });
        }
    });
    let mut report = report.into_inner().expect("no thread panicked");
    report.sort();
    fs::write(out.join("kernels.txt"), report.concat()).expect("OUT_DIR can be written");
    fs::write(stamp, inputs).expect("OUT_DIR can be written");
}

/// Everything that the result depends on but the compiler.
fn inputs(flags: &[&str]) -> Vec<u8> {
    let folder = fs::read_dir("cuda").expect("the sources are there");
    let mut files: Vec<PathBuf> = folder.map(|entry| entry.expect("the sources can be listed").path()).collect();
    files.sort();
    let mut inputs = flags.join(" ").into_bytes();
    for file in files {
        inputs.extend_from_slice(file.as_os_str().as_encoded_bytes());
        inputs.extend(fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())));
    }
    inputs
}

/// Compiles one source; its name, seconds and bytes.
fn compile(nvcc: &Path, flags: &[&str], kernel: &str, out: &Path) -> String {
    let to = out.join(format!("{kernel}.fatbin"));
    let start = Instant::now();
    let done = Command::new(nvcc).args(flags).arg("-o").arg(&to).arg(format!("cuda/{kernel}.cu")).output();
    let done = done.unwrap_or_else(|error| panic!("{} could not be run: {error}", nvcc.display()));
    if !done.status.success() {
        panic!("nvcc could not compile cuda/{kernel}.cu:\n{}", String::from_utf8_lossy(&done.stderr));
    }
    let bytes = fs::metadata(&to).map_or(0, |file| file.len());
    format!("{kernel}.cu {:.1} s {bytes} bytes\n", start.elapsed().as_secs_f64())
}

fn nvcc() -> PathBuf {
    let name = format!("nvcc{}", env::consts::EXE_SUFFIX);
    let homes =
        ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os).map(|home| PathBuf::from(home).join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    homes
        .chain(env::split_paths(&path).collect::<Vec<_>>())
        .map(|folder| folder.join(&name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| {
            panic!(
                "The feature `cuda` compiles kernels with nvcc, which is neither in $CUDA_HOME/bin, $CUDA_PATH/bin nor on the \
                 PATH. `npm run build:cuda` fetches it; PREFIXKV_CUDA_CHECK=1 type-checks without it."
            )
        })
}
