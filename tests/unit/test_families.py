"""The table of known models: against the numbers that the Hub shows, and against Transformers at full size."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.models import matched, on_meta, real_weights
from tunesmith.errors import EnvironmentLacksError
from tunesmith.models.architectures import blueprint
from tunesmith.models.facts import model_facts
from tunesmith.models.families import (
    KnownModel,
    bytes_per_token,
    find_known,
    kind_of,
    known_models,
    near_names,
    tuned_siblings,
    write_config,
)
from tunesmith.models.source import locate

KNOWN = list(known_models().values())
DIFFERENT = list({json.dumps(model.config): model for model in KNOWN}.values())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No Hub, and a cache of one's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.mark.parametrize("model", KNOWN, ids=lambda model: model.name)
def test_parameters_are_those_that_the_hub_shows(model: KnownModel) -> None:
    drawn = blueprint(model.config, model.name)
    assert drawn.known
    assert sum(weight.parameters for weight in drawn.weights) == model.parameters


@pytest.mark.parametrize("model", DIFFERENT, ids=lambda model: model.name)
def test_transformers_builds_the_same_at_full_size(model: KnownModel) -> None:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(write_config(model))
    text = config.get_text_config()
    built, drawn = on_meta(dict(model.config)), blueprint(model.config, model.name)
    assert matched(drawn.weights, built) == real_weights(built)
    assert [type(built).__name__] == model.config["architectures"]
    assert drawn.sizes.context == text.max_position_embeddings
    assert (drawn.sizes.layers, drawn.sizes.vocabulary) == (text.num_hidden_layers, text.vocab_size)
    slides = (getattr(text, "layer_types", None) or []).count("sliding_attention")
    assert drawn.sizes.windowed == slides or model.config["model_type"] in ("mistral", "mistral3", "mixtral", "phi3")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (
            "meta-llama/Llama-3.1-8B",
            {"embedding": 525336576, "attention": 1342177280, "mlp": 5637144576, "norm": 266240, "head": 525336576},
        ),
        (
            "Qwen/Qwen3-30B-A3B",
            {
                "embedding": 311164928,
                "attention": 905969664,
                "experts": 128 * 48 * 3 * 768 * 2048,
                "router": 48 * 128 * 2048,
                "norm": 48 * (2 * 2048 + 2 * 128) + 2048,
                "head": 311164928,
            },
        ),
    ],
)
def test_parts(name: str, parts: dict[str, int]) -> None:
    facts = model_facts(locate(name, planning=True), planning=True)
    assert {part: count for part, count in facts.parts.model_dump().items() if count} == parts
    assert facts.parameters == sum(parts.values())


def test_a_plan_of_a_known_model_without_the_hub(cache: Path) -> None:
    facts = model_facts(locate("qwen/qwen3-30b-a3b", planning=True), planning=True)
    assert (facts.name, facts.location, facts.revision) == ("qwen/qwen3-30b-a3b", "Qwen/Qwen3-30B-A3B", None)
    assert (facts.origin, facts.as_of, facts.from_headers) == ("table", "2026-11-20", False)
    assert (facts.architecture, facts.model_type) == ("Qwen3MoeForCausalLM", "qwen3_moe")
    assert (facts.experts, facts.expert_count, facts.expert_active) == (True, 128, 8)
    assert facts.active == facts.parameters - facts.parts.experts * 15 // 16
    assert (facts.layers, facts.hidden, facts.heads, facts.kv_heads, facts.head_dim) == (48, 2048, 32, 4, 128)
    assert (facts.context, facts.window, facts.dtype, facts.tied, facts.rough) == (40960, 0, "bfloat16", False, False)
    assert (facts.kind, facts.has_template, facts.gated, facts.licence) == ("instruct", True, False, "apache-2.0")
    assert facts.bytes == 2 * facts.parameters
    assert [one.name for one in facts.linears] == ["q_proj", "k_proj", "v_proj", "o_proj"]
    assert (cache / "tunesmith/models/2026-11-20/Qwen--Qwen3-30B-A3B/config.json").exists()


def test_a_vision_model_of_the_table() -> None:
    facts = model_facts(locate("google/gemma-3-12b-it", planning=True), planning=True)
    assert (facts.vision, facts.parts.vision, facts.window, facts.windowed) == (True, 421290864, 1024, 40)
    assert {one.name for one in facts.linears if one.vision} >= {"q_proj", "fc1"}
    assert (facts.gated, facts.licence, facts.head_dim) == (True, "gemma", 256)


def test_only_a_plan_takes_the_table() -> None:
    with pytest.raises(EnvironmentLacksError):
        locate("Qwen/Qwen3-0.6B")


def test_a_model_that_the_table_lacks() -> None:
    with pytest.raises(EnvironmentLacksError) as caught:
        locate("Qwen/Qwen3-0.7B", planning=True)
    assert "The offline table has " in caught.value.fix
    assert "Qwen/Qwen3-0.6B" in caught.value.fix
    with pytest.raises(EnvironmentLacksError) as caught:
        locate("zzz/yyy", planning=True)
    assert "table" not in caught.value.fix


def test_a_cache_that_cannot_be_written(cache: Path) -> None:
    (cache / "tunesmith").write_text("")
    with pytest.raises(EnvironmentLacksError):
        locate("Qwen/Qwen3-0.6B", planning=True)


def test_a_damaged_config_in_the_cache_is_replaced(cache: Path) -> None:
    file = locate("Qwen/Qwen3-0.6B", planning=True).folder / "config.json"
    whole = file.read_text()
    file.write_text("{")
    assert locate("Qwen/Qwen3-0.6B", planning=True).folder / "config.json" == file
    assert file.read_text() == whole


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("meta-llama/Llama-3.1-8B", "base"),
        ("meta-llama/Llama-3.1-8B-Instruct", "instruct"),
        ("Qwen/Qwen3-0.6B", "instruct"),
        ("Qwen/Qwen3-0.6B-Base", "base"),
        ("Qwen/Qwen3-4B-Thinking-2507", "reasoning"),
        ("Qwen/Qwen2.5-7B", "base"),
        ("google/gemma-3-4b-pt", "base"),
        ("google/gemma-3-270m", "base"),
        ("google/gemma-3-4b-it", "instruct"),
        ("mistralai/Mistral-Small-24B-Base-2501", "base"),
        ("mistralai/Mistral-7B-v0.3", "base"),
        ("microsoft/phi-4", "instruct"),
        ("microsoft/Phi-4-reasoning", "reasoning"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "reasoning"),
        ("HuggingFaceTB/SmolLM3-3B", "instruct"),
        ("HuggingFaceTB/SmolLM2-135M", "base"),
        ("ibm-granite/granite-3.3-2b-base", "base"),
        ("/models/Qwen3-0.6B", "instruct"),
        ("/models/gemma-3-4b-it-qat/", "instruct"),
        ("someone/my-model", "unknown"),
        ("someone/basement-italy", "unknown"),
        ("builtin:small", "unknown"),
    ],
)
def test_what_names_tell(name: str, kind: str) -> None:
    assert kind_of(name) == kind
    known = find_known(name)
    assert known is None or known.kind == kind


def test_templates_of_base_models() -> None:
    assert {
        name: known_models()[name.lower()].has_template for name in ("Qwen/Qwen3-8B-Base", "google/gemma-2-2b")
    } == {
        "Qwen/Qwen3-8B-Base": True,
        "google/gemma-2-2b": False,
    }
    assert all(model.has_template for model in KNOWN if model.kind != "base")


def test_tuned_siblings() -> None:
    assert tuned_siblings("meta-llama/Llama-3.1-8B") == ["meta-llama/Llama-3.1-8B-Instruct"]
    assert tuned_siblings("Qwen/Qwen3-8B-Base") == ["Qwen/Qwen3-8B"]
    assert tuned_siblings("someone/else") == []
    assert near_names("meta-llama/llama-3.1-8b-instruct")[0] == "meta-llama/Llama-3.1-8B-Instruct"


def test_the_issue_s_families_are_there() -> None:
    families = Counter(model.config["model_type"] for model in KNOWN)
    assert set(families) >= {
        "llama",
        "qwen2",
        "qwen3",
        "qwen3_moe",
        "gemma2",
        "gemma3",
        "gemma3_text",
        "mistral",
        "phi3",
    }
    assert set(families) >= {"smollm3", "olmo2", "granite", "qwen2_5_vl", "mistral3", "smolvlm"}
    assert all(model.licence and model.parameters for model in KNOWN)


def test_bytes_per_token() -> None:
    assert bytes_per_token(32_000) == pytest.approx(3.17)
    assert bytes_per_token(128_000) == pytest.approx(3.94)
    assert bytes_per_token(0) == 1.0


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_larger_vocabularies_need_no_more_tokens(one: int, other: int) -> None:
    small, large = sorted((one, other))
    assert 1 <= bytes_per_token(small) <= bytes_per_token(large)
    assert math.isfinite(bytes_per_token(large))


def test_a_config_of_the_table_says_its_dtype() -> None:
    dtypes: dict[str, Any] = {model.name: model.config["dtype"] for model in KNOWN}
    assert dtypes["google/gemma-2-2b"] == "float32"
    assert dtypes["google/gemma-2-2b-it"] == "bfloat16"
