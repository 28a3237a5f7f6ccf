"""What answers are scored by: shipped scores, functions of the user's, reward models."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..records import Comparison, Finding
from ..rewards import (
    OfCorpus,
    RewardError,
    RewardFunction,
    Shipped,
    checked_numbers,
    in_words,
    outside_trainer,
    settled,
)
from ..rules import finding
from .comparisons import compare_means
from .corpus import compare_corpus
from .resampling import Groups

Values = Sequence[Any] | Finding
"""Of each answer what it scores (float), or adds to a score of all (Counts); None: no opinion. A finding: it failed."""
WHERE: Final = "evaluation.scores"


@dataclass(frozen=True)
class Score:
    """A score as the recipe names it.

    Attributes:
        name: Its metric's.
        spelt: As it stands in the recipe.
        function: Takes what a trainer passes to a reward.
    """

    name: str
    spelt: str
    function: RewardFunction

    def take(self, given: Mapping[str, Any]) -> Values:
        """What the answers score; `given` is what a trainer would pass: prompts, completions, columns by name."""
        try:
            if isinstance(self.function, OfCorpus):
                return self.function.all_counts(**given)
            return checked_numbers(settled(self.function(**given, **outside_trainer())), len(given["completions"]))
        except (Exception, SystemExit) as error:  # whatever the user's code raises: other measures must not be lost
            return self._failed(error, chat=not isinstance(given["completions"][0], str))

    def compare(
        self, base: Values, tuned: Values, groups: Groups | None, split: str
    ) -> tuple[list[Comparison], list[Finding]]:
        """Base and tuned on the answers that it has an opinion on of both; E024 or E027 where it can't be told."""
        if failed := next((values for values in (base, tuned) if isinstance(values, Finding)), None):
            return [], [failed]
        pairs = list(zip(base, tuned, strict=True))
        both = [index for index, pair in enumerate(pairs) if None not in pair]
        if not both:
            return [], [finding("E027", split, score=self.spelt)]
        before, after = zip(*(pairs[index] for index in both), strict=True)
        of_both = [groups[index] for index in both] if groups else None
        if isinstance(self.function, OfCorpus):
            return [compare_corpus(self.name, before, after, self.function.total, of_both)], []
        shares = self.function.share if isinstance(self.function, Shipped) else None
        return [compare_means(self.name, before, after, of_both, shares=shares)], []

    def worth(self, values: Values) -> list[float | None]:
        """What each answer alone is worth; nothing where the score failed."""
        if isinstance(values, Finding):
            return []
        if not isinstance(self.function, OfCorpus):
            return list(values)
        return [None if counts is None else self.function.total(counts) for counts in values]

    def _failed(self, error: BaseException, *, chat: bool) -> Finding:
        if not isinstance(error, RewardError):
            logging.getLogger(__name__).error("%s failed", self.spelt, exc_info=error)
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            error = RewardError("died" if isinstance(error, SystemExit) else "raised", said)
        problem, remedy = in_words(self.spelt, error, chat=chat)
        return finding("E024", WHERE, function=self.spelt, problem=problem, remedy=remedy)


def versions(scores: Sequence[Score]) -> dict[str, str]:
    """The signature of each score of sacrebleu's, by which others can repeat it."""
    return {score.name: score.function.signature for score in scores if isinstance(score.function, OfCorpus)}
