"""Which problems a step takes: a pure function of (number of problems, problems per step, seed, step)."""

from __future__ import annotations

import random
from functools import lru_cache

from data.errors import DataError
from data.splits import hashed


def indices_for_step(num_problems: int, per_step: int, seed: int, step: int) -> list[int]:
    """The positions, from 0, of the ``per_step`` problems of step number ``step``, counted from 0.

    Epoch follows epoch without a gap. Each is a permutation of its own, keyed by (seed, epoch), in which every
    problem stands exactly once; a step may begin in one epoch and end in the next. With
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
    """The epoch's permutation, changed so that no problem comes twice in the step where two epochs meet.

    Where a step begins in the epoch before and ends in this one, this epoch's first problems may be among those
    that the step has had already. Each such problem changes places with the next one behind the step that it has
    not had. With ``num_problems >= 2 * per_step`` those are found before the epoch's last step, so that the last
    step stays as it was shuffled; the next epoch, which looks at nothing else of this one, can therefore be made
    without making all epochs before it.
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
