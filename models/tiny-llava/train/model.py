"""The network in plain torch, with the weight names of a Hugging Face checkpoint.

Writing it out keeps the training step small on a CPU (no masks rebuilt, no
cache, the vocabulary head only where a token is trained) and shows the whole
architecture on one page. `save` writes a folder that
`LlavaForConditionalGeneration.from_pretrained` loads without custom code.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

SHIPPED = Path(__file__).resolve().parent.parent
COMPANIONS = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
]


def attend(q, k, v, mask=None):
    """q, k, v: (batch, heads, tokens, size); mask: additive, (batch, 1, tokens, tokens)."""
    if mask is not None:
        mask = mask.to(v.dtype)
    return F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, attn_mask=mask)


def split_heads(x, heads):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class ClipAttention(nn.Module):
    def __init__(self, size, heads):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(size, size) for _ in range(4))

    def forward(self, x):
        q, k, v = (split_heads(p(x), self.heads) for p in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(attend(q, k, v).transpose(1, 2).flatten(2))


class ClipMlp(nn.Module):
    def __init__(self, size, inner):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(size, inner), nn.Linear(inner, size)

    def forward(self, x):
        x = self.fc1(x)
        return self.fc2(x * torch.sigmoid(1.702 * x))


class ClipLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        size, eps = c["hidden_size"], c["layer_norm_eps"]
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(size, eps), nn.LayerNorm(size, eps)
        self.self_attn = ClipAttention(size, c["num_attention_heads"])
        self.mlp = ClipMlp(size, c["intermediate_size"])

    def forward(self, x):
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class ClipEmbeddings(nn.Module):
    def __init__(self, c):
        super().__init__()
        size, patch = c["hidden_size"], c["patch_size"]
        self.class_embedding = nn.Parameter(torch.zeros(size))
        self.patch_embedding = nn.Conv2d(3, size, patch, patch, bias=False)
        self.position_embedding = nn.Embedding((c["image_size"] // patch) ** 2 + 1, size)

    def forward(self, pixels):
        x = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1)
        return x + self.position_embedding.weight


class ClipEncoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.layers = nn.ModuleList(ClipLayer(c) for _ in range(c["num_hidden_layers"]))


class ClipModel(nn.Module):
    def __init__(self, c):
        super().__init__()
        size, eps = c["hidden_size"], c["layer_norm_eps"]
        self.embeddings = ClipEmbeddings(c)
        self.pre_layrnorm = nn.LayerNorm(size, eps)
        self.encoder = ClipEncoder(c)
        # Not used: LLaVA reads the last hidden state before it. Kept for the standard weight names.
        self.post_layernorm = nn.LayerNorm(size, eps)

    def forward(self, pixels):
        x = self.pre_layrnorm(self.embeddings(pixels))
        for layer in self.encoder.layers:
            x = layer(x)
        return x[:, 1:]


class VisionTower(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.vision_model = ClipModel(c)


class Projector(nn.Module):
    def __init__(self, seen, size):
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(seen, size), nn.Linear(size, size)

    def forward(self, x):
        return self.linear_2(F.gelu(self.linear_1(x)))


class RmsNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x):
        return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)


class LlamaAttention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads = c["num_attention_heads"]
        size, inner = c["hidden_size"], c["num_attention_heads"] * c["head_dim"]
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(size, inner, bias=False) for _ in range(3))
        self.o_proj = nn.Linear(inner, size, bias=False)

    def forward(self, x, rotary, mask):
        q, k, v = (split_heads(p(x), self.heads) for p in (self.q_proj, self.k_proj, self.v_proj))
        return self.o_proj(attend(turn(q, rotary), turn(k, rotary), v, mask).transpose(1, 2).flatten(2))


def turn(x, rotary):
    cos, sin = rotary
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class LlamaMlp(nn.Module):
    def __init__(self, c):
        super().__init__()
        size, inner = c["hidden_size"], c["intermediate_size"]
        self.gate_proj, self.up_proj = (nn.Linear(size, inner, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(inner, size, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class LlamaLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        size, eps = c["hidden_size"], c["rms_norm_eps"]
        self.input_layernorm, self.post_attention_layernorm = RmsNorm(size, eps), RmsNorm(size, eps)
        self.self_attn, self.mlp = LlamaAttention(c), LlamaMlp(c)

    def forward(self, x, rotary, mask):
        x = x + self.self_attn(self.input_layernorm(x), rotary, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class LlamaModel(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.theta, self.head = c["rope_theta"], c["head_dim"]
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(LlamaLayer(c) for _ in range(c["num_hidden_layers"]))
        self.norm = RmsNorm(c["hidden_size"], c["rms_norm_eps"])

    def rotary(self, positions):
        turns = self.theta ** (-torch.arange(0, self.head, 2, device=positions.device).float() / self.head)
        angle = positions[:, None, :, None].float() * turns
        return angle.cos(), angle.sin()


class LanguageModel(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.model = LlamaModel(c)


class TinyLlava(nn.Module):
    def __init__(self, config: dict | None = None, seed: int | None = None):
        super().__init__()
        self.config = config or json.loads((SHIPPED / "config.json").read_text())
        vision, text = self.config["vision_config"], self.config["text_config"]
        self.image_token = self.config["image_token_index"]
        self.vision_tower = VisionTower(vision)
        self.multi_modal_projector = Projector(vision["hidden_size"], text["hidden_size"])
        self.language_model = LanguageModel(text)
        if seed is not None:
            self._start(seed)

    def _start(self, seed):
        random = torch.Generator().manual_seed(seed)
        for name, p in self.named_parameters():
            if p.dim() > 1:
                std = p[0].numel() ** -0.5
                if "embed_tokens" in name:
                    std = 0.02
                elif "position_embedding" in name:
                    # Loud enough to be read beside the patches from the first step on.
                    std = 0.5
                with torch.no_grad():
                    p.normal_(0, std, generator=random)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def see(self, pixels):
        """(batch, 3, 168, 168) -> (batch, 144, 192)"""
        return self.multi_modal_projector(self.vision_tower.vision_model(pixels))

    def read(self, ids, image, positions, mask, probe_after: int | None = None):
        """The normed last hidden state, and the residual stream after `probe_after` blocks."""
        llama = self.language_model.model
        # The residual stream stays float32 whatever the matrices compute in.
        x = llama.embed_tokens(ids).masked_scatter((ids == self.image_token)[..., None], image.float())
        rotary, middle = llama.rotary(positions), None
        for number, layer in enumerate(llama.layers, 1):
            x = layer(x, rotary, mask)
            if number == probe_after:
                middle = x
        return llama.norm(x), middle

    def words(self, hidden):
        return F.linear(hidden, self.language_model.model.embed_tokens.weight)

    def save(self, folder: Path, tokenizer: Path | None = None):
        folder = Path(folder)
        if folder.resolve() == SHIPPED:
            raise ValueError("refusing to overwrite the shipped weights; choose another folder")
        folder.mkdir(parents=True, exist_ok=True)
        for name in COMPANIONS:
            shutil.copyfile(SHIPPED / name, folder / name)
        if tokenizer:
            shutil.copyfile(tokenizer, folder / "tokenizer.json")
        weights = {k: v.detach().half().contiguous() for k, v in self.state_dict().items()}
        save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})

    @classmethod
    def load(cls, folder: Path) -> "TinyLlava":
        model = cls(json.loads((Path(folder) / "config.json").read_text()))
        model.load_state_dict({k: v.float() for k, v in load_file(str(Path(folder) / "model.safetensors")).items()})
        return model
