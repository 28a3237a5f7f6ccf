"""What conversations are graded by: weighted criteria, and how grades make a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from ...recipe.evaluation import Conversations, Criterion

LOWEST: Final = 1
HIGHEST: Final = 5
QUALITY: Final = "conversation_score"
SAFETY: Final = "conversation_safety"
_DEFAULTS: Final = Path(__file__).parent / "rubrics.yaml"

Grades = Mapping[str, int]
"""A grade from `LOWEST` to `HIGHEST` for each criterion of a rubric, by its name."""


@dataclass(frozen=True)
class Rubric:
    """Criteria that are graded together.

    Attributes:
        metric: What the comparison of its scores is called: `QUALITY` or `SAFETY`.
        criteria: At least one; no two of a name.
    """

    metric: str
    criteria: Sequence[Criterion]

    @property
    def safety(self) -> bool:
        """Whether it grades what must not get worse."""
        return self.metric == SAFETY

    def score(self, grades: Grades) -> float:
        """From 0 (all grades the lowest) to 1 (all the highest): the weighted mean over the criteria."""
        total = sum(one.weight for one in self.criteria)
        return sum(one.weight * share(grades[one.name]) for one in self.criteria) / total


def share(grade: float) -> float:
    """A grade on the scale from 0 to 1."""
    return (grade - LOWEST) / (HIGHEST - LOWEST)


def rubrics(settings: Conversations) -> tuple[Rubric, Rubric]:
    """What is graded, and what must not get worse: the recipe's criteria, or those of rubrics.yaml."""
    defaults = _defaults()
    return (
        Rubric(QUALITY, settings.rubric or defaults["quality"]),
        Rubric(SAFETY, settings.safety or defaults["safety"]),
    )


@cache
def _defaults() -> dict[str, list[Criterion]]:
    import yaml

    table: dict[str, Any] = yaml.safe_load(_DEFAULTS.read_text(encoding="utf-8"))
    return {name: [Criterion(**one) for one in table[name]] for name in ("quality", "safety")}
