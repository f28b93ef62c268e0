"""In what precision the output head multiplies, what is rounded on the way, and what is left out when not asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small import CPU, random_trees, save_model
from torch import Tensor

from grpo.batching.pack import pack
from grpo.model import products
from grpo.model.logprobs import token_logprobs
from grpo.model.network import Network
from grpo.recipe.sections import ModelSection

NUM_TOKENS, WIDTH, VOCABULARY = 200, 64, 50

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A CPU that hands on products of half precision in fp32, as CUDA does; the names of those it was asked for.

    Exact, since every product of two numbers in bf16 has a place in fp32.
    """
    asked: list[str] = []
    mm, addmm = torch.mm, torch.addmm

    def wide_mm(left: Tensor, right: Tensor, *, out_dtype: torch.dtype | None = None, **others: Tensor) -> Tensor:
        if out_dtype is None:
            return mm(left, right, **others)
        assert left.dtype is right.dtype is torch.bfloat16
        asked.append("mm")
        return mm(left.float(), right.float())

    def wide_addmm(total: Tensor, left: Tensor, right: Tensor, *, out_dtype: torch.dtype, out: Tensor) -> Tensor:
        assert left.dtype is right.dtype is torch.bfloat16
        assert out is total
        assert out_dtype is total.dtype is torch.float32
        asked.append("addmm")
        return addmm(total, left.float(), right.float(), out=out)

    monkeypatch.setattr(torch, "mm", wide_mm)
    monkeypatch.setattr(torch, "addmm", wide_addmm)
    forget()
    yield asked
    forget()


def refused(*matrices: Tensor, **options: object) -> Tensor:
    raise RuntimeError("self and mat2 must have the same dtype")


def forget() -> None:
    """What was found out about the device."""
    products.has_wide_products.cache_clear()
    products.adds_wide_products.cache_clear()


def inputs() -> tuple[Tensor, Tensor, torch.nn.Linear]:
    """Logits of up to about 40, where bf16 knows no more than an eighth."""
    draw = torch.Generator().manual_seed(3)
    head = torch.nn.Linear(WIDTH, VOCABULARY)
    head.weight = torch.nn.Parameter(torch.randn(VOCABULARY, WIDTH, generator=draw))
    head.bias = torch.nn.Parameter(torch.randn(VOCABULARY, generator=draw))
    hidden = torch.randn(NUM_TOKENS, WIDTH, generator=draw)
    return hidden.requires_grad_(), torch.randint(VOCABULARY, (NUM_TOKENS,), generator=draw), head


def rounded_truth(targets: Tensor, hidden: Tensor, head: torch.nn.Linear) -> tuple[Tensor, Tensor]:
    """In fp64: log-probs, and the head's gradient of their sum, where only what goes into the head is rounded."""
    rows, weight, bias = (one.detach().bfloat16().double() for one in (hidden, head.weight, head.bias))
    weight.requires_grad_()
    log_probs = torch.log_softmax(rows @ weight.T + bias, dim=-1)[torch.arange(len(targets)), targets]
    return log_probs.detach(), torch.autograd.grad(log_probs.sum(), weight)[0]


def in_bf16(hidden: Tensor, targets: Tensor, head: torch.nn.Linear, **options: object) -> tuple[Tensor, Tensor]:
    """Log-probs under autocast, and the head's gradient of their sum, in chunks of 7 rows."""
    with torch.autocast("cpu", torch.bfloat16):
        logps, _ = token_logprobs(hidden, targets, head, chunk_tokens=7, **options)  # type: ignore[arg-type]
    return logps.detach(), torch.autograd.grad(logps.sum(), head.weight)[0]


@pytest.mark.parametrize("saved_bytes", [0, 2**30])
def test_where_products_are_in_fp32_logits_are(wide: list[str], saved_bytes: int) -> None:
    hidden, targets, head = inputs()
    expected, _ = rounded_truth(targets, hidden, head)
    logps, gradient = in_bf16(hidden, targets, head, saved_bytes=saved_bytes)
    torch.testing.assert_close(logps.double(), expected, rtol=0, atol=2e-5)
    assert gradient.dtype is torch.float32
    assert {"mm", "addmm"} == set(wide)


@pytest.mark.parametrize("adds", [True, False])
def test_the_heads_gradient_is_rounded_nowhere(wide: list[str], adds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the slopes that go into its product, each to 8 bits: not by chunk, where 29 roundings of each of the
    sums would show."""
    if not adds:
        monkeypatch.setattr(torch, "addmm", refused)
    hidden, targets, head = inputs()
    _, gradient = in_bf16(hidden, targets, head)
    rows, weight, bias = (one.detach().bfloat16().float() for one in (hidden, head.weight, head.bias))
    slopes = torch.nn.functional.one_hot(targets, VOCABULARY) - (rows @ weight.T + bias).softmax(-1)
    expected = slopes.bfloat16().double().T @ rows.double()
    torch.testing.assert_close(gradient.double(), expected, rtol=0, atol=3e-3)
    assert wide.count("addmm") == (30 if adds else 0)  # once to try it, and for each of 29 chunks


def test_a_cpu_rounds_logits_to_bf16() -> None:
    hidden, targets, head = inputs()
    expected, _ = rounded_truth(targets, hidden, head)
    logps, _ = in_bf16(hidden, targets, head)
    assert 0.01 < float((logps.double() - expected).abs().mean()) < 0.1


def test_a_head_in_fp32_rounds_nothing() -> None:
    """Neither what goes into it nor what comes out."""
    hidden, targets, head = inputs()
    logps, gradient = in_bf16(hidden, targets, head, precision="fp32")
    weight = head.weight.detach().double().requires_grad_()
    log_probs = torch.log_softmax(hidden.detach().double() @ weight.T + head.bias.detach().double(), dim=-1)
    expected = log_probs[torch.arange(NUM_TOKENS), targets]
    torch.testing.assert_close(logps.double(), expected.detach(), rtol=0, atol=2e-5)
    torch.testing.assert_close(gradient.double(), torch.autograd.grad(expected.sum(), weight)[0], rtol=0, atol=1e-4)


def test_a_head_in_fp32_is_in_fp32_where_products_are_wide(wide: list[str]) -> None:
    hidden, targets, head = inputs()
    in_bf16(hidden, targets, head, precision="fp32")
    assert wide == []


def test_the_recipe_chooses(tmp_path: Path) -> None:
    """A whole model in bf16, its head in either."""
    save_model("llama", tmp_path)
    packed = pack(random_trees(), CPU)

    def logprobs(head: str, compute: str = "bf16") -> Tensor:
        settings = ModelSection(path=str(tmp_path), compute=compute, head=head)  # type: ignore[arg-type]
        with torch.no_grad():
            return Network(tmp_path, settings, torch.float32, CPU).logprobs(packed, 1.0)[0]

    rounded, full = logprobs("bf16"), logprobs("fp32")
    assert not torch.equal(rounded, full)
    truth = logprobs("bf16", "fp32")
    assert torch.equal(truth, logprobs("fp32", "fp32"))
    assert float((full - truth).abs().mean()) < float((rounded - truth).abs().mean())


# Entropies


@pytest.mark.parametrize("grad", [True, False])
def test_entropies_are_left_out_when_not_asked_for(grad: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, targets, head = inputs()
    with torch.set_grad_enabled(grad):
        expected, _ = token_logprobs(hidden, targets, head, 0.7)
        monkeypatch.setattr(torch.linalg, "vecdot", None)
        logps, entropies = token_logprobs(hidden, targets, head, 0.7, entropy=False)
    assert torch.equal(logps, expected)
    assert entropies is None
    if grad:
        found = torch.autograd.grad(logps.sum(), [hidden, head.weight])
        for one, other in zip(found, torch.autograd.grad(expected.sum(), [hidden, head.weight]), strict=True):
            assert torch.equal(one, other)


def test_a_network_is_asked_for_entropies_or_not(tmp_path: Path) -> None:
    save_model("llama", tmp_path)
    network = Network(tmp_path, ModelSection(path=str(tmp_path)), torch.float32, CPU)
    packed = pack(random_trees(), CPU)
    with_entropies, without = network.logprobs(packed, 1.0, entropy=True), network.logprobs(packed, 1.0)
    assert torch.equal(with_entropies[0], without[0])
    assert with_entropies[1] is not None
    assert with_entropies[1].isfinite().all()
    assert without[1] is None
