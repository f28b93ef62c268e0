"""What an objective sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """The N completion tokens of a micro-batch, whole completions one after another; all but `completion` float32.

    `policy_logp` is of the policy as it is now, and the only one with a gradient; `proximal_logp` of the policy before
    this step's update, the same to the bit on the first pass; `sampler_logp` of the engine. Log-probs are in nats, at
    the sampling temperature. `completion` numbers the completions of the micro-batch from 0 to `num_completions` - 1.
    """

    policy_logp: Tensor
    proximal_logp: Tensor
    sampler_logp: Tensor
    advantage: Tensor
    completion: Tensor
    num_completions: int

    @property
    def ratio(self) -> Tensor:
        """pi_theta / pi_old of each token."""
        return torch.exp(self.policy_logp - self.proximal_logp)

    @property
    def lengths(self) -> Tensor:
        """The number of tokens of each token's completion, (N,)."""
        return self.sums(torch.ones_like(self.advantage))

    def sums(self, values: Tensor) -> Tensor:
        """For each token, the sum of `values` (N,) over its completion."""
        totals = values.new_zeros(self.num_completions).index_add(0, self.completion, values)
        return totals[self.completion]

    def means(self, values: Tensor) -> Tensor:
        """For each token, the mean of `values` (N,) over its completion."""
        return self.sums(values) / self.lengths
