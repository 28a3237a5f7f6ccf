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
    """What a model is asked for one row, and the answer expected, where there is one."""

    row: int
    prompt: str
    ids: list[int]
    expected: str | None


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


def questions(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, **template: Any) -> list[Question]:
    """What rows ask: a chat is cut before its last assistant turn, which is the answer expected.

    Of two answers the chosen one is expected, of marked ones only a desirable one, and where a model is rewarded, the
    reference. Rows of plain text ask nothing. `template` goes to the chat template.
    """
    return [_question(row, tokenizer, template) for row in rows if "prompt" in row.content or "text" not in row.content]


def _question(row: Row, tokenizer: PreTrainedTokenizerBase, template: dict[str, Any]) -> Question:
    content, expected = row.content, _expected(row.content)
    turns = content.get("prompt")
    if isinstance(turns, str):
        return Question(row.number, turns, list(tokenizer(turns)["input_ids"]), expected)
    if turns is None or isinstance(expected, list):
        messages = content.get("messages") or turns + expected
        last = max(index for index, message in enumerate(messages) if message["role"] == "assistant")
        turns, expected = messages[:last], messages[last].get("content") or None
    tools = json.loads(content["tools"]) if content.get("tools") else None
    encoded = tokenizer.apply_chat_template(
        turns, tools=tools, add_generation_prompt=True, tokenize=True, return_dict=True, **template
    )
    return Question(row.number, as_text(turns), list(encoded["input_ids"]), expected)


def _expected(content: dict[str, Any]) -> Any:
    """The right answer in a row, as text or as messages; None where there is none, or several are right."""
    answer = content.get("chosen", content.get("completion", content.get("reference")))
    several = isinstance(answer, list) and not all(isinstance(part, dict) for part in answer)
    return None if several or content.get("label") is False else answer


def as_text(turns: str | list[dict[str, Any]]) -> str:
    """A prompt or an answer as text for people."""
    if isinstance(turns, str):
        return turns
    if len(turns) == 1:
        return str(turns[0]["content"])
    return "\n".join(f"{turn['role']}: {turn.get('content') or ''}" for turn in turns)
