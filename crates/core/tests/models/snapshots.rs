//! Sequences as bytes: every method on every family goes on from them as it would have gone on, or says why it cannot.

use std::collections::BTreeMap;

use prefixkv_core::Error;
use prefixkv_core::cache::{Get, Put};
use prefixkv_core::method::{METHODS, Method, Role};
use prefixkv_core::sequence::Sequence;
use serde_json::{Value, json};

use crate::families::{FAMILIES, Read, by_hand};

/// Tokens behind a question.
const STEPS: u32 = 40;

struct Bytes(Vec<u8>);

impl Put for Bytes {
    fn put(&mut self, bytes: &[u8]) -> prefixkv_core::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

struct From<'b>(&'b [u8]);

impl Get for From<'_> {
    fn get(&mut self, to: &mut [u8]) -> prefixkv_core::Result<()> {
        let Some((now, left)) = self.0.split_at_checked(to.len()) else {
            return Err(self.corrupt(format!("{} bytes of {}", self.0.len(), to.len())));
        };
        to.copy_from_slice(now);
        self.0 = left;
        Ok(())
    }

    fn left(&self) -> u64 {
        self.0.len() as u64
    }

    fn corrupt(&self, reason: String) -> Error {
        Error::Calibration { reason }
    }
}

fn saved(sequence: &Sequence) -> Vec<u8> {
    let mut bytes = Bytes(Vec::new());
    sequence.save(&mut bytes).expect("between two pieces of work");
    bytes.0
}

/// An empty sequence of a method, ready for a prefix, and whether the method waits for a question.
fn empty(read: &Read, cache: &Value) -> prefixkv_core::Result<(Sequence, bool)> {
    let method = Method::parse(cache)?;
    let mut sequence = read.model.new_sequence_with(method.clone(), true)?;
    let waits = sequence.begin_prefix(method.as_ref().map_or("full", |method| &method.name))?;
    if let Some(method) = method.filter(|_| !waits) {
        method.require_saved()?;
    }
    Ok((sequence, waits))
}

fn prefix(read: &Read, cache: &Value) -> prefixkv_core::Result<(Sequence, bool)> {
    let (mut sequence, waits) = empty(read, cache)?;
    let features = match sequence.pictures() {
        None => read.features.clone(),
        some => read.model.encode_images_for(&read.prepared, some, &|| Ok(()))?,
    };
    read.model.prefill(&read.prompt, &features, &mut sequence, &|| Ok(()))?;
    Ok((sequence, waits))
}

/// A question, an answer and another question.
fn go_on(read: &Read, sequence: &mut Sequence) -> prefixkv_core::Result<Vec<Vec<f32>>> {
    let mut rows = Vec::new();
    for from in [30, 90] {
        let question: Vec<u32> = (from..from + 40).collect();
        let question = read.model.expand(&question, 0)?;
        rows.push(read.model.prefill(&question, &[], sequence, &|| Ok(()))?);
        for step in 0..STEPS {
            rows.push(read.model.decode(20 + 7 * (step % 13), sequence)?);
        }
    }
    Ok(rows)
}

/// The methods that wait for a question, and those that cannot be used so, as the scores and stores say.
const WAIT: &[&str] = &[
    "adakv",
    "airCache",
    "cake",
    "chunkkv",
    "headKv",
    "mixkv",
    "prefixkv",
    "pyramidkv",
    "rkv",
    "snapkv",
    "sparseMm",
    "tgvKv",
    "think",
    "tova",
    "vlCache",
    "zipvl",
];
const REFUSED: &[(&str, &str)] = &[
    ("fastv", "looks at the question"),
    ("pyramidInfer", "looks at the question"),
    ("akvqVl", "no snapshot holds that"),
    ("clla", "no snapshot holds that"),
    ("cskv", "no snapshot holds that"),
    ("kvquant", "no snapshot holds that"),
    ("lorc", "no snapshot holds that"),
    ("minicache", "no snapshot holds that"),
    ("skvq", "no snapshot holds that"),
];

#[test]
fn every_method_goes_on_from_bytes_on_every_family_or_says_why_not() {
    let both = |family: &'static str| [Some(Read::of(family)), Read::with_video(family)].into_iter().flatten();
    let mut outcomes: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    for family in FAMILIES {
        for read in both(family.fixture) {
            let specs = METHODS.iter().filter(|spec| spec.role != Role::Refines && !by_hand(spec));
            let stores =
                [json!({ "method": "int4", "window": 8 }), json!({ "method": "kivi", "window": 8, "rope": "before" })];
            let cases = specs.flat_map(|spec| {
                let cache = read.cache(spec, Some(0.5));
                let with = |store: &Value| json!([cache.clone(), store.clone()]);
                let behind = if spec.role == Role::Chooses { stores.iter().map(with).collect() } else { Vec::new() };
                std::iter::once((spec.name, cache.clone()))
                    .chain(behind.into_iter().map(move |cache| (spec.name, cache)))
            });
            for (name, cache) in cases {
                let place = format!("{}, {}", family.fixture, cache);
                let (mut first, waits) = match prefix(&read, &cache) {
                    Ok(found) => found,
                    // A combination, or a method on this family, that is refused whatever follows.
                    Err(_) if cache.is_array() && Method::parse(&cache).is_err() => continue,
                    Err(Error::Option { reason, .. }) => {
                        let known = REFUSED.iter().find(|(refused, _)| *refused == name);
                        let elsewhere =
                            ["no class token", "in several tiles", "normalises its keys", "class token for each tile"];
                        let named = known.is_some_and(|(_, part)| reason.contains(part) && reason.contains(name));
                        let other = elsewhere.iter().any(|part| reason.contains(part))
                            || (cache.is_array() && !reason.contains("question"));
                        assert!(named || other, "{place}: {reason}");
                        continue;
                    }
                    Err(error) => panic!("{place}: {error}"),
                };
                assert_eq!(waits, WAIT.contains(&name), "{place}");
                let bytes = saved(&first);
                let (mut second, _) = empty(&read, &cache).expect("as the first");
                second
                    .restore(&mut From(&bytes), read.model.max_positions())
                    .unwrap_or_else(|e| panic!("{place}: {e}"));
                assert!(saved(&second) == bytes, "{place}: other bytes");
                assert_eq!(second.kept(), first.kept(), "{place}");
                assert_eq!(second.spans(), first.spans(), "{place}");
                // A list of phases has room to grow until it is copied.
                let mut fork = first.fork().expect("between two pieces of work");
                assert_eq!(second.memory().resident, fork.memory().resident, "{place}");
                let want = go_on(&read, &mut first).unwrap_or_else(|e| panic!("{place}: {e}"));
                for (what, sequence) in [("restored", &mut second), ("forked", &mut fork)] {
                    let rows = go_on(&read, sequence).unwrap_or_else(|e| panic!("{place}, {what}: {e}"));
                    assert!(rows == want, "{place}, {what}: other logits");
                    assert_eq!(sequence.kept(), first.kept(), "{place}, {what}");
                }
                let all = first.next_position() as f64;
                let memory = first.memory();
                let kept = memory.kept_per_layer.iter().fold(0.0f64, |most, kept| most.max(*kept));
                assert!(kept <= all, "{place}");
                outcomes.entry(name).or_default()[usize::from(waits)] += 1;
            }
        }
    }
    for spec in METHODS.iter().filter(|spec| spec.role != Role::Refines && !by_hand(spec)) {
        let refused = REFUSED.iter().any(|(name, _)| *name == spec.name);
        assert_eq!(outcomes.contains_key(spec.name), !refused, "{}", spec.name);
    }
}

/// A function outside has no place beside a prefix.
#[test]
fn functions_of_the_caller_are_refused_by_name() {
    let read = Read::of("llava-gqa64");
    let cache = json!({ "method": "custom", "external": { "moments": ["prompt"] } });
    let Ok(Some(_)) = Method::parse(&cache) else { return };
    assert!(matches!(empty(&read, &cache), Err(Error::Option { .. })));
}

/// Whatever the bytes are, they are an error or a sequence that goes on without a panic; and all memory comes back.
#[test]
fn bytes_that_were_changed_end_in_an_error_or_in_a_sequence() {
    let caches = [
        json!({ "method": "full" }),
        json!({ "method": "h2o", "keep": 0.5 }),
        json!([{ "method": "adakv", "keep": 0.5 }, { "method": "int4", "window": 8 }]),
        json!([{ "method": "knorm", "keep": 0.5 }, { "method": "kivi", "window": 0, "rope": "before" }]),
        json!({ "method": "streaming", "keep": 0.5, "positions": "cache" }),
        json!({ "method": "turboquant", "window": 0 }),
    ];
    let mut seed = 7u64;
    let mut draw = move |below: usize| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as usize % below.max(1)
    };
    let (mut errors, mut restored) = (0, 0);
    for fixture in ["llava-gqa64", "qwen2-vl", "gemma3-vision"] {
        let read = Read::of(fixture);
        for cache in &caches {
            let (first, _) = match prefix(&read, cache) {
                Ok(found) => found,
                // Positions of three axes go with no ranks.
                Err(Error::Option { .. }) if fixture == "qwen2-vl" => continue,
                Err(error) => panic!("{fixture}, {cache}: {error}"),
            };
            let bytes = saved(&first);
            drop(first);
            let before = read.model.pool().used();
            for round in 0..150 {
                let mut changed = bytes.clone();
                match round % 5 {
                    0 => changed.truncate(draw(bytes.len())),
                    1 => changed.extend([0; 3]),
                    // The tables lie at the start.
                    2 => (0..1 + draw(3)).for_each(|_| changed[draw(bytes.len().min(400))] = draw(256) as u8),
                    3 => {
                        let at = draw(bytes.len() - 4);
                        changed[at..at + 4].copy_from_slice(&(draw(1 << 31) as u32).to_le_bytes());
                    }
                    _ => (0..1 + draw(20)).for_each(|_| changed[draw(bytes.len())] ^= 1 << draw(8)),
                }
                let (mut sequence, _) = empty(&read, cache).expect("as the first");
                match sequence.restore(&mut From(&changed), read.model.max_positions()) {
                    Err(Error::Calibration { .. }) => errors += 1,
                    Err(error) => panic!("{fixture}, {cache}: {error}"),
                    Ok(()) => {
                        restored += 1;
                        // Work on it may fail, by numbers that are none; it must not panic.
                        let _ = go_on(&read, &mut sequence);
                    }
                }
                drop(sequence);
                assert_eq!(read.model.pool().used(), before);
            }
        }
    }
    assert!(errors > 500 && restored > 100, "{errors} errors, {restored} restored");
}
