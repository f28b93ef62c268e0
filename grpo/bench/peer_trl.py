"""TRL's own trainer on a given step's work: ``python -m grpo.bench.peer_trl JOB.json RESULT.json``.

The completions and their rewards are the job's. All else, from log-probs to weight sync, is TRL's.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from grpo.errors import UserError

_ENVIRONMENT = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Engine and trainer may both use every core. Only counts before imports."""


@dataclass(frozen=True)
class Work:
    """One step's work, done `warm_up_steps` + `num_steps` times. Every group has the same number of completions."""

    model: str
    weights: str
    groups: list[dict[str, Any]]
    temperature: float
    lr: float
    max_new_tokens: int
    num_steps: int
    warm_up_steps: int
    micro_batch: int
    """Rows that go through the model together."""
    generate: bool
    correct_sampler: bool = True
    """Whether TRL weighs tokens by the trainer's over the sampler's probability, its default beside vLLM: that takes
    one more forward pass."""

    @property
    def group_size(self) -> int:
        return len(self.groups[0]["completions"])

    @property
    def num_micro_batches(self) -> int:
        return len(self.groups) * self.group_size // self.micro_batch

    def rows(self, prompts: Sequence[str], what: str) -> list[Any]:
        """One entry for each of TRL's rows, which repeat a prompt for each of its completions."""
        return [entry for number in prompts[:: self.group_size] for entry in self.groups[int(number)][what]]


class Clock:
    """What was seen of the steps, warm-up included. Work that a device has not done yet is waited for."""

    def __init__(self, wait: Callable[[], None]) -> None:
        self._wait = wait
        self.ends: list[float] = []
        """The first is where the first step starts."""
        self.taken_s: dict[str, list[float]] = defaultdict(list)
        self.generated_tokens: list[int] = []
        self.trained_tokens: list[Any] = []
        """One tensor for each micro-batch, read when all is over."""

    def now(self) -> float:
        self._wait()
        return time.perf_counter()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            start = self.now()
            result = function(*arguments, **named)
            self.taken_s[name].append(self.now() - start)
            return result

        return call


def main(job: str, result: str) -> int:
    """Do the job and write the result; the exit code is 2 where something is the user's to mend."""
    try:
        found = measure(read_work(Path(job)))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    Path(result).write_text(json.dumps(found, indent=1) + "\n")
    return 0


def read_work(job: Path) -> Work:
    """The job's work, if TRL is there and can do it."""
    if find_spec("trl") is None:
        raise UserError("--against trl: trl is not installed; pip install trl, or leave --against padded")
    work = Work(**json.loads(job.read_text()))
    num_rows = len(work.groups) * work.group_size
    if num_rows % work.micro_batch:
        raise UserError(f"micro_batch={work.micro_batch}: does not divide {num_rows} completions; TRL needs a divisor")
    return work


def measure(work: Work) -> dict[str, Any]:
    """Train on the work with TRL. What belongs to generation is empty where there was none."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    cuda = import_module("torch").cuda
    on_cpu = not cuda.is_available()
    if work.generate and on_cpu:
        _keep_weights_unpacked()
    clock = Clock((lambda: None) if on_cpu else cuda.synchronize)
    with tempfile.TemporaryDirectory() as folder:
        trainer = _build_trainer(work, clock, _settings(work, folder, on_cpu))
        trainer.train()
    [last] = [row for row in trainer.state.log_history if row["step"] == trainer.state.global_step and "loss" in row]
    timed = slice(work.warm_up_steps, None)
    return {
        "versions": {
            name: getattr(sys.modules.get(name), "__version__", None)
            for name in ("trl", "transformers", "torch", "vllm")
        },
        "step_s": [end - start for start, end in zip(clock.ends, clock.ends[1:], strict=False)][timed],
        "generate_s": clock.taken_s["generate"][timed],
        "sync_s": clock.taken_s["sync"][timed],
        "completion_tokens": sum(int(count) for count in clock.trained_tokens[-work.num_micro_batches :]),
        "generated_tokens": clock.generated_tokens[timed],
        "flags": _flags(trainer),
        "loss": last["loss"],
        "grad_norm": last["grad_norm"],
    }


def _settings(work: Work, folder: str, on_cpu: bool) -> dict[str, Any]:
    """Arguments of ``GRPOConfig``: one generation is one optimiser step. What is not named has TRL's default."""
    return {
        "output_dir": folder,
        "model_init_kwargs": {"dtype": work.weights},
        "use_cpu": on_cpu,
        "bf16": True,
        "beta": 0.0,
        "num_iterations": 1,
        "num_generations": work.group_size,
        "per_device_train_batch_size": work.micro_batch,
        "gradient_accumulation_steps": work.num_micro_batches,
        "gradient_checkpointing": False,
        "max_completion_length": work.max_new_tokens,
        "temperature": work.temperature,
        "learning_rate": work.lr,
        "lr_scheduler_type": "constant",
        "max_steps": work.warm_up_steps + work.num_steps,
        "shuffle_dataset": False,
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "use_vllm": work.generate,
        "vllm_mode": "colocate",
        "vllm_max_model_length": max(len(group["prompt"]) for group in work.groups) + work.max_new_tokens,
        "vllm_importance_sampling_correction": work.correct_sampler,
    }


def _build_trainer(work: Work, clock: Clock, settings: dict[str, Any]) -> Any:
    """TRL's trainer. A prompt of its data set is a group's number, so that no token id is ever made of text."""
    trl, transformers = import_module("trl"), import_module("transformers")

    class Replay(trl.GRPOTrainer):  # type: ignore[misc, name-defined]
        def _tokenize_prompts(self, prompts: Sequence[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
            self._rows = prompts
            return [work.groups[int(number)]["prompt"] for number in prompts], None, {}

        def _generate_single_turn(self, *arguments: Any, **named: Any) -> tuple[list[Any], list[Any]]:
            if work.generate:
                written, _ = clock.timed("generate", super()._generate_single_turn)(*arguments, **named)
                clock.generated_tokens.append(sum(map(len, written)))
            return work.rows(self._rows, "completions"), work.rows(self._rows, "sampler_logps")

        def compute_loss(self, model: Any, inputs: dict[str, Any], *arguments: Any, **named: Any) -> Any:
            clock.trained_tokens.append(inputs["completion_mask"].sum())
            return super().compute_loss(model, inputs, *arguments, **named)

    class Timing(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
        def on_train_begin(self, *arguments: Any, **named: Any) -> None:
            clock.ends.append(clock.now())

        on_step_end = on_train_begin

    def reward(prompts: Sequence[str], **columns: Any) -> list[Any]:
        return work.rows(prompts, "rewards")

    # A row for each group of each step, so that the data set does not begin anew within the time taken.
    numbers = [str(number) for number in range(len(work.groups))] * settings["max_steps"]
    trainer = Replay(
        model=work.model,
        reward_funcs=reward,
        args=trl.GRPOConfig(**settings),
        train_dataset=import_module("datasets").Dataset.from_dict({"prompt": numbers}),
        callbacks=[Timing()],
    )
    if work.generate:
        trainer.vllm_generation.sync_weights = clock.timed("sync", trainer.vllm_generation.sync_weights)
    # An engine wrote the completions, if not this one: what TRL does after its vLLM is done here as well.
    trainer.use_vllm = work.generate or work.correct_sampler
    return trainer


def _keep_weights_unpacked() -> None:
    """TRL's sync writes into the engine's weights, which cannot be done once a CPU engine has packed them."""
    import_module("vllm._custom_ops")._supports_onednn = False  # type: ignore[attr-defined]
    import_module("vllm.model_executor.layers.utils").check_cpu_sgl_kernel = lambda *_: False  # type: ignore[attr-defined]


def _flags(trainer: Any) -> dict[str, Any]:
    """What was in force, read off the trainer itself."""
    names = ("beta", "num_iterations", "loss_type", "scale_rewards", "gradient_checkpointing", "optim", "bf16")
    weight = next(trainer.model.parameters())
    corrects = trainer.use_vllm and trainer.vllm_importance_sampling_correction
    return {name: getattr(trainer.args, name) for name in names} | {
        "weights": str(weight.dtype).removeprefix("torch."),
        "device": str(weight.device),
        "autocast": trainer.accelerator.mixed_precision,
        "attention": trainer.model.config._attn_implementation,
        "micro_batch": trainer.args.per_device_train_batch_size,
        "micro_batches": trainer.args.gradient_accumulation_steps,
        "importance_sampling": trainer.vllm_importance_sampling_mode if corrects else None,
        "threads": import_module("torch").get_num_threads(),
    }


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
