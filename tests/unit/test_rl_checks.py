"""What the trainers of grpo and rloo would refuse, told by the plan."""

import ast
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tests.support.plans import chat_rows, codes, make_plan, make_recipe
from tunesmith.plan.rl_checks import GRPO_VALUES
from tunesmith.records import Finding

ROWS = [{"prompt": row["prompt"], "reference": "lamp"} for row in chat_rows(80)]


def found(code: str, method: str = "grpo", *, adapter: str = "none", **training: Any) -> list[Finding]:
    data = {"mapping": {"prompt": "prompt", "reference": "reference"}}
    keys = {"rewards": "exact_match", "adapter": {"kind": adapter}}
    plan = make_plan(make_recipe(ROWS, data=data, method=method, training=training, **keys))
    assert code in codes(plan) or not {"P046", "P054"} & set(codes(plan))
    return [one for one in plan.findings if one.code == code]


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_the_plan_s_own_choices_are_taken(method: str) -> None:
    assert found("P046", method) == []
    assert found("P054", method) == []


@pytest.mark.parametrize(
    ("training", "reason", "fix"),
    [
        ({"loss_type": "ppo"}, "loss_type is ppo: TRL has none of that name", "dapo"),
        ({"importance_sampling_level": "word"}, "is word", "token, sequence"),
        ({"scale_rewards": "groups"}, "is groups", "group, batch, none"),
        ({"multi_objective_aggregation": "sum"}, "is sum", "sum_then_normalize"),
        ({"num_generations": 1}, "num_generations is 1", "2 or more"),
        ({"temperature": 0.0}, "would all be the same", "1.0 is usual"),
        ({"auto_find_batch_size": True}, "would cut groups", "Leave it out"),
        ({"use_vllm": True}, "vllm isn't installed here", "pip install 'trl[vllm]'"),
        ({"sync_ref_model": True}, "with beta 0", "beta above 0"),
    ],
)
def test_p046_settings_that_the_trainer_refuses(training: dict[str, Any], reason: str, fix: str) -> None:
    (one,) = found("P046", **training)
    assert (one.severity, one.where) == ("error", f"training.{next(iter(training))}")
    assert reason in one.what
    assert fix in one.fix


def test_p046_a_reference_under_an_adapter_stays_as_it_is() -> None:
    (one,) = found("P046", adapter="lora", sync_ref_model=True, beta=0.1)
    assert "stays as it is" in one.what
    assert found("P046", sync_ref_model=True, beta=0.1) == []


def test_values_of_grpo_are_not_asked_of_rloo() -> None:
    assert found("P046", "rloo", normalize_advantages=True) == []
    assert found("P046", scale_rewards="none") == []


@pytest.mark.parametrize(
    ("training", "steps"),
    [
        ({"num_iterations": 3}, "3"),
        ({"steps_per_generation": 4, "gradient_accumulation_steps": 2}, "2"),
        ({"generation_batch_size": 64, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}, "4"),
    ],
)
def test_p054_answers_that_serve_several_steps(training: dict[str, Any], steps: str) -> None:
    (one,) = found("P054", **training)
    assert one.severity == "warning"
    assert f"used for {steps} optimizer steps" in one.what


def test_p054_answers_of_one_step_are_no_matter() -> None:
    assert found("P054", steps_per_generation=2, gradient_accumulation_steps=2) == []
    assert found("P054", gradient_accumulation_steps=4) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("reward_weights", [1.0]), ("log_completions_hub_repo", "me/answers"), ("model_init_kwargs", {"dtype": "auto"})],
)
def test_p009_what_the_recipe_says_elsewhere(name: str, value: Any) -> None:
    (one,) = found("P009", **{name: value})
    assert name in one.what


def test_the_known_values_are_those_of_the_installed_trl() -> None:
    package = importlib.util.find_spec("trl")
    assert package is not None
    assert package.origin is not None
    source = Path(package.origin).with_name("trainer") / "grpo_trainer.py"
    compared: dict[str, set[Any]] = {name: set() for name in GRPO_VALUES}
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Compare) and isinstance(node.left, ast.Attribute) and node.left.attr in compared:
            values = ast.literal_eval(node.comparators[0])
            compared[node.left.attr] |= set(values) if isinstance(values, list) else {values}
    for name, values in compared.items():
        assert values == set(GRPO_VALUES[name]), name
