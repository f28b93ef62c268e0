"""What is made for the model stands on the model's device, and nothing on the way waits for that device.

The other device is torch's `meta`, which holds no values, and the tensors are torch's fake ones: they raise where those
of two devices meet, and where a value is read back. tests/gpu has the real device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch
from forests import Forest, shapes_of
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from grpo.model import products
from grpo.model.attention.block_mask import make_block_mask
from grpo.model.attention.tree_by_tree import TreeByTreeAttention
from grpo.model.logprobs import token_logprobs

THERE = torch.device("meta")
FOREST: Forest = [(5, (3, 0, 7)), (600, (300, 20)), (2, (0, 0))]
"""Below and above the number of keys up to which scores are held whole."""


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Autocast knows no device without values; what it casts is given cast."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)
    monkeypatch.setattr(torch, "autocast", lambda kind, enabled: contextlib.nullcontext())
    monkeypatch.setattr(products, "has_wide_products", lambda kind, dtype: kind == "meta")
    monkeypatch.setattr(products, "adds_wide_products", lambda kind, dtype: False)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def states_there(num_tokens: int, dtype: torch.dtype) -> list[Tensor]:
    return [torch.randn(1, heads, num_tokens, 8, device=THERE, dtype=dtype, requires_grad=True) for heads in (4, 2, 2)]


def test_these_tests_can_fail() -> None:
    there = torch.ones(3, device=THERE)
    with pytest.raises(RuntimeError, match="same device"):
        there.index_select(0, torch.tensor([1], device="cpu"))
    with pytest.raises(DataDependentOutputException):
        float(there.sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_tree_by_tree(dtype: torch.dtype) -> None:
    shapes = shapes_of(FOREST)
    states = states_there(shapes[-1].stop, dtype)
    output = TreeByTreeAttention(shapes, THERE)(*states, 0.5)
    output.sum().backward()
    assert output.shape == (1, shapes[-1].stop, 4, 8)
    assert output.device.type == "meta"
    for one in states:
        assert one.grad is not None
        assert one.grad.device.type == "meta"


def test_the_block_mask() -> None:
    mask = make_block_mask(shapes_of(FOREST), THERE)
    assert {one.device.type for one in mask.as_tuple() if isinstance(one, Tensor)} == {"meta"}
    tokens = torch.arange(10, device=THERE)
    assert mask.mask_mod(tokens[0], tokens[0], tokens[:, None], tokens[None]).device.type == "meta"


@pytest.mark.parametrize("entropy", [True, False])
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_log_probs(dtype: torch.dtype, grad: bool, entropy: bool) -> None:
    """Over several chunks, some of which are made a second time."""
    hidden = torch.randn(700, 16, device=THERE, dtype=dtype, requires_grad=True)
    head = torch.nn.Linear(16, 50, device=THERE)
    targets = torch.zeros(700, dtype=torch.long, device=THERE)
    with torch.set_grad_enabled(grad):
        logps, entropies = token_logprobs(
            hidden, targets, head, 0.8, entropy=entropy, chunk_tokens=100, saved_bytes=3 * 100 * 50 * 4
        )
    for one in [logps] if entropies is None else [logps, entropies]:
        assert one.device == THERE
        assert one.dtype is torch.float32
    if grad:
        logps.sum().backward()
        assert head.weight.grad is not None
        assert head.weight.grad.dtype is torch.float32
