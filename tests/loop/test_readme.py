"""The README says what the code does."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import get_args

import pytest
import yaml

from grpo.objectives.corrections import CORRECTIONS
from grpo.objectives.table import OBJECTIVES, Advantage
from grpo.policy.objective_choice import choose_objective
from grpo.recipe.resume import RESUMABLE
from grpo.recipe.sections import UpdateSection
from grpo.run.metrics import DEFINITIONS
from rewards.answer_policy import AnswerPolicy
from rewards.checkers import CHECKERS
from rewards.parts.options import OPTIONS_OF_REWARD
from rewards.parts.user import load_function

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_its_first_block_is_the_two_commands() -> None:
    block = README.split("```")[1]
    commands = [line.split("#")[0].strip() for line in block.splitlines()[1:] if line]
    assert commands == ["./launch/quickstart.sh", "./launch/test.sh"]
    assert all((ROOT / command).stat().st_mode & 0o100 for command in commands)


def test_the_metric_table_is_the_codes() -> None:
    section = README.split("## Metrics\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", section, re.MULTILINE))
    assert rows == DEFINITIONS


def test_every_recipe_has_a_row() -> None:
    rows = set(re.findall(r"^\| `(\w+\.yaml)` \|", README, re.MULTILINE))
    assert rows == {file.name for file in (ROOT / "launch" / "recipes").glob("*.yaml")}


def test_the_table_of_what_may_change_on_resume_is_the_codes() -> None:
    table = README.split("| may change when a run goes on | why |\n|---|---|\n")[1].split("\n\n")[0]
    assert dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", table, re.MULTILINE)) == RESUMABLE


def test_its_pictures_are_there() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert pictures
    assert all((ROOT / picture).is_file() for picture in pictures)


def first_cells(section: str, header: str) -> set[str]:
    """The names in code of the first column of the table with that header."""
    table = README.split(f"## {section}\n")[1].split(header)[1].split("\n\n")[0]
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("|")]
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def test_the_reward_table_is_the_codes() -> None:
    assert first_cells("Rewards", "| reward | what it pays |") == set(OPTIONS_OF_REWARD)


def test_the_checker_table_is_the_codes() -> None:
    assert first_cells("The verifier", "| checker | gold |") == set(CHECKERS)


def test_the_policy_table_is_the_codes() -> None:
    """Every option, and the default as the first choice of its row."""
    table = README.split("## The verifier\n")[1].split("| option | choices |")[1].split("\n\n")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", table, re.MULTILINE))
    assert rows.keys() == AnswerPolicy.model_fields.keys()
    for name, field in AnswerPolicy.model_fields.items():
        default = f"{field.default:g}" if isinstance(field.default, float) else str(field.default).lower()
        assert rows[name].replace("`", "").startswith(default), name


def rows_of(section: str, header: str) -> dict[str, list[str]]:
    """The table with that header: by the name in code of its first cell, the other cells."""
    table = README.split(f"## {section}\n")[1].split(header)[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]
    return {re.findall(r"`(\w+)`", first)[0]: rest for first, *rest in rows}


def options_in(cell: str) -> dict[str, str]:
    """`clip_low` 0.2, `dual_clip` none."""
    return dict(re.findall(r"`(\w+)` ([^,]+)", cell))


def options_of(function: Callable[..., object], given: Mapping[str, object] = MappingProxyType({})) -> dict[str, str]:
    """Every option with its default, as the README writes them; `given` replaces a function's own."""
    [_, *parameters] = inspect.signature(function).parameters.values()
    defaults = {one.name: given.get(one.name, one.default) for one in parameters}
    return {name: "none" if value is None else f"{value:g}" for name, value in defaults.items()}


def test_the_objective_table_is_the_codes() -> None:
    rows = rows_of("Objectives", "| objective | what is maximised |")
    assert rows.keys() == OBJECTIVES.keys()
    for name, one in OBJECTIVES.items():
        _, advantage, normalise, options, _ = rows[name]
        assert (advantage, normalise) == (f"`{one.advantage}`", f"`{one.normalise}`"), name
        assert options_in(options) == options_of(load_function(one.function), one.options), name
    default = UpdateSection.model_fields["objective"].default
    assert f"| `{default}` (default) |" in README


def test_the_correction_table_is_the_codes() -> None:
    rows = rows_of("Objectives", "| correction | weight |")
    assert rows.keys() == CORRECTIONS.keys()
    for name, function in CORRECTIONS.items():
        assert options_in(rows[name][1]) == options_of(function), name


def test_the_advantage_table_is_the_codes() -> None:
    assert rows_of("Objectives", "| advantage | of a completion |").keys() == set(get_args(Advantage))


def test_its_objective_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = README.split("### Your own objective\n")[1].split("\n## ")[0]
    code, recipe = section.split("```python\n")[1].split("```")[0], section.split("```yaml\n")[1].split("```")[0]
    (tmp_path / "my_objectives.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_objectives", raising=False)
    choose_objective(UpdateSection(**yaml.safe_load(recipe)["update"]))
