"""The update on a GPU against the update on a CPU, which tests/golden holds to what is written out by hand."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from groups import branch_of, learnt_by, tree_of
from small import ARCHITECTURES, MAX_NEW_TOKENS, SIZES, make_policy, scored_groups
from torch import Tensor

from grpo.batching.pack import TreeShape, pack
from grpo.bench.padded import padded_logprobs
from grpo.model.attention.cpu_trees import CpuTreeAttention
from grpo.model.attention.flex_trees import FlexTreeAttention
from grpo.model.network import Network
from grpo.parallel.world import SoleWorld
from grpo.policy.policy import Policy
from grpo.recipe.sections import ModelSection
from grpo.records import Branch, PromptTree
from rewards.spec import RewardSpec

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]

GPU = torch.device("cuda")
REWARDS = (RewardSpec(name="correctness"),)
FORESTS: list[list[tuple[int, tuple[int, ...]]]] = [
    [(5, (3,))],
    [(6, (0, 0, 0))],
    [(40, (1, 70, 30, 20)), (1, (0, 2)), (2, (0, 0)), (90, (50,)), (130, (60, 0, 260))],
    [(300, (200, 129, 128, 127))],
]
"""A prompt's length, and those of its branches: less than one of FlexAttention's blocks, and several."""


def shapes_of(forest: Sequence[tuple[int, tuple[int, ...]]]) -> list[TreeShape]:
    starts = itertools.accumulate((prompt + sum(branches) for prompt, branches in forest), initial=0)
    return [TreeShape(start, *tree) for start, tree in zip(starts, forest, strict=False)]


def random_states(num_tokens: int, num_heads: int, num_kv: int, size: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(5)
    return [torch.randn(1, heads, num_tokens, size, generator=draw) for heads in (num_heads, num_kv, num_kv)]


@pytest.mark.parametrize(("num_heads", "num_kv", "size"), [(4, 4, 32), (4, 2, 64), (4, 1, 128), (14, 2, 64)])
@pytest.mark.parametrize("forest", FORESTS, ids=str)
def test_flex_trees_are_tree_by_tree(
    forest: list[tuple[int, tuple[int, ...]]], num_heads: int, num_kv: int, size: int
) -> None:
    """Outputs and gradients in fp32, which is not TF32: to 1e-5 of the largest."""
    shapes = shapes_of(forest)
    states = random_states(shapes[-1].stop, num_heads, num_kv, size)
    exact = [one.double().requires_grad_() for one in states]
    there = [one.to(GPU).requires_grad_() for one in states]
    expected = CpuTreeAttention(shapes)(*exact, 0.2)
    found = FlexTreeAttention(shapes, GPU)(*there, 0.2)
    pull = torch.randn(expected.shape, generator=torch.Generator().manual_seed(6))
    (expected * pull).sum().backward()
    (found * pull.to(GPU)).sum().backward()
    for one, other in zip([found, *(one.grad for one in there)], [expected, *(one.grad for one in exact)], strict=True):
        assert one is not None
        assert other is not None
        largest = float(other.detach().abs().max())
        torch.testing.assert_close(one.detach().cpu().double(), other.detach(), rtol=0, atol=1e-5 * largest)


def test_new_shapes_need_no_new_kernels() -> None:
    """Beyond torch's limit on recompilations the scores would be held whole, without a word."""
    from torch._dynamo.utils import counters

    draw = torch.Generator().manual_seed(3)
    num_graphs = []
    for _ in range(24):
        lengths = torch.randint(1, 150, (3, 4), generator=draw).tolist()
        shapes = shapes_of([(prompt, tuple(branches)) for prompt, *branches in lengths])
        there = [one.to(GPU).requires_grad_() for one in random_states(shapes[-1].stop, 4, 2, 64)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            FlexTreeAttention(shapes, GPU)(*there, 0.2).sum().backward()
        num_graphs.append(counters["stats"]["unique_graphs"])
    assert num_graphs[-1] == num_graphs[8]


# Log-probs of whole models

LARGER = SIZES | {"hidden_size": 128, "head_dim": 32, "intermediate_size": 256}
"""Heads of the size that FlexAttention's kernel needs."""


@cache
def folder_of(name: str, root: Path) -> Path:
    kind, small = ARCHITECTURES[name]
    torch.manual_seed(1)
    kind(type(small)(**LARGER)).save_pretrained(root / name)
    return root / name


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def random_trees() -> list[PromptTree]:
    """About a thousand tokens in nine completions."""
    draw = torch.Generator().manual_seed(11)

    def tokens(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(1, 61, (length,), generator=draw).tolist())

    def branch(length: int) -> Branch:
        return branch_of(tokens(length))

    shapes = [(60, (90, 1, 130)), (7, (33, 60, 128)), (140, (1, 100, 20))]
    return [tree_of(tokens(prompt), *(branch(length) for length in lengths)) for prompt, lengths in shapes]


def values_and_gradients(model: Any, logps: Tensor, entropies: Tensor) -> list[Tensor]:
    """In fp64 and on the CPU: log-probs, entropies, and the gradient when each is pulled by another amount."""
    by_logp, by_entropy = torch.randn(2, len(logps), generator=torch.Generator().manual_seed(2)).to(logps.device)
    model.zero_grad()
    ((logps * by_logp + entropies * by_entropy).sum() / len(logps)).backward()
    gradients = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    return [one.detach().cpu().double() for one in (logps, entropies, gradients)]


def packed_on_gpu(folder: Path, compute: str) -> list[Tensor]:
    network = Network(folder, ModelSection(path=str(folder), compute=compute), torch.float32, GPU)  # type: ignore[arg-type]
    return values_and_gradients(network.model, *network.logprobs(pack(random_trees(), GPU), 0.8, entropy=True))


def padded(name: str, folder: Path, device: torch.device, compute: str) -> list[Tensor]:
    model = ARCHITECTURES[name][0].from_pretrained(folder, dtype=torch.float32).to(device).eval()
    with torch.autocast(device.type, torch.bfloat16, enabled=compute == "bf16"):
        logps, entropies = padded_logprobs(model, random_trees(), 0.8, entropy_gradient=True)
    return values_and_gradients(model, logps, entropies)


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gemma", "gemma3"])
def test_packed_in_fp32_is_padded_on_a_cpu(name: str, root: Path) -> None:
    """To 1e-5 of the largest: two devices, two orders of every sum."""
    folder = folder_of(name, root)
    expected = padded(name, folder, torch.device("cpu"), "fp32")
    for one, other in zip(packed_on_gpu(folder, "fp32"), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * float(other.abs().max()))


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gemma", "gemma3"])
def test_packed_in_bf16_is_as_near_the_truth_as_padded(name: str, root: Path) -> None:
    """Both are off by the rounding of bf16, the packed way by not half as much again, root mean square."""
    folder = folder_of(name, root)
    truth = padded(name, folder, torch.device("cpu"), "fp32")
    plain = padded(name, folder, GPU, "bf16")
    for found, other, true in zip(packed_on_gpu(folder, "bf16"), plain, truth, strict=True):
        assert float((found - true).square().mean().sqrt()) < 1.5 * float((other - true).square().mean().sqrt())


# A whole update


def trained(folder: Path, device: torch.device, compute: str, num_steps: int) -> tuple[Policy, list[dict[str, float]]]:
    settings: dict[str, Any] = {"inner_epochs": 2, "kl_weight": 0.05, "entropy_weight": 0.01, "lr": 1e-4}
    policy = make_policy(folder, world=SoleWorld(device), temperature=0.8, compute=compute, **settings)
    rows = []
    for step in range(num_steps):
        rows.append(policy.update(*learnt_by(policy, SoleWorld(device), scored_groups(step), REWARDS, MAX_NEW_TOKENS)))
    return policy, rows


def test_an_update_in_fp32_is_that_of_a_cpu(root: Path) -> None:
    folder = folder_of("qwen2", root)
    _, expected = trained(folder, torch.device("cpu"), "fp32", 3)
    policy, found = trained(folder, GPU, "fp32", 3)
    assert {parameter.device.type for parameter in policy.network.model.parameters()} == {"cuda"}
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5)


def test_an_update_in_bf16_is_near_it(root: Path) -> None:
    folder = folder_of("qwen2", root)
    _, expected = trained(folder, torch.device("cpu"), "fp32", 1)
    policy, found = trained(folder, GPU, "bf16", 1)
    assert {parameter.dtype for parameter in policy.network.model.parameters()} == {torch.float32}
    for name in ("update/loss", "update/grad_norm", "update/entropy_nats"):
        assert found[0][name] == pytest.approx(expected[0][name], rel=0.05)
    assert found[0]["update/skipped"] == 0
