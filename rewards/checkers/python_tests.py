"""Python answers, run in `rewards.sandbox` against tests whose expected results they cannot see.

Golds are JSON, with an optional ``"limit_s"``, the CPU seconds of all tests together. It has to be less than a
verdict's deadline: an answer that runs until shortly before the deadline, computing or sleeping, is stopped and wrong::

    {"tests": ["assert add(1, 2) == 3", …], "setup": "import math"}      the answer defines what the tests ask for
    {"inputs": ["1 2\\n", …], "outputs": ["3\\n", …]}                      the answer is a program: stdin and stdout

`rewards.checkers.asserts` lists the forms of test that there are. ``setup`` is run before the answer, in the same
module, where the answer can read and change it. Of output, white space at the ends of lines and empty last lines do
not count. The standard library can be imported, installed packages cannot.

All tests of an answer are run in one process and in their order, so an earlier one may leave something behind for a
later one. An answer that reads the tests ahead out of its own process learns what it will be asked, not what is right.

The answer is the source itself, or holds exactly one Markdown fence with the source in it. Code that does not compile,
fails, takes too long or takes too much memory is wrong, and the reason says at which test. Where this machine cannot
confine a process, `check_gold` says so for every gold and `check` raises SandboxError: nothing is run unconfined.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rewards.checkers.asserts import parse_test
from rewards.errors import MalformedAnswerError, UnusableGoldError, WrongAnswerError, did_you_mean
from rewards.sandbox.budget import UNBOUNDED, Budget
from rewards.sandbox.run import CodeError, Job, Sandbox, why_unavailable

MAX_ANSWER_CHARS = 20_000
DEFAULT_LIMIT_S = 3.0
"""Well below the default deadline of a verdict, since the machine may be busy with other things."""
MAX_LIMIT_S = 60.0

_KEYS = ("tests", "setup", "inputs", "outputs", "limit_s")
# Possessive, so that no line of an answer takes more than one pass.
_FENCE = re.compile(r" {0,3}(`{3,}+|~{3,}+)[ \t]*+([^\s`]*+)[ \t]*+")
_LANGUAGES = ("", "python", "py", "python3")
_MAX_SHOWN_CHARS = 120


@dataclass(frozen=True)
class _Task:
    """A parsed gold. `checks` holds one function for each expression or input of the job."""

    setup: str
    expressions: tuple[str, ...]
    inputs: tuple[bytes, ...]
    checks: tuple[Callable[[Any], bool], ...]
    limit_s: float | None
    """None where the gold does not say."""

    def run(self, source: str, budget: Budget) -> Sandbox:
        return Sandbox(Job(source, self.setup, self.expressions, self.inputs), self.limit_s or DEFAULT_LIMIT_S, budget)


def check(gold: str, answer: str, budget: Budget = UNBOUNDED) -> bool:
    """Does the answer pass all tests? Raises WrongAnswerError with the first that it does not pass."""
    task = _parse_gold(gold)
    with task.run(_source(answer), budget) as sandbox:
        _take_setup(sandbox)
        _next(sandbox, "before the first test")
        for number, holds in enumerate(task.checks, start=1):
            place = f"test {number} of {len(task.checks)}"
            found = _next(sandbox, place)
            if not holds(found):
                raise WrongAnswerError(f"{place}: gave {_shown(found)}")
    return True


def check_gold(gold: str, budget: Budget = UNBOUNDED) -> None:
    """Raises UnusableGoldError also where this machine, or the deadline, leaves no room for it."""
    task = _parse_gold(gold)
    if task.limit_s is not None and task.limit_s > budget.wall_s:
        raise UnusableGoldError(
            f"limit_s={task.limit_s:g}: an answer has {budget.wall_s:g} s in all; lower it, or give verdicts a later "
            "deadline (scoring.deadline_s)"
        )
    if (reason := why_unavailable()) is not None:
        raise UnusableGoldError(reason)
    if task.setup:
        with task.run("", budget) as sandbox:
            _take_setup(sandbox)


def _take_setup(sandbox: Sandbox) -> None:
    try:
        sandbox.next()
    except CodeError as error:
        raise UnusableGoldError(f"setup: {error}") from None


def _next(sandbox: Sandbox, place: str) -> Any:
    try:
        return sandbox.next()
    except CodeError as error:
        raise WrongAnswerError(f"{place}: {error}") from None


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        value = value[: 4 * _MAX_SHOWN_CHARS].decode("utf-8", "replace")
    try:
        text = repr(value)
    except ValueError:
        text = "a number of very many digits"
    return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}…"


def _source(answer: str) -> str:
    """The code of an answer: what its one fence holds, or all of it."""
    lines = answer.split("\n")
    fences = [(number, fence) for number, line in enumerate(lines) if (fence := _FENCE.fullmatch(line.rstrip("\r")))]
    if not fences and not answer.strip():
        raise MalformedAnswerError("empty")
    if not fences:
        return answer
    if len(fences) != 2:
        raise MalformedAnswerError(f"{len(fences)} lines that open or close a fence: give one fence, or none")
    (first, opening), (last, closing) = fences
    if opening[1] != closing[1] or closing[2] or opening[2].lower() not in _LANGUAGES:
        raise MalformedAnswerError("the fence is not one of Python")
    return "\n".join(lines[first + 1 : last])


def _parse_gold(gold: str) -> _Task:
    try:
        given = json.loads(gold)
    except (ValueError, RecursionError) as error:
        raise UnusableGoldError(f"not JSON: {error}") from None
    if not isinstance(given, dict):
        raise UnusableGoldError("not a JSON object")
    for key in given:
        if key not in _KEYS:
            raise UnusableGoldError(f"{key!r} means nothing here; {did_you_mean(key, _KEYS)}")
    limit_s = _limit_s(given)
    if given.keys() >= {"tests"} and not given.keys() & {"inputs", "outputs"}:
        return _unit_tests(given, limit_s)
    if given.keys() >= {"inputs", "outputs"} and not given.keys() & {"tests", "setup"}:
        return _programs(given, limit_s)
    raise UnusableGoldError('neither {"tests": […]} with or without "setup", nor {"inputs": […], "outputs": […]}')


def _limit_s(given: dict[str, Any]) -> float | None:
    if "limit_s" not in given:
        return None
    limit_s = given["limit_s"]
    if not isinstance(limit_s, (int, float)) or isinstance(limit_s, bool) or not 0 < limit_s <= MAX_LIMIT_S:
        raise UnusableGoldError(f"limit_s={limit_s!r}: not a number of seconds up to {MAX_LIMIT_S:g}")
    return limit_s


def _unit_tests(given: dict[str, Any], limit_s: float | None) -> _Task:
    texts = _texts(given, "tests")
    setup = given.get("setup", "")
    if not isinstance(setup, str):
        raise UnusableGoldError(f"setup={setup!r}: not a text")
    names = _names_bound(setup)
    tests = [parse_test(text, names) for text in texts]
    return _Task(setup, tuple(test.expression for test in tests), (), tuple(test.holds for test in tests), limit_s)


def _names_bound(setup: str) -> set[str]:
    """All names that the set-up may bind."""
    try:
        parts = list(ast.walk(ast.parse(setup)))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UnusableGoldError(f"setup: {type(error).__name__}: {error}") from None
    imported = {(part.asname or part.name).split(".")[0] for part in parts if isinstance(part, ast.alias)}
    defined = {part.name for part in parts if isinstance(part, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef))}
    return imported | defined | {part.id for part in parts if isinstance(part, ast.Name)}


def _programs(given: dict[str, Any], limit_s: float | None) -> _Task:
    inputs, outputs = _texts(given, "inputs"), _texts(given, "outputs")
    if len(inputs) != len(outputs):
        raise UnusableGoldError(f"{len(inputs)} inputs for {len(outputs)} outputs")
    given_bytes = tuple(text.encode("utf-8", "surrogatepass") for text in inputs)
    return _Task("", (), given_bytes, tuple(_prints(text) for text in outputs), limit_s)


def _prints(expected: str) -> Callable[[Any], bool]:
    wanted = _lines(expected)
    return lambda found: isinstance(found, bytes) and _lines(found.decode("utf-8", "surrogateescape")) == wanted


def _lines(text: str) -> list[str]:
    """The lines of a text, without white space at their ends and without empty ones at its end."""
    return "\n".join(line.rstrip() for line in text.split("\n")).rstrip("\n").split("\n")


def _texts(given: dict[str, Any], key: str) -> Sequence[str]:
    texts = given[key]
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise UnusableGoldError(f"{key}={texts!r}: not a list of texts")
    return texts
