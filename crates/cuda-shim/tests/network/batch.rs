//! Several sequences in one step, on the CPU and on the shim.

use prefixkv_core::backend::Backend;
use prefixkv_core::device::{Cpu, Cuda};
use prefixkv_core::model::{Decoded, LoadOptions, Model};
use prefixkv_core::sample;
use prefixkv_core::sequence::Sequence;
use serde_json::{Value, json};

use crate::{FOLDER, Reader, argmax, cuda, root, shim, worst};

fn caches() -> Vec<Value> {
    vec![
        json!({ "method": "full" }),
        json!({ "method": "prefixkv", "keep": 0.4 }),
        json!({ "method": "h2o", "keep": 0.5 }),
        json!({ "method": "knorm", "keep": { "tokens": 30 } }),
        json!({ "method": "int4", "window": 8 }),
        json!([{ "method": "h2o", "keep": 0.5 }, { "method": "int8" }]),
        json!({ "method": "int2", "window": 16, "rotate": true }),
        json!({ "method": "kvsharer", "sources": { "1": 0 } }),
        json!([{ "method": "kvsharer", "sources": { "1": 0 } }, { "method": "h2o", "keep": 0.5 }]),
    ]
}

/// Sequences of different methods and lengths, with the logits of their prompts.
fn sequences<B: Backend>(reader: &mut Reader<B>) -> Vec<(Sequence<B::Memory>, Vec<f32>)> {
    let whole = reader.prompt.tokens.clone();
    let read = |(index, cache): (usize, &Value)| {
        reader.prompt = reader.model.expand(&whole[..whole.len() - 7 * index], 0).expect("text");
        let mut sequence = reader.sequence(cache);
        let logits = reader.prefill(&mut sequence);
        (sequence, logits)
    };
    caches().iter().enumerate().map(read).collect()
}

fn check<B: Backend>(backend: B) {
    let mut together = Reader::text(FOLDER, backend.clone(), 80);
    let mut alone = Reader::text(FOLDER, backend, 80);
    let (mut batch, mut singles) = (sequences(&mut together), sequences(&mut alone));
    for step in 0..30 {
        // One leaves the batch half-way.
        batch.truncate(if step < 15 { caches().len() } else { caches().len() - 1 });
        let tokens: Vec<u32> = batch.iter().map(|(_, logits)| argmax(logits)).collect();
        let mut members: Vec<&mut Sequence<B::Memory>> = batch.iter_mut().map(|(sequence, _)| sequence).collect();
        let rows = together.model.decode_batch(&tokens, &mut members).expect("decodes");
        assert_eq!(rows.len(), tokens.len());
        for (index, (row, token)) in rows.into_iter().zip(tokens).enumerate() {
            let row = row.expect("no limit");
            let (sequence, logits) = &mut singles[index];
            *logits = alone.model.decode(token, sequence).expect("decodes");
            let difference = worst(&row, logits);
            assert!(difference <= 1e-4, "step {step}, sequence {index}: {difference}");
            assert_eq!(batch[index].0.kept(), sequence.kept(), "step {step}, sequence {index}");
            batch[index].1 = row;
        }
    }
}

#[test]
fn a_batch_on_the_cpu_equals_its_sequences_alone() {
    check(Cpu);
}

#[test]
fn a_batch_on_the_device_equals_its_sequences_alone() {
    let shim = shim();
    check(cuda(&shim));
    assert_eq!(shim.allocated(), 0);
}

#[test]
fn the_likeliest_token_of_a_device_is_the_greatest_of_its_logits() {
    let shim = shim();
    let mut reader = Reader::text(FOLDER, cuda(&shim), 80);
    let mut batch: Vec<Sequence<Cuda>> = sequences(&mut reader).into_iter().map(|(sequence, _)| sequence).collect();
    let mut twins: Vec<Sequence<Cuda>> = batch.iter().map(|sequence| sequence.fork().expect("no cap")).collect();
    let mut tokens: Vec<u32> = (50..).take(batch.len()).collect();
    for step in 0..20 {
        let mut members: Vec<&mut Sequence<Cuda>> = batch.iter_mut().collect();
        let logits = reader.model.decode_batch(&tokens, &mut members).expect("decodes");
        let mut members: Vec<&mut Sequence<Cuda>> = twins.iter_mut().collect();
        shim.traffic();
        let found = reader.model.decode_step(&tokens, &mut members, true).expect("decodes");
        let asked = shim.traffic();
        assert!(asked.reads > 0 && found.len() == tokens.len());
        tokens = logits.iter().map(|logits| sample::argmax(logits.as_ref().expect("no limit")) as u32).collect();
        for (token, found) in tokens.iter().zip(found) {
            assert_eq!(found.expect("no limit"), Decoded::Likeliest(*token), "step {step}");
        }
    }
}

/// A model whose last norm is beyond all measure has no likeliest token, and says what it has in place of numbers.
#[test]
fn a_row_of_no_numbers_is_refused_as_its_logits_are() {
    let folder = std::env::temp_dir().join(format!("prefixkv-no-numbers-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    for file in std::fs::read_dir(root().join("tests/golden/fixtures/llama3-rope")).expect("the fixture") {
        let file = file.expect("a file");
        std::fs::copy(file.path(), folder.join(file.file_name())).expect("a copy");
    }
    let weights = folder.join("model.safetensors");
    let mut bytes = std::fs::read(&weights).expect("weights");
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let tensors: Value = serde_json::from_slice(&bytes[8..header]).expect("a header");
    let norm = &tensors["model.norm.weight"]["data_offsets"];
    let [start, end] = [0, 1].map(|side| header + norm[side].as_u64().expect("an offset") as usize);
    // The greatest bfloat16.
    bytes[start..end].fill(0x7f);
    std::fs::write(&weights, bytes).expect("weights");

    let shim = shim();
    let reader = Reader::text(folder.to_str().expect("text"), cuda(&shim), 20);
    std::fs::remove_dir_all(&folder).expect("the folder goes");
    let step = |likeliest| {
        let mut sequence = reader.sequence(&json!({ "method": "full" }));
        reader.model.prefill(&reader.prompt, &[], &mut sequence, &|| Ok(())).expect_err("no numbers");
        let mut decoded = reader.model.decode_step(&[7], &mut [&mut sequence], likeliest).expect("a step");
        decoded.pop().expect("a row").expect_err("no numbers")
    };
    let (error, other) = (step(true), step(false));
    assert_eq!((error.code(), error.to_string()), ("numbers", other.to_string()));
}

#[test]
fn what_fails_for_one_sequence_leaves_the_others_alone() {
    fn check<B: Backend>(backend: B) {
        let reader = Reader::text(FOLDER, backend, 40);
        let mut good = reader.sequence(&json!({ "method": "full" }));
        let logits = reader.prefill(&mut good);
        let mut alone = reader.sequence(&json!({ "method": "full" }));
        reader.prefill(&mut alone);
        // A sequence that was left in the middle of a step refuses the next one.
        let mut broken = reader.sequence(&json!({ "method": "full" }));
        reader.prefill(&mut broken);
        broken.begin_step().expect("it is sound");
        let token = argmax(&logits);
        let mut rows =
            reader.model.decode_batch(&[token, token], &mut [&mut broken, &mut good]).expect("the step itself runs");
        let row = rows.pop().expect("two rows").expect("the good one");
        assert_eq!(rows.pop().expect("two rows").expect_err("the broken one").code(), "internal");
        assert!(worst(&row, &reader.model.decode(token, &mut alone).expect("decodes")) <= 1e-4);
        assert_eq!(good.kept(), alone.kept());
    }
    check(Cpu);
    check(cuda(&shim()));
}

#[test]
fn the_pool_refuses_one_sequence_in_the_middle_of_a_step() {
    fn check<B: Backend>(backend: B) {
        let read = |reader: &Reader<B>| -> (Vec<Sequence<B::Memory>>, Vec<u32>) {
            let mut sequences: Vec<Sequence<B::Memory>> =
                (0..2).map(|_| reader.sequence(&json!({ "method": "full" }))).collect();
            let tokens = sequences.iter_mut().map(|sequence| argmax(&reader.prefill(sequence))).collect();
            (sequences, tokens)
        };
        let roomy = Reader::text(FOLDER, backend.clone(), 40);
        let held = read(&roomy).0.iter().map(|sequence| sequence.memory().resident).sum::<u64>();
        let limit = held + 2 * roomy.model.info().kv_bytes_per_token as u64;
        let options = LoadOptions { cache_limit: Some(limit), ..LoadOptions::new(root().join(FOLDER)) };
        let model = Model::load_on(backend, &options, &mut |_| Ok(())).expect("loads");
        let reader = Reader { model, ..roomy };
        let (mut sequences, tokens) = read(&reader);
        let mut failed = 0;
        for _ in 0..4 {
            let mut members: Vec<&mut Sequence<B::Memory>> =
                sequences.iter_mut().filter(|one| one.is_sound()).collect();
            let tokens = &tokens[..members.len()];
            if members.is_empty() {
                break;
            }
            let rows = reader.model.decode_batch(tokens, &mut members).expect("the step itself runs");
            failed += rows.iter().filter(|row| matches!(row, Err(error) if error.code() == "out-of-memory")).count();
        }
        assert!(failed > 0, "the cap was reached");
        drop(sequences);
        assert_eq!(reader.model.pool().used(), 0);
    }
    check(Cpu);
    check(cuda(&shim()));
}

/// The launches of one step of sequences with these caches, but for the growth of lanes.
fn launches(caches: &[Value]) -> Vec<String> {
    let shim = shim();
    let reader = Reader::text(FOLDER, cuda(&shim), 80);
    let mut sequences: Vec<_> = caches.iter().map(|cache| reader.sequence(cache)).collect();
    let tokens: Vec<u32> = sequences.iter_mut().map(|sequence| argmax(&reader.prefill(sequence))).collect();
    let mut members: Vec<_> = sequences.iter_mut().collect();
    let before = shim.launched().len();
    reader.model.decode_batch(&tokens, &mut members).expect("decodes");
    let mut launched = shim.launched().split_off(before);
    launched.retain(|kernel| !kernel.starts_with("gather"));
    launched
}

#[test]
fn one_launch_serves_sequences_of_different_codecs() {
    let full = json!({ "method": "full" });
    let store = |name: &str| json!({ "method": name, "window": 16 });
    let plain = launches(&[full.clone(), full.clone(), full.clone(), full.clone()]);
    let mixed = launches(&[full.clone(), store("int8"), store("int4"), store("int2")]);
    assert_eq!(mixed, plain, "codecs add no launch");
    let attending = plain.iter().filter(|kernel| kernel.starts_with("decode_attend")).count();
    assert_eq!(attending, launches(&[full]).iter().filter(|kernel| kernel.starts_with("decode_attend")).count());
}
