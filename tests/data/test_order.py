"""The order of problems: exact permutations, seamless epochs, nothing twice in a step."""

from __future__ import annotations

import time

import pytest

from data.errors import DataError
from data.order import indices_for_step


def walk(num_problems: int, per_step: int, num_steps: int, seed: int = 0) -> list[list[int]]:
    return [indices_for_step(num_problems, per_step, seed, step) for step in range(num_steps)]


@pytest.mark.parametrize(("num_problems", "per_step"), [(10, 5), (10, 4), (23, 7), (7, 5), (5, 5), (3, 8), (1, 2)])
def test_every_epoch_is_a_permutation(num_problems, per_step):
    row = [index for step in walk(num_problems, per_step, num_steps=6 * num_problems) for index in step]
    epochs = [row[start : start + num_problems] for start in range(0, len(row), num_problems)]
    assert all(sorted(epoch) == list(range(num_problems)) for epoch in epochs[: 6 * per_step])


@pytest.mark.parametrize(("num_problems", "per_step"), [(8, 4), (9, 4), (11, 5), (13, 5), (13, 6), (23, 7), (129, 64)])
@pytest.mark.parametrize("seed", range(5))
def test_no_problem_twice_in_a_step(num_problems, per_step, seed):
    for step in walk(num_problems, per_step, 200, seed):
        assert len(set(step)) == per_step


def test_epochs_and_seeds_differ():
    epochs = {tuple(step) for seed in (0, 1) for step in walk(20, 20, 10, seed)}
    assert len(epochs) == 20


def test_each_problem_comes_first_equally_often():
    """A biased mend at the borders of epochs would show here: 900 epochs, 9 problems, 100 expected each."""
    firsts = [indices_for_step(9, 9, seed, 0)[0] for seed in range(900)]
    assert all(60 <= firsts.count(problem) <= 140 for problem in range(9))


def test_order_is_a_pure_function():
    """Asked backwards and twice, with other orders between, every step is the same."""
    forwards = walk(11, 4, 30)
    for step in reversed(range(30)):
        indices_for_step(50, 3, 9, step)
        assert indices_for_step(11, 4, 0, step) == forwards[step]


def test_order_is_stable():
    """Two epochs and the start of a third: 6 0 2 4 5 3 1, 5 4 2 0 1 6 3, 0."""
    assert walk(7, 3, 5) == [[6, 0, 2], [4, 5, 3], [1, 5, 4], [2, 0, 1], [6, 3, 0]]


def test_a_million_problems_are_cheap():
    start = time.perf_counter()
    for step in range(1000, 1100):
        indices_for_step(1_000_000, 64, 0, step)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 1, 0, 0), "num_problems=0"), ((1, 0, 0, 0), "per_step=0"), ((1, 1, 0, -1), "step=-1")],
)
def test_sizes_are_checked(arguments, message):
    with pytest.raises(DataError, match=message):
        indices_for_step(*arguments)
