"""A run's result as the next run's model: whole, merged into its base, or trained on; never dropped."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tunesmith import pipeline
from tunesmith.demo import task
from tunesmith.errors import UsageError
from tunesmith.evaluate import evaluate
from tunesmith.export import export
from tunesmith.models.facts import model_facts
from tunesmith.models.load import load_base, load_model, load_planned_tokenizer, load_tuned
from tunesmith.models.reward import load_reward_model
from tunesmith.models.source import locate
from tunesmith.recipe import build_recipe
from tunesmith.recipe.evaluation import Evaluation
from tunesmith.recipe.schema import Export
from tunesmith.records import Plan, RunRecord
from tunesmith.rules import FindingsError
from tunesmith.train import result
from tunesmith.train.job import Job
from tunesmith.train.methods import build_trainer
from tunesmith.train.model import load_trainable
from tunesmith.train.worker import Worker

pytestmark = pytest.mark.slow

LORA = {"kind": "lora", "r": 4}
TOKEN = "<|order|>"


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    plan: Plan

    @property
    def tuned(self) -> torch.Tensor:
        """What its result gives."""
        head = self.plan.head
        return outputs(load_tuned(self.plan.model, self.folder / "model", head=head, dtype=torch.float32))

    @property
    def base(self) -> torch.Tensor:
        """What it started from."""
        return outputs(load_base(self.plan.model, dtype=torch.float32))


def prepare(folder: Path, model: Path | str, adapter: dict[str, Any], method: str = "sft", **keys: Any) -> Path:
    rows = [
        {"prompt": row["prompt"], "completion": row["completion"]}
        if method == "sft"
        else {"prompt": row["prompt"], "chosen": row["completion"], "rejected": [{"role": "assistant", "content": "{"}]}
        for row in task.rows("train", 32)
    ]
    if TOKEN in adapter.get("tokens", []):
        for row in rows:
            row["completion"][0]["content"] += TOKEN
    data = folder / f"{method}-rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "model": str(model),
        "method": method,
        "data": {"train": str(data), "eval": 0.2},
        "adapter": adapter,
        "training": {"max_steps": 2, "warmup_steps": 0, "report_to": "none", "eval_strategy": "no"},
        "export": {"gguf": []},
        **keys,
    }
    return pipeline.prepare_run(build_recipe(recipe), folder / f"{method}-{len(list(folder.iterdir()))}")


def train(folder: Path, model: Path | str, adapter: dict[str, Any], method: str = "sft") -> Run:
    run = prepare(folder, model, adapter, method)
    assert Worker(run).run() == 0
    return Run(run, Plan.load(run))


def refused(folder: Path, model: Path, adapter: dict[str, Any], method: str = "sft", **keys: Any) -> list[str]:
    with pytest.raises(FindingsError) as refusal:
        prepare(folder, model, adapter, method, **keys)
    return [found.code for found in refusal.value.findings]


def outputs(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(input_ids=torch.tensor([list(range(300, 340))])).logits[0].float()


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool(torch.allclose(one, other, atol=2e-4, rtol=1e-3))


@pytest.fixture(scope="module")
def sft(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An adapter of an sft run."""
    return train(tmp_path_factory.mktemp("sft"), "builtin:small", LORA)


@pytest.fixture(scope="module")
def dpo(tmp_path_factory: pytest.TempPathFactory, sft: Run) -> Run:
    """A dpo run on the sft run's adapter, merged."""
    return train(tmp_path_factory.mktemp("dpo"), sft.folder, LORA, "dpo")


def test_an_adapter_is_merged_first_and_is_the_reference(sft: Run, dpo: Run) -> None:
    assert [adapter.path for adapter in dpo.plan.model.earlier] == [str(sft.folder / "model")]
    assert same(dpo.base, sft.tuned)
    assert not same(dpo.base, sft.base)
    assert not same(dpo.tuned, sft.tuned)
    loaded = load_tuned(dpo.plan.model, dpo.folder / "model", dtype=torch.float32)
    with loaded.disable_adapter():
        assert same(outputs(loaded), sft.tuned)


def test_the_export_of_a_chain_holds_both_adapters(dpo: Run) -> None:
    assert export(dpo.folder, Export(gguf=[])).passed
    assert same(outputs(load_model(dpo.folder / "export" / "merged", dtype=torch.float32)), dpo.tuned)


def test_an_adapter_is_trained_on(tmp_path: Path, sft: Run) -> None:
    run = train(tmp_path, sft.folder, {**LORA, "earlier": "continue"})
    assert run.plan.trained == "earlier LoRA of rank 4"
    assert RunRecord.load(run.folder).parameters_trained == run.plan.parameters_trained == 23_040
    assert same(run.base, sft.tuned)
    assert not same(run.tuned, sft.tuned)
    report = evaluate(run.folder, Evaluation(tasks=["loss"]))
    alone = evaluate(sft.folder, Evaluation(tasks=["loss"]))
    assert report.comparisons[0].base == pytest.approx(alone.comparisons[0].tuned, rel=1e-3)
    later = train(tmp_path, run.folder, LORA)
    assert [adapter.path for adapter in later.plan.model.earlier] == [str(run.folder / "model")]
    assert same(later.base, run.tuned)


def test_the_reference_of_an_adapter_that_is_trained_on_is_its_start(tmp_path: Path, sft: Run) -> None:
    run = prepare(tmp_path, sft.folder, {**LORA, "earlier": "continue"}, "dpo")
    plan = Plan.load(run)
    trainer = build_trainer(Job(plan, run))
    trainer.train()
    result.save(trainer, plan, run)
    assert not (run / "model" / "ref").exists()
    trainer.model.set_adapter("ref")
    assert same(outputs(trainer.model), sft.tuned)


def test_the_reference_of_an_adapter_that_changed_its_base_is_the_base(tmp_path: Path, sft: Run) -> None:
    run = prepare(tmp_path, sft.folder, {**LORA, "init": "pissa"}, "dpo")
    trainer = build_trainer(Job(Plan.load(run), run))
    assert same(outputs(trainer.model), sft.tuned)
    trainer.train()
    trainer.model.set_adapter("ref")
    assert same(outputs(trainer.model), sft.tuned)


def test_three_runs_on_each_other(tmp_path: Path, sft: Run, dpo: Run) -> None:
    third = train(tmp_path, dpo.folder / "model", {"kind": "ia3"})
    paths = [adapter.path for adapter in third.plan.model.earlier]
    assert paths == [str(sft.folder / "model"), str(dpo.folder / "model")]
    assert same(third.base, dpo.tuned)


def test_all_weights_after_an_adapter(tmp_path: Path, sft: Run) -> None:
    run = train(tmp_path, sft.folder, {"kind": "none"}, "dpo")
    assert same(run.base, sft.tuned)
    later = train(tmp_path, run.folder, LORA)
    assert later.plan.model.earlier == []
    assert same(later.base, run.tuned)


def test_a_reward_model_is_trained_on_what_an_sft_run_learnt(tmp_path: Path, sft: Run) -> None:
    run = train(tmp_path, sft.folder, LORA, "reward")
    scorer, base = load_trainable(run.plan).model, load_base(sft.plan.model, dtype=torch.float32)
    tuned = load_tuned(sft.plan.model, sft.folder / "model", dtype=torch.float32).merge_and_unload()
    ids = torch.tensor([list(range(300, 340))])
    with torch.inference_mode():
        found, right, wrong = (model.model(ids).last_hidden_state for model in (scorer, tuned, base))
    assert same(found, right)
    assert not same(found, wrong)
    # As a reward of grpo or rloo it is both runs' too.
    assert same(outputs(load_reward_model(str(run.folder), dtype="float32").model), run.tuned)


def test_a_reward_model_is_no_language_model(tmp_path: Path) -> None:
    scorer = train(tmp_path, "builtin:small", LORA, "reward")
    assert refused(tmp_path, scorer.folder, LORA) == ["P062"]
    again = {**LORA, "earlier": "continue"}
    assert refused(tmp_path, scorer.folder, again) == ["P059"]
    later = train(tmp_path, scorer.folder, again, "reward")
    assert later.plan.parameters_trained == scorer.plan.parameters_trained
    assert train(tmp_path, scorer.folder, LORA, "reward").plan.model.earlier[0].task == "SEQ_CLS"
    for base in (True, False):
        with pytest.raises(UsageError, match="trained a reward model"):
            pipeline.open_chat(scorer.folder, base=base)


def test_tokens_of_an_earlier_run_stay(tmp_path: Path) -> None:
    first = train(tmp_path, "builtin:small", {**LORA, "tokens": [TOKEN]})
    assert first.plan.model.embeddings == first.plan.model.vocabulary == 897
    later = train(tmp_path, first.folder, LORA)
    tokenizer = load_planned_tokenizer(later.plan.model)
    assert tokenizer.convert_tokens_to_ids(TOKEN) == 896
    assert same(later.base, first.tuned)
    on = train(tmp_path, first.folder, {**LORA, "earlier": "continue"})
    assert on.plan.parameters_trained == first.plan.parameters_trained
    assert same(on.base, first.tuned)
    assert not (on.tuned == first.tuned).all()


def test_p064_an_earlier_adapter_that_changed(tmp_path: Path, sft: Run) -> None:
    earlier = tmp_path / "earlier"
    shutil.copytree(sft.folder, earlier)
    run = prepare(tmp_path, earlier, LORA)
    plan = Plan.load(run)
    load_base(plan.model)
    weights = earlier / "model" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(FindingsError, match=r"P064.*has other weights"):
        load_base(plan.model)
    weights.unlink()
    with pytest.raises(FindingsError, match=r"P064.*is gone"):
        Worker(run).run()


def test_what_an_earlier_adapter_cannot_be(tmp_path: Path, sft: Run) -> None:
    prompt = train(tmp_path, "builtin:small", {"kind": "prompt", "virtual_tokens": 3})
    assert refused(tmp_path, prompt.folder, LORA) == ["P058"]
    assert refused(tmp_path, prompt.folder, {"kind": "prompt", "earlier": "continue"}) == ["P059"]
    for adapter in ({"kind": "none"}, {"kind": "ia3"}, {**LORA, "tokens": [TOKEN]}):
        assert refused(tmp_path, sft.folder, {**adapter, "earlier": "continue"}) == ["P059"]
    assert refused(tmp_path, sft.folder, {"kind": "qlora"}) == ["P060"]


def test_a_4_bit_base_under_an_adapter_that_is_trained_on(tmp_path: Path, sft: Run) -> None:
    run = train(tmp_path, sft.folder, {"kind": "qlora", "r": 4, "earlier": "continue"})
    assert run.plan.trained == "earlier QLoRA of rank 4"
    assert same(run.base, sft.tuned)


def test_a_run_without_a_result_is_no_model(tmp_path: Path) -> None:
    run = prepare(tmp_path, "builtin:small", LORA)
    with pytest.raises(UsageError, match="has no trained model"):
        locate(str(run))


def test_an_adapter_without_its_run(tmp_path: Path, sft: Run) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(sft.folder / "model", adapter)
    facts = model_facts(locate(str(adapter)))
    assert facts.location == sft.plan.model.location
    assert same(outputs(load_base(facts, dtype=torch.float32)), sft.tuned)
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": None}))
    with pytest.raises(UsageError, match="doesn't say of which model"):
        locate(str(adapter))
    (adapter / "adapter_model.safetensors").write_bytes(b"short")
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(UsageError, match=r"adapter_model\.safetensors can't be read"):
        locate(str(adapter))
