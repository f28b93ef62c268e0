"""What a run writes of its completions, by sum and by parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from processes import run_grpo, write_recipe
from toy import toy_recipe

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
