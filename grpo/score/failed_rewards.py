"""Rewards that gave no parts: what became of them has to be said, since their part is missing from the sum."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence

from grpo.score.output import short
from rewards.scorer import Fault

_NAMED = 5


class FailedRewards:
    """How often each reward failed, and the first failures with their reasons."""

    def __init__(self) -> None:
        self._num_completions: Counter[str] = Counter()
        self._named: list[str] = []

    def see(self, row: int, faults: Sequence[Fault]) -> None:
        """Take notice of what failed on the group that begins at a row."""
        for fault in faults:
            self._num_completions[fault.reward] += fault.num_completions
            if len(self._named) < _NAMED:
                self._named.append(f"row {row}: reward {fault.reward} {fault.outcome.value}: {short(fault.detail)}")

    def lines(self) -> list[str]:
        """The first failures, then how many completions each reward failed on; nothing where none did."""
        counts = [
            f"rewards.name={name!r}: failed on {count} completions, to whose reward it adds nothing; mend it, or raise "
            "the limits in the recipe's scoring section"
            for name, count in self._num_completions.items()
        ]
        return [*self._named, *counts]


def leave_if_any(failed: Mapping[str, FailedRewards]) -> None:
    """Say on stderr which rewards failed, and leave with exit code 1 if any did; the keys are what lines begin with."""
    if lines := [f"{start}{line}" for start, one in failed.items() for line in one.lines()]:
        sys.stdout.flush()  # where both go to one place, what failed comes last
        sys.exit("\n".join(lines))
