"""The one error that this package raises on purpose, and the pieces its messages are made of."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pydantic import ValidationError


class DataError(ValueError):
    """A problem source, template or order that cannot be used as asked.

    Messages read ``where=value: what is wrong; what to do``.
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint that names the closest known word, if one is close, and then all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    listed = ", ".join(names) or "none"
    return f"did you mean {close[0]!r}? Known: {listed}" if close else f"known: {listed}"


def explain(where: str, error: ValidationError, known: Iterable[str]) -> str:
    """All of pydantic's findings in one line of this package's form.

    ``where`` is the prefix of the keys (``options`` gives ``options.max_value``); it may be empty. ``known``
    are the names of the fields, for the hint at an unknown one.
    """
    names = tuple(known)
    found = []
    for detail in error.errors():
        key = ".".join(str(part) for part in (where, *detail["loc"]) if part != "")
        if detail["type"] == "extra_forbidden":
            hint = nearest(str(detail["loc"][-1]), names)
            found.append(f"{key}={detail['input']!r}: is not a known key; {hint}")
        elif detail["type"] == "value_error":
            found.append(str(detail["ctx"]["error"]))
        else:
            found.append(f"{key}={detail['input']!r}: {detail['msg'][:1].lower()}{detail['msg'][1:]}")
    return " | ".join(found)
