"""The method that data was made for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ...records import Verdict
from .sight import Sight

_MADE_FOR: Final = {
    "messages": ("sft", "Conversations with answers: sft learns to give these answers."),
    "sharegpt": ("sft", "Conversations with answers: sft learns to give these answers."),
    "alpaca": ("sft", "Instructions with their outputs: sft learns to give these outputs."),
    "prompt-completion": ("sft", "Prompts with completions: sft learns to give these completions."),
    "question-answer": ("sft", "Questions with answers: sft learns to give these answers."),
    "text": ("clm", "Running text without question and answer: clm, continued pretraining, learns all of it."),
    "preference": ("dpo", "A better and a worse answer to each prompt: dpo learns to prefer the better one."),
    "unpaired-preference": ("kto", "Answers marked good or bad, not in pairs: kto learns from such marks."),
    "prompt-only": ("grpo", "Prompts whose answers can be checked, or rewarded: grpo learns from the reward."),
}


def recommend(sight: Sight, verdicts: Sequence[Verdict]) -> tuple[str | None, str]:
    """The method that rows of this layout were made for, and why; None where it can't train on them."""
    method, reason = _MADE_FOR.get(sight.layout, (None, "No method trains on this layout."))
    verdict = next((verdict for verdict in verdicts if verdict.method == method), None)
    if verdict is not None and verdict.status == "INCOMPATIBLE":
        return None, verdict.reason
    if sight.layout == "prompt-only" and "reference" not in sight.columns:
        return method, "Prompts without answers: grpo learns from a reward function that you write."
    return method, reason
