"""Rows with images: a tiny LLaVA learns from what it is shown, by TRL's own path for vision-language models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.vision import COLOURS, write_model, write_rows
from tunesmith import pipeline
from tunesmith.data.images import as_image_dataset
from tunesmith.data.split import held_out
from tunesmith.data.tokens import audit_findings
from tunesmith.errors import UsageError
from tunesmith.models.load import load_processor, load_tuned
from tunesmith.recipe import build_recipe
from tunesmith.records import DataReport, Plan
from tunesmith.rules import FindingsError
from tunesmith.train import result
from tunesmith.train.audit import audit_trainer
from tunesmith.train.job import Job
from tunesmith.train.methods import build_trainer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("llava"))


def prepare(folder: Path, model: Path, rows: list[dict[str, Any]], **keys: Any) -> Path:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    quiet = {"report_to": "none", "save_strategy": "no", "eval_strategy": "no", "learning_rate": 5e-3, "max_steps": 50}
    values = {"model": str(model), "data": {"train": str(folder / "rows.jsonl"), "eval": 0.2}, "training": quiet}
    return pipeline.prepare_run(build_recipe(values | keys), folder / "run")


@pytest.mark.parametrize("kind", ["none", "lora"])
def test_a_vision_model_learns_what_it_is_shown(kind: str, tmp_path: Path, model: Path) -> None:
    """All questions are the same: only the images tell the answers, and those held out were never seen."""
    import torch

    run = prepare(tmp_path, model, write_rows(tmp_path, 60), adapter={"kind": kind, "r": 32})
    plan = Plan.load(run)
    assert (plan.images, plan.head, plan.test, plan.training["max_length"]) == (True, "images", None, None)
    assert plan.eval is not None
    assert plan.train.rows + plan.eval.rows == 60
    assert not [found for found in plan.findings if found.severity == "error"]
    job = Job(plan.model_copy(update={"training": {**plan.training, "eval_strategy": "steps", "eval_steps": 999}}), run)
    trainer = build_trainer(job)
    trained = sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad)
    assert trained == plan.parameters_trained
    audit = audit_trainer(trainer, plan)
    assert audit is not None
    assert audit_findings(audit, "rows") == []
    assert (audit.rows_kept, audit.trained_tokens) == (plan.train.rows, 3 * plan.train.rows)  # colour, stop, line end
    assert audit.prepared_by.endswith(f"on the first {plan.train.rows} of {plan.train.rows} rows")
    before = trainer.evaluate()["eval_mean_token_accuracy"]
    trainer.train()
    assert trainer.evaluate()["eval_mean_token_accuracy"] > 0.95 > before

    result.save(trainer, plan, run)
    processor = load_processor(run / "model")
    batch = trainer.data_collator([trainer.eval_dataset[0]])
    batch.pop("labels")
    tuned = load_tuned(plan.model, run / "model", head=plan.head, dtype=torch.float32).eval()
    with torch.no_grad():
        assert torch.allclose(tuned(**batch).logits, trainer.model.eval()(**batch).logits, atol=1e-4)
    assert processor.tokenizer.decode(batch["input_ids"][0]).count("<image>") == 4


def test_images_are_found_beside_the_data_and_opened_when_read(tmp_path: Path, model: Path) -> None:
    rows = write_rows(tmp_path, 30)
    rows[0]["images"] = {"path": rows[0]["images"][0], "bytes": None}
    rows[1]["images"] = str(tmp_path / rows[1]["images"][0])
    rows[2]["prompt"][0]["content"] = "<image>\nWhich colour?"
    run = prepare(tmp_path, model, rows, data={"train": str(tmp_path / "rows.jsonl"), "eval": 0})
    said = [json.loads(line) for line in (run / "data" / "train.jsonl").read_text().splitlines()]
    assert [row["images"] for row in said] == [[str((tmp_path / f"{number}.png").resolve())] for number in range(30)]
    mark, asked = {"type": "image"}, {"type": "text", "text": "Which colour?"}
    assert said[2]["prompt"] == [{"role": "user", "content": [mark, asked]}]
    assert said[3]["prompt"] == [{"role": "user", "content": [mark, {**asked, "text": "Which colour is this?"}]}]
    assert said[3]["completion"] == [{"role": "assistant", "content": [{"type": "text", "text": "red"}]}]
    assert DataReport.load(run).findings == []
    dataset = as_image_dataset([*said[:3], {**said[0], "images": []}])
    assert dataset[1]["images"][0].getpixel((0, 0)) == tuple(value - 1 for value in COLOURS["green"])
    assert dataset[3]["images"] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": ["gone.png"]}, "an image file that isn't there"),
        ({"images": [7]}, "number that isn't the path of an image"),
        ({"prompt": [{"role": "user", "content": "<image><image> Which?"}]}, "another number of images"),
        ({"prompt": "Which?", "completion": "red"}, None),
    ],
)
def test_images_that_can_t_be_used_are_named(
    change: dict[str, Any], said: str | None, tmp_path: Path, model: Path
) -> None:
    rows = write_rows(tmp_path, 30)
    rows[4] |= change
    if said is None:
        assert Plan.load(prepare(tmp_path, model, rows)).images
        return
    with pytest.raises(FindingsError, match="D013") as refused:
        prepare(tmp_path, model, rows)
    assert said in str(refused.value)
    assert "row 5" in str(refused.value)


def test_a_model_that_sees_nothing_takes_no_rows_with_images(tmp_path: Path) -> None:
    with pytest.raises(FindingsError, match="D004"):
        prepare(tmp_path, Path("builtin:small"), write_rows(tmp_path, 30))


def test_equal_questions_on_other_images_are_other_prompts(tmp_path: Path) -> None:
    rows = write_rows(tmp_path, 40)
    assert len(held_out(rows, 0.25, 1)) == 10
    assert held_out([{**row, "images": []} for row in rows], 0.25, 1) == set()


def test_a_model_without_its_processor_is_told_as_such(tmp_path: Path) -> None:
    from tests.support.runs import SMALL

    with pytest.raises(UsageError, match="No processor of images"):
        load_processor(SMALL)
