"""Recipes: what a run is, checked whole before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from data.spec import SourceSpec
from grpo.objectives.table import Advantage, Normalise, get_objective
from rewards.answer_policy import AnswerPolicy
from rewards.spec import RewardSpec

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """Frozen, and strict about keys: a misspelt key is an error, never a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RunSection(Section):
    dir: Path
    """The run's folder. Starting again on a folder that holds a checkpoint goes on from it."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    steps: Positive
    device: Literal["auto", "cpu", "cuda"] = "auto"
    rank_timeout_s: Annotated[float, Field(gt=0)] = 3600.0
    """The longest that one rank waits for another: for the first one to write a checkpoint, say."""


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


ALL_LINEAR = "all-linear"


class LoraSection(Section):
    """Adapters (arXiv 2106.09685): to each chosen matrix W the product alpha / rank x B A is added, and only A and B
    are trained.

    There is no dropout: it would draw anew in every pass, so that the ratio of a policy to itself were not 1.
    """

    rank: Positive = 16
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 32
    targets: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_listed), Field(min_length=1)
    ] = (ALL_LINEAR,)
    """Names of linear layers, or ``all-linear``: all of them but the output head."""


class ModelSection(Section):
    path: str
    """A Hugging Face folder or id, or ``smollm2-135m-instruct``: the embedded default, which needs no hub."""
    compute: Literal["bf16", "fp32"] = "bf16"
    """Autocast type of the update. What is trained and the optimiser's state are always fp32."""
    head: Literal["bf16", "fp32"] = "bf16"
    """What the output head multiplies in when `compute` is bf16. On a GPU bf16 products are handed on in fp32; on a CPU
    they are rounded to bf16, unless this is fp32."""
    attention: Literal["auto", "flex", "tree_by_tree"] = "auto"
    """FlexAttention (CUDA, compiled by Triton) or ordinary products, tree by tree; auto: the first where it can be
    compiled."""
    gradient_checkpointing: bool = False
    compile: bool = False
    """Compile the layers when they are first used (torch.compile), which takes half a minute or more."""
    lora: LoraSection | None = None
    """Adapters that are trained in the model's place; without them all of it is."""


class DataSection(Section):
    train: SourceSpec
    template: str = "r1_zero"
    """A template's name, or the path of a YAML file with a template of your own."""
    max_prompt_tokens: Positive = 1024
    max_bad_frac: Share = 0.1
    """More rejected rows than this share of the training set end the run before it starts."""


class RolloutSection(Section):
    engine: Literal["vllm", "transformers"] = "vllm"
    prompts_per_step: Positive
    max_rounds: Positive = 1
    """Rounds of `prompts_per_step` prompts that a step may draw until so many groups have a signal (DAPO's dynamic
    sampling); groups without one are left out. 1: the step learns from what it draws, whatever that is."""
    group_size: Annotated[int, Field(ge=2)]
    max_new_tokens: Positive
    temperature: Annotated[float, Field(gt=0)] = 1.0
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Strings that end a completion, beside the model's own end tokens."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    tensor_parallel: Positive = 1
    gpu_memory_frac: Annotated[float, Field(gt=0, lt=1)] = 0.4
    cpu_kv_cache_gib: Annotated[float, Field(gt=0)] | None = None
    """The KV cache of an engine on a CPU. None: room for `max_parallel` completions of full length, at most 1 GiB."""
    max_parallel: Positive = 256
    """Completions that the engine decodes at once."""
    eager: bool | None = None
    """Skip the engine's compilation and CUDA graphs: a quick start, slower decoding. None: on a CPU, where compiling
    takes a minute at the first start and some ten seconds at later ones."""
    timeout_s: Annotated[float, Field(gt=0)] = 1800.0
    """The longest that any one answer of the engine is waited for."""
    sync_tolerance: Annotated[float, Field(gt=0)] = 0.1
    """Mean absolute difference, in nats a token, that the probe after each weight sync may show."""


class UpdateSection(Section):
    lr: Annotated[float, Field(gt=0, le=1)]
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """What follows the warm-up: a constant rate, or a decay from the full rate to exactly 0 at the last step, which
    then moves nothing and whose metrics are those of the finished model."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    inner_epochs: Positive = 1
    """Passes over each step's completions. With one the ratio is exactly 1 and no clip has anything to do."""
    mini_batches: Positive = 1
    """Parts that a step's groups are divided into, each with a step of the optimiser of its own (DAPO has 16). From the
    second one on the policy is no longer the one that wrote the completions."""
    objective: str = "dapo"
    """A name of `grpo.objectives.table`, or the dotted path of a function of your own (``module:function``)."""
    objective_options: dict[str, Any] = {}
    """What the objective's function takes beside the tokens."""
    advantage: Advantage | None = None
    """None: the objective's own, and so for `normalise`. gdpo normalises each reward by itself."""
    normalise: Normalise | None = None
    """token: all tokens of the step count alike; sequence: all completions do; sequence_sum: the same, each with the
    sum over its tokens and not their mean; constant: divide by completions x max_new_tokens."""
    truncated: Literal["learn", "leave_out"] = "learn"
    """Completions that the length limit cut off: learnt from like all others, or left out of the loss and of its
    denominator (DAPO's overlong filtering). Their rewards count in the group either way."""
    correction: Literal["none", "tis", "icepop", "sequence_tis", "sequence_mask"] = "none"
    """How tokens are weighed for the gap between the engine's and the trainer's log-probs."""
    correction_options: dict[str, Any] = {}
    kl_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the KL to the reference policy; 0 loads no reference model."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    kl_in: Literal["loss", "reward"] = "loss"
    """loss: a term beside the objective; reward: charged on the advantages, after rewards have been compared in their
    group; over the step (`batch`, `group_batch`) token by token, before all tokens are normalised."""
    reference_every: Annotated[int, Field(ge=0)] = 0
    """Steps after which the reference becomes the policy of that step; 0 keeps the first policy."""
    entropy_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the entropy bonus."""
    tokens_per_micro_batch: Positive = 4096
    max_bad_steps: Positive = 5
    """Passes in a row whose gradient is not finite before the run gives up."""


def advantage_of(settings: UpdateSection) -> Advantage:
    """The recipe's, or else the objective's own."""
    return settings.advantage or get_objective(settings.objective).advantage


def normalisation_of(settings: UpdateSection) -> Normalise:
    """The recipe's, or else the objective's own."""
    return settings.normalise or get_objective(settings.objective).normalise


class ScoringSection(Section):
    workers: Positive = 1
    deadline_s: Annotated[float, Field(gt=0)] = 5.0
    """Wall-clock limit of one verdict; the worker is killed when it passes."""
    memory_gib: Annotated[float, Field(gt=0)] = 2.0
    max_failed_frac: Share = 0.5
    """Verdicts or a reward may time out or crash on this share of a step's completions, and no more."""
    when_failing: Literal["stop", "warn"] = "stop"
    """What happens to the run when it is more: it ends, or a line says so on each step on which it happens."""
    policy: AnswerPolicy = AnswerPolicy()
    """Which answers count as the same where graders disagree."""
    format_gates: bool = False
    """True pays for a right answer only where the form is right. A format reward that is only added makes lengths
    drift: a bonus for the form alone is easiest to keep in a short completion."""


class EvalSection(Section):
    sources: tuple[SourceSpec, ...] = ()
    every: Annotated[int, Field(ge=0)] = 0
    """Steps between evaluations; 0 evaluates only before and after training."""
    num_completions: Positive = 1
    """k of avg@k, pass@k and maj@k."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0 is greedy, which allows one completion only."""
    max_new_tokens: Positive | None = None
    """Defaults to the rollout's."""


class CheckpointSection(Section):
    every: Annotated[int, Field(ge=0)] = 0
    """Steps between checkpoints; 0 writes only the last one."""
    keep: Positive = 2


class LogSection(Section):
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    show_every: Annotated[int, Field(ge=0)] = 10
    """Steps between completions shown on the screen; 0 shows none."""
    report_every: Annotated[int, Field(ge=0)] = 0
    """Steps between rewrites of the report; 0 writes it only at the end."""
    completions_part_mib: Annotated[float, Field(gt=0)] = 256.0
    """Size in MiB from which the open part of the completions is closed: renamed and compressed."""
    completions_keep_gib: Annotated[float, Field(gt=0)] | None = None
    """The most GiB that closed parts may take on the disk, compressed; beyond it the oldest are removed. None keeps
    all."""


class Recipe(Section):
    """A whole run. `launch/recipes` has examples."""

    run: RunSection
    model: ModelSection
    data: DataSection
    rollout: RolloutSection
    rewards: tuple[RewardSpec, ...] = (RewardSpec(name="correctness"),)
    update: UpdateSection
    scoring: ScoringSection = ScoringSection()
    eval: EvalSection = EvalSection()
    checkpoint: CheckpointSection = CheckpointSection()
    log: LogSection = LogSection()
