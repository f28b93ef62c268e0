"""What rollouts and exports cost at real size: in decoding, Python objects, and memory of the host."""

from __future__ import annotations

import multiprocessing
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import CPU
from tiny import make_tiny_model, tiny_tokenizer
from torch.utils._python_dispatch import TorchDispatchMode
from vllm_output import flat_output

from grpo.model.lora import open_network
from grpo.model.network import Network
from grpo.policy.export import export_model
from grpo.recipe.sections import ModelSection, RolloutSection
from grpo.rollout.engines.hugging_face import TransformersEngine
from grpo.rollout.engines.protocol import Request, Sampling
from grpo.rollout.engines.vllm_server import to_written

# Exports


def network_of(folder: Path) -> Network:
    return open_network(folder, ModelSection(path=str(folder), compute="fp32"), CPU)


class Copies(TorchDispatchMode):
    """Notes the type of every tensor that is copied to the CPU by name, and of those that are copied into another."""

    def __init__(self) -> None:
        super().__init__()
        self.moved: set[torch.dtype] = set()
        self.cast: set[tuple[torch.dtype, torch.dtype]] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        if function is torch.ops.aten._to_copy.default:
            self.cast.add((args[0].dtype, result.dtype))
            if kwargs.get("device") is not None:
                self.moved.add(args[0].dtype)
        if function is torch.ops.aten.copy_.default:
            self.moved.add(args[1].dtype)
        return result


def test_weights_are_cast_where_they_lie_and_moved_in_the_engines_type(tiny_model: Path, tmp_path: Path) -> None:
    """Casting on the way out is done by the CPU, and fp32 crosses the bus."""
    network = network_of(tiny_model)
    with Copies() as copies:
        export_model(network, tmp_path, torch.bfloat16)
    assert copies.cast == {(torch.float32, torch.bfloat16)}
    assert copies.moved == {torch.bfloat16}


LARGE = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 24, "vocab_size": 1024}
LARGE_SHARDS = 2**23
LARGE_EXPORT_BYTES = 2 * 24 * (3 * 512 * 2048 + 2 * 512 * 64 + 2 * 512 * 32)
"""Without the embeddings and the norms: 150 MiB in bf16, 18 shards."""


def peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def measure_export(folder: Path, results: Any) -> None:
    torch.set_num_threads(1)
    network = network_of(folder)
    with torch.no_grad():
        # Until it is used, a weight is only mapped from its file.
        assert sum(float(weight.sum()) for weight in network.trained)
    before = peak_bytes()
    export_model(network, folder / "out", torch.bfloat16, LARGE_SHARDS)
    results.put(peak_bytes() - before)


def in_a_process(job: Callable[..., None], *arguments: object) -> Any:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=job, args=(*arguments, results))
    process.start()
    result = results.get(timeout=120)
    process.join()
    return result


def test_an_export_holds_one_shard_and_not_a_second_model(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path, **LARGE)
    more = in_a_process(measure_export, folder)
    stored = sum(file.stat().st_size for file in (folder / "out").glob("*.safetensors"))
    assert stored > LARGE_EXPORT_BYTES
    assert more < 4 * LARGE_SHARDS


# Engines


NUM_COMPLETIONS, NUM_TOKENS = 4096, 8192


def test_a_steps_completions_cost_eight_bytes_a_token_and_seconds() -> None:
    """256 prompts x 16 completions of 8k tokens each: 33.6 million tokens, of which no Python object is kept."""
    generator = np.random.default_rng(0)
    output = flat_output(
        generator.integers(0, 150_000, NUM_TOKENS).tolist(), generator.normal(-1, 1, NUM_TOKENS).tolist()
    )
    start = time.process_time()
    written = [to_written(output) for _ in range(NUM_COMPLETIONS)]
    assert time.process_time() - start < 30
    assert all(one.token_ids.base is None and one.logps.base is None for one in written)
    kept = sum(one.token_ids.nbytes + one.logps.nbytes for one in written)
    assert kept == 8 * NUM_COMPLETIONS * NUM_TOKENS
    assert len(pickle.dumps(written[0])) < 8.1 * NUM_TOKENS, "what a completion is on its way through the pipe"


def test_looking_for_a_stop_string_decodes_no_completion_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """8,192 tokens whose every prefix were decoded would be 33 million."""
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "head_dim": 4}
    folder = make_tiny_model(tmp_path, max_position_embeddings=2**14, **sizes)
    settings = RolloutSection(prompts_per_step=2, group_size=2, max_new_tokens=2**13, dtype="float32")
    engine = TransformersEngine(folder, settings, device=CPU)
    tokenizer = tiny_tokenizer()
    request = Request(np.array(tokenizer("What is 1 + 2?").input_ids, np.int32), (1,))
    decoded = []
    plain = type(tokenizer).decode

    def counting(self: object, token_ids: Any, *options: Any, **more: Any) -> Any:
        decoded.append(np.size(token_ids))
        return plain(self, token_ids, *options, **more)

    monkeypatch.setattr(type(tokenizer), "decode", counting)
    # No token ends it, and chance writes no stop string of nine characters.
    [(_, [one])] = list(engine.generate([request], Sampling(1.0, 2**13, (10**6,), ("</answer>",))))
    assert (len(one.token_ids), one.finish) == (2**13, "length")
    assert sum(decoded) <= 2 * 2**13
