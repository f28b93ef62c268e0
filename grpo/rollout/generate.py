"""From prompts to groups: seeds, requests and text around an engine that knows only token ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from grpo.phases import PhaseClock
from grpo.records import Completion, Group, Prompt
from grpo.rollout.engines.protocol import Engine, Request, Sampling, Written, derive_seed
from grpo.rollout.weight_sync.proof import Sync


@dataclass(frozen=True)
class GenerationPlan:
    """Which completions to write: how many of each prompt, how, and under which name their seeds are derived."""

    num_completions: int
    sampling: Sampling
    name: str
    """Part of every seed beside the run's seed, the problem and the index: ``step 12``, ``eval gsm8k``."""


class Rollouts:
    """Completions of the current policy, and only of it."""

    def __init__(
        self,
        engine: Engine,
        sync: Sync,
        decode: Callable[[Sequence[int]], str],
        seed: int,
        clock: PhaseClock,
    ) -> None:
        self.engine = engine
        self._sync = sync
        self._decode = decode
        self._seed = seed
        self._clock = clock

    def write(self, prompts: Sequence[Prompt], draw: GenerationPlan) -> Iterator[Group]:
        """Bring the policy's weights to the engine, prove it, and yield groups as they are finished."""
        with self._clock.phase("sync"):
            gap = self._sync.bring()
        self._clock.note("sync/gap_nats", gap)
        requests = [
            Request(tuple(prompt.token_ids.tolist()), self._seeds(prompt, repeat, draw))
            for prompt, repeat in zip(prompts, _repeats(prompts), strict=True)
        ]
        with self._clock.phase("generate"):
            for number, written in self.engine.generate(requests, draw.sampling):
                completions = tuple(self._completion(one, draw.sampling) for one in written)
                yield Group(prompts[number], completions, self._sync.version, number)

    def _seeds(self, prompt: Prompt, repeat: int, draw: GenerationPlan) -> tuple[int, ...]:
        """They depend on what is asked, not on which rank asks it or beside what."""
        name = (self._seed, draw.name, prompt.problem.id, repeat)
        return tuple(derive_seed(*name, index) for index in range(draw.num_completions))

    def _completion(self, written: Written, sampling: Sampling) -> Completion:
        """Text for rewards and people: without the end token, and cut after a stop string."""
        ids = written.token_ids
        text = self._decode(ids[:-1] if ids and ids[-1] in sampling.end_ids else ids)
        ends = [text.index(stop) + len(stop) for stop in sampling.stop if stop in text]
        text = text[: min(ends)] if ends else text
        return Completion(np.asarray(ids, np.int32), np.asarray(written.logps, np.float32), text, written.finish)


def _repeats(prompts: Sequence[Prompt]) -> list[int]:
    """For each prompt, how often its problem stands before it in the list."""
    seen: Counter[str] = Counter()
    repeats = []
    for prompt in prompts:
        repeats.append(seen[prompt.problem.id])
        seen[prompt.problem.id] += 1
    return repeats
