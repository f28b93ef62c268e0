"""The engine in this process, and what happens around an engine of any kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import CHARACTERS, END, tiny_tokenizer
from transformers import AutoModelForCausalLM

from data.problem import Problem
from grpo.errors import EngineError, SyncError
from grpo.parallel.world import SoleWorld
from grpo.phases import PhaseClock
from grpo.recipe.sections import RolloutSection
from grpo.records import Finish, Floats, Prompt, TokenIds
from grpo.rollout.engines.hugging_face import TransformersEngine
from grpo.rollout.engines.protocol import Request, Sampling, Written, derive_seed
from grpo.rollout.generate import GenerationPlan, Rollouts
from grpo.rollout.weight_sync.proof import LoadedOnce, WeightSync

SETTINGS = RolloutSection(prompts_per_step=2, group_size=2, max_new_tokens=16, dtype="float32")
TOKENIZER = tiny_tokenizer()
WORLD = SoleWorld(torch.device("cpu"))
PROMPT = np.array(TOKENIZER("What is 1 + 2?").input_ids, np.int32)


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> TransformersEngine:
    return TransformersEngine(tiny_model, SETTINGS, device=torch.device("cpu"))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.5])
def test_its_logprobs_are_those_of_the_tempered_policy(
    engine: TransformersEngine, tiny_model: Path, temperature: float
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    [(number, group)] = list(engine.generate([Request(PROMPT, (1, 2, 3))], Sampling(temperature, 16, (0, 5, 9))))
    assert number == 0
    for written in group:
        logits = model(torch.tensor([[*PROMPT, *written.token_ids]])).logits[0, len(PROMPT) - 1 : -1]
        targets = torch.tensor(written.token_ids).long()[:, None]
        expected = (logits / temperature).log_softmax(-1).gather(-1, targets).squeeze(-1)
        assert torch.allclose(expected, torch.tensor(written.logps), atol=1e-4)


def test_completions_end_at_any_end_token_and_keep_it(engine: TransformersEngine) -> None:
    ends = tuple(range(40))
    [(_, group)] = list(engine.generate([Request(PROMPT, tuple(range(24)))], Sampling(1.0, 16, ends)))
    assert {written.finish for written in group} == {"stop", "length"} or all(w.finish == "stop" for w in group)
    for written in group:
        *inner, last = written.token_ids.tolist()
        assert not set(inner) & set(ends)
        assert (last in ends) == (written.finish == "stop")
        assert len(written.logps) == len(written.token_ids)


def test_a_stop_string_ends_a_completion(engine: TransformersEngine) -> None:
    letters = tuple("aeiourstlnm")
    [(_, group)] = list(engine.generate([Request(PROMPT, tuple(range(16)))], Sampling(1.0, 16, (0,), letters)))
    stopped = [
        written.token_ids.tolist() for written in group if written.finish == "stop" and written.token_ids[-1] != 0
    ]
    assert stopped
    for token_ids in stopped:
        ending = [any(letter in TOKENIZER.decode([token]) for letter in letters) for token in token_ids]
        assert ending.index(True) == len(token_ids) - 1


def test_a_stop_string_that_the_prompt_began_does_not_end_a_completion(engine: TransformersEngine) -> None:
    """The first token would complete it, whichever it is."""
    pairs = tuple(f"?{character}" for character in CHARACTERS)
    request = Request(np.array(TOKENIZER("What?").input_ids, np.int32), tuple(range(8)))
    [(_, group)] = list(engine.generate([request], Sampling(1.0, 16, (0,), pairs)))
    assert any(len(one.token_ids) > 1 for one in group)


def test_a_row_that_stops_early_has_only_its_own_tokens(engine: TransformersEngine) -> None:
    [(_, group)] = list(engine.generate([Request(PROMPT, tuple(range(24)))], Sampling(1.0, 16, (0,), ("e", "t"))))
    assert len({len(one.token_ids) for one in group}) > 1
    ends = {"e", "t", END}
    for one in group:
        *inner, last = (TOKENIZER.decode([token]) for token in one.token_ids.tolist())
        assert not ends & set(inner)
        assert one.finish == ("stop" if last in ends else "length")
        assert len(one.token_ids) == 16 or last in ends


def test_the_same_seeds_give_the_same_completions(engine: TransformersEngine) -> None:
    sampling = Sampling(1.0, 16, (0,))
    first, again, other = (
        [
            written.token_ids.tolist()
            for _, group in engine.generate([Request(PROMPT, seeds)], sampling)
            for written in group
        ]
        for seeds in ((1, 2), (1, 2), (3, 4))
    )
    assert first == again
    assert first != other


def test_greedy_is_the_most_likely_token(engine: TransformersEngine, tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    [(_, [written])] = list(engine.generate([Request(PROMPT, (1,))], Sampling(0.0, 1, (0,))))
    assert written.token_ids.tolist() == [int(model(torch.tensor(PROMPT)[None]).logits[0, -1].argmax())]


def test_a_set_of_tensors_that_is_not_the_models_is_refused(
    engine: TransformersEngine, tiny_model: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(tiny_model / "model.safetensors")
    tensors["stranger"] = tensors.pop("model.norm.weight")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"missing \['model.norm.weight'\], unknown \['stranger'\]"):
        engine.load(tmp_path)


class ScriptedEngine:
    """Writes what it is told, and claims log-probs of its own: stages an engine that lost its weights."""

    def __init__(self, logps: list[list[float]] | None = None, written: Sequence[Written] = ()) -> None:
        self.description = {"name": "scripted", "version": "1"}
        self.requests: list[Request] = []
        self.num_loads = 0
        self._logps = logps
        self._written = tuple(written)

    def load(self, folder: Path) -> None:
        self.num_loads += 1

    def logprobs(self, token_ids: Sequence[TokenIds]) -> list[Floats]:
        assert self._logps is not None
        return [np.array(row, np.float32) for row in self._logps]

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, tuple[Written, ...]]]:
        self.requests = list(requests)
        for number in reversed(range(len(requests))):
            yield number, self._written

    def close(self) -> None:
        """Nothing was started."""


class ScriptedPolicy:
    """Log-probs by script; perturbing moves every one of them by `shift`."""

    def __init__(self, logps: list[list[float]], shift: float) -> None:
        self.version = 0
        self.export_bytes = 0
        self._logps = logps
        self._shift = shift
        self._moved = 0.0

    def logprobs(self, token_ids: Sequence[Sequence[int]]) -> list[list[float]]:
        return [[value + self._moved for value in row] for row in self._logps]

    def export(self, folder: Path) -> None:
        """Nothing to write."""

    @contextmanager
    def perturbed(self) -> Iterator[None]:
        self._moved = self._shift
        yield
        self._moved = 0.0


def test_a_stale_engine_fails_the_rehearsal_before_it_writes_anything() -> None:
    true = [[-1.0, -2.0]]
    sync = WeightSync(ScriptedEngine(logps=true), ScriptedPolicy(true, shift=0.5), WORLD, [[1, 2, 3]], tolerance=0.1)
    with pytest.raises(SyncError, match=r"the rehearsal with perturbed weights: .* by 0\.5000 nats"):
        sync.bring()


def test_a_rehearsal_that_moves_too_little_proves_nothing() -> None:
    true = [[-1.0, -2.0]]
    sync = WeightSync(ScriptedEngine(logps=true), ScriptedPolicy(true, shift=0.29), WORLD, [[1, 2, 3]], tolerance=0.1)
    with pytest.raises(SyncError, match="too little to prove"):
        sync.bring()


def test_an_engine_that_answers_nan_fails_the_proof() -> None:
    engine = ScriptedEngine(logps=[[float("nan"), -2.0]])
    sync = WeightSync(engine, ScriptedPolicy([[-1.0, -2.0]], shift=0.5), WORLD, [[1, 2, 3]], tolerance=0.1)
    with pytest.raises(SyncError):
        sync.bring()


def prompt(question: str) -> Prompt:
    return Prompt(Problem(f"t/{question}", question, "1", "integer", "t", 0), np.array([5, 6], np.int32))


def written(*token_ids: int, finish: Finish = "stop") -> Written:
    return Written(np.array(token_ids, np.int32), np.full(len(token_ids), -1.0, np.float32), finish)


def rollouts_of(engine: ScriptedEngine) -> Rollouts:
    return Rollouts(engine, LoadedOnce(), TOKENIZER.decode, seed=3, clock=PhaseClock())


def test_text_leaves_out_the_end_token_and_what_follows_a_stop_string() -> None:
    ids = tuple(TOKENIZER("yes</answer>!").input_ids)
    engine = ScriptedEngine(written=[written(*ids, 0), written(*ids[:3], finish="length")])
    draw = GenerationPlan(2, Sampling(1.0, 16, (0,), ("</answer>",)), "step 1")
    [group] = rollouts_of(engine).write([prompt("a")], draw)
    assert [completion.text for completion in group.completions] == ["yes</answer>", "yes"]
    assert group.completions[0].token_ids.tolist() == [*ids, 0], "what was sampled is what is trained on"


def test_what_the_engine_writes_stays_in_arrays() -> None:
    engine = ScriptedEngine(written=[written(5, 6, 0)])
    [group] = rollouts_of(engine).write([prompt("a")], GenerationPlan(1, Sampling(1.0, 16, (0,)), "step 1"))
    [completion] = group.completions
    assert (completion.token_ids.dtype, completion.sampler_logps.dtype) == (np.int32, np.float32)
    [request] = engine.requests
    assert request.token_ids.dtype == np.int32


def test_a_completion_that_the_engine_gave_up_ends_the_run() -> None:
    """It is no answer that the length limit cut off, and learning from it would punish the policy for a fault."""
    engine = ScriptedEngine(written=[written(5, 0), written(5, 6, finish="abort")])
    draw = GenerationPlan(2, Sampling(1.0, 16, (0,)), "step 1")
    with pytest.raises(EngineError, match="aborted completion 1 of problem t/a after 2 tokens"):
        list(rollouts_of(engine).write([prompt("a")], draw))


def test_an_empty_completion_has_no_text() -> None:
    engine = ScriptedEngine(written=[written(finish="length")])
    [group] = rollouts_of(engine).write([prompt("a")], GenerationPlan(1, Sampling(1.0, 16, (0,)), "step 1"))
    assert group.completions[0].text == ""


def test_groups_go_with_their_prompts_in_whatever_order_they_come() -> None:
    engine = ScriptedEngine(written=[written(5, 0)])
    draw = GenerationPlan(1, Sampling(1.0, 16, (0,)), "step 1")
    groups = list(rollouts_of(engine).write([prompt("a"), prompt("b")], draw))
    assert [group.prompt.problem.question for group in groups] == ["b", "a"]


def test_seeds_differ_between_steps_prompts_and_completions_and_repeat_between_runs() -> None:
    def seeds(name: str) -> list[int]:
        engine = ScriptedEngine(written=[written(0)])
        draw = GenerationPlan(3, Sampling(1.0, 16, (0,)), name)
        list(rollouts_of(engine).write([prompt("a"), prompt("a"), prompt("b")], draw))
        return [seed for request in engine.requests for seed in request.seeds]

    assert seeds("step 1") == seeds("step 1")
    assert len(set(seeds("step 1") + seeds("step 2"))) == 18
    assert derive_seed("ab", "c") != derive_seed("a", "bc")
