"""What happens every so many steps."""

from __future__ import annotations

import pytest

from grpo.recipe.interval import is_due


@pytest.mark.parametrize(("every", "steps"), [(0, []), (1, [1, 2, 3, 4, 5, 6]), (2, [2, 4, 6]), (4, [4]), (7, [])])
def test_every_so_many_steps(every: int, steps: list[int]) -> None:
    assert [step for step in range(1, 7) if is_due(step, every)] == steps
