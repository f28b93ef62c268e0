"""The numeric tests can fail: each fault of the table, put into a copy of the trainer, is found."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import sys
from pathlib import Path

import pytest
from mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
ALL_PASSED, SOME_FAILED, NOT_THE_COPY = 0, 1, 99
"""Exit codes: the first two are pytest's, which has others for a file that cannot even be imported."""

SLOW_IMPORTS = [
    "yaml",
    "pydantic",
    "safetensors.torch",
    "torch",
    "torch.distributed",
    "torch.utils.checkpoint",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.qwen3.modeling_qwen3",
    "transformers.models.gemma.modeling_gemma",
    "transformers.models.gemma2.modeling_gemma2",
    "transformers.models.gemma3.modeling_gemma3",
    "transformers.tokenization_utils_tokenizers",
    "transformers.generation.configuration_utils",
    "transformers.integrations.sdpa_attention",
]
"""Imported once, by a server whose forks then run one file of tests each."""


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trainer and its tests in a folder where they may be broken."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("grpo", "data", "rewards", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run_tests(folder: Path, *files: str) -> tuple[int | None, str]:
    """Exit code and output of pytest on some files of the copy, in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(SLOW_IMPORTS)
    output = folder / "output.txt"
    process = context.Process(target=_run_tests, args=(folder, files, output))
    process.start()
    process.join(timeout=120)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode, output.read_text()


def _run_tests(folder: Path, files: tuple[str, ...], output: Path) -> None:
    """The copy comes before any other; no bytecode is written, since it could outlive an edit."""
    os.chdir(folder)
    sys.path[:] = [str(folder), *(entry for entry in sys.path if not (Path(entry) / "grpo").is_dir())]
    sys.dont_write_bytecode = True
    with output.open("w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        code = int(pytest.main(["-x", *files]))
    imported = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] in ("grpo", "rewards")]
    from_copy = imported and all(Path(file or "").is_relative_to(folder) for file in imported)
    os._exit(code if from_copy else NOT_THE_COPY)


def place_of(mutant: Mutant, folder: Path) -> tuple[Path, str]:
    """The one file of the mutant's room that has what it edits, and the file's text."""
    texts = {file: file.read_text() for file in sorted((folder / mutant.room).rglob("*.py"))}
    found = [(file, text) for file, text in texts.items() for _ in range(text.count(mutant.old))]
    assert len(found) == 1, f"{mutant.room} has {len(found)} times, not once: {mutant.old}"
    return found[0]


def test_the_unbroken_copy_passes(copied: Path) -> None:
    code, output = run_tests(copied, *sorted({mutant.killer for mutant in MUTANTS}))
    assert code == ALL_PASSED, output


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_fault_is_found(mutant: Mutant, copied: Path) -> None:
    path, right = place_of(mutant, copied)
    path.write_text(right.replace(mutant.old, mutant.new))
    try:
        code, output = run_tests(copied, mutant.killer)
    finally:
        path.write_text(right)
    assert code == SOME_FAILED, output
