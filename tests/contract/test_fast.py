"""The fast path against TRL's own preparation: the same columns, types, values and order of rows."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from tests.support.tiny import CHATML, WORDS, make_tokenizer
from tunesmith.data.fast import FastResult, prepare_fast
from tunesmith.data.trl_preparation import as_dataset, prepare_dataset
from tunesmith.errors import UsageError

pytestmark = pytest.mark.slow  # importing the trainer alone takes 6 s

MARKED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}{% generation %}"
    "{{ m['content'] }}<|im_end|>{% endgeneration %}{% else %}{{ m['content'] }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NASTY = [
    "",
    " ",
    "  a  b",
    "naïve e\u0301 12345 \n\n x ",
    "<|im_end|>",
    "<|im_start|>user\n",
    "日本語 🙂👩‍👩‍👧",
    "a" * 200,
    "x\x00\x1b[31m",
]


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def words(random_: random.Random, most: int) -> str:
    return " ".join(random_.choices([*WORDS, *NASTY[3:]], k=random_.randint(1, most)))


def chats(count: int) -> list[dict[str, Any]]:
    random_ = random.Random(count)
    rows = []
    for number in range(count):
        system = [said("system", words(random_, 4))] if number % 3 == 0 else []
        turns = [
            turn
            for _ in range(random_.randint(1, 3))
            for turn in (said("user", words(random_, 20)), said("assistant", words(random_, 12)))
        ]
        rows.append({"messages": [*system, *turns]})
    return rows


CHATS = chats(60)
ANSWERED = [{"prompt": row["messages"][:-1], "completion": row["messages"][-1:]} for row in CHATS]
PAIRS = [{"prompt": f"Swap {one}", "completion": f"{one} {two or 'x'}"} for one in NASTY for two in NASTY]
ENDED = [{"prompt": one, "completion": "fin<|im_end|>"} for one in NASTY]
TEXTS = [{"text": row["messages"][0]["content"]} for row in CHATS] + [{"text": text or "x"} for text in NASTY]
TOOLS = '[{"type": "function", "function": {"name": "weather", "parameters": {}}}]'
CALLS = [
    {
        "messages": [
            said("user", "weather?"),
            {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "weather", "arguments": [n]}}]},
            said("tool", "sunny"),
            said("assistant", f"sunny {n}"),
        ],
        **({"tools": TOOLS} if n % 2 else {}),
    }
    for n in range(6)
]  # fmt: skip


def assert_same(
    rows: list[dict[str, Any]], layout: Any, tokenizer: Any, training: dict[str, Any], encoder: Any = "tiktoken"
) -> FastResult:
    result = prepare_fast(rows, layout, tokenizer, training, encoder=encoder)
    assert result.dataset is not None, result.reason
    assert result.slower is None
    assert result.encoder == encoder
    theirs = prepare_dataset(as_dataset(rows), tokenizer, training)
    names = [name for name in theirs.column_names if name in ("input_ids", "labels", "seq_lengths")]
    assert result.dataset.column_names == names
    for name in names:
        assert result.dataset.features[name] == theirs.features[name]
        assert result.dataset[name][:] == theirs[name][:]
    return result


@pytest.fixture(scope="module", params=["qwen2", "llama", "gpt-2"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    made = make_tokenizer(request.param, template=MARKED)
    if request.param == "qwen2":
        made.backend_tokenizer.normalizer = normalizers.NFC()
        made.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    if request.param == "gpt-2":
        made.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return made


@pytest.mark.parametrize("encoder", ["tiktoken", "tokenizers"])
@pytest.mark.parametrize(
    ("rows", "layout", "training"),
    [
        (ANSWERED, "prompt-completion", {}),
        (ANSWERED, "prompt-completion", {"completion_only_loss": False}),
        (ANSWERED, "prompt-completion", {"assistant_only_loss": True}),
        (ANSWERED, "prompt-completion", {"assistant_only_loss": True, "completion_only_loss": False}),
        (ANSWERED, "prompt-completion", {"max_length": 60}),
        (ANSWERED, "prompt-completion", {"max_length": 60, "truncation_mode": "keep_end"}),
        (ANSWERED, "prompt-completion", {"max_length": None, "shuffle_dataset": True, "seed": 7}),
        (ANSWERED, "prompt-completion", {"packing": True, "max_length": 200, "shuffle_dataset": True}),
        (PAIRS, "prompt-completion", {}),
        (ENDED, "prompt-completion", {}),
        (CHATS, "messages", {}),
        (CHATS, "messages", {"assistant_only_loss": True}),
        (CHATS, "messages", {"assistant_only_loss": True, "max_length": 40}),
        (CHATS, "messages", {"assistant_only_loss": True, "packing": True, "max_length": 150}),
        (CHATS, "messages", {"packing": True, "packing_strategy": "bfd_split", "max_length": 100}),
        (CHATS, "messages", {"packing": True, "packing_strategy": "wrapped", "max_length": 100}),
        (CALLS, "messages", {"assistant_only_loss": True}),
        (TEXTS, "text", {}),
        (TEXTS, "text", {"max_length": 10, "completion_only_loss": True}),
        (TEXTS, "text", {"packing": True, "max_length": 64}),
    ],
)
def test_every_layout_is_prepared_as_the_trainer_does(
    rows: list[dict[str, Any]], layout: Any, training: dict[str, Any], encoder: Any, tokenizer: Any
) -> None:
    tokenizer.chat_template = MARKED.replace("{{ m['content'] }}", "{{ m['content'] or m.tool_calls | tojson }}")
    assert_same(rows, layout, tokenizer, training, encoder)


TEMPLATES = [
    "qwen2_5",
    "qwen3",
    "llama3",
    "gemma",
    "phi3",
    "deepseek_r1_distill",
    "glm4moe",
    "gptoss",
    "lfm2",
    "cohere",
]


@pytest.mark.parametrize("name", TEMPLATES)
def test_ten_of_trl_s_templates(name: str) -> None:
    import trl

    tokenizer = make_tokenizer("qwen2", bos_token="<|im_begin|>")
    tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text()
    plain = [{"messages": [m for m in row["messages"] if m["role"] != "system"]} for row in CHATS]
    if name == "gptoss":  # its template wants a date of today
        assert "strftime_now" in tokenizer.chat_template
    assert_same(plain, "messages", tokenizer, {"assistant_only_loss": True})
    answered = [{"prompt": row["messages"][:-1], "completion": row["messages"][-1:]} for row in plain]
    assert_same(answered, "prompt-completion", tokenizer, {"max_length": 300, "assistant_only_loss": True})
    assert_same(answered, "prompt-completion", tokenizer, {})


def test_rows_without_a_label_left_are_dropped_and_known(tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML
    result = assert_same(ANSWERED, "prompt-completion", tokenizer, {"max_length": 40})
    assert result.dataset is not None
    assert result.kept is not None
    assert result.lengths is not None
    assert result.kept.sum() == len(result.dataset) < len(ANSWERED) == len(result.kept)
    assert (
        result.dataset["input_ids"][0]
        == prepare_dataset(
            as_dataset([row for row, kept in zip(ANSWERED, result.kept, strict=True) if kept]),
            tokenizer,
            {"max_length": 40},
        )["input_ids"][0]
    )
    whole = [tokenizer.apply_chat_template(row["prompt"] + row["completion"])["input_ids"] for row in ANSWERED]
    assert result.lengths.tolist() == [len(ids) for ids in whole]


def test_bos_and_eos_that_the_tokenizer_adds_are_there() -> None:
    tokenizer = make_tokenizer("qwen2", bos_token="<|bos|>")
    ends = [("<|bos|>", tokenizer.bos_token_id), ("<|im_end|>", tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A <|im_end|>", special_tokens=ends
    )
    for rows, layout in ((TEXTS, "text"), (PAIRS, "prompt-completion"), (ANSWERED, "prompt-completion")):
        assert_same(rows, layout, tokenizer, {})


def other_kind(kind: str) -> Any:
    """A tokenizer that isn't byte-level BPE."""
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<|im_start|>", "<|im_end|>", "<pad>"]
    if kind == "wordpiece":
        made = Tokenizer(models.WordPiece(unk_token="<unk>"))
        made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    else:
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        trainer = trainers.UnigramTrainer(
            vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    made.train_from_iterator([message["content"] for row in CHATS for message in row["messages"]], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", eos_token="<|im_end|>", pad_token="<pad>", chat_template=MARKED
    )


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_other_kinds_of_tokenizers_go_by_the_tokenizers_library(kind: str) -> None:
    tokenizer = other_kind(kind)
    for rows, layout, training in (
        (CHATS, "messages", {"assistant_only_loss": True}),
        (ANSWERED, "prompt-completion", {}),
        (TEXTS, "text", {"packing": True, "max_length": 64}),
    ):
        assert_same(rows, layout, tokenizer, training, "tokenizers")
        result = prepare_fast(rows, layout, tokenizer, training, encoder="tiktoken")
        assert result.dataset is not None
        assert result.encoder == "tokenizers"
        assert result.slower


@pytest.mark.parametrize(
    ("rows", "layout", "training", "reason"),
    [
        (TEXTS, "text", {"dataset_text_field": "words"}, "dataset_text_field words"),
        (TEXTS, "text", {"max_length": 0}, "max_length is 0"),
        (TEXTS, "text", {"packing": True, "max_length": None}, "packing needs"),
        (TEXTS, "text", {"eos_token": "<|im_start|>"}, "eos_token is set"),
        (TEXTS, "text", {"assistant_only_loss": True}, "plain texts"),
        (CHATS, "messages", {"truncation_mode": "middle"}, "truncation_mode is middle"),
        (CHATS, "messages", {"assistant_only_loss": True}, "assistant_only_loss is set, but the chat template"),
        (ANSWERED, "prompt-completion", {"max_length": 3}, "no row is left"),
        ([{**CHATS[0], "images": []}], "messages", {}, "the columns ['images', 'messages']"),
        ([{"messages": []}], "messages", {}, "a conversation is empty"),
        ([{"messages": [{"role": "user", "content": [{"type": "text"}]}]}], "messages", {}, "content isn't text"),
        ([{"messages": [{"content": "hello"}]}], "messages", {}, "has no role"),
        ([{**CHATS[0], "tools": [1]}], "messages", {}, "tools aren't JSON"),
        ([PAIRS[0], ANSWERED[0]], "prompt-completion", {}, "mixed"),
        ([{"prompt": "a", "completion": [said("assistant", "b")]}], "prompt-completion", {}, "rows hold"),
        ([{"text": "half \ud800"}], "text", {}, "surrogates"),
        ([{"text": "x"}], "prompt-only", {}, "prompt-only"),
        ([], "text", {}, "there are no rows"),
    ],
)
def test_what_is_not_known_is_left_to_trl(
    rows: list[dict[str, Any]], layout: Any, training: dict[str, Any], reason: str
) -> None:
    result = prepare_fast(rows, layout, make_tokenizer("qwen2"), training)
    assert result.dataset is None
    assert result.reason is not None
    assert reason in result.reason


def test_a_template_that_refuses_a_row_is_trl_s_to_report() -> None:
    tokenizer = make_tokenizer("qwen2", template="{{ raise_exception('no ' + messages[0]['role']) }}")
    result = prepare_fast(CHATS, "messages", tokenizer, {})
    assert result.dataset is None
    assert result.reason == "TemplateError: no system"


def test_a_tokenizer_with_code_of_its_own_is_left_to_trl() -> None:
    plain = make_tokenizer("qwen2")

    class Own(type(plain)):  # type: ignore[misc]
        def apply_chat_template(self, *args: Any, **kwargs: Any) -> Any:
            return super().apply_chat_template(*args, **kwargs)

    plain.__class__ = Own
    assert "a way of its own" in str(prepare_fast(CHATS, "messages", plain, {}).reason)
    assert "isn't a tokenizer of" in str(prepare_fast(CHATS, "messages", object(), {}).reason)


def test_a_difference_from_trl_ends_the_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.data.fast import prepare

    def off_by_one(*given: Any) -> Any:
        made = real(*given)
        made.ids[0] += 1
        return made

    real = prepare.TokenizersEncoder.encode
    monkeypatch.setattr(prepare.TokenizersEncoder, "encode", off_by_one)
    result = prepare_fast(CHATS, "messages", make_tokenizer("qwen2"), {}, encoder="tokenizers")
    assert result.dataset is None
    assert result.reason == "input_ids differs from TRL's own preparation"


def test_a_character_that_python_does_not_know_goes_by_the_tokenizers_library() -> None:
    rows = [{"text": "\U000e0fff"}, *TEXTS]
    result = prepare_fast(rows, "text", make_tokenizer("qwen2"), {}, encoder="tiktoken")
    assert result.encoder == "tokenizers"
    assert result.slower == "its ids differ for a character of the rows"


def test_tiktoken_is_built_where_there_is_enough_to_encode() -> None:
    tokenizer = make_tokenizer("qwen2")
    assert prepare_fast(CHATS[:3], "messages", tokenizer, {}).encoder == "tokenizers"
    assert prepare_fast(CHATS * 20, "messages", tokenizer, {}).encoder == "tiktoken"


def test_without_marks_the_user_hears_it_from_trl() -> None:
    with pytest.raises(UsageError):
        prepare_dataset(as_dataset(CHATS), make_tokenizer("qwen2"), {"assistant_only_loss": True})
