"""How generated problems are drawn: distinct within a set, and no question of one split ever in another.

Every possible question belongs to exactly one split. Its canonical form (operand order and the like removed)
is hashed into one of twelve equal shares: nine belong to ``train`` and one each to ``test``, ``validation``
and ``eval``. The hash takes in neither the run's seed nor the options, so a ``test`` problem of any seed and
any option is never a ``train`` problem of any other.

Problem number i of a split is the first draw that falls in the split's share and that is not one of the problems
before it, from a stream of random numbers keyed by (source, seed, split, i). It is therefore the same however many
problems are asked for, and neighbouring seeds and indices have nothing in common.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from data.errors import DataError

SHARES = {"train": range(9), "test": range(9, 10), "validation": range(10, 11), "eval": range(11, 12)}
_NUM_SHARES = 12
_MAX_DRAWS = 20_000
"""Draws in a row that make no question for the split before there are said to be none."""
_REPEATS_PER_QUESTION = 40
"""Repeated questions in a row, for each one that is known, before there are said to be no others. The last question of
all, where it is drawn k times less often than the average one, is overlooked with a chance of exp(-40 / k)."""


@dataclass(frozen=True)
class Draft:
    """One drawn question."""

    question: str
    gold: str
    key: str
    """What makes it this problem: drafts with the same key ask the same thing, if perhaps in another order."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """What users' own reward functions are handed by name."""


Belongs = Callable[[str], bool]
"""Says whether the question with this canonical form belongs to the split that is asked for."""
DrawQuestion = Callable[[random.Random, Belongs], Draft | None]
"""Draws one question, or None when what was drawn makes no question or belongs to another split."""


def hashed(*parts: str | int) -> int:
    """128 bits that depend on every part, equal on every machine and in every run."""
    text = json.dumps(parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "big")


def split_of(source: str, key: str) -> str:
    """The one split that the question with this canonical form belongs to."""
    share = hashed("split", source, key) % _NUM_SHARES
    return next(split for split, shares in SHARES.items() if share in shares)


def draw_problems(draw: DrawQuestion, source: str, seed: int, split: str, num_problems: int) -> Iterator[Draft]:
    """The first `num_problems` problems of a split, no two of which have the same key.

    Raises DataError when the options leave fewer, and says how many there are.
    """
    known: set[str] = set()
    for index in range(num_problems):
        rng = random.Random(hashed("problem", source, seed, split, index))
        draft = _draw_new(draw, rng, source, split, known)
        if draft is None:
            raise _too_few(source, split, num_problems, len(known))
        known.add(draft.key)
        yield draft


def _draw_new(draw: DrawQuestion, rng: random.Random, source: str, split: str, known: Set[str]) -> Draft | None:
    """The first question of a stream that belongs to the split and is not known; None when none is to be found."""
    num_empty = num_repeats = 0
    while num_empty < _MAX_DRAWS and num_repeats < _REPEATS_PER_QUESTION * (len(known) + 1):
        draft = draw(rng, lambda key: split_of(source, key) == split)
        if draft is None:
            num_empty += 1
        elif draft.key in known:
            num_empty, num_repeats = 0, num_repeats + 1
        else:
            return draft
    return None


def _too_few(source: str, split: str, num_problems: int, num_found: int) -> DataError:
    if num_found == 0:
        return DataError(
            f"split={split!r}: no question of {source} was found for this split in {_MAX_DRAWS} draws; "
            "widen the options, so that there are more questions"
        )
    return DataError(
        f"num_problems={num_problems}: with these options {source} has no more than {num_found} different questions "
        f"for split={split!r}; ask for at most that many, or widen the options, so that there are more"
    )
