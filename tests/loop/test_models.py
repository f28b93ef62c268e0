"""Which models are refused because the trainer would compute something else than they do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grpo.errors import UserError
from grpo.model.files import check_supported

SUPPORTED = [
    {},
    {"sliding_window": None},
    {"sliding_window": 100},
    {"sliding_window": 4, "use_sliding_window": False},
    {"sliding_window": 4, "layer_types": ["full_attention", "full_attention"]},
    {"final_logit_softcapping": None, "logit_scale": 1.0},
]
REFUSED = [
    ({"sliding_window": 99}, "its layers see 99 tokens back, and sequences may have 100"),
    ({"sliding_window": 4, "layer_types": ["full_attention", "sliding_attention"]}, "its layers see 4 tokens back"),
    ({"sliding_window": 4, "use_sliding_window": True}, "its layers see 4 tokens back"),
    ({"layer_types": ["linear_attention", "full_attention"]}, "layers of the kind linear_attention"),
    ({"layer_types": ["conv", "full_attention"]}, "layers of the kind conv"),
    ({"final_logit_softcapping": 30.0}, "final_logit_softcapping=30.0 in its config"),
    ({"logit_scale": 0.0625}, "logit_scale=0.0625 in its config"),
    ({"logits_scaling": 8.0}, "logits_scaling=8.0 in its config"),
]


@pytest.mark.parametrize("config", SUPPORTED)
def test_supported(config: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    check_supported(tmp_path, 100)


@pytest.mark.parametrize(("config", "message"), REFUSED)
def test_refused(config: dict[str, object], message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        check_supported(tmp_path, 100)


def test_dropout_is_refused_where_recomputing_would_bring_it_back(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"attention_dropout": 0.1, "hidden_dropout": 0.0}))
    check_supported(tmp_path, 100)
    with pytest.raises(UserError, match=r"bring back the model's \{'attention_dropout': 0.1\}"):
        check_supported(tmp_path, 100, gradient_checkpointing=True)
