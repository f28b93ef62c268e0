"""The zygote: a process that has imported what all workers need, and forks workers from itself in milliseconds.

`Zygote` is the pool's side of it; ``python -P -m rewards.workers.zygote`` is the process. It is started as a fresh
interpreter, stays single-threaded, which is what makes its forks safe, and never runs a call or imports a
user's function itself. It takes two kinds of request over its pipe:

* FORK a worker, with that worker's end of a socket whose other end the pool keeps; no answer is needed;
* KILL a worker: its process group gets SIGKILL, and the answer is one byte. Only the parent of a process can signal it
  without ever hitting another that was given the same id later, and the zygote is the workers' parent. An answer also
  tells the pool that the zygote lives, so that its death is not what ended the worker.

A worker and whatever it starts are one process group, with a guardian in it that ends the group when the
zygote is gone; the zygote goes when the trainer does (see `rewards.workers.process`).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import select
import signal
import socket
import struct
import sys
import traceback
from itertools import count
from multiprocessing.connection import Connection
from typing import NoReturn

from rewards.workers.limits import is_memory_error_noticed
from rewards.workers.process import Child, connect_to_parent, start_guardian
from rewards.workers.worker import send, work

_FORK, _KILL = 1, 2
_REQUEST = struct.Struct("!BQ")
_DONE = b"."
_PIPE_TIMEOUT_S = 5.0
_GOODBYE_S = 3.0
_REAP_EVERY_S = 0.5
_PR_SET_CHILD_SUBREAPER = 36


class Zygote:
    """The pool's side of a zygote. Nothing here raises when it has died: `connection` then becomes readable."""

    def __init__(self) -> None:
        self._child = Child("rewards.workers.zygote")
        self._numbers = count()
        limit_blocking(self.connection)
        self._socket = _as_socket(self.connection)

    @property
    def connection(self) -> Connection:
        """Readable when the zygote has died, and only then."""
        return self._child.connection

    def fork(self) -> tuple[int, Connection]:
        """Ask for a worker. Returns the number to kill it by and the pipe to it, which ends if it cannot start."""
        number = next(self._numbers)
        ours, theirs = socket.socketpair()
        connection = Connection(ours.detach())
        limit_blocking(connection)
        with theirs, contextlib.suppress(OSError):
            socket.send_fds(self._socket, [_REQUEST.pack(_FORK, number)], [theirs.fileno()])
        return number, connection

    def kill_worker(self, number: int) -> bool:
        """End a worker and all that it has started, now. False when the zygote is dead, or stuck, and cannot."""
        with contextlib.suppress(OSError):
            self._socket.sendall(_REQUEST.pack(_KILL, number))
            return self._socket.recv(1) == _DONE
        return False

    def close(self) -> None:
        """End all workers and the zygote, and wait for it: at most some seconds, then by force."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        self.connection.poll(_GOODBYE_S)
        self.kill()

    def kill(self) -> None:
        """End the zygote now; the guardians end its workers a moment later."""
        self._socket.close()
        self._child.kill()


def limit_blocking(connection: Connection) -> None:
    """Reading half a message, or writing to somebody who does not read, raises OSError after a moment."""
    limit = struct.pack("ll", int(_PIPE_TIMEOUT_S), 0)
    with _as_socket(connection) as duplicate:
        duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def _as_socket(connection: Connection) -> socket.socket:
    return socket.socket(fileno=os.dup(connection.fileno()))


class _Server:
    """The zygote's own side. `refusal` says why it can start no worker; it is empty where it can."""

    def __init__(self, requests: socket.socket, refusal: str) -> None:
        self._requests = requests
        self._refusal = refusal
        self._pid_of: dict[int, int] = {}
        # Only the zygote holds the writing end: when it ends, in whatever way, the guardians see the end of the line.
        self._life_line, self._held = os.pipe()

    def serve(self) -> None:
        """Handle requests until the pool has gone, then end all workers."""
        while True:
            if select.select([self._requests], [], [], _REAP_EVERY_S)[0]:
                request, descriptors, _, _ = socket.recv_fds(self._requests, _REQUEST.size, 1)
                if not request:
                    break
                verb, number = _REQUEST.unpack(request)
                self._handle(verb, number, descriptors)
            self._reap()
        for number in list(self._pid_of):
            self._kill(number)
            self._await_group(number)

    def _handle(self, verb: int, number: int, descriptors: list[int]) -> None:
        if verb == _KILL:
            self._kill(number)
            self._requests.sendall(_DONE)
            return
        [descriptor] = descriptors
        os.set_inheritable(descriptor, False)
        with Connection(descriptor) as connection:
            try:
                self._fork(number, connection)
            except (RuntimeError, OSError) as error:
                with contextlib.suppress(OSError):
                    send(connection, {"failed": str(error)})

    def _fork(self, number: int, connection: Connection) -> None:
        """Raises RuntimeError when a worker could not be relied on, OSError when there is no room for one."""
        if self._refusal:
            raise RuntimeError(self._refusal)
        require_one_thread()
        pid = os.fork()
        if pid == 0:
            self._become_worker(connection)
        self._pid_of[number] = pid
        # Done on both sides, so that the group exists by the time that either of them relies on it.
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)

    def _become_worker(self, connection: Connection) -> NoReturn:
        """What the forked process does: close the zygote's descriptors, then work until its pipe ends."""
        try:
            os.setpgid(0, 0)
            self._requests.close()
            os.close(self._held)
            start_guardian(self._life_line)
            os.close(self._life_line)
            _reseed()
            work(connection)
        finally:
            os._exit(0)

    def _kill(self, number: int) -> None:
        """SIGKILL to a worker's group. It has not been reaped, so its number is still its own."""
        if (pid := self._pid_of.get(number)) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)  # it may have left the group

    def _reap(self) -> None:
        """Reap all processes that have ended: workers, and what these left behind.

        A worker that ended by itself takes its group along, before its number can become another's.
        """
        number_of = {pid: number for number, pid in self._pid_of.items()}
        with contextlib.suppress(ChildProcessError):
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if ended.si_pid in number_of:
                    number = number_of.pop(ended.si_pid)
                    self._kill(number)
                    del self._pid_of[number]
                os.waitpid(ended.si_pid, 0)

    def _await_group(self, number: int) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-self._pid_of[number], 0)


def require_one_thread() -> None:
    """Raise RuntimeError where this process has several threads (Linux).

    A lock that another thread holds at a fork would stay locked in the worker for ever.
    """
    if sys.platform.startswith("linux") and (num_threads := len(os.listdir("/proc/self/task"))) != 1:
        raise RuntimeError(f"the process to fork workers from has {num_threads} threads where it must have 1")


def _reseed() -> None:
    """Workers must not share random numbers. Python's own generator starts anew at a fork, sympy's does not."""
    from sympy.core import random

    random.seed()


def _warm_up() -> str:
    """Import what all workers need. Returns why workers cannot start, or nothing."""
    try:
        from rewards.checkers import symbolic

        symbolic.warm_up()
        _adopt_orphans()
        if not is_memory_error_noticed():
            return f"in Python {sys.version.split()[0]}, calls that run out of memory cannot be told from others"
    except Exception:
        return traceback.format_exc(limit=-3)
    # Objects that exist by now are left out of garbage collection, which would copy the pages that workers share.
    gc.collect()
    gc.freeze()
    return ""


def _adopt_orphans() -> None:
    """Become the parent of what killed workers leave behind, so that it is reaped (Linux)."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def main() -> None:
    with connect_to_parent() as connection:
        requests = _as_socket(connection)
    _Server(requests, _warm_up()).serve()


if __name__ == "__main__":
    main()
