"""Adapters in a recipe: what is wrong is found before the model is loaded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from toy import toy_recipe

from grpo.cli import EXIT_USER_ERROR, main


def write(folder: Path, model: Path, **lora: Any) -> str:
    file = folder / "recipe.yaml"
    recipe = toy_recipe(model, folder / "run")
    recipe["model"]["lora"] = lora
    file.write_text(yaml.safe_dump(recipe))
    return str(file)


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*arguments: object, **keywords: object) -> None:
        raise AssertionError("the model was loaded before the fault was found")

    monkeypatch.setattr("grpo.assemble.Policy", load)


@pytest.mark.usefixtures("no_model")
def test_an_unknown_layer_is_refused_with_those_that_are_known(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["train", write(tmp_path, tiny_model, targets=["qproj"])])
    assert exit_.value.code == EXIT_USER_ERROR
    message = capsys.readouterr().err
    assert "model.lora.targets=qproj: no linear layer" in message
    assert "choose of down_proj, gate_proj, k_proj," in message
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_model")
def test_without_peft_the_run_says_what_to_install(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(SystemExit) as exit_:
        main(["train", write(tmp_path, tiny_model)])
    assert exit_.value.code == EXIT_USER_ERROR
    assert "model.lora: peft is not installed; run launch/setup.sh" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_model")
def test_faults_of_a_recipe_name_their_keys(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["train", write(tmp_path, tiny_model, rank=0, dropout=0.1, alhpa=3)])
    message = capsys.readouterr().err
    assert "model.lora.rank=0: input should be greater than or equal to 1" in message
    assert "model.lora.dropout=0.1: unknown key" in message
    assert "model.lora.alhpa=3: unknown key; did you mean 'alpha'?" in message
