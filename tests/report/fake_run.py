"""A run's folder as the trainer would leave it, made up but lifelike, for tests and for looking at."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

RECIPE = """\
model:
  path: Qwen/Qwen3-0.6B
  compute: bf16
data:
  template: r1_zero
rollout:
  group_size: 8
  prompts_per_step: 8
  max_new_tokens: 256
update:
  lr: 1.0e-6
  warmup_steps: 5
  objective: dapo
  objective_options:
    clip_high: 0.28
run:
  seed: 17
"""
ENVIRONMENT = {
    "packages": {"torch": "2.13.0", "transformers": "5.16.1", "vllm": "0.32.0"},
    "commit": "ab55db4c0ffee123456789",
    "device": "NVIDIA H100 80GB HBM3",
    "engine": {"name": "vllm", "version": "0.32.0"},
}
HOSTILE = '<think>a < b</think></script><script>document.title="owned"</script><img src=x onerror=alert(1)>'


def write_run(folder: Path, num_steps: int = 80, seed: int = 3) -> Path:
    """Write a whole run of `num_steps` steps into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "environment.json").write_text(json.dumps(ENVIRONMENT))
    write_rows(folder / "metrics.jsonl", metric_rows(num_steps, random.Random(seed)))
    logged = [1, *range(10, num_steps + 1, 10)]
    write_rows(folder / "completions.jsonl", completion_rows(logged, num_steps, random.Random(seed)))
    write_rows(folder / "evals.jsonl", eval_rows((0, num_steps), num_steps, random.Random(seed)))
    return folder


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines."""
    with path.open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def metric_rows(num_steps: int, draw: random.Random) -> Iterable[dict[str, Any]]:
    """Rows of a run that learns, with an evaluation before training and at every tenth part."""
    time_unix = 1_780_000_000.0
    yield {"step": 0, "time_unix": time_unix, **_evaluation(0.0, draw)}
    for step in range(1, num_steps + 1):
        learned = 1 / (1 + math.exp(-8 * (step / num_steps - 0.4)))
        row = _training(step, learned, draw)
        time_unix += row["time/step_s"]
        if step % max(1, num_steps // 10) == 0:
            row |= _evaluation(learned, draw) | {"time/eval_s": 6 + draw.random()}
        yield {"step": step, "time_unix": time_unix, **row}


def completion_rows(steps: Iterable[int], num_steps: int, draw: random.Random) -> Iterable[dict[str, Any]]:
    """Eight completions of each of four problems at each step."""
    for step in steps:
        for problem in range(4):
            for index in range(8):
                yield _completion(step, f"countdown-{step}-{problem}", index, draw.random() < step / num_steps, draw)


def eval_rows(steps: Iterable[int], num_steps: int, draw: random.Random) -> Iterable[dict[str, Any]]:
    """One completion of each of forty held-out problems at each evaluation."""
    for step in steps:
        for problem in range(40):
            right = draw.random() < 0.1 + 0.6 * step / num_steps
            yield {**_completion(step, f"held-{problem}", 0, right, draw), "source": "countdown"}


def _training(step: int, learned: float, draw: random.Random) -> dict[str, Any]:
    correct = min(1.0, max(0.0, 0.08 + 0.6 * learned + draw.gauss(0, 0.07)))
    formatted = min(1.0, max(correct, 0.25 + 0.72 * min(1, learned * 1.6) + draw.gauss(0, 0.05)))
    seconds = {name: base * (1 + abs(draw.gauss(0, 0.15))) for name, base in _SECONDS.items()}
    length = 140 - 60 * learned + draw.gauss(0, 9)
    return {
        "reward/mean": 0.2 * formatted + correct,
        "reward/std": 0.3 + draw.gauss(0, 0.03),
        "reward/format": formatted,
        "reward/correctness": correct,
        "reward/length": 0.4 + 0.3 * learned + draw.gauss(0, 0.05),
        "advantage/format_frac": 0.6 - 0.5 * learned,
        "advantage/correctness_frac": 0.3 + 0.4 * learned,
        "advantage/length_frac": 0.1 + 0.1 * learned,
        "outcome/correct_frac": correct,
        "outcome/wrong_frac": (formatted - correct),
        "outcome/no_answer_frac": (1 - formatted) * 0.6,
        "outcome/malformed_frac": (1 - formatted) * 0.38,
        "outcome/timed_out_frac": (1 - formatted) * 0.02,
        "outcome/crashed_frac": 0.0,
        "completion/length_tokens": length,
        "completion/length_max_tokens": min(256, length * 1.9 + draw.gauss(0, 20)),
        "completion/truncated_frac": max(0.0, 0.2 - 0.2 * learned + draw.gauss(0, 0.02)),
        "group/dead_frac": min(1.0, max(0.0, 0.45 - 0.3 * learned + draw.gauss(0, 0.12))),
        "update/loss": draw.gauss(0, 0.01),
        "update/grad_norm": None if step == 9 else math.exp(draw.gauss(-1, 0.5)),
        "update/lr": 1e-6 * min(1, step / 5),
        "update/clip_frac": abs(draw.gauss(0.002, 0.001)),
        "update/entropy_nats": 0.85 - 0.5 * learned + draw.gauss(0, 0.03),
        "update/kl_nats": float("nan") if step == 3 else 0.03 * learned + abs(draw.gauss(0, 0.002)),
        "gap/mean_nats": 0.004 * math.exp(draw.gauss(0, 0.3)),
        "gap/kl_nats": 3e-5 * math.exp(draw.gauss(0, 0.5)),
        "gap/over_0p1_frac": abs(draw.gauss(0.002, 0.001)),
        "gap/over_1_frac": abs(draw.gauss(0.0001, 0.0001)),
        "sync/gap_nats": 2e-6 * math.exp(draw.gauss(0, 0.4)),
        "time/step_s": sum(seconds.values()) + 0.8,
        **{f"time/{name}_s": value for name, value in seconds.items()},
        "speed/tokens_per_s": 9000 + draw.gauss(0, 700),
    }


_SECONDS = {"generate": 4.2, "score": 0.6, "update": 2.9, "sync": 0.5}


def _evaluation(learned: float, draw: random.Random) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for source, start, gain in (("countdown", 0.11, 0.55), ("gsm8k", 0.31, 0.09)):
        accuracy = start + gain * learned + draw.gauss(0, 0.015)
        row |= {
            f"eval/{source}/accuracy": accuracy,
            f"eval/{source}/accuracy_low": accuracy - 0.06,
            f"eval/{source}/accuracy_high": accuracy + 0.06,
            f"eval/{source}/pass_at_4": min(1.0, accuracy + 0.18),
            f"eval/{source}/maj_at_4": min(1.0, accuracy + 0.05),
            f"eval/{source}/format_frac": 0.3 + 0.67 * learned,
            f"eval/{source}/length_tokens": 141.0 - 60 * learned,
            f"eval/{source}/num_problems": 200,
        }
    return row


def _completion(step: int, problem_id: str, index: int, right: bool, draw: random.Random) -> dict[str, Any]:
    numbers = [draw.randint(2, 60) for _ in range(3)]
    total = numbers[0] + numbers[1] - numbers[2]
    outcome = "correct" if right else draw.choice(("wrong", "no_answer", "malformed"))
    answer = {
        "correct": f"{numbers[0]} + {numbers[1]} - {numbers[2]}",
        "wrong": f"{numbers[0]} * {numbers[1]}",
    }.get(outcome)
    return {
        "step": step,
        "problem_id": problem_id,
        "index": index,
        "question": f"Using the numbers {numbers}, write an expression that equals {total}.",
        "gold": str(total),
        "text": _text(outcome, answer, numbers, total),
        "finish": "length" if outcome == "no_answer" else "stop",
        "num_tokens": draw.randint(60, 240),
        "reward": {"correct": 1.2, "wrong": 0.2}.get(outcome, 0.0),
        "parts": {"format": float(answer is not None), "correctness": float(right), "length": None},
        "outcome": outcome,
        "reason": {"no_answer": "no answer block", "malformed": "the answer block is not closed"}.get(outcome, ""),
        "answer": answer,
        "cpu_s": 0.002,
        "advantage": draw.gauss(0, 1),
        "opens_think": True,
    }


def _text(outcome: str, answer: str | None, numbers: list[int], total: int) -> str:
    a, b, c = numbers
    thought = (
        f"I need {total} out of {a}, {b} and {c}.\n"
        f"First try {a} + {b} = {a + b}. That is off by {a + b - total}, "
        f"and I still have {c} to use.\n"
    )
    if outcome == "no_answer":
        return thought * 6
    if outcome == "malformed":
        return f"{thought}So the answer is {a}.</think>\n<answer>{a}<answer>"
    return f"{thought}Now {a} + {b} - {c} = {total}. Checks out.</think>\n<answer>{answer}</answer>"
