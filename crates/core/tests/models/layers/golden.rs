//! The cases of `tests/golden/data/layers.json`: fixtures whose layers are of other kinds.

use std::path::{Path, PathBuf};

use prefixkv_core::backend::Backend;
use prefixkv_core::model::{Model, Prompt};
use prefixkv_core::sequence::Placing;
use serde_json::{Map, Value};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A fixture with a changed configuration, a prompt and the tokens behind it.
pub(crate) struct Golden {
    pub(crate) name: String,
    pub(crate) fixture: String,
    pub(crate) config: Map<String, Value>,
    pub(crate) prompt: usize,
    pub(crate) tokens: Vec<u32>,
    pub(crate) placing: Placing,
    /// The cache that the logits are of; None: a whole one.
    pub(crate) method: Option<Value>,
}

pub(crate) fn goldens() -> Vec<Golden> {
    let text = std::fs::read_to_string(root().join("tests/golden/data/layers.json")).expect("readable");
    let all: Value = serde_json::from_str(&text).expect("JSON");
    let one = |case: &Value| Golden {
        name: case["name"].as_str().expect("a name").to_owned(),
        fixture: case["fixture"].as_str().expect("a fixture").to_owned(),
        config: case["config"].as_object().expect("a configuration").clone(),
        prompt: case["prompt"].as_u64().expect("a number") as usize,
        tokens: serde_json::from_value(case["tokens"].clone()).expect("tokens"),
        placing: match case.get("phases") {
            None => Placing::InOrder,
            Some(phases) => Placing::Placed {
                phases: serde_json::from_value(phases.clone()).expect("phases"),
                advance: case["advance"].as_u64().expect("a number") as u32,
            },
        },
        method: case.get("method").cloned(),
    };
    all["cases"].as_array().expect("cases").iter().map(one).collect()
}

impl Golden {
    /// A folder with the fixture's files and the changed configuration.
    pub(crate) fn folder(&self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("room");
        for entry in std::fs::read_dir(root().join(&self.fixture)).expect("a fixture") {
            let path = entry.expect("readable").path();
            std::fs::copy(&path, dir.path().join(path.file_name().expect("a file"))).expect("room");
        }
        let file = dir.path().join("config.json");
        let mut config: Map<String, Value> =
            serde_json::from_str(&std::fs::read_to_string(&file).expect("readable")).expect("JSON");
        config.extend(self.config.clone());
        std::fs::write(&file, Value::Object(config).to_string()).expect("room");
        dir
    }

    pub(crate) fn prompt<B: Backend>(&self, model: &Model<B>) -> Prompt {
        let prompt = model.expand(&self.tokens[..self.prompt], 0).expect("text");
        Prompt { placing: self.placing.clone(), ..prompt }
    }
}
