//! Checkpoints that somebody has quantised, which are not read: how they are recognised, and what is said of them.

use safetensors::Dtype;
use serde_json::{Map, Value};

/// Advice that follows the finding.
pub(crate) const CURE: &str =
    "take the model that it was made from; `load` quantises that with weights \"q8_0\" or \"q4_k\"";

/// How formats call the parts of a weight, the more telling ones first.
const PARTS: &[(&str, &str)] = &[
    (".quant_state.bitsandbytes__nf4", "bitsandbytes, 4 bit"),
    (".quant_state.bitsandbytes__fp4", "bitsandbytes, 4 bit"),
    (".weight.absmax", "bitsandbytes, 4 bit"),
    (".SCB", "bitsandbytes, 8 bit"),
    (".g_idx", "GPTQ"),
    (".qweight", "AWQ or GPTQ"),
    (".weight_packed", "compressed-tensors"),
    (".W_q", "HQQ"),
    (".weight_scales", "EETQ"),
    (".weight_scale_inv", "FP8"),
    (".codebooks", "AQLM"),
    (".centroids", "VPTQ"),
    (".weight._data", "Quanto"),
    ("_blocks", "MXFP4"),
];

/// The format that the names and types of tensors speak of, or None for plain numbers.
pub(super) fn packing<'a>(tensors: impl Iterator<Item = (&'a str, Dtype)> + Clone) -> Option<&'static str> {
    let has = |ending: &str| tensors.clone().any(|(name, _)| name.ends_with(ending));
    if let Some((_, format)) = PARTS.iter().find(|(ending, _)| has(ending)) {
        return Some(format);
    }
    let of = |what: fn(Dtype) -> bool| tensors.clone().any(|(name, dtype)| name.ends_with(".weight") && what(dtype));
    if of(|dtype| dtype == Dtype::U32) && has(".scales") {
        return Some("MLX");
    }
    if of(is_fp8) {
        return Some("FP8");
    }
    if of(|dtype| dtype == Dtype::I8) {
        return Some("8-bit integers");
    }
    of(|dtype| matches!(dtype, Dtype::U8 | Dtype::F4)).then_some("packed 4-bit numbers, as of bitsandbytes")
}

fn is_fp8(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F8_E4M3 | Dtype::F8_E5M2 | Dtype::F8_E8M0 | Dtype::F8_E4M3FNUZ | Dtype::F8_E5M2FNUZ)
}

/// The section of a configuration that asks for quantised weights, and the format that it names; None when there is none. An empty
/// section counts as none, as in transformers.
pub(crate) fn asked(config: &Map<String, Value>) -> Option<(&'static str, String)> {
    let sections = ["quantization_config", "compression_config", "quantization"];
    sections.into_iter().find_map(|key| match config.get(key) {
        Some(Value::Object(section)) if !section.is_empty() => Some((key, name(section))),
        _ => None,
    })
}

fn name(section: &Map<String, Value>) -> String {
    let is_on = |key: &str| section.get(key).and_then(Value::as_bool) == Some(true);
    let method = match section.get("quant_method").and_then(Value::as_str) {
        _ if is_on("load_in_4bit") || is_on("_load_in_4bit") => return "bitsandbytes, 4 bit".into(),
        _ if is_on("load_in_8bit") || is_on("_load_in_8bit") => return "bitsandbytes, 8 bit".into(),
        Some("gptq") => "GPTQ",
        Some("awq") => "AWQ",
        Some("aqlm") => "AQLM",
        Some("vptq") => "VPTQ",
        Some("hqq") => "HQQ",
        Some("eetq") => "EETQ",
        Some("fp8" | "fbgemm_fp8") => "FP8",
        Some("mxfp4") => "MXFP4",
        Some("quanto") => "Quanto",
        // A name of anybody's, in a message.
        Some(other) if other.len() <= 40 && other.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) => {
            other
        }
        // As mlx-lm writes it.
        None if section.contains_key("group_size") && section.contains_key("bits") => "MLX",
        _ => return "a format without a known name".into(),
    };
    let bits = ["bits", "w_bit", "num_bits", "nbits"].into_iter().find_map(|key| section.get(key)?.as_u64());
    match bits.or_else(|| section.get("quant_config")?.get("weight_quant_params")?.get("nbits")?.as_u64()) {
        Some(bits) if bits <= 16 => format!("{method}, {bits} bit"),
        _ => method.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn configurations_name_their_format() {
        for (config, expected) in [
            (
                json!({ "quantization_config": { "quant_method": "bitsandbytes", "load_in_4bit": true } }),
                "bitsandbytes, 4 bit",
            ),
            (
                json!({ "quantization_config": { "quant_method": "bitsandbytes", "load_in_8bit": true } }),
                "bitsandbytes, 8 bit",
            ),
            (json!({ "quantization_config": { "load_in_4bit": true } }), "bitsandbytes, 4 bit"),
            (json!({ "quantization_config": { "quant_method": "gptq", "bits": 4, "group_size": 128 } }), "GPTQ, 4 bit"),
            (json!({ "quantization_config": { "quant_method": "awq", "bits": 4 } }), "AWQ, 4 bit"),
            (json!({ "quantization_config": { "quant_method": "fp8", "weight_block_size": [128, 128] } }), "FP8"),
            (
                json!({ "quantization_config": { "quant_method": "hqq", "quant_config": { "weight_quant_params": { "nbits": 4 } } } }),
                "HQQ, 4 bit",
            ),
            (
                json!({ "quantization_config": { "quant_method": "compressed-tensors", "format": "pack-quantized" } }),
                "compressed-tensors",
            ),
            (json!({ "compression_config": { "quant_method": "compressed-tensors" } }), "compressed-tensors"),
            (json!({ "quantization": { "group_size": 64, "bits": 4, "mode": "affine" } }), "MLX, 4 bit"),
            (json!({ "quantization_config": { "quant_method": "newest_thing" } }), "newest_thing"),
            (json!({ "quantization_config": { "quant_method": "\u{1b}[2J" } }), "a format without a known name"),
            (json!({ "quantization_config": { "bits": 3 } }), "a format without a known name"),
        ] {
            let (_, found) = asked(config.as_object().expect("an object")).expect("quantised");
            assert_eq!(found, expected, "{config}");
        }
        for plain in [json!({}), json!({ "quantization_config": null }), json!({ "quantization_config": {} })] {
            assert_eq!(asked(plain.as_object().expect("an object")), None, "{plain}");
        }
    }

    #[test]
    fn tensors_name_their_format() {
        let layer = "model.layers.0.mlp.up_proj";
        for (parts, expected) in [
            (vec![(".weight", Dtype::F16), (".bias", Dtype::F16)], None),
            (vec![(".weight", Dtype::F32), (".position_ids", Dtype::I64)], None),
            (vec![(".weight", Dtype::U8), (".weight.absmax", Dtype::U8)], Some("bitsandbytes, 4 bit")),
            (
                vec![(".weight", Dtype::U8), (".weight.quant_state.bitsandbytes__nf4", Dtype::U8)],
                Some("bitsandbytes, 4 bit"),
            ),
            (vec![(".weight", Dtype::I8), (".SCB", Dtype::F32)], Some("bitsandbytes, 8 bit")),
            (vec![(".qweight", Dtype::I32), (".qzeros", Dtype::I32), (".scales", Dtype::F16)], Some("AWQ or GPTQ")),
            (vec![(".qweight", Dtype::I32), (".g_idx", Dtype::I32)], Some("GPTQ")),
            (vec![(".weight", Dtype::F8_E4M3), (".weight_scale_inv", Dtype::F32)], Some("FP8")),
            (vec![(".weight", Dtype::F8_E5M2)], Some("FP8")),
            (vec![(".weight_packed", Dtype::I32), (".weight_scale", Dtype::BF16)], Some("compressed-tensors")),
            (vec![(".W_q", Dtype::U8)], Some("HQQ")),
            (vec![(".weight", Dtype::I8), (".weight_scales", Dtype::F16)], Some("EETQ")),
            (vec![(".weight", Dtype::U32), (".scales", Dtype::F16), (".biases", Dtype::F16)], Some("MLX")),
            (vec![(".weight", Dtype::I8)], Some("8-bit integers")),
            (vec![(".weight", Dtype::U8)], Some("packed 4-bit numbers, as of bitsandbytes")),
        ] {
            let named: Vec<(String, Dtype)> =
                parts.iter().map(|(part, dtype)| (format!("{layer}{part}"), *dtype)).collect();
            let found = packing(named.iter().map(|(name, dtype)| (name.as_str(), *dtype)));
            assert_eq!(found, expected, "{parts:?}");
        }
    }
}
