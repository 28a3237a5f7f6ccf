"""What the tests of exports share: run folders to export, and questions to a manifest."""

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.support.tiny import make_adapter, make_base, make_run
from tunesmith.export import stage
from tunesmith.export.tokenizer import Vocabulary, read_vocabulary
from tunesmith.recipe.schema import Export
from tunesmith.records import Check, Manifest

F16 = Export(gguf=["f16"])
CHECKS = ["loads", "token ids", "chat template", "distributions", "best tokens", "stopping"]
OTHER_TOKENS: dict[str, Any] = {"bos_token": "<|begin|>", "eos_token": "<|fin|>"}
convert_module = importlib.import_module("tunesmith.export.convert")


def tuned_run(folder: Path, model_type: str, tokenizer: Any, **changes: Any) -> Path:
    """A run folder with a trained adapter; its base is in `folder / "base"`."""
    base = make_base(folder / "base", model_type, tokenizer, **changes)
    make_adapter(base, tokenizer, folder / "run" / "model")
    make_run(folder / "run", base)
    return folder / "run"


def scale_adapter(run: Path, base: Path, factor: float) -> None:
    """Make the run's training lighter: its adapter changes the weights by `factor` of what it did."""
    adapter = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(run / "model"))
    for name, parameter in adapter.named_parameters():
        if "lora_B" in name:
            parameter.data *= factor
    adapter.save_pretrained(run / "model")


def codes(manifest: Manifest) -> set[str]:
    return {found.code for found in manifest.findings}


def check(manifest: Manifest, name: str, target: str = "model-f16.gguf") -> Check:
    (found,) = [check for check in manifest.checks if check.target == target and check.name == name]
    return found


def measured(manifest: Manifest, name: str, target: str = "model-f16.gguf") -> float:
    value = check(manifest, name, target).value
    assert value is not None
    return value


def assert_failed(run: Path, manifest: Manifest, expected: set[str]) -> None:
    """The f16 file failed by exactly the `expected` rules, and can't be taken for a good one."""
    assert codes(manifest) == expected
    assert not manifest.passed
    assert all(found.severity == "error" for found in manifest.findings)
    artifact = manifest.artifacts[-1]
    assert artifact.path == "export/model-f16.gguf.failed"
    assert not artifact.verified
    assert (run / artifact.path).exists()
    assert not list((run / "export").glob("*.gguf"))


def change_vocabulary(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    def changed(*given: Any, **named: Any) -> Vocabulary:
        vocabulary = read_vocabulary(*given, **named)
        special = vocabulary.special | changes.get("special", {})
        return dataclasses.replace(vocabulary, **(changes | {"special": special}))

    monkeypatch.setattr(stage, "read_vocabulary", changed)
