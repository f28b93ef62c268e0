"""The house's rules: which room may import which, and what the pure rooms stay clear of."""

from __future__ import annotations

import ast
import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

ROOMS = (
    ("errors", "phases", "records", "rows", "row_values"),
    ("objectives",),
    ("advantages",),
    ("recipe", "parallel"),
    ("batching",),
    ("model",),
    ("policy",),
    ("rollout", "checkpoints"),
    ("evaluation",),
    ("report",),
    ("run",),
    ("preflight",),
    ("assemble",),
    ("train", "score", "bench"),
    ("cli",),
    ("__main__",),
)
"""The rooms of grpo/ and the files beside them, the lowest first. A room imports itself and what stands before it;
rooms of one line do not know each other."""

ROOMS_OF_REWARDS = (
    ("errors",),
    ("records", "answer_policy", "jsonl"),
    ("answers", "sandbox"),
    ("checkers",),
    ("parts",),
    ("workers",),
    ("verdicts",),
    ("scorer", "verify"),
)
"""The same for rewards/, with `spec`, which says what a recipe writes of a part, as a file of the parts' room."""

COMMANDS = {"evaluation/command.py"}
"""Commands that live in the room of what they do, and open a run as `assemble` does."""

PURE = ("records.py", "objectives", "advantages")
"""From values to values: no process, no file, no clock, no other rank."""

IMPURE_MODULES = ("torch.distributed", "pathlib", "os", "io", "subprocess", "multiprocessing", "socket", "time")


def python_files(*places: str) -> list[Path]:
    files = [
        file for place in places for file in ([ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("*.py"))
    ]
    assert files
    return sorted(files)


def imports(file: Path) -> Iterator[str]:
    """Every module that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(file: Path) -> str:
    return file.relative_to(ROOT / "grpo").parts[0].removesuffix(".py")


def room_of_rewards(name: str) -> str:
    """The room of a file or module of rewards/, ``rewards.spec`` or ``rewards/spec.py``."""
    room = name.removesuffix(".py").replace("/", ".").split(".")[1]
    return "parts" if room == "spec" else room


def height(room: str, order: tuple[tuple[str, ...], ...] = ROOMS) -> int:
    return next(number for number, rooms in enumerate(order) if room in rooms)


def test_every_room_has_its_place() -> None:
    found = {room_of(file) for file in python_files("grpo")} - {"__init__"}
    assert found == {room for rooms in ROOMS for room in rooms}


@pytest.mark.parametrize("file", python_files("grpo"), ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_run_downwards(file: Path) -> None:
    own = room_of(file)
    if own == "__init__" or str(file.relative_to(ROOT / "grpo")) in COMMANDS:
        return
    rooms = {name.split(".")[1] for name in imports(file) if name.startswith("grpo.")} - {own}
    above = [room for room in rooms if height(room) >= height(own)]
    assert not above, f"{own} imports {', '.join(above)}"


def test_every_room_of_rewards_has_its_place() -> None:
    found = {room_of_rewards(str(file.relative_to(ROOT))) for file in python_files("rewards")} - {"__init__"}
    assert found == {room for rooms in ROOMS_OF_REWARDS for room in rooms}


@pytest.mark.parametrize("file", python_files("rewards"), ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_run_downwards_in_rewards(file: Path) -> None:
    own = room_of_rewards(str(file.relative_to(ROOT)))
    if own == "__init__":
        return
    rooms = {room_of_rewards(name) for name in imports(file) if name.startswith("rewards.")} - {own}
    above = [room for room in rooms if height(room, ROOMS_OF_REWARDS) >= height(own, ROOMS_OF_REWARDS)]
    assert not above, f"{own} imports {', '.join(above)}"


@pytest.mark.parametrize("file", python_files(*(f"grpo/{place}" for place in PURE)), ids=lambda file: file.name)
def test_pure_rooms_know_no_world(file: Path) -> None:
    found = [name for name in imports(file) for impure in IMPURE_MODULES if f"{name}.".startswith(f"{impure}.")]
    assert not found


def test_ranks_meet_in_one_room() -> None:
    meeting = {room_of(file) for file in python_files("grpo") for name in imports(file) if "torch.distributed" in name}
    assert meeting <= {"parallel"}


@pytest.mark.parametrize("package", ["data", "rewards"])
def test_problems_and_rewards_know_nothing_of_training(package: str) -> None:
    other = {"data": "rewards", "rewards": "data"}[package]
    for file in python_files(package):
        strangers = {name.split(".")[0] for name in imports(file)} & {"grpo", "launch", "torch", other}
        assert not strangers, f"{file}: {strangers}"


def test_no_file_is_called_like_a_library() -> None:
    """A reader who sees `import types` must not have to ask which."""
    installed = {name for name in importlib.metadata.packages_distributions() if name.isidentifier()}
    taken = (set(sys.stdlib_module_names) | installed) - {"grpo", "rewards", "data", "tests", "launch"}
    shadows = [str(file.relative_to(ROOT)) for file in python_files("grpo", "rewards", "data") if file.stem in taken]
    assert not shadows


def test_a_class_has_one_place() -> None:
    """Two classes of one name are two answers to "what is an `Interval`?"."""
    places: dict[str, list[str]] = {}
    for file in python_files("grpo"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef) and room_of(file) != "bench":
                places.setdefault(node.name, []).append(str(file.relative_to(ROOT)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
