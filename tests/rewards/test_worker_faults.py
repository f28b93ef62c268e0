"""Whatever a worker does: the outcome, the time it takes, the next verdict, and that nobody is left."""

import contextlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest
from scoring import request, tagged

from rewards.errors import PoolError
from rewards.records import Outcome
from rewards.scorer import Scorer
from rewards.spec import RewardSpec
from rewards.workers.pool import WorkerPool
from rewards.workers.worker import Call, SetUp
from rewards.workers.zygote import Zygote, require_one_thread

DEADLINE_S = 0.8
HERE = Path(__file__).parent
BOMB = "9^{9^{9^{9}}}"
HONEST = Call("verify", ("integer", "71", "71"))


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


def staged(*names):
    return tuple(RewardSpec(name=f"staged_rewards:{name}") for name in names)


def outcomes(results):
    """What `verify` said, or else how the call ended."""
    return [result.value[0] if result.status == "done" else result.status for result in results]


def own_zygotes(but=()):
    """The zygotes of this process' pools, the dead ones left out, and those that were there before."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "rewards.workers.zygote" in child.cmdline() and child not in but:
                found.append(child)
    return found


def wait_until(condition, seconds=10.0):
    gone = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < gone
        time.sleep(0.01)


def start_trainer(code):
    """A process of its own that runs `code`; what it prints comes back."""
    path = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
    )


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
    ("swallows_a_large_refusal", Outcome.CRASHED, "died"),
    ("swallows_a_refusal_deep_down", Outcome.CRASHED, "died"),
    ("orphans_a_process_and_dies", Outcome.CRASHED, "died"),
    ("starts_a_process_and_sleeps", Outcome.TIMED_OUT, "no answer"),
    ("closes_the_pipe", Outcome.CRASHED, "died"),
    ("writes_into_the_pipe", Outcome.CRASHED, "died"),
    ("answers_too_deeply", Outcome.CRASHED, "died (RecursionError)"),
    ("exits_politely", Outcome.CRASHED, "SystemExit"),
    ("raises", Outcome.CRASHED, "staged"),
    ("returns_too_few", Outcome.CRASHED, "1 rewards for 2"),
    ("returns_text", Outcome.CRASHED, "'1.0'"),
    ("returns_nan", Outcome.CRASHED, "finite"),
]


def test_each_fault_is_bounded_and_the_next_verdict_is_right(nobody_left):
    names = [*(name for name, _, _ in FAULTS), "prints_ten_megabytes"]
    group = request("a", "b")
    start = time.monotonic()
    with WorkerPool(2, DEADLINE_S, SetUp(staged(*names), memory_bytes=1 << 30)) as pool:
        jobs = [pool.submit([Call("text_reward", (i, group)), HONEST]) for i in range(len(names))]
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
    asks = Call("text_reward", (0, request("a")))
    with WorkerPool(1, 30.0, SetUp(staged("tells_its_pid")), recycle_after=2) as pool:
        first, second, third = ([result.value[0] for result in pool.submit([asks] * 2).result()] for _ in range(3))
    assert len({*first}) == len({*second}) == len({*third}) == 1
    assert len({*first, *second, *third}) == 3


def test_submitting_waits_for_nobody(nobody_left, tmp_path):
    group = request("a", columns={"folder": str(tmp_path)})
    with WorkerPool(1, 60.0, SetUp(staged("waits_to_be_released"))) as pool:
        jobs = [pool.submit([Call("text_reward", (0, group)), HONEST]) for _ in range(3)]
        assert not any(job.done() for job in jobs)
        (tmp_path / "released").touch()
        assert [outcomes(job.result()[1:]) for job in jobs] == [["correct"]] * 3


class ConnectionToTheDoomed:
    """A worker's pipe. The worker is killed as a job is sent to it, for as long as `kills` says so of the job."""

    def __init__(self, connection, kill, kills):
        self.connection = connection
        self.kill = kill
        self.kills = kills

    def __getattr__(self, name):
        return getattr(self.connection, name)

    def send(self, message):
        first, calls = message
        if isinstance(calls, list) and self.kills(first):
            self.kill()
            assert self.connection.poll(30)
        self.connection.send(message)


def zygote_of_the_doomed(kills, killed):
    """A zygote whose workers die between the pool's look at them and its sending; `killed` gets one entry a death."""

    class DoomedZygote(Zygote):
        def fork(self):
            number, connection = super().fork()
            return number, ConnectionToTheDoomed(connection, lambda: killed.append(self.kill_worker(number)), kills)

    return DoomedZygote


def test_an_idle_worker_that_dies_as_it_is_handed_a_job_is_replaced(nobody_left):
    """Nothing else would ever wake the pool."""
    killed = []
    with WorkerPool(1, 30.0, open_zygote=zygote_of_the_doomed(lambda first: not killed, killed)) as pool:
        pool.submit([]).result()
        assert outcomes(pool.submit([HONEST, HONEST]).result(timeout=60)) == ["correct"] * 2
    assert killed == [True]


def test_workers_that_always_die_before_they_take_a_job_are_not_replaced_for_ever(nobody_left):
    killed = []
    with WorkerPool(1, 30.0, open_zygote=zygote_of_the_doomed(lambda first: first == 0, killed)) as pool:
        results = pool.submit([HONEST, HONEST, HONEST]).result(timeout=120)
    assert outcomes(results) == ["crashed", "correct", "correct"]
    assert "3 workers died before they had taken it in" in results[0].detail
    assert killed == [True] * 3


TOO_MUCH = "7" * (40 << 20)


@pytest.mark.parametrize("num_big", [1, 2])
def test_a_call_too_large_for_a_worker_has_crashed_and_costs_no_other_call(nobody_left, num_big):
    big = Call("verify", ("integer", "71", TOO_MUCH))
    with WorkerPool(1, 30.0, SetUp(memory_bytes=16 << 20)) as pool:
        results = pool.submit([HONEST, *[big] * num_big, HONEST]).result(timeout=120)
        assert outcomes(results) == ["correct", *["crashed"] * num_big, "correct"]
        assert "3 workers died before they had taken it in" in results[1].detail
        assert outcomes(pool.submit([big]).result(timeout=120)) == ["crashed"]
        assert outcomes(pool.submit([HONEST]).result(timeout=120)) == ["correct"]


def test_calls_too_large_together_are_handed_out_one_by_one(nobody_left):
    large = Call("verify", ("integer", "71", "7" * (6 << 20)))
    with WorkerPool(1, 30.0, SetUp(memory_bytes=32 << 20)) as pool:
        assert outcomes(pool.submit([large] * 16).result(timeout=120)) == ["malformed"] * 16


def test_a_folder_that_holds_modules_of_the_standard_librarys_names(nobody_left, tmp_path):
    """Neither the zygote nor its workers import them; what is nowhere else is found there."""
    folder, script = tmp_path / "folder", tmp_path / "script.py"
    folder.mkdir()
    for name in ("random", "signal", "json", "struct", "sympy", "rewards"):
        (folder / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    (folder / "rewards_of_the_users.py").write_text("def one(completions): return [1.0]")
    script.write_text(
        textwrap.dedent("""
        import sys
        from rewards.workers.pool import WorkerPool
        from rewards.spec import RewardSpec
        from rewards.workers.worker import Call, SetUp
        from scoring import request
        sys.path[0] = sys.argv[1]
        with WorkerPool(1, 60.0, SetUp((RewardSpec(name="rewards_of_the_users:one"),))) as pool:
            calls = [Call("verify", ("math", "1/2", "0.5")), Call("text_reward", (0, request("a")))]
            print([result.value for result in pool.submit(calls).result()])
    """)
    )
    for first in (str(tmp_path), ""):
        process = subprocess.run(
            [sys.executable, str(script), first],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])])},
            cwd=folder,
            capture_output=True,
            text=True,
        )
        assert "'correct'" in process.stdout, process.stderr
        assert "[1.0]" in process.stdout


def test_an_idle_worker_that_dies_is_replaced(nobody_left):
    others = psutil.Process().children(recursive=True)
    with WorkerPool(1, 5.0) as pool:
        pool.submit([]).result()
        for child in set(psutil.Process().children(recursive=True)) - set(others):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
        results = pool.submit([Call("verify", ("integer", "1", "1"))]).result()
        assert [result.status for result in results] in (["done"], ["crashed"])
        assert pool.submit([Call("verify", ("integer", "1", "1"))]).result()[0].value[0] == "correct"


def test_an_interrupted_submit_does_not_keep_the_pool_from_closing(nobody_left, monkeypatch):
    """Ctrl-C while the driver is being woken: whether the message left or not, `close` gets through."""
    pool = WorkerPool(1, 5.0)
    pool.submit([]).result()
    send = Connection.send_bytes

    def interrupted(connection, message):
        monkeypatch.setattr(Connection, "send_bytes", send)
        raise KeyboardInterrupt

    monkeypatch.setattr(Connection, "send_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pool.submit([])
    closing = threading.Thread(target=pool.close, daemon=True)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()


def test_closing_ends_open_jobs(nobody_left, tmp_path):
    pool = WorkerPool(1, 60.0, SetUp(staged("waits_to_be_released")))
    open_job = pool.submit([Call("text_reward", (0, request("a", columns={"folder": str(tmp_path)})))])
    pool.submit([])
    wait_until((tmp_path / "started").exists, seconds=60)
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


def test_a_killed_trainer_leaves_nobody():
    code = """
        import time, psutil
        from rewards.scorer import Scorer
        from rewards.spec import RewardSpec
        from scoring import request
        if __name__ == "__main__":
            spec = RewardSpec(name="staged_rewards:starts_a_process_and_sleeps")
            scorer = Scorer([spec], num_workers=3, deadline_s=600)
            for _ in range(3):
                scorer.submit(request("a"))
            while sum(one.name() == "sleep" for one in psutil.Process().children(recursive=True)) < 3:
                time.sleep(0.05)
            print("working", flush=True)
            time.sleep(600)
    """
    parent = start_trainer(code)
    assert parent.stdout is not None
    with parent, parent.stdout:
        assert parent.stdout.readline() == b"working\n"
        family = psutil.Process(parent.pid).children(recursive=True)
        assert len(family) == 11  # the zygote and three workers, a guardian for each, three processes of theirs
        parent.kill()
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_a_stopped_trainer_leaves_no_call_spinning(tmp_path):
    """Nobody is there to enforce the deadline of 1 s: the kernel ends the worker after 3 s of CPU at most."""
    code = """
        import json, os, signal, time, psutil
        from pathlib import Path
        from rewards.workers.pool import WorkerPool
        from rewards.spec import RewardSpec
        from rewards.workers.worker import Call, SetUp
        from scoring import request
        if __name__ == "__main__":
            os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])
            with WorkerPool(1, 1.0, SetUp((RewardSpec(name="staged_rewards:says_so_and_loops"),))) as pool:
                pool.submit([]).result()
                job = pool.submit([Call("text_reward", (0, request("a", columns={"folder": FOLDER})))])
                while not Path(FOLDER, "started").exists():
                    time.sleep(0.001)
                print(json.dumps([one.pid for one in psutil.Process().children(recursive=True)]), flush=True)
                os.kill(os.getpid(), signal.SIGSTOP)
                print(job.result()[0].status, flush=True)
    """
    parent = start_trainer(code.replace("FOLDER", repr(str(tmp_path))))
    assert parent.stdout is not None
    with parent, parent.stdout:
        pids = json.loads(parent.stdout.readline())
        assert len(pids) == 4
        wait_until(lambda: psutil.Process(parent.pid).status() == psutil.STATUS_STOPPED)
        wait_until(lambda: sum(map(psutil.pid_exists, pids)) == 2, seconds=60)  # the zygote and its guardian stay
        assert psutil.Process(parent.pid).status() == psutil.STATUS_STOPPED
        parent.send_signal(signal.SIGCONT)
        assert parent.stdout.readline() in (b"crashed\n", b"timed_out\n")


def test_each_call_may_use_as_much_cpu_as_the_ones_before_it(nobody_left):
    deadline_s = 30.0
    with WorkerPool(1, deadline_s, SetUp(staged("tells_its_cpu_limit"))) as pool:
        results = pool.submit([Call("text_reward", (0, request("a", "b")))] * 3).result()
    allowed = deadline_s * len(os.sched_getaffinity(0))
    for result in results:
        limit, used = result.value
        assert math.floor(used + allowed) <= limit <= math.ceil(used + allowed) + 1


@pytest.mark.parametrize(
    "name", ["swallows_a_large_refusal", "swallows_many_small_refusals", "swallows_a_refusal_deep_down"]
)
def test_an_answer_of_too_little_memory_is_no_answer(nobody_left, name):
    set_up = SetUp(staged(name), memory_bytes=32 << 20)
    with WorkerPool(1, 60.0, set_up) as pool:
        results = pool.submit([HONEST, Call("text_reward", (0, request("a"))), HONEST]).result()
    assert [result.status for result in results] == ["done", "crashed", "done"]


def test_memory_errors_are_noticed_in_this_interpreter():
    process = start_trainer("from rewards.workers import limits; print(limits.is_memory_error_noticed())")
    assert process.communicate() == (b"True\n", None)


def test_a_killed_zygote_is_replaced_and_its_jobs_come_out_right(nobody_left, tmp_path):
    group, before = request("a", columns={"folder": str(tmp_path)}), own_zygotes()
    with WorkerPool(2, 60.0, SetUp(staged("waits_to_be_released"))) as pool:
        jobs = [pool.submit([HONEST, Call("text_reward", (0, group)), HONEST]) for _ in range(3)]
        wait_until((tmp_path / "started").exists, seconds=60)
        [zygote] = own_zygotes(before)
        zygote.kill()
        wait_until(lambda: own_zygotes(before) not in ([], [zygote]))
        (tmp_path / "released").touch()
        results = [job.result() for job in jobs]
    assert [[result.status for result in job] for job in results] == [["done"] * 3] * 3


def test_a_call_that_kills_the_zygote_again_and_again_has_crashed(nobody_left):
    with WorkerPool(1, 60.0, SetUp(staged("kills_the_zygote"))) as pool:
        results = pool.submit([HONEST, Call("text_reward", (0, request("a"))), HONEST]).result()
    assert [result.status for result in results] == ["done", "crashed", "done"]
    assert "zygote died 3 times" in results[1].detail


def test_a_zygote_with_threads_refuses_to_fork():
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    try:
        with pytest.raises(RuntimeError, match="threads where it must have 1"):
            require_one_thread()
    finally:
        release.set()
        thread.join()


def test_a_zygote_that_never_starts_ends_the_pool(nobody_left, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    pool = WorkerPool(1, 5.0)
    with pytest.raises(PoolError, match="3 times in a row"):
        pool.submit([]).result()
    pool.close()


def test_users_modules_are_imported_in_workers_only(nobody_left, tmp_path, monkeypatch):
    """This one starts a thread when it is imported, after which no process should fork."""
    code = """
        import os, threading, time
        from pathlib import Path
        threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
        Path(__file__).with_name(f"imported_{os.getpid()}").touch()
        def own_pid(completions):
            return [os.getpid()]
        def dies(completions):
            os._exit(1)
    """
    (tmp_path / "users_module.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(tmp_path)
    specs = (RewardSpec(name="users_module:own_pid"), RewardSpec(name="users_module:dies"))
    asks, dies = (Call("text_reward", (position, request("a"))) for position in range(2))
    with WorkerPool(1, 30.0, SetUp(specs)) as pool:
        results = pool.submit([asks, dies, asks, dies, asks]).result()
    pids = {int(result.value[0]) for result in results[::2]}
    imported = {path.name for path in tmp_path.glob("imported_*")}
    assert len(pids) == 3
    assert imported == {f"imported_{pid}" for pid in pids}


def test_workers_share_neither_random_numbers_nor_descriptors(nobody_left):
    set_up = SetUp(staged("draws_random_numbers", "counts_descriptors", "exits_hard"))
    draws, counts, exits = (Call("text_reward", (position, request("a", "b"))) for position in range(3))
    with WorkerPool(4, 30.0, set_up) as pool:
        drawn = [pool.submit([draws, exits, draws]) for _ in range(4)]
        counted = [pool.submit([counts]) for _ in range(4)]
        numbers = [result.value for job in drawn for result in job.result()[::2]]
        descriptors = [job.result()[0].value[0] for job in counted]
    assert len({first for first, _ in numbers}) == len({second for _, second in numbers}) == 8
    assert descriptors == [5.0] * 4  # three standard ones, the pipe, and the folder that is being listed


def test_two_hundred_kills_leave_no_descriptor_and_no_process(nobody_left):
    before = own_zygotes()
    with WorkerPool(1, 0.01, SetUp(staged("sleeps_for_ever"))) as pool:
        pool.submit([]).result()
        [zygote], descriptors = own_zygotes(before), open_descriptors()
        theirs = zygote.num_fds()
        results = pool.submit([Call("text_reward", (0, request("a")))] * 200).result()
        assert outcomes(results) == ["timed_out"] * 200
        pool.submit([]).result()
        assert open_descriptors() <= descriptors
        assert zygote.num_fds() <= theirs
        assert own_zygotes(before) == [zygote]
        wait_until(lambda: len(zygote.children(recursive=True)) == 3)  # its guardian, a worker, and that one's


def test_killed_workers_are_replaced_by_forks_of_the_same_zygote(nobody_left):
    before = own_zygotes()
    with WorkerPool(1, 30.0, SetUp(staged("exits_hard"))) as pool:
        pool.submit([]).result()
        zygotes = own_zygotes(before)
        results = pool.submit([Call("text_reward", (0, request("a"))), HONEST] * 30).result()
        assert own_zygotes(before) == zygotes
    assert outcomes(results) == ["crashed", "correct"] * 30


def test_three_hundred_bad_calls_leave_a_thousand_honest_verdicts_right(nobody_left):
    set_up = SetUp(staged("exits_hard", "kills_itself", "segfaults", "writes_into_the_pipe"), memory_bytes=1 << 30)
    group = request("a")
    bad = [(Call("text_reward", (i % 3, group)), "crashed") for i in range(90)]
    bad += [(Call("text_reward", (3, group)), "crashed")] * 10
    bad += [(Call("verify", ("math", "3", BOMB)), "timed_out")] * 6
    bad += [(Call("verify", ("integer", "3", "7" * (2001 + i))), "malformed") for i in range(194)]
    honest = [(Call("verify", ("integer", "71", str(70 + i % 2))), ["wrong", "correct"][i % 2]) for i in range(600)]
    honest += [
        (Call("verify", ("math", "0.5", f"\\frac{{{i}}}{{{2 * i + i % 2}}}")), ["correct", "wrong"][i % 2])
        for i in range(1, 401)
    ]
    calls = [*bad, *honest]
    random.Random(0).shuffle(calls)
    with WorkerPool(2, 2.0, set_up) as pool:
        jobs = [(calls[i : i + 8], pool.submit([call for call, _ in calls[i : i + 8]])) for i in range(0, 1300, 8)]
        for expected, job in jobs:
            assert outcomes(job.result()) == [outcome for _, outcome in expected]
