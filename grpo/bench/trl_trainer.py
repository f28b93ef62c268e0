"""TRL's own trainer on a given step's work, by itself: ``python trl_trainer.py JOB.json RESULT.json``.

It runs in a Python that has TRL and need not have this package. The job (`grpo.bench.beside_trl.trl_job`) has the
completions and their rewards, which TRL takes from a ``rollout_func``. All else, up to the weight sync, is TRL's.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

FLAGS = ["beta", "num_iterations", "loss_type", "scale_rewards", "gradient_checkpointing", "optim", "bf16"]
FLAGS += ["per_device_train_batch_size", "gradient_accumulation_steps", "use_vllm"]
FLAGS += ["vllm_importance_sampling_correction"]


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Train on the job; seconds by phase, one entry a step after the warm-up, and what was in force."""
    torch, trl, transformers = import_module("torch"), import_module("trl"), import_module("transformers")
    now = import_module("torch.utils.benchmark").timer
    generate, size = job["settings"]["use_vllm"], job["settings"]["num_generations"]
    on_cpu = not torch.cuda.is_available()
    if generate and on_cpu:
        _keep_weights_unpacked()
    begins: list[float] = []
    ends: list[float] = []
    steps: list[dict[str, float]] = []

    class Timing(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
        def on_train_begin(self, *arguments: Any, **named: Any) -> None:
            ends.append(now())

        def on_step_begin(self, *arguments: Any, **named: Any) -> None:
            begins.append(now())

        on_step_end = on_train_begin

    def rows(prompts: Sequence[str], what: str) -> list[Any]:
        """One entry for each of TRL's rows, which repeat a prompt for each of its completions."""
        return [entry for number in prompts[::size] for entry in job["groups"][int(number)][what]]

    def rollout(prompts: Sequence[str], trainer: Any) -> dict[str, Any]:
        start, written = now(), []
        ids = [job["groups"][int(number)]["prompt"] for number in prompts]
        if generate:
            _, written, *_ = trainer.vllm_generation.generate(ids, images=None, num_generations=size)
        # TRL brings its weights to the engine between the step's begin and this function.
        parts = {"sync_s": start - begins[-1], "generate_s": now() - start} if generate else {}
        steps.append({"sync_s": 0.0, "generate_s": 0.0, "generated_tokens": sum(map(len, written))} | parts)
        given = {"completion_ids": rows(prompts, "completions"), "logprobs": rows(prompts, "sampler_logps")}
        return {"prompt_ids": ids} | given

    def reward(prompts: Sequence[str], **columns: Any) -> list[Any]:
        return rows(prompts, "rewards")

    # A prompt of the data set is a group's number, so that no token id is ever made of text, and there is one for each
    # group of each step, so that the data set does not begin anew within the time taken.
    numbers = [str(number) for number in range(len(job["groups"]))] * job["settings"]["max_steps"]
    with tempfile.TemporaryDirectory() as folder:
        trainer = trl.GRPOTrainer(
            model=job["model"],
            reward_funcs=reward,
            rollout_func=rollout,
            args=trl.GRPOConfig(output_dir=folder, use_cpu=on_cpu, **job["settings"]),
            train_dataset=import_module("datasets").Dataset.from_dict({"prompt": numbers}),
            callbacks=[Timing()],
        )
        trainer.train()
    for step, (start, stop) in zip(steps, pairwise(ends), strict=True):
        step["step_s"] = stop - start
        step["update_s"] = step["step_s"] - step["sync_s"] - step["generate_s"]
    timed = steps[job["warm_up_steps"] :]
    return {name: [step[name] for step in timed] for name in timed[0]} | _seen(trainer, len(numbers) * size)


def _seen(trainer: Any, num_rows: int) -> dict[str, Any]:
    """The last step as TRL logged it, and what was in force, read off the trainer itself."""
    [last] = [row for row in trainer.state.log_history if row["step"] == trainer.state.global_step and "loss" in row]
    packages = {name: sys.modules.get(name) for name in ("trl", "transformers", "torch", "vllm")}
    weight = next(trainer.model.parameters())
    return {
        "completion_tokens": round(last["completions/mean_length"] * num_rows / trainer.args.max_steps),
        "loss": last["loss"],
        "grad_norm": last["grad_norm"],
        "versions": {name: getattr(package, "__version__", None) for name, package in packages.items()},
        "flags": {name: getattr(trainer.args, name) for name in FLAGS}
        | {"weights": f"{weight.dtype} on {weight.device}", "attention": trainer.model.config._attn_implementation},
    }


def _keep_weights_unpacked() -> None:
    """TRL's sync writes into the engine's weights, which cannot be done once a CPU engine has packed them."""
    import_module("vllm._custom_ops")._supports_onednn = False  # type: ignore[attr-defined]
    import_module("vllm.model_executor.layers.utils").check_cpu_sgl_kernel = lambda *_: False  # type: ignore[attr-defined]


if __name__ == "__main__":
    found = measure(json.loads(Path(sys.argv[1]).read_text()))
    Path(sys.argv[2]).write_text(json.dumps(found, indent=1) + "\n")
