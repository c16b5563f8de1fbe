//! The tensor of a model that a tensor of an adapter is for, whichever layout each has its names in.

/// The names under which the layouts of a family keep the same tensors. Each list has prefixes that mean the same, the first that a model
/// has being the one that is read.
#[derive(Clone, Copy, Debug)]
pub struct Layouts {
    /// Of the language model.
    pub text: &'static [&'static str],
    /// Of the output layer, without `.weight`.
    pub head: &'static [&'static str],
    /// Of the vision tower and what stands behind it.
    pub others: &'static [&'static [&'static str]],
}

impl Layouts {
    /// Of a family that says nothing else: a name that a model does not have is never found.
    pub const USUAL: Layouts = Layouts {
        text: &["language_model.model.", "model.language_model.", "model.text_model.", "model."],
        // The first is looked for by every family, and where embeddings and output layer part it gets a tensor.
        head: &["lm_head", "language_model.lm_head"],
        others: &[
            &["vision_tower.vision_model.", "model.vision_tower.vision_model.", "model.vision_tower.", "vision_tower."],
            &["multi_modal_projector.", "model.multi_modal_projector."],
            &["visual.", "model.visual."],
            &["image_newline", "model.image_newline"],
        ],
    };

    fn groups(&self) -> impl Iterator<Item = &'static [&'static str]> {
        self.others.iter().copied().chain([self.text, self.head])
    }

    /// The name that the model has for the tensor `name` of some layout; None where it has none.
    pub(super) fn find(&self, name: &str, has: impl Fn(&str) -> bool) -> Option<String> {
        let in_layouts = self.groups().find_map(|group| {
            let rests = group.iter().filter_map(|prefix| name.strip_prefix(prefix));
            rests
                .flat_map(|rest| group.iter().map(move |prefix| format!("{prefix}{rest}")))
                .find(|candidate| has(candidate))
        });
        in_layouts.or_else(|| has(name).then(|| name.to_owned()))
    }

    /// The name of the output layer's weights; None where the model has none, because its embeddings are its output layer.
    pub(super) fn head(&self, has: impl Fn(&str) -> bool) -> Option<String> {
        self.head.iter().map(|prefix| format!("{prefix}.weight")).find(|name| has(name))
    }

    /// Whether a tensor is the output layer's.
    pub(super) fn is_head(&self, name: &str) -> bool {
        self.head.iter().any(|prefix| name.strip_prefix(prefix) == Some(".weight"))
    }

    /// The name of the embeddings.
    pub(super) fn embeddings(&self, has: impl Fn(&str) -> bool) -> Option<String> {
        self.text.iter().map(|prefix| format!("{prefix}embed_tokens.weight")).find(|name| has(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAVA: Layouts = Layouts {
        text: &["language_model.model.", "model.language_model."],
        head: &["language_model.lm_head", "lm_head"],
        others: &[&[
            "vision_tower.vision_model.",
            "model.vision_tower.vision_model.",
            "model.vision_tower.",
            "vision_tower.",
        ]],
    };
    const QWEN: Layouts = Layouts {
        text: &["model.language_model.", "model."],
        head: &["lm_head"],
        others: &[&["model.visual.", "visual."]],
    };

    #[test]
    fn both_layouts_find_both() {
        for (layouts, one, other) in [
            (
                LLAVA,
                "language_model.model.layers.0.mlp.up_proj.weight",
                "model.language_model.layers.0.mlp.up_proj.weight",
            ),
            (LLAVA, "language_model.lm_head.weight", "lm_head.weight"),
            (
                LLAVA,
                "vision_tower.vision_model.encoder.layers.1.mlp.fc1.weight",
                "model.vision_tower.encoder.layers.1.mlp.fc1.weight",
            ),
            (LLAVA, "model.vision_tower.vision_model.post_layernorm.bias", "vision_tower.post_layernorm.bias"),
            (QWEN, "model.layers.0.self_attn.q_proj.weight", "model.language_model.layers.0.self_attn.q_proj.weight"),
            (QWEN, "visual.blocks.0.attn.qkv.weight", "model.visual.blocks.0.attn.qkv.weight"),
        ] {
            for (asked, held) in [(one, other), (other, one), (one, one), (other, other)] {
                assert_eq!(layouts.find(asked, |name| name == held).as_deref(), Some(held), "{asked}");
            }
            assert_eq!(layouts.find(one, |_| false), None);
        }
    }

    /// Those of a text model too, whose class had no tower.
    #[test]
    fn the_usual_layouts_find_their_way() {
        for (asked, held) in [
            ("model.layers.0.mlp.up_proj.weight", "language_model.model.layers.0.mlp.up_proj.weight"),
            ("language_model.model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
            ("model.text_model.layers.0.mlp.up_proj.weight", "model.text_model.layers.0.mlp.up_proj.weight"),
            (
                "model.vision_model.encoder.layers.0.mlp.fc1.weight",
                "model.vision_model.encoder.layers.0.mlp.fc1.weight",
            ),
            ("model.visual.patch_embed.proj.weight", "visual.patch_embed.proj.weight"),
            ("model.image_newline", "image_newline"),
            ("lm_head.weight", "language_model.lm_head.weight"),
        ] {
            assert_eq!(Layouts::USUAL.find(asked, |name| name == held).as_deref(), Some(held), "{asked}");
        }
    }

    /// The one that a family reads.
    #[test]
    fn of_two_layouts_the_first_counts() {
        let both = |name: &str| name.ends_with("norm.weight");
        for asked in ["language_model.model.norm.weight", "model.language_model.norm.weight"] {
            assert_eq!(LLAVA.find(asked, both).as_deref(), Some("language_model.model.norm.weight"));
        }
    }

    #[test]
    fn heads_and_embeddings_are_told() {
        assert!(LLAVA.is_head("lm_head.weight") && LLAVA.is_head("language_model.lm_head.weight"));
        assert!(!LLAVA.is_head("lm_head.bias") && !LLAVA.is_head("model.lm_head.weight"));
        assert_eq!(LLAVA.head(|_| true).as_deref(), Some("language_model.lm_head.weight"));
        assert_eq!(QWEN.head(|_| false), None);
        let flat = |name: &str| name == "model.embed_tokens.weight";
        assert_eq!(QWEN.embeddings(flat).as_deref(), Some("model.embed_tokens.weight"));
    }
}
