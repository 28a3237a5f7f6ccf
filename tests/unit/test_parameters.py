"""What is trained. That PEFT trains as many: test_facts.py."""

from tests.support.runs import small_facts
from tunesmith.plan.parameters import peft_arguments, quantization_arguments, trained_parameters, unknown_targets
from tunesmith.plan.rates import usual_learning_rate, usual_learning_rates
from tunesmith.recipe.adapter import Adapter
from tunesmith.records import LinearShape

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


def lora_arguments(adapter: Adapter, method: str = "sft") -> dict[str, object]:
    made = peft_arguments(adapter, MODEL, method)
    assert made is not None
    assert (made.config, made.start) == ("LoraConfig", "")
    return made.arguments


def test_arguments_of_lora() -> None:
    assert peft_arguments(Adapter(kind="none"), MODEL) is None
    assert lora_arguments(Adapter()) == {
        "task_type": "CAUSAL_LM",
        "r": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.0,
        "target_modules": "all-linear",
    }
    assert lora_arguments(Adapter(r=8, alpha=5, dropout=0.1, targets=["q_proj"])) == {
        "r": 8,
        "lora_alpha": 5,
        "lora_dropout": 0.1,
        "target_modules": ["q_proj"],
        "task_type": "CAUSAL_LM",
    }
    fine = lora_arguments(Adapter(dora=True, rslora=True, init="olora"), "reward")
    assert {name: fine[name] for name in ("use_dora", "use_rslora", "init_lora_weights")} == {
        "use_dora": True,
        "use_rslora": True,
        "init_lora_weights": "olora",
    }
    assert (fine["task_type"], fine["modules_to_save"]) == ("SEQ_CLS", ["score"])


def test_arguments_of_a_base_in_4_bits() -> None:
    assert quantization_arguments(Adapter(), "bfloat16") is None
    assert quantization_arguments(Adapter(kind="qlora"), "bfloat16") == {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": "bfloat16",
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
