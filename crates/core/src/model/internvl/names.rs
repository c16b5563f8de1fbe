//! The two layouts of files: what architectures and tensors are called.

/// Names in one layout. Those of layers are behind the tower's own name and the layer's number.
#[derive(Debug)]
pub(super) struct Names {
    pub architecture: &'static str,
    pub model_type: &'static str,
    /// Where the language model, its head, the tower and the connector are.
    pub text: &'static [&'static str],
    pub head: &'static [&'static str],
    pub tower: &'static [&'static str],
    pub connector: &'static [&'static str],
    pub class: &'static str,
    pub positions: &'static str,
    pub patches: &'static str,
    pub layer: &'static str,
    /// Of queries, keys and values: three, or one for all.
    pub fused: &'static [&'static str],
    /// Of queries and keys.
    pub head_norms: [&'static str; 2],
    pub output: &'static str,
    /// Before attention and before the MLP.
    pub norms: [&'static str; 2],
    /// By which the results of attention and of the MLP are multiplied.
    pub scales: [&'static str; 2],
    pub mlp: [&'static str; 2],
    /// Behind the last layer.
    pub last_norm: &'static str,
    /// Of the connector: norm and linear layers.
    pub layers: [&'static str; 3],
}

pub(super) const ALL: [&Names; 2] = [&OWN, &ORIGINAL];

/// As transformers has them, with the names of its earlier versions, which most files have.
pub(super) const OWN: Names = Names {
    architecture: "InternVLForConditionalGeneration",
    model_type: "internvl",
    text: &["language_model.model.", "model.language_model."],
    head: &["language_model.lm_head", "lm_head"],
    tower: &["vision_tower.", "model.vision_tower."],
    connector: &["multi_modal_projector.", "model.multi_modal_projector."],
    class: "embeddings.cls_token",
    positions: "embeddings.position_embeddings",
    patches: "embeddings.patch_embeddings.projection",
    layer: "encoder.layer.",
    fused: &["attention.q_proj", "attention.k_proj", "attention.v_proj"],
    head_norms: ["attention.q_norm", "attention.k_norm"],
    output: "attention.projection_layer",
    norms: ["layernorm_before", "layernorm_after"],
    scales: ["lambda_1", "lambda_2"],
    mlp: ["mlp.fc1", "mlp.fc2"],
    last_norm: "layernorm",
    layers: ["layer_norm", "linear_1", "linear_2"],
};

/// As OpenGVLab's code has them.
pub(super) const ORIGINAL: Names = Names {
    architecture: "InternVLChatModel",
    model_type: "internvl_chat",
    text: &["language_model.model."],
    head: &["language_model.lm_head"],
    tower: &["vision_model."],
    connector: &["mlp1."],
    class: "embeddings.class_embedding",
    positions: "embeddings.position_embedding",
    patches: "embeddings.patch_embedding",
    layer: "encoder.layers.",
    fused: &["attn.qkv"],
    head_norms: ["attn.q_norm", "attn.k_norm"],
    output: "attn.proj",
    norms: ["norm1", "norm2"],
    scales: ["ls1", "ls2"],
    mlp: ["mlp.fc1", "mlp.fc2"],
    last_norm: "layernorm",
    layers: ["0", "1", "3"],
};
