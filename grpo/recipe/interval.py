"""Steps on which something happens that is done every so many steps."""

from __future__ import annotations


def is_due(step: int, every: int) -> bool:
    """Whether `step`, counted from 1, is one of those on which something happens every so many steps; 0 is never."""
    return every > 0 and step % every == 0
