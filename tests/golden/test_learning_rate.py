"""The learning rate of every update of a run, worked by hand."""

from __future__ import annotations

import math

import pytest

from grpo.policy.learning_rate import learning_rate
from grpo.recipe.sections import UpdateSection

HALF_ROOT = math.sqrt(0.5)

RATES: list[tuple[str, int, list[float]]] = [  # schedule, warm-up, and the rate of each update in tenths
    ("constant", 0, [8, 8, 8]),
    ("constant", 4, [2, 4, 6, 8, 8, 8]),
    # Eleven updates, ten steps from the full rate to nothing.
    ("linear", 0, [8, 7.2, 6.4, 5.6, 4.8, 4.0, 3.2, 2.4, 1.6, 0.8, 0]),
    # Two updates of warm-up, then nine: eighths.
    ("linear", 2, [4, 8, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
    # Two updates of warm-up, then the cosine at 0, 45, 90, 135 and 180 degrees.
    ("cosine", 2, [4, 8, 8, 4 + 4 * HALF_ROOT, 4, 4 - 4 * HALF_ROOT, 0]),
    ("cosine", 0, [8, 4, 0]),
    # A single update is no decay.
    ("linear", 2, [4, 8, 8]),
    ("cosine", 0, [8]),
    # All of the run but one update is warm-up.
    ("linear", 3, [8 / 3, 16 / 3, 8, 8]),
]


@pytest.mark.parametrize(("schedule", "warmup", "expected"), RATES)
def test_every_rate(schedule: str, warmup: int, expected: list[float]) -> None:
    settings = UpdateSection(lr=0.8, schedule=schedule, warmup_steps=warmup)  # type: ignore[arg-type]
    rates = [10 * learning_rate(settings, step, len(expected)) for step in range(len(expected))]
    assert rates == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize(("warmup", "num_steps"), [(0, 2), (0, 300), (10, 300), (7, 9)])
def test_a_decay_ends_at_exactly_nothing_and_not_before(schedule: str, warmup: int, num_steps: int) -> None:
    settings = UpdateSection(lr=3e-6, schedule=schedule, warmup_steps=warmup)  # type: ignore[arg-type]
    rates = [learning_rate(settings, step, num_steps) for step in range(num_steps)]
    assert rates[-1] == 0
    assert all(rate > 0 for rate in rates[:-1])
    assert max(rates) == pytest.approx(3e-6)
