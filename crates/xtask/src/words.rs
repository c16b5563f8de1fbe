//! Wording that the TypeScript and the pages share.

use prefixkv_core::method::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role};

/// The text as a sentence.
pub(crate) fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    let end = if text.ends_with('.') { "" } else { "." };
    format!("{first}{}{end}", letters.as_str())
}

/// The values that an option takes, in words.
pub(crate) fn values(kind: OptionKind) -> String {
    match kind {
        OptionKind::Count { least, most } => format!("a whole number from {} to {}", grouped(least), grouped(most)),
        OptionKind::Share => "a number from 0 to 1".into(),
        OptionKind::Number { least, most } => format!("a number from {least} to {most}"),
        OptionKind::Flag => "true or false".into(),
        OptionKind::Choice { values } => {
            let values: Vec<String> = values.iter().map(|value| format!("`\"{value}\"`")).collect();
            format!("one of {}", values.join(", "))
        }
        OptionKind::Calibration => {
            "a calibration, its file, the name of a shipped one, or the evicted share of every layer".into()
        }
        OptionKind::Layers => "an object such as `{ \"6\": 2 }`".into(),
        OptionKind::Sharing
        | OptionKind::Bits
        | OptionKind::Channels
        | OptionKind::Codebooks
        | OptionKind::Directions
        | OptionKind::Latents
        | OptionKind::Heads => "such a calibration, or its file".into(),
        OptionKind::Pairs => "an array such as `[[8, 4], [4, 2]]`".into(),
    }
}

/// How the method treats the asked size.
pub(crate) fn budget(kind: BudgetKind) -> &'static str {
    match kind {
        BudgetKind::Exact => "exact: after the prompt as many entries as asked, over all layers",
        BudgetKind::AtMost => "at most: never more entries than asked",
        BudgetKind::Outcome => "an outcome: it takes no `keep`",
    }
}

/// The name of a budget kind in programs.
pub(crate) fn budget_name(kind: BudgetKind) -> &'static str {
    match kind {
        BudgetKind::Exact => "exact",
        BudgetKind::AtMost => "atmost",
        BudgetKind::Outcome => "outcome",
    }
}

/// Whether `keep` may be left out, because a calibration can say it.
pub(crate) fn keep_is_optional(spec: &MethodSpec) -> bool {
    spec.options.iter().any(|option| matches!(option.kind, OptionKind::Calibration))
}

/// The default of an option as JSON, if it has one.
pub(crate) fn default(option: &OptionSpec) -> Option<&'static str> {
    Some(option.default).filter(|default| !default.is_empty())
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The method before a stage in examples.
pub(crate) const BEFORE: &str = "snapkv";

/// A map of layers in examples, for the embedded model.
pub(crate) const SOURCES: &str = r#"{"6":2}"#;

/// The `cache` of an example.
pub(crate) fn call(spec: &MethodSpec) -> String {
    let name = spec.name;
    let samples = "[{ messages: [{ role: \"user\", content }] }]";
    match (spec.takes_keep(), spec.role) {
        (true, _) if let Some((make, _)) = calibrated(spec) => {
            let measure = if name == "headKv" { ", measure: \"copies\"" } else { "" };
            format!("{name}({{ keep: 0.5, calibration: await model.{make}({{ samples: {samples}{measure} }}) }})")
        }
        (true, _) => format!("{name}({{ keep: 0.5 }})"),
        (false, Role::Refines) => format!("[{BEFORE}({{ keep: 0.5 }}), {name}()]"),
        (false, Role::Stores) if let Some((make, _)) = calibrated(spec) => {
            format!("{name}({{ calibration: await model.{make}({{ samples: {samples} }}) }})")
        }
        (false, Role::Shares) => format!("{name}({{ sources: {{ 6: 2 }} }})"),
        (false, _) => format!("{name}()"),
    }
}

/// The call of a model that makes the calibration without which a method does nothing, and the file of an example, which a line of
/// docs/cli.md makes; None for a method that needs none.
pub(crate) fn calibrated(spec: &MethodSpec) -> Option<(&'static str, &'static str)> {
    spec.options.iter().find_map(|option| match option.kind {
        OptionKind::Codebooks => Some(("calibrateKvquant", "./codebooks.json")),
        OptionKind::Directions => Some(("calibrateCskv", "./directions.json")),
        OptionKind::Latents => Some(("calibrateClla", "./latents.json")),
        OptionKind::Heads if spec.name == "headKv" => Some(("calibrateHeads", "./copies.json")),
        OptionKind::Heads => Some(("calibrateHeads", "./heads.json")),
        _ => None,
    })
}

/// Imports of that example, with a picture and a model.
pub(crate) fn imports(spec: &MethodSpec) -> String {
    let mut imports = vec!["image", "load", spec.name];
    if spec.role == Role::Refines {
        imports.push(BEFORE);
    }
    imports.sort_unstable();
    imports.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_sentences_and_numbers_have_separators() {
        assert_eq!(sentence("keeps every entry"), "Keeps every entry.");
        assert_eq!(sentence("`official` replays."), "`official` replays.");
        assert_eq!([0, 999, 1000, 1_000_000].map(grouped), ["0", "999", "1,000", "1,000,000"]);
    }
}
