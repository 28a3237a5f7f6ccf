"""The data report: what a file holds, whether it can be trained on, and what would be trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..progress import Progress, silent
from ..recipe.schema import Mapping
from ..records import DataReport, Finding, LabelAudit, TokenLengths
from ..rules import FindingsError
from . import tokens
from .columns import describe
from .formats import detect
from .prepare import Prepared, is_conversational, prepare
from .refused import without_refused
from .sources import read

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class LightEncoder(Protocol):
    """Counts tokens without torch; models.light.LightTokenizer is one."""

    has_generation_marks: bool
    template: str | None

    def encode_rows(self, rows: Sequence[dict[str, Any]], layout: str) -> tuple[list[int] | None, list[int]]:
        """Lengths in tokens of the rows' prompts (None where nothing is split off) and of the whole rows."""
        ...


def inspect(
    path: Path,
    *,
    mapping: Mapping | None = None,
    bad_rows: Literal["error", "drop"] = "error",
    tokenizer: PreTrainedTokenizerBase | None = None,
    light: LightEncoder | None = None,
    model: str | None = None,
    training: dict[str, Any] | None = None,
    stop_ids: Sequence[int] = (),
    audit: bool = True,
    progress: Progress = silent,
) -> DataReport:
    """Read a file and report on it. What is wrong with the rows stands in the findings; it doesn't raise.

    Args:
        path: The file.
        mapping: The columns that the recipe names.
        bad_rows: Whether rows that can't be trained on are errors, or are dropped.
        progress: Hears of each stage.
        tokenizer: For the label audit, which runs TRL's preparation; without it there is none.
        light: For token lengths where there is no audit.
        model: The model's name, for the report.
        training: Arguments of SFTConfig; those left out have its defaults.
        stop_ids: Stop tokens besides the tokenizer's EOS.
        audit: False leaves the audit out although there is a tokenizer.

    Raises:
        UsageError: there is no such file, or the mapping doesn't fit its columns.
        EnvironmentLacksError: the file may not be read, or the installed TRL has another shape.
        FindingsError: no rows can be read at all (D001, D002, D003).
    """
    mapping = mapping or Mapping()
    progress("Reading", 0, None)
    raw = read(path)
    detection = detect(raw.rows, mapping)
    report = DataReport(
        source=str(path),
        sha256=raw.sha256,
        bytes=raw.bytes,
        rows=0,
        rows_invalid=len(raw.rows),
        columns=describe(detection.profiles, len(raw.rows)),
        layout=detection.layout,
        verdicts=detection.verdicts,
        model=model,
    )
    try:
        marks, chat = _abilities(tokenizer, light)
        prepared = prepare(raw, mapping, bad_rows, generation_marks=marks, conversational=chat, detection=detection)
        if bad_rows == "drop" and light is not None and (chat or not is_conversational(prepared.rows[0])):
            layout = prepared.layout
            prepared = without_refused(prepared, lambda row: light.encode_rows([row], layout), path.name)
    except FindingsError as refusal:
        return report.model_copy(update={"findings": refusal.findings})
    progress("Counting tokens", 0, len(prepared.rows))
    if tokenizer is not None and audit:
        lengths, labels, findings = _audited(prepared, path.name, tokenizer, training or {}, stop_ids)
    else:
        lengths, labels, findings = _counted(prepared, light)
    return report.model_copy(
        update={
            "rows": len(prepared.rows),
            "rows_invalid": prepared.dropped,
            "duplicates": prepared.duplicates,
            "lengths": lengths,
            "audit": labels,
            "findings": [*prepared.findings, *findings],
        }
    )


def _abilities(tokenizer: PreTrainedTokenizerBase | None, light: LightEncoder | None) -> tuple[bool, bool]:
    """Whether the assistant's turns can be marked, and whether there is a chat template.

    The light tokenizer goes first: the plan has no other, and the report must lay the rows out as the plan will.
    """
    if light is not None:
        return light.has_generation_marks, light.template is not None
    if tokenizer is not None:
        from .trl_preparation import can_mark

        return can_mark(tokenizer), bool(tokenizer.chat_template)
    return True, False


_Measured = tuple[TokenLengths | None, LabelAudit | None, list[Finding]]


def _audited(
    prepared: Prepared,
    where: str,
    tokenizer: PreTrainedTokenizerBase,
    training: dict[str, Any],
    stop_ids: Sequence[int],
) -> _Measured:
    rows, layout, places = prepared.rows, prepared.layout, prepared.places
    training = {"assistant_only_loss": prepared.loss_on == "assistant", **training}
    try:
        measured = tokens.audit_with_lengths(
            rows, layout, tokenizer, training=training, stop_ids=stop_ids, places=places
        )
    except FindingsError as refusal:
        return None, None, refusal.findings
    return measured.lengths, measured.audit, tokens.audit_findings(measured.audit, where)


def _counted(prepared: Prepared, light: LightEncoder | None) -> _Measured:
    if light is None:
        return None, None, []
    rows, layout = prepared.rows, prepared.layout
    try:
        return tokens.lengths(rows, layout, light.encode_rows), None, []
    except Exception:
        refused = tokens.refused_rows(rows, lambda row: light.encode_rows([row], layout))
        if not refused:
            raise
        return None, None, [tokens.refusal_finding(refused, prepared.places)]
