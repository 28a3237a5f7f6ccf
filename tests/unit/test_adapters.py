"""Adapters as the recipe names them, as the plan counts them, and the rules on them; the runs are in integration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.plans import CPU, GPU, chat_rows, make_plan, make_recipe, rows_of
from tests.support.runs import SMALL
from tunesmith.errors import UsageError
from tunesmith.models.facts import model_facts
from tunesmith.models.light import LightTokenizer
from tunesmith.models.source import Source, locate
from tunesmith.models.tokens import widened
from tunesmith.plan.memory import Step, estimate
from tunesmith.plan.parameters import peft_arguments, trained_parameters
from tunesmith.plan.rates import usual_learning_rate
from tunesmith.plan.resolve import resolve
from tunesmith.plan.start import starting_model
from tunesmith.plan.vocabulary import check_vocabulary
from tunesmith.plan.work import trained_parameters as work_parameters
from tunesmith.recipe.adapter import Adapter
from tunesmith.records import EarlierAdapter, Finding, Hardware, ModelFacts

FACTS = model_facts(locate("builtin:small"))
EARLIER = EarlierAdapter(path="runs/a/model", sha256="0", kind="LORA", parameters=5, settings={"r": 4, "lora_alpha": 8})


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def findings(
    adapter: dict[str, Any], *earlier: EarlierAdapter, hardware: Hardware = CPU, **keys: Any
) -> dict[str, Finding]:
    """The plan's findings on adapters, by code."""
    recipe = make_recipe(adapter=adapter, **keys)
    model = FACTS.model_copy(update={"earlier": list(earlier)})
    tokens = recipe.adapter.tokens
    model = starting_model(recipe.adapter, model, LightTokenizer(SMALL, tokens=tokens))
    plan = resolve(recipe, rows_of(recipe), model, hardware, run="r").plan
    return {found.code: found for found in plan.findings if found.code in CODES}


CODES = ("P007", "P025", *(f"P{number:03}" for number in range(55, 65)))


@pytest.mark.parametrize(
    "adapter",
    [
        {"init": "pizza"},
        {"init": "pissa_niter_"},
        {"init": "pissa_niter_0"},
        {"init": True},
        {"tokens": ["a", "a"]},
        {"tokens": [" "]},
        {"tokens": ""},
        {"virtual_tokens": 0},
        {"earlier": "drop"},
        {"kind": "pissa"},
    ],
)
def test_what_is_no_adapter(adapter: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        make_recipe(adapter=adapter)


def test_one_token_is_a_list_of_one() -> None:
    assert make_recipe(adapter={"tokens": "<x>"}).adapter.tokens == ["<x>"]


@given(st.sampled_from(["default", "gaussian", "orthogonal", "olora", "pissa", "pissa_niter_1", "pissa_niter_99"]))
def test_inits_that_take_their_start_out_of_the_base(init: str) -> None:
    assert Adapter(init=init).mutates_base == ("pissa" in init or init == "olora")
    assert not Adapter(kind="ia3", init=init).mutates_base


CLEAN = [
    {"kind": "none"},
    {},
    {"dora": True, "rslora": True, "init": "gaussian"},
    {"init": "pissa", "rslora": True},
    {"kind": "ia3", "targets": ["k_proj", "down_proj"]},
]


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        ({}, "what the untrained model does"),
        ({"kind": "prompt"}, "untrained virtual tokens"),
        ({"kind": "prefix"}, "untrained virtual tokens"),
        ({"earlier": "continue"}, "what the earlier adapter does"),
    ],
)
def test_the_plan_says_what_is_evaluated_before_the_first_step(adapter: dict[str, Any], said: str) -> None:
    choices = {choice.name: choice for choice in make_plan(make_recipe(adapter=adapter)).choices}
    assert said in choices["eval_on_start"].reason


@pytest.mark.parametrize("adapter", CLEAN)
def test_adapters_without_a_finding(adapter: dict[str, Any]) -> None:
    assert findings(adapter) == {}


def test_p056_settings_that_do_not_go_together() -> None:
    for clash in ({"dora": True}, {"tokens": ["x"]}, {"kind": "qlora"}):
        found = findings({"init": "pissa", **clash})["P056"]
        other = "kind qlora" if "kind" in clash else next(iter(clash))
        assert f"init pissa with {other}: " in found.what
        assert found.fix == f"Leave `init` out, or {'take `kind: lora`' if 'kind' in clash else f'`{other}`'}."
        assert ("4 bits" in found.what) == ("kind" in clash)
    assert "P056" in findings({"kind": "ia3", "tokens": ["x"]})
    assert "P056" not in findings({"tokens": ["x"]})


def test_p056_virtual_tokens_and_what_they_cannot_stand() -> None:
    recomputes: dict[str, Any] = {"training": {"gradient_checkpointing": True}, "export": {"gguf": []}}
    assert "gradient_checkpointing" in findings({"kind": "prefix"}, **recomputes)["P056"].what
    assert findings({"kind": "prompt"}, **recomputes) == {}
    packs: dict[str, Any] = {"method": "clm", "training": {"packing": True}}
    rows = [{"text": f"{n} words " * 30} for n in range(64)]
    assert "with packing" in findings({"kind": "prompt"}, rows=rows, **packs)["P056"].what
    assert "P056" not in findings({"kind": "lora"}, rows=rows, **packs)


def test_p056_a_score_in_two_dtypes() -> None:
    rows = [{"prompt": f"a {n}", "chosen": "b", "rejected": "c"} for n in range(64)]
    found = findings({"kind": "qlora"}, rows=rows, method="reward")
    assert "dtype: bfloat16" in found["P056"].fix
    assert "P056" not in findings({"kind": "qlora"}, rows=rows, method="reward", dtype="bfloat16")


def test_p056_a_reference_without_the_earlier_run() -> None:
    rows = [{"prompt": f"a {n}", "reference": "b"} for n in range(64)]
    grpo: dict[str, Any] = {"rows": rows, "method": "grpo", "rewards": ["exact_match"]}
    kept = {**grpo, "training": {"beta": 0.1}}
    assert "with method grpo and beta" in findings({"kind": "none"}, EARLIER, **kept)["P056"].what
    assert "P056" not in findings({"kind": "none"}, EARLIER, **grpo)
    assert "P056" not in findings({"kind": "none"}, **kept)
    assert "P056" not in findings({}, EARLIER, **kept)


def test_p057_keys_that_do_nothing() -> None:
    found = findings({"kind": "ia3", "r": 8, "dora": True})["P057"]
    assert "adapter.r, adapter.dora change nothing: kind ia3 has no such setting" in found.what
    assert "adapter.virtual_tokens changes nothing" in findings({"virtual_tokens": 3})["P057"].what
    assert "adapter.earlier changes nothing" in findings({"earlier": "continue"})["P057"].what


def test_p057_the_earlier_adapter_keeps_its_settings() -> None:
    assert "adapter.r changes" in findings({"r": 8, "earlier": "continue"}, EARLIER)["P057"].what
    assert findings({"r": 4, "alpha": 8, "earlier": "continue"}, EARLIER) == {}
    assert findings({"r": 8}, EARLIER) == {}


def test_p058_p062_earlier_adapters_that_cannot_be_merged() -> None:
    prompt = EARLIER.model_copy(update={"kind": "PROMPT_TUNING"})
    assert "runs/a/model" in findings({}, prompt)["P058"].what
    assert set(findings({"earlier": "continue"}, prompt, EARLIER)) == {"P058"}
    scorer = EARLIER.model_copy(update={"task": "SEQ_CLS"})
    assert set(findings({}, scorer)) == {"P062"}


@pytest.mark.parametrize(
    ("adapter", "changes", "problem"),
    [
        ({"kind": "none"}, {}, "all weights are to be trained"),
        ({"kind": "ia3"}, {}, "of kind LORA, and the recipe trains ia3"),
        ({"kind": "prompt"}, {"kind": "PROMPT_TUNING"}, "for use alone"),
        ({}, {"task": "SEQ_CLS"}, "reward model"),
        ({"tokens": ["x"]}, {}, "tokens can't be added"),
    ],
)
def test_p059_what_cannot_be_trained_on(adapter: dict[str, Any], changes: dict[str, Any], problem: str) -> None:
    found = findings({**adapter, "earlier": "continue"}, EARLIER.model_copy(update=changes), export={"gguf": []})
    assert problem in found["P059"].what


def test_p060_p063_a_base_in_4_bits() -> None:
    assert set(findings({"kind": "qlora"})) == {"P063"}
    assert set(findings({"kind": "qlora"}, EARLIER)) == {"P060", "P063"}
    assert set(findings({"kind": "qlora", "r": 4, "earlier": "continue"}, EARLIER)) == {"P063"}


def test_p025_4_bits_on_a_gpu_without_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "P025" not in findings({"kind": "qlora"}, hardware=GPU)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "bitsandbytes>=0.50" in findings({"kind": "qlora"})["P025"].fix
    mps = CPU.model_copy(update={"device": "mps"})
    assert "and the run is on mps" in findings({"kind": "qlora"}, hardware=mps)["P025"].what


def test_p061_virtual_tokens_make_no_file() -> None:
    assert set(findings({"kind": "prompt"}, export={"gguf": ["f16"]})) == {"P061"}
    assert findings({"kind": "prompt"}, export={"gguf": []}) == {}
    assert findings({"kind": "prompt"}) == {}


def test_p055_tokens_that_no_row_has() -> None:
    rows = chat_rows(60)
    rows[3]["completion"][0]["content"] = "a <there> b"
    recipe = make_recipe(rows, adapter={"tokens": ["<there>", "<|im_start|>", "<x>", "<y>"]})
    tokenizer = LightTokenizer(SMALL, tokens=recipe.adapter.tokens)
    (found,) = check_vocabulary(recipe, starting_model(recipe.adapter, FACTS, tokenizer), tokenizer, rows_of(recipe))
    assert found.code == "P055"
    assert found.what.startswith("The tokens <x>, <y> are to be trained")
    recipe = make_recipe(rows, adapter={"tokens": ["<there>"]})
    assert list(check_vocabulary(recipe, FACTS, LightTokenizer(SMALL), rows_of(recipe))) == []


def test_tokens_widen_the_embedding_only_where_they_are_new() -> None:
    old = "<|im_start|>"
    tokenizer = LightTokenizer(SMALL, tokens=[old, "<new>"])
    found = starting_model(Adapter(tokens=[old]), FACTS, tokenizer)
    assert (found.embeddings, found.parameters, list(found.tokens)) == (0, FACTS.parameters, [old])
    found = starting_model(Adapter(tokens=[old, "<new>"]), FACTS, tokenizer)
    assert found.tokens["<new>"] == FACTS.vocabulary == found.embeddings - 1
    assert found.parameters == FACTS.parameters + FACTS.hidden
    assert found.parts.embedding == FACTS.parts.embedding + FACTS.hidden


def test_an_untied_head_is_widened_too() -> None:
    untied = FACTS.model_copy(update={"tied": False})
    found = widened(untied, untied.vocabulary + 3)
    assert found.parameters - untied.parameters == 6 * FACTS.hidden
    assert found.parameters - untied.parameters == sum(found.parts.model_dump().values()) - sum(
        FACTS.parts.model_dump().values()
    )
    assert widened(untied, untied.vocabulary) is untied


def test_rates_of_adapters_that_are_no_low_rank() -> None:
    assert usual_learning_rate(446_208, "prefix") == 0.3
    assert usual_learning_rate(8_000_000_000, "prefix") == 0.01
    assert usual_learning_rate(8_000_000_000, "ia3", "dpo") == 0.003


def test_memory_of_each_adapter() -> None:
    model = FACTS
    steps = {
        kind: Step(model=model, adapter=kind, rank=16, virtual=20, rows=4, length=256)
        for kind in ("none", "lora", "prompt", "prefix", "ia3")
    }
    peaks = {kind: estimate(step) for kind, step in steps.items()}
    for kind, step in steps.items():
        if kind != "ia3":  # counted by outputs alone
            adapter = Adapter.model_validate({"kind": kind, "virtual_tokens": 20})
            assert work_parameters(step) == trained_parameters(model, adapter)
    assert peaks["prompt"].optimizer < peaks["prefix"].optimizer < peaks["lora"].optimizer < peaks["none"].optimizer
    assert peaks["prompt"].allocated < peaks["lora"].allocated
    assert peaks["lora"].allocated_error < 0.1 < peaks["prompt"].allocated_error
    dora = estimate(steps["lora"].model_copy(update={"dora": True}))
    assert dora.allocated_error > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("llama", {"tie_word_embeddings": False}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("phi3", {"pad_token_id": 0}),
        ("gemma3_text", {"head_dim": 8}),
        ("gpt_neox", {}),
    ],
)
def test_counts_are_those_of_peft(model_type: str, changes: dict[str, Any], tmp_path: Path) -> None:
    import peft

    from tests.unit.test_facts import build
    from tunesmith.train.model import _tables

    build(model_type, **changes).save_pretrained(tmp_path)
    facts = model_facts(Source("m", str(tmp_path), tmp_path))
    tokens = {"a": 5, "b": 99}
    for adapter in (
        Adapter(r=3, dora=True, rslora=True),
        Adapter(r=3, tokens=["a", "b"]),
        Adapter(kind="ia3"),
        Adapter(kind="ia3", targets=[facts.linears[0].name]),
        Adapter(kind="prompt", virtual_tokens=7),
        Adapter(kind="prefix", virtual_tokens=7),
    ):
        found: ModelFacts = facts.model_copy(update={"tokens": tokens if adapter.tokens else {}})
        made, model = peft_arguments(adapter, found), build(model_type, **changes)
        assert made is not None
        arguments = dict(made.arguments)
        if adapter.tokens:
            arguments["trainable_token_indices"] = dict.fromkeys(_tables(model), sorted(tokens.values()))
        config = getattr(peft, made.config)(**arguments)
        trained = peft.get_peft_model(model, config).get_nb_trainable_parameters()[0]
        assert trained_parameters(found, adapter) == trained > 0, adapter
