"""Log-probs made in chunks against a plain log-softmax over all logits at once."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from grpo.logprobs import token_logprobs

NUM_TOKENS, WIDTH, VOCABULARY = 23, 8, 17


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, targets and the head's weight, the same on every call."""
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(NUM_TOKENS, WIDTH, generator=generator)
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator) / 4
    targets = torch.randint(VOCABULARY, (NUM_TOKENS,), generator=generator)
    return hidden.requires_grad_(), targets, weight.requires_grad_()


def test_two_tokens_by_hand() -> None:
    # The head hands the hidden state through, so these are the logits: ln 1, ln 2 and ln 5 over a sum of 8.
    hidden = torch.tensor([[0.0, math.log(2), math.log(5)]] * 2)
    logps, entropies = token_logprobs(hidden, torch.tensor([1, 2]), lambda rows: rows)
    assert logps.tolist() == pytest.approx([math.log(2 / 8), math.log(5 / 8)], abs=1e-6)
    # 1/8 ln 8 + 2/8 ln 4 + 5/8 ln (8/5) = 0.259930 + 0.346574 + 0.293752
    assert entropies.tolist() == pytest.approx([0.900256] * 2, abs=1e-5)


def test_temperature_by_hand() -> None:
    # A temperature of 1/2 squares the probabilities before they are shared out: 1, 4 and 25 over 30.
    hidden = torch.tensor([[0.0, math.log(2), math.log(5)]])
    logps, _ = token_logprobs(hidden, torch.tensor([2]), lambda rows: rows, temperature=0.5)
    assert logps.item() == pytest.approx(math.log(25 / 30), abs=1e-6)
    # A temperature of 2 takes their roots.
    logps, _ = token_logprobs(hidden, torch.tensor([2]), lambda rows: rows, temperature=2)
    assert logps.item() == pytest.approx(math.log(math.sqrt(5) / (1 + math.sqrt(2) + math.sqrt(5))), abs=1e-6)


@pytest.mark.parametrize("chunk_tokens", [1, 5, 23, 512])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.5])
def test_chunks_are_the_log_softmax(temperature: float, chunk_tokens: int) -> None:
    hidden, targets, weight = inputs()
    logps, entropies = token_logprobs(
        hidden, targets, lambda rows: rows @ weight.T, temperature, chunk_tokens=chunk_tokens
    )
    pull = torch.linspace(-1, 2, NUM_TOKENS)
    (logps * pull).sum().backward()

    plain_hidden, _, plain_weight = inputs()
    log_probs = torch.log_softmax((plain_hidden @ plain_weight.T) / temperature, dim=-1)
    plain_logps = log_probs[torch.arange(NUM_TOKENS), targets]
    (plain_logps * pull).sum().backward()

    assert logps.dtype is torch.float32
    torch.testing.assert_close(logps, plain_logps, rtol=0, atol=1e-6)
    torch.testing.assert_close(entropies, -(log_probs.exp() * log_probs).sum(-1), rtol=0, atol=1e-6)
    torch.testing.assert_close(hidden.grad, plain_hidden.grad, rtol=0, atol=1e-6)
    torch.testing.assert_close(weight.grad, plain_weight.grad, rtol=0, atol=5e-6)


def test_the_gradient_by_hand() -> None:
    # d log p(target) / d logits = onehot - p: for probabilities 1/8, 2/8, 5/8 and target 1 at temperature 1.
    hidden = torch.tensor([[0.0, math.log(2), math.log(5)]], requires_grad=True)
    logps, _ = token_logprobs(hidden, torch.tensor([1]), lambda rows: rows)
    logps.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad[0].tolist() == pytest.approx([-1 / 8, 1 - 2 / 8, -5 / 8], abs=1e-6)


def test_the_entropy_has_no_gradient() -> None:
    hidden, targets, weight = inputs()
    logps, entropies = token_logprobs(hidden, targets, lambda rows: rows @ weight.T)
    assert logps.requires_grad
    assert not entropies.requires_grad


def test_entropy_at_its_ends() -> None:
    # All logits alike: ln of their number. One far above the others: nothing.
    _, flat = token_logprobs(torch.zeros(1, 7), torch.tensor([0]), lambda rows: rows)
    assert flat.item() == pytest.approx(math.log(7), abs=1e-6)
    _, sharp = token_logprobs(torch.tensor([[200.0, 0.0, 0.0]]), torch.tensor([0]), lambda rows: rows)
    assert sharp.item() == 0


def test_the_head_never_sees_more_than_a_chunk() -> None:
    hidden, targets, weight = inputs()
    sizes: list[int] = []

    def head(rows: Tensor) -> Tensor:
        sizes.append(len(rows))
        return rows @ weight.T

    logps, _ = token_logprobs(hidden, targets, head, chunk_tokens=5)
    logps.sum().backward()
    # 23 tokens are four chunks of five and one of three, each made a second time on the way back.
    assert sorted(sizes) == sorted([5, 5, 5, 5, 3] * 2)


def test_half_precision_logits_are_normalised_in_full() -> None:
    hidden, targets, weight = inputs()
    half = (hidden @ weight.T).detach().bfloat16()
    logps, _ = token_logprobs(half, targets, lambda rows: rows)
    expected = torch.log_softmax(half.double(), dim=-1)[torch.arange(NUM_TOKENS), targets]
    torch.testing.assert_close(logps.double(), expected, rtol=0, atol=1e-6)
