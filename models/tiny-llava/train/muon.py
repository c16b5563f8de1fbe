"""Muon for the matrices, AdamW for everything else."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import nn


def orthogonal(x: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Newton-Schulz: pushes the singular values of a stack of matrices towards 1."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    def __init__(self, groups, lr, momentum=0.95, decay=0.1):
        super().__init__(groups, dict(lr=lr, momentum=momentum, decay=decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            # Equal shapes go through Newton-Schulz together: one large product is much faster than many small ones.
            alike = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    alike[p.shape].append(p)
            for shape, params in alike.items():
                updates = []
                for p in params:
                    state = self.state[p]
                    if not state:
                        state["m"] = torch.zeros_like(p)
                    state["m"].lerp_(p.grad, 1 - group["momentum"])
                    updates.append(p.grad.lerp(state["m"], group["momentum"]).flatten(1))
                stack = orthogonal(torch.stack(updates))
                scale = 0.2 * max(stack.shape[-2:]) ** 0.5
                for p, u in zip(params, stack):
                    p.mul_(1 - group["lr"] * group["decay"])
                    p.add_(u.view(shape), alpha=-group["lr"] * scale)


class Optimiser:
    """Both optimisers as one, with the learning rates of a phase and one schedule."""

    def __init__(self, model: nn.Module, extra: nn.Module | None, muon: float, adam: float, vision_share: float):
        sides = {True: ([], []), False: ([], [])}
        for name, p in model.named_parameters():
            if "post_layernorm" in name and "vision" in name:
                continue
            matrix = p.dim() >= 2 and "embed_tokens" not in name and "position_embedding" not in name
            sides[name.startswith(("vision_tower", "multi_modal"))][0 if matrix else 1].append(p)
        share = {True: vision_share, False: 1.0}
        matrices = [dict(params=sides[s][0], lr=muon * share[s]) for s in sides]
        others = [dict(params=sides[s][1], lr=adam * share[s]) for s in sides]
        if extra is not None:
            others.append(dict(params=list(extra.parameters()), lr=adam))
        self.parts = [
            Muon(matrices, lr=muon),
            torch.optim.AdamW(others, lr=adam, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.params = [p for part in self.parts for g in part.param_groups for p in g["params"]]
        for part in self.parts:
            for g in part.param_groups:
                g["full"] = g["lr"]

    def step(self, factor: float):
        nn.utils.clip_grad_norm_([p for p in self.params if p.grad is not None], 1.0)
        for part in self.parts:
            for g in part.param_groups:
                g["lr"] = g["full"] * factor
            part.step()
            part.zero_grad(set_to_none=True)
