//! A prompt that is read in pieces: the logits, the sums and the choices of one that is read whole.

use prefixkv_core::backend::Backend;
use prefixkv_core::cache::Kept;
use prefixkv_core::device::Cpu;
use prefixkv_core::error::{Error, Result};
use prefixkv_core::method::Method;
use prefixkv_core::method::external::{LaneReply, PlanReply};
use prefixkv_core::sequence::Sequence;
use serde_json::{Value, json};

use crate::{FOLDER, Reader, cuda, shim, worst};

const N: usize = 96;
/// Of logits up to about 20, between two orders of sums in f32 through two layers.
const TOLERANCE: f32 = 1e-4;

fn caches() -> Vec<Value> {
    vec![
        json!({ "method": "full" }),
        json!({ "method": "prefixkv", "keep": 0.5 }),
        json!({ "method": "prefixkv", "keep": 0.5, "score": "text" }),
        json!({ "method": "prefixkv", "keep": 0.3, "variant": "paper" }),
        json!({ "method": "prefixkv", "keep": 0.5, "variant": "official" }),
        json!({ "method": "prefixkv", "keep": { "tokens": 40 } }),
        json!({ "method": "h2o", "keep": 0.4 }),
        json!({ "method": "snapkv", "keep": 0.4 }),
        json!({ "method": "knorm", "keep": 0.5 }),
        json!({ "method": "streaming", "keep": 0.4, "positions": "true" }),
        json!({ "method": "random", "keep": 0.4 }),
        json!({ "method": "custom", "keep": 0.4, "budget": "ada", "score": "window" }),
        json!({ "method": "custom", "keep": { "tokens": 40 }, "budget": "ada", "score": "columns" }),
        json!({ "method": "custom", "keep": 0.4, "budget": "prefix", "score": "question", "decode": "oldest" }),
    ]
}

fn sequence<B: Backend>(reader: &Reader<B>, cache: &Value) -> Sequence<B::Memory> {
    let method = Method::parse(cache).unwrap_or_else(|error| panic!("{cache}: {error}"));
    reader.model.new_sequence_with(method, true).unwrap_or_else(|error| panic!("{cache}: {error}"))
}

/// Reads the prompt of `reader` in pieces of at most `most` positions.
fn in_pieces<B: Backend>(
    reader: &mut Reader<B>,
    sequence: &mut Sequence<B::Memory>,
    most: usize,
    check: &(dyn Fn() -> Result<()> + Sync),
) -> Result<Vec<f32>> {
    let Reader { model, prompt, features, .. } = reader;
    let mut prefill = model.begin_prefill(prompt, features, sequence, most)?;
    loop {
        if let Some(logits) = model.prefill_piece(&mut prefill, sequence, check)? {
            return Ok(logits);
        }
    }
}

/// Positions that only one of the two keeps.
fn exchanged(a: &[Vec<Kept>], b: &[Vec<Kept>]) -> usize {
    let lanes = a.iter().flatten().zip(b.iter().flatten());
    lanes
        .map(|(a, b)| {
            assert_eq!((a.heads, a.positions.len()), (b.heads, b.positions.len()), "sizes of lanes");
            a.positions.iter().filter(|position| !b.positions.contains(position)).count()
        })
        .sum()
}

/// Two prompts with tokens between; gives the positions that were exchanged, of all.
fn compare<B: Backend>(reader: &mut Reader<B>, cache: &Value, most: usize) -> (usize, usize) {
    let what = format!("{cache} in pieces of {most}");
    let (mut whole, mut cut) = (sequence(reader, cache), sequence(reader, cache));
    let (mut swaps, mut all) = (0, 0);
    whole.record();
    cut.record();
    for turn in 0..2 {
        let want = reader.model.prefill(&reader.prompt, &reader.features, &mut whole, &|| Ok(())).expect("reads");
        let got = in_pieces(reader, &mut cut, most, &|| Ok(())).unwrap_or_else(|error| panic!("{what}: {error}"));
        let (of_whole, of_cut) = (whole.kept(), cut.kept());
        swaps += exchanged(&of_whole, &of_cut);
        all += of_whole.iter().flatten().map(|kept| kept.positions.len()).sum::<usize>();
        // The effect of other entries on the next turn is not rounding.
        if swaps == 0 {
            let difference = worst(&want, &got);
            assert!(difference <= TOLERANCE, "{what}: turn {turn}: logits differ by {difference}");
        }
        if turn == 0
            && let (Some(want), Some(got)) = (whole.take_record(), cut.take_record())
        {
            for (want, got) in want.layers.iter().zip(&got.layers) {
                for (want, got) in want.importance.iter().zip(&got.importance) {
                    assert!((want - got).abs() <= 1e-5 * want.abs().max(1e-3), "{what}: a sum of {want} is {got}");
                }
            }
        }
        let (of_whole, of_cut) = (whole.memory(), cut.memory());
        assert_eq!(of_whole.payload, of_cut.payload, "{what}");
        assert_eq!(of_whole.resident, of_cut.resident, "{what}: no piece leaves anything");
        for token in 10..20 {
            reader.model.decode(token, &mut whole).expect("decodes");
            reader.model.decode(token, &mut cut).expect("decodes");
        }
    }
    (swaps, all)
}

fn every_method<B: Backend>(reader: &mut Reader<B>) {
    let (mut swaps, mut all) = (0, 0);
    for cache in caches() {
        for most in [1, 7, 64, N - 1, N] {
            let (exchanged, of) = compare(reader, &cache, most);
            (swaps, all) = (swaps + exchanged, all + of);
        }
    }
    eprintln!("{swaps} of {all} kept positions exchanged");
    assert!(swaps * 1000 <= all, "{swaps} of {all} kept positions differ");
}

#[test]
fn pieces_make_one_prompt_on_the_cpu() {
    let mut reader = Reader::text(FOLDER, Cpu, N as u32);
    every_method(&mut reader);
    for most in [1, 7, 64] {
        compare(&mut reader, &json!({ "method": "streaming", "keep": 0.4, "positions": "cache" }), most);
    }
}

#[test]
fn pieces_make_one_prompt_on_a_gpu() {
    let shim = shim();
    every_method(&mut Reader::text(FOLDER, cuda(&shim), N as u32));
}

#[test]
fn pieces_of_a_prompt_with_a_picture_make_one() {
    let mut reader = Reader::picture(Cpu, prefixkv_core::weights::WeightFormat::F32);
    for cache in [json!({ "method": "prefixkv", "keep": 0.5 }), json!({ "method": "snapkv", "keep": 0.3 })] {
        let (mut whole, mut cut) = (sequence(&reader, &cache), sequence(&reader, &cache));
        let want = reader.prefill(&mut whole);
        let got = in_pieces(&mut reader, &mut cut, 50, &|| Ok(())).expect("reads");
        assert!(worst(&want, &got) <= 1e-3, "{cache}");
        assert!(exchanged(&whole.kept(), &cut.kept()) <= 1, "{cache}");
        assert!(cut.memory().peak >= cut.memory().full, "all of it is held until the last piece");
    }
}

fn stops<B: Backend>(reader: &mut Reader<B>) {
    let before = reader.model.pool().used();
    let cache = json!({ "method": "h2o", "keep": 0.5 });
    let mut sequence = sequence(reader, &cache);
    let Reader { model, prompt, features, .. } = reader;
    let mut prefill = model.begin_prefill(prompt, features, &mut sequence, 40).expect("begins");
    assert!(model.prefill_piece(&mut prefill, &mut sequence, &|| Ok(())).expect("a piece").is_none());
    assert!(sequence.fork().is_err(), "in the middle of a prompt");
    let stopped = model.prefill_piece(&mut prefill, &mut sequence, &|| Err(Error::Aborted));
    assert!(matches!(stopped, Err(Error::Aborted)));
    assert!(!sequence.is_sound() && model.decode(5, &mut sequence).is_err());
    drop(sequence);
    assert_eq!(model.pool().used(), before);
}

#[test]
fn a_prompt_that_stops_between_pieces_leaves_nothing() {
    let shim = shim();
    stops(&mut Reader::text(FOLDER, Cpu, N as u32));
    let mut reader = Reader::text(FOLDER, cuda(&shim), N as u32);
    let held = shim.allocated();
    stops(&mut reader);
    assert_eq!(shim.allocated(), held);
}

/// The 32-bit numbers of base64.
fn floats(text: Option<&String>) -> Vec<f32> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let text = text.expect("asked for").trim_end_matches('=');
    let digits = text.bytes().map(|c| DIGITS.iter().position(|digit| *digit == c).expect("base64") as u32);
    let (mut bits, mut held, mut bytes) = (0u32, 0, Vec::new());
    for digit in digits {
        (bits, held) = (bits << 6 | digit, held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 255) as u8);
        }
    }
    bytes.chunks_exact(4).map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
}

/// A method outside is shown the same after the last piece as after the whole, its last queries too.
fn shown<B: Backend>(reader: &mut Reader<B>) {
    let cache =
        json!({ "method": "custom", "needs": { "sums": "columns", "queries": 50, "keys": true, "lanes": "head" } });
    for most in [7, 40, 64] {
        let (mut whole, mut cut) = (sequence(reader, &cache), sequence(reader, &cache));
        reader.model.prefill(&reader.prompt, &reader.features, &mut whole, &|| Ok(())).expect("reads");
        in_pieces(reader, &mut cut, most, &|| Ok(())).expect("reads");
        let (want, got) =
            (whole.question().expect("shown").expect("asks"), cut.question().expect("shown").expect("asks"));
        assert_eq!((want.positions, &want.spans, want.lanes.len()), (got.positions, &got.spans, got.lanes.len()));
        let keep = || LaneReply { keep: Some((0..N as u32).step_by(2).collect()), merge: Vec::new() };
        let reply = PlanReply { lanes: want.lanes.iter().map(|_| keep()).collect() };
        for (want, got) in want.lanes.iter().zip(&got.lanes) {
            assert_eq!((want.layer, want.heads, &want.positions), (got.layer, got.heads, &got.positions));
            for (want, got) in [(&want.sums, &got.sums), (&want.keys, &got.keys), (&want.queries, &got.queries)] {
                let difference = worst(&floats(want.as_ref()), &floats(got.as_ref()));
                assert!(difference <= TOLERANCE, "pieces of {most}: {difference}");
            }
            assert_eq!(floats(got.queries.as_ref()).len() % 50, 0);
        }
        assert!(cut.fork().is_err(), "while a plan is waited for");
        for sequence in [&mut whole, &mut cut] {
            sequence.answer(&reply).expect("every second stays");
        }
        assert_eq!(whole.kept(), cut.kept());
        let token = [&mut whole, &mut cut].map(|sequence| reader.model.decode(9, sequence).expect("decodes"));
        assert!(worst(&token[0], &token[1]) <= TOLERANCE);
    }
}

#[test]
fn a_method_outside_is_shown_one_prompt() {
    let shim = shim();
    shown(&mut Reader::text(FOLDER, Cpu, N as u32));
    shown(&mut Reader::text(FOLDER, cuda(&shim), N as u32));
}
