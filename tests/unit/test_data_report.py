"""The data report: everything wrong with a file is in its findings."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tunesmith.data import report as report_module
from tunesmith.data.report import inspect
from tunesmith.errors import UsageError
from tunesmith.files import sha256
from tunesmith.recipe.schema import Mapping
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

    def render(self, messages: list[dict[str, Any]], **options: Any) -> str:
        return "".join(message["content"] for message in messages) + "<s>"

    def stop_tokens(self) -> list[str]:
        return ["<s>"]

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
    assert [verdict.method for verdict in report.verdicts] == ["sft", "dpo", "grpo", "rloo", "kto", "reward", "clm"]
    assert (report.verdicts[0].status, report.method, report.recommended) == ("READY", "sft", "sft")
    assert [(share.layout, share.rows) for share in report.composition] == [("prompt-completion", 4)]
    assert [(file.name, file.rows) for file in report.files] == [(str(path), 4)]
    assert [(column.name, column.type) for column in report.columns] == [
        ("prompt", "text"),
        ("completion", "text"),
        ("id", "number"),
    ]
    assert report.lengths is not None
    assert report.lengths.total.total == 4 * len("question 0answer")
    assert (report.findings, report.audit) == ([], None)
    assert (report.histogram and sum(report.histogram.rows), report.max_length) == (4, 64)
    assert report.packing is not None
    assert report.tokens_per_epoch == 4 * len("answer")
    assert report.quality is not None


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


@pytest.mark.parametrize(
    ("row", "layout"), [({"query": "a", "response": "b"}, "prompt-completion"), ({"x": "a", "y": "b"}, "unknown")]
)
def test_a_layout_that_cant_be_used_is_reported_not_raised(tmp_path: Path, row: dict[str, str], layout: str) -> None:
    report = inspect(put(tmp_path, [row]))
    assert (report.layout, report.rows, report.rows_invalid) == (layout, 0, 1)
    assert [finding.code for finding in report.findings] == ["D004"]
    assert [column.example for column in report.columns] == ["a", "b"]
    if report.verdicts[0].status == "NEEDS MAPPING":
        mapped = inspect(put(tmp_path, [row]), mapping=Mapping(**report.verdicts[0].mapping or {}))
        assert (mapped.rows, mapped.verdicts[0].status) == (1, "READY")


def test_the_method_is_by_default_the_one_that_the_data_is_made_for(tmp_path: Path) -> None:
    path = put(tmp_path, [{"prompt": f"p{n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(3)])
    assert (inspect(path).method, inspect(path).rows) == ("dpo", 3)
    forced = inspect(path, method="sft")
    assert (forced.method, forced.rows, [finding.code for finding in forced.findings]) == ("sft", 0, ["D004"])


def test_trained_tokens_of_conversations_are_not_guessed(tmp_path: Path) -> None:
    roles = ("user", "assistant", "user", "assistant")
    path = put(tmp_path, [{"messages": [{"role": role, "content": f"{role} {n}"} for n, role in enumerate(roles)]}])

    class Marked(Chat):
        has_generation_marks = True

        def encode_rows(self, rows: Sequence[dict[str, Any]], layout: str) -> tuple[list[int] | None, list[int]]:
            return None, [10] * len(rows)

    assert inspect(path, light=Marked()).tokens_per_epoch is None


def test_d043_half_a_surrogate_inside_json_text(tmp_path: Path) -> None:
    row = {**GOOD[0], "tools": '[{"name": "\\ud800"}]'}
    report = inspect(put(tmp_path, [*GOOD[1:], row, {**GOOD[0], "tools": '[{"name": "f"}]'}]))
    assert [(found.code, found.severity) for found in report.findings] == [("D043", "error")]
    assert report.rows == 4


def test_a_filter_for_true_matches_what_csv_writes(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion,good\na,x,True\nb,y,False\nc,z,true\n")
    assert inspect(path, method="sft", keep={"good": True}).rows == 2


def test_the_filter_keeps_only_its_rows(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "completion": f"a{n}", "label": n % 2 == 0} for n in range(6)]
    report = inspect(put(tmp_path, rows), method="sft", keep={"label": True})
    assert (report.rows, [finding.code for finding in report.findings]) == (3, ["D019"])


def test_rows_that_cant_be_parsed_are_counted(tmp_path: Path) -> None:
    path = put(tmp_path, GOOD)
    path.write_text(path.read_text() + "{broken\n")
    refused, dropped = inspect(path), inspect(path, bad_rows="drop")
    assert (refused.rows, refused.rows_invalid) == (dropped.rows, dropped.rows_invalid) == (4, 1)
    assert [finding.code for finding in refused.findings] == ["D001"]
    assert [finding.code for finding in dropped.findings] == ["D014"]


def test_several_files_are_one_report(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text(
            "".join(json.dumps({**row, "prompt": f"{name} {row['id']}"}) + "\n" for row in GOOD)
        )
    report = inspect([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")])
    assert (report.rows, [file.rows for file in report.files], report.source) == (8, [4, 4], "2 files")
    assert inspect(tmp_path).sha256 == report.sha256


def test_d044_of_large_files_some_figures_are_of_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[dict[str, Any]] = [{"prompt": f"question {n}", "completion": f"answer {n}"} for n in range(100)]
    path = put(tmp_path, rows)
    assert "D047" not in [finding.code for finding in inspect(path).findings]
    monkeypatch.setattr("tunesmith.data.report._HELD", 100)
    monkeypatch.setattr("tunesmith.data.report._EXAMINED", 40)
    report = inspect(path, light=Characters())
    assert [finding.code for finding in report.findings] == ["D047"]
    assert (report.rows, report.rows_invalid, report.examined, report.composition[0].rows) == (100, 0, 34, 100)
    assert report.lengths is not None
    assert report.lengths.total.rows == 34
    for bad in (98, 99):  # neither of them in the sample, or one
        rows[bad] = {"prompt": "x", "completion": None}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    found = inspect(path)
    assert (found.rows, found.rows_invalid) == (98, 3)
    assert {finding.code: finding.what.split(" rows")[0] for finding in found.findings}["D005"] == "2"


def test_no_usable_row_is_reported_not_raised(tmp_path: Path) -> None:
    report = inspect(put(tmp_path, [{"prompt": "x", "completion": ""}]))
    assert (report.layout, report.rows, report.rows_invalid) == ("prompt-completion", 0, 1)
    assert (report.verdicts[0].status, report.verdicts[0].reason) == (
        "INCOMPATIBLE",
        "No row can be trained on (D012).",
    )
    assert [finding.code for finding in report.findings] == ["D012", "D002"]


def test_t008_rows_that_the_light_encoder_refuses(tmp_path: Path) -> None:
    report = inspect(put(tmp_path, [*GOOD, {"prompt": "z", "completion": "b"}]), light=Characters())
    assert report.lengths is None
    assert [(finding.code, finding.what) for finding in report.findings] == [
        ("T008", "1 row can't be rendered by the model's chat template: no z here (row 5).")
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
    roles = ("user", "assistant", "user", "assistant")
    turns = [{"role": role, "content": f"{role} {number}"} for number, role in enumerate(roles)]
    talks = put(tmp_path, [{"messages": turns}])
    assert [finding.code for finding in inspect(talks, light=Chat()).findings] == ["D015"]
    assert inspect(talks).findings == []


def test_t011_and_t013_what_the_template_does_to_conversations(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a <s>"}, {"role": "assistant", "content": "b"}]
    clean = {"messages": [{**turn, "content": turn["role"]} for turn in turns]}
    path = put(tmp_path, [{"messages": turns, "tools": [{"name": "f"}]}, clean])
    found = {finding.code: finding for finding in inspect(path, light=Chat()).findings}
    assert found.keys() == {"T011", "T013"}
    assert (found["T011"].severity, found["T011"].where) == ("error", "rows.jsonl")
    assert found["T011"].what == "1 of 2 rows has tools that the model's chat template doesn't render."
    assert found["T013"].severity == "warning"
    assert found["T013"].what == "1 of 2 rows contains special tokens of the model in its text (<s>)."
    assert inspect(put(tmp_path, [clean]), light=Chat()).findings == []


def test_texts_may_hold_special_tokens(tmp_path: Path) -> None:
    """They are rendered already, or no template renders them."""
    path = put(tmp_path, [{"prompt": "<s>", "completion": "b"}])
    assert inspect(path, light=Characters()).findings == []


def test_d039_d040_what_is_private_is_told_and_never_printed_whole(tmp_path: Path) -> None:
    key = "sk-proj-" + "a1B2c3D4e5F6g7H8" * 3
    rows = [{"prompt": f"question {n}", "completion": f"answer {n}"} for n in range(30)]
    rows[0] = {"prompt": "mail jane.doe@corp-mail.org", "completion": f"the key is {key}"}
    report = inspect(put(tmp_path, rows), light=Characters())
    assert {"D039", "D040"} <= {finding.code for finding in report.findings}
    assert key not in report.model_dump_json()
    assert key[:12] not in report.model_dump_json()
    assert "jane.doe" not in report.model_dump_json()
    assert report.columns[1].example == "the key is sk…"


def test_progress_is_reported(tmp_path: Path) -> None:
    heard: list[tuple[str, int, int | None]] = []
    inspect(put(tmp_path, GOOD), progress=lambda *told: heard.append(told))
    assert heard == [("Reading", 0, None), ("Counting tokens", 0, 4), ("Examining", 0, 4)]
    heard.clear()
    assert inspect(put(tmp_path, GOOD), quality=False, progress=lambda *told: heard.append(told)).quality is None
    assert heard == [("Reading", 0, None), ("Counting tokens", 0, 4)]


def test_nothing_heavy_is_imported_on_the_way_to_a_plan(tmp_path: Path) -> None:
    path = put(tmp_path, GOOD)
    code = (
        "import sys; from pathlib import Path; from tunesmith.data import report, split, tokens; "
        f"report.inspect(Path({str(path)!r})); "
        "heavy = ('torch', 'transformers', 'datasets', 'duckdb', 'trl', 'scipy', 'tiktoken'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def spoil(path: Path, row: str) -> Path:
    """The file with a row put into its middle."""
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:3], row, *lines[3:]]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize(
    "row",
    [
        '{"prompt": "a", "prompt": "b", "completion": "c"}',
        '{"prompt": "a", "completion": "c", "score": NaN}',
        '{"prompt": "a", "completion"',
    ],
)
def test_rows_that_other_readers_refuse_are_read_by_the_tools_own_code(
    row: str, held: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not held:
        monkeypatch.setattr(report_module, "_HELD", 0)
    pairs = [{"prompt": f"p{n}", "completion": f"c{n}"} for n in range(6)]
    plain = inspect(put(tmp_path, pairs)).verdicts[0].code
    assert plain is not None
    assert "load_dataset" in plain
    code = inspect(spoil(put(tmp_path, pairs), row)).verdicts[0].code
    assert code is not None
    assert "load_dataset" not in code
    names: dict[str, Any] = {}
    exec(code, names)
    assert [one["prompt"] for one in names["rows"] if one["prompt"].startswith("p")] == [f"p{n}" for n in range(6)]


def test_thousands_of_columns_take_no_time_and_are_told_in_short(tmp_path: Path) -> None:
    wide = [{f"column_{n}": f"value {n}" for n in range(10_000)}] * 5
    start = time.process_time()
    report = inspect(put(tmp_path, wide), quality=False)
    assert time.process_time() - start < 10
    assert len(report.columns) == 10_000
    (unknown,) = report.findings
    assert unknown.code == "D004"
    assert "column_0, column_1, " in unknown.what
    assert "and 9,980 more" in unknown.what
    assert len(unknown.what) < 1000
    with pytest.raises(UsageError) as caught:
        inspect(put(tmp_path, wide), mapping=Mapping(prompt="column_x", completion="column_1"))
    assert "and 9,980 more" in caught.value.why
    with pytest.raises(UsageError) as caught:
        inspect(put(tmp_path, wide), mapping=Mapping(prompt="column_0", completion="column_1"), keep={"kind": 1})
    assert "and 9,980 more" in caught.value.why
