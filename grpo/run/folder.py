"""A run's folder: who may write in it, its recipe and environment, and how a run that was stopped goes on in it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from grpo.checkpoints.checkpoints import checkpoint_of
from grpo.checkpoints.row_ends import read_row_ends
from grpo.errors import RecipeError, UserError
from grpo.recipe.load import dump_recipe, load_recipe
from grpo.recipe.resume import RecipeChange, changes
from grpo.recipe.sections import Recipe
from grpo.rows import CHANGES, ROW_FILES
from grpo.run.environment import environment
from grpo.run.row_files import RowFiles

_RECIPE = "recipe.yaml"
_ENVIRONMENT = "environment.json"
_LOCK = "lock"


class RunFolder:
    """Opened by one run at a time; a context manager that leaves no folder behind when nothing was done in it."""

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path = path
        self._rows = RowFiles(path, recipe.log)
        self._recipe = recipe

    def __enter__(self) -> Self:
        self._changes = _changes_since(self.path, self._recipe)
        self._is_new = not _holds_run(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = (self.path / _LOCK).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise UserError(
                f"run.dir={self.path}: another run is writing there; wait for it, stop it, or set another run.dir"
            ) from None
        (self.path / "logs").mkdir(exist_ok=True)
        self.describe_environment({})
        if self._is_new:
            self._write_recipe()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows.close()
        if error is not None and self._is_new and not self._holds_anything():
            self._take_back()
        self._lock.close()

    def describe_environment(self, more: Mapping[str, Any]) -> None:
        """Write environment.json: versions, commit, machine, and what the caller knows beside that."""
        _write_whole(self.path / _ENVIRONMENT, json.dumps(environment() | dict(more), indent=1))

    def append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows to one of the row files; see `RowFiles.append`."""
        self._rows.append(name, rows)

    def go_on(self, step: int) -> list[str]:
        """Training begins after `step`: forget later rows, and note what has changed in the recipe.

        At step 0 all rows are set aside. Returns lines for the screen. The recipe of a run that has been started before
        is replaced only now, so that a start that fails changes nothing.
        """
        if step:
            said = self._rows.cut_back(step, read_row_ends(checkpoint_of(self.path, step)))
        else:
            self._rows.set_aside()
            said = []
        self._note_changes(step)
        self._write_recipe()
        return said + [
            f"from step {step + 1} on: {change.key}={change.new} (was {change.old})" for change in self._changes
        ]

    def _note_changes(self, step: int) -> None:
        """A row for each change: the step that it holds from, and both values."""
        if not self._changes:
            return
        now = time.time()
        with (self.path / CHANGES).open("a", encoding="utf-8") as file:
            for change in self._changes:
                row = {"step": step + 1, "time_unix": now, "key": change.key, "old": change.old, "new": change.new}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def _write_recipe(self) -> None:
        _write_whole(self.path / _RECIPE, dump_recipe(self._recipe))

    def _take_back(self) -> None:
        """Remove what `__enter__` wrote, and the folder if that was all; the engine's log stays to be read."""
        for name in (_RECIPE, _ENVIRONMENT, _LOCK):
            (self.path / name).unlink(missing_ok=True)
        for folder in (self.path / "logs", self.path):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _holds_anything(self) -> bool:
        rows = [self.path / name for name in ROW_FILES]
        return any(file.exists() for file in rows) or any(self.path.glob("checkpoints/step_*"))


def _write_whole(file: Path, text: str) -> None:
    """Replace a file in one move, so that no reader ever sees half of it."""
    temporary = file.with_name(f".{file.name}.writing")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)


def _holds_run(path: Path) -> bool:
    return (path / _RECIPE).is_file() and (path / _ENVIRONMENT).is_file()


def _is_beginning(file: Path) -> bool:
    """Whether a file may be what is left of a run that was killed while it opened its folder."""
    return file.name in (_LOCK, _ENVIRONMENT, "logs") or (file.name.startswith(".") and file.name.endswith(".writing"))


def _changes_since(path: Path, recipe: Recipe) -> list[RecipeChange]:
    """What differs from the recipe of the run in the folder. Raises UserError where the folder is not this run's."""
    if path.exists() and not path.is_dir():
        raise UserError(f"run.dir={path}: is a file; give a folder")
    if not path.exists() or all(_is_beginning(file) for file in path.iterdir()):
        return []
    if not _holds_run(path):
        raise UserError(f"run.dir={path}: holds files but no run; give a new folder, or one that holds a run")
    try:
        before = load_recipe(path / _RECIPE)
    except RecipeError as error:
        raise UserError(f"run.dir={path}: its recipe cannot be read; set another run.dir\n{error}") from None
    found = changes(before, recipe)
    if refused := [change for change in found if not change.may_change]:
        listed = ", ".join(f"{change.key}={change.new} (the run has {change.old})" for change in refused)
        raise UserError(
            f"run.dir={path}: belongs to another recipe, which differs in {listed}; set another run.dir, or start it "
            "with its own recipe to go on"
        )
    return found
