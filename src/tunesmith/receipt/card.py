"""The model card: what was tuned on what, and the evaluation, for people as tables and for the Hub as a model-index."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Final

from ..files import write_atomic
from ..records import Comparison, EvalReport, Receipt, Unseen, units
from ..words import counted
from . import text

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

MARK: Final = "<!-- written by tunesmith -->"
_PLACEHOLDER: Final = "[More Information Needed]"


def write_card(folder: Path, receipt: Receipt) -> bool:
    """Write README.md into a result's folder, unless somebody has written one there. Returns whether it was written.

    PEFT leaves a form with nothing filled in; that is no card.
    """
    path = folder / "README.md"
    if not folder.is_dir():
        return False
    if path.is_file():
        there = path.read_text(encoding="utf-8", errors="replace")
        if MARK not in there and _PLACEHOLDER not in there:
            return False
    write_atomic(path, card(receipt))
    return True


def card(receipt: Receipt) -> str:
    """The model card as Markdown with YAML metadata. It holds no rows, paths or addresses: they may be private."""
    plan = receipt.plan
    source = _escaped(PurePath(receipt.data.source).name)
    trained_on = f"{counted(plan.train.rows, 'row')} of {source}"
    parts = [
        f"---\n{metadata(receipt)}---\n",
        MARK,
        f"# {_escaped(receipt.run.id)}\n",
        f"{_escaped(_model(receipt))}, tuned by {plan.method} ({_escaped(plan.trained)}) on {trained_on} with "
        "[TRL](https://github.com/huggingface/trl), by tunesmith.\n",
    ]
    if receipt.evaluation is not None:
        parts.append(evaluation_part(receipt.evaluation))
    versions = [(name, version) for name, version in sorted(receipt.versions.items())]
    return "\n".join([*parts, "## Versions\n", _table(("package", "version"), versions)])


def evaluation_part(report: EvalReport) -> str:
    """The evaluation as a section of a card: verdict, a table for each suite, leakage."""
    lines = ["## Evaluation\n"]
    if report.conclusion is not None:
        lines.append(_escaped(_without_addresses(report, report.conclusion.sentence)) + "\n")
    head = ("metric", "base", "tuned", "difference (95% interval)", "p", "verdict")
    for suite, title in units.SUITES.items():
        if comparisons := report.of(suite):
            lines += [f"### {title}\n", _table(head, [_row(one) for one in comparisons])]
            lines += [f"{_escaped(note)}\n" for note in (units.correction(comparisons),) if note]
    if report.leakage is not None:
        lines.append(f"{units.leaked(report.leakage)}\n")
    if unseen := [_unseen_row(one, one.unseen) for one in report.of("task") if one.unseen]:
        columns = ("metric", "rows", "base", "tuned", "difference", "p, not corrected")
        lines += ["### The task without those rows\n", _table(columns, unseen)]
    lines.append(
        "Both models were measured on the same rows; intervals and tests are paired. kept: shown to lose less than "
        "is accepted; unclear: neither better nor worse is shown.\n"
    )
    return "\n".join(lines)


def metadata(receipt: Receipt) -> str:
    """The card's YAML: what the Hub indexes, with the tuned model's values as results."""
    from huggingface_hub import ModelCardData

    results = list(_results(receipt)) if receipt.evaluation is not None else []
    data = ModelCardData(
        base_model=_hub_id(receipt),
        library_name="peft" if receipt.plan.peft else "transformers",
        pipeline_tag="text-classification" if receipt.plan.method == "reward" else "text-generation",
        tags=["tunesmith", "trl", receipt.plan.method],
        model_name=receipt.run.id,
        eval_results=results or None,
    )
    return str(data.to_yaml()) + "\n"


def _results(receipt: Receipt) -> Iterator[EvalResult]:
    """What the Hub's model-index takes: finite values of the tuned model; the base's stand in the card's text."""
    from huggingface_hub import EvalResult

    assert receipt.evaluation is not None  # as metadata has seen to
    source = _held_out_of(receipt)
    for one in receipt.evaluation.comparisons:
        if math.isfinite(one.tuned):
            own = one.suite == "task"
            yield EvalResult(
                task_type="text-generation",
                dataset_type="held-out" if own else one.suite,
                dataset_name=f"{source}, held-out rows" if own else units.SUITES[one.suite],
                metric_type=one.metric,
                metric_name=units.metric(one),
                metric_value=one.tuned,
            )


def _held_out_of(receipt: Receipt) -> str:
    """Name of the file that the held-out rows are of: of one that the recipe names for them, else of the training's."""
    plan, evaluation = receipt.plan, receipt.evaluation
    of_test = plan.test is not None and evaluation is not None and evaluation.split == plan.test.path
    named = receipt.recipe.get("data", {}).get("test" if of_test else "eval")
    return PurePath(named if isinstance(named, str) else receipt.data.source).name


def _model(receipt: Receipt) -> str:
    """The base's name; of a local folder no more than its last part."""
    name = receipt.plan.model.name
    return _hub_id(receipt) or PurePath(name).name


def _hub_id(receipt: Receipt) -> str | None:
    """The base's name where it is on the Hub."""
    model = receipt.plan.model
    return model.name if model.revision and not Path(model.location).is_dir() else None


def _without_addresses(report: EvalReport, sentence: str) -> str:
    """The verdict without where servers are, which is nobody's business."""
    for side in (report.base, report.tuned):
        if side is not None and side.kind == "endpoint":
            sentence = sentence.replace(side.name, "behind a server")
    return sentence


def _row(one: Comparison) -> tuple[str, ...]:
    difference = units.change(one, one.difference)
    if one.interval is not None:
        difference += f" ({units.interval(one)})"
    values = (units.score(one, one.base), units.score(one, one.tuned), difference)
    return (units.metric(one), *values, units.p_value(units.judged_p(one)), units.outcome(one))


def _unseen_row(one: Comparison, unseen: Unseen) -> tuple[str, ...]:
    values = (units.score(one, unseen.base), units.score(one, unseen.tuned), units.change(one, unseen.difference))
    return (units.metric(one), f"{unseen.rows:,}", *values, units.p_value(unseen.p_value))


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *(tuple(map(_escaped, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _escaped(value: str) -> str:
    """Text that can't leave its cell or line, nor become a link or HTML."""
    shown = text.visible(" ".join(value.split())).replace("\\", "\\\\")
    return shown.replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[").replace("`", "\\`")
