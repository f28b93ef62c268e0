"""A verdict that needs no worker is the one that a worker would give."""

import json
from pathlib import Path

import pytest

from rewards.answer_policy import DEFAULT_POLICY, AnswerPolicy
from rewards.checkers import verify
from rewards.checkers.quick import quick_verdict

TAIL_WORDS = "is,not,apples,m,cm,ab,dollars,wrong,degrees,pi,sin,pct,percent,million,or so"
PAIRS = [
    (row["gold"], row["prediction"])
    for file in sorted((Path(__file__).parent / "pairs").glob("*.jsonl"))
    for row in map(json.loads, file.read_text().splitlines())
]
TAILS = TAIL_WORDS.split(",")
DECORATED = [
    *(
        ("12", f"{front}12{joint}")
        for front in ("", "\\$", "$", "-", "+")
        for joint in ("", ".", ".0", "\\%", "^\\circ")
    ),
    *(("12", written.format(tail)) for tail in TAILS for written in ("12 {}", "12{}", "12\\text{{ {}}}", "\\$12 {}")),
    *(("1,234", answer) for answer in ("1234", "1,234", "12,34", "1,2,34", "1234.0", "1,234.50", "01234")),
]
POLICIES = [
    DEFAULT_POLICY,
    AnswerPolicy(percent="either"),
    AnswerPolicy(units="required"),
    AnswerPolicy(units="ignored"),
    AnswerPolicy(relative_tolerance=0.1),
    AnswerPolicy(decimal_comma=True),
]


@pytest.mark.parametrize("checker", ["math", "integer", "gsm8k"])
@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: str(policy.model_dump(exclude_defaults=True)))
def test_the_same_as_the_workers_verdict(checker, policy):
    differing, num_quick = [], 0
    for gold, answer in PAIRS + DECORATED:
        quick = quick_verdict(checker, gold, answer, policy)
        if quick is not None:
            num_quick += 1
            if quick.outcome is not verify(checker, gold, answer, policy).outcome:
                differing.append((gold, answer, quick.outcome))
    assert differing == []
    assert num_quick > 20 or policy.percent == "either" or policy.relative_tolerance or policy.decimal_comma


def test_other_checkers_are_left_to_the_worker():
    assert quick_verdict("exact", "12", "12", DEFAULT_POLICY) is None
    assert quick_verdict("math", "x", "x", DEFAULT_POLICY) is None
