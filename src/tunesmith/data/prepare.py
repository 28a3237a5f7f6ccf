"""From raw rows to rows in TRL's layouts, with everything that can't be trained on named."""

from __future__ import annotations

import datetime
import difflib
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from ..errors import UsageError
from ..recipe.schema import Mapping
from ..records import Finding, Wanted
from ..records.data import LossOn, TrainedLayout
from ..rules import FindingsError, finding
from ..words import counted
from .convert import other_layouts, reader
from .formats import Detection, detect, unusable
from .paths import value_of
from .rows import COLUMNS, BadRowError, Place, Row, name_columns, name_places, without_columns
from .shape import as_text
from .sources import RawData, Spec, read
from .turns import answers


@dataclass(frozen=True)
class Prepared:
    """Rows as the trainer gets them.

    Attributes:
        rows: Rows in TRL's layout for the method, as `convert.reader` makes them; of conversations for sft that are
            trained on one answer, {"prompt", "completion"}.
        layout: Which layout that is.
        loss_on: What is trained of each row.
        findings: What is wrong with the rows that aren't among `rows`, and what the user should know.
        dropped: Number of raw rows that can't be trained on, and aren't among `rows`.
        duplicates: Number of `rows` that repeat an earlier one exactly.
        places: Each row's number in the file.
        filtered: Number of raw rows that the recipe's filter left out.
        rejected: Each row that can't be trained on: its number in the file, and why.
    """

    rows: list[Row]
    layout: TrainedLayout
    loss_on: LossOn
    findings: list[Finding]
    dropped: int
    duplicates: int
    places: list[Place]
    filtered: int = 0
    rejected: list[tuple[Place, BadRowError]] = field(default_factory=list)


def prepare(
    raw: RawData,
    mapping: Mapping,
    bad_rows: Literal["error", "drop"],
    *,
    generation_marks: bool,
    conversational: bool = False,
    detection: Detection | None = None,
    like: Prepared | None = None,
    method: str = "sft",
    filter: dict[str, Wanted] | None = None,  # noqa: A002 - the recipe's word
    columns: bool = False,
    beside: Sequence[str] | None = (),
    images: bool = False,
) -> Prepared:
    """Turn raw rows into the layout of TRL's that a method trains on, so that the loss falls on the answers.

    For sft, alpaca rows and conversations with one answer become a prompt and a completion, made of messages: TRL then
    masks the prompt. Conversations with several answers stay messages when the template marks what the assistant
    generates, and are trained on their last answer otherwise. Texts as prompt and completion stay texts, which no
    template is applied to.

    Args:
        raw: The rows.
        mapping: The columns that the recipe names.
        generation_marks: Whether the chat template marks the assistant's turns, or TRL has a version of it that does.
        conversational: Make a user's and an assistant's message of prompts and answers that are texts.
        bad_rows: "error" leaves findings of severity error for rows that can't be trained on, "drop" a warning.
        detection: The result of `detect` on the same rows, when it is there already.
        like: Training rows whose layout these rows, held out in a file of their own, must have too.
        method: The method to train with.
        filter: Column -> the value that rows to train on have, or several.
        columns: Rows keep what other columns say, for reward functions: each row all columns, None where it has none.
        beside: Columns that rows keep apart, under `COLUMNS`, for the evaluation; None: all.
        images: The model is shown the rows' images; their paths start where the file is.

    Raises:
        UsageError: mapping or filter don't fit the columns, or the rows can't be given the layout of `like`.
        FindingsError: D004, the rows have no layout that the method can train on; none of them is usable: what is
            wrong with them, and D002.
    """
    where, kept = raw.name, filter or {}
    detection = detection or detect(raw.rows, mapping, filtered=kept, images=raw.folder if images else None)
    refusal = unusable(detection, where, method)
    if refusal:
        raise FindingsError([refusal])
    conversational = conversational if like is None else is_conversational(like.rows[0])
    places, left = _filtered(raw, kept)
    read_row = reader(detection, conversational=conversational, method=method)
    read_row = _with_columns(read_row) if columns else _with_columns_apart(read_row, beside)
    rows, places, bad = _convert(places, left, read_row)
    rows = _filled(rows, like) if columns else rows
    bad = [*raw.refused, *bad]
    unparsed = raw.unparsed()
    faults = [*([unparsed] if unparsed else []), *bad_row_findings(bad, where)]
    if not rows:
        raise FindingsError([*faults, finding("D002", where, left=" that can be trained on")])
    rejected = sorted([*raw.rejected, *bad], key=lambda fault: str(fault[0]))
    total = (len(raw.rows) if raw.total is None else raw.total) + len(raw.rejected)
    if faults and bad_rows == "drop":
        faults = [dropped_finding(faults, len(rejected), total, where)]
    left_out = len(raw.rows) - len(left) + raw.filtered
    findings = [*raw.findings, *faults, *notes(detection, method, kept, left_out, total, where)]
    if like is not None:
        rows, layout, loss_on, cut = _laid_out_like(like, rows, where)
    else:
        rows, layout, loss_on, cut = _lay_out(rows, method, generation_marks=generation_marks)
    if cut:
        findings.append(finding("D015", where, count=f"{cut:,}"))
    duplicates = count_duplicates(rows)
    if duplicates:
        findings.append(finding("D009", where, count=f"{duplicates:,}", total=f"{len(rows):,}"))
    return Prepared(rows, layout, loss_on, findings, len(rejected), duplicates, places, left_out, rejected)


def training_rows(
    source: Spec,
    method: str = "sft",
    mapping: dict[str, str] | None = None,
    filter: dict[str, Wanted] | None = None,  # noqa: A002 - the recipe's word
) -> list[Row]:
    """The rows of a file in TRL's layout for a method, without those that can't be trained on.

    Raises:
        UsageError, FindingsError: as `sources.read` and `detect`; D004, the method can't train on such rows.
    """
    raw, kept = read(source), filter or {}
    detection = detect(raw.rows, Mapping(**(mapping or {})), filtered=kept)
    refusal = unusable(detection, raw.name, method)
    if refusal:
        raise FindingsError([refusal])
    places, left = _filtered(raw, kept)
    rows, _, _ = _convert(places, left, reader(detection, conversational=False, method=method))
    layout = one_layout({tuple(row) for row in rows})
    return [layout(row) for row in rows]


def one_layout(columns: Iterable[tuple[str, ...]]) -> Callable[[Row], Row]:
    """What brings rows that have these sets of columns into one layout, as a dataset needs it.

    Where some are conversations and some prompts with completions, all become conversations.
    """
    layouts = {tuple(name for name in one if name != "tools") for one in columns}
    return _joined if layouts == {("messages",), ("prompt", "completion")} else lambda row: row


def _filtered(raw: RawData, kept: dict[str, Wanted]) -> tuple[list[Place], list[Row]]:
    """The rows that have the values of the filter, each with its number in the file."""
    for column in kept:
        if not any(column in row or value_of(row, column) is not None for row in raw.rows):
            columns = list(dict.fromkeys(name for row in raw.rows for name in row))
            near = difflib.get_close_matches(column, columns, n=1, cutoff=0.5)
            raise UsageError(
                f"data.filter names the column {column!r}, which isn't there.",
                why=f"The columns are {name_columns(columns)}.",
                fix=f"Did you mean {near[0]!r}?" if near else "Name one of these columns.",
            )
    left = [(place, row) for place, row in zip(raw.places, raw.rows, strict=True) if wanted(row, kept)]
    return [place for place, _ in left], [row for _, row in left]


def wanted(row: Row, kept: dict[str, Wanted]) -> bool:
    """Whether a row has the values of a filter."""
    return all(equals(value_of(row, column), value) for column, value in kept.items())


def equals(value: Any, wanted: Wanted) -> bool:
    """Whether a value is what a filter wants; in CSV everything is text, and Parquet's dates are named by text."""
    if isinstance(wanted, list):
        return any(equals(value, one) for one in wanted)
    if isinstance(value, datetime.date):
        value = str(value)
    if isinstance(wanted, bool) and isinstance(value, str):
        return value.strip().lower() == as_text(wanted)
    return bool(value == wanted) or (isinstance(value, str) and value == as_text(wanted))


def notes(
    detection: Detection, method: str, kept: dict[str, Wanted], left_out: int, total: int, where: str
) -> list[Finding]:
    """D017 for rows of other layouts that are trained on as well, D019 for rows that the filter left out."""
    others = {sight.key for sight in other_layouts(detection, method)}
    mixed = [part.share(total) for part in detection.parts[1:] if part.sight.key in others]
    shown = "; ".join(
        f"{share.layout} in {counted(share.rows, 'row')} ({share.share:.1%}; "
        f"{name_places(share.examples, share.rows - len(share.examples))})"
        for share in mixed
    )
    notes = [finding("D017", where, main=detection.layout, others=shown)] if mixed else []
    if left_out:
        said = ", ".join(f"{column}: {as_text(value)}" for column, value in kept.items())
        notes.append(finding("D019", where, count=f"{left_out:,}", total=f"{total:,}", filter=said))
    return notes


_TAKEN: Final = frozenset(
    {
        *("prompt", "prompts", "completion", "completions", "completion_ids"),
        *("trainer_state", "log_extra", "log_metric", "environments"),
        *("messages", "chosen", "rejected", "image", "images"),
    }
)
"""Names under which TRL hands a reward function other things, or by which it tells layouts (GRPOTrainer, TRL 1.16)."""


def _with_columns(read_row: Callable[[Row], Row]) -> Callable[[Row], Row]:
    """Also keeps the raw row's own columns, whatever they hold; what JSON has no words for, such as a date, as text."""

    def keeping(row: Row) -> Row:
        converted = read_row(row)
        return {**_as_json({name: value for name, value in row.items() if name not in _TAKEN}), **converted}

    return keeping


def _with_columns_apart(read_row: Callable[[Row], Row], names: Sequence[str] | None) -> Callable[[Row], Row]:
    """Also keeps some of the raw row's columns, all of them where `names` is None, apart from what is trained on."""

    def keeping(row: Row) -> Row:
        own = row if names is None else {name: value_of(row, name) for name in names}
        there = {name: value for name, value in own.items() if value is not None}
        return {**read_row(row), **({COLUMNS: _as_json(there)} if there else {})}

    return keeping


def _as_json(columns: Row) -> Row:
    held: Row = json.loads(json.dumps(columns, default=str))
    return held


def _filled(rows: list[Row], like: Prepared | None) -> list[Row]:
    """The rows with all columns that one of them has, or one of `like`: a function is given the same ones each time."""
    seen = dict.fromkeys(name for row in (*(like.rows[:1] if like else ()), *rows) for name in row)
    names = {name: None for name in seen if name != "tools"}
    return [names | row for row in rows]


def one_answer_a_row(prepared: Prepared) -> Prepared:
    """Preference pairs as two rows each, one good and one bad, as TRL's KTOTrainer takes them apart; others as is."""
    if prepared.layout != "preference":
        return prepared
    sides = (("chosen", True), ("rejected", False))
    rows = [
        {
            **{key: value for key, value in row.items() if key not in ("chosen", "rejected")},
            "completion": row[side],
            "label": label,
        }
        for row in prepared.rows
        for side, label in sides
    ]
    places = [place for place in prepared.places for _ in sides]
    return replace(prepared, rows=rows, layout="unpaired-preference", places=places)


def _convert(
    places: Sequence[Place], raw: Sequence[Row], read_row: Callable[[Row], Row]
) -> tuple[list[Row], list[Place], list[tuple[Place, BadRowError]]]:
    rows: list[Row] = []
    good: list[Place] = []
    bad: list[tuple[Place, BadRowError]] = []
    for place, row in zip(places, raw, strict=True):
        try:
            rows.append(read_row(row))
            good.append(place)
        except BadRowError as problem:
            bad.append((place, problem))
    return rows, good, bad


_LAYOUTS: Final[dict[str, TrainedLayout]] = {
    "dpo": "preference",
    "reward": "preference",
    "kto": "unpaired-preference",
    "grpo": "prompt-only",
    "rloo": "prompt-only",
}


def _lay_out(rows: list[Row], method: str, *, generation_marks: bool) -> tuple[list[Row], TrainedLayout, LossOn, int]:
    """The rows in one layout, what is trained of them, and how many lose answers that could have been trained."""
    if method in _LAYOUTS:
        layout = "preference" if "chosen" in rows[0] else _LAYOUTS[method]
        return rows, layout, "score" if method == "reward" else "completion", 0
    if "text" in rows[0]:
        return rows, "text", "all", 0
    if not any("messages" in row for row in rows):
        return rows, "prompt-completion", "completion", 0
    several = sum(answers(row["messages"]) > 1 for row in rows if "messages" in row)
    if several and generation_marks:
        return [_joined(row) for row in rows], "messages", "assistant", 0
    return [_split_last(row) for row in rows], "prompt-completion", "completion", several


def _laid_out_like(like: Prepared, rows: list[Row], where: str) -> tuple[list[Row], TrainedLayout, LossOn, int]:
    """As `_lay_out`, with the layout of other rows; conversations can have either layout that is made of messages."""
    if is_conversational(rows[0]) != is_conversational(like.rows[0]) or _family(rows[0]) != _family(like.rows[0]):
        raise UsageError(
            f"The rows of {where} can't be laid out as the training rows are ({like.layout}).",
            why="Loss and scores can only be compared on rows of one layout.",
            fix="Bring both files into one layout.",
        )
    cut = 0
    if like.layout == "messages":
        rows = [_joined(row) for row in rows]
    elif any("messages" in row for row in rows):
        cut = sum(answers(row["messages"]) > 1 for row in rows if "messages" in row)
        rows = [_split_last(row) for row in rows]
    return rows, like.layout, like.loss_on, cut


def _family(row: Row) -> frozenset[str]:
    """The keys that tell layouts apart; conversations can be given as a prompt with its completion."""
    if "messages" in row:
        return frozenset({"prompt", "completion"})
    return frozenset(row.keys() & {"prompt", "completion", "chosen", "rejected", "label", "text"})


def is_conversational(row: Row) -> bool:
    """Whether a prepared row is made of messages, which only a chat template can render."""
    return "messages" in row or isinstance(row.get("prompt"), list)


def _joined(row: Row) -> Row:
    if "messages" in row:
        return row
    rest = {key: value for key, value in row.items() if key not in ("prompt", "completion")}
    return {"messages": [*row["prompt"], *row["completion"]], **rest}


def _split_last(row: Row) -> Row:
    if "messages" not in row:
        return row
    messages = row["messages"]
    rest = {key: value for key, value in row.items() if key != "messages"}
    return {"prompt": messages[:-1], "completion": messages[-1:], **rest}


def count_duplicates(rows: Iterable[Row]) -> int:
    """Number of rows that repeat an earlier one exactly."""
    seen: set[bytes] = set()
    count = 0
    for row in rows:
        text = json.dumps(without_columns(row), sort_keys=True, ensure_ascii=False)
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        count += digest in seen
        seen.add(digest)
    return count


def bad_row_findings(bad: list[tuple[Place, BadRowError]], where: str) -> list[Finding]:
    """A finding for each code and field, with the rows' numbers."""
    groups: dict[tuple[str, str], list[tuple[Place, BadRowError]]] = {}
    for place, problem in bad:
        groups.setdefault((problem.code, problem.field), []).append((place, problem))
    return [_group_finding(code, field, group, where) for (code, field), group in sorted(groups.items())]


def dropped_finding(problems: list[Finding], bad: int, total: int, where: str) -> Finding:
    """D014 for `bad` of `total` rows, with what `problems` say."""
    reasons = " ".join(f"{found.code}: {found.what}" for found in problems)
    return finding("D014", where, count=f"{bad:,}", total=f"{total:,}", reasons=reasons)


def _group_finding(code: str, field: str, group: list[tuple[Place, BadRowError]], where: str) -> Finding:
    found = ", ".join(dict.fromkeys(problem.found for _, problem in group if problem.found))
    rows = name_places([place for place, _ in group])
    return finding(code, where, count=f"{len(group):,}", rows=rows, field=field, found=found)
