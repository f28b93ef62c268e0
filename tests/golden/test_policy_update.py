"""One update of a tiny model in fp32: what moves it, what must not, and how its weights leave it."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from groups import branch_of, prompt_of, tree_of
from safetensors import safe_open
from safetensors.torch import load_file
from tiny import make_tiny_model
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from grpo.errors import UserError
from grpo.objectives.tokens import Tokens
from grpo.parallel.world import SoleWorld
from grpo.phases import PhaseClock
from grpo.policy.policy import Policy, PolicySettings
from grpo.recipe.sections import ModelSection, RolloutSection, UpdateSection
from grpo.records import Batch, Branch, Completion, Group, PromptTree, ScoredGroup
from rewards.records import Outcome, Score

END = 0
NUM_STEPS = 10


pytestmark = pytest.mark.usefixtures("one_thread")


def make_policy(folder: Path, *, dtype: str = "float32", temperature: float = 1.0, **update: object) -> Policy:
    settings = PolicySettings(
        ModelSection(path=str(folder), compute="fp32"),
        UpdateSection(**({"lr": 1e-2, "max_grad_norm": 1e6} | update)),  # type: ignore[arg-type]
        RolloutSection(
            prompts_per_step=1,
            group_size=2,
            max_new_tokens=16,
            temperature=temperature,
            dtype=dtype,  # type: ignore[arg-type]
        ),
        steps=NUM_STEPS,
    )
    return Policy(folder, settings, SoleWorld(torch.device("cpu")), PhaseClock())


def branch(ids: Sequence[int], advantage: float, weight: float = 1.0) -> Branch:
    return branch_of(ids, -1.0, advantage, weight)


def trees(weight: float = 1.0) -> list[PromptTree]:
    """Three prompts; the last group is dead."""
    return [
        tree_of((20, 21, 22), branch([30, 31, END], 1.0, weight), branch([32], -1.0), branch([33, 34, 35, 36], 0.5)),
        tree_of((23, 24), branch([40, END], -0.7), branch([41, 42, 43, 44, END], 0.7)),
        tree_of((25,), branch([50, 51], 0.0), branch([52, END], 0.0)),
    ]


NUM_TOKENS = 8 + 7 + 4


def in_one(items: Sequence[PromptTree], denominator: float = NUM_TOKENS) -> Batch:
    return Batch((tuple(items),), denominator, has_signal=True)


def weights_of(policy: Policy) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in policy.state_dict()["model"].items()}


def gradients_of(policy: Policy, batch: Batch) -> list[Tensor]:
    """What the optimiser would be handed: the gradients just before its step."""
    seen: list[Tensor] = []
    handle = policy.optimiser.register_step_pre_hook(
        lambda *_: seen.extend(parameter.grad.clone() for parameter in policy.network.model.parameters())  # type: ignore[misc]
    )
    policy.update(batch)
    handle.remove()
    return seen


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=tolerance, msg=lambda text, name=name: name + text)


def assert_bitwise(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []


def plain_logps(folder: Path, items: Sequence[PromptTree], temperature: float = 1.0) -> tuple[Any, list[Tensor]]:
    """The model as transformers loads it, and each completion's log-probs run alone, in float64."""
    model, rows, _ = plain(folder, items, temperature)
    return model, rows


def plain(
    folder: Path, items: Sequence[PromptTree], temperature: float = 1.0
) -> tuple[Any, list[Tensor], list[Tensor]]:
    """The same, with the entropies."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float64)
    rows, entropies = [], []
    for tree in items:
        for one in tree.branches:
            ids = torch.tensor([[*tree.prompt_ids, *one.token_ids]])
            log_probs = torch.log_softmax(model(input_ids=ids).logits[0] / temperature, dim=-1)
            start = len(tree.prompt_ids)
            rows.append(log_probs[start - 1 : -1].gather(-1, ids[0, start:, None]).squeeze(-1))
            entropies.append(-(log_probs.exp() * log_probs)[start - 1 : -1].sum(-1))
    return model, rows, entropies


# The gradient and the loss


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_gradient_is_the_policy_gradient(tiny_model: Path, temperature: float) -> None:
    """At ratio 1 the gradient is that of -sum(weight x advantage x log-prob) / denominator: written out, alone."""
    items = trees(weight=0.25)
    model, rows = plain_logps(tiny_model, items, temperature)
    branches = [one for tree in items for one in tree.branches]
    objective = -sum(
        one.weight * (torch.tensor(one.advantages) * row).sum() for one, row in zip(branches, rows, strict=True)
    ) / torch.tensor(NUM_TOKENS)
    objective.backward()
    gradients = gradients_of(make_policy(tiny_model, temperature=temperature), in_one(items))
    for found, parameter in zip(gradients, model.parameters(), strict=True):
        torch.testing.assert_close(found.double(), parameter.grad, rtol=1e-4, atol=1e-6)


def test_first_pass_loss_is_minus_the_weighted_advantages(tiny_model: Path) -> None:
    metrics = make_policy(tiny_model).update(in_one(trees(weight=0.25)))
    # Tokens x weight x advantage: 3 x 0.25 x 1 - 1 + 4 x 0.5 = 1.75; -2 x 0.7 + 5 x 0.7 = 2.1; 0. Over 19 tokens.
    assert metrics["update/loss"] == pytest.approx(-(1.75 + 2.1) / 19, abs=1e-7)
    assert metrics["update/clip_frac"] == 0
    assert metrics["update/skipped"] == 0
    assert metrics["update/lr"] == 1e-2


def test_the_gap_and_the_entropy_are_means_over_tokens(tiny_model: Path) -> None:
    """Over the 15 that have an advantage: the four of the dead group do not count, though they are computed here."""
    items = trees()
    batch = Batch(((items[0],), (items[1], items[2])), NUM_TOKENS, has_signal=True)
    metrics = make_policy(tiny_model).update(batch)
    _, rows, entropies = plain(tiny_model, items[:2])
    gaps = [float(value.detach()) + 1.0 for row in rows for value in row]  # every sampler log-prob here is -1
    assert len(gaps) == 15
    assert metrics["gap/mean_nats"] == pytest.approx(sum(map(abs, gaps)) / 15, abs=1e-5)
    assert metrics["gap/kl_nats"] == pytest.approx(sum(math.exp(gap) - gap - 1 for gap in gaps) / 15, abs=1e-5)
    assert metrics["gap/over_1_frac"] == pytest.approx(sum(abs(gap) > 1 for gap in gaps) / 15)
    assert metrics["gap/over_0p1_frac"] == pytest.approx(sum(abs(gap) > 0.1 for gap in gaps) / 15)
    by_hand = sum(float(row.detach().sum()) for row in entropies) / 15
    assert metrics["update/entropy_nats"] == pytest.approx(by_hand, abs=1e-5)
    assert 0 < metrics["update/entropy_nats"] < math.log(100)


SAME_IN_EVERY_RUN = ("gap/mean_nats", "gap/kl_nats", "gap/over_0p1_frac", "gap/over_1_frac", "update/entropy_nats")


@pytest.mark.parametrize("change", [{"kl_weight": 0.1}, {"entropy_weight": 0.01}, {"inner_epochs": 3}], ids=str)
def test_the_gap_and_the_entropy_mean_the_same_in_every_run(change: dict[str, Any], tiny_model: Path) -> None:
    """Neither a term that makes the dead be computed nor more passes change what they are means of."""
    living = make_policy(tiny_model).update(in_one(trees()[:2]))
    metrics = make_policy(tiny_model, **change).update(in_one(trees()))
    for name in SAME_IN_EVERY_RUN:
        assert metrics[name] == pytest.approx(living[name], abs=1e-5), name


def test_what_stays_the_same_is_computed_once(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In three passes over two micro-batches the reference is asked twice, and entropies are worked out twice."""
    policy = make_policy(tiny_model, inner_epochs=3, kl_weight=0.1)
    asked: list[tuple[str, bool]] = []
    for name, network in (("policy", policy.network), ("reference", policy.reference)):
        assert network is not None
        logprobs = network.logprobs

        def watched(*arguments: Any, name: str = name, logprobs: Any = logprobs, **options: Any) -> Any:
            asked.append((name, options.get("entropy", False)))
            return logprobs(*arguments, **options)

        monkeypatch.setattr(network, "logprobs", watched)
    items = trees()
    policy.update(Batch(((items[0],), (items[1],)), NUM_TOKENS, has_signal=True))
    assert Counter(asked) == {("policy", True): 2, ("policy", False): 4, ("reference", False): 2}


def test_the_ratio_is_one_whatever_the_sampler_said(tiny_model: Path) -> None:
    found, expected = make_policy(tiny_model), make_policy(tiny_model)
    expected.update(in_one(trees()))
    garbage = [
        PromptTree(
            tree.prompt_ids,
            tuple(dataclasses.replace(one, sampler_logps=(-9.0,) * len(one.token_ids)) for one in tree.branches),
        )
        for tree in trees()
    ]
    found.update(in_one(garbage))
    assert_bitwise(weights_of(found), weights_of(expected))


def test_a_kl_term_pulls_back(tiny_model: Path, tmp_path: Path) -> None:
    """At first the policy is its reference, and the pull is exactly nothing; after a step it is k3, by hand."""
    policy = make_policy(tiny_model, kl_weight=0.5)
    first = policy.update(in_one(trees()))
    assert first["update/kl_nats"] == 0
    policy.export(tmp_path)
    second = policy.update(in_one(trees()))
    policy.reference.model.save_pretrained(tmp_path / "reference")
    _, rows = plain_logps(tmp_path, trees())
    _, ref_rows = plain_logps(tmp_path / "reference", trees())
    differences = [float(value.detach()) for row, ref in zip(rows, ref_rows, strict=True) for value in ref - row]
    kls = [math.exp(one) - one - 1 for one in differences]
    assert second["update/kl_nats"] == pytest.approx(sum(kls) / 19, rel=1e-5)
    assert second["update/kl_nats"] > 0.05
    # First-pass objective of the two living groups as above with weight 1, and the pull beside it.
    hand = -(3 - 1 + 2 + 2.1) / 19 + 0.5 * second["update/kl_nats"]
    assert second["update/loss"] == pytest.approx(hand, abs=1e-5)


K: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "k1": lambda policy, ref: policy - ref,
    "k2": lambda policy, ref: (policy - ref) ** 2 / 2,
    "k3": lambda policy, ref: (ref - policy).exp() - (ref - policy) - 1,
}


@pytest.mark.parametrize(
    "change",
    [
        {"kl_weight": 0.5, "kl_estimator": "k1"},
        {"kl_weight": 0.5, "kl_estimator": "k2"},
        {"kl_weight": 0.5, "kl_estimator": "k3"},
        {"entropy_weight": 0.3},
        {"kl_weight": 0.5, "entropy_weight": 0.2},
    ],
    ids=str,
)
def test_the_terms_beside_the_objective(change: dict[str, Any], tiny_model: Path, tmp_path: Path) -> None:
    """Loss and gradient of the second step, away from the reference, written out in float64."""
    items, temperature = trees(weight=0.25), 0.8
    policy = make_policy(tiny_model, temperature=temperature, lr=2e-3, **change)
    policy.update(in_one(items))
    policy.export(tmp_path)
    model, rows, entropies = plain(tmp_path, items, temperature)
    _, ref_rows = plain_logps(tiny_model, items, temperature)
    total = torch.zeros((), dtype=torch.float64)
    loss = 0.0
    for one, logps, refs, entropy in zip(branches_of(items), rows, ref_rows, entropies, strict=True):
        advantages = torch.tensor(one.advantages, dtype=torch.float64)
        beside = change.get("kl_weight", 0) * K[change.get("kl_estimator", "k3")](logps, refs.detach())
        beside = beside - change.get("entropy_weight", 0) * entropy
        total = total + one.weight * (beside - advantages * logps).sum() / NUM_TOKENS
        # At ratio 1 the objective's loss is minus the advantage, and its gradient that of the log-prob.
        loss += one.weight * float((beside.detach() - advantages).sum()) / NUM_TOKENS
    total.backward()
    handed: list[Tensor] = []
    policy.optimiser.register_step_pre_hook(
        lambda *_: handed.extend(parameter.grad.clone() for parameter in policy.network.model.parameters())  # type: ignore[misc]
    )
    metrics = policy.update(in_one(items))
    assert metrics["update/loss"] == pytest.approx(loss, abs=1e-5)
    for found, parameter in zip(handed, model.parameters(), strict=True):
        torch.testing.assert_close(found.double(), parameter.grad, rtol=1e-4, atol=1e-6)


def branches_of(items: Sequence[PromptTree]) -> list[Branch]:
    return [one for tree in items for one in tree.branches]


def test_the_objective_sees_every_token(tiny_model: Path) -> None:
    """What it is handed on the first pass and on the second, and that the correction weighs what it makes of it."""
    items = [
        tree_of((20, 21), branch_of((30, 31), (-1.0, -2.0), (0.5, 0.25), 0.5), branch([32], -1.0)),
        tree_of((22,), branch([33, END], 2.0)),
    ]
    policy = make_policy(tiny_model, lr=1e-3, inner_epochs=2)
    seen: list[Tokens] = []

    def objective(tokens: Tokens) -> Tensor:
        seen.append(tokens)
        return -tokens.ratio * tokens.advantage

    policy.objective = objective
    policy.correction = lambda tokens: torch.tensor([1.0, 2.0, 0.0, 4.0, 8.0])
    metrics = policy.update(in_one(items, 10.0))
    first, second = seen
    for tokens in seen:
        assert tokens.sampler_logp.tolist() == [-1.0, -2.0, -1.0, -1.0, -1.0]
        assert tokens.advantage.tolist() == [0.5, 0.25, -1.0, 2.0, 2.0]
        assert tokens.completion.tolist() == [0, 0, 1, 2, 2]
        assert torch.equal(tokens.proximal_logp, first.policy_logp)
        assert not tokens.proximal_logp.requires_grad
    assert first.ratio.tolist() == [1.0] * 5
    assert all(ratio != 1 for ratio in second.ratio.tolist())
    # Correction x weight x -advantage x ratio over 10, the mean of both passes.
    shares = [1 * 0.5 * 0.5, 2 * 0.5 * 0.25, 0, 4 * 2.0, 8 * 2.0]
    passes = [-sum(share * ratio for share, ratio in zip(shares, one.ratio.tolist(), strict=True)) for one in seen]
    assert passes[0] == pytest.approx(-24.5)
    assert metrics["update/loss"] == pytest.approx(sum(passes) / 2 / 10, abs=1e-6)


def test_a_correction_weighs_the_gradient(tiny_model: Path) -> None:
    """Weights for whole completions are as good as the same weights in the batch."""
    items = [tree_of((20, 21), branch([30, 31], 1.0), branch([32, END], -1.0))]
    weighed = [tree_of((20, 21), branch([30, 31], 1.0, 0.5), branch([32, END], -1.0, 2.0))]
    policy = make_policy(tiny_model)
    policy.correction = lambda tokens: torch.tensor([0.5, 0.5, 2.0, 2.0])
    expected = gradients_of(make_policy(tiny_model), in_one(weighed, 4.0))
    for found, other in zip(gradients_of(policy, in_one(items, 4.0)), expected, strict=True):
        torch.testing.assert_close(found, other, rtol=0, atol=1e-7)


# What waits for the device

READS = ("item", "tolist", "__float__", "__int__", "__bool__", "cpu", "numpy", "nonzero", "__index__")
"""What makes a CUDA device finish before the host goes on."""


def reads_of_an_update(policy: Policy, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often values are read out of tensors in one step."""
    seen: Counter[str] = Counter()
    with monkeypatch.context() as patch:
        for name in READS:
            original = getattr(Tensor, name)

            def watched(self: Tensor, *arguments: Any, name: str = name, original: Any = original) -> Any:
                seen[name] += 1
                return original(self, *arguments)

            patch.setattr(Tensor, name, watched)
        policy.update(batch)
    return seen


def test_no_micro_batch_is_waited_for(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values are read out of tensors as often for six micro-batches as for one: at the end of the step."""
    changes: dict[str, Any] = {"kl_weight": 0.1, "entropy_weight": 0.01, "objective": "gspo", "correction": "tis"}
    reads = []
    for copies in (1, 6):
        batch = Batch((tuple(trees()),) * copies, NUM_TOKENS, has_signal=True)
        policy = make_policy(tiny_model, inner_epochs=2, **changes)
        reads.append(reads_of_an_update(policy, batch, monkeypatch))
    assert reads[0] == reads[1]
    assert reads[0]


# A KL in the reward


def groups() -> dict[int, ScoredGroup]:
    scored = {}
    for position, tree in enumerate(trees()):
        completions = tuple(Completion(one.token_ids, one.sampler_logps, "", "stop") for one in tree.branches)
        scores = tuple(Score(0.0, {}, Outcome.WRONG, None) for _ in completions)
        scored[position] = ScoredGroup(Group(prompt_of(tree.prompt_ids), completions, 0, 0), scores)
    return scored


@pytest.mark.parametrize("estimator", K)
@pytest.mark.parametrize("budget", [8, 4096])
def test_what_a_kl_costs_is_the_estimator_of_each_token(
    budget: int, estimator: str, tiny_model: Path, tmp_path: Path
) -> None:
    """At first nothing; after a step, by hand, whether a group is computed whole or cut into pieces."""
    policy = make_policy(
        tiny_model,
        temperature=0.8,
        lr=2e-3,
        kl_weight=0.5,
        kl_in="reward",
        kl_estimator=estimator,
        tokens_per_micro_batch=budget,
    )
    at_first = policy.kl_costs(groups())
    assert {n: [cost.tolist() for cost in costs] for n, costs in at_first.items()} == {
        n: [[0.0] * len(one.token_ids) for one in group.group.completions] for n, group in groups().items()
    }
    metrics = policy.update(in_one(trees()))
    assert "update/kl_nats" not in metrics  # no term of the loss
    assert metrics["update/loss"] == pytest.approx(-(3 - 1 + 2 + 2.1) / 19, abs=1e-6)
    policy.export(tmp_path)
    _, rows = plain_logps(tmp_path, trees(), 0.8)
    _, ref_rows = plain_logps(tiny_model, trees(), 0.8)
    costs = [cost for group in policy.kl_costs(groups()).values() for cost in group]
    for found, row, ref in zip(costs, rows, ref_rows, strict=True):
        assert found == pytest.approx((0.5 * K[estimator](row, ref)).tolist(), abs=1e-5)
    assert max(abs(value) for cost in costs for value in cost) > 0.01


@pytest.mark.parametrize("change", [{}, {"kl_weight": 0.5}])
def test_a_kl_elsewhere_costs_nothing(change: dict[str, float], tiny_model: Path) -> None:
    assert make_policy(tiny_model, **change).kl_costs(groups()) == {}


def test_the_reference_becomes_the_policy(tiny_model: Path) -> None:
    """Every second step: after steps 2 and 4 there is no distance, and a run that goes on after 3 knows it."""
    changes: dict[str, Any] = {"kl_weight": 0.5, "reference_every": 2, "lr": 1e-3}
    policy, resumed = make_policy(tiny_model, **changes), make_policy(tiny_model, **changes)
    kls = [policy.update(in_one(trees()))["update/kl_nats"] for _ in range(3)]
    assert kls[0] == kls[2] == 0 < kls[1]
    resumed.load_state_dict(copy.deepcopy(policy.state_dict()))
    expected = [policy.update(in_one(trees()))["update/kl_nats"] for _ in range(2)]
    assert [resumed.update(in_one(trees()))["update/kl_nats"] for _ in range(2)] == expected
    assert expected[1] == 0 < expected[0]


# What must not matter (test_invariance.py has more)


def test_micro_batches_do_not_matter(tiny_model: Path) -> None:
    """Three micro-batches of unequal size, and seven of one completion each, learn what one does.

    The rate is small because AdamW divides a gradient near zero by its own size, and so blows its rounding up.
    """
    items = trees()
    single = [PromptTree(tree.prompt_ids, (one,)) for tree in items for one in tree.branches]
    layouts = [
        ((items[0], items[1], items[2]),),
        ((items[0],), (items[1],), (items[2],)),
        tuple((tree,) for tree in single),
    ]
    expected: dict[str, Tensor] = {}
    for layout in layouts:
        policy = make_policy(tiny_model, lr=2e-5)
        metrics = [policy.update(Batch(layout, NUM_TOKENS, has_signal=True)) for _ in range(3)][-1]
        expected = expected or weights_of(policy) | {key: torch.tensor(value) for key, value in metrics.items()}
        found = weights_of(policy) | {key: torch.tensor(value) for key, value in metrics.items()}
        assert_same(found, expected, 1e-6)


def test_the_denominator_divides_once(tiny_model: Path) -> None:
    whole = gradients_of(make_policy(tiny_model), in_one(trees(), 19.0))
    half = gradients_of(make_policy(tiny_model), in_one(trees(), 38.0))
    for one, other in zip(half, whole, strict=True):
        torch.testing.assert_close(one * 2, other, rtol=0, atol=1e-6)


def test_the_end_token_is_trained_on(tiny_model: Path) -> None:
    """Only the end token of one completion carries a signal here: its chance must rise, and alone from it."""
    policy = make_policy(tiny_model, lr=1e-3)
    [before] = policy.logprobs([[20, 21, END]])
    policy.update(in_one([tree_of((20, 21), branch([END], 1.0))], 1.0))
    [after] = policy.logprobs([[20, 21, END]])
    assert after[-1] > before[-1]


def test_a_good_completion_grows_likelier_and_a_bad_one_less(tiny_model: Path) -> None:
    policy = make_policy(tiny_model, lr=1e-3)
    good, bad = [20, 30, 31, END], [20, 40, 41, 42]
    before = [sum(row) for row in policy.logprobs([good, bad])]
    policy.update(in_one([tree_of((20,), branch(good[1:], 1.0), branch(bad[1:], -1.0))], 6.0))
    after = [sum(row) for row in policy.logprobs([good, bad])]
    assert after[0] > before[0] + 0.01
    assert after[1] < before[1] - 0.01


# Passes, rates and decay


def test_a_second_pass_meets_the_clip(tiny_model: Path) -> None:
    policy = make_policy(tiny_model, lr=0.05, inner_epochs=2)
    metrics = policy.update(in_one(trees()))
    # The first of the two passes clips nothing, so at most half of all tokens seen can be clipped.
    assert 0.1 < metrics["update/clip_frac"] <= 0.5
    assert policy.version == 1


def test_two_passes_by_hand(tiny_model: Path, tmp_path: Path) -> None:
    """The second pass's loss, from the weights after the first and the log-probs before it."""
    once = make_policy(tiny_model, lr=2e-3)
    first = once.update(in_one(trees()))
    once.export(tmp_path)
    twice = make_policy(tiny_model, lr=2e-3, inner_epochs=2).update(in_one(trees()))
    _, old = plain_logps(tiny_model, trees())
    _, new = plain_logps(tmp_path, trees())
    branches = [one for tree in trees() for one in tree.branches]
    total, clipped = 0.0, 0
    for one, before, after in zip(branches, old, new, strict=True):
        for ratio, advantage in zip((after - before).exp().tolist(), one.advantages, strict=True):
            bounded = min(max(ratio, 0.8), 1.28)
            total -= min(ratio * advantage, bounded * advantage)
            clipped += bounded * advantage < ratio * advantage
    assert clipped > 0
    assert twice["update/loss"] == pytest.approx((first["update/loss"] + total / 19) / 2, abs=1e-5)
    assert twice["update/clip_frac"] == pytest.approx(clipped / 30, abs=1e-9)


def test_two_mini_batches_by_hand(tiny_model: Path, tmp_path: Path) -> None:
    """The second one's loss, from the weights after the first and the log-probs before it."""
    one, other, _ = trees()
    first = make_policy(tiny_model, lr=2e-3)
    first_loss = first.update(in_one([one], 8))["update/loss"]
    first.export(tmp_path)
    policy = make_policy(tiny_model, lr=2e-3, objective_options={"clip_low": 0.01, "clip_high": 0.02})
    both = policy.update(in_one([one], 8), in_one([other], 7))
    assert policy.version == 1
    _, before = plain_logps(tiny_model, [one, other])
    _, after = plain_logps(tmp_path, [other])
    total, clipped = 0.0, 0
    for branch, old, new in zip(other.branches, before[3:], after, strict=True):
        for ratio, advantage in zip((new - old).exp().tolist(), branch.advantages, strict=True):
            bounded = min(max(ratio, 0.99), 1.02)
            total -= min(ratio * advantage, bounded * advantage)
            clipped += bounded * advantage < ratio * advantage
    assert clipped > 0
    assert both["update/loss"] == pytest.approx((first_loss + total / 7) / 2, abs=1e-5)
    assert both["update/clip_frac"] == pytest.approx(clipped / 15, abs=1e-9)
    # The engine ran the policy before both: every sampler log-prob here is -1.
    gaps = [abs(value + 1) for row in before for value in row.tolist()]
    assert both["gap/mean_nats"] == pytest.approx(sum(gaps) / 15, abs=1e-5)


def test_a_token_without_weight_is_masked_and_not_clipped(tiny_model: Path) -> None:
    policy = make_policy(tiny_model)
    policy.correction = lambda tokens: (torch.arange(len(tokens.advantage)) >= 3).float()
    metrics = policy.update(in_one(trees()))
    assert metrics["update/masked_frac"] == pytest.approx(3 / 15)
    assert metrics["update/clip_frac"] == 0


def test_the_rate_of_each_update_is_the_schedules(tiny_model: Path) -> None:
    policy = make_policy(tiny_model, lr=8e-4, schedule="linear", warmup_steps=2)
    rates = [policy.update(in_one(trees()))["update/lr"] for _ in range(4)]
    # Of ten updates eight follow the warm-up: sevenths of the full rate, from all of it to nothing.
    assert rates == pytest.approx([4e-4, 8e-4, 8e-4, 8e-4 * 6 / 7], abs=1e-12)
    assert [group["lr"] for group in policy.optimiser.param_groups] == pytest.approx([8e-4 * 6 / 7] * 2, abs=1e-12)


def test_the_first_step_of_adamw_by_hand(tiny_model: Path) -> None:
    """AdamW's first step is lr x g / (|g| + 1e-8), whatever the betas, after shrinking matrices by lr x decay."""
    policy = make_policy(tiny_model, lr=1e-3, weight_decay=0.5)
    before = [parameter.detach().clone() for parameter in policy.network.model.parameters()]
    gradients = gradients_of(policy, in_one(trees()))
    for parameter, old, gradient in zip(policy.network.model.parameters(), before, gradients, strict=True):
        decay = 1 - 1e-3 * 0.5 if old.dim() == 2 else 1.0
        expected = old * decay - 1e-3 * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(parameter.detach(), expected, rtol=0, atol=1e-6)


def test_only_matrices_decay(tiny_model: Path) -> None:
    """Without a signal from the gradient, what is left of a step is the decay."""
    policy = make_policy(tiny_model, lr=0.1, weight_decay=0.5)
    before = weights_of(policy)
    policy.update(in_one([tree_of((20, 21), branch([30, END], 0.0))], 2.0))
    after = weights_of(policy)
    kinds = {value.dim() for value in before.values()}
    assert kinds == {1, 2}
    for name, value in before.items():
        factor = 0.95 if value.dim() == 2 else 1.0
        torch.testing.assert_close(after[name], value * factor, rtol=0, atol=1e-7)


def test_the_gradient_is_clipped_to_its_norm(tiny_model: Path) -> None:
    free = gradients_of(make_policy(tiny_model), in_one(trees()))
    norm = math.sqrt(sum(float(one.double().square().sum()) for one in free))
    policy = make_policy(tiny_model, max_grad_norm=norm / 4)
    held = gradients_of(policy, in_one(trees()))
    for one, other in zip(held, free, strict=True):
        torch.testing.assert_close(one, other / 4, rtol=0, atol=1e-6)
    # What is logged is the norm before clipping.
    assert make_policy(tiny_model, max_grad_norm=norm / 4).update(in_one(trees()))["update/grad_norm"] == pytest.approx(
        norm, rel=1e-5
    )


# Steps that are not made


def poisoned() -> Batch:
    return in_one([tree_of((20, 21), branch([30, 31], 1.0, weight=math.inf), branch([32], -1.0))])


def test_a_gradient_that_is_not_finite_moves_nothing(tiny_model: Path) -> None:
    policy = make_policy(tiny_model, lr=0.1, weight_decay=0.5)
    policy.update(in_one(trees()))
    before = copy.deepcopy(policy.state_dict())
    metrics = policy.update(poisoned())
    assert metrics["update/skipped"] == 1
    assert not math.isfinite(metrics["update/grad_norm"])
    assert policy.version == 2
    after = policy.state_dict()
    assert after["bad_steps"] == 1
    assert_bitwise(after["model"], before["model"])
    for number, moments in before["optimiser"]["state"].items():
        assert_bitwise(after["optimiser"]["state"][number], moments)
    # Nothing of the bad gradient is left: the next step is the one that would have come without it.
    other = make_policy(tiny_model, lr=0.1, weight_decay=0.5)
    for _ in range(2):
        other.update(in_one(trees()))
    assert policy.update(in_one(trees()))["update/skipped"] == 0
    assert_bitwise(weights_of(policy), weights_of(other))
    assert policy.state_dict()["bad_steps"] == 0


def test_bad_steps_in_a_row_end_the_run(tiny_model: Path) -> None:
    policy = make_policy(tiny_model, max_bad_steps=3)
    for batch in (poisoned(), poisoned(), in_one(trees()), poisoned(), poisoned()):
        policy.update(batch)
    before = weights_of(policy)
    with pytest.raises(UserError, match="not finite 3 times in a row"):
        policy.update(poisoned())
    assert_bitwise(weights_of(policy), before)


def test_a_batch_without_a_signal_moves_nothing(tiny_model: Path) -> None:
    policy = make_policy(tiny_model, lr=0.1, weight_decay=0.5)
    policy.update(in_one(trees()))
    before = weights_of(policy)
    metrics = policy.update(Batch((), 12.0, has_signal=False))
    assert metrics == {
        "update/grad_norm": 0.0,
        "update/skipped": 0.0,
        "update/loss": 0.0,
        "update/lr": 0.1,
    }
    assert_bitwise(weights_of(policy), before)
    assert policy.version == 2


# How weights leave and come back


def test_a_saved_state_goes_on_to_the_bit(tiny_model: Path, tmp_path: Path) -> None:
    changes = {"lr": 3e-3, "schedule": "cosine", "warmup_steps": 2, "weight_decay": 0.1}
    policy = make_policy(tiny_model, **changes)
    for _ in range(2):
        policy.update(in_one(trees()))
    torch.save(policy.state_dict(), tmp_path / "state.pt")
    resumed = make_policy(tiny_model, **changes)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert resumed.version == 2
    for _ in range(3):
        assert resumed.update(in_one(trees())) == policy.update(in_one(trees()))
    assert_bitwise(weights_of(resumed), weights_of(policy))


def test_perturbed_moves_everything_and_puts_it_back(tiny_model: Path) -> None:
    policy = make_policy(tiny_model)
    before = weights_of(policy)
    with policy.perturbed():
        inside = weights_of(policy)
    assert all(float((inside[name] != value).float().mean()) > 0.9 for name, value in before.items())
    sizes = {
        name: float((inside[name] - value).square().mean().sqrt() / value.square().mean().sqrt())
        for name, value in before.items()
        if value.numel() > 1000
    }
    ends = {"model.embed_tokens.weight", "lm_head.weight"}
    assert ends <= sizes.keys()
    for name, size in sizes.items():
        assert size == pytest.approx(0.2 if name in ends else 0.05, rel=0.1)
    assert_bitwise(weights_of(policy), before)

    def fail() -> None:
        with policy.perturbed():
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert_bitwise(weights_of(policy), before)


@pytest.mark.parametrize("tied", [True, False])
def test_export_is_a_folder_that_transformers_loads(tied: bool, tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model", tie_word_embeddings=tied)
    policy = make_policy(folder)
    policy.update(in_one(trees()))
    policy.export(tmp_path / "out")
    with safe_open(tmp_path / "out" / "model.safetensors", framework="pt") as file:
        names = set(file.keys())
    assert "model.embed_tokens.weight" in names
    assert ("lm_head.weight" in names) is not tied
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.dtype is torch.float32
    assert_bitwise(model.state_dict(), weights_of(policy))
    [expected] = policy.logprobs([[20, 30, 31, END]])
    with torch.no_grad():
        log_probs = torch.log_softmax(model(torch.tensor([[20, 30, 31, END]])).logits[0], -1)
    found = [float(log_probs[index, token]) for index, token in enumerate([30, 31, END])]
    assert found == pytest.approx(expected, abs=1e-5)


def test_an_export_names_its_type(tiny_model: Path, tmp_path: Path) -> None:
    make_policy(tiny_model, dtype="bfloat16").export(tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto").dtype is torch.bfloat16


def test_export_in_the_engines_type_leaves_the_master_weights_alone(tiny_model: Path, tmp_path: Path) -> None:
    policy = make_policy(tiny_model, dtype="bfloat16")
    before = weights_of(policy)
    policy.export(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert_bitwise(stored, {name: before[name].bfloat16() for name in stored})
    assert {value.dtype for value in stored.values()} == {torch.bfloat16}
    assert_bitwise(weights_of(policy), before)
    assert all(value.dtype is torch.float32 for value in before.values())
