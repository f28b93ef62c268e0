"""The numbers of a step, by name. `DEFINITIONS` is what the README's table is checked against."""

from __future__ import annotations

import math
from collections.abc import Sequence

from grpo.advantages import pull_shares
from grpo.statistics import majority_correct, mean_accuracy, pass_at_k
from grpo.types import Lesson, ScoredGroup
from rewards.types import Outcome, Score

DEFINITIONS = {
    "reward/mean": "mean reward of all completions of the step",
    "reward/std": "standard deviation of those rewards",
    "reward/<part>": "mean of one reward before its weight, over the completions on which it had an opinion",
    "score/failed_frac": "share of completions on which a verdict or a reward timed out or crashed",
    "outcome/<outcome>_frac": "share of completions that were judged correct, wrong, no_answer, malformed, "
    "gold_unusable, timed_out or crashed",
    "completion/length_tokens": "mean length of a completion, its end token included",
    "completion/length_max_tokens": "longest completion of the step",
    "completion/truncated_frac": "share of completions cut off by the length limit",
    "group/num_drawn": "groups that were drawn for the step, those that rollout.max_rounds left out of it included",
    "group/num_living": "those of them that are not dead",
    "group/dead_frac": "share of the drawn groups whose advantages are all exactly 0, which teach nothing",
    "advantage/<part>_frac": "what share of the advantages one reward decides: each completion's absolute advantage, "
    "shared out among the rewards as hard as each pulls on it",
    "update/loss": "the loss that was minimised, over the whole batch",
    "update/grad_norm": "norm of the gradient before clipping (of the last pass, where there are several)",
    "update/skipped": "passes whose gradient was not finite, so that the weights stayed",
    "update/lr": "learning rate of the step",
    "update/clip_frac": "share of tokens whose gradient the clip took away",
    "update/masked_frac": "share of tokens that update.correction gives no weight",
    "update/entropy_nats": "mean entropy of the policy where it wrote a token",
    "update/kl_nats": "mean estimate of the KL to the reference policy, a token, where it is in the loss",
    "gap/mean_nats": "mean absolute difference of the engine's and the trainer's log-probs, a token",
    "gap/kl_nats": "k3 estimate of KL(engine || trainer), a token",
    "gap/over_0p1_frac": "share of tokens on which the two differ by more than 0.1 nats",
    "gap/over_1_frac": "share of tokens on which the two differ by more than 1 nat",
    "sync/gap_nats": "mean absolute difference of log-probs on the probe, after the step's weight sync",
    "time/<phase>_s": "wall-clock seconds of a phase (sync, generate, score, update, eval, checkpoint), "
    "and of the whole step",
    "speed/tokens_per_s": "completion tokens a second of generation",
    "eval/<source>/accuracy": "share of held-out completions judged correct (avg@k)",
    "eval/<source>/accuracy_low": "lower end of its 95 % confidence interval",
    "eval/<source>/accuracy_high": "upper end of its 95 % confidence interval",
    "eval/<source>/pass_at_<k>": "unbiased chance that one of k completions is right",
    "eval/<source>/maj_at_<k>": "share of problems whose most frequent answer of k is right",
    "eval/<source>/format_frac": "mean of the format reward, where the recipe has one",
    "eval/<source>/length_tokens": "mean length of a held-out completion",
    "eval/<source>/failed_frac": "share of verdicts that timed out or crashed, counted as not correct",
    "eval/<source>/num_problems": "problems in the held-out set",
}


def step_metrics(
    lessons: Sequence[Lesson], surplus: Sequence[ScoredGroup] = (), dead: Sequence[ScoredGroup] = ()
) -> dict[str, float]:
    """What the completions of one step say, those of all ranks together.

    The step learns from `lessons` alone; `surplus` and `dead` groups (see `Drawn`) count wherever completions do, so
    that leaving them out makes no number look better.
    """
    scored = [*(lesson.scored for lesson in lessons), *surplus, *dead]
    num_dead = sum(lesson.is_dead for lesson in lessons) + len(dead)
    scores = [score for group in scored for score in group.scores]
    completions = [completion for group in scored for completion in group.group.completions]
    lengths = [len(completion.token_ids) for completion in completions]
    rewards = [score.reward for score in scores]
    mean = math.fsum(rewards) / len(rewards)
    row = {
        "reward/mean": mean,
        "reward/std": math.sqrt(math.fsum((reward - mean) ** 2 for reward in rewards) / len(rewards)),
        "completion/length_tokens": sum(lengths) / len(lengths),
        "completion/length_max_tokens": float(max(lengths)),
        "completion/truncated_frac": _share([one.finish == "length" for one in completions]),
        "group/num_drawn": float(len(scored)),
        "group/num_living": float(len(scored) - num_dead),
        "group/dead_frac": num_dead / len(scored),
    }
    row |= {f"reward/{name}": value for name, value in part_means(scored).items()}
    row |= {f"advantage/{name}_frac": value for name, value in advantage_shares(lessons).items()}
    row |= {
        f"outcome/{outcome.value}_frac": _share([score.outcome is outcome for score in scores]) for outcome in Outcome
    }
    return row


def part_means(scored: Sequence[ScoredGroup]) -> dict[str, float]:
    """Mean of each reward over the completions on which it had an opinion."""
    values: dict[str, list[float]] = {}
    for group in scored:
        for score in group.scores:
            for name, part in score.parts.items():
                if part is not None:
                    values.setdefault(name, []).append(part)
    return {name: math.fsum(parts) / len(parts) for name, parts in values.items()}


def advantage_shares(lessons: Sequence[Lesson]) -> dict[str, float]:
    """Each reward's share of the step's advantages (see `pull_shares`); empty where there are none."""
    return pull_shares(
        [advantage for lesson in lessons for advantage in lesson.of_completions],
        [pull for lesson in lessons for pull in lesson.pulls],
    )


def eval_metrics(source: str, scored: Sequence[ScoredGroup]) -> dict[str, float]:
    """What a held-out evaluation says of one source; k is the number of completions a problem."""
    correct = [[score.outcome is Outcome.CORRECT for score in group.scores] for group in scored]
    lengths = [len(one.token_ids) for group in scored for one in group.group.completions]
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


def failed_frac(scored: Sequence[ScoredGroup]) -> float:
    """Share of verdicts that never came: timed out or crashed."""
    return _share([has_failed(score) for group in scored for score in group.scores])


def has_failed(score: Score) -> bool:
    """Whether the verdict never came."""
    return score.outcome in (Outcome.TIMED_OUT, Outcome.CRASHED)


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags) if flags else 0.0
