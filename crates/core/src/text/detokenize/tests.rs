use proptest::prelude::*;

use super::super::fixtures::{LLAMA_BYTE_0, llama, llama_json, load, metaspace_json, tiny_llava};
use super::*;

fn pieces(tokenizer: &Tokenizer, context: &[u32], tokens: &[u32]) -> Vec<String> {
    let mut detokenizer = Detokenizer::new(tokenizer, context);
    let mut out: Vec<String> = tokens.iter().map(|&token| detokenizer.push(token).unwrap()).collect();
    out.push(detokenizer.finish().unwrap());
    assert_eq!(detokenizer.finish().unwrap(), "");
    out
}

fn check(tokenizer: &Tokenizer, context: &[u32], tokens: &[u32]) -> std::result::Result<(), TestCaseError> {
    let before = tokenizer.decode(context, true).unwrap();
    let whole = tokenizer.decode(&[context, tokens].concat(), true).unwrap();
    let common: usize = before.chars().zip(whole.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
    prop_assert_eq!(pieces(tokenizer, context, tokens).concat(), &whole[common..]);
    Ok(())
}

/// Bytes of characters, whole or cut, mixed with other tokens.
fn tokens(vocab: u32, byte: impl Fn(u8) -> u32 + Clone + 'static) -> impl Strategy<Value = Vec<u32>> {
    let encoded = move |text: &str| text.bytes().map(&byte).collect::<Vec<u32>>();
    let part = prop_oneof![
        4 => (0..vocab).prop_map(|token| vec![token]),
        2 => any::<char>().prop_map(move |c| encoded(&c.to_string())),
    ];
    let cut = (part, any::<prop::sample::Index>()).prop_map(|(mut part, keep)| {
        let keep = keep.index(part.len() * 2) + 1;
        part.truncate(keep);
        part
    });
    prop::collection::vec(cut, 0..12).prop_map(|parts| parts.concat())
}

fn llama_tokens() -> impl Strategy<Value = Vec<u32>> {
    // Ordinary pieces often enough that byte runs end, and some ids past the vocabulary.
    let byte_runs = tokens(276, |byte| LLAMA_BYTE_0 + u32::from(byte));
    let pieces = prop::collection::vec(prop_oneof![255u32..275, 0u32..3, 12u32..14], 0..10);
    (byte_runs, pieces, any::<bool>()).prop_map(|(a, b, swap)| if swap { [b, a].concat() } else { [a, b].concat() })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn byte_level(context in tokens(720, byte_id), rest in tokens(720, byte_id)) {
        check(tiny(), &[], &rest)?;
        check(tiny(), &context, &rest)?;
    }

    #[test]
    fn byte_fallback(context in llama_tokens(), rest in llama_tokens()) {
        for tokenizer in llamas() {
            check(tokenizer, &[], &rest)?;
            check(tokenizer, &context, &rest)?;
        }
    }
}

fn tiny() -> &'static Tokenizer {
    static TINY: std::sync::OnceLock<Tokenizer> = std::sync::OnceLock::new();
    TINY.get_or_init(tiny_llava)
}

/// The token of one byte in tiny-llava's vocabulary, where ids 5 and up follow the characters' order.
fn byte_id(byte: u8) -> u32 {
    static IDS: std::sync::OnceLock<Vec<u32>> = std::sync::OnceLock::new();
    IDS.get_or_init(|| {
        let mut shifted = 0x100u32..;
        (0..=255u32)
            .map(|byte| match byte {
                0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => byte,
                _ => shifted.next().unwrap(),
            })
            .map(|code| tiny().token_id(&char::from_u32(code).unwrap().to_string()).unwrap())
            .collect()
    })[usize::from(byte)]
}

fn llamas() -> &'static [Tokenizer] {
    static LLAMAS: std::sync::OnceLock<Vec<Tokenizer>> = std::sync::OnceLock::new();
    LLAMAS.get_or_init(|| {
        let mut no_decoder = llama_json();
        no_decoder["decoder"] = serde_json::Value::Null;
        vec![llama(), load(&metaspace_json(true)), load(&metaspace_json(false)), load(&no_decoder)]
    })
}

#[test]
fn leading_space_depends_on_the_context() {
    let llama = llama();
    let id = |token: &str| llama.token_id(token).unwrap();
    let word = id("\u{2581}ab");
    assert_eq!(pieces(&llama, &[], &[word, word]), ["ab", " ab", ""]);
    assert_eq!(pieces(&llama, &[1, id(":")], &[word, word]), [" ab", " ab", ""]);
    assert_eq!(pieces(&llama, &[id(":"), 2, id("<image>")], &[word]), [" ab", ""]);
    assert_eq!(pieces(&llama, &[id("\u{2581}")], &[word]), [" ab", ""]);
    // A special token in between does not make a beginning of text.
    assert_eq!(pieces(&llama, &[], &[word, 2, word]), ["ab", "", " ab", ""]);
}

#[test]
fn byte_runs_wait_for_their_end() {
    let llama = llama();
    let bytes: Vec<u32> = "\u{1f600}".bytes().map(|byte| LLAMA_BYTE_0 + u32::from(byte)).collect();
    let a = llama.token_id("a").unwrap();
    let all = [bytes.as_slice(), &[a]].concat();
    assert_eq!(pieces(&llama, &[a], &all), ["", "", "", "", "\u{1f600}a", ""]);
    // The decoder gives up on the whole run, so nothing of it may have been emitted.
    assert_eq!(
        pieces(&llama, &[a], &[&all[..4], &all[..1], &[a]].concat()).concat(),
        format!("{}a", "\u{fffd}".repeat(5))
    );
    assert_eq!(pieces(&llama, &[a], &bytes[..2]).concat(), "\u{fffd}\u{fffd}");
    // A character may begin in the context.
    assert_eq!(pieces(&llama, &[&[a], &bytes[..3]].concat(), &all[3..]).concat(), "\u{1f600}a");
}

#[test]
fn byte_level_emits_whole_characters_at_once() {
    let bytes: Vec<u32> = "a\u{1f600}\u{e9}".bytes().map(byte_id).collect();
    assert_eq!(pieces(tiny(), &[], &bytes), ["a", "", "", "", "\u{1f600}", "", "\u{e9}", ""]);
    assert_eq!(pieces(tiny(), &[], &bytes[..3]), ["a", "", "", "\u{fffd}"]);
    assert_eq!(pieces(tiny(), &bytes[..3], &bytes[3..5]).concat(), "\u{1f600}");
    assert_eq!(pieces(tiny(), &bytes[..3], &bytes[..1]).concat(), "a");
}

#[test]
fn the_cost_per_token_stays_constant() {
    let llama = llama();
    for token in ["\u{2581}", "a", "<0x0A>", "\u{fffd}"] {
        let id = llama.token_id(token).unwrap();
        let mut window = Window::new(&llama, &[]);
        for _ in 0..1000 {
            window.push(&llama, id, token).unwrap();
        }
        window.finish(&llama).unwrap();
        assert!(window.width() <= 2, "{token}: {}", window.width());
    }
}
