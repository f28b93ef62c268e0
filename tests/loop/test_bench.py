"""`grpo bench`: that both sides do the same work, that it is counted right, and that nothing stays behind."""

from __future__ import annotations

import ast
import json
import math
import os
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from processes import alive, descendants, run_grpo, start_grpo, wait_for
from tiny import make_tiny_model
from transformers import AutoModelForCausalLM

from grpo.bench import command
from grpo.bench.arithmetic import ModelShape, Work, flops, known_peak, matrices, model_shape, packed_work, padded_work
from grpo.bench.beside_trl import micro_batch, run_trl, trl_job
from grpo.bench.command import measure_updates, run_steps
from grpo.bench.machine import TreePeak, UpdatePeak, warnings
from grpo.bench.options import Options, read_options
from grpo.bench.process import BenchError, attempt, last_words, run_apart
from grpo.bench.random_model import random_config
from grpo.bench.report import disagreements, drift, step_report
from grpo.bench.rollouts import Groups, draw_rewards, random_groups, random_prompts, spread_lengths
from grpo.bench.side import Side, UpdateJob
from grpo.bench.sides import OurUpdate, PaddedUpdate
from grpo.cli import EXIT_INTERRUPTED, EXIT_USER_ERROR, main
from grpo.errors import UserError
from grpo.records import Branch, PromptTree

VOCABULARY = 90


def uneven_groups() -> Groups:
    """Three groups of four, prompts of 5 to 15 tokens, completions of 4 to 12."""
    prompts = random_prompts(spread_lengths(10, 0.5, 3, seed=0), VOCABULARY)
    return random_groups(prompts, spread_lengths(8, 0.5, 12, seed=1), VOCABULARY)


def make_job(folder: Path, groups: Groups | None = None, **changes: Any) -> UpdateJob:
    groups = groups or uneven_groups()
    sizes = {"groups": len(groups), "group_size": len(groups[0].scores)}
    return UpdateJob(folder, groups, Options(**({"device": "cpu", "compute": "fp32", "budget": 60} | sizes | changes)))


def tree(prompt: int, *completions: int) -> PromptTree:
    def branch(length: int) -> Branch:
        ones = np.ones(length, np.float32)
        return Branch(np.ones(length, np.int32), ones, ones, weight=1.0)

    return PromptTree(np.ones(prompt, np.int32), tuple(map(branch, completions)))


# The room


def bench_nodes() -> list[ast.AST]:
    """All of the room's code."""
    files = Path(command.__file__).parent.glob("*.py")
    return [node for file in files for node in ast.walk(ast.parse(file.read_text()))]


def test_the_bench_comes_through_public_doors() -> None:
    """What it watches may be rebuilt inside; the exceptions are other libraries', which have no such door."""
    private = {
        node.attr
        for node in bench_nodes()
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
        if not (isinstance(node.value, ast.Name) and node.value.id == "self")
    }
    assert private == {"_attn_implementation", "_supports_onednn"}


def test_no_name_of_a_class_has_two_meanings() -> None:
    names = [node.name for node in bench_nodes() if isinstance(node, ast.ClassDef)]
    assert len(names) == len(set(names))


# Arithmetic


def test_the_model_is_counted_by_hand(tiny_model: Path) -> None:
    """Two layers of: queries 64 x 64, keys and values 32 x 64 each, output 64 x 64, three of 128 x 64; a head of 64."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    layer = 64 * 64 + 2 * 32 * 64 + 64 * 64 + 3 * 128 * 64
    vocabulary = model.config.vocab_size
    assert model_shape(model) == ModelShape(2 * layer, vocabulary * 64, num_layers=2, attention_width=64)
    assert sum(rows * columns * count for rows, columns, count in matrices(model)) == 2 * layer + vocabulary * 64


def test_an_untied_head_is_no_part_of_the_body(tmp_path: Path, tiny_model: Path) -> None:
    untied = AutoModelForCausalLM.from_pretrained(make_tiny_model(tmp_path, tie_word_embeddings=False))
    assert model_shape(untied) == model_shape(AutoModelForCausalLM.from_pretrained(tiny_model))


def test_packed_work_by_hand() -> None:
    """A prompt of 3 with completions of 2 and 4, and one of 1 with a completion of 1, whose one token is no input."""
    work = packed_work([[tree(3, 2, 4)], [tree(1, 1)]])
    # Inputs: 3 + 1 + 3, and 1. Pairs: 6 in the prompt, 1 x 3 + 1 and 3 x 3 + 6 after it; 1.
    assert work == Work(body_tokens=8, head_tokens=7, pairs=6 + 4 + 15 + 1)


def test_padded_work_by_hand() -> None:
    """Each micro-batch is as wide as its own longest prompt and longest completion together."""
    work = padded_work([[tree(3, 2), tree(3, 4)], [tree(1, 1)]])
    assert work == Work(body_tokens=2 * 7 + 2, head_tokens=2 * 7 + 2, pairs=2 * 49 + 4)


def test_flops_by_hand() -> None:
    shape = ModelShape(body_parameters=1000, head_parameters=300, num_layers=2, attention_width=16)
    assert flops(shape, Work(body_tokens=10, head_tokens=4, pairs=30)) == 6 * (10_000 + 1200) + 12 * 2 * 16 * 30


def test_flops_agree_with_torchs_own_count(tiny_model: Path) -> None:
    """Torch counts the products that the padded way really makes, attention and both passes included.

    It counts the whole score matrix, and no product for the gradient of the first layer's input: there is none.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    side = PaddedUpdate(make_job(tiny_model, budget=10**4))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        side.update()
    assert counter.get_total_flops() == pytest.approx(flops(model_shape(side.model), side.work()), rel=0.02)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA GeForce RTX 3060", None),
        ("cpu", None),
    ],
)
def test_a_peak_is_known_by_the_devices_name_or_not_at_all(name: str, peak: float | None) -> None:
    assert known_peak(name) == peak


def test_frozen_weights_have_no_gradient_to_compute(tiny_model: Path) -> None:
    whole = OurUpdate(make_job(tiny_model)).warm_up()
    adapters = OurUpdate(make_job(tiny_model, lora_rank=2)).warm_up()
    in_attention = 12 * 2 * 64 * whole["work"]["pairs"]
    assert adapters["model_shape"]["body_parameters"] == whole["model_shape"]["body_parameters"]
    assert 6 * (adapters["flops"] - in_attention) == 4 * (whole["flops"] - in_attention)
    # A weight of four bytes, its gradient and two moments; adapters of rank 2 on 7 matrices of 2 layers.
    num_weights = whole["parameters"]
    num_adapters = 2 * 2 * ((64 + 64) + 2 * (64 + 32) + (64 + 64) + 3 * (128 + 64))
    assert whole["state_bytes"] == 16 * num_weights
    assert adapters["state_bytes"] == 4 * num_weights + 16 * num_adapters


# The same work on both sides


@pytest.mark.parametrize("checkpointing", [False, True])
def test_both_sides_compute_the_same_loss_and_gradient(tiny_model: Path, checkpointing: bool) -> None:
    job = make_job(tiny_model, gradient_checkpointing=checkpointing)
    ours, padded = OurUpdate(job), PaddedUpdate(job)
    found = [side.warm_up() for side in (ours, padded)]
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], rel=1e-4)
    assert found[0]["grad_norm"] == pytest.approx(found[1]["grad_norm"], rel=1e-4)
    assert found[0]["grad_norm"] > 0.01
    for one, other in zip(ours.model.parameters(), padded.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=3e-6)  # AdamW's first step is the rate, 1e-6, either way
    assert found[0]["flops"] < found[1]["flops"]


def test_a_budget_only_cuts_the_work(tiny_model: Path) -> None:
    whole, cut = (PaddedUpdate(make_job(tiny_model, budget=budget)) for budget in (10**4, 60))
    assert len(whole.batch().micro_batches) == 1
    # A row has up to 13 + 11 tokens, two fit 60: twelve rows in six micro-batches.
    assert [len(rows) for rows in cut.batch().micro_batches] == [2] * 6
    assert whole.warm_up()["loss"] == pytest.approx(cut.warm_up()["loss"], rel=1e-4)


def test_every_completion_carries_a_signal(tiny_model: Path) -> None:
    [trees] = make_job(tiny_model).batch(budget=10**4).micro_batches
    assert sorted(len(tree.branches) for tree in trees) == [4, 4, 4]
    for each in trees:
        advantages = [set(branch.advantages) for branch in each.branches]
        assert all(len(values) == 1 for values in advantages)
        assert {math.copysign(1, value) for [value] in advantages if value} == {1.0, -1.0}


def test_phases_add_up_and_each_takes_time(tiny_model: Path) -> None:
    for side in (OurUpdate(make_job(tiny_model)), PaddedUpdate(make_job(tiny_model))):
        [times] = side.times(1)
        assert min(times.values()) > 0
        parts = times["forward_s"] + times["backward_s"] + times["other_s"]
        assert parts == pytest.approx(times["update_s"], rel=1e-6)


def test_what_is_not_learnt_from_takes_no_phase(tiny_model: Path) -> None:
    """As the weight sync asks: all of its time is its own."""
    side = OurUpdate(make_job(tiny_model))
    side.watch.enter("sync")
    side.policy.logprobs([[1, 2, 3]])
    assert side.watch.read().keys() == {"sync"}


def test_matrix_rates_are_of_both_types(tiny_model: Path) -> None:
    rates = OurUpdate(make_job(tiny_model)).rates()
    assert rates.keys() == {"bf16", "fp32"}
    assert min(rates.values()) > 0


@pytest.mark.parametrize(
    ("steps", "expected"), [(3, ["ours 2", "padded 2", "ours 1", "padded 1"]), (1, ["ours 1", "padded 1"])]
)
def test_sides_take_turns(
    steps: int, expected: list[str], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def run_here(function: Callable[[], Any], log: Path) -> Any:
        found = function()
        seen.append(f"{log.stem} {len(found['times'])}")
        return found

    monkeypatch.setattr(command, "run_apart", run_here)
    sides = measure_updates(make_job(tiny_model, steps=steps), tmp_path)
    assert seen == expected
    assert [len(side["times"]) for side in sides.values()] == [steps, steps]
    assert [len(side["rates"]) for side in sides.values()] == [len(expected)] * 2


def test_the_highest_peak_of_all_expectedcounts(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([5, 7, 9, 3])

    def find(function: Callable[[], Any], log: Path) -> dict[str, Any]:
        return {"peak_memory_bytes": next(found), "times": [{}]}

    monkeypatch.setattr(command, "run_apart", find)
    sides = measure_updates(make_job(tiny_model, steps=2), tmp_path)
    assert {name: side["peak_memory_bytes"] for name, side in sides.items()} == {"ours": 9, "padded": 7}


def test_a_drifting_machine_is_warned_of() -> None:
    def sides(ours: float, padded: float) -> dict[str, Any]:
        return {
            "ours": {"rates": [{"bf16": 100.0}, {"bf16": ours}]},
            "padded": {"rates": [{"bf16": padded}, {"bf16": 50.0}]},
        }

    assert drift(sides(110, 50), "bf16") == []
    [line] = drift(sides(60, 50), "bf16")
    assert "40 %" in line
    [line] = drift(sides(110, 100), "bf16")
    assert "50 %" in line


def test_sides_that_did_other_work_are_warned_of() -> None:
    sides = {"ours": {"loss": 0.5, "grad_norm": 2.0}, "padded": {"loss": 0.52, "grad_norm": 2.3}}
    assert disagreements(sides, "bf16") == []
    assert len(disagreements(sides, "fp32")) == 2
    sides["ours"]["loss"] = 0.6
    assert disagreements(sides, "bf16") == ["the sides' loss differ: ours 0.6, padded 0.52"]


# Processes


def test_a_commands_exit_code_and_words_come_back(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert run_apart(partial(subprocess.call, ("sh", "-c", "echo $SAID; exit 3"), env={"SAID": "hello"}), log) == 3
    assert last_words(log) == "hello"


def test_an_interrupt_ends_a_command_and_what_it_started(tmp_path: Path) -> None:
    started: list[Any] = []

    def interrupt(pid: int) -> None:
        started.extend(one for one in descendants(pid) if one.name() == "sleep")
        if started:
            raise KeyboardInterrupt

    words = partial(subprocess.call, ("sh", "-c", "sleep 100 & sleep 100"))
    with pytest.raises(KeyboardInterrupt):
        run_apart(words, tmp_path / "log", interrupt)
    wait_for(lambda: not alive(started), 5, "the end of the command")


def test_what_was_started_ends_with_the_work(tmp_path: Path) -> None:
    words = partial(subprocess.check_output, ("sh", "-c", "sleep 100 >/dev/null & echo $!"))
    pid = int(run_apart(words, tmp_path / "log"))

    def gone() -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    wait_for(gone, 5, "the end of what was left")


def test_a_process_that_is_killed_is_told(tmp_path: Path) -> None:
    kill = partial(subprocess.call, ("sh", "-c", "echo I go; kill -9 $PPID"))
    with pytest.raises(BenchError, match=r"bench: padded \(pid \d+\) was ended from outside\nI go"):
        run_apart(kill, tmp_path / "padded.log")


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (UserError("--budget=1: too small"), UserError, "--budget=1: too small"),
        (MemoryError("none left"), UserError, "bench: ours: out of memory (none left)"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            UserError,
            "out of memory (DefaultCPUAllocator: can't allocate memory: you tried); lower --budget",
        ),
        (torch.OutOfMemoryError("CUDA out of memory"), UserError, "out of memory (CUDA out of memory); lower --budget"),
        (ValueError("a bug"), BenchError, "bench: ours failed\nTraceback"),
    ],
)
def test_what_goes_wrong_in_a_process_is_told_apart(error: Exception, kind: type[Exception], text: str) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(kind) as told:
        attempt(fail, "ours")
    assert text in str(told.value)
    assert str(error) in str(told.value)


def test_errors_come_through_from_a_process(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="ValueError: invalid literal"):
        run_apart(partial(int, "x"), tmp_path / "log")
    with pytest.raises(UserError, match="--group-size=1"):
        run_apart(partial(read_options, Namespace(group_size=1)), tmp_path / "log")


# Rollouts


@pytest.mark.parametrize(("mean", "spread", "num"), [(90, 0.0, 4), (28, 0.5, 32), (300, 0.9, 7), (2, 0.9, 8)])
def test_spread_lengths_have_the_right_mean_and_range(mean: int, spread: float, num: int) -> None:
    lengths = spread_lengths(mean, spread, num, seed=3)
    assert len(lengths) == num
    assert sum(lengths) / num == pytest.approx(mean, abs=0.5)
    assert mean * (1 - spread) - 0.5 <= min(lengths) <= max(lengths) <= mean * (1 + spread) + 0.5
    if spread * mean > 10:
        assert max(lengths) - min(lengths) > spread * mean
        assert lengths != sorted(lengths)
    assert spread_lengths(mean, spread, num, seed=3) == lengths


def test_groups_have_the_lengths_that_were_asked_for() -> None:
    def tokens() -> list[list[list[int]]]:
        groups = random_groups(random_prompts([5, 7], VOCABULARY), [1, 2, 3, 4], VOCABULARY)
        rows = [[one.group.prompt, *one.group.completions] for one in groups]
        return [[[int(token) for token in each.token_ids] for each in row] for row in rows]

    found = tokens()
    assert [[len(ids) for ids in row] for row in found] == [[5, 1, 2], [7, 3, 4]]
    assert all(0 <= token < VOCABULARY for row in found for ids in row for token in ids)
    assert found == tokens()


def test_rewards_are_never_all_alike() -> None:
    import random

    for seed in range(50):
        assert set(draw_rewards(2 + seed % 3, random.Random(seed))) == {0.0, 1.0}


# Memory


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system has no high-water mark to reset")
def test_the_gauge_sees_what_was_held_in_between_and_is_gone() -> None:
    gauge = UpdatePeak(torch.device("cpu"))
    gauge.start()
    if gauge.above() is None:
        pytest.skip("the high-water mark may not be reset here")
    held = bytearray(b"x") * (200 * 2**20)
    del held
    seen = gauge.above()
    assert seen is not None
    assert 195 * 2**20 < seen < 260 * 2**20
    gauge.start()
    again = gauge.above()
    assert again is not None
    assert again < 50 * 2**20


def test_gradients_are_no_part_of_an_updates_memory(tmp_path: Path) -> None:
    """A model whose gradients take 96 MiB, and almost nothing to compute: a prompt with two completions of a token."""
    folder = make_tiny_model(tmp_path, hidden_size=512, intermediate_size=4096, num_hidden_layers=4)
    groups = random_groups(random_prompts([2], VOCABULARY), [1, 1], VOCABULARY)
    side: Side = OurUpdate(make_job(folder, groups=groups))
    size = 4 * side.warm_up()["parameters"]
    assert size > 96 * 2**20
    found = side.memory()
    if found is None:
        pytest.skip("the high-water mark may not be reset here")
    assert 0 <= found < size / 2


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the system does not tell PSS")
def test_a_tree_of_processes_is_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_slow(process: psutil.Process) -> None:
        raise AssertionError("the processes are held up although nothing has grown")

    script = "import sys, time; held = bytearray(b'x') * (100 * 2**20); print('held', flush=True); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {script!r}])"
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        peak = TreePeak()
        peak.look(process.pid)
        assert peak.peak_bytes is not None
        assert 100 * 2**20 < peak.peak_bytes < 200 * 2**20
        monkeypatch.setattr(psutil.Process, "memory_full_info", too_slow)
        peak.look(process.pid)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    peak.look(process.pid)
    assert peak.peak_bytes > 100 * 2**20


# TRL's side


def test_the_job_says_all_in_json(tiny_model: Path) -> None:
    job = make_job(tiny_model, steps=3)
    found = json.loads(json.dumps(trl_job(job, generate=False, warm_up_steps=1)))
    assert [tuple(group["prompt"]) for group in found["groups"]] == [
        tuple(group.group.prompt.token_ids) for group in job.groups
    ]
    lengths = [[len(one.token_ids) for one in group.group.completions] for group in job.groups]
    assert [[len(ids) for ids in group["completions"]] for group in found["groups"]] == lengths
    assert [[len(logps) for logps in group["sampler_logps"]] for group in found["groups"]] == lengths
    rewards = [[score.reward for score in group.scores] for group in job.groups]
    assert [group["rewards"] for group in found["groups"]] == rewards
    settings = found["settings"]
    assert settings["num_generations"] == 4
    assert settings["max_steps"] == 4
    assert (settings["per_device_train_batch_size"], settings["gradient_accumulation_steps"]) == (2, 6)
    seven = trl_job(make_job(tiny_model, trl_rows=7), generate=False, warm_up_steps=1)["settings"]
    assert (seven["per_device_train_batch_size"], seven["gradient_accumulation_steps"]) == (6, 2)


class FakeTrainer:
    """In the place of TRL's: what it is to call, in TRL's order; a second passes in each part of a step."""

    clock = 0.0

    def __init__(self, model: str, reward_funcs: Any, rollout_func: Any, args: Any, train_dataset: Any, callbacks: Any):
        self.reward, self.rollout, self.args, [self.callback] = reward_funcs, rollout_func, args, callbacks
        self.prompts = train_dataset["prompt"]
        self.state = SimpleNamespace(log_history=[], global_step=0)
        self.vllm_generation = SimpleNamespace(generate=self.generate)
        self.model = torch.nn.Linear(1, 1)
        self.model.config = SimpleNamespace(_attn_implementation="sdpa")  # type: ignore[assignment]

    def generate(self, prompts: list[list[int]], images: None, num_generations: int) -> tuple[Any, ...]:
        FakeTrainer.clock += 4
        return prompts, [[1, 2, 3]] * len(prompts), None, None

    def train(self) -> None:
        self.callback.on_train_begin()
        num_groups = len(self.prompts) // self.args.max_steps
        for step in range(self.args.max_steps):
            self.callback.on_step_begin()
            FakeTrainer.clock += 2  # the weights to the engine
            here = self.prompts[step * num_groups : (step + 1) * num_groups]
            rows = [prompt for prompt in here for _ in range(self.args.num_generations)]
            given = self.rollout(rows, self)
            assert len(given["prompt_ids"]) == len(self.reward(prompts=rows)) == len(rows)
            FakeTrainer.clock += 10 * (step + 1)
            self.state.global_step += 1
            self.callback.on_step_end()
            mean = sum(map(len, given["completion_ids"])) / len(rows)
            row = {"step": step + 1, "loss": 0.5, "grad_norm": 2.0, "completions/mean_length": mean}
            self.state.log_history.append(row)


@pytest.mark.parametrize("generate", [True, False])
def test_what_is_timed_of_trl(generate: bool, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from grpo.bench import trl_trainer

    monkeypatch.setattr(torch.utils.benchmark, "timer", lambda: FakeTrainer.clock)
    for package in ("vllm._custom_ops", "vllm.model_executor.layers.utils"):
        monkeypatch.setitem(sys.modules, package, SimpleNamespace())
    config = partial(SimpleNamespace, **dict.fromkeys(trl_trainer.FLAGS))
    fake = SimpleNamespace(
        GRPOTrainer=FakeTrainer, GRPOConfig=lambda **given: SimpleNamespace(**vars(config()) | given)
    )
    monkeypatch.setitem(sys.modules, "trl", fake)
    job = make_job(tiny_model, steps=2)
    found = trl_trainer.measure(trl_job(job, generate=generate, warm_up_steps=1))
    assert found["sync_s"] == ([2, 2] if generate else [0, 0])
    assert found["generate_s"] == ([4, 4] if generate else [0, 0])
    assert found["update_s"] == ([20, 30] if generate else [22, 32])
    assert found["step_s"] == ([26, 36] if generate else [22, 32])
    assert found["generated_tokens"] == ([36, 36] if generate else [0, 0])
    assert found["completion_tokens"] == sum(
        len(one.token_ids) for each in job.groups for one in each.group.completions
    )
    assert (found["loss"], found["grad_norm"]) == (0.5, 2.0)


@pytest.mark.parametrize(("most", "rows"), [(1, 1), (2, 2), (5, 4), (11, 6), (10**6, 12)])
def test_trls_micro_batch_divides_all_rows(most: int, rows: int) -> None:
    assert micro_batch(most, uneven_groups()) == rows


def test_a_trl_that_fails_is_told_with_its_last_words(tiny_model: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no such flag; exit 3\n")
    python.chmod(0o755)
    job = trl_job(make_job(tiny_model), generate=False, warm_up_steps=1)
    with pytest.raises(BenchError, match="trl ended with exit code 3; its last words:\nno such flag"):
        run_trl(job, python, tmp_path / "trl", lambda pid: None)


def test_whole_steps_become_a_report(tiny_model: Path) -> None:
    """Ours without an engine; TRL's figures by hand."""
    job = make_job(tiny_model)
    ours = run_steps(job, 1, 2, engine_log=None)
    assert len(ours["step_s"]) == 2
    assert ours["update_s"] == ours["step_s"]
    assert ours["completion_tokens"] == sum(len(one.token_ids) for each in job.groups for one in each.group.completions)
    ours |= {"step_s": [1.0, 1.0], "run_peak_bytes": 100}
    trl = {
        "step_s": [9.0, 11.0],
        "generate_s": [3.0, 3.0],
        "sync_s": [1.0, 1.0],
        "update_s": [5.0, 7.0],
        "generated_tokens": [5, 7],
        "run_peak_bytes": 200,
    }
    found = step_report({"ours": ours, "trl": trl, "generation": True})
    assert found["step_speedup"] == 10
    assert found["run_memory_ratio"] == 0.5
    medians = found["whole"]["trl"]["medians"]
    assert medians == {"step_s": 10, "sync_s": 1, "generate_s": 3, "update_s": 6, "generated_tokens": 6}


# The command


def test_what_the_command_writes(tmp_path: Path, tiny_model: Path) -> None:
    file = tmp_path / "bench.json"
    small = ("--prompt-tokens", "12", "--completion-tokens", "6", "--groups", "2", "--group-size", "4", "--steps", "1")
    code, output = run_grpo("bench", "--model", str(tiny_model), "--device", "cpu", *small, "--json", str(file))
    assert code == 0, output
    found = json.loads(file.read_text())
    assert {"update_speedup", "peak_memory_ratio", "tokens_per_s", "step_speedup"} <= found.keys()
    for name in ("update_speedup", "tokens_per_s", "matmul_frac", "flops_ratio"):
        assert math.isfinite(found[name])
        assert found[name] > 0
    assert found["step_speedup"] is None
    assert found["peak_memory_ratio"] is None or found["peak_memory_ratio"] >= 0
    assert found["work"]["completion_tokens"] == 2 * 4 * 6
    assert found["work"]["prompt_tokens"] == 2 * 12
    ours, padded = found["sides"]["ours"], found["sides"]["padded"]
    assert ours["loss"] == pytest.approx(padded["loss"], rel=0.05, abs=0.02)
    assert len(ours["times"]) == len(padded["times"]) == 1
    assert sum(ours["shares"].values()) == pytest.approx(1)
    assert not [line for line in found["warnings"] if "differ" in line]
    assert "forward and backward" in output
    assert found["machine"]["cpu"] in output


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_behind(tiny_model: Path, sent: signal.Signals) -> None:
    process = start_grpo("bench", "--model", str(tiny_model), "--device", "cpu", "--steps", "100000")

    def working() -> list[Any]:
        return [one for one in descendants(process.pid) if any("spawn_main" in word for word in one.cmdline())]

    started = wait_for(working, 60, "a side's process")
    process.send_signal(sent)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == (EXIT_INTERRUPTED if sent == signal.SIGINT else -sent), output
    assert "Traceback" not in output
    wait_for(lambda: not alive(started), 5, "the end of the side")


Refused = Callable[..., str]


@pytest.fixture
def refused(tiny_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> Refused:
    """The message of a bench that is refused; no process may be started for it."""

    def no_child(*arguments: object, **keywords: object) -> None:
        raise AssertionError("a process was started before the fault was found")

    def run(*arguments: str) -> str:
        monkeypatch.setattr("grpo.bench.process.ProcessPoolExecutor", no_child)
        with pytest.raises(SystemExit) as exit_:
            main(["bench", *(() if "--model" in arguments else ("--model", str(tiny_model))), *arguments])
        assert exit_.value.code == EXIT_USER_ERROR
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--group-size=1"], "--group-size=1: a group of one has no advantage; give at least 2"),
        (["--groups=0"], "--groups=0: nothing would be left to measure; give at least 1"),
        (["--spread=1.0"], "--spread=1.0: lengths would not be positive"),
        (["--spread=nan"], "--spread=nan: lengths would not be positive"),
        (["--steps=0", "--completion-tokens=0"], "--completion-tokens=0: nothing"),
        (["--budget=100"], "--budget=100: prompt and completion have up to 118 tokens"),
        (["--shape=A", "--prompt-tokens=9"], "--prompt-tokens=9: --shape says how long all is"),
        (["--json=/nowhere/b.json"], "--json=/nowhere/b.json: no such folder"),
        (["--against=trl", "--compute=fp32"], "--compute=fp32: beside TRL"),
        (["--against=trl", "--trl-python=/nowhere/python"], "--trl-python=/nowhere/python: no such program"),
        (["--completion-tokens=2000"], "--completion-tokens=2000: with a prompt of 90 tokens that is 2090"),
        (["--model", "no-such-folder"], "model.path=no-such-folder: no such folder"),
        (["--shape=E"], "the model's tokenizer has no chat template"),
    ],
)
def test_what_cannot_be_measured_is_refused(refused: Refused, arguments: list[str], message: str) -> None:
    assert message in refused(*arguments)


def test_all_faults_are_named_at_once(refused: Refused) -> None:
    assert refused("--group-size=1", "--steps=0").count("; give at least") == 2


def test_a_python_without_trl_is_refused(refused: Refused, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho \'{"trl": false, "vllm": true}\'\n')
    python.chmod(0o755)
    message = refused("--against=trl", f"--trl-python={python}")
    assert f"--against=trl: trl is not installed in {python}; pip install trl there" in message


def test_a_device_that_is_not_there_is_refused(refused: Refused) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    assert "--device=cuda: this machine has no CUDA device" in refused("--device=cuda")


def test_a_busy_machine_and_spinning_threads_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (0.6, 0.0, 0.0))
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert [line.split(":")[0] for line in warnings(on_cpu=True)] == [
        "the machine is busy (load 0.60)",
        "OMP_WAIT_POLICY is not PASSIVE",
    ]
    monkeypatch.setattr("os.getloadavg", lambda: (0.4, 0.0, 0.0))
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    assert warnings(on_cpu=True) == []


def test_random_models_have_qwens_sizes() -> None:
    """Weights without the embeddings as Qwen2.5's model cards give them: 0.36 and 1.31 billion."""
    for size, expected in (("0.5b", 0.36e9), ("1.5b", 1.31e9)):
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(random_config(size))
        assert model_shape(model).body_parameters == pytest.approx(expected, rel=0.01)


def test_defaults_are_the_first_row_of_the_table() -> None:
    options = Options()
    assert (options.prompt_tokens, options.completion_tokens, options.group_size) == (90, 28, 8)
