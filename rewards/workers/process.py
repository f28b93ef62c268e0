"""A Python process that can be killed, answers over one pipe, and never outlives its parent.

Reward workers and the rollout engine both run in one. Three things are guaranteed on POSIX:

* the child starts from a fresh interpreter (never a fork of a process that holds threads or a GPU);
* the child leads its own process group, and `Child.kill` ends the whole group with SIGKILL;
* a guardian in that group holds the read end of a *life line* whose only write end is in the parent: when the
  parent goes, however it goes, the guardian sees the end of the line and kills the group, itself included.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from socket import socketpair
from typing import Any

_PIPE_VARIABLE = "GRPO_CHILD_PIPE"
_LIFE_LINE_VARIABLE = "GRPO_CHILD_LIFE_LINE"
_MAX_DESCRIPTORS = 4096


class ChildDiedError(RuntimeError):
    """The process ended while an answer was awaited."""


class ChildTimeoutError(TimeoutError):
    """No answer came within the time that was allowed."""


class Child:
    """Runs ``python -P -m module`` and exchanges picklable messages with it.

    It imports from where its parent does, and from the current folder only what is nowhere else: a file there that
    is called random.py is not the standard library's.

    `log` receives the child's stdout and stderr; without it they are discarded. `env` is added to the parent's
    environment; a value of None takes a variable out of it.
    """

    def __init__(self, module: str, *, log: Path | None = None, env: Mapping[str, str | None] | None = None) -> None:
        self.module = module
        self.log = log
        ours, theirs = socketpair()
        life_line, held = os.pipe()
        variables = {_PIPE_VARIABLE: str(theirs.fileno()), _LIFE_LINE_VARIABLE: str(life_line)}
        environment: dict[str, str | None] = {**os.environ, "PYTHONPATH": _path(), **(env or {}), **variables}
        with contextlib.ExitStack() as stack:
            sink = stack.enter_context(log.open("ab")) if log else subprocess.DEVNULL
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT if log else sink,
                pass_fds=(theirs.fileno(), life_line),
                env={name: value for name, value in environment.items() if value is not None},
                start_new_session=True,
            )
        theirs.close()
        os.close(life_line)
        # The child's guardian waits for the end of this pipe, which comes when this process closes it or ends.
        self._life_line = held
        self.connection = Connection(ours.detach())

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: Any) -> None:
        """Hand over one message. Raises ChildDiedError when nobody is there to take it."""
        try:
            self.connection.send(message)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._death_error() from error

    def receive(self, timeout_s: float | None = None) -> Any:
        """The next message. Raises ChildTimeoutError after `timeout_s` seconds, ChildDiedError if the process ends."""
        try:
            if not self.connection.poll(timeout_s):
                raise ChildTimeoutError(f"{self.module} gave no answer within {timeout_s:g} s")
            return self.connection.recv()
        except (EOFError, ConnectionResetError) as error:
            raise self._death_error() from error

    def kill(self) -> None:
        """End the process and everything it started, now. Safe to call twice."""
        if self._life_line < 0:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self.connection.close()
        os.close(self._life_line)
        self._life_line = -1

    def _death_error(self) -> ChildDiedError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        code = self._process.returncode
        where = f"; its last words:\n{self.last_words()}" if self.log else ""
        return ChildDiedError(f"{self.module} (pid {self.pid}) ended with exit code {code}{where}")

    def last_words(self, num_lines: int = 15) -> str:
        """The end of the child's log, for error messages."""
        if self.log is None or not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-num_lines:])


def _path() -> str:
    """Where this process imports from, as the child's PYTHONPATH, with the current folder behind all else."""
    return os.pathsep.join([*filter(None, sys.path), os.curdir])


def connect_to_parent() -> Connection:
    """For the child, to be called once and first of all: start the guardian and return the pipe to the parent."""
    life_line = int(os.environ.pop(_LIFE_LINE_VARIABLE))
    pipe = int(os.environ.pop(_PIPE_VARIABLE))
    start_guardian(life_line)
    os.close(life_line)
    os.set_inheritable(pipe, False)
    return Connection(pipe)


def start_guardian(life_line: int) -> None:
    """Fork a process into the caller's group, which the caller must lead, that ends the group when its time has come.

    That is when the caller has ended, or nobody holds the other end of `life_line` any more.
    """
    leader = os.getpid()
    if os.fork() == 0:
        _guard(leader, life_line)


def _guard(leader: int, life_line: int) -> None:
    """Wait for the end of `life_line`, or for the leader's, then end the group. Never returns."""
    try:
        os.closerange(3, life_line)
        os.closerange(life_line + 1, _MAX_DESCRIPTORS)
        while os.getppid() == leader and not select.select([life_line], [], [], 0.5)[0]:
            pass
    finally:
        os.killpg(leader, signal.SIGKILL)
        os._exit(1)
