"""Tuned against base."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from .base import Finding, Part, Record

SuiteName = Literal["task", "regression", "harness", "conversations"]


class Interval(Part):
    """A confidence interval."""

    low: float
    high: float
    level: float = 0.95
    method: str


class Effect(Part):
    """How large a difference is, in a unit that doesn't depend on the metric."""

    name: str
    value: float


class Unseen(Part):
    """A comparison on the rows alone that are unlike any row that was trained on."""

    rows: int
    base: float
    tuned: float
    difference: float
    p_value: float | None


class Comparison(Part):
    """One metric of tuned against base on the same rows."""

    metric: str
    suite: SuiteName = "task"
    better: Literal["higher", "lower"]
    rows: int
    groups: int | None = Field(default=None, description="Groups of rows that were resampled as one, if there are any")
    base: float
    tuned: float
    difference: float = Field(description="tuned - base")
    interval: Interval | None
    p_value: float | None
    adjusted: float | None = Field(
        default=None, description="The p-value by Holm's correction, for a metric that is one among many"
    )
    test: str | None
    significant: bool = Field(description="The p-value, adjusted where there is such, is below 0.05")
    effect: Effect | None = None
    changed: float | None = Field(
        default=None, description="Of shares of independent rows: share of them that just one of the models is right on"
    )
    detectable: float | None = Field(
        default=None, description="Least difference that so many rows of this spread show with a power of 80%"
    )
    margin: float | None = Field(default=None, description="Loss that is accepted, in the metric's unit")
    kept: bool | None = Field(default=None, description="Shown not to be worse by more than the margin")
    unseen: Unseen | None = Field(default=None, description="The same on rows that training didn't see, if it saw some")

    def gain(self, value: float) -> float:
        """A difference in the metric, above 0 where tuned is better."""
        return value if self.better == "higher" else -value

    @property
    def lost(self) -> bool:
        """Whether tuned is shown to be worse, unless it is also shown to have lost less than is accepted."""
        return self.significant and self.gain(self.difference) <= 0 and not self.kept


class ChangedRow(Part):
    """A row on which base and tuned differ in being right, or in what their answers score."""

    row: int
    prompt: str
    expected: str
    base: str
    tuned: str
    change: Literal["fixed", "broken"] = Field(
        description="Broken: the base is right, or scores more; with scores that is worse, not broken"
    )
    scores: tuple[float, float] | None = Field(
        default=None, description="What the answers of base and tuned score, where that isn't right or wrong"
    )


class Side(Part):
    """A model under test: what it is, and how its answers look."""

    kind: Literal["base", "run", "endpoint"]
    name: str = Field(description="The model's id, the run's folder or the server's address")
    answers: int = Field(default=0, description="Greedy answers that were taken of it")
    stop_rate: float | None = Field(default=None, description="Share of answers that ended by themselves")
    empty: float | None = Field(default=None, description="Share of answers without any text")
    tokens: float | None = Field(default=None, description="Mean length of the answers")
    repetition: float | None = Field(
        default=None, description="Mean share of an answer's 4-grams of tokens that stand in it before (seq-rep-4)"
    )


class Leakage(Part):
    """Held-out rows that training saw."""

    rows: int = Field(description="Held-out rows that were looked at")
    exact: int = Field(description="Those that are equal to a row trained on")
    near: int = Field(description="Those that are nearly equal to one, and not exactly")
    method: str
    examples: list[tuple[int, int]] = Field(default=[], description="Held-out row and training row, from 1")

    @property
    def leaks(self) -> bool:
        """Whether there are any."""
        return self.exact + self.near > 0


class Graded(Part):
    """How a judge graded both models by one criterion, from 0 to 1."""

    name: str
    weight: float
    safety: bool = False
    base: float
    tuned: float
    difference: float


class Judging(Part):
    """Full conversations, and how far their judge can be trusted."""

    simulator: str
    judge: str
    personas: int
    conversations: int = Field(description="Of each model")
    dropped: int = Field(default=0, description="Further pairs, which nobody began; they aren't graded")
    turns: tuple[int, int] = Field(default=(0, 0), description="Of base and of tuned, in all conversations")
    cut: tuple[int, int] = Field(default=(0, 0), description="Those of them that were cut off at the limit of tokens")
    refused: tuple[int, int] = Field(
        default=(0, 0), description="Those that the model's server refused; each counts as an empty answer"
    )
    graded: int = Field(description="Pairs of conversations that were graded in both orders")
    safety_graded: int = Field(default=0, description="The same by the safety rubric")
    asked: int = Field(default=0, description="Times that the judge was to grade a pair: two orders by each rubric")
    failed: int = Field(default=0, description="Those of them that gave no grades, however often they were asked for")
    agreement: float | None = Field(default=None, description="Share of pairs that both orders prefer alike")
    position_bias: float | None = Field(
        default=None, description="Mean gain of the conversation that is shown first, from -1 to 1"
    )
    position_p_value: float | None = Field(default=None, description="Of no such gain, by personas")
    criteria: list[Graded] = []
    transcripts: str = Field(description="Folder of the transcripts, in the run's")


class Conclusion(Part):
    """Whether what was asked of the evaluation holds."""

    met: bool | None = Field(description="None: nothing was asked for, or nothing could be judged")
    sentence: str
    reasons: list[str] = Field(default=[], description="What doesn't hold, one line each")


class EvalReport(Record):
    """Tuned against base on held-out rows."""

    filename: ClassVar[str] = "eval.json"

    rows: int
    split: str
    base: Side | None = None
    tuned: Side | None = None
    comparisons: list[Comparison]
    primary: str | None = Field(default=None, description="Metric of the comparison that the verdict rests on")
    conclusion: Conclusion | None = None
    fixed: int = Field(default=0, description="Rows that tuned is right on and base isn't, or that it scores more on")
    broken: int = Field(default=0, description="Rows that base is right on and tuned isn't, or that it scores more on")
    changed: list[ChangedRow] = Field(default=[], description="Up to 20 of the fixed and 20 of the broken rows")
    leakage: Leakage | None = None
    base_leakage: Leakage | None = Field(default=None, description="Of the run whose result is the base, if it is one")
    judging: Judging | None = None
    versions: dict[str, str] = Field(default={}, description="Of the tools that measured, by name")
    max_new_tokens: int | None = None
    seconds: float
    findings: list[Finding] = []

    @property
    def graded(self) -> bool:
        """Whether changed rows score more or less than they did, rather than being right or wrong."""
        return any(row.scores is not None for row in self.changed)

    def of(self, suite: SuiteName) -> list[Comparison]:
        """The comparisons of a suite."""
        return [one for one in self.comparisons if one.suite == suite]

    @property
    def judged(self) -> Comparison | None:
        """The comparison that the verdict rests on."""
        return next((one for one in self.of("task") if one.metric == self.primary), None)
