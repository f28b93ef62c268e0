"""The learning rate of each update."""

from __future__ import annotations

import math

from grpo.recipe.sections import UpdateSection


def learning_rate(settings: UpdateSection, step: int, num_steps: int) -> float:
    """The rate of update `step` of `num_steps`, counted from 0.

    Of w warm-up updates, number k has (k + 1) / w of the full rate, so that the last of them has all of it. A decay
    starts at the full rate in update w and ends at exactly 0 in the last one: where it has gone
    p = (k - w) / (num_steps - 1 - w) of its way, linear leaves 1 - p of the full rate, and cosine (1 + cos(pi p)) / 2.
    Where only one update follows the warm-up it has the full rate.

    Other trainers spread the decay over one update more (`get_linear_schedule_with_warmup` of transformers), so that it
    would reach 0 only after the end. Here the last update moves nothing, and the last step's metrics are therefore of
    the weights that the run leaves behind.
    """
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, num_steps - 1 - settings.warmup_steps)
    if settings.schedule == "linear":
        return settings.lr * (1 - progress)
    if settings.schedule == "cosine":
        return settings.lr * 0.5 * (1 + math.cos(math.pi * progress))
    return settings.lr
