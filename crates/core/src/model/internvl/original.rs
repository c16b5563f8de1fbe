//! config.json of an InternVL in OpenGVLab's layout, with the defaults of its code for what is omitted.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::config::{InternVlConfig, Norms, TowerConfig, VISION, depth, encoder, merge};
use super::images::{Dynamic, Pictures};
use super::names::ORIGINAL;
use crate::backend::Activation;
use crate::error::Result;
use crate::model::config::ConfigFile;
use crate::model::encoder::EncoderConfig;
use crate::model::llama::LlamaConfig;
use crate::text;

const TEXT: &str = "llm_config";
/// The token that stands for a position of an image.
const CONTEXT: &str = "<IMG_CONTEXT>";

/// InternVisionConfig: the tower of six billion parameters.
const CLASS: EncoderConfig = EncoderConfig {
    hidden_size: 3200,
    intermediate_size: 12_800,
    num_hidden_layers: 48,
    num_attention_heads: 25,
    image_size: 224,
    patch_size: 14,
    layer_norm_eps: 1e-6,
    hidden_act: Activation::Gelu,
};

/// InternVLChatConfig.
#[derive(Deserialize)]
#[serde(default)]
struct Fields {
    use_backbone_lora: u64,
    use_llm_lora: u64,
    pad2square: bool,
    select_layer: i64,
    force_image_size: Option<usize>,
    downsample_ratio: f64,
    dynamic_image_size: bool,
    use_thumbnail: bool,
    ps_version: String,
    min_dynamic_patch: usize,
    max_dynamic_patch: usize,
}

impl Default for Fields {
    fn default() -> Self {
        Fields {
            use_backbone_lora: 0,
            use_llm_lora: 0,
            pad2square: false,
            select_layer: -1,
            force_image_size: None,
            downsample_ratio: 0.5,
            dynamic_image_size: false,
            use_thumbnail: false,
            ps_version: "v1".into(),
            min_dynamic_patch: 1,
            max_dynamic_patch: 6,
        }
    }
}

#[derive(Deserialize)]
#[serde(default)]
struct VisionFields {
    qkv_bias: bool,
    qk_normalization: bool,
    norm_type: Norms,
}

impl Default for VisionFields {
    fn default() -> Self {
        VisionFields { qkv_bias: false, qk_normalization: true, norm_type: Norms::RootMeanSquare }
    }
}

pub(super) fn parse(file: &ConfigFile) -> Result<InternVlConfig> {
    let fields: Fields = file.parse(None, file.section(None)?)?;
    let Fields { ps_version, .. } = &fields;
    if ps_version != "v2" {
        return Err(file.unsupported(format!(
            "`ps_version` {ps_version:?}, which exchanges the rows and columns of images; only \"v2\" is known"
        )));
    }
    if fields.pad2square {
        return Err(file.unsupported("images that are padded to squares (`pad2square`)"));
    }
    for (key, rank) in [("use_backbone_lora", fields.use_backbone_lora), ("use_llm_lora", fields.use_llm_lora)] {
        if rank > 0 {
            let cure = "merge the adapter into the weights and set the key to 0";
            return Err(file.unsupported(format!("weights beside an adapter (`{key}` {rank}): {cure}")));
        }
    }
    let section = file.section(Some(VISION))?;
    let vision: VisionFields = file.parse(Some(VISION), section.clone())?;
    let encoder = encoder(file, section, &CLASS)?;
    let (own, forced) = (encoder.image_size, fields.force_image_size.filter(|size| *size != 0));
    if let Some(forced) = forced.filter(|forced| *forced != own) {
        return Err(file.unsupported(format!(
            "`force_image_size` {forced} for a vision tower of `{VISION}.image_size` {own}, whose positions would have to be interpolated"
        )));
    }
    let (depth, _) = depth(file, "select_layer", fields.select_layer, &encoder)?;
    let merge = merge(file, fields.downsample_ratio, &encoder)?;
    let dynamic = match fields.dynamic_image_size {
        true => {
            Dynamic { tiles: (fields.min_dynamic_patch, fields.max_dynamic_patch), thumbnail: fields.use_thumbnail }
        }
        false => Dynamic { tiles: (1, 1), thumbnail: false },
    };
    let tower = TowerConfig {
        depth,
        attention_bias: vision.qkv_bias,
        wide_norms: vision.qk_normalization.then_some(encoder.layer_norm_eps),
        norm: vision.norm_type.kind(),
        last_norm: false,
        merge,
        encoder,
    };
    Ok(InternVlConfig {
        text: decoder(file)?,
        tower,
        image_token: image_token(file)?,
        act: Activation::Gelu,
        names: &ORIGINAL,
        pictures: Pictures::Config(dynamic),
    })
}

/// The decoder by its class, which the original code goes by; else by its type.
fn decoder(file: &ConfigFile) -> Result<LlamaConfig> {
    let section = file.section(Some(TEXT))?;
    let Some(named) = named(&section) else {
        return Err(file.bad(format!("`{TEXT}` has neither `architectures` nor `model_type`")));
    };
    LlamaConfig::named(file, Some(TEXT), &named, section)
}

fn named(section: &Map<String, Value>) -> Option<String> {
    let class = section.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str);
    let kind = section.get("model_type").and_then(Value::as_str);
    let of_class = class.and_then(|class| class.strip_suffix("ForCausalLM")).map(str::to_lowercase);
    of_class.or(kind.map(str::to_owned))
}

/// The configuration does not say it: the original code asks the tokenizer.
fn image_token(file: &ConfigFile) -> Result<u32> {
    text::declared_id(file.dir(), CONTEXT)?.ok_or_else(|| {
        file.bad(format!(
            "has an image take the places of the token `{CONTEXT}`, which none of tokenizer_config.json, added_tokens.json and \
             tokenizer.json beside it declares"
        ))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::nn::NormKind;

    /// As OpenGVLab/InternVL3-1B has it, without what says nothing here.
    fn config() -> Value {
        json!({
            "architectures": ["InternVLChatModel"], "model_type": "internvl_chat",
            "downsample_ratio": 0.5, "dynamic_image_size": true, "force_image_size": 448, "image_fold": null,
            "llm_config": {
                "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "eos_token_id": 151_643, "hidden_size": 896,
                "intermediate_size": 4864, "max_position_embeddings": 32_768, "num_attention_heads": 14,
                "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 1_000_000.0,
                "rope_scaling": { "factor": 2.0, "rope_type": "dynamic", "type": "dynamic" }, "vocab_size": 151_674,
            },
            "max_dynamic_patch": 12, "min_dynamic_patch": 1, "pad2square": false, "ps_version": "v2", "select_layer": -1,
            "template": "internvl2_5", "tie_word_embeddings": false, "use_backbone_lora": 0, "use_llm_lora": 0, "use_thumbnail": true,
            "vision_config": {
                "hidden_act": "gelu", "hidden_size": 1024, "image_size": 448, "intermediate_size": 4096, "layer_norm_eps": 1e-6,
                "model_type": "intern_vit_6b", "norm_type": "layer_norm", "num_attention_heads": 16, "num_channels": 3,
                "num_hidden_layers": 24, "patch_size": 14, "qk_normalization": false, "qkv_bias": true,
            },
        })
    }

    fn parsed(change: &[(&str, Value)], tokens: &str) -> Result<InternVlConfig> {
        let mut config = config();
        for (at, value) in change {
            let (section, key) = at.split_once('.').unwrap_or(("", at));
            match section {
                "" => config[key] = value.clone(),
                section => config[section][key] = value.clone(),
            }
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        std::fs::write(dir.path().join("tokenizer_config.json"), tokens).unwrap();
        InternVlConfig::parse(&ConfigFile::read(dir.path())?)
    }

    const TOKENS: &str = r#"{ "added_tokens_decoder": { "151666": { "content": "</img>" }, "151667": { "content": "<IMG_CONTEXT>" } } }"#;

    #[test]
    fn a_published_configuration() {
        let config = parsed(&[], TOKENS).unwrap();
        assert_eq!((config.image_token, config.names.architecture), (151_667, "InternVLChatModel"));
        let (text, tower) = (&config.text, &config.tower);
        assert_eq!((text.hidden_size, text.attention_bias, text.tie_word_embeddings), (896, true, false));
        assert_eq!((tower.cells(), tower.joined(), tower.depth, tower.last_norm), (16, 4096, 24, false));
        assert_eq!((tower.attention_bias, tower.wide_norms, tower.norm), (true, None, NormKind::Layer));
        let Pictures::Config(dynamic) = &config.pictures else { panic!("a processor") };
        assert_eq!((dynamic.tiles, dynamic.thumbnail), ((1, 12), true));
        // The larger tower, as its class has it.
        let vision = json!({ "image_size": 448, "num_hidden_layers": 45 });
        let large = parsed(&[("vision_config", vision), ("dynamic_image_size", json!(false))], TOKENS).unwrap();
        assert_eq!((large.tower.encoder.heads().dim, large.tower.wide_norms), (128, Some(1e-6)));
        assert_eq!((large.tower.norm, large.tower.attention_bias), (NormKind::RootMeanSquare, false));
        assert!(matches!(large.pictures, Pictures::Config(Dynamic { tiles: (1, 1), thumbnail: false })));
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        for (key, value, code, part) in [
            ("ps_version", json!(null), "unsupported-model", "`ps_version` \"v1\""),
            ("pad2square", json!(true), "unsupported-model", "`pad2square`"),
            ("use_llm_lora", json!(16), "unsupported-model", "`use_llm_lora` 16"),
            ("force_image_size", json!(224), "unsupported-model", "`force_image_size` 224"),
            ("select_layer", json!(-30), "model-file", "`select_layer` -30"),
            ("downsample_ratio", json!(2), "model-file", "`downsample_ratio` is 2"),
            ("llm_config.architectures", json!(["InternLM2ForCausalLM"]), "unsupported-model", "`internlm2`"),
            ("llm_config.architectures", json!(["Qwen3MoeForCausalLM"]), "unsupported-model", "`qwen3moe`"),
            ("llm_config", json!({}), "model-file", "`llm_config` has neither"),
            ("vision_config.norm_type", json!("batch"), "unsupported-model", "`vision_config.norm_type`"),
        ] {
            let error = parsed(&[(key, value)], TOKENS).err().unwrap();
            assert!(error.code() == code && error.to_string().contains(part), "{key}: {error}");
        }
        let error = parsed(&[], "{}").err().unwrap();
        assert!(error.code() == "model-file" && error.to_string().contains("`<IMG_CONTEXT>`"), "{error}");
    }
}
