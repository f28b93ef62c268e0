"""Room for weights on their way: what is promised to one run is not given to another."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from ranks import SLOW_IMPORTS

from grpo.errors import UserError
from grpo.rollout.weight_sync.transport import ORPHAN_AGE_S, ROOM_FACTOR, transfer_folder


def places_in(folder: Path) -> list[Path]:
    """Two places on one disk: a first choice and a second one."""
    places = [folder / "shared_memory", folder / "temporary"]
    for place in places:
        place.mkdir(exist_ok=True)
    return places


def most_of(place: Path) -> int:
    """So many bytes, with the room that is asked for them, fill 60 % of what is free: they fit once, not twice."""
    return int(0.6 * shutil.disk_usage(place).free / ROOM_FACTOR)


def test_what_is_promised_to_one_folder_is_not_given_to_another(tmp_path: Path) -> None:
    places = places_in(tmp_path)
    num_bytes = most_of(tmp_path)
    first = transfer_folder(num_bytes, places)
    assert first.parent == places[0]
    assert transfer_folder(num_bytes, places).parent == places[1]
    assert transfer_folder(1000, places).parent == places[0], "a small one has room beside it"
    with pytest.raises(UserError, match="fit none of"):
        transfer_folder(num_bytes, places)
    shutil.rmtree(first)
    assert transfer_folder(num_bytes, places).parent == places[0]


def test_what_is_written_already_is_not_counted_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1,000 bytes free, 600 are promised, and then 500 of them written: 100 are still to come, and 400 are left."""
    [place, other] = places_in(tmp_path)
    free = {"now": 1000}
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(2000, 1000, free["now"]))
    folder = transfer_folder(500, [place])
    (folder / "model.safetensors").write_bytes(b"x" * 500)
    free["now"] = 500
    assert transfer_folder(332, [place, other]).parent == place  # asks for 398
    shutil.rmtree(place)
    place.mkdir()
    folder = transfer_folder(400, [place])
    (folder / "model.safetensors").write_bytes(b"x" * 300)
    # 500 are free, 180 of them promised.
    assert transfer_folder(270, [place, other]).parent == other  # asks for 324


ROUNDS = 200


def ask_for_room(places: Sequence[Path], num_bytes: int, barrier: Any, results: Any) -> None:
    """Round by round, at the same moment as another process: where it was given room."""
    found = []
    for _ in range(ROUNDS):
        barrier.wait(60)
        folder = transfer_folder(num_bytes, places)
        found.append(folder.parent.name)
        barrier.wait(60)
        shutil.rmtree(folder)
    results.put(found)


def test_two_runs_at_the_same_moment_do_not_take_the_same_room(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(SLOW_IMPORTS)
    barrier, results = context.Barrier(2), context.Queue()
    arguments = (places_in(tmp_path), most_of(tmp_path), barrier, results)
    processes = [context.Process(target=ask_for_room, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    rounds = list(zip(*(results.get(timeout=90) for _ in processes), strict=True))
    for process in processes:
        process.join()
    assert len(rounds) == ROUNDS
    assert all(sorted(given) == ["shared_memory", "temporary"] for given in rounds)


def test_a_folder_whose_writer_was_killed_is_removed_in_time(tmp_path: Path) -> None:
    [place, _] = places_in(tmp_path)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead, fresh, foreign = (
        place / name for name in (f"grpo-weights-{gone.pid}-9-a", f"grpo-weights-{gone.pid}-9-b", "grpo-weights-mine")
    )
    for folder in (dead, fresh, foreign):
        folder.mkdir()
    os.utime(dead, (0, 0))
    os.utime(foreign, (0, 0))
    transfer_folder(1, [place])
    assert [one.exists() for one in (dead, fresh, foreign)] == [False, True, True]


@pytest.mark.parametrize(
    ("began_after_s", "is_kept"),
    [(-100.0, True), (0.0, True), (1.0, True), (60.0, False), (ORPHAN_AGE_S, False)],
)
def test_a_process_that_began_after_the_last_write_is_not_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, began_after_s: float, is_kept: bool
) -> None:
    """Containers that are started again give the same numbers to their processes: this one has the writer's."""
    [place, _] = places_in(tmp_path)
    folder = place / f"grpo-weights-{os.getpid()}-9-a"
    folder.mkdir()
    written = time.time() - ORPHAN_AGE_S - 50
    os.utime(folder, (written, written))
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: written + began_after_s)
    transfer_folder(1, [place])
    assert folder.exists() == is_kept


def test_the_number_of_a_running_process_does_not_keep_an_older_folder(tmp_path: Path) -> None:
    """Without anything made up: this process's own number, in a folder of long before it."""
    [place, _] = places_in(tmp_path)
    old, new = (place / f"grpo-weights-{os.getpid()}-9-{name}" for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir()
    os.utime(old, (0, 0))
    transfer_folder(1, [place])
    assert [old.exists(), new.exists()] == [False, True]


def test_a_folder_of_another_s_process_that_began_later_is_still_left_alone_for_a_while(tmp_path: Path) -> None:
    """It may be of a process of another container that has the same number."""
    [place, _] = places_in(tmp_path)
    folder = place / f"grpo-weights-{os.getpid()}-9-a"
    folder.mkdir()
    written = time.time() - ORPHAN_AGE_S + 60
    os.utime(folder, (written, written))
    transfer_folder(1, [place])
    assert folder.exists()


def test_where_nothing_has_room_the_promised_folders_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = places_in(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(2**31, 2**30, 2**30))
    given = [transfer_folder(int(2**29 / ROOM_FACTOR) + 1, places) for _ in range(2)]
    assert [folder.parent for folder in given] == places
    with pytest.raises(UserError) as raised:
        transfer_folder(2**30, places)
    for folder in given:
        assert f"{folder} (0.50 GiB)" in str(raised.value)
    assert "remove those whose run has ended" in str(raised.value)
    for folder in given:
        folder.rmdir()
    with pytest.raises(UserError) as raised:
        transfer_folder(2**30, places)
    assert "promised" not in str(raised.value)
