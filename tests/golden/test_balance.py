"""Sharing work out to micro-batches and ranks: small cases on paper, and a step of real size."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from itertools import product

import pytest

from grpo.batching.balance import Bins, Piece, balance, first_fit_decreasing, make_piece


def row(num_tokens: int, position: int = 0) -> Piece:
    """A prompt of one token with one completion."""
    return make_piece(position, (0,), 1, (num_tokens - 1,))


def sizes_of(bins: Bins) -> list[list[int]]:
    return [[piece.num_tokens for piece in pieces] for pieces in bins]


def test_a_pieces_size_counts_its_prompt_once() -> None:
    piece = make_piece(4, (0, 2), 2, (3, 1))
    assert (piece.position, piece.completions, piece.num_tokens) == (4, (0, 2), 2 + 3 + 1)
    # In the prompt 1 + 2 pairs; a token of a branch sees the prompt's two, and 1, 2 or 3 of its own.
    assert piece.cost == 6 + (3 + (2 + 1) + (2 + 2) + (2 + 3) + (2 + 1)) / 8192


@pytest.mark.parametrize(
    ("num_ranks", "expected"),
    [
        # 32 tokens might fit two micro-batches of 16, but not these: 9 + 5, 8 + 6, and no room for 4. Of three, each
        # piece goes to the emptiest: 9, 8 and 6 have one each, 5 joins the 6, 4 joins the 8.
        (1, [[8, 4], [6, 5], [9]]),
        # Rounds of two: the costliest two first, then the others with the ranks' turns changed.
        (2, [[9], [5, 4], [6], [8]]),
        (5, [[9], [8], [6], [5], [4]]),
        (6, [[9], [8], [6], [5], [4], []]),
    ],
)
def test_the_costliest_first_to_the_emptiest(num_ranks: int, expected: list[list[int]]) -> None:
    assert sizes_of(balance([row(size) for size in (4, 9, 5, 8, 6)], 16, num_ranks)) == expected


def test_pairs_are_work_too() -> None:
    """4000 tokens in one row cost 4977, as they have 8.002 million pairs; four rows of 1000 cost 1061 each: it is the
    latter that a sixth row joins, though there are as many tokens on either side."""
    pieces = [row(size) for size in (900, 1000, 1000, 4000, 1000, 1000)]
    assert sorted(sizes_of(balance(pieces, 8000, 2))) == [[1000, 1000, 1000, 1000, 900], [4000]]


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_work_is_shared_out_almost_evenly(num_ranks: int) -> None:
    """The fullest is as full as Graham proved of his rule, against the best of all ways; the emptiest is not far."""
    pieces = [row(size + 1) for size in (911, 3022, 747, 1501, 2350, 60, 1780, 1203)]
    loads = [sum(piece.cost for piece in pieces) for pieces in balance(pieces, 100_000, num_ranks)]
    best = min(
        max(
            sum(piece.cost for piece, chosen in zip(pieces, chosens, strict=True) if chosen == rank)
            for rank in range(num_ranks)
        )
        for chosens in product(range(num_ranks), repeat=len(pieces))
    )
    assert best <= max(loads) <= best * (4 / 3 - 1 / (3 * num_ranks))
    assert max(loads) - min(loads) < 0.15 * max(loads)


def test_ranks_have_alike_work_in_each_round_and_in_all() -> None:
    """24 rows, one to a micro-batch: in each round neighbours in cost, and the totals closer than the largest row."""
    pieces = [row(10_000 + 100 * number, number) for number in range(24)]
    bins = balance(pieces, 13_000, 4)
    assert [len(one) for one in bins] == [1] * 24
    rounds = [[one[0].num_tokens for one in bins[first : first + 4]] for first in range(0, 24, 4)]
    assert all(max(each) - min(each) == 300 for each in rounds)
    totals = [sum(each[rank] for each in rounds) for rank in range(4)]
    assert max(totals) == min(totals)


def test_a_piece_over_the_budget_is_alone() -> None:
    assert sizes_of(balance([row(3), row(20), row(4)], 8, 1)) == [[20], [4, 3]]


def test_nothing_to_share_out() -> None:
    assert balance([], 16, 4) == []


def test_first_fit_decreasing_by_hand() -> None:
    # 9 7 6 5 3 2 into 16: 9 7, then 6 5 3 2.
    assert sizes_of(first_fit_decreasing([row(one) for one in (5, 9, 2, 6, 3, 7)], 16)) == [[9, 7], [6, 5, 3, 2]]


def lengths(kind: str, num: int) -> list[int]:
    draw = random.Random(1)
    return {
        "all 8k": lambda: [8192 - 256] * num,
        "even": lambda: [draw.randint(100, 8192) for _ in range(num)],
        "long tail": lambda: [min(15_000, int(draw.lognormvariate(7, 1))) + 1 for _ in range(num)],
        "two kinds": lambda: [draw.choice([100, 9000]) for _ in range(num)],
        "no two fit": lambda: [9000] * num,
        "two of three": lambda: [draw.randint(5000, 6000) for _ in range(num)],
    }[kind]()


KINDS = ("all 8k", "even", "long tail", "two kinds", "no two fit", "two of three")


def of_real_size(kind: str, num: int) -> list[Piece]:
    return [make_piece(number, (0,), 256, (length,)) for number, length in enumerate(lengths(kind, num))]


@pytest.mark.parametrize("num_ranks", [1, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_real_size_is_planned_at_once(kind: str, num_ranks: int) -> None:
    """4,096 pieces in 0.2 s of this thread (the best of three: a collection of garbage is not what is measured), in no
    more micro-batches than first-fit-decreasing needs. What tries every micro-batch for every piece, for every number
    of micro-batches, takes minutes."""
    pieces = of_real_size(kind, 4096)
    spent = []
    for _ in range(3):
        began = time.thread_time()
        bins = balance(pieces, 16_384, num_ranks)
        spent.append(time.thread_time() - began)
    assert min(spent) < 0.2
    packed = len(first_fit_decreasing(pieces, 16_384))
    assert len(bins) == num_ranks * math.ceil(len(bins) / num_ranks) <= num_ranks * math.ceil(packed / num_ranks)
    assert all(sum(piece.num_tokens for piece in one) <= 16_384 for one in bins)
    assert sorted(piece.position for one in bins for piece in one) == list(range(4096))


def loads_of_ranks(bins: Sequence[Sequence[Piece]], num_ranks: int) -> list[float]:
    return [sum(piece.cost for one in bins[rank::num_ranks] for piece in one) for rank in range(num_ranks)]


@pytest.mark.parametrize("kind", KINDS)
def test_no_rank_waits_long_for_another(kind: str) -> None:
    loads = loads_of_ranks(balance(of_real_size(kind, 2048), 16_384, 8), 8)
    assert max(loads) < 1.02 * sum(loads) / 8
