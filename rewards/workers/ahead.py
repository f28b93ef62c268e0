"""Looking one item ahead, so that the next piece of work is under way while this one is waited for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, pairwise
from typing import TypeVar

_Item = TypeVar("_Item")


def one_ahead(items: Iterable[_Item]) -> Iterator[_Item]:
    """The same items in the same order, but each is handed on only when the next one has been taken from `items`.

    Where taking an item submits its work, as in a generator that submits and then yields, the workers have the next
    item's work while the caller waits for this one's; never more than two items are under way.
    """
    for item, _ in pairwise(chain(items, [None])):
        if item is not None:
            yield item
