"""Tokenizers as GGUF stores them, recognised by what they do."""

import json
from collections.abc import Sequence
from typing import Any

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

from tests.support.tiny import OTHER, PRE_TOKENIZERS, make_tokenizer
from tunesmith.export.tokenizer import name_of, read_vocabulary
from tunesmith.rules import FindingsError

SIZE = 704
QWEN = make_tokenizer("qwen2")
OTHER_TOKENS: dict[str, Any] = {"bos_token": "<|begin|>", "eos_token": "<|fin|>"}


def refusal(tokenizer: Any, *, size: int = SIZE, stops: Sequence[int] = (1,)) -> str:
    with pytest.raises(FindingsError) as caught:
        read_vocabulary(tokenizer, size=size, stops=stops)
    assert [found.code for found in caught.value.findings] == ["X007"]
    return caught.value.what


def description(split: str) -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[split]
    return json.loads(tokenizer.to_str())["pre_tokenizer"]


@pytest.mark.parametrize(
    ("split", "ignore_merges", "name"),
    [
        ("llama", True, "llama-bpe"),
        ("llama", False, "smaug-bpe"),
        ("qwen2", False, "qwen2"),
        ("gpt-2", False, "gpt-2"),
        ("smollm", False, "smollm"),
    ],
)
def test_pre_tokenizers_are_recognised(split: str, ignore_merges: bool, name: str) -> None:
    assert name_of(description(split), ignore_merges) == name


@pytest.mark.parametrize(
    "step",
    [
        None,
        {"type": "Whitespace"},
        {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True},
        {"type": "Split", "pattern": {"Regex": "a+"}, "behavior": "Isolated", "invert": False},
        {"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated", "invert": False},
        {"type": "Digits", "individual_digits": False},
    ],
)
def test_pre_tokenizers_that_llama_cpp_lacks_are_refused(step: Any) -> None:
    with pytest.raises(FindingsError, match="X007"):
        name_of(step, False)


def test_a_known_split_with_the_wrong_use_of_merges_is_refused() -> None:
    with pytest.raises(FindingsError, match="ignoring merges"):
        name_of(description("qwen2"), True)


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_each_id_keeps_its_token(text: str) -> None:
    vocabulary = read_vocabulary(QWEN, size=SIZE, stops=[1])
    ids = QWEN(text)["input_ids"]
    assert [vocabulary.tokens[id_] for id_ in ids] == QWEN.convert_ids_to_tokens(ids)


def test_every_embedding_has_a_token_of_its_kind() -> None:
    vocabulary = read_vocabulary(QWEN, size=SIZE, stops=[1])
    assert len(vocabulary.tokens) == len(vocabulary.types) == len(set(vocabulary.tokens)) == SIZE
    kinds = [gguf.TokenType(kind) for kind in vocabulary.types]
    assert kinds[:3] == [gguf.TokenType.CONTROL] * 3
    assert kinds[3:700] == [gguf.TokenType.NORMAL] * 697
    assert kinds[700:] == [gguf.TokenType.UNUSED] * 4


def test_added_tokens_that_are_not_special_are_the_users() -> None:
    tokenizer = make_tokenizer("qwen2")
    tokenizer.add_tokens(["<note>"])
    vocabulary = read_vocabulary(tokenizer, size=SIZE, stops=[1])
    assert vocabulary.tokens[700] == "<note>"
    assert vocabulary.types[700] == gguf.TokenType.USER_DEFINED


def test_merges_keep_their_order() -> None:
    merges = json.loads(QWEN.backend_tokenizer.to_str())["model"]["merges"]
    assert read_vocabulary(QWEN, size=SIZE, stops=[1]).merges == [" ".join(pair) for pair in merges]


def test_stops_are_named_once_and_the_first_is_eos() -> None:
    vocabulary = read_vocabulary(QWEN, size=SIZE, stops=[1, 2, 1])
    assert vocabulary.stops == (1, 2)
    assert vocabulary.special == {"eos": 1, "pad": 0}


def test_a_chat_model_gets_bos_as_its_template_writes_it() -> None:
    with_bos = make_tokenizer("llama", template=OTHER, **OTHER_TOKENS)
    without = make_tokenizer("llama", **OTHER_TOKENS)
    assert read_vocabulary(with_bos, size=SIZE, stops=[1]).add_bos
    assert not read_vocabulary(without, size=SIZE, stops=[1]).add_bos


@pytest.mark.parametrize(
    ("single", "expected"),
    [("$A", (False, False)), ("<|begin|> $A", (True, False)), ("<|begin|> $A <|fin|>", (True, True))],
)
def test_a_model_without_template_gets_what_its_tokenizer_adds(single: str, expected: tuple[bool, bool]) -> None:
    tokenizer = make_tokenizer("llama", template=None, **OTHER_TOKENS)
    pairs = [(token, tokenizer.convert_tokens_to_ids(token)) for token in OTHER_TOKENS.values()]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=pairs)
    vocabulary = read_vocabulary(tokenizer, size=SIZE, stops=[1])
    assert (vocabulary.add_bos, vocabulary.add_eos) == expected
    assert vocabulary.template is None


def test_other_additions_are_refused() -> None:
    tokenizer = make_tokenizer("llama", template=None, **OTHER_TOKENS)
    processor = processors.TemplateProcessing(single="<|pad|> $A", special_tokens=[("<|pad|>", 0)])
    tokenizer.backend_tokenizer.post_processor = processor
    assert "adds special tokens other" in refusal(tokenizer)


def test_nfc_is_let_through_and_lower_case_refused() -> None:
    tokenizer = make_tokenizer("qwen2")
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.NFC()])
    assert read_vocabulary(tokenizer, size=SIZE, stops=[1]).pre == "qwen2"
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    assert "normalizer Sequence changes" in refusal(tokenizer)


def test_foreign_tokenizers_are_refused() -> None:
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordPiece({"a": 0}, unk_token="a")))
    assert "WordPiece" in refusal(words)
    sentences = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0}, [], byte_fallback=True)))
    assert "SentencePiece" in refusal(sentences)
    suffixed = models.BPE({"a": 0}, [], end_of_word_suffix="</w>")
    assert "end_of_word_suffix" in refusal(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(suffixed)))
    letters = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0}, [])))
    assert "lacks 255 of the 256 bytes" in refusal(letters)
    assert "isn't a fast tokenizer" in refusal(object())


def test_ids_beyond_the_embedding_are_refused() -> None:
    assert "highest token id is 699, and the model has 699" in refusal(QWEN, size=699)


@pytest.mark.parametrize("stops", [[], [1, 2, 3, 4]])
def test_stops_that_gguf_cannot_name_are_refused(stops: list[int]) -> None:
    assert f"{len(stops)} stop tokens" in refusal(QWEN, stops=stops)


def test_tokens_that_swallow_spaces_are_refused() -> None:
    from tokenizers import AddedToken

    tokenizer = make_tokenizer("qwen2")
    tokenizer.add_tokens([AddedToken("<mask>", lstrip=True)])
    assert "<mask> swallows spaces" in refusal(tokenizer)
