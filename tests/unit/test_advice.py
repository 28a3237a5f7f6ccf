"""Advice on method and hyperparameters: values that follow from data, model and machine, each with its reason."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.runs import small_facts
from tunesmith.plan.advice import (
    adapter_for,
    advise,
    capacity,
    epochs_for,
    learning_rate_for,
    rank_for,
    warm_up_for,
)
from tunesmith.plan.rates import Kind, usual_epochs, usual_learning_rate
from tunesmith.recipe.adapter import Adapter
from tunesmith.records import LinearShape

# Llama-3.1-8B's linear layers: 41,943,040 parameters at rank 16.
SHAPES = {"q_proj": (4096, 4096), "k_proj": (1024, 4096), "v_proj": (1024, 4096), "o_proj": (4096, 4096),
          "gate_proj": (14336, 4096), "up_proj": (14336, 4096), "down_proj": (4096, 14336)}  # fmt: skip
LINEARS = [LinearShape(name=name, out_features=out, in_features=into, count=32) for name, (out, into) in SHAPES.items()]
LLAMA = small_facts().model_copy(update={"parameters": 8_030_261_248, "linears": LINEARS})
MILLION = 1_000_000


def test_what_an_adapter_can_hold() -> None:
    assert capacity(LLAMA, 16) == 2 * 41_943_040
    assert capacity(LLAMA, 32) == 2 * capacity(LLAMA, 16)
    assert capacity(LLAMA, 16, ["q_proj", "k_proj", "v_proj", "o_proj"]) == pytest.approx(2 * 13.63e6, rel=1e-3)


@pytest.mark.parametrize(
    ("tokens", "fits", "kind", "said"),
    [
        (MILLION, {}, "lora", "an adapter holds 1 million tokens, and then learns as much as all weights would"),
        (MILLION, {"none": False}, "lora", "all weights don't fit in memory"),
        (MILLION, {"none": False, "lora": False}, "qlora", "on 4 bits it does, some 30% slower"),
        (5000 * MILLION, {}, "none", "5 billion tokens are more than an adapter of rank 256 can hold"),
        (5000 * MILLION, {"none": False}, "lora", "all weights don't fit in memory, though 5 billion tokens are more"),
    ],
)
def test_lora_or_full(tokens: int, fits: dict[Kind, bool], kind: str, said: str) -> None:
    advice = adapter_for(LLAMA, tokens, fits)
    assert advice is not None
    assert advice.value == kind
    assert said in advice.reason


@pytest.mark.parametrize(
    ("tokens", "rank"), [(0, 16), (80 * MILLION, 16), (84 * MILLION, 32), (1300 * MILLION, 256), (9000 * MILLION, 256)]
)
def test_ranks_that_hold_the_rows(tokens: int, rank: int) -> None:
    assert rank_for(LLAMA, tokens).value == rank


@pytest.mark.parametrize(("smaller", "larger"), [(16, 32), (32, 64), (64, 128), (128, 256)])
def test_a_rank_is_taken_up_to_what_it_holds(smaller: int, larger: int) -> None:
    most = int(capacity(LLAMA, smaller))
    assert (rank_for(LLAMA, most).value, rank_for(LLAMA, most + 1).value) == (smaller, larger)


@pytest.mark.parametrize(
    ("count", "said"), [(999_000_000, "999.0 M"), (1_000_000_000, "1.0 B"), (1_500_000_000, "1.5 B")]
)
def test_sizes_in_words(count: int, said: str) -> None:
    assert f"of {said} parameters" in learning_rate_for(LLAMA.model_copy(update={"parameters": count}), "none").reason


def test_why_a_rank() -> None:
    assert rank_for(LLAMA, 6 * MILLION).reason == "holds about 83.9 million tokens; the rows have 6 million"
    assert "more than it can hold" in rank_for(LLAMA, 9000 * MILLION).reason
    assert rank_for(small_facts(), 6 * MILLION) == (16, "usual; the model's layers aren't known")


@given(st.integers(0, 10**10), st.integers(0, 10**10))
def test_more_tokens_never_ask_for_a_smaller_adapter_or_more_epochs(one: int, other: int) -> None:
    few, many = sorted((one, other))
    assert rank_for(LLAMA, few).value <= rank_for(LLAMA, many).value
    assert epochs_for(few).value >= epochs_for(many).value
    order = ["lora", "none"]
    first, second = (adapter_for(LLAMA, tokens, {}) for tokens in (few, many))
    assert first
    assert second
    assert order.index(first.value) <= order.index(second.value)


@pytest.mark.parametrize(
    ("method", "kind", "rate"),
    [
        ("sft", "none", 2e-5), ("sft", "lora", 2e-4), ("sft", "qlora", 2e-4), ("clm", "lora", 2e-4),
        ("dpo", "none", 5e-7), ("dpo", "lora", 5e-6), ("kto", "qlora", 5e-6), ("grpo", "none", 1e-6),
        ("rloo", "lora", 1e-5), ("reward", "none", 1e-5), ("reward", "lora", 1e-4),
    ],
)  # fmt: skip
def test_rates_by_method(method: str, kind: Kind, rate: float) -> None:
    advice = learning_rate_for(LLAMA, kind, method)
    assert advice.value == usual_learning_rate(LLAMA.parameters, kind, method) == rate
    assert "of 8.0 B parameters" in advice.reason
    assert (f"by {method}" in advice.reason) == (method != "sft")
    assert advice.reason.endswith("10 times that of full fine-tuning") == (kind != "none")


def test_why_a_rate_of_a_tiny_model() -> None:
    assert learning_rate_for(small_facts(), "lora").reason == (
        "usual for LoRA of 0.4 M parameters: 1.7 times that of full fine-tuning"
    )


@pytest.mark.parametrize(
    ("tokens", "many"), [(1, 3), (20 * MILLION, 3), (20 * MILLION + 1, 2), (500 * MILLION, 2), (501 * MILLION, 1)]
)
def test_epochs_by_tokens(tokens: int, many: int) -> None:
    assert epochs_for(tokens).value == usual_epochs(tokens) == many


@pytest.mark.parametrize("method", ["dpo", "kto", "reward", "grpo", "rloo", "clm"])
def test_other_methods_pass_once(method: str) -> None:
    assert epochs_for(1000, method).value == 1


@pytest.mark.parametrize(("steps", "warm"), [(1, 1), (10, 1), (50, 2), (100, 5), (4000, 200), (100_000, 5000)])
def test_warm_up(steps: int, warm: int) -> None:
    assert warm_up_for(steps).value == warm


def advised(tokens: int, fits: dict[Kind, bool] | None = None, **adapter: Any) -> dict[str, Any]:
    return {choice.name: choice.value for choice in advise(LLAMA, Adapter(**adapter), tokens, fits or {})}


def test_advice_where_the_recipe_could_do_better() -> None:
    assert advised(6 * MILLION) == {}
    assert advised(6 * MILLION, r=64) == {}
    assert advised(200 * MILLION) == {"adapter.r": rank_for(LLAMA, 200 * MILLION).value}
    assert advised(6 * MILLION, {"lora": False, "none": False}) == {"adapter.kind": "qlora"}
    assert advised(6 * MILLION, {"none": False}, kind="none") == {"adapter.kind": "lora"}
    assert advised(6 * MILLION, kind="none") == {"adapter.kind": "lora"}
    (one,) = advise(LLAMA, Adapter(kind="none"), MILLION, {})
    assert one.source == "plan"
    assert one.reason.startswith("an adapter holds 1 million tokens")


def test_where_nothing_fits_no_other_kind_is_advised() -> None:
    nothing: dict[Kind, bool] = {"none": False, "lora": False, "qlora": False}
    assert adapter_for(LLAMA, MILLION, nothing) is None
    assert advise(LLAMA, Adapter(kind="none"), MILLION, nothing) == []
