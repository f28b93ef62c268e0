"""The README says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from grpo.metrics import DEFINITIONS

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
