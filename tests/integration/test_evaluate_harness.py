"""lm-eval's tasks through us: its own numbers, compared question by question."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.harness import write_tasks
from tests.support.learnt import ROWS, learn
from tests.support.runs import SMALL, make_plan
from tunesmith.errors import EnvironmentLacksError, UsageError
from tunesmith.evaluate import evaluate
from tunesmith.evaluate.harness import HarnessTasks, Ran, Score, harness_tasks
from tunesmith.evaluate.subject import Local
from tunesmith.models.load import load_model, load_tokenizer, put_on
from tunesmith.progress import silent
from tunesmith.recipe.evaluation import Evaluation, Harness
from tunesmith.records import Comparison, EvalReport


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks") / "own")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter that knows the rows by heart."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("adapter")
    tokenizer = load_tokenizer(SMALL)
    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(load_model(SMALL, dtype="float32"), config).eval()
    learn(model, tokenizer, ROWS, 30)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def run_folder(folder: Path, result: Path) -> Path:
    folder.mkdir(exist_ok=True)
    make_plan(folder, ROWS)
    (folder / "model").symlink_to(result)
    return folder


def settings(tasks: Path, *names: str, **changes: Any) -> Evaluation:
    harness = Harness(tasks=list(names), path=str(tasks), **changes)
    return Evaluation(tasks=["loss"], regression=False, harness=harness, batch_size=8)


def comparisons(report: EvalReport) -> dict[str, Comparison]:
    return {one.metric: one for one in report.comparisons if one.suite == "harness"}


def own_command(output: Path, tasks: Path, names: str, **model: str) -> dict[str, dict[str, Any]]:
    """What lm-eval's own command says of each task."""
    arguments = ",".join(f"{key}={value}" for key, value in {"dtype": "float32", **model}.items())
    words = ["--model", "hf", "--model_args", arguments, "--tasks", names, "--include_path", str(tasks)]
    words += ["--device", "cpu", "--batch_size", "8", "--apply_chat_template", "--num_fewshot", "1"]
    words += ["--output_path", str(output)]
    command = [sys.executable, "-m", "lm_eval", "run", *words]
    subprocess.run(command, check=True, capture_output=True, timeout=200, env=os.environ)
    (file,) = output.rglob("results_*.json")
    found: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["results"]
    return found


@pytest.mark.slow
def test_the_numbers_are_those_of_lm_evals_own_command(tmp_path: Path, tasks: Path, adapter: Path) -> None:
    report = evaluate(run_folder(tmp_path / "run", adapter), settings(tasks, "colours", "spelt", "plain", shots=1))
    ours = comparisons(report)
    names = {"pretrained": str(SMALL), "tokenizer": str(adapter)}
    base = own_command(tmp_path / "base", tasks, "colours,spelt,plain", **names)
    tuned = own_command(tmp_path / "tuned", tasks, "colours,spelt,plain", peft=str(adapter), **names)
    for task, metric, key in (
        ("colours", "acc", "acc,none"),
        ("colours", "acc_norm", "acc_norm,none"),
        ("spelt", "exact_match (first-word)", "exact_match,first-word"),
        ("plain", "bits_per_byte", "bits_per_byte,none"),
    ):
        one = ours.pop(f"{task}: {metric}")
        assert (one.base, one.tuned) == (base[task][key], tuned[task][key]), metric
    assert not ours
    assert report.versions["colours"] == "2.0"
    assert report.versions["lm-eval"]


def test_means_are_tested_question_by_question_and_others_only_told(tmp_path: Path, tasks: Path, adapter: Path) -> None:
    report = evaluate(run_folder(tmp_path / "run", adapter), settings(tasks, "both"))
    ours = comparisons(report)
    acc, bits = ours["colours: acc"], ours["plain: bits_per_byte"]
    assert (acc.rows, acc.better, acc.test) == (8, "higher", "McNemar, exact, two-sided")
    assert acc.interval is not None
    assert acc.difference == acc.tuned - acc.base > 0
    assert (bits.better, bits.rows) == ("lower", 8)
    assert (bits.interval, bits.p_value, bits.test, bits.significant) == (None, None, None, False)
    assert ours["both: acc"].tuned == acc.tuned, "the group has acc of one task alone"
    assert report.primary == "loss"
    assert "Yaml" not in report.versions.values()


def test_the_template_that_nobody_chose_is_looked_at(tasks: Path, adapter: Path) -> None:
    tokenizer = load_tokenizer(adapter)
    model = put_on(load_model(SMALL, dtype="float32"), adapter)
    own = Harness(tasks=["colours"], path=str(tasks))

    def ran(harness: Harness, name: str) -> Ran:
        made = harness_tasks(harness, has_template=True, batch_size=8)
        return made.take(Local(name, model, tokenizer, 8), silent)

    assumed = ran(own, "tuned")
    with_template, without = assumed.scores["colours", "acc"], assumed.otherwise["colours", "acc"]
    assert without.questions == with_template.questions == 8
    assert ran(own, "base").otherwise == {}
    chosen = ran(own.model_copy(update={"chat_template": False}), "tuned")
    assert chosen.otherwise == {}
    assert chosen.scores["colours", "acc"] == without
    told = ran(own.model_copy(update={"chat_template": True}), "tuned")
    assert (told.otherwise, told.scores) == ({}, assumed.scores)
    assert chosen.scores != told.scores
    few = ran(own.model_copy(update={"limit": 3}), "tuned")
    assert few.otherwise["colours", "acc"].values == (without.values or [])[:3]


@pytest.mark.parametrize(("right", "said"), [(6, True), (5, False), (0, False)])
def test_e055_where_the_template_decides(right: int, said: bool) -> None:
    asked = Score(1.0, 8, [1.0] * 8, higher=True)
    other = Score(1 - right / 8, 8, [0.0] * right + [1.0] * (8 - right), higher=True)
    key = ("colours", "acc")
    outcome = _tasks().compare(Ran({key: asked}), Ran({key: asked}, {key: other}))
    assert [one.code for one in outcome.findings] == (["E055"] if said else [])
    if said:
        assert "on 8 questions" in outcome.findings[0].what
        assert "0.250 without" in outcome.findings[0].what


def test_a_score_that_is_no_number_is_an_error() -> None:
    key = ("plain", "bits_per_byte")
    good, bad = Score(1.0, 8, None, higher=False), Score(float("nan"), 8, None, higher=False)
    outcome = _tasks().compare(Ran({key: good}), Ran({key: bad}))
    assert outcome.comparisons == []
    assert [one.code for one in outcome.findings] == ["E007"]


def _tasks() -> HarnessTasks:
    return HarnessTasks(Harness(tasks=["colours"]), None, template=True, batch_size=8)


def test_what_is_wrong_with_tasks_is_told_before_a_model_is_loaded(
    tmp_path: Path, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(folder: Path, *names: str, **changes: Any) -> HarnessTasks:
        harness = Harness(tasks=list(names), path=str(folder), **changes)
        return harness_tasks(harness, has_template=False, batch_size=8)

    with pytest.raises(UsageError, match="chat template"):
        asked(tasks, "colours", chat_template=True)
    assert asked(tasks, "colours").template is False
    broken = write_tasks(tmp_path / "broken")
    (broken / "rows.jsonl").unlink()
    with pytest.raises(EnvironmentLacksError, match="can't be loaded"):
        asked(broken, "plain")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EnvironmentLacksError, match="isn't installed") as error:
        asked(tasks, "colours")
    assert "tunesmith[harness]" in error.value.fix
