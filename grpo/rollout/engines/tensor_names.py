"""Which tensors a Hugging Face folder holds, read from the headers of its safetensors files alone."""

from __future__ import annotations

from pathlib import Path


def weight_files(folder: Path) -> list[Path]:
    """The folder's safetensors files, by name."""
    return sorted(folder.glob("*.safetensors"))


def tensor_names(folder: Path) -> frozenset[str]:
    """Names of the tensors in all of the folder's safetensors files."""
    from safetensors import safe_open

    names: set[str] = set()
    for file in weight_files(folder):
        with safe_open(file, framework="pt") as tensors:
            names.update(tensors.keys())
    return frozenset(names)
