"""Training adapters: what moves, what stays to the bit, and that what leaves is the model that was trained."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from groups import branch_of, tree_of
from peft import PeftModel
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import load_file
from tiny import make_tiny_model, tiny_config, tiny_tokenizer
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

from grpo.checkpoints.checkpoints import Checkpoints
from grpo.checkpoints.room import checkpoint_bytes
from grpo.errors import UserError
from grpo.model.lora import AdaptedNetwork, num_adapter_weights, targeted
from grpo.parallel.world import SoleWorld
from grpo.phases import PhaseClock
from grpo.policy.policy import Policy, PolicySettings
from grpo.recipe.sections import CheckpointSection, LoraSection, ModelSection, RolloutSection, UpdateSection
from grpo.records import Batch, Branch

END = 0
NUM_TOKENS = 15
WORLD = SoleWorld(torch.device("cpu"))
SMALL: dict[str, Any] = {"rank": 3, "alpha": 7.5}
SCALING = 2.5
SEQUENCES = [[20, 30, 31, END], [23, 40, 41, 42, 43]]

pytestmark = pytest.mark.usefixtures("one_thread")


def settings_of(
    folder: Path,
    lora: dict[str, Any] | None = SMALL,
    *,
    compute: str = "fp32",
    dtype: str = "float32",
    gradient_checkpointing: bool = False,
    **update: Any,
) -> PolicySettings:
    model: dict[str, Any] = {"path": str(folder), "compute": compute, "lora": lora}
    return PolicySettings(
        ModelSection(**model, gradient_checkpointing=gradient_checkpointing),
        UpdateSection(**({"lr": 1e-2, "max_grad_norm": 1e6} | update)),
        RolloutSection(prompts_per_step=1, group_size=2, max_new_tokens=16, dtype=dtype),  # type: ignore[arg-type]
        steps=10,
    )


def make_policy(folder: Path, lora: dict[str, Any] | None = SMALL, **changes: Any) -> Policy:
    return Policy(folder, settings_of(folder, lora, **changes), WORLD, PhaseClock())


def branch(ids: Sequence[int], advantage: float) -> Branch:
    return branch_of(ids, -1.0, advantage)


def batch() -> Batch:
    trees = (
        tree_of((20, 21, 22), branch([30, 31, END], 1.0), branch([32], -1.0), branch([33, 34, 35, 36], 0.5)),
        tree_of((23, 24), branch([40, END], -0.7), branch([41, 42, 43, 44, END], 0.7)),
    )
    return Batch((trees,), NUM_TOKENS, has_signal=True)


def trained(folder: Path, lora: dict[str, Any] | None = SMALL, **changes: Any) -> Policy:
    policy = make_policy(folder, lora, **changes)
    for _ in range(3):
        policy.update(batch())
    return policy


def base_of(policy: Policy) -> dict[str, Tensor]:
    weights = policy.network.model.state_dict()
    return {name: value.detach().clone() for name, value in weights.items() if ".lora_" not in name}


def gradients_of(policy: Policy) -> dict[str, Tensor]:
    """What the optimiser would be handed, by name."""
    seen: dict[str, Tensor] = {}

    def look(*_: object) -> None:
        seen.update(
            (name, one.grad.clone()) for name, one in policy.network.model.named_parameters() if one.grad is not None
        )

    handle = policy.optimiser.register_step_pre_hook(look)
    policy.update(batch())
    handle.remove()
    return seen


def assert_bitwise(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []


def plain_logps(model: Any, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
    """Log-probs of a model as transformers runs it."""
    rows = []
    for ids in sequences:
        with torch.no_grad():
            log_probs = model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
        rows.append([float(log_probs[index, token]) for index, token in enumerate(ids[1:])])
    return rows


def assert_close(found: Sequence[Sequence[float]], expected: Sequence[Sequence[float]], tolerance: float) -> None:
    assert [len(row) for row in found] == [len(row) for row in expected]
    for row, other in zip(found, expected, strict=True):
        assert row == pytest.approx(other, abs=tolerance)


# Where training starts, and in which types


def test_it_starts_from_the_very_model(tiny_model: Path) -> None:
    assert make_policy(tiny_model).logprobs(SEQUENCES) == make_policy(tiny_model, None).logprobs(SEQUENCES)


@pytest.fixture(scope="module", params=[LlamaConfig, Qwen2Config, Qwen3Config])
def bf16_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    names += ("num_key_value_heads", "head_dim", "initializer_range", "tie_word_embeddings")
    config = request.param(**{name: getattr(tiny_config(), name) for name in names})
    folder: Path = tmp_path_factory.mktemp("bf16")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def test_a_base_in_bf16_loses_nothing(bf16_model: Path) -> None:
    """Under autocast it gives, to the bit, what fp32 copies of its weights give."""
    policy = make_policy(bf16_model, compute="bf16")
    assert policy.network.model.get_input_embeddings().weight.dtype is torch.bfloat16
    assert policy.logprobs(SEQUENCES) == make_policy(bf16_model, None, compute="bf16").logprobs(SEQUENCES)
    assert {one.dtype for one in policy.network.trained} == {torch.float32}


def test_a_reference_in_bf16_loses_nothing(bf16_model: Path) -> None:
    """Nor does the frozen copy beside a model that is trained whole: the first KL is nothing, not rounding."""
    policy = make_policy(bf16_model, None, compute="bf16", kl_weight=0.1)
    assert policy.reference.model.get_input_embeddings().weight.dtype is torch.bfloat16  # type: ignore[union-attr]
    assert policy.update(batch())["update/kl_nats"] == 0


def test_a_base_in_fp32_is_not_rounded(tiny_model: Path, tmp_path: Path) -> None:
    policy = make_policy(tiny_model, compute="bf16")
    assert {value.dtype for value in base_of(policy).values()} == {torch.float32}
    policy.export(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert_bitwise(AutoModelForCausalLM.from_pretrained(tmp_path).state_dict(), plain.state_dict())


def test_every_rank_starts_with_the_same_adapters(tiny_model: Path) -> None:
    torch.manual_seed(1)
    first = make_policy(tiny_model).state_dict()
    torch.manual_seed(2)
    second = make_policy(tiny_model).state_dict()
    assert_bitwise(first["model"], second["model"])
    assert not torch.equal(first["torch_random"], second["torch_random"]), "the seed is nobody else's business"


# What is trained


def test_adapters_alone_are_trained(tiny_model: Path) -> None:
    policy = make_policy(tiny_model, kl_weight=0.1, reference_every=1)
    adapters = [one for name, one in policy.network.model.named_parameters() if "default" in name]
    held = [one for group in policy.optimiser.param_groups for one in group["params"]]
    # Seven matrices in each of two layers.
    assert len(adapters) == 2 * 7 * 2
    assert {id(one) for one in held} == {id(one) for one in adapters} == {id(one) for one in policy.network.trained}
    gradients = gradients_of(policy)
    assert len(gradients) == len(adapters)
    assert all("lora" in name for name in gradients), "neither head nor embeddings nor norms"


class Listening(SoleWorld):
    """A world that remembers what it was to add over ranks."""

    added: list[torch.nn.Parameter]

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        self.added = list(parameters)


def test_ranks_exchange_the_gradients_of_adapters_alone(tiny_model: Path) -> None:
    world = Listening(torch.device("cpu"))
    policy = Policy(tiny_model, settings_of(tiny_model), world, PhaseClock())
    policy.update(batch())
    assert [id(one) for one in world.added] == [id(one) for one in policy.network.trained]
    assert len(world.added) == 2 * 7 * 2


def test_the_base_stays_to_the_bit(tiny_model: Path, tmp_path: Path) -> None:
    policy = make_policy(tiny_model, weight_decay=0.5, kl_weight=0.1)
    before = base_of(policy)
    for _ in range(3):
        policy.update(batch())
    policy.export(tmp_path / "model")
    policy.export_adapters(tmp_path / "adapter")
    assert_bitwise(base_of(policy), before)
    plain = AutoModelForCausalLM.from_pretrained(tiny_model).state_dict()
    assert_bitwise({name.replace(".base_layer", ""): value for name, value in before.items()}, plain)


def with_random_b(folder: Path, **changes: Any) -> Policy:
    """A policy whose adapters do something already, without one step of training."""
    policy = make_policy(folder, **changes)
    state = copy.deepcopy(policy.state_dict())
    generator = torch.Generator().manual_seed(3)
    for name, value in state["model"].items():
        if name.endswith("lora_B"):
            value.copy_(torch.randn(value.shape, generator=generator) * 0.05)
    policy.load_state_dict(state)
    return policy


def test_the_gradient_is_the_chain_rule_of_the_whole_models(tiny_model: Path, tmp_path: Path) -> None:
    """W + s B A: by A it is s B^T G and by B s G A^T, with G the whole model's gradient by that W."""
    policy = with_random_b(tiny_model)
    adapters = policy.state_dict()["model"]
    policy.export(tmp_path)
    whole = gradients_of(make_policy(tmp_path, None))
    found = gradients_of(with_random_b(tiny_model))
    layers = {name.removesuffix(".lora_A") for name in adapters if name.endswith(".lora_A")}
    assert len(layers) == 14
    for layer in layers:
        a, b, by_w = adapters[f"{layer}.lora_A"], adapters[f"{layer}.lora_B"], whole[f"{layer}.weight"]
        assert float(by_w.abs().max()) > 1e-3
        by_a, by_b = found[f"{layer}.lora_A.default.weight"], found[f"{layer}.lora_B.default.weight"]
        torch.testing.assert_close(by_a, SCALING * b.T @ by_w, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(by_b, SCALING * by_w @ a.T, rtol=1e-4, atol=1e-6)


def test_recomputed_activations_give_the_same_gradient(tiny_model: Path) -> None:
    expected = gradients_of(with_random_b(tiny_model, kl_weight=0.1))
    found = gradients_of(with_random_b(tiny_model, kl_weight=0.1, gradient_checkpointing=True))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6)


# The reference


def test_the_kl_is_to_the_base(tiny_model: Path, tmp_path: Path) -> None:
    """Nothing at first, exactly; then k3, by hand from what was exported and what the run began with."""
    policy = make_policy(tiny_model, kl_weight=0.5)
    assert policy.update(batch())["update/kl_nats"] == 0
    policy.export(tmp_path)
    second = policy.update(batch())
    [trees] = batch().micro_batches
    sequences = [[*tree.prompt_ids, *one.token_ids] for tree in trees for one in tree.branches]
    starts = [len(tree.prompt_ids) - 1 for tree in trees for _ in tree.branches]
    now, first = (plain_logps(AutoModelForCausalLM.from_pretrained(at), sequences) for at in (tmp_path, tiny_model))
    differences = [
        theirs - ours
        for row, other, start in zip(now, first, starts, strict=True)
        for ours, theirs in zip(row[start:], other[start:], strict=True)
    ]
    assert len(differences) == NUM_TOKENS
    assert second["update/kl_nats"] == pytest.approx(
        sum(math.exp(one) - one - 1 for one in differences) / NUM_TOKENS, rel=1e-4
    )
    assert second["update/kl_nats"] > 0.01


def test_the_kl_holds_no_second_model(tiny_model: Path) -> None:
    alone, beside = make_policy(tiny_model), make_policy(tiny_model, kl_weight=0.5)
    assert len(list(alone.network.model.parameters())) == len(list(beside.network.model.parameters()))
    assert not isinstance(beside.reference, AdaptedNetwork)


def test_a_reference_that_moves_is_the_policy_of_that_step(tiny_model: Path) -> None:
    policy = make_policy(tiny_model, kl_weight=0.5, reference_every=2)
    stays = make_policy(tiny_model, kl_weight=0.5)
    kls = [(policy.update(batch())["update/kl_nats"], stays.update(batch())["update/kl_nats"]) for _ in range(4)]
    assert kls[0] == (0, 0)
    assert kls[1][0] == kls[1][1] > 0
    assert kls[2][0] == 0 < kls[2][1]
    assert kls[3][0] > 0


# How weights leave and come back


@pytest.mark.parametrize("tied", [True, False])
def test_the_exported_model_is_the_policy(tied: bool, tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "base", tie_word_embeddings=tied)
    policy = trained(folder)
    policy.export(tmp_path / "out")
    names = []
    for place in (folder, tmp_path / "out"):
        with safe_open(place / "model.safetensors", framework="pt") as file:
            names.append(set(file.keys()))
    assert names[0] == names[1]
    found = plain_logps(AutoModelForCausalLM.from_pretrained(tmp_path / "out"), SEQUENCES)
    assert_close(found, policy.logprobs(SEQUENCES), 1e-5)
    moved = [abs(a - b) for a, b in zip(found[0], make_policy(folder).logprobs(SEQUENCES)[0], strict=True)]
    assert max(moved) > 0.1


def test_the_merge_is_rounded_once(tiny_model: Path, tmp_path: Path) -> None:
    policy = trained(tiny_model, dtype="bfloat16")
    base, adapters = base_of(policy), policy.state_dict()["model"]
    policy.export(tmp_path)
    exported = AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()
    layer = "model.layers.1.mlp.down_proj"
    merged = base[f"{layer}.base_layer.weight"] + adapters[f"{layer}.lora_B"] @ adapters[f"{layer}.lora_A"] * SCALING
    assert torch.equal(exported[f"{layer}.weight"], merged.bfloat16())


@pytest.mark.parametrize("compute", ["fp32", "bf16"])
def test_peft_loads_the_adapter(tiny_model: Path, tmp_path: Path, compute: str) -> None:
    policy = trained(tiny_model, compute=compute)
    policy.export_adapters(tmp_path)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), tmp_path)
    assert model.peft_config["default"].base_model_name_or_path == str(tiny_model)
    assert_close(plain_logps(model, SEQUENCES), policy.logprobs(SEQUENCES), 1e-5 if compute == "fp32" else 0.1)


def test_a_model_trained_whole_has_no_adapter(tiny_model: Path, tmp_path: Path) -> None:
    make_policy(tiny_model, None).export_adapters(tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("reference_every", [0, 2])
def test_a_saved_state_goes_on_to_the_bit(tiny_model: Path, tmp_path: Path, reference_every: int) -> None:
    changes: dict[str, Any] = {"kl_weight": 0.1, "reference_every": reference_every, "schedule": "cosine"}
    policy = trained(tiny_model, **changes)
    torch.save(policy.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert ("reference" in state) is bool(reference_every)
    assert all(".lora_" in name for name in state["model"])
    resumed = make_policy(tiny_model, **changes)
    resumed.load_state_dict(state)
    assert_bitwise(resumed.state_dict()["model"], policy.state_dict()["model"])
    for _ in range(3):
        assert resumed.update(batch()) == policy.update(batch())
    assert_bitwise(resumed.state_dict()["model"], policy.state_dict()["model"])


def test_perturbed_moves_all_that_leaves_and_puts_it_back(tiny_model: Path, tmp_path: Path) -> None:
    policy = make_policy(tiny_model)
    before = {name: value.clone() for name, value in policy.network.model.state_dict().items()}
    policy.export(tmp_path / "before")
    with policy.perturbed():
        inside = {name: value.clone() for name, value in policy.network.model.state_dict().items()}
        policy.export(tmp_path / "inside")
        expected = policy.logprobs(SEQUENCES)
    assert_bitwise(dict(policy.network.model.state_dict()), before)
    found = plain_logps(AutoModelForCausalLM.from_pretrained(tmp_path / "inside"), SEQUENCES)
    assert_close(found, expected, 1e-4)
    left, arrived = (
        AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("before", "inside")
    )
    for name, value in left.items():
        size = float((arrived[name] - value).square().mean().sqrt() / value.square().mean().sqrt())
        ends = name in ("model.embed_tokens.weight", "lm_head.weight")
        # A product of rank 3 varies more than independent numbers do, and so does a norm's short vector.
        assert size == pytest.approx(0.2 if ends else 0.05, rel=0.3), name
    # Each part brings half of it, so that a merge that forgot either is found.
    for name, value in before.items():
        if name.endswith("base_layer.weight"):
            size = float((inside[name] - value).square().mean().sqrt() / value.square().mean().sqrt())
            assert size == pytest.approx(0.05 / math.sqrt(2), rel=0.1), name
    assert all(float(inside[name].abs().min()) > 0 for name in inside if ".lora_B." in name)


def test_a_base_in_bf16_is_perturbed_and_put_back(bf16_model: Path) -> None:
    policy = make_policy(bf16_model, compute="bf16")
    before = base_of(policy)
    with policy.perturbed():
        inside = base_of(policy)
    # A bias of zeros has no size that its noise could be relative to.
    assert all(not torch.equal(inside[name], value) for name, value in before.items() if value.any())
    assert_bitwise(base_of(policy), before)


@pytest.mark.parametrize("lora", [None, SMALL])
@pytest.mark.parametrize("update", [{}, {"kl_weight": 0.1, "reference_every": 1}])
def test_a_checkpoint_is_as_large_as_was_said(
    tiny_model: Path, tmp_path: Path, lora: dict[str, Any] | None, update: dict[str, Any]
) -> None:
    checkpoints = Checkpoints(tmp_path, CheckpointSection(), 3, tiny_tokenizer(), WORLD, PhaseClock())
    folder = checkpoints.save(trained(tiny_model, lora, **update), 3)
    assert (folder / "adapter" / "adapter_model.safetensors").exists() is bool(lora)
    state = torch.load(folder / "trainer.pt", weights_only=True)
    moments = [value for one in state["optimiser"]["state"].values() for value in one.values() if value.dim()]
    tensors = [*state["model"].values(), *state.get("reference", {}).values(), *moments]
    tensors += [value for file in folder.rglob("*.safetensors") for value in load_file(file).values()]
    # Tied weights lie in one place.
    sizes = {value.data_ptr(): value.nbytes for value in tensors}
    assert sum(sizes.values()) == checkpoint_bytes(tiny_model, settings_of(tiny_model, lora, **update))


# Which layers


def test_the_number_of_weights_is_known_before_the_model_is_loaded(tiny_model: Path) -> None:
    for targets in ("all-linear", ["q_proj", "layers.1.mlp.up_proj"]):
        lora = {"rank": 3, "targets": targets}
        counted = sum(one.numel() for one in make_policy(tiny_model, lora).network.trained)
        assert num_adapter_weights(tiny_model, LoraSection(**lora)) == counted
    # Two query matrices of 64 x 64 and one of 64 x 128.
    assert counted == 3 * (2 * (64 + 64) + (64 + 128))


def test_named_layers_alone_move(tiny_model: Path, tmp_path: Path) -> None:
    trained(tiny_model, {"targets": ["o_proj"], "rank": 2}).export(tmp_path)
    before, after = (AutoModelForCausalLM.from_pretrained(at).state_dict() for at in (tiny_model, tmp_path))
    moved = {name for name, value in before.items() if not torch.equal(after[name], value)}
    assert moved == {f"model.layers.{number}.self_attn.o_proj.weight" for number in (0, 1)}


@pytest.mark.parametrize("target", ["proj", "q_prj", "lm_head", "embed_tokens", "mlp", "self_attn"])
def test_a_target_that_is_no_layer_is_named_with_those_that_are(tiny_model: Path, target: str) -> None:
    known = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    with pytest.raises(UserError, match=f"^model.lora.targets={target}: .*choose of {known}, or set all-linear"):
        targeted(tiny_model, LoraSection(targets=("q_proj", target)))


def test_without_peft_it_says_so_before_the_model_is_loaded(tiny_model: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    monkeypatch.setattr("grpo.model.network.AutoModelForCausalLM", None)
    with pytest.raises(UserError, match=r"^model.lora: peft is not installed; run launch/setup.sh"):
        make_policy(tiny_model)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "peft", None)
    make_policy(tiny_model, None).update(batch())


@pytest.mark.parametrize(
    "bad", [{"rank": 0}, {"alpha": 0}, {"alpha": math.inf}, {"targets": []}, {"targets": [""]}, {"dropout": 0.1}]
)
def test_what_a_recipe_may_not_say(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LoraSection(**bad)


def test_one_name_is_a_list_of_one() -> None:
    assert LoraSection(targets="q_proj").targets == ("q_proj",)  # type: ignore[arg-type]
    assert LoraSection() == LoraSection(rank=16, alpha=32, targets=("all-linear",))
