"""Held-out rows: as token ids that the loss is taken on, and as questions to a model."""

from __future__ import annotations

import json
import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.asked import asked, asks
from ..data.paths import value_of
from ..data.rows import COLUMNS, without_columns
from ..data.shape import as_text as in_words
from ..data.trl_preparation import as_dataset, prepare_dataset
from ..errors import UsageError
from ..files import sha256
from ..recipe.evaluation import Evaluation
from ..records import Plan, Split
from ..rules import finding, refuse_errors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEFAULT_ROWS = 500
MASKED = -100
"""Label of a token that no loss is taken on, in TRL and Transformers."""


@dataclass(frozen=True)
class Row:
    """A prepared row, and its number in its file, counted from 1.

    Attributes:
        columns: What the raw row says besides, as far as the run keeps it; of methods that reward answers, all.
    """

    number: int
    content: dict[str, Any]
    columns: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, number: int, line: str) -> Row:
        """The row of a line of JSON."""
        whole = json.loads(line)
        return cls(number, without_columns(whole), whole.get(COLUMNS, whole))


@dataclass(frozen=True)
class Available:
    """What an evaluation rests on.

    Attributes:
        held_out: Rows that the run holds out.
        compared: Those of them that models are compared on.
        groups: How many groups these belong to, where the recipe says by what.
    """

    held_out: int
    compared: int
    groups: int | None = None


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
    """What a model is asked for one row, and the answer expected, where there is one.

    Attributes:
        row: Its number in its file, from 1; answers that are drawn at random are drawn anew for each number.
        prompt: The question as text for people.
        expected: The right answer.
        turns: The question as the row has it: text, or messages.
        tools: What the model may call, as JSON Schema.
        template: What the chat template is told besides.
    """

    row: int
    prompt: str
    expected: str | None
    turns: str | list[dict[str, Any]]
    tools: list[Any] | None = None
    template: dict[str, Any] = field(default_factory=dict)


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
        rows = [Row.read(number, line) for number, line in enumerate(file, start=1)]
    limit = limit or DEFAULT_ROWS
    if len(rows) > limit:
        rows = sorted(random.Random(0).sample(rows, limit), key=lambda row: row.number)
    return split, rows


def named_groups(rows: Sequence[Row], column: str) -> list[str | None]:
    """Per row, what it says that it belongs to, if it says so."""
    values = [value_of(row.columns, column) for row in rows]
    return [None if value is None else in_words(value) for value in values]


def groups_of(rows: Sequence[Row], column: str | None) -> dict[int, Hashable]:
    """By row, what it belongs to; empty where rows don't belong together. A row without a group is its own."""
    if column is None:
        return {}
    named = zip(rows, named_groups(rows, column), strict=True)
    return {row.number: f"row {row.number}" if group is None else group for row, group in named}


def available(folder: Path, plan: Plan, settings: Evaluation) -> Available:
    """How many rows, and groups of rows, an evaluation has to compare on.

    Raises:
        FindingsError: the file isn't the one that was planned (R003).
    """
    split = plan.test or plan.eval
    if split is None or split.rows == 0:
        return Available(0, 0)
    _, rows = held_out(folder, plan, settings.rows)
    groups = len({*groups_of(rows, settings.group).values()}) if settings.group else None
    return Available(split.rows, len(rows), groups)


def encode(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, plan: Plan, **changes: Any) -> dict[int, Encoded]:
    """Rows by their numbers, as the trainer itself prepares them under the plan: masked and cut, never packed.

    Rows in which nothing is left to take a loss on are dropped. `changes` are other arguments of the trainer.
    """
    training = {**plan.training, "packing": False, "shuffle_dataset": False, **changes}
    numbered = as_dataset([row.content for row in rows]).add_column("row", [row.number for row in rows])
    prepared = prepare_dataset(numbered, tokenizer, training)
    columns = (prepared[name] for name in ("row", "input_ids", "labels"))
    encoded = {
        number: Encoded(ids, [label != MASKED for label in labels])
        for number, ids, labels in zip(*columns, strict=True)
    }
    return {number: row for number, row in encoded.items() if row.positions}


def questions(rows: Sequence[Row], **template: Any) -> list[Question]:
    """What rows ask, but for those of plain text; `template` goes to the chat template."""
    return [_question(row, template) for row in rows if asks(row.content)]


def encode_question(question: Question, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The token ids of a question as the tokenizer and its chat template have it, up to where an answer begins."""
    if isinstance(question.turns, str):
        return list(tokenizer(question.turns)["input_ids"])
    encoded = tokenizer.apply_chat_template(
        question.turns,
        tools=question.tools,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        **question.template,
    )
    return list(encoded["input_ids"])


def _question(row: Row, template: dict[str, Any]) -> Question:
    turns, expected = asked(row.content)
    if isinstance(turns, str):
        return Question(row.number, turns, expected, turns)
    tools = json.loads(row.content["tools"]) if row.content.get("tools") else None
    return Question(row.number, as_text(turns), expected, turns, tools, template)


def as_text(turns: str | list[dict[str, Any]]) -> str:
    """A prompt or an answer as text for people."""
    if isinstance(turns, str):
        return turns
    if len(turns) == 1:
        return str(turns[0]["content"])
    return "\n".join(f"{turn['role']}: {turn.get('content') or ''}" for turn in turns)
