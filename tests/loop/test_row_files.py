"""A run's row files: cut off where a checkpoint was made, and completions in parts."""

from __future__ import annotations

import gzip
import json
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from grpo.checkpoints.row_ends import read_row_ends, write_row_ends
from grpo.recipe.sections import LogSection
from grpo.rows import COMPLETIONS, EVALS, METRICS, closed_parts, read_rows, steps_in
from grpo.run.row_files import RowFiles, last_step
from grpo.score.rows import count_lines, read_completions

Rows = Callable[..., RowFiles]
TEXT = "x" * 900
"""So that a row of completions takes about a kilobyte, and four of them pass the smallest part of the tests."""


@pytest.fixture
def open_rows(tmp_path: Path) -> Iterator[Rows]:
    """Row files in a folder `run`, with parts of four rows."""
    opened = []
    (tmp_path / "run").mkdir()

    def open_(**settings: Any) -> RowFiles:
        opened.append(RowFiles(tmp_path / "run", LogSection(**{"completions_part_mib": 3.5 / 1024} | settings)))
        return opened[-1]

    yield open_
    for one in opened:
        one.close()


def write_steps(rows: RowFiles, steps: Sequence[int]) -> None:
    """Two completions a step before its metrics, as a run writes them."""
    for step in steps:
        rows.append(COMPLETIONS, [{"step": step, "index": index, "text": TEXT} for index in range(2)])
        rows.append(METRICS, [{"step": step}])


def ends_now(run_dir: Path) -> dict[str, int]:
    """What a checkpoint made now would remember."""
    checkpoint = run_dir.parent / "checkpoint"
    checkpoint.mkdir(exist_ok=True)
    write_row_ends(run_dir, checkpoint)
    ends = read_row_ends(checkpoint)
    assert ends is not None
    return dict(ends)


def completions(run_dir: Path) -> list[tuple[int, int]]:
    return [(row["step"], row["index"]) for row in read_rows(run_dir / COMPLETIONS)]


def two_each(*steps: int) -> list[tuple[int, int]]:
    return [(step, index) for step in steps for index in range(2)]


# Cutting back


def test_rows_end_where_they_did_at_the_checkpoint_whatever_a_crash_left_after(open_rows: Rows, tmp_path: Path) -> None:
    rows, run_dir = open_rows(completions_part_mib=1), tmp_path / "run"
    write_steps(rows, [1, 2])
    rows.append(EVALS, [{"step": 2}])
    before = {name: (run_dir / name).read_bytes() for name in (METRICS, COMPLETIONS, EVALS)}
    ends = ends_now(run_dir)
    assert ends == {name: len(text) for name, text in before.items()}
    write_steps(rows, [3])
    rows.append(EVALS, [{"step": 4}])
    with (run_dir / COMPLETIONS).open("a") as file:
        file.write('{"step": 4, "text": "torn')
    assert rows.cut_back(2, ends) == []
    assert {name: (run_dir / name).read_bytes() for name in before} == before


def test_a_file_that_came_later_is_emptied(open_rows: Rows, tmp_path: Path) -> None:
    rows, run_dir = open_rows(), tmp_path / "run"
    write_steps(rows, [1])
    ends = ends_now(run_dir)
    assert ends[EVALS] == 0
    rows.append(EVALS, [{"step": 2}])
    assert rows.cut_back(1, ends) == []
    assert list(read_rows(run_dir / EVALS)) == []


def read_bytes() -> int:
    """What this process has read so far, from the disk or from its cache."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"])


def test_going_on_does_not_read_the_rows(open_rows: Rows, tmp_path: Path) -> None:
    """200 MB of completions, of which the checkpoint knows all but the last step's."""
    rows, run_dir = open_rows(completions_part_mib=1024), tmp_path / "run"
    step = "".join(json.dumps({"step": 1, "index": index, "text": "x" * 10_000}) + "\n" for index in range(100))
    with (run_dir / COMPLETIONS).open("w") as file:
        file.writelines(step for _ in range(200))
    ends = ends_now(run_dir)
    assert ends[COMPLETIONS] > 200_000_000
    write_steps(rows, [2])
    began, read = time.perf_counter(), read_bytes()
    assert rows.cut_back(1, ends) == []
    assert read_bytes() - read < 1_000_000
    assert time.perf_counter() - began < 1
    assert (run_dir / COMPLETIONS).stat().st_size == ends[COMPLETIONS]


def test_a_checkpoint_that_does_not_say_where_rows_ended_has_them_looked_through(
    open_rows: Rows, tmp_path: Path
) -> None:
    rows, run_dir = open_rows(completions_part_mib=1), tmp_path / "run"
    write_steps(rows, [1, 2, 3])
    with (run_dir / COMPLETIONS).open("a") as file:
        file.write('{"step": 2, "text": "torn')
    (tmp_path / "checkpoint").mkdir()
    assert read_row_ends(tmp_path / "checkpoint") is None
    assert rows.cut_back(2, None) == []
    assert completions(run_dir) == two_each(1, 2)
    assert (run_dir / COMPLETIONS).read_bytes().endswith(b'"}\n')


def test_a_file_that_was_shortened_or_removed_is_named(open_rows: Rows, tmp_path: Path) -> None:
    rows, run_dir = open_rows(completions_part_mib=1), tmp_path / "run"
    write_steps(rows, [1, 2, 3])
    ends = ends_now(run_dir)
    first = (run_dir / COMPLETIONS).read_bytes().splitlines(keepends=True)[0]
    (run_dir / COMPLETIONS).write_bytes(first)
    (run_dir / METRICS).unlink()
    said = rows.cut_back(3, ends)
    assert [line.split(": ")[0] for line in said] == [str(run_dir / METRICS), str(run_dir / COMPLETIONS)]
    assert f"then {ends[COMPLETIONS]} bytes, now {len(first)} in all" in said[1]
    assert completions(run_dir) == [(1, 0)]


def test_a_file_whose_rows_have_moved_is_named_and_loses_no_row(open_rows: Rows, tmp_path: Path) -> None:
    """Shortened by the user, then grown past its old end: the old end falls into a row."""
    rows, run_dir = open_rows(completions_part_mib=1), tmp_path / "run"
    write_steps(rows, [1, 2])
    ends = ends_now(run_dir)
    lines = (run_dir / COMPLETIONS).read_bytes().splitlines(keepends=True)
    (run_dir / COMPLETIONS).write_bytes(b'{"step": 1, "index": 0}\n' + b"".join(lines[1:]))
    write_steps(rows, [3])
    [said] = rows.cut_back(2, ends)
    assert said.startswith(f"{run_dir / COMPLETIONS}: is not what it was when step 2 was done")
    assert completions(run_dir) == two_each(1, 2)


# Parts


def test_parts_are_closed_between_steps_and_read_as_one(open_rows: Rows, tmp_path: Path) -> None:
    rows, run_dir = open_rows(), tmp_path / "run"
    write_steps(rows, range(1, 8))
    rows.close()
    names = sorted(file.name for file in run_dir.iterdir() if "completions" in file.name)
    assert names == [COMPLETIONS, *(f"completions_{step:06d}.jsonl.gz" for step in (2, 4, 6))]
    with gzip.open(run_dir / "completions_000004.jsonl.gz") as part:
        assert [json.loads(line)["step"] for line in part] == [3, 3, 4, 4]
    assert completions(run_dir) == two_each(*range(1, 8))
    assert steps_in(run_dir / COMPLETIONS) == list(range(1, 8))
    assert count_lines(run_dir / COMPLETIONS) == 14
    assert [row.fields["step"] for row in read_completions(run_dir / COMPLETIONS)][::2] == list(range(1, 8))


def test_a_step_is_never_in_two_parts(open_rows: Rows, tmp_path: Path) -> None:
    rows = open_rows()
    for index in range(9):
        rows.append(COMPLETIONS, [{"step": 1, "index": index, "text": TEXT}])
    assert closed_parts(tmp_path / "run" / COMPLETIONS) == []
    assert last_step(tmp_path / "run" / COMPLETIONS) == 1


def test_only_the_parts_that_can_hold_a_step_are_opened(open_rows: Rows, tmp_path: Path) -> None:
    rows, run_dir = open_rows(), tmp_path / "run"
    write_steps(rows, range(1, 8))
    rows.close()
    (run_dir / "completions_000002.jsonl.gz").write_bytes(b"not to be opened")
    (run_dir / "completions_000006.jsonl.gz").write_bytes(b"not to be opened")
    found = [(row["step"], row["index"]) for row in read_rows(run_dir / COMPLETIONS, {3})]
    assert found == two_each(3)


def test_a_part_that_is_damaged_is_read_as_far_as_it_goes(open_rows: Rows, tmp_path: Path) -> None:
    rows, run_dir = open_rows(), tmp_path / "run"
    write_steps(rows, range(1, 6))
    rows.close()
    part = run_dir / "completions_000002.jsonl.gz"
    part.write_bytes(part.read_bytes()[:-9])
    assert completions(run_dir)[-6:] == two_each(3, 4, 5)


def test_a_part_that_a_kill_left_uncompressed_counts_once_and_is_compressed_later(
    open_rows: Rows, tmp_path: Path
) -> None:
    rows, run_dir = open_rows(), tmp_path / "run"
    write_steps(rows, [1, 2])
    (run_dir / COMPLETIONS).rename(run_dir / "completions_000002.jsonl")
    (run_dir / "completions_000002.jsonl.gz").write_bytes(
        gzip.compress((run_dir / "completions_000002.jsonl").read_bytes())
    )
    write_steps(rows, [3, 4, 5])
    rows.close()
    assert completions(run_dir) == two_each(1, 2, 3, 4, 5)
    assert not list(run_dir.glob("completions_*.jsonl"))


def test_the_oldest_parts_make_room(open_rows: Rows, tmp_path: Path) -> None:
    """Six random bits a character leave 4 KB of a part of 5,400 characters: two fit into 10 KiB, three do not."""
    rows, run_dir = open_rows(completions_keep_gib=10 / 2**20), tmp_path / "run"
    letters = [chr(ord("0") + number) for number in range(64) if chr(ord("0") + number) not in '"\\']
    for step in range(1, 10):
        rows.append(COMPLETIONS, [{"step": step, "text": "".join(random.Random(step).choices(letters, k=5400))}])
    rows.close()
    assert [part.last_step for part in closed_parts(run_dir / COMPLETIONS)] == [7, 8]
    assert steps_in(run_dir / COMPLETIONS) == [7, 8, 9]


def test_everything_is_kept_by_default() -> None:
    assert LogSection().completions_keep_gib is None


def test_a_disk_that_fills_up_while_a_part_is_compressed_costs_no_row(
    open_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **keywords: object) -> None:
        raise OSError(28, "No space left on device")

    rows, run_dir = open_rows(), tmp_path / "run"
    write_steps(rows, [1, 2])
    monkeypatch.setattr("shutil.copyfileobj", full)
    write_steps(rows, [3])
    with pytest.warns(UserWarning, match="a closed part stays as it is: .*No space left"):
        rows.close()
    assert completions(run_dir) == two_each(1, 2, 3)
    assert sorted(file.name for file in run_dir.iterdir()) == ["completions.jsonl", "completions_000002.jsonl", METRICS]


Done = list[tuple[str, Path]]


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> Done:
    """Every flush, rename and removal in its order, each with what it was done to."""
    found: Done = []
    fsync, replace, unlink = os.fsync, Path.replace, Path.unlink

    def noted_fsync(handle: int) -> None:
        fsync(handle)
        found.append(("flush", Path(os.readlink(f"/proc/self/fd/{handle}"))))

    def noted_replace(self: Path, target: Path) -> Path:
        found.append(("rename", self))
        return replace(self, target)

    def noted_unlink(self: Path, missing_ok: bool = False) -> None:
        found.extend([("remove", self)] if self.exists() else [])
        unlink(self, missing_ok=missing_ok)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    monkeypatch.setattr(Path, "unlink", noted_unlink)
    return found


def test_the_compressed_file_is_on_the_disk_before_the_plain_one_goes(
    open_rows: Rows, tmp_path: Path, done: Done
) -> None:
    rows, run_dir = open_rows(), tmp_path / "run"
    write_steps(rows, [1, 2, 3])
    rows.close()
    temporary = run_dir / ".completions_000002.jsonl.gz.writing"
    assert done == [
        ("flush", temporary),
        ("rename", temporary),
        ("flush", run_dir),
        ("remove", run_dir / "completions_000002.jsonl"),
    ]


def test_the_reopened_file_is_on_the_disk_before_its_part_goes(open_rows: Rows, tmp_path: Path, done: Done) -> None:
    rows, run_dir = open_rows(), tmp_path / "run"
    write_steps(rows, [1, 2])
    ends = ends_now(run_dir)
    write_steps(rows, [3])
    rows.close()
    done.clear()
    assert rows.cut_back(2, ends) == []
    temporary = run_dir / ".completions.jsonl.writing"
    assert done == [
        ("flush", temporary),
        ("rename", temporary),
        ("flush", run_dir),
        ("remove", run_dir / "completions_000002.jsonl.gz"),
    ]


class Killed(BaseException):
    """In place of a signal that cannot be caught."""


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_kill_before_the_rename_leaves_the_plain_file_whole_and_nothing_behind_in_the_end(
    open_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, goes_on: bool
) -> None:
    def killed(self: Path, target: Path) -> Path:
        raise Killed

    rows, run_dir = open_rows(), tmp_path / "run"
    write_steps(rows, [1, 2])
    ends, text = ends_now(run_dir), (run_dir / COMPLETIONS).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        write_steps(rows, [3])
        with pytest.warns(UserWarning, match="stays as it is"):
            rows.close()
    leftover = run_dir / ".completions_000002.jsonl.gz.writing"
    assert leftover.exists()
    assert (run_dir / "completions_000002.jsonl").read_bytes() == text
    assert completions(run_dir) == two_each(1, 2, 3)
    again = open_rows()
    if goes_on:
        assert again.cut_back(2, ends) == []
        assert completions(run_dir) == two_each(1, 2)
    else:
        again.set_aside()
    assert not list(run_dir.glob(".*.writing"))


@pytest.mark.parametrize("knows_ends", [True, False])
@pytest.mark.parametrize("checkpoint", range(1, 8))
def test_parts_that_were_closed_after_the_checkpoint_are_open_again(
    open_rows: Rows, tmp_path: Path, checkpoint: int, knows_ends: bool
) -> None:
    rows, run_dir = open_rows(), tmp_path / "run"
    write_steps(rows, range(1, checkpoint + 1))
    ends = ends_now(run_dir)
    write_steps(rows, range(checkpoint + 1, 9))
    assert rows.cut_back(checkpoint, ends if knows_ends else None) == []
    assert completions(run_dir) == two_each(*range(1, checkpoint + 1))
    write_steps(rows, range(checkpoint + 1, 9))
    assert completions(run_dir) == two_each(*range(1, 9))


def test_reopening_that_was_broken_off_is_done_again(
    open_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at every removal in turn."""
    rows, run_dir = open_rows(), tmp_path / "run"
    write_steps(rows, range(1, 4))
    ends = ends_now(run_dir)
    write_steps(rows, range(4, 11))
    rows.close()
    unlink, left = Path.unlink, [0]

    def killed(self: Path, missing_ok: bool = False) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        unlink(self, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        for allowed in (0, 3, 1):
            left[0] = allowed
            with pytest.raises(KeyboardInterrupt):
                rows.cut_back(3, ends)
    assert rows.cut_back(3, ends) == []
    assert completions(run_dir) == two_each(1, 2, 3)


@pytest.mark.parametrize("knows_ends", [True, False])
@pytest.mark.parametrize("damage", ["torn", "head", "middle", "sum"])
def test_a_damaged_part_is_reopened_with_what_can_be_read(
    open_rows: Rows, tmp_path: Path, damage: str, knows_ends: bool
) -> None:
    """Part 4, of steps 3 and 4, was open when step 3 was done."""
    rows, run_dir = open_rows(), tmp_path / "run"
    write_steps(rows, range(1, 4))
    ends = ends_now(run_dir)
    write_steps(rows, range(4, 8))
    rows.close()
    part = run_dir / "completions_000004.jsonl.gz"
    whole = part.read_bytes()
    header = whole.index(b"\x00", 10) + 1  # ten bytes and the file's name
    changed = {
        "torn": whole[:-9],
        "head": b"no gzip" + whole[7:],
        "middle": whole[:header] + b"\xff" * (len(whole) - header),
        "sum": whole[:-8] + b"\x00" * 4 + whole[-4:],
    }
    part.write_bytes(changed[damage])
    said = rows.cut_back(3, ends if knows_ends else None)
    assert said[0].startswith(f"{part}: is not what it was when step 3 was done: it is damaged (")
    assert completions(run_dir)[:4] == two_each(1, 2)
    assert completions(run_dir)[4:] == (two_each(3) if damage in ("torn", "sum") else [])
    write_steps(open_rows(), [4, 5])
    assert completions(run_dir)[-4:] == two_each(4, 5)


def test_of_a_large_torn_part_the_whole_lines_before_the_tear_are_kept(open_rows: Rows, tmp_path: Path) -> None:
    """Random letters do not compress well: half of the file holds about half of the rows."""
    rows, run_dir = open_rows(completions_part_mib=0.2), tmp_path / "run"
    draw = random.Random(0)
    for step in range(1, 101):
        rows.append(COMPLETIONS, [{"step": step, "index": 0, "text": "".join(draw.choices("abcdefgh", k=4000))}])
    rows.close()
    first = closed_parts(run_dir / COMPLETIONS)[0]
    assert first.last_step > 50
    text = first.compressed.read_bytes()
    first.compressed.write_bytes(text[: len(text) // 2])
    assert len(rows.cut_back(first.last_step, None)) == 1
    kept = steps_in(run_dir / COMPLETIONS)
    assert kept == list(range(1, len(kept) + 1))
    assert abs(len(kept) - first.last_step / 2) < 5


def test_where_a_kill_left_both_files_of_a_part_the_plain_one_counts(open_rows: Rows, tmp_path: Path) -> None:
    rows, run_dir = open_rows(), tmp_path / "run"
    write_steps(rows, [1, 2])
    ends = ends_now(run_dir)
    (run_dir / COMPLETIONS).rename(run_dir / "completions_000002.jsonl")
    (run_dir / "completions_000002.jsonl.gz").write_bytes(b"torn")
    assert completions(run_dir) == two_each(1, 2)
    assert rows.cut_back(2, ends) == []
    assert completions(run_dir) == two_each(1, 2)


@pytest.mark.parametrize("still_there", [[8], []])
def test_rows_of_a_removed_part_are_not_taken_for_others(
    open_rows: Rows, tmp_path: Path, still_there: list[int]
) -> None:
    """The part that was open at the checkpoint is gone; in what is there now, its end means nothing."""
    rows, run_dir = open_rows(), tmp_path / "run"
    write_steps(rows, range(1, 4))
    ends = ends_now(run_dir)
    write_steps(rows, range(4, 11))
    rows.close()
    for part in closed_parts(run_dir / COMPLETIONS):
        if part.last_step not in still_there:
            part.compressed.unlink(missing_ok=True)
            part.plain.unlink(missing_ok=True)
    [said] = rows.cut_back(3, ends)
    assert "is not what it was when step 3 was done" in said
    assert completions(run_dir) == []


def test_a_restart_sets_all_parts_aside(open_rows: Rows, tmp_path: Path) -> None:
    rows, run_dir = open_rows(), tmp_path / "run"
    (run_dir / "completions_000099.before_restart.jsonl.gz").touch()
    write_steps(rows, [1, 2, 3])
    rows.set_aside()
    assert sorted(file.name for file in run_dir.iterdir()) == [
        "completions.before_restart.jsonl",
        "completions_000002.before_restart.jsonl.gz",
        "metrics.before_restart.jsonl",
    ]
    assert completions(run_dir) == []
