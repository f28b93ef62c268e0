"""Writing a run's row files, and cutting them back to where they ended at a checkpoint."""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from grpo.checkpoints.manifest import flush_file, flush_folder
from grpo.recipe.sections import LogSection
from grpo.rows import COMPLETIONS, DAMAGED, ROW_FILES, ClosedPart, closed_parts, step_of
from grpo.run.closing import Closer
from rewards import jsonl

_MIB = 2**20


class RowFiles:
    """The row files of one run, written by one process; `close` it at the end."""

    def __init__(self, folder: Path, settings: LogSection) -> None:
        self._folder = folder
        self._part_bytes = settings.completions_part_mib * _MIB
        self._closer = Closer(folder / COMPLETIONS, settings.completions_keep_gib)

    def append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows to one of the files: whole lines, handed to the system at once.

        Completions that have passed ``log.completions_part_mib`` become a closed part first, unless the new rows are of
        the step that they end with: a step is never in two parts.
        """
        text = "".join(json.dumps(_jsonable(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        lines = text.encode()
        file = self._folder / name
        if name == COMPLETIONS and lines and _size(file) >= self._part_bytes:
            last = last_step(file)
            if last is not None and last != step_of(lines[: lines.index(b"\n")]):
                self._closer.close_part(last)
        with file.open("ab") as handle:
            handle.write(lines)

    def cut_back(self, step: int, ends: Mapping[str, int] | None) -> list[str]:
        """Forget every row after `step`; they will be made again.

        `ends` says where each file ended when the step was done. Files are cut off there without being read. Where it
        is None (checkpoints once did not say), and for a file that is not what it was then, rows are looked at one by
        one. Returns a line for each file that is not what it was.
        """
        self._closer.wait()
        self._closer.remove_leftovers()
        damage = self._reopen(step, was_empty=ends is not None and ends.get(COMPLETIONS) == 0)
        cut = (_cut(self._folder / name, step, None if ends is None else ends.get(name, 0)) for name in ROW_FILES)
        return [line for line in (damage, *cut) if line]

    def set_aside(self) -> None:
        """Keep all rows as ``*.before_restart.jsonl``: all steps will be made again."""
        self._closer.wait()
        self._closer.remove_leftovers()
        for old in self._folder.glob("*.before_restart.jsonl*"):
            old.unlink()
        parts = closed_parts(self._folder / COMPLETIONS)
        files = [file for part in parts for file in (part.plain, part.compressed)]
        for file in (*files, *(self._folder / name for name in ROW_FILES)):
            if file.exists():
                file.replace(file.with_name(file.name.replace(".jsonl", ".before_restart.jsonl")))

    def close(self) -> None:
        """Wait until closed parts are compressed."""
        self._closer.close()

    def _reopen(self, step: int, was_empty: bool) -> str | None:
        """Make the part that was open when `step` was done the open one again, and remove what was closed since.

        That part may end with `step` itself, since parts are closed when the next step has rows; unless `was_empty`.
        Where it is damaged, what can be read of it is kept, and what is to be said of it returned.
        """
        file = self._folder / COMPLETIONS
        later = [part for part in closed_parts(file) if part.last_step >= step + was_empty]
        if not later:
            return None
        text = file.with_name(f".{file.name}.writing")
        error = _write_lines(later[0], text)
        if _begins_by(text, step):
            flush_file(text)
            text.replace(file)
        else:
            text.unlink()
            file.unlink(missing_ok=True)
        flush_folder(self._folder)
        # The newest first: if this is broken off, the part that was reopened is still there, to be reopened again.
        for part in reversed(later):
            part.plain.unlink(missing_ok=True)
            part.compressed.unlink(missing_ok=True)
        return None if error is None else _damage(later[0], step, error)


def last_step(file: Path) -> int | None:
    """The step of a file's last row, found from the file's end; None where its last line is no row."""
    with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return step_of(text[text.rfind(b"\n", 0, len(text) - 1) + 1 :])


def _write_lines(part: ClosedPart, target: Path) -> Exception | None:
    """Write a part's text; where it is damaged the whole lines before that, and return the error."""
    with part.open() as lines, target.open("wb") as text:
        try:
            text.writelines(lines)
        except DAMAGED as error:
            return error
    return None


def _damage(part: ClosedPart, step: int, error: Exception) -> str:
    return (
        f"{part.compressed}: is not what it was when step {step} was done: it is damaged ({error}); the run goes on "
        "with the rows that could be read"
    )


def _begins_by(file: Path, step: int) -> bool:
    """Whether a file's first row is of this step or of one before."""
    with file.open("rb") as lines:
        first = step_of(lines.readline())
    return first is not None and first <= step


def _cut(file: Path, step: int, end: int | None) -> str | None:
    """Cut one file back to `end`, or else to its rows up to `step`: what is to be said of it, if anything."""
    if end is not None and _was_whole_at(file, step, end):
        if file.exists():
            os.truncate(file, end)
        return None
    size = _size(file)
    if file.exists():
        _keep_rows(file, step)
    if end is None:
        return None
    return (
        f"{file}: is not what it was when step {step} was done (then {end} bytes, now {size} in all): rows have been "
        "removed or changed; the run goes on without them"
    )


def _was_whole_at(file: Path, step: int, end: int) -> bool:
    """Whether a file may have ended at `end` when `step` was done: a line ends there, and the first row is not later.

    The first row tells completions apart from those of a later part, when the part that `end` is of has been removed.
    """
    if end == 0:
        return True
    if _size(file) < end:
        return False
    with file.open("rb") as handle:
        first = step_of(handle.readline())
        handle.seek(end - 1)
        return first is not None and first <= step and handle.read(1) == b"\n"


def _keep_rows(file: Path, step: int) -> None:
    """Write a file anew without the rows after `step` and without lines that are no rows."""
    kept = file.with_name(f".{file.name}.writing")
    with file.open("rb") as lines, kept.open("w", encoding="utf-8") as target:
        for row in jsonl.read_rows(lines):
            found = row.fields.get("step")
            if type(found) is int and found <= step:
                target.write(json.dumps(row.fields, ensure_ascii=False) + "\n")
    kept.replace(file)


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _jsonable(row: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows no NaN: a number that is not finite becomes null."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}
