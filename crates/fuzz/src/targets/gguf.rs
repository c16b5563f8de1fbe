//! GGUF files: headers, tensors, configurations and tokenizers, and vision towers beside a language model.

use std::fs;
use std::sync::Arc;

use prefixkv_core::model::{Asked, Model, Vision};
use prefixkv_core::text::Tokenizer;
use prefixkv_core::weights::Checkpoint;
use prefixkv_core::weights::gguf::Gguf;

use crate::target::{Kind, Target, outcome};

pub const TARGET: Target = Target {
    name: "gguf",
    reads: "GGUF files (header, metadata, tensors, the configuration and the tokenizer that they come to; as a model and as its tower)",
    kind: Kind::Bytes,
    memory: 64 << 20,
    short: 3000,
    words: || {
        &[
            "GGUF",
            "general.architecture",
            "general.alignment",
            "llama",
            "qwen2",
            "qwen3",
            "llama.attention.head_count",
            "llama.block_count",
            "llama.rope.scaling.type",
            "tokenizer.ggml.model",
            "tokenizer.ggml.pre",
            "tokenizer.ggml.tokens",
            "tokenizer.ggml.token_type",
            "tokenizer.ggml.scores",
            "tokenizer.ggml.merges",
            "tokenizer.chat_template",
            "rope_freqs.weight",
            "blk.0.attn_q.weight",
            "clip",
            "clip.projector_type",
            "mlp",
            "idefics3",
            "qwen2vl_merger",
            "qwen2.5vl_merger",
            "qwen3vl_merger",
            "clip.vision.block_count",
            "clip.vision.feature_layer",
            "clip.vision.n_wa_pattern",
            "clip.vision.is_deepstack_layers",
            "clip.use_gelu",
            "v.patch_embd.weight.1",
            "v.blk.0.attn_qkv.weight",
            "v.deepstack.0.norm.weight",
            "mm.model.fc.weight",
        ]
    },
    seeds,
    run,
};

/// Writes GGUF files.
#[derive(Default)]
struct Writer {
    keys: Vec<u8>,
    count: u64,
    tensors: Vec<u8>,
    tensor_count: u64,
    data: Vec<u8>,
}

impl Writer {
    fn text(to: &mut Vec<u8>, text: &str) {
        to.extend((text.len() as u64).to_le_bytes());
        to.extend(text.as_bytes());
    }

    fn key(&mut self, key: &str, kind: u32) {
        Writer::text(&mut self.keys, key);
        self.keys.extend(kind.to_le_bytes());
        self.count += 1;
    }

    fn said(&mut self, key: &str, text: &str) {
        self.key(key, 8);
        Writer::text(&mut self.keys, text);
    }

    fn size(&mut self, key: &str, value: u32) {
        self.key(key, 4);
        self.keys.extend(value.to_le_bytes());
    }

    fn list(&mut self, key: &str, kind: u32, count: usize) {
        self.key(key, 9);
        self.keys.extend(kind.to_le_bytes());
        self.keys.extend((count as u64).to_le_bytes());
    }

    fn texts(&mut self, key: &str, texts: &[&str]) {
        self.list(key, 8, texts.len());
        texts.iter().for_each(|text| Writer::text(&mut self.keys, text));
    }

    fn tensor(&mut self, name: &str, sizes: &[u64], kind: u32, bytes: usize) {
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        Writer::text(&mut self.tensors, name);
        self.tensors.extend((sizes.len() as u32).to_le_bytes());
        sizes.iter().for_each(|size| self.tensors.extend(size.to_le_bytes()));
        self.tensors.extend(kind.to_le_bytes());
        self.tensors.extend((self.data.len() as u64).to_le_bytes());
        self.tensor_count += 1;
        self.data.extend((0..bytes).map(|index| (index * 7) as u8 & 0x3f));
    }

    fn bytes(self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend(self.tensor_count.to_le_bytes());
        out.extend(self.count.to_le_bytes());
        out.extend(self.keys);
        out.extend(self.tensors);
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(self.data);
        out
    }
}

fn model(architecture: &str, tokenizer: &str) -> Vec<u8> {
    let mut file = Writer::default();
    file.said("general.architecture", architecture);
    for (name, value) in [
        ("block_count", 1),
        ("embedding_length", 8),
        ("feed_forward_length", 8),
        ("context_length", 32),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 1),
    ] {
        file.size(&format!("{architecture}.{name}"), value);
    }
    file.key(&format!("{architecture}.attention.layer_norm_rms_epsilon"), 6);
    file.keys.extend(1e-5f32.to_le_bytes());
    file.said("tokenizer.ggml.model", tokenizer);
    file.said("tokenizer.ggml.pre", "qwen2");
    file.texts("tokenizer.ggml.tokens", &["<unk>", "</s>", "a", "b", "ab", "\u{2581}", "<image>", "<|image_pad|>"]);
    file.list("tokenizer.ggml.token_type", 5, 8);
    file.keys.extend([2, 3, 1, 1, 1, 1, 3, 3i32].map(i32::to_le_bytes).concat());
    file.list("tokenizer.ggml.scores", 6, 8);
    file.keys.extend([0.0, 0.0, -1.0, -2.0, -3.0, -4.0, 0.0, 0.0f32].map(f32::to_le_bytes).concat());
    file.texts("tokenizer.ggml.merges", &["a b"]);
    file.size("tokenizer.ggml.eos_token_id", 1);
    file.size("tokenizer.ggml.unknown_token_id", 0);
    file.said("tokenizer.chat_template", "{{ messages[0].content }}");
    file.tensor("token_embd.weight", &[8, 8], 0, 256);
    file.tensor("rope_freqs.weight", &[2], 0, 8);
    file.tensor("blk.0.attn_q.weight", &[8, 8], 1, 128);
    file.tensor("blk.0.ffn_down.weight", &[32, 2], 8, 68);
    file.bytes()
}

/// A tower for a language model that is 8 wide.
fn tower(projector: &str, tensors: &[(&str, &[u64])]) -> Vec<u8> {
    let mut file = Writer::default();
    file.said("general.architecture", "clip");
    file.said("clip.projector_type", projector);
    for (name, value) in [
        ("block_count", 1),
        ("embedding_length", 8),
        ("attention.head_count", 2),
        ("image_size", 16),
        ("patch_size", 4),
        ("n_wa_pattern", 2),
    ] {
        file.size(&format!("clip.vision.{name}"), value);
    }
    file.key("clip.vision.attention.layer_norm_epsilon", 6);
    file.keys.extend(1e-5f32.to_le_bytes());
    file.key("clip.use_gelu", 7);
    file.keys.push(1);
    file.list("clip.vision.image_mean", 6, 3);
    file.keys.extend([0.5, 0.5, 0.5f32].map(f32::to_le_bytes).concat());
    file.list("clip.vision.feature_layer", 5, 1);
    file.keys.extend(1i32.to_le_bytes());
    file.list("clip.vision.is_deepstack_layers", 7, 1);
    file.keys.push(1);
    let common: [(&str, &[u64]); 3] = [
        ("v.blk.0.ffn_up.weight", &[8, 16]),
        ("v.blk.0.ffn_down.weight", &[16, 8]),
        ("v.patch_embd.weight", &[4, 4, 3, 8]),
    ];
    for (name, sizes) in common.iter().chain(tensors) {
        file.tensor(name, sizes, 1, 2 * sizes.iter().product::<u64>() as usize);
    }
    file.bytes()
}

fn seeds() -> Vec<Vec<u8>> {
    vec![
        model("llama", "llama"),
        model("llama", "gpt2"),
        model("qwen2", "gpt2"),
        model("qwen3vl", "gpt2"),
        tower("mlp", &[("mm.2.weight", &[8, 8]), ("v.blk.0.attn_q.weight", &[8, 8])]),
        tower("idefics3", &[("mm.model.fc.weight", &[32, 8])]),
        tower("qwen2vl_merger", &[("mm.2.weight", &[32, 8]), ("v.patch_embd.weight.1", &[4, 4, 3, 8])]),
        tower(
            "qwen3vl_merger",
            &[("mm.2.weight", &[32, 8]), ("v.position_embd.weight", &[8, 16]), ("v.deepstack.0.fc1.weight", &[8, 8])],
        ),
    ]
}

fn run(data: &[u8]) -> String {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("model.gguf");
    fs::write(&path, data).expect("a temporary file");
    const CODES: &[&str] = &["model-file", "unsupported-model"];
    let opened = Gguf::open(&path);
    let Ok(file) = opened else { return outcome(&opened, CODES) };
    let file = Arc::new(file);
    let mut kind = format!("ok {}", file.tensors().count().max(1).ilog2());
    kind.push_str(&outcome(&Tokenizer::from_gguf(file.metadata(), None), CODES));
    kind.push_str(&outcome(&Model::inspect(&path, &Vision::Beside, None), CODES));
    for architecture in ["llama", "qwen2vl", "qwen3vl"] {
        let text = dir.path().join("text.gguf");
        fs::write(&text, model(architecture, "gpt2")).expect("a temporary file");
        let inspected =
            Model::inspect(&text, &Vision::File(path.clone()), Some(&Asked { width: 30, height: 20, timing: None }));
        kind.push_str(&outcome(&inspected, &[CODES, &["image"]].concat()));
    }
    let checkpoint = Checkpoint::of_gguf(file.clone(), false);
    kind.push_str(&outcome(&checkpoint, CODES));
    let Ok(checkpoint) = checkpoint else { return kind };
    assert!(checkpoint.fingerprint().expect("a fingerprint").starts_with("sha256:"));
    for name in
        ["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.down_proj.weight"]
    {
        for shape in [[8, 8], [2, 32]] {
            kind.push_str(&outcome(&checkpoint.f32(name, &shape), CODES));
        }
    }
    kind
}
