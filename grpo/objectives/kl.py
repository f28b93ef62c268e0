"""Estimates of KL(policy || reference) from tokens that the policy wrote, (N,), named as in Schulman's note
"Approximating KL divergence"; d = policy_logp - ref_logp throughout."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def k1(policy_logp: Tensor, ref_logp: Tensor) -> Tensor:
    """d: unbiased, of either sign. In a loss its gradient has an expectation of 0; it belongs in the reward."""
    return policy_logp - ref_logp


def k2(policy_logp: Tensor, ref_logp: Tensor) -> Tensor:
    """d^2 / 2: biased, never negative; its gradient, d times that of the log-prob, is that of the KL in expectation."""
    return (policy_logp - ref_logp).square() / 2


def k3(policy_logp: Tensor, ref_logp: Tensor) -> Tensor:
    """exp(-d) + d - 1: unbiased and never negative (DeepSeekMath, arXiv 2402.03300, equation 4).

    As in the paper it is differentiated as it stands: in expectation that is the gradient of KL(reference || policy),
    not of the KL that it estimates.
    """
    return torch.expm1(ref_logp - policy_logp) - (ref_logp - policy_logp)


ESTIMATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"k1": k1, "k2": k2, "k3": k3}
