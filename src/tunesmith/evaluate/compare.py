"""Evaluate a run: both models on the same rows, compared metric by metric."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..progress import Progress, silent
from ..recipe.evaluation import Evaluation, Success
from ..records import EvalReport, Finding, Side
from ..rules import finding
from . import findings, leakage, regression
from .arms import Arms, Run, report_folder
from .certainty import on_power
from .conversations import forget_answers
from .families import corrected
from .measures import Given
from .outcome import Measure, Outcome, Suite, first_changes
from .rows import Row, held_out
from .subject import Subject, on_resumed
from .success import conclude
from .suites import suites

Taken = list[list[Any]]
"""What one model gave each measure of each suite."""


def evaluate(
    folder: Path, settings: Evaluation, *, against: Path | None = None, progress: Progress = silent
) -> EvalReport:
    """Compare the model trained in a run folder with its base on the same held-out rows, and save the report there.

    Args:
        folder: The run folder; model/ in it is the tuned model or adapter.
        settings: Which metrics, on how many rows; they may name servers in place of either model.
        against: Another run's folder: its result is then what is compared with. That report, and one of a server in
            place of the tuned model, is kept apart, under evaluation/.
        progress: Told of each batch, for both models and each measure.

    Raises:
        UsageError: no trained model, no held-out rows, or a task that the run's method doesn't have.
        FindingsError: the held-out rows changed since the plan (R003).
        EnvironmentLacksError: a package that is asked for isn't installed, or a server can't be reached.
    """
    began = time.monotonic()
    run = Run.open(folder)
    arms = Arms(run, settings, device(), Run.open(against) if against else None)
    split, rows = held_out(folder, run.plan, settings.rows)
    given = Given(rows, split.path, run.plan, run.tokenizer, settings, arms.device, folder, arms.against)
    asked, found = measurable(suites(given, progress), arms)
    seen = leakage.look(rows, split.path, folder, run.plan.train)
    by_base = _seen_by_base(arms.against, rows, split.path) if arms.against else leakage.Seen()
    found += [*seen.findings, *by_base.findings]

    def measure(subject: Subject) -> Taken:
        return [[one.take(subject, progress) for one in suite.measures] for suite in asked]

    taken = zip(asked, *arms.take(measure), strict=True)
    found += [one for server in arms.served for one in on_resumed(server, server.name)]
    outcomes = [_compared(suite, base, tuned, seen.rows | by_base.rows) for suite, base, tuned in taken]
    base, tuned = arms.sides
    report = EvalReport(rows=len(rows), split=split.path, comparisons=[], seconds=0, base=base, tuned=tuned)
    report = report.model_copy(update={"leakage": seen.record, "base_leakage": by_base.record})
    report = _filled(report, run.plan.method, asked, outcomes)
    report = conclude(_judged(_corrected(report, settings.success), found, settings.success), settings)
    report = report.model_copy(update={"seconds": time.monotonic() - began})
    report.save(report_folder(folder, settings, against))
    arms.forget()
    forget_answers(folder)
    return report


def _seen_by_base(other: Run, rows: Sequence[Row], split: str) -> leakage.Seen:
    """What the run that is compared with was trained on of the rows: E056 where it was, E049 where nobody can tell."""
    seen, name = leakage.look(rows, split, other.folder, other.plan.train), other.folder.name
    if seen.record is None:
        return replace(seen, findings=[finding("E049", split, path=f"{name}/{other.plan.train.path}")])
    told = [finding("E056", split, count=len(seen.rows), total=len(rows), run=name)] if seen.rows else []
    return replace(seen, findings=told)


def measurable(asked: Sequence[Suite], arms: Arms) -> tuple[list[Suite], list[Finding]]:
    """The suites with what can be measured of both models, and E053 for what can't."""

    def reason(measure: Measure) -> str:
        if measure.needs_model and arms.remote:
            return "a server doesn't tell how likely it finds a text"
        if measure.needs_model and not arms.same_tokens and not getattr(measure, "any_tokenizer", False):
            return "the models cut texts into different tokens"
        return ""

    found = []
    for suite in asked:
        reasons = [why for measure in suite.measures if (why := reason(measure))]
        if reasons:
            found.append(finding("E053", suite.name, count=len(reasons), suite=suite.name, reason=reasons[0]))
    kept = [replace(suite, measures=[one for one in suite.measures if not reason(one)]) for suite in asked]
    return kept, found


def _compared(suite: Suite, base: list[Any], tuned: list[Any], seen: Collection[int]) -> list[Outcome]:
    """What the measures of a suite say; their comparisons bear its name."""
    outcomes = []
    for measure, *taken in zip(suite.measures, base, tuned, strict=True):
        outcome = measure.compare(*taken).of(suite.name)
        outcomes.append(leakage.beside(outcome, measure, (taken[0], taken[1]), seen))
    return outcomes


def _filled(
    report: EvalReport, method: str, asked: Sequence[Suite], outcomes: Sequence[Sequence[Outcome]]
) -> EvalReport:
    """The report with what the measures say."""
    every = [outcome for of_suite in outcomes for outcome in of_suite]
    comparisons = [comparison for outcome in every for comparison in outcome.comparisons]
    task = asked[0]
    own = [comparison for comparison in comparisons if comparison.suite == "task"]
    primary = findings.primary(method, own, task.answer_tokens, task.named)
    judged = sorted(outcomes[0], key=lambda one: primary not in {comparison.metric for comparison in one.comparisons})
    changed = next((outcome.changed for outcome in judged if outcome.changed), [])
    found = [one for outcome in every for one in outcome.findings]
    return report.model_copy(
        update={
            "comparisons": comparisons,
            "primary": primary,
            "fixed": sum(row.change == "fixed" for row in changed),
            "broken": sum(row.change == "broken" for row in changed),
            "changed": first_changes(changed),
            "judging": next((outcome.judging for outcome in every if outcome.judging), None),
            "versions": {name: version for outcome in every for name, version in outcome.versions.items()},
            "max_new_tokens": task.max_new_tokens,
            "findings": [*found, *(one for suite in asked for one in suite.findings)],
            **_looking(report, outcomes[0]),
        }
    )


def _corrected(report: EvalReport, success: Success | None) -> EvalReport:
    """The report with Holm's correction of all metrics but those that a verdict rests on."""
    named = success.metric if success else None
    leads = {
        (one.suite, one.metric)
        for one in report.comparisons
        if one.suite == "conversations" or one.metric == named or (one.suite, one.metric) == ("task", report.primary)
    }
    return report.model_copy(update={"comparisons": corrected(report.comparisons, leads)})


def _judged(report: EvalReport, found: Sequence[Finding], success: Success | None) -> EvalReport:
    """The report with the verdict on its comparisons, and with what was found before anything was measured."""
    missed = on_power(report.judged, success.improvement if success else 0.0, report.split)
    verdicts = [*findings.judge(report, missed=bool(missed)), *missed, *findings.silent(report)]
    verdicts += [*regression.verdict(report.comparisons), *leakage.verdict(report)]
    return report.model_copy(update={"findings": [*report.findings, *verdicts, *found]})


def _looking(report: EvalReport, outcomes: Sequence[Outcome]) -> dict[str, Side]:
    """Both sides with how their answers look, where answers were taken."""
    sides = next((outcome.sides for outcome in outcomes if outcome.sides), None)
    if sides is None or report.base is None or report.tuned is None:
        return {}
    pairs = {"base": (report.base, sides[0]), "tuned": (report.tuned, sides[1])}
    return {name: side.model_copy(update=vars(looks)) for name, (side, looks) in pairs.items()}


def device() -> str:
    """Where models are evaluated."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
