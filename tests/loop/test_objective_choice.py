"""Objectives by name and of one's own: what is refused before the model is loaded, and that the rest trains."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from toy import toy_recipe

from grpo.cli import EXIT_USER_ERROR, main
from grpo.errors import UserError
from grpo.objectives.table import OBJECTIVES
from grpo.objectives.tokens import Tokens
from grpo.policy.objective_choice import choose_correction, choose_objective
from grpo.recipe.sections import UpdateSection, advantage_of, normalisation_of

ASYMMETRIC = """
    from typing import Annotated

    from pydantic import Field
    from torch import Tensor

    from grpo.objectives.tokens import Tokens


    def asymmetric(tokens: Tokens, *, down: Annotated[float, Field(ge=0, le=1)] = 0.5) -> Tensor:
        '''REINFORCE that trusts praise more than blame.'''
        advantage = tokens.advantage.clamp(min=0) + down * tokens.advantage.clamp(max=0)
        return -tokens.ratio * advantage
"""

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a module of the user's into a folder on the Python path."""
    monkeypatch.syspath_prepend(tmp_path)

    def write_module(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))

    return write_module


def settings(objective: str = "dapo", **options: Any) -> UpdateSection:
    return UpdateSection(lr=1e-3, objective=objective, objective_options=options)


def fault(update: UpdateSection, choose: Callable[[UpdateSection], object] = choose_objective) -> str:
    with pytest.raises(UserError) as error:
        choose(update)
    return str(error.value)


# One file and one line of the recipe


def run_file(folder: Path, model: Path, **update: Any) -> str:
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(toy_recipe(model, folder / "run", update=update)))
    return str(file)


def test_an_objective_of_ones_own_trains(tmp_path: Path, tiny_model: Path, write: Write) -> None:
    write("my_objectives", ASYMMETRIC)
    with pytest.raises(SystemExit) as exit_:
        main(["train", run_file(tmp_path, tiny_model, objective="my_objectives:asymmetric")])
    assert not exit_.value.code
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    # Advantages add up to 0 over equal lengths, so that a loss of 0 is what a symmetric objective has.
    losses = [row["update/loss"] for row in rows if "update/loss" in row]
    assert len(losses) == 2
    assert all(loss < -0.01 for loss in losses)
    assert all(row["update/grad_norm"] > 0 for row in rows if "update/loss" in row)


def test_a_bad_one_is_refused_before_the_model_is_loaded(
    tmp_path: Path, tiny_model: Path, write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_model(*arguments: object, **keywords: object) -> None:
        raise AssertionError("the model was loaded before the fault was found")

    monkeypatch.setattr("grpo.assemble.Policy", no_model)
    write("my_bad_objectives", "def mean(tokens):\n    return tokens.policy_logp.mean()\n")
    with pytest.raises(SystemExit) as exit_:
        main(["train", run_file(tmp_path, tiny_model, objective="my_bad_objectives:mean")])
    assert exit_.value.code == EXIT_USER_ERROR
    message = capsys.readouterr().err
    assert "update.objective=my_bad_objectives:mean: for 5 tokens it returned a tensor (); return one loss a" in message
    assert "Traceback" not in message
    assert not (tmp_path / "run").exists()


def test_a_function_of_ones_own_gets_the_advantage_of_grpo(write: Write) -> None:
    write("my_objectives", ASYMMETRIC)
    own = settings("my_objectives:asymmetric")
    assert (advantage_of(own), normalisation_of(own)) == ("group_std", "token")
    assert advantage_of(own.model_copy(update={"advantage": "leave_one_out"})) == "leave_one_out"


# Options


def five_tokens() -> Tokens:
    proximal = torch.tensor([-1.0, -2.0])
    return Tokens(proximal + torch.tensor([0.5, 0.05]), proximal, proximal, torch.ones(2), torch.tensor([0, 0]), 1)


def test_options_reach_the_function() -> None:
    assert choose_objective(settings("dapo"))(five_tokens()).tolist() == pytest.approx([-1.28, -1.0512711])
    assert choose_objective(settings("dapo", clip_high=0.03))(five_tokens()).tolist() == pytest.approx([-1.03, -1.03])
    assert choose_objective(settings("grpo", clip_high="0.1"))(five_tokens()).tolist()[0] == pytest.approx(-1.1)


def test_unknown_options_are_named_with_the_nearest_known_one() -> None:
    message = fault(settings(clip_hgih=0.3, tau=1))
    assert "update.objective_options.clip_hgih=0.3: unknown option; did you mean 'clip_high'?" in message
    assert "update.objective_options.tau=1: unknown option; use one of clip_high, clip_low, dual_clip" in message
    assert "clip_low=0.1: unknown option; it takes none" in fault(settings("rloo", clip_low=0.1))


@pytest.mark.parametrize(
    ("name", "option", "value", "reason"),
    [
        ("grpo", "clip_low", 1.0, "input should be less than 1"),
        ("grpo", "clip_low", -0.2, "input should be greater than 0"),
        ("grpo", "clip_high", 0, "input should be greater than 0"),
        ("grpo", "clip_high", "a lot", "input should be a valid number"),
        ("grpo", "clip_high", float("inf"), "input should be a finite number"),
        ("grpo", "dual_clip", 0.5, "input should be greater than 1"),
        ("gspo", "clip_high", 0, "input should be greater than 0"),
        ("cispo", "high", 0.9, "input should be greater than or equal to 1"),
        ("cispo", "low", 1.1, "input should be less than or equal to 1"),
        ("kimi_k1_5", "tau", 0, "input should be greater than 0"),
    ],
)
def test_options_out_of_bounds_are_refused(name: str, option: str, value: object, reason: str) -> None:
    message = fault(settings(name, **{option: value}))
    assert message.startswith(f"update.objective_options.{option}={value!r}: {reason}")
    assert message.endswith("; give such a value")


@pytest.mark.parametrize(("option", "value"), [("high", 0.5), ("low", 1.5), ("low", -1), ("hihg", 2)])
def test_options_of_a_correction_are_checked_as_well(option: str, value: float) -> None:
    update = UpdateSection(lr=1e-3, correction="icepop", correction_options={option: value})
    assert fault(update, choose_correction).startswith(f"update.correction_options.{option}={value}: ")


def test_an_unknown_name_is_refused_with_the_recipe(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["train", run_file(tmp_path, tiny_model, objective="gpso")])
    assert "update.objective=gpso: no such objective; did you mean 'gspo'?" in capsys.readouterr().err


def test_a_kl_in_the_reward_does_not_go_with_rewards_by_themselves(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["train", run_file(tmp_path, tiny_model, kl_weight=0.1, kl_in="reward", advantage="gdpo")])
    assert "update.kl_in=reward: update.advantage=gdpo normalises each reward by itself" in capsys.readouterr().err


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_name_passes_its_trial(name: str) -> None:
    choose_objective(settings(name))


# Functions that cannot be used

BROKEN = """
    import math

    import torch

    def raises(tokens):
        return tokens.policy_logps

    def a_list(tokens):
        return [1.0] * 5

    def pairs(tokens):
        return torch.stack([tokens.policy_logp] * 2)

    def infinite(tokens):
        return tokens.policy_logp * torch.tensor([1.0, 1.0, math.inf, 1.0, 1.0])

    def steep(tokens):
        return (tokens.policy_logp - tokens.proximal_logp).sqrt()

    def detached(tokens):
        return -tokens.ratio.detach() * tokens.advantage

    def flat(tokens):
        return tokens.policy_logp * 0

    def other(tokens):
        return (tokens.proximal_logp * torch.ones(5, requires_grad=True))

    def changes_in_place(tokens):
        return tokens.policy_logp.mul_(2)

    def none():
        return torch.ones(5)

    def needs(tokens, *, tau):
        return -tau * tokens.policy_logp

    def unresolved(tokens, *, tau: "Tau" = 1.0):
        return -tau * tokens.policy_logp

    number = 3
"""


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("raises", "on 5 made-up tokens it raised AttributeError: 'Tokens' object has no attribute 'policy_logps'"),
        ("a_list", "for 5 tokens it returned [1.0, 1.0, 1.0, 1.0, 1.0]; return one loss a token"),
        ("pairs", "for 5 tokens it returned a tensor (2, 5); return one loss a token, as a tensor (5,)"),
        ("infinite", "with an unmoved policy it returned [-0.5, -1.5, -inf, -2.0"),
        ("steep", "its derivatives by tokens.policy_logp are [inf, inf"),
        ("detached", "it does not depend on tokens.policy_logp"),
        ("flat", "it does not depend on tokens.policy_logp"),
        ("other", "it does not depend on tokens.policy_logp"),
        ("changes_in_place", "on 5 made-up tokens it raised RuntimeError"),
        ("none", "its parameters cannot be read"),
        ("unresolved", "its parameters cannot be read (name 'Tau' is not defined)"),
        ("number", "it is no function; give the path of one"),
        ("absent", "module 'my_broken' has no attribute 'absent'; check the function's name"),
    ],
)
def test_a_function_that_cannot_be_used_is_refused(write: Write, name: str, reason: str) -> None:
    write("my_broken", BROKEN)
    message = fault(settings(f"my_broken:{name}"))
    assert message.startswith(f"update.objective=my_broken:{name}: {reason}")
    assert "; " in message


def test_an_option_without_a_default_has_to_be_set(write: Write) -> None:
    write("my_broken", BROKEN)
    message = fault(settings("my_broken:needs"))
    assert message.startswith("update.objective_options.tau: missing; update.objective=my_broken:needs has no default")
    assert choose_objective(settings("my_broken:needs", tau=2.0))(five_tokens()).tolist() == pytest.approx([1.0, 3.9])


def test_modules_that_cannot_be_imported_are_named(write: Write) -> None:
    write("my_unfinished", "def half(")
    assert fault(settings("my_absent:one")) == (
        "update.objective=my_absent:one: No module named 'my_absent'; put its folder on the Python path"
    )
    message = fault(settings("my_unfinished:half"))
    assert message.startswith("update.objective=my_unfinished:half: its module raised SyntaxError")
