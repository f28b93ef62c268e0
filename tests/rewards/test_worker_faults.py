"""Whatever a worker does: the outcome, the time it takes, the next verdict, and that nobody is left."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest
from scoring import request, tagged

from rewards.errors import PoolError
from rewards.pool import WorkerPool
from rewards.scorer import Scorer
from rewards.spec import RewardSpec
from rewards.types import Outcome
from rewards.worker import Call, SetUp

DEADLINE_S = 0.8
HERE = Path(__file__).parent
BOMB = "9^{9^{9^{9}}}"


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def nobody_left():
    before, descriptors = psutil.Process().children(recursive=True), open_descriptors()
    yield
    gone = time.monotonic() + 5
    while (left := set(psutil.Process().children(recursive=True)) - set(before)) and time.monotonic() < gone:
        time.sleep(0.05)
    assert not left
    assert open_descriptors() <= descriptors


FAULTS = [
    ("loops_for_ever", Outcome.TIMED_OUT, "no answer"),
    ("sleeps_for_ever", Outcome.TIMED_OUT, "no answer"),
    ("exits_hard", Outcome.CRASHED, "died"),
    ("kills_itself", Outcome.CRASHED, "died"),
    ("segfaults", Outcome.CRASHED, "died"),
    ("allocates_ten_gigabytes", Outcome.CRASHED, "died"),
    ("closes_the_pipe", Outcome.CRASHED, "died"),
    ("writes_into_the_pipe", Outcome.CRASHED, "died"),
    ("exits_politely", Outcome.CRASHED, "SystemExit"),
    ("raises", Outcome.CRASHED, "staged"),
    ("returns_too_few", Outcome.CRASHED, "1 rewards for 2"),
    ("returns_text", Outcome.CRASHED, "'1.0'"),
    ("returns_nan", Outcome.CRASHED, "finite"),
]


def test_each_fault_is_bounded_and_the_next_verdict_is_right(nobody_left):
    names = [*(name for name, _, _ in FAULTS), "prints_ten_megabytes"]
    specs = tuple(RewardSpec(name=f"staged_rewards:{name}") for name in names)
    group, verdict = request("a", "b"), Call("judge", ("integer", "71", "71"))
    start = time.monotonic()
    with WorkerPool(2, DEADLINE_S, SetUp(specs, memory_bytes=1 << 30)) as pool:
        jobs = [pool.submit([Call("text_reward", (i, group)), verdict]) for i in range(len(names))]
        assert time.monotonic() - start < 0.5
        results = [job.result() for job in jobs]
    assert time.monotonic() - start < 40
    assert [verdict.value[0] for _, verdict in results] == ["correct"] * len(names)
    assert results.pop()[0].value == [1.0, 1.0]
    for (fault, _), (name, outcome, detail) in zip(results, FAULTS, strict=True):
        assert (name, fault.status) == (name, outcome.value)
        assert detail in fault.detail


def test_a_failed_reward_has_no_part_and_is_reported(nobody_left):
    names = ["staged_rewards:exits_hard", "staged_rewards:raises", "correctness"]
    with Scorer([RewardSpec(name=name) for name in names]) as scorer:
        scorer.submit(request(tagged("71"), tagged("70")))
        [scores] = scorer.collect()
        faults = scorer.take_faults()
    assert [score.reward for score in scores] == [1.0, 0.0]
    assert scores[0].parts == {names[0]: None, names[1]: None, "correctness": 1.0}
    assert [(fault.reward, fault.outcome, fault.num_completions) for fault in faults] == [
        (names[0], Outcome.CRASHED, 2),
        (names[1], Outcome.CRASHED, 2),
    ]


def test_bombs_leave_honest_verdicts_right(nobody_left):
    num_workers = 2
    bombs = [request(tagged(BOMB), gold="3", checker="math") for _ in range(num_workers * 3)]
    honest = [request(tagged("\\frac{1}{2}"), tagged(str(n)), gold="0.5", checker="math") for n in range(40)]
    mixed = [group for pair in zip(bombs, honest, strict=False) for group in pair] + honest[len(bombs) :]
    with Scorer([RewardSpec(name="correctness")], num_workers=num_workers, deadline_s=0.8) as scorer:
        start = time.monotonic()
        for group in mixed:
            scorer.submit(group)
        scores = scorer.collect()
    assert time.monotonic() - start < 30
    for group, verdicts in zip(mixed, scores, strict=True):
        expected = ["timed_out"] if group.gold == "3" else ["correct", "wrong"]
        assert [score.outcome for score in verdicts] == expected


def test_calls_around_a_killed_one_keep_their_results(nobody_left):
    answers = ["1", BOMB, "\\frac{2}{2}", "2", BOMB, "x"]
    group = request(*map(tagged, answers), gold="1", checker="math")
    with Scorer([], deadline_s=1.0) as scorer:
        scorer.submit(group)
        [scores] = scorer.collect()
    assert [score.outcome for score in scores] == [
        "correct", "timed_out", "correct", "wrong", "timed_out", "wrong"
    ]  # fmt: skip


def test_workers_are_recycled_and_pids_change(nobody_left):
    with WorkerPool(1, 5.0, recycle_after=2) as pool:
        calls = [Call("judge", ("integer", "1", "1"))] * 2
        assert [result.value[0] for result in pool.submit(calls).result()] == ["correct"] * 2
        assert [result.value[0] for result in pool.submit(calls).result()] == ["correct"] * 2


def test_an_idle_worker_that_dies_is_replaced(nobody_left):
    others = psutil.Process().children(recursive=True)
    with WorkerPool(1, 5.0) as pool:
        pool.submit([]).result()
        for child in set(psutil.Process().children(recursive=True)) - set(others):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
        results = pool.submit([Call("judge", ("integer", "1", "1"))]).result()
        assert [result.status for result in results] in (["done"], ["crashed"])
        assert pool.submit([Call("judge", ("integer", "1", "1"))]).result()[0].value[0] == "correct"


def test_an_interrupted_submit_does_not_keep_the_pool_from_closing(nobody_left, monkeypatch):
    """Ctrl-C while the driver is being woken: whether the message left or not, `close` gets through."""
    pool = WorkerPool(1, 5.0)
    pool.submit([]).result()
    send = pool._wake.send_bytes

    def interrupted(message):
        monkeypatch.setattr(pool._wake, "send_bytes", send)
        raise KeyboardInterrupt

    monkeypatch.setattr(pool._wake, "send_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pool.submit([])
    closing = threading.Thread(target=pool.close, daemon=True)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()


def test_closing_ends_open_jobs(nobody_left):
    pool = WorkerPool(1, 60.0, SetUp((RewardSpec(name="staged_rewards:sleeps_for_ever"),)))
    open_job = pool.submit([Call("text_reward", (0, request("a")))])
    pool.submit([])
    time.sleep(0.2)
    pool.close()
    pool.close()
    with pytest.raises(PoolError, match="closed"):
        open_job.result(timeout=1)


def test_workers_that_cannot_start_say_why(nobody_left):
    pool = WorkerPool(1, 5.0, SetUp((RewardSpec(name="no_such_module:fn"),)))
    with pytest.raises(PoolError, match="no_such_module"):
        pool.submit([]).result()
    with pytest.raises(PoolError, match="no_such_module"):
        pool.submit([])
    pool.close()


def test_a_killed_parent_leaves_no_worker():
    code = """
        import time, psutil
        from rewards.scorer import Scorer
        from rewards.spec import RewardSpec
        from scoring import request
        if __name__ == "__main__":
            spec = RewardSpec(name="staged_rewards:sleeps_for_ever")
            scorer = Scorer([spec], num_workers=2, deadline_s=600)
            scorer.submit(request("a"))
            scorer.submit(request("a"))
            while len(psutil.Process().children(recursive=True)) < 4:
                time.sleep(0.05)
            print("working", flush=True)
            time.sleep(600)
    """
    path = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    with parent, parent.stdout:
        assert parent.stdout.readline() == b"working\n"
        workers = psutil.Process(parent.pid).children(recursive=True)
        assert len(workers) >= 4  # two workers and their guardians
        parent.kill()
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
