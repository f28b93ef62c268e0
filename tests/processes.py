"""Running the command as a user does, and looking at the processes that it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

TESTS = Path(__file__).parent


def environment() -> dict[str, str]:
    """The test's own environment, with the toy rewards importable by the command and its workers."""
    return {**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}"}


def heed_interrupts() -> None:
    """A shell that puts the tests into the background has them, and all that they start, ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start_grpo(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "grpo", *arguments]
    return subprocess.Popen(
        command,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=heed_interrupts,
    )


def run_grpo(*arguments: str, timeout_s: float = 300) -> tuple[int, str]:
    """Exit code and everything that was printed."""
    process = start_grpo(*arguments)
    try:
        output, _ = process.communicate(timeout=timeout_s)
    finally:
        process.kill()
    return process.returncode, output


def write_recipe(file: Path, recipe: dict[str, Any]) -> str:
    file.write_text(yaml.safe_dump(recipe))
    return str(file)


def wait_for(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """The condition's first true value."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {timeout_s:g} s")


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
