"""Whether a checkpoint is whole: its manifest lists every file with its SHA-256, and the files match."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

MANIFEST = "manifest.json"


def is_valid(folder: Path) -> bool:
    """Whether every file that the manifest lists is there with the same hash."""
    try:
        manifest: dict[str, str] = json.loads((folder / MANIFEST).read_text())
        return bool(manifest) and all(_hash(folder / name) == digest for name, digest in manifest.items())
    except (OSError, ValueError):
        return False


def _hash(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def flush_and_hash(file: Path) -> str:
    """Put a file on the disk and return its SHA-256."""
    flush_file(file)
    return _hash(file)


def flush_file(file: Path) -> None:
    """Put a file's bytes on the disk, so that they outlive a power cut."""
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


def flush_folder(folder: Path) -> None:
    """Put a folder's entries on the disk, so that a rename outlives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
