"""From a recipe to a run that is ready to train. What can be found wrong is looked at first, the cheapest first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from data.templates import get_template
from grpo.checkpoint import Checkpoints, check_room, checkpoint_bytes, list_checkpoints
from grpo.collector import Collector
from grpo.config import Recipe, advantage_of
from grpo.display import make_display
from grpo.errors import UserError
from grpo.evaluate import Evaluator
from grpo.filling import choose_fill
from grpo.folder import RunFolder
from grpo.judging import Judge, open_scorer
from grpo.meter import Meter
from grpo.policy import Policy, PolicySettings
from grpo.preflight import Material, Say, prepare
from grpo.prompts import PromptSet
from grpo.rollout.engine import Engine
from grpo.rollout.rollouts import Rollouts
from grpo.rollout.sync import PROBE_PROMPTS, PROBE_TOKENS, WeightSync
from grpo.runlog import MainLog, QuietLog, RunLog
from grpo.trackers import Trackers
from grpo.world import World, join_world


@dataclass(frozen=True)
class Run:
    """The parts of a run, each open and ready."""

    recipe: Recipe
    world: World
    collector: Collector
    policy: Policy
    evaluator: Evaluator
    checkpoints: Checkpoints
    log: RunLog


@contextmanager
def open_run(recipe: Recipe) -> Iterator[Run]:
    """Check, then open everything; on the way out everything is closed, whatever happened inside."""
    with ExitStack() as stack:
        world = join_world(recipe.run.device)
        stack.callback(world.close)
        _check_world(recipe, world)
        say: Say = _print if world.rank == 0 else _silent
        meter = Meter()
        judge = open_judge(recipe, meter)
        stack.callback(judge.close)
        material = prepare(recipe, judge, say)
        _check_rounds(recipe, material)
        _check_disk(recipe, material)
        log = _open_log(recipe, material, world, meter, stack)
        policy = Policy(material.model_folder, _policy_settings(recipe), world, meter)
        engine = open_engine(recipe, material, world, recipe.run.dir / "logs")
        stack.callback(engine.close)
        log.describe(engine.description)
        rollouts = open_rollouts(recipe, material, engine, policy, meter)
        yield Run(
            recipe=recipe,
            world=world,
            collector=_open_collector(recipe, material, rollouts, judge, world),
            policy=policy,
            evaluator=open_evaluator(recipe, material, rollouts, judge, world, meter),
            checkpoints=Checkpoints(
                recipe.run.dir / "checkpoints",
                recipe.checkpoint,
                recipe.run.steps,
                material.tokenizer,
                world,
                meter,
            ),
            log=log,
        )


def open_judge(recipe: Recipe, meter: Meter) -> Judge:
    """The reward workers, behind the recipe's rewards and template."""
    scorer = open_scorer(recipe.rewards, recipe.scoring)
    return Judge(scorer, get_template(recipe.data.template), recipe.scoring, meter)


def open_engine(recipe: Recipe, material: Material, world: World, logs: Path) -> Engine:
    """The recipe's engine, holding the model's first weights; what it says goes to a file in `logs`."""
    logs.mkdir(parents=True, exist_ok=True)
    if recipe.rollout.engine == "transformers":
        from grpo.rollout.transformers import TransformersEngine

        return TransformersEngine(material.model_folder, recipe.rollout, device=world.device)
    from grpo.rollout.vllm import VllmEngine

    return VllmEngine(
        material.model_folder,
        recipe.rollout,
        max_model_len=material.max_model_len,
        device=world.device,
        seed=recipe.run.seed,
        log=logs / f"engine_{world.rank}.log",
    )


def open_rollouts(recipe: Recipe, material: Material, engine: Engine, policy: Policy, meter: Meter) -> Rollouts:
    """The engine with its weight sync, probed with the first prompts of the training set."""
    probe = [prompt.token_ids[:PROBE_TOKENS] for prompt in material.train[:PROBE_PROMPTS]]
    sync = WeightSync(engine, policy, probe, recipe.rollout.sync_tolerance)
    return Rollouts(engine, sync, material.tokenizer.decode, recipe.run.seed, meter)


def open_evaluator(
    recipe: Recipe, material: Material, rollouts: Rollouts, judge: Judge, world: World, meter: Meter
) -> Evaluator:
    """The recipe's held-out sets, ready to be asked."""
    return Evaluator(
        material.held_out,
        recipe.eval,
        recipe.run.steps,
        material.eval_sampling,
        rollouts,
        judge,
        world,
        meter,
    )


def _open_collector(recipe: Recipe, material: Material, rollouts: Rollouts, judge: Judge, world: World) -> Collector:
    rollout = recipe.rollout
    return Collector(
        PromptSet(material.train, rollout.prompts_per_step, recipe.run.seed, rollout.max_rounds),
        rollouts,
        judge,
        world,
        material.sampling,
        rollout.group_size,
        choose_fill(rollout, advantage_of(recipe.update), recipe.rewards),
    )


def _open_log(recipe: Recipe, material: Material, world: World, meter: Meter, stack: ExitStack) -> RunLog:
    """The first rank opens the run's folder, the screen and the trackers; the others keep quiet."""
    if world.rank > 0:
        return QuietLog(world, meter)
    folder = stack.enter_context(RunFolder(recipe.run.dir, recipe))
    display = stack.enter_context(make_display(recipe.run.steps, newest_step(recipe.run.dir)))
    meter.on_phase = display.phase
    trackers = Trackers(recipe.log.trackers, recipe.run.dir, recipe.run.dir.name, recipe.model_dump(mode="json"))
    stack.callback(trackers.close)
    return MainLog(folder, display, trackers, recipe, material.template, world, meter)


def newest_step(run_dir: Path) -> int:
    """The step of a run's newest checkpoint, by its name; 0 without one."""
    found = list_checkpoints(run_dir / "checkpoints")
    return int(found[-1].name.removeprefix("step_")) if found else 0


def _policy_settings(recipe: Recipe) -> PolicySettings:
    return PolicySettings(recipe.model, recipe.update, recipe.rollout, recipe.run.steps)


def _check_world(recipe: Recipe, world: World) -> None:
    if recipe.rollout.prompts_per_step < world.size:
        raise UserError(
            f"rollout.prompts_per_step={recipe.rollout.prompts_per_step}: fewer than the {world.size} ranks; "
            "give each rank at least one"
        )
    if world.size > 1 and recipe.rollout.tensor_parallel > 1:
        raise UserError(
            f"rollout.tensor_parallel={recipe.rollout.tensor_parallel}: each of {world.size} ranks has an engine on "
            "its own GPU; set it to 1, or start a single rank"
        )


def _check_rounds(recipe: Recipe, material: Material) -> None:
    """A step that draws in rounds has each problem once, so that fewer than it takes never fill its batch."""
    rollout = recipe.rollout
    if rollout.max_rounds > 1 and len(material.train) < rollout.prompts_per_step:
        raise UserError(
            f"rollout.max_rounds={rollout.max_rounds}: the training set has {len(material.train)} problems, fewer than "
            f"rollout.prompts_per_step={rollout.prompts_per_step}, which no number of rounds fills; set fewer prompts "
            "a step, or max_rounds to 1"
        )


def _check_disk(recipe: Recipe, material: Material) -> None:
    existing = len(list_checkpoints(recipe.run.dir / "checkpoints"))
    each = checkpoint_bytes(material.model_folder, _policy_settings(recipe))
    check_room(recipe.run.dir, each * max(1, recipe.checkpoint.keep + 1 - existing))


def _print(text: str) -> None:
    print(text, flush=True)


def _silent(text: str) -> None:
    """What the first rank has said already."""
