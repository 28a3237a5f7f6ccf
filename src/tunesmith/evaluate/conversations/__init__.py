"""Full conversations of both models with simulated users, graded blind by a judge."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ...models.endpoint import Client, RefusedError, request_body
from ...plan.conversation_checks import check_conversations
from ...progress import Progress, silent
from ...recipe.evaluation import Endpoint, Speaker
from ...rules import refuse_errors
from ..kept import Kept
from ..measures import Given
from ..outcome import Suite
from ..subject import open_subject
from .dialogue import Dialogues
from .grading import grading
from .personas import find_personas
from .remembered import remembered
from .transcripts import FOLDER

__all__ = ["conversations", "forget_answers"]

_FEW: Final = 16


def conversations(given: Given, progress: Progress = silent) -> list[Suite]:
    """The conversations that the recipe asks for, if any; the simulator makes up the personas now if it is to.

    Raises:
        FindingsError: they can't be held as asked (E060).
        UsageError, EnvironmentLacksError: simulator or judge don't answer, or there is nobody whom to play.
    """
    settings, plan = given.settings.conversations, given.plan
    if settings is None:
        return []
    has_template = given.tokenizer.chat_template is not None
    found = list(check_conversations(given.settings, plan.method, plan.model, has_template=has_template))
    refuse_errors(found)
    _see_that_they_answer([settings.simulator, settings.judge])
    kept = Kept(given.folder / FOLDER / "simulator-answers.jsonl")
    batch = given.settings.batch_size
    speaker = open_subject(settings.simulator, "simulator", device=given.device, batch_size=batch, kept=kept)
    simulator, seed = remembered(speaker, kept), plan.training.get("seed", 0)
    train = given.folder / plan.train.path
    personas, of_personas = find_personas(settings, simulator, given.folder, train, seed=seed, progress=progress)
    talks = Dialogues(
        personas,
        simulator,
        settings,
        grading(given, settings, progress),
        given.folder,
        seed,
        plan.training.get("chat_template_kwargs") or {},
    )
    return [Suite("conversations", [talks], [*found, *of_personas])]


def forget_answers(folder: Path) -> None:
    """Drop the answers that were kept for the case that the evaluation of a run is cut off.

    Another simulator or judge may answer the next time, under the same name. Transcripts and grades stay.
    """
    for kept in (folder / FOLDER).glob("*-answers.jsonl"):
        kept.unlink()


def _see_that_they_answer(speakers: Sequence[Speaker]) -> None:
    """Ask each server among them once, so that one that is down shows before models are loaded and measured."""
    for endpoint in dict.fromkeys(one for one in speakers if isinstance(one, Endpoint)):
        hello = request_body(endpoint.model, [{"role": "user", "content": "Hello"}], max_new_tokens=_FEW)
        with contextlib.closing(Client(endpoint)) as client, contextlib.suppress(RefusedError):  # it is there, at least
            client.ask(hello)
