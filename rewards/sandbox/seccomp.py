"""The list of system calls that the sandbox lets through. Everything else is refused with EPERM.

A list of what is allowed, not of what is forbidden: what a later kernel adds is refused as well. A few calls are let
through for some of their arguments only; arguments that are pointers cannot be looked at, so no rule rests on them.
"""

from __future__ import annotations

import ctypes
import errno
import os

from rewards.sandbox.syscalls import Architecture

_ALLOWED = """
    read write close pread64 pwrite64 readv writev lseek ftruncate dup dup2 dup3 close_range pipe pipe2 select
    pselect6 poll ppoll stat fstat lstat newfstatat statx access faccessat faccessat2 getdents64 getcwd readlink
    readlinkat mmap mprotect munmap mremap madvise mincore brk membarrier rt_sigaction rt_sigprocmask rt_sigreturn
    rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack restart_syscall pause alarm getitimer setitimer
    nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times getpid getppid gettid getuid
    geteuid getgid getegid exit exit_group futex set_tid_address set_robust_list rseq sched_yield sched_getaffinity
    getcpu getrlimit getrusage uname sysinfo getrandom
"""
_UNKNOWN_HERE = ("clone3", "openat2")
"""Refused with ENOSYS: the filter cannot look at arguments behind pointers, and with ENOSYS the C library falls back to
`clone` and `openat`, whose arguments it can look at."""

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_FCNTL = (0, 1, 2, 3, 1030)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5450, 0x5451)  # TCGETS, TIOCGWINSZ, FIONREAD, FIONCLEX, FIOCLEX
_PRCTL = (15, 16)  # PR_SET_NAME, PR_GET_NAME
_CLONE_THREAD, _CLONE_NAMESPACES = 0x00010000, 0x7E020000
_RLIMIT_STACK = 3
_SIGABRT = 6

_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_KILL, _ALLOW, _REFUSE = 0x80000000, 0x7FFF0000, 0x00050000
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
_X32_BIT = 0x40000000
_SET_MODE_FILTER = 1

Instruction = tuple[int, int, int, int]
"""Code, instructions to skip when true and when false, operand."""


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def install_filter(architecture: Architecture, libc: ctypes.CDLL) -> None:
    """Filter all system calls of this process from now on, for good. Raises OSError."""
    instructions = filter_program(architecture, os.getpid())
    packed = b"".join(
        code.to_bytes(2, "little") + bytes((when_true, when_false)) + operand.to_bytes(4, "little")
        for code, when_true, when_false, operand in instructions
    )
    buffer = ctypes.create_string_buffer(packed, len(packed))
    program = _Program(len(instructions), ctypes.addressof(buffer))
    if libc.syscall(architecture.numbers["seccomp"], _SET_MODE_FILTER, 0, ctypes.byref(program)) != 0:
        raise OSError(ctypes.get_errno(), "the kernel takes no seccomp filter")


def filter_program(architecture: Architecture, pid: int) -> list[Instruction]:
    """The filter for the process of that id, as the kernel runs it."""
    numbers = architecture.numbers
    program = [(_LOAD, 0, 0, _ARCH), (_IF_EQUAL, 1, 0, architecture.audit_arch), (_RETURN, 0, 0, _KILL)]
    program += [(_LOAD, 0, 0, _NUMBER)]
    if architecture.name == "x86_64":
        program += [(_IF_AT_LEAST, 0, 1, _X32_BIT), (_RETURN, 0, 0, _KILL)]
    rules = {
        **{name: [(_RETURN, 0, 0, _ALLOW)] for name in _ALLOWED.split()},
        **{name: [_refuse(errno.ENOSYS)] for name in _UNKNOWN_HERE},
        "open": _without_bits(1, _WRITING),
        "openat": _without_bits(2, _WRITING),
        "fcntl": _one_of(1, _FCNTL),
        "ioctl": _one_of(1, _IOCTL),
        "prctl": _one_of(0, _PRCTL),
        "clone": _threads_only(),
        "tgkill": _one_of(0, (pid,), then=_one_of(2, (_SIGABRT,))),
        "prlimit64": _one_of(0, (0,), then=_reading_or_stack()),
    }
    for name, rule in rules.items():
        if name in numbers:
            program += [(_IF_EQUAL, 0, len(rule), numbers[name]), *rule]
    return [*program, _refuse(errno.EPERM)]


def _refuse(error: int) -> Instruction:
    return (_RETURN, 0, 0, _REFUSE | error)


def _argument(index: int, *, high: bool = False) -> Instruction:
    """Load the lower or higher half of an argument; both processors store the lower half first."""
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * index + 4 * high)


def _one_of(index: int, values: tuple[int, ...], then: list[Instruction] | None = None) -> list[Instruction]:
    """Refuse unless the argument, an int, is one of these; otherwise go on with `then`, or allow."""
    tests = [(_IF_EQUAL, len(values) - position, 0, value) for position, value in enumerate(values)]
    return [_argument(index), *tests, _refuse(errno.EPERM), *(then or [(_RETURN, 0, 0, _ALLOW)])]


def _without_bits(index: int, bits: int) -> list[Instruction]:
    return [_argument(index), (_IF_ANY_BIT, 0, 1, bits), _refuse(errno.EACCES), (_RETURN, 0, 0, _ALLOW)]


def _threads_only() -> list[Instruction]:
    """Of all clones, only a thread in the same process and the same namespaces."""
    masked = [_argument(0), (_AND, 0, 0, _CLONE_THREAD | _CLONE_NAMESPACES)]
    return [*masked, (_IF_EQUAL, 1, 0, _CLONE_THREAD), _refuse(errno.EPERM), (_RETURN, 0, 0, _ALLOW)]


def _reading_or_stack() -> list[Instruction]:
    """Limits may be read; only the stack's may be set, which programs of deep recursion do."""
    return [
        _argument(1),
        (_IF_EQUAL, 4, 0, _RLIMIT_STACK),
        _argument(2),
        (_IF_EQUAL, 0, 3, 0),
        _argument(2, high=True),
        (_IF_EQUAL, 0, 1, 0),
        (_RETURN, 0, 0, _ALLOW),
        _refuse(errno.EPERM),
    ]
