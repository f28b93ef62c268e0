"""How fast answers are verified: our workers beside math-verify called one by one, on the same answers in one run.

    python launch/benchmarks/verifier.py [--workers 2] [--json FILE]

Two loads: 20,000 completions that end as GSM8K's do (a whole number in a box, four of five of them right), and the
LaTeX pairs of the tests, each of them once. math-verify is used as TRL's accuracy reward uses it: gold and
completion parsed, then compared, with its own time limits switched off, which makes it faster. Nothing is verified
twice on either side. Starting the workers is timed apart.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from math_verify import parse, verify

from rewards.records import Outcome
from rewards.verify import Question, Verifier

NUM_EASY = 20_000
PAIRS = Path(__file__).parents[2] / "tests" / "rewards" / "pairs"
HEADER = f"{'load':<8}{'answers':>9}{'ours /s':>10}{'math-verify /s':>16}{'ratio':>8}{'agree':>8}"


def easy_questions(num: int, seed: int = 0) -> list[Question]:
    """Completions in the manner of GSM8K, all of them different."""
    draw = random.Random(seed)
    questions = []
    for index in range(num):
        gold = draw.choice((draw.randrange(1, 100), draw.randrange(100, 10_000), draw.randrange(10_000, 2_000_000)))
        said = gold if draw.random() < 0.8 else gold + draw.choice((-10, -1, 1, 10, gold))
        written = draw.choice((f"{said}", f"{said:,}", f"\\${said:,}", f"{said}.00", f"{said}\\text{{ dollars}}"))
        text = f"<think>Step {index}: 2 + 3 = 5, so there are {said}.</think>\nThe answer is $\\boxed{{{written}}}$."
        questions.append(Question(str(gold), text, "completion"))
    return questions


def hard_questions() -> list[Question]:
    """The LaTeX pairs of the tests, but for those that are the same text or two plain numbers."""
    rows = [json.loads(line) for file in sorted(PAIRS.glob("*.jsonl")) for line in file.read_text().splitlines()]
    questions = [
        Question(row["gold"], f"\\boxed{{{row['prediction']}}}", "completion")
        for row in rows
        if row["level"] == "answer" and "\\" in row["gold"] and row["gold"] != row["prediction"]
    ]
    return list(dict.fromkeys(questions))


def verify_one_by_one(questions: Sequence[Question]) -> list[bool]:
    """math-verify in this process, one answer after the other."""
    return [
        bool(verify(parse(f"\\boxed{{{one.gold}}}", parsing_timeout=None), parse(one.prediction, parsing_timeout=None),
                    timeout_seconds=None))
        for one in questions
    ]  # fmt: skip


def verify_in_workers(questions: Sequence[Question], verifier: Verifier) -> list[bool]:
    return [verdict.outcome is Outcome.CORRECT for verdict in verifier.verdicts(questions)]


def timed(work: Callable[[], list[bool]]) -> tuple[float, list[bool]]:
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    chosen = options.parse_args()
    logging.disable(logging.WARNING)
    loads = {"easy": easy_questions(NUM_EASY), "hard": hard_questions()}
    figures: dict[str, dict[str, float]] = {}
    with Verifier(num_workers=chosen.workers) as verifier:
        start_s, _ = timed(lambda: verify_in_workers([Question("x+1", f"x+{n}") for n in range(64)], verifier))
        print(f"start of {chosen.workers} workers, with 64 verdicts: {start_s:.2f} s\n{HEADER}")
        for name, questions in loads.items():
            ours_s, ours = timed(lambda: verify_in_workers(questions, verifier))  # noqa: B023
            theirs_s, theirs = timed(lambda: verify_one_by_one(questions))  # noqa: B023
            agree = sum(left == right for left, right in zip(ours, theirs, strict=True)) / len(questions)
            num = len(questions)
            print(
                f"{name:<8}{num:>9}{num / ours_s:>10.0f}{num / theirs_s:>16.0f}{theirs_s / ours_s:>8.1f}{agree:>8.1%}"
            )
            figures[name] = {"answers": num, "ours_s": ours_s, "math_verify_s": theirs_s, "ratio": theirs_s / ours_s}
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
