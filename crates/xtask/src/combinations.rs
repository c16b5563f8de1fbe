//! Which parts of a recipe go together, and which stages behind which methods: as the engine says it.

use prefixkv_core::Error;
use prefixkv_core::method::{Method, MethodSpec, OptionKind, Role};
use serde_json::{Value, json};

use crate::page::NOTE;

/// `docs/methods/combinations.md`.
pub(crate) fn page(specs: &[MethodSpec]) -> String {
    let mut reasons = Vec::new();
    format!(
        r#"{NOTE}
# Combinations

`runs` means that the engine takes the combination; a test runs every one of them on the embedded model. A number is the reason why it does not, below, with ROW and COLUMN for the names of the two.

## Parts of a recipe

Every score with every budget and both kinds of lanes, as [`custom({{ score, budget, lanes }})`](custom.md) has them; each goes with every value of `decode`.

{recipes}
## Stages

Every method (in the rows) with every other behind it, as `cache: [method({{ keep: 0.5 }}), other()]`; `kvsharer` has `sources: {{ 1: 0 }}`, `kvquant` a calibration.

{stages}
## Reasons

{reasons}"#,
        recipes = recipes(specs, &mut reasons),
        stages = stages(specs, &mut reasons),
        reasons =
            reasons.iter().enumerate().map(|(index, reason)| format!("{}. {reason}\n", index + 1)).collect::<String>(),
    )
}

fn recipes(specs: &[MethodSpec], reasons: &mut Vec<String>) -> String {
    let custom = specs.iter().find(|spec| spec.name == "custom");
    let choices = |name: &str| -> Vec<&str> {
        let option = custom.and_then(|spec| spec.options.iter().find(|option| option.name == name));
        match option.map(|option| option.kind) {
            Some(OptionKind::Choice { values }) => values.to_vec(),
            _ => Vec::new(),
        }
    };
    let columns: Vec<(&str, &str)> = choices("budget")
        .into_iter()
        .flat_map(|budget| choices("lanes").into_iter().map(move |lanes| (budget, lanes)))
        .collect();
    let heads: Vec<String> = columns.iter().map(|(budget, lanes)| format!("`{budget}`, `{lanes}`")).collect();
    let mut rows = vec![];
    for score in choices("score") {
        let cells = columns.iter().map(|(budget, lanes)| {
            let cache = json!({ "method": "custom", "keep": 0.5, "score": score, "budget": budget, "lanes": lanes });
            cell(&cache, (score, budget), reasons)
        });
        rows.push((format!("`{score}`"), cells.collect()));
    }
    table("score", &heads, &rows)
}

fn stages(specs: &[MethodSpec], reasons: &mut Vec<String>) -> String {
    let heads: Vec<String> = specs.iter().map(|spec| format!("`{}`", spec.name)).collect();
    let one = |spec: &MethodSpec| match spec.role {
        _ if spec.takes_keep() => {
            let mut cache = json!({ "method": spec.name, "keep": 0.5 });
            if let Some(calibration) = calibration(spec) {
                cache["calibration"] = calibration;
            }
            cache
        }
        Role::Shares => json!({ "method": spec.name, "sources": { "1": 0 } }),
        _ if let Some(calibration) = calibration(spec) => json!({ "method": spec.name, "calibration": calibration }),
        _ => json!({ "method": spec.name }),
    };
    let mut rows = vec![];
    for first in specs {
        let cells =
            specs.iter().map(|second| cell(&json!([one(first), one(second)]), (first.name, second.name), reasons));
        rows.push((format!("`{}`", first.name), cells.collect()));
    }
    table("", &heads, &rows)
}

/// The calibration without which a method does nothing, of a model with one layer, a head of eight channels.
pub(crate) fn calibration(spec: &MethodSpec) -> Option<Value> {
    spec.options.iter().find_map(|option| match option.kind {
        OptionKind::Codebooks => Some(codebooks()),
        OptionKind::Directions => Some(directions()),
        OptionKind::Latents => Some(latents()),
        OptionKind::Heads => Some(heads()),
        _ => None,
    })
}

/// One direction, of eight numbers.
fn directions() -> Value {
    json!({
        "format": "prefixkv-directions", "version": 1, "model": { "layers": 1 }, "init": "covariance", "heads": "each",
        "rank": 1, "layers": [{ "layer": 0, "keys": "fwAAAAAAAAA=", "values": "fwAAAAAAAAA=" }],
    })
}

/// One direction of two layers.
fn latents() -> Value {
    let layer = |layer| json!({ "layer": layer, "keys": "fwAAAAAAAAA=", "values": "fwAAAAAAAAA=", "sizes": [1, 1] });
    json!({
        "format": "prefixkv-directions", "version": 1, "model": { "layers": 2 }, "init": "covariance", "heads": "each",
        "span": "pair", "rank": 1, "layers": [layer(0), layer(1)],
    })
}

/// Scores of one head.
fn heads() -> Value {
    json!({
        "format": "prefixkv-heads", "version": 1, "model": { "layers": 1, "kvHeads": 1 }, "measure": "copies", "scores": [[1]],
    })
}

fn codebooks() -> Value {
    let (levels, channels) = (json!([-0.9, -0.3, 0.3, 0.9]), vec![1.0; 8]);
    json!({
        "format": "prefixkv-codebooks", "version": 1, "model": { "layers": 1 }, "bits": 2, "outliers": 0.01,
        "layers": [{ "layer": 0, "keys": levels, "values": levels, "scales": channels, "zeros": channels }],
    })
}

/// Reasons that are alike but for the names of the row and the column are told once.
fn cell(cache: &Value, names: (&str, &str), reasons: &mut Vec<String>) -> String {
    let reason = match Method::parse(cache) {
        Ok(_) => return "runs".into(),
        Err(Error::Option { reason, .. }) => reason,
        Err(other) => other.to_string(),
    };
    let reason = without(&reason, names);
    let number = reasons.iter().position(|known| *known == reason).unwrap_or_else(|| {
        reasons.push(reason);
        reasons.len() - 1
    });
    (number + 1).to_string()
}

/// A sentence with ROW and COLUMN for the names that stand there, as words of their own.
fn without(reason: &str, (row, column): (&str, &str)) -> String {
    let of_name = |c: char| c.is_alphanumeric() || c == '-';
    let mut out = String::new();
    for word in reason.split_inclusive(|c| !of_name(c)) {
        let end = word.find(|c| !of_name(c)).unwrap_or(word.len());
        out += match &word[..end] {
            name if name == row => "ROW",
            name if name == column => "COLUMN",
            other => other,
        };
        out += &word[end..];
    }
    out
}

fn table(corner: &str, heads: &[String], rows: &[(String, Vec<String>)]) -> String {
    let rows: String = rows.iter().map(|(name, cells)| format!("| {name} | {} |\n", cells.join(" | "))).collect();
    format!("| {corner} | {} |\n| ---{} |\n{rows}", heads.join(" | "), " | ---".repeat(heads.len()))
}
