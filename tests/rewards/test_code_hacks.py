"""What answers try that want to be right without being so: the outcome, the time, what is left, the next verdict."""

import os
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from code_golds import ADD, ADDING, programs, unit
from processes import wait_for
from scoring import request

from rewards.checkers import verify
from rewards.records import Outcome
from rewards.sandbox import run
from rewards.spec import RewardSpec
from rewards.workers.pool import WorkerPool
from rewards.workers.worker import Call, SetUp

RIGHT, WRONG = Outcome.CORRECT, Outcome.WRONG


SQUARES = programs(("3\n", "9\n"), ("12", "144"))
SECRET = "4711-secret-1147"
TARGET = unit(
    f"assert f(1) == '{SECRET}'", "assert abs(f(2) - 12.5) < 1e-9", "assert math.isclose(f(3), 17.25)", limit_s=1
)
FORGED = "class Equal(int):\n    __eq__ = __lt__ = __le__ = __sub__ = __rsub__ = __abs__ = lambda *_: True\n"
WRITE_EVERYWHERE = """
import os, tempfile
for folder in (".", HOME, "/tmp", "/var/tmp", "/dev/shm", HERE, os.path.dirname(HERE), REPO, "/proc/self/cwd"):
    for write in (lambda path: open(path, "w").write("x"), os.mkdir, lambda path: os.symlink("/etc/passwd", path)):
        try:
            write(os.path.join(folder, "pwned.marker"))
        except OSError:
            pass
tempfile.mkstemp()
"""
SEARCH = """
import gc, os, re, sys
def f(n):
    texts = [*os.environ.values(), *sys.argv, *sys.orig_argv]
    frame = sys._getframe()
    while frame:
        texts += [repr(frame.f_locals), repr(frame.f_globals)[:10**6]]
        frame = frame.f_back
    texts += [repr(found)[:10**5] for found in gc.get_objects() if type(found) in (list, dict, tuple, bytes)]
    for number in range(3, 64):
        try:
            texts.append(os.pread(number, 10**6, 0).decode("latin-1"))
        except OSError:
            pass
    for text in texts:
        if found := re.search("[0-9]+-sec" + "ret-[0-9]+", text):
            return found[0]
"""
HACKS = [
    (FORGED + "f = lambda n: Equal()", "Equal is not plain data"),
    ("class A:\n    __eq__ = lambda *_: True\n    __bool__ = __eq__\nf = lambda n: A()", "A is not plain data"),
    ("class E(str):\n    __eq__ = lambda *_: True\n    __hash__ = str.__hash__\nf = lambda n: [E()]", "E is not plain"),
    ("class T(type):\n    __eq__ = lambda *_: True\n    __hash__ = lambda s: hash(str)\nclass E(metaclass=T): pass\n"
     "f = lambda n: E()", "E is not plain data|ended the process"),
    ("import sys\nsys.exit(0)", "SystemExit: 0"),
    ("def f(n): exit()", "test 1 of 3: SystemExit"),
    ("import os\nos._exit(0)", "ended the process, with exit code 0"),
    ("import os\ndef f(n): os._exit(0)", "test 1 of 3: it ended the process"),
    ("import os, signal\nsignal.alarm(1)\nwhile True: pass", "s of CPU|SIGALRM"),
    ("import builtins, math\nabs = builtins.abs = lambda _: 0\nmath.isclose = lambda *_, **__: True\n"
     "print = builtins.print = lambda *_: True\nf = lambda n: 0", "gave 0"),
    ("import sys\nframe = sys._getframe()\nwhile frame:\n    frame.f_globals.update(_reply=lambda *_: None)\n"
     "    frame = frame.f_back\nf = lambda n: 1", "ended the process, with exit code 0"),
    ("from rewards.sandbox import values, inside\nvalues._write = lambda value, parts, depth: parts.append(b't')\n"
     "f = lambda n: 1", "wrote into the pipe"),
    ("import builtins\nbuiltins.eval = builtins.compile = builtins.exec = lambda *_: True\nf = lambda n: 1", "gave "),
    (SEARCH, "gave None"),
    ("while True: pass", "over 1 s of CPU"),
    ("def f(n):\n    while True: pass", "test 1 of 3: over 1 s of CPU"),
    ("import time\ntime.sleep(100)", "idle for over 1 s"),
    ("import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()", "idle for"),
    ("f = lambda n: 10**10**10", "s of CPU|MemoryError"),
    ("f = lambda n: [0] * 10**10", "MemoryError"),
    ("held = []\nwhile True: held.append(bytes(10**8))", "MemoryError"),
    ("f = lambda n: f(n)", "RecursionError"),
    ("import sys\nsys.setrecursionlimit(10**9)\nf = lambda n: sorted([n], key=f)", "SIGSEGV|s of CPU|MemoryError"),
    ("def f(n):\n    x = []\n    for _ in range(10**5): x = [x]\n    return x", "nested more than"),
    ("x = []\nx.append(x)\nf = lambda n: x", "nested more than"),
    ("f = lambda n: list(range(10**6))", "more than 100000 values"),
    ("f = lambda n: 'x' * 10**8", "a reply of 100000"),
    ("f = lambda n: 10**10000", "a number of very many digits"),
    ("f = lambda n: float('nan')", "gave nan"),
    ("f = lambda n: {(2**61 - 1) * k for k in range(1, 20000)}", "wrote into the pipe|s of CPU"),
    ("import os\n[os.fork() for _ in range(5)]", "PermissionError"),
    ("import multiprocessing\nmultiprocessing.Process(target=print).start()", "PermissionError"),
    ("import threading, time\nthreading.stack_size(32768)\n"
     "while True: threading.Thread(target=time.sleep, args=(99,)).start()", "over 64 threads"),
    ("import socket\nsocket.create_connection(('127.0.0.1', 80))", "PermissionError"),
    ("import urllib.request\nurllib.request.urlopen('http://127.0.0.1')", "urlopen error|PermissionError"),
    ("import os\nos.kill(os.getppid(), 9)", "PermissionError"),
    ("import ctypes, os\nlibc = ctypes.CDLL(None)\nlibc.kill(os.getppid(), 9)\nlibc.fork()\n"
     "libc.system(b'touch /tmp/pwned.marker')", "NameError"),
    ("import ctypes\nctypes.string_at(0)", "SIGSEGV"),
    ("import os\nos.abort()", "SIGABRT"),
    ("import os\nos.closerange(0, 1024)", "exit code|closed the pipe"),
    ("import os, time\nos.closerange(0, 1024)\ntime.sleep(99)", "closed the pipe|idle"),
    ("import os\nfor n in range(1024):\n    try: os.write(n, b'\\0' * 100)\n    except OSError: pass",
     "wrote into the pipe"),
    ("import os\nwhile True: os.write(3, b'\\xff' * 10**6)", "a reply of"),
    ("import os\nos.write(3, b'\\0\\0\\0\\x05' + b'u2:s5'); f = lambda n: 1", "wrote into the pipe"),
    ("import os\nfrom rewards.sandbox.values import encode\n"
     "for kind in ('value', 'error'):\n    data = encode((kind, 10**9999))\n"
     "    os.write(3, len(data).to_bytes(4, 'big') + data)", "test 1 of 3: it wrote into the pipe"),
    ("import sys\nsys.stdout.write('x' * 10**8)\nf = lambda n: 1", "gave 1"),
    ("import os\nwhile True: os.write(4, b'x' * 10**6)", "File too large"),
    ("n = 0\nwhile True:\n    n += 1\n    open(f'pwned.marker{n}', 'wb').write(b'x' * 10**6)", "PermissionError"),
    ("open('/etc/passwd').read()", "PermissionError"),
    ("import os\nopen(f'/proc/{os.getppid()}/mem', 'rb')", "PermissionError"),
    ("import os\nopen(f'/proc/{os.getppid()}/environ').read()", "PermissionError"),
    ("import os\nos.symlink('/etc', 'pwned.marker')", "PermissionError"),
    ("import os\nos.readlink(f'/proc/{os.getppid()}/fd/0')", "PermissionError"),
    ("HOME, HERE, REPO = " + repr((str(Path.home()), os.getcwd(), str(Path(__file__).parents[2]))) + WRITE_EVERYWHERE,
     "No usable temporary directory|PermissionError"),
    ("class E(Exception):\n    def __str__(self): raise self\nraise E", "it has no text"),
    ("class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E", "over 1 s of CPU"),
    ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    ("import sys\nsys.settrace(lambda *_: 1 / 0)\nf = lambda n: 1", "ZeroDivisionError|gave|exit"),
]  # fmt: skip


def markers():
    folders = {Path.cwd(), Path.cwd().parent, Path.home(), Path(tempfile.gettempdir()), Path("/var/tmp"), Path("/")}
    folders |= {Path("/dev/shm"), Path(__file__).parents[2], Path(run.__file__).parent}
    return [found for folder in folders if folder.is_dir() for found in folder.glob("pwned.marker*")]


@pytest.fixture
def nothing_left():
    def held():
        return set(psutil.Process().children(recursive=True)), len(os.listdir("/proc/self/fd"))

    temporary = set(os.listdir(tempfile.gettempdir()))
    before = held()
    yield
    assert markers() == []
    assert held() == before
    assert not [name for name in set(os.listdir(tempfile.gettempdir())) - temporary if "sandbox" in name]


@pytest.mark.parametrize(
    ("answer", "reason"), HACKS, ids=[f"{n}: {answer[:30]!r}" for n, (answer, _) in enumerate(HACKS)]
)
def test_hacks(nothing_left, answer, reason):
    start = time.monotonic()
    verdict = verify("python_tests", TARGET, answer)
    assert time.monotonic() - start < 15
    assert verdict.outcome is WRONG
    assert any(part in verdict.reason for part in reason.split("|")), verdict.reason
    assert len(verdict.reason) < 600
    assert verify("python_tests", ADDING, ADD).outcome is RIGHT


PROGRAM_HACKS = [
    ("print(9)\nimport os\nos._exit(0)", "ended the process"),
    ("import os\nos.write(1, b'9')\nos.write(3, b'9')", "wrote into the pipe|a reply of"),
    ("while True: print('x' * 10**6)", "printed over 4 MiB"),
    ("import os\nos.closerange(0, 1024)", "exit code|closed the pipe"),
    ("import sys\nsys.stdout = None", "gave ''|AttributeError"),
    ("import time\ntime.sleep(99)", "idle for over 1 s"),
    ("import threading, time\nthreading.Thread(target=time.sleep, args=(99,)).start()", "idle for over 1 s"),
    ("import atexit, time\natexit.register(time.sleep, 99)", "idle for over 1 s"),
]


@pytest.mark.parametrize(("answer", "reason"), PROGRAM_HACKS)
def test_hacks_by_programs(nothing_left, answer, reason):
    verdict = verify("python_tests", programs(("3", "9"), ("4", "16"), limit_s=1), answer)
    assert verdict.outcome is WRONG
    assert any(part in verdict.reason for part in reason.split("|")), verdict.reason
    assert verify("python_tests", SQUARES, "print(int(input()) ** 2)").outcome is RIGHT


def test_what_is_expected_never_enters_the_sandbox(monkeypatch):
    sent = []
    encode = run.encode
    monkeypatch.setattr(run, "encode", lambda value: sent.append(encode(value)) or sent[-1])
    verify("python_tests", TARGET, "f = lambda n: 1")
    verify("python_tests", programs(("3", SECRET)), "print(1)")
    assert len(sent) == 2
    for data in sent:
        assert not [text for text in (SECRET, "12.5", "17.25", "1e-09") if text.encode() in data]


def test_the_search_for_it_finds_what_is_there():
    gold = unit(f"assert f(1) == '{SECRET}'", setup=f"hidden = '{SECRET}'")
    assert verify("python_tests", gold, SEARCH).outcome is RIGHT


def test_in_a_worker_that_is_killed_at_its_deadline():
    """The worker's limits do not get in the way, and what it was running goes with it."""
    set_up = SetUp((RewardSpec(name="staged_rewards:runs_code_without_end"),))
    calls = [Call("text_reward", (0, request("a")))]
    calls += [
        Call("verify", ("python_tests", ADDING, answer)) for answer in (ADD, "def add(a, b): return [0] * 10**10")
    ]
    before = set(psutil.Process().children(recursive=True))
    with WorkerPool(1, 2.0, set_up) as pool:
        late, right, greedy = pool.submit(calls).result()
    assert late.status == "timed_out"
    assert right.value[0] == "correct"
    assert greedy.value[:2] == ["wrong", "test 1 of 2: MemoryError"]
    wait_for(lambda: not set(psutil.Process().children(recursive=True)) - before, 5, "the end of all processes")
