"""What a reward worker does, from its fork (see `rewards.workers.zygote`) to the end of its pipe.

It takes one set-up, says that it is ready, and then answers calls. Answers are JSON, never pickles: whatever
goes wrong in here, the trainer only ever reads numbers, texts and None from it.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import resource
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from rewards.answer_policy import DEFAULT_POLICY, AnswerPolicy
from rewards.checkers import gold_fault, verify
from rewards.parts.builtin import imports_more, open_text_reward
from rewards.sandbox.budget import Budget
from rewards.spec import RewardSpec
from rewards.workers.limits import abort_on_memory_error, allow_cpu, is_memory_spent, limit_memory, num_cpus

_LOOK_AT_MEMORY_AFTER_S = 0.005
"""Shorter calls are not looked at: they cannot fill more than some 20 MiB piece by piece, and to look takes 30 µs, as
long as a quick verdict."""
_MAX_RESERVE_S, _MAX_RESERVE_FRAC = 0.5, 0.25
"""How much of a call's time the processes that a checker starts do not get, for they have to be ended and their verdict
sent before the deadline: half a second, or a quarter of the deadline where that is less."""


@dataclass(frozen=True)
class SetUp:
    """What a worker is told once, before its first call."""

    text_rewards: tuple[RewardSpec, ...] = ()
    """The rewards that read text. A call names one by its position here."""
    memory_bytes: int = 2 << 30
    """What a call may allocate beyond the worker's own size."""
    policy: AnswerPolicy = DEFAULT_POLICY
    """The policy that answers are verified by."""

    def max_cpu_s(self, call: Call, deadline_s: float) -> float:
        """CPU seconds that a call can use up by its deadline: code that is not ours may keep all cores busy."""
        may_run_threads = call.task == "text_reward" and imports_more(self.text_rewards[call.arguments[0]])
        return deadline_s * num_cpus() if may_run_threads else deadline_s

    def budget(self, deadline_s: float) -> Budget:
        """What the processes that a checker starts may use, so that the verdict is sent before the deadline."""
        return Budget(deadline_s - min(_MAX_RESERVE_S, _MAX_RESERVE_FRAC * deadline_s), self.memory_bytes)


@dataclass(frozen=True)
class Call:
    """One thing to work out: `task` is verify, check_gold or text_reward."""

    task: str
    arguments: tuple[Any, ...]


Tasks = dict[str, Callable[..., Any]]


def work(connection: Connection) -> None:
    """Take a `SetUp` and the calls' deadline in seconds, then jobs until the pipe ends.

    For each job it first says that it has received it, and then sends the answer to each call as it is there.
    """
    try:
        set_up, deadline_s = connection.recv()
        tasks = _prepare(set_up, deadline_s)
    except Exception as error:
        detail = str(error) if isinstance(error, ValueError) else traceback.format_exc(limit=-3)
        send(connection, {"failed": detail})
        return
    send(connection, {"ready": True})
    with contextlib.suppress(EOFError, OSError):
        while True:
            first, payloads = connection.recv()
            send(connection, {"taken": first})
            for index, payload in enumerate(payloads, start=first):
                send(connection, {"call": index, **_answer(tasks, set_up, deadline_s, payload)})


def _prepare(set_up: SetUp, deadline_s: float) -> Tasks:
    """Import users' functions, then set the limits on memory, so that the former do not count against a call."""
    rewards = [open_text_reward(spec) for spec in set_up.text_rewards]
    limit_memory(set_up.memory_bytes)
    abort_on_memory_error()
    budget = set_up.budget(deadline_s)
    return {
        "verify": partial(_verify, set_up.policy, budget),
        "check_gold": partial(gold_fault, policy=set_up.policy, budget=budget),
        "text_reward": lambda position, request: list(rewards[position](request)),
    }


def _verify(policy: AnswerPolicy, budget: Budget, checker: str, gold: str, answer: str) -> tuple[str, str, float]:
    """Outcome, reason and CPU seconds: a verdict as JSON can carry it."""
    before = _cpu_s()
    verdict = verify(checker, gold, answer, policy, budget)
    return verdict.outcome.value, verdict.reason, _cpu_s() - before


def _cpu_s() -> float:
    """CPU seconds of this process and of those it has started and waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _answer(tasks: Tasks, set_up: SetUp, deadline_s: float, payload: bytes) -> dict[str, Any]:
    """The result of one call, or the error that it raised. Ends this process when memory has run out."""
    try:
        call: Call = pickle.loads(payload)
        allow_cpu(set_up.max_cpu_s(call, deadline_s))
        began = time.perf_counter()
        value = tasks[call.task](*call.arguments)
        if time.perf_counter() - began > _LOOK_AT_MEMORY_AFTER_S and is_memory_spent():
            raise MemoryError
        return {"value": value}
    except MemoryError:
        os._exit(1)
    except BaseException as error:
        return {"error": f"{type(error).__name__}: {error}"[:500]}


def send(connection: Connection, message: dict[str, Any]) -> None:
    """Send one message as JSON."""
    connection.send_bytes(json.dumps(message).encode())
