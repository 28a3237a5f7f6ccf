"""What is said of TRL's config class is true of the installed one, and the plan's steps are the trainer's."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.plans import CPU, GPU, chat_rows, make_plan, make_recipe
from tunesmith.plan.preflight import OWNED
from tunesmith.recipe import Recipe
from tunesmith.recipe.training import _AT_LEAST, CONFIGS, OLD_NAMES, config_fields
from tunesmith.records import Plan

pytestmark = pytest.mark.slow  # importing the trainer alone takes 6 s


def test_the_fields_read_from_the_source_are_the_installed_class_s() -> None:
    from trl import SFTConfig

    fields = {field.name: field for field in dataclasses.fields(SFTConfig) if field.init}
    assert set(config_fields("sft")) == set(fields)
    for name, annotation in config_fields("sft").items():
        kind = fields[name].type
        assert annotation.replace('"', "'") == (kind if isinstance(kind, str) else annotation).replace('"', "'"), name


def test_numbers_that_are_checked_are_numbers() -> None:
    fields = config_fields("sft")
    for name in _AT_LEAST:
        assert re.match(r"(int|float)\b", fields[name]), name


def test_no_old_name_is_a_field_and_every_replacement_is_one() -> None:
    fields, recipe = config_fields("sft"), set(Recipe.model_fields)
    for old, new in OLD_NAMES.items():
        assert old not in fields
        for quoted in re.findall(r"`([^`]+)`", new):
            name = quoted.partition(":")[0]
            known = name in fields or name in recipe or quoted.startswith("hf ")
            assert known or "belongs to method" in new, f"{old}: {quoted}"
            assert name not in OWNED, f"{old}: {name} is refused by P009"
    assert {"`max_length`", "`eval_strategy`", "`learning_rate`"} <= set(OLD_NAMES.values())


def test_what_the_plan_owns_is_a_field() -> None:
    assert set(OWNED) <= {name for method in CONFIGS for name in config_fields(method)}


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"adapter": {"kind": "none"}},
        {"data": {"eval": 0}},
        {"training": {"max_steps": 5, "max_length": None, "report_to": "none"}},
        {
            "training": {
                "warmup_steps": 0.1,
                "save_total_limit": 1,
                "lr_scheduler_type": "linear",
                "neftune_noise_alpha": 5,
            }
        },
        {"training": {"save_steps": 0.1, "eval_steps": 0.2, "logging_steps": 0.05, "optim": "sgd"}},
    ],
)
def test_the_trainer_accepts_the_plan_s_arguments(keys: dict[str, Any], tmp_path: Path) -> None:
    from trl import SFTConfig

    plan = make_plan(make_recipe(**keys))
    config = SFTConfig(output_dir=str(tmp_path), **plan.training)
    for name, value in plan.training.items():
        held = getattr(config, name)
        held = getattr(held, "value", held)  # strategies become enums
        expected = [] if name == "report_to" and value == "none" else value
        assert held == expected, name


def test_layouts_that_mask(tmp_path: Path) -> None:
    from trl import SFTConfig

    talks = [
        {"messages": [*row["prompt"], *row["completion"], *row["prompt"], *row["completion"]]} for row in chat_rows(50)
    ]
    for rows in (talks, [{"text": f"line {n}"} for n in range(50)]):
        plan = make_plan(make_recipe(rows))
        assert SFTConfig(output_dir=str(tmp_path), **plan.training).assistant_only_loss is (rows is talks)


def test_arguments_for_a_gpu_are_known(tmp_path: Path) -> None:
    plan = make_plan(make_recipe(), GPU)
    assert set(plan.training) <= set(config_fields("sft"))


STEPS = [
    (240, {}),
    (241, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3}),
    (17, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4, "num_train_epochs": 2}),
    (17, {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 5, "num_train_epochs": 0.7}),
    (100, {"per_device_train_batch_size": 8, "num_train_epochs": 2.5}),
    (100, {"per_device_train_batch_size": 7, "num_train_epochs": 0.01}),
    (100, {"per_device_train_batch_size": 7, "max_steps": 40}),
    (100, {"per_device_train_batch_size": 7, "max_steps": 3, "num_train_epochs": 9}),
    (100, {"per_device_train_batch_size": 7, "max_steps": -1, "num_train_epochs": 1}),
    (101, {"per_device_train_batch_size": 10, "dataloader_drop_last": True, "num_train_epochs": 3}),
    (101, {"per_device_train_batch_size": 10, "dataloader_drop_last": True, "gradient_accumulation_steps": 4}),
    (3, {"per_device_train_batch_size": 16}),
]


def trainer_of(plan: Plan, rows: list[dict[str, Any]], folder: Path) -> Any:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    from tunesmith.models.load import load_tokenizer

    # That rows lie end to end while some are cut, TRL alone refuses (train/speed.py).
    arguments = plan.training | {"eval_strategy": "no", "padding_free": False}
    return SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(plan.model.location),
        args=SFTConfig(output_dir=str(folder), **arguments),
        train_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(plan.model.location),
    )


@pytest.mark.parametrize(("count", "training"), STEPS)
def test_the_steps_are_the_trainer_s(count: int, training: dict[str, Any], tmp_path: Path) -> None:
    rows = chat_rows(count)
    plan = make_plan(make_recipe(rows, data={"eval": 0}, training=training), CPU)
    trainer = trainer_of(plan, rows, tmp_path)
    loader = trainer.get_train_dataloader()
    epochs, per_epoch, *_, max_steps = trainer.set_initial_training_values(trainer.args, loader)
    assert plan.steps == max_steps
    assert plan.epochs == pytest.approx(max_steps / per_epoch if "max_steps" in training and training["max_steps"] > 0
                                        else training.get("num_train_epochs", 3))  # fmt: skip
    assert epochs >= plan.epochs - 1
    assert trainer.get_total_train_batch_size(trainer.args) == (
        plan.training["per_device_train_batch_size"] * plan.training["gradient_accumulation_steps"]
    )


def test_a_run_really_takes_the_planned_steps(tmp_path: Path) -> None:
    rows = chat_rows(21)
    training = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "num_train_epochs": 1.5}
    plan = make_plan(make_recipe(rows, data={"eval": 0}, training=training))
    trainer = trainer_of(plan, rows, tmp_path)
    trainer.train()
    assert (trainer.state.max_steps, trainer.state.global_step) == (plan.steps, plan.steps)
    assert trainer.state.log_history[-2]["num_tokens"] <= plan.epochs * plan.tokens_per_step * plan.steps
