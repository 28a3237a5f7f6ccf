"""Rows of one customer count as one witness: from the user's column to the report, for every measure."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.learnt import COLOURS
from tests.support.runs import SMALL
from tunesmith.evaluate import evaluate
from tunesmith.models.load import load_model, load_tokenizer
from tunesmith.pipeline import prepare_run
from tunesmith.recipe.schema import Recipe
from tunesmith.records import EvalReport

CUSTOMERS = 7


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model with a little noise on its weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("changed")
    model = load_model(SMALL, dtype="float32")
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(torch.randn_like(weights), alpha=0.01)
    model.save_pretrained(folder)
    load_tokenizer(SMALL).save_pretrained(folder)
    return folder


def asked(number: int) -> dict[str, Any]:
    return {"prompt": f"colour {number}?", "customer": number % CUSTOMERS}


def answered(number: int) -> dict[str, Any]:
    return asked(number) | {"completion": COLOURS[number % 8]}


def preferred(number: int) -> dict[str, Any]:
    return asked(number) | {"chosen": COLOURS[number % 8], "rejected": COLOURS[(number + 3) % 8]}


def marked(number: int) -> dict[str, Any]:
    return answered(number) | {"label": number % 2 == 0}


ROWS = {"sft": answered, "dpo": preferred, "kto": marked}


def report_of(folder: Path, result: Path, method: str, held_out: list[dict[str, Any]], **evaluation: Any) -> EvalReport:
    """An evaluation of a run that was planned from files of the user's, and ended with the model in `result`."""
    folder.mkdir(exist_ok=True)
    data = {"train": folder / "train.jsonl", "test": folder / "test.jsonl"}
    rows = ([ROWS[method](number) for number in range(100, 130)], held_out)
    for path, part in zip(data.values(), rows, strict=True):
        path.write_text("".join(json.dumps(row) + "\n" for row in part))
    evaluation = {"group": "customer", "regression": False} | evaluation
    recipe = {"model": "builtin:small", "method": method, "data": {name: str(path) for name, path in data.items()}}
    run = prepare_run(Recipe.model_validate(recipe | {"evaluation": evaluation}), folder / "run")
    (run / "model").symlink_to(result)
    return evaluate(run, Recipe.model_validate(recipe | {"evaluation": evaluation}).evaluation)


@pytest.mark.parametrize("method", ["sft", "dpo", "kto"])
def test_every_measure_keeps_the_rows_of_a_customer_together(tmp_path: Path, changed: Path, method: str) -> None:
    rows = [ROWS[method](number) for number in range(28)]
    scores = {"scores": ["token_f1", "chrf"]} if method == "sft" else {}
    report = report_of(tmp_path, changed, method, rows, **scores)
    assert len(report.comparisons) >= 2
    assert {one.groups for one in report.comparisons} == {CUSTOMERS}
    assert all("groups of rows" in (one.test or "") for one in report.comparisons)
    assert not {"E033", "E034", "E035"} & {one.code for one in report.findings}
    by_rows = report_of(tmp_path / "rows", changed, method, rows, group=None, **scores)
    assert {one.groups for one in by_rows.comparisons} == {None}
    for one, other in zip(report.comparisons, by_rows.comparisons, strict=True):
        assert (one.metric, one.rows) == (other.metric, other.rows)
        assert (one.base, one.tuned) == pytest.approx((other.base, other.tuned))


def test_three_customers_show_nothing_however_many_rows_they_have(tmp_path: Path, changed: Path) -> None:
    rows = [answered(number) | {"customer": number % 3} for number in range(24)]
    report = report_of(tmp_path, changed, "sft", rows)
    assert "E033" in {one.code for one in report.findings}
    assert not any(one.significant or one.interval for one in report.comparisons)
