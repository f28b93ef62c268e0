"""From a recipe to a run that is ready to train. What can be found wrong is looked at first, the cheapest first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from data.templates import get_template
from grpo.checkpoints.checkpoints import Checkpoints, list_checkpoints
from grpo.checkpoints.room import check_room, checkpoint_bytes
from grpo.errors import UserError
from grpo.evaluation.evaluator import Evaluator
from grpo.model.attention.register import choose_attention, fallback_note
from grpo.parallel.world import World, join_world
from grpo.phases import PhaseClock
from grpo.policy.credit import CreditAssigner
from grpo.policy.policy import Policy, PolicySettings
from grpo.preflight import RunInputs, Say, prepare
from grpo.recipe.sections import Recipe, advantage_of
from grpo.rollout.collect import Collector
from grpo.rollout.dynamic_sampling import choose_selection
from grpo.rollout.engines.protocol import Engine
from grpo.rollout.generate import Rollouts
from grpo.rollout.prompts import PromptSet
from grpo.rollout.scoring import GroupScorer, open_scorer
from grpo.rollout.weight_sync.proof import PROBE_PROMPTS, PROBE_TOKENS, WeightSync
from grpo.run.folder import RunFolder
from grpo.run.log import MainLog, QuietLog, RunLog
from grpo.run.screen import make_display
from grpo.run.trackers import Trackers


@dataclass(frozen=True)
class Run:
    """The parts of a run, each open and ready."""

    recipe: Recipe
    world: World
    collector: Collector
    assigner: CreditAssigner
    policy: Policy
    evaluator: Evaluator
    checkpoints: Checkpoints
    log: RunLog


@contextmanager
def open_run(recipe: Recipe) -> Iterator[Run]:
    """Check, then open everything; on the way out everything is closed, whatever happened inside."""
    with ExitStack() as stack:
        world = stack.enter_context(join_world(recipe.run.device, recipe.run.rank_timeout_s))
        _check_world(recipe, world)
        say = speaker(world)
        _check_attention(recipe, world, say)
        clock = PhaseClock()
        scorer = open_group_scorer(recipe, clock, world)
        stack.callback(scorer.close)
        inputs = prepare(recipe, scorer, say)
        _check_rounds(recipe, inputs)
        _check_disk(recipe, inputs)
        log = _open_log(recipe, inputs, world, clock, stack)
        policy = Policy(inputs.model_folder, _policy_settings(recipe), world, clock)
        engine = open_engine(recipe, inputs, world, recipe.run.dir / "logs")
        stack.callback(engine.close)
        log.describe(engine.description)
        rollouts = open_rollouts(recipe, inputs, engine, policy, world, clock)
        yield Run(
            recipe=recipe,
            world=world,
            collector=_open_collector(recipe, inputs, rollouts, scorer, world),
            assigner=CreditAssigner(policy, world, recipe.rewards, recipe.update, recipe.rollout.max_new_tokens),
            policy=policy,
            evaluator=open_evaluator(recipe, inputs, rollouts, scorer, world, clock),
            checkpoints=Checkpoints(
                recipe.run.dir,
                recipe.checkpoint,
                recipe.run.steps,
                inputs.tokenizer,
                world,
                clock,
            ),
            log=log,
        )


def speaker(world: World) -> Say:
    """What prints a line at once on the first rank, and nothing on the others, which would say the same."""

    def say(text: str) -> None:
        if world.rank == 0:
            print(text, flush=True)

    return say


def open_group_scorer(recipe: Recipe, clock: PhaseClock, world: World) -> GroupScorer:
    """The reward workers, behind the recipe's rewards and template."""
    scorer = open_scorer(recipe.rewards, recipe.scoring)
    return GroupScorer(scorer, get_template(recipe.data.template), recipe.scoring, clock, world)


def open_engine(recipe: Recipe, inputs: RunInputs, world: World, logs: Path) -> Engine:
    """The recipe's engine, holding the model's first weights; what it says goes to a file in `logs`."""
    logs.mkdir(parents=True, exist_ok=True)
    if recipe.rollout.engine == "transformers":
        from grpo.rollout.engines.hugging_face import TransformersEngine

        return TransformersEngine(inputs.model_folder, recipe.rollout, device=world.device)
    from grpo.rollout.engines.vllm_client import VllmEngine

    return VllmEngine(
        inputs.model_folder,
        recipe.rollout,
        max_model_len=inputs.max_model_len,
        device=world.device,
        seed=recipe.run.seed,
        log=logs / f"engine_{world.rank}.log",
    )


def open_rollouts(
    recipe: Recipe, inputs: RunInputs, engine: Engine, policy: Policy, world: World, clock: PhaseClock
) -> Rollouts:
    """The engine with its weight sync, probed with the first prompts of the training set."""
    probe = [prompt.token_ids[:PROBE_TOKENS].tolist() for prompt in inputs.train[:PROBE_PROMPTS]]
    sync = WeightSync(engine, policy, world, probe, recipe.rollout.sync_tolerance)
    return Rollouts(engine, sync, inputs.tokenizer.decode, recipe.run.seed, clock)


def open_evaluator(
    recipe: Recipe, inputs: RunInputs, rollouts: Rollouts, scorer: GroupScorer, world: World, clock: PhaseClock
) -> Evaluator:
    """The recipe's held-out sets, ready to be asked."""
    return Evaluator(
        inputs.held_out,
        recipe.eval,
        recipe.run.steps,
        inputs.eval_sampling,
        rollouts,
        scorer,
        world,
        clock,
    )


def _open_collector(
    recipe: Recipe, inputs: RunInputs, rollouts: Rollouts, scorer: GroupScorer, world: World
) -> Collector:
    rollout = recipe.rollout
    return Collector(
        PromptSet(inputs.train, rollout.prompts_per_step, recipe.run.seed, rollout.max_rounds),
        rollouts,
        scorer,
        world,
        inputs.sampling,
        rollout.group_size,
        choose_selection(rollout, advantage_of(recipe.update), recipe.rewards),
    )


def _open_log(recipe: Recipe, inputs: RunInputs, world: World, clock: PhaseClock, stack: ExitStack) -> RunLog:
    """The first rank opens the run's folder, the screen and the trackers; the others keep quiet."""
    if world.rank > 0:
        return QuietLog(inputs.template, world, clock)
    folder = stack.enter_context(RunFolder(recipe.run.dir, recipe))
    display = stack.enter_context(make_display(recipe.run.steps, newest_step(recipe.run.dir)))
    clock.on_phase = display.phase
    trackers = Trackers(recipe.log.trackers, recipe.run.dir, recipe.run.dir.name, recipe.model_dump(mode="json"))
    stack.callback(trackers.close)
    return MainLog(folder, display, trackers, recipe, inputs.template, world, clock)


def newest_step(run_dir: Path) -> int:
    """The step of a run's newest checkpoint, by its name; 0 without one."""
    found = list_checkpoints(run_dir)
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


def _check_attention(recipe: Recipe, world: World, say: Say) -> None:
    choose_attention(recipe.model.attention, world.device)
    if note := fallback_note(recipe.model.attention, world.device):
        say(note)


def _check_rounds(recipe: Recipe, inputs: RunInputs) -> None:
    """A step that draws in rounds has each problem once, so that fewer than it takes never fill its batch."""
    rollout = recipe.rollout
    if rollout.max_rounds > 1 and len(inputs.train) < rollout.prompts_per_step:
        raise UserError(
            f"rollout.max_rounds={rollout.max_rounds}: the training set has {len(inputs.train)} problems, fewer than "
            f"rollout.prompts_per_step={rollout.prompts_per_step}, which no number of rounds fills; set fewer prompts "
            "a step, or max_rounds to 1"
        )


def _check_disk(recipe: Recipe, inputs: RunInputs) -> None:
    existing = len(list_checkpoints(recipe.run.dir))
    each = checkpoint_bytes(inputs.model_folder, _policy_settings(recipe))
    check_room(recipe.run.dir, each * max(1, recipe.checkpoint.keep + 1 - existing))
