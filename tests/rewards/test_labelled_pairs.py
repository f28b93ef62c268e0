"""Labelled answers: four sets of our own, and the labelled and hostile ones that may lie beside the checkout."""

import json
import time
from pathlib import Path

import pytest

from rewards.records import Outcome, Response, ScoreRequest
from rewards.scorer import Scorer
from rewards.verify import Question, Verifier

OWN = Path(__file__).parent / "pairs"
SHARED = Path(__file__).parents[3] / "shared" / "verifier"
FLOOR = 0.99
STRICTER_THAN_THE_LABEL = {
    "own_pairs.jsonl": {"o0113"},  # y = 4 as y - 4 = 0: an equation still to be solved is not taken for its solution
    "real_golds.jsonl": set(),
    "attacks_and_spellings.jsonl": set(),
    # |x| < 3 as -3 < x < 3 and 2x > 6 as x > 3: an inequality solved; ln(a/b) as a difference: for positive a and b
    "in_the_manner_of_suites.jsonl": {"t0065", "t0070", "t0157"},
    "math_pairs.jsonl": set(),
}

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the labelled answers are not beside this checkout")


def rows(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def text_of(row, field):
    return row[field] if field in row else eval(row[f"{field}_expr"])


@pytest.mark.parametrize(
    "file",
    [
        OWN / "own_pairs.jsonl",
        OWN / "real_golds.jsonl",
        OWN / "attacks_and_spellings.jsonl",
        OWN / "in_the_manner_of_suites.jsonl",
        pytest.param(SHARED / "math_pairs.jsonl", marks=needs_shared),
    ],
    ids=lambda file: file.name,
)
def test_labelled_pairs(file):
    """Nothing wrong is paid, and what is refused although it is right stands in the list above, with its reason."""
    pairs = [row for row in rows(file) if not row.get("policy")]
    questions = [Question(row["gold"], row["prediction"], row["level"]) for row in pairs]
    with Verifier(num_workers=2) as verifier:
        verdicts = verifier.verdicts(questions)
    paid = [verdict.outcome is Outcome.CORRECT for verdict in verdicts]
    answered = list(zip(pairs, paid, strict=True))
    assert [row["id"] for row, was_paid in answered if was_paid and not row["equivalent"]] == []
    assert {row["id"] for row, was_paid in answered if row["equivalent"] and not was_paid} == STRICTER_THAN_THE_LABEL[
        file.name
    ]
    assert sum(was_paid == row["equivalent"] for row, was_paid in answered) / len(pairs) >= FLOOR


@needs_shared
@pytest.mark.parametrize("style", ["boxed", "tags"])
def test_hostile_answers_among_honest_ones(style, tmp_path, monkeypatch):
    """300 hostile answers and 1,000 honest ones in one batch: the former are paid nothing and leave no trace, every
    verdict on the latter is right, and all is back in bounded time."""
    monkeypatch.chdir(tmp_path)
    hostile = [row for row in rows(SHARED / "hostile.jsonl") if style == "boxed" or row["cat"] != "compute"]
    hostile = (hostile * (300 // len(hostile) + 1))[:300]
    deadline_s = 0.5
    began = time.monotonic()
    with Scorer([], num_workers=2, deadline_s=deadline_s) as scorer:
        for number in range(1000):
            said = [f"\\boxed{{\\frac{{{2 * number}}}{{2}}}}", f"\\boxed{{{number}+1}}"]
            if number % 10 < 3:
                row = hostile[number // 10 * 3 + number % 10]
                scorer.submit(asked(text_of(row, "gold"), [text_of(row, "prediction")], style))
            scorer.submit(asked(str(number), said, style))
        scores = scorer.collect()
    assert time.monotonic() - began < 300 * (deadline_s + 0.5)
    assert not list(tmp_path.iterdir())
    honest = [group for group in scores if len(group) == 2]
    assert [[score.outcome for score in group] for group in honest] == [[Outcome.CORRECT, Outcome.WRONG]] * 1000
    attacks = [group[0] for group in scores if len(group) == 1]
    paid = [
        row["id"]
        for row, score in zip(hostile, attacks, strict=True)
        if score.outcome is Outcome.CORRECT and row["expect"] == "no_reward"
    ]
    assert paid == []


def asked(gold, texts, style):
    """A request in the style asked for; ids do not matter here."""
    wrapped = [f"<think>a</think><answer>{text}</answer>" if style == "tags" else text for text in texts]
    responses = tuple(Response(text, 1, False) for text in wrapped)
    return ScoreRequest("", "", gold, "math", responses, answer_style=style)
