"""Raw data from where it lies: files of all common formats, folders, globs, datasets on the Hub, mixtures of these."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ...recipe.schema import Source
from ...records import Finding
from ...records.data import SourceFile
from ...rules import FindingsError, finding
from ...words import counted
from ..rows import BadRowError, Numbered, Place, Row, name_places
from . import mixture
from .content import Content, Held
from .embedded import Opener, columns_of
from .found import Spec, as_sources, find_files, is_hub, other_splits
from .json_text import Noted, Reader

if TYPE_CHECKING:
    import numpy

    from ..shape import Structure


_NAMED = 3
"""Files that a finding names at most."""


@dataclass(frozen=True)
class RawData:
    """The rows of one or several files, as they stand there.

    Attributes:
        name: For findings: the file's name, or "3 files".
        files: The files.
        rows: One dict per row; values as the format gives them (CSV and TSV: text), but for
            conversations, which are opened where they stand as text.
        places: Each row's number in its file, counted from 1: the line in JSONL, CSV, TSV and text, the row elsewhere.
        rejected: Rows that can't be parsed, with the reason.
        findings: What the user should know of how they were read.
        unit: What places count: "line" or "row".
        refused: Of rows that were looked at already and aren't among `rows`, those that can't be trained on.
        filtered: Of such rows, the number of those that a filter leaves out.
        total: Number of readable rows, where `rows` are only some of them.
    """

    name: str
    files: list[SourceFile]
    rows: list[Row]
    places: list[Place]
    rejected: list[tuple[Place, BadRowError]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    unit: str = "row"
    refused: list[tuple[Place, BadRowError]] = field(default_factory=list)
    filtered: int = 0
    total: int | None = None

    @property
    def sha256(self) -> str:
        """The file's fingerprint; of several files, that of their fingerprints, one a line."""
        if len(self.files) == 1:
            return self.files[0].sha256
        return hashlib.sha256("".join(f"{file.sha256}\n" for file in self.files).encode()).hexdigest()

    @property
    def bytes(self) -> int:
        """The files' size together."""
        return sum(file.bytes for file in self.files)

    @property
    def path(self) -> Path:
        """The name as a path."""
        return Path(self.name)

    @property
    def folder(self) -> Path:
        """Where the (first) file lies, from which the paths in its rows start."""
        return Path(self.files[0].name).parent

    def unparsed(self) -> Finding | None:
        """D001 for the rejected rows, where there are any: how many, and the first with its reason."""
        if not self.rejected:
            return None
        first, problem = self.rejected[0]
        where = f"{self.unit} {first}" if isinstance(first, int) else first
        count = len(self.rejected)
        text = f"{counted(count, self.unit)} can't be parsed, the first is {where}" if count > 1 else f"In {where}"
        shown = f" (`sed -n {first}p {self.name}` shows it)" if self.unit == "line" and isinstance(first, int) else ""
        return finding("D001", self.name, error=f"{text}: {problem.found}.", place=f"{where}{shown}")


class Opened:
    """Sources whose rows can be streamed, as often as needed.

    Attributes:
        name: For findings: the file's name, or "3 files".
        findings: What the last whole pass found (D020, D021, D048), and what weights leave out (D023).
    """

    def __init__(self, spec: Spec, *, seed: int = 42) -> None:
        """Find the files and look at their beginnings; see `open_source`."""
        sources = as_sources(spec)
        self._weights = mixture.weights_of(sources)
        self._seed = seed
        self._sources = [(source, _contents(source)) for source in sources]
        self._aside = [
            finding(
                "D045", source.path, files=", ".join(names[:_NAMED]), count=len(names), split=source.split or "train"
            )
            for source in sources
            if (names := other_splits(source))
        ]
        self._contents = [content for _, contents in self._sources for content in contents]
        self.name = self._contents[0].name if len(self._contents) == 1 else counted(len(self._contents), "file")
        self._counts: list[int] = []
        self.findings: list[Finding] = []

    @property
    def unit(self) -> str:
        """What places count: "line" where all files are counted so, else "row"."""
        return "line" if all(content.by_lines for content in self._contents) else "row"

    @property
    def titles(self) -> list[str]:
        """What records call the files."""
        return [content.title for content in self._contents]

    @property
    def folder(self) -> Path:
        """Where the (first) file lies, from which the paths in its rows start."""
        return Path(self.titles[0]).parent

    @property
    def bytes(self) -> int:
        """The files' size together, as they lie on the disk."""
        return sum(content.file.path.stat().st_size for content in self._contents if isinstance(content, Content))

    @property
    def files(self) -> list[SourceFile]:
        """The files' records; their rows are counted by a pass where none was made."""
        if not self._counts:
            for _ in self.rows():
                pass
        return [content.record(rows) for content, rows in zip(self._contents, self._counts, strict=True)]

    @cached_property
    def embedded(self) -> list[str]:
        """The columns of any file in which conversations stand as text, by the first rows of each."""
        return [column for content in self._contents for column in columns_of(content.rows(Reader()))]

    def rows(self) -> Iterator[Numbered]:
        """The rows, one source after another, streamed; with weights, those of the mixture.

        Raises:
            FindingsError: D001, D003, D022, D024: a file can't be read at all.
        """
        masks = iter(self._masks)
        counts: list[int] = []
        findings = [*self._aside, *self._left_out]
        for source, contents in self._sources:
            mask = next(masks, None)
            index = 0
            for numbered in self._source_rows(source, contents, counts, findings):
                if numbered.row is not None:
                    index += 1
                    if mask is not None and not mask[index - 1]:
                        continue
                yield numbered
        self._counts, self.findings = counts, findings

    def structure(self) -> Structure:
        """What the rows are made of, in memory that doesn't grow with their number.

        Raises:
            As rows.
        """
        from ..structure import of_lines, of_rows

        plain = self._weights is None and all(source.rows is None for source, _ in self._sources)
        contents = [content for content in self._contents if isinstance(content, Content) and content.is_json_lines]
        # duckdb would see the texts that are opened here.
        if plain and len(contents) == len(self._contents) and not self.embedded:
            files = [(self._prefix(content), content.file.path, content.name) for content in contents]
            return of_lines(files)
        return of_rows(self.rows)

    def _source_rows(
        self, source: Source, contents: list[Content | Held], counts: list[int], findings: list[Finding]
    ) -> Iterator[Numbered]:
        """All rows of one source, as far as it wants them; adds to `counts` and `findings`."""
        wanted = source.rows
        for content in contents:
            reader, opener = Reader(), Opener()
            prefix = self._prefix(content)
            count = 0
            rows = opener.rows(itertools.islice(content.rows(reader), wanted))
            for count, numbered in enumerate(rows, 1):  # noqa: B007 - the last count is used after the loop
                yield numbered._replace(place=f"{prefix}{numbered.place}") if prefix else numbered
            counts.append(count)
            findings += _noted(reader, opener, content.name)
            wanted = None if wanted is None else wanted - count

    def _prefix(self, content: Content | Held) -> str:
        """What stands before a row's number in its place: nothing for a single file."""
        if len(self._contents) == 1:
            return ""
        same = sum(other.name == content.name for other in self._contents) > 1
        return f"{content.file.title if same and isinstance(content, Content) else content.name}:"

    @cached_property
    def _mixed(self) -> tuple[list[numpy.ndarray], list[Finding]]:
        """With weights, the rows of each source that are taken, and D023 for those that aren't."""
        if self._weights is None:
            return [], []
        totals = [
            sum(numbered.row is not None for numbered in self._source_rows(source, contents, [], []))
            for source, contents in self._sources
        ]
        takes = mixture.largest_mixture(totals, self._weights)
        masks = [
            mixture.chosen(*pair, self._seed, number) for number, pair in enumerate(zip(totals, takes, strict=True))
        ]
        left = [
            finding("D023", source.path, left=f"{total - take:,}", total=f"{total:,}", weight=source.weight)
            for (source, _), total, take in zip(self._sources, totals, takes, strict=True)
            if take < total
        ]
        return masks, left

    @property
    def _masks(self) -> list[numpy.ndarray]:
        return self._mixed[0]

    @property
    def _left_out(self) -> list[Finding]:
        return self._mixed[1]


def open_source(spec: Spec, *, seed: int = 42) -> Opened:
    """Find what `spec` names, to stream it.

    Args:
        spec: A path, glob, folder or Hub id, a recipe's Source, or several of these.
        seed: Draws the rows of a mixture by weight.

    Raises:
        UsageError: there is nothing of the name, or it may not be read with this token.
        EnvironmentLacksError: a file may not be read, or the Hub can't be reached.
        FindingsError: D003, a file is neither text nor Parquet; D001, D022, one can't be unpacked.
    """
    return Opened(spec, seed=seed)


def read(spec: Spec, *, seed: int = 42) -> RawData:
    """Read all rows of `spec`; those that can't be parsed are given as `rejected`.

    Args:
        spec: As for `open_source`.
        seed: As for `open_source`.

    Raises:
        As open_source; FindingsError: D001 no row can be parsed, D002 no rows.
    """
    opened = open_source(spec, seed=seed)
    rows: list[Row] = []
    places: list[Place] = []
    rejected: list[tuple[Place, BadRowError]] = []
    for numbered in opened.rows():
        if numbered.row is None:
            rejected.append((numbered.place, BadRowError("D001", opened.unit, numbered.problem or "")))
        else:
            rows.append(numbered.row)
            places.append(numbered.place)
    raw = RawData(opened.name, opened.files, rows, places, rejected, opened.findings, opened.unit)
    if not rows:
        raise FindingsError([raw.unparsed() or finding("D002", opened.name, left="")])
    return raw


def _contents(source: Source) -> list[Content | Held]:
    if not is_hub(source):
        return [Content(file) for file in find_files(source)]
    from .hub import find_on_hub, first_rows

    if source.rows is not None:
        return [Held(*first_rows(source, source.rows))]
    return [Content(file) for file in find_on_hub(source)]


def _noted(reader: Reader, opener: Opener, name: str) -> list[Finding]:
    noted = (("D020", reader.repeated), ("D021", reader.unknown))
    found = [finding(code, name, places=_places(rows)) for code, rows in noted if rows.rows]
    opened = ((column, rows.rows) for column, rows in opener.opened.items())
    return found + [finding("D048", name, column=column, count=f"{rows:,}") for column, rows in opened]


def _places(noted: Noted) -> str:
    if noted.places == ["the file"]:
        return "the file"
    return name_places(noted.places, noted.rows - len(noted.places))


__all__ = ["Opened", "RawData", "Spec", "open_source", "read"]
