"""The model card: read by people and by the Hub, and safe to publish."""

import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import ModelCardData

from tests.support.pages import HOSTILE
from tests.support.receipts import MESSAGE, compared, make_full_evaluation, write_records
from tunesmith import pipeline
from tunesmith.receipt.build import build
from tunesmith.receipt.card import MARK, card, write_card
from tunesmith.records import Conclusion, Receipt, Side


@pytest.fixture
def receipt(tmp_path: Path) -> Receipt:
    write_records(tmp_path)
    make_full_evaluation().save(tmp_path)
    return build(tmp_path)


def with_evaluation(receipt: Receipt, **values: Any) -> Receipt:
    assert receipt.evaluation is not None
    return receipt.model_copy(update={"evaluation": receipt.evaluation.model_copy(update=values)})


def test_the_hub_s_own_client_reads_the_results(receipt: Receipt) -> None:
    data = ModelCard(card(receipt)).data
    assert isinstance(data, ModelCardData)
    assert data.eval_results is not None
    values = {result.metric_type: result.metric_value for result in data.eval_results}
    assert values["exact_match"] == 0.985
    assert values["instructions_followed"] == 0.31
    assert len(values) == len(make_full_evaluation().comparisons)
    assert data.library_name == "peft"
    assert data.base_model is None, "a local base has no page on the Hub"


def test_people_read_verdict_tables_and_leakage(receipt: Receipt) -> None:
    said = card(receipt)
    for told in (
        "builtin:small, tuned by sft (LoRA of rank 16) on 1,000 rows of tickets.jsonl",
        "The tuned model is better than its base in exact match",
        "| exact match | 0.5 % | 98.5 % | +98.0 points (+95.1 to +99.5 points) | &lt; 0.0001 | better |",
        "| instructions followed | 62.0 % | 31.0 % | -31.0 points (-43.0 to -19.0 points) | 0.0004 | worse |",
        "| shop_questions: perplexity | 9.1 | 8.9 | -0.2 | \u2013 | not tested |",
        "training saw 10 exactly and 2 nearly",
        "| metric | rows | base | tuned | difference | p, not corrected |",
        "| exact match | 188 | 0.5 % | 98.4 % | +97.9 points | &lt; 0.0001 |",
        "p: by Holm's correction over this table.",
        "| trl | 1.16.0 |",
    ):
        assert told in said, told


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({}, "tickets.jsonl, held-out rows"),
        ({"test": 0.1}, "tickets.jsonl, held-out rows"),
        ({"test": "/home/secret/june.jsonl"}, "june.jsonl, held-out rows"),
        ({"eval": "/home/secret/may.jsonl"}, "tickets.jsonl, held-out rows"),
    ],
)
def test_the_results_are_of_the_rows_that_were_held_out(receipt: Receipt, data: dict[str, Any], named: str) -> None:
    assert _datasets(receipt.model_copy(update={"recipe": {"data": data}}))["exact_match"] == named


def test_eval_rows_serve_where_there_are_no_test_rows(receipt: Receipt) -> None:
    without = receipt.plan.model_copy(update={"test": None})
    recipe = {"data": {"eval": "/home/secret/may.jsonl"}}
    served = with_evaluation(receipt, split="data/eval.jsonl").model_copy(update={"plan": without, "recipe": recipe})
    names = _datasets(served)
    assert names["exact_match"] == "may.jsonl, held-out rows"
    assert names["instructions_followed"] == "What isn't the task"


def _datasets(receipt: Receipt) -> dict[str, str]:
    results = ModelCard(card(receipt)).data.eval_results
    return {one.metric_type: one.dataset_name for one in results or []}


def test_a_base_on_the_hub_is_named_and_a_folder_only_by_its_last_part(receipt: Receipt) -> None:
    model = receipt.plan.model

    def of(**values: Any) -> str:
        plan = receipt.plan.model_copy(update={"model": model.model_copy(update=values)})
        return card(receipt.model_copy(update={"plan": plan}))

    there = of(name="org/base", location="org/base", revision="abc")
    assert ModelCard(there).data.to_dict()["base_model"] == "org/base"
    here = of(name="/home/secret/base", location="/home/secret/base", revision=None)
    assert "base_model" not in ModelCard(here).data.to_dict()
    assert "secret" not in here
    assert "\nbase, tuned by" in here


def test_no_row_is_published(receipt: Receipt) -> None:
    assert receipt.evaluation is not None
    assert receipt.evaluation.changed[0].prompt == MESSAGE
    assert "Maria Lopez" not in card(receipt)


def test_no_server_s_address_is_published(receipt: Receipt) -> None:
    address = "tickets at http://10.0.0.7:8080/v1"
    conclusion = Conclusion(met=None, sentence=f"The model {address} is better.")
    said = card(with_evaluation(receipt, tuned=Side(kind="endpoint", name=address), conclusion=conclusion))
    assert "The model behind a server is better." in said
    assert "10.0.0.7" not in said


def test_hostile_names_stay_in_their_cells(receipt: Receipt) -> None:
    evil = compared(f"| {HOSTILE} [a](http://x) `\n# head", 0.2, 0.8)
    said = card(with_evaluation(receipt, comparisons=[evil]))
    body = said.split(MARK)[1]
    rows = [line for line in body.splitlines() if "alert" in line]
    assert len(rows) == 1
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 7
    assert not {"<", "\x00", "\x1b", "\u202e"} & set(body)
    assert "# head" not in body.splitlines()
    assert "](http://x)" not in body.replace("\\[a](http://x)", "")


def test_values_that_are_no_numbers_are_not_indexed(receipt: Receipt) -> None:
    broken = compared("loss", 1.0, 1.0).model_copy(update={"tuned": float("nan")})
    said = card(with_evaluation(receipt, comparisons=[broken, compared("exact_match", 0.2, 0.8)]))
    results = ModelCard(said).data.to_dict()["model-index"][0]["results"]
    assert [metric["type"] for result in results for metric in result["metrics"]] == ["exact_match"]


def test_a_run_without_an_evaluation_has_a_card(receipt: Receipt) -> None:
    said = card(receipt.model_copy(update={"evaluation": None}))
    assert "model-index" not in said
    assert "Evaluation" not in said


def test_a_card_that_somebody_wrote_is_left(receipt: Receipt, tmp_path: Path) -> None:
    result = tmp_path / "model"
    assert not write_card(result, receipt), "no result, no card"
    result.mkdir()
    readme = result / "README.md"
    assert write_card(result, receipt)
    assert write_card(result, with_evaluation(receipt, comparisons=[])), "its own card is renewed"
    assert "exact match |" not in readme.read_text()
    readme.write_text("# Model Card for Model ID\n\n[More Information Needed]\n")
    assert write_card(result, receipt), "PEFT's form is no card"
    readme.write_text("# My model\n")
    assert not write_card(result, receipt)
    assert readme.read_text() == "# My model\n"


def test_the_receipt_is_written_with_the_card_of_its_result(receipt: Receipt, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    pipeline.write_receipt(tmp_path)
    assert receipt.run.id in (tmp_path / "model" / "README.md").read_text()
    assert (tmp_path / "report.html").is_file()
