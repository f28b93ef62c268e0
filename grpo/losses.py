"""The objective, one pure function a term. All take and return one value a token, shape (T,), in nats.

What is minimised is sum(weight * (clipped_objective + kl_weight * k3_kl)) / denominator, where the weights and
the one denominator come from `grpo.batch`.
"""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_objective(
    policy_logp: Tensor, proximal_logp: Tensor, advantages: Tensor, clip_low: float, clip_high: float
) -> tuple[Tensor, Tensor]:
    """The negated clipped surrogate, and where the clip was active (a boolean per token).

    -min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A) with rho = exp(policy_logp - proximal_logp): PPO's equation 7
    (arXiv 1707.06347) as GRPO uses it per token (arXiv 2402.03300, equation 3), with the two bounds apart as in
    DAPO (arXiv 2503.14476, equation 10). "Active" means that the bound took the gradient away.
    """
    ratio = torch.exp(policy_logp - proximal_logp)
    free = ratio * advantages
    bounded = torch.clamp(ratio, 1 - clip_low, 1 + clip_high) * advantages
    return -torch.minimum(free, bounded), (bounded < free).detach()


def k3_kl(policy_logp: Tensor, ref_logp: Tensor) -> Tensor:
    """The k3 estimate of KL(policy || reference) per token: exp(d) - d - 1 with d = ref_logp - policy_logp.

    Never negative (DeepSeekMath, arXiv 2402.03300, equation 4; named k3 in Schulman's note on approximating KL).
    As in the papers, it is differentiated as it stands, which is not the gradient of the KL itself.
    """
    difference = ref_logp - policy_logp
    return torch.exp(difference) - difference - 1
