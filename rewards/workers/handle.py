"""The pool's side of one worker: the pipe to it, the job that it has, and by when it must answer."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from rewards.errors import PoolError
from rewards.workers.job import CallResult, Job
from rewards.workers.worker import SetUp
from rewards.workers.zygote import Zygote

START_UP_S = 120.0
"""The limit on what is not a call: a worker's start, and receiving a job."""


class WorkerHandle:
    """One worker, from its start on. `number` is what its zygote kills it by; `deadline_s` bounds each call.

    A worker says that it is ready, then for each job that it has received it, and then sends one answer a call.
    """

    def __init__(self, zygote: Zygote, set_up: SetUp, deadline_s: float) -> None:
        self.number, self.connection = zygote.fork()
        self.job: Job | None = None
        self.is_ready = False
        self.has_received_job = False
        self.num_calls = 0
        """Calls that it has answered in its life."""
        self.deadline: float | None = time.monotonic() + START_UP_S
        """By when it must say something, in seconds of the monotonic clock; None while it has nothing to do."""
        self._deadline_s = deadline_s
        self._end = 0
        self._call_began = 0.0
        # Where nobody receives it, the pipe has ended, which the pool will notice.
        with contextlib.suppress(OSError):
            self.connection.send((set_up, deadline_s))

    @property
    def is_idle(self) -> bool:
        return self.is_ready and self.job is None

    @property
    def has_answered_all(self) -> bool:
        """Whether it has a job, and has answered all calls of the job that it was given."""
        return self.job is not None and len(self.job.results) == self._end

    @property
    def limit_s(self) -> float:
        """The limit that it has exceeded when its deadline is over."""
        return self._deadline_s if self.has_received_job else START_UP_S

    def call_s(self) -> float:
        """Seconds that it has spent on the call that it is at; 0 before it has received its job."""
        return time.monotonic() - self._call_began if self.has_received_job else 0.0

    def give(self, job: Job) -> None:
        """Send the next calls of a job. Raises OSError when the worker is dead, and then has no job."""
        first, calls = len(job.results), job.next_calls()
        self.connection.send((first, calls))
        self.job, self._end, self.has_received_job = job, first + len(calls), False
        self.deadline = time.monotonic() + START_UP_S

    def receive(self, message: dict[str, Any]) -> None:
        """Handle one message: that it is ready, that it has received its job, or the answer to a call.

        Raises ValueError, KeyError or TypeError for anything else, PoolError when it says that it cannot start.
        """
        if not self.is_ready:
            if "failed" in message:
                raise PoolError(f"a reward worker cannot start: {message['failed']}")
            self.is_ready, self.deadline = bool(message["ready"]), None
            return
        if self.job is None or message["call" if self.has_received_job else "taken"] != len(self.job.results):
            raise ValueError("an answer to no call")
        if self.has_received_job:
            detail = message.get("error", "")
            self.job.add(CallResult("crashed" if detail else "done", message.get("value"), detail, self.call_s()))
            self.num_calls += 1
        self.has_received_job = True
        self._call_began = time.monotonic()
        self.deadline = self._call_began + self._deadline_s

    def finish(self) -> Job | None:
        """Take its job away; it is idle then."""
        job, self.job = self.job, None
        self.deadline, self.has_received_job = None, False
        return job
