"""Every gold of the public data sets is right by its own checker, bare and as a model would write it."""

import json
from pathlib import Path

import pytest

from data.sources import load_problems
from data.spec import SourceSpec
from rewards.records import Outcome, Response, ScoreRequest
from rewards.scorer import Scorer

REAL = Path(__file__).parents[3] / "shared" / "datasets"
FILES = [
    *(("gsm8k", f"gsm8k_{split}.jsonl") for split in ("train", "test")),
    *(("math", name) for name in ("math500.jsonl", "aime24.jsonl", "amc23.jsonl")),
    *(("knights_knaves", f"knights_knaves_{n}ppl_test.jsonl") for n in (3, 4, 5)),
]

pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason=f"the public data sets are not at {REAL}")


def spellings(problem):
    """The gold in a box, and as another hand would have set it."""
    if problem.checker == "knights_knaves":
        people = json.loads(problem.gold).items()
        return [", ".join(f"{name} is a {'knight' if honest else 'knave'}" for name, honest in people)]
    other = problem.gold.replace("\\frac", "\\dfrac").replace("\\left", "").replace("\\right", "").replace(" ", "\\ ")
    return [problem.gold, f"${other}$."] if problem.checker == "math" else [problem.gold, f"{problem.gold}.0"]


@pytest.mark.parametrize(("source", "name"), FILES)
def test_every_gold_is_right_by_its_own_checker(source, name):
    problems = load_problems(SourceSpec(source=source, path=str(REAL / name))).problems
    with Scorer([], num_workers=2) as scorer:
        faults = scorer.check_golds([(problem.checker, problem.gold) for problem in problems])
        for problem in problems:
            responses = tuple(Response(f"<answer>{text}</answer>", 1, False) for text in spellings(problem))
            scorer.submit(ScoreRequest(problem.id, problem.question, problem.gold, problem.checker, responses))
        scores = scorer.collect()
    assert [problem.id for problem, fault in zip(problems, faults, strict=True) if fault] == []
    refused = [
        (problem.gold, score.answer)
        for problem, group in zip(problems, scores, strict=True)
        for score in group
        if score.outcome is not Outcome.CORRECT
    ]
    assert refused == []
