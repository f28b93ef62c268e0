"""The estimates of the KL to the reference, in value and gradient, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from grpo.objectives.kl import ESTIMATORS

LN2, LN8 = math.log(2), math.log(8)

# policy and reference probability, then for each estimator its value and its derivative by policy_logp, d = ln(p / q).
# k1: d, 1. k2: d^2 / 2, d. k3: with r = q / p, r - ln r - 1, and 1 - r, since d r / d policy_logp = -r.
CASES = [
    (0.5, 0.5, {"k1": (0.0, 1.0), "k2": (0.0, 0.0), "k3": (0.0, 0.0)}),
    (0.5, 0.25, {"k1": (LN2, 1.0), "k2": (LN2**2 / 2, LN2), "k3": (0.5 + LN2 - 1, 0.5)}),  # 0.193147
    (0.25, 0.5, {"k1": (-LN2, 1.0), "k2": (LN2**2 / 2, -LN2), "k3": (2 - LN2 - 1, -1.0)}),  # 0.306853
    (0.1, 0.8, {"k1": (-LN8, 1.0), "k2": (LN8**2 / 2, -LN8), "k3": (8 - LN8 - 1, -7.0)}),  # 4.920558
]


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize(("policy", "reference", "expected"), CASES)
def test_by_hand(policy: float, reference: float, expected: dict[str, tuple[float, float]], name: str) -> None:
    policy_logp = torch.tensor([math.log(policy)], dtype=torch.float64, requires_grad=True)
    kl = ESTIMATORS[name](policy_logp, torch.tensor([math.log(reference)], dtype=torch.float64))
    [slope] = torch.autograd.grad(kl.sum(), policy_logp)
    assert (kl.item(), slope.item()) == pytest.approx(expected[name], abs=1e-9)


@pytest.mark.parametrize("name", ["k2", "k3"])
def test_never_negative(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    policy_logp = -8 * torch.rand(10_000, generator=generator)
    for distance in (8.0, 1e-3, 1e-6):
        ref_logp = policy_logp + distance * (torch.rand(10_000, generator=generator) - 0.5)
        assert (ESTIMATORS[name](policy_logp, ref_logp) >= 0).all()


@pytest.mark.parametrize("name", ["k1", "k3"])
def test_unbiased(name: str) -> None:
    """Weighted with the policy's own probabilities, over all tokens there are: KL(policy || reference) itself."""
    policy = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    reference = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    # 0.7 ln 3.5 + 0.2 ln 0.4 + 0.1 ln (1/3) = 0.876934 - 0.183258 - 0.109861 = 0.583815
    expected = 0.7 * math.log(3.5) + 0.2 * math.log(0.4) + 0.1 * math.log(1 / 3)
    assert (policy * ESTIMATORS[name](policy.log(), reference.log())).sum().item() == pytest.approx(expected, abs=1e-12)


def test_what_each_estimators_gradient_is_in_expectation() -> None:
    """By softmax logits z: dKL/dz = p (d - KL). k2's is that; k1's is nothing at all; k3's is that of KL(q || p)."""
    z = torch.tensor([0.3, -0.4, 0.9], dtype=torch.float64, requires_grad=True)
    ref = torch.log_softmax(torch.tensor([1.0, 0.2, -0.5], dtype=torch.float64), dim=-1)
    logp = torch.log_softmax(z, dim=-1)
    p = logp.detach().exp()
    by_token = {
        name: torch.autograd.grad((p * k(logp, ref)).sum(), z, retain_graph=True)[0] for name, k in ESTIMATORS.items()
    }
    d = logp.detach() - ref
    torch.testing.assert_close(by_token["k1"], torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(by_token["k2"], p * (d - (p * d).sum()))
    torch.testing.assert_close(by_token["k3"], p - ref.exp())
