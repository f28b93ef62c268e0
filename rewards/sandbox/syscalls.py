"""Numbers of the system calls that the sandbox makes or lets through, by processor, from the kernel's tables."""

from __future__ import annotations

import os
import sys

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""By the processor's name: its AUDIT_ARCH, and its column in the table below."""


class Architecture:
    """A kind of processor: `audit_arch` is its number in a seccomp filter, `numbers` those of its system calls."""

    def __init__(self, name: str, audit_arch: int, numbers: dict[str, int]) -> None:
        self.name = name
        self.audit_arch = audit_arch
        self.numbers = numbers


def this_architecture() -> Architecture:
    """Raises OSError on machines that the tables do not cover."""
    machine = os.uname().machine
    if not sys.platform.startswith("linux") or machine not in ARCHITECTURES or sys.maxsize < 2**32:
        raise OSError(f"no system call table for {sys.platform} on {machine}")
    return architecture(machine)


def architecture(name: str) -> Architecture:
    """One of `ARCHITECTURES`, with the calls that it has. Raises KeyError for others."""
    audit_arch, column = ARCHITECTURES[name]
    numbers = {call: row[column] for call, row in NUMBERS.items()}
    return Architecture(name, audit_arch, {call: number for call, number in numbers.items() if number is not None})


# fmt: off
NUMBERS: dict[str, tuple[int, int | None]] = {
    # To confine oneself.
    "capset": (126, 91), "prctl": (157, 167), "seccomp": (317, 277), "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445), "landlock_restrict_self": (446, 446), "socket": (41, 198),
    # Files and descriptors that are open, and looking at names.
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "pread64": (17, 67), "pwrite64": (18, 68), "readv": (19, 65),
    "writev": (20, 66), "lseek": (8, 62), "ftruncate": (77, 46), "dup": (32, 23), "dup2": (33, None),
    "dup3": (292, 24), "close_range": (436, 436), "pipe": (22, None), "pipe2": (293, 59), "select": (23, None),
    "pselect6": (270, 72), "poll": (7, None), "ppoll": (271, 73), "stat": (4, None), "fstat": (5, 80),
    "lstat": (6, None), "newfstatat": (262, 79), "statx": (332, 291), "access": (21, None), "faccessat": (269, 48),
    "faccessat2": (439, 439), "getdents64": (217, 61), "getcwd": (79, 17), "readlink": (89, None),
    "readlinkat": (267, 78), "open": (2, None), "openat": (257, 56), "openat2": (437, 437), "fcntl": (72, 25),
    "ioctl": (16, 29),
    # Memory.
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "mremap": (25, 216), "madvise": (28, 233),
    "mincore": (27, 232), "brk": (12, 214), "membarrier": (324, 283),
    # Signals and time.
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136),
    "rt_sigtimedwait": (128, 137), "rt_sigsuspend": (130, 133), "sigaltstack": (131, 132),
    "restart_syscall": (219, 128), "tgkill": (234, 131), "pause": (34, None), "alarm": (37, None),
    "getitimer": (36, 102), "setitimer": (38, 103), "nanosleep": (35, 101), "clock_nanosleep": (230, 115),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "gettimeofday": (96, 169), "time": (201, None),
    "times": (100, 153),
    # The process and its threads.
    "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178), "getuid": (102, 174), "geteuid": (107, 175),
    "getgid": (104, 176), "getegid": (108, 177), "exit": (60, 93), "exit_group": (231, 94), "clone": (56, 220),
    "clone3": (435, 435), "futex": (202, 98), "set_tid_address": (218, 96), "set_robust_list": (273, 99),
    "rseq": (334, 293), "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "getcpu": (309, 168),
    "getrlimit": (97, 163), "prlimit64": (302, 261), "getrusage": (98, 165),
    # The machine.
    "uname": (63, 160), "sysinfo": (99, 179), "getrandom": (318, 278),
}
# fmt: on
