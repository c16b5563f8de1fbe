//! Texts, tokens and stop strings.

use std::sync::OnceLock;

use prefixkv_core::text::{Detokenizer, StopStrings, Tokenizer};

use crate::folder::repository;
use crate::target::{Kind, Target, outcome};

pub const TARGET: Target = Target {
    name: "text",
    reads: "texts, token ids one by one, stop strings",
    kind: Kind::Bytes,
    memory: 64 << 20,
    short: 2000,
    words: || {
        &[
            "<s>",
            "</s>",
            "<image>",
            "<unk>",
            "\u{2581}",
            "\u{1f469}\u{200d}\u{1f467}",
            "e\u{301}",
            "\0",
            "\n\n",
            "<0xE4>",
            "stop",
        ]
    },
    seeds,
    run,
};

fn seeds() -> Vec<Vec<u8>> {
    let all = [
        "stop\0Hello, w\u{f6}rld! <image>\n What is it?</s>",
        "a\0aaaab \u{4e2d}\u{6587} \u{1f600}",
        "\u{2581}x\0<0xE4><0xB8>",
    ];
    all.iter().map(|seed| seed.as_bytes().to_vec()).collect()
}

fn tokenizers() -> &'static [Tokenizer; 3] {
    static TOKENIZERS: OnceLock<[Tokenizer; 3]> = OnceLock::new();
    TOKENIZERS.get_or_init(|| {
        [
            "models/tiny-llava",
            "tests/golden/fixtures/tokenizers/sentencepiece",
            "tests/golden/fixtures/tokenizers/metaspace",
        ]
        .map(|folder| Tokenizer::from_folder(&repository(folder)).expect("a sound tokenizer"))
    })
}

fn run(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    let (stop, text) = text.split_once('\0').unwrap_or(("", &text));
    let mut kind = String::new();
    for tokenizer in tokenizers() {
        let tokens = tokenizer.encode_prompt(text).expect("every text has tokens");
        assert!(tokens.iter().all(|token| (*token as usize) < tokenizer.vocab_size()));
        streamed(tokenizer, &tokens);
        // Ids of the input's bytes: sequences that no text has.
        let ids: Vec<u32> =
            data.chunks(2).map(|pair| pair.iter().fold(0, |id, byte| id << 8 | u32::from(*byte)) % 600).collect();
        streamed(tokenizer, &ids);
        kind.push(char::from(b'0' + (tokens.len().max(1).ilog2() as u8)));
    }
    let stops = StopStrings::new(vec![stop.to_owned()]);
    kind.push_str(&outcome(&stops, &["option"]));
    if let Ok(mut stops) = stops {
        let mut out = String::new();
        let mut found = false;
        for piece in text.split_inclusive(' ') {
            let pushed = stops.push(piece);
            out.push_str(&pushed.emit);
            found = pushed.hit;
            if found {
                break;
            }
        }
        if !found {
            out.push_str(&stops.finish());
            assert_eq!(out, text);
        }
        assert!(text.starts_with(&out) && !out.contains(stop), "{stop:?} in {out:?}");
        assert_eq!(found, text.contains(stop));
    }
    kind
}

/// The pieces together are the whole, whatever the tokens are.
fn streamed(tokenizer: &Tokenizer, tokens: &[u32]) {
    let mut detokenizer = Detokenizer::new(tokenizer, &[]);
    let mut text = String::new();
    for token in tokens {
        text.push_str(&detokenizer.push(*token).expect("a piece"));
    }
    text.push_str(&detokenizer.finish().expect("the rest"));
    assert_eq!(text, tokenizer.decode(tokens, true).expect("a text"), "{tokens:?}");
}
