"""The README says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from grpo.metrics import DEFINITIONS
from rewards.checkers import CHECKERS
from rewards.options import OPTIONS_OF_REWARD
from rewards.policy import AnswerPolicy

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
