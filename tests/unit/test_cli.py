"""The command line itself: verbs, arguments, exit codes, and how errors are told."""

from __future__ import annotations

import argparse
import importlib
import io
import json
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import tunesmith
from tests.support.plans import chat_rows, write_rows
from tunesmith import cli
from tunesmith.errors import EnvironmentLacksError, StoppedError, TunesmithError, UsageError
from tunesmith.recipe import Recipe
from tunesmith.rules import FindingsError, finding

# Every verb with its options. A change here changes what people's scripts mean: say so in CHANGELOG.md.
OPTIONS = {
    "demo": ["--output", "--json"],
    "tune": ["--model", "--test", "--method", "--mapping", "--filter", "--bad-rows", "--output", "--json"],
    "init": ["--model", "--test", "--method", "--mapping", "--filter", "--bad-rows", "--recipe", "--force", "--json"],
    "inspect": [
        "--config",
        "--split",
        "--data-revision",
        "--rows",
        "--method",
        "--mapping",
        "--filter",
        "--bad-rows",
        "--model",
        "--revision",
        "--max-length",
        "--chat-template",
        "--no-audit",
        "--no-quality",
        "--html",
        "--json",
    ],
    "plan": ["--output", "--all", "--exact", "--compare", "--probe", "--live", "--json"],
    "prepare": [
        "--config",
        "--split",
        "--data-revision",
        "--rows",
        "--method",
        "--mapping",
        "--filter",
        "--bad-rows",
        "--output",
        "--dedup",
        "--near-threshold",
        "--eval",
        "--test",
        "--group",
        "--seed",
        "--format",
        "--push",
        "--yes",
        "--json",
        "--executor",
        "--tasks",
        "--slurm",
        "--ray",
        "--write-pipeline",
    ],
    "train": ["--output", "--json"],
    "resume": ["--anyway", "--json"],
    "runs list": ["--root", "--json"],
    "runs show": ["--json"],
    "runs stop": ["--json"],
    "runs logs": ["--worker"],
    "evaluate": [
        "--tasks",
        "--rows",
        "--against",
        "--endpoint",
        "--endpoint-model",
        "--endpoint-key",
        "--no-regression",
        "--harness",
        "--harness-path",
        "--rows-for",
        "--html",
        "--json",
    ],
    "export": ["--gguf", "--json"],
    "chat": ["--prompt", "--base", "--max-new-tokens", "--json"],
    "receipt": ["--json"],
    "rule": ["--json"],
    "schema": ["--json"],
}
TAKE_KEYS = {"tune": True, "plan": True, "train": True, "evaluate": "evaluation"}


def told(capsys: pytest.CaptureFixture[str]) -> tuple[str, str, str]:
    """What, why and fix of the error on stderr; nothing else may stand there, and nothing on stdout."""
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    match = re.fullmatch(r"error: (.+)\n  why: (.+)\n  fix: (.+)\n", err)
    assert match, err
    return match[1], match[2], match[3]


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for verb, (_, what) in cli.VERBS.items():
        assert f"  {verb} " in text
        assert what in text
    assert "Not built yet: push, eject, doctor, mcp, skill" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("words", [[], ["-h"], ["--help", "plan"]])
def test_without_a_verb_the_help_is_shown(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 0
    assert capsys.readouterr().out.startswith("usage: tunesmith VERB")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"tunesmith {tunesmith.__version__}\n"


def test_verbs_and_options_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    found = {}
    for name in OPTIONS:
        verb, *action = name.split()
        assert cli.main([verb, *action, "--help"]) == 0
        text = capsys.readouterr().out
        options = re.findall(r"^  (?:-\w, )?(--[a-z-]+)", text, re.MULTILINE)
        found[name] = [option for option in options if option not in ("--help", "--debug")]
    assert found == OPTIONS
    assert {name.split()[0] for name in OPTIONS} == set(cli.VERBS)
    modules = {verb: importlib.import_module(module) for verb, (module, _) in cli.VERBS.items()}
    assert {verb: module.OVERRIDES for verb, module in modules.items() if hasattr(module, "OVERRIDES")} == TAKE_KEYS


@pytest.mark.parametrize("verb", cli.VERBS)
def test_each_verb_has_help_with_its_description_unchanged(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    what = cli.VERBS[verb][1]
    assert f"{what[0].upper()}{what[1:]}." in text


def test_unknown_verb_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trian", "recipe.yaml"]) == 2
    what, _, fix = told(capsys)
    assert "'trian'" in what
    assert fix == "Did you mean `tunesmith train`?"


def test_unknown_verb_like_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["zzz"]) == 2
    assert told(capsys)[2] == "`tunesmith --help` lists them."


def test_unknown_option_without_a_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--versoin"]) == 2
    assert told(capsys)[2] == "Did you mean `tunesmith --version`?"


@pytest.mark.parametrize("verb", ["push", "eject", "doctor", "mcp", "skill"])
def test_planned_verbs_say_that_they_are_not_built(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb, "x"]) == 2
    assert "isn't built yet" in told(capsys)[1]


@pytest.mark.parametrize(
    ("words", "what", "fix"),
    [
        (["plan"], "required: RECIPE", "`tunesmith plan --help`"),
        (["plan", "r.yaml", "--jsn"], "unrecognized arguments: --jsn", "Did you mean --json?"),
        (["plan", "r.yaml", "--zzz"], "unrecognized arguments: --zzz", "`tunesmith plan --help`"),
        (["train", "r.yaml", "--out", "x"], "unrecognized arguments: --out", "Did you mean --output?"),
        (["inspect", "a", "--max-length", "ten"], "'ten' isn't a number from 1 on", "--help"),
        (["runs"], "required: ACTION", "`tunesmith runs --help`"),
        (["runs", "lst"], "choose from 'list', 'show', 'stop', 'logs'", "--help"),
        (["export", "run", "--gguf", "q4"], "choose from 'f16', 'q8_0'", "--help"),
        (["schema", "plann"], "invalid choice: 'plann'", "--help"),
    ],
)
def test_wrong_arguments_are_told_in_three_lines(
    words: list[str], what: str, fix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    said = told(capsys)
    assert what in said[0]
    assert said[1].startswith(f"Usage: tunesmith {words[0]}")
    assert fix in said[2]


class Failing:
    """A verb that ends as told."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true")

    def run(self, arguments: object) -> int:
        raise self.error


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """Makes the verb `fail` end with a given error."""

    def install(error: BaseException) -> None:
        monkeypatch.setitem(cli.VERBS, "fail", ("tunesmith.cli.fail", "fail"))
        monkeypatch.setitem(sys.modules, "tunesmith.cli.fail", Failing(error))  # type: ignore[arg-type]

    return types.SimpleNamespace(install=install)


KNOWN = {"why": "Because.", "fix": "Do it."}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TunesmithError("It failed.", **KNOWN), 1),
        (FindingsError([finding("D002", "a.jsonl", left="")]), 1),
        (UsageError("It failed.", **KNOWN), 2),
        (EnvironmentLacksError("It failed.", **KNOWN), 3),
        (StoppedError("It failed.", **KNOWN), 130),
    ],
)
def test_exit_codes(
    error: TunesmithError, code: int, failing: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    failing.install(error)
    assert cli.main(["fail"]) == code
    assert told(capsys) == (error.what, error.why, error.fix)


def test_an_interrupt_ends_with_130(failing: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    failing.install(KeyboardInterrupt())
    assert cli.main(["fail"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_bug_is_told_as_one_without_a_traceback(
    failing: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    failing.install(ZeroDivisionError("by zero\nmore"))
    assert cli.main(["fail"]) == 1
    what, why, fix = told(capsys)
    assert what == "ZeroDivisionError: by zero"
    assert "bug" in why
    assert "--debug" in fix


@pytest.mark.parametrize("words", [["fail", "--debug"], ["--debug", "fail"]])
def test_debug_shows_the_traceback_and_keeps_the_exit_code(
    words: list[str], failing: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    failing.install(EnvironmentLacksError("It failed.", **KNOWN))
    assert cli.main(words) == 3
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert "raise self.error" in err
    assert "error: It failed." in err


def test_several_findings_are_all_told(failing: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    failing.install(
        FindingsError([finding("D002", "a.jsonl", left=""), finding("D006", "b", count=1, field="x", rows=2)])
    )
    assert cli.main(["fail"]) == 1
    err = capsys.readouterr().err
    assert "error D002 a.jsonl" in err
    assert "error D006 b" in err
    assert "(and 1 more)" in err


@pytest.mark.parametrize("words", [["fail", "--json"], ["fail", "--json", "--debug"]])
def test_errors_are_a_record_where_json_is_asked_for(
    words: list[str], failing: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [finding("D002", "a.jsonl", left=""), finding("D006", "b", count=1, field="x", rows=2)]
    failing.install(FindingsError(found))
    assert cli.main(words) == 1
    out, err = capsys.readouterr()
    made = json.loads(out)
    assert made.keys() == {"error", "findings"}
    assert made["error"] == {key: getattr(FindingsError(found), key) for key in ("what", "why", "fix")}
    assert made["findings"] == [one.model_dump(mode="json") for one in found]
    assert "error D002 a.jsonl" in err


def test_errors_are_a_record_even_of_arguments_that_cant_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", "--json"]) == 2
    made = json.loads(capsys.readouterr().out)
    assert made["error"]["what"].startswith("tunesmith inspect: ")
    assert made["findings"] == []
    assert cli.main(["inspect", "gone.jsonl", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["what"] == "gone.jsonl isn't there."


def test_errors_are_words_alone_where_no_json_is_asked_for(
    failing: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    failing.install(UsageError("It failed.", **KNOWN))
    assert cli.main(["fail", "--", "--json"]) == 2
    assert capsys.readouterr().out == ""


def test_an_answer_that_is_printed_is_followed_by_no_second_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n', encoding="utf-8")
    assert cli.main(["inspect", str(path), "--no-quality", "--html", str(tmp_path), "--json"]) != 0
    assert json.loads(capsys.readouterr().out).keys() >= {"error", "findings"}


class TestKeys:
    """Keys of the recipe on the command line."""

    @pytest.mark.parametrize(
        ("words", "rest", "keys"),
        [
            (["r", "--training.max_steps", "30"], ["r"], {"--training.max_steps": "30"}),
            (["--adapter.kind=none", "r"], ["r"], {"--adapter.kind": "none"}),
            (["r", "--seed", "7", "--json"], ["r", "--json"], {"--seed": "7"}),
            (["r", "--training.learning_rate", "-1"], ["r"], {"--training.learning_rate": "-1"}),
            (["r", "--data.eval=a=b"], ["r"], {"--data.eval": "a=b"}),
            (["r", "--output=runs/a.b", "--output", "a.b"], ["r", "--output=runs/a.b", "--output", "a.b"], {}),
            (["--json", "--", "--my.yaml", "x"], ["--json", "--", "--my.yaml", "x"], {}),
        ],
    )
    def test_are_taken_out(self, words: list[str], rest: list[str], keys: dict[str, str]) -> None:
        assert cli._split_overrides(words, cli.TOP_KEYS) == (rest, keys)

    def test_model_and_method_replace_those_of_a_recipe_file(self, tmp_path: Path) -> None:
        write_rows(Path("rows.jsonl"), chat_rows(40))
        Path("r.yaml").write_text("{model: builtin:small, method: dpo, data: {train: rows.jsonl}}")
        assert cli.main(["plan", "r.yaml", "--method", "sft", "--model", "builtin:small"]) == 0

    @pytest.mark.parametrize("words", [["r", "--training.max_steps"], ["--training.max_steps", "--all", "r"]])
    def test_need_a_value(self, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["plan", *words]) == 2
        what, _, fix = told(capsys)
        assert what == "--training.max_steps has no value."
        assert "--training.max_steps=VALUE" in fix

    def test_are_refused_by_verbs_that_take_none(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["inspect", "a.jsonl", "--training.max_steps", "3"]) == 2
        what, why, _ = told(capsys)
        assert what == "unknown option '--training.max_steps'"
        assert why == "`tunesmith inspect` takes no keys of a recipe."

    def test_without_a_dot_are_all_that_no_section_and_no_option_holds(self) -> None:
        sections = {"data", "adapter", "training", "evaluation", "export", "launch", "hub", "guard", "watch", "speed"}
        assert set(Recipe.model_fields) - sections - {"model", "method"} == set(cli.TOP_KEYS)


def run(*words: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
    """The real command."""
    return subprocess.run(
        [sys.executable, "-m", "tunesmith", *words], capture_output=True, text=True, check=False, **kwargs
    )


@pytest.mark.parametrize("words", ["schema", "--help", "plan --help", "rule", "rule --json"])
@pytest.mark.parametrize("buffering", ["-u PYTHONUNBUFFERED", "PYTHONUNBUFFERED=1"])
def test_a_closed_pipe_is_no_error(words: str, buffering: str) -> None:
    command = f"env {buffering} {sys.executable} -m tunesmith {words} | true; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    assert ended.stderr.replace("Next: tunesmith rule T001\n", "") == ""


def test_output_in_an_encoding_without_our_characters(tmp_path: Path) -> None:
    Path("rows.jsonl").write_text('{"prompt": "Grüße 日本", "completion": "ja"}\n', encoding="utf-8")
    ended = run("inspect", "rows.jsonl", env={"PYTHONIOENCODING": "ascii", "PATH": "", "PYTHONUTF8": "0"})
    assert ended.returncode == 0, ended.stderr
    assert "Gr" in ended.stdout


def test_main_reads_the_process_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["tunesmith", "--version"])
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with pytest.raises(SystemExit) as ended:
        cli.entry()
    assert ended.value.code == 0
    assert sys.stdout.getvalue() == f"tunesmith {tunesmith.__version__}\n"  # type: ignore[attr-defined]
