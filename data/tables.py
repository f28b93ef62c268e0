"""Reads rows from the hub, from files and from folders, without judging what stands in them.

JSON and CSV files are read line by line and not by `datasets`, which gives up the whole file at one broken
line or at one number among texts, and which turns the text ``007`` of a CSV file into the number 7.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.errors import DataError, nearest

_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")


@dataclass(frozen=True)
class BadRow:
    """A row that could not even be read."""

    reason: str


Row = Mapping[str, Any] | BadRow


@dataclass(frozen=True)
class Table:
    """Rows in their order, with the names of all columns that any row has."""

    columns: tuple[str, ...]
    rows: Iterable[Row]


def read_table(path: str, subset: str | None, split: str) -> Table:
    """Rows of a local file or folder if there is one of that name, and of the hub's data set if not.

    A file is one split whatever ``split`` says; of a folder, the files are read whose path names the split
    (``train.jsonl``, ``data/test-00000.parquet``). Raises DataError.
    """
    local = Path(path).expanduser()
    if not local.exists():
        if path.startswith((".", "/", "~")) or local.suffix in _SUFFIXES:
            raise DataError(f"path={path!r}: there is no such file; {_beside(local)}")
        return _from_hub(path, subset, split)
    if subset is not None:
        raise DataError(f"subset={subset!r}: a local file or folder has no subsets; leave subset out")
    rows = [row for file in _files(local, split) for row in _READERS[file.suffix](file)]
    names = dict.fromkeys(name for row in rows if not isinstance(row, BadRow) for name in row)
    return Table(tuple(names), rows)


def _beside(missing: Path) -> str:
    folder = missing.parent
    if not folder.is_dir():
        return f"the folder {str(folder)!r} does not exist either"
    return nearest(missing.name, (each.name for each in folder.iterdir() if each.suffix in _SUFFIXES))


def _files(local: Path, split: str) -> list[Path]:
    if local.is_file():
        if local.suffix not in _SUFFIXES:
            raise DataError(f"path={str(local)!r}: is of no known kind; give one of {', '.join(_SUFFIXES)}")
        return [local]
    files = sorted(file for file in local.rglob("*") if file.suffix in _SUFFIXES)
    chosen = [file for file in files if split in re.split(r"[\W_]+", str(file.relative_to(local)))]
    if not chosen:
        names = ", ".join(str(file.relative_to(local)) for file in files[:10]) or "no data files"
        raise DataError(
            f"split={split!r}: no file in {str(local)!r} has it in its name; give one file as path. "
            f"The folder holds {names}"
        )
    return chosen


def _from_hub(path: str, subset: str | None, split: str) -> Table:
    import datasets

    asked = f"path={path!r}, subset={subset!r}, split={split!r}"
    try:
        table = datasets.load_dataset(path, subset, split=split)
    except ConnectionError as error:
        raise DataError(
            f"{asked}: the Hugging Face hub cannot be reached and the data set is not in the local cache; "
            "connect to the network, or give a local file as path"
        ) from error
    except Exception as error:
        raise DataError(f"{asked}: the hub's data set cannot be loaded; {_first_line(error)}") from error
    return Table(tuple(table.column_names), table)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"


def _json_rows(file: Path) -> Iterator[Row]:
    content = file.read_bytes().removeprefix(codecs.BOM_UTF8).rstrip()
    if file.suffix == ".json" and content.lstrip().startswith(b"["):
        try:
            yield from map(_as_row, json.loads(content))
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"path={str(file)!r}: is not valid JSON ({error}); mend it, or write one object per line"
            ) from error
        return
    for line in content.splitlines():
        try:
            yield _as_row(json.loads(line))
        except (ValueError, RecursionError) as error:
            yield BadRow(f"is not valid JSON ({error})")


def _as_row(value: object) -> Row:
    if isinstance(value, dict):
        return value
    return BadRow(f"is a JSON {type(value).__name__} and not an object with columns")


def _csv_rows(file: Path) -> Iterator[Row]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            for row in csv.DictReader(lines):
                yield BadRow("has more cells than the header has columns") if None in row else row
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"path={str(file)!r}: is not a CSV file in UTF-8 ({error}); save it as one") from error


def _parquet_rows(file: Path) -> Iterator[Row]:
    import datasets

    with tempfile.TemporaryDirectory() as cache:
        try:
            table = datasets.load_dataset("parquet", data_files=str(file), split="train", cache_dir=cache)
        except Exception as error:
            raise DataError(
                f"path={str(file)!r}: cannot be read as Parquet ({_first_line(error)}); write it anew"
            ) from error
        yield from table


_READERS = {".jsonl": _json_rows, ".json": _json_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}
