"""Send metrics to TensorBoard, Weights & Biases and trackio, none of which can stop or slow a run.

Each tracker lives in a thread of its own behind a bounded queue. A tracker that raises, hangs or falls
far behind is warned about once and dropped; metrics.jsonl in the run's folder stays complete.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

_LOG = logging.getLogger(__name__)

_MAX_WAITING = 1000
_MAX_CALL_S = 120.0


class Tracker(Protocol):
    """An open connection to a tracker; any call may raise, or never return."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of one step."""

    def close(self) -> None:
        """Send what is still held back."""


Opener = Callable[[Path, str, Mapping[str, Any]], Tracker]


class TensorBoard:
    """Event files in `<run>/tensorboard`."""

    def __init__(self, run_dir: Path, run_name: str, recipe: Mapping[str, Any]) -> None:
        from tensorboard.summary import Writer

        self._writer = Writer(str(run_dir / "tensorboard"))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one scalar for each metric."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases; the project is `WANDB_PROJECT` or grpo."""

    def __init__(self, run_dir: Path, run_name: str, recipe: Mapping[str, Any]) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "grpo"),
            name=run_name,
            dir=str(run_dir),
            config=dict(recipe),
            settings=wandb.Settings(console="off"),
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of one step."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """End the run."""
        self._run.finish()


class Trackio:
    """A run of trackio, in project grpo."""

    def __init__(self, run_dir: Path, run_name: str, recipe: Mapping[str, Any]) -> None:
        import trackio

        self._run = trackio.init(project="grpo", name=run_name, config=dict(recipe))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of one step."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """End the run."""
        self._run.finish()


OPENERS: dict[str, Opener] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "trackio": Trackio}


class Trackers:
    """All trackers of a run. No method blocks for long or raises, whatever a tracker does."""

    def __init__(self, names: Sequence[str], run_dir: Path, run_name: str, recipe: Mapping[str, Any]) -> None:
        self._lanes = [_Lane(name, lambda opener: opener(run_dir, run_name, recipe)) for name in dict.fromkeys(names)]

    def log(self, step: int, row: Mapping[str, Any]) -> None:
        """Hand the finite numbers of `row` to every tracker, at once and without waiting."""
        metrics = finite(row)
        for lane in self._lanes:
            lane.put((step, metrics))

    def close(self, timeout_s: float = 10) -> None:
        """Let the trackers finish, for `timeout_s` seconds in all; what hangs is left behind."""
        deadline = time.monotonic() + timeout_s
        for lane in self._lanes:
            lane.put(None)
        for lane in self._lanes:
            lane.join(deadline)


def finite(row: Mapping[str, Any]) -> dict[str, float]:
    """The entries of `row` that are finite numbers, without the step itself."""
    return {
        key: float(value)
        for key, value in row.items()
        if key != "step" and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


class _Lane:
    """One tracker, its thread, and the rows that wait for it. `None` in the queue ends it."""

    def __init__(self, name: str, open_with: Callable[[Opener], Tracker]) -> None:
        self._name = name
        self._open_with = open_with
        self._waiting: queue.Queue[tuple[int, Mapping[str, float]] | None] = queue.Queue(_MAX_WAITING)
        self._dropped = threading.Event()
        self._drop_once = threading.Lock()
        self._busy_since: float | None = time.monotonic()
        self._thread = threading.Thread(target=self._work, name=f"tracker-{name}", daemon=True)
        self._thread.start()

    def put(self, item: tuple[int, Mapping[str, float]] | None) -> None:
        """Queue an item unless the tracker is dropped; drop it if it hangs or cannot keep up."""
        if self._dropped.is_set():
            return
        busy_since = self._busy_since
        if busy_since is not None and time.monotonic() - busy_since > _MAX_CALL_S:
            self._drop(f"one call has taken more than {_MAX_CALL_S:g} s")
            return
        try:
            self._waiting.put_nowait(item)
        except queue.Full:
            self._drop(f"{_MAX_WAITING} rows wait for it")

    def join(self, deadline: float) -> None:
        """Wait for the thread to end, until `deadline` at most."""
        if self._dropped.is_set():
            return
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._drop("it did not finish in time")

    def _work(self) -> None:
        try:
            tracker = self._open_with(OPENERS[self._name])
            while (item := self._next()) is not None:
                tracker.log(*item)
            tracker.close()
        except BaseException as error:  # a tracker's SystemExit must not be silent either
            self._drop(f"{type(error).__name__}: {error}")

    def _next(self) -> tuple[int, Mapping[str, float]] | None:
        """Wait for the next row; only outside of this wait is the tracker itself at work."""
        self._busy_since = None
        item = self._waiting.get()
        self._busy_since = time.monotonic()
        return None if self._dropped.is_set() else item

    def _drop(self, why: str) -> None:
        """Warn and let go, once; who sees the tracker dropped can count on the warning being out."""
        with self._drop_once:
            if self._dropped.is_set():
                return
            _LOG.warning("tracker %s dropped: %s; the run goes on and metrics.jsonl stays complete", self._name, why)
            self._dropped.set()
