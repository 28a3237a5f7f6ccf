"""What a plan says of the evaluation's scores and columns, and which columns it keeps for it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.methods import METHODS, method_recipe, method_rows
from tests.support.runs import SMALL
from tunesmith.data.rows import COLUMNS
from tunesmith.errors import UsageError
from tunesmith.models.light import LightTokenizer
from tunesmith.pipeline import make_plan
from tunesmith.plan.rows import Rows, gather_rows
from tunesmith.plan.scores import check_columns, check_evaluated, check_scores
from tunesmith.recipe import Recipe, build_recipe
from tunesmith.recipe.evaluation import Evaluation
from tunesmith.rules import FindingsError

MINE = """
def good(completions, reference, **rest):
    return [float(one[-1]["content"] == right) for one, right in zip(completions, reference)]

def flat(completions, **rest):
    return [0.5 for _ in completions]

def lacking(completions, words, **rest):
    return [1.0 for _ in completions]
"""


def rows_of(recipe: Recipe) -> Rows:
    return gather_rows(recipe, LightTokenizer(SMALL))


def recipe(tmp_path: Path, method: str = "sft", rows: list[dict[str, Any]] | int = 40, **evaluation: Any) -> Recipe:
    (tmp_path / "mine.py").write_text(MINE)
    return method_recipe(method, tmp_path, rows=rows, evaluation=evaluation)


def codes(recipe: Recipe) -> list[str]:
    return [found.code for found in check_evaluated(recipe.evaluation, rows_of(recipe))]


def with_columns(method: str) -> list[dict[str, Any]]:
    return [
        {**row, "customer": f"c{index % 7}", "text2": None, "label2": index}
        for index, row in enumerate(method_rows(method, 40))
    ]


@pytest.mark.parametrize("method", METHODS)
def test_rows_held_out_keep_the_columns_that_the_evaluation_reads(tmp_path: Path, method: str) -> None:
    rows = rows_of(recipe(tmp_path, method, with_columns(method), group="customer"))
    if method in ("grpo", "rloo"):
        assert all(row["customer"] for row in [*rows.eval, *rows.train])
    else:
        assert all(row[COLUMNS].keys() == {"customer"} for row in rows.eval)
    assert not any(COLUMNS in row for row in rows.train)
    assert rows.token_counts == rows_of(recipe(tmp_path, method, method_rows(method, 40))).token_counts


def test_functions_are_given_all_columns_and_others_none(tmp_path: Path) -> None:
    made = [{**row, "when": 3, "text": "x"} for row in method_rows("sft", 40)]
    kept = rows_of(recipe(tmp_path, "sft", made, scores=[f"{tmp_path}/mine.py:good"])).eval[0][COLUMNS]
    assert kept.keys() == {"prompt", "completion", "when", "text"}
    assert COLUMNS not in rows_of(recipe(tmp_path, "sft", made, scores=["chrf"])).eval[0]
    assert COLUMNS not in rows_of(recipe(tmp_path, "sft", made)).eval[0]


def test_rows_that_differ_in_such_columns_alone_are_duplicates(tmp_path: Path) -> None:
    made = [{**row, "customer": str(index)} for index, row in enumerate(method_rows("sft", 20) * 2)]
    for group in (None, "customer"):
        found = [one.what for one in rows_of(recipe(tmp_path, "sft", made, group=group)).findings if one.code == "D009"]
        assert "20" in found[0]


def test_a_column_of_a_column_is_kept_by_its_path(tmp_path: Path) -> None:
    made = [{**row, "meta": {"customer": index % 3}} for index, row in enumerate(method_rows("sft", 40))]
    settings = recipe(tmp_path, "sft", made, group="meta.customer")
    assert rows_of(settings).eval[0][COLUMNS].keys() == {"meta.customer"}
    assert codes(settings) == []


@pytest.mark.parametrize(
    ("scores", "code", "said"),
    [
        (["chrff"], "E023", "Did you mean chrf?"),
        ([{"name": "json_schema"}], "E023", "Reward json_schema needs schema."),
    ],
)
def test_a_score_that_can_not_be_made(tmp_path: Path, scores: Any, code: str, said: str) -> None:
    (found,) = check_scores(Evaluation(scores=scores))
    assert (found.code, found.where) == (code, "evaluation.scores")
    assert said in found.what + found.fix
    with pytest.raises(FindingsError, match="E023"):
        make_plan(recipe(tmp_path, scores=scores))


@pytest.mark.parametrize("method", ["sft", "dpo", "kto", "grpo"])
def test_scores_that_suit_the_rows_have_no_findings(tmp_path: Path, method: str) -> None:
    assert codes(recipe(tmp_path, method, scores=["chrf", "json", f"{tmp_path}/mine.py:good"])) == []


def test_scores_that_do_not_suit_the_rows(tmp_path: Path) -> None:
    mine = f"{tmp_path}/mine.py"
    assert codes(recipe(tmp_path, scores=[f"{mine}:lacking"])) == ["E024"]
    assert codes(recipe(tmp_path, scores=[f"{mine}:missing"])) == ["E024"]
    assert codes(recipe(tmp_path, scores=[f"{mine}:flat"])) == ["E026"]
    assert codes(recipe(tmp_path, "clm", scores=["json"])) == ["E025"]
    asked = [{"prompt": row["prompt"]} for row in method_rows("grpo", 40)]
    assert codes(recipe(tmp_path, "grpo", asked, scores=["contains"])) == ["E025"]


def test_a_score_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(FindingsError, match="E024"):
        make_plan(recipe(tmp_path, scores=[f"{tmp_path}/mine.py:lacking"]))


def test_nothing_held_out_is_nothing_to_score(tmp_path: Path) -> None:
    made = recipe(tmp_path, scores=[f"{tmp_path}/mine.py:lacking"], group="elsewhere")
    without = made.model_copy(update={"data": made.data.model_copy(update={"eval": 0.0})})
    assert check_evaluated(without.evaluation, rows_of(without)) == []


def options(values: list[Any], right: str = "a") -> list[dict[str, Any]]:
    return [{"prompt": "?", "completion": right, COLUMNS: {"options": value}} for value in values]


@pytest.mark.parametrize(
    ("settings", "rows", "train", "codes"),
    [
        ({"group": "x"}, options([["a"]]), [], ["E028"]),
        ({"group": "options"}, options([["a"]]), [], []),
        ({"choices": "x"}, options([["a"]]), [], ["E028"]),
        ({"choices": "options", "tasks": ["choice"]}, options([["b"], ["a", "b"]]), [], []),
        ({"choices": "options", "tasks": ["choice"]}, options([["b"], ["c"]]), [], ["E029"]),
        ({"tasks": ["choice"]}, options([1]), options([1]) + options([1], "b"), []),
        ({"tasks": ["choice"]}, options([1]), options([1]), ["E029"]),
        ({}, options([1]), options([1]), []),
    ],
)
def test_columns_and_options(
    settings: dict[str, Any], rows: list[dict[str, Any]], train: list[dict[str, Any]], codes: list[str]
) -> None:
    assert [found.code for found in check_columns(Evaluation(**settings), rows, train)] == codes


def test_a_score_has_no_weight(tmp_path: Path) -> None:
    scores = [{"name": "chrf", "weight": 0.5}]
    with pytest.raises(UsageError, match=r"evaluation\.scores") as caught:
        build_recipe({"model": "m", "method": "sft", "data": {"train": "x"}, "evaluation": {"scores": scores}})
    assert "each is a metric of its own" in caught.value.why


def test_a_date_is_kept_as_text(tmp_path: Path) -> None:
    made = [{**row, "day": "2026-01-02"} for row in method_rows("sft", 40)]
    rows = rows_of(recipe(tmp_path, "sft", made, group="day"))
    assert json.loads(rows.content("eval").splitlines()[0])[COLUMNS] == {"day": "2026-01-02"}
