"""Records come back from their files as they were, and refuse what isn't theirs."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.support.receipts import make_data, make_evaluation, make_manifest, make_run, write_records
from tunesmith.errors import UsageError
from tunesmith.records import Event, Finding, Interval, Plan, Record, RunRecord

RUN = RunRecord(id="a", status="done", created="2026-11-20T12:00:00+00:00")


@pytest.mark.parametrize("record", [make_data(), make_evaluation(), make_manifest(), make_run()])
def test_what_is_saved_comes_back(record: Record, tmp_path: Path) -> None:
    path = record.save(tmp_path)
    assert path == tmp_path / record.filename
    assert type(record).load(tmp_path) == record
    assert path.read_text().endswith("}\n")


def test_a_plan_comes_back(tmp_path: Path) -> None:
    assert write_records(tmp_path) == Plan.load(tmp_path)


@given(st.floats(allow_nan=False))
def test_numbers_that_json_has_not_come_back(value: float) -> None:
    interval = Interval(low=value, high=math.inf, method="m")
    assert Interval.model_validate_json(interval.model_dump_json()) == interval
    json.loads(RUN.model_copy(update={"loss": value}).model_dump_json(), parse_constant=pytest.fail)


@given(st.dictionaries(st.sampled_from(["loss", "grad_norm"]), st.floats()))
def test_events_with_nan_come_back_as_numbers(data: dict[str, float]) -> None:
    text = Event(time=1.0, kind="log", data=data).model_dump_json()
    back = Event.model_validate_json(text).data
    assert repr(back) == repr(data)
    json.loads(text, parse_constant=pytest.fail)


def test_records_are_frozen_and_strict() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        RUN.loss = 1.0
    with pytest.raises(ValidationError, match="frozen"):
        Event(time=1.0, kind="log").step = 3
    with pytest.raises(ValidationError, match="Extra inputs"):
        RunRecord(id="a", status="done", created="x", colour="red")


@pytest.mark.parametrize("code", ["D001", "T010", "X999", "H123"])
def test_codes_of_findings(code: str) -> None:
    assert Finding(code=code, severity="note", where="", what="", fix="").code == code


@pytest.mark.parametrize("code", ["A001", "D01", "D0001", "d001", "D001 ", ""])
def test_codes_that_no_finding_has(code: str) -> None:
    with pytest.raises(ValidationError):
        Finding(code=code, severity="note", where="", what="", fix="")


def test_an_absent_record(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"run\.json isn't there") as refusal:
        RunRecord.load(tmp_path)
    assert "RunRecord" in refusal.value.why


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[]", b'{"id": "a"}', RUN.model_dump_json().encode()[:-1] + b',"x":1}']
)
def test_a_damaged_record(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(UsageError, match="can't be read as a RunRecord"):
        RunRecord.load(tmp_path)


def test_something_else_in_a_record_s_place(tmp_path: Path) -> None:
    (tmp_path / "run.json").mkdir()
    with pytest.raises(UsageError, match="can't be read as a RunRecord"):
        RunRecord.load(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="can't be read as a RunRecord"):
        RunRecord.load(tmp_path / "file")


def test_a_later_version_may_leave_out_what_has_a_default() -> None:
    text: dict[str, Any] = {"id": "a", "status": "done", "created": "2026-11-20T12:00:00+00:00"}
    assert RunRecord.model_validate(text) == RUN
    assert (RUN.step, RUN.seconds, RUN.loss, RUN.findings) == (0, 0.0, None, [])
    event = Event.model_validate_json('{"time": 1, "kind": "end"}')
    assert (event.step, event.data) == (0, {})
