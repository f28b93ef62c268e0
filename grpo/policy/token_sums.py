"""Sums over tokens that become metrics: each carries what it is divided by, so that ranks can be added."""

from __future__ import annotations

import torch
from torch import Tensor

from grpo.parallel.world import World


class TokenSums:
    """Adds up all passes over a batch: means are over the tokens of every pass, the loss is the mean pass's."""

    def __init__(self, num_passes: int = 1) -> None:
        self._num_passes = num_passes
        self._sums = dict.fromkeys(("loss", "tokens", "entropy", "clipped", "masked", "kl", "kl_tokens"), 0.0)
        self._gap_sums = dict.fromkeys(("tokens", "mean", "kl", "over_0p1", "over_1"), 0.0)

    def add(self, loss: Tensor, entropies: Tensor, clipped: Tensor, masked: Tensor, kl: Tensor | None) -> None:
        """One micro-batch: its share of the loss, and values per token, (N,); `kl` where there is a reference."""
        _accumulate(
            self._sums,
            loss=loss.detach(),
            tokens=len(entropies),
            entropy=entropies.sum(),
            clipped=clipped.sum(),
            masked=masked.sum(),
            kl=0 if kl is None else kl.detach().sum(),
            kl_tokens=0 if kl is None else len(kl),
        )

    def add_gap(self, gap: Tensor) -> None:
        """Policy minus sampler log-probs, (N,), while the policy is still the one that the engine ran."""
        sizes = gap.abs()
        _accumulate(
            self._gap_sums,
            tokens=len(gap),
            mean=sizes.sum(),
            # k3 of KL(sampler || policy), whose tokens were drawn from the sampler.
            kl=(torch.exp(gap) - gap - 1).sum(),
            over_0p1=(sizes > 0.1).sum(),
            over_1=(sizes > 1).sum(),
        )

    def metrics(self, world: World) -> dict[str, float]:
        """Means over all tokens of all ranks. A batch without tokens has only a loss, of zero."""
        sums = dict(zip(self._sums, world.sum(list(self._sums.values())), strict=True))
        gaps = dict(zip(self._gap_sums, world.sum(list(self._gap_sums.values())), strict=True))
        metrics = {"update/loss": sums["loss"] / self._num_passes}
        if tokens := sums["tokens"]:
            metrics["update/entropy_nats"] = sums["entropy"] / tokens
            metrics["update/clip_frac"] = sums["clipped"] / tokens
            metrics["update/masked_frac"] = sums["masked"] / tokens
        if tokens := sums["kl_tokens"]:
            metrics["update/kl_nats"] = sums["kl"] / tokens
        if tokens := gaps["tokens"]:
            metrics["gap/mean_nats"] = gaps["mean"] / tokens
            metrics["gap/kl_nats"] = gaps["kl"] / tokens
            metrics["gap/over_0p1_frac"] = gaps["over_0p1"] / tokens
            metrics["gap/over_1_frac"] = gaps["over_1"] / tokens
        return metrics


def _accumulate(sums: dict[str, float], **values: Tensor | int) -> None:
    for name, value in values.items():
        sums[name] += float(value)
