//! Where a scored answer ends.

use std::fs;
use std::path::Path;
use std::time::Duration;

use prefixkv_core::engine::Engine;
use prefixkv_core::wire::Event;
use serde_json::{Value, json};

/// An engine over a small model with another chat template.
fn engine(template: &str) -> (Engine, tempfile::TempDir) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/fixtures/llama-linear-tied");
    let folder = tempfile::tempdir().expect("a folder");
    for entry in fs::read_dir(from).expect("a fixture").map(|entry| entry.expect("an entry")) {
        fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("a copy");
    }
    let config = folder.path().join("tokenizer_config.json");
    let mut value: Value = serde_json::from_str(&fs::read_to_string(&config).expect("text")).expect("JSON");
    value["chat_template"] = json!(template);
    fs::write(&config, value.to_string()).expect("written");
    (Engine::open(&json!({ "source": folder.path() }).to_string()).expect("an engine"), folder)
}

fn scored(engine: &Engine, request: &Value) -> (Vec<u32>, Vec<f32>) {
    let ticket = engine.submit(&request.to_string(), Vec::new()).expect("a request");
    while let Some(events) = ticket.wait(Duration::from_secs(60)) {
        for event in events {
            match event {
                Event::Scored(score) => return (score.tokens, score.logprobs),
                Event::Error { error } => panic!("{error:?}"),
                _ => {}
            }
        }
    }
    panic!("no answer");
}

const EOS: u32 = 2;

#[test]
fn an_answer_ends_with_the_end_token_whatever_the_template_writes_behind_it() {
    let template = |turn: &str, end: &str| {
        format!(
            "{{% for m in messages %}}{{{{ '{turn}' + m['role'] + ': ' + m['content'] + '{end}' }}}}{{% endfor %}}\
             {{% if add_generation_prompt %}}{{{{ '{turn}' + 'assistant: ' }}}}{{% endif %}}"
        )
    };
    let messages = json!([{ "role": "user", "content": "Hello" }]);
    let request = json!({ "op": "score", "messages": messages, "answer": "A star" });
    // Of one message, so that what stands between turns does not matter.
    let (bare, _folder) = engine(&template("", "</s>"));
    let (expected, _) = scored(&bare, &request);
    assert_eq!(expected.last(), Some(&EOS));
    for end in ["</s>\\n", "</s> ", "</s>\\n\\n"] {
        let (chatml, _folder) = engine(&template("", end));
        let (tokens, logprobs) = scored(&chatml, &request);
        assert_eq!(tokens.last(), Some(&EOS), "{end}: {tokens:?}");
        assert_eq!(tokens.iter().filter(|token| **token == EOS).count(), 1);
        assert_eq!((tokens.len(), logprobs.len()), (expected.len(), expected.len()), "{end}");
    }
    // Other text than white space belongs to the template's answer, and a template without an end token has none.
    let (marked, _folder) = engine(&template("", "</s>#"));
    assert_ne!(scored(&marked, &request).0.last(), Some(&EOS));
    let (open, _folder) = engine(&template("", "\\n"));
    let (tokens, _) = scored(&open, &request);
    assert!(!tokens.contains(&EOS) && tokens.len() >= expected.len());
    // Nothing is taken from a raw prompt.
    let raw = json!({ "op": "score", "prompt": "user: Hello", "answer": " A star</s>\n" });
    assert_ne!(scored(&bare, &raw).0.last(), Some(&EOS));
}
