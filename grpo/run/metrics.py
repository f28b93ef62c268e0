"""The numbers of a step, by name. `DEFINITIONS` is what the README's table is checked against."""

from __future__ import annotations

import math
from collections.abc import Sequence

from grpo.advantages.formulas import pull_shares
from grpo.evaluation.metrics import part_means, share
from grpo.records import CreditedGroup, GroupSummary
from rewards.records import Outcome

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
    "completion/entropy_nats": "entropy of the policy, estimated from the engine's log-probs of all tokens of the step",
    "group/num_drawn": "groups that were drawn for the step, those that rollout.max_rounds left out of it included",
    "group/num_living": "those of them that are not dead",
    "group/dead_frac": "share of the drawn groups whose advantages are all exactly 0, which teach nothing",
    "advantage/<part>_frac": "what share of the advantages one reward decides: each completion's absolute advantage, "
    "shared out among the rewards as hard as each pulls on it",
    "update/loss": "the loss that was minimised, over the whole batch",
    "update/grad_norm": "norm of the gradient before clipping (of the last pass, where there are several)",
    "update/skipped": "passes whose gradient was not finite, so that the weights stayed",
    "update/lr": "learning rate of the step",
    "update/clip_frac": "share of the tokens with an advantage, in all passes, whose gradient the clip took away",
    "update/masked_frac": "share of the tokens with an advantage, in all passes, that update.correction gives no "
    "weight",
    "update/entropy_nats": "mean entropy of the policy before the update, over the tokens with an advantage",
    "update/kl_nats": "mean estimate of the KL to the reference policy, over all tokens in all passes, where it is in "
    "the loss",
    "gap/mean_nats": "mean absolute difference of the engine's and the trainer's log-probs before the update, over the "
    "tokens with an advantage",
    "gap/kl_nats": "k3 estimate of KL(engine || trainer), a token of those",
    "gap/over_0p1_frac": "share of those tokens on which the two differ by more than 0.1 nats",
    "gap/over_1_frac": "share of those tokens on which the two differ by more than 1 nat",
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
    credited_groups: Sequence[CreditedGroup], surplus: Sequence[GroupSummary] = (), dead: Sequence[GroupSummary] = ()
) -> dict[str, float]:
    """What the completions of one step say, those of all ranks together.

    The step learns from `credited_groups` alone; `surplus` and `dead` groups (see `Selection`) count wherever
    completions do, so that leaving them out makes no number look better.
    """
    scored = [*(credited.summary for credited in credited_groups), *surplus, *dead]
    num_dead = sum(credited.is_dead for credited in credited_groups) + len(dead)
    scores = [score for group in scored for score in group.scores]
    lengths = [length for group in scored for length in group.lengths]
    logps = math.fsum(logp for group in scored for logp in group.sampler_logp_sums)
    rewards = [score.reward for score in scores]
    mean = math.fsum(rewards) / len(rewards)
    row = {
        "reward/mean": mean,
        "reward/std": math.sqrt(math.fsum((reward - mean) ** 2 for reward in rewards) / len(rewards)),
        "completion/length_tokens": sum(lengths) / len(lengths),
        "completion/length_max_tokens": float(max(lengths)),
        "completion/entropy_nats": -logps / max(1, sum(lengths)),
        "completion/truncated_frac": share([finish == "length" for group in scored for finish in group.finishes]),
        "group/num_drawn": float(len(scored)),
        "group/num_living": float(len(scored) - num_dead),
        "group/dead_frac": num_dead / len(scored),
    }
    row |= {f"reward/{name}": value for name, value in part_means(scored).items()}
    row |= {f"advantage/{name}_frac": value for name, value in advantage_shares(credited_groups).items()}
    row |= {
        f"outcome/{outcome.value}_frac": share([score.outcome is outcome for score in scores]) for outcome in Outcome
    }
    return row


def advantage_shares(credited_groups: Sequence[CreditedGroup]) -> dict[str, float]:
    """Each reward's share of the step's advantages (see `pull_shares`); empty where there are none."""
    return pull_shares(
        [advantage for credited in credited_groups for advantage in credited.advantages],
        [pull for credited in credited_groups for pull in credited.pulls],
    )
