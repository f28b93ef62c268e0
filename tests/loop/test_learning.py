"""Every objective learns: a toy task from below 0.3 to above 0.8 reward, on three of three seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from groups import completion_of, learnt_by, prompt_of
from tiny import make_tiny_model, tiny_tokenizer
from toy import lower_case_share

from data.problem import Problem
from grpo.objectives.table import OBJECTIVES
from grpo.parallel.world import SoleWorld
from grpo.phases import PhaseClock
from grpo.policy.policy import Policy, PolicySettings
from grpo.recipe.sections import ModelSection, RolloutSection, UpdateSection
from grpo.records import Group, Prompt, ScoredGroup
from grpo.rollout.engines.hugging_face import TransformersEngine
from grpo.rollout.engines.protocol import Request, Sampling, Written, derive_seed
from rewards.records import Outcome, Score
from rewards.spec import RewardSpec

CPU = torch.device("cpu")
NUM_STEPS = 28
NUM_PROMPTS, GROUP_SIZE, LENGTH = 2, 8, 8
REWARDS = (RewardSpec(name="toy:lower_case_share"),)
PROMPTS = tuple(prompt_of(list(map(ord, text)), Problem(f"toy/{text}", text, "", "exact", "toy", 0)) for text in "12")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One layer is enough: the task is to prefer a quarter of the characters."""
    return make_tiny_model(tmp_path_factory.mktemp("learner"), num_hidden_layers=1, initializer_range=0.05)


def learn(model: Path, objective: str, seed: int) -> list[float]:
    """The mean reward of each step; the loop of `grpo.train` without processes."""
    update = UpdateSection(lr=5e-3, objective=objective, inner_epochs=2)
    rollout = RolloutSection(
        prompts_per_step=NUM_PROMPTS, group_size=GROUP_SIZE, max_new_tokens=LENGTH, dtype="float32"
    )
    settings = PolicySettings(ModelSection(path=str(model), compute="fp32"), update, rollout, NUM_STEPS)
    policy = Policy(model, settings, SoleWorld(CPU), PhaseClock())
    engine = TransformersEngine(model, rollout, device=CPU)
    tokenizer = tiny_tokenizer()
    means = []
    for step in range(NUM_STEPS):
        engine.model.load_state_dict(policy.network.model.state_dict())
        requests = [
            Request(
                tuple(prompt.token_ids.tolist()),
                tuple(derive_seed(seed, step, prompt.problem.id, i) for i in range(GROUP_SIZE)),
            )
            for prompt in PROMPTS
        ]
        scored = []
        for number, written in engine.generate(requests, Sampling(1.0, LENGTH, end_ids=(0,))):
            scored.append(score(PROMPTS[number], written, tokenizer, step))
        policy.update(*learnt_by(policy, SoleWorld(CPU), scored, REWARDS, LENGTH))
        rewards = [score.reward for group in scored for score in group.scores]
        means.append(sum(rewards) / len(rewards))
    return means


def score(prompt: Prompt, written: tuple[Written, ...], tokenizer: Any, step: int) -> ScoredGroup:
    texts = [tokenizer.decode(one.token_ids, skip_special_tokens=True) for one in written]
    rewards = lower_case_share([], texts)
    completions = [
        completion_of(one.token_ids, one.logps, text, one.finish) for one, text in zip(written, texts, strict=True)
    ]
    scores = [Score(reward, {REWARDS[0].name: reward}, Outcome.WRONG, None) for reward in rewards]
    return ScoredGroup(Group(prompt, tuple(completions), step, 0), tuple(scores))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_objective_learns(objective: str, model: Path) -> None:
    for seed in range(3):
        means = learn(model, objective, seed)
        assert means[0] < 0.3, means
        assert sum(means[-3:]) / 3 > 0.8, means
