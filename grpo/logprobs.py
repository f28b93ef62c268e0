"""Log-probs of chosen tokens without ever holding the logits of all of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Head = Callable[[Tensor], Tensor]


def token_logprobs(
    hidden: Tensor, targets: Tensor, head: Head, temperature: float = 1.0, chunk_tokens: int = 512
) -> tuple[Tensor, Tensor]:
    """Log-prob of each target and entropy of its distribution, both (T,), float32, in nats.

    `hidden` (T, D) are the last hidden states that predict `targets` (T,); `head` maps (t, D) to logits (t, V).
    Logits are divided by `temperature`, as the engine does when it samples. They are made `chunk_tokens` rows at
    a time and made again in the backward pass, so that the peak is chunk_tokens x V however long T is. The
    entropy carries no gradient.
    """
    logps, entropies = [], []
    for rows, wanted in zip(torch.split(hidden, chunk_tokens), torch.split(targets, chunk_tokens), strict=True):
        logp, entropy = checkpoint(_chunk, rows, wanted, head, temperature, use_reentrant=False)
        logps.append(logp)
        entropies.append(entropy)
    return torch.cat(logps), torch.cat(entropies)


def _chunk(hidden: Tensor, targets: Tensor, head: Head, temperature: float) -> tuple[Tensor, Tensor]:
    logits = head(hidden).float() / temperature
    log_norm = logits.logsumexp(dim=-1)
    logp = logits.gather(-1, targets[:, None]).squeeze(-1) - log_norm
    with torch.no_grad():
        log_probs = logits - log_norm[:, None]
        entropy = -(log_probs.exp() * log_probs).sum(dim=-1)
    return logp, entropy
