"""What the processes that a checker starts for one answer may use."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True)
class Budget:
    """What is left of a call's deadline and memory for the processes that a checker starts."""

    wall_s: float = math.inf
    """Wall-clock seconds. A process that runs for longer would make the verdict miss the call's deadline."""
    memory_bytes: float = math.inf

    def divided_by(self, num_runs: int) -> Self:
        """The budget of each of several runs that follow one another."""
        return replace(self, wall_s=self.wall_s / num_runs)


UNBOUNDED = Budget()
