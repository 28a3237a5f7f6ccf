"""The light tokenizer counts what TRL's preparation gives the trainer, layout by layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.runs import SMALL
from tests.support.templates import TEMPLATES, save_tokenizer, template_text
from tests.support.tiny import OTHER, make_tokenizer
from tunesmith.data.tokens import audit_with_lengths
from tunesmith.data.trl_preparation import can_mark, training_template
from tunesmith.models.light import LightTokenizer
from tunesmith.models.load import load_tokenizer
from tunesmith.models.marked import marked_template

pytestmark = pytest.mark.slow  # importing the trainer alone takes 6 s

TEXTS = ["", " ", "hello", "naïve 12345 \n\n x", "<|im_end|>", "ends here<|im_end|>", "日本語 🙂", "a" * 300]


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


ROWS: dict[str, list[dict[str, Any]]] = {
    "chat": [
        {"prompt": [said("system", two), said("user", one)], "completion": [said("assistant", two or "x")]}
        for one, two in zip(TEXTS, reversed(TEXTS), strict=True)
    ],
    "pairs": [{"prompt": one, "completion": two or "x"} for one, two in zip(TEXTS, reversed(TEXTS), strict=True)],
    "messages": [
        {"messages": [said("user", one), said("assistant", "ok"), said("user", "more"), said("assistant", one or "x")]}
        for one in TEXTS
    ],
    "text": [{"text": text or "x"} for text in TEXTS],
}
LAYOUTS = {"chat": "prompt-completion", "pairs": "prompt-completion", "messages": "messages", "text": "text"}


def prepared(rows: list[dict[str, Any]], tokenizer: Any) -> tuple[list[int], list[int]]:
    """Untrained tokens at the start of each row, and all tokens, from a real SFTTrainer."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    args = SFTConfig(
        output_dir="out", max_length=None, report_to="none", use_cpu=True, bf16=False, completion_only_loss=None
    )
    model = AutoModelForCausalLM.from_pretrained(SMALL)
    data = Dataset.from_list(rows)
    ready = SFTTrainer(model=model, args=args, train_dataset=data, processing_class=tokenizer).train_dataset
    labels = ready["labels"] if "labels" in ready.column_names else ready["input_ids"]
    starts = [next(index for index, label in enumerate(row) if label != -100) for row in labels]
    return starts, [len(ids) for ids in ready["input_ids"]]


@pytest.fixture(scope="module", params=["small", "llama", "bos"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokenizers: the built-in one; one whose template ends with another token; one that begins each text with BOS."""
    if request.param == "small":
        return SMALL
    path = tmp_path_factory.mktemp(request.param)
    special = {"bos_token": "<|begin|>", "eos_token": "<|im_end|>"}
    tokenizer = make_tokenizer("llama", template=OTHER if request.param == "llama" else None, **special)
    if request.param == "bos":
        from tokenizers.processors import TemplateProcessing

        bos = ("<|begin|>", tokenizer.bos_token_id)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<|begin|> $A", special_tokens=[bos])
    tokenizer.save_pretrained(path)
    return path


@pytest.mark.parametrize("kind", ROWS)
def test_counts_are_the_trainer_s(kind: str, folder: Path, tmp_path: Path) -> None:
    light = LightTokenizer(folder)
    if light.template is None and kind in ("chat", "messages"):
        pytest.skip("no template")
    prompts, totals = light.encode_rows(ROWS[kind], LAYOUTS[kind])
    starts, lengths = prepared(ROWS[kind], load_tokenizer(folder))
    assert totals == lengths
    if kind == "chat" and folder == SMALL:
        assert prompts == starts
    elif prompts:  # a token may reach over the border; TRL then trains it
        assert all(prompt - 3 <= start <= prompt for prompt, start in zip(prompts, starts, strict=True))
    else:
        assert set(starts) == {0}


def test_a_template_file_counts_in_place_of_the_model_s_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text(OTHER.replace("<|fin|>", "<|im_end|>"))
    light = LightTokenizer(SMALL, str(path))
    prompts, totals = light.encode_rows(ROWS["chat"], "prompt-completion")
    starts, lengths = prepared(ROWS["chat"], load_tokenizer(SMALL, chat_template=str(path)))
    assert totals == lengths
    assert prompts is not None
    assert all(start in (prompt, prompt - 1) for prompt, start in zip(prompts, starts, strict=True))
    assert totals != LightTokenizer(SMALL).encode_rows(ROWS["chat"], "prompt-completion")[1]


def test_the_marked_copies_are_those_that_trl_chooses() -> None:
    tokenizer = load_tokenizer(SMALL)
    answers = set()
    for name in TEMPLATES:
        template = template_text(name)
        tokenizer.chat_template = template
        marked = marked_template(template)
        answers.add(marked is not None)
        if can_mark(tokenizer):
            assert marked == (training_template(tokenizer) or template), name
        else:
            assert marked is None, name
    assert len(TEMPLATES) > 20
    assert answers == {True, False}


@pytest.mark.parametrize("name", ["qwen3", "llama3", "glm4moe", "deepseekv3"])
def test_conversations_are_counted_as_assistant_only_loss_renders_them(name: str, tmp_path: Path) -> None:
    folder = save_tokenizer(template_text(name), tmp_path)
    rows = [row for row in ROWS["messages"] if row["messages"][-1]["content"].strip()]
    training = {"assistant_only_loss": True, "max_length": None}
    whole = audit_with_lengths(rows, "messages", load_tokenizer(folder), training=training)
    assert LightTokenizer(folder).encode_rows(rows, "messages") == (None, whole.tokens.tolist())


@pytest.mark.parametrize("method", ["dpo", "kto"])
@pytest.mark.parametrize("chat", [True, False])
def test_preferences_are_counted_as_trl_tokenises_them(method: str, chat: bool) -> None:
    rows = ROWS["chat" if chat else "pairs"]
    other = [said("assistant", "no, not at all")] if chat else "no, not at all"
    if method == "dpo":
        layout: Any = "preference"
        rows = [{"prompt": row["prompt"], "chosen": row["completion"], "rejected": other} for row in rows]
    else:
        layout = "unpaired-preference"
        rows = [{**row, "label": True} for row in rows]
    whole = audit_with_lengths(rows, layout, load_tokenizer(SMALL), training={"max_length": None}, method=method)
    prompts, totals = LightTokenizer(SMALL).encode_rows(rows, layout)
    assert totals == whole.tokens.tolist()
    assert whole.prompts is not None
    assert prompts is not None
    if chat:
        assert prompts == whole.prompts.tolist()
    bare = [{"prompt": row["prompt"]} for row in rows]
    assert LightTokenizer(SMALL).encode_rows(bare, "prompt-only") == (None, prompts)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=30), min_size=1, max_size=4))
def test_any_conversation_renders_as_in_transformers(texts: list[str]) -> None:
    messages = [said(("user", "assistant")[index % 2], text) for index, text in enumerate(texts)]
    tokenizer = load_tokenizer(SMALL)
    light = LightTokenizer(SMALL)
    for prompt in (False, True):
        whole = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
        assert light.render(messages, prompt=prompt) == whole
    ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
    assert light.encode_rows([{"messages": messages}], "messages")[1] == [len(ids)]
