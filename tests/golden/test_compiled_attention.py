"""FlexAttention is compiled for lengths of every size, and never runs without being compiled.

On a CPU torch compiles its forward pass for the `aot_eager` backend, which traces and guards as on a GPU, and leaves
out only the kernel. tests/gpu has the kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from forests import random_forest, random_states, shapes_of
from small import random_trees, save_model
from torch import Tensor

from grpo.batching.pack import pack
from grpo.errors import UserError
from grpo.model import compilation
from grpo.model.attention import flex_trees, register
from grpo.model.attention.flex_trees import FlexTreeAttention
from grpo.model.attention.register import choose_attention, fallback_note
from grpo.model.attention.tree_by_tree import TreeByTreeAttention
from grpo.model.network import Network
from grpo.recipe.sections import ModelSection

CPU, GPU = torch.device("cpu"), torch.device("cuda")
NUM_SHAPES = 20


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What is compiled here is of no use to other tests, and theirs is not to be counted here."""
    torch.compiler.reset()
    flex_trees.compiled_attention.cache_clear()
    yield
    torch.compiler.reset()
    flex_trees.compiled_attention.cache_clear()


def num_graphs() -> int:
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def both(seed: int, longest: int) -> tuple[Tensor, Tensor]:
    """FlexAttention, compiled, and the same tree by tree, of a random forest."""
    shapes = shapes_of(random_forest(torch.Generator().manual_seed(seed), 2, 3, longest))
    states = [one.detach() for one in random_states(shapes[-1].stop, 4, 2, 16, torch.float32)]
    with torch.no_grad():
        found = FlexTreeAttention(shapes, CPU, backend="aot_eager")(*states, 0.3)
        return found, TreeByTreeAttention(shapes, CPU)(*states, 0.3)


def test_new_lengths_are_not_compiled_anew() -> None:
    """One graph for sequences of one block, one for longer ones, whatever their length; and one more of either where
    there happened to be as many blocks as heads when it was compiled, which torch then takes for the same number."""
    before = num_graphs()
    for seed in range(NUM_SHAPES):
        found, expected = both(seed, longest=10 if seed % 4 == 3 else 100)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert 1 <= num_graphs() - before <= 4


def test_beyond_the_limit_it_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own way is to go on with what is not compiled, which holds all pairs of tokens."""
    monkeypatch.setattr(compilation, "RECOMPILE_LIMIT", 1)
    both(0, longest=100)
    with pytest.raises(UserError, match=r"(?s)model\.attention.*FlexAttention.*tree_by_tree"):
        both(1, longest=10)


def test_what_cannot_be_compiled_says_so() -> None:
    shapes = shapes_of([(3, (2,))])
    states = [one.detach() for one in random_states(5, 2, 1, 16, torch.float32)]
    with pytest.raises(UserError, match=r"(?s)model\.attention.*no_such_backend.*set it to tree_by_tree"):
        FlexTreeAttention(shapes, CPU, backend="no_such_backend")(*states, 1.0)


def test_the_limit_is_raised() -> None:
    """Where torch takes it with the function, it holds in every thread; else it is in the configuration."""
    options = compilation.compile_options()
    limit = options.get("recompile_limit") or torch._dynamo.config.recompile_limit
    assert limit == compilation.RECOMPILE_LIMIT > 8


def test_the_limit_is_raised_in_an_older_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation.inspect, "signature", lambda function: compilation.inspect.Signature())
    with torch._dynamo.config.patch(recompile_limit=8):
        assert compilation.compile_options() == {}
        assert torch._dynamo.config.recompile_limit == compilation.RECOMPILE_LIMIT


def test_queries_in_fp32_meet_values_in_bf16() -> None:
    """Under autocast rotary embeddings leave queries and keys in fp32; FlexAttention refuses to mix."""
    shapes = shapes_of([(60, (30, 70))])
    queries, keys, values = (one.detach() for one in random_states(160, 4, 2, 16, torch.float32))
    for backend in (None, "aot_eager"):
        with torch.no_grad():
            output = FlexTreeAttention(shapes, CPU, backend)(queries, keys, values.bfloat16(), 0.3)
        assert output.dtype is torch.bfloat16
        expected = TreeByTreeAttention(shapes, CPU)(queries, keys, values, 0.3)
        torch.testing.assert_close(output.float(), expected, rtol=0, atol=0.05)


def test_inside_a_compiled_layer_it_is_compiled_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`model.compile` on a GPU: no graph of its own, and none for a new length."""
    save_model("qwen3", tmp_path)
    plain, compiled = (
        Network(tmp_path, ModelSection(path=str(tmp_path), compute="fp32"), torch.float32, CPU) for _ in range(2)
    )
    for layer in compiled.model.base_model.layers:
        layer.compile(dynamic=True, backend="aot_eager", **compilation.compile_options())
    monkeypatch.setattr(flex_trees, "compiled_attention", None)
    graphs = []
    for trees in (random_trees(), random_trees()[:2], random_trees()[1:]):
        packed = pack(trees, CPU)
        with torch.no_grad():
            expected, _ = plain.logprobs(packed, 1.0)
            compiled.attention = "flex"
            found, _ = compiled.logprobs(packed, 1.0)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        graphs.append(num_graphs())
    assert graphs[0] == graphs[-1]


# Which attention


@pytest.mark.parametrize(
    ("wanted", "device", "missing", "expected"),
    [
        ("auto", CPU, None, "tree_by_tree"),
        ("auto", GPU, None, "flex"),
        ("auto", GPU, "triton is not installed", "tree_by_tree"),
        ("flex", GPU, None, "flex"),
        ("tree_by_tree", GPU, None, "tree_by_tree"),
        ("tree_by_tree", CPU, None, "tree_by_tree"),
    ],
)
def test_a_device_has_its_way(
    wanted: str, device: torch.device, missing: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(register, "missing_for_triton", lambda: missing)
    assert choose_attention(wanted, device) == expected  # type: ignore[arg-type]
    note = fallback_note(wanted, device)
    assert (note is not None) == (wanted == "auto" and missing is not None)
    if note:
        assert note == "model.attention: triton is not installed, so that attention goes tree by tree, which is slower"


@pytest.mark.parametrize(
    ("device", "missing", "message"),
    [
        (CPU, None, "model.attention=flex: FlexAttention has no backward pass on cpu; set it to auto or tree_by_tree"),
        (GPU, "no C compiler (gcc) is installed", r"model.attention=flex: no C compiler \(gcc\) is installed; install"),
    ],
)
def test_what_cannot_be_had_is_refused(
    device: torch.device, missing: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(register, "missing_for_triton", lambda: missing)
    with pytest.raises(UserError, match=message):
        choose_attention("flex", device)


def test_a_missing_compiler_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compilation.importlib.util, "find_spec", lambda name: None)
    assert compilation.missing_for_triton() == "triton is not installed"
    monkeypatch.setattr(compilation.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert compilation.missing_for_triton() == "no C compiler (gcc, clang, cc) is installed"
    compiler = tmp_path / "clang"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    assert compilation.missing_for_triton() is None
    monkeypatch.setenv("CC", "icx")
    assert compilation.missing_for_triton() == "no C compiler (icx) is installed"
