"""Verbs that come before training, through the command line: inspect, init, plan, rule, schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.support.methods import METHODS, method_rows
from tunesmith.cli import main
from tunesmith.cli.schema import SCHEMAS
from tunesmith.demo import task
from tunesmith.recipe import load_recipe
from tunesmith.records import Plan, RunRecord
from tunesmith.rules import RULES

Capture = pytest.CaptureFixture[str]


def write_rows(path: str, rows: list[Any]) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.fixture
def recipe(capsys: Capture) -> Path:
    """A recipe for 40 rows, as `init` writes it."""
    write_rows("rows.jsonl", task.rows("train", 40))
    assert main(["init", "rows.jsonl", "--model", "builtin:small"]) == 0
    capsys.readouterr()
    return Path("recipe.yaml")


def answer(capsys: Capture, *words: str, schema: str | None = None, code: int = 0) -> Any:
    """The JSON that a command prints, held against the schema that `tunesmith schema` prints."""
    assert main([*words, "--json"]) == code
    value = json.loads(capsys.readouterr().out)
    if schema:
        assert main(["schema", schema]) == 0
        jsonschema.validate(value, json.loads(capsys.readouterr().out))
    return value


class TestSchema:
    @pytest.mark.parametrize("name", SCHEMAS)
    def test_is_a_json_schema(self, name: str, capsys: Capture) -> None:
        assert main(["schema", name]) == 0
        schema = json.loads(capsys.readouterr().out)
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["title"] == SCHEMAS[name].__name__

    def test_is_the_recipes_unless_named(self, capsys: Capture) -> None:
        assert main(["schema"]) == 0
        assert json.loads(capsys.readouterr().out)["title"] == "Recipe"

    def test_refuses_what_the_recipe_refuses(self, capsys: Capture) -> None:
        assert main(["schema"]) == 0
        schema = json.loads(capsys.readouterr().out)
        good = {"model": "builtin:small", "data": {"train": "rows.jsonl"}}
        jsonschema.validate(good, schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**good, "adpater": {}}, schema)


class TestRule:
    def test_without_a_code_lists_all(self, capsys: Capture) -> None:
        assert main(["rule"]) == 0
        out = capsys.readouterr().out
        assert all(code in out for code in RULES)

    def test_explains_one_whatever_the_case(self, capsys: Capture) -> None:
        assert main(["rule", "d001"]) == 0
        out = " ".join(capsys.readouterr().out.split())
        rule = RULES["D001"]
        assert all(text in out for text in (rule.title, rule.why, rule.fix, rule.source))

    def test_json(self, capsys: Capture) -> None:
        assert answer(capsys, "rule", "D001")["title"] == RULES["D001"].title
        assert set(answer(capsys, "rule")) == set(RULES)

    def test_unknown(self, capsys: Capture) -> None:
        assert main(["rule", "X01"]) == 2
        assert "Did you mean X01" in capsys.readouterr().err


class TestInspect:
    def test_shows_what_the_data_is(self, capsys: Capture) -> None:
        write_rows("rows.jsonl", task.rows("train", 40))
        assert main(["inspect", "rows.jsonl"]) == 0
        out, err = capsys.readouterr()
        assert "40 rows" in out
        assert "READY" in out
        assert "Next: tunesmith init rows.jsonl --model MODEL" in err

    def test_json_fits_its_schema(self, capsys: Capture) -> None:
        write_rows("rows.jsonl", task.rows("train", 40))
        report = answer(capsys, "inspect", "rows.jsonl", "--model", "builtin:small", "--no-audit", schema="data-report")
        assert report["rows"] == 40
        assert report["lengths"]["total"]["rows"] == 40

    def test_errors_in_the_data_give_exit_code_1_and_no_next_step(self, capsys: Capture) -> None:
        write_rows("rows.jsonl", [{"messages": []}, *task.rows("train", 3)])
        assert main(["inspect", "rows.jsonl"]) == 1
        assert "Next:" not in capsys.readouterr().err


class TestInit:
    @pytest.mark.parametrize("method", METHODS)
    def test_a_recipe_for_every_method_can_be_planned(self, method: str, capsys: Capture) -> None:
        write_rows("rows.jsonl", method_rows(method, 96))
        assert main(["init", "rows.jsonl", "--model", "builtin:small", "--method", method]) == 0
        assert main(["plan", "recipe.yaml"]) == 0
        assert load_recipe(Path("recipe.yaml")).method == method

    def test_recipe_goes_through_plan(self, recipe: Path, capsys: Capture) -> None:
        assert "40 rows, READY" in recipe.read_text(encoding="utf-8")
        plan = answer(capsys, "plan", "recipe.yaml", schema="plan")
        assert plan["train"]["rows"] + plan["eval"]["rows"] == 40
        assert all(choice["reason"] for choice in plan["choices"])

    def test_never_overwrites_unasked(self, recipe: Path, capsys: Capture) -> None:
        recipe.write_text("mine", encoding="utf-8")
        assert main(["init", "rows.jsonl", "--model", "builtin:small"]) == 2
        assert "recipe.yaml is there already" in capsys.readouterr().err
        assert recipe.read_text(encoding="utf-8") == "mine"
        assert main(["init", "rows.jsonl", "--model", "builtin:small", "--force"]) == 0
        assert load_recipe(recipe).model == "builtin:small"

    def test_writes_paths_as_seen_from_the_recipe(self, capsys: Capture) -> None:
        write_rows("in/rows.jsonl", task.rows("train", 40))
        write_rows("test.jsonl", task.rows("test", 10))
        words = ["init", "in/rows.jsonl", "--model", "builtin:small", "--test", "test.jsonl", "--recipe", "out/r.yaml"]
        assert main(words) == 0
        capsys.readouterr()
        data = yaml.safe_load(Path("out/r.yaml").read_text(encoding="utf-8"))["data"]
        assert (data["train"], data["test"]) == ("../in/rows.jsonl", "../test.jsonl")
        assert answer(capsys, "plan", "out/r.yaml")["test"]["rows"] == 10

    def test_writes_the_mapping_that_the_data_needs(self, capsys: Capture) -> None:
        rows = [{"id": n, "question": f"What is {n} and {n}?", "answer": f"It is {2 * n}."} for n in range(30)]
        write_rows("rows.jsonl", rows)
        assert main(["init", "rows.jsonl", "--model", "builtin:small"]) == 0
        capsys.readouterr()
        made = load_recipe(Path("recipe.yaml"))
        assert made.data.mapping.model_dump(exclude_none=True) == {"prompt": "question", "completion": "answer"}
        assert answer(capsys, "plan", "recipe.yaml", "--data.eval", "0.2")["eval"]["rows"] == 6

    def test_data_that_cannot_be_read_leaves_no_recipe(self, capsys: Capture) -> None:
        Path("rows.jsonl").write_bytes(b"\x00\x01\x02")
        assert main(["init", "rows.jsonl", "--model", "builtin:small"]) == 1
        assert "D003" in capsys.readouterr().err
        assert not Path("recipe.yaml").exists()


class TestPlan:
    def test_writes_nothing(self, recipe: Path) -> None:
        before = sorted(Path().rglob("*"))
        assert main(["plan", "recipe.yaml"]) == 0
        assert sorted(Path().rglob("*")) == before

    def test_shows_every_choice_with_its_reason(self, recipe: Path, capsys: Capture) -> None:
        assert main(["plan", "recipe.yaml"]) == 0
        out = capsys.readouterr().out
        assert "builtin:small (Qwen3ForCausalLM" in out
        assert "learning_rate" in out
        assert "set in the recipe" in out

    def test_keys_on_the_command_line_win(self, recipe: Path, capsys: Capture) -> None:
        keys = ["--training.max_steps", "30", "--adapter.kind=none", "--seed", "7", "--training.learning_rate", "1e-3"]
        plan = answer(capsys, "plan", "recipe.yaml", *keys)
        assert plan["steps"] == 30
        assert plan["peft"] is None
        assert plan["training"]["seed"] == 7
        assert plan["training"]["learning_rate"] == 1e-3
        assert plan["training"]["num_train_epochs"] == 3

    def test_the_next_step_keeps_them(self, recipe: Path, capsys: Capture) -> None:
        assert main(["plan", "recipe.yaml", "--training.max_steps", "30"]) == 0
        assert "Next: tunesmith train recipe.yaml --training.max_steps 30\n" in capsys.readouterr().err

    def test_paths_on_the_command_line_count_from_here(self, capsys: Capture) -> None:
        write_rows("data/rows.jsonl", task.rows("train", 40))
        write_rows("other.jsonl", task.rows("validation", 7))
        assert main(["init", "data/rows.jsonl", "--model", "builtin:small", "--recipe", "data/recipe.yaml"]) == 0
        capsys.readouterr()
        assert answer(capsys, "plan", "data/recipe.yaml", "--data.eval", "other.jsonl")["eval"]["rows"] == 7

    @pytest.mark.parametrize(
        ("key", "value", "what", "fix"),
        [
            ("--training.max_stps", "3", "unknown training argument max_stps", "Did you mean max_steps?"),
            ("--training.max_seq_length", "3", "unknown training argument max_seq_length", "Use `max_length`."),
            ("--adpater.kind", "none", "unknown key adpater", "Did you mean adapter?"),
            ("--adapter.knd", "none", "unknown key adapter.knd", "Did you mean kind?"),
            ("--adapter.kind", "lroa", "adapter.kind can't be 'lroa'", "tunesmith schema"),
            ("--training.max_steps", "many", "training.max_steps can't be 'many'", "Correct the value"),
            ("--training.learning_rate", "-1", "training.learning_rate can't be -1", "Correct the value"),
            ("--model.name", "x", "--model.name can't be set", "Change it in the recipe"),
        ],
    )
    def test_wrong_keys(self, key: str, value: str, what: str, fix: str, recipe: Path, capsys: Capture) -> None:
        assert main(["plan", "recipe.yaml", key, value]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert what in err
        assert fix in err

    def test_errors_in_the_plan_give_exit_code_1(self, recipe: Path, capsys: Capture) -> None:
        plan = answer(capsys, "plan", "recipe.yaml", "--training.output_dir", "x", code=1)
        assert [found["code"] for found in plan["findings"] if found["severity"] == "error"] == ["P009"]


class TestPlanWithOutput:
    def test_writes_a_run_folder(self, recipe: Path, capsys: Capture) -> None:
        told = answer(capsys, "plan", "recipe.yaml", "--output", "run", schema="plan")
        plan = Plan.load(Path("run"))
        assert told == plan.model_dump(mode="json")
        assert RunRecord.load(Path("run")).status == "prepared"
        assert len(Path("run/data/train.jsonl").read_text(encoding="utf-8").splitlines()) == plan.train.rows
        assert [run["id"] for run in answer(capsys, "runs", "list", "--root", ".")] == ["run"]
        assert answer(capsys, "runs", "show", "run", schema="run")["status"] == "prepared"

    def test_tells_where_and_what_next(self, recipe: Path, capsys: Capture) -> None:
        assert main(["plan", "recipe.yaml", "--output", "my [red] run"]) == 0
        out, err = capsys.readouterr()
        assert "my [red] run" in out
        assert "rows in data/train.jsonl" in out
        assert "learning_rate" in out
        assert err.splitlines()[-1].startswith("Next: tunesmith resume '/")

    def test_an_error_in_the_plan_writes_nothing(self, recipe: Path, capsys: Capture) -> None:
        assert main(["plan", "recipe.yaml", "--output", "run", "--training.output_dir", "x"]) == 1
        assert "P009" in capsys.readouterr().err
        assert not Path("run").exists()


class TestRuns:
    def test_none(self, capsys: Capture) -> None:
        assert main(["runs", "list"]) == 0
        assert "No runs under runs." in capsys.readouterr().err
        assert answer(capsys, "runs", "list") == []

    @pytest.mark.parametrize("words", [["runs", "show"], ["runs", "logs"], ["runs", "stop"], ["resume"], ["evaluate"]])
    def test_unknown(self, words: list[str], capsys: Capture) -> None:
        assert main([*words, "nope"]) == 2
        assert "There is no run nope." in capsys.readouterr().err

    def test_a_run_that_is_not_running_cannot_be_stopped(self, recipe: Path, capsys: Capture) -> None:
        assert main(["plan", "recipe.yaml", "--output", "run"]) == 0
        capsys.readouterr()
        assert main(["runs", "stop", "run"]) == 2
        assert "isn't running here" in capsys.readouterr().err

    @pytest.mark.parametrize("verb", ["evaluate", "export"])
    def test_a_run_that_is_not_trained(self, verb: str, recipe: Path, capsys: Capture) -> None:
        assert main(["plan", "recipe.yaml", "--output", "run"]) == 0
        capsys.readouterr()
        assert main([verb, "run"]) == 2
        assert "tunesmith resume" in capsys.readouterr().err

    def test_logs_are_harmless_for_the_terminal(self, recipe: Path, capsys: Capture) -> None:
        assert main(["plan", "recipe.yaml", "--output", "run"]) == 0
        Path("run/worker.log").write_bytes(b"a\x1b[31mb\n\xffc\n")
        capsys.readouterr()
        assert main(["runs", "logs", "run", "--worker"]) == 0
        assert capsys.readouterr().out == "a\N{REPLACEMENT CHARACTER}[31mb\n\N{REPLACEMENT CHARACTER}c\n"
        assert main(["runs", "logs", "run"]) == 0
        assert capsys.readouterr().out == ""
