"""tiktoken from the same merges against the tokenizers library: the same ids, prompts and masks for any text."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from tests.support.tiny import PRE_TOKENIZERS, make_tokenizer, split_by
from tunesmith.data.fast.byte_pairs import BytePairEncoder
from tunesmith.data.fast.encoders import TokenizersEncoder, assistant_ranges, common
from tunesmith.data.fast.probes import same_characters, same_probes
from tunesmith.data.fast.rendering import Rendered
from tunesmith.data.fast.settings import NotFastError
from tunesmith.data.fast.split import pattern
from tunesmith.data.fast.vocabulary import read_vocabulary
from tunesmith.export.probes import NASTY

LOOKALIKES = ["<|im_start|>", "<|im_end|>", "<|im_", "start|>", "|>", "<|im_start|><|im_end|>", "user\n", "<|pad|>"]
PIECES = st.one_of(
    st.sampled_from(
        [*LOOKALIKES, *NASTY, " ", "  ", "\n", "\t", "'s", "'LL", "12345", "e\u0301", "\U0002f862", "\u1100\u1161"]
    ),
    st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=8),
)
TEXTS = st.lists(PIECES, max_size=8).map("".join)


@cache
def backend(name: str) -> Tokenizer:
    """Byte-level BPE as model families have it."""
    made = make_tokenizer(name, bos_token="<|bos|>").backend_tokenizer
    if name == "qwen2":
        made.normalizer = normalizers.NFC()
        made.post_processor = processors.ByteLevel(trim_offsets=False)
    if name == "gpt-2":
        made.post_processor = processors.ByteLevel(trim_offsets=True)
    if name == "llama":
        bos = [("<|bos|>", made.token_to_id("<|bos|>"))]
        template = processors.TemplateProcessing(single="<|bos|> $A", special_tokens=bos)
        made.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), template])
    return made


@cache
def encoders(name: str) -> tuple[BytePairEncoder, TokenizersEncoder]:
    return BytePairEncoder(backend(name)), TokenizersEncoder(backend(name))


def assert_same(rendered: Rendered, name: str) -> None:
    ours, theirs = (encoder.encode(rendered) for encoder in encoders(name))
    for field in ("ids", "starts", "shared", "assistant"):
        np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field))


@pytest.mark.parametrize("name", ["qwen2", "gpt-2", "llama"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_text_has_the_same_tokens(name: str, data: st.DataObject) -> None:
    texts = data.draw(st.lists(TEXTS, min_size=1, max_size=4))
    prompts = [data.draw(st.one_of(TEXTS, st.integers(0, 20).map(lambda n, t=text: t[:n]))) for text in texts]
    for special in (True, False):
        assert_same(Rendered(texts, special=special, prompts=prompts), name)


@pytest.mark.parametrize("name", ["qwen2", "gpt-2", "llama"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_span_has_the_same_tokens(name: str, data: st.DataObject) -> None:
    texts = [text + "." for text in data.draw(st.lists(TEXTS, min_size=1, max_size=4))]
    spans = []
    for text in texts:
        places = data.draw(st.lists(st.integers(0, len(text)), min_size=2, max_size=6).map(sorted))
        spans.append([(begin, end) for begin, end in zip(places[::2], places[1::2], strict=False) if end])
    assert_same(Rendered(texts, special=False, spans=spans), name)


def test_what_transformers_makes_of_spans_is_what_the_encoder_makes() -> None:
    from tests.support.tiny import CHATML

    tokenizer = make_tokenizer("qwen2")
    marked = CHATML.replace("{{ m['content'] }}", "{% generation %}{{ m['content'] }}{% endgeneration %}")
    chat = [
        {"role": "user", "content": " naïve 🙂"},
        {"role": "assistant", "content": ""},
        {"role": "x", "content": "ok"},
    ]
    theirs = tokenizer.apply_chat_template(
        chat, chat_template=marked, return_assistant_tokens_mask=True, return_dict=True, tokenize=True
    )
    text = tokenizer.apply_chat_template(chat, chat_template=CHATML, tokenize=False)
    starts = [text.index(" naïve"), text.index("assistant\n") + len("assistant\n"), text.index("ok")]
    spans = [[(start, start + len(turn["content"])) for start, turn in zip(starts, chat, strict=True)]]
    for encoder in (BytePairEncoder(tokenizer.backend_tokenizer), TokenizersEncoder(tokenizer.backend_tokenizer)):
        ours = encoder.encode(Rendered([text], special=False, spans=spans))
        assert ours.ids.tolist() == theirs["input_ids"]
        assert ours.assistant is not None
        assert ours.assistant.tolist() == list(map(bool, theirs["assistant_masks"]))


def test_ranges_end_at_the_first_span_that_is_in_no_token() -> None:
    assert list(assistant_ranges([(1, 2), (4, None), (6, 0)], 9)) == [(1, 3), (4, 9), (6, 9)]
    assert list(assistant_ranges([(1, 2), (None, 3), (6, 7)], 9)) == [(1, 3)]


@pytest.mark.parametrize(("one", "two", "length"), [("", "abc", 0), ("abc", "abd", 2), ("ab", "abc", 2), ("x", "y", 0)])
def test_common(one: str, two: str, length: int) -> None:
    assert common(one, two) == length


@pytest.mark.parametrize("name", ["qwen2", "gpt-2", "llama"])
def test_probes_pass_where_ids_are_the_same_and_fail_where_they_are_not(name: str) -> None:
    ours, exact = encoders(name)
    assert same_probes(ours, exact)
    assert same_characters("é日🙂½\u2028ß", ours, exact)
    assert not same_characters("\U000e0fff", ours, exact)
    other = encoders("gpt-2" if name != "gpt-2" else "llama")[1]
    assert not same_probes(ours, other)
    assert not same_characters("½日", ours, other)


@pytest.mark.parametrize("name", ["qwen2", "gpt-2", "llama"])
def test_patterns_of_families_are_understood(name: str) -> None:
    assert r"\p{L}" in pattern(json.loads(backend(name).to_str())["pre_tokenizer"])


@pytest.mark.parametrize(
    "pre_tokenizer",
    [
        None,
        pre_tokenizers.Whitespace(),
        pre_tokenizers.Metaspace(),
        pre_tokenizers.ByteLevel(add_prefix_space=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        PRE_TOKENIZERS["smollm"],
        *(split_by(regex) for regex in (r"(?<=a)b|\s+", r"a++|.", r"(?>ab)", r"[a&&b]", r"a+?", r"^a", r"\h+", r"\b")),
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(r"\s+"), behavior="removed"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        ),
    ],
)
def test_other_ways_to_split_are_refused(pre_tokenizer: Any) -> None:
    tokenizer = Tokenizer(models.BPE())
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    with pytest.raises(NotFastError):
        pattern(json.loads(tokenizer.to_str())["pre_tokenizer"])


ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())


def bpe(merges: list[tuple[str, str]], *, ignore_merges: bool = False, more: tuple[str, ...] = ()) -> Tokenizer:
    words = dict.fromkeys([*ALPHABET, *more, *(left + right for left, right in merges)])
    vocabulary = {word: number for number, word in enumerate(words)}
    made = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=ignore_merges))
    made.pre_tokenizer = split_by(r"\s+|\S+")
    made.decoder = decoders.ByteLevel()
    return made


def vocabulary_of(tokenizer: Tokenizer, **changes: Any) -> Any:
    return read_vocabulary(json.loads(tokenizer.to_str())["model"] | changes, set(), tokenizer.model)


def test_a_vocabulary_in_the_order_of_its_merges() -> None:
    read = vocabulary_of(bpe([("b", "c"), ("a", "bc")], more=("abc",)))
    assert read.ranks[b"bc"] == 256
    assert read.ranks[b"abc"] == 257
    assert read.ids[[256, 257]].tolist() == [257, 256]
    assert len(read.ids) == 258


@pytest.mark.parametrize(
    ("merges", "options", "reason"),
    [
        ([("b", "c"), ("a", "b"), ("ab", "c")], {}, "no merge gives"),  # b and c join first: abc is never reached
        ([("a", "b"), ("b", "c"), ("ab", "c"), ("d", "e"), ("a", "bc")], {}, "don't follow each other"),
        ([("a", "a"), ("aa", "a"), ("a", "aa")], {}, "overlap"),
        ([("a", "b")], {"ignore_merges": True, "more": ("xyz",)}, "no merge gives"),
    ],
)
def test_vocabularies_that_may_merge_otherwise_are_refused(
    merges: list[tuple[str, str]], options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(NotFastError, match=reason):
        vocabulary_of(bpe(merges, **options))


@pytest.mark.parametrize("change", [{"type": "Unigram"}, {"dropout": 0.1}, {"byte_fallback": True}, {"unk_token": "a"}])
def test_models_that_are_not_plain_bpe_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(NotFastError, match="plain BPE"):
        vocabulary_of(bpe([("a", "b")]), **change)


def test_a_vocabulary_without_all_bytes_is_refused() -> None:
    made = Tokenizer(models.BPE({"a": 0}, []))
    with pytest.raises(NotFastError, match="single bytes"):
        vocabulary_of(made)


def test_words_without_merges_are_looked_up_only_where_the_tokenizer_does() -> None:
    made = bpe([("a", "b")], more=("xyz",))
    assert BytePairEncoder(made).encode(Rendered(["ab xyz"], special=False)).ids.tolist() == made.encode("ab xyz").ids


def with_added(**options: Any) -> Tokenizer:
    made = bpe([("a", "b")])
    made.add_tokens([AddedToken("<x>", **options)])
    return made


def test_the_longest_of_overlapping_added_tokens_is_split_off() -> None:
    made = bpe([("a", "b")])
    made.add_special_tokens(["<x>", "<x>b", "<x><x>"])
    texts = ["a<x>b", "<x><x>b", "<x>ab", "<x><x><x>", "<x"]
    ours, theirs = BytePairEncoder(made), TokenizersEncoder(made)
    rendered = Rendered(texts, special=False, prompts=["a<x>", "<x><x>", "<x>", "<x>", "<"])
    assert ours.encode(rendered).ids.tolist() == theirs.encode(rendered).ids.tolist()
    assert ours.encode(rendered).shared.tolist() == theirs.encode(rendered).shared.tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize("option", ["lstrip", "rstrip", "single_word"])
def test_added_tokens_that_look_around_are_refused(option: str) -> None:
    with pytest.raises(NotFastError, match="blanks around"):
        BytePairEncoder(with_added(**{option: True}))


def test_added_tokens_of_normalized_text_are_refused() -> None:
    made = with_added(normalized=True)
    BytePairEncoder(made)
    made.normalizer = normalizers.NFC()
    with pytest.raises(NotFastError, match="after normalizing"):
        BytePairEncoder(made)
    made = with_added(normalized=True)
    made.add_tokens([AddedToken("<y>", normalized=False)])
    with pytest.raises(NotFastError, match="after normalizing"):
        BytePairEncoder(made)


def test_other_normalizers_and_post_processors_are_refused() -> None:
    made = bpe([("a", "b")])
    made.normalizer = normalizers.Lowercase()
    with pytest.raises(NotFastError, match="Lowercase"):
        BytePairEncoder(made)
    made = with_added()
    made.post_processor = processors.RobertaProcessing(("<x>", 257), ("<x>", 257))
    with pytest.raises(NotFastError, match="RobertaProcessing"):
        BytePairEncoder(made)
    made = bpe([("a", "b")])
    made.post_processor = processors.ByteLevel(trim_offsets=True)
    BytePairEncoder(made)
    made.add_special_tokens(["<y> "])
    with pytest.raises(NotFastError, match="blanks at its ends"):
        BytePairEncoder(made)


def test_a_token_that_is_both_added_and_merged_is_refused() -> None:
    made = bpe([("a", "b")])
    made.add_special_tokens(["ab"])
    with pytest.raises(NotFastError, match="in its merges too"):
        BytePairEncoder(made)


def test_text_that_the_regex_leaves_out_is_noticed() -> None:
    made = bpe([("a", "b")])
    made.pre_tokenizer = split_by(r"[a-z]+")
    encoder = BytePairEncoder(made)
    assert encoder.encode(Rendered(["abc"], special=False)).ids.tolist() == made.encode("abc").ids
    with pytest.raises(NotFastError, match="leaves out"):
        encoder.encode(Rendered(["abc", "ab 1"], special=False))


def test_an_answer_at_the_very_start_that_is_empty_is_refused() -> None:
    with pytest.raises(NotFastError, match="at the start"):
        encoders("qwen2")[0].encode(Rendered(["abc"], special=False, spans=[[(0, 0)]]))
