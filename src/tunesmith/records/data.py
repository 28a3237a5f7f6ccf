"""What the data is."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from .base import Finding, Part, Record, Wanted
from .quality import Quality

Layout = Literal[
    "messages",
    "sharegpt",
    "alpaca",
    "prompt-completion",
    "question-answer",
    "text",
    "preference",
    "unpaired-preference",
    "prompt-only",
    "stepwise",
    "unknown",
]
TrainedLayout = Literal["messages", "prompt-completion", "text", "preference", "unpaired-preference", "prompt-only"]
LossOn = Literal["completion", "assistant", "all", "score"]


class Column(Part):
    """A column of the raw data, over all rows."""

    name: str
    type: str = Field(description="Type in plain words: text, number, boolean, list, object, mixed")
    nulls: int = Field(description="Rows in which the value is null or absent")
    example: str = Field(description="First non-null value, shortened")


class Verdict(Part):
    """Whether a method can train on this data."""

    method: str
    status: Literal["READY", "NEEDS MAPPING", "INCOMPATIBLE"]
    reason: str
    mapping: dict[str, str] | None = Field(
        default=None, description="Recipe fragment `data.mapping`: role -> column, when the status is NEEDS MAPPING"
    )
    filter: dict[str, Wanted] | None = Field(
        default=None, description="Recipe fragment `data.filter`: column -> the value, or values, of rows to train on"
    )
    code: str | None = Field(
        default=None, description="Python that turns the file into a dataset of TRL's layout for this method, as it is"
    )


class Lengths(Part):
    """Distribution of lengths over rows, in tokens."""

    rows: int
    min: int
    mean: float
    median: int
    p90: int
    p95: int
    p99: int
    max: int
    total: int


class TokenLengths(Part):
    """Token lengths under the model's own template: of whole rows, and of prompt and completion where split."""

    total: Lengths
    prompt: Lengths | None = None
    completion: Lengths | None = None


class Span(Part):
    """A stretch of neighbouring tokens that are all trained, or all masked."""

    text: str
    tokens: int
    trained: bool


class PreviewRow(Part):
    """One row as the trainer sees it."""

    row: int | str = Field(description="Row number, counted from 1; with its file where there are several")
    spans: list[Span]
    why: str = Field(default="", description="Why this row is shown: the longest, cut, one side of a pair, ...")


class Cutting(Part):
    """What max_length takes away from the rows that are longer."""

    end: Literal["end", "beginning"] = Field(description="The part of a row that is cut off")
    tokens: int = Field(description="Tokens cut off, those of dropped rows among them")
    answer_tokens: int = Field(description="Those of them that would have been trained")
    answers_cut: int = Field(description="Rows that lose a part of their answer")
    answers_gone: int = Field(description="Rows that lose their whole answer (of a pair: one of the two)")
    stops_gone: int = Field(description="Rows that lose their stop token (of a pair: one of the two)")


class PairAudit(Part):
    """The two sides of preference pairs, as the trainer has them after cutting and dropping."""

    prompt_tokens: int = Field(description="Tokens of the prompts, once per pair; 0 where TRL joins them (reward)")
    chosen_tokens: int = Field(description="Tokens of the chosen sides, without the prompt where it is split off")
    rejected_tokens: int
    equal: int = Field(description="Pairs whose two sides are the same tokens")
    chosen_without_stop: int = Field(description="Pairs whose chosen side trains no stop token")
    rejected_without_stop: int


class LabelAudit(Part):
    """What is really trained on, after the trainer's own preparation of the rows."""

    prepared_by: str = Field(description="The library code that prepared the rows, with its version")
    method: str = "sft"
    layout: TrainedLayout
    loss_on: LossOn
    max_length: int | None
    rows: int = Field(description="Rows given to the trainer")
    rows_kept: int = Field(description="Rows the trainer kept")
    rows_untrained: int = Field(default=0, description="Kept rows in which no token is trained (packing keeps such)")
    tokens: int = Field(description="Tokens of all kept rows, of both sides of pairs, the prompt in each")
    trained_tokens: int
    trained_percent: float
    stop_tokens: list[str] = Field(description="Tokens that end a turn for this model")
    rows_without_stop: int = Field(
        description="Kept rows in which no stop token is trained (of a pair: in its chosen side; 0 for reward models)"
    )
    rows_stop_only: int = Field(
        default=0, description="Kept rows in which nothing but a stop token is trained (of a pair: in one of its sides)"
    )
    rows_cut: int = Field(description="Rows longer than max_length, cut by the trainer")
    cutting: Cutting | None = Field(default=None, description="What cutting loses; None where nothing is, or unknown")
    longest: int | None = Field(default=None, description="Tokens of the longest row before cutting")
    bos_per_row: dict[int, int] = Field(description="Number of BOS tokens at the start of a row -> rows")
    pairs: PairAudit | None = None
    preview: list[PreviewRow]


class SourceFile(Part):
    """One file that rows were read from."""

    name: str = Field(description="Path as given, or hf://datasets/ID@COMMIT/PATH")
    bytes: int
    sha256: str = Field(description="Fingerprint of the file's bytes")
    rows: int = Field(description="Rows in it, broken ones among them")


class LayoutShare(Part):
    """One of the layouts that rows of a file have."""

    layout: Layout
    rows: int
    share: float = Field(description="Of all rows, 0 to 1")
    columns: dict[str, str] = Field(description="Role -> column")
    examples: list[int | str] = Field(description="Places of some rows that have it, counted from 1")


class Histogram(Part):
    """Token lengths of rows, in bins of equal width on a log scale."""

    edges: list[int] = Field(description="Ascending; bin i holds lengths from edges[i] up to below edges[i + 1]")
    rows: list[int] = Field(description="Rows in each bin; one less than edges")


class Packing(Part):
    """What packing would bring."""

    max_length: int
    rows: int
    sequences: int = Field(description="Packed sequences, by best-fit decreasing as TRL packs")
    fill: float = Field(description="Share of the packed sequences that holds tokens, 0 to 1")
    gain: float = Field(description="Padded batches of 8 rows hold this many times the tokens, padding included")


class DataReport(Record):
    """What the data is and whether it can be trained on."""

    filename: ClassVar[str] = "data.json"

    source: str
    sha256: str = Field(description="Fingerprint of the file's bytes; of the files' fingerprints, if several")
    bytes: int
    files: list[SourceFile] = []
    method: str = Field(default="sft", description="Method that findings, lengths and label audit are for")
    rows: int = Field(description="Usable rows")
    examined: int | None = Field(
        default=None, description="Rows whose lengths, labels and quality were looked at, where they aren't all (D047)"
    )
    rows_invalid: int = Field(default=0, description="Rows with errors; dropped only when the recipe says so")
    duplicates: int = Field(default=0, description="Rows that repeat an earlier row exactly")
    columns: list[Column]
    layout: Layout = Field(description="The layout that most rows have")
    composition: list[LayoutShare] = Field(default=[], description="All layouts, the most frequent first")
    features: dict[str, int] = Field(
        default={}, description="Rows with system, tools, tool_calls, reasoning, images, history, several answers"
    )
    verdicts: list[Verdict]
    recommended: str | None = Field(default=None, description="The method that this data was made for")
    recommended_reason: str = ""
    model: str | None = None
    lengths: TokenLengths | None = None
    histogram: Histogram | None = None
    max_length: int | None = Field(default=None, description="The recommended max_length")
    max_length_reason: str = ""
    packing: Packing | None = None
    tokens_per_epoch: int | None = Field(
        default=None, description="Trained tokens of one epoch at the audit's max_length"
    )
    audit: LabelAudit | None = None
    quality: Quality | None = None
    findings: list[Finding] = []
