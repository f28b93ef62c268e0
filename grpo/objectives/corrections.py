"""Weights, (N,), for the gap between the engine that wrote the tokens and the trainer that learns from them.

In the equations w = pi_old / pi_engine of one token: the trainer's policy before the update over the engine's, which
have the same weights and still do not compute the same numbers. W is the product of w over a completion, each of whose
tokens gets the same weight. Nothing here has a gradient. A token of weight 0 still counts in the denominator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from grpo.objectives.tokens import Tokens

Low = Annotated[float, Field(ge=0, le=1)]
High = Annotated[float, Field(ge=1)]


def none(tokens: Tokens) -> Tensor:
    """1: every token counts as if the trainer itself had written it."""
    return torch.ones_like(tokens.advantage)


def tis(tokens: Tokens, *, high: High = 2.0) -> Tensor:
    """min(w, high).

    Truncated importance sampling: Yao et al., "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training"
    (https://fengyao.notion.site/off-policy-rl). 2 is the usual bound (TRL, ms-swift, verl).
    """
    return torch.exp(_gap(tokens)).clamp(max=high)


def icepop(tokens: Tokens, *, low: Low = 0.5, high: High = 5.0) -> Tensor:
    """w where low <= w <= high, else 0: a token on which the two are too far apart teaches nothing.

    IcePop: Ring team, "Small Leak Can Sink a Great Ship: Boost RL Training on MoE with IcePop!"; written out in
    INTELLECT-3 (arXiv 2512.16144, equation 1). The bounds are the authors' alpha and beta.
    """
    return _masked(torch.exp(_gap(tokens)), low, high)


def sequence_tis(tokens: Tokens, *, high: High = 2.0) -> Tensor:
    """min(W, high).

    Liu, Li et al., "When Speed Kills Stability: Demystifying RL Collapse from the Training-Inference Mismatch"
    (https://richardli.xyz/rl-collapse): less biased than `tis` and of a larger variance, which grows with the length.
    """
    return torch.exp(tokens.sums(_gap(tokens))).clamp(max=high)


def sequence_mask(tokens: Tokens, *, low: Low = 0.5, high: High = 2.0) -> Tensor:
    """W where low <= W <= high, else 0. W is the product over the completion, not its geometric mean.

    The masked importance sampling of the same article, which sets no lower bound (low 0); verl's sequence-level weights
    with rejection have both, and there 2 and its reciprocal are usual. Long completions leave the bounds easily.
    """
    return _masked(torch.exp(tokens.sums(_gap(tokens))), low, high)


def _gap(tokens: Tokens) -> Tensor:
    return (tokens.proximal_logp - tokens.sampler_logp).detach()


def _masked(ratio: Tensor, low: float, high: float) -> Tensor:
    return torch.where((ratio >= low) & (ratio <= high), ratio, torch.zeros_like(ratio))


CORRECTIONS: dict[str, Callable[..., Tensor]] = {
    "none": none,
    "tis": tis,
    "icepop": icepop,
    "sequence_tis": sequence_tis,
    "sequence_mask": sequence_mask,
}
