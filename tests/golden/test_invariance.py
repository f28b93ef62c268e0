"""What must not matter does not: packing, padding, cutting, order, ranks and chunks, each to 1e-6 in fp32.

That is 1e-6 of the largest: log-probs reach 6, where fp32 itself has no more than 5e-7, and gradients 0.4. Each
weight's gradient is also held to 1e-5 of its own largest entry, so that none is small enough to hide a fault.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from groups import learnt_by
from small import ARCHITECTURES, CPU, MAX_NEW_TOKENS, alone, make_policy, random_trees, save_model, scored_groups
from torch import Tensor

from grpo.batching.pack import pack
from grpo.bench.padded import padded_logprobs
from grpo.model import network
from grpo.model.attention import tree_by_tree
from grpo.model.logprobs import token_logprobs
from grpo.model.network import Network
from grpo.parallel.world import SoleWorld
from grpo.policy.policy import Policy
from grpo.records import PromptTree, ScoredGroup
from rewards.spec import RewardSpec

TOLERANCE = 1e-6
REWARDS = (RewardSpec(name="correctness"),)
SHAPES = ["llama", "qwen2", "qwen3", "gemma", "gemma3"]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    folders = {name: root / name for name in ARCHITECTURES}
    for name, folder in folders.items():
        save_model(name, folder)
    return folders


@pytest.fixture(params=SHAPES)
def folder(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Path:
    """A model of each of the shapes."""
    return folders[request.param]


def plain_model(folder: Path) -> Any:
    """As transformers loads it, with its own attention."""
    return ARCHITECTURES[folder.name][0].from_pretrained(folder, dtype=torch.float32).eval()


def assert_close(found: Tensor, expected: Tensor, largest: float | None = None, tolerance: float = TOLERANCE) -> None:
    if largest is None:
        largest = float(expected.detach().abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * largest)


def assert_same_gradients(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    largest = max(float(one.abs().max()) for one in expected)
    assert largest > 0.01
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, largest)
        assert_close(one, other, tolerance=1e-5)


# Log-probs and entropies


def values_and_gradients(
    compute: Callable[[], tuple[Tensor, Tensor]], model: Any
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Log-probs, entropies, and the gradient when each of them is pulled by another amount."""
    logps, entropies = compute()
    draw = torch.Generator().manual_seed(2)
    by_logp, by_entropy = torch.randn(2, len(logps), generator=draw) / len(logps)
    (logps * by_logp + entropies * by_entropy).sum().backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad(set_to_none=True)
    return logps.detach(), entropies.detach(), gradients


def assert_same(found: tuple[Tensor, Tensor, list[Tensor]], expected: tuple[Tensor, Tensor, list[Tensor]]) -> None:
    assert_close(found[0], expected[0])
    assert_close(found[1], expected[1])
    assert_same_gradients(found[2], expected[2])


def policy_values(folder: Path, trees: Sequence[PromptTree], temperature: float) -> tuple[Tensor, Tensor, list[Tensor]]:
    policy = make_policy(folder)
    compute = partial(policy.network.logprobs, pack(trees, CPU), temperature, entropy=True)
    return values_and_gradients(compute, policy.network.model)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("temperature", [1.0, 0.8])
def test_packed_is_padded_is_alone(name: str, temperature: float, folders: dict[str, Path]) -> None:
    trees, model = random_trees(), plain_model(folders[name])
    packed = policy_values(folders[name], trees, temperature)
    padded = values_and_gradients(partial(padded_logprobs, model, trees, temperature, entropy_gradient=True), model)
    by_itself = values_and_gradients(partial(alone, model, trees, temperature), model)
    assert_same(packed, by_itself)
    assert_same(padded, by_itself)
    assert_same(packed, padded)


def test_a_shared_prompt_is_a_repeated_one(folder: Path) -> None:
    trees = random_trees()
    repeated = [PromptTree(tree.prompt_ids, (one,)) for tree in trees for one in tree.branches]
    assert_same(policy_values(folder, repeated, 0.8), policy_values(folder, trees, 0.8))


@pytest.mark.parametrize("plain_keys", [0, 8])
def test_the_fused_kernel_is_the_plain_one(folder: Path, plain_keys: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = policy_values(folder, random_trees(), 0.8)
    monkeypatch.setattr(tree_by_tree, "MAX_PLAIN_KEYS", plain_keys)
    assert_same(policy_values(folder, random_trees(), 0.8), expected)


@pytest.mark.parametrize("saved_bytes", [0, 2000, 2**30])
@pytest.mark.parametrize("chunk_tokens", [1, 7, 512])
def test_chunks_are_full_logits(
    chunk_tokens: int, saved_bytes: int, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    trees, model = random_trees(), plain_model(folders["qwen2"])
    chunked = partial(token_logprobs, chunk_tokens=chunk_tokens, saved_bytes=saved_bytes)
    monkeypatch.setattr(network, "token_logprobs", chunked)
    padded = values_and_gradients(partial(padded_logprobs, model, trees, 0.8, entropy_gradient=True), model)
    assert_same(policy_values(folders["qwen2"], trees, 0.8), padded)


def test_recomputed_activations_are_the_same(folder: Path) -> None:
    expected = policy_values(folder, random_trees(), 0.8)
    policy = make_policy(folder)
    policy.network.recompute_activations()
    found = values_and_gradients(
        partial(policy.network.logprobs, pack(random_trees(), CPU), 0.8, entropy=True), policy.network.model
    )
    assert_same(found, expected)


# The gradient of a step, from credited_groups to what the optimiser is handed

CHANGES: dict[str, dict[str, object]] = {
    "dapo": {},
    "grpo": {"objective": "grpo"},
    "dr_grpo": {"objective": "dr_grpo"},
    "kl": {"kl_weight": 0.3},
    "entropy": {"entropy_weight": 0.3},
}


CASES = [*((shape, "dapo") for shape in SHAPES), *(("qwen2", change) for change in CHANGES if change != "dapo")]
on_all = pytest.mark.parametrize(("shape", "change"), CASES)
"""Each shape, and each change with one of them."""


class OneOf(SoleWorld):
    """One rank of several, alone: it remembers the gradient that it would have added to the others'."""

    def __init__(self, rank: int, size: int) -> None:
        super().__init__(CPU)
        self.rank, self.size = rank, size
        self.gradients: list[Tensor] = []

    def stride(self, items: Sequence[Any]) -> list[Any]:
        return list(items[self.rank :: self.size])

    def sum_gradients(self, parameters: Any) -> None:
        parameters = list(parameters)
        self.gradients = [
            torch.zeros_like(one) if one.grad is None else one.grad.detach().clone() for one in parameters
        ]


def moved_policy(folder: Path, world: OneOf, temperature: float, changes: dict[str, object]) -> Policy:
    """Away from its reference, so that a KL has a gradient."""
    policy = make_policy(folder, world=world, temperature=temperature, **changes)
    draw = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in policy.network.model.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=draw)
    return policy


def step_gradient(
    folder: Path,
    groups: Sequence[ScoredGroup],
    *,
    num_ranks: int = 1,
    temperature: float = 0.8,
    **changes: object,
) -> list[Tensor]:
    """The sum over ranks."""
    totals: list[Tensor] = []
    for rank in range(num_ranks):
        world = OneOf(rank, num_ranks)
        policy = moved_policy(folder, world, temperature, changes)
        policy.update(*learnt_by(policy, world, groups, REWARDS, MAX_NEW_TOKENS))
        totals = [sum(pair) for pair in zip(totals, world.gradients, strict=True)] if totals else world.gradients  # type: ignore[misc]
    return totals


@on_all
def test_a_step_is_full_logits_over_padded_rows(shape: str, change: str, folders: dict[str, Path]) -> None:
    """The gradient of one micro-batch, written out: at ratio 1 it is that of -weight x advantage x log-prob."""
    groups, changes = scored_groups(3), CHANGES[change]
    policy = moved_policy(folders[shape], OneOf(0, 1), 0.8, changes)
    update = policy.settings.update
    [batch] = learnt_by(policy, SoleWorld(CPU), groups, REWARDS, MAX_NEW_TOKENS)
    [trees] = batch.micro_batches
    model, reference = plain_model(folders[shape]), plain_model(folders[shape])
    model.load_state_dict(policy.network.model.state_dict())
    logps, entropies = padded_logprobs(model, trees, 0.8, entropy_gradient=True)
    with torch.no_grad():
        ref_logps, _ = padded_logprobs(reference, trees, 0.8)
    packed = pack(trees, CPU)
    terms = -packed.advantages * logps - update.entropy_weight * entropies
    terms = terms + update.kl_weight * (torch.exp(ref_logps - logps) - (ref_logps - logps) - 1)
    (packed.weights * terms / batch.denominator).sum().backward()
    expected = [parameter.grad for parameter in model.parameters()]
    assert_same_gradients(step_gradient(folders[shape], groups, **changes), expected)


@on_all
def test_one_micro_batch_is_many(shape: str, change: str, folders: dict[str, Path]) -> None:
    expected = step_gradient(folders[shape], scored_groups(3), **CHANGES[change])
    for budget in (20, 26, 60):
        found = step_gradient(folders[shape], scored_groups(3), tokens_per_micro_batch=budget, **CHANGES[change])
        assert_same_gradients(found, expected)


@on_all
@pytest.mark.parametrize("num_ranks", [2, 4])
def test_several_ranks_are_one(num_ranks: int, shape: str, change: str, folders: dict[str, Path]) -> None:
    """With a budget that cuts the step into several micro-batches, and with one that leaves some ranks idle."""
    expected = step_gradient(folders[shape], scored_groups(3), **CHANGES[change])
    for budget in (20, 4096):
        sizes = {"num_ranks": num_ranks, "tokens_per_micro_batch": budget}
        assert_same_gradients(step_gradient(folders[shape], scored_groups(3), **sizes, **CHANGES[change]), expected)


def turned(group: ScoredGroup) -> ScoredGroup:
    """The same group with its completions in the opposite order."""
    written = dataclasses.replace(group.group, completions=group.group.completions[::-1])
    return ScoredGroup(written, group.scores[::-1])


@on_all
def test_order_does_not_matter(shape: str, change: str, folders: dict[str, Path]) -> None:
    groups = scored_groups(3)
    expected = step_gradient(folders[shape], groups, **CHANGES[change])
    for other in (groups[::-1], [turned(group) for group in groups]):
        assert_same_gradients(step_gradient(folders[shape], other, **CHANGES[change]), expected)


@pytest.mark.parametrize(("shape", "change"), [case for case in CASES if case[1] not in ("kl", "entropy")])
def test_what_teaches_nothing_may_be_left_out(shape: str, change: str, folders: dict[str, Path]) -> None:
    """With a weight for the KL of next to nothing everything is kept; the gradient is that of what is left."""
    groups = scored_groups(3)
    [without] = learnt_by(make_policy(folders[shape]), SoleWorld(CPU), groups, REWARDS, MAX_NEW_TOKENS)
    assert sum(len(tree.branches) for trees in without.micro_batches for tree in trees) == 8
    expected = step_gradient(folders[shape], groups, **CHANGES[change])
    found = step_gradient(folders[shape], groups, **CHANGES[change], kl_weight=1e-30)
    assert_same_gradients(found, expected)


def test_a_temperature_divides_the_logits(folder: Path) -> None:
    """A head of its own whose weights are divided by it is as good."""
    expected = policy_values(folder, random_trees(), 0.8)
    policy = make_policy(folder)
    head = policy.network.model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach() / 0.8)
    found = values_and_gradients(
        partial(policy.network.logprobs, pack(random_trees(), CPU), 1.0, entropy=True), policy.network.model
    )
    assert_close(found[0], expected[0])
    assert_close(found[1], expected[1])


def test_the_reference_is_the_same_network(folder: Path) -> None:
    """Frozen, and in the type that it computes in, it gives what the policy gave at first, to the bit."""
    policy = make_policy(folder, kl_weight=0.1)
    packed = pack(random_trees(), CPU)
    assert isinstance(policy.reference, Network)
    with torch.no_grad():
        expected, _ = policy.network.logprobs(packed, 0.8)
    assert torch.equal(policy.reference.logprobs(packed, 0.8)[0], expected)
