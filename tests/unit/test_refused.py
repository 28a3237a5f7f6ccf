"""P046 to P049: what a method's trainer refuses or leaves out of account is said by the plan."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.plans import codes, make_plan, make_recipe
from tests.support.preferences import rows_for
from tunesmith.models.facts import model_facts
from tunesmith.models.source import locate
from tunesmith.plan.refused import LOSSES, scored_types
from tunesmith.plan.sizing import is_flat
from tunesmith.records import Finding, Plan


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def planned(method: str, adapter: dict[str, Any] | None = None, **training: Any) -> Plan:
    recipe = make_recipe(rows_for(method, 40), method=method, adapter=adapter or {"kind": "none"}, training=training)
    return make_plan(recipe)


def refused(plan: Plan) -> list[Finding]:
    return [found for found in plan.findings if found.code == "P046"]


@pytest.mark.parametrize("method", ["sft", "clm", "dpo", "kto", "reward"])
@pytest.mark.parametrize("kind", ["none", "lora"])
def test_what_the_plan_chooses_is_refused_by_none(method: str, kind: str) -> None:
    assert {"P046", "P047", "P048", "P049"}.isdisjoint(codes(planned(method, {"kind": kind})))


@pytest.mark.parametrize(
    ("method", "training", "where", "said"),
    [
        ("dpo", {"loss_type": ["sigmod"]}, "loss_type", "TRL has no sigmod"),
        ("sft", {"loss_type": "nil"}, "loss_type", "TRL has no nil"),
        ("clm", {"loss_type": "sigmoid"}, "loss_type", "TRL has no sigmoid"),
        ("kto", {"loss_type": "sigmoid"}, "loss_type", "TRL has no sigmoid"),
        ("dpo", {"loss_type": ["exo_pair"]}, "loss_type", "exo_pair needs a label_smoothing"),
        ("dpo", {"loss_type": ["robust"], "label_smoothing": 0.5}, "label_smoothing", "robust divides by"),
        ("dpo", {"loss_type": ["sigmoid"], "label_smoothing": 0.1}, "label_smoothing", "use it"),
        ("dpo", {"loss_type": ["aot"], "use_weighting": True}, "use_weighting", "aot sorts the pairs"),
        ("dpo", {"loss_type": ["nca_pair"], "f_divergence_type": "forward_kl"}, "f_divergence_type", "nca_pair"),
        ("dpo", {"sync_ref_model": True}, "sync_ref_model", "before training only"),
        ("dpo", {"padding_free": True}, "padding_free", "switches it off"),
        ("kto", {"per_device_train_batch_size": 1}, "per_device_train_batch_size", "its neighbour's answer"),
        ("kto", {"train_sampling_strategy": "random"}, "train_sampling_strategy", "its neighbour's answer"),
    ],
)
def test_p046_names_the_setting_and_why(method: str, training: dict[str, Any], where: str, said: str) -> None:
    (found,) = refused(planned(method, **training))
    assert (found.where, found.severity) == (f"training.{where}", "error")
    assert said in found.what
    assert found.fix.endswith(".")


@pytest.mark.parametrize(
    ("method", "training"),
    [
        ("dpo", {"loss_type": ["exo_pair"], "label_smoothing": 0.001}),
        ("dpo", {"loss_type": ["robust", "sft"], "label_smoothing": 0.1}),
        ("dpo", {"loss_type": ["ipo"], "f_divergence_type": "forward_kl"}),
        ("dpo", {"loss_type": ["sigmoid"], "use_weighting": True}),
        ("dpo", {"sync_ref_model": True, "precompute_ref_log_probs": False}),
        ("kto", {"per_device_train_batch_size": 1, "loss_type": "apo_zero_unpaired"}),
        ("kto", {"per_device_train_batch_size": 2}),
        ("reward", {"per_device_train_batch_size": 1}),
    ],
)
def test_p046_is_silent_on_what_trl_takes(method: str, training: dict[str, Any]) -> None:
    assert refused(planned(method, **training)) == []


def test_p046_an_adapter_s_reference_can_t_follow() -> None:
    (found,) = refused(planned("dpo", {"kind": "lora"}, sync_ref_model=True))
    assert found.fix == "Leave it out."


def test_rows_of_dpo_are_never_taken_to_lie_end_to_end() -> None:
    assert is_flat("sft", {"padding_free": True})
    assert is_flat("clm", {"packing": True})
    assert not is_flat("sft", {})
    assert not is_flat("dpo", {"padding_free": True})
    assert "P076" not in codes(planned("dpo", padding_free=True))


@pytest.mark.slow
def test_the_losses_are_those_of_the_installed_trl() -> None:
    from trl import DPOConfig, KTOConfig, SFTConfig

    told = DPOConfig.__dataclass_fields__["loss_type"].metadata["help"]
    assert set(re.findall(r"`'(\w+)'`", told)) == set(LOSSES["dpo"])
    for method, config in (("kto", KTOConfig), ("sft", SFTConfig), ("clm", SFTConfig)):
        assert set(config.__dataclass_fields__["loss_type"].metadata["choices"]) == set(LOSSES[method])


def test_p047_a_model_without_a_score() -> None:
    facts = model_facts(locate("builtin:small"))
    recipe = make_recipe(rows_for("reward", 40), method="reward")
    other = make_plan(recipe, model=facts.model_copy(update={"model_type": "lfm2"}))
    assert [found.severity for found in other.findings if found.code == "P047"] == ["error"]
    assert {"qwen3", "llama", "gemma3_text", "mistral", "gpt2"} <= scored_types()
    assert "lfm2" not in scored_types()


@pytest.mark.parametrize(
    ("method", "training", "told"),
    [
        ("dpo", {}, True),
        ("kto", {}, True),
        ("reward", {}, True),
        ("sft", {}, False),
        ("dpo", {"disable_dropout": False}, False),
    ],
)
def test_p048_dropout_without_effect(method: str, training: dict[str, Any], told: bool) -> None:
    assert ("P048" in codes(planned(method, {"kind": "lora", "dropout": 0.1}, **training))) is told


@pytest.mark.parametrize(("kind", "told"), [("base", True), ("instruct", False), ("unknown", False)])
def test_p049_dft_on_a_base_model(kind: str, told: bool) -> None:
    facts = model_facts(locate("builtin:small")).model_copy(update={"kind": kind})
    recipe = make_recipe(rows_for("sft", 40), training={"loss_type": "dft"})
    assert ("P049" in codes(make_plan(recipe, model=facts))) is told
    assert "P049" not in codes(make_plan(make_recipe(rows_for("sft", 40)), model=facts))
