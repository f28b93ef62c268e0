"""The learning rate of each update."""

from __future__ import annotations

import math

from grpo.recipe.sections import UpdateSection


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
