"""The weights for the gap between engine and trainer, by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from grpo.objectives.corrections import CORRECTIONS, icepop, none, sequence_mask, sequence_tis, tis
from grpo.objectives.tokens import Tokens

# Trainer over engine, of three completions; the products are 1.5, 0.3 and 3.
RATIOS = [3.0, 0.5, 1.0, 0.4, 0.75, 6.0, 0.5]
COMPLETION = [0, 0, 0, 1, 1, 2, 2]


def make_tokens() -> Tokens:
    """The policy has moved on from the one before the update, which must not matter."""
    proximal = torch.tensor([-1.0, -0.5, -2.0, -3.0, -0.1, -4.0, -0.9], dtype=torch.float64)
    return Tokens(
        policy_logp=(proximal + 0.7).requires_grad_(),
        proximal_logp=proximal,
        sampler_logp=proximal - torch.tensor(np.log(RATIOS)),
        advantage=torch.ones(7, dtype=torch.float64),
        completion=torch.tensor(COMPLETION),
        num_completions=max(COMPLETION) + 1,
    )


@pytest.mark.parametrize(
    ("correction", "expected"),
    [
        (none, [1.0] * 7),
        (tis, [2.0, 0.5, 1.0, 0.4, 0.75, 2.0, 0.5]),
        (lambda one: tis(one, high=1.0), [1.0, 0.5, 1.0, 0.4, 0.75, 1.0, 0.5]),
        # Both bounds are the authors': 0.4 is under 0.5 and 6 over 5.
        (icepop, [3.0, 0.5, 1.0, 0.0, 0.75, 0.0, 0.5]),
        (lambda one: icepop(one, low=0.45, high=2.0), [0.0, 0.5, 1.0, 0.0, 0.75, 0.0, 0.5]),
        (sequence_tis, [1.5, 1.5, 1.5, 0.3, 0.3, 2.0, 2.0]),
        (lambda one: sequence_tis(one, high=4.0), [1.5, 1.5, 1.5, 0.3, 0.3, 3.0, 3.0]),
        (sequence_mask, [1.5, 1.5, 1.5, 0.0, 0.0, 0.0, 0.0]),
        (lambda one: sequence_mask(one, low=0.0, high=2.0), [1.5, 1.5, 1.5, 0.3, 0.3, 0.0, 0.0]),
        (lambda one: sequence_mask(one, low=0.5, high=3.5), [1.5, 1.5, 1.5, 0.0, 0.0, 3.0, 3.0]),
    ],
)
def test_by_hand(correction: Callable[[Tokens], Tensor], expected: list[float]) -> None:
    weights = correction(make_tokens())
    assert weights.tolist() == pytest.approx(expected, abs=1e-9)
    assert not weights.requires_grad


@pytest.mark.parametrize("name", CORRECTIONS)
def test_without_a_gap_all_tokens_weigh_exactly_one(name: str) -> None:
    logps = torch.tensor([-1.0, -0.3, -7.0, -1e-6])
    tokens = Tokens(logps + 0.5, logps, logps.clone(), torch.ones(4), torch.tensor([0, 0, 1, 2]), 3)
    assert CORRECTIONS[name](tokens).tolist() == [1.0] * 4


@pytest.mark.parametrize("name", CORRECTIONS)
def test_a_gap_beyond_all_numbers_stays_one(name: str) -> None:
    """e^200 is over the largest float32: truncated it is the bound, and masked it is 0, never infinite or no number."""
    proximal, sampler = torch.tensor([-1.0, -201.0]), torch.tensor([-201.0, -1.0])
    weights = CORRECTIONS[name](Tokens(proximal, proximal, sampler, torch.ones(2), torch.tensor([0, 1]), 2))
    bound = {"none": 1.0, "tis": 2.0, "sequence_tis": 2.0}.get(name, 0.0)
    assert weights.tolist() == [bound, 1.0 if name == "none" else 0.0]
