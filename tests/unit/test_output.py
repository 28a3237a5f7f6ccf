"""What reaches the terminal, and where."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tunesmith.cli.data_views import show_audit, show_data
from tunesmith.cli.output import Output, harmless, one_line, safe
from tunesmith.cli.views import show_export
from tunesmith.errors import UsageError
from tunesmith.records import Column, DataReport, Event, LabelAudit, Manifest, PreviewRow, Span, Verdict
from tunesmith.rules import finding

NASTY = "\x1b[31mred\x1b[0m \x9b2J \u202egnp.exe [red]x[/] [/] :smile: \x07\x00\u2066 \\"
ACTING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def report(text: str) -> DataReport:
    return DataReport(
        source=text,
        sha256="0",
        bytes=1,
        rows=1,
        columns=[Column(name=text, type=text, nulls=0, example=text)],
        layout="messages",
        verdicts=[Verdict(method="sft", status="NEEDS MAPPING", reason=text, mapping={"prompt": text})],
        model=text,
    )


def audit(spans: list[Span]) -> LabelAudit:
    return LabelAudit(
        prepared_by="trl",
        layout="messages",
        loss_on="assistant",
        max_length=10,
        rows=1,
        rows_kept=1,
        tokens=4,
        trained_tokens=2,
        trained_percent=50.0,
        stop_tokens=["[/]"],
        rows_without_stop=0,
        rows_cut=0,
        bos_per_row={"0": 1},
        preview=[PreviewRow(row=1, spans=spans)],
    )


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Iterator[Terminal]:
    """Both streams as one terminal of 80 columns that knows colours."""
    stream = Terminal()
    for name, value in ({"COLUMNS": "80", "TERM": "xterm-256color"} | environment).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    yield stream


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t")))  # rich widens tabs by cells
def test_safe_text_comes_out_of_markup_as_it_went_in(text: str) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=1000, emoji=False, highlight=False)
    console.print(f"[bold]{safe(text)}[/]|", soft_wrap=True, end="")
    # A run of backslashes before a closing tag may lose one; nothing else changes.
    expected = harmless(text)
    assert re.sub(r"\\+\|$", "|", stream.getvalue()) == re.sub(r"\\+\|$", "|", f"{expected}|")


@given(st.text(alphabet=st.characters(categories=["Cc", "Cf", "Cs", "L"])))
def test_nothing_that_a_terminal_acts_on_is_left(text: str) -> None:
    assert not ACTING.search(harmless(text))
    harmless(text).encode()
    assert "\n" not in one_line(text)


def test_harmless_keeps_what_is_harmless() -> None:
    text = "Grüße 日本 👩‍💻 שלום\u200f a\tb\nc [x]"
    assert harmless(text) == text


def test_data_on_the_terminal_is_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    show_data(Output(), report(NASTY))
    show_audit(Output(), audit([Span(text=NASTY, tokens=1, trained=True)]))
    out = capsys.readouterr().out
    assert not ACTING.search(out)
    assert "[red]x[/]" in out
    assert ":smile:" in out


def test_data_on_a_coloured_terminal_brings_no_sequences_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as stream:
        show_data(Output(), report(NASTY))
    ours = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    assert not ACTING.search(ours)
    assert "\x1b[31m" not in stream.getvalue()


def test_the_fragment_for_the_recipe_is_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    show_data(Output(), report("the: question, [x]"))
    shown = capsys.readouterr().out.partition("In the recipe, for sft:\n")[2].partition("\n")[0]
    assert yaml.safe_load(shown) == {"data": {"mapping": {"prompt": "the: question, [x]"}}}


def test_without_colour_signs_tell_what_is_trained(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = [Span(text="ask ", tokens=1, trained=False), Span(text="answer", tokens=1, trained=True)]
    show_audit(Output(), audit(spans))
    assert "ask {+answer+}" in capsys.readouterr().out
    with terminal(monkeypatch) as stream:
        show_audit(Output(), audit(spans))
    assert "{+" not in stream.getvalue()
    with terminal(monkeypatch, NO_COLOR="1") as stream:
        show_audit(Output(), audit(spans))
    assert "{+answer+}" in stream.getvalue()


def test_json_is_ascii_and_the_only_thing_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=True)
    output.show("words")
    output.table("title", ("a",), [("b",)])
    output.record(report(NASTY + "日本"))
    out, err = capsys.readouterr()
    assert out.isascii()
    assert "\x1b" not in out
    assert err == ""
    assert json.loads(out)["source"] == NASTY + "日本"


def test_json_of_several_records_is_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).record([report("a"), report("b")])
    assert [item["source"] for item in json.loads(capsys.readouterr().out)] == ["a", "b"]


def test_words_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.say("hello")
    output.next_step("train", "my recipe.yaml")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "hello\nNext: tunesmith train 'my recipe.yaml'\n"


def test_an_answer_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    Output().show("hello")
    assert capsys.readouterr() == ("hello\n", "")


def test_findings_the_worst_first_each_on_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    note = finding("D011", "eval", held="Only 3 rows are", seen="little can be seen")
    error = finding("D007", "rows.jsonl", count=1, found="a\nerror: forged [red]", rows="1")
    Output().findings([note, error])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("error D007 rows.jsonl: 1 row has a role")
    assert "a error: forged [red]" in lines[0]
    assert lines[2].startswith("note D011 eval: Only 3 rows")
    assert lines[3].startswith("    Hold out more")


def test_an_error_is_three_lines_whatever_it_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    Output().error(UsageError("a\nb [red]x", why="c\x1b[2Jd", fix="e\rf"))
    assert capsys.readouterr().err == "error: a b [red]x\n  why: c\N{REPLACEMENT CHARACTER}[2Jd\n  fix: e f\n"


def test_without_a_terminal_there_is_no_colour_and_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    with output.progress() as progress:
        for done in range(101):
            progress("score [x]", done, 100)
            progress("train", done, 100)
    output.findings([finding("D011", "eval", held="Only 3 rows are", seen="little can be seen")])
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    lines = [line for line in err.splitlines() if line.startswith("score")]
    assert lines == [f"score [x] {done}/100" for done in (0, 50, 100)]
    lines = [line for line in err.splitlines() if line.startswith("train")]
    assert lines == [f"train {done}/100" for done in range(0, 101, 10)]


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as stream:
        output = Output()
        with output.progress() as progress:
            progress("score", 3, 10)
    assert "3/10" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())


def test_progress_of_unknown_length(capsys: pytest.CaptureFixture[str]) -> None:
    with Output().progress() as progress:
        progress("Reading", 0, None)
    assert capsys.readouterr().err == "Reading\n"


def test_events_of_a_run_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    found = finding("R004", "training", first=1.0, last=2.0)
    with Output().progress() as progress:
        progress.event(Event(time=0, kind="start", step=0, data={"steps": 10}))
        progress.event(Event(time=0, kind="log", step=1, data={"loss": 2.5, "num_tokens": 100, "seconds": 2.0}))
        progress.event(Event(time=0, kind="eval", step=1, data={"eval_loss": 2.25}))
        progress.event(Event(time=0, kind="finding", data=found.model_dump()))
    err = capsys.readouterr().err
    assert "train 1/10  loss 2.5000  50 tok/s" in err
    assert "step 1: held-out loss 2.2500" in err
    assert f"{found.severity} R004 training" in err


def test_rows_that_miss_the_fast_path_are_told_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    fast = {"encoder": "tiktoken", "not_taken": None, "slower": None}
    slower = fast | {"encoder": "tokenizers", "slower": "ids\ndiffer [here]"}
    refused = {"encoder": "", "not_taken": "the template refuses a row\x1b[31m", "slower": None}
    with Output().progress() as progress:
        for data in ({}, {"train": fast}, {"train": slower, "eval": refused}):
            progress.event(Event(time=0, kind="rows", data=data))
    assert capsys.readouterr().err.splitlines() == [
        "train rows encoded by tokenizers, not by tiktoken: ids differ [here]",
        "eval rows prepared by TRL, not on the fast path: the template refuses a row\ufffd[31m",
    ]


@pytest.mark.parametrize(("columns", "widest"), [("80", 80), ("60", 60)])
@pytest.mark.parametrize("tty", [True, False])
def test_tables_wrap_at_the_width_and_lose_nothing(
    columns: str, widest: int, tty: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = " ".join(f"word{number}" for number in range(40))
    monkeypatch.setenv("COLUMNS", columns)
    if tty:
        with terminal(monkeypatch, COLUMNS=columns, NO_COLOR="1") as stream:
            Output().table("Title", ("name", "value", "reason"), [("max_length", "x" * 30, reason)])
        text = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    else:
        Output().table("Title", ("name", "value", "reason"), [("max_length", "x" * 30, reason)])
        text = capsys.readouterr().out
    assert max(len(line.rstrip()) for line in text.splitlines()) <= widest
    assert [word for word in text.split() if word.startswith("word")] == reason.split()


def test_without_terminal_and_columns_tables_are_100_wide(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS")
    Output().table("", ("a", "b"), [("x", "word " * 100)])
    assert 90 < max(map(len, capsys.readouterr().out.splitlines())) <= 100


def test_a_table_without_headings_has_no_empty_line_for_them(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table("Plan", ("", ""), [("model", "small")])
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [["Plan"], ["model", "small"], []]


def test_of_thousands_of_columns_the_first_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    columns = [Column(name=f"column_{number}", type="text", nulls=0, example="x") for number in range(1050)]
    show_data(Output(), report("x").model_copy(update={"columns": columns}))
    out = capsys.readouterr().out
    assert out.count("column_") == 50
    assert "and 1,000 more" in out
    show_data(Output(), report("x").model_copy(update={"columns": columns[:50]}))
    assert " more" not in capsys.readouterr().out


def test_an_export_of_nothing_says_where_the_adapter_lies(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = Manifest(artifacts=[], checks=[], verifier=None, passed=True, seconds=0.0, findings=[])
    show_export(Output(as_json=False), nothing)
    shown = " ".join(capsys.readouterr().out.split())
    assert shown == "Nothing to merge: the result is the adapter in the run's folder model/."
