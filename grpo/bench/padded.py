"""The plain way to a completion's log-probs: a padded row for each, its prompt repeated, logits at every position.

Nothing trains with it. It is what the packed way is compared with, by tests for its numbers and by `grpo bench` for its
time and memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grpo.records import PromptTree


def padded_logprobs(
    model: Any, trees: Sequence[PromptTree], temperature: float, *, entropy_gradient: bool = False
) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies of all completion tokens, both (N,), in the order of `Packed`, in nats.

    `model` is as transformers loads it, with any attention but ours. Prompts are padded on the left and completions on
    the right, so that the completions' logits are the last columns; the entropies have a gradient only where asked.
    """
    device = model.device
    rows = [(tree.prompt_ids, branch.token_ids) for tree in trees for branch in tree.branches]
    before, after = (max(map(len, part)) for part in zip(*rows, strict=True))
    ids = torch.zeros(len(rows), before + after, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, (prompt, completion) in enumerate(rows):
        filled = slice(before - len(prompt), before + len(completion))
        ids[number, filled] = torch.from_numpy(np.concatenate([prompt, completion])).long()
        mask[number, filled] = 1
    ids, mask = ids.to(device), mask.to(device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    logits = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
    log_probs = (logits[:, before - 1 : -1].float() / temperature).log_softmax(-1)
    logps = log_probs.gather(-1, ids[:, before:, None]).squeeze(-1)
    with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
        entropies = -(log_probs.exp() * log_probs).sum(-1)
    written = mask[:, before:].bool()
    return logps[written], entropies[written]
