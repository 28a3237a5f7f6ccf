"""Writing GGUF files: whole, right in every tensor, or not at all."""

import errno
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.support.tiny import make_base, make_tokenizer
from tunesmith.errors import EnvironmentLacksError
from tunesmith.export.architectures import interleave
from tunesmith.export.convert import Converted, Kind, convert
from tunesmith.export.tokenizer import Vocabulary, read_vocabulary
from tunesmith.rules import FindingsError

TOKENIZER = make_tokenizer("llama")


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return read_vocabulary(TOKENIZER, size=704, stops=[1, 2])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with random weights; a row of its down projection can't be cut into blocks of 32."""
    folder = tmp_path_factory.mktemp("llama")
    return make_base(folder, "llama", TOKENIZER, steps=0, intermediate_size=80, tie_word_embeddings=True)


def write(source: Path, target: Path, kind: Kind, vocabulary: Vocabulary) -> Converted:
    return convert(source, target, kind, AutoConfig.from_pretrained(source), vocabulary)


def tensors(path: Path) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def values(tensor: Any) -> np.ndarray:
    numbers: np.ndarray = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    return numbers


def test_f16_holds_every_tensor_of_the_checkpoint(model: Path, vocabulary: Vocabulary, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    config = AutoConfig.from_pretrained(model)
    path = tmp_path / "m.gguf"
    converted = convert(model, path, "f16", config, vocabulary, progress=lambda *told: seen.append(told))
    weights = AutoModelForCausalLM.from_pretrained(model).state_dict()
    written = tensors(path)
    assert converted == Converted(tensors=20, coarse=())
    assert len(written) == 20
    assert seen[0] == ("writing f16", 0, 20)
    assert seen[-1] == ("writing f16", 20, 20)
    gate = weights["model.layers.1.mlp.gate_proj.weight"]
    assert np.array_equal(written["blk.1.ffn_gate.weight"].data, gate.half().numpy())
    key = interleave(weights["model.layers.0.self_attn.k_proj.weight"], 2)
    assert np.array_equal(written["blk.0.attn_k.weight"].data, key.half().numpy())
    norm = written["blk.0.attn_norm.weight"]
    assert norm.tensor_type == gguf.GGMLQuantizationType.F32
    assert np.array_equal(norm.data, weights["model.layers.0.input_layernorm.weight"].numpy())


def test_q8_0_rounds_to_half_a_127th_of_each_block_and_leaves_odd_rows_in_f16(
    model: Path, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    converted = write(model, tmp_path / "m.gguf", "q8_0", vocabulary)
    written = tensors(tmp_path / "m.gguf")
    assert converted.coarse == tuple(f"model.layers.{layer}.mlp.down_proj.weight" for layer in (0, 1))
    assert written["blk.0.ffn_down.weight"].tensor_type == gguf.GGMLQuantizationType.F16
    up = written["blk.0.ffn_up.weight"]
    assert up.tensor_type == gguf.GGMLQuantizationType.Q8_0
    exact = AutoModelForCausalLM.from_pretrained(model).state_dict()["model.layers.0.mlp.up_proj.weight"].numpy()
    largest = np.abs(exact.reshape(-1, 32)).max(axis=1, keepdims=True)
    # The scale is itself rounded to f16, by up to 1/2048 of 127 steps.
    assert (np.abs(values(up) - exact).reshape(-1, 32) <= largest / 127 * (0.5 + 127 / 2048)).all()


def test_the_keys_are_those_of_config_and_tokenizer(model: Path, vocabulary: Vocabulary, tmp_path: Path) -> None:
    write(model, tmp_path / "m.gguf", "f16", vocabulary)
    fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
    expected = {
        "general.architecture": "llama",
        "general.file_type": gguf.LlamaFileType.MOSTLY_F16,
        "llama.context_length": 1024,
        "llama.attention.head_count_kv": 2,
        "llama.rope.dimension_count": 16,
        "llama.rope.freq_base": 10000.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smaug-bpe",
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.eot_token_id": 2,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TOKENIZER.chat_template,
    }
    assert {key: fields[key].contents() for key in expected} == expected
    assert fields["tokenizer.ggml.tokens"].contents() == vocabulary.tokens


def test_a_checkpoint_in_pieces_gives_the_same_tensors(model: Path, vocabulary: Vocabulary, tmp_path: Path) -> None:
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(tmp_path / "pieces", max_shard_size="100KB")
    assert len(list((tmp_path / "pieces").glob("*.safetensors"))) > 1
    write(model, tmp_path / "whole.gguf", "f16", vocabulary)
    write(tmp_path / "pieces", tmp_path / "pieces.gguf", "f16", vocabulary)
    whole, pieces = tensors(tmp_path / "whole.gguf"), tensors(tmp_path / "pieces.gguf")
    assert whole.keys() == pieces.keys()
    assert all(np.array_equal(whole[name].data, pieces[name].data) for name in whole)


@pytest.fixture
def overflowing(model: Path, tmp_path: Path) -> Path:
    weights = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    weights.model.layers[1].mlp.gate_proj.weight.data[3, 4] = -70000.0
    weights.save_pretrained(tmp_path / "overflowing")
    return tmp_path / "overflowing"


def test_weights_beyond_f16_are_refused(overflowing: Path, vocabulary: Vocabulary, tmp_path: Path) -> None:
    with pytest.raises(FindingsError) as caught:
        write(overflowing, tmp_path / "m.gguf", "f16", vocabulary)
    (found,) = caught.value.findings
    assert found.code == "X011"
    assert found.where == "export/m.gguf"
    assert "model.layers.1.mlp.gate_proj.weight has values that f16 can't hold (largest 7e+04)" in found.what
    assert not list(tmp_path.glob("*gguf*"))
    assert not list(tmp_path.glob(".*"))


def test_q8_0_holds_what_f16_cannot(overflowing: Path, vocabulary: Vocabulary, tmp_path: Path) -> None:
    write(overflowing, tmp_path / "m.gguf", "q8_0", vocabulary)
    assert values(tensors(tmp_path / "m.gguf")["blk.1.ffn_gate.weight"])[3, 4] == pytest.approx(-70000, rel=0.01)


def test_weights_that_are_not_numbers_are_refused(model: Path, vocabulary: Vocabulary, tmp_path: Path) -> None:
    weights = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    weights.model.embed_tokens.weight.data[0, 0] = float("nan")
    weights.save_pretrained(tmp_path / "nan")
    with pytest.raises(FindingsError, match="X011"):
        write(tmp_path / "nan", tmp_path / "m.gguf", "q8_0", vocabulary)


def test_a_tensor_without_place_in_gguf_is_refused(model: Path, vocabulary: Vocabulary, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    config = AutoConfig.from_pretrained(model)
    save_file(
        load_file(model / "model.safetensors") | {"model.extra.weight": torch.ones(2)}, tmp_path / "model.safetensors"
    )
    with pytest.raises(FindingsError, match=r"X006.*model\.extra\.weight has no place"):
        convert(tmp_path, tmp_path / "m.gguf", "f16", config, vocabulary)


@pytest.mark.parametrize("number", [errno.ENOSPC, None])
def test_a_full_disk_leaves_the_old_file_and_no_half_one(
    number: int | None, model: Path, vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.gguf").write_text("old")
    written = []

    def fill_up(writer: gguf.GGUFWriter, tensor: np.ndarray) -> None:
        written.append(tensor)
        if len(written) > 3:
            # numpy raises without a number where the system stopped in the midst of a tensor.
            raise OSError("100 requested and 0 written") if number is None else OSError(number, "No space left")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", fill_up)
    with pytest.raises(EnvironmentLacksError, match="disk is full"):
        write(model, tmp_path / "m.gguf", "f16", vocabulary)
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]
    assert (tmp_path / "m.gguf").read_text() == "old"
