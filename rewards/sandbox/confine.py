"""A process confines itself, for good, before it runs what a model has written."""

from __future__ import annotations

import ctypes
import os
import resource
import struct

from rewards.sandbox.landlock import restrict_files
from rewards.sandbox.seccomp import install_filter
from rewards.sandbox.syscalls import this_architecture

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_DESCRIPTORS = 64
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CAPABILITY_VERSION = 0x20080522
_SIGKILL = 9
_AF_UNIX, _SOCK_STREAM = 1, 1


def lock_down(parent: int, *, cpu_s: int, memory_bytes: int, file_bytes: int) -> None:
    """Confine this process to what the package's docstring says. Raises OSError where that is not possible.

    The limits are what the kernel enforces by itself; `file_bytes` is for the two files in memory that stand for a
    program's input and output. `parent` is the process to die with.

    The order matters: limits before the capability to raise them is given up, and the filter last, since it lets
    none of the calls through that are needed here.
    """
    architecture = this_architecture()
    libc = ctypes.CDLL(None, use_errno=True)
    _set_limits(cpu_s, memory_bytes, file_bytes)
    _drop_capabilities(architecture.numbers["capset"], libc)
    _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)
    _prctl(libc, _PR_SET_DUMPABLE, 0)
    _prctl(libc, _PR_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() != parent:
        raise OSError("the process that asked is gone")
    restrict_files(architecture, libc)
    install_filter(architecture, libc)
    _check_confinement(libc, architecture.numbers["socket"])


def _set_limits(cpu_s: int, memory_bytes: int, file_bytes: int) -> None:
    """Set the kernel's limits, hard ones included.

    RLIMIT_NPROC is left alone: it counts all processes of the user, and the filter lets no process be started anyway.
    """
    wanted = {
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_NOFILE: _MAX_DESCRIPTORS,
        resource.RLIMIT_CORE: 0,
    }
    for name, limit in wanted.items():
        _, highest = resource.getrlimit(name)
        if highest != resource.RLIM_INFINITY:
            limit = min(limit, highest)
        resource.setrlimit(name, (limit, limit))


def _drop_capabilities(number: int, libc: ctypes.CDLL) -> None:
    """Give up all capabilities, so that a process of root may do no more than any other."""
    header, none = struct.pack("=Ii", _CAPABILITY_VERSION, 0), bytes(24)
    if libc.syscall(number, header, none) != 0:
        raise OSError(ctypes.get_errno(), "capabilities cannot be dropped")


def _prctl(libc: ctypes.CDLL, option: int, value: int) -> None:
    arguments = [ctypes.c_ulong(number) for number in (value, 0, 0, 0)]
    if libc.prctl(option, *arguments) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option} failed")


def _check_confinement(libc: ctypes.CDLL, socket_number: int) -> None:
    """Try what has to be refused. Raises OSError where the kernel lets it through: then nothing may be run here."""
    attempts: dict[str, Callable[[], object]] = {
        "reads a folder outside": lambda: os.listdir("/"),
        "reads a file outside": lambda: os.open("/proc/self/status", os.O_RDONLY),
        "opens a file to write": lambda: os.open("/dev/null", os.O_WRONLY),
        "sends a signal": lambda: os.kill(os.getpid(), 0),
    }
    for deed, attempt in attempts.items():
        try:
            attempt()
        except (PermissionError, FileNotFoundError):
            continue
        raise OSError(f"the sandbox has a hole: it {deed}")
    if libc.syscall(socket_number, _AF_UNIX, _SOCK_STREAM, 0) >= 0:
        raise OSError("the sandbox has a hole: it opens a socket")
