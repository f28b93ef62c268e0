"""Plain data as bytes, for the pipe between the sandbox and the checker outside.

The reader must not trust the writer, so nothing in the data can be executed, and every size is checked. One letter
says what follows::

    n  f  t                      None, False, True
    i5:-1e4a  d6:0x1p+1  s2:ab  b2:ab    int (hexadecimal), float (float.hex), str (UTF-8), bytes
    l2:  u2:  e2:  z2:  m2:      list, tuple, set, frozenset, dict; that many items follow (keys, then values: pairs)

Types are exact: a subclass has no place here, except that the standard library's dicts are sent as dict.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_DEPTH = 50
MAX_ITEMS = 100_000
_MAX_KEYS_OF_ONE_HASH = 100
_SEQUENCES: dict[type, bytes] = {list: b"l", tuple: b"u", set: b"e", frozenset: b"z"}
_TYPE_OF_LETTER = {letter: kind for kind, letter in _SEQUENCES.items()}
_CONSTANTS: dict[bytes, bool | None] = {b"n": None, b"f": False, b"t": True}
_DICT_NAMES = ("Counter", "OrderedDict", "defaultdict")


class NotPlainError(ValueError):
    """A value that is no plain data, or too much of it."""


class GarbageError(ValueError):
    """Bytes that no encoder has written."""


def encode(value: Any) -> bytes:
    """Raises NotPlainError for anything but plain data of bounded depth."""
    parts: list[bytes] = []
    _write(value, parts, MAX_DEPTH)
    return b"".join(parts)


def decode(data: bytes) -> Any:
    """Raises GarbageError unless the data is exactly one value, within the limits of `encode`."""
    reader = _Reader(data)
    try:
        value = reader.value(MAX_DEPTH)
    except (ValueError, TypeError, OverflowError) as error:
        raise GarbageError(f"no value: {error}") from None
    if reader.position != len(data):
        raise GarbageError("more than one value")
    return value


def _write(value: Any, parts: list[bytes], depth: int) -> None:
    if depth == 0:
        raise NotPlainError(f"nested more than {MAX_DEPTH} deep")
    if len(parts) >= MAX_ITEMS:
        raise NotPlainError(f"more than {MAX_ITEMS} values")
    kind = type(value)
    if value is None or kind is bool:
        parts.append(b"n" if value is None else b"t" if value else b"f")
    elif kind in (int, float, str, bytes):
        parts.append(_scalar(kind, value))
    elif kind in _SEQUENCES:
        parts.append(b"%s%d:" % (_SEQUENCES[kind], len(value)))
        for item in value:
            _write(item, parts, depth - 1)
    elif kind is dict or kind in _dicts_of_the_library():
        parts.append(b"m%d:" % len(value))
        for key, item in value.items():
            _write(key, parts, depth - 1)
            _write(item, parts, depth - 1)
    else:
        raise NotPlainError(f"{kind.__name__} is not plain data")


def _scalar(kind: type, value: Any) -> bytes:
    if kind is int:
        letter, text = b"i", b"%x" % value
    elif kind is float:
        letter, text = b"d", value.hex().encode()
    elif kind is str:
        letter, text = b"s", value.encode("utf-8", "surrogatepass")
    else:
        letter, text = b"b", value
    return b"%s%d:%s" % (letter, len(text), text)


def _dicts_of_the_library() -> tuple[type, ...]:
    """Counter and its like, when anyone has imported them."""
    collections = sys.modules.get("collections")
    return tuple(getattr(collections, name) for name in _DICT_NAMES) if collections else ()


class _Reader:
    """Reads values from left to right, and counts them."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0
        self._num_items = 0

    def value(self, depth: int) -> Any:
        letter = self._take(1)
        self._num_items += 1
        if depth == 0 or self._num_items > MAX_ITEMS:
            raise GarbageError("too deep, or too much")
        if letter in _CONSTANTS:
            return _CONSTANTS[letter]
        size = self._size()
        if letter in _TYPE_OF_LETTER:
            return self._items(_TYPE_OF_LETTER[letter], size, depth)
        if letter == b"m":
            keys_and_values = self._items(list, 2 * size, depth)
            return _without_duplicates(dict, keys_and_values[::2], keys_and_values[1::2])
        return _from_text(letter, self._take(size))

    def _items(self, kind: type, size: int, depth: int) -> Any:
        items = [self.value(depth - 1) for _ in range(size)]
        return _without_duplicates(kind, items) if kind in (set, frozenset) else kind(items)

    def _size(self) -> int:
        end = self._data.index(b":", self.position, self.position + 12)
        digits = self._take(end - self.position)
        self._take(1)
        if not digits.isdigit():
            raise GarbageError("no size")
        return int(digits)

    def _take(self, size: int) -> bytes:
        taken = self._data[self.position : self.position + size]
        if len(taken) != size:
            raise GarbageError("it ends too early")
        self.position += size
        return taken


def _from_text(letter: bytes, text: bytes) -> Any:
    if letter == b"i":
        return int(text, 16)
    if letter == b"d":
        return float.fromhex(text.decode("ascii"))
    if letter == b"s":
        return text.decode("utf-8", "surrogatepass")
    if letter == b"b":
        return text
    raise GarbageError(f"unknown kind {letter!r}")


def _without_duplicates(kind: type, keys: list[Any], values: list[Any] | None = None) -> Any:
    """A set or dict of exactly these keys, unless their hashes were chosen to make that slow."""
    num_keys_of_hash: dict[int, int] = {}
    for key in keys:
        number = num_keys_of_hash[hash(key)] = num_keys_of_hash.get(hash(key), 0) + 1
        if number > _MAX_KEYS_OF_ONE_HASH:
            raise GarbageError("keys of equal hashes")
    built = kind(keys) if values is None else kind(zip(keys, values, strict=True))
    if len(built) != len(keys):
        raise GarbageError("a key occurs twice")
    return built
