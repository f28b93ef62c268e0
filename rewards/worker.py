"""What runs in a reward worker: ``python -m rewards.worker``, started by `rewards.pool`.

It takes one set-up, says that it is ready, and then answers calls. Answers are JSON, never pickles: whatever
goes wrong in here, the trainer only ever reads numbers, texts and None from it.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rewards.checkers import find_checker, judge
from rewards.format import format_reward
from rewards.language import language_reward
from rewards.options import FormatOptions, LanguageOptions
from rewards.process import connect_to_parent
from rewards.spec import RewardSpec
from rewards.types import ScoreRequest
from rewards.user import call_function, load_function

TextReward = Callable[[ScoreRequest], Sequence[float | None]]


@dataclass(frozen=True)
class SetUp:
    """The rewards that read text, by their position in calls, and the memory a call may use, in bytes."""

    text_rewards: tuple[RewardSpec, ...] = ()
    memory_bytes: int = 2 << 30


@dataclass(frozen=True)
class Call:
    """One thing to work out: `task` is judge, check_gold or text_reward."""

    task: str
    arguments: tuple[Any, ...]


def main() -> None:
    connection = connect_to_parent()
    try:
        tasks = _prepare(connection.recv())
    except Exception as error:
        detail = str(error) if isinstance(error, ValueError) else traceback.format_exc(limit=-3)
        _send(connection, {"failed": detail})
        return
    _send(connection, {"ready": True})
    try:
        while True:
            first, payloads = connection.recv()
            for index, payload in enumerate(payloads, start=first):
                _send(connection, {"call": index, **_answer(tasks, payload)})
    except (EOFError, OSError):
        return


def _prepare(set_up: SetUp) -> dict[str, Callable[..., Any]]:
    """Do all heavy imports, then set the limits, so that neither counts against a call."""
    from rewards.checkers import symbolic

    symbolic.warm_up()
    rewards = [_text_reward(spec) for spec in set_up.text_rewards]
    _limit_memory(set_up.memory_bytes)
    return {
        "judge": _judge,
        "check_gold": lambda checker, gold: find_checker(checker).check_gold(gold),
        "text_reward": lambda position, request: list(rewards[position](request)),
    }


def _text_reward(spec: RewardSpec) -> TextReward:
    if spec.is_user_function:
        function = load_function(spec.name)
        return lambda request: call_function(function, request, spec.options)
    options = spec.parsed_options()
    if isinstance(options, FormatOptions):
        return lambda request: format_reward(request, options)
    if isinstance(options, LanguageOptions):
        return lambda request: language_reward(request, options)
    raise ValueError(f"name={spec.name!r}: does not read text; compute it where the numbers are")


def _judge(checker: str, gold: str, answer: str) -> tuple[str, str, float]:
    """Outcome, reason and CPU seconds: a verdict as JSON can carry it."""
    before = _cpu_s()
    verdict = judge(checker, gold, answer)
    return verdict.outcome.value, verdict.reason, _cpu_s() - before


def _cpu_s() -> float:
    """CPU seconds of this process and of those it has started and waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _limit_memory(memory_bytes: int) -> None:
    """Cap the address space at what is in use now plus `memory_bytes` (Linux), and never dump core."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform.startswith("linux"):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _answer(tasks: dict[str, Callable[..., Any]], payload: bytes) -> dict[str, Any]:
    """The result of one call, or what it raised. Out of memory, nothing here can be trusted: die."""
    try:
        call: Call = pickle.loads(payload)
        return {"value": tasks[call.task](*call.arguments)}
    except MemoryError:
        os._exit(1)
    except BaseException as error:
        return {"error": f"{type(error).__name__}: {error}"[:500]}


def _send(connection: Connection, message: dict[str, Any]) -> None:
    connection.send_bytes(json.dumps(message).encode())


if __name__ == "__main__":
    main()
