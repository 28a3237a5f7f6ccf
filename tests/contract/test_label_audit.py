"""The label audit against the trainer: its counts must be those of a real SFTTrainer's train_dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunesmith.data.tokens import audit, audit_findings, audit_prepared, audit_with_lengths
from tunesmith.data.trl_preparation import as_dataset, can_mark, prepare_dataset
from tunesmith.errors import EnvironmentLacksError, UsageError
from tunesmith.models.load import load_tokenizer
from tunesmith.rules import FindingsError

pytestmark = pytest.mark.slow  # importing the trainer alone takes 6 s

SMALL = Path(__file__).parents[2] / "src" / "tunesmith" / "demo" / "small"
NO_MARKS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_STOP = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


PAIRS = [{"prompt": [user("order " * (n + 1))], "completion": [assistant("yes " * (n % 5 + 1))]} for n in range(24)]
PLAIN = [{"prompt": f"order {n}: ", "completion": "yes " * (n % 7 + 1)} for n in range(24)]
TALKS = [
    {"messages": [user("hello " * (n + 1)), assistant("hi"), user("more"), assistant("sure " * (n % 4 + 1))]}
    for n in range(24)
]
TEXTS = [{"text": "some words " * (n + 1)} for n in range(24)]


@pytest.fixture
def tokenizer() -> Any:
    return load_tokenizer(SMALL)


def real_dataset(rows: list[dict[str, Any]], tokenizer: Any, training: dict[str, Any], folder: Path) -> Any:
    """The train_dataset of a real trainer, on a random model."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    config = AutoConfig.from_pretrained(SMALL)
    args = SFTConfig(output_dir=str(folder), use_cpu=True, bf16=False, report_to="none", **training)
    model = AutoModelForCausalLM.from_config(config)
    return SFTTrainer(model=model, args=args, train_dataset=as_dataset(rows), processing_class=tokenizer).train_dataset


def loops(dataset: Any, stop: int) -> dict[str, int]:
    """The audit's counts by plain loops over the trainer's dataset."""
    rows = []
    for row in dataset:
        start = 0
        for size in row.get("seq_lengths") or [len(row["input_ids"])]:
            rows.append(row["labels"][start : start + size])
            start += size
    return {
        "rows_kept": len(rows),
        "tokens": sum(map(len, rows)),
        "trained_tokens": sum(label != -100 for row in rows for label in row),
        "rows_without_stop": sum(stop not in row for row in rows),
        "rows_untrained": sum(all(label == -100 for label in row) for row in rows),
    }


@pytest.mark.parametrize(
    ("rows", "layout", "training", "loss_on"),
    [
        (PAIRS, "prompt-completion", {}, "completion"),
        (PAIRS, "prompt-completion", {"max_length": 24}, "completion"),
        (PAIRS, "prompt-completion", {"max_length": 24, "truncation_mode": "keep_end"}, "completion"),
        (PAIRS, "prompt-completion", {"completion_only_loss": False}, "all"),
        (PAIRS, "prompt-completion", {"packing": True, "max_length": 40}, "completion"),
        (PLAIN, "prompt-completion", {"max_length": None}, "completion"),
        (TALKS, "messages", {"assistant_only_loss": True}, "assistant"),
        (TALKS, "messages", {"assistant_only_loss": True, "max_length": 30}, "assistant"),
        (TALKS, "messages", {}, "all"),
        (TEXTS, "text", {"max_length": 32}, "all"),
        (TEXTS, "text", {"max_length": 32, "shuffle_dataset": True}, "all"),
        (TEXTS, "text", {"max_length": 32, "packing": True}, "all"),
    ],
)
def test_the_audit_counts_what_the_trainer_has(
    *, rows: list[dict[str, Any]], layout: Any, training: dict[str, Any], loss_on: Any, tokenizer: Any, tmp_path: Path
) -> None:
    before = audit(rows, layout, tokenizer, training=training)
    dataset = real_dataset(rows, tokenizer, training, tmp_path)
    counted = loops(dataset, tokenizer.eos_token_id)
    assert before.model_dump(include=set(counted)) == counted
    after = audit_prepared(
        dataset,
        tokenizer,
        rows_given=len(rows),
        max_length=before.max_length,
        layout=layout,
        loss_on=loss_on,
        rows_cut=before.rows_cut,
        longest=before.longest,
    )
    unknown = {"preview", "cutting"}  # the trainer's dataset no longer tells what was cut
    assert after.model_dump(exclude=unknown) == before.model_dump(exclude=unknown)
    assert before.loss_on == loss_on
    assert before.max_length == training.get("max_length", 1024)


def test_rows_are_cut_and_dropped_as_the_lengths_say(tokenizer: Any) -> None:
    measured = audit_with_lengths(PAIRS, "prompt-completion", tokenizer, training={"max_length": 24})
    whole = [len(tokenizer.apply_chat_template(row["prompt"] + row["completion"])["input_ids"]) for row in PAIRS]
    prompts = [
        len(tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True)["input_ids"]) for row in PAIRS
    ]
    assert measured.audit.rows_cut == sum(length > 24 for length in whole) > 0
    assert measured.audit.rows - measured.audit.rows_kept == sum(length >= 24 for length in prompts) > 0
    assert measured.audit.longest == max(whole)
    assert measured.lengths.total.total == sum(whole)
    assert measured.lengths.prompt is not None
    assert measured.lengths.prompt.total == sum(prompts)
    assert {finding.code for finding in audit_findings(measured.audit, "x")} == {"T001", "T002", "T003"}


def test_a_row_of_exactly_max_length_isnt_cut(tokenizer: Any) -> None:
    longest = audit(PAIRS, "prompt-completion", tokenizer, training={}).longest
    assert longest is not None
    assert audit(PAIRS, "prompt-completion", tokenizer, training={"max_length": longest}).rows_cut == 0
    assert audit(PAIRS, "prompt-completion", tokenizer, training={"max_length": longest - 1}).rows_cut == 1


def test_packing_that_splits_rows_loses_nothing(tokenizer: Any) -> None:
    training = {"packing": True, "packing_strategy": "wrapped", "max_length": 16}
    result = audit(TEXTS, "text", tokenizer, training=training)
    assert (result.rows_kept, result.rows_cut, result.rows_without_stop) == (24, 0, 0)


def test_a_clean_audit_and_its_preview(tokenizer: Any) -> None:
    result = audit(PAIRS, "prompt-completion", tokenizer, training={}, preview=2, places=range(11, 35))
    assert audit_findings(result, "x") == []
    assert result.stop_tokens == ["<|im_end|>"]
    assert [(row.row, row.why) for row in result.preview] == [(11, "the first row"), (34, "the longest row")]
    assert [(span.text, span.trained) for span in result.preview[0].spans] == [
        ("<|im_start|>user\norder <|im_end|>\n<|im_start|>assistant\n", False),
        ("yes <|im_end|>\n", True),
    ]


def test_the_preview_names_the_rows_that_are_kept(tokenizer: Any) -> None:
    rows = [{"prompt": [user("long " * 50)], "completion": [assistant("yes")]}, *PAIRS[:2]]
    result = audit(rows, "prompt-completion", tokenizer, training={"max_length": 24})
    assert [row.row for row in result.preview] == [2, 3]


def test_t001_a_template_without_a_stop_token(tokenizer: Any) -> None:
    tokenizer.chat_template = NO_STOP
    result = audit(PAIRS, "prompt-completion", tokenizer, training={})
    assert {finding.code for finding in audit_findings(result, "x")} == {"T001"}


def test_t012_answers_that_the_template_renders_as_nothing(tokenizer: Any) -> None:
    """The template writes a line break after the stop token, which is trained too."""
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    rows = [*PAIRS[:3], {"prompt": [user("a")], "completion": [call]}]
    result = audit(rows, "prompt-completion", tokenizer, training={})
    assert result.rows_stop_only == 1
    assert [finding.code for finding in audit_findings(result, "x")] == ["T012"]


def test_t004_bos_in_the_text_and_from_the_tokenizer(tokenizer: Any) -> None:
    tokenizer.bos_token = "<|im_start|>"
    result = audit([{"text": "<|im_start|><|im_start|>a"}, {"text": "<|im_start|>b"}], "text", tokenizer, training={})
    assert result.bos_per_row == {1: 1, 2: 1}
    assert [finding.code for finding in audit_findings(result, "x")] == ["T004"]


def test_t005_no_chat_template(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    with pytest.raises(FindingsError, match="T005"):
        audit(PAIRS, "prompt-completion", tokenizer, training={})
    assert audit(TEXTS, "text", tokenizer, training={}).rows_kept == 24


def test_t008_rows_that_the_template_refuses(tokenizer: Any) -> None:
    rows = [*PAIRS[:3], {"prompt": [user("a"), {"role": "tool", "content": "b"}], "completion": [assistant("c")]}]
    with pytest.raises(FindingsError, match=r"T008 .*1 row .*Unknown role: tool.* \(row 9\)") as caught:
        audit(rows, "prompt-completion", tokenizer, training={}, places=[2, 4, 6, 9])
    assert caught.value.findings[0].code == "T008"


def test_t009_no_eos_token(tokenizer: Any) -> None:
    tokenizer.eos_token = None
    with pytest.raises(FindingsError, match="T009"):
        audit(TEXTS, "text", tokenizer, training={})


def test_marks_of_the_template_or_of_trl(tokenizer: Any) -> None:
    from trl.chat_template_utils import qwen3_chat_template

    assert can_mark(tokenizer)
    tokenizer.chat_template = qwen3_chat_template
    assert can_mark(tokenizer)
    assert audit(TALKS, "messages", tokenizer, training={"assistant_only_loss": True}).trained_percent < 60
    tokenizer.chat_template = None
    assert not can_mark(tokenizer)
    tokenizer.chat_template = NO_MARKS
    assert not can_mark(tokenizer)
    with pytest.raises(UsageError, match="assistant_only_loss"):
        audit(TALKS, "messages", tokenizer, training={"assistant_only_loss": True})


def test_another_shape_of_trl_is_named(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from trl import SFTTrainer

    for replacement, said in [
        (
            lambda self, dataset, processing_class, args, packing, formatting_func, dataset_name: self.something_new,
            "reads 'something_new'",
        ),
        (lambda self: None, "takes"),
        (None, "there is no"),
    ]:
        monkeypatch.setattr(SFTTrainer, "_prepare_dataset", replacement)
        with pytest.raises(EnvironmentLacksError, match=said):
            prepare_dataset(as_dataset(TEXTS), tokenizer, {})


def test_inspect_with_a_tokenizer_audits(tokenizer: Any, tmp_path: Path) -> None:
    import json

    from tunesmith.data.report import inspect

    path = tmp_path / "talks.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in TALKS))
    report = inspect(path, tokenizer=tokenizer, training={"max_length": 30})
    assert report.audit is not None
    assert report.lengths is not None
    assert (report.audit.layout, report.audit.loss_on, report.audit.max_length) == ("messages", "assistant", 30)
    assert report.lengths.total.max == report.audit.longest
    assert "T002" in {finding.code for finding in report.findings}
    assert inspect(path, tokenizer=tokenizer, audit=False).audit is None
    tokenizer.chat_template = NO_MARKS
    report = inspect(path, tokenizer=tokenizer)
    assert report.audit is not None
    assert report.audit.loss_on == "completion"
    tokenizer.chat_template = None
    report = inspect(path, tokenizer=tokenizer, quality=False)
    assert (report.audit, [finding.code for finding in report.findings]) == (None, ["D015", "T005"])
