"""Where the time of a step goes, and what its parts found worth noting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class PhaseClock:
    """Collects seconds by phase and single numbers until the next lap. `on_phase` hears each phase's name.

    What happens inside another phase belongs to the outer one: an evaluation's generation is evaluation.
    """

    def __init__(self) -> None:
        self.on_phase: Callable[[str], None] = lambda name: None
        self._row: dict[str, float] = {}
        self._notes: dict[str, float] = {}
        self._inside = False
        self._lap_began = time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Everything inside counts as `name`."""
        if self._inside:
            yield
            return
        self._inside = True
        self.on_phase(name)
        began = time.perf_counter()
        try:
            yield
        finally:
            self._inside = False
            key = f"time/{name}_s"
            self._row[key] = self._row.get(key, 0.0) + time.perf_counter() - began

    def note(self, name: str, value: float) -> None:
        """A number for the step's row, the largest of several; inside another phase (an evaluation) it is dropped."""
        if not self._inside:
            self._notes[name] = max(value, self._notes.get(name, value))

    def notes(self) -> dict[str, float]:
        """What was noted since the last lap."""
        return dict(self._notes)

    def lap(self) -> dict[str, float]:
        """Seconds by phase since the last lap, and its whole length as ``time/step_s``; then start from nothing."""
        now = time.perf_counter()
        row = self._row | {"time/step_s": now - self._lap_began}
        self._row, self._notes = {}, {}
        self._lap_began = now
        return row
