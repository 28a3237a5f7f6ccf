"""What the rows are like, beyond their structure."""

from __future__ import annotations

from pydantic import Field

from .base import Part


class Quality(Part):
    """Figures on the rows' content; what is wrong stands in the findings. None: doesn't apply to these rows."""

    rows: int = Field(description="Rows looked at; fewer where `sampled` says so")
    duplicates: int = Field(description="Rows that repeat an earlier row exactly")
    near_duplicates: int = Field(description="Rows that repeat an earlier row nearly, but not exactly")
    near_duplicate_threshold: float = Field(
        description="Share of three-word sequences that two rows have in common, of all in either (Jaccard similarity)"
    )
    held_out_near_training: int | None = Field(
        default=None, description="Rows held out whose prompt nearly repeats a training row's, but doesn't equal it"
    )
    prompts_with_several_answers: int = Field(description="Prompts that have different answers in different rows")
    median_answer_characters: int | None = None
    very_short_answers: int = 0
    very_long_rows: int = 0
    repetitive_answers: int = 0
    refusals: int = 0
    mojibake: int = 0
    placeholders: int = 0
    template_markup: int = Field(default=0, description="Rows with what a chat template writes around turns")
    languages: dict[str, int] = Field(default={}, description="Language (ISO 639-1) -> rows, of a sample that tells it")
    most_common_answer_share: float | None = Field(
        default=None, description="Of all answers, the share that the most frequent one has, 0 to 1"
    )
    answers_equal_to_prompt: int = 0
    chosen_longer_share: float | None = Field(
        default=None, description="Of the pairs of different lengths, those whose chosen answer is longer, 0 to 1"
    )
    chosen_to_rejected_length: float | None = Field(default=None, description="Median ratio of lengths in characters")
    contradictions: int | None = Field(
        default=None, description="Rows that prefer what an earlier row with the same prompt rejects"
    )
    desirable_share: float | None = Field(default=None, description="Of marked answers, those marked as good, 0 to 1")
    personal_data: dict[str, int] = Field(default={}, description="Kind -> rows that hold it")
    secrets: dict[str, int] = Field(default={}, description="Kind -> rows that hold it")
    contaminated: dict[str, int] = Field(
        default={}, description="Evaluation task -> rows that share 13 words in a row with one of its questions"
    )
    contamination_checked: str = Field(
        description="The evaluation tasks that rows were compared with, or why with none"
    )
    sampled: dict[str, int] = Field(default={}, description="Check -> rows it looked at, where these aren't all")
