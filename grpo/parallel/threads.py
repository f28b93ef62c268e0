"""How threads wait on a CPU that trainer and engine share."""

from __future__ import annotations

import os

SHORT_WAITS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}
"""Threads of OpenMP that have nothing to do stay awake for a fraction of a millisecond, then sleep.

A layer of a small model is some ten short parallel regions. Threads that sleep at once are woken anew for each of them
(`GOMP_SPINCOUNT=0` shows what that costs); threads that stay awake for long, as by default, take the cores from the
engine while the trainer works, and from the trainer while the engine does.
"""


def wait_briefly() -> None:
    """Set `short_waits` for this process and what it starts. Counts only before OpenMP is loaded, which torch does."""
    os.environ.update(short_waits())


def short_waits() -> dict[str, str]:
    """`SHORT_WAITS`, or nothing where the user has said how threads are to wait."""
    return {} if SHORT_WAITS.keys() & os.environ.keys() else SHORT_WAITS
