"""A process of its own for what is measured, so that it shares memory, threads and a GPU's context with nothing else.

It ends when its work is done, when that is given up, and when this process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import TypeVar

from grpo.errors import UserError
from rewards.workers.process import start_guardian

Result = TypeVar("Result")
LOOK_EVERY_S = 0.5


class BenchError(RuntimeError):
    """Something that was to be measured failed."""


def run_apart(function: Callable[[], Result], log: Path, look: Callable[[int], None] = lambda pid: None) -> Result:
    """What the function returns in a fresh interpreter, whose output goes into `log`. While it runs, `look` is called
    with the process's id every so often.

    Raises UserError for what is the user's to mend, BenchError for all else.
    """
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=_begin, initargs=(log,)) as pool:
        with _interrupts_held(), _safe_path():
            pid = pool.submit(os.getpid).result()
        work = pool.submit(attempt, function, log.stem)
        try:
            while wait([work], LOOK_EVERY_S).not_done:
                look(pid)
            return work.result()
        except BrokenProcessPool:
            raise BenchError(f"bench: {log.stem} (pid {pid}) was ended from outside\n{last_words(log)}") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def last_words(log: Path) -> str:
    """The end of a process's log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-25:])


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


@contextlib.contextmanager
def _safe_path() -> Iterator[None]:
    """A process that is started now does not take a file of the current folder, random.py say, for a library's."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        del os.environ["PYTHONSAFEPATH"]
        if before is not None:
            os.environ["PYTHONSAFEPATH"] = before


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """An interrupt comes after this: a process that it met half started would say so on the screen."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(log: Path) -> None:
    """Write to the log from here on, and lead a group of processes that ends when the parent does."""
    with log.open("ab") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
    os.setsid()
    if parent := parent_process():
        start_guardian(parent.sentinel)


def _lacks_memory(error: Exception) -> bool:
    torch = sys.modules.get("torch")
    on_gpu = torch is not None and isinstance(error, torch.OutOfMemoryError)
    return on_gpu or isinstance(error, MemoryError) or "can't allocate memory" in str(error)
