"""Landlock: which files the sandbox may read. It may write, make or remove none, and use no network.

Newer kernels can restrict more, and the version of their Landlock ABI says how much: all that this kernel can restrict
is restricted. What an older one cannot, the seccomp filter refuses in any case.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys

from rewards.sandbox.syscalls import Architecture

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_NUM_FILE_RIGHTS = (0, 13, 14, 15, 15, 16)
"""How many rights on files ABI 0, 1, 2 … know; later ones have added none."""
_NETWORK_SINCE, _SCOPES_SINCE = 4, 6
_GET_VERSION = 1
_PATH_BENEATH = 1
_LIBRARIES = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/zoneinfo",
    "/etc/ld.so.cache",
    "/dev/null",
    "/dev/urandom",
)
_PACKAGES = ("site-packages", "dist-packages")


def restrict_files(architecture: Architecture, libc: ctypes.CDLL) -> None:
    """Confine this process to reading the standard library and shared libraries. Raises OSError."""
    ruleset = create_ruleset(architecture.numbers["landlock_create_ruleset"], libc)
    try:
        for path, rights in _readable():
            _allow(architecture.numbers["landlock_add_rule"], libc, ruleset, path, rights)
        if libc.syscall(architecture.numbers["landlock_restrict_self"], ruleset, 0) != 0:
            raise OSError(ctypes.get_errno(), "Landlock refuses to restrict this process")
    finally:
        os.close(ruleset)


def create_ruleset(number: int, libc: ctypes.CDLL) -> int:
    """A descriptor of a rule set that forbids everything that this kernel can forbid, until rules allow some of it.

    `number` is the system call landlock_create_ruleset. Raises OSError where there is no Landlock.
    """
    abi = libc.syscall(number, None, 0, _GET_VERSION)
    if abi < 1:
        raise OSError(ctypes.get_errno(), "this kernel has no Landlock, or it is switched off")
    files = (1 << _NUM_FILE_RIGHTS[min(abi, len(_NUM_FILE_RIGHTS) - 1)]) - 1
    handled = [files]
    if abi >= _NETWORK_SINCE:
        handled.append(0b11)  # Binding and connecting TCP sockets.
    if abi >= _SCOPES_SINCE:
        handled.append(0b11)  # Abstract Unix sockets and signals.
    attributes = struct.pack(f"={len(handled)}Q", *handled)
    ruleset: int = libc.syscall(number, attributes, len(attributes), 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "Landlock takes no rule set")
    return ruleset


def _readable() -> Iterator[tuple[str, int]]:
    """Paths and what is allowed there and below."""
    for folder in sys.path:
        yield folder, _READ_DIR
        yield from ((path, _READ_FILE | _READ_DIR) for path in _entries(folder))
    yield from ((path, _READ_FILE | _READ_DIR) for path in _LIBRARIES)
    libraries = os.path.join(sys.base_prefix, "lib")
    yield from ((path, _READ_FILE) for path in _entries(libraries) if ".so" in path)


def _entries(folder: str) -> Iterable[str]:
    """What lies in a folder, but for packages that are not of the standard library."""
    try:
        return [os.path.join(folder, name) for name in os.listdir(folder) if name not in _PACKAGES]
    except OSError:
        return []


def _allow(number: int, libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    """Add one rule; a path that does not exist needs none."""
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= ~_READ_DIR
        beneath = struct.pack("=Qi", rights, place)
        if rights and libc.syscall(number, ruleset, _PATH_BENEATH, beneath, 0) != 0:
            raise OSError(ctypes.get_errno(), f"Landlock takes no rule for {path}")
    finally:
        os.close(place)
