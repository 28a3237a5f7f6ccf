"""What is wrong with the labels, in the terms of the rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..records import Finding, LabelAudit, Severity
from ..rules import finding
from ..words import counted
from .rows import Place, Row, name_places


def refused_rows(rows: Sequence[Row], render: Callable[[Row], object]) -> dict[int, str]:
    """The rows, counted from 0, that `render` raises on, each with the error's first line."""
    refused: dict[int, str] = {}
    for index, row in enumerate(rows):
        try:
            render(row)
        except Exception as error:  # Jinja hands on whatever the template's expressions raise
            refused[index] = str(error).splitlines()[0] if str(error) else type(error).__name__
    return refused


def refusal_finding(refused: dict[int, str], places: Sequence[Place]) -> Finding:
    """T008 for the rows that `refused_rows` found; `places` are those of all rows."""
    rows = name_places([places[index] for index in refused])
    found = finding("T008", "chat template", count=f"{len(refused):,}", error=next(iter(refused.values())), rows=rows)
    if len(refused) < len(places):
        return found
    fix = (
        "Change the rows, or use a model whose template knows tools, where they have any, and takes their roles and "
        "turns: dropping them would leave none."
    )
    return found.model_copy(update={"fix": fix})


def audit_findings(audit: LabelAudit, where: str, *, context: int | None = None) -> list[Finding]:
    """What is wrong with the labels: T001 to T004, T007, T012 and T019.

    Args:
        audit: The label audit.
        where: What was audited.
        context: Tokens that the model takes at most: no longer max_length is advised.
    """
    found = [
        _without_stop(audit, where, context),
        _cut(audit, where, context),
        _dropped(audit, where, context),
        _doubled_bos(audit, where),
        _prompt_trained(audit, where),
        _stop_only(audit, where),
        _equal_pairs(audit, where),
    ]
    return [finding for finding in found if finding]


def _without_stop(audit: LabelAudit, where: str, context: int | None) -> Finding | None:
    endless = audit.rows_without_stop - audit.rows_untrained
    if endless <= 0:
        return None
    by_cutting = endless <= audit.rows_cut
    severity = cut_severity(audit.rows_cut, audit.rows) if by_cutting else "error"
    stops = ", ".join(audit.stop_tokens)
    found = finding("T001", where, severity=severity, count=f"{endless:,}", total=f"{audit.rows_kept:,}", stops=stops)
    if not by_cutting:
        return found
    fix = f"Cutting took it: raise `training: {{max_length: {audit.longest or 'LONGEST'}}}`, or shorten these rows."
    return _within_context(found.model_copy(update={"fix": fix}), audit, context)


def cut_severity(cut: int, rows: int) -> Severity:
    """Of T002, and of T001 where cutting took the stops: a model doesn't stop that saw too few of them.

    A plan knows both numbers, and so refuses what the audit of a run's rows would.
    """
    return "error" if 2 * cut > rows else "warning"


def _cut(audit: LabelAudit, where: str, context: int | None) -> Finding | None:
    if not audit.rows_cut:
        return None
    cut = finding(
        "T002",
        where,
        severity=cut_severity(audit.rows_cut, audit.rows),
        count=f"{audit.rows_cut:,}",
        total=f"{audit.rows:,}",
        max_length=audit.max_length,
        end=audit.cutting.end if audit.cutting else "end",
        lost=_what_is_lost(audit),
        longest=audit.longest or "LONGEST",
    )
    return _within_context(cut, audit, context)


def _what_is_lost(audit: LabelAudit) -> str:
    cutting = audit.cutting
    if cutting is None or not cutting.answer_tokens:
        return ""
    share = 100 * cutting.answer_tokens / (audit.trained_tokens + cutting.answer_tokens)
    rows = [
        f"{what} in {counted(count, 'row')}"
        for count, what in (
            (cutting.answers_gone, "the whole answer"),
            (cutting.answers_cut, "a part of it" if cutting.answers_gone else "a part of the answer"),
            (cutting.stops_gone, "the stop token"),
        )
        if count
    ]
    return f" Training loses {counted(cutting.answer_tokens, 'token')} ({share:.1f}%): {', '.join(rows)}."


def _within_context(found: Finding, audit: LabelAudit, context: int | None) -> Finding:
    if not (context and audit.longest and audit.longest > context):
        return found
    # P003 refuses a max_length beyond the context.
    fix = f"The model's context is {context} tokens: shorten these rows, or split them."
    return found.model_copy(update={"fix": fix})


def lost_rows(lost: int, total: int, state: str, where: str) -> Finding:
    """T003 for `lost` of `total` rows, which are in a `state`; a warning where most of the rows are left."""
    severity: Severity = "warning" if 2 * lost <= total else "error"
    return finding("T003", where, severity=severity, count=f"{lost:,}", total=f"{total:,}", state=state)


def _dropped(audit: LabelAudit, where: str, context: int | None) -> Finding | None:
    lost = max(0, audit.rows - audit.rows_kept) + audit.rows_untrained
    if not lost:
        return None
    # A reward model scores whole sequences: TRL drops those that are too long rather than cutting them.
    scored = audit.loss_on == "score"
    state = f"are longer than max_length {audit.max_length}" if scored else "have no trained token left"
    dropped = lost_rows(lost, audit.rows, f"{state} and are dropped by the trainer", where)
    return _within_context(dropped, audit, context) if scored else dropped


def _doubled_bos(audit: LabelAudit, where: str) -> Finding | None:
    doubled = {number: rows for number, rows in audit.bos_per_row.items() if number > 1}
    if not doubled:
        return None
    rows, most = sum(doubled.values()), max(doubled)
    return finding("T004", where, count=f"{rows:,}", total=f"{audit.rows_kept:,}", bos=most)


def _prompt_trained(audit: LabelAudit, where: str) -> Finding | None:
    if audit.loss_on != "all" or audit.layout == "text":
        return None
    return finding("T007", where, percent=round(audit.trained_percent, 1))


def _stop_only(audit: LabelAudit, where: str) -> Finding | None:
    if not audit.rows_stop_only:
        return None
    count, stops = f"{audit.rows_stop_only:,}", ", ".join(audit.stop_tokens)
    return finding("T012", where, count=count, total=f"{audit.rows_kept:,}", stops=stops)


def _equal_pairs(audit: LabelAudit, where: str) -> Finding | None:
    if audit.pairs is None or not audit.pairs.equal:
        return None
    limit = f" and cutting at {audit.max_length}" if audit.max_length and audit.rows_cut else ""
    severity: Severity = "error" if 2 * audit.pairs.equal > audit.rows_kept else "warning"
    count, total = f"{audit.pairs.equal:,}", f"{audit.rows_kept:,}"
    return finding("T019", where, severity=severity, count=count, total=total, cutting=limit)
