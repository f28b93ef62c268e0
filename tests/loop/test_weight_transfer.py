"""Weights on their way to the engines: one writer a node, a failure that all ranks hear of, and room for each run."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ranks import on_two_ranks
from small import CPU, make_policy
from tiny import tiny_tokenizer

from grpo.model.lora import open_network
from grpo.parallel.world import SoleWorld, World
from grpo.policy.export import export_model
from grpo.recipe.sections import ModelSection, RolloutSection
from grpo.rollout.engines.hugging_face import TransformersEngine
from grpo.rollout.engines.protocol import Request, Sampling
from grpo.rollout.weight_sync.proof import WeightSync, mean_gap
from grpo.rollout.weight_sync.transport import transfer

SETTINGS = RolloutSection(prompts_per_step=2, group_size=2, max_new_tokens=16, dtype="float32")
PROBE = [tiny_tokenizer()(text).input_ids for text in ("What is 1 + 2?", "To be, or not to be: ")]


def folders_of(pids: Sequence[int]) -> list[str]:
    """Every folder of weights on its way that one of these processes has made."""
    places = {Path("/dev/shm"), Path(tempfile.gettempdir())}
    return sorted(str(one) for place in places for pid in pids for one in place.glob(f"grpo-weights-{pid}-*"))


class WatchedEngine(TransformersEngine):
    """Notes which folders of weights there are whenever it is told to load one."""

    def __init__(self, folder: Path, pids: Sequence[int]) -> None:
        super().__init__(folder, SETTINGS, device=CPU)
        self.loaded: list[str] = []
        self.present: list[list[str]] = []
        self._pids = pids

    def load(self, folder: Path) -> None:
        self.loaded.append(str(folder))
        self.present.append(folders_of(self._pids))
        super().load(folder)


# One writer a node


def sync_twice(world: World, folder: Path) -> dict[str, Any]:
    pids = world.gather(os.getpid())
    engine = WatchedEngine(folder, pids)
    policy = make_policy(folder, world=world)
    sync = WeightSync(engine, policy, world, PROBE, tolerance=0.02)
    gaps = [sync.bring()]
    with policy.perturbed():
        policy.version += 1
        gaps.append(sync.bring())
        gaps.append(mean_gap(engine.logprobs([np.array(ids, np.int32) for ids in PROBE]), policy.logprobs(PROBE)))
    world.barrier()
    return {"loaded": engine.loaded, "present": engine.present, "gaps": gaps, "left": folders_of(pids)}


def test_one_rank_of_a_node_writes_and_all_engines_read_it(tiny_model: Path, tmp_path: Path) -> None:
    first, second = on_two_ranks(tmp_path / "ranks", sync_twice, tiny_model)
    # The rehearsal, the weights as they are, and the moved ones.
    assert len(first["loaded"]) == 3
    assert first["loaded"] == second["loaded"]
    for one in (first, second):
        assert one["present"] == [[folder] for folder in one["loaded"]], "no other folder beside it"
        assert one["left"] == []
        assert max(one["gaps"]) < 1e-3


def fail_somewhere(world: World, folder: Path) -> dict[str, Any]:
    """What each rank raises where the writer fails, where one engine fails, and how it goes on after that."""
    pids = world.gather(os.getpid())
    policy = make_policy(folder, world=world)
    engine = WatchedEngine(folder, pids)

    def fail_to_write(folder: Path) -> None:
        (folder / "model.safetensors").write_text("half")
        raise OSError(28, "No space left on device")

    def fail_on_the_second(folder: Path) -> None:
        if world.local_rank == 1:
            raise ValueError("not the model's set of tensors")
        engine.load(folder)

    found: dict[str, Any] = {}
    for name, write, load in (("write", fail_to_write, engine.load), ("load", policy.export, fail_on_the_second)):
        with pytest.raises(Exception) as raised:  # noqa: PT011
            transfer(world, policy.export_bytes, write, load)
        world.barrier()
        found[name] = f"{raised.type.__name__}: {raised.value}"
        found[f"{name} left"] = folders_of(pids)
        world.barrier()
    found["loads"] = len(engine.loaded)
    transfer(world, policy.export_bytes, policy.export, engine.load)
    found["loads at last"] = len(engine.loaded)
    return found


def test_a_fault_on_one_rank_is_an_error_on_every_rank_of_the_node(tiny_model: Path, tmp_path: Path) -> None:
    first, second = on_two_ranks(tmp_path / "ranks", fail_somewhere, tiny_model)
    told = "SyncError: weight sync: it failed on rank"
    assert first["write"] == "OSError: [Errno 28] No space left on device"
    assert second["write"] == f"{told} 0 of this node: OSError: [Errno 28] No space left on device"
    assert first["load"] == f"{told} 1 of this node: ValueError: not the model's set of tensors"
    assert second["load"] == "ValueError: not the model's set of tensors"
    assert [one["loads"] for one in (first, second)] == [1, 0], "nothing is loaded of what was not written"
    assert [one["loads at last"] for one in (first, second)] == [2, 1]
    assert [one[f"{name} left"] for one in (first, second) for name in ("write", "load")] == [[]] * 4


def die_while_loading(world: World, noted: Path) -> None:
    def load(folder: Path) -> None:
        if world.rank == 1:
            os._exit(3)

    start = time.monotonic()
    try:
        transfer(world, 1, lambda folder: None, load)
    except RuntimeError:
        noted.write_text(json.dumps({"after_s": time.monotonic() - start, "left": folders_of([os.getpid()])}))


def test_a_rank_that_dies_while_it_loads_holds_up_nobody(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="exit codes of the ranks"):
        on_two_ranks(tmp_path / "ranks", die_while_loading, tmp_path / "noted.json")
    noted = json.loads((tmp_path / "noted.json").read_text())
    assert noted["after_s"] < 10
    assert noted["left"] == []


def test_an_interrupted_transfer_leaves_no_folder() -> None:
    def interrupt(folder: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transfer(SoleWorld(CPU), 1, interrupt, interrupt)
    assert folders_of([os.getpid()]) == []


# Engines and shards


def test_an_engine_loads_every_shard(tiny_model: Path, tmp_path: Path) -> None:
    engine = TransformersEngine(tiny_model, SETTINGS, device=CPU)
    network = open_network(tiny_model, ModelSection(path=str(tiny_model), compute="fp32"), CPU)
    with network.perturbed():
        export_model(network, tmp_path, torch.float32, shard_bytes=2**15)
    moved = make_policy(tmp_path).logprobs(PROBE)
    probe = [np.array(ids, np.int32) for ids in PROBE]
    assert mean_gap(engine.logprobs(probe), moved) > 0.1, "not loaded yet"
    engine.load(tmp_path)
    assert mean_gap(engine.logprobs(probe), moved) < 1e-4


def test_a_folder_that_lacks_a_shard_is_refused_and_changes_nothing(tiny_model: Path, tmp_path: Path) -> None:
    engine = TransformersEngine(tiny_model, SETTINGS, device=CPU)
    request, greedy = Request(np.array(PROBE[0], np.int32), (1,)), Sampling(0.0, 16, (0,))
    [(_, [before])] = list(engine.generate([request], greedy))
    network = open_network(tiny_model, ModelSection(path=str(tiny_model), compute="fp32"), CPU)
    with network.perturbed():
        export_model(network, tmp_path, torch.float32, shard_bytes=2**15)
    sorted(tmp_path.glob("*.safetensors"))[-1].unlink()
    with pytest.raises(ValueError, match=r"not the model's set of tensors; missing \['model\."):
        engine.load(tmp_path)
    [(_, [after])] = list(engine.generate([request], greedy))
    assert after.logps.tolist() == before.logps.tolist()
