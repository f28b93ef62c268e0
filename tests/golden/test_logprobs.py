"""Log-probs made in chunks, with their own gradient, against torch's over all logits at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from grpo.model import logprobs
from grpo.model.logprobs import token_logprobs

NUM_TOKENS, WIDTH, VOCABULARY = 83, 8, 17
ROW_BYTES = VOCABULARY * 4

pytestmark = pytest.mark.usefixtures("one_thread")


def head_of(weight: Tensor, bias: Tensor | None = None) -> torch.nn.Linear:
    """A linear layer that hides nothing of its type."""
    head = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    head.weight = torch.nn.Parameter(weight)
    head.bias = None if bias is None else torch.nn.Parameter(bias)
    return head


def handing_through(size: int) -> torch.nn.Linear:
    """The head whose logits are the hidden states."""
    return head_of(torch.eye(size))


def inputs(bias: bool = True) -> tuple[Tensor, Tensor, torch.nn.Linear]:
    """Hidden states, targets and the head, the same on every call."""
    draw = torch.Generator().manual_seed(3)
    hidden = torch.randn(NUM_TOKENS, WIDTH, generator=draw)
    weight = torch.randn(VOCABULARY, WIDTH, generator=draw) / 2
    offset = torch.randn(VOCABULARY, generator=draw)
    targets = torch.randint(VOCABULARY, (NUM_TOKENS,), generator=draw)
    return hidden.requires_grad_(), targets, head_of(weight, offset if bias else None)


def pulls() -> tuple[Tensor, Tensor]:
    """How hard to pull on each token's log-prob and entropy: every one by another amount, of order 1."""
    draw = torch.Generator().manual_seed(4)
    return torch.randn(NUM_TOKENS, generator=draw), torch.randn(NUM_TOKENS, generator=draw)


def plain(
    hidden: Tensor, targets: Tensor, weight: Tensor, bias: Tensor | None, temperature: float
) -> tuple[Tensor, Tensor]:
    """In the type of what is given."""
    log_probs = torch.log_softmax(torch.nn.functional.linear(hidden, weight, bias) / temperature, dim=-1)
    return log_probs[torch.arange(len(targets)), targets], -(log_probs.exp() * log_probs).sum(-1)


# By hand


def test_two_tokens_by_hand() -> None:
    # The head hands the hidden state through, so these are the logits: ln 1, ln 2 and ln 5 over a sum of 8.
    hidden = torch.tensor([[0.0, math.log(2), math.log(5)]] * 2)
    logps, entropies = token_logprobs(hidden, torch.tensor([1, 2]), handing_through(3))
    assert logps.tolist() == pytest.approx([math.log(2 / 8), math.log(5 / 8)], abs=1e-6)
    # 1/8 ln 8 + 2/8 ln 4 + 5/8 ln (8/5) = 0.259930 + 0.346574 + 0.293752
    assert entropies.tolist() == pytest.approx([0.900256] * 2, abs=1e-5)


def test_temperature_by_hand() -> None:
    # A temperature of 1/2 squares the probabilities before they are shared out: 1, 4 and 25 over 30.
    hidden = torch.tensor([[0.0, math.log(2), math.log(5)]])
    logps, _ = token_logprobs(hidden, torch.tensor([2]), handing_through(3), temperature=0.5)
    assert logps.item() == pytest.approx(math.log(25 / 30), abs=1e-6)
    # A temperature of 2 takes their roots.
    logps, _ = token_logprobs(hidden, torch.tensor([2]), handing_through(3), temperature=2)
    assert logps.item() == pytest.approx(math.log(math.sqrt(5) / (1 + math.sqrt(2) + math.sqrt(5))), abs=1e-6)


def test_the_gradient_by_hand() -> None:
    # d log p(target) / d logits = onehot - p: for probabilities 1/8, 2/8, 5/8 and target 1 at temperature 1.
    hidden = torch.tensor([[0.0, math.log(2), math.log(5)]], requires_grad=True)
    logps, _ = token_logprobs(hidden, torch.tensor([1]), handing_through(3))
    logps.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad[0].tolist() == pytest.approx([-1 / 8, 1 - 2 / 8, -5 / 8], abs=1e-6)


def test_the_entropys_gradient_by_hand() -> None:
    # d H / d logit_j = -p_j (ln p_j + H): -(ln 1/8 + 0.900256)/8, -(ln 2/8 + 0.900256)/4, -5 (ln 5/8 + 0.900256)/8.
    hidden = torch.tensor([[0.0, math.log(2), math.log(5)]], requires_grad=True)
    _, entropies = token_logprobs(hidden, torch.tensor([1]), handing_through(3))
    entropies.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad[0].tolist() == pytest.approx([0.147398, 0.121510, -0.268907], abs=1e-5)


def test_entropy_at_its_ends() -> None:
    # All logits alike: ln of their number. One far above the others: nothing.
    _, flat = token_logprobs(torch.zeros(1, 7), torch.tensor([0]), handing_through(7))
    assert flat.item() == pytest.approx(math.log(7), abs=1e-6)
    _, sharp = token_logprobs(torch.tensor([[200.0, 0.0, 0.0]]), torch.tensor([0]), handing_through(3))
    assert sharp.item() == 0


def test_nothing_overflows() -> None:
    hidden = torch.tensor([[1e4, 0.0, -1e4], [-1e4, -1e4, -1e4]], requires_grad=True)
    logps, entropies = token_logprobs(hidden, torch.tensor([2, 0]), handing_through(3))
    (logps + entropies).sum().backward()
    assert logps.tolist() == pytest.approx([-2e4, -math.log(3)])
    assert entropies.tolist() == pytest.approx([0, math.log(3)])
    assert hidden.grad is not None
    assert hidden.grad.tolist()[0] == pytest.approx([-1, 0, 1])
    # The log-prob of the second row's target, with nothing of its entropy: that is at its peak. The way back goes by
    # the norm of logits of 1e4, of which fp32 knows no more than 1e-3.
    assert hidden.grad.tolist()[1] == pytest.approx([2 / 3, -1 / 3, -1 / 3], abs=1e-3)


# Against torch

TEMPERATURES = [0.5, 1.0, 1.5]
CHUNKS = [1, 5, 32, 33, 83, 512]
"""A CPU works on blocks of 32 rows inside each chunk."""
KEPT = {"nothing": 0, "half": 40 * ROW_BYTES, "everything": 2**30}


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("chunk_tokens", CHUNKS)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_values_and_gradients_are_torchs(temperature: float, chunk_tokens: int, kept: str) -> None:
    """Against float64, to 1e-6 of the largest: values are up to 8 and gradients up to 40, where fp32 has not more."""
    hidden, targets, head = inputs()
    logps, entropies = token_logprobs(
        hidden, targets, head, temperature, chunk_tokens=chunk_tokens, saved_bytes=KEPT[kept]
    )
    assert (logps.dtype, entropies.dtype) == (torch.float32, torch.float32)
    double = [one.detach().double().requires_grad_() for one in (hidden, head.weight, head.bias)]
    plain_logps, plain_entropies = plain(double[0], targets, double[1], double[2], temperature)
    assert_relative(logps, plain_logps)
    assert_relative(entropies, plain_entropies)

    for which in ("logps", "entropies", "both"):
        by_logp, by_entropy = (one * (which in (name, "both")) for one, name in zip(pulls(), KINDS, strict=True))
        found = torch.autograd.grad(
            [logps] * (which != "entropies") + [entropies] * (which != "logps"),
            [hidden, head.weight, head.bias],
            [by_logp] * (which != "entropies") + [by_entropy] * (which != "logps"),
            retain_graph=True,
        )
        total = (plain_logps * by_logp).sum() + (plain_entropies * by_entropy).sum()
        for one, other in zip(found, torch.autograd.grad(total, double, retain_graph=True), strict=True):
            assert one.dtype is torch.float32
            assert_relative(one, other)


KINDS = ("logps", "entropies")


def assert_relative(found: Tensor, expected: Tensor) -> None:
    largest = max(1.0, float(expected.detach().abs().max()))
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=1e-6 * largest)


def test_without_a_bias() -> None:
    hidden, targets, head = inputs(bias=False)
    logps, entropies = token_logprobs(hidden, targets, head, 0.7, chunk_tokens=7)
    double = [one.detach().double().requires_grad_() for one in (hidden, head.weight)]
    plain_logps, plain_entropies = plain(double[0], targets, double[1], None, 0.7)
    found = torch.autograd.grad(logps.sum() + entropies.sum(), [hidden, head.weight])
    for one, other in zip(found, torch.autograd.grad(plain_logps.sum() + plain_entropies.sum(), double), strict=True):
        assert_relative(one, other)


def test_torchs_own_check_of_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """gradcheck compares with differences, for which fp32 is too coarse: here, float32 means float64."""
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(logprobs, "CPU_BLOCK_TOKENS", 3)
    draw = torch.Generator().manual_seed(9)
    hidden, weight, bias = (
        torch.randn(shape, generator=draw, dtype=torch.float64, requires_grad=True) for shape in ((7, 4), (5, 4), (5,))
    )
    targets = torch.randint(5, (7,), generator=draw)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        for saved_bytes in (0, 2**30):
            assert torch.autograd.gradcheck(
                lambda hidden, weight, bias, saved_bytes=saved_bytes: token_logprobs(
                    hidden,
                    targets,
                    SimpleNamespace(weight=weight, bias=bias),  # type: ignore[arg-type]
                    0.8,
                    chunk_tokens=4,
                    saved_bytes=saved_bytes,
                ),
                (hidden, weight, bias),
            )
    finally:
        torch.set_default_dtype(default)


def test_a_frozen_head_gets_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, targets, head = inputs()
    expected, _, _ = gradients(hidden, targets, head)
    head.requires_grad_(False)
    made: list[torch.Size] = []
    zeros_like = torch.zeros_like

    def watched(one: Tensor, **keywords: Any) -> Tensor:
        made.append(one.shape)
        return zeros_like(one, **keywords)

    monkeypatch.setattr(torch, "zeros_like", watched)
    logps, _ = token_logprobs(hidden, targets, head)
    [found] = torch.autograd.grad(logps.sum(), [hidden])
    assert torch.equal(found, expected)
    assert head.weight.shape not in made


def gradients(hidden: Tensor, targets: Tensor, head: torch.nn.Linear) -> tuple[Tensor, ...]:
    logps, _ = token_logprobs(hidden, targets, head)
    return torch.autograd.grad(logps.sum(), [hidden, head.weight, head.bias])


def test_without_a_gradient_nothing_is_kept(kept: list[Any]) -> None:
    hidden, targets, head = inputs()
    with torch.no_grad():
        logps, entropies = token_logprobs(hidden, targets, head, chunk_tokens=5)
    assert not logps.requires_grad
    assert not entropies.requires_grad
    assert [one for one in kept if one is not None] == []
    expected, _ = token_logprobs(hidden, targets, head, chunk_tokens=5)
    assert torch.equal(logps, expected)


# What is held


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The logits that the last forward pass left for its backward pass, chunk by chunk."""
    seen: list[Any] = []
    forward = logprobs.TokenLogprobs.forward

    def watched(ctx: Any, *arguments: Any) -> Any:
        outputs = forward(ctx, *arguments)
        seen[:] = ctx.kept
        return outputs

    monkeypatch.setattr(logprobs.TokenLogprobs, "forward", staticmethod(watched))
    return seen


@pytest.mark.parametrize("num_tokens", [10, 83, 830])
@pytest.mark.parametrize("saved_bytes", [0, 39 * ROW_BYTES, 40 * ROW_BYTES, 2**30])
def test_what_waits_does_not_grow(saved_bytes: int, num_tokens: int, kept: list[Any]) -> None:
    """Chunks of ten rows wait while there is room for them; as many rows as there are, of any length."""
    hidden, targets, head = inputs()
    repeats = math.ceil(num_tokens / NUM_TOKENS)
    rows, wanted = hidden.repeat(repeats, 1)[:num_tokens], targets.repeat(repeats)[:num_tokens]
    token_logprobs(rows, wanted, head, chunk_tokens=10, saved_bytes=saved_bytes)
    assert len(kept) == math.ceil(num_tokens / 10)
    held = sum(one.numel() * one.element_size() for one in kept if one is not None)
    assert held <= saved_bytes
    # All of it is used, as far as whole chunks go.
    assert held >= min(num_tokens, saved_bytes // ROW_BYTES // 10 * 10) * ROW_BYTES


def test_no_more_than_a_chunk_of_logits_is_ever_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """83 tokens are sixteen chunks of five and one of three; with nothing kept, each is made a second time."""
    sizes: list[int] = []
    linear = torch.nn.functional.linear

    def watched(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        sizes.append(len(rows))
        return linear(rows, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    for saved_bytes, num_made in ((0, 2), (2**30, 1)):
        sizes.clear()
        hidden, targets, head = inputs()
        logps, _ = token_logprobs(hidden, targets, head, chunk_tokens=5, saved_bytes=saved_bytes)
        logps.sum().backward()
        assert sizes == [*[5] * 16, 3] * num_made


# In half precision


def test_under_autocast_the_head_works_in_half_precision(kept: list[Any]) -> None:
    hidden, targets, head = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        logps, entropies = token_logprobs(hidden, targets, head, 0.8, chunk_tokens=30)
    assert {one.dtype for one in kept} == {torch.bfloat16}
    assert (logps.dtype, entropies.dtype) == (torch.float32, torch.float32)
    # Normalised in full: rounded are only what goes into the head, and what comes out of it.
    rounded = [one.detach().bfloat16() for one in (hidden, head.weight, head.bias)]
    logits = torch.nn.functional.linear(*rounded).double()
    log_probs = torch.log_softmax(logits / 0.8, dim=-1)
    torch.testing.assert_close(logps.double(), log_probs[torch.arange(NUM_TOKENS), targets], rtol=0, atol=2e-6)
    torch.testing.assert_close(entropies.double(), -(log_probs.exp() * log_probs).sum(-1), rtol=0, atol=2e-6)

    by_logp, by_entropy = pulls()
    found = torch.autograd.grad([logps, entropies], [hidden, head.weight, head.bias], [by_logp, by_entropy])
    double = [one.detach().double().requires_grad_() for one in (hidden, head.weight, head.bias)]
    plain_logps, plain_entropies = plain(double[0], targets, double[1], double[2], 0.8)
    total = (plain_logps * by_logp).sum() + (plain_entropies * by_entropy).sum()
    for one, other in zip(found, torch.autograd.grad(total, double), strict=True):
        assert one.dtype is torch.float32
        # Half precision has 8 bits: one part in 256 of the largest, a few times over.
        torch.testing.assert_close(one.double(), other, rtol=0, atol=0.02 * float(other.abs().max()))


def test_half_precision_logits_are_normalised_in_full() -> None:
    _, targets, _ = inputs()
    half = torch.randn(NUM_TOKENS, VOCABULARY, generator=torch.Generator().manual_seed(8)).bfloat16()
    logps, _ = token_logprobs(half, targets, head_of(torch.eye(VOCABULARY).bfloat16()))
    expected = torch.log_softmax(half.double(), dim=-1)[torch.arange(NUM_TOKENS), targets]
    torch.testing.assert_close(logps.double(), expected, rtol=0, atol=1e-6)
