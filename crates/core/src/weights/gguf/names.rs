//! The architectures of GGUF files: how each names its tensors, and how it has them otherwise than Hugging Face.

use super::Gguf;
use crate::error::{Error, Result};

/// An architecture of GGUF files that loads.
#[derive(Debug)]
pub(crate) struct Architecture {
    /// `general.architecture`.
    pub(crate) name: &'static str,
    /// `model_type` in Hugging Face's configuration.
    pub(crate) model_type: &'static str,
    /// Whether rows of queries and keys lie so that neighbouring channels turn together; Hugging Face turns channel `c` of a head of width
    /// `d` together with `c + d / 2`.
    neighbours: bool,
    /// Parts of a layer beside [`LAYER`], or with other names than there.
    more: &'static [(&'static str, &'static str)],
    /// Tensors beside [`OUTER`] that are no part of a layer.
    outer: &'static [(&'static str, &'static str)],
    /// Keys that are refused elsewhere.
    pub(crate) knows: &'static [&'static str],
    /// Whether its class knows which layers have a window.
    pub(crate) windows: bool,
    /// As many layers as a model has whose scores are scaled by `hidden / heads`, and not by the width of a head; the file does not say it.
    pub(crate) scaled_by_hidden: Option<usize>,
}

/// Whose rows the rows of a tensor are, where their order differs from Hugging Face's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turned {
    No,
    Queries,
    Keys,
}

/// Tensors that are no part of a layer.
const OUTER: &[(&str, &str)] = &[
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
    (ROPE, ROPE),
];

/// The numbers by which frequencies of rotary embedding are divided.
pub(crate) const ROPE: &str = "rope_freqs.weight";

/// The same of LongRoPE, for sequences of up to the length that the model was first made for, and for longer ones.
pub(crate) const SHORT_ROPE: &str = "rope_factors_short.weight";
pub(crate) const LONG_ROPE: &str = "rope_factors_long.weight";

/// The parts of a layer, between `blk.N.` and `.weight` or `.bias`.
const LAYER: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

const HEAD_NORMS: &[(&str, &str)] = &[("attn_q_norm", "self_attn.q_norm"), ("attn_k_norm", "self_attn.k_norm")];

const GEMMA2: &[(&str, &str)] = &[
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];

const GEMMA3: &[(&str, &str)] = &[HEAD_NORMS[0], HEAD_NORMS[1], GEMMA2[0], GEMMA2[1], GEMMA2[2]];

/// Queries, keys and values are one tensor, and so are gate and up.
const PHI3: &[(&str, &str)] = &[("attn_qkv", "self_attn.qkv_proj"), ("ffn_up", "mlp.gate_up_proj")];

/// Llama and whatever llama.cpp converts as one: Mistral, SmolLM2.
const LLAMA: Architecture = Architecture {
    name: "llama",
    model_type: "llama",
    neighbours: true,
    more: &[],
    outer: &[],
    knows: &[],
    windows: false,
    scaled_by_hidden: None,
};

const ALL: &[Architecture] = &[
    LLAMA,
    Architecture { name: "qwen2", model_type: "qwen2", neighbours: false, ..LLAMA },
    Architecture { name: "qwen3", model_type: "qwen3", neighbours: false, more: HEAD_NORMS, ..LLAMA },
    // The language models of Qwen2-VL and Qwen2.5-VL, and of Qwen3-VL. Where there are no pictures they are those of Qwen2 and Qwen3.
    Architecture { name: "qwen2vl", model_type: "qwen2", neighbours: false, ..LLAMA },
    Architecture { name: "qwen3vl", model_type: "qwen3", neighbours: false, more: HEAD_NORMS, ..LLAMA },
    Architecture {
        name: "phi3",
        model_type: "phi3",
        neighbours: false,
        more: PHI3,
        outer: &[(SHORT_ROPE, SHORT_ROPE), (LONG_ROPE, LONG_ROPE)],
        windows: true,
        ..LLAMA
    },
    Architecture {
        name: "gemma2",
        model_type: "gemma2",
        neighbours: false,
        more: GEMMA2,
        knows: &["final_logit_softcapping"],
        windows: true,
        // The one of 27 billion parameters.
        scaled_by_hidden: Some(46),
        ..LLAMA
    },
    Architecture {
        name: "gemma3",
        model_type: "gemma3_text",
        neighbours: false,
        more: GEMMA3,
        knows: &["final_logit_softcapping"],
        windows: true,
        // The one of 27 billion parameters.
        scaled_by_hidden: Some(62),
        ..LLAMA
    },
];

/// `general.architecture` of a vision tower.
pub(crate) const TOWER: &str = "clip";

/// `general.architecture` of a file.
pub(crate) fn named(file: &Gguf) -> Result<&str> {
    const KEY: &str = "general.architecture";
    let metadata = file.metadata();
    metadata.text(KEY)?.ok_or_else(|| metadata.missing(KEY))
}

impl Architecture {
    /// The architecture of a file.
    ///
    /// # Errors
    /// [`Error::UnsupportedModel`] when it is not known, and for a vision tower without its language model.
    pub(crate) fn of(file: &Gguf) -> Result<&'static Architecture> {
        let name = named(file)?;
        if let Some(found) = ALL.iter().find(|architecture| architecture.name == name) {
            return Ok(found);
        }
        let path = file.path().display();
        let reason = match name {
            TOWER => format!(
                "{path} holds a vision tower (mmproj) and no language model: load the file of the language model, with this one as its `vision`"
            ),
            _ => {
                // A name of anybody's, in a message.
                let name: String = name.chars().take(40).collect();
                let known: Vec<&str> = ALL.iter().map(|architecture| architecture.name).collect();
                format!("{path} has the architecture {name:?}; of GGUF files {} are read", known.join(", "))
            }
        };
        Err(Error::UnsupportedModel { reason, known: vec![] })
    }

    /// The name that Hugging Face has for a tensor, and whose rows it has in another order; None for a tensor that this architecture does
    /// not have.
    pub(super) fn hugging_face(&self, name: &str) -> Option<(String, Turned)> {
        if let Some((_, theirs)) = OUTER.iter().chain(self.outer).find(|(ours, _)| *ours == name) {
            return Some(((*theirs).to_owned(), Turned::No));
        }
        let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
        let (part, kind) = rest.rsplit_once('.')?;
        let number: u16 = layer.parse().ok()?;
        if !matches!(kind, "weight" | "bias") || number.to_string() != layer {
            return None;
        }
        let (_, theirs) = self.more.iter().chain(LAYER).find(|(ours, _)| *ours == part)?;
        let turned = match part {
            "attn_q" if self.neighbours => Turned::Queries,
            "attn_k" if self.neighbours => Turned::Keys,
            _ => Turned::No,
        };
        Some((format!("model.layers.{layer}.{theirs}.{kind}"), turned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_hugging_face() {
        let of = |name: &str| ALL.iter().find(|architecture| architecture.name == name).expect("is known");
        let [llama, qwen2, qwen3, gemma2, gemma3, phi3] =
            ["llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3"].map(of);
        let named = |architecture: &Architecture, name: &str| architecture.hugging_face(name);
        let plain = |name: &str| Some((name.to_owned(), Turned::No));
        assert_eq!(named(llama, "token_embd.weight"), plain("model.embed_tokens.weight"));
        assert_eq!(named(llama, "rope_freqs.weight"), plain("rope_freqs.weight"));
        let queries = "model.layers.12.self_attn.q_proj.weight";
        assert_eq!(named(llama, "blk.12.attn_q.weight"), Some((queries.into(), Turned::Queries)));
        assert_eq!(named(qwen2, "blk.12.attn_q.weight"), plain(queries));
        assert_eq!(
            named(llama, "blk.0.attn_k.bias"),
            Some(("model.layers.0.self_attn.k_proj.bias".into(), Turned::Keys))
        );
        assert_eq!(named(qwen3, "blk.3.attn_q_norm.weight"), plain("model.layers.3.self_attn.q_norm.weight"));
        for (ours, theirs) in [
            ("attn_norm", "input_layernorm"),
            ("post_attention_norm", "post_attention_layernorm"),
            ("ffn_norm", "pre_feedforward_layernorm"),
            ("post_ffw_norm", "post_feedforward_layernorm"),
        ] {
            let want = plain(&format!("model.layers.5.{theirs}.weight"));
            assert_eq!(named(gemma3, &format!("blk.5.{ours}.weight")), want);
            assert_eq!(named(gemma2, &format!("blk.5.{ours}.weight")), want);
        }
        assert_eq!(named(gemma3, "blk.5.attn_q_norm.weight"), plain("model.layers.5.self_attn.q_norm.weight"));
        assert_eq!(named(phi3, "blk.5.attn_qkv.weight"), plain("model.layers.5.self_attn.qkv_proj.weight"));
        assert_eq!(named(phi3, "blk.5.ffn_up.weight"), plain("model.layers.5.mlp.gate_up_proj.weight"));
        assert_eq!(named(phi3, LONG_ROPE), plain(LONG_ROPE));
        for (architecture, name) in [
            (llama, "blk.3.post_ffw_norm.weight"),
            (llama, LONG_ROPE),
            (llama, "blk.3.attn_qkv.weight"),
            (gemma2, "blk.3.attn_q_norm.weight"),
            (qwen2, "blk.3.attn_q_norm.weight"),
            (llama, "blk.03.attn_q.weight"),
            (llama, "blk.3.attn_q.scale"),
            (llama, "blk.x.attn_q.weight"),
            (llama, "blk.3.ffn_gate_exps.weight"),
            (llama, "blk.70000.attn_q.weight"),
            (llama, "attn_q.weight"),
        ] {
            assert_eq!(named(architecture, name), None, "{name}");
        }
    }
}
