"""A loaded model whose answers are kept, so that an evaluation that was cut off goes on where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...models.generate import stop_ids
from ...progress import Progress
from ..kept import Kept, key_of
from ..measure import Answer
from ..rows import Question, encode_question
from ..subject import Drawing, Local, Subject


@dataclass(frozen=True)
class Remembered:
    """A model that is asked only for what it hasn't answered yet; it is a `Subject`.

    Attributes:
        subject: The model.
        kept: Its answers so far, by all that they depend on: the weights, the tokens of the question, the drawing.
    """

    subject: Local
    kept: Kept

    @property
    def name(self) -> str:
        """The model's."""
        return self.subject.name

    def answers(self, questions: Sequence[Question], drawing: Drawing, progress: Progress) -> list[Answer]:
        """An answer to each question; those that are new are kept batch by batch."""
        keys = [self._key(question, drawing) for question in questions]
        asked = dict(zip(keys, questions, strict=True))
        new = [key for key in asked if self.kept.get(key) is None]
        for start in range(0, len(new), self.subject.batch_size):
            some = new[start : start + self.subject.batch_size]
            answers = self.subject.answers([asked[key] for key in some], drawing, progress)
            for key, answer in zip(some, answers, strict=True):
                self.kept.put(key, {"text": answer.text, "stopped": answer.stopped, "ids": answer.ids})
        return [Answer(**self.kept.get(key)) for key in keys]

    def _key(self, question: Question, drawing: Drawing) -> str:
        ids = encode_question(question, self.subject.tokenizer)
        seed = drawing.seed_of(question) if drawing.temperature else None
        return key_of(self.name, self._weights, self._stops, ids, drawing.max_new_tokens, drawing.temperature, seed)

    @cached_property
    def _stops(self) -> list[int]:
        return stop_ids(self.subject.model, self.subject.tokenizer)

    @cached_property
    def _weights(self) -> list[Any]:
        """The sum of each tensor of the model, and whether its adapter is off: other weights have other sums."""
        import torch

        model = self.subject.model
        off = any(getattr(module, "disable_adapters", False) is True for module in model.modules())
        sums = [float(torch.sum(tensor, dtype=torch.float64)) for tensor in model.state_dict().values()]
        return [str(model.dtype), off, *sums]


def remembered(subject: Subject, kept: Kept) -> Subject:
    """The subject with its answers kept; a server's keeps them itself, and anybody else is asked anew each time."""
    return Remembered(subject, kept) if isinstance(subject, Local) else subject
