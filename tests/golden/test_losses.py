"""The two terms of the objective, in value and gradient, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from grpo.losses import clipped_objective, k3_kl

LOW, HIGH = 0.2, 0.3
"""Bounds apart, so that taking one for the other shows: the ratio is free between 0.8 and 1.3."""

# ratio, advantage, objective (negated), its derivative by policy_logp, whether the clip took the gradient.
# Free, the objective is -ratio x A, and so is its derivative, since d ratio / d logp = ratio.
CASES = [
    (0.5, 2.0, -1.0, -1.0, False),  # min(0.5 x 2, 0.8 x 2) = 1.0: below the bound, but it may still rise
    (0.5, -2.0, 1.6, 0.0, True),  # min(-1.0, -1.6): it may not fall any further
    (0.9, 2.0, -1.8, -1.8, False),
    (0.9, -2.0, 1.8, 1.8, False),
    (1.25, 2.0, -2.5, -2.5, False),  # over 1 + LOW and under 1 + HIGH
    (1.25, -2.0, 2.5, 2.5, False),
    (1.5, 2.0, -2.6, 0.0, True),  # min(3.0, 1.3 x 2): it may not rise any further
    (1.5, -2.0, 3.0, 3.0, False),  # min(-3.0, -2.6) = -3.0: above the bound, but it may still fall
    (0.75, -1.0, 0.8, 0.0, True),  # under 1 - LOW and over 1 - HIGH
    (0.75, 1.0, -0.75, -0.75, False),
    (3.0, 0.0, 0.0, 0.0, False),
]


def evaluate(ratio: float, advantage: float, low: float = LOW, high: float = HIGH) -> tuple[Tensor, Tensor, Tensor]:
    """Objective, gradient by policy_logp and flag of one token, in float64."""
    policy_logp = torch.tensor([math.log(ratio) - 1.7], dtype=torch.float64, requires_grad=True)
    proximal_logp = torch.tensor([-1.7], dtype=torch.float64)
    loss, clipped = clipped_objective(
        policy_logp, proximal_logp, torch.tensor([advantage], dtype=torch.float64), low, high
    )
    loss.sum().backward()
    assert policy_logp.grad is not None
    return loss.detach(), policy_logp.grad, clipped


@pytest.mark.parametrize(("ratio", "advantage", "objective", "slope", "active"), CASES)
def test_clipped_objective(ratio: float, advantage: float, objective: float, slope: float, active: bool) -> None:
    loss, gradient, clipped = evaluate(ratio, advantage)
    assert loss.item() == pytest.approx(objective, abs=1e-9)
    assert gradient.item() == pytest.approx(slope, abs=1e-9)
    assert clipped.item() is active


def test_each_bound_has_its_own_width() -> None:
    # Ratio 1.25 with A = 1 passes 1 + 0.3 and is held at 1 + 0.2; ratio 0.75 with A = -1 the other way round.
    assert evaluate(1.25, 1.0, low=0.5, high=0.2)[0].item() == pytest.approx(-1.2)
    assert evaluate(1.25, 1.0, low=0.2, high=0.5)[0].item() == pytest.approx(-1.25)
    assert evaluate(0.75, -1.0, low=0.2, high=0.5)[0].item() == pytest.approx(0.8)
    assert evaluate(0.75, -1.0, low=0.5, high=0.2)[0].item() == pytest.approx(0.75)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_unmoved_policy_has_ratio_exactly_one(dtype: torch.dtype) -> None:
    advantages = torch.tensor([1.5, -0.7, 0.0, 1e-3], dtype=dtype)
    logps = torch.tensor([-0.3, -11.0, -2.0, -1e-6], dtype=dtype, requires_grad=True)
    loss, clipped = clipped_objective(logps, logps.detach(), advantages, LOW, HIGH)
    loss.sum().backward()
    assert torch.equal(loss, -advantages)
    assert logps.grad is not None
    assert torch.equal(logps.grad, -advantages)
    assert not clipped.any()


def test_one_value_and_one_flag_a_token() -> None:
    ratios = torch.tensor([case[0] for case in CASES], dtype=torch.float64)
    advantages = torch.tensor([case[1] for case in CASES], dtype=torch.float64)
    loss, clipped = clipped_objective(ratios.log(), torch.zeros_like(ratios), advantages, LOW, HIGH)
    assert loss.tolist() == pytest.approx([case[2] for case in CASES], abs=1e-9)
    assert clipped.tolist() == [case[4] for case in CASES]
    assert clipped.dtype is torch.bool


# policy probability, reference probability, k3, its derivative by policy_logp.
# With r = reference / policy: k3 = r - ln r - 1, and its derivative is 1 - r, since d r / d policy_logp = -r.
KL_CASES = [
    (0.5, 0.5, 0.0, 0.0),
    (0.5, 0.25, 0.5 + math.log(2) - 1, 0.5),  # r = 0.5: 0.193147
    (0.25, 0.5, 2 - math.log(2) - 1, -1.0),  # r = 2: 0.306853
    (0.1, 0.8, 8 - math.log(8) - 1, -7.0),  # r = 8: 4.920558
]


@pytest.mark.parametrize(("policy", "reference", "value", "slope"), KL_CASES)
def test_k3(policy: float, reference: float, value: float, slope: float) -> None:
    policy_logp = torch.tensor([math.log(policy)], dtype=torch.float64, requires_grad=True)
    ref_logp = torch.tensor([math.log(reference)], dtype=torch.float64)
    kl = k3_kl(policy_logp, ref_logp)
    kl.sum().backward()
    assert kl.item() == pytest.approx(value, abs=1e-9)
    assert policy_logp.grad is not None
    assert policy_logp.grad.item() == pytest.approx(slope, abs=1e-9)


def test_k3_is_never_negative() -> None:
    generator = torch.Generator().manual_seed(0)
    policy_logp = -8 * torch.rand(10_000, generator=generator, dtype=torch.float64)
    ref_logp = -8 * torch.rand(10_000, generator=generator, dtype=torch.float64)
    assert (k3_kl(policy_logp, ref_logp) >= 0).all()


def test_the_mean_of_k3_is_the_kl() -> None:
    """Weighted with the policy's own probabilities, over all tokens there are: KL(policy || reference) itself."""
    policy = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    reference = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    # 0.7 ln 3.5 + 0.2 ln 0.4 + 0.1 ln (1/3) = 0.876934 - 0.183258 - 0.109861 = 0.583815
    expected = 0.7 * math.log(3.5) + 0.2 * math.log(0.4) + 0.1 * math.log(1 / 3)
    assert (policy * k3_kl(policy.log(), reference.log())).sum().item() == pytest.approx(expected, abs=1e-12)
