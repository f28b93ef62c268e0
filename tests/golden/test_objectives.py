"""Every objective in value and gradient coefficient, against numbers worked out by hand or in float64 NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from grpo.objectives.surrogates import (
    clipped_ratio,
    clipped_weight,
    mirror_descent,
    policy_gradient,
    sequence_ratio,
    sequence_token_ratio,
)
from grpo.objectives.table import OBJECTIVES
from grpo.objectives.tokens import Tokens
from grpo.policy.objective_choice import choose_objective
from grpo.recipe.sections import UpdateSection

LENGTHS = (3, 1, 2, 2, 2)
RATIOS = np.array([1.1, 0.7, 1.5, 1.25, 0.5, 1.3, 0.9, 0.95, 1.3, 1.3])
ADVANTAGES = np.array([2.0, 2.0, 2.0, -1.0, -0.5, -0.5, 1.0, 1.0, 1.0, 1.0])
PROXIMAL = np.array([-1.7, -0.2, -3.0, -0.9, -2.2, -0.4, -1.1, -0.6, -5.0, -0.3])
COMPLETION = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
SHARES = 1 / np.repeat(LENGTHS, LENGTHS)
"""The weights of the normalisation `sequence`."""


def make_tokens(
    ratios: Sequence[float] | np.ndarray = RATIOS,
    advantages: Sequence[float] | np.ndarray = ADVANTAGES,
    completion: Sequence[int] | np.ndarray = COMPLETION,
    dtype: torch.dtype = torch.float64,
) -> Tokens:
    """Tokens with these ratios. What the engine says is far off, so that taking it for the old policy shows."""
    proximal = torch.tensor(np.resize(PROXIMAL, len(ratios)), dtype=dtype)
    return Tokens(
        policy_logp=(proximal + torch.tensor(np.log(ratios), dtype=dtype)).requires_grad_(),
        proximal_logp=proximal,
        sampler_logp=proximal - 1,
        advantage=torch.tensor(np.array(advantages), dtype=dtype),
        completion=torch.tensor(np.array(completion)),
        num_completions=int(np.max(completion)) + 1,
    )


def evaluate(
    objective: Callable[[Tokens], Tensor], tokens: Tokens, weights: np.ndarray | float = 1.0
) -> tuple[list[float], list[float]]:
    """The tokens' losses, and what the weighted sum of them makes of each log-prob: the gradient coefficients."""
    losses = objective(tokens)
    assert losses.shape == tokens.advantage.shape
    [coefficients] = torch.autograd.grad((torch.as_tensor(weights) * losses).sum(), tokens.policy_logp)
    return losses.tolist(), coefficients.tolist()


def check(found: Sequence[float], expected: np.ndarray | Sequence[float]) -> None:
    assert found == pytest.approx(list(expected), abs=1e-9)


def per_completion(values: np.ndarray) -> np.ndarray:
    """For each token, the sum of `values` over its completion."""
    return np.array([values[one == COMPLETION].sum() for one in COMPLETION])


# What a token knows of its completion


def test_sums_means_and_lengths_of_completions() -> None:
    tokens = make_tokens()
    assert tokens.lengths.tolist() == [3, 3, 3, 1, 2, 2, 2, 2, 2, 2]
    values = torch.tensor([1.0, 2.0, 6.0, 4.0, 1.0, 2.0, 0.0, 0.0, -1.0, 1.0], dtype=torch.float64)
    assert tokens.sums(values).tolist() == [9, 9, 9, 4, 3, 3, 0, 0, 0, 0]
    assert tokens.means(values).tolist() == [3, 3, 3, 4, 1.5, 1.5, 0, 0, 0, 0]
    check(tokens.ratio.tolist(), RATIOS)


# Clipped ratio: GRPO, DAPO, Dr. GRPO, REINFORCE++. The ratio is free between 0.8 and 1.3.

LOW, HIGH = 0.2, 0.3
"""Bounds apart, so that taking one for the other shows."""

# ratio, advantage, loss, its derivative by policy_logp.
# Free, the loss is -ratio x A, and so is its derivative, since d ratio / d logp = ratio.
CLIP_CASES = [
    (0.5, 2.0, -1.0, -1.0),  # min(0.5 x 2, 0.8 x 2) = 1.0: below the bound, but it may still rise
    (0.5, -2.0, 1.6, 0.0),  # min(-1.0, -1.6): it may not fall any further
    (0.9, 2.0, -1.8, -1.8),
    (0.9, -2.0, 1.8, 1.8),
    (1.25, 2.0, -2.5, -2.5),  # over 1 + LOW and under 1 + HIGH
    (1.25, -2.0, 2.5, 2.5),
    (1.5, 2.0, -2.6, 0.0),  # min(3.0, 1.3 x 2): it may not rise any further
    (1.5, -2.0, 3.0, 3.0),  # min(-3.0, -2.6) = -3.0: above the bound, but it may still fall
    (0.75, -1.0, 0.8, 0.0),  # under 1 - LOW and over 1 - HIGH
    (0.75, 1.0, -0.75, -0.75),
    (3.0, 0.0, 0.0, 0.0),
]


def test_clipped_ratio_by_hand() -> None:
    ratios, advantages, losses, slopes = zip(*CLIP_CASES, strict=True)
    tokens = make_tokens(ratios, advantages, range(len(CLIP_CASES)))
    found, coefficients = evaluate(lambda one: clipped_ratio(one, clip_low=LOW, clip_high=HIGH), tokens)
    check(found, losses)
    check(coefficients, slopes)


def test_how_completions_are_cut_means_nothing_to_a_tokens_ratio() -> None:
    whole, apart = make_tokens(completion=[0] * 10), make_tokens(completion=range(10))
    assert evaluate(clipped_ratio, whole) == evaluate(clipped_ratio, apart)


def test_dual_clip_by_hand() -> None:
    # With c = 2: at ratio 3 and A = -1 the loss 3 is held at 2; at 1.5 it is below that already. A > 0 knows no c: the
    # upper bound is in force at ratio 3, and what is below c times A is not lifted to it.
    tokens = make_tokens([3.0, 1.5, 3.0, 0.5, 0.5], [-1.0, -1.0, 1.0, 1.0, -1.0], range(5))
    found, coefficients = evaluate(lambda one: clipped_ratio(one, dual_clip=2.0), tokens)
    check(found, [2.0, 1.5, -1.2, -0.5, 0.8])
    check(coefficients, [0.0, 1.5, 0.0, -0.5, 0.0])


# Ratio of the completion: GSPO

# (1.1 x 0.7 x 1.5)^(1/3) = 1.155^(1/3), 1.25, (0.5 x 1.3)^(1/2), (0.9 x 0.95)^(1/2), 1.3
SEQUENCE_RATIOS = np.array([1.155 ** (1 / 3), 1.25, math.sqrt(0.65), math.sqrt(0.855), 1.3])


def clip_sequences(one: Tokens) -> Tensor:
    return sequence_ratio(one, clip_low=0.1, clip_high=0.2)


def test_sequence_ratio_by_hand() -> None:
    # Free between 0.9 and 1.2. First: 1.0492 x 2 is free. Second: 1.25 is over the bound, but with A < 0 free to fall.
    # Third: 0.8062 with A < 0 is held at 0.9. Fourth: 0.9247 is free. Last: 1.3 with A > 0 is held at 1.2.
    by_completion = [-2 * SEQUENCE_RATIOS[0], 1.25, 0.45, -SEQUENCE_RATIOS[3], -1.2]
    found, coefficients = evaluate(clip_sequences, make_tokens(), SHARES)
    check(found, np.repeat(by_completion, LENGTHS))
    # -s A / n each, where s is not clipped.
    slopes = [-2 * SEQUENCE_RATIOS[0] / 3, 1.25, 0.0, -SEQUENCE_RATIOS[3] / 2, 0.0]
    check(coefficients, np.repeat(slopes, LENGTHS))
    assert found[0] == pytest.approx(-2.0984, abs=1e-4)


def test_sequence_ratio_where_advantages_differ_within_a_completion() -> None:
    # s = sqrt(1.1 x 0.9) = 0.99499 for both: each term is its own, and both tokens move both, (2 - 1) s / 2 in all.
    s = math.sqrt(0.99)
    found, coefficients = evaluate(clip_sequences, make_tokens([1.1, 0.9], [2.0, -1.0], [0, 0]), 0.5)
    check(found, [-2 * s, s])
    check(coefficients, [-s / 4, -s / 4])


def test_the_papers_bounds_are_the_default() -> None:
    # 1.00035 is within 4e-4 above, and 0.99965 more than 3e-4 below.
    tokens = make_tokens([1.00035, 0.99965], [1.0, -1.0], [0, 1])
    for objective in (sequence_ratio, sequence_token_ratio):
        found, coefficients = evaluate(objective, tokens)
        check(found, [-1.00035, 0.9997])
        check(coefficients, [-1.00035, 0.0])


def clip_sequence_tokens(one: Tokens) -> Tensor:
    return sequence_token_ratio(one, clip_low=0.1, clip_high=0.2)


def test_sequence_token_ratio_is_sequence_ratio_where_advantages_agree() -> None:
    found, coefficients = evaluate(clip_sequence_tokens, make_tokens(), SHARES)
    expected, expected_coefficients = evaluate(clip_sequences, make_tokens(), SHARES)
    check(found, expected)
    check(coefficients, expected_coefficients)


def test_sequence_token_ratio_keeps_advantages_apart() -> None:
    s = math.sqrt(0.99)
    found, coefficients = evaluate(clip_sequence_tokens, make_tokens([1.1, 0.9], [2.0, -1.0], [0, 0]), 0.5)
    check(found, [-2 * s, s])
    check(coefficients, [-s, s / 2])  # each its own A alone


# Clipped weight: CISPO


def test_clipped_weight_by_hand() -> None:
    # Ratios 0.5, 1 and 6 with A = 2, -1 and 3, at log-probs of -1.7 + ln 0.5, -0.2 and -3 + ln 6. The default cuts 6 to
    # 5 and nothing from below; between 0.8 and 1.2, all but the second are cut.
    ratios, advantages = [0.5, 1.0, 6.0], [2.0, -1.0, 3.0]
    logps = [-1.7 + math.log(0.5), -0.2, -3 + math.log(6)]
    found, coefficients = evaluate(clipped_weight, make_tokens(ratios, advantages, [0, 0, 1]))
    check(found, [-0.5 * 2 * logps[0], logps[1], -5 * 3 * logps[2]])
    check(coefficients, [-1.0, 1.0, -15.0])  # no derivative of the weight
    found, coefficients = evaluate(
        lambda one: clipped_weight(one, low=0.8, high=1.2), make_tokens(ratios, advantages, [0, 0, 1])
    )
    check(found, [-0.8 * 2 * logps[0], logps[1], -1.2 * 3 * logps[2]])
    check(coefficients, [-1.6, 1.0, -3.6])


def test_no_token_is_silenced_by_a_clipped_weight() -> None:
    _, coefficients = evaluate(lambda one: clipped_weight(one, low=0.8, high=1.2), make_tokens())
    check(coefficients, -np.clip(RATIOS, 0.8, 1.2) * ADVANTAGES)


# Policy gradient: REINFORCE, RLOO


def test_policy_gradient_by_hand() -> None:
    found, coefficients = evaluate(policy_gradient, make_tokens())
    expected = [-2.2, -1.4, -3.0, 1.25, 0.25, 0.65, -0.9, -0.95, -1.3, -1.3]
    check(found, expected)
    check(coefficients, expected)


# Mirror descent: Kimi k1.5


def test_mirror_descent_by_hand() -> None:
    # A completion of ratios 2 and 4: S = ln 8. With tau = 0.5 and A = 1 its tokens' losses are ln 2 (S/4 - 1) and
    # ln 4 (S/4 - 1), together S^2 / 4 - S, and both coefficients S / 2 - 1 = 0.03972.
    total = math.log(8)
    tokens = make_tokens([2.0, 4.0], [1.0, 1.0], [0, 0])
    found, coefficients = evaluate(lambda one: mirror_descent(one, tau=0.5), tokens)
    check(found, [math.log(2) * (total / 4 - 1), math.log(4) * (total / 4 - 1)])
    check(coefficients, [total / 2 - 1] * 2)
    assert coefficients[0] == pytest.approx(0.0397208, abs=1e-6)


def test_mirror_descent_is_the_papers_squared_error() -> None:
    """(A - tau S)^2 / (2 tau) less A^2 / (2 tau), and its derivative -(A - tau S), in NumPy."""
    tau = 0.3
    totals = per_completion(np.log(RATIOS))
    found, coefficients = evaluate(lambda one: mirror_descent(one, tau=tau), make_tokens())
    losses = ((ADVANTAGES - tau * totals) ** 2 - ADVANTAGES**2) / (2 * tau)
    check(per_completion(np.array(found)), losses)
    check(coefficients, -(ADVANTAGES - tau * totals))


def test_the_default_tau_is_small() -> None:
    _, coefficients = evaluate(mirror_descent, make_tokens([math.e], [1.0], [0]))
    check(coefficients, [-1 + 0.01])


# All of them


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_with_an_unmoved_policy_each_is_reinforce(name: str, dtype: torch.dtype) -> None:
    """To the bit, whatever the clips: the coefficient of a token is minus its advantage."""
    tokens = make_tokens(np.ones(10), dtype=dtype)
    _, coefficients = evaluate(choose_objective(UpdateSection(lr=1e-3, objective=name)), tokens)
    if name == "gspo":  # a sum of n shares of 1 / n each
        assert coefficients == pytest.approx((-ADVANTAGES).tolist(), rel=1e-6)
    else:
        assert coefficients == (-ADVANTAGES).tolist()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_the_engine_says_is_no_part_of_an_objective(name: str) -> None:
    objective = choose_objective(UpdateSection(lr=1e-3, objective=name))
    tokens, other = make_tokens(), make_tokens()
    other.sampler_logp.mul_(3)
    assert evaluate(objective, tokens) == evaluate(objective, other)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_order_of_completions_changes_nothing(name: str) -> None:
    objective = choose_objective(UpdateSection(lr=1e-3, objective=name))
    found, coefficients = evaluate(objective, make_tokens(), SHARES)
    order = np.array([4, 5, 3, 8, 9, 0, 1, 2, 6, 7])
    tokens = make_tokens()
    moved = Tokens(
        *(value.detach()[order] for value in (tokens.policy_logp, tokens.proximal_logp, tokens.sampler_logp)),
        tokens.advantage[order],
        torch.tensor([0, 0, 1, 2, 2, 3, 3, 3, 4, 4]),
        5,
    )
    moved.policy_logp.requires_grad_()
    moved_found, moved_coefficients = evaluate(objective, moved, SHARES[order])
    check(moved_found, np.array(found)[order])
    check(moved_coefficients, np.array(coefficients)[order])


def test_names_stand_for_the_papers_settings() -> None:
    """Ratio 1.25 with A = 1: held at 1.2 by GRPO's bound, free under DAPO's 1.28."""
    tokens = make_tokens([1.25, 1.29], [1.0, 1.0], [0, 0])
    found = {name: evaluate(choose_objective(UpdateSection(lr=1e-3, objective=name)), tokens)[0] for name in OBJECTIVES}
    for name in ("grpo", "dr_grpo", "reinforce_pp", "reinforce_pp_baseline"):
        check(found[name], [-1.2, -1.2])
    check(found["dapo"], [-1.25, -1.28])
    check(found["rloo"], [-1.25, -1.29])
    check(found["gspo"], [-1.0004, -1.0004])
