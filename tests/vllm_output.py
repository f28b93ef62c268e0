"""Completions as vLLM hands them over, in its own classes."""

from __future__ import annotations

from typing import Any

import pytest


def flat_output(token_ids: list[int], logps: list[float], reason: str | None = "stop", also: int = 0) -> Any:
    """A finished completion of vLLM's own class; of `also` other tokens it tells the log-prob at each place too."""
    outputs, logprobs = pytest.importorskip("vllm.outputs"), pytest.importorskip("vllm.logprobs")
    flat = logprobs.create_sample_logprobs(flat_logprobs=True)
    for token, logp in zip(token_ids, logps, strict=True):
        others = list(range(1000, 1000 + also))
        flat.append_fast(
            [token, *others], [logp, *(-9.0 for _ in others)], iter(range(1, also + 2)), [None] * (also + 1)
        )
    return outputs.CompletionOutput(0, "", token_ids, None, flat, finish_reason=reason)
