//! Defects on purpose, so that a test sees each of them found. Not one of the targets that are run.

use crate::target::{Kind, Target};

pub const TARGET: Target = Target {
    name: "defects",
    reads: "the name of a defect",
    kind: Kind::Bytes,
    memory: 1 << 20,
    short: 0,
    words: || &[],
    seeds: || vec![b"sound".to_vec(), b"panic".to_vec()],
    run,
};

fn run(data: &[u8]) -> String {
    match data {
        b"panic" => panic!("on purpose"),
        b"memory" => format!("{}", std::hint::black_box(vec![1u8; 2 << 20]).len()),
        b"abort" => std::process::abort(),
        b"hang" => loop {
            std::thread::park();
        },
        _ => "sound".into(),
    }
}
