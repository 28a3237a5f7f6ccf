"""The report a person reads: one self-contained HTML file, without scripts and without anything from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup

from ..records import ChangedRow, Comparison, EvalReport, Receipt, RunRecord, SuiteName, units
from ..words import counted
from . import chart, headline, text

if TYPE_CHECKING:
    from jinja2 import Environment

_OWN_SCALE: Final = "Each line has a scale of its own; right of 0 tuned is better."
_NOTES: Final[dict[SuiteName, str]] = {
    "regression": "The dashed tick is the loss that is accepted: kept is what loses less.",
    "conversations": "Grades from 0 to 1; personas are resampled as one.",
}
"""How to read the table of a suite, besides."""
_TONES: Final = {"better": "good", "kept": "good", "worse": "bad", "unclear": "unsure"}


def render(receipt: Receipt) -> str:
    """The receipt as an HTML page.

    All text of records is escaped, and characters that hide or reorder text are spelt out.
    """
    verdicts = (headline.outcome, headline.labels, headline.training, headline.export)
    return (
        environment()
        .get_template("report.html.jinja")
        .render(
            receipt=receipt,
            lines=[verdict(receipt) for verdict in verdicts],
            source=PurePath(receipt.data.source).name,
            primary=receipt.evaluation.judged if receipt.evaluation else None,
            audit=headline.audit(receipt),
            curve=chart.learning_curve(receipt.curve),
            adapter=receipt.plan.trained,
            actuals=_actuals(receipt),
            changed=_changed(receipt.evaluation) if receipt.evaluation else [],
            recipe=_yaml(receipt.recipe),
        )
    )


def render_evaluation(report: EvalReport) -> str:
    """An evaluation as an HTML page of its own, escaped in the same way."""
    sides = {
        "base": units.name(report.base) if report.base else "base",
        "tuned": units.name(report.tuned) if report.tuned else "tuned",
    }
    page = environment().get_template("comparison.html.jinja")
    return page.render(
        evaluation=report,
        line=headline.compared(report),
        judged=report.judged,
        changed=_changed(report),
        **sides,
    )


def environment() -> Environment:
    """Where the pages' templates are found, with their filters; everything that they put out is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("tunesmith.receipt"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters |= {
        "change": units.change,
        "count": text.count,
        "counted": counted,
        "duration": text.duration,
        "interval": units.interval,
        "judged_p": units.judged_p,
        "leaked": units.leaked,
        "metric": units.metric,
        "model": units.name,
        "moment": text.moment,
        "newlines": text.newlines,
        "number": units.number,
        "outcome": units.outcome,
        "p_value": units.p_value,
        "percent": units.percent,
        "plain": text.plain,
        "shorten": text.shorten,
        "size": text.size,
        "unit": units.unit,
    }
    environment.globals |= {
        "arms": units.arms,
        "changes": units.changes,
        "interval_bar": chart.interval_bar,
        "loss_on": headline.loss_on,
        "score": units.score,
        "suite_note": _suite_note,
        "suites": units.SUITES,
        "tones": _TONES,
        "versus": units.versus,
    }
    return environment


def _suite_note(suite: SuiteName, comparisons: Sequence[Comparison]) -> str:
    """How to read the table of a suite."""
    notes = (_OWN_SCALE, _NOTES.get(suite, ""), units.correction(comparisons), units.could_show(comparisons))
    return " ".join(filter(None, notes))


def _finalize(value: Any) -> Any:
    """Applied to every value that the template puts out, before it is escaped; Markup is what this package made."""
    return text.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _actuals(receipt: Receipt) -> list[tuple[str, str, str, str]]:
    """Rows of plan against actual: what, planned, actual, remark."""
    plan, run = receipt.plan, receipt.run
    speed = f"{run.tokens / run.seconds:,.0f} tokens a second" if run.tokens and run.seconds else ""
    resumed = [f"resumed from step {', '.join(map(str, run.resumed_from))}"] if run.resumed_from else []
    resumed += [f"went back from step {back.step} to {back.to} for {back.code}" for back in run.rollbacks]
    # Of pairs and of answers that the model writes the plan doesn't know the tokens.
    planned = round(plan.epochs * (plan.train.tokens or 0)) if plan.method in ("sft", "clm") else None
    share = f"{units.percent(plan.parameters_trained / plan.parameters, 2)} of {plan.parameters:,}"
    return [
        ("Optimizer steps", text.count(plan.steps), text.count(run.step), "; ".join(resumed)),
        ("Trained parameters", text.count(plan.parameters_trained), text.count(run.parameters_trained), share),
        ("Tokens seen", text.count(planned), text.count(run.tokens), speed),
        ("Memory at the peak", text.size(plan.memory.allocated), *_memory(run)),
        (
            "Time in the training loop",
            text.between(plan.time.train if plan.time else None),
            text.duration(run.seconds),
            "",
        ),
        *([("Cost", text.dollars(plan.cost), units.NONE, plan.cost.price_source)] if plan.cost else []),
    ]


def _memory(run: RunRecord) -> tuple[str, str]:
    """What was measured, and how far from the plan that is."""
    first = run.first_steps
    if first is None:
        return text.size(run.peak_memory), "libraries included"
    away = "" if first.difference is None else f"{first.difference:+.0%} from the plan"
    reserved = f"; the allocator held {text.size(first.reserved)}" if first.reserved else ""
    return text.size(first.allocated), f"{away or 'libraries take about as much as the model'}{reserved}"


def _changed(evaluation: EvalReport) -> list[tuple[str, int, list[ChangedRow]]]:
    """(kind, how many there are, those that are kept), broken rows first."""
    totals = {"broken": evaluation.broken, "fixed": evaluation.fixed}
    return [
        (kind, total, [row for row in evaluation.changed if row.change == kind])
        for kind, total in totals.items()
        if total
    ]


def _yaml(recipe: dict[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
