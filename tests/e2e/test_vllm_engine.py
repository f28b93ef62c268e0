"""The vLLM engine alone: its log-probs, its weights, its death."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import alive, descendants, wait_for
from tiny import make_tiny_model, tiny_tokenizer

from grpo.errors import EngineError, SyncError
from grpo.model.lora import open_network
from grpo.parallel.world import SoleWorld
from grpo.phases import PhaseClock
from grpo.policy.export import export_model
from grpo.policy.policy import Policy, PolicySettings
from grpo.recipe.sections import ModelSection, RolloutSection, UpdateSection
from grpo.rollout.engines.protocol import Request, Sampling
from grpo.rollout.engines.vllm_client import VllmEngine, cpu_kv_cache_bytes
from grpo.rollout.weight_sync.proof import WeightSync, mean_gap

pytestmark = pytest.mark.e2e
pytest.importorskip("vllm", reason="vLLM is not installed")

CPU = torch.device("cpu")
WORLD = SoleWorld(CPU)
SETTINGS = RolloutSection(
    prompts_per_step=2,
    group_size=2,
    max_new_tokens=24,
    dtype="float32",
    cpu_kv_cache_gib=0.1,
    sync_tolerance=0.02,
    timeout_s=120,
)
PROMPTS = [np.array(tiny_tokenizer()(text).input_ids, np.int32) for text in ("What is 1 + 2?", "To be, or not to be: ")]


@contextmanager
def engine_of(folder: Path, log: Path, settings: RolloutSection = SETTINGS) -> Iterator[VllmEngine]:
    engine = VllmEngine(folder, settings, max_model_len=128, device=CPU, seed=0, log=log)
    try:
        yield engine
    finally:
        engine.close()


def policy_of(folder: Path) -> Policy:
    settings = PolicySettings(
        ModelSection(path=str(folder), compute="fp32"), UpdateSection(lr=1e-3), SETTINGS, steps=10
    )
    return Policy(folder, settings, WORLD, PhaseClock())


def trainers(policy: Policy) -> list[list[float]]:
    """What the trainer makes of the prompts' tokens."""
    return policy.logprobs([prompt.tolist() for prompt in PROMPTS])


@pytest.fixture(scope="module")
def engine(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmEngine]:
    with engine_of(tiny_model, tmp_path_factory.mktemp("engine") / "log") as engine:
        yield engine


def sampling(temperature: float) -> Sampling:
    return Sampling(temperature, max_new_tokens=24, end_ids=(0,))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.5])
def test_its_logprobs_are_those_of_the_tempered_policy(
    engine: VllmEngine, tiny_model: Path, temperature: float
) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    requests = [Request(prompt, (11, 12, 13)) for prompt in PROMPTS]
    for number, group in engine.generate(requests, sampling(temperature)):
        for written in group:
            ids = torch.tensor([[*PROMPTS[number], *written.token_ids]])
            logps = (model(ids).logits[0, len(PROMPTS[number]) - 1 : -1] / temperature).log_softmax(-1)
            expected = logps.gather(-1, torch.tensor(written.token_ids).long()[:, None]).squeeze(-1)
            assert torch.allclose(expected, torch.tensor(written.logps), atol=1e-4)
            assert (written.token_ids.dtype, written.logps.dtype) == (np.int32, np.float32)


def test_a_seed_names_a_completion_whatever_else_is_asked(engine: VllmEngine) -> None:
    alone = dict(engine.generate([Request(PROMPTS[0], (7,))], sampling(1.0)))
    among = dict(engine.generate([Request(PROMPTS[1], (5, 6)), Request(PROMPTS[0], (9, 7))], sampling(1.0)))
    assert among[1][1].token_ids.tolist() == alone[0][0].token_ids.tolist()
    assert among[1][0].token_ids.tolist() != alone[0][0].token_ids.tolist()


def test_finish_tells_stop_from_length(engine: VllmEngine) -> None:
    # Every token ends a completion here, so that each has one token and stops.
    everything = Sampling(1.0, max_new_tokens=24, end_ids=tuple(range(90)))
    [(_, group)] = list(engine.generate([Request(PROMPTS[0], tuple(range(40)))], everything))
    for written in group:
        assert (written.finish == "stop") == (written.token_ids[-1] < 90)
        assert len(written.logps) == len(written.token_ids)


def test_a_stop_string_ends_a_completion_with_the_token_that_completes_it(engine: VllmEngine) -> None:
    letters = Sampling(1.0, max_new_tokens=24, end_ids=(0,), stop=("e", "t", "a"))
    [(_, group)] = list(engine.generate([Request(PROMPTS[0], tuple(range(40)))], letters))
    stopped = 0
    for written in group:
        *inner, last = (tiny_tokenizer().decode([token]) for token in written.token_ids.tolist())
        assert not {"e", "t", "a"} & set(inner)
        assert len(written.logps) == len(written.token_ids)
        stopped += last in ("e", "t", "a")
    assert stopped


def test_more_prompt_tokens_than_one_round_takes_do_not_split_a_prompt(engine: VllmEngine) -> None:
    """On CPU a request with a seed does not survive having its prompt split: 90 of 100 tokens are over 8,192."""
    requests = [Request(np.array([number + 2, *range(2, 97), 5, 6, 7, 8], np.int32), (number,)) for number in range(90)]
    groups = dict(engine.generate(requests, Sampling(1.0, max_new_tokens=4, end_ids=(0,))))
    assert sorted(groups) == list(range(90))


def test_an_engine_follows_perturbed_weights_and_the_way_back(engine: VllmEngine, tiny_model: Path) -> None:
    policy = policy_of(tiny_model)
    sync = WeightSync(engine, policy, WORLD, PROMPTS, tolerance=SETTINGS.sync_tolerance)
    assert sync.bring() < 1e-3
    with policy.perturbed():
        policy.version += 1
        assert sync.bring() < 1e-3
        assert mean_gap(engine.logprobs(PROMPTS), trainers(policy)) < 1e-3
    assert mean_gap(engine.logprobs(PROMPTS), trainers(policy)) > 0.1, "the engine still holds the other"
    policy.version += 1
    assert sync.bring() < 1e-3


def test_a_compiled_engine_follows_too(tiny_model: Path, tmp_path: Path) -> None:
    """What is compiled must read the weights that come, not those that it was compiled with."""
    settings = SETTINGS.model_copy(update={"eager": False, "cpu_kv_cache_gib": None})
    policy = policy_of(tiny_model)
    with engine_of(tiny_model, tmp_path / "log", settings) as engine:
        sync = WeightSync(engine, policy, WORLD, PROMPTS, tolerance=SETTINGS.sync_tolerance)
        assert sync.bring() < 1e-3
        with policy.perturbed():
            policy.version += 1
            assert sync.bring() < 1e-3


def test_a_cpu_engines_cache_is_what_its_completions_need(tiny_model: Path) -> None:
    """Keys and values of 2 layers, each with one head of 32, in fp32: 512 bytes a token, 64 KiB a block of 128."""
    block = 2**16
    settings = SETTINGS.model_copy(update={"cpu_kv_cache_gib": None, "max_parallel": 10})
    # 127 tokens and the next one fill a block; 128 begin a second.
    assert cpu_kv_cache_bytes(tiny_model, settings, 127) == 11 * block
    assert cpu_kv_cache_bytes(tiny_model, settings, 128) == 21 * block
    crowd = settings.model_copy(update={"max_parallel": 10**6})
    assert cpu_kv_cache_bytes(tiny_model, crowd, 127) == 2**30 + block
    assert cpu_kv_cache_bytes(tiny_model, crowd, 2**25) == (2**18 + 2) * block
    assert cpu_kv_cache_bytes(tiny_model, SETTINGS, 127) == int(0.1 * 2**30)


def test_weights_in_shards_are_loaded_whole(engine: VllmEngine, tiny_model: Path, tmp_path: Path) -> None:
    """32 KiB a shard: the embeddings and most matrices have a file of their own."""
    network = open_network(tiny_model, ModelSection(path=str(tiny_model), compute="fp32"), CPU)
    with network.perturbed():
        export_model(network, tmp_path, torch.float32, shard_bytes=2**15)
    assert len(list(tmp_path.glob("*.safetensors"))) > 5
    policy = policy_of(tmp_path)
    assert mean_gap(engine.logprobs(PROMPTS), trainers(policy)) > 0.1, "not loaded yet"
    engine.load(tmp_path)
    assert mean_gap(engine.logprobs(PROMPTS), trainers(policy)) < 1e-3


def test_a_tensor_that_is_missing_is_refused(engine: VllmEngine, tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(tiny_model / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EngineError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        engine.load(tmp_path)


def test_without_the_mend_for_tied_heads_the_proof_fails(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grpo.rollout.engines.vllm_client.SERVER", "unmended_server")
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[2]}:{Path(__file__).parents[1]}")
    with engine_of(tiny_model, tmp_path / "log") as engine:
        sync = WeightSync(engine, policy_of(tiny_model), WORLD, PROMPTS, tolerance=SETTINGS.sync_tolerance)
        with pytest.raises(SyncError, match="the engine does not hold these weights"):
            sync.bring()


def test_an_engine_that_is_killed_is_a_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "untied", tie_word_embeddings=False)
    with engine_of(folder, tmp_path / "log") as engine:
        processes = [one for one in descendants(os.getpid()) if one.pid == engine.pid or one.ppid() == engine.pid]
        assert len(processes) == 2, "the engine and its guardian"
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(EngineError, match="ended with exit code -9"):
            engine.logprobs(PROMPTS)
    wait_for(lambda: not alive(processes), 10, "the guardian's end")
