"""Recipes: what a run is, checked whole before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from data.spec import SourceSpec
from grpo.errors import RecipeError
from grpo.objectives.table import Advantage, Normalise, get_objective, objective_fault
from rewards.errors import did_you_mean
from rewards.policy import AnswerPolicy
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
    """None: what `max_parallel` completions need at their longest, and at most 1 GiB."""
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
    """What follows the warm-up: a constant rate, or a decay to zero at the last step."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    inner_epochs: Positive = 1
    """Passes over each step's completions. With one the ratio is exactly 1 and no clip has anything to do."""
    mini_batches: Positive = 1
    """Passes of the optimiser that a step's groups are shared out to, one after another (16 in DAPO). From the second
    on the policy is no longer the one that wrote its completions."""
    objective: str = "dapo"
    """A name of `grpo.objectives.table`, or the dotted path of a function of your own (``module:function``)."""
    objective_options: dict[str, Any] = {}
    """What the objective's function takes beside the tokens."""
    advantage: Advantage | None = None
    """None: the objective's own, and so for `normalise`. gdpo normalises each reward by itself."""
    normalise: Normalise | None = None
    """token: all tokens of the step count alike; sequence: all completions do; sequence_sum: the same, each with the
    sum over its tokens and not their mean; constant: divide by completions x max_new_tokens."""
    correction: Literal["none", "tis", "icepop", "sequence_tis", "sequence_mask"] = "none"
    """How tokens are weighed for the gap between the engine's and the trainer's log-probs."""
    correction_options: dict[str, Any] = {}
    kl_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the KL to the reference policy; 0 loads no reference model."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    kl_in: Literal["loss", "reward"] = "loss"
    """loss: a term beside the objective; reward: taken off the reward before advantages are computed."""
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


RESUMABLE = (
    "run.dir",
    "run.steps",
    "run.device",
    "checkpoint",
    "log",
    "scoring.workers",
    "scoring.deadline_s",
    "scoring.memory_gib",
    "scoring.max_failed_frac",
    "scoring.when_failing",
    "rollout.timeout_s",
)
"""What may differ between a run's recipe and the one it is continued with."""


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read, override and check a recipe. Raises RecipeError with every fault at once.

    An override is ``section.key=value``; the value is read as YAML, and a list's entry is named by its number:
    ``rewards.0.weight=2``.
    """
    document = _read(path)
    for override in overrides:
        _apply(document, override)
    return parse_recipe(document, str(path))


def parse_recipe(document: Mapping[str, Any], where: str) -> Recipe:
    """Check a recipe that is already a mapping; `where` names it in errors."""
    try:
        recipe = Recipe.model_validate(document)
    except ValidationError as error:
        faults = [_describe(fault) for fault in error.errors(include_url=False)]
        raise RecipeError("\n".join([f"{where}: {len(faults)} fault(s)", *faults])) from None
    clashes = list(contradictions(recipe))
    if clashes:
        raise RecipeError("\n".join([f"{where}: {len(clashes)} contradiction(s)", *clashes]))
    return recipe


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, every default filled in."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def contradictions(recipe: Recipe) -> Iterator[str]:
    """Settings that are fine alone and wrong together."""
    rollout, update, evaluation = recipe.rollout, recipe.update, recipe.eval
    if evaluation.temperature == 0 and evaluation.num_completions > 1:
        yield (
            f"eval.num_completions={evaluation.num_completions}: eval.temperature=0 would write the same "
            "completion every time; set eval.temperature above 0, or eval.num_completions to 1"
        )
    if evaluation.every and not evaluation.sources:
        yield f"eval.every={evaluation.every}: eval.sources is empty; name a source, or set eval.every to 0"
    if update.warmup_steps >= recipe.run.steps:
        yield (
            f"update.warmup_steps={update.warmup_steps}: the run has {recipe.run.steps} steps, so that the rate "
            "would never be reached; set fewer warm-up steps"
        )
    longest = recipe.data.max_prompt_tokens + rollout.max_new_tokens
    if update.tokens_per_micro_batch < longest:
        yield (
            f"update.tokens_per_micro_batch={update.tokens_per_micro_batch}: one prompt with one completion may "
            f"have {longest} tokens (data.max_prompt_tokens + rollout.max_new_tokens); set at least that many"
        )
    if update.mini_batches > rollout.prompts_per_step:
        yield (
            f"update.mini_batches={update.mini_batches}: a step has {rollout.prompts_per_step} groups to share out "
            "(rollout.prompts_per_step); set at most that many"
        )
    if problem := objective_fault(update.objective):
        yield f"update.objective={update.objective}: {problem}"
    if rollout.max_rounds > 1 and advantage_of(update) == "batch":
        yield (
            f"rollout.max_rounds={rollout.max_rounds}: update.advantage=batch compares completions with those of the "
            "whole step, so that a group of equal rewards teaches too; set max_rounds to 1, or another advantage"
        )
    if update.kl_in == "reward" and not update.kl_weight:
        yield "update.kl_in=reward: update.kl_weight is 0, so that nothing is taken off; set a weight, or kl_in=loss"
    if update.kl_in == "reward" and update.advantage == "gdpo":
        yield (
            "update.kl_in=reward: update.advantage=gdpo normalises each reward by itself, so that there is none "
            "to take the KL off; set kl_in=loss, or another advantage"
        )
    if update.reference_every and not update.kl_weight:
        yield (
            f"update.reference_every={update.reference_every}: update.kl_weight is 0, so that there is no reference; "
            "set a weight, or reference_every to 0"
        )
    names = [spec.name for spec in recipe.rewards]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"rewards={name}: named twice; give each reward once, with one weight"
    if not any(spec.weight for spec in recipe.rewards):
        yield "rewards: every weight is 0, so that nothing would be learnt; give one reward a weight"


def changed_keys(old: Recipe, new: Recipe) -> list[str]:
    """Dotted keys that differ and may not differ when a run goes on.

    The number of steps may, unless the learning rate depends on it.
    """
    before, after = (dict(_flatten(recipe.model_dump(mode="json"))) for recipe in (old, new))
    differing = [key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]
    bound = ("run.steps",) if new.update.schedule != "constant" else ()
    return [key for key in differing if key in bound or not any(f"{key}.".startswith(f"{free}.") for free in RESUMABLE)]


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise RecipeError(f"recipe={path}: not UTF-8 text ({error}); give the path of a YAML file") from None
    except OSError as error:
        raise RecipeError(f"recipe={path}: {error.strerror}; give the path of a YAML file") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe={path}: not valid YAML: {error}; mend the file") from None
    if not isinstance(document, dict):
        raise RecipeError(f"recipe={path}: not a mapping of sections; see launch/recipes for examples")
    return document


def _apply(document: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"override={override}: not of the form section.key=value; write it so")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise RecipeError(f"override={override}: the value is not valid YAML; quote it") from None
    *parents, last = key.split(".")
    target: Any = document
    for parent in parents:
        target = _enter(target, parent, override)
    if isinstance(target, list):
        target[_index(target, last, override)] = value
    else:
        target[last] = value


def _enter(target: Any, key: str, override: str) -> Any:
    if isinstance(target, list):
        return target[_index(target, key, override)]
    inner = target.get(key)
    if not isinstance(inner, dict | list):
        inner = target[key] = {}
    return inner


def _index(target: list[Any], key: str, override: str) -> int:
    if not key.isdigit() or int(key) >= len(target):
        raise RecipeError(f"override={override}: {key} is no entry of a list of {len(target)}; count from 0")
    return int(key)


def _describe(fault: ErrorDetails) -> str:
    location = fault["loc"]
    where = ".".join(str(part) for part in location)
    if fault["type"] == "extra_forbidden":
        advice = did_you_mean(str(location[-1]), _known_keys(location[:-1]))
        return f"{where}={fault['input']!r}: unknown key; {advice}"
    if fault["type"] == "missing":
        return f"{where}: missing; this key has no default, so set it"
    message = fault["msg"].removeprefix("Value error, ")
    return message if message.startswith(where) else f"{where}={fault['input']!r}: {message[0].lower()}{message[1:]}"


def _known_keys(parents: Sequence[int | str]) -> list[str]:
    model: Any = Recipe
    for part in parents:
        if isinstance(part, int):
            continue
        model = _section_of(model.model_fields[part].annotation)
    return list(model.model_fields)


def _section_of(annotation: Any) -> Any:
    """The model inside ``Section``, ``tuple[Section, ...]`` and the like."""
    inner = [arg for arg in getattr(annotation, "__args__", ()) if isinstance(arg, type)]
    return inner[0] if inner else annotation
