"""Every method that learns from rows, by TRL's own trainer: what is learnt, from which reference, what is saved."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.preferences import Row, marked, pairs, prepare, rows_for, texts
from tunesmith.data.tokens import audit_findings
from tunesmith.models.load import load_tuned
from tunesmith.records import Plan
from tunesmith.rules import RULES
from tunesmith.train import result
from tunesmith.train.audit import audit_trainer
from tunesmith.train.job import Job
from tunesmith.train.methods import build_trainer

pytestmark = pytest.mark.slow

# Method -> arguments, a measure of the trainer's evaluation, and what it must reach (by LoRA too).
LEARNS: dict[str, tuple[dict[str, Any], str, float]] = {
    "dpo": ({"loss_type": ["sigmoid"], "max_steps": 6, "learning_rate": 2e-3}, "eval_rewards/accuracies", 0.99),
    "kto": ({"max_steps": 8, "learning_rate": 2e-3}, "eval_rewards/margins", 0.3),
    "reward": ({"max_steps": 10, "learning_rate": 3e-3}, "eval_accuracy", 0.99),
}


def job_of(run: Path, *, evaluates: bool = True) -> Job:
    """The job of a run; `evaluates` gives the trainer the held-out rows without an evaluation on the way."""
    plan = Plan.load(run)
    if evaluates:
        plan = plan.model_copy(update={"training": {**plan.training, "eval_strategy": "steps", "eval_steps": 10_000}})
    return Job(plan, run)


def trained_parameters(trainer: Any) -> int:
    return sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad)


def losses(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def logits_of(model: Any, trainer: Any) -> Any:
    """What a model says to one of the task's messages."""
    import torch

    ids = trainer.processing_class("Order of 3 March, two red lamps", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


@pytest.mark.parametrize("kind", ["none", "lora"])
@pytest.mark.parametrize("method", LEARNS)
def test_preferences_are_learnt_and_the_result_is_what_was_trained(method: str, kind: str, tmp_path: Path) -> None:
    import torch

    training, measure, reached = LEARNS[method]
    rows = rows_for(method, 48)
    run = prepare(tmp_path, method, kind, rows, per_device_train_batch_size=8, **training)
    job = job_of(run)
    trainer = build_trainer(job)
    assert trained_parameters(trainer) == job.plan.parameters_trained
    audit = audit_trainer(trainer, job.plan)
    assert audit is not None
    assert (audit.method, audit.rows_kept) == (method, job.plan.train.rows)
    assert audit_findings(audit, "rows") == []
    before = trainer.evaluate()[measure]
    trainer.train()
    assert before < 0.9 * reached
    assert trainer.evaluate()[measure] >= reached

    result.save(trainer, job.plan, run)
    tuned = load_tuned(job.plan.model, run / "model", head=job.plan.head, dtype=torch.float32)
    assert torch.allclose(logits_of(tuned, trainer), logits_of(trainer.model, trainer), atol=1e-5)
    assert {file.suffix for file in (run / "model").rglob("*.safetensors")} == {".safetensors"}
    assert len(list((run / "model").rglob("*.safetensors"))) == 1


@pytest.mark.parametrize("kind", ["none", "lora"])
def test_running_text_is_learnt_with_documents_that_go_on_in_another_row(kind: str, tmp_path: Path) -> None:
    run = prepare(tmp_path, "clm", kind, texts(100), max_length=32, max_steps=6, learning_rate=5e-3)
    job = job_of(run)
    trainer = build_trainer(job)
    audit = audit_trainer(trainer, job.plan)
    assert audit is not None
    assert audit.rows_kept == job.plan.train.rows == 90
    assert audit.tokens == audit.trained_tokens == job.plan.train.tokens
    assert audit_findings(audit, "rows") == []
    assert len(trainer.train_dataset) < 2 * audit.tokens / 32
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.9 * before


def test_text_without_a_stop_is_told_though_pieces_of_documents_have_none(tmp_path: Path) -> None:
    run = prepare(tmp_path, "clm", "none", texts(100), max_length=32, max_steps=1)
    job = job_of(run)
    trainer = build_trainer(job)
    stop = trainer.processing_class.eos_token_id
    without = trainer.train_dataset.map(
        lambda row: {"labels": [-100 if token == stop else token for token in row["labels"]]}, keep_in_memory=True
    )
    trainer.train_dataset = without
    audit = audit_trainer(trainer, job.plan)
    assert audit is not None
    assert audit.rows_without_stop == 90
    assert "T001" in [found.code for found in audit_findings(audit, "rows")]


def test_dynamic_fine_tuning_weighs_tokens_by_their_probability(tmp_path: Path) -> None:
    plain = build_trainer(job_of(prepare(tmp_path, "sft", max_steps=1)))
    (tmp_path / "dft").mkdir()
    weighted = build_trainer(job_of(prepare(tmp_path / "dft", "sft", max_steps=1, loss_type="dft")))
    assert weighted.evaluate()["eval_loss"] < plain.evaluate()["eval_loss"] / 2  # -p log p, at most 1 / e for a token


def test_the_reference_is_the_policy_as_it_starts_and_isn_t_loaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from trl.trainer import dpo_trainer

    def fetch(*_: Any, **__: Any) -> None:
        raise AssertionError("loaded by its name: another revision, perhaps")

    monkeypatch.setattr(dpo_trainer, "create_model_from_path", fetch)
    run = prepare(tmp_path, "dpo", precompute_ref_log_probs=False, loss_type=["sigmoid"], max_steps=3)
    plan = Plan.load(run)
    plan.model_copy(update={"model_kwargs": {"dtype": "bfloat16"}}).save(run)
    trainer = build_trainer(job_of(run))
    assert trainer.ref_model.dtype == torch.bfloat16
    start = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    assert losses(trainer)[0] == pytest.approx(0.6931, abs=1e-3)
    reference = trainer.ref_model.state_dict()
    assert all(torch.equal(reference[name], value) for name, value in start.items())
    assert not all(torch.equal(trainer.model.state_dict()[name], value) for name, value in start.items())


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_a_reference_that_speaks_before_training_says_the_same(method: str, tmp_path: Path) -> None:
    curves = []
    for name, precomputes in (("before", True), ("meanwhile", False)):
        (tmp_path / name).mkdir()
        training = {"precompute_ref_log_probs": precomputes, "max_steps": 2, "learning_rate": 1e-3}
        run = prepare(tmp_path / name, method, rows=rows_for(method, 20), **training)
        trainer = build_trainer(job_of(run, evaluates=False))
        assert (trainer.ref_model is None) is precomputes
        trainer.train()
        curves.append(losses(trainer))
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)
    assert len(set(curves[0])) > 1


def test_the_base_under_an_adapter_is_its_reference(tmp_path: Path) -> None:
    run = prepare(tmp_path, "dpo", "lora", loss_type=["sigmoid"], max_steps=4, learning_rate=1e-2)
    trainer = build_trainer(job_of(run, evaluates=False))
    assert trainer.ref_model is None
    batch = next(iter(trainer.get_train_dataloader()))
    before = trainer.compute_ref_log_probs(trainer.model, batch)
    trainer.train()
    after = trainer.compute_ref_log_probs(trainer.model, batch)
    assert [value.tolist() for value in before] == [value.tolist() for value in after]
    assert losses(trainer)[0] == pytest.approx(0.6931, abs=1e-4)
    assert losses(trainer)[-1] < 0.6


def test_kto_s_neighbours_answer_other_prompts(tmp_path: Path) -> None:
    def order(trainer: Any) -> list[str]:
        return [json.dumps(row) for row in trainer.train_dataset["prompt_ids"]]

    run = prepare(tmp_path, "kto", rows=marked(60), max_steps=1)
    first, again = (build_trainer(job_of(run, evaluates=False)) for _ in range(2))
    assert order(first) == order(again)
    prompts = order(first)
    beside = sum(one == next_ for one, next_ in itertools.pairwise(prompts))
    assert beside <= len(prompts) // 20  # in the file it is every second one
    labels = first.train_dataset["label"]
    batch = Plan.load(run).training["per_device_train_batch_size"]
    assert all(0 < sum(labels[at : at + batch]) < batch for at in range(0, len(labels) - batch, batch))


@pytest.mark.parametrize(("method", "kind"), [("dpo", "none"), ("kto", "lora"), ("reward", "lora"), ("clm", "none")])
def test_a_resumed_run_ends_with_the_same_weights(method: str, kind: str, tmp_path: Path) -> None:
    import torch

    rows = rows_for(method, 40)
    run = prepare(tmp_path, method, kind, rows, max_steps=2, save_strategy="steps", save_steps=1)
    whole = build_trainer(job_of(run, evaluates=False))
    whole.train()
    resumed = build_trainer(job_of(run, evaluates=False))
    resumed.train(resume_from_checkpoint=str(run / "checkpoints" / "checkpoint-1"))
    wanted, got = whole.model.state_dict(), resumed.model.state_dict()
    assert wanted.keys() == got.keys()
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    assert losses(resumed)[-1] == losses(whole)[-1]


def test_methods_that_write_their_own_answers_have_no_labels_to_audit(tmp_path: Path) -> None:
    plan = Plan.load(prepare(tmp_path, "sft", max_steps=1)).model_copy(update={"method": "grpo"})
    assert audit_trainer(None, plan) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "rows", "needs", "instead"),
    [
        ("dpo", texts(30), "a better and a worse answer", "clm"),
        ("kto", texts(30), "marked as good or bad", "clm"),
        ("reward", marked(15), "a better and a worse answer", "kto"),
        ("clm", pairs(30), "running text", "dpo"),
    ],
)
def test_rows_of_the_wrong_kind_are_told_with_the_method_that_takes_them(
    method: str, rows: list[Row], needs: str, instead: str, tmp_path: Path
) -> None:
    from tunesmith.rules import FindingsError

    with pytest.raises(FindingsError, match="D004") as refused:
        prepare(tmp_path, method, rows=rows)
    assert needs in refused.value.fix
    assert refused.value.fix.endswith(f"Rows like these are for {instead}: `method: {instead}`.")
    assert refused.value.why == RULES["D004"].why
