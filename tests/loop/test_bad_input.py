"""Whatever a user gets wrong ends in one clear message and exit code 2, and leaves no broken run folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from toy import toy_recipe

from grpo.cli import EXIT_USER_ERROR, main
from grpo.errors import EngineError
from grpo.recipe.load import parse_recipe
from grpo.run.folder import RunFolder

Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> Refused:
    """Train with some sections changed; returns the message, and proves that no model was loaded, no folder left."""

    def no_model(*arguments: object, **keywords: object) -> None:
        raise AssertionError("the model was loaded before the fault was found")

    def run(*overrides: str, model: Path = tiny_model, **sections: dict[str, Any]) -> str:
        monkeypatch.setattr("grpo.assemble.Policy", no_model)
        file = tmp_path / "recipe.yaml"
        file.write_text(yaml.safe_dump(toy_recipe(model, tmp_path / "run", **sections)))
        with pytest.raises(SystemExit) as exit_:
            main(["train", str(file), *overrides])
        assert exit_.value.code == EXIT_USER_ERROR
        assert not (tmp_path / "run").exists()
        message = capsys.readouterr().err
        assert "Traceback" not in message
        return message

    return run


def write_rows(file: Path, *rows: object) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_misspelt_keys_are_all_named_with_the_nearest_known_one(refused: Refused) -> None:
    message = refused("rollout.group_sise=4", "update.lrr=1", "run.steps=0")
    assert "rollout.group_sise=4: unknown key; did you mean 'group_size'?" in message
    assert "update.lrr=1: unknown key; did you mean 'lr'?" in message
    assert "run.steps=0: input should be greater than or equal to 1" in message


def test_a_misspelt_policy_is_named_with_the_nearest_known_one(refused: Refused) -> None:
    message = refused("scoring.policy.percnt=either", "scoring.when_failng=warn")
    assert "scoring.policy.percnt='either': unknown key; did you mean 'percent'?" in message
    assert "scoring.when_failng='warn': unknown key; did you mean 'when_failing'?" in message


def test_a_missing_key_is_named(refused: Refused) -> None:
    assert "update.lr: missing" in refused("update={}")


def test_contradictions_name_both_keys(refused: Refused) -> None:
    message = refused("eval.num_completions=4", "update.warmup_steps=9", "update.tokens_per_micro_batch=8")
    assert "eval.num_completions=4: eval.temperature=0" in message
    assert "update.warmup_steps=9: the run has 2 steps" in message
    assert "update.tokens_per_micro_batch=8: one prompt with one completion may have 76 tokens" in message


def test_a_reference_that_nothing_asks_for_is_a_contradiction(refused: Refused) -> None:
    message = refused("update.kl_in=reward", "update.reference_every=5")
    assert "update.kl_in=reward: update.kl_weight is 0, so that nothing is taken off; set a weight" in message
    assert "update.reference_every=5: update.kl_weight is 0, so that there is no reference; set a weight" in message


def test_group_of_one(refused: Refused) -> None:
    assert "rollout.group_size=1: input should be greater than or equal to 2" in refused("rollout.group_size=1")


def test_a_recipe_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["train", "nowhere.yaml"])
    assert exit_.value.code == EXIT_USER_ERROR
    assert "recipe=nowhere.yaml: No such file" in capsys.readouterr().err


@pytest.mark.parametrize("override", ["model.path", "=3", "rewards.5.weight=1"])
def test_overrides_that_say_nothing(refused: Refused, override: str) -> None:
    assert f"override={override}: " in refused(override)


def test_an_unknown_source_and_reward_and_template(refused: Refused) -> None:
    assert "did you mean 'arithmetic'" in refused("data.train.source=arithmetics")
    assert "correctness" in refused("rewards.0.name=corectness")
    assert "r1_zero" in refused("data.template=r1_zeroo")


def test_a_reward_function_that_cannot_be_imported(refused: Refused) -> None:
    assert "toy:no_such_function" in refused("rewards.0.name=toy:no_such_function")


def test_a_model_folder_that_is_not_there(refused: Refused, tmp_path: Path) -> None:
    message = refused(model=tmp_path / "missing")
    assert f"model.path={tmp_path / 'missing'}: no such folder; give" in message


def test_a_model_folder_without_weights(refused: Refused, tmp_path: Path, tiny_model: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    (broken / "model.safetensors").unlink()
    assert "no *.safetensors in it" in refused(model=broken)


def test_a_named_column_that_the_data_lacks(refused: Refused, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", {"query": "1 + 1", "answer": "2"})
    message = refused(data={"train": {"source": "dataset", "path": path}})
    assert "question" in message
    assert "query" in message


def test_a_data_file_that_is_not_there(refused: Refused) -> None:
    assert "nowhere.jsonl" in refused(data={"train": {"source": "dataset", "path": "nowhere.jsonl"}})


def test_an_empty_data_set(refused: Refused, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl")
    assert path in refused(data={"train": {"source": "dataset", "path": path}})


def test_more_generated_problems_than_there_are(refused: Refused) -> None:
    """Of the 20 x 21 / 2 sums of two numbers up to 20, about nine twelfths are for training: they happen to be 160."""
    message = refused("data.train.num_problems=161")
    assert "data.train.num_problems=161: with these options arithmetic has no more than 160 different" in message


def test_golds_that_cannot_be_parsed_are_named_by_row(refused: Refused, tmp_path: Path) -> None:
    rows = [{"question": f"{n} + 1", "answer": str(n + 1)} for n in range(4)]
    rows[2]["answer"] = "a number"
    path = write_rows(tmp_path / "rows.jsonl", *rows)
    spec = {"source": "dataset", "path": path, "checker": "integer"}
    message = refused(data={"train": spec, "template": "plain", "max_prompt_tokens": 64})
    assert "data.train=dataset" in message
    assert "1 of 4 rows cannot be used:\n  row 2: " in message
    assert "data.max_bad_frac=0.1" in message


def test_prompts_longer_than_allowed(refused: Refused) -> None:
    message = refused("data.max_prompt_tokens=5")
    assert "data.max_prompt_tokens=5: all 64 prompts of data.train are longer" in message


def test_prompt_and_completion_longer_than_the_context(refused: Refused) -> None:
    message = refused("data.max_prompt_tokens=1020", "update.tokens_per_micro_batch=2048")
    assert "with 12 new tokens that is 1032, and the model's context holds 1024" in message


def test_a_chat_template_for_a_model_without_one(refused: Refused) -> None:
    assert "data.template=chat: the model's tokenizer has no chat template" in refused("data.template=chat")


def test_a_disk_without_room(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr("grpo.checkpoints.checkpoints.shutil.disk_usage", lambda path: usage._replace(free=1000))
    message = refused()
    assert "0.0 GiB free, and the checkpoints need" in message


def test_a_gpu_that_is_not_there(refused: Refused) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    assert "run.device=cuda: this machine has no CUDA device" in refused("run.device=cuda")


class TestRunFolders:
    """Folders that exist already: what is in them stays as it was."""

    @pytest.fixture
    def folder(self, tmp_path: Path, tiny_model: Path) -> Path:
        """A run's folder with a row in it."""
        recipe = parse_recipe(toy_recipe(tiny_model, tmp_path / "run"), "toy")
        with RunFolder(tmp_path / "run", recipe) as folder:
            folder.append("metrics.jsonl", [{"step": 0}])
        return tmp_path / "run"

    def refuse(self, folder: Path, recipe: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
        before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        file = folder.parent / "recipe.yaml"
        file.write_text(yaml.safe_dump(recipe))
        with pytest.raises(SystemExit) as exit_:
            main(["train", str(file)])
        assert exit_.value.code == EXIT_USER_ERROR
        assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
        return capsys.readouterr().err

    def test_that_of_another_recipe(self, folder: Path, tiny_model: Path, capsys: Any) -> None:
        other = toy_recipe(tiny_model, folder, update={"lr": 1e-6})
        message = self.refuse(folder, other, capsys)
        assert "belongs to another recipe, which differs in update.lr=1e-06 (the run has 0.003); set" in message

    def test_one_that_another_run_is_writing(self, folder: Path, tiny_model: Path, capsys: Any) -> None:
        recipe = toy_recipe(tiny_model, folder)
        with RunFolder(folder, parse_recipe(recipe, "toy")):
            assert "another run is writing there" in self.refuse(folder, recipe, capsys)

    def test_one_that_holds_something_else(self, tmp_path: Path, tiny_model: Path, capsys: Any) -> None:
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "chapter.tex").write_text("x")
        message = self.refuse(tmp_path / "thesis", toy_recipe(tiny_model, tmp_path / "thesis"), capsys)
        assert "holds files but no run" in message

    def test_more_steps_are_the_same_run(self, folder: Path, tiny_model: Path) -> None:
        longer = parse_recipe(toy_recipe(tiny_model, folder, run={"steps": 9}), "toy")
        with RunFolder(folder, longer):
            pass
        assert (folder / "metrics.jsonl").read_text() == '{"step": 0}\n'

    @pytest.mark.parametrize(
        "change", [{"policy": {"percent": "either"}}, {"format_gates": True}], ids=["policy", "format_gates"]
    )
    def test_what_is_paid_belongs_to_the_run(
        self, folder: Path, tiny_model: Path, capsys: Any, change: dict[str, Any]
    ) -> None:
        other = toy_recipe(tiny_model, folder) | {"scoring": change}
        assert "differs in scoring." in self.refuse(folder, other, capsys)

    def test_how_it_is_judged_may_change(self, folder: Path, tiny_model: Path) -> None:
        limits = {"workers": 2, "deadline_s": 9.0, "memory_gib": 1.0, "max_failed_frac": 0.1, "when_failing": "warn"}
        with RunFolder(folder, parse_recipe(toy_recipe(tiny_model, folder) | {"scoring": limits}, "toy")):
            pass

    def test_a_users_files_are_never_taken_for_a_runs(self, tmp_path: Path, tiny_model: Path, capsys: Any) -> None:
        (tmp_path / "project").mkdir()
        (tmp_path / "project" / "recipe.yaml").write_text("# mine\n")
        (tmp_path / "project" / "thesis.tex").write_text("x")
        message = self.refuse(tmp_path / "project", toy_recipe(tiny_model, tmp_path / "project"), capsys)
        assert "holds files but no run" in message

    def test_what_a_kill_left_of_a_beginning_is_no_obstacle(self, tmp_path: Path, tiny_model: Path) -> None:
        (tmp_path / "run" / "logs").mkdir(parents=True)
        (tmp_path / "run" / "lock").touch()
        (tmp_path / "run" / ".recipe.yaml.writing").touch()
        with RunFolder(tmp_path / "run", parse_recipe(toy_recipe(tiny_model, tmp_path / "run"), "toy")):
            assert (tmp_path / "run" / "recipe.yaml").exists()

    def test_a_failed_start_leaves_only_what_the_engine_said(self, tmp_path: Path, tiny_model: Path) -> None:
        recipe = parse_recipe(toy_recipe(tiny_model, tmp_path / "run"), "toy")
        folder = RunFolder(tmp_path / "run", recipe)
        folder.__enter__()
        (folder.path / "logs" / "engine_0.log").write_text("out of memory")
        folder.__exit__(EngineError, EngineError("no engine"), None)
        assert [file.name for file in (tmp_path / "run").rglob("*") if file.is_file()] == ["engine_0.log"]

    def test_fewer_steps_under_a_decaying_rate_are_another_run(
        self, tmp_path: Path, tiny_model: Path, capsys: Any
    ) -> None:
        recipe = toy_recipe(tiny_model, tmp_path / "run", update={"schedule": "linear"})
        with RunFolder(tmp_path / "run", parse_recipe(recipe, "toy")) as folder:
            folder.append("metrics.jsonl", [{"step": 0}])
        recipe["run"]["steps"] = 9
        assert "differs in run.steps=9 (the run has 2);" in self.refuse(tmp_path / "run", recipe, capsys)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.train.checker=integers", "integer"),
        ("update.betas=[0.9, 1.5]", "update.betas.1=1.5: input should be less than 1"),
        ("run.seed=-1", "run.seed=-1: input should be greater than or equal to 0"),
        ("rollout.stop=['']", "rollout.stop.0='': "),
        ("model.path=runs/my model", "model.path=runs/my model: no such folder"),
    ],
)
def test_values_that_would_only_fail_later(refused: Refused, override: str, message: str) -> None:
    assert message in refused(override)


def test_a_place_where_nothing_can_be_written(refused: Refused) -> None:
    assert "/proc/nowhere" in refused("run.dir=/proc/nowhere")


def test_a_weights_file_that_is_cut_short(refused: Refused, tmp_path: Path, tiny_model: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "short")
    weights = tmp_path / "short" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "not a whole safetensors file" in refused(model=tmp_path / "short")
