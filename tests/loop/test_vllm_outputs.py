"""What is asked of vLLM and made of its outputs, without an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vllm_output import flat_output

from grpo.recipe.sections import RolloutSection
from grpo.rollout.engines.protocol import Request, Sampling, Written
from grpo.rollout.engines.vllm_client import engine_arguments
from grpo.rollout.engines.vllm_server import Server, to_written

SETTINGS = RolloutSection(prompts_per_step=2, group_size=2, max_new_tokens=16, cpu_kv_cache_gib=0.1)


def same(written: Written, token_ids: list[int], logps: list[float]) -> bool:
    return written.token_ids.tolist() == token_ids and written.logps.tolist() == [float(np.float32(x)) for x in logps]


@pytest.mark.parametrize("also", [0, 3])
def test_ids_and_logprobs_leave_as_arrays(also: int) -> None:
    written = to_written(flat_output([7, 9, 0], [-0.25, -1.1, -3.0], also=also))
    assert same(written, [7, 9, 0], [-0.25, -1.1, -3.0])
    assert (written.token_ids.dtype, written.logps.dtype) == (np.int32, np.float32)


def test_a_completion_without_a_token_is_empty() -> None:
    written = to_written(flat_output([], [], "abort"))
    assert (len(written.token_ids), len(written.logps), written.finish) == (0, 0, "abort")


def test_logprobs_of_other_tokens_are_an_error() -> None:
    output = flat_output([7, 9, 0], [-0.25, -1.1, -3.0])
    output.token_ids = [7, 8, 0]
    with pytest.raises(ValueError, match="not those of its tokens"):
        to_written(output)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("stop", "stop"), ("length", "length"), ("abort", "abort"), ("error", "abort"), (None, "abort")],
)
def test_only_the_length_limit_is_called_length(reason: str | None, finish: str) -> None:
    assert to_written(flat_output([7], [-1.0], reason)).finish == finish


class EngineThatSteps:
    """Behind `vllm.LLM`: notes what is asked of it, and finishes everything at once, the last first."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any], Any]] = []
        self.waiting: list[str] = []

    def add_request(self, name: str, prompt: dict[str, Any], params: Any) -> None:
        self.asked.append((name, prompt, params))
        self.waiting.append(name)

    def has_unfinished_requests(self) -> bool:
        return bool(self.waiting)

    def step(self) -> list[Any]:
        outputs = pytest.importorskip("vllm.outputs")
        done, self.waiting = self.waiting[::-1], []
        return [
            outputs.RequestOutput(name, None, [5], None, [flat_output([7, 0], [-1.0, -2.0])], True) for name in done
        ]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> list[tuple[str, dict[str, Any], Any]]:
    """What reaches the engine of two prompts with two completions each."""
    engine = EngineThatSteps()
    monkeypatch.setattr("vllm.LLM", lambda **arguments: type("LLM", (), {"llm_engine": engine})())
    server = Server({"model": str(tiny_model)})
    requests = [Request(np.array(ids, np.int32), (1, 2)) for ids in ([5, 6], [8])]
    groups = dict(server.generate(requests, Sampling(1.0, 16, (0,))))
    assert sorted(groups) == [0, 1]
    assert all(same(one, [7, 0], [-1.0, -2.0]) for group in groups.values() for one in group)
    return engine.asked


def test_an_engine_is_asked_for_finished_completions_and_flat_logprobs(asked: Any) -> None:
    kinds = pytest.importorskip("vllm.sampling_params").RequestOutputKind
    assert [params.seed for _, _, params in asked] == [1, 2, 1, 2]
    for _, prompt, params in asked:
        assert params.output_kind is kinds.FINAL_ONLY
        assert params.flat_logprobs is True
        assert params.logprobs == 0
        assert all(type(token) is int for token in prompt["prompt_token_ids"])


def test_the_rule_against_split_prompts_is_the_cpus(tiny_model: Path) -> None:
    on_cpu = engine_arguments(tiny_model, SETTINGS, 5000, cuda=False)
    assert on_cpu["max_num_batched_tokens"] == 10_000
    assert engine_arguments(tiny_model, SETTINGS, 100, cuda=False)["max_num_batched_tokens"] == 8192
    on_gpu = engine_arguments(tiny_model, SETTINGS, 5000, cuda=True)
    assert not {"max_num_batched_tokens", "enable_chunked_prefill", "kv_cache_memory_bytes"} & on_gpu.keys()
    assert on_gpu["gpu_memory_utilization"] == SETTINGS.gpu_memory_frac
