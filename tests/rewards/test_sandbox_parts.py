"""The parts of the sandbox by themselves: the encoding, the system call filter, and Landlock on other kernels."""

import math
import os
import struct
import time

import pytest

from rewards.sandbox.landlock import create_ruleset
from rewards.sandbox.seccomp import filter_program
from rewards.sandbox.syscalls import ARCHITECTURES, architecture
from rewards.sandbox.values import MAX_DEPTH, MAX_ITEMS, GarbageError, NotPlainError, decode, encode


def nested(depth):
    value = []
    for _ in range(depth - 1):
        value = [value]
    return value


PLAIN = [
    None,
    True,
    False,
    0,
    -1,
    10**6000,
    -(2**64),
    0.1,
    -0.0,
    5e-324,
    math.inf,
    -math.inf,
    "",
    "a:b\nü\U0001f600\x00",
    "\ud800",
    b"\x00\xff:",
    [],
    [1, [2.0, ["x"]]],
    (),
    (1, (2,)),
    {1, "a", (2, 3), frozenset({4})},
    set(),
    frozenset(),
    {"a": [1], 2: {}, (3,): None},
    nested(MAX_DEPTH),
    list(range(MAX_ITEMS - 1)),
]


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: repr(value)[:20] if value != 10**6000 else "huge")
def test_plain_data_comes_back_as_it_was(value):
    found = decode(encode(value))
    assert found == value
    assert type(found) is type(value)


def test_types_are_told_apart_that_python_calls_equal():
    assert [type(value) for value in decode(encode([1, 1.0, True]))] == [int, float, bool]
    assert math.isnan(decode(encode(math.nan)))
    assert math.copysign(1, decode(encode(-0.0))) == -1


class Subclass(int):
    pass


@pytest.mark.parametrize(
    "value", [Subclass(1), object(), 1j, range(3), bytearray(), int, nested(MAX_DEPTH + 1), list(range(MAX_ITEMS))]
)
def test_what_is_not_plain_is_refused(value):
    with pytest.raises(NotPlainError):
        encode(value)


COLLIDING = [(2**61 - 1) * factor for factor in range(1, 5000)]
GARBAGE = [
    (b"", "nothing"),
    (b"x", "unknown letter"),
    (b"nn", "two values"),
    (b"i1:", "too short"),
    (b"i2:zz", "no number"),
    (b"i:1", "no size"),
    (b"i-1:1", "negative size"),
    (b"d3:xyz", "no float"),
    (b"s1:\xff", "not UTF-8"),
    (b"l99999999999:", "size of a bomb"),
    (b"l2:n", "an item is missing"),
    (b"e2:nn", "a key twice"),
    (b"m2:nnnn", "a key twice"),
    (b"m1:n", "a value is missing"),
    (b"e1:l0:", "a key without a hash"),
    (b"l1:" * (MAX_DEPTH + 1) + b"n", "too deep"),
    (b"l1:" * 100_000, "far too deep"),
    (b"l200000:" + b"n" * 200_000, "too many"),
    (b"e4999:" + encode(COLLIDING).split(b":", 1)[1], "hashes chosen to collide"),
    (b"e9998:" + encode(COLLIDING + list(range(1, 5000))).split(b":", 1)[1], "half of the hashes chosen to collide"),
    (b"c__builtin__\neval\n", "a pickle"),
]


@pytest.mark.parametrize(("data", "reason"), GARBAGE, ids=[reason for _, reason in GARBAGE])
def test_garbage_is_refused_at_once(data, reason):
    start = time.monotonic()
    with pytest.raises(GarbageError):
        decode(data)
    assert time.monotonic() - start < 1


ALLOW, KILL = 0x7FFF0000, 0x80000000
EPERM, EACCES, ENOSYS = 0x50001, 0x5000D, 0x50026
PID, OTHER = 4711, 4712
THREAD = 0x3D0F00
CALLS = [
    ("read", (), ALLOW),
    ("mmap", (), ALLOW),
    ("openat", (-100, 0, os.O_RDONLY | os.O_CLOEXEC), ALLOW),
    ("openat", (-100, 0, os.O_WRONLY), EACCES),
    ("openat", (-100, 0, os.O_RDWR), EACCES),
    ("openat", (-100, 0, os.O_RDONLY | os.O_TRUNC), EACCES),
    ("openat", (-100, 0, os.O_RDONLY | os.O_CREAT), EACCES),
    ("openat2", (), ENOSYS),
    ("clone", (THREAD,), ALLOW),
    ("clone", (17,), EPERM),
    ("clone", (0x4100 | 17,), EPERM),
    ("clone", (THREAD | 0x40000000,), EPERM),
    ("clone3", (), ENOSYS),
    ("socket", (1, 1, 0), EPERM),
    ("prctl", (15,), ALLOW),
    ("prctl", (1, 0), EPERM),
    ("prctl", (22,), EPERM),
    ("seccomp", (), EPERM),
    ("capset", (), EPERM),
    ("landlock_restrict_self", (), EPERM),
    ("fcntl", (3, 1), ALLOW),
    ("fcntl", (3, 8, OTHER), EPERM),
    ("ioctl", (0, 0x5401), ALLOW),
    ("ioctl", (0, 0x5412), EPERM),
    ("tgkill", (PID, PID, 6), ALLOW),
    ("tgkill", (PID, PID, 9), EPERM),
    ("tgkill", (OTHER, OTHER, 6), EPERM),
    ("prlimit64", (0, 0, 0, 1), ALLOW),
    ("prlimit64", (0, 3, 1, 0), ALLOW),
    ("prlimit64", (0, 0, 1, 0), EPERM),
    ("prlimit64", (0, 0, 1 << 32, 0), EPERM),
    ("prlimit64", (OTHER, 0, 0, 1), EPERM),
    ("prlimit64", (OTHER, 3, 1, 0), EPERM),
]


def decided(program, arch, number, arguments=()):
    """What the kernel would make of a call: a reader of the few instructions that the filter is made of."""
    data = number.to_bytes(4, "little") + arch.to_bytes(4, "little") + bytes(8)
    data += b"".join((argument % 2**64).to_bytes(8, "little") for argument in (*arguments, *[0] * 6)[:6])
    accumulator = position = 0
    while True:
        code, when_true, when_false, operand = program[position]
        position += 1
        if code == 0x06:
            return operand
        if code == 0x20:
            accumulator = int.from_bytes(data[operand : operand + 4], "little")
        elif code == 0x54:
            accumulator &= operand
        else:
            holds = {0x15: accumulator == operand, 0x35: accumulator >= operand, 0x45: accumulator & operand}[code]
            position += when_true if holds else when_false


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_filter_on_both_processors(name):
    machine = architecture(name)
    program = filter_program(machine, PID)
    for call, arguments, action in CALLS:
        found = decided(program, machine.audit_arch, machine.numbers[call], arguments)
        assert found == action, f"{call}{arguments}: {found:#x}"
    assert decided(program, 0x40000003, 1) == KILL, "32 bits"
    allowed = {number for number in range(1000) if decided(program, machine.audit_arch, number) == ALLOW}
    assert allowed <= set(machine.numbers.values()), "only what is listed"


def test_the_filter_knows_the_numbers_of_x32():
    machine = architecture("x86_64")
    program = filter_program(machine, PID)
    assert decided(program, machine.audit_arch, 0x40000000) == KILL
    assert decided(program, machine.audit_arch, 0xFFFFFFFF) == KILL


class Kernel:
    """Answers as one whose Landlock has that ABI, and keeps what it was asked to handle."""

    def __init__(self, abi):
        self.abi = abi
        self.handled = ()

    def syscall(self, number, attributes, size, flags):
        if flags == 1:
            return self.abi
        assert size == len(attributes)
        self.handled = struct.unpack(f"{size // 8}Q", attributes)
        return 77


ABIS = [
    (1, (0x1FFF,), "files"),
    (2, (0x3FFF,), "moving files"),
    (3, (0x7FFF,), "truncating"),
    (4, (0x7FFF, 3), "TCP"),
    (5, (0xFFFF, 3), "device controls"),
    (6, (0xFFFF, 3, 3), "scopes"),
    (99, (0xFFFF, 3, 3), "what is to come"),
]


@pytest.mark.parametrize(("abi", "handled", "what"), ABIS, ids=[what for _, _, what in ABIS])
def test_all_that_a_kernel_can_restrict_is_restricted(abi, handled, what):
    kernel = Kernel(abi)
    assert create_ruleset(444, kernel) == 77
    assert kernel.handled == handled


def test_a_kernel_without_landlock_is_refused():
    with pytest.raises(OSError, match="no Landlock"):
        create_ruleset(444, Kernel(-1))
