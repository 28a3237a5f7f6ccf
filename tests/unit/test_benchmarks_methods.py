"""The table of docs/methods.md, and the rows that its runs train on."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from benchmarks import methods, methods_data
from tunesmith.evaluate.findings import PRIMARY
from tunesmith.recipe.evaluation import TASKS


def test_the_page_has_the_table_of_the_results() -> None:
    result = json.loads(methods.RESULT.read_text(encoding="utf-8"))
    page = methods.PAGE.read_text(encoding="utf-8")
    assert methods.table(result) in page
    assert methods.fill(page, result) == page, "run `make bench-methods`"


def test_every_run_is_better_than_its_base_by_its_own_measure() -> None:
    runs = json.loads(methods.RESULT.read_text(encoding="utf-8"))["runs"]
    assert runs.keys() == {f"{method} {kind}" for method in TASKS for kind in ("full", "LoRA")}
    for name, run in runs.items():
        own = next(one for one in run["comparisons"] if one["metric"] == run["primary"])
        assert run["primary"] == PRIMARY[name.partition(" ")[0]][0]
        better = own["difference"] > 0 if own["better"] == "higher" else own["difference"] < 0
        assert better, name
        assert own["significant"], name
        assert not [code for code in run["findings"] if code.startswith("R")], name


def test_all_methods_are_shown() -> None:
    assert methods.SETTINGS.keys() == methods_data.ROWS.keys() == TASKS.keys() == PRIMARY.keys()


@pytest.mark.parametrize("method", methods_data.ROWS)
def test_training_and_test_rows_share_no_prompt(tmp_path: Path, method: str) -> None:
    paths = methods_data.write(tmp_path, method, 30, 20)
    train, test = (
        [json.loads(line) for line in Path(paths[name]).read_text().splitlines()] for name in ("train", "test")
    )
    assert (len(train), len(test)) == (30, 20)
    key = "text" if method == "clm" else "prompt"
    assert not {json.dumps(row[key]) for row in train} & {json.dumps(row[key]) for row in test}


def test_a_wrong_ticket_has_one_mistake() -> None:
    right = methods_data.ticket(methods_data.answered("train", 1, 0)[0])
    kinds = set()
    for seed in range(200):
        wrong = methods_data.wrong(right, random.Random(seed))
        if wrong.startswith("Sure! "):
            assert wrong == f"Sure! {right}"
            kinds.add("words")
            continue
        before, after = json.loads(right), json.loads(wrong)
        (changed,) = [name for name in before if before[name] != after[name]]
        kinds.add(changed)
    assert kinds == {"customer", "city", "item", "quantity", "date", "words"}


def test_half_of_the_marked_answers_are_right() -> None:
    rows = methods_data.marked("train", 20, 0)
    tickets = {row["prompt"][0]["content"]: methods_data.ticket(row) for row in methods_data.answered("train", 20, 0)}
    assert sum(row["label"] for row in rows) == 10
    assert all(
        (tickets[row["prompt"][0]["content"]] == row["completion"][0]["content"]) is row["label"] for row in rows
    )
