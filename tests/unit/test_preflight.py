"""The rules on a plan: each strikes on what it is about, and is silent next to it."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.plans import CPU, GPU, chat_rows, codes, make_plan, make_recipe
from tests.support.runs import small_facts
from tunesmith.models.facts import model_facts
from tunesmith.models.source import locate
from tunesmith.plan.fit import need
from tunesmith.plan.preflight import OWNED
from tunesmith.records import Finding, ModelFacts


def found(plan: Any, code: str) -> Finding:
    return next(one for one in plan.findings if one.code == code)


def facts(**changes: Any) -> ModelFacts:
    return model_facts(locate("builtin:small")).model_copy(update=changes)


@pytest.mark.parametrize(
    ("rate", "said"),
    [(5e-2, "10 times higher"), (1.0, "200 times higher"), (5e-4, "10 times lower"), (1e6, "over 1,000 times higher")],
)
def test_p002_a_learning_rate_far_off(rate: float, said: str) -> None:
    one = found(make_plan(make_recipe(training={"learning_rate": rate})), "P002")
    assert one.where == "training.learning_rate"
    assert f"{said} than is usual for LoRA (0.005)" in one.what
    assert "near 0.005" in one.fix


def test_p039_a_learning_rate_of_nothing() -> None:
    for training, adapter in (({"learning_rate": 0}, {"kind": "lora"}), ({"learning_rate": 0.0}, {"kind": "none"})):
        made = make_plan(make_recipe(training=training, adapter=adapter, dtype="bfloat16"))
        one = found(made, "P039")
        assert (one.severity, one.where) == ("error", "training.learning_rate")
        assert not {"P002", "P010"} & set(codes(made))
    assert "P039" not in codes(make_plan(make_recipe(training={"learning_rate": 1e-9})))


def test_p002_goes_by_what_is_trained() -> None:
    assert "P002" in codes(make_plan(make_recipe(training={"learning_rate": 4e-2}, adapter={"kind": "none"})))
    assert "P002" not in codes(make_plan(make_recipe(training={"learning_rate": 4e-2})))


@pytest.mark.parametrize("rate", [4.9e-2, 5.1e-4, 5e-3])
def test_p002_is_silent_near_what_is_usual(rate: float) -> None:
    assert "P002" not in codes(make_plan(make_recipe(training={"learning_rate": rate})))


def test_p003_longer_than_the_context() -> None:
    one = found(make_plan(make_recipe(training={"max_length": 2049})), "P003")
    assert "2049" in one.what
    assert "2048" in one.what
    for length in (2048, None):
        assert "P003" not in codes(make_plan(make_recipe(training={"max_length": length})))
    assert "P003" not in codes(make_plan(make_recipe(training={"max_length": 9999}), model=facts(context=0)))


def test_p005_hardly_any_steps() -> None:
    assert "only 9 optimizer steps" in found(make_plan(make_recipe(training={"max_steps": 9})), "P005").what
    assert "P005" not in codes(make_plan(make_recipe(training={"max_steps": 10})))


def test_p006_the_step_does_not_fit() -> None:
    sized = {"per_device_train_batch_size": 16, "gradient_checkpointing": False}
    recipe = make_recipe(adapter={"kind": "none"}, training=sized)
    wanted = need(make_plan(recipe).memory)
    assert "P006" not in codes(make_plan(recipe, CPU.model_copy(update={"memory": wanted})))
    near = found(make_plan(recipe, CPU.model_copy(update={"memory": wanted - 1})), "P006")
    assert (near.severity, near.where) == ("warning", "memory")
    far = found(make_plan(recipe, CPU.model_copy(update={"memory": wanted // 2})), "P006")
    assert far.severity == "error"
    assert f"needs {wanted / 1e9:.1f} GB" in far.what
    assert far.fix.startswith("In this order: ")


def test_p006_says_when_nothing_helps() -> None:
    plan = make_plan(make_recipe(), CPU.model_copy(update={"memory": 1 << 20}))
    assert not any(one.fits for one in plan.remedies)
    assert "even then it needs a bigger machine" in found(plan, "P006").fix


@pytest.mark.parametrize("place", ["hf-jobs", "sky"])
def test_p007_places_that_are_not_built_yet(place: str) -> None:
    assert place in found(make_plan(make_recipe(launch={"on": place})), "P007").what
    assert "P007" not in codes(make_plan(make_recipe(launch={"on": "local"})))


@pytest.mark.parametrize(
    ("keys", "where", "said"),
    [
        ({"hub": {"repo": "me/m"}}, "hub.repo", "Pushing the result"),
    ],
)
def test_p007_what_can_be_planned_and_not_yet_run(keys: dict[str, Any], where: str, said: str) -> None:
    one = found(make_plan(make_recipe(**keys)), "P007")
    assert (one.severity, one.where) == ("error", where)
    assert one.what == f"{said} can be planned, but isn't built in this version."
    assert "docs/roadmap.md" in one.fix
    assert "P007" not in codes(make_plan(make_recipe(hub={"private": False})))


def test_p008_a_target_that_matches_nothing() -> None:
    plan = make_plan(make_recipe(adapter={"targets": ["q_proj", "qproj"]}))
    assert "'qproj'" in found(plan, "P008").what
    assert "P008" not in codes(make_plan(make_recipe(adapter={"targets": ["q_proj"]})))


@pytest.mark.parametrize(
    "name", sorted(set(OWNED) - {"report_to", "save_strategy", "reward_weights", "log_completions_hub_repo"})
)
def test_p009_arguments_of_the_plan_s_own(name: str) -> None:
    from tunesmith.recipe.training import config_fields

    value: Any = next(value for value in (True, 3, "x", {"a": 1}) if _accepted(name, value))
    plan = make_plan(make_recipe(training={name: value}))
    one = found(plan, "P009")
    assert (one.where, one.severity) == (f"training.{name}", "error")
    assert OWNED[name][0] in one.what
    assert one.fix == OWNED[name][1]
    assert "hub: {repo" not in one.fix  # it would end in P007
    assert plan.training == make_plan(make_recipe()).training
    assert name in config_fields("sft")


def _accepted(name: str, value: Any) -> bool:
    from tunesmith.errors import UsageError

    try:
        make_recipe(training={name: value})
    except UsageError:
        return False
    return True


def test_p009_is_silent_on_the_user_s_arguments() -> None:
    assert "P009" not in codes(make_plan(make_recipe(training={"learning_rate": 5e-3, "max_steps": 30})))


def test_p010_updates_that_are_rounded_away() -> None:
    full: dict[str, Any] = {"adapter": {"kind": "none"}, "training": {"learning_rate": 2e-5}}
    assert "P010" in codes(make_plan(make_recipe(**full, dtype="bfloat16")))
    assert "P010" not in codes(make_plan(make_recipe(**full)))
    assert "P010" not in codes(make_plan(make_recipe(**full), GPU))
    full["training"] = {"learning_rate": 1e-4}
    assert "P010" not in codes(make_plan(make_recipe(**full, dtype="bfloat16")))
    lora = make_recipe(training={"learning_rate": 2e-5}, dtype="bfloat16")
    assert "P010" not in codes(make_plan(lora))


def test_t002_rows_that_are_cut() -> None:
    plan = make_plan(make_recipe(data={"eval": 0}))
    longest = plan.train.longest
    assert longest is not None
    assert "T002" not in codes(make_plan(make_recipe(data={"eval": 0}, training={"max_length": longest})))
    plan = make_plan(make_recipe(data={"eval": 0}, training={"max_length": longest - 1}))
    one = found(plan, "T002")
    assert one.what.startswith(f"{plan.train.cut} of 240 rows are longer than max_length {longest - 1}")
    assert 0 < plan.train.cut < 240
    assert str(longest) in one.fix
    assert "T002" not in codes(make_plan(make_recipe(training={"max_length": None})))


def test_t002_most_rows_cut_is_an_error_before_the_run_as_in_it() -> None:
    short = chat_rows(240)
    fits = make_plan(make_recipe(short, data={"eval": 0})).train.longest
    longer = [row | {"completion": [{"role": "assistant", "content": "x " * 40}]} for row in short]
    for count, severity in ((121, "error"), (120, "warning")):
        rows = [*longer[:count], *short[count:]]
        plan = make_plan(make_recipe(rows, data={"eval": 0}, training={"max_length": fits}))
        assert plan.train.cut == count
        assert found(plan, "T002").severity == severity


def test_t005_messages_without_a_template() -> None:
    bare = facts(has_template=False, name="org/base")
    assert "org/base has no chat template" in found(make_plan(make_recipe(), model=bare), "T005").what
    Path("mine.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    assert "T005" not in codes(make_plan(make_recipe(chat_template="mine.jinja"), model=bare))
    text = make_recipe([{"text": f"line {n}"} for n in range(240)])
    assert "T005" not in codes(make_plan(text, model=bare))
    assert "T005" not in codes(make_plan(make_recipe()))


def test_findings_of_the_rows_stand_in_the_plan() -> None:
    plan = make_plan(make_recipe([*chat_rows(240), *chat_rows(1)]))
    assert "D009" in codes(plan)


def test_small_facts_of_other_tests_are_near_the_model_s() -> None:
    assert small_facts().context == facts().context


def test_p011_evaluation_without_rows() -> None:
    asked = make_plan(make_recipe(data={"eval": 0}, training={"eval_strategy": "epoch"}))
    assert found(asked, "P011").severity == "error"
    for recipe in (make_recipe(data={"eval": 0}), make_recipe(training={"eval_strategy": "epoch"})):
        assert "P011" not in [one.code for one in make_plan(recipe).findings]


def test_all_trackers_at_once_are_refused() -> None:
    assert found(make_plan(make_recipe(training={"report_to": "all"})), "P009").where == "training.report_to"
    assert "P009" not in [one.code for one in make_plan(make_recipe(training={"report_to": ["tensorboard"]})).findings]


def test_p012_a_tracker_that_is_not_installed() -> None:
    one = found(make_plan(make_recipe(training={"report_to": ["wandb"]})), "P012")
    assert "pip install wandb" in one.fix
    assert "P012" not in codes(make_plan(make_recipe(training={"report_to": ["wandb"]}, launch={"on": "hf-jobs"})))
    for known in ("none", "trackio", []):
        assert "P012" not in codes(make_plan(make_recipe(training={"report_to": known})))


def test_t003_prompts_that_fill_the_whole_length() -> None:
    long = [{"prompt": [{"role": "user", "content": "order " * 3000}], "completion": chat_rows(1)[0]["completion"]}]
    plan = make_plan(make_recipe(chat_rows(100) + long, data={"eval": 0}))
    assert (found(plan, "T003").severity, plan.train.rows) == ("warning", 100)
    assert found(plan, "T003").what.startswith("1 of 101 rows have a prompt that fills the model's context of 2,048")
    assert "T003" not in codes(make_plan(make_recipe()))


def test_t002_says_when_the_context_is_the_limit() -> None:
    answer = [{"role": "assistant", "content": "order " * 3000}]
    plan = make_plan(make_recipe([*chat_rows(100), {**chat_rows(1)[0], "completion": answer}], data={"eval": 0}))
    assert "The model's context is 2048 tokens" in found(plan, "T002").fix


def test_the_best_checkpoint_is_not_chosen() -> None:
    assert found(make_plan(make_recipe(training={"save_strategy": "best"})), "P009").where == "training.save_strategy"
    assert "P009" not in codes(make_plan(make_recipe(training={"save_strategy": "epoch"})))
