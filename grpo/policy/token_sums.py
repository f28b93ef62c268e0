"""Sums over tokens that become metrics: each carries what it is divided by, so that ranks can be added."""

from __future__ import annotations

import torch
from torch import Tensor

from grpo.parallel.world import World

_NAMES = (
    *("loss", "tokens", "clipped", "masked", "kl", "kl_tokens"),
    *("old_tokens", "entropy", "gap", "gap_kl", "gap_over_0p1", "gap_over_1"),
)


class TokenSums:
    """Adds up all passes over a step's batches, on the device: nothing is read from it before the end of the step.

    Unless said otherwise a mean is over the tokens whose advantage is not 0, whatever else a KL or an entropy term
    makes the step compute, so that it means the same in every run.
    """

    def __init__(self, num_passes: int = 1) -> None:
        self._num_passes = num_passes
        self._sums: dict[str, Tensor | float] = dict.fromkeys(_NAMES, 0.0)

    def add_pass(self, loss: Tensor, taught: Tensor, clipped: Tensor, masked: Tensor, kl: Tensor | None) -> None:
        """One micro-batch in one pass: its share of the loss, and for each token, (N,), whether it has an advantage,
        whether the clip took its gradient, whether the correction gives it no weight, and its estimate of the KL,
        where there is a reference: of all tokens, since it pulls on all."""
        self._add(loss=loss, tokens=taught.sum(), clipped=(clipped & taught).sum(), masked=(masked & taught).sum())
        if kl is not None:
            self._add(kl=kl.detach().sum(), kl_tokens=float(len(kl)))

    def add_old_policy(self, gap: Tensor, entropies: Tensor | None, taught: Tensor) -> None:
        """One micro-batch under the policy that the engine ran and that has not moved yet, for each token, (N,): its
        log-prob minus the engine's, its entropy, both in nats, and whether it has an advantage."""
        gap = torch.where(taught, gap, 0.0)
        self._add(
            old_tokens=taught.sum(),
            gap=gap.abs().sum(),
            # k3 of KL(sampler || policy), whose tokens were drawn from the sampler.
            gap_kl=(torch.exp(gap) - gap - 1).sum(),
            gap_over_0p1=(gap.abs() > 0.1).sum(),
            gap_over_1=(gap.abs() > 1).sum(),
        )
        if entropies is not None:
            self._add(entropy=(entropies.detach() * taught).sum())

    def metrics(self, world: World) -> dict[str, float]:
        """Means over all tokens of all ranks. A batch without tokens has only a loss, of zero."""
        sums = dict(zip(self._sums, world.sum(self._read()), strict=True))
        metrics = {"update/loss": sums["loss"] / self._num_passes}
        if tokens := sums["tokens"]:
            metrics["update/clip_frac"] = sums["clipped"] / tokens
            metrics["update/masked_frac"] = sums["masked"] / tokens
        if tokens := sums["kl_tokens"]:
            metrics["update/kl_nats"] = sums["kl"] / tokens
        if tokens := sums["old_tokens"]:
            metrics["update/entropy_nats"] = sums["entropy"] / tokens
            metrics["gap/mean_nats"] = sums["gap"] / tokens
            metrics["gap/kl_nats"] = sums["gap_kl"] / tokens
            metrics["gap/over_0p1_frac"] = sums["gap_over_0p1"] / tokens
            metrics["gap/over_1_frac"] = sums["gap_over_1"] / tokens
        return metrics

    def _add(self, **values: Tensor | float) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums[name] + (value.double() if isinstance(value, Tensor) else value)

    def _read(self) -> list[float]:
        """All sums, in one copy from the device."""
        tensors = [value for value in self._sums.values() if isinstance(value, Tensor)]
        read = iter(torch.stack(tensors).tolist() if tensors else [])
        return [next(read) if isinstance(value, Tensor) else value for value in self._sums.values()]
