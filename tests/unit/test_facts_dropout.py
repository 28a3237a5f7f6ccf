"""Dropout of attention, as config.json says it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import SMALL
from tunesmith.errors import UsageError
from tunesmith.models.facts import model_facts
from tunesmith.models.source import locate


def said(folder: Path, **values: Any) -> Path:
    """The built-in model with a config.json that says nothing of dropout but what is given."""
    shutil.copytree(SMALL, folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("attention_dropout", None)
    (folder / "config.json").write_text(json.dumps(config | values))
    return folder


@pytest.mark.parametrize(
    ("values", "share"),
    [
        ({}, 0.0),
        ({"attention_dropout": 0.2}, 0.2),
        ({"attention_dropout": None}, 0.0),
        ({"attn_pdrop": 0.3}, 0.3),
        ({"attention_probs_dropout_prob": 1}, 1.0),
        ({"text_config": {"attention_dropout": 0.1}}, 0.1),
        ({"model_type": "gpt2"}, 0.1),
        ({"model_type": "gpt2", "attn_pdrop": 0}, 0.0),
    ],
)
def test_dropout_of_attention(values: dict[str, Any], share: float, tmp_path: Path) -> None:
    assert model_facts(locate(str(said(tmp_path / "m", **values)))).attention_dropout == share


@pytest.mark.parametrize("value", [-0.1, 1.5, "0.1", True])
def test_an_absurd_dropout_is_refused(value: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="attention_dropout"):
        model_facts(locate(str(said(tmp_path / "m", attention_dropout=value))))
