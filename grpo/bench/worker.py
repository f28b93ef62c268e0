"""The parent's side of `grpo.bench.child`: one process, which ends with this one however that ends."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from grpo.bench.memory import Look
from grpo.errors import UserError
from rewards.workers.process import Child, ChildDiedError, ChildTimeoutError

LOOK_EVERY_S = 0.5


class BenchError(RuntimeError):
    """Something that was to be measured failed."""


class Worker:
    """Opens one of `child.KINDS` and calls its methods. While it waits, `look` is called with the process's id.

    The process starts at once; what goes wrong while it opens is said at the first question.
    """

    def __init__(
        self, kind: str, job: Any, log: Path, env: Mapping[str, str | None] | None = None, look: Look | None = None
    ) -> None:
        self._kind = kind
        self._look = look
        self._child = Child("grpo.bench.child", log=log, env=env)
        self._send((kind, job))
        self._is_open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, method: str, *arguments: Any) -> Any:
        """What the method returns. Raises UserError for what is the user's to mend, BenchError for all else."""
        if not self._is_open:
            self._receive()
            self._is_open = True
        self._send((method, arguments))
        return self._receive()

    def close(self) -> None:
        self._child.kill()

    def _send(self, message: Any) -> None:
        try:
            self._child.send(message)
        except ChildDiedError as error:
            self.close()
            raise BenchError(f"bench: {self._kind}: {error}") from None

    def _receive(self) -> Any:
        try:
            answer, result = self._wait()
        except ChildDiedError as error:
            raise BenchError(f"bench: {self._kind}: {error}") from None
        if answer == "refused":
            raise UserError(result)
        if answer == "no memory":
            last = result.strip().splitlines()[-1]
            raise UserError(f"bench: {self._kind}: out of memory ({last:.120}); lower --budget, or measure less")
        if answer == "failed":
            raise BenchError(f"bench: {self._kind} failed\n{result}")
        return result

    def _wait(self) -> Any:
        while True:
            if self._look:
                self._look(self._child.pid)
            try:
                return self._child.receive(LOOK_EVERY_S if self._look else None)
            except ChildTimeoutError:
                continue
