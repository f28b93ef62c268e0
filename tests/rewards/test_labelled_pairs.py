"""The labelled and the hostile answers, where the checkout lies beside them."""

import json
import time
from pathlib import Path

import pytest

from rewards.extract import extract
from rewards.pool import WorkerPool
from rewards.scorer import Scorer, as_verdict
from rewards.types import Outcome, Response, ScoreRequest
from rewards.worker import Call

SHARED = Path(__file__).parents[3] / "shared" / "verifier"
FLOOR = 0.99

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the labelled answers are not beside this checkout")


def rows(name):
    return [json.loads(line) for line in (SHARED / name).read_text().splitlines()]


def text_of(row, field):
    return row[field] if field in row else eval(row[f"{field}_expr"])


def test_accuracy_on_the_labelled_pairs():
    pairs = [row for row in rows("math_pairs.jsonl") if not row.get("policy")]
    answers = [
        row["prediction"] if row["level"] == "answer" else extract(row["prediction"], False, "boxed").answer
        for row in pairs
    ]
    calls = [Call("judge", ("math", row["gold"], answer or "")) for row, answer in zip(pairs, answers, strict=True)]
    with WorkerPool(2, 5.0) as pool:
        jobs = [pool.submit(calls[start : start + 20]) for start in range(0, len(calls), 20)]
        results = [result for job in jobs for result in job.result()]
    paid = [as_verdict(result).outcome is Outcome.CORRECT for result in results]
    assert not [row["id"] for row, got in zip(pairs, paid, strict=True) if got and not row["equivalent"]]
    assert sum(got == row["equivalent"] for row, got in zip(pairs, paid, strict=True)) / len(pairs) >= FLOOR


@pytest.mark.parametrize("style", ["boxed", "tags"])
def test_hostile_answers_are_paid_nothing_in_bounded_time(style, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hostile = [row for row in rows("hostile.jsonl") if style == "boxed" or row["cat"] != "compute"]
    start = time.monotonic()
    with Scorer([], num_workers=2, deadline_s=0.5) as scorer:
        for row in hostile:
            text = text_of(row, "prediction")
            text = f"<think>a</think><answer>{text}</answer>" if style == "tags" else text
            response = Response(text, 1, False)
            gold = text_of(row, "gold")
            scorer.submit(ScoreRequest(row["id"], "", gold, "math", (response,), answer_style=style))
        scores = scorer.collect()
    assert time.monotonic() - start < 60
    assert not list(tmp_path.iterdir())
    paid = [
        row["id"]
        for row, [score] in zip(hostile, scores, strict=True)
        if score.outcome is Outcome.CORRECT and row["expect"] == "no_reward"
    ]
    assert not paid
