"""A dataset made in steps: files, manifest, rejected rows, and what the folder may hold."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tunesmith.data.quality.near import clusters as near_clusters
from tunesmith.data.sources import read
from tunesmith.data.steps import convert, near, run
from tunesmith.data.steps import write as write_stage
from tunesmith.data.steps.run import prepare_dataset
from tunesmith.data.steps.work import Work
from tunesmith.errors import UsageError
from tunesmith.records import Preparation, PreparationSettings, PreparationStep
from tunesmith.rules import FindingsError

WORDS = [f"word{number}" for number in range(20)]


def pairs(count: int) -> list[dict[str, str]]:
    """Rows of prompt and completion, all different."""
    return [{"prompt": f"Number {n} of {n * 7919 % 1000}?", "completion": f"{n * 31}."} for n in range(count)]


def write(rows: list[Any], path: str = "rows.jsonl") -> str:
    """A file of rows; a text is written as it is."""
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    Path(path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def prepared(rows: list[Any] | None = None, output: str = "out", **asked: Any) -> Preparation:
    """The record of a dataset made of `rows`."""
    data = write(rows) if rows is not None else "rows.jsonl"
    return prepare_dataset(PreparationSettings(data=[data], **asked), Path(output))


def held(record: Preparation, output: str = "out") -> list[dict[str, Any]]:
    """The rows of all files."""
    return [row for file in record.files.values() for row in read(str(Path(output) / file.name)).rows]


def rejected(output: str = "out") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(output) / "rejected.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 7 rows, so that few rows make many."""
    for module in (convert, near, write_stage):
        monkeypatch.setattr(module, "CHUNK", 7)


def test_every_step_says_what_went_and_why(small_chunks: None) -> None:
    rows: list[Any] = [{**row, "lang": "en"} for row in pairs(100)]
    rows += [rows[3], rows[5], "{broken", {"prompt": "x", "completion": None, "lang": "en"}, {**rows[0], "lang": "de"}]
    record = prepared(rows, filter={"lang": "en"}, bad_rows="drop")
    steps = {step.name: (step.rows_in, step.rows_out, step.reasons) for step in record.steps}
    assert steps == {
        "read": (105, 104, {"D001 A row that can't be parsed": 1}),
        "filter": (104, 103, {'lang isn\'t "en"': 1}),
        "map": (103, 102, {"D005 Null where text is needed": 1}),
        "exact": (102, 100, {"equals an earlier row": 2}),
        "split": (100, 100, {}),
        "write": (100, 100, {}),
    }
    assert sum(file.rows for file in record.files.values()) == 100
    assert Preparation.load(Path("out")) == record
    assert [(one["step"], one["place"], one["found"]) for one in rejected()][:2] == [
        ("exact", 101, "row 4"),
        ("exact", 102, "row 6"),
    ]
    assert [one["place"] for one in rejected()] == [101, 102, 103, 104, 105]
    assert rejected()[3]["row"] == {"prompt": "x", "completion": None, "lang": "en"}
    assert [found.code for found in record.findings] == ["D014", "D019", "D011", "D011"]


def test_the_manifest_describes_the_files() -> None:
    record = prepared(pairs(100), seed=3)
    for file in [*record.files.values(), record.rejected]:
        content = (Path("out") / file.name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.bytes, file.sha256)
    assert record.settings.seed == 3
    assert record.sources[0].sha256 == hashlib.sha256(Path("rows.jsonl").read_bytes()).hexdigest()
    assert record.columns == ["prompt", "completion"]
    assert {path.name for path in Path("out").iterdir()} == {
        "README.md", "manifest.json", "rejected.jsonl", "train.parquet", "eval.parquet", "test.parquet",
    }  # fmt: skip


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_datasets_and_our_own_sources_read_it(form: str) -> None:
    from datasets import load_dataset

    record = prepared(pairs(200), format=form)
    loaded = load_dataset("out", cache_dir="cache")
    assert {name: len(part) for name, part in loaded.items()} == {n: f.rows for n, f in record.files.items()}
    assert sorted(held(record), key=str) == sorted(pairs(200), key=str)
    assert sorted((dict(row) for part in loaded.values() for row in part), key=str) == sorted(pairs(200), key=str)


ANSWERS = [{"good": f"It is {n}.", "bad": f"No idea about {n}."} for n in range(40)]
RAW = {
    "clm": [{"text": row["good"]} for row in ANSWERS],
    "dpo": [{"question": "What?", "chosen": row["good"], "rejected": row["bad"]} for row in ANSWERS],
    "kto": [{"prompt": "What?", "completion": row["good"], "label": n % 2 == 0} for n, row in enumerate(ANSWERS)],
    "grpo": [{"question": row["good"], "answer": str(n)} for n, row in enumerate(ANSWERS)],
    "sft": [{"instruction": row["good"], "input": "", "output": row["bad"], "system": "Be kind."} for row in ANSWERS],
}
COLUMNS = {
    "clm": ["text"],
    "dpo": ["prompt", "chosen", "rejected"],
    "kto": ["prompt", "completion", "label"],
    "grpo": ["prompt", "reference"],
    "sft": ["prompt", "completion"],
}


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
@pytest.mark.parametrize("method", RAW)
def test_each_method_gets_its_layout_which_stays_as_it_is(method: str, form: str) -> None:
    pair = {"prompt": "question", "chosen": "chosen", "rejected": "rejected"}
    mapping = {"dpo": pair, "grpo": {"prompt": "question", "reference": "answer"}}.get(method, {})
    record = prepared(RAW[method], method=method, mapping=mapping, format=form, eval=0, test=0)
    assert record.columns == COLUMNS[method]
    assert record.steps[-1].rows_out == 40
    made = PreparationSettings(data=[f"out/train.{form}"], method=method, format=form, eval=0, test=0)
    again = prepare_dataset(made, Path("again"))
    assert held(again, "again") == held(record)


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_tool_calls_come_back_as_they_were(form: str) -> None:
    from datasets import load_dataset

    def call(number: int, **arguments: Any) -> dict[str, Any]:
        spoken = {"type": "function", "function": {"name": "f", "arguments": arguments}}
        return {
            "messages": [
                {"role": "user", "content": f"Call {number}."},
                {"role": "assistant", "content": "", "tool_calls": [spoken]},
                {"role": "tool", "content": "1"},
                {"role": "assistant", "content": "Done."},
            ],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        }

    rows = [call(1, a=1), call(2, b="x"), call(3, a="text"), {"messages": call(4)["messages"][::3]}]
    record = prepared(rows, format=form, eval=0, test=0)
    back = [row["messages"] for row in held(record)]
    assert back == [row["messages"] for row in rows]
    loaded = load_dataset("out", split="train", cache_dir="cache")["messages"]
    if form == "parquet":  # JSON Lines leave it to `datasets` to put nulls where keys are absent
        assert list(loaded) == [row["messages"] for row in rows]


def test_rows_added_later_move_none(small_chunks: None) -> None:
    first = prepared(pairs(100))
    before = {name: read(f"out/{file.name}").rows for name, file in first.files.items()}
    second = prepared([*pairs(150)[100:], *reversed(pairs(100))], output="more")
    after = {name: read(f"more/{file.name}").rows for name, file in second.files.items()}
    for name, rows in before.items():
        assert all(row in after[name] for row in rows)


def test_a_group_stays_together() -> None:
    rows = [{**row, "user": f"u{n % 10}"} for n, row in enumerate(pairs(200))]
    users = {row["prompt"]: row["user"] for row in rows}
    record = prepared(rows, group="user", eval=0.3, test=0.3)
    sides = {n: {users[row["prompt"]] for row in read(f"out/{f.name}").rows} for n, f in record.files.items()}
    assert sum(map(len, sides.values())) == 10


def near_rows() -> list[dict[str, str]]:
    """Texts of which some are changed in a word or two."""
    texts = [
        " ".join(WORDS[(n * 7 + k * (n % 5 + 1)) % len(WORDS)] + str(n % 30) for k in range(40)) for n in range(60)
    ]
    return [{"text": text} for text in texts] + [{"text": f"{text} indeed"} for text in texts[:20]]


def test_near_duplicates_are_those_that_quality_finds(small_chunks: None) -> None:
    rows = near_rows()
    record = prepared(rows, dedup="near", eval=0, test=0)
    clusters = near_clusters([row["text"] for row in rows], threshold=0.8)
    survivors = [row for at, row in enumerate(rows) if clusters[at] == at]
    assert len(survivors) < len(rows) - 10
    assert held(record) == survivors
    went = {one["place"]: one["found"] for one in rejected() if one["step"] == "near"}
    assert went == {at + 1: f"row {clusters[at] + 1}" for at in range(len(rows)) if clusters[at] != at}


def test_without_dedup_all_rows_stay() -> None:
    record = prepared([*pairs(20), *pairs(20)], dedup="none", eval=0, test=0)
    assert record.files["train"].rows == 40
    assert [step.name for step in record.steps] == ["read", "filter", "map", "split", "write"]


def test_bad_rows_are_refused_and_the_work_is_kept_until_they_are_dropped() -> None:
    rows = [*pairs(20), {"prompt": "x", "completion": None}, "{broken"]
    with pytest.raises(FindingsError) as refusal:
        prepared(rows)
    assert {found.code for found in refusal.value.findings} == {"D001", "D005"}
    assert not Path("out/manifest.json").exists()
    record = prepared(bad_rows="drop")
    assert (record.steps[-1].rows_out, record.rejected.rows) == (20, 2)
    assert not Path("out/.work").exists()


def test_rows_that_no_method_can_train_on_leave_no_folder() -> None:
    with pytest.raises(FindingsError) as refusal:
        prepared([{"size": 1}, {"size": 2}])
    assert refusal.value.findings[0].code == "D004"
    assert not Path("out").exists()


def test_nothing_left_to_train_on() -> None:
    with pytest.raises(FindingsError) as refusal:
        prepared(pairs(5), filter={"prompt": "none like this"})
    assert refusal.value.findings[0].code == "D002"


def test_the_same_command_again_gives_the_same_record() -> None:
    first = prepared(pairs(30))
    before = {path: path.stat().st_mtime_ns for path in Path("out").iterdir()}
    assert prepared() == first
    assert {path: path.stat().st_mtime_ns for path in Path("out").iterdir()} == before


@pytest.mark.parametrize("left", ["finished", "begun"])
def test_other_settings_are_refused(left: str) -> None:
    write(pairs(30))
    if left == "begun":
        run.take(run.look(PreparationSettings(data=["rows.jsonl"]), Path("out")))
    else:
        prepared()
    with pytest.raises(UsageError, match="can't be used for this dataset") as refusal:
        prepared(seed=7)
    assert "other settings" in refusal.value.why


def test_another_source_is_refused() -> None:
    prepared(pairs(30))
    with pytest.raises(UsageError, match="can't be used"):
        prepared(pairs(31))


def test_a_folder_that_holds_something_else_is_left_alone() -> None:
    Path("out").mkdir()
    Path("out/notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="can't be used"):
        prepared(pairs(5))
    assert [path.name for path in Path("out").iterdir()] == ["notes.txt"]


def test_a_file_that_was_changed_is_told() -> None:
    prepared(pairs(30))
    Path("out/train.parquet").write_bytes(b"x")
    with pytest.raises(UsageError, match="can't be used") as refusal:
        prepared()
    assert "train.parquet" in refusal.value.why


def test_two_at_once() -> None:
    write(pairs(5))
    job = run.look(PreparationSettings(data=["rows.jsonl"]), Path("out"))
    run.take(job)
    with run.alone(job), pytest.raises(UsageError, match="written by another command"):
        prepared()


def test_an_interrupt_loses_the_unit_it_was_at_and_no_more(small_chunks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [*pairs(40), *pairs(3)]
    prepared(rows, output="whole")
    done, count = Work.done, 0

    def stopping(self: Any, *words: Any) -> None:
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        done(self, *words)

    monkeypatch.setattr(Work, "done", stopping)
    with pytest.raises(KeyboardInterrupt):
        prepared(rows)
    kept = sorted(Path("out/.work/rows").glob("*.jsonl"))
    times = {path: path.stat().st_mtime_ns for path in kept[:3]}
    assert len(kept) >= 3
    monkeypatch.setattr(Work, "clear", lambda self: None)
    prepared(rows)
    assert {path: path.stat().st_mtime_ns for path in kept[:3]} == times
    assert {p.name: p.read_bytes() for p in Path("out").iterdir() if p.is_file()} == {
        path.name: path.read_bytes() for path in Path("whole").iterdir()
    }


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.one_of(
            st.just("{"),
            st.fixed_dictionaries(
                {"prompt": st.one_of(st.none(), st.sampled_from("abcd")), "completion": st.sampled_from(["x", "", "y"])}
            ),
        ),
        max_size=30,
    ),
    st.sampled_from(["exact", "near", "none"]),
    st.integers(0, 3),
)
def test_rows_in_are_rows_out_and_rows_rejected(
    tmp_path_factory: pytest.TempPathFactory, small_chunks: None, rows: list[Any], dedup: str, seed: int
) -> None:
    output = tmp_path_factory.mktemp("dataset") / "out"
    rows = [*pairs(3), *rows]
    record = prepared(rows, output=str(output), dedup=dedup, seed=seed, bad_rows="drop")
    assert record.steps[0].rows_in == len(rows)
    assert sum(file.rows for file in record.files.values()) + record.rejected.rows == len(rows)
    assert len(rejected(str(output))) == record.rejected.rows
    assert len(held(record, str(output))) == record.steps[-1].rows_out


def test_a_step_that_loses_a_row_is_refused() -> None:
    with pytest.raises(ValidationError, match="rows in"):
        PreparationStep(name="map", rows_in=3, rows_out=1, reasons={"x": 1})
    record = prepared(pairs(10))
    short = [step.model_copy() for step in record.steps]
    short[1] = PreparationStep(name="filter", rows_in=9, rows_out=9)
    with pytest.raises(ValidationError, match="leave read"):
        Preparation.model_validate({**record.model_dump(), "steps": [step.model_dump() for step in short]})
    with pytest.raises(ValidationError, match="don't hold"):
        Preparation.model_validate({**record.model_dump(), "rejected": {**record.rejected.model_dump(), "rows": 1}})


@pytest.mark.parametrize("wrong", [{"eval": 1.0}, {"eval": 0.5, "test": 0.5}, {"near_threshold": 0}, {"data": []}])
def test_settings_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PreparationSettings(**{"data": ["rows.jsonl"], **wrong})


def test_names_in_the_card_stay_in_their_cells() -> None:
    rows = [{**row, "a|b <i>": 1} for row in pairs(10)]
    prepared([*rows, {**pairs(11)[10], "a|b <i>": 2}], filter={"a|b <i>": 1})
    text = Path("out/README.md").read_text(encoding="utf-8")
    assert "1 a\\|b &lt;i> isn't 1" in text


def test_progress_counts_the_rows_that_were_read(small_chunks: None) -> None:
    seen: list[tuple[str, int]] = []
    write(pairs(23))
    settings = PreparationSettings(data=["rows.jsonl"])
    prepare_dataset(settings, Path("out"), progress=lambda label, done, total: seen.append((label, done)))
    assert [done for label, done in seen if label == "converting rows"] == [7, 14, 21, 23]


def test_rejected_rows_are_json_for_every_reader_and_lines_as_they_stand() -> None:
    odd = '{"prompt": null, "completion": "x", "score": NaN, "all": [Infinity, -Infinity, 1.5]}'
    prepared([*pairs(9), '{"prompt": "cut', odd], bad_rows="drop")

    def refuse(name: str) -> None:
        raise AssertionError(name)

    text = (Path("out") / "rejected.jsonl").read_text(encoding="utf-8")
    broken, wrong = (json.loads(line, parse_constant=refuse) for line in text.splitlines())
    assert broken["row"] == '{"prompt": "cut'
    assert wrong["row"] == {
        "prompt": None,
        "completion": "x",
        "score": "NaN",
        "all": ["Infinity", "-Infinity", 1.5],
    }
