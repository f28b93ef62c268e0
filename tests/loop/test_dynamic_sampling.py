"""Steps that draw until their batch is full: which prompts come, when it stops, what a run writes of it."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from groups import prompt_of
from processes import environment, run_grpo, start_grpo, wait_for, write_recipe
from toy import toy_recipe

from data.order import indices_for_step
from data.problem import Problem
from grpo.errors import RecipeError
from grpo.parallel.world import SoleWorld
from grpo.phases import PhaseClock
from grpo.recipe.load import parse_recipe
from grpo.records import DrawnGroups, Group, GroupSummary, Prompt, ScoredGroup
from grpo.rollout.collect import Collector
from grpo.rollout.dynamic_sampling import rewards_differ, select_all, select_living
from grpo.rollout.engines.protocol import Request, Sampling, Written
from grpo.rollout.generate import Rollouts
from grpo.rollout.prompts import PromptSet
from grpo.rollout.weight_sync.proof import LoadedOnce
from rewards.records import Outcome, Score

PER_STEP, MAX_ROUNDS = 4, 3
PROMPTS = tuple(prompt_of((i, 3), Problem(f"toy/{i}", "?", "1", "integer", "toy", i)) for i in range(100))


def prompt_set(num: int = 100, *, per_step: int = PER_STEP, max_rounds: int = MAX_ROUNDS) -> PromptSet:
    return PromptSet(PROMPTS[:num], per_step, seed=5, max_rounds=max_rounds)


def rows_of(prompts: Sequence[Prompt]) -> list[int]:
    return [prompt.problem.row for prompt in prompts]


def test_one_round_is_the_step_as_it_was() -> None:
    for num in (100, 7, 3, 1):
        for step in range(1, 40):
            [only] = prompt_set(num, max_rounds=1).rounds(step)
            assert rows_of(only) == indices_for_step(num, PER_STEP, 5, step - 1)


def test_rounds_are_the_parts_of_a_window() -> None:
    for step in range(1, 40):
        rounds = list(prompt_set().rounds(step))
        assert [len(one) for one in rounds] == [PER_STEP] * MAX_ROUNDS
        window = indices_for_step(100, PER_STEP * MAX_ROUNDS, 5, step - 1)
        assert [row for one in rounds for row in rows_of(one)] == window


def test_windows_share_nothing_within_an_epoch() -> None:
    seen = [row for step in range(1, 9) for one in prompt_set(96).rounds(step) for row in rows_of(one)]
    assert sorted(seen) == list(range(96))


@pytest.mark.parametrize("num", [4, 5, 11, 12, 13, 20, 23, 24])
def test_no_problem_comes_twice_in_a_step_with_few_problems(num: int) -> None:
    for step in range(1, 200):
        rounds = list(prompt_set(num).rounds(step))
        seen = [row for one in rounds for row in rows_of(one)]
        assert len(seen) == len(set(seen))
        assert len(rounds[0]) == PER_STEP
        assert all(len(one) == PER_STEP for one in rounds[:-1])


class EchoEngine:
    """Writes the prompt's first token; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, tuple[Written, ...]]]:
        self.asked += requests
        for number, request in reversed(list(enumerate(requests))):
            written = tuple(Written(request.token_ids[:1], np.array([-0.5], np.float32), "stop") for _ in request.seeds)
            yield number, written


class OracleScorer:
    """Rewards differ in the groups of the problems that it is told."""

    def __init__(self, living: Sequence[int]) -> None:
        self._living = set(living)

    def score(self, groups: Iterator[Group], step: int) -> list[ScoredGroup]:
        scored = [ScoredGroup(group, tuple(self._scores(group))) for group in groups]
        return sorted(scored, key=lambda one: one.group.position)

    def _scores(self, group: Group) -> Iterator[Score]:
        lives = group.prompt.problem.row in self._living
        for index in range(len(group.completions)):
            yield Score(0.1 + (index if lives else 0), {}, Outcome.WRONG, None)


def draw(
    step: int,
    living: Sequence[int],
    *,
    prompts: PromptSet | None = None,
    engine: EchoEngine | None = None,
    world: SoleWorld | None = None,
) -> DrawnGroups:
    prompts = prompts or prompt_set()
    rollouts = Rollouts(engine or EchoEngine(), LoadedOnce(), str, 0, PhaseClock())  # type: ignore[arg-type]
    fill = partial(select_living, num_groups=prompts.per_step, has_signal=rewards_differ)
    collector = Collector(
        prompts,
        rollouts,
        OracleScorer(living),  # type: ignore[arg-type]
        world or SoleWorld(torch.device("cpu")),
        Sampling(1.0, 8, (0,)),
        3,
        select_all if prompts.max_rounds == 1 else fill,
    )
    return collector.draw(step)


def drawn_rows(drawn: DrawnGroups, groups: Sequence[GroupSummary]) -> list[int]:
    return [drawn.own[one.position].group.prompt.problem.row for one in groups]


WINDOW = indices_for_step(100, PER_STEP * MAX_ROUNDS, 5, 6)
"""The places of step 7."""


def test_a_full_first_round_is_the_batch() -> None:
    drawn = draw(7, WINDOW)
    assert drawn_rows(drawn, drawn.selection.kept) == WINDOW[:4]
    assert (drawn.selection.surplus, drawn.selection.dead) == ((), ())


def test_it_draws_until_the_batch_is_full_and_cuts_from_the_end() -> None:
    living = [WINDOW[1], WINDOW[2], *WINDOW[5:8]]
    drawn = draw(7, living)
    assert drawn_rows(drawn, drawn.selection.kept) == living[:4]
    assert drawn_rows(drawn, drawn.selection.surplus) == living[4:]
    assert drawn_rows(drawn, drawn.selection.dead) == [WINDOW[0], WINDOW[3], WINDOW[4]]


def test_the_bound_holds_and_the_step_goes_on_with_what_there_is() -> None:
    drawn = draw(7, [WINDOW[11], WINDOW[3]])
    assert drawn_rows(drawn, drawn.selection.kept) == [WINDOW[3], WINDOW[11]]
    assert len(drawn.selection.groups) == PER_STEP * MAX_ROUNDS
    assert draw(7, []).selection.kept == ()


def test_one_round_keeps_the_dead() -> None:
    drawn = draw(7, [], prompts=prompt_set(max_rounds=1))
    assert len(drawn.selection.kept) == PER_STEP
    assert (drawn.selection.surplus, drawn.selection.dead) == ((), ())


def test_a_problems_completions_are_the_same_in_every_round() -> None:
    """Twelve prompts at once, or four in each of three rounds: the same requests, seeds included."""
    at_once, in_rounds = EchoEngine(), EchoEngine()
    draw(7, [], prompts=prompt_set(per_step=12, max_rounds=1), engine=at_once)
    draw(7, [], engine=in_rounds)
    assert len(in_rounds.asked) == 12
    asked, expected = ([(one.token_ids.tolist(), one.seeds) for one in each.asked] for each in (in_rounds, at_once))
    assert asked == expected


class Eavesdropper(SoleWorld):
    """A world that remembers how much it was given to tell other ranks."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.num_bytes = 0

    def interleave(self, items: Sequence[Any]) -> list[Any]:
        self.num_bytes += len(pickle.dumps(items))
        return super().interleave(items)


class LongEngine(EchoEngine):
    """Each of its completions has so many tokens."""

    def __init__(self, num_tokens: int) -> None:
        super().__init__()
        self._num_tokens = num_tokens

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, tuple[Written, ...]]]:
        for number, written in super().generate(requests, sampling):
            yield number, tuple(self._longer(one) for one in written)

    def _longer(self, written: Written) -> Written:
        return replace(
            written,
            token_ids=np.resize(written.token_ids, self._num_tokens),
            logps=np.resize(written.logps, self._num_tokens),
        )


def told_to_other_ranks(num_tokens: int) -> int:
    world = Eavesdropper()
    draw(7, WINDOW, engine=LongEngine(num_tokens), world=world)
    return world.num_bytes


def test_no_tokens_and_no_texts_are_told_to_other_ranks() -> None:
    """Some hundred bytes a completion, whether it has eight tokens or eight thousand."""
    short, long = told_to_other_ranks(8), told_to_other_ranks(8192)
    assert 0 < long < 1.1 * short
    assert long < 300 * PER_STEP * 3


class OneOfTwo(SoleWorld):
    """One of two ranks, alone."""

    def __init__(self, rank: int) -> None:
        super().__init__(torch.device("cpu"))
        self.rank, self.size = rank, 2

    def stride(self, items: Sequence[Any]) -> list[Any]:
        return list(items[self.rank :: 2])


@pytest.mark.parametrize("step", range(1, 9))
def test_a_problem_that_comes_twice_is_written_anew_whichever_rank_writes_it(step: int) -> None:
    """Three problems for five prompts: two ranks together ask with the very seeds of one, all of them different."""
    few = prompt_set(3, per_step=5, max_rounds=1)
    alone = EchoEngine()
    draw(step, [], prompts=few, engine=alone)
    ranks = EchoEngine(), EchoEngine()
    for rank, engine in enumerate(ranks):
        draw(step, [], prompts=few, engine=engine, world=OneOfTwo(rank))
    together = [request.seeds for engine in ranks for request in engine.asked]
    assert sorted(together) == sorted(request.seeds for request in alone.asked)
    assert len({seed for seeds in together for seed in seeds}) == 5 * 3


# What whole runs do.

STEPS = 5
ROUNDS = 4
FLAT_ON_MOST: dict[str, Any] = {
    "run": {"steps": STEPS},
    "rollout": {"max_rounds": ROUNDS, "group_size": 3},
    "rewards": [{"name": "flat:on_most"}],
}


def rows(run_dir: Path, name: str) -> list[dict[str, Any]]:
    file = run_dir / name
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def learnt(run_dir: Path) -> list[dict[str, Any]]:
    """Everything that a run's rows say but times."""
    timed = ("time", "speed", "cpu_s")
    found = [row for name in ("metrics.jsonl", "completions.jsonl") for row in rows(run_dir, name)]
    return [{key: value for key, value in row.items() if not key.startswith(timed)} for row in found]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    home = tmp_path_factory.mktemp("filled")
    recipe = write_recipe(home / "recipe.yaml", toy_recipe(tiny_model, home / "run", **FLAT_ON_MOST))
    code, output = run_grpo("train", recipe)
    assert code == 0, output
    return home / "run"


def by_problem(step_rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in step_rows:
        groups.setdefault(row["problem_id"], []).append(row)
    return groups


def test_a_run_fills_its_batches(run_dir: Path) -> None:
    completions = rows(run_dir, "completions.jsonl")
    num_rounds = []
    for row in rows(run_dir, "metrics.jsonl")[1:]:
        groups = by_problem([one for one in completions if one["step"] == row["step"]])
        assert all(len(group) == 3 for group in groups.values())
        window = [f"arithmetic/train/{i}" for i in indices_for_step(64, PER_STEP * ROUNDS, 0, row["step"] - 1)]
        num_rounds.append(len(groups) // PER_STEP)
        assert set(groups) == set(window[: PER_STEP * num_rounds[-1]])

        living = [name for name in window if name in groups and len({one["reward"] for one in groups[name]}) > 1]
        in_batch = {name for name, group in groups.items() if all(one["in_batch"] for one in group)}
        assert in_batch == set(living[:PER_STEP])
        for name, group in groups.items():
            assert any(one["advantage"] for one in group) == (name in in_batch)
            assert len({one["in_batch"] for one in group}) == 1

        everything = [one for group in groups.values() for one in group]
        assert row["group/num_drawn"] == len(groups)
        assert row["group/num_living"] == len(living)
        assert row["group/dead_frac"] == pytest.approx(1 - len(living) / len(groups))
        assert row["reward/mean"] == pytest.approx(sum(one["reward"] for one in everything) / len(everything))
        assert row["completion/length_tokens"] == pytest.approx(
            sum(one["num_tokens"] for one in everything) / len(everything)
        )
    assert min(num_rounds) > 1
    assert len(Counter(num_rounds)) > 1


@pytest.mark.e2e
def test_a_killed_run_draws_what_an_uninterrupted_one_does(run_dir: Path, tiny_model: Path, tmp_path: Path) -> None:
    recipe = toy_recipe(tiny_model, tmp_path / "run", **FLAT_ON_MOST)
    file = write_recipe(tmp_path / "recipe.yaml", recipe)
    trainer = start_grpo("train", file)
    wait_for(lambda: len(rows(tmp_path / "run", "metrics.jsonl")) > 2, 60, "two steps")
    os.kill(trainer.pid, signal.SIGKILL)
    trainer.communicate()
    code, output = run_grpo("train", file)
    assert code == 0, output
    assert "going on after step" in output
    assert learnt(tmp_path / "run") == learnt(run_dir)
    name = f"checkpoints/step_{STEPS:06d}/model/model.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (run_dir / name).read_bytes()


@pytest.mark.e2e
def test_two_ranks_draw_what_one_does(run_dir: Path, tiny_model: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", toy_recipe(tiny_model, tmp_path / "run", **FLAT_ON_MOST))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *launcher, "-m", "grpo", "train", recipe]
    variables = {**environment(), "OMP_NUM_THREADS": "1"}
    launched = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=240)
    assert launched.returncode == 0, launched.stderr
    for one, two in zip(learnt(run_dir), learnt(tmp_path / "run"), strict=True):
        numbers = [key for key, value in one.items() if isinstance(value, float) and not key.startswith("sync")]
        assert {key: two[key] for key in numbers} == pytest.approx({key: one[key] for key in numbers}, abs=1e-5)
        told = [key for key in ("problem_id", "index", "text", "in_batch") if key in one]
        assert [two[key] for key in told] == [one[key] for key in told]


def test_a_run_without_any_signal_says_so_and_moves_nothing(tiny_model: Path, tmp_path: Path) -> None:
    sections: dict[str, Any] = {
        "rollout": {"max_rounds": 2, "prompts_per_step": 2, "group_size": 3},
        "rewards": [{"name": "flat:on_all"}],
    }
    recipe = toy_recipe(tiny_model, tmp_path / "run", run={"steps": 1}, **sections)
    code, output = run_grpo("train", write_recipe(tmp_path / "recipe.yaml", recipe))
    assert code == 0, output
    expected = "step 1: 0 of 4 drawn groups have a signal, fewer than the 2 of a full batch (rollout.max_rounds=2)"
    assert expected in output
    row = rows(tmp_path / "run", "metrics.jsonl")[1]
    assert (row["group/num_drawn"], row["group/num_living"], row["update/grad_norm"]) == (4.0, 0.0, 0.0)
    completions = rows(tmp_path / "run", "completions.jsonl")
    assert len(completions) == 4 * 3
    assert not any(one["in_batch"] or one["advantage"] for one in completions)


def test_problems_too_few_to_fill_a_step_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    recipe = toy_recipe(tiny_model, tmp_path / "run", rollout={"max_rounds": 2})
    recipe["data"]["train"]["num_problems"] = 3
    code, output = run_grpo("train", write_recipe(tmp_path / "recipe.yaml", recipe))
    assert code == 2
    assert "rollout.max_rounds=2: the training set has 3 problems, fewer than rollout.prompts_per_step=4" in output
    assert not (tmp_path / "run").exists()


def refused(**sections: dict[str, Any]) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(toy_recipe(Path("model"), Path("run"), **sections), "recipe")
    return str(caught.value)


def test_no_round_at_all_is_refused() -> None:
    assert "rollout.max_rounds=0: input should be greater than or equal to 1" in refused(rollout={"max_rounds": 0})


def test_an_advantage_of_the_whole_step_is_a_contradiction() -> None:
    message = refused(rollout={"max_rounds": 2}, update={"advantage": "batch"})
    assert "rollout.max_rounds=2: update.advantage=batch compares" in message
    parse_recipe(toy_recipe(Path("model"), Path("run"), update={"advantage": "batch"}), "recipe")
    for advantage in ("group_batch", "gdpo"):
        sections: dict[str, Any] = {"rollout": {"max_rounds": 2}, "update": {"advantage": advantage}}
        parse_recipe(toy_recipe(Path("model"), Path("run"), **sections), "recipe")
