"""The one record that every source produces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Problem:
    """A question with its gold answer and the name of the checker that judges answers to it.

    Example: ``Problem("arithmetic/train/17", "What is 23 + 48?", "71", "integer", "arithmetic", row=17)``.
    """

    id: str
    """Unique in its data set and stable between runs: ``source/split/row``."""
    question: str
    gold: str
    """Plain text; a structured gold (countdown, knights and knaves) is JSON, as its checker documents. Several
    reference answers, any of which will do, are ``{"any_of": ["1/2", "0.5"]}``."""
    checker: str
    """A name that `rewards` knows: integer, math, countdown, knights_knaves, exact."""
    source: str
    row: int
    """Position in the source, counted from 0: what error messages name."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """The row's columns, handed to users' own reward functions by name."""
