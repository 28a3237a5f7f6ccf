"""The `training:` section: names, types and signs of the trainer's arguments."""

from pathlib import Path
from typing import Any

import pytest

from tunesmith.errors import EnvironmentLacksError, UsageError
from tunesmith.recipe import training
from tunesmith.recipe.training import _AT_LEAST, _NOT_ZERO, CONFIGS, OLD_NAMES, check_training, config_fields


def check(**arguments: Any) -> dict[str, Any]:
    return check_training("sft", arguments, "r.yaml", {f"training.{name}": 7 for name in arguments})


def refusal(**arguments: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        check(**arguments)
    assert caught.value.what.startswith("r.yaml line 7: ")
    return caught.value


@pytest.mark.parametrize(
    ("name", "given", "checked"),
    [
        ("learning_rate", "2e-5", 2e-5),  # YAML 1.1 reads 2e-5 as text
        ("learning_rate", "1E-4", 1e-4),
        ("learning_rate", 1, 1.0),
        ("num_train_epochs", 0.5, 0.5),
        ("max_steps", "30", 30),
        ("max_steps", -1, -1),
        ("max_steps", 30.0, 30),
        ("max_length", None, None),
        ("max_length", "512", 512),
        ("bf16", True, True),
        ("bf16", "yes", True),
        ("gradient_checkpointing", "false", False),
        ("report_to", "none", "none"),
        ("report_to", ["trackio", "wandb"], ["trackio", "wandb"]),
        ("run_name", "2e-5", "2e-5"),
        ("eval_strategy", "steps", "steps"),
        ("lr_scheduler_kwargs", {"a": 1}, {"a": 1}),
        ("lr_scheduler_kwargs", '{"a": 1}', '{"a": 1}'),
        ("warmup_steps", 0.1, 0.1),
    ],
)
def test_good_values(name: str, given: Any, checked: Any) -> None:
    found = check(**{name: given})[name]
    assert found == checked
    assert type(found) is type(checked)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("learning_rate", True),
        ("learning_rate", "fast"),
        ("learning_rate", None),
        ("learning_rate", [1]),
        ("max_length", 12.5),
        ("max_length", True),
        ("num_train_epochs", False),
        ("per_device_train_batch_size", "four"),
        ("bf16", "maybe"),
        ("bf16", 2),
        ("report_to", 3),
        ("run_name", 3),
        ("optim_args", True),
    ],
)
def test_wrong_types(name: str, given: Any) -> None:
    error = refusal(**{name: given})
    assert error.what == f"r.yaml line 7: training.{name} can't be {given!r}."
    assert error.why == f"It must be of type {config_fields('sft')[name]}."


@pytest.mark.parametrize("name", _AT_LEAST)
def test_lower_bounds(name: str) -> None:
    least = int(_AT_LEAST[name])
    if name not in _NOT_ZERO or least:
        assert check(**{name: least}) == {name: least}
    assert refusal(**{name: least - 1}).why == f"It must be at least {least:g}."
    assert "leave it out" in refusal(**{name: str(least - 1)}).fix


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "nan", "-inf"])
def test_numbers_that_are_none(value: Any) -> None:
    assert refusal(learning_rate=value).why == "It must be a finite number."


@pytest.mark.parametrize("name", OLD_NAMES)
def test_old_names_are_replaced(name: str) -> None:
    error = refusal(**{name: 1})
    assert error.what == f"r.yaml line 7: unknown training argument {name}."
    today = OLD_NAMES[name]
    assert error.fix == (f"Leave it out: {today[9:]}." if today.startswith("nothing: ") else f"Use {today}.")
    assert "older guides" in error.why


def test_unknown_names() -> None:
    assert refusal(learnin_rate=1).fix == "Did you mean learning_rate?"
    assert refusal(zzzzzzzz=1).fix == "The TRL documentation of SFTConfig lists them."


def test_without_a_line() -> None:
    with pytest.raises(UsageError, match=r"^command line: unknown training argument x\."):
        check_training("sft", {"x": 1}, "command line", {})


def test_nothing_to_check() -> None:
    assert check_training("sft", {}, "r.yaml", {}) == {}


def test_another_shape_of_trl_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    config_fields.cache_clear()
    monkeypatch.setitem(CONFIGS, "sft", ("trainer/sft_config.py", "OtherConfig"))
    with pytest.raises(EnvironmentLacksError, match=r"has no OtherConfig in trainer/sft_config\.py"):
        config_fields("sft")
    config_fields.cache_clear()


def test_a_package_that_is_absent_is_named() -> None:
    with pytest.raises(EnvironmentLacksError, match="no_such_package isn't installed") as caught:
        training._package_folder("no_such_package")
    assert caught.value.fix == "pip install no_such_package"


def test_fields_are_read_from_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "trl_like"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "config.py").write_text(
        "class Config(Unknown):\n    '''Doc.'''\n    a: int = 3\n    b: 'float | None' = None\n"
        "    c: ClassVar[int] = 1\n    d: str = field(init=False)\n    e: bool = field(default=True)\n    f = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert training._fields("trl_like", "config.py", "Config") == {"a": "int", "b": "float | None", "e": "bool"}


@pytest.mark.parametrize(
    ("name", "value", "near"),
    [("optim", "adamww", "adamw"), ("lr_scheduler_type", "cosin", "cosine"), ("save_strategy", "sometimes", None)],
)
def test_values_of_enums_are_checked(name: str, value: str, near: str | None) -> None:
    with pytest.raises(UsageError) as refused:
        check_training("sft", {name: value}, "recipe", {})
    assert "It must be one of" in refused.value.why
    assert near is None or near in refused.value.fix


@pytest.mark.parametrize("name", ["num_train_epochs", "max_steps", "logging_steps", "save_steps", "eval_steps"])
def test_zero_is_refused_where_nothing_would_happen(name: str) -> None:
    with pytest.raises(UsageError, match=f"training.{name} can't be 0"):
        check_training("sft", {name: 0}, "recipe", {})


def test_one_loss_of_dpo_may_be_a_text() -> None:
    assert check_training("dpo", {"loss_type": "ipo"}, "recipe", {}) == {"loss_type": ["ipo"]}
    assert check_training("dpo", {"loss_type": ["ipo", "sft"]}, "recipe", {}) == {"loss_type": ["ipo", "sft"]}
    assert check_training("sft", {"loss_type": "dft"}, "recipe", {}) == {"loss_type": "dft"}
    with pytest.raises(UsageError, match="loss_type can't be 3"):
        check_training("dpo", {"loss_type": 3}, "recipe", {})
