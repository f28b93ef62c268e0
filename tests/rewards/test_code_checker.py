"""Code answers: what is right, what is wrong and why, and which golds no answer can be verified against."""

import json

import pytest
from code_golds import ADD, ADDING, programs, unit

from rewards.checkers import find_checker, gold_fault, python_tests, verify
from rewards.checkers.python_tests import MAX_ANSWER_CHARS, MAX_LIMIT_S
from rewards.errors import UnusableGoldError
from rewards.records import Outcome
from rewards.sandbox import run
from rewards.workers.pool import WorkerPool
from rewards.workers.worker import Call, SetUp

RIGHT, WRONG, BAD, GOLD = Outcome.CORRECT, Outcome.WRONG, Outcome.MALFORMED, Outcome.GOLD_UNUSABLE
CHECKER = find_checker("python_tests")


MBPP = unit(
    "assert similar_elements((3, 4, 5, 6),(5, 7, 4, 10)) == (4, 5)",
    "assert set(similar_elements((1, 2, 3, 4),(5, 4, 3, 7))) == set((3, 4))",
    "assert similar_elements((11, 12, 14, 13),(17, 15, 14, 13)) == (13, 14), 'a message'",
)
SIMILAR = "def similar_elements(a, b):\n    return tuple(sorted(set(a) & set(b)))"
HUMAN_EVAL = unit(
    "assert has_close_elements([1.0, 2.0, 3.9, 4.0, 5.0, 2.2], 0.3) == True",
    "assert not has_close_elements([1.0, 2.0, 3.9, 4.0, 5.0, 2.2], 0.05)",
    "assert has_close_elements([1.0, 2.0, 5.9, 4.0, 5.0], 0.95) is True",
    "assert has_close_elements([1.0, 2.0, 3.0, 4.0, 5.0, 2.0], 0.1)",
    setup="from typing import List",
)
CLOSE = """Here it is:
```python
def has_close_elements(numbers: List[float], threshold: float) -> bool:
    ordered = sorted(numbers)
    return any(b - a < threshold for a, b in zip(ordered, ordered[1:]))
```
"""
SQUARES = programs(("3\n", "9\n"), ("12", "144"))
TRUNCATE = unit("assert abs(truncate(3.5) - 0.5) < 1e-6", "assert math.isclose(truncate(1.25), 0.25, rel_tol=1e-9)")
TABLE = [
    (ADDING, ADD, RIGHT, "plain"),
    (ADDING, f"```python\n{ADD}\n```", RIGHT, "in a fence"),
    (ADDING, f"```\r\n{ADD}\r\n```\r\n", RIGHT, "in a fence without a language, carriage returns"),
    (ADDING, f"First\n```py\n{ADD}\n```\nthat is all", RIGHT, "words around the fence"),
    (
        ADDING,
        ADD + '\n\ndef other():\n    """\n    ```python\n    f()\n    ```\n    """',
        RIGHT,
        "fences in a docstring",
    ),
    (ADDING, "add = lambda *numbers: numbers[0] + numbers[1]", RIGHT, "no def"),
    (ADDING, ADD + "\nif __name__ == '__main__':\n    print(input())", RIGHT, "its own main is not run"),
    (ADDING, ADD + "\nprint('hello')", RIGHT, "prints"),
    (ADDING, "def add(a, b):\n    return a - b", WRONG, "test 1 of 2: gave -1"),
    (ADDING, "def add(a, b):\n    return a + b if a == 1 else ''", WRONG, "test 2 of 2: gave ''"),
    (ADDING, "def add(a, b):\n    pass", WRONG, "gave None"),
    (ADDING, "def sum(a, b):\n    return a + b", WRONG, "NameError: name 'add' is not defined"),
    (ADDING, "def add(a, b)\n    return a + b", WRONG, "SyntaxError: expected ':'"),
    (ADDING, "The answer is 3.", WRONG, "SyntaxError"),
    (ADDING, ADD + "\nraise ValueError('no')", WRONG, "before the first test: ValueError: no"),
    (ADDING, "import numpy\n" + ADD, WRONG, "No module named 'numpy'"),
    (ADDING, "def add(a, b):\n    return lambda: 3", WRONG, "function is not plain data"),
    (ADDING, "def add(a, b):\n    yield a + b", WRONG, "generator is not plain data"),
    (ADDING, "", BAD, "empty"),
    (ADDING, " \n", BAD, "empty"),
    (ADDING, f"```python\n{ADD}\n```\n```python\n{ADD}\n```", BAD, "4 lines that open or close"),
    (ADDING, f"```python\n{ADD}", BAD, "1 lines that open or close"),
    (ADDING, f"```js\n{ADD}\n```", BAD, "not one of Python"),
    (ADDING, f"```python\n{ADD}\n~~~", BAD, "not one of Python"),
    (ADDING, ADD + "\n" * MAX_ANSWER_CHARS, BAD, "longer than"),
    (ADDING, ADD + "\n# \ud800", WRONG, "UnicodeEncodeError"),
    (ADDING, ADD + "\n\x00", WRONG, "null bytes"),
    (MBPP, SIMILAR, RIGHT, "MBPP 2"),
    (MBPP, SIMILAR.replace("tuple", "list"), WRONG, "gave [4, 5]"),
    (MBPP, SIMILAR.replace("sorted", "reversed").replace("set(a) & set(b)", "[5, 4]"), WRONG, "test 2 of 3"),
    (HUMAN_EVAL, CLOSE, RIGHT, "HumanEval 0, with a set-up"),
    (HUMAN_EVAL, "def has_close_elements(*_): return True", WRONG, "test 2 of 4: gave True"),
    (HUMAN_EVAL, CLOSE.replace("any(", "int(any(").replace("]))", "])))"), WRONG, "test 3 of 4: gave 1"),
    (TRUNCATE, "def truncate(x): return x % 1", RIGHT, "HumanEval 2, both kinds of tolerance"),
    (TRUNCATE, "def truncate(x): return x % 1 + 2e-6", WRONG, "test 1 of 2: gave 0.50"),
    (TRUNCATE, "def truncate(x): return x % 1 + 1e-8", WRONG, "test 2 of 2: gave 0.25"),
    (TRUNCATE, "def truncate(x): return float('nan')", WRONG, "gave nan"),
    (TRUNCATE, "def truncate(x): return 'x'", WRONG, "gave 'x'"),
    (TRUNCATE, "def truncate(x): return 10**400", WRONG, "gave 1000000000"),
    (unit("assert f() == 1"), "f = lambda: True", RIGHT, "Python's equality"),
    (unit("assert f() == 1"), "f = lambda: 1.0", RIGHT, "Python's equality"),
    (unit("assert f() is True"), "f = lambda: 1", WRONG, "gave 1"),
    (unit("assert f() is None"), "def f(): pass", RIGHT, "None"),
    (unit("assert f() == [1, 2]"), "f = lambda: (1, 2)", WRONG, "gave (1, 2)"),
    (unit("assert [1, 2] == f()"), "f = lambda: [1, 2]", RIGHT, "the other way round"),
    (unit("assert f() == {'a': 2}"), "import collections\nf = lambda: collections.Counter('aa')", RIGHT, "a Counter"),
    (unit("assert f() == {'a': 2}"), "class D(dict): pass\nf = lambda: D(a=2)", WRONG, "D is not plain data"),
    (unit("assert f() == 10**9 + 7"), "f = lambda: 1000000007", RIGHT, "arithmetic"),
    (unit("assert f() == float('inf')"), "f = lambda: 1e999", RIGHT, "infinity"),
    (unit("assert f() == -1.5"), "f = lambda: -1.5", RIGHT, "a sign"),
    (unit("assert f() == frozenset([1])"), "f = lambda: {1}", RIGHT, "set and frozenset are equal"),
    (
        unit("assert f() == (1, [2.5, {'a': None}], b'x')"),
        "f = lambda: (1, [2.5, {'a': None}], b'x')",
        RIGHT,
        "nested",
    ),
    (unit("assert f(2)[1] == 3"), "f = lambda n: [n, n + 1]", RIGHT, "an expression"),
    (unit("assert S().f(2)"), "class S:\n    def f(self, n): return n", RIGHT, "truth is taken outside"),
    (unit("assert not f(2)"), "f = lambda n: []", RIGHT, "so is falsehood"),
    (unit("assert f() == 3", setup="K = 3"), "f = lambda: K", RIGHT, "names of the set-up"),
    (unit("assert f() == 2"), "n = 0\ndef f():\n    global n\n    n += 2\n    return n", RIGHT, "state"),
    (unit("assert f() == 1", limit_s=0.3), "while True: pass", WRONG, "before the first test: over 0.3 s of CPU"),
    (SQUARES, "print(int(input()) ** 2)", RIGHT, "a program"),
    (SQUARES, "import sys\nprint(int(sys.stdin.read()) ** 2, ' \\n\\n')", RIGHT, "white space at the end"),
    (SQUARES, "print(int(open(0).read()) ** 2)\nexit()", RIGHT, "ends by exit"),
    (SQUARES, "import sys\nsys.stdout.write(str(int(input()) ** 2))", RIGHT, "no newline"),
    (SQUARES, "def main(): print(int(input()) ** 2)\nif __name__ == '__main__': main()", RIGHT, "main"),
    (SQUARES, "print(9)", WRONG, "test 2 of 2: gave '9"),
    (SQUARES, "print(' ', int(input()) ** 2)", WRONG, "test 1 of 2: gave '  9"),
    (SQUARES, "print(int(input()) ** 2)\nexit(3)", WRONG, "SystemExit: 3"),
    (SQUARES, "print(int(input()) ** 2)\n1/0", WRONG, "ZeroDivisionError"),
    (SQUARES, "print(int(input()) ** 2", WRONG, "SyntaxError"),
    (SQUARES, "print(int(input() + input()) ** 2)", WRONG, "EOFError"),
    (programs(("", "ü \ud83d\ude00")), "print('ü \\U0001f600')", RIGHT, "beyond ASCII"),
    (programs(("", "a\n\nb")), "print('a')\nprint('b')", WRONG, "gave 'a\\nb\\n'"),
]


def refused(gold, reason):
    return (gold, ADD, GOLD, reason)


UNUSABLE = [
    refused("add(1, 2)", "not JSON"),
    refused("[" * 100_000, "not JSON"),
    refused("[]", "not a JSON object"),
    refused("{}", "neither"),
    refused('{"tests": []}', "not a list of texts"),
    refused('{"tests": [1]}', "not a list of texts"),
    refused('{"tests": "assert f() == 1"}', "not a list of texts"),
    refused('{"test": ["assert f() == 1"]}', "did you mean 'tests'"),
    refused('{"inputs": [""]}', "neither"),
    refused('{"inputs": ["", ""], "outputs": [""]}', "2 inputs for 1 outputs"),
    refused('{"inputs": [""], "outputs": [""], "setup": ""}', "neither"),
    refused('{"inputs": [""], "outputs": [""], "tests": ["assert f() == 1"]}', "neither"),
    refused(unit("assert f() == 1", limit_s=0), "limit_s=0"),
    refused(unit("assert f() == 1", limit_s=True), "limit_s=True"),
    refused(unit("assert f() == 1", limit_s=MAX_LIMIT_S + 1), "limit_s=61"),
    refused(unit("assert f() == 1", setup=1), "setup=1"),
    refused(unit("assert f() == 1", setup="import"), "setup: SyntaxError"),
    refused(unit("f() == 1"), "not one assert"),
    refused(unit("assert f() == 1; assert f() == 2"), "not one assert"),
    refused(unit("for i in range(3): assert f(i) == i"), "not one assert"),
    refused(unit("assert f() =="), "SyntaxError"),
    refused(unit("assert f() == \ud800"), "UnicodeEncodeError"),
    refused(unit("assert f() == g()"), "none of the shapes"),
    refused(unit("assert f() == sorted([2, 1])"), "none of the shapes"),
    refused(unit("assert f() == x"), "none of the shapes"),
    refused(unit("assert f() == 1j"), "none of the shapes"),
    refused(unit("assert f() == set([[]])"), "none of the shapes"),
    refused(unit("assert f() == 1 / 0"), "ZeroDivisionError"),
    refused(unit("assert f() == {[]: 1}"), "TypeError"),
    refused(unit("assert 1 == 1"), "asks the answer for nothing"),
    refused(unit("assert f() == float('nan')"), "nan does not pass its own test"),
    refused(unit("assert abs(f() - 1) < 0"), "does not pass its own test"),
    refused(unit("assert abs(f() - 1) > 0"), "none of the shapes"),
    refused(unit("assert abs(f() - 'a') < 1"), "none of the shapes"),
    refused(unit("assert math.isclose(f(), 1, tolerance=1)"), "none of the shapes"),
    refused(unit("assert math.isclose(f(), 1, rel_tol=-1)"), "tolerances must be non-negative"),
    refused(unit("assert f() != 1"), "can be forged"),
    refused(unit("assert 1 < f() < 3"), "can be forged"),
    refused(unit("assert f() == 1 and f() == 2"), "can be forged"),
    refused(unit("assert not f() == 1"), "can be forged"),
    refused(unit("assert (f() == 1) == True"), "can be forged"),
    refused(unit("assert 1 in f()"), "can be forged"),
    refused(unit("assert all(x == 1 for x in f())"), "can be forged"),
    refused(unit("assert isinstance(f(), int)"), "can be forged"),
    refused(unit("assert bool(f()) is True"), "can be forged"),
    refused(unit("assert same(f(), 1)", setup="def same(a, b): return a == b"), "can be forged"),
    refused(unit("assert isclose(f(), 1)", setup="from math import isclose"), "can be forged"),
    refused(unit("assert m.isclose(f(), 1)", setup="import math as m"), "can be forged"),
    refused(unit("assert f() == 1", setup="import numpy"), "setup: ModuleNotFoundError"),
    refused(unit("assert f() == 1", setup="while True: pass", limit_s=0.3), "setup: over 0.3 s of CPU"),
]


def names(rows):
    return [f"{number}: {row[3]}" for number, row in enumerate(rows)]


@pytest.mark.parametrize(("gold", "answer", "outcome", "reason"), TABLE, ids=names(TABLE))
def test_verdicts(gold, answer, outcome, reason):
    verdict = verify("python_tests", gold, answer)
    assert verdict.outcome is outcome, verdict.reason
    assert outcome is RIGHT or reason in verdict.reason
    assert gold_fault("python_tests", gold) is None


@pytest.mark.parametrize(("gold", "answer", "outcome", "reason"), UNUSABLE, ids=names(UNUSABLE))
def test_unusable_golds(gold, answer, outcome, reason):
    assert reason in gold_fault("python_tests", gold)
    verdict = verify("python_tests", gold, answer)
    assert (verdict.outcome, reason in verdict.reason) == (outcome, True)


def test_an_answer_cannot_blame_the_gold():
    gold = unit("assert f() == 1", setup="import math")
    for answer in ("raise SystemExit", "import os\nos._exit(1)", "import math\nmath.pi = None", "f = 1"):
        assert verify("python_tests", gold, answer).outcome is WRONG


def test_nothing_is_verified_where_nothing_can_be_confined(monkeypatch):
    monkeypatch.setattr(run, "BOOT", run.BOOT.replace("inside.main()", "raise SystemExit(7)"))
    run.why_unavailable.cache_clear()
    assert "does not start" in gold_fault("python_tests", ADDING)
    with pytest.raises(run.SandboxError, match="exit code 7"):
        CHECKER.check(ADDING, ADD)
    run.why_unavailable.cache_clear()
    with pytest.raises(UnusableGoldError, match="not JSON"):
        CHECKER.check_gold("x")
    with pytest.raises(UnusableGoldError):
        CHECKER.check("x", ADD)


def test_many_tests_take_one_process(monkeypatch):
    started = []
    monkeypatch.setattr(
        python_tests, "Sandbox", lambda *arguments: started.append(arguments) or run.Sandbox(*arguments)
    )
    gold = unit(*(f"assert f({n}) == {n * n}" for n in range(300)))
    assert verify("python_tests", gold, "def f(n): return n * n").outcome is RIGHT
    assert len(started) == 1


LATE = [
    ("def add(a, b):\n    while True: pass", 20, "a long limit"),
    ("import time\ntime.sleep(600)", 20, "a long sleep"),
    ("import time\nwhile time.process_time() < 1: pass\ntime.sleep(600)", 1.4, "a little of both"),
    ("import time\nwhile time.process_time() < 0.1: pass\ntime.sleep(600)", None, "no limit of its own"),
    ("import os, time\nos.closerange(0, 64)\ntime.sleep(600)", 20, "without a word"),
]


@pytest.mark.parametrize(("answer", "limit_s", "what"), LATE, ids=[what for _, _, what in LATE])
def test_late_answers_are_wrong_and_no_failure_of_the_verifier(answer, limit_s, what):
    """Otherwise a policy could end a run: too many verdicts that fail, and it is taken for broken."""
    gold = ADDING if limit_s is None else unit("assert add(1, 2) == 3", limit_s=limit_s)
    several = json.dumps({"any_of": [gold, ADDING]})
    with WorkerPool(1, 2.0) as pool:
        calls = [Call("verify", ("python_tests", one, text)) for text in (answer, ADD) for one in (gold, several)]
        results = pool.submit(calls).result()
    assert [result.status for result in results] == ["done"] * 4
    assert [result.value[0] for result in results] == ["wrong", "wrong", "correct", "correct"]
    assert "s in all" in results[0].value[1] or "closed the pipe" in results[0].value[1]


def test_a_limit_beyond_the_deadline_is_the_golds_fault():
    golds = [unit("assert f() == 1", limit_s=limit_s) for limit_s in (1.5, 1.6)] + [ADDING]
    golds += [json.dumps({"any_of": [ADDING, gold]}) for gold in (unit("assert f() == 1", limit_s=0.75), golds[0])]
    with WorkerPool(1, 2.0) as pool:
        results = pool.submit([Call("check_gold", ("python_tests", gold)) for gold in golds]).result()
    assert [result.value is None for result in results] == [True, False, True, True, False]
    assert results[1].value.startswith("limit_s=1.6: an answer has 1.5 s in all; lower it")


def test_code_gets_no_more_memory_than_a_call_may_have():
    answer = "def add(a, b):\n    bytearray(512 << 20)\n    return a + b"
    outcomes = []
    for memory_bytes in (2 << 30, 256 << 20):
        with WorkerPool(1, 10.0, SetUp(memory_bytes=memory_bytes)) as pool:
            [result] = pool.submit([Call("verify", ("python_tests", ADDING, answer))]).result()
        outcomes.append(result.value[:2])
    assert outcomes == [["correct", ""], ["wrong", "test 1 of 2: MemoryError"]]


def test_looking_for_the_fence_takes_one_pass():
    """Twice as long a line takes twice as long, not four times: this one would take longer than a verdict may."""
    line = "~" * (MAX_ANSWER_CHARS - 10) + " a b"
    with WorkerPool(1, 2.0) as pool:
        [result] = pool.submit([Call("verify", ("python_tests", ADDING, line))]).result()
    assert result.value[0] == "wrong"
