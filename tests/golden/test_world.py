"""Two ranks against one: what they add and collect, and the update that they make together."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from groups import branch_of, completion_of, learnt_by, prompt_of, tree_of
from ranks import on_two_ranks

from grpo.parallel import world as world_module
from grpo.parallel.world import DistributedWorld, SoleWorld, World, join_world
from grpo.phases import PhaseClock
from grpo.policy.policy import Policy, PolicySettings
from grpo.recipe.sections import ModelSection, RolloutSection, UpdateSection
from grpo.records import Batch, Group, ScoredGroup
from rewards.records import Outcome, Score
from rewards.spec import RewardSpec

END = 0
MAX_NEW_TOKENS = 8
REWARDS = (RewardSpec(name="correctness"), RewardSpec(name="format", weight=0.3))


# Adding and collecting


def add_and_collect(world: World, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"rank": world.rank, "size": world.size}
    found["sum"] = world.sum([[1.0, 0.5, -3.0], [2.0**-40, 0.25, 3.0]][world.rank])
    found["sum of nothing"] = world.sum([])
    found["share"] = world.stride("abcdefg")
    found["gathered"] = [world.interleave(world.stride(list(range(length)))) for length in range(6)]
    found["kept"] = world.interleave(["a", None] if world.rank == 0 else [("b", {"c": 1.5})])

    both, one, neither = (torch.nn.Parameter(torch.full(shape, 9.0)) for shape in ((2, 2), (3,), (1,)))
    both.grad = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[10.0, 20.0], [30.0, -4.0]]][world.rank])
    if world.rank == 1:
        one.grad = torch.tensor([0.5, -0.5, 7.0])
    world.sum_gradients([both, one, neither])
    found["gradients"] = [parameter.grad.tolist() for parameter in (both, one, neither)]  # type: ignore[union-attr]
    found["weights"] = [parameter.tolist() for parameter in (both, one, neither)]

    found["one each"] = world.gather(f"from {world.rank}")
    found["on the first"] = world.gather(world.gather_on_first(world.rank))
    found["on the node"] = world.gather_on_node(f"from {world.local_rank}")
    found["the first's"] = world.broadcast(f"from {world.rank}")
    found["handed over"] = world.gather(world.exchange([f"{world.rank} to 0", ("x" * 5 * world.rank, {"to": 1})]))
    if world.rank == 0:
        time.sleep(0.3)
        (folder / "late").touch()
    world.barrier()
    world.node_barrier()
    found["waited"] = (folder / "late").exists()
    return found


def test_what_ranks_add_and_collect(tmp_path: Path) -> None:
    first, second = on_two_ranks(tmp_path / "ranks", add_and_collect, tmp_path)
    assert (first.pop("rank"), second.pop("rank")) == (0, 1)
    # Every second item, from the rank's own number on.
    assert (first.pop("share"), second.pop("share")) == (["a", "c", "e", "g"], ["b", "d", "f"])
    assert first == second
    assert first == {
        "size": 2,
        "sum": [1 + 2.0**-40, 0.75, 0.0],  # exact, so that it was not added in fp32
        "sum of nothing": [],
        "gathered": [list(range(length)) for length in range(6)],
        "kept": ["a", ("b", {"c": 1.5}), None],
        "one each": ["from 0", "from 1"],
        "on the first": [[0, 1], []],
        "on the node": ["from 0", "from 1"],
        "the first's": "from 0",
        "handed over": [["0 to 0", "1 to 0"], [("", {"to": 1}), ("xxxxx", {"to": 1})]],
        # 1 + 10, 2 + 20, 3 + 30, 4 - 4; a gradient that one rank lacks is the other's; one that both lack is zero.
        "gradients": [[[11.0, 22.0], [33.0, 0.0]], [0.5, -0.5, 7.0], [0.0]],
        "weights": [[[9.0, 9.0], [9.0, 9.0]], [9.0, 9.0, 9.0], [9.0]],
        "waited": True,
    }


# One update, made together


def scored(prompt: Sequence[int], *rewarded: tuple[Sequence[int], float]) -> ScoredGroup:
    """A group from each completion's ids and correctness, with a form that the longer ones have; the sampler's
    log-probs are made up."""
    completions = tuple(completion_of(ids) for ids, _ in rewarded)
    parts = [{"correctness": correctness, "format": float(len(ids) > 3)} for ids, correctness in rewarded]
    scores = tuple(Score(one["correctness"] + 0.3 * one["format"], one, Outcome.WRONG, None) for one in parts)
    group = Group(prompt_of(prompt), completions, version=0, position=0)
    return ScoredGroup(group, scores)


DEAD = scored((25, 26), ((50, 51, END), 0.1), ((52, END), 0.1))
UNEQUAL = (
    scored((20, 21, 22), ((30, 31, 37, 38, END), 1.0), ((32,), 0.0), ((33, 34, 35, 36, 39, 40), 0.25)),
    scored((23,), ((40, END), 0.0), ((41, END), 2.0)),
    scored((24, 25), ((42, 43, 44, 45, 46, END), 0.0), ((47, 48, 49, END), 0.3)),
    DEAD,
    scored((27, 28), ((60, 61, 62, END), 1.0), ((63, 64, 65, 66, END), 0.0)),
)
"""Pieces of at most 12 tokens: 9 and 9 of the first group, 5 of the second, 12 of the third and 11 of the last."""

ONE_RANK_IDLE = (DEAD, UNEQUAL[1], DEAD)
"""One micro-batch is all there is, so that rank 1 has nothing to do."""

STEPS: dict[str, tuple[ScoredGroup, ...]] = {"unequal": UNEQUAL, "one rank idle": ONE_RANK_IDLE}

CHANGES: dict[str, dict[str, object]] = {
    "token": {},
    "sequence": {"objective": "grpo", "advantage": "group_mean"},
    "constant": {"objective": "dr_grpo"},
    "two passes": {"inner_epochs": 2},
    "held norm": {"max_grad_norm": 0.05, "weight_decay": 0.5},
    "kl": {"kl_weight": 0.2},
    "kl in the reward": {"kl_weight": 0.2, "kl_in": "reward", "inner_epochs": 2, "reference_every": 1},
    "entropy": {"entropy_weight": 0.1},
    "parts": {"advantage": "gdpo"},
}


def make_policy(world: World, folder: Path, changes: dict[str, object]) -> Policy:
    """The rate is small, because AdamW divides a gradient near zero by its own size, and so blows its rounding up."""
    settings = PolicySettings(
        ModelSection(path=str(folder), compute="fp32"),
        UpdateSection(**({"lr": 5e-6, "max_grad_norm": 1e6, "tokens_per_micro_batch": 12} | changes)),  # type: ignore[arg-type]
        RolloutSection(prompts_per_step=4, group_size=2, max_new_tokens=MAX_NEW_TOKENS, dtype="float32"),
        steps=10,
    )
    return Policy(folder, settings, world, PhaseClock())


def batch_of(world: World, policy: Policy, groups: Sequence[ScoredGroup]) -> Batch:
    [batch] = learnt_by(policy, world, groups, REWARDS, MAX_NEW_TOKENS)
    return batch


def train(world: World, folder: Path, changes: dict[str, object], steps: Sequence[tuple[ScoredGroup, ...]]) -> Any:
    """Gradients as the optimiser gets them at the first step, metrics of each step, and the weights after all."""
    policy = make_policy(world, folder, changes)
    gradients: list[torch.Tensor] = []
    policy.optimiser.register_step_pre_hook(
        lambda *_: gradients.extend(parameter.grad.clone() for parameter in policy.network.model.parameters())  # type: ignore[misc]
    )
    rows, sizes = [], []
    for groups in steps:
        batch = batch_of(world, policy, groups)
        sizes.append([sum(tree.num_tokens for tree in trees) for trees in batch.micro_batches])
        rows.append(policy.update(batch))
    first = gradients[: len(list(policy.network.model.parameters()))]
    return {"sizes": sizes, "gradients": first, "rows": rows, "weights": weights_of(policy)}


def train_all(world: World, folder: Path) -> dict[tuple[str, str], Any]:
    return {
        (change, step): train(world, folder, changes, [groups] * 2)
        for change, changes in CHANGES.items()
        for step, groups in STEPS.items()
    }


def weights_of(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in policy.state_dict()["model"].items()}


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any]:
    """The same training by one rank, and by two."""
    alone = train_all(SoleWorld(torch.device("cpu")), tiny_model)
    together = on_two_ranks(tmp_path_factory.mktemp("update") / "ranks", train_all, tiny_model)
    return alone, together[0], together[1]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("change", CHANGES)
def test_two_ranks_learn_what_one_does(trained: tuple[Any, Any, Any], change: str, step: str) -> None:
    alone, first, second = (each[change, step] for each in trained)
    assert first["rows"] == second["rows"]
    for one, other in zip(first["rows"], alone["rows"], strict=True):
        assert one == pytest.approx(other, abs=1e-6)
    for one, other in zip(first["gradients"], alone["gradients"], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    for name, value in alone["weights"].items():
        assert torch.equal(first["weights"][name], second["weights"][name])
        torch.testing.assert_close(first["weights"][name], value, rtol=0, atol=1e-6)


def test_the_ranks_had_unequal_work(trained: tuple[Any, Any, Any]) -> None:
    """Without this the tests above would prove less than they say."""
    _, first, second = trained
    assert first["token", "unequal"]["sizes"] == [[12, 9, 5]] * 2
    assert second["token", "unequal"]["sizes"] == [[11, 9, 0]] * 2
    assert first["token", "one rank idle"]["sizes"] == [[5]] * 2
    assert second["token", "one rank idle"]["sizes"] == [[0]] * 2
    # With a KL term the dead groups have work to do too.
    assert second["kl", "one rank idle"]["sizes"] != [[0]] * 2


# Steps that no rank makes


def meet_infinity(world: World, folder: Path) -> dict[str, Any]:
    """A step, one on which rank 1 alone has a gradient that is not finite, and one without a signal anywhere."""
    policy = make_policy(world, folder, {"weight_decay": 0.5})
    policy.update(batch_of(world, policy, UNEQUAL))
    before = weights_of(policy)
    weight = [1.0, math.inf][world.rank]
    tree = tree_of((20, 21), branch_of((30, 31), -1.0, 1.0, weight), branch_of((32,), -1.0, -1.0))
    bad = policy.update(Batch(((tree,),), 3.0, has_signal=True))
    idle = policy.update(batch_of(world, policy, (DEAD, DEAD)))
    unmoved = all(torch.equal(value, before[name]) for name, value in weights_of(policy).items())
    bad_steps = policy.state_dict()["bad_steps"]
    good = policy.update(batch_of(world, policy, UNEQUAL))
    return {
        "skipped": [row["update/skipped"] for row in (bad, idle, good)],
        "norms are finite": [math.isfinite(row["update/grad_norm"]) for row in (bad, idle, good)],
        "unmoved": unmoved,
        "bad steps": bad_steps,
        "weights": weights_of(policy),
    }


def test_one_ranks_bad_gradient_is_skipped_by_all(tiny_model: Path, tmp_path: Path) -> None:
    first, second = on_two_ranks(tmp_path / "ranks", meet_infinity, tiny_model)
    weights = first.pop("weights"), second.pop("weights")
    assert first == second
    assert first == {
        "skipped": [1.0, 0.0, 0.0],
        "norms are finite": [False, True, True],
        "unmoved": True,
        "bad steps": 1,
    }
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert all(value.isfinite().all() for value in weights[0].values())


# The environment decides


def test_a_process_alone_is_a_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    world = join_world("cpu")
    assert isinstance(world, SoleWorld)
    assert (world.rank, world.size, world.device.type) == (0, 1, "cpu")
    assert world.sum([1.5, -2.0]) == [1.5, -2.0]
    assert world.interleave(world.stride([4, 5, 6])) == [4, 5, 6]
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([1.0, 2.0])
    world.sum_gradients([parameter])
    assert parameter.grad.tolist() == [1.0, 2.0]


# How ranks meet


class Recorder:
    """Stands for `torch.distributed`: remembers what it was asked, and gives nothing back."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.distributed_c10d = self
        self.nodes = [("one", ""), ("one", ""), ("two", ""), ("two", "")]

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def record(*arguments: Any, **options: Any) -> Any:
            self.calls.append((name, arguments, options))
            if name == "all_gather_object":
                arguments[0][:] = self.nodes
            return f"group {len(self.calls)}"

        return record

    def options_of(self, name: str) -> list[dict[str, Any]]:
        return [options for called, _, options in self.calls if called == name]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """The second of four ranks, two of which are on each node."""
    for name, value in {"RANK": "1", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("GROUP_RANK", raising=False)
    monkeypatch.setattr("platform.node", lambda: "one")
    recorder = Recorder()
    monkeypatch.setattr(world_module, "distributed", recorder)
    return recorder


def test_every_wait_but_for_gradients_is_over_gloo_and_bounded(recorded: Recorder) -> None:
    """NCCL's own limit, ten minutes, would hold for all that the first rank does alone."""
    device, limit = torch.device("cuda", 1), timedelta(seconds=77)
    world = DistributedWorld(device, timeout_s=77)
    [(_, (backend,), joined)] = [call for call in recorded.calls if call[0] == "init_process_group"]
    assert (backend, joined) == ("nccl", {"timeout": limit, "device_id": device})
    groups = recorded.options_of("new_group")
    assert len(groups) == 3  # for objects, and one for each node
    assert all(group["backend"] == "gloo" and group["timeout"] == limit for group in groups)
    recorded.calls.clear()
    world.barrier()
    world.node_barrier()
    world.sum([1.0])
    world.gather("x")
    world.gather_on_first("x")
    world.broadcast("x")
    assert len(recorded.calls) == 6
    objects, node = "group 2", "group 4"
    assert [options["group"] for _, _, options in recorded.calls] == [objects, node, *[objects] * 4]


@pytest.mark.parametrize(
    ("nodes", "place"),
    [
        ([("one", ""), ("one", ""), ("two", ""), ("two", "")], (1, 2)),
        ([("zero", ""), ("one", ""), ("one", ""), ("one", "")], (0, 3)),
        ([("one", "0"), ("one", "1"), ("one", "1"), ("one", "0")], (0, 2)),
        ([("two", ""), ("one", ""), ("two", ""), ("two", "")], (0, 1)),
    ],
)
def test_a_rank_knows_its_place_on_its_node(
    nodes: list[tuple[str, str]], place: tuple[int, int], recorded: Recorder
) -> None:
    """Whatever the launcher says of it, and however many ranks the other nodes have."""
    recorded.nodes = nodes
    world = DistributedWorld(torch.device("cpu"))
    assert (world.local_rank, world.local_size) == place
    members = [arguments[0] for name, arguments, _ in recorded.calls if name == "new_group" and arguments]
    assert sorted(rank for ranks in members for rank in ranks) == [0, 1, 2, 3]


def test_after_an_error_the_groups_are_aborted_and_nobody_is_waited_for(recorded: Recorder) -> None:
    with pytest.raises(RuntimeError, match="on purpose"), DistributedWorld(torch.device("cpu")):
        raise RuntimeError("on purpose")
    assert recorded.options_of("_abort_process_group")
    assert not recorded.options_of("destroy_process_group")


def test_at_the_end_the_groups_are_destroyed(recorded: Recorder) -> None:
    with DistributedWorld(torch.device("cpu")):
        pass
    assert recorded.options_of("destroy_process_group")
    assert not recorded.options_of("_abort_process_group")


def fail_or_wait(world: World) -> str:
    """One rank fails while the other one waits for it."""
    if world.rank == 1:
        os._exit(3)
    began = time.monotonic()
    try:
        world.barrier()
    except RuntimeError:
        return f"noticed {time.monotonic() - began < 20}"
    return "not noticed"


def test_a_rank_that_is_gone_is_noticed_in_seconds(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"exit codes of the ranks"):
        on_two_ranks(tmp_path / "ranks", fail_or_wait)
    assert torch.load(tmp_path / "ranks" / "0.pt", weights_only=False) == "noticed True"
