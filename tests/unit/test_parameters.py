"""What is trained, and the memory that it takes. That PEFT trains as many: test_facts.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.runs import small_facts
from tunesmith.plan.device import bytes_per_token, fit_batch
from tunesmith.plan.parameters import lora_arguments, state_memory, trained_parameters, unknown_targets
from tunesmith.plan.rates import usual_learning_rate, usual_learning_rates
from tunesmith.recipe.schema import Adapter
from tunesmith.records import LinearShape, ModelFacts

GIB = 1 << 30
MODEL = small_facts().model_copy(
    update={
        "parameters": 1000,
        "linears": [
            LinearShape(name="q_proj", out_features=10, in_features=20, count=3),
            LinearShape(name="down_proj", out_features=7, in_features=5, count=2),
        ],
    }
)


def test_trained_parameters() -> None:
    assert trained_parameters(MODEL, Adapter(kind="none")) == 1000
    assert trained_parameters(MODEL, Adapter(r=4)) == 4 * (30 * 3 + 12 * 2)
    assert trained_parameters(MODEL, Adapter(r=4, targets=["down_proj"])) == 4 * 12 * 2
    assert trained_parameters(MODEL, Adapter(r=4, targets=["up_proj"])) == 0


def test_arguments_of_lora() -> None:
    assert lora_arguments(Adapter()) == {
        "r": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.0,
        "target_modules": "all-linear",
        "task_type": "CAUSAL_LM",
    }
    assert lora_arguments(Adapter(r=8, alpha=5, dropout=0.1, targets=["q_proj"])) == {
        "r": 8,
        "lora_alpha": 5,
        "lora_dropout": 0.1,
        "target_modules": ["q_proj"],
        "task_type": "CAUSAL_LM",
    }


def test_p008_a_target_that_is_misspelt() -> None:
    (found,) = unknown_targets(MODEL, Adapter(targets=["q_proj", "downproj"]))
    assert (found.code, found.where) == ("P008", "adapter.targets")
    assert "'downproj'" in found.what
    assert "down_proj, q_proj" in found.fix


def test_p008_is_silent_on_targets_that_there_are() -> None:
    assert unknown_targets(MODEL, Adapter(targets=["q_proj", "down_proj"])) == []
    assert unknown_targets(MODEL, Adapter()) == []
    assert unknown_targets(MODEL, Adapter(kind="none", targets=["nothing"])) == []


def test_memory_of_full_fine_tuning() -> None:
    full = state_memory(1000, 1000, "float32", adapter=False)
    assert (full.weights, full.gradients, full.optimizer, full.state) == (4000, 4000, 8000, 16000)
    assert state_memory(1000, 1000, "bfloat16", adapter=False).state == 8000


def test_memory_under_lora() -> None:
    lora = state_memory(1000, 10, "bfloat16", adapter=True)
    assert (lora.weights, lora.gradients, lora.optimizer) == (2000 + 40, 40, 80)
    assert lora.state == 2160


def test_usual_learning_rates() -> None:
    assert usual_learning_rate(446_208, "lora") == 5e-3
    assert usual_learning_rate(446_208, "none") == 3e-3
    assert usual_learning_rate(10_000_000, "lora") == 5e-3
    assert usual_learning_rate(10_000_001, "lora") == 5e-4
    assert usual_learning_rate(600_000_000, "none") == 5e-5
    assert usual_learning_rate(8_000_000_000, "lora") == 2e-4
    assert usual_learning_rate(10**13, "none") == 1e-5
    sizes = [row["up_to"] for row in usual_learning_rates()]
    assert sizes == sorted(sizes)
    assert all(row["lora"] > row["full"] for row in usual_learning_rates())


def big(**changes: int) -> ModelFacts:
    """Sizes of Qwen3-0.6B."""
    return MODEL.model_copy(update={"hidden": 1024, "intermediate": 3072, "layers": 28, **changes})


def test_activations() -> None:
    inside = 17 * 3072 + 8 * 1024
    assert bytes_per_token(big(), checkpointing=False) == 2 * 1024 * 28 + 28 * inside
    assert bytes_per_token(big(), checkpointing=True) == 2 * 1024 * 28 + inside
    assert bytes_per_token(big(intermediate=0), checkpointing=True) == 2 * 1024 * 28 + 17 * 4096 + 8 * 1024


@pytest.mark.parametrize(
    ("free", "batch", "checkpointing"), [(140 * GIB, 16, False), (12 * GIB, 4, False), (2 * GIB, 8, True), (0, 1, True)]
)
def test_the_batch_that_fits(free: int, batch: int, checkpointing: bool) -> None:
    found = fit_batch(big(), free, 1024, most=16)
    assert found[:2] == (batch, checkpointing)
    assert ("may not fit" in found[2]) is (free == 0)


@given(st.integers(0, 200 * GIB), st.integers(1, 32768))
def test_a_batch_that_is_said_to_fit_fits(free: int, max_length: int) -> None:
    size, checkpointing, why = fit_batch(big(), free, max_length, most=16)
    assert size in (1, 2, 4, 8, 16)
    if "may not" not in why:
        assert size * max_length * bytes_per_token(big(), checkpointing=checkpointing) <= free
