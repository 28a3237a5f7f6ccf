"""The label audit's counts, from token columns: one for each sequence that the trainer makes of a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..records import Cutting, PairAudit, PreviewRow
from .labels import LabelColumns
from .rows import Place

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BLANKS = 4
"""Trained tokens besides stop tokens that an empty answer can have: line breaks that the template writes."""

_PAIR = ("chosen", "rejected")


@dataclass(frozen=True)
class Counted:
    """Rows as the trainer has them: one LabelColumns for each side of a row (two for pairs, else one).

    Attributes:
        sides: The chosen side first; all have the same rows in the same order.
        tokenizer: The model's.
        stops: Ids of the tokens at which generation stops.
    """

    sides: Sequence[LabelColumns]
    tokenizer: PreTrainedTokenizerBase
    stops: list[int]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.sides[0].rows

    def stop_counts(self, side: LabelColumns) -> npt.NDArray[np.int64]:
        """Trained stop tokens of each row of a side, shape (rows,)."""
        return side.per_row(side.among(self.stops) & side.trained)

    def fields(self, *, scored: bool) -> dict[str, Any]:
        """The fields of a LabelAudit that follow from the tokens; `scored`: each sequence gets one score, no stop."""
        both = LabelColumns.joined(self.sides)
        tokens, trained = len(both.ids), int(both.trained.sum())
        untrained = reduce(np.logical_and, [side.per_row(side.trained) == 0 for side in self.sides])
        bos = self.tokenizer.bos_token_id
        without = [0 if scored else int((self.stop_counts(side) == 0).sum()) for side in self.sides]
        alone = [np.zeros(self.rows, dtype=bool) if scored else self._stop_only(side) for side in self.sides]
        return {
            "rows_kept": self.rows,
            "rows_untrained": int(untrained.sum()),
            "tokens": tokens,
            "trained_tokens": trained,
            "trained_percent": round(100 * trained / tokens, 2) if tokens else 0.0,
            "stop_tokens": [str(token) for token in self.tokenizer.convert_ids_to_tokens(self.stops)],
            "rows_without_stop": without[0],
            "rows_stop_only": int(reduce(np.logical_or, alone).sum()),
            "bos_per_row": {0: self.rows} if bos is None else self.sides[0].leading(bos),
            "pairs": self._pairs(without, scored=scored) if len(self.sides) == len(_PAIR) else None,
        }

    def _pairs(self, without: list[int], *, scored: bool) -> PairAudit:
        chosen, rejected = self.sides
        prompts = 0 if scored else int((~chosen.trained).sum())
        return PairAudit(
            prompt_tokens=prompts,
            chosen_tokens=len(chosen.ids) if scored else int(chosen.trained.sum()),
            rejected_tokens=len(rejected.ids) if scored else int(rejected.trained.sum()),
            equal=int(chosen.same_as(rejected).sum()),
            chosen_without_stop=without[0],
            rejected_without_stop=without[1],
        )

    def _stop_only(self, side: LabelColumns) -> npt.NDArray[np.bool_]:
        """Rows with no trained token but stop tokens and the blanks around them, shape (rows,)."""
        stopping = side.among(self.stops) & side.trained
        others = side.trained & ~stopping
        few = side.per_row(others) <= _BLANKS
        suspects = side.of_rows(others, few)
        blank = [token for token in set(side.ids[suspects].tolist()) if not self.tokenizer.decode([token]).strip()]
        said = side.per_row(suspects & ~side.among(blank))
        only: npt.NDArray[np.bool_] = few & (said == 0) & (side.per_row(stopping) > 0)
        return only

    def cutting(self, limit: int, *, from_end: bool) -> Cutting:
        """What is lost of rows that weren't cut yet when only `limit` tokens of each sequence stay (the last ones)."""
        beyond = [side.beyond(limit, from_end=from_end) for side in self.sides]
        answers = [side.per_row(side.trained) for side in self.sides]
        lost = [side.per_row(gone & side.trained) for side, gone in zip(self.sides, beyond, strict=True)]
        gone = reduce(np.logical_or, [(n > 0) & (n == all_) for n, all_ in zip(lost, answers, strict=True)])
        part = reduce(np.logical_or, [n > 0 for n in lost]) & ~gone
        stops = []
        for side, cut in zip(self.sides, beyond, strict=True):
            stopping = side.among(self.stops) & side.trained
            stops.append((side.per_row(stopping) > 0) & (side.per_row(stopping & ~cut) == 0))
        return Cutting(
            end="beginning" if from_end else "end",
            tokens=int(sum(cut.sum() for cut in beyond)),
            answer_tokens=int(sum(n.sum() for n in lost)),
            answers_cut=int(part.sum()),
            answers_gone=int(gone.sum()),
            stops_gone=int(reduce(np.logical_or, stops).sum()),
        )

    def preview(self, most: int, places: Sequence[Place], cut: npt.NDArray[np.bool_] | None) -> list[PreviewRow]:
        """At most `most` rows: those worth a look (the first, a cut one, one without a stop, the longest), then any.

        Args:
            most: Rows to show; a pair counts as one and gives two results.
            places: Where each row stands in its file.
            cut: Which rows were cut, shape (rows,); None where it isn't known.
        """
        if not self.rows:
            return []
        first = self.sides[0]
        candidates = [("the first row", np.arange(1, dtype=np.int64))]
        if cut is not None:
            candidates.append(("cut at max_length", np.flatnonzero(cut)[:1]))
        candidates.append(("trains no stop token", np.flatnonzero(self.stop_counts(first) == 0)[:1]))
        candidates.append(("the longest row", np.argmax(first.lengths, keepdims=True)))
        reasons: dict[int, list[str]] = {}
        for why, found in candidates:
            for row in found.tolist():
                reasons.setdefault(row, []).append(why)
        shown = list(dict.fromkeys([*reasons, *range(min(most, self.rows))]))[:most]
        names = [[name] for name in _PAIR] if len(self.sides) == len(_PAIR) else [[]]
        return [
            PreviewRow(
                row=places[row],
                spans=side.spans(row, self.tokenizer),
                why=", ".join([*name, *reasons.get(row, [])]),
            )
            for row in sorted(shown)
            for name, side in zip(names, self.sides, strict=True)
        ]
