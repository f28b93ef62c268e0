"""What a held-out evaluation says, by name."""

from __future__ import annotations

import math
from collections.abc import Sequence

from grpo.evaluation.estimates import majority_correct, mean_accuracy, pass_at_k
from grpo.records import GroupSummary
from rewards.records import Outcome


def part_means(scored: Sequence[GroupSummary]) -> dict[str, float]:
    """Mean of each reward over the completions on which it had an opinion."""
    values: dict[str, list[float]] = {}
    for group in scored:
        for score in group.scores:
            for name, part in score.parts.items():
                if part is not None:
                    values.setdefault(name, []).append(part)
    return {name: math.fsum(parts) / len(parts) for name, parts in values.items()}


def eval_metrics(source: str, scored: Sequence[GroupSummary]) -> dict[str, float]:
    """What a held-out evaluation says of one source; k is the number of completions a problem."""
    correct = [[score.outcome is Outcome.CORRECT for score in group.scores] for group in scored]
    lengths = [length for group in scored for length in group.lengths]
    accuracy = mean_accuracy(correct)
    k = len(correct[0])
    row = {
        "accuracy": accuracy.value,
        "accuracy_low": accuracy.low,
        "accuracy_high": accuracy.high,
        "length_tokens": sum(lengths) / len(lengths),
        "num_problems": float(len(scored)),
        "failed_frac": failed_frac(scored),
    }
    if k > 1:
        for few in sorted({2**power for power in range(1, k.bit_length())} | {k}):
            chances = [pass_at_k(k, sum(verdicts), few) for verdicts in correct]
            row[f"pass_at_{few}"] = math.fsum(chances) / len(correct)
        votes = [
            majority_correct([score.answer for score in group.scores], verdicts)
            for group, verdicts in zip(scored, correct, strict=True)
        ]
        row[f"maj_at_{k}"] = math.fsum(votes) / len(votes)
    if (format_frac := part_means(scored).get("format")) is not None:
        row["format_frac"] = format_frac
    return {f"eval/{source}/{name}": value for name, value in row.items()}


def failed_frac(scored: Sequence[GroupSummary]) -> float:
    """Share of verdicts that never came: timed out or crashed."""
    return share([score.has_failed for group in scored for score in group.scores])


def share(flags: Sequence[bool]) -> float:
    """The part of the flags that is true; 0 where there are none."""
    return sum(flags) / len(flags) if flags else 0.0
