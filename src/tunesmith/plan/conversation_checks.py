"""Conversations of an evaluation, looked at before the run: who takes part, and how long they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..errors import TunesmithError
from ..models.endpoint import key_of_endpoint
from ..models.facts import model_facts
from ..models.source import locate
from ..recipe.evaluation import Conversations, Endpoint, Evaluation, Speaker
from ..recipe.personas import read_personas
from ..records import Finding, ModelFacts, Severity
from ..rules import finding

_WHERE: Final = "evaluation.conversations"
_PERSONAS_NEEDED: Final = 6
"""The exact sign-flip test gives p = 2 * 0.5**n at best, for n personas."""


def check_conversations(
    evaluation: Evaluation, method: str, model: ModelFacts, *, has_template: bool, here: bool = True
) -> Iterator[Finding]:
    """E060 for what can't be, E061 for too few personas, E062 for conversations that repeat each other.

    Args:
        evaluation: Which conversations, if any.
        method: The run's.
        model: The base.
        has_template: Whether the run's models have a chat template.
        here: Whether they will be evaluated on this machine.
    """
    talks = evaluation.conversations
    if talks is None:
        return
    if method == "reward":
        yield _cannot("A reward model gives scores and says nothing", "Leave `conversations` out")
    elif not (evaluation.endpoint and evaluation.base_endpoint):
        yield from _of_model(talks, model, has_template=has_template)
    yield from _of_personas(talks)
    if here:
        yield from _of_speaker("simulator", talks.simulator)
        yield from _of_speaker("judge", talks.judge)
    if talks.temperature == 0 and talks.per_persona > 1:
        yield finding("E062", f"{_WHERE}.temperature", count=talks.per_persona)


def _of_model(talks: Conversations, model: ModelFacts, *, has_template: bool) -> Iterator[Finding]:
    if not has_template:
        problem = f"{model.name} has no chat template, so nobody knows how its turns are marked"
        yield _cannot(problem, "Name one in the recipe (`chat_template:`), or leave `conversations` out")
    longest = 2 * talks.turns * talks.max_new_tokens
    if longest > model.context:
        problem = (
            f"{talks.turns} turns of up to {talks.max_new_tokens} tokens on each side may fill {longest:,} tokens, "
            f"more than the model's context of {model.context:,}"
        )
        yield _cannot(problem, "Lower `turns` or `max_new_tokens` of the conversations", "warning")


def _of_personas(talks: Conversations) -> Iterator[Finding]:
    try:
        count = talks.personas if isinstance(talks.personas, int) else len(read_personas(Path(talks.personas)))
    except TunesmithError as error:
        yield _told(error)
        return
    if count < _PERSONAS_NEEDED:
        yield finding("E061", f"{_WHERE}.personas", count=count)


def _of_speaker(name: str, speaker: Speaker) -> Iterator[Finding]:
    try:
        if isinstance(speaker, Endpoint):
            key_of_endpoint(speaker)
        elif not model_facts(locate(speaker, planning=True), planning=True).has_template:
            yield _cannot(f"{speaker} has no chat template, so it can't be the {name}", "Take a model that can chat")
    except TunesmithError as error:
        yield _told(error)


def _told(error: TunesmithError) -> Finding:
    return _cannot(f"{error.what} {error.why.rstrip('.')}", error.fix.rstrip("."))


def _cannot(problem: str, remedy: str, severity: Severity = "error") -> Finding:
    return finding("E060", _WHERE, severity=severity, problem=problem, remedy=remedy)
