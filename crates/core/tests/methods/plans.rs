//! The plans of every method, as they were: tests/golden/data/plans.json.

use std::fmt::Write;
use std::path::PathBuf;

use crate::case::{Case, root};
use prefixkv_core::method::{METHODS, Method, Moment};
use prefixkv_core::sequence::Planned;
use serde_json::{Map, Value, json};

impl Case {
    /// Decisions of each method, a line per moment.
    fn plans(&mut self) -> Value {
        let mut all = Map::new();
        for cache in caches() {
            let spec = METHODS.iter().find(|spec| cache["method"] == spec.name).expect("a method");
            let mut whole = self.cache(spec, &cache["keep"]);
            whole.as_object_mut().expect("options").extend(cache.as_object().expect("options").clone());
            let method = Method::parse(&whole).unwrap_or_else(|e| panic!("{cache}: {e}"));
            let mut sequence = self.model.new_sequence_with(method, false).expect("a sequence");
            sequence.keep_plans();
            self.model.prefill(&self.prompt, &self.features, &mut sequence, &|| Ok(())).expect("reads");
            for token in &self.answer {
                self.model.decode(*token, &mut sequence).expect("goes on");
            }
            all.insert(cache.to_string(), sequence.take_plans().iter().map(line).collect());
        }
        Value::Object(all)
    }
}

fn caches() -> Vec<Value> {
    let names = METHODS.iter().filter(|spec| spec.takes_keep()).map(|spec| spec.name);
    let mut caches: Vec<Value> = names
        .flat_map(|name| [json!(0.4), json!({ "tokens": 40 })].map(|keep| json!({ "method": name, "keep": keep })))
        .collect();
    caches.push(json!({ "method": "prefixkv", "keep": 0.3, "variant": "paper" }));
    caches.push(json!({ "method": "prefixkv", "keep": 0.5, "variant": "official" }));
    for (objective, floor) in [("least", 0.0), ("sum", 0.5)] {
        caches.push(json!({
            "method": "prefixkv", "keep": 0.4, "score": "question", "window": 32, "objective": objective, "floor": floor,
        }));
    }
    caches
}

/// `"3: 0/0 = 0-9,20 0/1 - 5"`: layer and lane, and what they keep or evict.
fn line(planned: &Planned) -> String {
    let mut line = match planned.moment {
        Moment::Images => "images:".to_owned(),
        Moment::Layer(layer) => format!("layer {layer}:"),
        Moment::Prompt => "prompt:".to_owned(),
        Moment::Token(step) => format!("token {step}:"),
        Moment::Step(step) => format!("step {step}:"),
    };
    for lane in &planned.plan.lanes {
        if let Some(entries) = &lane.keep {
            let positions: Vec<u32> = entries.iter().map(|entry| entry.position).collect();
            write!(line, " {}/{} = {}", lane.layer, lane.lane, ranges(&positions)).expect("a string");
        }
    }
    for evicted in &planned.plan.evict {
        write!(line, " {}/{} - {}", evicted.layer, evicted.lane, evicted.entry.position).expect("a string");
    }
    line
}

fn ranges(positions: &[u32]) -> String {
    let runs = positions.chunk_by(|a, b| a + 1 == *b);
    let of = |run: &[u32]| match run {
        [only] => only.to_string(),
        run => format!("{}-{}", run[0], run[run.len() - 1]),
    };
    runs.map(of).collect::<Vec<_>>().join(",")
}

fn golden() -> PathBuf {
    root().join("tests/golden/data/plans.json")
}

fn found() -> Value {
    json!({ "picture": Case::picture(" There is a green star at the top left.").plans(), "text": Case::text(120, 12).plans() })
}

#[test]
fn every_method_plans_as_it_did() {
    let want: Value = serde_json::from_str(&std::fs::read_to_string(golden()).expect("golden")).expect("golden");
    let got = found();
    for case in ["picture", "text"] {
        for (cache, plans) in want[case].as_object().expect("cases") {
            let found = got[case].get(cache).unwrap_or_else(|| panic!("{cache} is planned no more"));
            let (plans, found) = (plans.as_array().expect("lines"), found.as_array().expect("lines"));
            for (want, got) in plans.iter().zip(found) {
                assert_eq!(got, want, "{case}, {cache}");
            }
            assert_eq!(plans.len(), found.len(), "{case}, {cache}: moments");
        }
    }
    assert_eq!(got, want, "cases that the golden lacks: write it anew with --ignored");
}

/// `cargo test --release -p prefixkv-core --test methods plans:: -- --ignored`
#[test]
#[ignore = "writes the golden"]
fn write_plans() {
    let text = serde_json::to_string_pretty(&found()).expect("JSON");
    std::fs::write(golden(), text + "\n").expect("written");
}
