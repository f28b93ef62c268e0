"""Ten steps of a small model in fp32 give the numbers that they gave when trajectory.json was written.

A change that is to change no number passes this. One that is to change some writes the file anew, and says why:

    PYTHONPATH=.:tests python tests/golden/test_trajectory.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
import torch
from groups import learnt_by
from small import CPU, MAX_NEW_TOKENS, make_policy, save_model, scored_groups

from grpo.parallel.world import SoleWorld
from rewards.spec import RewardSpec

FILE = Path(__file__).with_name("trajectory.json")
NUM_STEPS = 10
REWARDS = (RewardSpec(name="correctness"),)
COMPARED = ("update/loss", "update/grad_norm", "update/entropy_nats", "update/clip_frac", "update/kl_nats")
"""The first pass of a step has a ratio of exactly 1, and so a loss that says nothing of the model; the others do."""

TRAJECTORIES: dict[str, dict[str, object]] = {
    "dapo": {"lr": 3e-4, "max_grad_norm": 0.5, "weight_decay": 0.1},
    "every term": {
        "lr": 4e-3,
        "objective": "grpo",
        "inner_epochs": 2,
        "kl_weight": 0.05,
        "entropy_weight": 0.01,
        "reference_every": 6,
        "warmup_steps": 2,
        "tokens_per_micro_batch": 26,
    },
}


def trajectory(changes: dict[str, object], folder: Path) -> dict[str, list[float]]:
    """What each of ten steps gave."""
    save_model("llama", folder)
    policy = make_policy(folder, temperature=0.9, **changes)
    rows = []
    for step in range(NUM_STEPS):
        rows.append(policy.update(*learnt_by(policy, SoleWorld(CPU), scored_groups(step), REWARDS, MAX_NEW_TOKENS)))
    return {name: [row[name] for row in rows] for name in COMPARED if name in rows[0]}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", TRAJECTORIES)
def test_the_numbers_are_those_of_the_file(name: str, tmp_path: Path) -> None:
    expected = json.loads(FILE.read_text())[name]
    found = trajectory(TRAJECTORIES[name], tmp_path)
    assert found.keys() == expected.keys()
    for metric, values in expected.items():
        assert found[metric] == pytest.approx(values, rel=1e-5, abs=1e-8), metric


def test_the_file_shows_what_it_is_to_show() -> None:
    """The ratio, the clip and the reference took part, and the model moved."""
    stored = json.loads(FILE.read_text())
    every = stored["every term"]
    assert min(every["update/clip_frac"]) > 0
    # The reference is the first policy, and from step 7 on the sixth step's.
    assert every["update/kl_nats"][5] > every["update/kl_nats"][6] > 0
    assert max(stored["dapo"]["update/clip_frac"]) == 0
    for values in stored.values():
        assert {len(numbers) for numbers in values.values()} == {NUM_STEPS}
        assert len(set(values["update/grad_norm"])) == len(set(values["update/entropy_nats"])) == NUM_STEPS
        assert all(abs(loss) > 1e-3 for loss in values["update/loss"])


def write() -> None:
    torch.set_num_threads(1)
    stored = {}
    for name, changes in TRAJECTORIES.items():
        with tempfile.TemporaryDirectory() as folder:
            stored[name] = trajectory(changes, Path(folder))
    FILE.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    write()
