"""The GPU recipes fit the GPUs that they are said to be for, by the sum of what a trainer holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from grpo.model import memory
from grpo.recipe.load import load_recipe
from grpo.recipe.sections import Recipe

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
USABLE_GIB = {"40 GB": 39.4, "80 GB": 79.1}
"""What the driver leaves of an A100 of that size, which has the least of its kind."""
CONTEXTS_GIB = 1.0
"""Trainer and engine have a CUDA context each."""

QWEN = {"model_type": "qwen2", "vocab_size": 151936, "tie_word_embeddings": True, "num_key_value_heads": 2}
CONFIGS = {
    "0.5B": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14},
    "1.5B": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12},
    "3B": {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16},
}
"""Of the config.json of Qwen2.5 in these sizes."""

SMALLER = "update.tokens_per_micro_batch=4096"
SETTINGS: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {
    ("0.5B, whole", "`gsm8k.yaml`: 8192 tokens, KL"): ("gsm8k", ()),
    ("1.5B, whole", "4096 tokens, KL"): ("gsm8k", (SMALLER,)),
    ("1.5B, adapters of rank 16", "4096 tokens, KL"): ("gsm8k", (SMALLER, "model.lora.rank=16")),
    ("1.5B, whole", "`math_r1_zero.yaml`: 8192 tokens, recomputed"): ("math_r1_zero", ()),
    ("3B, whole", "`countdown.yaml`: 4096 tokens, recomputed"): ("countdown", ()),
}
"""The recipe and its overrides behind each row of the README's table."""


def rows() -> dict[tuple[str, str], list[str]]:
    table = README.split("| model, and what is trained | settings |")[1].split("\n\n")[0]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]
    return {(model, settings): rest for model, settings, *rest in cells}


def trainer(recipe: Recipe, size: str) -> Any:
    """The sum for the largest micro-batch that the recipe can make."""
    shape = memory.ModelShape.of(QWEN | CONFIGS[size])
    update = recipe.update
    return memory.trainer_memory(shape, recipe.model, update.tokens_per_micro_batch, kl=update.kl_weight > 0)


def test_the_table_has_every_setting() -> None:
    assert rows().keys() == SETTINGS.keys()


@pytest.mark.parametrize("row", SETTINGS, ids=" ".join)
def test_the_figures_are_those_of_the_sum_and_fit(row: tuple[str, str]) -> None:
    name, overrides = SETTINGS[row]
    recipe = load_recipe(ROOT / "launch" / "recipes" / f"{name}.yaml", overrides)
    needed = trainer(recipe, row[0].split(",")[0])
    before, total, engine, gpu = rows()[row]
    assert float(before.split()[0]) == pytest.approx(needed.before_activations / 2**30, abs=0.051)
    assert float(total.split()[0]) == pytest.approx(needed.total / 2**30, abs=0.051)
    share = recipe.rollout.gpu_memory_frac * USABLE_GIB[gpu]
    assert int(engine.split()[0]) == round(share)
    assert needed.total / 2**30 + share + CONTEXTS_GIB < 0.95 * USABLE_GIB[gpu]


@pytest.mark.parametrize("file", ["gsm8k", "math_r1_zero", "countdown"])
def test_a_recipes_comment_and_its_row_say_the_same(file: str) -> None:
    text = (ROOT / "launch" / "recipes" / f"{file}.yaml").read_text()
    [(_, total, engine, gpu)] = [cells for (_, settings), cells in rows().items() if f"`{file}.yaml`" in settings]
    head = text.split("run:")[0].replace("\n#", "")
    assert re.search(rf"needs {float(total.split()[0]):.0f} GiB", head)
    assert re.search(rf"gets {engine.split()[0]}\b", head)
    assert re.search(rf"one GPU of {gpu}", head, re.IGNORECASE)
    assert re.search(rf"^\| `{file}.yaml` \|.*\| one GPU, {gpu} \|$", README, re.MULTILINE)
