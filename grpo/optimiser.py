"""AdamW with a learning rate that follows the recipe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from grpo.config import UpdateSection


def make_optimiser(trained: Sequence[torch.nn.Parameter], settings: UpdateSection) -> torch.optim.AdamW:
    """AdamW over what is trained. Matrices decay; gains and biases do not."""
    matrices = [parameter for parameter in trained if parameter.dim() >= 2]
    vectors = [parameter for parameter in trained if parameter.dim() < 2]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, fused=True)


def learning_rate(settings: UpdateSection, step: int, num_steps: int) -> float:
    """The rate of update `step`, counted from 0: linear warm-up, then constant or a decay to zero at the end."""
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, num_steps - settings.warmup_steps)
    if settings.schedule == "linear":
        return settings.lr * (1 - progress)
    if settings.schedule == "cosine":
        return settings.lr * 0.5 * (1 + math.cos(math.pi * progress))
    return settings.lr
