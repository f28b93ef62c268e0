"""What a step costs the trainer's process beside the engine and the model: seconds of CPU, by phase.

    python launch/benchmarks/host_cost.py [--ranks 1 8] [--json FILE]

A step has 128 prompts with 16 completions of 8,192 tokens unless it is told otherwise.

Made-up completions go the way of a step's own: scored by real workers, summed up for the other ranks, credited, shared
out to micro-batches, packed into tensors, and written as rows. Every rank is a process of its own, joined by gloo; what
is printed is the CPU time of the rank that needed most, which the other ranks' load on the same cores does not change.
`python_s_per_step` is the sum of all phases, `balance_s` the planning of the micro-batches alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from data.problem import Problem
from data.templates import get_template
from grpo.batching.micro_batches import plan_batch
from grpo.batching.pack import pack
from grpo.parallel.world import World, join_world
from grpo.phases import PhaseClock
from grpo.policy.credit import CreditAssigner
from grpo.recipe.sections import ScoringSection, UpdateSection
from grpo.records import Completion, DrawnGroups, Group, Prompt, ScoredGroup, Selection
from grpo.rollout.scoring import GroupScorer, open_scorer
from grpo.run.log import drawn_rows, ordered_rows
from grpo.run.metrics import step_metrics
from rewards.spec import RewardSpec

CPU = torch.device("cpu")
TEMPLATE = get_template("r1_zero")
REWARDS = (RewardSpec(name="correctness"), RewardSpec(name="format", weight=0.5))
VOCABULARY = 32_000
PROMPT_TOKENS = 256


class NoReference:
    """What the credit of a step asks of a policy whose KL is not in the reward."""

    def kl_costs(self, groups: Mapping[int, ScoredGroup]) -> dict[int, Any]:
        return {}


class Phases:
    """CPU seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began = time.process_time()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - began


def made_up_group(number: int, group_size: int, num_tokens: int) -> Group:
    """Random tokens, and a text of four characters a token that ends in an answer, right for some completions."""
    draw = np.random.default_rng(number)
    prompt = Prompt(
        Problem(f"bench/{number}", "How many?", "42", "integer", "bench", number), _ids(draw, PROMPT_TOKENS)
    )
    return Group(prompt, tuple(_completion(draw, num_tokens) for _ in range(group_size)), 0, number)


def _ids(draw: np.random.Generator, num: int) -> Any:
    return draw.integers(0, VOCABULARY, num, dtype=np.int32)


def _completion(draw: np.random.Generator, num_tokens: int) -> Completion:
    thinking = "so x is "[: 4 * num_tokens] * (num_tokens // 2)
    text = f"{thinking}</think> <answer>{draw.integers(41, 44)}</answer>"
    logps = -draw.random(num_tokens, dtype=np.float32)
    return Completion(_ids(draw, num_tokens), logps, text, "stop")


def step(world: World, options: argparse.Namespace) -> dict[str, float]:
    """One step of this rank, from its groups as generation hands them over: CPU seconds by phase."""
    groups = [made_up_group(n, options.completions, options.tokens) for n in world.stride(range(options.prompts))]
    update = UpdateSection(lr=1e-6, tokens_per_micro_batch=options.budget)
    workers = open_scorer(REWARDS, ScoringSection(workers=1))
    scorer = GroupScorer(workers, TEMPLATE, ScoringSection(workers=1), PhaseClock(), world)
    assigner = CreditAssigner(NoReference(), world, REWARDS, update, options.tokens)  # type: ignore[arg-type]
    phases = Phases()
    with phases.phase("score"):
        scored = scorer.score(groups, 1)
    scorer.close()
    with phases.phase("sum up and select"):
        own = dict(zip(world.stride(range(options.prompts)), scored, strict=True))
        summaries = world.interleave([one.summary(world.rank, position) for position, one in own.items()])
        drawn = DrawnGroups(Selection(tuple(summaries)), own)
    with phases.phase("credit"):
        credit = assigner.assign(drawn)
    with phases.phase("plan micro-batches"):
        plan_batch(credit.groups, update, options.tokens, world.size)
    with phases.phase("make and hand out trees"):
        [batch] = assigner.batches(drawn, credit)
    phases.seconds["make and hand out trees"] -= phases.seconds["plan micro-batches"]  # which it makes once more
    with phases.phase("pack"):
        for trees in batch.micro_batches:
            if trees:
                pack(trees, CPU)
    with phases.phase("rows"), tempfile.TemporaryFile("w") as file:
        for row in ordered_rows(world.gather_on_first(drawn_rows(1, drawn, credit, TEMPLATE))):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    with phases.phase("metrics"):
        step_metrics(credit.groups)
    return phases.seconds


def be_rank(rank: int, size: int, port: int, options: argparse.Namespace, results: Any) -> None:
    """A rank's process: its own step, one thread, and its figures into the queue."""
    torch.set_num_threads(1)
    if size > 1:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with join_world("cpu") as world:
        results.put(step(world, options))
        world.barrier()


def measure(num_ranks: int, options: argparse.Namespace) -> dict[str, float]:
    """CPU seconds by phase, each of the rank that needed most."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    port = free_port()
    ranks = [context.Process(target=be_rank, args=(n, num_ranks, port, options, results)) for n in range(num_ranks)]
    for one in ranks:
        one.start()
    found = [results.get(timeout=options.timeout_s) for _ in ranks]
    for one in ranks:
        one.join()
    return {name: max(each[name] for each in found) for name in found[0]}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--completions", type=int, default=16, help="of each prompt")
    parser.add_argument("--tokens", type=int, default=8192, help="of each completion")
    parser.add_argument("--budget", type=int, default=16_384, help="tokens of a micro-batch")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--timeout-s", type=float, default=600.0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    found = {num: measure(num, options) for num in options.ranks}
    show(found, options)
    if options.json:
        rows = [
            {
                "ranks": num,
                "python_s_per_step": sum(seconds.values()),
                "balance_s": seconds["plan micro-batches"],
                "phases_s": seconds,
            }
            for num, seconds in found.items()
        ]
        whole = {"prompts": options.prompts, "completions": options.completions, "tokens": options.tokens}
        first = {name: rows[0][name] for name in ("python_s_per_step", "balance_s")}
        options.json.write_text(json.dumps(whole | first | {"by_ranks": rows}, indent=1) + "\n")


def show(found: Mapping[int, Mapping[str, float]], options: argparse.Namespace) -> None:
    """A row for each phase, a column for each number of ranks."""
    size = f"{options.prompts} x {options.completions} x {options.tokens}"
    table = Table(title=f"CPU seconds of a step of {size} tokens, of the busiest rank")
    table.add_column("phase")
    for num in found:
        table.add_column(f"{num} rank{'s' * (num > 1)}", justify="right")
    for name in next(iter(found.values())):
        table.add_row(name, *(f"{seconds[name]:.3f}" for seconds in found.values()))
    table.add_section()
    table.add_row("all", *(f"{sum(seconds.values()):.3f}" for seconds in found.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
