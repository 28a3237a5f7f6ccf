"""The rules on single settings of a plan, and on versions."""

import importlib.metadata
import importlib.util
import re
from typing import Any

import pytest
from packaging.version import Version

from tests.support.plans import CPU, GPU, codes, make_plan, make_recipe
from tunesmith.plan import environment
from tunesmith.plan.environment import bad_versions, check_versions
from tunesmith.plan.settings_checks import check_settings, interval
from tunesmith.plan.versions import installed_versions
from tunesmith.records import Finding, Hardware, Plan


def checked(hardware: Hardware = CPU, changes: dict[str, Any] | None = None, **keys: Any) -> list[Finding]:
    """The findings on a plan of a recipe; `changes` are made to the plan's trainer arguments afterwards."""
    recipe = make_recipe(**keys)
    made = make_plan(recipe, hardware)
    made = made.model_copy(update={"training": made.training | (changes or {})})
    return list(check_settings(made, recipe))


def test_a_plan_of_the_plan_s_own_values_has_nothing_against_it() -> None:
    for hardware in (CPU, GPU):
        for adapter in ({"kind": "lora"}, {"kind": "none"}):
            assert checked(hardware, adapter=adapter) == []


@pytest.mark.parametrize(
    ("training", "every"),
    [
        ({"eval_strategy": "steps", "eval_steps": 30}, 30),
        ({"eval_strategy": "steps", "eval_steps": 0.1}, 5),
        ({"eval_strategy": "steps", "eval_steps": 0.11}, 6),
        ({"eval_strategy": "epoch", "eval_steps": 30}, None),
        ({"eval_strategy": "no", "eval_steps": 30}, None),
        ({"eval_strategy": "steps"}, None),
    ],
)
def test_intervals(training: dict[str, object], every: int | None) -> None:
    assert interval(training, "eval", 50) == every


def test_p022_evaluation_that_never_happens() -> None:
    (one,) = [one for one in checked(training={"max_steps": 40, "eval_steps": 41}) if one.code == "P022"]
    assert (one.severity, one.where) == ("warning", "training.eval_steps")
    assert one.what == "eval_steps is 41, and the run has 40 steps."
    for every in (40, 0.5):
        assert "P022" not in [one.code for one in checked(training={"max_steps": 40, "eval_steps": every})]
    both = checked(training={"max_steps": 40, "eval_steps": 41, "save_steps": 10})
    assert [one.code for one in both] == ["P022"], "where nothing is evaluated, no checkpoint is missed"
    assert "P022" not in [one.code for one in checked(data={"eval": 0}, training={"max_steps": 40, "eval_steps": 41})]


@pytest.mark.parametrize(
    ("training", "logged", "severity"),
    [
        ({"logging_strategy": "no"}, "0 are", "warning"),
        ({"logging_strategy": "epoch", "num_train_epochs": 1}, "1 is", "note"),
        ({"max_steps": 40, "logging_steps": 500}, "0 are", "warning"),
        ({"max_steps": 400, "logging_steps": 14}, "28 are", "note"),
    ],
)
def test_p086_a_log_too_sparse_for_the_guard(training: dict[str, Any], logged: str, severity: str) -> None:
    (one,) = [one for one in checked(training=training) if one.code == "P086"]
    assert one.severity == severity
    assert f" {logged} logged" in one.what


@pytest.mark.parametrize(
    "training", [{}, {"max_steps": 3}, {"max_steps": 400, "logging_steps": 13}, {"max_steps": 400, "logging_steps": 1}]
)
def test_p086_a_log_that_does(training: dict[str, Any]) -> None:
    assert "P086" not in [one.code for one in checked(training=training)]


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"save_strategy": "no"}, "save_strategy is no"),
        ({"save_steps": 500}, "save_steps is 500"),
        ({"save_steps": 40}, "save_steps is 40"),
        ({"save_strategy": "epoch", "num_train_epochs": 1}, "save_strategy is epoch"),
    ],
)
def test_p023_no_checkpoint_on_the_way(training: dict[str, Any], said: str) -> None:
    steps = {} if "num_train_epochs" in training else {"max_steps": 40}
    batch = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
    (one,) = [one for one in checked(training=training | steps | batch) if one.code == "P023"]
    assert one.severity == "warning"
    assert one.what.startswith(f"{said}: no checkpoint is written before the end of ")


@pytest.mark.parametrize(
    "training", [{"save_steps": 39}, {"save_strategy": "no", "max_steps": 19}, {"save_strategy": "epoch"}]
)
def test_p023_is_silent_on_short_runs_and_where_one_is_written(training: dict[str, Any]) -> None:
    assert "P023" not in [one.code for one in checked(training={"max_steps": 40} | training)]


def test_p024_evaluation_without_its_checkpoint() -> None:
    (one,) = checked(training={"max_steps": 40, "save_steps": 10, "eval_steps": 4})
    assert (one.code, one.severity) == ("P024", "note")
    for every in (5, 10, 20):
        assert checked(training={"max_steps": 40, "save_steps": 10, "eval_steps": every}) == []
    assert checked(training={"max_steps": 40, "save_steps": 10, "eval_strategy": "epoch"}) == []


def test_p025_four_bits_need_bitsandbytes_and_a_device_of_its(monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = checked(CPU.model_copy(update={"device": "mps"}), adapter={"kind": "qlora"})
    assert (one.code, one.severity) == ("P025", "error")
    assert "needs a GPU of NVIDIA's or a CPU, and the run is on mps" in one.what
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (one,) = checked(GPU, adapter={"kind": "qlora"})
    assert (one.what, one.fix) == ("A base in 4 bits needs bitsandbytes.", "Run `pip install 'bitsandbytes>=0.50'`.")
    assert checked(GPU, adapter={"kind": "qlora"}, launch={"on": "sky"}) == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert checked(GPU, adapter={"kind": "qlora"}) == []


def test_p026_both_half_precisions() -> None:
    (one,) = checked(changes={"fp16": True, "bf16": True})
    assert (one.code, one.severity, one.where) == ("P026", "error", "training.fp16")
    assert checked(changes={"fp16": True, "bf16": False}) == []


def test_p026_all_weights_in_fp16() -> None:
    (one,) = checked(adapter={"kind": "none"}, dtype="float16")
    assert (one.code, one.severity, one.where) == ("P026", "error", "dtype")
    assert checked(dtype="float16") == []
    assert checked(adapter={"kind": "none"}, dtype="float32") == []


def test_p026_bf16_on_a_gpu_that_has_none() -> None:
    old = GPU.model_copy(update={"name": "Tesla T4", "bf16": False})
    (one,) = checked(old, changes={"bf16": True})
    assert (one.code, one.severity) == ("P026", "warning")
    assert "Tesla T4 has no bf16" in one.what
    assert checked(old) == []
    assert checked(GPU, changes={"bf16": True}) == []


@pytest.mark.parametrize(
    ("alpha", "far"), [(None, False), (16, False), (2, False), (1, True), (128, False), (129, True)]
)
def test_p028_lora_s_alpha(alpha: int | None, far: bool) -> None:
    found = checked(adapter={"r": 16, "alpha": alpha})
    assert [one.code for one in found] == (["P028"] if far else [])
    assert checked(adapter={"kind": "none", "r": 16, "alpha": alpha}) == []


def test_p028_is_silent_on_the_usual_ones() -> None:
    for rank, alpha in ((64, 16), (8, 32), (16, 32)):
        assert checked(adapter={"r": rank, "alpha": alpha}) == []


def test_p038_an_optimizer_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    packages: dict[str, object] = {"bitsandbytes": None, "lomo_optim": None}
    real = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: packages[name] if name in packages else real(name))
    (one,) = checked(training={"optim": "paged_adamw_8bit"})
    assert (one.code, one.severity, one.where) == ("P038", "error", "training.optim")
    assert one.what == "The optimizer paged_adamw_8bit needs bitsandbytes, which isn't installed here."
    (one,) = checked(training={"optim": "lomo"})
    assert "pip install lomo-optim" in one.fix
    assert checked(GPU, training={"optim": "lomo"}, launch={"on": "sky"}) == []
    packages["bitsandbytes"] = object()
    assert checked(training={"optim": "paged_adamw_8bit"}) == []


def test_p038_names_the_optimizers_that_transformers_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of Transformers' optimizers is asked for, with none of the packages there that some of them need."""
    from transformers import TrainingArguments, trainer_optimizer
    from transformers.training_args import OptimizerNames

    for there in (one for one in dir(trainer_optimizer) if re.fullmatch(r"is_\w+_available", one)):
        monkeypatch.setattr(trainer_optimizer, there, lambda *_: False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    lacking, found = set(), set()
    recipe = make_recipe()
    made = make_plan(recipe)
    for name in (one.value for one in OptimizerNames):
        arguments = TrainingArguments(output_dir="x", optim=name, optim_target_modules="all-linear", use_cpu=True)
        context = trainer_optimizer.OptimizerContext(arguments, None, {}, {}, {})
        try:
            trainer_optimizer._OPTIMIZER_HANDLERS[name](context)
        except (ImportError, ValueError):
            lacking.add(name)
        asked = made.model_copy(update={"training": made.training | {"optim": name}})
        found |= {name for one in check_settings(asked, recipe) if one.code == "P038"}
    assert found == lacking


@pytest.mark.parametrize(
    ("package", "version", "code"),
    [
        ("transformers", "4.46.3", "P016"),
        ("transformers", "4.48.0", None),
        ("torch", "2.1.0+cu121", "P016"),
        ("torch", "2.1.1", None),
        ("torch", "2.1.2", "P016"),
        ("torch", "2.2.0", None),
        ("bitsandbytes", "0.41.0", "P016"),
        ("bitsandbytes", "0.41.1", None),
        ("peft", "0.6.2", "P016"),
    ],
)
def test_p016_versions_known_to_be_bad(package: str, version: str, code: str | None) -> None:
    found = [one for one in check_versions({package: version}) if one.code == "P016"]
    assert [one.code for one in found] == ([code] if code else [])
    if found:
        assert found[0].what.startswith(f"{package} {version}: ")
        assert found[0].fix.startswith("pip install ")


def test_p016_packages_that_no_record_names_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.40.0" if name == "bitsandbytes" else "99")
    assert [one.what.split(":")[0] for one in check_versions({})] == ["bitsandbytes 0.40.0"]


def test_p017_versions_that_tunesmith_does_not_know() -> None:
    (one,) = check_versions({"trl": "0.19.1"})
    assert (one.code, one.severity) == ("P017", "warning")
    assert one.what.startswith("trl 0.19.1 is installed, and tunesmith asks for ")
    assert re.fullmatch(r"Install a version that fits: pip install 'trl.*>=1\.16.*'\.", one.fix)
    assert "P017" in [one.code for one in check_versions({"transformers": "6.0.0"})]
    assert "P017" in [one.code for one in check_versions({"huggingface_hub": "0.20"})]


def test_what_is_installed_here_has_nothing_against_it() -> None:
    assert list(check_versions(installed_versions())) == []
    assert list(check_versions({"trl": "1.17.0rc1", "torch": "2.13.0+cu130"})) == []


def test_a_version_that_is_none_is_said_to_be_unknown() -> None:
    assert [one.code for one in check_versions({"peft": "built by hand"})] == ["P017"]


def test_the_table_of_bad_versions_is_complete() -> None:
    for row in bad_versions():
        assert set(row) == {"package", "from", "before", "problem", "remedy", "source"}
        assert Version(row["from"]) < Version(row["before"])
        assert all(re.fullmatch(r"[\w-]+#\d+", source) for source in row["source"])
    assert "date: 20" in environment._TABLE.read_text()


def test_a_plan_holds_all_of_these() -> None:
    made: Plan = make_plan(
        make_recipe(
            adapter={"kind": "qlora", "alpha": 1000},
            training={"max_steps": 40, "save_steps": 10, "eval_steps": 41},
            launch={"processes": 2, "flavor": "x"},
            hub={"repo": "me/m"},
        )
    )
    found = codes(made)
    assert {"P007", "P022", "P027", "P028", "P063"} <= set(found)
    assert found.count("P007") == 1


@pytest.mark.parametrize(("kind", "kwargs", "refused"), [
    ("lora", {"selective": True}, True),
    ("lora", {"use_reentrant": False}, False),
    ("none", {"selective": True}, False),
])  # fmt: skip
def test_p036_selective_checkpointing_under_lora(kind: str, kwargs: dict[str, Any], refused: bool) -> None:
    training = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": kwargs}
    found = codes(make_plan(make_recipe(adapter={"kind": kind}, training=training)))
    assert ("P036" in found) is refused
    off = {**training, "gradient_checkpointing": False}
    assert "P036" not in codes(make_plan(make_recipe(adapter={"kind": kind}, training=off)))
