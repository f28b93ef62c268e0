"""The whole loop with a real vLLM engine: it learns, the engine follows, the checkpoint is what was evaluated."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from processes import run_grpo, write_recipe
from toy import toy_recipe

pytestmark = pytest.mark.e2e
pytest.importorskip("vllm", reason="vLLM is not installed")

STEPS = 12


@dataclass(frozen=True)
class Trained:
    folder: Path
    recipe: str
    output: str

    def rows(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]

    @property
    def model(self) -> Path:
        return self.folder / "checkpoints" / f"step_{STEPS:06d}" / "model"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Trained:
    home = tmp_path_factory.mktemp("trained")
    recipe = toy_recipe(
        tiny_model,
        home / "run",
        run={"steps": STEPS},
        rollout={"engine": "vllm", "prompts_per_step": 8, "group_size": 8},
        checkpoint={"every": 4},
    )
    file = write_recipe(home / "recipe.yaml", recipe)
    code, output = run_grpo("train", file)
    assert code == 0, output
    return Trained(home / "run", file, output)


def test_the_reward_rises(trained: Trained) -> None:
    rewards = [row["reward/mean"] for row in trained.rows("metrics.jsonl") if row["step"]]
    assert len(rewards) == STEPS
    assert fmean(rewards[-3:]) > fmean(rewards[:3]) + 0.2, rewards


def test_a_real_vllm_wrote_the_completions(trained: Trained) -> None:
    import vllm

    environment = json.loads((trained.folder / "environment.json").read_text())
    assert environment["engine"] == {"name": "vllm", "version": vllm.__version__}


def test_the_sync_was_proven_at_every_step(trained: Trained) -> None:
    gaps = [row["sync/gap_nats"] for row in trained.rows("metrics.jsonl") if row["step"]]
    assert len(gaps) == STEPS
    assert max(gaps) < 1e-3, "fp32 on both sides"


def test_engine_and_trainer_agree_on_what_was_written(trained: Trained) -> None:
    rows = [row for row in trained.rows("metrics.jsonl") if row["step"]]
    assert max(row["gap/mean_nats"] for row in rows) < 1e-3
    assert all(row["gap/over_0p1_frac"] == 0 for row in rows)


def test_the_weights_moved(trained: Trained, tiny_model: Path) -> None:
    from safetensors.torch import load_file

    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_model, trained.model))
    assert before.keys() == after.keys()
    assert all(not before[name].equal(after[name]) for name in before)


def test_every_completion_is_kept_with_its_verdict(trained: Trained) -> None:
    rows = trained.rows("completions.jsonl")
    assert len(rows) == STEPS * 8 * 8
    for row in rows:
        assert row["reward"] == pytest.approx(row["parts"]["toy:lower_case_share"])
        assert 1 <= row["num_tokens"] <= 12
        assert row["outcome"] in ("no_answer", "wrong", "correct", "malformed")


def test_only_the_newest_checkpoints_are_kept(trained: Trained) -> None:
    assert sorted(file.name for file in (trained.folder / "checkpoints").iterdir()) == ["step_000008", "step_000012"]


def greedy_texts_of_transformers(folder: Path, questions: list[str]) -> list[str]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    texts = []
    for question in questions:
        inputs = tokenizer(question, return_tensors="pt")
        with torch.inference_mode():
            row = model.generate(input_ids=inputs.input_ids, do_sample=False, max_new_tokens=12)[0]
        texts.append(tokenizer.decode(row[inputs.input_ids.shape[1] :]).removesuffix("<end>"))
    return texts


PLAIN_VLLM = """
import json, sys
from vllm import LLM, SamplingParams
def main():
    folder, questions = sys.argv[1], json.loads(sys.argv[2])
    llm = LLM(folder, enforce_eager=True, max_model_len=128, kv_cache_memory_bytes=2**27)
    outputs = llm.generate(questions, SamplingParams(temperature=0, max_tokens=12, skip_special_tokens=False))
    print("ANSWERS" + json.dumps([output.outputs[0].text.removesuffix("<end>") for output in outputs]))
if __name__ == "__main__":
    main()
"""


def greedy_texts_of_vllm(folder: Path, questions: list[str], script: Path) -> list[str]:
    script.write_text(PLAIN_VLLM)
    command = [sys.executable, str(script), str(folder), json.dumps(questions)]
    output = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True).stdout
    [answers] = [line for line in output.splitlines() if line.startswith("ANSWERS")]
    texts: list[str] = json.loads(answers.removeprefix("ANSWERS"))
    return texts


def test_the_checkpoint_answers_as_the_evaluation_did(trained: Trained, tmp_path: Path) -> None:
    rows = [row for row in trained.rows("evals.jsonl") if row["step"] == STEPS]
    questions, texts = [row["question"] for row in rows], [row["text"] for row in rows]
    assert len(texts) == 8
    assert greedy_texts_of_transformers(trained.model, questions) == texts
    assert greedy_texts_of_vllm(trained.model, questions, tmp_path / "plain.py") == texts


def test_the_report_and_the_screen_tell_of_it(trained: Trained) -> None:
    report = (trained.folder / "report.html").read_text()
    assert 'aria-label="Reward by step, first to last: reward ' in report
    assert f"report: {trained.folder / 'report.html'}" in trained.output
    assert f"step {STEPS}/{STEPS}" in trained.output


def test_more_steps_go_on_from_the_checkpoint(trained: Trained) -> None:
    """Last in the file: it adds to the run."""
    before = trained.rows("metrics.jsonl")
    code, output = run_grpo("train", trained.recipe, f"run.steps={STEPS + 1}")
    assert code == 0, output
    assert f"going on after step {STEPS}" in output
    after = trained.rows("metrics.jsonl")
    assert after[: len(before)] == before
    assert [row["step"] for row in after] == list(range(STEPS + 2))
    assert after[-1]["sync/gap_nats"] < 1e-3
    assert after[-1]["reward/mean"] > fmean(row["reward/mean"] for row in after[1:4]) + 0.2
