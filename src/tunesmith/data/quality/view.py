"""The rows as checks see them, and what a check gives back."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...progress import Progress, silent
from ...records import Finding, Severity
from ..rows import Place, name_places
from .private import hidden
from .texts import Said

_SHOWN, _LOOKED_AT = 60, 2_000
_MANY = 0.01


@dataclass(frozen=True)
class View:
    """Rows under examination.

    Attributes:
        rows: What they say.
        places: Their numbers in the file.
        where: What findings call the file.
        progress: Hears of long checks.
    """

    rows: Sequence[Said]
    places: Sequence[Place]
    where: str
    progress: Progress = silent

    def named(self, numbers: Iterable[int], total: int | None = None) -> dict[str, Any]:
        """How findings speak of rows: count, total (default: all rows) and rows; each row is named once."""
        struck = list(dict.fromkeys(numbers))
        total = len(self.rows) if total is None else total
        shown = name_places([self.places[number] for number in struck])
        return {"count": f"{len(struck):,}", "total": f"{total:,}", "rows": shown}

    def matching(self, pattern: str) -> list[int]:
        """Numbers of rows with a match of `pattern`, in RE2's syntax; much faster than Python's own."""
        import pyarrow.compute as pc

        return [int(number) for number in pc.indices_nonzero(pc.match_substring_regex(self._texts, pattern))]

    @functools.cached_property
    def _texts(self) -> Any:
        import pyarrow as pa

        return pa.array((row.whole.encode(errors="replace") for row in self.rows), pa.large_binary())

    def taught(self) -> list[tuple[int, str]]:
        """Each answer that is to be given, with its row's number."""
        return [(number, answer) for number, row in enumerate(self.rows) for answer in row.taught]


@dataclass
class Outcome:
    """What a check found.

    Attributes:
        figures: Fields of records.Quality.
        findings: What is wrong.
    """

    figures: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


Check = Callable[[View], Outcome]


def severity(struck: int, total: int) -> Severity | None:
    """The rule's own from one row in a hundred on, below that a note."""
    return None if struck >= _MANY * total else "note"


def quoted(text: str) -> str:
    """The beginning of a text, on one line and in quotation marks, with what is private in it masked."""
    line = re.sub(r"\s+", " ", hidden(text[:_LOOKED_AT])).strip()
    return f'"{line}"' if len(line) <= _SHOWN else f'"{line[:_SHOWN]}…"'
