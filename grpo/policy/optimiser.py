"""AdamW with a learning rate that follows the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from grpo.recipe.sections import UpdateSection


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
