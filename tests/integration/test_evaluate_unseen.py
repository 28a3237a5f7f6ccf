"""A measure without some of its rows is the measure of the others: nothing is asked anew, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.learnt import COLOURS, ROWS
from tests.support.runs import SMALL, make_plan
from tunesmith.evaluate.measures import Given, prepare
from tunesmith.evaluate.outcome import Divisible
from tunesmith.evaluate.rows import Row
from tunesmith.evaluate.subject import Local
from tunesmith.models.load import load_model, load_tokenizer
from tunesmith.progress import silent
from tunesmith.recipe.evaluation import Evaluation

SEEN = {1, 4}


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


PAIRS = [
    {"prompt": row["prompt"], "chosen": row["completion"], "rejected": said(f"{COLOURS[-index]} it is")}
    for index, row in enumerate(ROWS)
]
MARKED = [row | {"label": number % 2 == 0} for number, row in enumerate(ROWS)]
ASKED = [{"prompt": row["prompt"], "reference": colour} for row, colour in zip(ROWS, COLOURS, strict=True)]
LENGTH = {"max_length": 512}
CASES: dict[str, tuple[str, list[dict[str, Any]], dict[str, Any], list[Any]]] = {
    "sft": ("sft", ROWS, LENGTH, ["loss", "exact_match"]),
    "dpo": ("dpo", PAIRS, LENGTH, ["preference", "exact_match"]),
    "kto on marked answers": ("kto", MARKED, LENGTH, ["margin"]),
    "kto on pairs": ("kto", PAIRS, LENGTH, ["margin"]),
    "reward": ("reward", PAIRS, LENGTH, ["preference"]),
    "grpo": ("grpo", ASKED, {"max_completion_length": 6}, ["reward", "exact_match"]),
}


@pytest.fixture(scope="module")
def subjects() -> dict[str, tuple[Local, Local]]:
    """The small model and a noisy one, as language models and as reward models."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    tokenizer = load_tokenizer(SMALL)
    arms: dict[str, list[Local]] = {"text": [], "score": []}
    for name in ("base", "tuned"):
        scoring = AutoModelForSequenceClassification.from_pretrained(SMALL, num_labels=1).eval()
        for kind, model in (("text", load_model(SMALL, dtype="float32")), ("score", scoring)):
            if name == "tuned":
                model.get_input_embeddings().weight.data += 0.3 * torch.randn_like(model.get_input_embeddings().weight)
            arms[kind].append(Local(name, model, tokenizer, 8))
    return {kind: (base, tuned) for kind, (base, tuned) in arms.items()}


@pytest.mark.parametrize("case", CASES)
def test_without_the_rows_that_training_saw(
    tmp_path: Path, subjects: dict[str, tuple[Local, Local]], case: str
) -> None:
    method, rows, training, tasks = CASES[case]
    recipe = {"model": "builtin:small", "method": method, "data": {"train": "rows.jsonl"}}
    recipe |= {"rewards": ["exact_match"]} if method == "grpo" else {}
    layout = {"sft": "prompt-completion", "grpo": "prompt-only", "kto": "unpaired-preference"}.get(method, "preference")
    plan = make_plan(tmp_path, rows, method=method, recipe=recipe, layout=layout, training=training)
    held = [Row(number, row) for number, row in enumerate(rows, start=1)]
    settings = Evaluation(tasks=tasks)
    arms = subjects["score" if method == "reward" else "text"]
    given = Given(held, "test", plan, arms[0].tokenizer, settings, "cpu", tmp_path)
    alone = prepare(replace(given, rows=[row for row in held if row.number not in SEEN])).measures
    compared = 0
    for whole, part in zip(prepare(given).measures, alone, strict=True):
        assert isinstance(whole, Divisible)
        taken = [whole.take(arm, silent) for arm in arms]
        (narrowed, base), (_, tuned) = (whole.without(SEEN, one) for one in taken)
        found = narrowed.compare(base, tuned).comparisons
        expected = part.compare(*(part.take(arm, silent) for arm in arms)).comparisons
        told = [(one.metric, one.rows, one.base, one.tuned, one.p_value) for one in expected]
        assert [(one.metric, one.rows) for one in found] == [one[:2] for one in told]
        for one, other in zip(found, told, strict=True):
            numbers = pytest.approx(other[2:4], rel=1e-4, abs=1e-6)
            assert (one.base, one.tuned) == numbers
            assert one.p_value == (None if other[4] is None else pytest.approx(other[4], rel=1e-4))
        assert whole.without(range(1, 9), taken[0]) is None
        compared += len(found)
    assert compared >= len(tasks)
