"""Talking to the result of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .errors import UsageError
from .models.generate import greedy, pad_id, stop_ids
from .models.load import load_base, load_tokenizer, load_tuned
from .records import Plan

RESULT = "model"


class Chat:
    """A conversation with the tuned model of a run, or with its base."""

    def __init__(self, folder: Path, *, base: bool = False) -> None:
        """Load the model of a run folder.

        Raises:
            UsageError: it trained a reward model, it has no result, or its model no chat template.
        """
        plan = Plan.load(folder)
        if plan.head == "score":
            raise UsageError(
                f"{folder} trained a reward model.",
                why="It gives scores, not words: what would answer was never trained to write.",
                fix="Name the run among the `rewards:` of a grpo or rloo recipe; `tunesmith evaluate` has its scores.",
            )
        result = folder / RESULT
        if not result.exists():
            raise UsageError(
                f"{folder} has no trained model.",
                why="The run isn't done.",
                fix=f"Continue it with `tunesmith resume {folder}`.",
            )
        self._tokenizer = load_tokenizer(result)
        if self._tokenizer.chat_template is None:
            raise UsageError(
                f"{plan.model.name} has no chat template.",
                why="Nobody knows how its turns are marked.",
                fix="Name a template in the recipe (`chat_template:`) and train again.",
            )
        self._model = (
            load_base(plan.model, dtype="auto") if base else load_tuned(plan.model, result, dtype="auto")
        ).eval()
        self._turns: list[dict[str, str]] = []

    def forget(self) -> None:
        """Begin a new conversation."""
        self._turns = []

    def answer(self, text: str, *, max_new_tokens: int) -> str:
        """The greedy answer to `text` in the conversation so far."""
        self._turns.append({"role": "user", "content": text})
        inputs: Any = self._tokenizer.apply_chat_template(
            self._turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        stops = stop_ids(self._model, self._tokenizer)
        pad = pad_id(self._tokenizer, stops)
        ids = greedy(self._model, inputs, max_new_tokens=max_new_tokens, stops=stops, pad=pad)
        answer = str(self._tokenizer.decode(ids[0], skip_special_tokens=True))
        self._turns.append({"role": "assistant", "content": answer})
        return answer
