"""What the model answers to a few held-out prompts, at each evaluation: numbers can look well where text doesn't."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ...data.quality.private import without_secrets
from ...data.rows import Row
from ...models.generate import greedy, pad_id
from ...track.events import EventLog

_SECONDS: Final = 10.0
"""Most time for the answers of one evaluation."""
_MOST_PROMPT: Final = 2_048
"""Tokens of a prompt above which its row isn't taken."""
_OPENING: Final = 16
"""Tokens of running text that a model is to go on from."""
_CHARACTERS: Final = 2_000


@dataclass(frozen=True)
class Prompt:
    """A prompt, the tokens that the model gets, and the answer that the row has (empty: none)."""

    text: str
    ids: list[int]
    expected: str


def prompts(rows: Sequence[Row], tokenizer: Any, count: int) -> list[Prompt]:
    """The first `count` of the rows whose prompts aren't long."""
    found: list[Prompt] = []
    for row in rows:
        if len(found) == count:
            break
        prompt = _prompt(row, tokenizer)
        if prompt and 0 < len(prompt.ids) <= _MOST_PROMPT:
            found.append(prompt)
    return found


class SampleCallback(TrainerCallback):
    """Lets the model answer at each evaluation, greedily, within a few seconds; a failure of it ends no run."""

    def __init__(
        self, log: EventLog, chosen: Sequence[Prompt], *, most: int, stops: Sequence[int], failed: Callable[[str], None]
    ) -> None:
        """`most` is the number of tokens of an answer, `stops` the ids that end one."""
        self._log = log
        self._prompts = list(chosen)
        self._most = most
        self._stops = list(stops)
        self._failed = failed

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        processing_class: Any = None,
        **kwargs: Any,
    ) -> None:
        """Answer the prompts and log it."""
        if not self._prompts or args.world_size > 1:
            return
        try:
            answers = self._answers(model, processing_class)
        except Exception as error:  # whatever a model's generation raises: a run is worth more than its samples
            self._prompts = []
            self._failed(f"{type(error).__name__}: {error}".splitlines()[0])
            return
        self._log.write(
            "sample",
            state.global_step,
            prompts=[_shown(prompt.text) for prompt in self._prompts],
            answers=[_shown(answer) for answer in answers],
            expected=[_shown(prompt.expected) for prompt in self._prompts],
        )

    def _answers(self, model: Any, processing_class: Any) -> list[str]:
        tokenizer = getattr(processing_class, "tokenizer", processing_class)
        padded = tokenizer.pad(
            {"input_ids": [prompt.ids for prompt in self._prompts]}, padding_side="left", return_tensors="pt"
        ).to(model.device)
        stops = self._stops or [tokenizer.eos_token_id]
        was_training = model.training
        model.eval()
        # Some of generate's ways draw random numbers; training must go on with those that it would have had.
        devices = [model.device] if model.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices=devices):
                output = greedy(
                    model,
                    padded,
                    max_new_tokens=self._most,
                    stops=stops,
                    pad=pad_id(tokenizer, stops),
                    max_time=_SECONDS,
                )
        finally:
            model.train(was_training)
        return list(tokenizer.batch_decode(output, skip_special_tokens=True))


def _prompt(row: Row, tokenizer: Any) -> Prompt | None:
    if row.get("image") or row.get("images"):
        return None  # its prompt means nothing without the picture
    if isinstance(text := row.get("text"), str):
        ids = list(tokenizer(text)["input_ids"])[:_OPENING]
        opening = tokenizer.decode(ids, skip_special_tokens=True)
        return Prompt(opening, ids, "")
    messages, expected = _asked(row)
    if isinstance(messages, str):
        return Prompt(messages, list(tokenizer(messages)["input_ids"]), expected)
    if not messages:
        return None
    encoded = tokenizer.apply_chat_template(
        messages, tools=row.get("tools") or None, add_generation_prompt=True, tokenize=True, return_dict=True
    )
    return Prompt(_said(messages), list(encoded["input_ids"]), expected)


def _asked(row: Row) -> tuple[Any, str]:
    """What is asked, as text or messages, and the answer: a chat is cut before its last assistant turn."""
    if messages := row.get("messages"):
        turns = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
        last = turns[-1] if turns else len(messages)
        return messages[:last], _said(messages[last : last + 1])
    answers = (row.get(name) for name in ("completion", "chosen", "reference"))
    return row.get("prompt"), _said(next((answer for answer in answers if answer), ""))


def _said(messages: Any) -> str:
    """The texts of messages, or a text as it is."""
    if isinstance(messages, str):
        return messages
    if not isinstance(messages, list):
        return str(messages)
    contents = (message.get("content") or "" if isinstance(message, dict) else message for message in messages)
    return "\n".join(content if isinstance(content, str) else str(content) for content in contents)


def _shown(text: str) -> str:
    safe = without_secrets(text)
    return safe if len(safe) <= _CHARACTERS else f"{safe[: _CHARACTERS - 1]}…"
