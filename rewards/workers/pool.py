"""Worker processes that are killed when a call takes too long, and the thread that drives them.

Time limits hold because the parent has a SIGKILL sent: no signal handler, alarm or thread time-out is involved.
A job is a sequence of calls. It goes to one worker, which says that it has it and sends back each result as it is
worked out, so that when a call has to be killed, the ones before it keep their results and the ones behind it go on
in a fresh worker. Workers are forked from a zygote, which takes milliseconds; when that dies, all workers do.

Who is to blame for a worker's end? The call that it was at. But not when the zygote went first, nor when the worker
had not taken the job in: then the call is handed out again, alone if it was not, and has crashed only when this comes
to nothing several times. So a call too large for any worker ends as well, and costs no other call its result.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import wait
from typing import Any, Literal, Self

from rewards.errors import PoolError
from rewards.workers.worker import Call, SetUp
from rewards.workers.zygote import Zygote

_START_UP_S = 120.0
"""For what is ours: a worker's start, and taking a job in."""
_MAX_MESSAGE_BYTES = 1 << 20
_MAX_FAILED_STARTS = 3
_MAX_INTERRUPTIONS = 3


@dataclass(frozen=True)
class CallResult:
    """`value` is meaningful when `status` is done; `detail` says what happened otherwise."""

    status: Literal["done", "timed_out", "crashed"]
    value: Any = None
    detail: str = ""
    wall_s: float = 0.0
    """From when a worker had taken it in, or from the answer to the call before it, to its end."""


@dataclass
class _Job:
    payloads: list[bytes]
    results: list[CallResult] = field(default_factory=list)
    future: Future[list[CallResult]] = field(default_factory=Future)
    num_interruptions: int = 0
    """How often the call that is next has met with an end that was not its own doing."""
    goes_one_by_one: bool = False
    """Its calls are handed out singly, since a worker could not take in all of them together."""

    @property
    def is_done(self) -> bool:
        return len(self.results) == len(self.payloads)

    def next_calls(self) -> list[bytes]:
        first = len(self.results)
        return self.payloads[first : first + 1 if self.goes_one_by_one else None]


class _Worker:
    """The pipe to a worker, what it works on, and by when it must answer (None while it has nothing to do).

    It has the calls of its job up to `end`, once it has said so (`has_taken`).
    """

    def __init__(self, zygote: Zygote, set_up: SetUp, deadline_s: float) -> None:
        self.number, self.connection = zygote.fork()
        self.job: _Job | None = None
        self.end = 0
        self.is_ready = False
        self.has_taken = False
        self.num_calls = 0
        self.deadline: float | None = time.monotonic() + _START_UP_S
        self.call_began = 0.0
        # Where nobody takes it, the pipe's end will be heard.
        with contextlib.suppress(OSError):
            self.connection.send((set_up, deadline_s))

    @property
    def is_idle(self) -> bool:
        return self.is_ready and self.job is None


class WorkerPool:
    """Up to `num_workers` processes, started when there is work for them, and replaced at once when they end.

    `deadline_s` is wall-clock time for each single call; starting a worker has its own, generous limit.
    `memory_bytes` is what a call may allocate beyond a worker's own size. A worker is replaced after
    `recycle_after` calls. Not to be shared between threads, but for `submit`.
    """

    def __init__(
        self, num_workers: int, deadline_s: float, set_up: SetUp | None = None, recycle_after: int = 20_000
    ) -> None:
        self._num_workers = num_workers
        self._deadline_s = deadline_s
        self._set_up = set_up or SetUp()
        self._recycle_after = recycle_after
        self._zygote: Zygote | None = None
        self._workers: list[_Worker] = []
        self._num_wanted = 0
        self._num_failed_starts = 0
        self._lock = threading.Lock()
        self._queue: deque[_Job] = deque()
        self._is_woken = False
        self._closing = False
        self._error: BaseException | None = None
        self._waking, self._wake = Pipe(duplex=False)
        self._thread = threading.Thread(target=self._drive, name="reward workers", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def submit(self, calls: Sequence[Call]) -> Future[list[CallResult]]:
        """Queue a job and return at once. The future holds one result a call, in their order.

        A job without calls is done as soon as a worker is ready. Raises PoolError when the pool has ended.
        """
        job = _Job([pickle.dumps(call) for call in calls])
        with self._lock:
            if self._error is not None or self._closing:
                raise PoolError(str(self._error or "the pool is closed")) from self._error
            self._queue.append(job)
            self._wake_driver()
        return job.future

    def close(self) -> None:
        """Kill all workers and end the driver; futures still open raise PoolError. Safe to call twice."""
        with self._lock:
            if not self._closing:
                self._closing = True
                # Whatever an interrupted `submit` believed it had sent.
                self._is_woken = False
                self._wake_driver()
        self._thread.join()
        self._wake.close()
        self._waking.close()

    def _wake_driver(self) -> None:
        if not self._is_woken and self._thread.is_alive():
            self._wake.send_bytes(b"")
            self._is_woken = True

    def _drive(self) -> None:
        """The thread: whatever ends it reaches every waiting future and every later `submit`."""
        error: BaseException = PoolError("the pool was closed")
        try:
            while not self._closing:
                self._hand_out()
                self._start_workers()
                self._listen()
                self._enforce_deadlines()
        except BaseException as failure:
            error = failure
        self._end(error)

    def _end(self, error: BaseException) -> None:
        with self._lock:
            self._error = error
            waiting = [*(worker.job for worker in self._workers if worker.job), *self._queue]
            self._queue.clear()
        for worker in self._workers:
            worker.connection.close()
        self._workers.clear()
        if self._zygote is not None:
            self._zygote.close()
        for job in waiting:
            job.future.set_exception(error)

    def _start_workers(self) -> None:
        """As many as there is work for. Always the last thing before listening: handing out may cost workers."""
        num_busy = sum(worker.job is not None for worker in self._workers)
        needed = min(self._num_workers, num_busy + len(self._queue))
        self._num_wanted = max(self._num_wanted, needed)
        if self._num_wanted and self._zygote is None:
            self._zygote = Zygote()
        while self._zygote is not None and len(self._workers) < self._num_wanted:
            self._workers.append(_Worker(self._zygote, self._set_up, self._deadline_s))

    def _hand_out(self) -> None:
        for worker in [worker for worker in self._workers if worker.is_idle]:
            if worker not in self._workers:
                return  # the zygote was found dead, and all of them are gone
            with self._lock:
                if not self._queue:
                    return
                job = self._queue.popleft()
            if job.is_done:
                job.future.set_result(job.results)
            else:
                self._hand_over(worker, job)

    def _hand_over(self, worker: _Worker, job: _Job) -> None:
        """Send the calls that are still open."""
        first, calls = len(job.results), job.next_calls()
        try:
            worker.connection.send((first, calls))
        except OSError:
            self._refuse(worker, job)
            self._bury(worker)
        else:
            worker.job, worker.end, worker.has_taken = job, first + len(calls), False
            worker.deadline = time.monotonic() + _START_UP_S

    def _begin_call(self, worker: _Worker) -> None:
        worker.call_began = time.monotonic()
        worker.deadline = worker.call_began + self._deadline_s

    def _listen(self) -> None:
        """Wait until a worker answers or dies, a job is submitted, or the next deadline comes."""
        if any(worker.is_idle for worker in self._workers) and self._queue:
            return
        deadlines = [worker.deadline for worker in self._workers if worker.deadline is not None]
        timeout_s = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
        workers = {worker.connection: worker for worker in self._workers}
        zygotes = [self._zygote.connection] if self._zygote else []
        for connection in wait([*zygotes, *workers, self._waking], timeout_s):
            if connection is self._waking:
                with self._lock:
                    self._waking.recv_bytes()
                    self._is_woken = False
            elif connection in zygotes:
                self._lose_zygote()
            else:
                self._hear(workers[connection])  # type: ignore[index]

    def _hear(self, worker: _Worker) -> None:
        """Take in all messages that have come. The pipe's end, or anything but our messages, is a crash."""
        try:
            while worker in self._workers and worker.connection.poll():
                message = json.loads(worker.connection.recv_bytes(_MAX_MESSAGE_BYTES))
                self._take_in(worker, message)
        except (EOFError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            self._lose(worker, "crashed", f"the worker died ({type(error).__name__})")

    def _take_in(self, worker: _Worker, message: dict[str, Any]) -> None:
        if not worker.is_ready:
            if "failed" in message:
                raise PoolError(f"a reward worker cannot start: {message['failed']}")
            worker.is_ready, worker.deadline = bool(message["ready"]), None
            self._num_failed_starts = 0
            return
        job = worker.job
        if job is None or message["call" if worker.has_taken else "taken"] != len(job.results):
            raise ValueError("an answer that nobody asked for")
        if not worker.has_taken:
            worker.has_taken = True
            self._begin_call(worker)
            return
        detail = message.get("error", "")
        wall_s = time.monotonic() - worker.call_began
        self._note(job, CallResult("crashed" if detail else "done", message.get("value"), detail, wall_s))
        worker.num_calls += 1
        self._begin_call(worker)
        if len(job.results) == worker.end:
            self._finish(worker, job)

    def _finish(self, worker: _Worker, job: _Job) -> None:
        worker.job, worker.deadline = None, None
        self._settle(job)
        if worker.num_calls >= self._recycle_after:
            self._bury(worker)

    def _enforce_deadlines(self) -> None:
        now = time.monotonic()
        for worker in list(self._workers):
            if worker in self._workers and worker.deadline is not None and now >= worker.deadline:
                limit_s = self._deadline_s if worker.has_taken else _START_UP_S
                self._lose(worker, "timed_out", f"no answer within {limit_s:g} s")

    def _lose(self, worker: _Worker, status: Literal["timed_out", "crashed"], detail: str) -> None:
        """Kill a worker; the call that it was at gets `status`, the rest of its job goes first in line.

        Unless it may have been the zygote's end that was the worker's, or it had not taken the job in.
        """
        if not self._bury(worker):
            return
        if not worker.is_ready:
            self._count_failed_start(detail)
        if worker.job is None:
            return
        if worker.has_taken:
            self._fail_call(worker, worker.job, status, detail)
        else:
            self._refuse(worker, worker.job)

    def _lose_zygote(self) -> None:
        """All workers go with it. The calls that they were at are not to blame, unless it happens to them again."""
        if self._zygote is None:
            return
        self._zygote.kill()
        self._zygote = None
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.connection.close()
            if worker.job is not None:
                self._interrupt(worker, worker.job, "the zygote died {} times during this call")
        self._count_failed_start("their zygote died")

    def _count_failed_start(self, detail: str) -> None:
        """Raises PoolError when no worker has become ready for too many deaths in a row."""
        self._num_failed_starts += 1
        if self._num_failed_starts >= _MAX_FAILED_STARTS:
            raise PoolError(f"reward workers do not start: {detail}, {_MAX_FAILED_STARTS} times in a row")

    def _refuse(self, worker: _Worker, job: _Job) -> None:
        """A worker has ended without taking a job in: it was dead before, or the job is too large for it."""
        job.goes_one_by_one = True
        self._interrupt(worker, job, "too large for a worker's memory? {} workers died before they had taken it in")

    def _interrupt(self, worker: _Worker, job: _Job, detail: str) -> None:
        """The next call of the job is not to blame, unless this happens to it again and again."""
        job.num_interruptions += 1
        if job.num_interruptions < _MAX_INTERRUPTIONS:
            self._settle(job)
        else:
            self._fail_call(worker, job, "crashed", detail.format(_MAX_INTERRUPTIONS))

    def _fail_call(self, worker: _Worker, job: _Job, status: Literal["timed_out", "crashed"], detail: str) -> None:
        wall_s = time.monotonic() - worker.call_began if worker.has_taken else 0.0
        self._note(job, CallResult(status, detail=detail, wall_s=wall_s))
        self._settle(job)

    def _note(self, job: _Job, result: CallResult) -> None:
        job.results.append(result)
        job.num_interruptions = 0

    def _settle(self, job: _Job) -> None:
        """Give out the results, or put the job first in line for the rest of them."""
        if job.is_done:
            job.future.set_result(job.results)
            return
        with self._lock:
            self._queue.appendleft(job)

    def _bury(self, worker: _Worker) -> bool:
        """Kill a worker. False when the zygote could not, for being dead or stuck: then all workers were given up."""
        if self._zygote is None or not self._zygote.kill_worker(worker.number):
            self._lose_zygote()
            return False
        worker.connection.close()
        self._workers.remove(worker)
        return True
