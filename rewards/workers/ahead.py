"""Work that is begun before it is waited for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, pairwise
from typing import TypeVar

_Item = TypeVar("_Item")


def one_ahead(begun: Iterable[_Item]) -> Iterator[_Item]:
    """The same items, each handed on after the one behind it has been taken.

    Where taking an item begins its work, there is work under way while the item before it is waited for, and never
    more than that of two items.
    """
    for item, _ in pairwise(chain(begun, [None])):
        if item is not None:
            yield item
