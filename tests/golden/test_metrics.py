"""A step's numbers on made-up groups, and that every number has a definition."""

from __future__ import annotations

import math
import re

import pytest
import torch
from groups import completion_of, credit_of, prompt_of

from grpo.evaluation.metrics import eval_metrics, failed_frac, part_means
from grpo.parallel.world import SoleWorld
from grpo.phases import PhaseClock
from grpo.policy.token_sums import TokenSums
from grpo.recipe.sections import UpdateSection
from grpo.records import Completion, CreditedGroup, Finish, Group, ScoredGroup
from grpo.run.metrics import DEFINITIONS, step_metrics
from rewards.records import Outcome, Score
from rewards.spec import RewardSpec

CORRECT, WRONG = Outcome.CORRECT, Outcome.WRONG
WORLD = SoleWorld(torch.device("cpu"))
REWARDS = (
    RewardSpec(name="correctness", weight=0.5),
    RewardSpec(name="format", weight=0.5),
    RewardSpec(name="toy:brevity"),
)


def one(
    length: int,
    reward: float,
    outcome: Outcome,
    *,
    finish: Finish = "stop",
    answer: str | None = None,
    **parts: float | None,
) -> tuple[Completion, Score]:
    return completion_of((5,) * length, -0.5, "…", finish), Score(reward, parts, outcome, answer)


def scored(*rows: tuple[Completion, Score]) -> ScoredGroup:
    completions, scores = zip(*rows, strict=True)
    return ScoredGroup(Group(prompt_of((3, 4)), completions, version=0, position=0), scores)


def step_of_two_groups() -> list[ScoredGroup]:
    return [
        scored(
            one(2, 1.0, CORRECT, correctness=1.0, format=1.0, **{"toy:brevity": None}),
            one(6, 0.0, WRONG, finish="length", correctness=0.0, format=0.0, **{"toy:brevity": None}),
            one(4, 0.5, Outcome.TIMED_OUT, correctness=None, format=0.5, **{"toy:brevity": 0.25}),
        ),
        scored(
            one(8, 0.1, Outcome.NO_ANSWER, finish="length", correctness=0.0, format=1.0, **{"toy:brevity": None}),
            one(1, 0.1, WRONG, correctness=0.0, format=1.0, **{"toy:brevity": 0.75}),
            one(3, 0.1, Outcome.CRASHED, correctness=None, format=1.0, **{"toy:brevity": None}),
        ),
    ]


def credited(groups: list[ScoredGroup]) -> list[CreditedGroup]:
    return credit_of(groups, REWARDS, UpdateSection(lr=1e-3))


def test_step_metrics_by_hand() -> None:
    # Rewards 1, 0, 0.5, 0.1, 0.1, 0.1: sum 1.8, mean 0.3; squares 1 + 0 + 0.25 + 0.03 = 1.28,
    # so that the variance of all six is 1.28 / 6 - 0.09 = 0.123333.
    # In the first group, weighted parts are 1/2 0 0, 1/2 0 1/4 and 0 0 1/4 (no opinion counts as 0), so that they
    # pull with 1/3 -1/6 -1/6, 1/4 -1/4 0 and -1/12 -1/12 1/6: 1/2, -1/2 and 0 in all. The first completion is
    # shared out 4 : 3 : 1, the second, as strong, 2 : 3 : 1. The third and the dead group move nothing.
    assert step_metrics(credited(step_of_two_groups())) == pytest.approx(
        {
            "reward/mean": 0.3,
            "reward/std": math.sqrt(1.28 / 6 - 0.09),
            "reward/correctness": 1 / 4,
            "reward/format": 4.5 / 6,
            "reward/toy:brevity": 1.0 / 2,
            "completion/length_tokens": 24 / 6,
            "completion/length_max_tokens": 8,
            "completion/truncated_frac": 2 / 6,
            "completion/entropy_nats": 0.5,  # every log-prob here is -0.5
            "group/num_drawn": 2,
            "group/num_living": 1,
            "group/dead_frac": 1 / 2,
            "advantage/correctness_frac": (4 / 8 + 2 / 6) / 2,
            "advantage/format_frac": (3 / 8 + 3 / 6) / 2,
            "advantage/toy:brevity_frac": (1 / 8 + 1 / 6) / 2,
            "outcome/correct_frac": 1 / 6,
            "outcome/wrong_frac": 2 / 6,
            "outcome/no_answer_frac": 1 / 6,
            "outcome/malformed_frac": 0,
            "outcome/gold_unusable_frac": 0,
            "outcome/timed_out_frac": 1 / 6,
            "outcome/crashed_frac": 1 / 6,
        },
        abs=1e-12,
    )


def test_outcomes_share_out_all_completions() -> None:
    row = step_metrics(credited(step_of_two_groups()))
    assert sum(value for name, value in row.items() if name.startswith("outcome/")) == pytest.approx(1)


def test_dead_groups_are_found_by_equality() -> None:
    tenths = scored(*(one(1, 0.1, WRONG, format=0.2) for _ in range(8)))
    mirrored = scored(*(one(1, form / 2, WRONG, format=form) for form in (1.0, 0.2, 1.0)))
    assert step_metrics(credited([tenths]))["group/dead_frac"] == 1.0
    assert step_metrics(credited([mirrored]))["group/dead_frac"] == 0.0


def test_where_nothing_is_learnt_no_reward_has_a_share() -> None:
    dead = scored(*(one(1, 0.1, WRONG, format=0.2) for _ in range(8)))
    assert [name for name in step_metrics(credited([dead])) if name.startswith("advantage/")] == []


def test_a_part_nobody_judged_has_no_mean() -> None:
    group = scored(one(1, 0.0, WRONG, silent=None, heard=0.5), one(1, 0.0, WRONG, silent=None, heard=None))
    assert part_means([group.summary()]) == {"heard": 0.5}


def test_failed_verdicts_are_those_that_never_came() -> None:
    assert failed_frac([group.summary() for group in step_of_two_groups()]) == pytest.approx(2 / 6)


def held_out() -> list[ScoredGroup]:
    """Two problems of four completions: three right (7), and one right (5) of answers 5, 6, 6, none."""
    return [
        scored(
            one(2, 1.0, CORRECT, answer="7", format=1.0),
            one(2, 1.0, CORRECT, answer="7", format=1.0),
            one(2, 1.0, CORRECT, answer="7", format=1.0),
            one(2, 0.0, WRONG, answer="8", format=0.0),
        ),
        scored(
            one(4, 1.0, CORRECT, answer="5", format=1.0),
            one(4, 0.0, WRONG, answer="6", format=1.0),
            one(4, 0.0, WRONG, answer="6", format=1.0),
            one(4, 0.0, Outcome.NO_ANSWER, format=0.0),
        ),
    ]


def test_eval_metrics_by_hand() -> None:
    row = eval_metrics("toy", [group.summary() for group in held_out()])
    # Shares 3/4 and 1/4. Pairs: three of four right never misses; one of four is in 3 of the 6 pairs.
    # z^2 / 2 = 1.920729: centre 0.5, half width 1.959964 / 2.920729 x sqrt(0.125 + 0.240091).
    half = 1.959963984540054 / (1 + 1.920729410347063) * math.sqrt(0.125 + 1.920729410347063 / 8)
    assert row == pytest.approx(
        {
            "eval/toy/accuracy": 0.5,
            "eval/toy/accuracy_low": 0.5 - half,
            "eval/toy/accuracy_high": 0.5 + half,
            "eval/toy/pass_at_2": (1 + 1 / 2) / 2,
            "eval/toy/pass_at_4": 1.0,
            "eval/toy/maj_at_4": (1 + 0) / 2,
            "eval/toy/format_frac": 6 / 8,
            "eval/toy/length_tokens": 3.0,
            "eval/toy/num_problems": 2.0,
            "eval/toy/failed_frac": 0.0,
        },
        abs=1e-9,
    )


def test_one_completion_a_problem_has_accuracy_alone() -> None:
    row = eval_metrics(
        "toy", [group.summary() for group in (scored(one(3, 1.0, CORRECT, answer="7")), scored(one(5, 0.0, WRONG)))]
    )
    names = {"accuracy", "accuracy_low", "accuracy_high", "length_tokens", "num_problems", "failed_frac"}
    assert row.keys() == {f"eval/toy/{name}" for name in names}
    assert row["eval/toy/accuracy"] == 0.5


def test_powers_of_two_below_k_and_k_itself() -> None:
    six = scored(*(one(1, 0.0, WRONG, answer=str(number)) for number in range(6)))
    found = {name for name in eval_metrics("toy", [six.summary()]) if "_at_" in name}
    assert found == {"eval/toy/pass_at_2", "eval/toy/pass_at_4", "eval/toy/pass_at_6", "eval/toy/maj_at_6"}


def sums_of_three() -> TokenSums:
    """Two passes over two micro-batches of three tokens and one, with a KL and a gap; the third token's advantage is
    0."""
    sums = TokenSums(num_passes=2)
    taught = torch.tensor([True, True, False])
    for _ in range(2):
        first, second, neither = torch.tensor([[True, False, True], [False, True, True], [False, False, False]])
        sums.add_pass(torch.tensor(-0.5), taught, first, second, torch.tensor([0.1, 0.2, 0.3]))
        sums.add_pass(torch.tensor(0.1), taught[:1], neither[:1], ~neither[:1], torch.tensor([0.6]))
    sums.add_old_policy(torch.tensor([0.05, -0.5, 7.0]), torch.tensor([1.0, 2.0, 9.0]), taught)
    sums.add_old_policy(torch.tensor([2.0]), torch.tensor([6.0]), taught[:1])
    return sums


def test_token_sums_by_hand() -> None:
    # k3 of a gap g is e^g - g - 1: 0.001271 for 0.05, 0.106531 for -0.5, 4.389056 for 2.
    kl = (math.exp(0.05) - 1.05 + math.exp(-0.5) - 0.5 + math.exp(2) - 3) / 3
    assert sums_of_three().metrics(WORLD) == pytest.approx(
        {
            "update/loss": -0.4,
            "update/entropy_nats": 9 / 3,
            "update/clip_frac": 1 / 3,
            "update/masked_frac": 2 / 3,
            "update/kl_nats": 1.2 / 4,  # the KL pulls on all tokens
            "gap/mean_nats": 2.55 / 3,
            "gap/kl_nats": kl,
            "gap/over_0p1_frac": 2 / 3,
            "gap/over_1_frac": 1 / 3,
        },
        abs=1e-6,
    )
    assert kl == pytest.approx(4.496858 / 3, abs=1e-6)


def test_an_endless_gap_of_a_token_that_teaches_nothing_is_none() -> None:
    sums = TokenSums()
    sums.add_old_policy(torch.tensor([0.5, torch.inf]), None, torch.tensor([True, False]))
    assert sums.metrics(WORLD)["gap/mean_nats"] == 0.5


def test_token_sums_without_tokens_have_a_loss_alone() -> None:
    assert TokenSums().metrics(WORLD) == {"update/loss": 0.0}


def is_defined(name: str) -> bool:
    patterns = ["[^/]+".join(map(re.escape, re.split(r"<[^>]+>", pattern))) for pattern in DEFINITIONS]
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def test_every_number_has_a_definition() -> None:
    clock = PhaseClock()
    for phase in ("sync", "generate", "score", "update", "eval", "checkpoint"):
        with clock.phase(phase):
            pass
    rows = [
        step_metrics(credited(step_of_two_groups())),
        eval_metrics("toy", [group.summary() for group in held_out()]),
        sums_of_three().metrics(WORLD),
        clock.lap(),
    ]
    names = {name for row in rows for name in row}
    assert sorted(name for name in names if not is_defined(name)) == []
    assert len(names) > 30


def test_a_number_without_a_definition_would_show() -> None:
    assert not is_defined("reward")
    assert not is_defined("update/made_up")
    assert not is_defined("eval/toy/pass_at_")
    assert not is_defined("time/update")
