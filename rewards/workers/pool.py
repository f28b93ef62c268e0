"""A pool of worker processes that are killed when a call takes too long, and the thread that drives them.

Time limits hold because the parent has a SIGKILL sent: no signal handler, alarm or thread time-out is involved.
A job is a sequence of calls. It goes to one worker, which says that it has received it and sends back each result as
soon as there is one. When a call has to be killed, the calls before it keep their results, and those behind it go on
in a fresh worker. Workers are forked from a zygote, which takes milliseconds; when the zygote dies, all workers do.

A worker that ends is blamed on the call that it was at, with two exceptions: the zygote died first, or the worker had
not yet received the job. Then the call is handed out again, alone if it was not before, and has crashed only when the
same happens three times in a row. So even a call that is too large for any worker comes to an end, and costs no other
call its result.
"""

from __future__ import annotations

import json
import pickle
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from multiprocessing import Pipe
from multiprocessing.connection import wait
from typing import Self

from rewards.errors import PoolError
from rewards.workers.handle import WorkerHandle
from rewards.workers.job import CallResult, Failure, Job
from rewards.workers.worker import Call, SetUp
from rewards.workers.zygote import Zygote

_MAX_MESSAGE_BYTES = 1 << 20
_MAX_FAILED_STARTS = 3
_NOT_RECEIVED = "too large for a worker's memory? {} workers died before they had taken it in"
_ZYGOTE_DIED = "the zygote died {} times during this call"


class WorkerPool:
    """Up to `num_workers` processes, started when there is work for them, and replaced at once when they end.

    `deadline_s` is wall-clock time for each single call; starting a worker has its own, generous limit. A worker is
    replaced after `recycle_after` calls. `open_zygote` starts the process that workers are forked from. Not to be
    shared between threads, but for `submit`.
    """

    def __init__(
        self,
        num_workers: int,
        deadline_s: float,
        set_up: SetUp | None = None,
        recycle_after: int = 20_000,
        open_zygote: Callable[[], Zygote] = Zygote,
    ) -> None:
        self._num_workers = num_workers
        self._deadline_s = deadline_s
        self._set_up = set_up or SetUp()
        self._recycle_after = recycle_after
        self._open_zygote = open_zygote
        self._zygote: Zygote | None = None
        self._workers: list[WorkerHandle] = []
        self._num_wanted = 0
        self._num_failed_starts = 0
        self._lock = threading.Lock()
        self._queue: deque[Job] = deque()
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
        job = Job([pickle.dumps(call) for call in calls])
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
                # A `submit` that was interrupted may have left this wrong; to wake the driver twice does no harm.
                self._is_woken = False
                self._wake_driver()
        self._thread.join()
        self._wake.close()
        self._waking.close()

    def _wake_driver(self) -> None:
        """End the driver's wait. To be called with the lock held."""
        if not self._is_woken and self._thread.is_alive():
            self._wake.send_bytes(b"")
            self._is_woken = True

    def _drive(self) -> None:
        """The driver's thread. Whatever ends it is raised by every open future and every later `submit`."""
        error: BaseException = PoolError("the pool was closed")
        try:
            while not self._closing:
                self._hand_out_jobs()
                self._start_workers()
                self._await_messages()
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
        """Start as many as there is work for. This comes right before waiting, since handing out may lose workers."""
        num_busy = sum(worker.job is not None for worker in self._workers)
        needed = min(self._num_workers, num_busy + len(self._queue))
        self._num_wanted = max(self._num_wanted, needed)
        if self._num_wanted and self._zygote is None:
            self._zygote = self._open_zygote()
        while self._zygote is not None and len(self._workers) < self._num_wanted:
            self._workers.append(WorkerHandle(self._zygote, self._set_up, self._deadline_s))

    def _hand_out_jobs(self) -> None:
        for worker in [worker for worker in self._workers if worker.is_idle]:
            if worker not in self._workers:
                return  # the zygote was found dead, and with it all workers are gone
            with self._lock:
                if not self._queue:
                    return
                job = self._queue.popleft()
            if job.is_done:
                job.future.set_result(job.results)
                continue
            try:
                worker.give(job)
            except OSError:
                self._put_back_unreceived(worker, job)
                self._kill(worker)

    def _await_messages(self) -> None:
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
                self._read_messages(workers[connection])  # type: ignore[index]

    def _read_messages(self, worker: WorkerHandle) -> None:
        """Handle all messages that have come. The pipe's end, or anything but our messages, is a crash."""
        try:
            while worker in self._workers and worker.connection.poll():
                was_ready = worker.is_ready
                worker.receive(json.loads(worker.connection.recv_bytes(_MAX_MESSAGE_BYTES)))
                if not was_ready:
                    self._num_failed_starts = 0
                elif worker.has_answered_all:
                    self._finish_job(worker)
        except (EOFError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            self._lose_worker(worker, "crashed", f"the worker died ({type(error).__name__})")

    def _finish_job(self, worker: WorkerHandle) -> None:
        if (job := worker.finish()) is not None:
            self._resolve_or_requeue(job)
        if worker.num_calls >= self._recycle_after:
            self._kill(worker)

    def _enforce_deadlines(self) -> None:
        now = time.monotonic()
        for worker in list(self._workers):
            if worker in self._workers and worker.deadline is not None and now >= worker.deadline:
                self._lose_worker(worker, "timed_out", f"no answer within {worker.limit_s:g} s")

    def _lose_worker(self, worker: WorkerHandle, status: Failure, detail: str) -> None:
        """Kill a worker. The call that it was at gets `status`, and the rest of its job goes first in line.

        The call is not to blame when the worker had not received it yet, or when the zygote has died as well.
        """
        if not self._kill(worker):
            return
        if not worker.is_ready:
            self._count_failed_start(detail)
        if worker.job is None:
            return
        if worker.has_received_job:
            worker.job.fail(status, detail, worker.call_s())
            self._resolve_or_requeue(worker.job)
        else:
            self._put_back_unreceived(worker, worker.job)

    def _lose_zygote(self) -> None:
        """Give up the zygote and all workers, which end with it; the calls that they were at are only interrupted."""
        if self._zygote is None:
            return
        self._zygote.kill()
        self._zygote = None
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.connection.close()
            if worker.job is not None:
                worker.job.interrupt(_ZYGOTE_DIED, worker.call_s())
                self._resolve_or_requeue(worker.job)
        self._count_failed_start("their zygote died")

    def _count_failed_start(self, detail: str) -> None:
        """Raises PoolError when workers have died that often, and none has become ready in between."""
        self._num_failed_starts += 1
        if self._num_failed_starts >= _MAX_FAILED_STARTS:
            raise PoolError(f"reward workers do not start: {detail}, {_MAX_FAILED_STARTS} times in a row")

    def _put_back_unreceived(self, worker: WorkerHandle, job: Job) -> None:
        """A worker has ended without receiving a job: it was dead before, or the job is too large for it."""
        job.goes_one_by_one = True
        job.interrupt(_NOT_RECEIVED, worker.call_s())
        self._resolve_or_requeue(job)

    def _resolve_or_requeue(self, job: Job) -> None:
        """Give out the results when all are there, else put the job first in line for the rest of them."""
        if job.is_done:
            job.future.set_result(job.results)
            return
        with self._lock:
            self._queue.appendleft(job)

    def _kill(self, worker: WorkerHandle) -> bool:
        """Kill a worker. False when the zygote is dead or stuck, and cannot: then all workers were given up."""
        if self._zygote is None or not self._zygote.kill_worker(worker.number):
            self._lose_zygote()
            return False
        worker.connection.close()
        self._workers.remove(worker)
        return True
