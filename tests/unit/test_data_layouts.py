"""Every layout of docs/data-layouts.md: detected, judged, converted, and converted alike by the printed code."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.layouts import Documented, documented
from tunesmith.data.convert import reader
from tunesmith.data.formats import METHODS, detect
from tunesmith.data.prepare import prepare
from tunesmith.data.sources import read
from tunesmith.recipe.schema import Mapping

LAYOUTS = documented()
EVERY = pytest.mark.parametrize("layout", LAYOUTS, ids=[layout.name for layout in LAYOUTS])
KEYS = {
    "sft": [{"messages"}, {"prompt", "completion"}, {"text"}],
    "clm": [{"text"}],
    "dpo": [{"prompt", "chosen", "rejected"}],
    "reward": [{"prompt", "chosen", "rejected"}],
    "kto": [{"prompt", "completion", "label"}, {"prompt", "chosen", "rejected"}],
    "grpo": [{"prompt"}, {"prompt", "reference"}],
    "rloo": [{"prompt"}, {"prompt", "reference"}],
}


def write(folder: Path, layout: Documented) -> Path:
    path = folder / "rows.jsonl"
    path.write_text((json.dumps(layout.row, ensure_ascii=False) + "\n") * 2, encoding="utf-8")
    return path


def without_nulls(value: Any) -> Any:
    """Arrow gives every object the keys of its neighbours, with null in them."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


@EVERY
def test_the_verdicts_are_those_of_the_table(layout: Documented) -> None:
    found = detect([layout.row] * 2, Mapping())
    assert found.layout == layout.layout
    assert [verdict.method for verdict in found.verdicts] == list(METHODS)
    for verdict in found.verdicts:
        said = layout.verdicts[verdict.method]
        assert verdict.status == (said if isinstance(said, str) else "NEEDS MAPPING")
        assert (verdict.mapping or {}, verdict.filter or {}) == (
            layout.mapping(verdict.method),
            layout.filter(verdict.method),
        )
        assert verdict.reason.endswith(".")


@EVERY
def test_with_its_mapping_each_method_gets_rows_of_trls_layout(layout: Documented, tmp_path: Path) -> None:
    raw = read(str(write(tmp_path, layout)))
    for method in layout.trained:
        mapping, kept = Mapping(**layout.mapping(method)), layout.filter(method)
        assert detect(raw.rows, mapping, filtered=kept).verdict_of(method).status == "READY"
        done = prepare(raw, mapping, "error", generation_marks=True, method=method, filter=kept)
        assert [finding.code for finding in done.findings if finding.severity == "error"] == []
        assert len(done.rows) == 2
        assert set(done.rows[0]) - {"tools"} in KEYS[method]


@EVERY
def test_the_printed_code_runs_and_makes_the_same_rows(layout: Documented, tmp_path: Path) -> None:
    path = write(tmp_path, layout)
    rows = read(str(path)).rows
    for verdict in detect(rows, Mapping(), source=str(path)).verdicts:
        if verdict.status == "INCOMPATIBLE":
            assert verdict.code is None
            continue
        assert verdict.code is not None
        names: dict[str, Any] = {}
        exec(verdict.code, names)
        mapped = detect(rows, Mapping(**(verdict.mapping or {})), filtered=verdict.filter or {})
        wanted = [reader(mapped, conversational=False, method=verdict.method)(row) for row in rows]
        assert without_nulls(list(names["rows"])) == without_nulls(wanted), verdict.code
