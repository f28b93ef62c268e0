"""Sharing pieces of work out to micro-batches: at most so many tokens in each, as many for each rank, alike in cost."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ATTENTION_PAIRS_PER_TOKEN = 8192
"""So many pairs of tokens in the attention cost as much as one token in the matrices: about six times a model's hidden
size, with a head as large as usual. It only shares out work evenly, so one number serves all models."""

MAX_LOOKED_AT = 64
"""Micro-batches without room that are passed over for one piece before it is taken that none has room."""


@dataclass(frozen=True)
class Piece:
    """Some completions of one group, to be computed as one tree: which ones, and how much work that is."""

    position: int
    """The group's, among all that the step has drawn."""
    completions: tuple[int, ...]
    """Their numbers in the group."""
    num_tokens: int
    cost: float
    """In tokens without attention."""


Bins = list[list[Piece]]


def make_piece(position: int, completions: Sequence[int], prompt_tokens: int, lengths: Sequence[int]) -> Piece:
    """The piece of a group whose chosen completions have these lengths, in tokens."""
    pairs = prompt_tokens * (prompt_tokens + 1) // 2
    pairs += sum(length * prompt_tokens + length * (length + 1) // 2 for length in lengths)
    num_tokens = prompt_tokens + sum(lengths)
    return Piece(position, tuple(completions), num_tokens, num_tokens + pairs / ATTENTION_PAIRS_PER_TOKEN)


def balance(pieces: Sequence[Piece], budget: int, num_ranks: int) -> Bins:
    """Micro-batches of at most `budget` tokens, as many for each rank, alike in cost; a piece over the budget is alone.

    They come in rounds of `num_ranks`, one for each rank in turn, so that what ranks compute at the same time costs
    about the same. There are never more than first-fit-decreasing needs, rounded up to a multiple of `num_ranks`: fewer
    where the costliest-first rule (see `_fill_evenly`) finds room in fewer. What it cannot place within that number is
    packed by first-fit-decreasing itself, whatever the costs.
    """
    if not pieces:
        return []
    by_cost = sorted(pieces, key=lambda piece: piece.cost, reverse=True)
    packed = first_fit_decreasing(pieces, budget)
    most = num_ranks * math.ceil(len(packed) / num_ranks)
    for num_bins in _attempts(pieces, budget, num_ranks, most):
        if (filled := _fill_evenly(by_cost, budget, num_bins)) is not None:
            return _in_rounds(filled, num_ranks)
    return _in_rounds(packed + [[] for _ in range(most - len(packed))], num_ranks)


def first_fit_decreasing(pieces: Sequence[Piece], budget: int) -> Bins:
    """The largest piece first, each into the first bin with room for it, or else into a new one.

    It needs at most 11/9 of the fewest bins possible, and one more (Johnson 1973).
    """
    bins: Bins = []
    room = np.zeros(len(pieces), dtype=np.int64)
    for piece in sorted(pieces, key=lambda piece: piece.num_tokens, reverse=True):
        fitting = room[: len(bins)] >= piece.num_tokens
        chosen = int(fitting.argmax()) if fitting.any() else len(bins)
        if chosen == len(bins):
            bins.append([])
            room[chosen] = budget
        bins[chosen].append(piece)
        room[chosen] -= piece.num_tokens
    return bins


def _attempts(pieces: Sequence[Piece], budget: int, num_ranks: int, most: int) -> list[int]:
    """Numbers of bins to try: the fewest that could do, `most`, and one between, each a multiple of `num_ranks`."""
    by_tokens = math.ceil(sum(piece.num_tokens for piece in pieces) / budget)
    large = sum(2 * piece.num_tokens > budget for piece in pieces)  # no two of these share a bin
    fewest = min(most, num_ranks * math.ceil(max(by_tokens, large) / num_ranks))
    between = fewest + num_ranks * math.ceil((most - fewest) / num_ranks / 2)
    return sorted({fewest, between, most})


def _fill_evenly(by_cost: Sequence[Piece], budget: int, num_bins: int) -> Bins | None:
    """The costliest piece first, each to the bin that has least to do of those with room (Graham's LPT rule, which ends
    at most a third above the best where room does not matter). None where a piece finds no room."""
    bins: Bins = [[] for _ in range(num_bins)]
    queue = [(0.0, index, budget) for index in range(num_bins)]
    for piece in by_cost:
        passed: list[tuple[float, int, int]] = []
        while queue and queue[0][2] < piece.num_tokens and bins[queue[0][1]] and len(passed) < MAX_LOOKED_AT:
            passed.append(heapq.heappop(queue))
        if not queue or (queue[0][2] < piece.num_tokens and bins[queue[0][1]]):
            return None
        cost, index, room = queue[0]
        bins[index].append(piece)
        heapq.heapreplace(queue, (cost + piece.cost, index, room - piece.num_tokens))
        for one in passed:
            heapq.heappush(queue, one)
    return bins


def _in_rounds(bins: Bins, num_ranks: int) -> Bins:
    """The costliest ones together; from round to round the ranks take turns in having the costliest."""
    ordered = sorted(bins, key=lambda pieces: sum(piece.cost for piece in pieces), reverse=True)
    rounds = [ordered[first : first + num_ranks] for first in range(0, len(ordered), num_ranks)]
    return [one for number, each in enumerate(rounds) for one in (each if number % 2 == 0 else each[::-1])]
