"""Reads and writes rows of JSON, one a line.

A line that is no row becomes a `Row` with a fault, so that reading goes on; any text can be written to any stream.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO

_MAX_DEPTH = 100
"""Rows may be nested that deep: they are copied, compared and written again, which recurses."""


class RowFileError(ValueError):
    """A file of rows that cannot be read or written: ``where=value: what is wrong; what to do``."""


@dataclass(frozen=True)
class Row:
    """One line of the input, counted from 0: its `fields`, or the `fault` that is the reason why it cannot be used."""

    number: int
    fields: Mapping[str, Any]
    fault: str | None = None


def read_rows(lines: Iterable[bytes]) -> Iterator[Row]:
    """Each line as a row; one that is no JSON object in UTF-8 (with a byte order mark or without) has a fault."""
    for number, line in enumerate(lines):
        try:
            fields = json.loads(line.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            yield Row(number, {}, f"line={_shown(line)}: not JSON ({error}); write one object on each line")
            continue
        if not isinstance(fields, dict):
            yield Row(number, {}, f"line={_shown(line)}: not an object; write {{…}} on each line")
        elif line.count(b"[") + line.count(b"{") > _MAX_DEPTH and _is_deep(fields):
            yield Row(number, {}, f"line={_shown(line)}: nested deeper than {_MAX_DEPTH}; flatten the row")
        else:
            yield Row(number, fields)


def _shown(line: bytes) -> str:
    return f"{line.decode('utf-8', 'backslashreplace').rstrip()!r:.60}"


def _is_deep(value: object) -> bool:
    """Whether lists and objects stand inside each other more than `_MAX_DEPTH` times."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [part for parts in inner for part in parts]
    return any(isinstance(one, dict | list) for one in level)


class RowWriter:
    """Writes rows as JSON lines; an interrupt loses those since the last `flush`.

    `where` is the name of the stream in errors. Raises RowFileError when nothing more can be written.
    """

    def __init__(self, stream: TextIO, where: str) -> None:
        self._stream = stream
        self._where = where

    def write(self, row: Mapping[str, Any]) -> None:
        """Write one row. Characters that the stream's encoding lacks are escaped."""
        line = json.dumps(row, ensure_ascii=False)
        try:
            line.encode(self._stream.encoding or "utf-8")
        except UnicodeEncodeError:
            line = json.dumps(row)
        with self._explained():
            self._stream.write(line + "\n")

    def flush(self) -> None:
        """Hand all rows so far to the operating system."""
        with self._explained():
            self._stream.flush()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RowFileError(f"{self._where}: {error.strerror}; free some room or choose another place") from None


def open_source(file: Path, option: str) -> BinaryIO:
    """The file, to be read line by line; `option` is what the command line calls it. Raises RowFileError."""
    try:
        return file.open("rb")
    except OSError as error:
        raise RowFileError(f"{option}={file}: {error.strerror}; give the path of a JSONL file") from None


@contextmanager
def open_writer(out: Path | None, source: Path) -> Iterator[RowWriter]:
    """A writer to the file of ``--out``, or to the screen. Raises RowFileError, also for the file that is read."""
    if out is None:
        writer = RowWriter(sys.stdout, "stdout")
        yield writer
        writer.flush()
        return
    stream = _open_out(out, source)
    writer = RowWriter(stream, f"--out={out}")
    try:
        yield writer
        writer.flush()
    finally:
        with suppress(OSError):
            stream.close()


def _open_out(out: Path, source: Path) -> TextIO:
    try:
        if out.exists() and out.samefile(source):
            raise RowFileError(f"--out={out}: is the file that is read; give another")
        return out.open("w", encoding="utf-8")
    except OSError as error:
        advice = "make that folder first" if isinstance(error, FileNotFoundError) else "choose another place"
        raise RowFileError(f"--out={out}: {error.strerror}; {advice}") from None
