"""The scores and columns of an evaluation, held against the rows before a model is trained or asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..data.asked import asked, asks, few_answers, read_options
from ..data.paths import value_of
from ..data.rows import COLUMNS, Row, without_columns
from ..recipe.evaluation import Evaluation
from ..recipe.rewards import Reward
from ..records import Finding
from ..rules import finding
from .rewards import Rules, call_reward, unusable
from .rows import Rows

SCORES = Rules("evaluation.scores", unmade="E023", fails="E024", column="E025", flat="E026")


def check_scores(settings: Evaluation) -> list[Finding]:
    """E023 and P053 for scores that can't be made, whatever the rows are.

    Raises:
        UsageError: a reward model isn't there.
        EnvironmentLacksError: a package that a score needs isn't installed, or the Hub can't be reached.
    """
    return [found for score in settings.scores if (found := unusable(score, SCORES))]


def check_evaluated(settings: Evaluation, rows: Rows) -> list[Finding]:
    """What of the settings doesn't suit the rows that are held out: E024 to E026, E028, E029, P053."""
    if not rows.compared:
        return []
    return [*call_scores(settings, rows.compared), *check_columns(settings, rows.compared, rows.train)]


def call_scores(settings: Evaluation, rows: Sequence[Row]) -> list[Finding]:
    """E024 to E026 and P053 from calling each score on right and on empty answers to some of the rows.

    Args:
        settings: `check_scores` has nothing against them.
        rows: Held-out rows, prepared, with the columns that the evaluation is to read.
    """
    told = [_told(row) for row in rows if asks(row)]
    return [found for score in settings.scores for found in _call(score, told)]


def _call(score: Reward, told: Sequence[Row]) -> list[Finding]:
    if not told:
        problem = "the held-out rows are plain text, which asks nothing"
        return [finding(SCORES.column, SCORES.where, reward=score.spelt, problem=problem)]
    return call_reward(score, told, SCORES)


def _told(row: Row) -> dict[str, Any]:
    """What a score is told of a row: its columns, the prompt, and the right answer as its `reference`."""
    turns, right = asked(without_columns(row))
    return {**({} if right is None else {"reference": right}), **row.get(COLUMNS, row), "prompt": turns}


def check_columns(settings: Evaluation, rows: Sequence[Row], train: Sequence[Row]) -> Iterator[Finding]:
    """E028 for columns that the evaluation names and no row has, E029 where a task choice has no options.

    Args:
        settings: The evaluation's.
        rows: Held-out rows, prepared, with the columns that it is to read.
        train: Training rows.
    """
    columns = [row.get(COLUMNS, row) for row in rows]
    for name, column in (("group", settings.group), ("choices", settings.choices)):
        if column and all(value_of(one, column) is None for one in columns):
            yield finding("E028", f"evaluation.{name}", column=column)
            return
    if "choice" not in (settings.tasks or ()):
        return
    if settings.choices is None:
        if len(few_answers(train)) < 2:
            yield finding("E029", "evaluation.tasks", problem="the training rows have too many different answers")
    elif not any(_has_right_option(row, settings.choices) for row in rows):
        problem = f"no right answer is among the options in the column {settings.choices}"
        yield finding("E029", "evaluation.choices", problem=problem)


def _has_right_option(row: Row, column: str) -> bool:
    right = (asked(without_columns(row))[1] or "").strip() if asks(row) else ""
    return right in read_options(value_of(row.get(COLUMNS, row), column), right)
