"""Which problems a step takes: a pure function of (number of problems, problems per step, seed, step)."""

from __future__ import annotations

import random
from functools import lru_cache

from data.errors import DataError
from data.splits import hashed


def indices_for_step(num_problems: int, per_step: int, seed: int, step: int) -> list[int]:
    """The positions, from 0, of the ``per_step`` problems of step number ``step``, counted from 0.

    Steps walk through one endless row of epochs. Each epoch is a permutation of its own, keyed by
    (seed, epoch), in which every problem stands exactly once; a step may reach over an epoch's end. With
    ``num_problems >= 2 * per_step`` no problem comes twice within one step; with fewer this is avoided
    where a simple exchange can, and with ``per_step > num_problems`` problems must repeat.

    Raises DataError for a size below 1 or a step below 0.
    """
    for name, value, lowest in (
        ("num_problems", num_problems, 1),
        ("per_step", per_step, 1),
        ("step", step, 0),
    ):
        if value < lowest:
            raise DataError(f"{name}={value}: is too small; give {lowest} or more")
    first = step * per_step
    places = (divmod(position, num_problems) for position in range(first, first + per_step))
    return [_epoch_order(num_problems, per_step, seed, epoch)[place] for epoch, place in places]


@lru_cache(maxsize=2)
def _epoch_order(num_problems: int, per_step: int, seed: int, epoch: int) -> list[int]:
    """The epoch's permutation, mended where its first step also holds the end of the epoch before.

    A problem at the front that the same step has had already changes places with the next fresh one after
    the front. With ``num_problems >= 2 * per_step`` there are enough of those before the epoch's last step:
    the end, which the next epoch looks at, stays as it was shuffled, and no epoch depends on more than one
    other.
    """
    order = _shuffled(num_problems, seed, epoch)[:]
    num_before = epoch * num_problems % per_step
    if num_before == 0:
        return order
    before = set(_shuffled(num_problems, seed, epoch - 1)[-num_before:])
    num_front = min(per_step - num_before, num_problems)
    fresh = (place for place in range(num_front, num_problems) if order[place] not in before)
    repeated = (place for place in range(num_front) if order[place] in before)
    for place, other in zip(repeated, fresh, strict=False):
        order[place], order[other] = order[other], order[place]
    return order


@lru_cache(maxsize=2)
def _shuffled(num_problems: int, seed: int, epoch: int) -> list[int]:
    order = list(range(num_problems))
    random.Random(hashed("order", seed, epoch)).shuffle(order)
    return order
