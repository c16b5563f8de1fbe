//! How few tokens a text can have, without encoding it.

use serde_json::Value;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::tokenizer::{Pipeline, longest};

/// By how much canonical composition can shorten UTF-8 at most is 3 (Hangul syllables); decomposition shortens less.
const CANONICAL: usize = 4;

/// The most bytes of text that one token can stand for; None where a token may stand for any number of them: where characters are
/// dropped, where white space goes with a token, or where a run of unknown characters is one token.
pub(super) fn bytes_per_token(tokenizer: &Pipeline) -> Option<usize> {
    let normalizer = serde_json::to_value(tokenizer.get_normalizer()).ok()?;
    let pre_tokenizer = serde_json::to_value(tokenizer.get_pre_tokenizer()).ok()?;
    let shorter = shortens(&normalizer)?;
    if !keeps_all(&pre_tokenizer) {
        return None;
    }
    let added = tokenizer.get_added_vocabulary().get_added_tokens_decoder();
    if added.values().any(|token| token.lstrip || token.rstrip) {
        return None;
    }
    let has = |token: String| tokenizer.token_to_id(&token).is_some();
    let byte_level = has_step(&normalizer, "ByteLevel") || has_step(&pre_tokenizer, "ByteLevel");
    let every_byte = match tokenizer.get_model().merges() {
        Some(_) if byte_level => ByteLevel::alphabet().into_iter().all(|byte| has(byte.to_string())),
        Some(has_bytes) => has_bytes && (0..=255).all(|byte| has(format!("<0x{byte:02X}>"))),
        None => false,
    };
    if !every_byte {
        return None;
    }
    Some(longest(tokenizer).max(1) * shorter)
}

fn steps<'a>(step: &'a Value, list: &str) -> &'a [Value] {
    step[list].as_array().map_or(&[], Vec::as_slice)
}

fn has_step(step: &Value, kind: &str) -> bool {
    step["type"] == kind
        || ["normalizers", "pretokenizers"].iter().any(|list| steps(step, list).iter().any(|step| has_step(step, kind)))
}

/// The factor by which a normalizer may shorten a text at most; None where that is not known.
fn shortens(step: &Value) -> Option<usize> {
    if step.is_null() {
        return Some(1);
    }
    match step["type"].as_str()? {
        "Sequence" => steps(step, "normalizers").iter().try_fold(1usize, |all, one| all.checked_mul(shortens(one)?)),
        "Prepend" | "ByteLevel" => Some(1),
        "NFC" | "NFD" => Some(CANONICAL),
        "Replace" => {
            let (pattern, content) = (step["pattern"]["String"].as_str()?, step["content"].as_str()?);
            (content.len() >= pattern.len()).then_some(1)
        }
        _ => None,
    }
}

/// Whether a pre-tokenizer leaves no character out.
fn keeps_all(step: &Value) -> bool {
    match step["type"].as_str() {
        None => step.is_null(),
        Some("Sequence") => steps(step, "pretokenizers").iter().all(keeps_all),
        Some("ByteLevel" | "Metaspace" | "Digits") => true,
        Some("Split" | "Punctuation") => step["behavior"] != "Removed",
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixtures::{llama, tiny_llava};

    #[test]
    fn no_text_has_fewer_tokens() {
        let whole =
            "the quick brown fox \u{e9}\u{4e2d}\u{1f600} jumps   over\n\n\n\nthe lazy dog, 12345678 ".repeat(40);
        for tokenizer in [tiny_llava(), llama()] {
            for text in
                [whole.as_str(), &"a".repeat(5000), &" ".repeat(5000), &"\u{1f600}".repeat(900), &"the ".repeat(900)]
            {
                let tokens = tokenizer.encode(text, false).unwrap().len();
                let least = tokenizer.least_tokens(text);
                assert!(least <= tokens, "{least} is more than {tokens}");
            }
        }
    }

    #[test]
    fn steps_that_drop_characters_are_known() {
        use super::{keeps_all, shortens};
        assert_eq!(shortens(&json!(null)), Some(1));
        let replace = |from: &str, to: &str| json!({ "type": "Replace", "pattern": { "String": from }, "content": to });
        assert_eq!(
            shortens(&json!({ "type": "Sequence", "normalizers": [{ "type": "NFC" }, replace(" ", "\u{2581}")] })),
            Some(4)
        );
        assert_eq!(shortens(&replace("ab", "c")), None);
        assert_eq!(shortens(&json!({ "type": "Replace", "pattern": { "Regex": " +" }, "content": " " })), None);
        for kind in ["NFKC", "Strip", "Lowercase", "BertNormalizer", "Precompiled"] {
            assert_eq!(shortens(&json!({ "type": kind })), None, "{kind}");
        }
        assert!(keeps_all(&json!(null)) && keeps_all(&json!({ "type": "ByteLevel" })));
        assert!(!keeps_all(&json!({ "type": "Sequence", "pretokenizers": [{ "type": "WhitespaceSplit" }] })));
        assert!(!keeps_all(&json!({ "type": "Split", "behavior": "Removed" })));
    }
}
