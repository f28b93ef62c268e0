"""Log-probs of chosen tokens without ever holding the logits of all of them."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from grpo.model.products import add_product, keeps_fp32, product

HeadPrecision = Literal["bf16", "fp32"]
CHUNK_TOKENS = 512
"""Rows that meet the output head at once."""
MAX_SAVED_LOGIT_BYTES = 256 * 2**20
"""Logits that may wait for the backward pass; those of further rows are made a second time there."""
CPU_BLOCK_TOKENS = 32
"""Rows that a CPU normalises at once, few enough for its cache."""


def token_logprobs(
    hidden: Tensor,
    targets: Tensor,
    head: torch.nn.Linear,
    temperature: float = 1.0,
    *,
    entropy: bool = True,
    precision: HeadPrecision = "bf16",
    chunk_tokens: int = CHUNK_TOKENS,
    saved_bytes: int = MAX_SAVED_LOGIT_BYTES,
) -> tuple[Tensor, Tensor | None]:
    """Log-prob of each target and entropy of its distribution, both (N,), float32, in nats, both differentiable.

    `hidden` (N, D) are the last hidden states that predict `targets` (N,); `head` is a linear layer from D to V.
    Logits are divided by `temperature`, as the engine does when it samples, and normalised in float32. They are made
    `chunk_tokens` rows at a time, so that the peak is chunk_tokens x V, and what the backward pass needs of them at
    most `saved_bytes`, however large N is. Without `entropy` none is computed.

    Under autocast the head multiplies in the type that autocast has, or, with `precision` fp32, in float32. Products
    of bf16 matrices are handed on in float32 where the device can (CUDA); elsewhere (a CPU) logits are rounded to bf16.
    """
    kind = hidden.device.type
    autocasts = torch.is_autocast_enabled(kind)
    dtype = torch.float32 if autocasts and precision == "fp32" else hidden.dtype
    if autocasts and precision == "bf16":
        dtype = torch.get_autocast_dtype(kind)
    room = saved_bytes if torch.is_grad_enabled() else 0
    with torch.autocast(kind, enabled=False):
        logps, entropies = TokenLogprobs.apply(  # type: ignore[no-untyped-call]
            hidden.to(dtype), head.weight, head.bias, targets, temperature, entropy, chunk_tokens, room
        )
    return logps, entropies if entropy else None


class TokenLogprobs(torch.autograd.Function):
    """With z = logits / temperature, p = softmax(z) and H the entropy: the derivatives by z_j are, of the log-prob
    of target y, 1[j = y] - p_j, and of H, -p_j (log p_j + H).

    The head multiplies in the type of `hidden`. Its gradient is added up in float32, and what is added is not rounded
    either where the device has such products.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        entropy: bool,
        chunk_tokens: int,
        saved_bytes: int,
    ) -> tuple[Tensor, Tensor]:
        size = len(targets)
        weight = weight.to(hidden.dtype)
        bias = None if bias is None else bias.to(hidden.dtype)
        logps, log_norms, entropies = torch.empty(3, size, device=hidden.device).unbind()
        kept: list[Tensor | None] = []
        room = saved_bytes if any(ctx.needs_input_grad) else 0
        for rows in _slices(0, size, chunk_tokens):
            logits = _logits(hidden[rows], weight, bias)
            for block in _blocks(rows, hidden.device):
                z = logits[block.start - rows.start : block.stop - rows.start].float() / temperature
                peak = z.amax(-1)
                shifted = z.sub_(peak[:, None])
                weights = shifted.exp()
                total = weights.sum(-1)
                log_norms[block] = peak + total.log()
                # Not by way of the norm, which is rounded by as much as the logits are large.
                logps[block] = shifted.gather(-1, targets[block, None])[:, 0] - total.log()
                if entropy:
                    entropies[block] = total.log() - torch.linalg.vecdot(weights, shifted) / total
            size_bytes = logits.numel() * logits.element_size()
            keeps = size_bytes <= room
            room -= size_bytes if keeps else 0
            kept.append(logits if keeps else None)
        if not entropy:
            ctx.mark_non_differentiable(entropies)
        ctx.save_for_backward(hidden, weight, bias, targets, log_norms, entropies)
        ctx.set_materialize_grads(False)
        ctx.kept, ctx.temperature, ctx.chunk_tokens = kept, temperature, chunk_tokens
        return logps, entropies

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, log_norms, entropies = ctx.saved_tensors
        by_logp, by_entropy = grads
        if by_logp is None:
            by_logp = torch.zeros_like(log_norms)
        grad_hidden = torch.empty_like(hidden)
        _, for_weight, for_bias, *_ = ctx.needs_input_grad
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if for_weight else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if for_bias else None
        for number, rows in enumerate(_slices(0, len(targets), ctx.chunk_tokens)):
            logits = ctx.kept[number]
            if logits is None:
                logits = _logits(hidden[rows], weight, bias)
            ctx.kept[number] = None
            for block in _blocks(rows, hidden.device):
                here = logits[block.start - rows.start : block.stop - rows.start]
                log_probs = here.float().div_(ctx.temperature).sub_(log_norms[block, None])
                pull = -by_logp[block, None]
                if by_entropy is not None:
                    pull = pull - by_entropy[block, None] * (log_probs + entropies[block, None])
                by_z = log_probs.exp_().mul_(pull)
                by_z.scatter_add_(-1, targets[block, None], by_logp[block, None])
                here.copy_(by_z.div_(ctx.temperature))
            if grad_bias is not None:
                grad_bias += logits.float().sum(0)
            slopes = logits.to(hidden.dtype)
            torch.mm(slopes, weight, out=grad_hidden[rows])
            if grad_weight is not None:
                add_product(grad_weight, slopes.T, hidden[rows])
        return grad_hidden, grad_weight, grad_bias, None, None, None, None, None


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """In float32 where the device has such products, else in the type of `hidden`."""
    if not keeps_fp32(hidden.device, hidden.dtype):
        return functional.linear(hidden, weight, bias)
    logits = product(hidden, weight.T)
    return logits if bias is None else logits.add_(bias)


def _slices(start: int, stop: int, size: int) -> list[slice]:
    return [slice(first, min(first + size, stop)) for first in range(start, stop, size)]


def _blocks(rows: slice, device: torch.device) -> list[slice]:
    return _slices(rows.start, rows.stop, CPU_BLOCK_TOKENS) if device.type == "cpu" else [rows]
