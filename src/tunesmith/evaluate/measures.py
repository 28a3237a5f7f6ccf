"""Which measures a run gets: its method's, or those that the recipe asks for, each with the rows that it can use."""

from __future__ import annotations

import math
import random
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.rows import COLUMNS
from ..data.trl_preparation import arguments
from ..errors import UsageError
from ..models.generate import pad_id
from ..plan.scores import call_scores, check_scores
from ..recipe.evaluation import TASKS, Evaluation
from ..records import Finding, Plan
from ..rules import FindingsError, finding, refuse_errors
from .answers import Answers, Asked
from .arms import Run, same_tokens
from .certainty import on_groups
from .choices import Choices, choices
from .findings import LONG_ANSWER, left_out
from .likelihood import Likelihood, encode_for
from .outcome import Measure
from .pairs import encode_marked, encode_pairs
from .preferences import Margin, Preference, Scored
from .rewarded import Weighted, rewards_of, scores_of
from .rows import Row, groups_of, named_groups, questions
from .scores import Score

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_OPEN = 32
UNKNOWN_LENGTH = 256
"""Tokens after which answers are cut where no row says how long they are."""
BYTES_PER_TOKEN = 2
"""Of a server's tokenizer, which isn't known: most texts have three or four, so that answers aren't cut too early."""


@dataclass(frozen=True)
class Given:
    """The held-out rows, and what they are put to a model with; measures may keep files in `folder`, the run's.

    `against` is the run whose result stands in for the base, if there is one.
    """

    rows: Sequence[Row]
    split: str
    plan: Plan
    tokenizer: PreTrainedTokenizerBase
    settings: Evaluation
    device: str
    folder: Path = field(default_factory=Path)
    against: Run | None = None

    @property
    def same_tokens(self) -> bool:
        """Whether both models cut a text into the same tokens."""
        return self.against is None or same_tokens(self.tokenizer, self.against.tokenizer)

    @property
    def groups(self) -> dict[int, Hashable]:
        """See `groups_of`."""
        return groups_of(self.rows, self.settings.group)


@dataclass(frozen=True)
class Prepared:
    """What is measured, what is known to be wrong with the rows before any model is loaded, and metrics asked for."""

    measures: list[Measure] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    answers: Answers | None = None
    named: Sequence[str] = ()

    @property
    def answer_tokens(self) -> float:
        """Mean length of the expected answers."""
        return self.answers.answer_tokens if self.answers else 0.0


def prepare(given: Given) -> Prepared:
    """The measures of the run's method, or of the tasks that the settings ask for.

    Raises:
        UsageError: the method doesn't have such a task.
        UsageError, EnvironmentLacksError, FindingsError: a reward or a score can't be used.
    """
    tasks = _tasks(given.plan.method, given.settings)
    measures: list[Measure] = []
    column = given.settings.group
    found = on_groups(named_groups(given.rows, column), column, given.split) if column else []
    for task, build in (("loss", _likelihood), ("preference", _preference), ("margin", _margin)):
        if task in tasks:
            measure, left = build(given)
            measures += [measure] if measure else []
            found += left_out(given.split, left, len(given.rows), f"max_length {given.plan.training.get('max_length')}")
    if "choice" in tasks:
        choice, notes = _choices(given)
        measures, found = [*measures, choice], [*found, *notes]
    rewards = rewards_of(given.plan, given.device) if "reward" in tasks else []
    scores, tried = _scores(given)
    # A score of that name takes its place: it is the same, with the user's own arguments.
    match = "exact_match" in tasks and all(score.name != "exact_match" for score in scores)
    answers = _answers(given, rewards, scores, match=match)
    if match and not (answers and answers.match):
        found.append(finding("E005", given.split, layout=given.plan.layout))
    named = [*(["choice_accuracy"] if "choice" in tasks else []), *(score.name for score in scores)]
    return Prepared([*measures, *([answers] if answers else [])], [*found, *tried], answers, named)


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
    whole = not given.same_tokens
    rows = encode_for(given.rows, given.tokenizer, given.plan, whole=whole)
    measure = Likelihood(
        given.rows, rows, given.tokenizer, given.plan, given.settings.batch_size, given.split, given.groups, whole
    )
    return measure if rows else None, len(given.rows) - len(rows)


def _preference(given: Given) -> tuple[Measure | None, int]:
    pairs = encode_pairs(given.rows, given.tokenizer, given.plan)
    measure: Measure
    if given.plan.method == "reward":
        pad = pad_id(given.tokenizer, [given.tokenizer.eos_token_id])
        measure = Scored(pairs, pad, given.settings.batch_size, given.split, given.groups)
    else:
        losses = arguments(given.plan.training, "dpo").loss_type
        measure = Preference(
            pairs,
            _beta(given.plan),
            given.settings.batch_size,
            given.split,
            losses,
            given.groups,
            rewarded=given.against is None,
        )
    return measure if pairs else None, len(given.rows) - len(pairs)


def _margin(given: Given) -> tuple[Measure | None, int]:
    answers = encode_marked(given.rows, given.tokenizer, given.plan)
    own_base = given.against is None
    measure = Margin(answers, _beta(given.plan), given.settings.batch_size, given.split, given.groups, own_base)
    there = sum(2 if "chosen" in row.content else 1 for row in given.rows)
    return measure if answers else None, there - len(answers)


def _beta(plan: Plan) -> float:
    """How strongly the trainer holds the model to its reference."""
    return float(arguments(plan.training, plan.method).beta)


def _choices(given: Given) -> tuple[Measure, list[Finding]]:
    """The questions with options, and E030 for rows that have none.

    Raises:
        FindingsError: E029, no row has any.
    """
    column = given.settings.choices
    found = choices(given.rows, column, given.plan, given.folder)
    if not found:
        problem = f"no row has its right answer among those in {column or 'the training rows'}"
        raise FindingsError([finding("E029", given.split, problem=problem)])
    left = len(given.rows) - len(found)
    notes = [finding("E030", given.split, count=left, total=len(given.rows))] if left else []
    return Choices(found, given.plan, given.settings.batch_size, given.split, given.groups), notes


def _scores(given: Given) -> tuple[list[Score], list[Finding]]:
    """The scores, tried on some of the rows, and what is known to be wrong with them.

    Raises:
        UsageError, EnvironmentLacksError, FindingsError: one can't be used.
    """
    refuse_errors(check_scores(given.settings))
    found = call_scores(given.settings, [{**row.content, COLUMNS: row.columns} for row in given.rows])
    refuse_errors(found)
    return scores_of(given.settings.scores, given.device), found


def _answers(given: Given, rewards: Sequence[Weighted], scores: Sequence[Score], *, match: bool) -> Answers | None:
    """Questions for exact match where rows have answers, or for all rows where answers are rewarded or scored."""
    worth = [*rewards, *scores]
    if not (match or worth):
        return None
    template = given.plan.training.get("chat_template_kwargs") or {}
    contents = {row.number: row for row in given.rows}
    asked = [Asked(one, contents[one.row]) for one in questions(given.rows, **template)]
    expecting = [one for one in asked if one.question.expected is not None]
    match = match and (len(expecting) == len(asked) if worth else bool(expecting))
    asked = asked if worth else expecting
    if not asked:
        return None
    lengths = [_tokens(one.question.expected, given.tokenizer) for one in expecting]
    average = sum(lengths) / len(lengths) if lengths else 0.0
    if average > LONG_ANSWER and not worth:
        # Open answers are hardly ever right word for word: a few tell that, and whether the model stops.
        sample = random.Random(0).sample(asked, min(MOST_OPEN, len(asked)))
        asked = expecting = sorted(sample, key=lambda one: one.row.number)
    return Answers(
        asked=asked,
        max_new_tokens=given.settings.max_new_tokens or _room(given, [one.question.expected for one in expecting]),
        split=given.split,
        match=match,
        rewards=rewards,
        scores=scores,
        answer_tokens=average,
        groups=given.groups,
        taught=("base", "tuned") if given.against else ("tuned",),
    )


def _room(given: Given, expected: Sequence[str | None]) -> int:
    """Tokens after which answers are cut: as in training, or a quarter more than the longest expected one has.

    Models whose tokenizers differ get what that needs which cuts the answers into more tokens.
    """
    arms = [(given.plan, given.tokenizer), *([(given.against.plan, given.against.tokenizer)] if given.against else [])]
    rooms = [
        plan.training.get("max_completion_length") or _longer(_tokens(text, tokenizer) for text in expected)
        for plan, tokenizer in arms
    ]
    if given.settings.endpoint or given.settings.base_endpoint:
        rooms.append(_longer(len((text or "").encode()) // BYTES_PER_TOKEN for text in expected))
    return max(rooms) or UNKNOWN_LENGTH


def _longer(lengths: Iterable[int]) -> int:
    """Room for answers of such lengths; 0 where there are none."""
    longest = max(lengths, default=None)
    return 0 if longest is None else math.ceil(1.25 * longest) + 8


def _tokens(text: str | None, tokenizer: PreTrainedTokenizerBase) -> int:
    return len(tokenizer(text or "", add_special_tokens=False)["input_ids"])
