"""The update on a GPU against the update on a CPU, which tests/golden holds to what is written out by hand."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from forests import Forest, random_forest, random_states, shapes_of
from groups import branch_of, learnt_by, tree_of
from small import ARCHITECTURES, MAX_NEW_TOKENS, SIZES, make_policy, scored_groups
from torch import Tensor

from grpo.batching.pack import pack
from grpo.bench.padded import padded_logprobs
from grpo.errors import UserError
from grpo.model import compilation, products
from grpo.model.attention import flex_trees
from grpo.model.attention.flex_trees import FlexTreeAttention
from grpo.model.attention.tree_by_tree import TreeByTreeAttention
from grpo.model.logprobs import token_logprobs
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

CPU, GPU = torch.device("cpu"), torch.device("cuda")
REWARDS = (RewardSpec(name="correctness"),)
FORESTS: list[Forest] = [
    [(5, (3,))],
    [(6, (0, 0, 0))],
    [(40, (1, 70, 30, 20)), (1, (0, 2)), (2, (0, 0)), (90, (50,)), (130, (60, 0, 260))],
    [(300, (200, 129, 128, 127))],
]
"""Less than one of FlexAttention's blocks, and several."""
WAYS = {"flex": FlexTreeAttention, "tree_by_tree": TreeByTreeAttention}


@pytest.mark.parametrize(("num_heads", "num_kv", "size"), [(4, 2, 64), (4, 1, 128), (14, 2, 64)])
@pytest.mark.parametrize("forest", FORESTS, ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_attention_is_that_of_a_cpu(way: str, forest: Forest, num_heads: int, num_kv: int, size: int) -> None:
    """Outputs and gradients in fp32, which is not TF32: to 1e-5 of the largest."""
    shapes = shapes_of(forest)
    exact = random_states(shapes[-1].stop, num_heads, num_kv, size, torch.float64)
    there = [one.detach().float().to(GPU).requires_grad_() for one in exact]
    expected = TreeByTreeAttention(shapes, CPU)(*exact, 0.2)
    found = WAYS[way](shapes, GPU)(*there, 0.2)
    pull = torch.randn(expected.shape, generator=torch.Generator().manual_seed(6))
    (expected * pull).sum().backward()
    (found * pull.to(GPU)).sum().backward()
    for one, other in zip([found, *(one.grad for one in there)], [expected, *(one.grad for one in exact)], strict=True):
        assert one is not None
        assert other is not None
        largest = float(other.detach().abs().max())
        torch.testing.assert_close(one.detach().cpu().double(), other.detach(), rtol=0, atol=1e-5 * largest)


@pytest.fixture
def forgotten() -> Iterator[None]:
    """FlexAttention as if it had never been compiled in this process."""
    torch.compiler.reset()
    flex_trees.compiled_attention.cache_clear()
    yield
    torch.compiler.reset()
    flex_trees.compiled_attention.cache_clear()


def states_there(num_tokens: int) -> list[Tensor]:
    """In bf16, with a gradient."""
    states = random_states(num_tokens, 4, 2, 64, torch.bfloat16)
    return [one.detach().to(GPU).requires_grad_() for one in states]


@pytest.mark.usefixtures("forgotten")
def test_new_lengths_need_no_new_kernels() -> None:
    """40 forests of all lengths. That torch counts no new graph does not show it: it counts none either when, at its
    limit, it goes on with what is not compiled. So the count must stay far below the limit, and the memory below that
    of the scores of all pairs of tokens."""
    from torch._dynamo.utils import counters

    draw = torch.Generator().manual_seed(3)
    before = counters["stats"]["unique_graphs"]
    for number in range(40):
        shapes = shapes_of(random_forest(draw, 1 + number % 3, 4, 10 if number % 4 == 3 else 300))
        FlexTreeAttention(shapes, GPU)(*states_there(shapes[-1].stop), 0.2).sum().backward()
    assert counters["stats"]["unique_graphs"] - before <= 6 < compilation.RECOMPILE_LIMIT
    assert peak_bytes_of_attention() < 256 * 2**20


def peak_bytes_of_attention() -> int:
    """What forward and backward pass over 8,192 tokens in 4 heads need. Their scores in bf16 alone are 512 MiB."""
    there = states_there(8192)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    FlexTreeAttention(shapes_of([(1024, (1792, 1792, 1792, 1792))]), GPU)(*there, 0.2).sum().backward()
    return torch.cuda.max_memory_allocated() - held


@pytest.mark.usefixtures("forgotten")
def test_beyond_the_limit_it_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """And does not hold the scores of all pairs, as torch would."""
    monkeypatch.setattr(compilation, "RECOMPILE_LIMIT", 1)
    with torch._dynamo.config.patch(recompile_limit=1):
        FlexTreeAttention(shapes_of([(300, (200,))]), GPU)(*states_there(500), 0.2)
        with pytest.raises(UserError, match="tree_by_tree"):
            FlexTreeAttention(shapes_of([(3, (2,))]), GPU)(*states_there(5), 0.2)


# The output head


def test_logits_are_not_rounded() -> None:
    """Products of bf16 in fp32: log-probs to 1e-4 of what fp64 makes of the same numbers, in bf16 a hundredth."""
    assert products.has_wide_products("cuda", torch.bfloat16)
    draw = torch.Generator().manual_seed(3)
    head = torch.nn.Linear(256, 1000, bias=False)
    head.weight = torch.nn.Parameter(torch.randn(1000, 256, generator=draw).bfloat16().float())
    hidden = torch.randn(600, 256, generator=draw).bfloat16().float()
    targets = torch.randint(1000, (600,), generator=draw)
    logits = hidden.double() @ head.weight.detach().double().T
    expected = logits.log_softmax(-1)[torch.arange(600), targets]
    head.to(GPU)
    with torch.autocast("cuda", torch.bfloat16):
        logps, _ = token_logprobs(hidden.to(GPU), targets.to(GPU), head)
    torch.testing.assert_close(logps.detach().cpu().double(), expected, rtol=0, atol=1e-4)
    logps.sum().backward()
    slopes = torch.nn.functional.one_hot(targets, 1000) - logits.softmax(-1)
    truth = slopes.T @ hidden.double()
    assert head.weight.grad is not None
    # Only the slopes are rounded, each to 8 bits: one part in 512 of each of 600 terms.
    torch.testing.assert_close(head.weight.grad.cpu().double(), truth, rtol=0, atol=2e-3 * float(truth.abs().max()))


@pytest.mark.parametrize("attention", ["flex", "tree_by_tree"])
def test_a_micro_batch_waits_for_nothing(attention: str, root: Path) -> None:
    """Forward and backward pass without one synchronisation of host and device."""
    settings = ModelSection(path="x", attention=attention)  # type: ignore[arg-type]
    network = Network(folder_of("qwen2", root), settings, torch.float32, GPU)
    for synchronises in ("default", "error"):  # the first compiles, and finds out what the device has
        torch.cuda.set_sync_debug_mode(synchronises)
        try:
            logps, _ = network.logprobs(pack(random_trees(), GPU), 0.8)
            torch.autograd.backward([logps], [torch.ones_like(logps)])
        finally:
            torch.cuda.set_sync_debug_mode("default")


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


def packed_on_gpu(folder: Path, compute: str, attention: str = "auto") -> list[Tensor]:
    settings = ModelSection(path=str(folder), compute=compute, attention=attention)  # type: ignore[arg-type]
    network = Network(folder, settings, torch.float32, GPU)
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
    expected = padded(name, folder, CPU, "fp32")
    for attention in WAYS:
        for one, other in zip(packed_on_gpu(folder, "fp32", attention), expected, strict=True):
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
