"""The house's rules about names: one word for one thing, and tests that reach into no privates."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

ONE_WORD = ("rewards", "grpo/score")
"""Here a checker's finding on an answer is a verdict, and giving rewards is scoring."""

BY_PUBLIC_DOORS = ("tests/rewards", "tests/house", "tests/loop/test_score.py", "tests/loop/test_group_scorer.py")
"""Tests that reach into no privates."""

ALLOWED = {"os._exit", "sys._getframe"}
"""Public in all but name: the standard library documents them."""


def python_files(*places: str) -> list[Path]:
    folders = [ROOT / place for place in places]
    files = [file for one in folders for file in ([one] if one.suffix == ".py" else one.rglob("*.py"))]
    assert files
    return sorted(files)


def names(tree: ast.AST) -> Iterator[str]:
    """Everything that a file gives a name to, or calls by one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef | ast.alias):
            yield node.name
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg


def is_private(name: object) -> bool:
    return isinstance(name, str) and name.startswith("_") and not name.startswith("__")


def privates(tree: ast.AST) -> Iterator[str]:
    """Privates of others: attributes, imports, and what is patched or read by its name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            owner = ast.unparse(node.value)
            if owner not in ("self", "cls") and f"{owner}.{node.attr}" not in ALLOWED:
                yield f"{owner}.{node.attr}"
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names if is_private(alias.name))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("setattr", "getattr")):
            yield from (one.value for one in node.args if isinstance(one, ast.Constant) and is_private(one.value))


@pytest.mark.parametrize("file", python_files(*ONE_WORD), ids=lambda file: str(file.relative_to(ROOT)))
def test_nobody_judges_or_inquires(file: Path) -> None:
    found = {name for name in names(ast.parse(file.read_text())) for word in ("judg", "inquir") if word in name.lower()}
    assert not found


@pytest.mark.parametrize("file", python_files(*BY_PUBLIC_DOORS), ids=lambda file: str(file.relative_to(ROOT)))
def test_tests_reach_into_no_privates(file: Path) -> None:
    assert not list(privates(ast.parse(file.read_text())))
