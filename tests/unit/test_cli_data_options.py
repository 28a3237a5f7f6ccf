"""What says which columns and rows are meant is said alike to every verb that takes DATA."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunesmith.cli import main, make_parser, tune
from tunesmith.cli.common import recipe_from_options
from tunesmith.recipe import Recipe, load_recipe

Capture = pytest.CaptureFixture[str]
ROWS = [{"q": f"What is {n}?", "a": f"It is {n}.", "lang": ("en", "de", "fr")[n % 3]} for n in range(30)]
WORDS = ["--mapping", "prompt=q", "completion=a", "--filter", "lang=[en, de]"]


@pytest.fixture(autouse=True)
def rows() -> None:
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")


def tuned(*words: str, **overrides: str) -> Recipe:
    arguments = make_parser("tune", tune).parse_args(["rows.jsonl", "--model", "builtin:small", *words])
    arguments.overrides = {f"--{name}": value for name, value in overrides.items()}
    return recipe_from_options(arguments)


def test_tune_takes_them() -> None:
    data = tuned(*WORDS, "--bad-rows", "drop").data
    assert data.mapping.model_dump(exclude_none=True) == {"prompt": "q", "completion": "a"}
    assert (data.filter, data.bad_rows) == ({"lang": ["en", "de"]}, "drop")


def test_keys_of_a_recipe_go_before_them() -> None:
    data = tuned(*WORDS, **{"data.filter": "{lang: fr}", "data.mapping.prompt": "lang"}).data
    assert (data.filter, data.mapping.prompt, data.mapping.completion) == ({"lang": "fr"}, "lang", "a")


def test_without_them_the_recipe_s_defaults_hold() -> None:
    data = tuned().data
    assert (data.mapping.model_dump(exclude_none=True), data.filter, data.bad_rows) == ({}, {}, "error")


def test_init_writes_them(capsys: Capture) -> None:
    assert main(["init", "rows.jsonl", "--model", "builtin:small", *WORDS, "--bad-rows", "drop"]) == 0
    text = Path("recipe.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text)["data"]["filter"] == {"lang": ["en", "de"]}
    data = load_recipe(Path("recipe.yaml")).data
    assert data.mapping.model_dump(exclude_none=True) == {"prompt": "q", "completion": "a"}
    assert (data.filter, data.bad_rows) == ({"lang": ["en", "de"]}, "drop")
    capsys.readouterr()
    assert main(["plan", "recipe.yaml", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["train"]["rows"] + plan["eval"]["rows"] == 20


@pytest.mark.parametrize("verb", ["plan", "train"])
@pytest.mark.parametrize(("option", "key"), [("mapping", "mapping"), ("filter", "filter"), ("bad-rows", "bad_rows")])
def test_verbs_of_a_recipe_name_its_key(verb: str, option: str, key: str, capsys: Capture) -> None:
    assert main([verb, "r.yaml", f"--{option}", "x"]) == 2
    assert f"Did you mean --data.{key}?" in capsys.readouterr().err


@pytest.mark.parametrize(("value", "kept"), [("[en, de]", 20), ("en", 10)])
def test_a_filter_takes_one_value_or_several(value: str, kept: int, capsys: Capture) -> None:
    words = ["inspect", "rows.jsonl", "--mapping", "prompt=q", "completion=a", "--filter", f"lang={value}", "--json"]
    assert main([*words, "--no-quality", "--method", "sft"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == kept


@pytest.mark.parametrize("value", ["{a: b}", "[]", "[[a]]", "null"])
def test_a_filter_takes_no_other_value(value: str, capsys: Capture) -> None:
    assert main(["inspect", "rows.jsonl", "--filter", f"lang={value}"]) == 2
    assert "isn't COLUMN=VALUE" in capsys.readouterr().err


def test_prepare_keeps_rows_with_one_of_several_values(capsys: Capture) -> None:
    assert main(["prepare", "rows.jsonl", "--output", "made", *WORDS, "--json"]) == 0
    steps: list[Any] = json.loads(capsys.readouterr().out)["steps"]
    assert next(step["rows_out"] for step in steps if step["name"] == "filter") == 20
    assert "one of" in Path("made/rejected.jsonl").read_text(encoding="utf-8")


def test_no_sentence_is_wider_than_the_terminal(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    main(["inspect", "rows.jsonl", "--mapping", "prompt=q", "completion=a"])
    shown = capsys.readouterr().out
    assert "Recommended" in shown
    assert max(map(len, shown.splitlines())) <= 80
