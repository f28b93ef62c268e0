"""A process of its own for what is measured: it does one thing after another, and ends when this one does.

It is a pool of one, so that nothing that is measured shares memory, threads or a GPU's context with anything else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, Self, TypeVar

from grpo.errors import UserError
from rewards.workers.process import start_guardian

Result = TypeVar("Result")
LOOK_EVERY_S = 0.5


class BenchError(RuntimeError):
    """Something that was to be measured failed."""


class OwnProcess:
    """Runs functions in a fresh interpreter, whose output goes into `log`. While one runs, `look` is called with the
    process's id every so often."""

    def __init__(self, log: Path, look: Callable[[int], None] | None = None) -> None:
        self._log = log
        self._look = look
        # Else a file in the current folder that is called random.py is the standard library's, there.
        os.environ["PYTHONSAFEPATH"] = "1"
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=_begin, initargs=(log,))
        self.pid: int = self._pool.submit(os.getpid).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, function: Callable[[], Result]) -> Result:
        """What the function returns. Raises UserError for what is the user's to mend, BenchError for all else."""
        name = self._log.stem
        future = self._pool.submit(attempt, function, name)
        try:
            while self._look and wait([future], LOOK_EVERY_S).not_done:
                self._look(self.pid)
            return future.result()
        except BrokenProcessPool:
            raise BenchError(f"bench: {name} (pid {self.pid}) was ended from outside\n{self.last_words()}") from None

    def open(self, kind: Callable[..., Any], *arguments: Any) -> None:
        """Make something there that stays, for `ask`."""
        self.run(partial(_open, kind, *arguments))

    def ask(self, method: str, *arguments: Any) -> Any:
        """What a method of that which was opened returns."""
        return self.run(partial(_ask, method, *arguments))

    def last_words(self) -> str:
        """The end of the log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-25:])

    def close(self) -> None:
        """End the process and everything that it started, now. Safe to call twice."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._pool.shutdown()


def attempt(function: Callable[[], Result], name: str) -> Result:
    """What the function returns. What it raises becomes a UserError or a BenchError, which any process can read."""
    try:
        return function()
    except UserError:
        raise
    except Exception as error:
        if _lacks_memory(error):
            text = f"bench: {name}: out of memory ({str(error).strip():.120}); lower --budget, or measure less"
            raise UserError(text) from None
        raise BenchError(f"bench: {name} failed\n{traceback.format_exc()}") from None


def _begin(log: Path) -> None:
    """Write to the log from here on, and lead a group of processes that ends when the parent does."""
    with log.open("ab") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
    os.setsid()
    if parent := parent_process():
        start_guardian(parent.sentinel)


_opened: list[Any] = []


def _open(kind: Callable[..., Any], *arguments: Any) -> None:
    _opened[:] = [kind(*arguments)]


def _ask(method: str, *arguments: Any) -> Any:
    return getattr(_opened[0], method)(*arguments)


def _lacks_memory(error: Exception) -> bool:
    torch = sys.modules.get("torch")
    on_gpu = torch is not None and isinstance(error, torch.OutOfMemoryError)
    return on_gpu or isinstance(error, MemoryError) or "can't allocate memory" in str(error)
