"""The data report as a page: complete, self-contained, and safe with any text."""

import re

import pytest

from tests.support.pages import Page, hostile
from tunesmith.receipt.chart import length_histogram
from tunesmith.receipt.data_page import figures, fragment, headline, render, saving
from tunesmith.records import (
    Column,
    DataReport,
    Finding,
    Histogram,
    LabelAudit,
    LayoutShare,
    Lengths,
    Packing,
    PreviewRow,
    Quality,
    SourceFile,
    Span,
    TokenLengths,
    Verdict,
)

LENGTHS = Lengths(rows=90, min=4, mean=60.0, median=50, p90=100, p95=120, p99=180, max=200, total=5400)
FIXED = {"code", "severity", "status", "layout", "loss_on", "method"}


def full() -> DataReport:
    return DataReport(
        source="/data/tickets.jsonl",
        sha256="ab" * 32,
        bytes=12_345,
        files=[
            SourceFile(name="tickets.jsonl", bytes=12_000, sha256="cd" * 32, rows=95),
            SourceFile(name="more.csv", bytes=345, sha256="ef" * 32, rows=5),
        ],
        rows=90,
        rows_invalid=10,
        duplicates=3,
        columns=[Column(name="question", type="text", nulls=0, example="What is it?")],
        layout="question-answer",
        composition=[
            LayoutShare(layout="question-answer", rows=95, share=0.95, columns={"prompt": "question"}, examples=[1, 2]),
            LayoutShare(layout="text", rows=5, share=0.05, columns={"text": "text"}, examples=[7]),
        ],
        features={"tool_calls": 4},
        verdicts=[
            Verdict(
                method="sft", status="NEEDS MAPPING", reason="Guess.", mapping={"prompt": "question"}, code="load()"
            ),
            Verdict(method="kto", status="READY", reason="Marked.", filter={"label": True}),
            Verdict(method="dpo", status="INCOMPATIBLE", reason="No pairs."),
        ],
        recommended="sft",
        recommended_reason="Questions with answers.",
        model="builtin:small",
        lengths=TokenLengths(total=LENGTHS),
        histogram=Histogram(edges=[4, 16, 64, 256], rows=[10, 60, 20]),
        max_length=256,
        max_length_reason="No row is cut.",
        packing=Packing(max_length=256, rows=90, sequences=22, fill=0.958, gain=1.84),
        tokens_per_epoch=2_500,
        audit=LabelAudit(
            prepared_by="trl",
            layout="prompt-completion",
            loss_on="completion",
            max_length=128,
            rows=90,
            rows_kept=90,
            tokens=5000,
            trained_tokens=2500,
            trained_percent=50.0,
            stop_tokens=["</s>"],
            rows_without_stop=0,
            rows_cut=9,
            bos_per_row={0: 90},
            preview=[PreviewRow(row=1, spans=[Span(text="ask", tokens=1, trained=False)])],
        ),
        findings=[Finding(code="D009", severity="warning", where="tickets", what="Repeated.", fix="Remove.")],
    )


def test_everything_is_there() -> None:
    page = Page(render(full()))
    assert page.open == []
    for words in (
        "tickets.jsonl",
        "100 rows",
        "! sft needs a mapping Guess.",
        "D009 warning tickets Repeated. Remove.",
        "Recommended: sft . Questions with answers.",
        "data: {mapping: {prompt: question}}",
        "The same in Python load()",
        "data: {filter: {label: true}}",
        "dpo INCOMPATIBLE No pairs.",
        "Usable for sft 90",
        "With errors 10",
        "Tool calls 4 rows",
        "text 5 5.0 % text: text 7",
        "question text 0 What is it?",
        "more.csv 5 345 B",
        "Recommended max_length 256",
        "Tokens trained in one epoch 2,500",
        "Packed 90 rows into 22",
        "95.8 %",
        "padded batches of 8 rows hold 1.84 times as many tokens",
        "2,500 of 5,000",
    ):
        assert words in page.words, words


def test_a_bare_report_is_rendered() -> None:
    bare = {"audit": None, "lengths": None, "histogram": None, "files": [], "findings": [], "composition": []}
    page = Page(render(full().model_copy(update={**bare, "features": {}, "columns": []})))
    assert "Nothing to complain of." in page.words
    links = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    assert links <= {f"#{attributes['id']}" for _, attributes in page.tags if "id" in attributes}


def test_hostile_text_stays_text() -> None:
    report = full()
    page = render(DataReport.model_validate(hostile(report.model_dump(), FIXED)))
    attacked, plain = Page(page), Page(render(report))
    assert [tag for tag, _ in attacked.tags] == [tag for tag, _ in plain.tags]
    for sign in ("<script", "<img", "\u202e", "\x00", "\x1b"):
        assert sign not in page
    assert "⟨U+202E⟩evil" in attacked.words


@pytest.mark.parametrize(
    ("change", "tone", "title"),
    [
        ({"method": "sft"}, "unsure", "sft needs a mapping"),
        ({"method": "dpo"}, "bad", "Not for dpo"),
        ({"method": "reward"}, "bad", "Not for reward"),
        ({"method": "kto"}, "unsure", "Ready for kto"),
        ({"method": "kto", "findings": []}, "good", "Ready for kto"),
    ],
)
def test_the_headline_is_about_the_method(change: dict[str, object], tone: str, title: str) -> None:
    line = headline(full().model_copy(update=change))
    assert (line.tone, line.title) == (tone, title)


def test_errors_come_before_warnings_in_the_headline() -> None:
    error = full().findings[0].model_copy(update={"severity": "error"})
    line = headline(full().model_copy(update={"method": "kto", "findings": [error, *full().findings]}))
    assert (line.tone, line.title) == ("bad", "1 error to repair")


def test_packing_that_brings_nothing_says_so() -> None:
    packing = Packing(max_length=64, rows=9, sequences=3, fill=0.8, gain=0.9)
    assert saving(packing) == "padded batches of 8 rows hold no more tokens"


def test_a_verdict_that_needs_nothing_has_no_fragment() -> None:
    assert fragment(Verdict(method="sft", status="READY", reason="")) == ""


def test_figures_of_quality_are_named_in_words() -> None:
    quality = Quality(
        rows=1_200,
        duplicates=0,
        near_duplicates=3,
        near_duplicate_threshold=0.8,
        prompts_with_several_answers=0,
        chosen_longer_share=0.6789,
        secrets={"API token": 2},
        contamination_checked="not checked",
    )
    shown = dict(figures(quality))
    assert (shown["Rows"], shown["Near duplicates"], shown["Chosen longer share"]) == ("1,200", "3", "0.679")
    assert (shown["Secrets"], shown["Contamination checked"]) == ("API token 2", "not checked")
    assert "Personal data" not in shown
    assert "Median answer characters" not in shown


def bars(svg: str) -> list[tuple[float, float, float]]:
    found = re.findall(r'class="column" x="([\d.]+)" y="[\d.]+" width="([\d.]+)" height="([\d.]+)"', svg)
    return [(float(x), float(width), float(height)) for x, width, height in found]


def test_bars_are_as_high_as_their_rows_and_as_wide_as_each_other() -> None:
    svg = str(length_histogram(Histogram(edges=[1, 10, 100, 1000], rows=[10, 0, 20]), None))
    (_, first, low), (_, second, high) = bars(svg)
    assert (first, round(high / low, 1)) == (second, 2.0)
    assert "max_length" not in svg.partition("</svg>")[0].replace("max_length none", "")


@pytest.mark.parametrize(("limit", "share"), [(1, 0.0), (10, 1 / 3), (55, 0.5), (100, 2 / 3)])
def test_the_limit_stands_where_its_length_is(limit: int, share: float) -> None:
    svg = str(length_histogram(Histogram(edges=[1, 10, 100, 1000], rows=[1, 1, 1]), limit))
    at = re.search(r'class="limit" x1="([\d.]+)"', svg)
    assert at is not None
    assert float(at[1]) == pytest.approx(54 + share * (460 - 54 - 22), abs=0.1)


def test_a_limit_beyond_all_rows_is_not_drawn() -> None:
    assert 'class="limit"' not in str(length_histogram(Histogram(edges=[1, 10], rows=[3]), 10))


def test_of_thousands_of_columns_the_first_are_shown() -> None:
    columns = [Column(name=f"column_{number}", type="text", nulls=0, example="x") for number in range(1200)]
    page = render(full().model_copy(update={"columns": columns}))
    assert page.count("<code>column_") == 200
    assert "and 1,000 more" in page
    assert "and 0 more" not in render(full().model_copy(update={"columns": columns[:200]}))
