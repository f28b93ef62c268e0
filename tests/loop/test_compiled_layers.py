"""Layers that torch.compile has been at compute what they computed before."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small import CPU, make_policy, random_trees, save_model

from grpo.batching.pack import pack
from grpo.errors import UserError
from grpo.model.files import check_compiler

needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs g++, which is not installed")


@pytest.fixture
def forgotten() -> Iterator[None]:
    """What was compiled here is of no use to other tests."""
    yield
    torch.compiler.reset()


@needs_compiler
@pytest.mark.usefixtures("forgotten")
def test_log_probs_and_gradients_are_the_same(tmp_path: Path) -> None:
    save_model("qwen3", tmp_path)
    plain, compiled = make_policy(tmp_path).network, make_policy(tmp_path).network
    compiled.compile_layers()
    assert plain.model.state_dict().keys() == compiled.model.state_dict().keys()
    for trees in (random_trees(), random_trees()[:2]):
        packed = pack(trees, CPU)
        (expected, _), (found, _) = plain.logprobs(packed, 1.0), compiled.logprobs(packed, 1.0)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        pull = torch.linspace(-1, 1, len(expected))
        (expected * pull).sum().backward()
        (found * pull).sum().backward()
    for one, other in zip(compiled.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-4)


def test_a_missing_compiler_is_found_early(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"model.compile=true: no C\+\+ compiler \(g\+\+\) is installed; install one"):
        check_compiler()
