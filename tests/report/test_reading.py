"""The rows of a run, read back whole or torn, and what stands in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from grpo.row_values import number, part_names
from grpo.rows import lines_of, read_rows, steps_in


def test_a_missing_file_has_no_rows(tmp_path: Path) -> None:
    assert list(read_rows(tmp_path / "rows.jsonl")) == list(lines_of(tmp_path / "rows.jsonl")) == []


def test_lines_of_other_steps_are_not_parsed(tmp_path: Path) -> None:
    """A line that would be refused when parsed costs nothing where its step is not asked for."""
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"step": 1}\n{"step": 2, torn\n\n{"step": 3}\n')
    assert [row["step"] for row in read_rows(file, (1, 3))] == [1, 3]
    assert steps_in(file) == [1, 2, 3]


@pytest.mark.parametrize("line", [b"[1]", b'{"step": null}', b'{"step": true}', b"\xff\xfe", b'{"step": 1, "te', b"12"])
def test_what_is_no_row_is_left_out(line: bytes, tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(line + b'\n{"step": 2}\n')
    assert list(read_rows(tmp_path / "rows")) == [{"step": 2}]


def test_numbers_are_finite_or_none() -> None:
    row = {"a": 1, "b": 0.5, "c": None, "d": float("nan"), "e": float("inf"), "f": True, "g": "1"}
    assert [number(row, key) for key in "abcdefgh"] == [1.0, 0.5, *[None] * 6]


def test_part_names_keep_their_order() -> None:
    rows = [{"step": 1, "reward/mean": 1, "reward/format": 1}, {"reward/a:b": 1, "reward/std": 1, "reward/format": 0}]
    assert part_names(rows) == ["format", "a:b"]
