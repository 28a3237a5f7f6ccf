"""The audit's numbers are those of the batches that real trainers train on, token by token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import SMALL
from tests.support.templates import TEMPLATES, template_text, tokenizer_with
from tunesmith.data.tokens import audit, audit_prepared, audit_with_lengths
from tunesmith.data.trl_preparation import as_dataset, can_mark
from tunesmith.errors import EnvironmentLacksError
from tunesmith.models.load import load_tokenizer
from tunesmith.records import LabelAudit

pytestmark = pytest.mark.slow  # importing the trainers alone takes 6 s


def said(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


PAIRS = [
    {
        "prompt": [said("user", "order " * (n + 1))],
        "completion": [said("assistant", "<think>\nhm\n</think>\n\n" * (n % 3 == 0) + "yes " * (n % 5 + 1) + "done")],
    }
    for n in range(11)
]
TALKS = [
    {
        "messages": [
            said("user", "hello " * (n + 1)),
            said("assistant", "hi"),
            said("user", "more"),
            said("assistant", "sure " * (n % 4 + 1)),
        ]
    }
    for n in range(11)
]
STRINGS = [{"text": "some words " * (n + 1)} for n in range(11)]
PREFERENCES = [
    {"prompt": row["prompt"], "chosen": row["completion"], "rejected": [said("assistant", "no " * (n % 7))]}
    for n, row in enumerate(PAIRS)
]
PLAIN_PREFERENCES = [
    {"prompt": f"order {n}: ", "chosen": "yes " * n, "rejected": "yes " * (n if n % 3 == 0 else 2)} for n in range(11)
]
THUMBS = [{**row, "label": n % 3 > 0} for n, row in enumerate(PAIRS)]


@pytest.fixture(scope="module")
def model() -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(SMALL)


def options(folder: Path, **training: Any) -> dict[str, Any]:
    here = {"output_dir": str(folder), "use_cpu": True, "bf16": False, "report_to": "none"}
    return {**here, "per_device_train_batch_size": 4, **training}


def batches_of(trainer: Any) -> tuple[int, int, int]:
    """Rows, tokens and trained tokens of all batches of an epoch, by the real data loader and collator."""
    rows = tokens = trained = 0
    for batch in trainer.get_train_dataloader():
        rows += len(batch["input_ids"])
        tokens += int(batch["attention_mask"].sum())
        labels = batch["labels"] != -100 if "labels" in batch else batch["completion_mask"]
        trained += int(labels.sum())
    return rows, tokens, trained


def counted(result: LabelAudit, sides: int = 1) -> tuple[int, int, int]:
    return result.rows_kept * sides, result.tokens, result.trained_tokens


def sft_trainer(model: Any, rows: Any, tokenizer: Any, folder: Path, **training: Any) -> Any:
    from trl import SFTConfig, SFTTrainer

    args = SFTConfig(**options(folder, **training))
    return SFTTrainer(model=model, args=args, train_dataset=as_dataset(rows), processing_class=tokenizer)


def renders(template: str, rows: list[dict[str, Any]]) -> bool:
    """Whether a template takes these conversations; those of vision models want lists of parts."""
    try:
        text = tokenizer_with(template).apply_chat_template(rows[0]["messages"], tokenize=False)
    except Exception:  # whatever Jinja raises
        return False
    return "sure" in text


TEXT_TEMPLATES = [name for name in TEMPLATES if renders(template_text(name), TALKS)]


def test_ten_templates_at_least_are_compared() -> None:
    marked = [name for name in TEXT_TEMPLATES if can_mark(tokenizer_with(template_text(name)))]
    assert len(TEXT_TEMPLATES) >= 40
    assert len(marked) >= 30


@pytest.mark.parametrize("name", TEXT_TEMPLATES)
def test_each_template_of_trl_prompt_and_completion(name: str, model: Any, tmp_path: Path) -> None:
    tokenizer = tokenizer_with(template_text(name))
    longest = audit(PAIRS, "prompt-completion", tokenizer, training={}).longest
    assert longest is not None
    training = {"max_length": longest - 4}
    result = audit(PAIRS, "prompt-completion", tokenizer, training=training)
    assert result.rows_cut > 0
    batches = batches_of(sft_trainer(model, PAIRS, tokenizer, tmp_path, **training))
    assert counted(result) == batches
    assert result.trained_percent == round(100 * batches[2] / batches[1], 2)
    assert 0 < result.trained_percent < 100


@pytest.mark.parametrize("name", TEXT_TEMPLATES)
def test_each_template_of_trl_assistant_only(name: str, model: Any, tmp_path: Path) -> None:
    tokenizer = tokenizer_with(template_text(name))
    if not can_mark(tokenizer):
        pytest.skip("no generation marks, and TRL has no copy with them")
    training = {"max_length": None, "assistant_only_loss": True}
    result = audit(TALKS, "messages", tokenizer, training=training)
    batches = batches_of(sft_trainer(model, TALKS, tokenizer, tmp_path, **training))
    assert counted(result) == batches
    assert result.trained_percent == round(100 * batches[2] / batches[1], 2)
    assert 0 < result.trained_percent < 100


@pytest.mark.parametrize(
    ("rows", "layout", "training"),
    [
        (PAIRS, "prompt-completion", {"completion_only_loss": False}),
        (PAIRS, "prompt-completion", {"max_length": 40, "truncation_mode": "keep_end"}),
        (TALKS, "messages", {}),
        (STRINGS, "text", {"max_length": 16}),
    ],
)
def test_other_ways_to_train(rows: Any, layout: Any, training: dict[str, Any], model: Any, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(SMALL)
    method = "clm" if layout == "text" else "sft"
    result = audit(rows, layout, tokenizer, training=training, method=method)
    assert counted(result) == batches_of(sft_trainer(model, rows, tokenizer, tmp_path, **training))
    assert result.method == method


def preference_trainer(method: str, model: Any, rows: Any, tokenizer: Any, folder: Path, training: Any) -> Any:
    import trl
    from transformers import AutoModelForSequenceClassification

    config, trainer = {
        "dpo": (trl.DPOConfig, trl.DPOTrainer),
        "kto": (trl.KTOConfig, trl.KTOTrainer),
        "reward": (trl.RewardConfig, trl.RewardTrainer),
    }[method]
    if method == "reward":
        model = AutoModelForSequenceClassification.from_pretrained(SMALL, num_labels=1)
    more = {"train_sampling_strategy": "sequential"} if method == "kto" else {}
    args = config(**options(folder, **training, **more))
    return trainer(model=model, args=args, train_dataset=as_dataset(rows), processing_class=tokenizer)


@pytest.mark.parametrize("cut", [0, 6], ids=["whole", "cut"])
@pytest.mark.parametrize("template", [None, "llama3", "qwen3", "gemma3", "deepseekv3"])
@pytest.mark.parametrize(
    ("method", "rows", "layout"),
    [
        ("dpo", PREFERENCES, "preference"),
        ("dpo", PLAIN_PREFERENCES, "preference"),
        ("kto", THUMBS, "unpaired-preference"),
        ("reward", PREFERENCES, "preference"),
        ("reward", PLAIN_PREFERENCES, "preference"),
    ],
)
def test_preference_methods(
    method: str, rows: Any, layout: Any, template: str | None, cut: int, model: Any, tmp_path: Path
) -> None:
    tokenizer = tokenizer_with(template_text(template)) if template else load_tokenizer(SMALL)
    sides = 1 if method == "kto" else 2
    longest = audit(rows, layout, tokenizer, training={}, method=method).longest
    assert longest is not None
    training = {"max_length": longest - cut}
    result = audit(rows, layout, tokenizer, training=training, method=method)
    trainer = preference_trainer(method, model, rows, tokenizer, tmp_path, training)
    if method == "reward":
        found = [(len(b["input_ids"]), int(b["attention_mask"].sum())) for b in trainer.get_train_dataloader()]
        assert counted(result, sides)[:2] == tuple(map(sum, zip(*found, strict=True)))
        assert result.trained_tokens == 2 * result.rows_kept  # one score per sequence
        assert result.loss_on == "score"
        assert (result.rows_kept < result.rows) == bool(cut)
    else:
        assert counted(result, sides) == batches_of(trainer)
        assert result.loss_on == "completion"
        assert (result.rows_cut > 0) == bool(cut)
    after = audit_prepared(
        trainer.train_dataset,
        tokenizer,
        rows_given=len(rows),
        max_length=result.max_length,
        layout=layout,
        loss_on=result.loss_on,
        method=method,
        rows_cut=result.rows_cut,
        longest=result.longest,
    )
    unknown = {"preview", "cutting"}
    assert after.model_dump(exclude=unknown) == result.model_dump(exclude=unknown)


@pytest.mark.parametrize(
    ("method", "rows", "layout", "more"),
    [
        ("dpo", PREFERENCES, "preference", {}),
        ("dpo", PREFERENCES, "preference", {"truncation_mode": "keep_end"}),
        ("kto", THUMBS, "unpaired-preference", {}),
    ],
)
def test_rows_whose_prompt_fills_max_length(
    method: str, rows: Any, layout: Any, more: Any, model: Any, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(SMALL)
    training = {"max_length": 24, **more}
    result = audit(rows, layout, tokenizer, training=training, method=method)
    trainer = preference_trainer(method, model, rows, tokenizer, tmp_path, training)
    assert counted(result, 1 if method == "kto" else 2) == batches_of(trainer)
    assert (result.rows_kept < result.rows) == (not more)
    assert result.cutting is not None
    assert (result.cutting.end == "beginning") == bool(more)


def test_pairs_are_counted_by_hand() -> None:
    """The tokenizer gives a token to each word and each blank."""
    tokenizer = load_tokenizer(SMALL)
    rows = [
        {"prompt": "a b ", "chosen": "c d", "rejected": "c e f"},
        {"prompt": "a ", "chosen": "b", "rejected": "b"},
    ]
    sizes = [[len(tokenizer(text)["input_ids"]) for text in row.values()] for row in rows]
    measured = audit_with_lengths(rows, "preference", tokenizer, training={}, method="dpo")
    result = measured.audit
    assert result.pairs is not None
    assert result.pairs.prompt_tokens == sizes[0][0] + sizes[1][0]
    assert result.pairs.chosen_tokens == sizes[0][1] + sizes[1][1] + 2  # and an EOS each
    assert result.pairs.rejected_tokens == sizes[0][2] + sizes[1][2] + 2
    assert (result.pairs.equal, result.rows_without_stop, result.pairs.rejected_without_stop) == (1, 0, 0)
    assert measured.tokens.tolist() == [sizes[0][0] + sizes[0][2] + 1, sizes[1][0] + sizes[1][1] + 1]
    assert measured.prompts is not None
    assert measured.prompts.tolist() == [sizes[0][0], sizes[1][0]]
    assert [(row.row, row.why) for row in result.preview] == [
        (1, "chosen, the first row, the longest row"),
        (1, "rejected, the first row, the longest row"),
        (2, "chosen"),
        (2, "rejected"),
    ]


def test_what_cutting_takes_from_pairs() -> None:
    tokenizer = load_tokenizer(SMALL)
    rows = [{"prompt": "a ", "chosen": "b c d e f g h", "rejected": "b c d e f x y"}]
    whole = audit(rows, "preference", tokenizer, training={}, method="dpo")
    assert whole.longest is not None
    assert whole.cutting is None
    assert whole.pairs is not None
    prompt = whole.pairs.prompt_tokens
    one = audit(rows, "preference", tokenizer, training={"max_length": whole.longest - 1}, method="dpo")
    assert one.cutting is not None
    assert one.cutting.model_dump() == {
        "end": "end", "tokens": 2, "answer_tokens": 2, "answers_cut": 1, "answers_gone": 0, "stops_gone": 1,
    }  # fmt: skip
    assert one.pairs is not None
    assert (one.pairs.chosen_without_stop, one.pairs.rejected_without_stop, one.pairs.equal) == (1, 1, 0)
    equal = audit(rows, "preference", tokenizer, training={"max_length": prompt + 3}, method="dpo")
    assert equal.pairs is not None
    assert equal.pairs.equal == 1
    gone = audit(rows, "preference", tokenizer, training={"max_length": prompt}, method="dpo")
    assert gone.cutting is not None
    assert (gone.rows_kept, gone.cutting.answers_gone, gone.cutting.answers_cut) == (0, 1, 0)
    assert gone.cutting.answer_tokens == whole.trained_tokens
    scored = audit(rows, "preference", tokenizer, training={"max_length": whole.longest - 1}, method="reward")
    assert (scored.rows_kept, scored.rows_cut, scored.cutting) == (0, 0, None)


@pytest.mark.parametrize("method", ["dpo", "kto", "reward"])
def test_another_shape_of_trl_is_named(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    import trl

    tokenizer = load_tokenizer(SMALL)
    rows: Any = THUMBS if method == "kto" else PREFERENCES
    name, collator = {
        "dpo": ("DPOTrainer", "DataCollatorForPreference"),
        "kto": ("KTOTrainer", "DataCollatorForUnpairedPreference"),
        "reward": ("RewardTrainer", "DataCollatorForPreference"),
    }[method]
    trainer = getattr(trl, name)

    def refusal() -> str:
        with pytest.raises(EnvironmentLacksError) as caught:
            audit(rows, "preference", tokenizer, training={}, method=method)
        assert name in str(caught.value.why)
        return str(caught.value)

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[trainer.__module__], collator, lambda pad: None)
        assert "unexpected keyword argument" in refusal()
        patch.delattr(sys.modules[trainer.__module__], collator)
        assert collator in refusal()
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "_prepare_dataset", lambda self, dataset, processing_class, args, dataset_name: self.new)
        assert "reads 'new'" in refusal()
        patch.setattr(trainer, "_prepare_dataset", lambda self, rows: None)
        assert f"{name}._prepare_dataset takes ['self', 'rows']" in refusal()
