"""Limits on the memory and CPU of a call, which the kernel enforces, whether or not a parent watches."""

from __future__ import annotations

import ctypes
import math
import os
import re
import resource
import sys
import time
from pathlib import Path
from typing import Any

_SPARE_BYTES = 4 << 20
_kept_alive: list[Any] = []
"""Objects that C code points to, so that they must never be freed."""


def limit_memory(memory_bytes: int) -> None:
    """Cap the address space at the most it has been so far plus `memory_bytes` (Linux), and never dump core."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform.startswith("linux"):
        limit = _peak_bytes() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def is_memory_spent() -> bool:
    """Whether the address space has ever come so near to its limit that nothing more could be allocated (Linux).

    The interpreter takes memory for small objects in pieces of 1 MiB, the C library in smaller ones; with 4 MiB
    to spare neither was refused any.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return sys.platform.startswith("linux") and limit != resource.RLIM_INFINITY and _peak_bytes() > limit - _SPARE_BYTES


def _peak_bytes() -> int:
    [kib] = re.findall(r"^VmPeak:\s*([0-9]+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(kib) << 10


def allow_cpu(seconds: float) -> None:
    """Let the kernel end this process (SIGXCPU) `seconds` of CPU from now, rounded up, and one more.

    Wall-clock deadlines come first as long as there is a parent to enforce them; this one holds when it is
    stopped. CPU is counted over all threads of this process, but not over processes that it starts, each of
    which may use as much again.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(time.process_time() + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def num_cpus() -> int:
    """How many threads of this process can run at a time."""
    return len(os.sched_getaffinity(0)) if sys.platform.startswith("linux") else os.cpu_count() or 1


def abort_on_memory_error() -> None:
    """From now on, this process aborts where Python code could catch a MemoryError, in whatever thread.

    sympy, and many a reward function, catch every exception and go on with the next idea: what comes of that
    depends on memory, not on the question. The peak of the address space does not tell, since a large
    allocation that is refused leaves it as it was. So the error itself is intercepted, without allocating anything:

    * CPython 3.11 makes its MemoryErrors by calling the class that `PyExc_MemoryError` points to, when the
      first Python code could see one. It is pointed to a class whose constructor is C's `abort`.
    * CPython 3.12 keeps MemoryErrors in stock, but reports each exception raised to `sys.monitoring`.

    Not seen: one that the interpreter loses because there is not even memory for a frame, which is for
    `is_memory_spent` to find out; one that C code clears before any Python code could have caught it; and in
    3.11 one that a library makes itself (numpy's, or a Python ``raise MemoryError``), unless nobody catches it.
    `is_memory_error_noticed` says whether all this works in the interpreter at hand.
    """
    if sys.version_info >= (3, 12):
        _abort_when_one_is_raised()
    else:
        error = _memory_error_that_aborts()
        _kept_alive.append(error)
        ctypes.py_object.in_dll(ctypes.pythonapi, "PyExc_MemoryError").value = error


class _Slot(ctypes.Structure):
    """C's PyType_Slot."""

    _fields_ = (("slot", ctypes.c_int), ("function", ctypes.c_void_p))


class _Spec(ctypes.Structure):
    """C's PyType_Spec."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("basicsize", ctypes.c_int),
        ("itemsize", ctypes.c_int),
        ("flags", ctypes.c_uint),
        ("slots", ctypes.POINTER(_Slot)),
    )


def _memory_error_that_aborts() -> Any:
    """A subclass of MemoryError, built through the stable ABI, whose `tp_new` is `abort`."""
    tp_new = 65
    abort = ctypes.cast(ctypes.pythonapi.abort, ctypes.c_void_p)
    slots = (_Slot * 2)(_Slot(tp_new, abort), _Slot(0, None))
    spec = _Spec(b"rewards.workers.limits.OutOfMemory", 0, 0, 0, slots)
    _kept_alive.append((slots, spec))
    make_type = ctypes.pythonapi.PyType_FromSpecWithBases
    make_type.argtypes, make_type.restype = [ctypes.POINTER(_Spec), ctypes.py_object], ctypes.py_object
    return make_type(ctypes.byref(spec), (MemoryError,))


def _abort_when_one_is_raised() -> None:
    monitoring: Any = sys.monitoring  # type: ignore[attr-defined,unused-ignore]
    tool = 3  # not a debugger's, coverage's or profiler's number

    def see(code: object, offset: int, error: BaseException) -> None:
        if isinstance(error, MemoryError):
            os.abort()

    monitoring.use_tool_id(tool, "reward workers")
    monitoring.register_callback(tool, monitoring.events.RAISE, see)
    monitoring.set_events(tool, monitoring.events.RAISE)


def is_memory_error_noticed() -> bool:
    """Try `abort_on_memory_error` in a forked process, by swallowing the refusal of what no machine can give."""
    pid = os.fork()
    if pid == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            abort_on_memory_error()
            _swallow_a_memory_error()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def _swallow_a_memory_error() -> None:
    try:
        bytearray(sys.maxsize - 1)
    except Exception:
        return
