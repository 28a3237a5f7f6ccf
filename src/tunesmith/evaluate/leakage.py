"""Held-out rows that training saw, exactly or nearly, and what the scores are without them.

A row leaks by its prompt: what the model was asked in training, it may know the answer to by heart, whichever answer it
was given. Rows of plain text leak by the whole text. Only the run's own training rows are looked at; what its base was
trained on before isn't known.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..data.quality.near import THRESHOLD, common_shingles, parts
from ..data.quality.shingles import Hashes, Shingles, shingle
from ..data.quality.texts import said, sample
from ..data.rows import name_places
from ..data.split import prompt_of
from ..files import sha256
from ..records import Comparison, EvalReport, Finding, Leakage, Severity, Split, Unseen
from ..rules import finding
from .findings import improved
from .outcome import Divisible, Measure, Outcome
from .rows import Row

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_array

EXAMPLES: Final = 10
MANY: Final = 0.01
"""Share of near copies from which on they are a warning; below, they are a note."""
_BOILERPLATE_FROM: Final = 1_000
METHOD: Final = f"equal prompts; near: {THRESHOLD:.0%} of three-word shingles shared (Jaccard)"


@dataclass(frozen=True)
class Seen:
    """What training saw of the held-out rows.

    Attributes:
        record: The count, None where the training rows couldn't be read.
        rows: Numbers of the held-out rows that it saw, exactly or nearly.
        findings: E046, E047 or E049.
    """

    record: Leakage | None = None
    rows: frozenset[int] = frozenset()
    findings: list[Finding] = field(default_factory=list)


def look(rows: Sequence[Row], split: str, folder: Path, train: Split) -> Seen:
    """Compare held-out rows with those that a run was trained on.

    Args:
        rows: At least one held-out row.
        split: What findings call them.
        folder: The run's folder.
        train: Its training rows.
    """
    path = folder / train.path
    if not path.is_file() or sha256(path) != train.sha256:
        return Seen(findings=[finding("E049", split, path=train.path)])
    with path.open(encoding="utf-8") as file:
        known = [json.loads(line) for line in file]
    exact = _equal(rows, known)
    near = _near([row for row in rows if row.number not in exact], known)
    pairs = sorted([*exact.items(), *near.items()])
    record = Leakage(rows=len(rows), exact=len(exact), near=len(near), method=METHOD, examples=pairs[:EXAMPLES])
    return Seen(record, frozenset(exact | near), _findings(split, len(rows), exact, near))


def beside(outcome: Outcome, measure: Measure, taken: tuple[Any, Any], seen: Collection[int]) -> Outcome:
    """The outcome with each comparison on unseen rows beside it, where the measure can be told row by row.

    Args:
        outcome: What the measure said of all rows.
        measure: The measure itself.
        taken: What it took of base and tuned.
        seen: Numbers of the rows that training saw.
    """
    if not seen or not isinstance(measure, Divisible):
        return outcome
    before, after = (measure.without(seen, arm) for arm in taken)
    if before is None or after is None:
        return outcome
    (part, base), (_, tuned) = before, after
    others = {one.metric: one for one in part.compare(base, tuned).comparisons}
    told = [_with(one, others.get(one.metric)) for one in outcome.comparisons]
    return replace(outcome, comparisons=told)


def verdict(report: EvalReport) -> list[Finding]:
    """E048 where the primary metric is significantly better on all rows, and not on those that training didn't see."""
    judged = report.judged
    if judged is None or judged.unseen is None or not (judged.significant and improved(judged)):
        return []
    other = judged.unseen
    better = other.difference * judged.difference > 0
    if better and other.p_value is not None and other.p_value < 0.05:
        return []
    return [finding("E048", report.split, metric=judged.metric, rows=other.rows, base=other.base, tuned=other.tuned)]


def _with(comparison: Comparison, other: Comparison | None) -> Comparison:
    if other is None:
        return comparison
    values = {name: getattr(other, name) for name in ("rows", "base", "tuned", "difference", "p_value")}
    return comparison.model_copy(update={"unseen": Unseen(**values)})


def _findings(split: str, total: int, exact: Mapping[int, int], near: Mapping[int, int]) -> list[Finding]:
    found = []
    if exact:
        rows = name_places(sorted(exact))
        found.append(finding("E046", split, count=len(exact), total=total, rows=rows))
    if near:
        rows = name_places(sorted(near))
        severity: Severity | None = None if len(near) >= MANY * total else "note"
        found.append(finding("E047", split, severity=severity, count=len(near), total=total, rows=rows))
    return found


def _equal(rows: Sequence[Row], known: Sequence[dict[str, Any]]) -> dict[int, int]:
    """Held-out row -> the first training row with its prompt, both counted from 1."""
    first: dict[str, int] = {}
    for number, row in enumerate(known, start=1):
        first.setdefault(prompt_of(row), number)
    return {row.number: first[prompt] for row in rows if (prompt := prompt_of(row.content)) in first}


def _near(rows: Sequence[Row], known: Sequence[dict[str, Any]]) -> dict[int, int]:
    """Held-out row -> the training row whose prompt is most like its own, where they are near copies; from 1.

    Rows with images aren't looked at: their prompts are alike, and their images the question.
    """
    asked = [row for row in rows if not row.content.get("images")]
    texts = [said(row.content).prompt for row in asked]
    found = nearest(texts, [said(row).prompt for row in known])
    return {asked[index].number: other + 1 for index, other in found.items()}


def nearest(texts: Sequence[str], known: Sequence[str], threshold: float = THRESHOLD) -> dict[int, int]:
    """For each of a few texts the one of many that is most like it, by numbers from 0, where they are near copies.

    Every pair is compared exactly, by the Jaccard similarity of its shingles; what a tenth of all texts share counts
    for nothing.
    """
    import numpy as np

    some = [known[index] for index in sample(len(known), _BOILERPLATE_FROM)]
    common = common_shingles([*some, *(texts[index] for index in sample(len(texts), _BOILERPLATE_FROM))])
    made = shingle(texts).without(common)
    vocabulary = np.unique(made.hashes)
    own, sizes = _table(made, vocabulary)
    best: dict[int, tuple[float, int]] = {}
    for part in parts([len(text) for text in known]):
        theirs, their_sizes = _table(shingle(known[part]).without(common), vocabulary)
        shared = (own @ theirs.T).tocoo()
        similarity = shared.data / (sizes[shared.row] + their_sizes[shared.col] - shared.data)
        close = similarity >= threshold
        for index, other, value in zip(shared.row[close], shared.col[close], similarity[close], strict=True):
            # Of several that are equally like it, the first.
            best[int(index)] = max(best.get(int(index), (0.0, 0)), (float(value), -part.start - int(other)))
    return {index: -other for index, (_, other) in best.items()}


def _table(made: Shingles, vocabulary: Hashes) -> tuple[csr_array, np.ndarray]:
    """Which of the vocabulary's shingles are in each document, (documents, vocabulary), and how many any has in all."""
    import numpy as np
    from scipy.sparse import csr_array

    count = len(made.offsets) - 1
    owner = np.repeat(np.arange(count), made.counts)
    order = np.lexsort((made.hashes, owner))
    hashes, owner = made.hashes[order], owner[order]
    first = np.ones(len(hashes), dtype=bool)
    first[1:] = (hashes[1:] != hashes[:-1]) | (owner[1:] != owner[:-1])
    hashes, owner = hashes[first], owner[first]
    there = np.isin(hashes, vocabulary)
    columns = np.searchsorted(vocabulary, hashes[there])
    table = csr_array((np.ones(len(columns)), (owner[there], columns)), shape=(count, len(vocabulary)))
    return table, np.bincount(owner, minlength=count)
