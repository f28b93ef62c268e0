"""The GPU check in miniature, on a CPU and without the packages that a bare machine lacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MISSING = ("vllm", "datasets", "wandb", "trackio", "tensorboard", "psutil", "math_verify", "latex2sympy2_extended")
"""What the check must do without."""
HIDER = f"""
import sys
from importlib.machinery import PathFinder

class FindsLess(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {MISSING!r} else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = FindsLess
"""
"""Finds no such package, as where it is not installed."""


def check(folder: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, results and table of the command, run where those packages are missing."""
    hiding = folder / "hiding"
    hiding.mkdir()
    (hiding / "sitecustomize.py").write_text(HIDER)
    # Not this process's PYTHONPATH: the command brings its own.
    environment = os.environ | {"PYTHONPATH": str(hiding), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    command = [str(ROOT / "launch" / "benchmarks" / "gpu_check.sh"), "--out", str(folder / "out"), *arguments]
    ended = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=900)
    out = folder / "out"
    assert {file.name for file in out.iterdir()} == {"gpu_check.json", "gpu_check.md"}, ended.stderr
    return ended.returncode, json.loads((out / "gpu_check.json").read_text()), (out / "gpu_check.md").read_text()


def test_every_part_in_miniature(tmp_path: Path) -> None:
    names = ("device", "tests", "update 0.5b", "flex", "export")
    arguments = ("--device", "cpu", "--small", "--minutes", "14", "--parts", *names)
    code, results, table = check(tmp_path, *arguments)
    parts = results["parts"]
    assert [parts[name]["state"] for name in names] == ["done"] * 5, parts
    assert code == 0
    assert parts["device"]["rows"][1]["attention"] == "tree_by_tree"
    assert {row["outcome"] for row in parts["tests"]["rows"]} == {"skipped"}
    assert_updates(parts["update 0.5b"]["rows"])
    counted, _ = parts["flex"]["rows"]
    assert counted["lengths"] == 20
    assert 1 <= counted["graphs"] <= 4
    assert [row["size"] for row in parts["export"]["rows"]] == ["0.5b", "1.5b"]
    assert all(row["gb_per_s"] > 0 for row in parts["export"]["rows"])
    assert "| 0.5b | 4 x 20 | recomputed |" in table
    assert "tests/gpu: 0 passed, 0 failed" in table


def assert_updates(rows: list[dict[str, Any]]) -> None:
    settings = {(row["setting"], row["shape"]) for row in rows}
    assert settings == {(one, shape) for one in ("eager", "recomputed", "compiled") for shape in ("4 x 20", "2 x 40")}
    for row in rows:
        assert "error" not in row, row
        shares = [row[f"{phase}_frac"] for phase in ("forward", "backward", "optimiser")]
        assert all(0 < share < 1 for share in shares)
        assert sum(shares) == pytest.approx(1)
        assert row["tokens"] == 80
        assert row["memory"]["total"] > row["memory"]["weights"] > 0
    by_hand(next(row for row in rows if row["shape"] == "4 x 20"))


def by_hand(row: dict[str, Any]) -> None:
    """Two micro-batches of a prompt of 8 and two completions of 20, of which 19 are inputs."""
    # A layer: q and o 64 x 64, k and v 64 x 32, three of 64 x 96; the head 300 x 64.
    matrices = 2 * (2 * 4096 + 2 * 2048 + 3 * 6144)
    pairs = 36 + 2 * (19 * 8 + 190)
    of_one = 6 * (matrices * 46 + 19_200 * 40) + 12 * 2 * 64 * pairs
    assert row["flops"] == 2 * of_one


def test_time_is_kept(tmp_path: Path) -> None:
    """What does not end is cut off, what would come too late is not begun, and both are named."""
    began = time.monotonic()
    code, results, table = check(tmp_path, "--device", "cpu", "--small", "--minutes", "0.06")
    assert time.monotonic() - began < 30
    states = [part["state"] for part in results["parts"].values()]
    assert code == 1
    assert len(states) == 6
    assert states[-1] == "not begun: no time left"
    assert states[0] in ("done", "cut off after 4 s")
    assert "not begun: no time left" in table


def test_a_part_that_fails_is_named_and_the_next_one_runs(tmp_path: Path) -> None:
    code, results, table = check(tmp_path, "--device", "nowhere", "--small", "--parts", "device", "flex")
    assert code == 1
    for part in results["parts"].values():
        assert part["state"] == "failed with exit code 1"
        assert "nowhere" in part["output"][-1]
    assert "flex, the end of what it said:" in table
