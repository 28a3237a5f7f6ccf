"""The data report: what the rows are, which methods they serve, and what one of them would train."""

from __future__ import annotations

from collections.abc import Mapping as Columns
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..progress import Progress, silent
from ..recipe.schema import Mapping
from ..records import DataReport, Finding, LabelAudit, TokenLengths, Wanted
from ..rules import FindingsError, finding
from . import tokens
from .columns import describe
from .convert import confirmed, reader
from .formats import Detection, detect, with_code
from .lengths import Measures, measures
from .prepare import Prepared, is_conversational, prepare, wanted
from .quality import examine
from .refused import without_refused
from .rendered import Renderer, rendered_findings
from .rows import BadRowError
from .shape import RowStructure, Structure
from .sources import Opened, RawData, Spec, open_source

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_HELD = 256 * 2**20
"""Bytes of files up to which all rows are held and looked at."""
_EXAMINED = 100_000
"""About so many rows of larger files are held, evenly spread; the others are read and judged one by one."""

_READ_OTHERWISE = ("D020", "D021")
"""Findings on rows that other readers refuse, or read other values from."""

_Measured = tuple[TokenLengths | None, LabelAudit | None, Measures | None, list[Finding]]


class LightEncoder(Renderer, Protocol):
    """Counts tokens without torch; models.light.LightTokenizer is one."""

    has_generation_marks: bool

    def encode_rows(self, rows: Sequence[dict[str, Any]], layout: str) -> tuple[list[int] | None, list[int]]:
        """Lengths in tokens of the rows' prompts (None where nothing is split off) and of the whole rows."""
        ...


def inspect(
    data: Spec,
    *,
    method: str | None = None,
    mapping: Mapping | None = None,
    keep: Columns[str, Wanted] | None = None,
    bad_rows: Literal["error", "drop"] = "error",
    tokenizer: PreTrainedTokenizerBase | None = None,
    light: LightEncoder | None = None,
    model: str | None = None,
    training: dict[str, Any] | None = None,
    stop_ids: Sequence[int] = (),
    context: int | None = None,
    audit: bool = True,
    quality: bool = True,
    images: bool = False,
    progress: Progress = silent,
) -> DataReport:
    """Read data and report on it. What is wrong with the rows stands in the findings; it doesn't raise.

    Args:
        data: A path, glob, folder or Hub id, a recipe's Source, or several of these.
        method: The method that findings, lengths and label audit are for; None for the one that the data is made for.
        mapping: The columns that the recipe names.
        keep: The recipe's filter: column -> the value that rows to train on have, or several.
        bad_rows: Whether rows that can't be trained on are errors, or are dropped.
        tokenizer: For the label audit, which runs TRL's preparation; without it there is none.
        light: For token lengths where there is no audit.
        model: The model's name, for the report.
        training: Arguments of the trainer's config class; those left out have its defaults.
        stop_ids: Stop tokens besides the tokenizer's EOS.
        context: Tokens that the model takes at most.
        audit: False leaves the audit out although there is a tokenizer.
        quality: False leaves the examination of what the rows say out.
        images: The model is shown the rows' images; then audit and examination, which are of texts, are left out.
        progress: Hears of each stage.

    Raises:
        UsageError: there is no such file, or the mapping doesn't fit its columns.
        EnvironmentLacksError: a file may not be read, the Hub can't be reached, or the installed TRL has another shape.
        FindingsError: no rows can be read at all (D001, D002, D003, D022, D024).
    """
    progress("Reading", 0, None)
    opened = open_source(data)
    mapping, keep = mapping or Mapping(), dict(keep or {})
    held = _gathered(opened) if opened.bytes <= _HELD else None
    structure = RowStructure(held.rows, held.places) if held else opened.structure()
    name = str(data) if isinstance(data, str | Path) else opened.titles[0] if len(opened.titles) == 1 else None
    folder = opened.folder if images else None
    detection = detect(structure, mapping, filtered=keep, images=folder)
    method = method or detection.recommended or "sft"
    raw = held or _sampled(opened, structure.rows, detection, method, keep)
    if name is not None:
        plain = not raw.rejected and not any(found.code in _READ_OTHERWISE for found in raw.findings)
        detection = with_code(detection, mapping.model_dump(exclude_none=True), name, plain=plain)
    usable = confirmed(detection, [row for row in raw.rows if wanted(row, keep)])
    report = _begun(name or raw.name, raw, structure, usable, method, model)
    try:
        prepared = _prepared(raw, mapping, keep, bad_rows, detection, method, tokenizer, light)
    except FindingsError as refusal:
        return report.model_copy(update={"findings": [*raw.findings, *refusal.findings]})
    progress("Counting tokens", 0, len(prepared.rows))
    shown = any("images" in row for row in prepared.rows)
    if tokenizer is not None and audit and method not in ("grpo", "rloo") and not shown:
        measured = _audited(prepared, raw.name, method, tokenizer, training or {}, stop_ids, context)
    else:
        measured = _counted(prepared, light, method, context)
    report = report.model_copy(update=_outcome(raw, prepared, measured, light))
    if not quality or shown:
        return report
    progress("Examining", 0, len(prepared.rows))
    figures, found = examine(prepared.rows, prepared.places, where=raw.name)
    return report.model_copy(update={"quality": figures, "findings": [*report.findings, *found]})


def _gathered(opened: Opened) -> RawData:
    """All rows.

    Raises:
        FindingsError: D001 or D002, there is no readable row.
    """
    raw = RawData(opened.name, [], [], [])
    for numbered in opened.rows():
        if numbered.row is None:
            raw.rejected.append((numbered.place, BadRowError("D001", opened.unit, numbered.problem or "")))
        else:
            raw.rows.append(numbered.row)
            raw.places.append(numbered.place)
    return _finished(raw, opened)


def _sampled(opened: Opened, total: int, detection: Detection, method: str, keep: dict[str, Wanted]) -> RawData:
    """Some rows, evenly spread; of all the others, those that can't be parsed or trained on.

    Raises:
        FindingsError: D001 or D002, there is no readable row.
    """
    stride = -(-total // _EXAMINED) or 1
    ready = detection.verdict_of(method).status == "READY"
    read = reader(detection, conversational=True, method=method) if ready else None
    raw = RawData(opened.name, [], [], [], total=total)
    number = filtered = 0
    for numbered in opened.rows():
        if numbered.row is None:
            raw.rejected.append((numbered.place, BadRowError("D001", opened.unit, numbered.problem or "")))
            continue
        number += 1
        if number % stride == 1 or stride == 1:
            raw.rows.append(numbered.row)
            raw.places.append(numbered.place)
        elif not wanted(numbered.row, keep):
            filtered += 1
        elif read:
            try:
                read(numbered.row)
            except BadRowError as problem:
                raw.refused.append((numbered.place, problem))
    raw = replace(_finished(raw, opened), filtered=filtered)
    if stride > 1:
        raw.findings.append(finding("D047", raw.name, examined=f"{len(raw.rows):,}", total=f"{total:,}"))
    return raw


def _finished(raw: RawData, opened: Opened) -> RawData:
    raw.files.extend(opened.files)
    raw.findings.extend(opened.findings)
    raw = replace(raw, unit=opened.unit)  # known for sure once the rows were read
    if not raw.rows:
        unparsed = raw.unparsed()
        raise FindingsError([unparsed or finding("D002", raw.name, left="")])
    return raw


def _begun(
    source: str, raw: RawData, structure: Structure, detection: Detection, method: str, model: str | None
) -> DataReport:
    """The report on data of which no row has been prepared."""
    return DataReport(
        source=source,
        sha256=raw.sha256,
        bytes=raw.bytes,
        files=raw.files,
        method=method,
        rows=0,
        rows_invalid=structure.rows + len(raw.rejected),
        examined=None if raw.total is None else len(raw.rows),
        columns=describe(detection.profiles, structure.rows),
        layout=detection.layout,
        composition=detection.composition,
        features=detection.features,
        verdicts=detection.verdicts,
        recommended=detection.recommended,
        recommended_reason=detection.recommended_reason,
        model=model,
    )


def _prepared(
    raw: RawData,
    mapping: Mapping,
    keep: dict[str, Wanted],
    bad_rows: Literal["error", "drop"],
    detection: Detection,
    method: str,
    tokenizer: PreTrainedTokenizerBase | None,
    light: LightEncoder | None,
) -> Prepared:
    marks, chat = _abilities(tokenizer, light)
    prepared = prepare(
        raw,
        mapping,
        bad_rows,
        generation_marks=marks,
        conversational=chat,
        detection=detection,
        method=method,
        filter=keep,
    )
    if bad_rows == "drop" and light is not None and (chat or not is_conversational(prepared.rows[0])):
        return without_refused(prepared, lambda row: light.encode_rows([row], prepared.layout), raw.name)
    return prepared


def _outcome(raw: RawData, prepared: Prepared, measured: _Measured, light: LightEncoder | None) -> dict[str, Any]:
    """The fields of a report that prepared rows fill."""
    lengths, labels, figures, findings = measured
    # Without lengths the template refuses rows, and can't be asked what it does with the others.
    rendered = rendered_findings(prepared.rows, light, raw.name) if light is not None and lengths is not None else []
    return {
        "rows": len(prepared.rows)
        if raw.total is None
        else raw.total + len(raw.rejected) - prepared.dropped - prepared.filtered,
        "rows_invalid": prepared.dropped,
        "duplicates": prepared.duplicates,
        "lengths": lengths,
        "audit": labels,
        **(figures.fields if figures else {}),
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
    method: str,
    tokenizer: PreTrainedTokenizerBase,
    training: dict[str, Any],
    stop_ids: Sequence[int],
    context: int | None,
) -> _Measured:
    rows, layout, places = prepared.rows, prepared.layout, prepared.places
    if method == "sft":
        training = {"assistant_only_loss": prepared.loss_on == "assistant", **training}
    try:
        found = tokens.audit_with_lengths(
            rows, layout, tokenizer, training=training, stop_ids=stop_ids, places=places, method=method
        )
    except FindingsError as refusal:
        return None, None, None, refusal.findings
    figures = measures(
        found.tokens,
        found.prompts,
        context=context,
        max_length=found.audit.max_length,
        trained=found.audit.trained_tokens,
        packs=method in ("sft", "clm"),
    )
    return found.lengths, found.audit, figures, tokens.audit_findings(found.audit, where, context=context)


def _counted(prepared: Prepared, light: LightEncoder | None, method: str, context: int | None) -> _Measured:
    import numpy as np

    if light is None:
        return None, None, None, []
    rows, layout = prepared.rows, prepared.layout
    try:
        prompts, totals = light.encode_rows(rows, layout)
    except Exception:  # Jinja hands on whatever the template's expressions raise
        refused = tokens.refused_rows(rows, lambda row: light.encode_rows([row], layout))
        if not refused:
            raise
        return None, None, None, [tokens.refusal_finding(refused, prepared.places)]
    figures = measures(
        np.array(totals),
        None if prompts is None else np.array(prompts),
        context=context,
        max_length=context,
        packs=method in ("sft", "clm"),
    )
    if prepared.loss_on == "assistant":  # which tokens of a conversation are the assistant's, only the audit tells
        figures = replace(figures, tokens_per_epoch=None)
    return tokens.lengths_from(totals, prompts), None, figures, []
