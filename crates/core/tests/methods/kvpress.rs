//! Entries that methods keep, against the presses of NVIDIA's kvpress themselves (tests/golden/kvpress.py, docs/kvpress.md).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use prefixkv_core::cache::Kept;
use prefixkv_core::method::Method;
use prefixkv_core::model::{LoadOptions, Model};
use prefixkv_core::sequence::Sequence;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Golden {
    model: String,
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Prompt {
    name: String,
    prompt: Vec<u32>,
    cases: Vec<Case>,
}

/// A press, and the options with which a method of ours is to do the same.
#[derive(Deserialize)]
struct Case {
    press: String,
    attention: String,
    options: Value,
    /// `[layer][head]`, as ranges.
    kept: Option<Vec<Vec<String>>>,
    /// Channels of keys that stay, of a press that leaves out channels.
    channels: Option<Vec<Vec<String>>>,
    /// Positions in `loose`.
    ties: usize,
    /// Layer, head and positions whose scores are as good as equal, where some of them had to go.
    loose: Vec<(usize, usize, String)>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn golden() -> (Golden, Model) {
    let path = root().join("tests/golden/data/kvpress/planted.json");
    let golden: Golden = serde_json::from_str(&std::fs::read_to_string(path).expect("golden")).expect("golden");
    let model = Model::load(&LoadOptions::new(root().join(&golden.model)), &mut |_| Ok(())).expect("loads");
    (golden, model)
}

/// `"0-3,7"` as numbers.
fn set(ranges: &str) -> BTreeSet<u32> {
    let number = |text: &str| text.parse::<u32>().expect("a number");
    let range = |part: &str| match part.split_once('-') {
        Some((first, last)) => number(first)..=number(last),
        None => number(part)..=number(part),
    };
    ranges.split(',').filter(|part| !part.is_empty()).flat_map(range).collect()
}

fn sets(layers: &[Vec<String>]) -> Vec<Vec<BTreeSet<u32>>> {
    layers.iter().map(|heads| heads.iter().map(|ranges| set(ranges)).collect()).collect()
}

fn read(model: &Model, prompt: &[u32], options: &Value) -> Sequence {
    let method = Method::parse(options).unwrap_or_else(|e| panic!("{options}: {e}"));
    let mut sequence = model.new_sequence_with(method, false).expect("a sequence");
    let prompt = model.expand(prompt, 0).expect("text");
    model.prefill(&prompt, &[], &mut sequence, &|| Ok(())).unwrap_or_else(|e| panic!("{options}: {e}"));
    sequence
}

/// The positions that one head holds; heads may share a lane.
fn of_head(lanes: &[Kept], head: usize) -> BTreeSet<u32> {
    let lane = lanes.iter().find(|lane| (lane.heads[0]..lane.heads[1]).contains(&head)).expect("a lane");
    lane.positions.iter().copied().collect()
}

/// Compares every layer and head. Gives how many entries were exchanged with one of the same score.
fn compare(model: &Model, prompt: &Prompt, case: &Case, want: &[Vec<BTreeSet<u32>>]) -> usize {
    let sizes: BTreeSet<usize> = want.iter().flatten().map(BTreeSet::len).collect();
    let ours_are = case.options.get("keep").is_some();
    let mut exchanged = 0;
    // Where the press has sizes of its own, ours reads the prompt once for each of them.
    for size in if ours_are { BTreeSet::from([0]) } else { sizes } {
        let mut options = case.options.clone();
        if !ours_are {
            options["keep"] = json!({ "tokens": size });
        }
        let kept = read(model, &prompt.prompt, &options).kept();
        assert_eq!(kept.len(), want.len());
        for (layer, (lanes, heads)) in kept.iter().zip(want).enumerate() {
            for (head, want) in heads.iter().enumerate().filter(|(_, want)| ours_are || want.len() == size) {
                let what = format!("{}, {} ({}), layer {layer}, head {head}", prompt.name, case.press, case.attention);
                let loose = case.loose.iter().find(|(l, h, _)| (*l, *h) == (layer, head));
                let loose = loose.map_or_else(BTreeSet::new, |(_, _, ranges)| set(ranges));
                let got = of_head(lanes, head);
                let differ: BTreeSet<u32> = got.symmetric_difference(want).copied().collect();
                assert!(differ.is_subset(&loose), "{what}: {options} differs in {differ:?}");
                // Heads of different sizes may exchange entries with each other.
                assert!(got.len() == want.len() || options["method"] == "adakv", "{what}: {} entries", got.len());
                exchanged += differ.len();
            }
        }
    }
    exchanged
}

#[test]
fn methods_keep_what_the_presses_keep() {
    let (golden, model) = golden();
    let (mut cases, mut exchanged, mut ties) = (0, 0, 0);
    let mut methods = BTreeSet::new();
    for prompt in &golden.prompts {
        for case in &prompt.cases {
            let Some(kept) = &case.kept else { continue };
            let open: usize = case.loose.iter().map(|(_, _, ranges)| set(ranges).len()).sum();
            assert_eq!(open, case.ties);
            cases += 1;
            ties += case.ties;
            exchanged += compare(&model, prompt, case, &sets(kept));
            methods.insert(case.options["method"].to_string());
        }
    }
    eprintln!("{cases} cases; of {ties} positions that tie, {exchanged} were exchanged");
    assert!(methods.len() >= 5 && cases >= 30, "{cases} cases of {methods:?}");
}

#[test]
fn think_leaves_out_the_channels_that_the_press_leaves_out() {
    let (golden, model) = golden();
    let mut compared = 0;
    for prompt in &golden.prompts {
        for case in &prompt.cases {
            let Some(channels) = &case.channels else { continue };
            let sequence = read(&model, &prompt.prompt, &case.options);
            for (layer, heads) in sets(channels).iter().enumerate() {
                let lanes = sequence.lanes(layer);
                let [lane] = lanes else { panic!("{} lanes", lanes.len()) };
                let keys = lane.keys(&lane.sorted()).expect("keys");
                let dim = sequence.head_dim();
                for (head, want) in heads.iter().enumerate() {
                    let rows = keys.chunks_exact(dim).skip(head).step_by(heads.len());
                    let mut got = BTreeSet::new();
                    for row in rows {
                        got.extend((0..dim as u32).filter(|channel| row[*channel as usize] != 0.0));
                    }
                    assert_eq!(&got, want, "{}, {}, layer {layer}, head {head}", prompt.name, case.press);
                    compared += 1;
                }
            }
        }
    }
    assert!(compared >= 24, "{compared} heads");
}
