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
from .formats import Detection, detect
from .prepare import Prepared, is_conversational, prepare
from .refused import without_refused
from .rendered import Renderer, rendered_findings
from .sources import RawData, read

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_Measured = tuple[TokenLengths | None, LabelAudit | None, list[Finding]]


class LightEncoder(Renderer, Protocol):
    """Counts tokens without torch; models.light.LightTokenizer is one."""

    has_generation_marks: bool

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
    context: int | None = None,
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
        context: Tokens that the model takes at most.
        audit: False leaves the audit out although there is a tokenizer.

    Raises:
        UsageError: there is no such file, or the mapping doesn't fit its columns.
        EnvironmentLacksError: the file may not be read, or the installed TRL has another shape.
        FindingsError: no rows can be read at all (D001, D002, D003).
    """
    progress("Reading", 0, None)
    raw = read(path)
    mapping = mapping or Mapping()
    detection = detect(raw.rows, mapping)
    report = _begun(path, raw, detection, model)
    try:
        prepared = _prepared(raw, mapping, bad_rows, detection, tokenizer, light)
    except FindingsError as refusal:
        return report.model_copy(update={"findings": refusal.findings})
    progress("Counting tokens", 0, len(prepared.rows))
    if tokenizer is not None and audit:
        measured = _audited(prepared, path.name, tokenizer, training or {}, stop_ids, context)
    else:
        measured = _counted(prepared, light)
    return report.model_copy(update=_outcome(prepared, measured, light, path.name))


def _begun(path: Path, raw: RawData, detection: Detection, model: str | None) -> DataReport:
    """The report on a file of which no row has been prepared."""
    return DataReport(
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


def _prepared(
    raw: RawData,
    mapping: Mapping,
    bad_rows: Literal["error", "drop"],
    detection: Detection,
    tokenizer: PreTrainedTokenizerBase | None,
    light: LightEncoder | None,
) -> Prepared:
    marks, chat = _abilities(tokenizer, light)
    prepared = prepare(raw, mapping, bad_rows, generation_marks=marks, conversational=chat, detection=detection)
    if bad_rows == "drop" and light is not None and (chat or not is_conversational(prepared.rows[0])):
        return without_refused(prepared, lambda row: light.encode_rows([row], prepared.layout), raw.path.name)
    return prepared


def _outcome(prepared: Prepared, measured: _Measured, light: LightEncoder | None, where: str) -> dict[str, Any]:
    """The fields of a report that prepared rows fill."""
    lengths, labels, findings = measured
    # Without lengths the template refuses rows, and can't be asked what it does with the others.
    rendered = rendered_findings(prepared.rows, light, where) if light is not None and lengths is not None else []
    return {
        "rows": len(prepared.rows),
        "rows_invalid": prepared.dropped,
        "duplicates": prepared.duplicates,
        "lengths": lengths,
        "audit": labels,
        "findings": [*prepared.findings, *rendered, *findings],
    }


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


def _audited(
    prepared: Prepared,
    where: str,
    tokenizer: PreTrainedTokenizerBase,
    training: dict[str, Any],
    stop_ids: Sequence[int],
    context: int | None,
) -> _Measured:
    rows, layout, places = prepared.rows, prepared.layout, prepared.places
    training = {"assistant_only_loss": prepared.loss_on == "assistant", **training}
    try:
        measured = tokens.audit_with_lengths(
            rows, layout, tokenizer, training=training, stop_ids=stop_ids, places=places
        )
    except FindingsError as refusal:
        return None, None, refusal.findings
    return measured.lengths, measured.audit, tokens.audit_findings(measured.audit, where, context=context)


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
