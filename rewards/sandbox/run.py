"""Runs one answer in a sandboxed process: hands it over, reads the replies, and kills the process in time.

This is the trusted side; `inside` is what runs in the process.
"""

from __future__ import annotations

import functools
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rewards.sandbox.budget import UNBOUNDED, Budget
from rewards.sandbox.inside import OUTPUT_BYTES
from rewards.sandbox.usage import ProcessUsage
from rewards.sandbox.values import GarbageError, decode, encode

MEMORY_BYTES = 1 << 30
"""Address space of the sandboxed process at most, the interpreter included."""
_INTERPRETER_BYTES = 64 << 20
MAX_THREADS = 64

_ROOT = str(Path(__file__).parents[2])
BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from rewards.sandbox import inside; sys.path.pop(0); inside.main()"
"""The first code that the sandboxed interpreter runs: import `inside` from this repository, and nothing else."""
_FLAGS = ("-s", "-P", "-S", "-B", "-X", "utf8")
_MAX_REPLY_BYTES = OUTPUT_BYTES + (1 << 20)
_MAX_ERROR_CHARS = 400
_CHECK_LIMITS_EVERY_S = 0.02
_AWAIT_EXIT_S = 1.0
"""How long a process that has closed its pipe is given to end by itself, so that its exit code is known."""


class SandboxError(RuntimeError):
    """Nothing can be said of the code: this machine cannot confine it, or something outside ended the process."""


class CodeError(Exception):
    """The code that was run is at fault, and the message says how."""


@dataclass(frozen=True)
class Job:
    """What to run. All of it runs in one process, so that later parts see what earlier ones have left behind.

    Either `setup` and `source` make up a module in which `expressions` are evaluated one after the other, or
    `source` is a program that is run once for each of `inputs`, its stdin.
    """

    source: str
    setup: str = ""
    expressions: tuple[str, ...] = ()
    inputs: tuple[bytes, ...] = ()


class Sandbox:
    """One job in one confined process. Leaving the ``with`` block ends the process, whatever it is doing.

    `limit_s` bounds the CPU seconds of the whole job, and separately the seconds that it neither computes nor
    waits for a CPU. Whatever it does, it is over after `budget.wall_s`; the memory of the budget is beyond what the
    interpreter takes. `usage` reads what the process with a given id has used. Raises SandboxError unless the process
    says, before it looks at the job, that it is confined.
    """

    def __init__(
        self,
        job: Job,
        limit_s: float,
        budget: Budget = UNBOUNDED,
        usage: Callable[[int], ProcessUsage] = ProcessUsage,
    ) -> None:
        self._limit_s = limit_s
        self._budget = budget
        self._buffer = b""
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, *_FLAGS, "-c", BOOT, _ROOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            cwd="/",
            start_new_session=True,
        )
        self._usage = usage(self.pid)
        try:
            self._hand_over(job)
            self._await_confinement()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The id of the confined process, which leads a session of its own."""
        return self._process.pid

    def next(self) -> Any:
        """The next reply: to the set-up, to the source, then to each expression (its value) or input (the bytes
        printed). Raises CodeError where there is none, or where it tells of an error.
        """
        kind, content = self._receive()
        if kind == "error" and isinstance(content, str):
            raise CodeError(content[:_MAX_ERROR_CHARS])
        if kind != "value":
            raise CodeError("it wrote into the pipe of the replies")
        return content

    def close(self) -> None:
        """Kill the process, and wait for it: only then its CPU seconds are counted. Safe to call twice."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _hand_over(self, job: Job) -> None:
        request = {
            "setup": job.setup,
            "source": job.source,
            "expressions": list(job.expressions),
            "inputs": list(job.inputs),
            "confinement": {
                "cpu_s": math.ceil(self._limit_s) + 1,
                "memory_bytes": int(min(MEMORY_BYTES, self._budget.memory_bytes + _INTERPRETER_BYTES)),
                "parent": os.getpid(),
            },
        }
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(encode(request))
            self._process.stdin.close()
        except OSError as error:
            raise SandboxError(f"the sandbox does not start: {error}") from error

    def _await_confinement(self) -> None:
        try:
            kind, content = self._receive()
        except CodeError as error:
            raise SandboxError(f"the sandbox does not start: {error}") from error
        if kind != "ready":
            raise SandboxError(f"code cannot be confined on this machine, so none is run: {content}")

    def _receive(self) -> tuple[str, Any]:
        size = int.from_bytes(self._take(4), "big")
        if size > _MAX_REPLY_BYTES:
            raise CodeError(f"a reply of {size} bytes")
        try:
            kind, content = decode(self._take(size))
        except (GarbageError, TypeError, ValueError):
            raise CodeError("it wrote into the pipe of the replies") from None
        return kind, content

    def _take(self, size: int) -> bytes:
        """The next `size` bytes that the process has sent. Raises CodeError when it exceeds a limit meanwhile."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        parts = [self._buffer]
        missing = size - len(self._buffer)
        while missing > 0:
            self._enforce_limits()
            if poll.poll(_CHECK_LIMITS_EVERY_S * 1000):
                parts.append(os.read(descriptor, 1 << 18))
                missing -= len(parts[-1])
                if not parts[-1]:
                    raise self._end()
        received = b"".join(parts)
        self._buffer = received[size:]
        return received[:size]

    def _enforce_limits(self) -> None:
        """Raise CodeError where a limit is exceeded. The kernel's own limits are coarser: it counts whole seconds."""
        cpu_s = self._usage.cpu_s()
        if cpu_s > self._limit_s:
            raise CodeError(f"over {self._limit_s:g} s of CPU")
        if self._usage.num_threads() > MAX_THREADS:
            raise CodeError(f"over {MAX_THREADS} threads")
        wall_s = time.monotonic() - self._began
        if wall_s > self._budget.wall_s:
            raise CodeError(f"over {self._budget.wall_s:g} s in all, {cpu_s:.1f} s of them CPU")
        if wall_s > self._limit_s and wall_s - cpu_s - self._usage.queued_s() > self._limit_s:
            raise CodeError(f"idle for over {self._limit_s:g} s")

    def _end(self) -> Exception:
        """Why there are no more replies."""
        status, cpu_s = self._wait()
        if status is None:
            return CodeError("it closed the pipe of the replies")
        if status >= 0:
            return CodeError(f"it ended the process, with exit code {status}")
        if -status == signal.SIGKILL and cpu_s > self._limit_s:
            return CodeError(f"over {self._limit_s:g} s of CPU")
        if -status == signal.SIGKILL:
            return SandboxError("killed from outside: perhaps the machine is out of memory")
        return CodeError(f"it crashed: {signal.Signals(-status).name}")

    def _wait(self) -> tuple[int | None, float]:
        """Exit code as subprocess gives it, None where the process lives on, and its CPU seconds."""
        give_up = min(time.monotonic() + _AWAIT_EXIT_S, self._began + self._budget.wall_s)
        while True:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self._process.returncode = os.waitstatus_to_exitcode(status)
                return self._process.returncode, usage.ru_utime + usage.ru_stime
            if time.monotonic() >= give_up:
                return None, 0.0
            time.sleep(0.001)


@functools.cache
def why_unavailable() -> str | None:
    """The reason why nothing can be run on this machine, or None."""
    try:
        Sandbox(Job(""), limit_s=60).close()
    except (SandboxError, OSError) as error:
        return str(error)
    return None


def _environment() -> dict[str, str]:
    """Almost none. Hashes are the same in every run, so that an answer's verdict is as well."""
    fixed = {"PYTHONHASHSEED": "0"}
    return {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ} | fixed
