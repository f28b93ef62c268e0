"""How generated problems are drawn, and why no question of one split ever occurs in another.

Every possible question belongs to exactly one split. Its canonical form (operand order and the like removed)
is hashed into one of twelve equal shares: nine belong to ``train`` and one each to ``test``, ``validation``
and ``eval``. The hash takes in neither the run's seed nor the options, so a ``test`` problem of any seed and
any option is never a ``train`` problem of any other.

Problem number i of a split is the first draw that falls in the split's share, from a stream of random numbers
keyed by (source, seed, split, i). Neighbouring seeds and indices therefore have nothing in common. In a small
space of questions one split may hold the same question more than once.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from data.errors import DataError

SHARES = {"train": range(9), "test": range(9, 10), "validation": range(10, 11), "eval": range(11, 12)}
_NUM_SHARES = 12
_MAX_DRAWS = 20_000


@dataclass(frozen=True)
class Draft:
    """One drawn question with its gold, and what users' own reward functions are handed by name."""

    question: str
    gold: str
    columns: Mapping[str, Any] = field(default_factory=dict)


Belongs = Callable[[str], bool]
"""Says whether the question with this canonical form belongs to the split that is asked for."""
GenerationPlan = Callable[[random.Random, Belongs], Draft | None]
"""Draws one question, or None when what was drawn makes no question or belongs to another split."""


def hashed(*parts: str | int) -> int:
    """128 bits that depend on every part, equal on every machine and in every run."""
    text = json.dumps(parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "big")


def split_of(source: str, key: str) -> str:
    """The one split that the question with this canonical form belongs to."""
    share = hashed("split", source, key) % _NUM_SHARES
    return next(split for split, shares in SHARES.items() if share in shares)


def draw_for_split(draw: GenerationPlan, source: str, seed: int, split: str, index: int) -> Draft:
    """Problem number ``index`` of a split: the first question of its stream that belongs to the split.

    Raises DataError when the options leave (almost) no question for the split.
    """
    rng = random.Random(hashed("problem", source, seed, split, index))
    for _ in range(_MAX_DRAWS):
        draft = draw(rng, lambda key: split_of(source, key) == split)
        if draft is not None:
            return draft
    raise DataError(
        f"split={split!r}: no question of {source} was found for this split in {_MAX_DRAWS} draws; "
        "widen the options, so that there are more questions"
    )
