"""A job: calls that one worker works on together, and their results so far."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal

_MAX_INTERRUPTIONS = 3

Failure = Literal["timed_out", "crashed"]


@dataclass(frozen=True)
class CallResult:
    """What became of one call: its `value` when `status` is done, else a `detail` that says what happened."""

    status: Literal["done", "timed_out", "crashed"]
    value: Any = None
    detail: str = ""
    wall_s: float = 0.0
    """Seconds from when its worker had received it, or had answered the call before it, to its end."""


@dataclass
class Job:
    """Calls, pickled, in the order in which they are worked on; the first `len(results)` of them are done."""

    payloads: list[bytes]
    results: list[CallResult] = field(default_factory=list)
    future: Future[list[CallResult]] = field(default_factory=Future)
    num_interruptions: int = 0
    """How often in a row a worker ended at the next call without that call being the cause."""
    goes_one_by_one: bool = False
    """Whether its calls are handed out singly, since a worker could not receive all of them together."""

    @property
    def is_done(self) -> bool:
        return len(self.results) == len(self.payloads)

    def next_calls(self) -> list[bytes]:
        """The calls to hand to a worker next."""
        first = len(self.results)
        return self.payloads[first : first + 1 if self.goes_one_by_one else None]

    def add(self, result: CallResult) -> None:
        """Keep the result of the next call."""
        self.results.append(result)
        self.num_interruptions = 0

    def fail(self, status: Failure, detail: str, wall_s: float) -> None:
        """End the next call without a value."""
        self.add(CallResult(status, detail=detail, wall_s=wall_s))

    def interrupt(self, detail: str, wall_s: float) -> None:
        """Note that a worker ended at the next call without its doing. When that has happened three times in a row, the
        call has crashed; `detail` is the reason then, with ``{}`` for the number of times."""
        self.num_interruptions += 1
        if self.num_interruptions >= _MAX_INTERRUPTIONS:
            self.fail("crashed", detail.format(_MAX_INTERRUPTIONS), wall_s)
