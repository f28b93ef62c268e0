"""Rewards that failed. They add nothing to the sums of the rows that they failed on, so the user has to be told."""

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

    def add(self, row: int, faults: Sequence[Fault]) -> None:
        """Count the rewards that failed on the group that begins at a row."""
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


def exit_if_any(failed: Mapping[str, FailedRewards]) -> None:
    """Exit with code 1 if any reward failed, and say on stderr which; each line begins with its key in `failed`."""
    if lines := [f"{start}{line}" for start, one in failed.items() for line in one.lines()]:
        sys.stdout.flush()  # where stdout and stderr are one stream, the failures come last
        sys.exit("\n".join(lines))
