//! Requests to a device, of a step and of a prompt, beside `docs/design/cuda-steps.md`, which has them for every method and batch size.
//!
//! After a change that is meant: `cargo test --release -p prefixkv-cuda-shim --test network -- --ignored budget::` writes the tables anew.

use std::collections::HashMap;
use std::fmt::Write;

use prefixkv_core::Error;
use prefixkv_core::device::Cuda;
use prefixkv_core::model::Decoded;
use prefixkv_core::sequence::Sequence;
use prefixkv_cuda_shim::{Shim, Traffic};
use serde_json::{Value, json};

use crate::{Reader, argmax, cuda, root, shim};

const PAGE: &str = "docs/design/cuda-steps.md";
/// Two layers, and fourteen of the same heads: four of queries, two of keys and values.
const FEW: (&str, i64) = ("tests/golden/fixtures/llava-mistral", 2);
const MANY: (&str, i64) = ("tests/golden/fixtures/llama-deep", 14);
/// Layers of a 7B model.
const LAYERS: i64 = 32;
const BATCHES: [usize; 3] = [1, 16, 48];
/// So many that lanes grow by three entries at once: most steps find room.
const PROMPT: u32 = 168;
const STEPS: usize = 6;

fn methods() -> [(&'static str, Value); 5] {
    [
        ("full", json!({ "method": "full" })),
        ("PrefixKV", json!({ "method": "prefixkv", "keep": 0.5 })),
        ("H2O", json!({ "method": "h2o", "keep": 0.5 })),
        ("SnapKV", json!({ "method": "snapkv", "keep": 0.5 })),
        ("L2 norm", json!({ "method": "knorm", "keep": 0.5 })),
    ]
}

const COLUMNS: &str =
    "kernels | products | to the device | from it | bytes from it | within it | allocations | frees | waits";
type Counts = [i64; 9];

fn counts(traffic: Traffic) -> Counts {
    let Traffic { launches, products, allocations, frees, writes, reads, read_bytes, copies, waits } = traffic;
    [launches, products, writes, reads, read_bytes, copies, allocations, frees, waits].map(|count| count as i64)
}

fn sum(all: &[Counts]) -> Counts {
    all.iter().fold([0; 9], |sum, counts| std::array::from_fn(|i| sum[i] + counts[i]))
}

/// Of as many steps as no other counts, the least if several are equally many.
fn usual(steps: &[Counts]) -> Counts {
    let mut often: HashMap<Counts, usize> = HashMap::new();
    steps.iter().for_each(|counts| *often.entry(*counts).or_default() += 1);
    let most = often.into_iter().max_by_key(|(counts, times)| (*times, std::cmp::Reverse(*counts)));
    most.expect("a step").0
}

/// A prompt that has been read.
struct Read {
    shim: Shim,
    reader: Reader<Cuda>,
    sequence: Sequence<Cuda>,
    token: u32,
    asked: Counts,
}

impl Read {
    fn new(folder: &str, cache: &Value) -> Read {
        let shim = shim();
        let reader = Reader::text(folder, cuda(&shim), PROMPT);
        let mut sequence = reader.sequence(cache);
        shim.traffic();
        let token = argmax(&reader.prefill(&mut sequence));
        let asked = counts(shim.traffic());
        Read { shim, reader, sequence, token, asked }
    }

    /// Every step of `batch` sequences that go on from the prompt.
    fn steps(&self, batch: usize) -> Vec<Counts> {
        let mut sequences: Vec<_> = (0..batch).map(|_| self.sequence.fork().expect("no cap")).collect();
        let mut tokens = vec![self.token; batch];
        let step = |_: usize| {
            let mut members: Vec<&mut Sequence<Cuda>> = sequences.iter_mut().collect();
            self.shim.traffic();
            let rows = self.reader.model.decode_step(&tokens, &mut members, true).expect("decodes");
            let asked = counts(self.shim.traffic());
            let token = |row: Result<Decoded, Error>| match row.expect("no limit") {
                Decoded::Likeliest(token) => token,
                Decoded::Logits(_) => panic!("logits that nobody asked for"),
            };
            tokens = rows.into_iter().map(token).collect();
            asked
        };
        // The first copies what the sequences have in common.
        (0..=STEPS).map(step).skip(1).collect()
    }
}

/// Of a model of [`LAYERS`] layers: each layer asks for the same.
fn of_all_layers(few: Counts, many: Counts) -> Counts {
    std::array::from_fn(|i| {
        let per_layer = (many[i] - few[i]) / (MANY.1 - FEW.1);
        assert_eq!(few[i] + per_layer * (MANY.1 - FEW.1), many[i], "layers that differ: {few:?} and {many:?}");
        few[i] + per_layer * (LAYERS - FEW.1)
    })
}

fn table(head: &str, rows: impl IntoIterator<Item = (String, Counts)>) -> String {
    let columns = head.matches('|').count() + 1 + COLUMNS.matches('|').count() + 1;
    let mut text = format!("| {head} | {COLUMNS} |\n|{}\n", " --- |".repeat(columns));
    for (head, counts) in rows {
        let counts = counts.map(|count| count.to_string()).join(" | ");
        writeln!(text, "| {head} | {counts} |").expect("a string takes all");
    }
    text
}

/// The tables of the page, each behind the marker with its name.
fn tables() -> [(&'static str, String); 5] {
    let (mut whole, mut prompts, mut deep) = (Vec::new(), Vec::new(), Vec::new());
    let (mut steps, mut sums) = (Vec::new(), Vec::new());
    for (name, cache) in methods() {
        let deeper = Read::new(MANY.0, &cache);
        let many = deeper.steps(1);
        prompts.push((name.to_owned(), deeper.asked));
        deep.push((name.to_owned(), usual(&many)));
        let read = Read::new(FEW.0, &cache);
        for batch in BATCHES {
            let few = read.steps(batch);
            // Lanes of other methods grow at their own times.
            if batch == 1 && name == "full" {
                whole.push((name.to_owned(), of_all_layers(usual(&few), usual(&many))));
            }
            steps.push((format!("{name} | {batch}"), usual(&few)));
            sums.push((format!("{name} | {batch}"), sum(&few)));
        }
    }
    [
        ("step of 32 layers", table("method", whole)),
        ("step of fourteen layers", table("method", deep)),
        ("prompt of fourteen layers", table("method", prompts)),
        ("step of two layers", table("method | batch", steps)),
        ("six steps of two layers", table("method | batch", sums)),
    ]
}

/// The page with these tables.
fn written(page: &str, tables: &[(&str, String)]) -> String {
    tables.iter().fold(page.to_owned(), |page, (name, table)| {
        let (open, close) = (format!("<!-- {name} -->\n\n"), format!("\n<!-- end of {name} -->"));
        let start = page.find(&open).unwrap_or_else(|| panic!("{PAGE} has no {open:?}")) + open.len();
        let end = start + page[start..].find(&close).unwrap_or_else(|| panic!("{PAGE} has no {close:?}"));
        format!("{}{table}{}", &page[..start], &page[end..])
    })
}

#[test]
fn no_step_and_no_prompt_asks_a_device_for_more_than_the_page_says() {
    let page = std::fs::read_to_string(root().join(PAGE)).expect("the page");
    let found = written(&page, &tables());
    let lines = found.lines().zip(page.lines()).filter(|(found, page)| found != page);
    let changed: Vec<String> = lines.map(|(found, page)| format!("found {found}\n page {page}")).collect();
    assert!(found == page, "{PAGE} says otherwise; if this is meant, write it anew:\n{}", changed.join("\n"));
}

#[test]
#[ignore = "writes the page"]
fn write_the_page() {
    let path = root().join(PAGE);
    let page = std::fs::read_to_string(&path).expect("the page");
    std::fs::write(path, written(&page, &tables())).expect("the page is written");
}
