"""Which layouts the rows of a file have, and what each method can do with them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ...recipe.schema import Mapping
from ...records import Finding, Verdict
from ...rules import finding
from ..columns import profile
from ..rows import Row, name_columns
from ..shape import RowStructure, Structure
from .code import with_code
from .detection import Detection, Part, merge
from .facts import Facts
from .features import features
from .mapped import check, mapped_sight
from .names import NEEDS
from .recommended import recommend
from .sight import Sight
from .verdicts import METHODS, judge

_PLAIN = re.compile(r"(?!(?:true|false|null|yes|no|on|off)$)[A-Za-z_][\w.]*", re.IGNORECASE)

__all__ = ["METHODS", "Detection", "Part", "Sight", "detect", "unusable", "with_code"]


def detect(
    data: Structure | Sequence[Row],
    mapping: Mapping,
    *,
    filtered: Collection[str] = (),
    source: str | None = None,
    images: Path | None = None,
) -> Detection:
    """Find the layouts of rows, and each method's verdict; what `mapping` names goes before what rows look like.

    Args:
        data: The rows, or their structure.
        mapping: The columns that the recipe names.
        filtered: Columns by which the recipe keeps rows: they have said what they had to say.
        source: The file, as printed code shall name it; without it, verdicts have no code.
        images: Where the paths of the rows' images start, for a model that is shown them.

    Raises:
        UsageError: `mapping` names a column that isn't there, or roles that exclude each other.
    """
    structure = RowStructure(data) if isinstance(data, Sequence) else data
    facts = Facts(structure, filtered)
    mapped = {role: column for role, column in mapping.model_dump().items() if column is not None}
    check(mapped, structure)
    parts = merge(facts)
    if mapped:
        groups = list(structure.groups)
        parts = [Part(mapped_sight(mapped, parts[0].sight, facts), groups)]
    found = features(parts, facts)
    verdicts = [judge(method, parts[0], facts) for method in METHODS]
    if found.get("images", 0) == structure.rows > 0 and not mapped:
        reason = (
            "All rows have images, and only text is trained here: learning the answers without them teaches guessing."
        )
        blind = {"status": "INCOMPATIBLE", "reason": reason, "mapping": None, "filter": None}
        sees = ("sft",) if images else ()
        verdicts = [verdict if verdict.method in sees else verdict.model_copy(update=blind) for verdict in verdicts]
    method, why = recommend(parts[0].sight, verdicts)
    detection = Detection(
        sight=parts[0].sight,
        parts=parts,
        verdicts=verdicts,
        profiles=profile(structure.groups),
        features=found,
        recommended=method,
        recommended_reason=why,
        facts=facts,
        mapped=bool(mapped),
        images=images,
    )
    return with_code(detection, mapped, source) if source else detection


def unusable(detection: Detection, where: str, method: str = "sft") -> Finding | None:
    """D004 when `method` can't train on the rows as they are, with the mapping that would do where there is one."""
    verdict = detection.verdict_of(method)
    if verdict.status == "READY":
        return None
    columns = name_columns(detection.profiles)
    return finding("D004", where, reason=verdict.reason, columns=columns, remedy=_remedy(detection, verdict))


def _remedy(detection: Detection, verdict: Verdict) -> str:
    """The mapping that would do; else what rows the method needs, and the method that takes these."""
    if verdict.mapping or verdict.filter:
        return f"Name the columns in the recipe: `data: {{{fragment(verdict.mapping, verdict.filter)}}}`"
    needs, roles = NEEDS[verdict.method]
    named = fragment(dict.fromkeys(roles, "COLUMN"), None)
    said = f"Give rows that hold {needs}; where they do, name the columns in the recipe: `data: {{{named}}}`"
    other = detection.recommended
    return (
        f"{said}. Rows like these are for {other}: `method: {other}`" if other not in (None, verdict.method) else said
    )


def fragment(mapping: dict[str, str] | None, kept: dict[str, Any] | None) -> str:
    """A mapping and a filter on one line, as they stand under `data:` in a recipe."""
    parts = {"mapping": mapping, "filter": kept}
    return ", ".join(f"{name}: {_flow(part)}" for name, part in parts.items() if part)


def _flow(part: dict[str, Any]) -> str:
    return "{" + ", ".join(f"{key}: {_scalar(value)}" for key, value in part.items()) + "}"


def _scalar(value: Any) -> str:
    # JSON is YAML, too.
    return value if isinstance(value, str) and _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)
