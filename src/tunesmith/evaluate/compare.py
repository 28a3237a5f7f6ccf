"""Evaluate a run: both models on the same rows, compared metric by metric."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from ..data.quality.private import without_secrets
from ..errors import UsageError
from ..models.load import is_adapter, load_base, load_tokenizer, load_tuned
from ..progress import Progress, silent
from ..recipe.schema import Evaluation
from ..records import ChangedRow, Comparison, EvalReport, Plan
from . import findings
from .measure import Answer, greedy_answers, row_losses
from .rows import Encoded, Question, Row, encode, held_out, questions
from .statistics import Paired, loss_interval, mcnemar, newcombe, sign_flip

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Arm = Literal["base", "tuned"]
Result = TypeVar("Result")

MOST_OPEN = 32
MOST_PERPLEXITY = 1e6
"""Perplexity above which a model knows nothing of the rows, and a difference of perplexities tells nothing."""
KEPT_CHANGES = 20
KEPT_CHARACTERS = 500


@dataclass(frozen=True)
class Work:
    """The rows as each metric needs them, and how to put them to a model."""

    tokenizer: PreTrainedTokenizerBase
    batch_size: int
    encoded: list[Encoded]
    questions: list[Question]
    max_new_tokens: int
    answer_tokens: float


@dataclass(frozen=True)
class Measured:
    """What one model did: nats per row of `Work.encoded`, an answer per question."""

    losses: list[float]
    answers: list[Answer]

    @property
    def stop_rate(self) -> float | None:
        """Share of answers that ended by themselves."""
        return sum(answer.stopped for answer in self.answers) / len(self.answers) if self.answers else None


def evaluate(folder: Path, settings: Evaluation, *, progress: Progress = silent) -> EvalReport:
    """Compare the model trained in a run folder with its base on the same held-out rows, and save the report there.

    Args:
        folder: The run folder; model/ in it is the tuned model or adapter.
        settings: Which metrics, on how many rows.
        progress: Told of each batch, for both models and both metrics.

    Raises:
        UsageError: no trained model, or no held-out rows.
        FindingsError: the held-out rows changed since the plan (R003).
    """
    began = time.monotonic()
    plan = Plan.load(folder)
    result = _result(folder)
    split, rows = held_out(folder, plan, settings.rows)
    work = _prepare(rows, load_tokenizer(result), plan, settings)

    def measure(arm: Arm, model: PreTrainedModel) -> Measured:
        return _measure(arm, model, work, progress)

    base, tuned = _both(plan, result, measure)
    comparisons = [*_compare_loss(base, tuned, work), *_compare_answers(base, tuned, work)]
    changed = _changed(base, tuned, work)
    report = EvalReport(
        rows=len(rows),
        split=split.path,
        comparisons=comparisons,
        primary=findings.primary(comparisons, work.answer_tokens),
        fixed=sum(row.change == "fixed" for row in changed),
        broken=sum(row.change == "broken" for row in changed),
        changed=[row for kind in ("fixed", "broken") for row in _first(changed, kind)],
        stop_rate_base=base.stop_rate,
        stop_rate_tuned=tuned.stop_rate,
        max_new_tokens=work.max_new_tokens if work.questions else None,
        seconds=time.monotonic() - began,
    )
    nan_rows = {"base": _not_numbers(base.losses), "tuned": _not_numbers(tuned.losses)}
    found = findings.judge(report, plan.layout, settings.tasks, work.answer_tokens, nan_rows)
    report = report.model_copy(update={"findings": found})
    report.save(folder)
    return report


def _result(folder: Path) -> Path:
    result = folder / "model"
    if not result.is_dir():
        raise UsageError(
            f"{folder} has no trained model.",
            why="Its training hasn't ended, so there is nothing to compare with the base model.",
            fix=f"Finish it first: `tunesmith resume {folder}`.",
        )
    return result


def _prepare(rows: list[Row], tokenizer: PreTrainedTokenizerBase, plan: Plan, settings: Evaluation) -> Work:
    asked = questions(rows, tokenizer) if "exact_match" in settings.tasks else []
    lengths = [len(tokenizer(question.expected, add_special_tokens=False)["input_ids"]) for question in asked]
    average = sum(lengths) / len(lengths) if lengths else 0.0
    if average > findings.LONG_ANSWER:
        # Open answers are hardly ever right word for word: a few tell that, and whether the model stops.
        asked, lengths = asked[:MOST_OPEN], lengths[:MOST_OPEN]
    return Work(
        tokenizer=tokenizer,
        batch_size=settings.batch_size,
        encoded=encode(rows, tokenizer, plan) if "loss" in settings.tasks else [],
        questions=asked,
        max_new_tokens=settings.max_new_tokens or math.ceil(1.25 * max(lengths, default=0)) + 8,
        answer_tokens=average,
    )


def _both(plan: Plan, result: Path, measure: Callable[[Arm, PreTrainedModel], Result]) -> tuple[Result, Result]:
    """Measure base and tuned; an adapter needs one load, whole models are in memory one after the other.

    Both libraries load models in evaluation mode, without dropout.
    """
    device = _device()
    if is_adapter(result):
        model = load_tuned(plan.model, result, **plan.model_kwargs).to(device)
        with model.disable_adapter():
            base = measure("base", model)
        return base, measure("tuned", model)
    base = measure("base", load_base(plan.model, **plan.model_kwargs).to(device))
    return base, measure("tuned", load_tuned(plan.model, result, **plan.model_kwargs).to(device))


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _measure(arm: Arm, model: PreTrainedModel, work: Work, progress: Progress) -> Measured:
    return Measured(
        losses=row_losses(
            model, work.encoded, batch_size=work.batch_size, label=f"{arm}: held-out loss", progress=progress
        ),
        answers=greedy_answers(
            model,
            work.tokenizer,
            work.questions,
            max_new_tokens=work.max_new_tokens,
            batch_size=work.batch_size,
            label=f"{arm}: answers",
            progress=progress,
        ),
    )


def _not_numbers(losses: list[float]) -> int:
    return sum(not math.isfinite(loss) for loss in losses)


def _compare_loss(base: Measured, tuned: Measured, work: Work) -> list[Comparison]:
    """Loss in nats per trained token, and perplexity, its exponential, unless huge; nothing if a loss is no number."""
    tokens = [len(row.positions) for row in work.encoded]
    if not tokens or _not_numbers(base.losses) or _not_numbers(tuned.losses):
        return []
    losses = (sum(base.losses) / sum(tokens), sum(tuned.losses) / sum(tokens))
    # Equal losses are equal perplexities: one test serves both.
    p_value = sign_flip(base.losses, tuned.losses)
    comparisons = [_lower_is_better("loss", losses, base, tuned, tokens, p_value)]
    # A row's loss bounds any resample's: exp of it must be a finite float.
    highest = max(loss / count for one in (base, tuned) for loss, count in zip(one.losses, tokens, strict=True))
    if max(losses) <= math.log(MOST_PERPLEXITY) and highest < 700:
        comparisons.append(_lower_is_better("perplexity", losses, base, tuned, tokens, p_value))
    return comparisons


def _lower_is_better(
    metric: Literal["loss", "perplexity"],
    losses: tuple[float, float],
    base: Measured,
    tuned: Measured,
    tokens: list[int],
    p_value: float,
) -> Comparison:
    before, after = losses if metric == "loss" else (math.exp(losses[0]), math.exp(losses[1]))
    return Comparison(
        metric=metric,
        better="lower",
        rows=len(tokens),
        base=before,
        tuned=after,
        difference=after - before,
        interval=loss_interval(base.losses, tuned.losses, tokens, perplexity=metric == "perplexity"),
        p_value=p_value,
        test="paired sign-flip permutation of rows, two-sided",
        significant=p_value < 0.05,
    )


def _right(measured: Measured, work: Work) -> list[bool]:
    return [
        answer.text == question.expected.strip()
        for answer, question in zip(measured.answers, work.questions, strict=True)
    ]


def _compare_answers(base: Measured, tuned: Measured, work: Work) -> list[Comparison]:
    if not work.questions:
        return []
    table = Paired.of(_right(base, work), _right(tuned, work))
    p_value = mcnemar(table)
    return [
        Comparison(
            metric="exact_match",
            better="higher",
            rows=table.rows,
            base=table.base,
            tuned=table.tuned,
            difference=table.tuned - table.base,
            interval=newcombe(table),
            p_value=p_value,
            test="McNemar, exact, two-sided",
            significant=p_value < 0.05,
        )
    ]


def _changed(base: Measured, tuned: Measured, work: Work) -> list[ChangedRow]:
    rows = zip(work.questions, base.answers, tuned.answers, _right(base, work), _right(tuned, work), strict=True)
    return [
        ChangedRow(
            row=question.row,
            prompt=shortened(without_secrets(question.prompt)),
            expected=shortened(without_secrets(question.expected)),
            base=shortened(without_secrets(before.text)),
            tuned=shortened(without_secrets(after.text)),
            change="fixed" if after_right else "broken",
        )
        for question, before, after, before_right, after_right in rows
        if before_right != after_right
    ]


def _first(changed: list[ChangedRow], kind: str) -> list[ChangedRow]:
    return [row for row in changed if row.change == kind][:KEPT_CHANGES]


def shortened(text: str) -> str:
    """Text of a changed row, cut so that a report of many stays readable."""
    return text if len(text) <= KEPT_CHARACTERS else text[: KEPT_CHARACTERS - 1] + "…"
