"""Facts of models from their small files: against what torch and PEFT count, and for folders that are damaged."""

import json
import shutil
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.models import SMALL_TEXT, on_meta, small_vision
from tests.support.runs import SMALL
from tunesmith.errors import UsageError
from tunesmith.models.architectures import architectures, blueprint
from tunesmith.models.facts import model_facts
from tunesmith.models.parts import part_of
from tunesmith.models.source import locate
from tunesmith.plan.parameters import trained_parameters
from tunesmith.recipe.adapter import Adapter
from tunesmith.records import ModelFacts

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "vocab_size": 100,
}


def facts(folder: Path, *, planning: bool = False) -> ModelFacts:
    return model_facts(locate(str(folder), planning=planning), planning=planning)


def refusal(folder: Path) -> UsageError:
    with pytest.raises(UsageError) as caught:
        facts(folder)
    return caught.value


def without_weights(folder: Path, to: Path) -> Path:
    """A copy of a model's folder that lacks the weights."""
    return shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*.safetensors*"))


def build(model_type: str, **changes: Any) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **(SIZES | changes)))


def write(path: Path, tensors: dict[str, list[int]], *, dtype: str = "F32", width: int = 4) -> None:
    """A safetensors file of zeros, made by hand."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors.items():
        size = width
        for length in shape:
            size *= length
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a config and two tensors."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 4}))
    write(tmp_path / "model.safetensors", {"model.layers.0.mlp.up_proj.weight": [8, 4], "model.norm.weight": [4]})
    return tmp_path


def test_the_built_in_model() -> None:
    found = facts(SMALL)
    assert found.parameters == 446_208
    assert found.bytes == 4 * 446_208
    assert (found.architecture, found.model_type, found.dtype) == ("Qwen3ForCausalLM", "qwen3", "float32")
    assert (found.layers, found.hidden, found.intermediate, found.vocabulary) == (3, 96, 288, 896)
    assert (found.context, found.tied, found.has_template, found.stop_ids) == (2048, True, True, [2])
    assert {linear.name: (linear.out_features, linear.in_features, linear.count) for linear in found.linears} == {
        "q_proj": (96, 96, 3),
        "k_proj": (96, 96, 3),
        "v_proj": (96, 96, 3),
        "o_proj": (96, 96, 3),
        "gate_proj": (288, 96, 3),
        "up_proj": (288, 96, 3),
        "down_proj": (96, 288, 3),
    }


def test_the_built_in_model_by_its_config_alone(tmp_path: Path) -> None:
    alone = facts(without_weights(SMALL, tmp_path / "alone"), planning=True)
    whole, differs = facts(SMALL), {"name", "location", "from_headers", "linears"}
    assert alone.model_dump(exclude=differs) == whole.model_dump(exclude=differs)
    assert Counter(alone.linears) == Counter(whole.linears)


MODELS = [
    ("llama", {"tie_word_embeddings": False}),
    ("llama", {"tie_word_embeddings": True, "dtype": "bfloat16"}),
    ("qwen2", {"tie_word_embeddings": False, "dtype": "float16"}),
    ("qwen2", {"tie_word_embeddings": True}),
    ("phi3", {"pad_token_id": 0}),
    ("gemma3_text", {"head_dim": 8}),
    ("gpt_neox", {}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("model_type", "changes"), MODELS)
def test_counts_are_those_of_torch_and_peft(model_type: str, changes: dict[str, Any], tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    model = build(model_type, **changes)
    dtype = changes.get("dtype", "float32")
    model.to(getattr(torch, dtype)).save_pretrained(tmp_path)
    found = facts(tmp_path)
    parameters = dict(model.named_parameters())  # tied ones stand there once
    assert found.parameters == sum(parameter.numel() for parameter in parameters.values())
    assert found.bytes == sum(parameter.numel() * parameter.element_size() for parameter in parameters.values())
    assert found.dtype == dtype
    assert (found.layers, found.hidden, found.intermediate, found.vocabulary, found.context) == (2, 32, 48, 100, 64)
    if "tie_word_embeddings" in changes:
        assert found.tied is changes["tie_word_embeddings"]
    names = [linear.name for linear in found.linears]
    for targets in ("all-linear", names[:1], names[1:3]):
        adapter = Adapter(r=3, targets=targets)
        lora = LoraConfig(r=3, target_modules=targets, task_type="CAUSAL_LM")
        peft = get_peft_model(build(model_type, **changes), lora)
        assert trained_parameters(found, adapter) == peft.get_nb_trainable_parameters()[0]
    assert trained_parameters(found, Adapter(kind="none")) == found.parameters


ALL = [(name, SMALL_TEXT | {"model_type": name}) for name in architectures()["text"] if not name.endswith("_vl_text")]
ALL += [(name, small_vision(name, row["text"])) for name, row in architectures()["vision"].items()]


@pytest.mark.parametrize("values", [values for _, values in ALL], ids=[name for name, _ in ALL])
def test_headers_and_config_agree(values: dict[str, Any], tmp_path: Path) -> None:
    """What a model stores, what its config.json alone tells and what PEFT finds in it are the same."""
    import torch
    from peft import LoraConfig, get_peft_model

    small = {"num_local_experts": 6} if values["model_type"] in ("mixtral", "granitemoe", "gpt_oss") else {}
    small |= {"num_experts": 6} if values["model_type"] in ("qwen2_moe", "qwen3_moe", "olmoe") else {}
    model = on_meta(values | small).to(torch.bfloat16).to_empty(device="cpu")
    model.tie_weights()
    model.save_pretrained(tmp_path / "whole")
    whole = facts(tmp_path / "whole")
    alone = facts(without_weights(tmp_path / "whole", tmp_path / "alone"), planning=True)
    assert (whole.from_headers, alone.from_headers) == (True, False)
    differs = {"name", "location", "from_headers", "linears"}
    assert whole.model_dump(exclude=differs) == alone.model_dump(exclude=differs)
    assert Counter(whole.linears) == Counter(alone.linears)
    assert whole.parameters == sum(parameter.numel() for parameter in model.parameters())
    peft = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    assert trained_parameters(whole, Adapter(r=2)) == peft.get_nb_trainable_parameters()[0]


@pytest.mark.slow
def test_gpt2_calls_its_sizes_by_other_names(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("gpt2", n_embd=32, n_layer=2, n_head=4, n_positions=64, vocab_size=100)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    found = facts(tmp_path)
    assert (found.layers, found.hidden, found.context, found.intermediate) == (2, 32, 64, 0)


@pytest.mark.slow
def test_shards_count_together(tmp_path: Path) -> None:
    model = build("qwen2", tie_word_embeddings=False)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    model.save_pretrained(tmp_path / "whole")
    shards = sorted((tmp_path / "sharded").glob("*.safetensors"))
    assert len(shards) > 2
    sharded, whole = facts(tmp_path / "sharded"), facts(tmp_path / "whole")
    assert sharded.parameters == whole.parameters == sum(one.numel() for one in model.parameters())
    assert {one.name: one for one in sharded.linears} == {one.name: one for one in whole.linears}
    shards[1].unlink()
    assert shards[1].name in refusal(tmp_path / "sharded").what


def test_other_files_beside_the_model_s_do_not_count(folder: Path) -> None:
    alone = facts(folder)
    write(folder / "consolidated.safetensors", {"layers.0.w1.weight": [8, 4]})
    write(folder / "adapter_model.safetensors", {"up_proj.lora_A.weight": [2, 4]})
    (folder / "model.safetensors.index.json").write_text("{}")
    assert facts(folder) == alone


def test_an_index_names_the_files_that_count(folder: Path) -> None:
    alone = facts(folder)
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    write(folder / "b.safetensors", {"x": [1000]})
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"p": "a.safetensors", "q": "a.safetensors"}}')
    assert facts(folder) == alone
    (folder / "model.safetensors.index.json").write_text('{"weight_map": 3}')
    assert "has no weight_map" in refusal(folder).what


def test_only_safetensors_are_read(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    error = refusal(folder)
    assert error.what.endswith("has no model.safetensors.")
    assert "can run code" in error.why
    assert error.exit_code == 2


def test_damaged_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for content in (whole[:-1], whole[:100], whole[:5], b"", b"\xff" * 8 + whole[8:], whole[:8] + b"[" + whole[9:]):
        path.write_bytes(content)
        error = refusal(folder)
        assert error.what == f"{path} isn't a complete safetensors file."
        assert error.why
    for header in (b"[3]", b'{"a": 3}', b'{"a": {"data_offsets": [0, 0]}}', b'{"a": {"data_offsets": [0]}}'):
        path.write_bytes(struct.pack("<Q", len(header)) + header)
        assert refusal(folder).what == f"{path} isn't a complete safetensors file."
    path.write_bytes(whole)
    assert facts(folder).parameters == 36


def test_a_file_without_tensors(folder: Path) -> None:
    write(folder / "model.safetensors", {})
    assert refusal(folder).what.endswith("holds no weights.")


@pytest.mark.parametrize("content", ["{", "[]", '"x"'])
def test_a_damaged_config(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    assert "config.json" in refusal(folder).what


ABSURD: list[tuple[str, Any]] = [
    ("hidden_size", "many"),
    ("hidden_size", -4),
    ("num_hidden_layers", 1e30),
    ("num_hidden_layers", 2.5),
    ("num_attention_heads", True),
    ("num_attention_heads", 0),
    ("num_attention_heads", 6),
    ("num_key_value_heads", 3),
    ("hidden_act", None),
    ("max_position_embeddings", None),
    ("vocab_size", 0),
    ("vocab_size", float("nan")),
    ("vocab_size", float("inf")),
    ("vocab_size", 10**400),
    ("max_position_embeddings", {"a": 1}),
    ("tie_word_embeddings", "yes"),
    ("layer_types", "all"),
    ("text_config", 3),
    ("quantization_config", "gptq"),
]


@pytest.mark.parametrize(("key", "value"), ABSURD)
def test_absurd_values(key: str, value: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps(SMALL_TEXT | {"model_type": "llama", "sliding_window": 4, key: value})
    )
    with pytest.raises(UsageError) as caught:
        facts(tmp_path, planning=True)
    assert f"says {key}: " in caught.value.what
    assert len(caught.value.what) < 60 + len(str(tmp_path)) + len(key) + 40


def test_an_unknown_architecture_may_count_its_heads_in_another_way(tmp_path: Path) -> None:
    values = {"model_type": "novel", "num_attention_heads": 6, "num_key_value_heads": 4, "hidden_act": None}
    (tmp_path / "config.json").write_text(json.dumps(SMALL_TEXT | values))
    assert facts(tmp_path, planning=True).rough


def test_a_config_alone_that_lacks_a_size(tmp_path: Path) -> None:
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"):
        values = {name: value for name, value in SMALL_TEXT.items() if name != key}
        (tmp_path / "config.json").write_text(json.dumps(values | {"model_type": "llama"}))
        with pytest.raises(UsageError, match=f"doesn't say {key}"):
            facts(tmp_path, planning=True)


def test_weights_that_lack_sizes_in_the_config_are_rough(folder: Path) -> None:
    assert facts(folder).rough
    (folder / "config.json").write_text(json.dumps(SMALL_TEXT | {"model_type": "llama"}))
    assert not facts(folder).rough
    (folder / "config.json").write_text(json.dumps(SMALL_TEXT | {"model_type": "novel"}))
    assert facts(folder).rough


def test_a_folder_without_weights_is_enough_for_a_plan_alone(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(SMALL_TEXT | {"model_type": "llama"}))
    (folder / "model.safetensors").unlink()
    assert facts(folder, planning=True).parameters > 0
    with pytest.raises(UsageError, match=r"has no model\.safetensors"):
        facts(folder)
    (folder / "pytorch_model.bin").write_text("")
    with pytest.raises(UsageError, match=r"has no model\.safetensors"):
        facts(folder, planning=True)


KEYS = [*SMALL_TEXT, "model_type", "head_dim", "sliding_window", "tie_word_embeddings", "layer_types", "text_config"]
KEYS += ["vision_config", "num_experts", "num_local_experts", "num_experts_per_tok", "mlp_only_layers", "architectures"]
KEYS += ["decoder_sparse_step", "quantization_config", "dtype", "torch_dtype", "patch_size", "image_size", "depth"]
MODEL_TYPES = [*architectures()["text"], *architectures()["vision"], "novel"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(MODEL_TYPES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)


@given(st.sampled_from(MODEL_TYPES), st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4), st.booleans())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_config_says(tmp_path: Path, model_type: str, changes: dict[str, Any], whole: bool) -> None:
    """Facts that add up, or a refusal; never another exception."""
    values = (SMALL_TEXT if whole else {}) | {"model_type": model_type} | changes
    (tmp_path / "config.json").write_text(json.dumps(values))
    try:
        found = facts(tmp_path, planning=True)
    except UsageError:
        return
    assert found.parameters == sum(found.parts.model_dump().values()) > 0
    assert 0 < found.active <= found.parameters
    assert 0 < found.bytes <= 8 * found.parameters
    assert all(one.count > 0 for one in [*found.linears, *found.fused])


def quantised(folder: Path, settings_: dict[str, Any]) -> ModelFacts:
    values = SMALL_TEXT | {"model_type": "llama", "dtype": "bfloat16", "quantization_config": settings_}
    (folder / "config.json").write_text(json.dumps(values))
    return facts(folder, planning=True)


def test_a_quantised_model_counts_as_what_it_was_made_from(tmp_path: Path) -> None:
    plain = blueprint(SMALL_TEXT | {"model_type": "llama"}, "it")
    parameters = sum(weight.parameters for weight in plain.weights)
    linear = sum(one.in_features * one.out_features * one.count for one in quantised(tmp_path, {}).linears)
    found = quantised(tmp_path, {"quant_method": "gptq", "bits": 4})
    assert (found.quantised, found.parameters, found.dtype) == ("gptq", parameters, "bfloat16")
    assert found.bytes == 2 * (parameters - linear) + linear // 2
    eight = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    assert (
        quantised(tmp_path, eight).bytes
        == quantised(tmp_path, {"quant_method": "fp8"}).bytes
        == found.bytes + linear // 2
    )
    write(tmp_path / "model.safetensors", {"model.layers.0.mlp.up_proj.qweight": [8, 96]}, dtype="I32")
    stored = quantised(tmp_path, {"quant_method": "gptq", "bits": 4})
    assert (stored.parameters, stored.dtype, stored.bytes) == (parameters, "bfloat16", 4 * 8 * 96)


def test_experts_at_work_and_packed(tmp_path: Path) -> None:
    values = SMALL_TEXT | {"model_type": "mixtral", "num_local_experts": 6, "dtype": "bfloat16"}
    for chosen, active in ((2, 2), (6, 6), (0, 6), (7, 6)):
        (tmp_path / "config.json").write_text(json.dumps(values | {"num_experts_per_tok": chosen}))
        found = facts(tmp_path, planning=True)
        assert found.active == found.parameters - found.parts.experts * (6 - active) // 6
    packed = found.parts.experts + sum(one.in_features * one.out_features * one.count for one in found.linears)
    quantised = values | {"quantization_config": {"quant_method": "awq", "bits": 4}}
    (tmp_path / "config.json").write_text(json.dumps(quantised))
    assert facts(tmp_path, planning=True).bytes == 2 * (found.parameters - packed) + packed // 2


def test_a_tied_head_that_is_stored_counts_once(folder: Path) -> None:
    """As Qwen3-0.6B does."""
    write(folder / "model.safetensors", {"model.embed_tokens.weight": [10, 4], "lm_head.weight": [10, 4]})
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3", "tie_word_embeddings": True}))
    found = facts(folder)
    assert (found.parameters, found.tied, found.parts.head, found.bytes) == (40, True, 0, 320)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3", "tie_word_embeddings": False}))
    assert (facts(folder).parameters, facts(folder).tied) == (80, False)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("model.embed_tokens.weight", "embedding"),
        ("transformer.wte.weight", "embedding"),
        ("model.layers.0.self_attn.q_proj.bias", "attention"),
        ("model.layers.0.self_attn.q_norm.weight", "norm"),
        ("model.layers.0.post_attention_layernorm.weight", "norm"),
        ("model.layers.0.mlp.gate_proj.weight", "mlp"),
        ("model.layers.0.mlp.gate.weight", "router"),
        ("model.layers.0.mlp.experts.3.up_proj.weight", "experts"),
        ("model.layers.0.block_sparse_moe.experts.0.w1.weight", "experts"),
        ("model.layers.0.block_sparse_moe.gate.weight", "router"),
        ("model.layers.0.mlp.shared_expert.up_proj.weight", "mlp"),
        ("model.layers.0.mlp.shared_expert_gate.weight", "mlp"),
        ("lm_head.weight", "head"),
        ("vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight", "vision"),
        ("model.visual.merger.ln_q.weight", "vision"),
        ("model.layers.0.mixer.A_log", "other"),
    ],
)
def test_what_a_weight_is_part_of(name: str, part: str) -> None:
    assert part_of(name) == part


@pytest.mark.parametrize(
    "config",
    [
        {"hidden_size": None, "max_position_embeddings": None, "architectures": None},
        {"hidden_size": None, "text_config": None},
        {},
    ],
)
def test_a_config_that_says_little(folder: Path, config: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    found = facts(folder)
    assert (found.architecture, found.hidden, found.context, found.layers) == ("unknown", 0, 0, 0)


def test_a_model_with_a_text_part(folder: Path) -> None:
    (folder / "config.json").write_text(
        json.dumps({"model_type": "gemma3", "hidden_size": 7, "text_config": {"hidden_size": 9}})
    )
    found = facts(folder)
    assert (found.model_type, found.hidden) == ("gemma3", 9)


@pytest.mark.parametrize(
    ("generation", "config", "stops"),
    [
        ({"eos_token_id": [5, 6]}, {"eos_token_id": 7}, [5, 6]),
        ({"eos_token_id": 5}, {}, [5]),
        ({}, {"eos_token_id": 7}, []),
        (None, {"eos_token_id": 7}, [7]),
        (None, {}, []),
    ],
)
def test_stop_tokens(folder: Path, generation: dict[str, Any] | None, config: dict[str, Any], stops: list[int]) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    assert facts(folder).stop_ids == stops


def test_where_a_template_may_stand(folder: Path) -> None:
    assert not facts(folder).has_template
    (folder / "tokenizer_config.json").write_text("{}")
    assert not facts(folder).has_template
    (folder / "tokenizer_config.json").write_text('{"chat_template": "x"}')
    assert facts(folder).has_template
    (folder / "tokenizer_config.json").unlink()
    (folder / "chat_template.jinja").write_text("x")
    assert facts(folder).has_template


@pytest.mark.parametrize(
    ("dtype", "width", "name"),
    [("F32", 4, "float32"), ("BF16", 2, "bfloat16"), ("F16", 2, "float16"), ("F64", 8, "float64"), ("I8", 1, "other")],
)
def test_dtypes(folder: Path, dtype: str, width: int, name: str) -> None:
    write(folder / "model.safetensors", {"a.weight": [3, 5]}, dtype=dtype, width=width)
    found = facts(folder)
    assert (found.dtype, found.bytes, found.parameters) == (name, 15 * width, 15)


def test_eight_bit_floats_take_one_byte(folder: Path) -> None:
    write(folder / "model.safetensors", {"a.weight": [3, 5]}, dtype="F8_E4M3", width=1)
    assert facts(folder).bytes == 15
    write(folder / "model.safetensors", {"a.weight": [4, 5]}, dtype="F4", width=1)
    assert facts(folder).bytes == 10


def test_what_is_no_linear_layer(folder: Path) -> None:
    names = ["model.embed_tokens", "lm_head", "h.0.ln_1", "model.norm", "wte", "wpe", "vision.patch_embed.proj"]
    tensors = {f"{name}.weight": [4, 4] for name in names}
    tensors |= {"h.0.proj.bias": [4], "h.0.conv.weight": [4, 1, 3], "h.0.fc.weight": [8, 4], "h.1.fc.weight": [8, 4]}
    write(folder / "model.safetensors", tensors)
    found = facts(folder)
    assert [(one.name, one.out_features, one.in_features, one.count) for one in found.linears] == [("fc", 8, 4, 2)]
    assert not found.tied


def test_a_copy_elsewhere_is_the_same(tmp_path: Path) -> None:
    copy = shutil.copytree(SMALL, tmp_path / "copy")
    same = {"name": "x", "location": "x"}
    assert facts(copy).model_copy(update=same) == facts(SMALL).model_copy(update=same)
