"""What is said of a model before it is fine-tuned."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.models import SMALL_TEXT, small_vision
from tests.support.runs import SMALL
from tunesmith.models.check import check_model
from tunesmith.models.facts import model_facts
from tunesmith.models.families import known_models
from tunesmith.models.lora import adapted_layers, halved_targets, target_names
from tunesmith.models.source import locate
from tunesmith.plan.parameters import trained_parameters, unknown_targets
from tunesmith.recipe.adapter import Adapter
from tunesmith.records import Finding, ModelFacts

LORA, FULL = Adapter(), Adapter(kind="none")
MOE = SMALL_TEXT | {"model_type": "qwen3_moe", "num_experts": 6, "moe_intermediate_size": 40}


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def of(values: dict[str, Any], tmp_path: Path, **changes: Any) -> ModelFacts:
    """Facts of a config.json, as if the weights had been there."""
    (tmp_path / "config.json").write_text(json.dumps(values))
    facts = model_facts(locate(str(tmp_path), planning=True), planning=True)
    return facts.model_copy(update={"name": "m", "from_headers": True} | changes)


def listed(name: str) -> ModelFacts:
    return model_facts(locate(name, planning=True), planning=True)


def found(model: ModelFacts, adapter: Adapter = LORA, method: str = "sft") -> dict[str, Finding]:
    return {finding.code: finding for finding in check_model(model, method=method, adapter=adapter)}


def test_nothing_is_said_of_a_plain_model(tmp_path: Path) -> None:
    small = model_facts(locate(str(SMALL)))
    llama = of(SMALL_TEXT | {"model_type": "llama"}, tmp_path)
    for model in (small, llama):
        for adapter in (LORA, FULL):
            assert found(model, adapter) == {}


def test_a_base_model() -> None:
    finding = found(listed("meta-llama/Llama-3.1-8B"))["P030"]
    assert finding.severity == "note"
    assert finding.fix.startswith("Take meta-llama/Llama-3.1-8B-Instruct;")
    assert "P030" not in found(listed("meta-llama/Llama-3.1-8B"), method="clm")
    assert "P030" not in found(listed("meta-llama/Llama-3.1-8B-Instruct"))
    stranger = listed("meta-llama/Llama-3.1-8B").model_copy(update={"name": "someone/else-base"})
    assert found(stranger)["P030"].fix.startswith("Take its tuned version")


@pytest.mark.parametrize(
    ("quantisation", "how"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"bits": 4}, "unknown"),
    ],
)
def test_a_quantised_source(quantisation: dict[str, Any], how: str, tmp_path: Path) -> None:
    model = of(SMALL_TEXT | {"model_type": "llama", "quantization_config": quantisation}, tmp_path)
    assert model.quantised == how
    assert found(model)["P031"].severity == "warning"
    assert found(model, FULL)["P031"].severity == "error"
    assert how in found(model)["P031"].what


def test_an_unknown_architecture(tmp_path: Path) -> None:
    model = of(SMALL_TEXT | {"model_type": "novel"}, tmp_path)
    assert model.rough
    assert "novel" in found(model)["P032"].what
    assert "--exact" in found(model)["P032"].fix


def test_files_that_are_not_at_hand(tmp_path: Path) -> None:
    assert "from the table of 2026-11-20" in found(listed("Qwen/Qwen3-0.6B"))["P033"].what
    bare = of(SMALL_TEXT | {"model_type": "llama"}, tmp_path, from_headers=False)
    assert "from config.json alone" in found(bare)["P033"].what


def test_weights_that_are_missing(tmp_path: Path) -> None:
    folder = shutil.copytree(SMALL, tmp_path / "small")
    config = json.loads((folder / "config.json").read_text())
    whole = model_facts(locate(str(folder)))
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4, "layer_types": None}))
    lacking = model_facts(locate(str(folder)))
    assert (whole.missing, lacking.missing) == (0, 120_032)
    assert "lack 120,032 of the 566,240 parameters" in found(lacking)["P043"].what
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2, "layer_types": None}))
    assert model_facts(locate(str(folder))).missing == 0
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    assert model_facts(locate(str(folder))).missing == 896 * 96


def test_vision_models(tmp_path: Path) -> None:
    gemma = listed("google/gemma-3-4b-it")
    assert "10%" in found(gemma)["P034"].what
    assert "P041" not in found(gemma)
    assert found(listed("Qwen/Qwen2.5-VL-3B-Instruct"))["P041"].severity == "error"
    odd = of(small_vision("gemma3", "gemma3_text") | {"model_type": "novel"}, tmp_path)
    assert set(found(odd)) == {"P032", "P034"}
    assert "an unknown part" in found(odd)["P034"].what


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "an encoder and a decoder"),
        (
            {"model_type": "bart", "architectures": ["BartModel"], "is_encoder_decoder": True},
            "an encoder and a decoder",
        ),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "an encoder, which sees"),
        ({"model_type": "xlm-roberta", "architectures": ["XLMRobertaModel"]}, "an encoder, which sees"),
        ({"model_type": "umt5", "architectures": ["UMT5EncoderModel"]}, "an encoder, which sees"),
        ({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]}, "made for another task (Llama"),
        ({"model_type": "bert", "architectures": ["BertLMHeadModel"], "is_decoder": True}, ""),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, ""),
        ({"model_type": "llama", "architectures": ["LlamaModel"]}, ""),
        ({"model_type": "llama"}, ""),
        ({"model_type": "bart", "architectures": ["BartForCausalLM"], "is_encoder_decoder": False}, ""),
    ],
)
def test_p041_models_that_are_not_causal(said: dict[str, Any], what: str, tmp_path: Path) -> None:
    findings = found(of(SMALL_TEXT | said, tmp_path))
    assert ("P041" in findings) is bool(what)
    if what:
        assert findings["P041"].severity == "error"
        assert f"to Transformers: it is {what}" in findings["P041"].what
        assert "P032" not in findings


def test_every_model_of_the_table_is_causal_but_for_images() -> None:
    assert not [name for name in known_models() if listed(name).other_task]


def test_experts(tmp_path: Path) -> None:
    adapted, left = of(MOE, tmp_path), of(MOE | {"model_type": "granitemoe", "num_local_experts": 6}, tmp_path)
    assert "gives each expert of m an adapter: 84% of what it trains" in found(adapted)["P040"].what
    assert "trains no expert of m; they have 71%" in found(left)["P040"].what
    attention = Adapter(targets=["q_proj", "k_proj", "v_proj", "o_proj"])
    assert "trains no expert of m" in found(adapted, attention)["P040"].what
    for model in (adapted, left):
        assert "P040" not in found(model, FULL)
        assert "P042" not in found(model)
    assert "P042" not in found(left, Adapter(dropout=0.1))


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        (Adapter(dropout=0.1), "dropout 0.1"),
        (Adapter(targets=["q_proj", "up_proj"]), "the target up_proj without gate_proj"),
    ],
)
def test_what_fused_experts_refuse(adapter: Adapter, said: str, tmp_path: Path) -> None:
    """The settings are those that PEFT raises on."""
    from peft import LoraConfig, get_peft_model

    from tests.support.models import on_meta

    model = of(MOE, tmp_path)
    assert said in found(model, adapter)["P042"].what
    config = LoraConfig(r=2, lora_dropout=adapter.dropout, target_modules=adapter.targets)
    with pytest.raises(ValueError, match=r"dropout|without also targeting"):
        get_peft_model(on_meta(MOE), config)


@pytest.mark.parametrize(
    "targets",
    [["gate"], ["gate_proj", "up_proj"], ["down_proj"], ["q_proj", "down_proj"], ["gate_proj", "up_proj", "v_proj"]],
)
@pytest.mark.parametrize("changes", [{}, {"mlp_only_layers": [0, 1]}])
def test_targets_of_fused_experts(targets: list[str], changes: dict[str, Any], tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    from tests.support.models import on_meta

    model, adapter = of(MOE | changes, tmp_path), Adapter(r=2, targets=targets)
    peft = get_peft_model(on_meta(MOE | changes), LoraConfig(r=2, target_modules=targets))
    assert trained_parameters(model, adapter) == peft.get_nb_trainable_parameters()[0]
    assert unknown_targets(model, adapter) == []
    assert halved_targets(model, targets) == []


def test_names_of_targets(tmp_path: Path) -> None:
    experts = {"gate", "gate_proj", "up_proj", "down_proj"}
    attention = {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert set(target_names(of(MOE, tmp_path))) == experts | attention
    assert {layer.name for layer in adapted_layers(of(MOE, tmp_path), "all-linear")} == attention | {
        "gate",
        "gate_up_proj",
        "down_proj",
    }
    assert unknown_targets(of(MOE, tmp_path), Adapter(targets=["w1"]))[0].code == "P008"


def test_every_known_model_can_be_checked() -> None:
    for name in ("Qwen/Qwen3-30B-A3B", "google/gemma-3-12b-it", "mistralai/Mixtral-8x7B-v0.1"):
        assert name.lower() in known_models()
        assert "P033" in found(listed(name))
