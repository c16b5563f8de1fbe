//! Two sequences with one prefix: the bits of each alone, entries on the device once until one of the two changes them.

use prefixkv_core::backend::Backend;
use prefixkv_core::device::Cpu;
use prefixkv_core::sequence::Sequence;
use serde_json::{Value, json};

use crate::{FOLDER, Reader, cuda, shim};

/// The logits and the kept entries at every token.
type Course = Vec<(Vec<f32>, Vec<Vec<prefixkv_core::cache::Kept>>)>;

fn go_on<B: Backend>(reader: &mut Reader<B>, sequence: &mut Sequence<B::Memory>, tokens: &[u32]) -> Course {
    let step = |token: &u32| (reader.model.decode(*token, sequence).expect("decodes"), sequence.kept());
    tokens.iter().map(step).collect()
}

fn start<B: Backend>(reader: &mut Reader<B>, cache: &Value, tokens: &[u32]) -> Sequence<B::Memory> {
    let mut sequence = reader.sequence(cache);
    reader.prefill(&mut sequence);
    go_on(reader, &mut sequence, tokens);
    sequence
}

/// Forks after `before`; the two then go on by turns.
fn check<B: Backend>(reader: &mut Reader<B>, cache: &Value, before: &[u32]) {
    let (mut one, mut other) = ((100..124).collect::<Vec<u32>>(), (200..224).collect::<Vec<u32>>());
    let expected = [&one, &other].map(|tokens| {
        let mut alone = start(reader, cache, before);
        go_on(reader, &mut alone, tokens)
    });
    let mut a = start(reader, cache, before);
    let mut b = a.fork().expect("no cap");
    let mut got = [Vec::new(), Vec::new()];
    while !one.is_empty() {
        got[0].extend(go_on(reader, &mut a, &one.drain(..3).collect::<Vec<_>>()));
        got[1].extend(go_on(reader, &mut b, &other.drain(..3).collect::<Vec<_>>()));
    }
    assert!(got == expected, "{cache} after {} tokens", before.len());
}

fn every_method<B: Backend>(reader: &mut Reader<B>) {
    for cache in [
        json!({ "method": "full" }),
        json!({ "method": "prefixkv", "keep": 0.5 }),
        json!({ "method": "prefixkv", "keep": 0.3, "variant": "paper", "decode": "lowest-score" }),
        json!({ "method": "h2o", "keep": { "tokens": 40 } }),
        json!({ "method": "snapkv", "keep": 0.4 }),
        json!({ "method": "knorm", "keep": 0.5 }),
        json!({ "method": "streaming", "keep": { "tokens": 40 }, "positions": "true" }),
        json!({ "method": "random", "keep": 0.4 }),
        json!({ "method": "int4", "window": 16 }),
        json!([{ "method": "h2o", "keep": { "tokens": 40 } }, { "method": "int8", "window": 4 }]),
        json!([{ "method": "snapkv", "keep": 0.5 }, { "method": "int2", "window": 8, "rotate": true }]),
    ] {
        check(reader, &cache, &[]);
        check(reader, &cache, &(30..50).collect::<Vec<u32>>());
    }
}

#[test]
fn forks_are_as_if_they_were_alone_on_the_cpu() {
    every_method(&mut Reader::text(FOLDER, Cpu, 64));
}

#[test]
fn forks_are_as_if_they_were_alone_on_a_gpu() {
    let shim = shim();
    let mut reader = Reader::text(FOLDER, cuda(&shim), 64);
    every_method(&mut reader);
    let weights = shim.allocated();
    let sequence = start(&mut reader, &json!({ "method": "full" }), &[]);
    let held = shim.allocated();
    let forks: Vec<_> = (0..3).map(|_| sequence.fork().expect("no cap")).collect();
    assert_eq!(shim.allocated(), held, "nothing is copied");
    drop(sequence);
    assert_eq!(shim.allocated(), held, "nor lost with the first");
    drop(forks);
    assert_eq!(shim.allocated(), weights);
}
