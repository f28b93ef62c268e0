"""`grpo bench`: that both sides do the same work, that it is counted right, and that nothing stays behind."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import alive, descendants, run_grpo, start_grpo, wait_for
from tiny import make_tiny_model
from transformers import AutoModelForCausalLM

from grpo.bench import child, command, random_model
from grpo.bench.arithmetic import ModelShape, Work, flops, known_peak, model_shape, packed_work, padded_work
from grpo.bench.external import CommandJob
from grpo.bench.matmul import MatmulRate
from grpo.bench.memory import ProcessGauge, TreePeak
from grpo.bench.options import Options
from grpo.bench.peer import TrlSide, micro_batch
from grpo.bench.report import step_report
from grpo.bench.side import Side, UpdateJob, matrices
from grpo.bench.sides import OurUpdate, PaddedUpdate
from grpo.bench.turns import SIDES, matmul_job, measure_updates, measure_updates_apart
from grpo.bench.whole import StepJob, WholeStep
from grpo.bench.work import FixedGroup, complete, credited_groups, draw_rewards, spread_lengths, synthetic_groups
from grpo.bench.worker import BenchError, Worker
from grpo.cli import EXIT_INTERRUPTED, EXIT_USER_ERROR, main
from grpo.errors import UserError
from grpo.recipe.sections import UpdateSection
from grpo.records import Branch, PromptTree

VOCABULARY = 90


def uneven_groups() -> tuple[FixedGroup, ...]:
    """Three groups of four, prompts of 5 to 15 tokens, completions of 4 to 12."""
    prompts = spread_lengths(10, 0.5, 3, seed=0)
    return tuple(synthetic_groups(prompts, spread_lengths(8, 0.5, 12, seed=1), 4, VOCABULARY))


def make_job(folder: Path, **changes: Any) -> UpdateJob:
    job = UpdateJob(
        folder=folder,
        groups=uneven_groups(),
        device="cpu",
        compute="fp32",
        gradient_checkpointing=False,
        budget=60,
        max_new_tokens=16,
    )
    return replace(job, **changes)


def tree(prompt: int, *completions: int) -> PromptTree:
    return PromptTree((1,) * prompt, tuple(Branch((1,) * n, (0.0,) * n, (1.0,) * n, 1.0) for n in completions))


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
    assert counter.get_total_flops() == pytest.approx(flops(model_shape(side.model()), side.work()), rel=0.02)


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
    for one, other in zip(ours.model().parameters(), padded.model().parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=3e-6)  # AdamW's first step is the rate, 1e-6, either way
    assert found[0]["flops"] < found[1]["flops"]


def test_a_budget_only_cuts_the_work(tiny_model: Path) -> None:
    whole, cut = (PaddedUpdate(make_job(tiny_model, budget=budget)) for budget in (10**4, 60))
    assert len(whole._rows()[0]) == 1
    # A row has up to 13 + 11 tokens, two fit 60: twelve rows in six micro-batches.
    assert [len(rows) for rows in cut._rows()[0]] == [2] * 6
    assert whole.warm_up()["loss"] == pytest.approx(cut.warm_up()["loss"], rel=1e-4)


def test_every_completion_carries_a_signal(tiny_model: Path) -> None:
    for credited in credited_groups(uneven_groups(), UpdateSection(lr=1e-6)):
        signs = {math.copysign(1, value) for value in credited.of_completions if value}
        assert signs == {1.0, -1.0}
        assert all(credited.of_completions)


def test_phases_add_up_and_each_takes_time(tiny_model: Path) -> None:
    plain = torch.autograd.backward
    for side in (OurUpdate(make_job(tiny_model)), PaddedUpdate(make_job(tiny_model))):
        [times] = side.times(1)
        assert min(times.values()) > 0
        parts = times["forward_s"] + times["backward_s"] + times["other_s"]
        assert parts == pytest.approx(times["update_s"], rel=1e-6)
    assert torch.autograd.backward is plain


def test_matrix_rates_are_of_both_types(tiny_model: Path) -> None:
    found = OurUpdate(make_job(tiny_model)).warm_up()

    rates = MatmulRate(matmul_job(make_job(tiny_model), found)).rates()
    assert rates.keys() == {"bf16", "fp32"}
    assert min(rates.values()) > 0


class InThisProcess:
    """Instead of a worker: what it would open, opened here."""

    def __init__(self, kind: str, job: Any) -> None:
        self._opened = child.open_kind(kind, job)

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, *_: object) -> None: ...

    def ask(self, method: str, *arguments: Any) -> Any:
        return getattr(self._opened, method)(*arguments)


@pytest.mark.parametrize("measure", [measure_updates, measure_updates_apart])
def test_sides_take_turns(tiny_model: Path, measure: Any) -> None:
    said: list[str] = []
    found = measure(make_job(tiny_model), 3, InThisProcess, said.append)
    assert {side: len(found.sides[side]["times"]) for side in SIDES} == {"ours": 3, "padded": 3}
    assert len(found.rates) == 2
    assert said


def test_one_timing_needs_one_turn(tiny_model: Path) -> None:
    found = measure_updates_apart(make_job(tiny_model), 1, InThisProcess, lambda text: None)  # type: ignore[arg-type]
    assert [len(side["times"]) for side in found.sides.values()] == [1, 1]


def test_a_drifting_machine_is_warned_of() -> None:
    assert command.drift([{"bf16": 100.0}, {"bf16": 110.0}], "bf16") == []
    [line] = command.drift([{"bf16": 100.0}, {"bf16": 60.0}], "bf16")
    assert "40 %" in line


def test_sides_that_did_other_work_are_warned_of() -> None:
    sides = {"ours": {"loss": 0.5, "grad_norm": 2.0}, "padded": {"loss": 0.52, "grad_norm": 2.3}}
    assert command.disagreements(sides, "bf16") == []
    assert len(command.disagreements(sides, "fp32")) == 2
    sides["ours"]["loss"] = 0.6
    assert command.disagreements(sides, "bf16") == ["the sides' loss differ: ours 0.6, padded 0.52"]


# Processes


def test_a_commands_exit_code_comes_back(tmp_path: Path) -> None:
    with Worker(
        "command", CommandJob(("sh", "-c", "echo $SAID; exit 3"), {"SAID": "hello"}), tmp_path / "log"
    ) as worker:
        assert worker.ask("run") == 3
    assert (tmp_path / "log").read_text() == "hello\n"


def test_an_interrupt_ends_a_command_and_what_it_started(tmp_path: Path) -> None:
    started: list[Any] = []

    def interrupt(pid: int) -> None:
        started.extend(one for one in descendants(pid) if one.name() == "sleep")
        if started:
            raise KeyboardInterrupt

    job = CommandJob(("sh", "-c", "sleep 100 & sleep 100"), {})
    with pytest.raises(KeyboardInterrupt), Worker("command", job, tmp_path / "log", look=interrupt) as worker:
        worker.ask("run")
    wait_for(lambda: not alive(started), 5, "the end of the command")


def test_a_process_that_is_killed_is_told(tmp_path: Path) -> None:
    with (
        Worker("command", CommandJob(("sh", "-c", "kill -9 $PPID"), {}), tmp_path / "log") as worker,
        pytest.raises(BenchError, match=r"command: grpo.bench.child \(pid \d+\) ended with exit code -9"),
    ):
        worker.ask("run")


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (UserError("--budget=1: too small"), "refused"),
        (MemoryError("none left"), "no memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "no memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "no memory"),
        (ValueError("a bug"), "failed"),
    ],
)
def test_what_goes_wrong_in_a_child_is_told_apart(error: Exception, answer: str, monkeypatch: Any) -> None:
    def fail(kind: str, job: Any) -> None:
        raise error

    monkeypatch.setattr(child, "open_kind", fail)
    ours, theirs = Pipe()
    ours.send(("ours", None))
    child.serve(theirs)
    told, text = ours.recv()
    assert told == answer
    assert str(error) in text


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
    groups = synthetic_groups([5, 7], [1, 2, 3, 4], 2, VOCABULARY)
    assert [len(group.prompt) for group in groups] == [5, 7]
    assert [[len(ids) for ids in group.completions] for group in groups] == [[1, 2], [3, 4]]
    assert all(0 <= token < VOCABULARY for group in groups for ids in group.completions for token in ids)
    assert groups == synthetic_groups([5, 7], [1, 2, 3, 4], 2, VOCABULARY)


def test_rewards_are_never_all_alike() -> None:
    import random

    for seed in range(50):
        assert set(draw_rewards(2 + seed % 3, random.Random(seed))) == {0.0, 1.0}


# Memory


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system has no high-water mark to reset")
def test_the_gauge_sees_what_was_held_in_between_and_is_gone() -> None:
    gauge = ProcessGauge()
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
    groups = tuple(complete([(5, 6)], [1, 1], 2, VOCABULARY))
    side: Side = OurUpdate(make_job(folder, groups=groups))
    size = 4 * side.warm_up()["parameters"]
    assert size > 96 * 2**20
    found = side.memory()
    if found is None:
        pytest.skip("the high-water mark may not be reset here")
    assert 0 <= found < size / 2


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the system does not tell PSS")
def test_a_tree_of_processes_is_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

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
        # Nothing has grown: the processes are not held up again.
        monkeypatch.setattr("grpo.bench.memory._pss_bytes", lambda pid: 2**40)
        peak.look(process.pid)
        assert peak.peak_bytes < 200 * 2**20
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    peak.look(process.pid)
    assert peak.peak_bytes > 100 * 2**20


# TRL's side


def test_the_peers_job_is_what_the_peer_reads(tmp_path: Path, tiny_model: Path, monkeypatch: Any) -> None:
    from grpo.bench import peer_trl

    side = TrlSide(Path(sys.executable), "float32", None, True, generate=False, num_steps=3, warm_up_steps=1)
    job = make_job(tiny_model)
    assert replace(side, rows=7).job(job)["micro_batch"] == 6
    (tmp_path / "job.json").write_text(json.dumps(side.job(job)))
    monkeypatch.setattr(peer_trl, "find_spec", lambda name: object())
    work = peer_trl.read_work(tmp_path / "job.json")
    assert [tuple(group["prompt"]) for group in work.groups] == [group.prompt for group in job.groups]
    assert work.group_size == 4
    assert work.micro_batch == 2
    assert work.num_steps == 3


@pytest.mark.parametrize(("most", "rows"), [(1, 1), (2, 2), (5, 4), (11, 6), (10**6, 12)])
def test_trls_micro_batch_divides_all_rows(most: int, rows: int) -> None:
    assert micro_batch(most, uneven_groups()) == rows


def test_whole_steps_become_a_report(tiny_model: Path, tmp_path: Path) -> None:
    """Ours without an engine; TRL's figures by hand: its generation is timed with the sync inside."""
    job = make_job(tiny_model)
    ours = WholeStep(StepJob(job, generate=False, warm_up_steps=1, num_steps=2, log=tmp_path / "log")).run()
    assert len(ours["step_s"]) == 2
    assert ours["completion_tokens"] == sum(len(ids) for group in job.groups for ids in group.completions)
    ours |= {"step_s": [1.0, 1.0], "run_peak_bytes": 100}
    trl = {
        "step_s": [9.0, 11.0],
        "generate_s": [4.0, 4.0],
        "sync_s": [1.0, 1.0],
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


def test_an_interrupt_leaves_no_process_behind(tiny_model: Path) -> None:
    process = start_grpo("bench", "--model", str(tiny_model), "--device", "cpu", "--steps", "100000")

    def working() -> list[Any]:
        return [one for one in descendants(process.pid) if "grpo.bench.child" in one.cmdline()]

    started = wait_for(working, 60, "a child")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == EXIT_INTERRUPTED, output
    assert "Traceback" not in output
    wait_for(lambda: not alive(started), 5, "the end of the children")


Refused = Callable[..., str]


@pytest.fixture
def refused(tiny_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> Refused:
    """The message of a bench that is refused; no process may be started for it."""

    def no_child(*arguments: object, **keywords: object) -> None:
        raise AssertionError("a process was started before the fault was found")

    def run(*arguments: str) -> str:
        monkeypatch.setattr("grpo.bench.worker.Child", no_child)
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
    assert [line.split(":")[0] for line in command.warnings(on_cpu=True)] == [
        "the machine is busy (load 0.60)",
        "OMP_WAIT_POLICY is not PASSIVE",
    ]
    monkeypatch.setattr("os.getloadavg", lambda: (0.4, 0.0, 0.0))
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    assert command.warnings(on_cpu=True) == []


def test_random_models_have_qwens_sizes() -> None:
    """Weights without the embeddings as Qwen2.5's model cards give them: 0.36 and 1.31 billion."""
    for size, expected in (("0.5b", 0.36e9), ("1.5b", 1.31e9)):
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(random_model.RandomModel(size)._config)
        assert model_shape(model).body_parameters == pytest.approx(expected, rel=0.01)


def test_defaults_are_the_first_row_of_the_table() -> None:
    options = Options()
    assert (options.prompt_tokens, options.completion_tokens, options.group_size) == (90, 28, 8)
