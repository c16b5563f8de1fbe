//! The kinds of layers that a configuration asks for: windows, shared layers, variants of rotary embedding.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::decoder::{Decoder, Windows};
use super::rope::{Rope, Scaling};
use crate::backend::{Heads, LayerKind};
use crate::error::Result;
use crate::model::config::{ConfigFile, path};

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    use_sliding_window: bool,
    sliding_window: Option<u32>,
    max_window_layers: usize,
    layer_types: Option<Vec<LayerType>>,
    /// 0 for each layer that knows no positions.
    no_rope_layers: Option<Vec<u8>>,
    /// Without that list, every so many layers know none.
    no_rope_layer_interval: usize,
    sliding_window_pattern: usize,
    /// For each layer, the one whose keys and values it reads.
    kv_sources: Option<Vec<usize>>,
    query_pre_attn_scalar: Option<f64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LayerType {
    FullAttention,
    SlidingAttention,
}

const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";

/// The rotary embeddings of section `key`: one, or one for layers without a window and one for those with; behind them, for decoders that
/// have layers without positions, one that turns nothing.
pub(super) fn ropes(
    file: &ConfigFile,
    key: Option<&str>,
    decoder: &Decoder,
    section: &Map<String, Value>,
    positions: usize,
) -> Result<Vec<Rope>> {
    let with_off = |mut ropes: Vec<Rope>| {
        if decoder.still_layers {
            ropes.push(Rope { scaling: Scaling::Off, ..ropes[0].clone() });
        }
        ropes
    };
    if let Some(theta) = decoder.local_theta {
        return local_and_global(file, key, section, theta, positions);
    }
    let nested = section.get("rope_parameters").and_then(Value::as_object);
    let Some(nested) = nested.filter(|nested| nested.contains_key(FULL) || nested.contains_key(SLIDING)) else {
        let section = if decoder.other_yarn { &without_yarn(section.clone()) } else { section };
        let rope = Rope::parse(file, key, section, "rope_theta", positions)?;
        return Ok(with_off(vec![rope]));
    };
    let one = |name: &str| {
        let mut section = section.clone();
        section.remove("rope_scaling");
        section.insert("rope_parameters".into(), nested.get(name).cloned().unwrap_or(Value::Null));
        Rope::parse(file, key, &section, "rope_theta", positions)
    };
    Ok(with_off(vec![one(FULL)?, one(SLIDING)?]))
}

/// A section that says `longrope` where it says `yarn`: early files of Phi-3 call it so.
fn without_yarn(mut section: Map<String, Value>) -> Map<String, Value> {
    for name in ["rope_scaling", "rope_parameters"] {
        let Some(Value::Object(rope)) = section.get_mut(name) else { continue };
        for kind in ["rope_type", "type"] {
            if rope.get(kind).is_some_and(|kind| kind == "yarn") {
                rope.insert(kind.into(), "longrope".into());
            }
        }
    }
    section
}

/// One rotary embedding for layers without a window, which a scaling outside is about, and one for those with, whose base is `theta`
/// where their own section says none.
fn local_and_global(
    file: &ConfigFile,
    key: Option<&str>,
    section: &Map<String, Value>,
    theta: &str,
    positions: usize,
) -> Result<Vec<Rope>> {
    let nested = |name: &str| match section.get("rope_parameters").and_then(|both| both.get(name)) {
        Some(Value::Object(parameters)) => parameters.clone(),
        _ => Map::new(),
    };
    let one = |parameters: Map<String, Value>, base: &str| {
        let mut section = section.clone();
        section.remove("rope_scaling");
        section.insert("rope_parameters".into(), Value::Object(parameters));
        Rope::parse(file, key, &section, base, positions)
    };
    let mut global = nested(FULL);
    match section.get("rope_scaling") {
        None | Some(Value::Null) => {}
        Some(Value::Object(scaling)) => global.extend(scaling.clone()),
        Some(other) => {
            return Err(file.bad(format!("`{}` must be an object, found {other}", path(key, "rope_scaling"))));
        }
    }
    Ok(vec![one(global, "rope_theta")?, one(nested(SLIDING), theta)?])
}

/// The kind of each layer of section `key`, with the rotary embeddings `ropes`.
pub(super) fn kinds(
    file: &ConfigFile,
    key: Option<&str>,
    decoder: &Decoder,
    section: &Map<String, Value>,
    layers: usize,
    heads: Heads,
    ropes: &[Rope],
) -> Result<Vec<LayerKind>> {
    let fields: Fields = file.parse(key, section.clone())?;
    let window = fields.sliding_window.filter(|_| match decoder.windows {
        Windows::None => false,
        Windows::All | Windows::Named | Windows::Pattern => true,
        Windows::Upper | Windows::Still => fields.use_sliding_window,
    });
    if window == Some(0) {
        let name = path(key, "sliding_window");
        return Err(file.bad(format!("`{name}` is 0, expected at least 1, or null for none")));
    }
    let of_each = |name: &str, found: Option<usize>| match found {
        Some(found) if found != layers => {
            let name = path(key, name);
            Err(file.bad(format!("`{name}` says something of {found} layers, but the model has {layers}")))
        }
        _ => Ok(()),
    };
    of_each("layer_types", fields.layer_types.as_ref().map(Vec::len))?;
    of_each("kv_sources", fields.kv_sources.as_ref().map(Vec::len))?;
    of_each("no_rope_layers", fields.no_rope_layers.as_ref().map(Vec::len))?;
    let interval = |name: &str, found: usize| match found {
        0 => Err(file.bad(format!("`{}` is 0, expected at least 1", path(key, name)))),
        _ => Ok(()),
    };
    if decoder.still_layers {
        interval("no_rope_layer_interval", fields.no_rope_layer_interval)?;
    }
    if decoder.windows == Windows::Pattern && fields.layer_types.is_none() {
        interval("sliding_window_pattern", fields.sliding_window_pattern)?;
    }
    let scale = match fields.query_pre_attn_scalar.filter(|_| decoder.scaled) {
        None => None,
        Some(scalar) if scalar > 0.0 && (scalar.powf(-0.5) as f32).is_normal() => Some(scalar.powf(-0.5) as f32),
        Some(scalar) => {
            let name = path(key, "query_pre_attn_scalar");
            return Err(file.bad(format!("`{name}` is {scalar}, expected a positive number")));
        }
    };
    let still = |layer: usize| match &fields.no_rope_layers {
        _ if !decoder.still_layers => false,
        Some(list) => list[layer] == 0,
        None => (layer + 1).is_multiple_of(fields.no_rope_layer_interval),
    };
    let slides = |layer: usize| match (decoder.windows, &fields.layer_types) {
        _ if window.is_none() => false,
        (Windows::None, _) => false,
        (Windows::All, _) | (Windows::Named, None) => true,
        (Windows::Named | Windows::Upper | Windows::Still | Windows::Pattern, Some(types)) => {
            types[layer] == LayerType::SlidingAttention
        }
        (Windows::Pattern, None) => !(layer + 1).is_multiple_of(fields.sliding_window_pattern),
        (Windows::Upper, None) => layer >= fields.max_window_layers,
        (Windows::Still, None) => still(layer),
    };
    let kind = |layer: usize| {
        let ordinary = LayerKind::ordinary(layer, heads);
        let rope = match (still(layer), slides(layer)) {
            (true, _) => ropes.len() - 1,
            // Of the two by layer type, if there are two.
            (false, true) => (ropes.len() - 1 - usize::from(decoder.still_layers)).min(1),
            (false, false) => 0,
        };
        LayerKind {
            source: fields.kv_sources.as_ref().map_or(layer, |sources| sources[layer]),
            window: window.filter(|_| slides(layer)),
            // A factor of queries and keys is its square in their products, and stored keys stay as long as they are.
            scale: scale.unwrap_or(ordinary.scale) * ropes[rope].attention().powi(2) as f32,
            rope,
            ..ordinary
        }
    };
    let kinds: Vec<LayerKind> = (0..layers).map(kind).collect();
    for (layer, source) in kinds.iter().map(|kind| kind.source).enumerate() {
        if source > layer || kinds[source].source != source {
            let name = path(key, "kv_sources");
            return Err(file.bad(format!(
                "`{name}` says that layer {layer} reads the keys and values of layer {source}, which must be itself or a layer before it \
                 that has its own"
            )));
        }
        if kinds[source].window != kinds[layer].window || kinds[source].rope != kinds[layer].rope {
            let name = path(key, "kv_sources");
            return Err(file.bad(format!(
                "`{name}` says that layer {layer} reads the keys and values of layer {source}, but their windows differ"
            )));
        }
    }
    Ok(kinds)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::config::LlamaConfig;
    use crate::error::Result;
    use crate::model::config::golden;

    fn windows(config: serde_json::Value) -> Result<Vec<Option<u32>>> {
        Ok(LlamaConfig::parse(&golden::file(config), None)?.kinds.iter().map(|kind| kind.window).collect())
    }

    #[test]
    fn windows_are_those_of_transformers() {
        for (config, want) in [
            (json!({ "model_type": "mistral", "num_hidden_layers": 2 }), vec![Some(4096); 2]),
            (json!({ "model_type": "mistral", "num_hidden_layers": 2, "sliding_window": null }), vec![None; 2]),
            (json!({ "model_type": "mistral", "num_hidden_layers": 1, "sliding_window": 7 }), vec![Some(7)]),
            (json!({ "model_type": "llama", "num_hidden_layers": 2, "sliding_window": 7 }), vec![None; 2]),
            (json!({ "model_type": "ministral", "num_hidden_layers": 2 }), vec![Some(4096); 2]),
            (
                json!({ "model_type": "ministral", "num_hidden_layers": 2, "sliding_window": 7,
                        "layer_types": ["full_attention", "sliding_attention"] }),
                vec![None, Some(7)],
            ),
            (json!({ "model_type": "qwen2", "num_hidden_layers": 2, "sliding_window": 7 }), vec![None; 2]),
            (
                json!({ "model_type": "qwen2", "num_hidden_layers": 29, "use_sliding_window": true }),
                [vec![None; 28], vec![Some(4096)]].concat(),
            ),
            (
                json!({ "model_type": "smollm3", "num_hidden_layers": 4, "use_sliding_window": true, "sliding_window": 9 }),
                vec![None, None, None, Some(9)],
            ),
            (json!({ "model_type": "gemma2", "num_hidden_layers": 3 }), vec![Some(4096), None, Some(4096)]),
            (
                json!({ "model_type": "gemma3_text", "num_hidden_layers": 7, "sliding_window": 9 }),
                [vec![Some(9); 5], vec![None, Some(9)]].concat(),
            ),
            (
                json!({ "model_type": "gemma3_text", "num_hidden_layers": 3, "sliding_window": 9, "sliding_window_pattern": 2 }),
                vec![Some(9), None, Some(9)],
            ),
            (
                json!({ "model_type": "gemma3_text", "num_hidden_layers": 2, "sliding_window": 9,
                        "layer_types": ["full_attention", "sliding_attention"] }),
                vec![None, Some(9)],
            ),
            (
                json!({ "model_type": "qwen3", "num_hidden_layers": 3, "use_sliding_window": true, "sliding_window": 9,
                        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"] }),
                vec![Some(9), None, Some(9)],
            ),
        ] {
            assert_eq!(windows(config.clone()).unwrap(), want, "{config}");
        }
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (change, code, text) in [
            (json!({ "sliding_window": 0 }), "model-file", "`sliding_window` is 0"),
            (json!({ "sliding_window": -3 }), "model-file", "`sliding_window`"),
            (json!({ "layer_types": ["full_attention"] }), "model-file", "`layer_types` says something of 1 layers"),
            (json!({ "layer_types": ["full_attention", "linear_attention"] }), "unsupported-model", "`layer_types`"),
            (json!({ "kv_sources": [0] }), "model-file", "`kv_sources` says something of 1 layers"),
            (json!({ "kv_sources": [1, 1] }), "model-file", "layer 0 reads the keys and values of layer 1"),
            (json!({ "kv_sources": [0, 9] }), "model-file", "layer 1 reads the keys and values of layer 9"),
            (
                json!({ "kv_sources": [0, 0], "layer_types": ["full_attention", "sliding_attention"] }),
                "model-file",
                "their windows differ",
            ),
            (json!({ "attn_logit_softcapping": 0 }), "model-file", "`attn_logit_softcapping` is 0"),
            (json!({ "rope_scaling": { "mrope_section": [1, 2, 3] } }), "model-file", "must add up to 64"),
            (json!({ "rope_scaling": { "mrope_section": [1, 2] } }), "model-file", "`rope_scaling.mrope_section`"),
        ] {
            let mut config = json!({ "model_type": "qwen3", "num_hidden_layers": 2, "use_sliding_window": true });
            config.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let error = windows(config).unwrap_err();
            assert!(error.code() == code && error.to_string().contains(text), "{change}: {error}");
        }
    }

    #[test]
    fn layers_with_a_window_may_have_a_rope_of_their_own() {
        let config = json!({
            "model_type": "qwen3", "num_hidden_layers": 2, "use_sliding_window": true, "max_window_layers": 1,
            "rope_parameters": {
                "full_attention": { "rope_theta": 1e6, "rope_type": "linear", "factor": 8.0 },
                "sliding_attention": { "rope_theta": 1e4 },
            },
        });
        let config = LlamaConfig::parse(&golden::file(config), None).unwrap();
        assert_eq!(config.ropes.iter().map(|rope| rope.theta).collect::<Vec<_>>(), [1e6, 1e4]);
        assert_eq!(config.kinds.iter().map(|kind| kind.rope).collect::<Vec<_>>(), [0, 1]);
    }

    /// Both spellings of Gemma 3's configurations, and none.
    #[test]
    fn windows_have_a_base_of_their_own_and_no_scaling() {
        let linear = json!({ "rope_type": "linear", "factor": 8.0 });
        let nested = json!({
            "full_attention": { "rope_theta": 2e6, "rope_type": "linear", "factor": 8.0 },
            "sliding_attention": { "rope_theta": 3e4, "rope_type": "default" },
        });
        for (change, thetas, factor) in [
            (json!({}), [1e6, 1e4], 1.0),
            (json!({ "rope_theta": 5e5, "rope_local_base_freq": 2e4, "rope_scaling": linear }), [5e5, 2e4], 8.0),
            (json!({ "rope_parameters": nested }), [2e6, 3e4], 8.0),
            (json!({ "rope_parameters": { "full_attention": { "rope_type": "default" } } }), [1e6, 1e4], 1.0),
        ] {
            let mut config = json!({ "model_type": "gemma3_text", "num_hidden_layers": 6 });
            config.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let config = LlamaConfig::parse(&golden::file(config), None).unwrap();
            assert_eq!(config.ropes.iter().map(|rope| rope.theta).collect::<Vec<_>>(), thetas, "{change}");
            let first: Vec<f32> =
                config.ropes.iter().map(|rope| rope.inverse_frequencies(config.head_dim)[0]).collect();
            assert_eq!(first, [1.0 / factor, 1.0], "{change}");
            assert_eq!(config.kinds.iter().map(|kind| kind.rope).collect::<Vec<_>>(), [1, 1, 1, 1, 1, 0]);
            assert!(config.kinds.iter().all(|kind| kind.scale == 1.0 / 16.0));
        }
    }

    /// Early configurations of Phi-3 call LongRoPE so.
    #[test]
    fn yarn_of_phi_is_another() {
        for name in ["yarn", "su", "longrope"] {
            let of = |scaling: serde_json::Value| {
                let mut config = json!({
                    "model_type": "phi3", "hidden_size": 64, "num_attention_heads": 4, "partial_rotary_factor": 0.75,
                    "max_position_embeddings": 16384, "rope_scaling": { "type": name },
                });
                config["rope_scaling"].as_object_mut().unwrap().extend(scaling.as_object().unwrap().clone());
                LlamaConfig::parse(&golden::file(config), None)
            };
            // Published files say the length that it was made for beside it, and 4096 is what the class assumes.
            let config = of(json!({ "short_factor": [1.0, 1.5, 2.0, 2.5, 3.0, 4.0] })).unwrap();
            assert_eq!(config.max_position_embeddings, 4096, "{name}");
            let of_pair = |pair: usize, by: f32| 1.0 / (by * 1e4f32.powf((2 * pair) as f32 / 12.0));
            let pairs = [1.0, 1.5, 2.0, 2.5, 3.0, 4.0].into_iter().enumerate();
            let want: Vec<f32> = pairs.map(|(pair, by)| of_pair(pair, by)).chain([0.0, 0.0]).collect();
            assert_eq!(config.ropes[0].inverse_frequencies(16), want);
            let factor = (1.0 + 4f64.ln() / 4096f64.ln()).sqrt();
            let factors = config.row_factors().unwrap();
            assert_eq!(
                (config.ropes[0].attention(), config.kinds[0].scale),
                (1.0, 0.25),
                "turned channels alone are multiplied"
            );
            let (by, still) = (factor as f32, 1.0);
            assert_eq!(factors[..16], [by, by, by, by, by, by, still, still, by, by, by, by, by, by, still, still]);
            assert_eq!((factors[127], factors[128], factors.len()), (still, still, 192));
            let order = config.row_order().unwrap();
            assert_eq!(order[..16], [0, 1, 2, 3, 4, 5, 12, 13, 6, 7, 8, 9, 10, 11, 14, 15]);
            assert_eq!(order[16..18], [16, 17]);
            assert_eq!((order[128], order.len()), (128, 192), "values are as they are");
            for (bad, named) in [
                (json!({ "factor": 4.0 }), "`rope_scaling.short_factor` is missing"),
                (json!({ "short_factor": vec![1.0; 8] }), "has 8 numbers, expected 6"),
                (json!({ "short_factor": [1.0, 1.0, 0.0, 1.0, 1.0, 1.0] }), "`rope_scaling.short_factor` is 0"),
            ] {
                let error = of(bad).unwrap_err();
                assert!(error.code() == "model-file" && error.to_string().contains(named), "{error}");
            }
        }
        assert_eq!(windows(json!({ "model_type": "phi3", "num_hidden_layers": 1 })).unwrap(), [None]);
        let config = json!({ "model_type": "phi3", "num_hidden_layers": 1, "sliding_window": 2047 });
        assert_eq!(windows(config).unwrap(), [Some(2047)]);
    }

    #[test]
    fn what_gemma_cannot_be_is_named() {
        for (change, code, text) in [
            (json!({ "sliding_window_pattern": 0 }), "model-file", "`sliding_window_pattern` is 0"),
            (json!({ "query_pre_attn_scalar": -1 }), "model-file", "`query_pre_attn_scalar` is -1"),
            (json!({ "rope_local_base_freq": 0 }), "model-file", "`rope_local_base_freq` is 0"),
            (json!({ "rope_scaling": 8 }), "model-file", "`rope_scaling` must be an object"),
            (json!({ "final_logit_softcapping": -2 }), "model-file", "`final_logit_softcapping` is -2"),
            (json!({ "hidden_activation": "relu" }), "unsupported-model", "`hidden_activation`"),
            (json!({ "use_bidirectional_attention": true }), "unsupported-model", "`use_bidirectional_attention`"),
        ] {
            let mut config = json!({ "model_type": "gemma3_text", "num_hidden_layers": 2 });
            config.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let error = windows(config).unwrap_err();
            assert!(error.code() == code && error.to_string().contains(text), "{change}: {error}");
        }
    }

    #[test]
    fn some_layers_know_no_positions() {
        let ropes = |config: serde_json::Value| -> Vec<usize> {
            let config = LlamaConfig::parse(&golden::file(config), None).unwrap();
            assert!(config.ropes[1].inverse_frequencies(config.head_dim).iter().all(|frequency| *frequency == 0.0));
            config.kinds.iter().map(|kind| kind.rope).collect()
        };
        assert_eq!(ropes(json!({ "model_type": "smollm3", "num_hidden_layers": 5 })), [0, 0, 0, 1, 0]);
        let list = json!({ "model_type": "smollm3", "num_hidden_layers": 3, "no_rope_layers": [0, 1, 1] });
        assert_eq!(ropes(list), [1, 0, 0]);
    }

    #[test]
    fn sections_go_to_the_rope() {
        let rope = json!({ "type": "mrope", "mrope_section": [16, 24, 24] });
        let config = json!({ "model_type": "qwen2", "hidden_size": 4096, "rope_scaling": rope });
        let sections = LlamaConfig::parse(&golden::file(config), None).unwrap().ropes[0].sections.unwrap();
        assert_eq!((sections.sizes, sections.interleaved), ([16, 24, 24], false));
    }
}
