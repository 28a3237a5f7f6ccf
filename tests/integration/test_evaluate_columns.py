"""A run of which the evaluation reads columns that aren't trained on."""

from pathlib import Path

import pytest

from tests.support.methods import method_recipe, method_rows, read_rows
from tunesmith.data.rows import COLUMNS
from tunesmith.pipeline import evaluate_run, prepare_run, train_run


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "kto"])
def test_columns_go_past_the_trainer_to_the_evaluation(tmp_path: Path, method: str) -> None:
    rows = [{**row, "customer": f"c{index % 7}"} for index, row in enumerate(method_rows(method, 96))]
    evaluation = {"group": "customer", "scores": ["chrf"], "max_new_tokens": 8, "regression": False}
    recipe = method_recipe(method, tmp_path, rows=rows, evaluation=evaluation, training={"max_steps": 2})
    run = prepare_run(recipe, tmp_path / "run")
    assert all(COLUMNS in row for row in read_rows(run / "data" / "eval.jsonl"))
    assert train_run(run).status == "done"
    report = evaluate_run(run)
    groups = {one.metric: one.groups for one in report.comparisons}
    assert report.primary == "chrf"
    assert all(count and count < report.rows for count in groups.values()), groups
