"""Each kind of adapter, trained by TRL on the built-in model: what is trained, saved, loaded again and merged."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import BitsAndBytesConfig

from tunesmith import pipeline
from tunesmith.demo import task
from tunesmith.errors import UsageError
from tunesmith.export import export
from tunesmith.export.merge import merge
from tunesmith.export.probes import encode, held_out
from tunesmith.models.facts import model_facts
from tunesmith.models.load import load_base, load_model, load_tokenizer, load_tuned, load_under, put_on
from tunesmith.models.source import locate
from tunesmith.progress import silent
from tunesmith.recipe import build_recipe
from tunesmith.recipe.schema import Export
from tunesmith.records import Manifest, Plan
from tunesmith.rules import FindingsError
from tunesmith.train import result
from tunesmith.train.job import Job
from tunesmith.train.methods import build_trainer
from tunesmith.train.model import _ready

pytestmark = pytest.mark.slow

TOKENS = ["<|order|>", "<|note|>"]
ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {"r": 4, "targets": ["q_proj", "down_proj"]},
    "dora": {"r": 4, "dora": True},
    "rslora": {"r": 4, "rslora": True},
    "orthogonal": {"r": 4, "init": "orthogonal"},
    "pissa": {"r": 4, "init": "pissa"},
    "pissa, approximated, rslora": {"r": 4, "init": "pissa_niter_4", "rslora": True},
    "olora": {"r": 4, "init": "olora"},
    "tokens": {"r": 4, "tokens": TOKENS},
    "ia3": {"kind": "ia3"},
    "ia3, some layers": {"kind": "ia3", "targets": ["v_proj", "down_proj"]},
    "qlora": {"kind": "qlora", "r": 4},
}
VIRTUAL = {"prompt": {"kind": "prompt", "virtual_tokens": 5}, "prefix": {"kind": "prefix", "virtual_tokens": 5}}


@dataclass(frozen=True)
class Trained:
    """A finished run, and the model that was trained in it."""

    run: Path
    plan: Plan
    model: Any


def rows(*, tokens: bool) -> list[dict[str, Any]]:
    found = task.rows("train", 48)
    if tokens:
        for row in found:
            row["completion"][0]["content"] = f"{TOKENS[0]}{row['completion'][0]['content']}{TOKENS[1]}"
    return found


def pairs() -> list[dict[str, Any]]:
    """Each answer, and one that is cut short."""
    return [
        {"prompt": row["prompt"], "chosen": row["completion"], "rejected": [{"role": "assistant", "content": "{}"}]}
        for row in task.rows("train", 48)
    ]


def train(folder: Path, adapter: dict[str, Any], *, method: str = "sft", **training: Any) -> Trained:
    """Three steps of the built-in model, in this process."""
    data = folder / "rows.jsonl"
    made = pairs() if method == "reward" else rows(tokens="tokens" in adapter)
    data.write_text("".join(json.dumps(row) + "\n" for row in made))
    still = {"max_steps": 3, "report_to": "none", "eval_strategy": "no", "save_strategy": "no", "warmup_steps": 0}
    recipe = {
        "model": "builtin:small",
        "method": method,
        "data": {"train": str(data), "eval": 0.2},
        "adapter": adapter,
        "training": still | training,
        "export": {"gguf": []},
    }
    run = pipeline.prepare_run(build_recipe(recipe), folder / "run")
    plan = Plan.load(run)
    trainer = build_trainer(Job(plan, run))
    trainer.train()
    result.save(trainer, plan, run)
    return Trained(run, plan, trainer.model.eval())


def outputs(model: Any) -> torch.Tensor:
    """Logits at the last tokens of a text; virtual tokens stand before it."""
    ids = torch.tensor([list(range(300, 340))])
    with torch.inference_mode():
        return model.eval()(input_ids=ids).logits[0, -40:].float()


def trained_count(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("name", [*ADAPTERS, *VIRTUAL])
def test_an_adapter_is_counted_trained_saved_loaded_and_merged(name: str, tmp_path: Path) -> None:
    adapter = (ADAPTERS | VIRTUAL)[name]
    done = train(tmp_path, adapter)
    assert trained_count(done.model) == done.plan.parameters_trained > 0
    quantised = done.plan.quantization is not None
    loaded = load_tuned(done.plan.model, done.run / result.FOLDER, dtype=torch.float32)
    again = load_trained_in_four_bits(done) if quantised else loaded
    # An adapter on 4 bits is trained in bf16 (TRL), and loaded in float32.
    torch.testing.assert_close(outputs(again), outputs(done.model), atol=2e-2 if quantised else 2e-4, rtol=1e-3)
    base = load_base(done.plan.model, dtype=torch.float32)
    with loaded.disable_adapter():
        torch.testing.assert_close(outputs(loaded), outputs(base), atol=0, rtol=0)
    assert (outputs(loaded) - outputs(base)).abs().max() > 1e-2
    if name in VIRTUAL:
        return
    made = merged(done, tmp_path)
    torch.testing.assert_close(outputs(made.model), outputs(loaded), atol=2e-4, rtol=1e-3)
    assert all(check.passed for check in made.checks)
    assert len(made.checks) == 2
    assert [found.code for found in made.findings] == (["X017"] if quantised else [])


def load_trained_in_four_bits(done: Trained) -> Any:
    quantization = BitsAndBytesConfig(**done.plan.quantization or {})
    base = load_under(done.plan.model, dtype=torch.float32, quantization_config=quantization)
    return put_on(base, done.run / result.FOLDER)


def merged(done: Trained, folder: Path) -> Any:
    tokenizer = load_tokenizer(done.run / result.FOLDER)
    probes = encode(held_out(done.run, done.plan), tokenizer)
    (folder / "export").mkdir()
    return merge(done.plan, done.run / result.FOLDER, tokenizer, probes, folder / "export", silent)


@pytest.mark.parametrize("name", ["pissa, approximated, rslora", "tokens", "prefix", "qlora"])
def test_an_adapter_is_resumed_exactly(name: str, tmp_path: Path) -> None:
    done = train(tmp_path, (ADAPTERS | VIRTUAL)[name], save_strategy="steps", save_steps=2)
    again = build_trainer(Job(done.plan, done.run))
    again.train(resume_from_checkpoint=str(done.run / "checkpoints" / "checkpoint-2"))
    torch.testing.assert_close(outputs(again.model), outputs(done.model), atol=0, rtol=0)


def test_a_reward_model_is_loaded_and_merged_with_its_head(tmp_path: Path) -> None:
    done = train(tmp_path, {"r": 4}, method="reward")
    assert trained_count(done.model) == done.plan.parameters_trained
    folder = done.run / result.FOLDER
    loaded = load_tuned(done.plan.model, folder, head="score", dtype=torch.float32)
    torch.testing.assert_close(scores(loaded), scores(done.model), atol=1e-4, rtol=1e-4)
    manifest = export(done.run, Export(gguf=["f16"]))
    assert [found.code for found in manifest.findings] == ["X018"]
    assert [(artifact.kind, artifact.verified) for artifact in manifest.artifacts] == [("merged", True)]
    whole = load_model(done.run / "export" / "merged", head="score", dtype=torch.float32)
    torch.testing.assert_close(scores(whole), scores(done.model), atol=1e-4, rtol=1e-4)


def test_all_weights_of_a_reward_model_are_counted_and_exported(tmp_path: Path) -> None:
    done = train(tmp_path, {"kind": "none"}, method="reward")
    assert trained_count(done.model) == done.plan.parameters_trained
    manifest = export(done.run, Export(gguf=[]))
    assert manifest.passed
    assert [artifact.path for artifact in manifest.artifacts] == ["model"]


def test_an_adapter_that_trains_nothing_is_an_error() -> None:
    base = load_base(model_facts(locate("builtin:small")))
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    assert _ready(model) is model
    for parameter in model.parameters():
        parameter.requires_grad = False
    with pytest.raises(UsageError, match="trains nothing"):
        _ready(model)


def test_x016_virtual_tokens_are_not_exported(tmp_path: Path) -> None:
    done = train(tmp_path, VIRTUAL["prompt"])
    manifest = export(done.run, Export(gguf=[]))
    (found,) = manifest.findings
    assert (found.code, found.severity, manifest.passed, manifest.artifacts) == ("X016", "note", True, [])
    assert "5 virtual tokens (prompt tuning)" in found.what
    with pytest.raises(FindingsError, match="X016"):
        export(done.run, Export(gguf=["f16"]))
    assert not Manifest.load(done.run / "export").passed


def test_x017_is_measured_where_bitsandbytes_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = train(tmp_path, ADAPTERS["qlora"])
    manifest = export(done.run, Export(gguf=[]))
    (found,) = manifest.findings
    assert (found.code, found.severity) == ("X017", "warning")  # 4 bits are too few for a model this small
    there = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "bitsandbytes" else there(name))
    (found,) = export(done.run, Export(gguf=[])).findings
    assert (found.code, found.severity) == ("X010", "warning")


def scores(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(input_ids=torch.tensor([list(range(300, 340))])).logits.float()
