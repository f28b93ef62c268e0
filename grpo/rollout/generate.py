"""From prompts to groups: seeds before the engine, which knows only token ids, and text after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from grpo.errors import EngineError
from grpo.phases import PhaseClock
from grpo.records import Completion, Group, Prompt, TokenIds
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
    """Completions of the current policy, and only of it.

    `decode` makes text of token ids, special tokens included. `sync` brings the policy's weights to the engine.
    """

    def __init__(
        self,
        engine: Engine,
        sync: Sync,
        decode: Callable[[TokenIds], str],
        seed: int,
        clock: PhaseClock,
    ) -> None:
        self.engine = engine
        self._sync = sync
        self._decode = decode
        self._seed = seed
        self._clock = clock

    def write(
        self, prompts: Sequence[Prompt], plan: GenerationPlan, repeats: Sequence[int] | None = None
    ) -> Iterator[Group]:
        """Bring the policy's weights to the engine, prove it, and yield groups as they are finished.

        A problem that comes several times in a step is written anew each time: `repeats` has how often each prompt's
        came before it, on any rank (by default, in this list).

        Raises EngineError where the engine gave up a completion: what is left of it is neither a whole answer nor one
        that the length limit cut off, and nothing may be learnt from it.
        """
        with self._clock.phase("sync"):
            gap = self._sync.bring()
        self._clock.note("sync/gap_nats", gap)
        requests = [
            Request(prompt.token_ids, self._seeds(prompt, repeat, plan))
            for prompt, repeat in zip(prompts, repeats or count_repeats(prompts), strict=True)
        ]
        with self._clock.phase("generate"):
            for number, written in self.engine.generate(requests, plan.sampling):
                _check_whole(written, prompts[number])
                completions = tuple(self._completion(one, plan.sampling) for one in written)
                yield Group(prompts[number], completions, self._sync.version, number)

    def _seeds(self, prompt: Prompt, repeat: int, plan: GenerationPlan) -> tuple[int, ...]:
        """They depend on what is asked, not on which rank asks it or beside what."""
        name = (self._seed, plan.name, prompt.problem.id, repeat)
        return tuple(derive_seed(*name, index) for index in range(plan.num_completions))

    def _completion(self, written: Written, sampling: Sampling) -> Completion:
        """Text for rewards and people: without the end token, and cut after a stop string."""
        ids = written.token_ids
        text = self._decode(ids[:-1] if len(ids) and int(ids[-1]) in sampling.end_ids else ids)
        ends = [text.index(stop) + len(stop) for stop in sampling.stop if stop in text]
        text = text[: min(ends)] if ends else text
        return Completion(ids, written.logps, text, written.finish)


def _check_whole(written: Sequence[Written], prompt: Prompt) -> None:
    """Nobody here takes a request back, so an engine that gives one up has failed."""
    for index, one in enumerate(written):
        if one.finish == "abort":
            raise EngineError(
                f"rollout: the engine aborted completion {index} of problem {prompt.problem.id} after "
                f"{len(one.token_ids)} tokens; see its log in the run's folder, and start the run again: it goes on "
                "from its newest checkpoint"
            )


def count_repeats(prompts: Sequence[Prompt]) -> list[int]:
    """For each prompt, how often its problem stands before it in the list."""
    seen: Counter[str] = Counter()
    repeats = []
    for prompt in prompts:
        repeats.append(seen[prompt.problem.id])
        seen[prompt.problem.id] += 1
    return repeats
