"""The report: self-contained, complete, and safe with any text."""

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.pages import Page, hostile
from tests.support.receipts import make_full_evaluation, write_records
from tunesmith import pipeline
from tunesmith.receipt.build import build
from tunesmith.receipt.html import render, render_evaluation
from tunesmith.records import EvalReport, Receipt
from tunesmith.rules import finding


@pytest.fixture
def receipt(tmp_path: Path) -> Receipt:
    write_records(tmp_path)
    return build(tmp_path)


FIXED = {
    "compile",
    "sharding",
    "origin",
    "tier",
    "code",
    "severity",
    "status",
    "kind",
    "metric",
    "primary",
    "better",
    "suite",
    "change",
    "layout",
    "loss_on",
    "source",
    "device",
    "created",
    "started",
    "finished",
    "filename",
}


def test_everything_is_there(receipt: Receipt) -> None:
    page = Page(render(receipt))
    assert page.open == []
    for words in (
        "builtin:small, tuned on tickets.jsonl",
        "SFT, LoRA of rank 16",
        "✓ Better than its base",
        "0.5 % → 98.5 %",
        "✓ Every row trains its stop token",
        "✓ Export verified",
        "D009 warning tickets.jsonl 2 of 1,000 rows repeat an earlier row exactly.",
        "exact match higher is better 0.5 % 98.5 % +98.0 points +95.1 to +99.5 points 0 < 0.0001 better",
        "1 broken row",
        "197 fixed rows, 1 shown",
        "✗ Tuned",
        "prompt-completion",
        "40,310 of 88,214",
        "Optimizer steps 250 250",
        "Time in the training loop 30.0 s to 1 min 30 s 31.4 s",
        "Trained parameters 157,440 157,440 36.61 % of 430,000",
        "Memory at the peak 953.7 MiB 1.0 GiB +7% from the plan; the allocator held 2.0 GiB",
        "Cost 1.00 to 4.00 USD",
        "nats per trained token",
        "The longest row has 102 tokens",
        "✓ passed distributions model-f16.gguf 3.1e-06 0.001",
        "trl 1.16.0",
        "method: sft",
    ):
        assert words in page.words, words


def test_an_evaluation_has_a_page_of_its_own() -> None:
    page = Page(pipeline.evaluation_page(make_full_evaluation()))
    assert page.open == []
    for words in (
        "tunesmith evaluation tickets against builtin:small",
        "✗ Better than its base, but worse elsewhere 0.5 % → 98.5 %",
        "The tuned model is better than its base in exact match",
        "What was asked for: ✗ not met instructions_followed of the regression suite got worse",
        "instructions followed higher is better 62.0 % 31.0 % -31.0 points -43.0 to -19.0 points 0 0.0004 worse",
        "neutral text, bits per byte lower is better, bits per byte 1.31 1.33 +0.02 +0.002 to +0.038 0 0.0004 kept",
        "shop_questions: acc,none higher is better 41.0 % 46.0 % +5.0 points -4.0 to +14.0 points 0 0.63 alone 0.41",
        "harmless safety 1 0.96 0.95 -0.01",
        "Both orders agree 87.0 % Standing first gains +0.04, p 0.21",
        "Tuned tickets 200 99.5 % 0.0 % 1.0 % 41.2",
        "training saw 10 exactly and 2 nearly",
        "For example held-out row 4 is training row 71.",
        "Difference p, not corrected exact match 188 0.5 % 98.4 % +97.9 points < 0.0001",
        "Unclear; these differences would show with a power of 80 %: harmful asks refused 30.0 points.",
        "conversations, by the rubric 23 12 groups",
        "Cohen's h +2.8 +3.0 points",
        "McNemar, exact, two-sided +0.05",
        "Measured with lm-eval 0.4.13, sacrebleu 2.6.0.",
    ):
        assert words in page.words, words


def test_hostile_text_stays_text_on_the_page_of_an_evaluation() -> None:
    report = make_full_evaluation().model_copy(update={"findings": [finding("E001", "w", units="3 rows")]})
    attacked = EvalReport.model_validate(hostile(report.model_dump(), FIXED))
    page, plain = Page(render_evaluation(attacked)), Page(render_evaluation(report))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    assert "<script" not in render_evaluation(attacked)
    assert "⟨U+202E⟩evil" in page.words


def test_trained_and_masked_tokens_are_told_apart_without_colour(receipt: Receipt) -> None:
    page = render(receipt)
    assert '<span class="trained">{&#34;customer&#34;' in page
    assert '<span class="masked">&lt;|im_start|&gt;user↵' in page
    rule = re.search(r"\.trained \{(.*?)\}", page, re.DOTALL)
    assert rule is not None
    assert "underline" in rule[1]
    assert re.search(r'\.trained::before \{ content: "\["', page)


def test_broken_rows_come_first_and_open(receipt: Receipt) -> None:
    details = [attributes for tag, attributes in Page(render(receipt)).tags if tag == "details"]
    assert details == [{"open": None}, {}, {}], "broken rows, fixed rows, how sure"


def test_rows_that_score_more_are_better_and_not_fixed(receipt: Receipt) -> None:
    assert receipt.evaluation is not None
    rows = [row.model_copy(update={"scores": (0.125, 0.25)}) for row in receipt.evaluation.changed]
    evaluation = receipt.evaluation.model_copy(update={"changed": rows})
    words = Page(render(receipt.model_copy(update={"evaluation": evaluation}))).words
    assert "1 worse row" in words
    assert "Better rows" in words
    assert "0.25 Tuned" in words
    assert "broken row" not in words


def test_changes_of_a_kind_that_did_not_happen_have_no_heading(receipt: Receipt) -> None:
    assert receipt.evaluation is not None
    evaluation = receipt.evaluation.model_copy(update={"broken": 0, "changed": receipt.evaluation.changed[:1]})
    page = Page(render(receipt.model_copy(update={"evaluation": evaluation})))
    assert [tag for tag, _ in page.tags].count("details") == 2
    assert "broken rows" not in page.words


@pytest.mark.parametrize("missing", ["evaluation", "export", "events"])
def test_missing_records_leave_no_hole(tmp_path: Path, missing: str) -> None:
    write_records(tmp_path, leave_out=(missing,))
    page = Page(render(build(tmp_path)))
    told = {"evaluation": "! Not compared with its base", "export": "! Not exported", "events": "Fewer than two losses"}
    assert told[missing] in page.words
    links = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    ids = {f"#{attributes['id']}" for _, attributes in page.tags if "id" in attributes}
    assert links <= ids


def test_a_bare_receipt_is_rendered(receipt: Receipt) -> None:
    data = receipt.data.model_copy(update={"lengths": None, "audit": None, "columns": []})
    run = receipt.run.model_copy(update={"audit": None, "finished": None, "parameters_trained": None, "loss": None})
    plan = receipt.plan.model_copy(update={"peft": None, "choices": [], "test": None})
    bare = {"data": data, "run": run, "plan": plan, "evaluation": None, "export": None, "curve": [], "findings": []}
    page = Page(render(receipt.model_copy(update=bare)))
    assert "SFT, all weights" in page.words
    assert "! Labels not audited" in page.words
    assert "No stage found anything" in page.words


def test_hostile_text_stays_text(receipt: Receipt) -> None:
    plain, page = Page(render(receipt)), render(Receipt.model_validate(hostile(receipt.model_dump(), FIXED)))
    attacked = Page(page)
    assert [tag for tag, _ in attacked.tags] == [tag for tag, _ in plain.tags]
    assert {name for _, attributes in attacked.tags for name in attributes} == {
        name for _, attributes in plain.tags for name in attributes
    }
    assert "<script" not in page
    assert "<img" not in page
    assert "\u202e" not in page
    assert "\x00" not in page
    assert "\x1b" not in page
    assert "⟨U+202E⟩evil" in attacked.words
    assert "{{7*7}}" in attacked.words


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.text(st.characters(exclude_categories=["Cs"])))
def test_no_text_makes_a_tag(receipt: Receipt, value: str) -> None:
    finding = receipt.findings[0].model_copy(update={"what": value, "where": value})
    small = {"curve": [], "evaluation": None, "export": None}
    page = Page(render(receipt.model_copy(update=small | {"findings": [finding]})))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in Page(render(receipt.model_copy(update=small))).tags]


def test_huge_text_is_shortened(receipt: Receipt) -> None:
    finding = receipt.findings[0].model_copy(update={"what": "x" * 1_000_000, "where": "y" * 1_000_000})
    huge = render(receipt.model_copy(update={"findings": [finding]}))
    assert len(huge) < len(render(receipt)) + 2_000
    assert "[…999,400 characters…]" in huge


def test_nothing_comes_from_elsewhere(receipt: Receipt) -> None:
    page = render(receipt)
    assert "http://" not in page
    assert "https://" not in page
    assert "url(" not in page
    assert "@import" not in page
    parsed = Page(page)
    assert not {tag for tag, _ in parsed.tags} & {"script", "link", "iframe", "img", "object", "embed", "base"}
    assert all(not name.startswith("on") and name != "src" for _, attributes in parsed.tags for name in attributes)
    policy = next(attributes["content"] for _, attributes in parsed.tags if "http-equiv" in attributes)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_the_page_is_for_light_dark_narrow_and_paper(receipt: Receipt) -> None:
    page = render(receipt)
    assert "@media (prefers-color-scheme: dark)" in page
    assert "@media print" in page
    assert "@media (max-width:" in page
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in Page(page).tags
