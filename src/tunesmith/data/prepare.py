"""From raw rows to rows in TRL's layouts, with everything that can't be trained on named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from ..errors import UsageError
from ..recipe.schema import Mapping
from ..records import Finding
from ..rules import FindingsError, finding
from .convert import reader
from .formats import Detection, detect, unusable
from .rows import BadRowError, Row, name_places
from .sources import RawData
from .turns import answers

TrainedLayout = Literal["messages", "prompt-completion", "text"]
LossOn = Literal["completion", "assistant", "all"]


@dataclass(frozen=True)
class Prepared:
    """Rows as the trainer gets them.

    Attributes:
        rows: {"prompt", "completion"} with messages or texts, {"messages"} or {"text"}; with "tools" (JSON text)
            where the data has them.
        layout: Which of the three.
        loss_on: What is trained of each row.
        findings: What is wrong with the rows that aren't among `rows`, and what the user should know.
        dropped: Number of raw rows that aren't among `rows`.
        duplicates: Number of `rows` that repeat an earlier one exactly.
        places: Each row's number in the file.
    """

    rows: list[Row]
    layout: TrainedLayout
    loss_on: LossOn
    findings: list[Finding]
    dropped: int
    duplicates: int
    places: list[int]


def prepare(
    raw: RawData,
    mapping: Mapping,
    bad_rows: Literal["error", "drop"],
    *,
    generation_marks: bool,
    conversational: bool = False,
    detection: Detection | None = None,
    like: Prepared | None = None,
) -> Prepared:
    """Turn raw rows into a layout of TRL's, so that the loss falls on the answers.

    Alpaca rows and conversations with one answer become a prompt and a completion, made of messages: TRL then masks the
    prompt. Conversations with several answers stay messages when the template marks what the assistant generates, and
    are trained on their last answer otherwise. Texts as prompt and completion stay texts, which no template is applied
    to.

    Args:
        raw: The rows.
        mapping: The columns that the recipe names.
        generation_marks: Whether the chat template marks the assistant's turns, or TRL has a version of it that does.
        conversational: Make a user's and an assistant's message of prompts and completions that are texts.
        bad_rows: "error" leaves findings of severity error for rows that can't be trained on, "drop" a warning.
        detection: The result of `detect` on the same rows, when it is there already.
        like: Training rows whose layout these rows, held out in a file of their own, must have too.

    Raises:
        UsageError: the mapping doesn't fit the columns, or the rows can't be given the layout of `like`.
        FindingsError: D004, the rows have no layout that sft can train on; none of them is usable: what is
            wrong with them, and D002.
    """
    where = raw.path.name
    detection = detection or detect(raw.rows, mapping)
    refusal = unusable(detection, where)
    if refusal:
        raise FindingsError([refusal])
    conversational = conversational if like is None else is_conversational(like.rows[0])
    rows, places, bad = _convert(raw, reader(detection, conversational=conversational))
    findings = _bad_row_findings(bad, where)
    if not rows:
        raise FindingsError([*findings, finding("D002", where, left=" that can be trained on")])
    if bad and bad_rows == "drop":
        findings = [_dropped_finding(findings, len(bad), len(raw.rows), where)]
    if like is not None:
        rows, layout, loss_on, cut = _laid_out_like(like, rows, where)
    else:
        rows, layout, loss_on, cut = _lay_out(rows, generation_marks=generation_marks)
    if cut:
        findings.append(finding("D015", where, count=f"{cut:,}"))
    duplicates = count_duplicates(rows)
    if duplicates:
        findings.append(finding("D009", where, count=f"{duplicates:,}", total=f"{len(rows):,}"))
    return Prepared(rows, layout, loss_on, findings, len(raw.rows) - len(rows), duplicates, places)


def _convert(raw: RawData, read: Callable[[Row], Row]) -> tuple[list[Row], list[int], list[tuple[int, BadRowError]]]:
    rows: list[Row] = []
    places: list[int] = []
    bad: list[tuple[int, BadRowError]] = []
    for place, row in zip(raw.places, raw.rows, strict=True):
        try:
            rows.append(read(row))
            places.append(place)
        except BadRowError as problem:
            bad.append((place, problem))
    return rows, places, bad


def _lay_out(rows: list[Row], *, generation_marks: bool) -> tuple[list[Row], TrainedLayout, LossOn, int]:
    """The rows in one layout, what is trained of them, and how many lose answers that could have been trained."""
    if "text" in rows[0]:
        return rows, "text", "all", 0
    if "messages" not in rows[0]:
        return rows, "prompt-completion", "completion", 0
    several = sum(answers(row["messages"]) > 1 for row in rows)
    if several and generation_marks:
        return rows, "messages", "assistant", 0
    return [_split_last(row) for row in rows], "prompt-completion", "completion", several


def _laid_out_like(like: Prepared, rows: list[Row], where: str) -> tuple[list[Row], TrainedLayout, LossOn, int]:
    """As `_lay_out`, with the layout of other rows; conversations can have either layout that is made of messages."""
    if is_conversational(rows[0]) != is_conversational(like.rows[0]) or ("text" in rows[0]) != (like.layout == "text"):
        raise UsageError(
            f"The rows of {where} can't be laid out as the training rows are ({like.layout}).",
            why="Loss and scores can only be compared on rows of one layout.",
            fix="Bring both files into one layout.",
        )
    cut = 0
    if like.layout == "messages":
        rows = [_joined(row) for row in rows]
    elif "messages" in rows[0]:
        cut = sum(answers(row["messages"]) > 1 for row in rows)
        rows = [_split_last(row) for row in rows]
    return rows, like.layout, like.loss_on, cut


def is_conversational(row: Row) -> bool:
    """Whether a prepared row is made of messages, which only a chat template can render."""
    return "messages" in row or isinstance(row.get("prompt"), list)


def _joined(row: Row) -> Row:
    if "messages" in row:
        return row
    rest = {key: value for key, value in row.items() if key not in ("prompt", "completion")}
    return {"messages": [*row["prompt"], *row["completion"]], **rest}


def _split_last(row: Row) -> Row:
    messages = row["messages"]
    rest = {key: value for key, value in row.items() if key != "messages"}
    return {"prompt": messages[:-1], "completion": messages[-1:], **rest}


def count_duplicates(rows: Iterable[Row]) -> int:
    """Number of rows that repeat an earlier one exactly."""
    seen: set[bytes] = set()
    count = 0
    for row in rows:
        text = json.dumps(row, sort_keys=True, ensure_ascii=False)
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        count += digest in seen
        seen.add(digest)
    return count


def _bad_row_findings(bad: list[tuple[int, BadRowError]], where: str) -> list[Finding]:
    groups: dict[tuple[str, str], list[tuple[int, BadRowError]]] = {}
    for place, problem in bad:
        groups.setdefault((problem.code, problem.field), []).append((place, problem))
    return [_group_finding(code, field, group, where) for (code, field), group in sorted(groups.items())]


def _dropped_finding(problems: list[Finding], bad: int, total: int, where: str) -> Finding:
    reasons = " ".join(f"{found.code}: {found.what}" for found in problems)
    return finding("D014", where, count=f"{bad:,}", total=f"{total:,}", reasons=reasons)


def _group_finding(code: str, field: str, group: list[tuple[int, BadRowError]], where: str) -> Finding:
    found = ", ".join(dict.fromkeys(problem.found for _, problem in group if problem.found))
    rows = name_places([place for place, _ in group])
    return finding(code, where, count=f"{len(group):,}", rows=rows, field=field, found=found)
