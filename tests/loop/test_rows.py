"""What a run writes of its completions, by sum and by parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from groups import completion_of, credit_of, prompt_of
from processes import run_grpo, write_recipe
from toy import toy_recipe

from data.problem import Problem
from data.templates import get_template
from grpo.policy.credit import Credit
from grpo.recipe.sections import UpdateSection
from grpo.records import DrawnGroups, Group, ScoredGroup, Selection
from grpo.run.log import drawn_rows, ordered_rows
from rewards.records import Outcome, Score
from rewards.spec import RewardSpec

REWARDS = [{"name": "toy:lower_case_share"}, {"name": "format", "weight": 0.5}]


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("advantage", ["group_std", "gdpo"])
def test_a_completions_row_has_everything_that_was_decided(advantage: str, tmp_path: Path, tiny_model: Path) -> None:
    sections: dict[str, Any] = {"rewards": REWARDS, "update": {"advantage": advantage}}
    recipe = toy_recipe(tiny_model, tmp_path / "run", **sections)
    code, output = run_grpo("train", write_recipe(tmp_path / "recipe.yaml", recipe))
    assert code == 0, output
    rows = read(tmp_path / "run" / "completions.jsonl")
    assert len(rows) == 2 * 4 * 4
    for row in rows:
        assert row["parts"].keys() == {"toy:lower_case_share", "format"}
        assert row["outcome"] != "no_answer" or row["reason"]
        assert row["cpu_s"] >= 0
    for step in (1, 2):
        advantages = [row["advantage"] for row in rows if row["step"] == step]
        assert sum(advantages) == pytest.approx(0, abs=1e-9)
        assert any(advantages)
    for row in read(tmp_path / "run" / "metrics.jsonl")[1:]:
        shares = [row["advantage/toy:lower_case_share_frac"], row["advantage/format_frac"]]
        assert sum(shares) == pytest.approx(1)
    assert all("advantage" not in row for row in read(tmp_path / "run" / "evals.jsonl"))


def group(name: str, *finished: tuple[float, str]) -> ScoredGroup:
    """A group from (reward, finish) of each completion."""
    completions = tuple(completion_of((5, 6), finish=finish) for _, finish in finished)  # type: ignore[arg-type]
    scores = tuple(Score(reward, {"correctness": reward}, Outcome.WRONG, None) for reward, _ in finished)
    prompt = prompt_of((3,), Problem(name, "?", "1", "integer", "toy", 0))
    return ScoredGroup(Group(prompt, completions, 0, 0), scores)


def test_what_is_left_out_of_the_loss_is_not_in_the_batch() -> None:
    """The truncated completion has no advantage, though the other is compared with it; a surplus group has neither."""
    kept, surplus = group("a", (1.0, "stop"), (0.0, "length")), group("b", (1.0, "stop"), (0.0, "stop"))
    own = {0: kept, 1: surplus}
    drawn = DrawnGroups(Selection((kept.summary(0, 0),), surplus=(surplus.summary(0, 1),)), own)
    update = UpdateSection(lr=1e-3, advantage="group_mean", truncated="leave_out")
    credit = Credit(tuple(credit_of([kept], [RewardSpec(name="correctness")], update)), {})
    rows = ordered_rows([drawn_rows(1, drawn, credit, get_template("plain"))])
    assert [(row["problem_id"], row["advantage"], row["in_batch"]) for row in rows] == [
        ("a", 0.5, True),
        ("a", 0.0, False),
        ("b", 0.0, False),
        ("b", 0.0, False),
    ]
