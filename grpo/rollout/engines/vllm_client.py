"""vLLM in a process of its own, spoken to over one pipe. It dies with the trainer, however that dies."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from grpo.errors import EngineError
from grpo.model.files import head_dim
from grpo.parallel.threads import short_waits
from grpo.recipe.sections import RolloutSection
from grpo.records import Floats, TokenIds
from grpo.rollout.engines.protocol import Request, Sampling, Written
from rewards.workers.process import Child, ChildDiedError, ChildTimeoutError

SERVER = "grpo.rollout.engines.vllm_server"
_RANK_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "ROLE_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_WORLD_SIZE",
    "ROLE_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)
_KV_BLOCK_TOKENS = 128
"""Tokens in one block of the keys and values that vLLM keeps on a CPU."""
_MOST_KV_BYTES = 2**30
"""The most memory for keys and values, unless the recipe names another (`rollout.cpu_kv_cache_gib`) or one completion
needs more; completions that find no room in it wait for others to end."""
START_LIMIT_S = 900.0
"""Compilation and CUDA graphs of a large model take minutes; a start that takes longer than this has hung."""


class VllmEngine:
    """vLLM as the trainer sees it. Raises EngineError where no answer comes within `rollout.timeout_s` seconds, where
    the answer is a failure, and where the process has died."""

    def __init__(
        self,
        folder: Path,
        settings: RolloutSection,
        *,
        max_model_len: int,
        device: torch.device,
        seed: int,
        log: Path,
    ) -> None:
        self._timeout_s = settings.timeout_s
        self._log = log
        self._child = Child(SERVER, log=log, env=_environment(device))
        arguments = engine_arguments(folder, settings, max_model_len, device.type == "cuda") | {"seed": seed}
        try:
            self.description: dict[str, str] = self._ask("start", arguments, timeout_s=START_LIMIT_S)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The engine's process."""
        return self._child.pid

    def load(self, folder: Path) -> None:
        self._ask("load", str(folder))

    def logprobs(self, token_ids: Sequence[TokenIds]) -> list[Floats]:
        answer: list[Floats] = self._ask("logprobs", list(token_ids))
        return answer

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, tuple[Written, ...]]]:
        self._send("generate", (tuple(requests), sampling))
        for _ in requests:
            number, written = self._receive("generate")
            yield number, written

    def close(self) -> None:
        self._child.kill()

    def _ask(self, verb: str, argument: Any, timeout_s: float | None = None) -> Any:
        self._send(verb, argument)
        return self._receive(verb, timeout_s)

    def _send(self, verb: str, argument: Any) -> None:
        try:
            self._child.send((verb, argument))
        except ChildDiedError as error:
            raise EngineError(f"vLLM: {error}; its whole log is {self._log}") from None

    def _receive(self, verb: str, timeout_s: float | None = None) -> Any:
        try:
            answered, result = self._child.receive(timeout_s or self._timeout_s)
        except (ChildDiedError, ChildTimeoutError) as error:
            raise EngineError(f"vLLM: {verb}: {error}; its whole log is {self._log}") from None
        if answered != verb:
            raise EngineError(f"vLLM: {verb} failed; its whole log is {self._log}\n{result}")
        return result


def engine_arguments(folder: Path, settings: RolloutSection, max_model_len: int, cuda: bool) -> dict[str, Any]:
    """Arguments of ``vllm.LLM``: those that make its log-probs agree with the trainer's, and its memory."""
    arguments: dict[str, Any] = {
        "model": str(folder),
        "dtype": settings.dtype,
        "max_model_len": max_model_len,
        "max_num_seqs": settings.max_parallel,
        # The sampler's own log-probs, temperature applied.
        "logprobs_mode": "processed_logprobs",
        # Else unset parameters (a repetition penalty, say) come from the model's own file.
        "generation_config": "vllm",
        "enforce_eager": not cuda if settings.eager is None else settings.eager,
        "tensor_parallel_size": settings.tensor_parallel,
        "disable_log_stats": True,
    }
    if cuda:
        return arguments | {"gpu_memory_utilization": settings.gpu_memory_frac}
    # On CPU a request with a seed of its own crashes the engine when its prompt is split over two rounds.
    return arguments | {
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(8192, 2 * max_model_len),
        "kv_cache_memory_bytes": cpu_kv_cache_bytes(folder, settings, max_model_len),
    }


def cpu_kv_cache_bytes(folder: Path, settings: RolloutSection, max_model_len: int) -> int:
    """Memory for keys and values. A CPU engine writes to all of it at once, whatever it needs later."""
    if settings.cpu_kv_cache_gib is not None:
        return int(settings.cpu_kv_cache_gib * 2**30)
    config = AutoConfig.from_pretrained(folder).get_text_config()
    num_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = num_heads * head_dim(config)
    per_token: int = 2 * config.num_hidden_layers * width * getattr(torch, settings.dtype).itemsize
    block = _KV_BLOCK_TOKENS * per_token
    longest = (max_model_len // _KV_BLOCK_TOKENS + 1) * block
    # vLLM keeps a block for itself.
    return max(longest, min(settings.max_parallel * longest, _MOST_KV_BYTES)) + block


def _environment(device: torch.device) -> dict[str, str | None]:
    # The engine is already alone in its process, so its core runs in it: one process to start and to end.
    shared: dict[str, str | None] = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    # The engine is a world of its own, not one of torchrun's ranks.
    shared |= dict.fromkeys(name for name in os.environ if name in _RANK_VARIABLES or name.startswith("TORCHELASTIC_"))
    if device.type == "cuda":
        return shared | {"CUDA_VISIBLE_DEVICES": _visible_devices(device.index)}
    # Trainer and engine take turns on the same cores: each uses all of them.
    shared |= short_waits()
    # What vLLM compiles ahead of time for a CPU it fails to read again, and would compile anew at every start.
    return shared | {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_USE_AOT_COMPILE": "0"}


def _visible_devices(first: int) -> str:
    """The trainer's own GPU first, then those after it, for tensor parallelism."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    every = visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
    return ",".join(every[first:])
