"""Fixtures that every room's tests may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from grpo.parallel.threads import wait_briefly

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
wait_briefly()

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a chat template and room for long prompts."""
    from tiny import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("chat"), chat=True, max_position_embeddings=2048)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("tiny"))
