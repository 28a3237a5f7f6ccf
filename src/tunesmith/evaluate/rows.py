"""Held-out rows as token ids: what the loss is taken on, and what a model is asked."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.trl_preparation import as_dataset, prepare_dataset
from ..errors import UsageError
from ..files import sha256
from ..records import Plan, Split
from ..rules import finding, refuse_errors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEFAULT_ROWS = 500
MASKED = -100
"""Label of a token that no loss is taken on, in TRL and Transformers."""


@dataclass(frozen=True)
class Row:
    """A prepared row, and its number in its file, counted from 1."""

    number: int
    content: dict[str, Any]


@dataclass(frozen=True)
class Encoded:
    """A row as the trainer sees it: token ids, and for each whether the loss is taken on it."""

    ids: list[int]
    trained: list[bool]

    @property
    def positions(self) -> list[int]:
        """Positions of the tokens that are trained and have a token before them to be predicted from."""
        return [position for position, trained in enumerate(self.trained) if trained and position > 0]


@dataclass(frozen=True)
class Question:
    """What a model is asked for one row, and the answer expected."""

    row: int
    prompt: str
    ids: list[int]
    expected: str


def held_out(folder: Path, plan: Plan, limit: int | None) -> tuple[Split, list[Row]]:
    """The rows to compare on: all, or a sample drawn with a fixed seed when there are more than `limit` (default 500).

    Raises:
        UsageError: the plan holds out no rows.
        FindingsError: the file isn't the one that was planned (R003).
    """
    split = plan.test or plan.eval
    if split is None or split.rows == 0:
        raise UsageError(
            "This run has no held-out rows.",
            why="Tuned and base can only be compared on rows that were not trained on.",
            fix="Start a new run with `data: {eval: 0.05}` or `data: {test: FILE}` in the recipe.",
        )
    path = folder / split.path
    if not path.is_file() or sha256(path) != split.sha256:
        refuse_errors([finding("R003", split.path, path=split.path)])
    with path.open(encoding="utf-8") as file:
        rows = [Row(number, json.loads(line)) for number, line in enumerate(file, start=1)]
    limit = limit or DEFAULT_ROWS
    if len(rows) > limit:
        rows = sorted(random.Random(0).sample(rows, limit), key=lambda row: row.number)
    return split, rows


def encode(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, plan: Plan) -> list[Encoded]:
    """Rows as the trainer itself prepares them under the plan, one by one: masked and cut, never packed.

    Rows in which nothing is left to take a loss on are dropped.
    """
    training = {**plan.training, "packing": False, "shuffle_dataset": False}
    prepared = prepare_dataset(as_dataset([row.content for row in rows]), tokenizer, training)
    encoded = [
        Encoded(ids, [label != MASKED for label in labels])
        for ids, labels in zip(prepared["input_ids"], prepared["labels"], strict=True)
    ]
    return [row for row in encoded if row.positions]


def questions(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> list[Question]:
    """What rows ask: a chat is cut before its last assistant turn, which is the answer expected.

    Rows without such an answer in words (plain text, or a turn that only calls tools) ask nothing.
    """
    asked = (_question(row, tokenizer) for row in rows if "text" not in row.content)
    return [question for question in asked if question is not None]


def _question(row: Row, tokenizer: PreTrainedTokenizerBase) -> Question | None:
    content = row.content
    if isinstance(content.get("prompt"), str):
        return Question(
            row.number, content["prompt"], list(tokenizer(content["prompt"])["input_ids"]), content["completion"]
        )
    messages = content.get("messages") or content["prompt"] + content["completion"]
    last = max(index for index, message in enumerate(messages) if message["role"] == "assistant")
    turns, answer = messages[:last], messages[last].get("content")
    if not answer:
        return None
    tools = json.loads(content["tools"]) if content.get("tools") else None
    encoded = tokenizer.apply_chat_template(
        turns, tools=tools, add_generation_prompt=True, tokenize=True, return_dict=True
    )
    return Question(row.number, _as_text(turns), list(encoded["input_ids"]), answer)


def _as_text(turns: list[dict[str, Any]]) -> str:
    if len(turns) == 1:
        return str(turns[0]["content"])
    return "\n".join(f"{turn['role']}: {turn.get('content') or ''}" for turn in turns)
