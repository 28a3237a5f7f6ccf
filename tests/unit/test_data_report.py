"""The data report: everything wrong with a file is in its findings."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tunesmith.data.report import inspect
from tunesmith.errors import UsageError
from tunesmith.files import sha256
from tunesmith.records import DataReport
from tunesmith.rules import FindingsError

GOOD = [{"prompt": f"question {n}", "completion": "answer", "id": n} for n in range(4)]


class Characters:
    """A light encoder that counts characters and refuses the letter z."""

    has_generation_marks = True
    template: str | None = None

    def encode_rows(self, rows: Sequence[dict[str, Any]], layout: str) -> tuple[list[int] | None, list[int]]:
        if any("z" in row["prompt"] for row in rows):
            raise RuntimeError("no z here")
        return [len(row["prompt"]) for row in rows], [len(row["prompt"] + row["completion"]) for row in rows]

    def left_out(self, rows: Sequence[dict[str, Any]]) -> dict[str, int]:
        counts = {"tools": sum("tools" in row for row in rows)}
        return {part: count for part, count in counts.items() if count}

    def with_special_tokens(self, rows: Sequence[dict[str, Any]]) -> tuple[int, list[str]]:
        return sum("<s>" in json.dumps(row) for row in rows), ["<s>"]


def put(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_clean_file(tmp_path: Path) -> None:
    path = put(tmp_path, GOOD)
    report = inspect(path, light=Characters(), model="m")
    assert (report.source, report.sha256, report.bytes) == (str(path), sha256(path), path.stat().st_size)
    assert (report.rows, report.rows_invalid, report.duplicates, report.model) == (4, 0, 0, "m")
    assert report.layout == "prompt-completion"
    assert [(verdict.method, verdict.status) for verdict in report.verdicts] == [("sft", "READY")]
    assert [(column.name, column.type) for column in report.columns] == [
        ("prompt", "text"),
        ("completion", "text"),
        ("id", "number"),
    ]
    assert report.lengths is not None
    assert report.lengths.total.total == 4 * len("question 0answer")
    assert (report.findings, report.audit) == ([], None)


def test_the_report_can_be_saved_and_read_back(tmp_path: Path) -> None:
    report = inspect(put(tmp_path, GOOD), light=Characters())
    report.save(tmp_path)
    assert DataReport.load(tmp_path) == report


def test_bad_rows_are_reported_not_raised(tmp_path: Path) -> None:
    path = put(tmp_path, [*GOOD, {"prompt": "x", "completion": ""}, GOOD[0]])
    report = inspect(path)
    assert (report.rows, report.rows_invalid, report.duplicates, report.lengths) == (5, 1, 1, None)
    assert [(finding.code, finding.severity) for finding in report.findings] == [("D012", "error"), ("D009", "warning")]
    assert [finding.code for finding in inspect(path, bad_rows="drop").findings] == ["D014", "D009"]


def test_an_unknown_layout_is_reported_not_raised(tmp_path: Path) -> None:
    report = inspect(put(tmp_path, [{"question": "a", "answer": "b"}]))
    assert (report.layout, report.rows, report.rows_invalid) == ("unknown", 0, 1)
    assert report.verdicts[0].mapping == {"prompt": "question", "completion": "answer"}
    assert [finding.code for finding in report.findings] == ["D004"]
    assert [column.example for column in report.columns] == ["a", "b"]


def test_no_usable_row_is_reported_not_raised(tmp_path: Path) -> None:
    report = inspect(put(tmp_path, [{"prompt": "x", "completion": ""}]))
    assert (report.layout, report.rows, report.rows_invalid) == ("prompt-completion", 0, 1)
    assert [finding.code for finding in report.findings] == ["D012", "D002"]


def test_t008_rows_that_the_light_encoder_refuses(tmp_path: Path) -> None:
    report = inspect(put(tmp_path, [*GOOD, {"prompt": "z", "completion": "b"}]), light=Characters())
    assert report.lengths is None
    assert [(finding.code, finding.what) for finding in report.findings] == [
        ("T008", "1 rows can't be rendered by the model's chat template: no z here (rows 5).")
    ]


def test_a_file_that_cant_be_read_raises(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        inspect(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(FindingsError):
        inspect(tmp_path / "empty.jsonl")


class Chat(Characters):
    """A light encoder with a template, without marks."""

    has_generation_marks = False
    template = "{{ messages }}"

    def encode_rows(self, rows: Sequence[dict[str, Any]], layout: str) -> tuple[list[int] | None, list[int]]:
        return [len(row["prompt"]) for row in rows], [len(row["prompt"] + row["completion"]) for row in rows]


def test_rows_are_laid_out_as_the_models_template_allows(tmp_path: Path) -> None:
    texts = inspect(put(tmp_path, GOOD), light=Chat())
    assert texts.lengths is not None
    assert texts.lengths.total.max == 2  # messages
    turns = [{"role": role, "content": "a"} for role in ("user", "assistant", "user", "assistant")]
    talks = put(tmp_path, [{"messages": turns}])
    assert [finding.code for finding in inspect(talks, light=Chat()).findings] == ["D015"]
    assert inspect(talks).findings == []


def test_t011_and_t013_what_the_template_does_to_conversations(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a <s>"}, {"role": "assistant", "content": "b"}]
    clean = {"messages": [{**turn, "content": "c"} for turn in turns]}
    path = put(tmp_path, [{"messages": turns, "tools": [{"name": "f"}]}, clean])
    found = {finding.code: finding for finding in inspect(path, light=Chat()).findings}
    assert found.keys() == {"T011", "T013"}
    assert (found["T011"].severity, found["T011"].where) == ("error", "rows.jsonl")
    assert found["T011"].what == "1 of 2 rows have tools that the model's chat template doesn't render."
    assert found["T013"].severity == "warning"
    assert found["T013"].what == "1 of 2 rows contain special tokens of the model in their text (<s>)."
    assert inspect(put(tmp_path, [clean]), light=Chat()).findings == []


def test_texts_may_hold_special_tokens(tmp_path: Path) -> None:
    """They are rendered already, or no template renders them."""
    path = put(tmp_path, [{"prompt": "<s>", "completion": "b"}])
    assert inspect(path, light=Characters()).findings == []


def test_progress_is_reported(tmp_path: Path) -> None:
    heard: list[tuple[str, int, int | None]] = []
    inspect(put(tmp_path, GOOD), progress=lambda *told: heard.append(told))
    assert heard == [("Reading", 0, None), ("Counting tokens", 0, 4)]


def test_nothing_heavy_is_imported_on_the_way_to_a_plan(tmp_path: Path) -> None:
    path = put(tmp_path, GOOD)
    code = (
        "import sys; from pathlib import Path; from tunesmith.data import report, split, tokens; "
        f"report.inspect(Path({str(path)!r})); "
        "heavy = ('torch', 'transformers', 'datasets', 'pyarrow', 'numpy', 'trl'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
