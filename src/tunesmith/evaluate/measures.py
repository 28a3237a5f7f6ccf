"""Which measures a run gets: its method's, or those that the recipe asks for, each with the rows that it can use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..data.trl_preparation import arguments
from ..errors import UsageError
from ..models.generate import pad_id
from ..recipe.schema import TASKS, Evaluation
from ..records import Finding, Plan
from ..rules import finding
from .answers import Answers, Asked, Weighted
from .findings import LONG_ANSWER, left_out
from .likelihood import Likelihood
from .outcome import Measure
from .pairs import encode_marked, encode_pairs
from .preferences import Margin, Preference, Scored
from .rewarded import rewards_of
from .rows import Row, encode, questions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_OPEN = 32


@dataclass(frozen=True)
class Given:
    """The held-out rows, and what they are put to a model with."""

    rows: Sequence[Row]
    split: str
    plan: Plan
    tokenizer: PreTrainedTokenizerBase
    settings: Evaluation
    device: str


@dataclass(frozen=True)
class Prepared:
    """What is measured, and what is known to be wrong with the rows before any model is loaded."""

    measures: list[Measure] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    answers: Answers | None = None

    @property
    def answer_tokens(self) -> float:
        """Mean length of the expected answers."""
        return self.answers.answer_tokens if self.answers else 0.0


def prepare(given: Given) -> Prepared:
    """The measures of the run's method, or of the tasks that the settings ask for.

    Raises:
        UsageError: the method doesn't have such a task.
        UsageError, EnvironmentLacksError, FindingsError: a reward can't be loaded.
    """
    tasks = _tasks(given.plan.method, given.settings)
    measures: list[Measure] = []
    found: list[Finding] = []
    for task, build in (("loss", _likelihood), ("preference", _preference), ("margin", _margin)):
        if task in tasks:
            measure, left = build(given)
            measures += [measure] if measure else []
            found += left_out(given.split, left, len(given.rows), given.plan.training.get("max_length"))
    rewards = rewards_of(given.plan, given.device) if "reward" in tasks else []
    answers = _answers(given, rewards, match="exact_match" in tasks)
    if "exact_match" in tasks and not (answers and answers.match):
        found.append(finding("E005", given.split, layout=given.plan.layout))
    return Prepared([*measures, *([answers] if answers else [])], found, answers)


def _tasks(method: str, settings: Evaluation) -> Sequence[str]:
    """The tasks asked for; without any, those that the method has by default."""
    known = TASKS[method]
    if settings.tasks is None:
        return known.default
    if strange := [task for task in settings.tasks if task not in known.possible]:
        raise UsageError(
            f"A run of method {method} can't be evaluated by {strange[0]}.",
            why=f"Its rows and its model allow {', '.join(known.possible)}.",
            fix=f"Set `evaluation: {{tasks: [{', '.join(known.default)}]}}`, or leave it out.",
        )
    return settings.tasks


def _likelihood(given: Given) -> tuple[Measure | None, int]:
    """The measure, if there is something to measure, and how many rows it leaves out."""
    rows = encode(given.rows, given.tokenizer, given.plan)
    measure = Likelihood(rows, given.settings.batch_size, given.split)
    return measure if rows else None, len(given.rows) - len(rows)


def _preference(given: Given) -> tuple[Measure | None, int]:
    pairs = encode_pairs(given.rows, given.tokenizer, given.plan)
    measure: Measure
    if given.plan.method == "reward":
        pad = pad_id(given.tokenizer, [given.tokenizer.eos_token_id])
        measure = Scored(pairs, pad, given.settings.batch_size, given.split)
    else:
        losses = arguments(given.plan.training, "dpo").loss_type
        measure = Preference(pairs, _beta(given.plan), given.settings.batch_size, given.split, losses)
    return measure if pairs else None, len(given.rows) - len(pairs)


def _margin(given: Given) -> tuple[Measure | None, int]:
    answers = encode_marked(given.rows, given.tokenizer, given.plan)
    measure = Margin(answers, _beta(given.plan), given.settings.batch_size, given.split)
    there = sum(2 if "chosen" in row.content else 1 for row in given.rows)
    return measure if answers else None, there - len(answers)


def _beta(plan: Plan) -> float:
    """How strongly the trainer holds the model to its reference."""
    return float(arguments(plan.training, plan.method).beta)


def _answers(given: Given, rewards: Sequence[Weighted], *, match: bool) -> Answers | None:
    """Questions for exact match where rows have answers, or for all rows where answers are rewarded."""
    if not (match or rewards):
        return None
    template = given.plan.training.get("chat_template_kwargs") or {}
    contents = {row.number: row for row in given.rows}
    asked = [Asked(one, contents[one.row]) for one in questions(given.rows, given.tokenizer, **template)]
    expecting = [one for one in asked if one.question.expected is not None]
    match = match and (len(expecting) == len(asked) if rewards else bool(expecting))
    asked = asked if rewards else expecting
    if not asked:
        return None
    lengths = [_tokens(one.question.expected, given.tokenizer) for one in asked if match]
    average = sum(lengths) / len(lengths) if lengths else 0.0
    if average > LONG_ANSWER and not rewards:
        # Open answers are hardly ever right word for word: a few tell that, and whether the model stops.
        asked, lengths = asked[:MOST_OPEN], lengths[:MOST_OPEN]
    trained_with = given.plan.training.get("max_completion_length")
    room = trained_with or math.ceil(1.25 * max(lengths, default=0)) + 8
    return Answers(
        asked=asked,
        tokenizer=given.tokenizer,
        max_new_tokens=given.settings.max_new_tokens or room,
        batch_size=given.settings.batch_size,
        split=given.split,
        match=match,
        rewards=rewards,
        answer_tokens=average,
    )


def _tokens(text: str | None, tokenizer: PreTrainedTokenizerBase) -> int:
    return len(tokenizer(text or "", add_special_tokens=False)["input_ids"])
