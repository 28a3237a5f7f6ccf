"""The plan: every value with its reason, the recipe's before the plan's own."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.plans import CPU, GPU, chat_rows, make_plan, make_recipe, write_rows
from tests.support.runs import small_facts
from tunesmith.files import sha256
from tunesmith.models.facts import model_facts
from tunesmith.models.source import locate
from tunesmith.pipeline import make_plan as plan_recipe
from tunesmith.pipeline import prepare_run
from tunesmith.records import Choice, Hardware, ModelFacts, Plan
from tunesmith.rules import FindingsError

BIG = small_facts().model_copy(
    update={"parameters": 600_000_000, "hidden": 1024, "intermediate": 3072, "layers": 28, "context": 32768}
)


def choice(plan: Plan, name: str) -> Choice:
    return next(made for made in plan.choices if made.name == name)


def test_a_clean_plan_finds_nothing() -> None:
    plan = make_plan(make_recipe(data={"eval": 0.5}))
    assert plan.findings == []
    assert (plan.method, plan.layout, plan.loss_on) == ("sft", "prompt-completion", "completion")
    assert (plan.parameters, plan.parameters_trained) == (446_208, 16 * 4 * 192 * 3 + 16 * 3 * 384 * 3)
    assert (plan.train.rows, plan.eval and plan.eval.rows) == (120, 120)


def test_every_choice_has_a_reason_and_a_source() -> None:
    plan = make_plan(make_recipe(training={"learning_rate": 4e-3, "lr_scheduler_type": "linear"}))
    assert all(made.reason for made in plan.choices)
    names = [made.name for made in plan.choices]
    assert len(names) == len(set(names))
    given = {made.name for made in plan.choices if made.source == "recipe"}
    assert given == {"learning_rate", "lr_scheduler_type"}
    assert {made.name: made.value for made in plan.choices if not made.name.startswith("model.")} == plan.training


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 1e-3),
        ("num_train_epochs", 2.5),
        ("max_steps", 50),
        ("per_device_train_batch_size", 3),
        ("gradient_accumulation_steps", 5),
        ("per_device_eval_batch_size", 2),
        ("max_length", 64),
        ("max_length", None),
        ("warmup_steps", 7),
        ("warmup_steps", 0),
        ("weight_decay", 0.1),
        ("save_steps", 3),
        ("save_total_limit", 5),
        ("save_total_limit", None),
        ("eval_strategy", "no"),
        ("logging_steps", 4),
        ("gradient_checkpointing", True),
        ("optim", "adamw_torch"),
        ("bf16", True),
        ("neftune_noise_alpha", 5.0),
        ("run_name", "mine"),
        ("report_to", "wandb"),
    ],
)
def test_the_recipe_s_values_win(name: str, value: Any) -> None:
    plan = make_plan(make_recipe(training={name: value}))
    made = choice(plan, name)
    assert (made.value, made.source, made.reason) == (
        ["wandb"] if name == "report_to" else value,
        "recipe",
        "set in the recipe",
    )
    assert plan.training[name] == made.value


def test_two_checkpoints_are_kept_unless_the_recipe_says_otherwise() -> None:
    assert make_plan(make_recipe()).training["save_total_limit"] == 2
    assert make_plan(make_recipe(training={"save_total_limit": 1})).training["save_total_limit"] == 1


def test_choices_on_a_cpu() -> None:
    training = make_plan(make_recipe()).training
    assert (training["use_cpu"], training["bf16"], training["packing"]) == (True, False, False)
    assert (training["per_device_train_batch_size"], training["gradient_accumulation_steps"]) == (16, 1)
    assert training["padding_free"]
    big = make_plan(make_recipe(), model=BIG).training
    assert (big["per_device_train_batch_size"], big["gradient_accumulation_steps"]) == (1, 16)


def test_all_arguments_of_the_trainer() -> None:
    """Nothing that matters is left to a default of the library's."""
    assert make_plan(make_recipe()).training == {
        "max_length": 64,
        "per_device_train_batch_size": 16,
        "gradient_accumulation_steps": 1,
        "per_device_eval_batch_size": 16,
        "gradient_checkpointing": False,
        "packing": False,
        "padding_free": True,
        "learning_rate": 5e-3,
        "lr_scheduler_type": "cosine",
        "optim": "adamw_torch_fused",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "num_train_epochs": 3,
        "warmup_steps": 2,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": 9,
        "save_total_limit": 2,
        "eval_strategy": "steps",
        "eval_steps": 9,
        "eval_on_start": True,
        "report_to": "none",
        "project": "tunesmith",
        "run_name": "r1",
        "use_cpu": True,
        "bf16": False,
        "seed": 42,
        "data_seed": 42,
        "completion_only_loss": True,
        "logging_nan_inf_filter": False,
        "trackio_static_space_id": False,
        "disable_tqdm": True,
    }


def test_choices_on_a_gpu() -> None:
    plan = make_plan(make_recipe(), GPU, BIG)
    assert (plan.training["use_cpu"], plan.training["bf16"], plan.training["packing"]) == (False, True, True)
    assert "padding" in choice(plan, "packing").reason
    assert (plan.training["per_device_train_batch_size"], plan.training["gradient_checkpointing"]) == (8, False)
    tight = make_plan(make_recipe(), GPU.model_copy(update={"memory": 2 << 30}), BIG)
    assert tight.training["gradient_checkpointing"] or tight.training["per_device_train_batch_size"] < 8
    assert "the largest that fits" in choice(plan, "per_device_train_batch_size").reason


@pytest.mark.parametrize(
    ("kind", "hardware", "dtype"),
    [
        ("lora", CPU, "float32"),
        ("lora", GPU, "bfloat16"),
        ("none", GPU, "float32"),
        ("lora", GPU.model_copy(update={"bf16": False}), "float32"),
    ],
)
def test_the_dtype_of_the_weights(kind: str, hardware: Hardware, dtype: str) -> None:
    plan = make_plan(make_recipe(adapter={"kind": kind}), hardware)
    assert plan.model_kwargs == {"dtype": dtype}
    assert (choice(plan, "model.dtype").value, choice(plan, "model.dtype").source) == (dtype, "plan")
    assert "model.dtype" not in plan.training
    if kind == "lora":
        why = {"cpu": "the CPU", "cuda": "half the memory" if hardware.bf16 else "no bf16"}[hardware.device]
        assert why in choice(plan, "model.dtype").reason


def test_the_dtype_of_the_recipe() -> None:
    plan = make_plan(make_recipe(dtype="float16"))
    assert plan.model_kwargs == {"dtype": "float16"}
    assert choice(plan, "model.dtype").source == "recipe"
    assert plan.memory.weights == 2 * 446_208 + 4 * plan.parameters_trained


def test_adapter_or_all_weights() -> None:
    lora = make_plan(make_recipe(adapter={"r": 4, "targets": ["q_proj"]}))
    assert lora.peft is not None
    assert (lora.peft.arguments["r"], lora.peft.arguments["lora_alpha"], lora.peft.arguments["target_modules"]) == (
        4,
        8,
        ["q_proj"],
    )
    assert lora.parameters_trained == 4 * 192 * 3
    full = make_plan(make_recipe(adapter={"kind": "none"}))
    assert (full.peft, full.parameters_trained) == (None, 446_208)
    assert full.training["learning_rate"] == 3e-3
    assert "full fine-tuning" in choice(full, "learning_rate").reason


def test_the_longest_row_decides_the_length() -> None:
    plan = make_plan(make_recipe())
    longest = plan.train.longest
    assert longest is not None
    assert plan.training["max_length"] % 64 == 0
    assert 0 <= plan.training["max_length"] - longest < 64
    assert str(longest) in choice(plan, "max_length").reason
    short = small_facts().model_copy(update={"context": longest - 1})
    assert make_plan(make_recipe(), model=short).training["max_length"] == longest - 1
    long = make_plan(make_recipe(chat_rows(9, words=400)))
    assert long.train.longest is not None
    assert long.training["max_length"] == -(-long.train.longest // 64) * 64
    exact = small_facts().model_copy(update={"context": longest})
    plan = make_plan(make_recipe(), model=exact)
    assert (plan.training["max_length"], plan.train.cut) == (longest, 0)


def test_a_model_that_says_nothing_of_its_context() -> None:
    silent = small_facts().model_copy(update={"context": 0})
    rows = [{**row, "completion": [{"role": "assistant", "content": "word " * 1100}]} for row in chat_rows(20)]
    assert make_plan(make_recipe(rows), model=silent).training["max_length"] == 1024


def test_rows_of_very_different_length_are_grouped() -> None:
    assert "train_sampling_strategy" not in make_plan(make_recipe()).training
    rows = chat_rows(30) + chat_rows(60, words=100)[30:]
    padded = {"padding_free": False, "per_device_train_batch_size": 16}
    plan = make_plan(make_recipe(rows + chat_rows(200)[60:], training=padded))
    assert plan.training["train_sampling_strategy"] == "group_by_length"
    assert "train_sampling_strategy" not in make_plan(make_recipe(rows + chat_rows(200)[60:])).training
    single = make_plan(make_recipe(rows + chat_rows(200)[60:], training=padded | {"per_device_train_batch_size": 1}))
    assert "train_sampling_strategy" not in single.training


def test_a_short_run_is_watched_as_closely_as_a_long_one() -> None:
    short, long = (make_plan(make_recipe(training={"max_steps": steps})).training for steps in (4, 4000))
    assert (short["logging_steps"], short["save_steps"], short["warmup_steps"]) == (1, 1, 1)
    assert (long["logging_steps"], long["save_steps"], long["warmup_steps"]) == (20, 800, 200)
    assert long["eval_steps"] == 800


def test_without_eval_rows_nothing_is_evaluated() -> None:
    plan = make_plan(make_recipe(data={"eval": 0}))
    assert (plan.eval, plan.test, plan.training["eval_strategy"]) == (None, None, "no")
    assert "eval_steps" not in plan.training
    assert plan.train.rows == 240


def test_test_rows_come_before_eval_rows() -> None:
    recipe = make_recipe()
    plan = make_plan(recipe)
    assert (plan.eval, plan.test) == (plan.test, plan.eval)
    test = write_rows(Path("test.jsonl"), chat_rows(500)[300:])
    plan = make_plan(make_recipe(data={"test": test}))
    assert (plan.test and plan.test.path, plan.eval and plan.eval.path) == ("data/test.jsonl", "data/eval.jsonl")
    assert plan.test is not None
    assert plan.test.rows == 200


@pytest.mark.parametrize(
    ("report_to", "trackers", "library"),
    [
        (None, ["trackio"], "none"),
        ("none", [], "none"),
        ("trackio", ["trackio"], "none"),
        (["wandb", "trackio"], ["trackio"], ["wandb"]),
        (["tensorboard"], [], ["tensorboard"]),
        ([], [], "none"),
    ],
)
def test_trackio_is_never_fed_by_the_library(report_to: Any, trackers: list[str], library: Any) -> None:
    training = {} if report_to is None else {"report_to": report_to}
    plan = make_plan(make_recipe(training=training))
    assert (plan.trackers, plan.training["report_to"]) == (trackers, library)
    assert any(made.name == "model.trackio" for made in plan.choices) is bool(trackers)
    assert plan.training["run_name"] == "r1"


def test_only_the_answer_is_trained() -> None:
    assert make_plan(make_recipe()).training["completion_only_loss"] is True
    talks = [
        {"messages": [*row["prompt"], *row["completion"], *row["prompt"], *row["completion"]]} for row in chat_rows(240)
    ]
    plan = make_plan(make_recipe(talks))
    assert (plan.layout, plan.loss_on, plan.training["assistant_only_loss"]) == ("messages", "assistant", True)
    assert "completion_only_loss" not in plan.training
    plan = make_plan(make_recipe([{"text": f"line {n}"} for n in range(240)]))
    assert (plan.layout, plan.loss_on) == ("text", "all")
    assert not {"completion_only_loss", "assistant_only_loss"} & set(plan.training)


def test_at_least_a_step_for_each_epoch() -> None:
    plan = make_plan(make_recipe(chat_rows(3), data={"eval": 0}))
    assert (plan.steps, plan.epochs) == (3, 3.0)


def test_the_reason_of_the_steps_names_what_they_come_from() -> None:
    training = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3, "num_train_epochs": 2}
    made = choice(make_plan(make_recipe(data={"eval": 0}, training=training)), "model.steps")
    assert (made.value, made.reason) == (40, "240 rows, 20 steps a pass, 2 epochs")


def test_seed_and_guards() -> None:
    training = make_plan(make_recipe(seed=7)).training
    assert (training["seed"], training["data_seed"]) == (7, 7)
    assert training["logging_nan_inf_filter"] is False
    assert training["disable_tqdm"] is True
    assert training["trackio_static_space_id"] is False


def test_tokens_per_step() -> None:
    plan = make_plan(make_recipe())
    assert plan.train.tokens is not None
    assert plan.tokens_per_step == round(16 * plan.train.tokens / plan.train.rows)
    assert plan.train.longest is not None
    limit = plan.train.longest - 5
    cut = make_plan(make_recipe(training={"max_length": limit, "gradient_accumulation_steps": 2}))
    assert cut.tokens_per_step == round(32 * min(plan.train.tokens / plan.train.rows, limit))


def test_a_plan_keeps_its_recipe(tmp_path: Path) -> None:
    from tunesmith.recipe import Recipe

    recipe = make_recipe(training={"max_steps": 3})
    plan = make_plan(recipe)
    assert Recipe.model_validate(plan.recipe) == recipe
    plan.save(tmp_path)
    assert Plan.load(tmp_path) == plan


def test_versions_of_what_the_run_stands_on() -> None:
    import platform
    from importlib.metadata import version

    from tunesmith.plan.versions import installed_versions

    found = installed_versions()
    assert (found["python"], found["trl"]) == (platform.python_version(), version("trl"))
    assert {"torch", "transformers", "peft", "tunesmith"} <= set(found)


def test_planning_imports_no_torch_and_writes_nothing(tmp_path: Path) -> None:
    make_recipe()
    before = set(tmp_path.rglob("*"))
    code = (
        "import sys; from tunesmith.pipeline import make_plan; from tunesmith.recipe import build_recipe;"
        "made = make_plan(build_recipe({'model': 'builtin:small', 'data': {'train': 'train.jsonl'}}));"
        "print(made.steps, {'torch', 'trl', 'datasets', 'scipy'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert ran.stdout == "45 set()\n"
    assert set(tmp_path.rglob("*")) == before


def test_a_prepared_run_holds_what_the_plan_says(tmp_path: Path) -> None:
    recipe = make_recipe()
    folder = prepare_run(recipe, tmp_path / "run")
    plan = Plan.load(folder)
    for split in (plan.train, plan.eval):
        assert split is not None
        path = folder / split.path
        assert sha256(path) == split.sha256
        assert len(path.read_text().splitlines()) == split.rows
    assert re.fullmatch("run-[0-9a-f]{4}", plan.training["run_name"])
    assert plan == plan_recipe(recipe, run=plan.training["run_name"])
    assert not (folder / "data" / "test.jsonl").exists()


def test_a_plan_with_errors_writes_nothing(tmp_path: Path) -> None:
    recipe = make_recipe(training={"max_length": 4096})
    with pytest.raises(FindingsError, match="P003"):
        prepare_run(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_facts_in_the_plan_are_those_of_the_model() -> None:
    facts: ModelFacts = model_facts(locate("builtin:small"))
    assert make_plan(make_recipe()).model == facts
    assert Path(facts.location).is_absolute()
