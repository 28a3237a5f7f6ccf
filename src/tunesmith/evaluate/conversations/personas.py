"""The personas of an evaluation: those of a file, or made up by the simulator; held against the rows trained on."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ...data.quality.duplicates import alike
from ...data.quality.private import hidden
from ...data.quality.shingles import shingle
from ...errors import UsageError
from ...files import write_atomic
from ...progress import Progress
from ...recipe.evaluation import Conversations
from ...recipe.personas import Persona, read_personas
from ...records import Finding
from ...rewards.answer import Answer as Reasoned
from ...rules import finding
from ..rows import Question
from ..subject import Drawing, Subject
from .transcripts import FOLDER, WHERE

LIKE: Final = 0.5
"""Share of three-word shingles in common (Jaccard) from which on two texts count as alike. Near duplicates among rows
begin at 0.8; somebody who is to be new must be further away."""
_LEAST: Final = 3
"""Shingles of a text that says something of its own; a greeting has fewer."""
_ROUNDS: Final = 4
_SHOWN: Final = 3
_SHOWN_CHARACTERS: Final = 300
_TOKENS: Final = 1024
"""Tokens of a persona, at most; reasoning counts."""
_NAMED: Final = 3


def find_personas(
    settings: Conversations, simulator: Subject, folder: Path, train: Path, *, seed: int, progress: Progress
) -> tuple[list[Persona], list[Finding]]:
    """The personas that the settings ask for, and what is wrong with them: E063 or E064.

    Personas that are made up are unlike the training rows and each other, and are written as personas.jsonl into the
    folder of the run's conversations, so that they can be given by name the next time.

    Args:
        settings: The file of personas, or how many.
        simulator: Who makes them up.
        folder: The run's.
        train: The rows trained on, as they were prepared.
        seed: What is drawn is drawn from it.
        progress: Told of the simulator's answers.

    Raises:
        UsageError: the file can't be read, or nothing of what the simulator says is a persona.
    """
    known = _spoken_in(train)
    if isinstance(settings.personas, str):
        given = read_personas(Path(settings.personas))
        return given, _on_known(given, known)
    made, refused = _made_up(settings.personas, simulator, known, seed, progress)
    if not made:
        raise UsageError(
            f"The simulator made up no persona in {refused.total()} tries.",
            why=f"{_in_words(refused)}.",
            fix="Ask a more capable simulator, or write the personas yourself: a file of JSON Lines.",
        )
    write_atomic(folder / FOLDER / "personas.jsonl", "".join(f"{one.model_dump_json()}\n" for one in made))
    if len(made) == settings.personas:
        return made, []
    tries, reasons = len(made) + refused.total(), _in_words(refused)
    return made, [finding("E064", WHERE, made=len(made), wanted=settings.personas, tries=tries, reasons=reasons)]


def _on_known(personas: Sequence[Persona], known: Sequence[str]) -> list[Finding]:
    """E063 for personas that say, or want, what training rows say."""
    found = [one.name for one, like in zip(personas, _like(personas, known), strict=True) if like]
    if not found:
        return []
    names = ", ".join(found[:_NAMED]) + (", ..." if len(found) > _NAMED else "")
    return [finding("E063", WHERE, count=len(found), total=len(personas), names=names)]


def _made_up(
    wanted: int, simulator: Subject, known: Sequence[str], seed: int, progress: Progress
) -> tuple[list[Persona], Counter[str]]:
    """Personas, at most as many as wanted, and why others weren't taken; what is refused is asked for again."""
    made: list[Persona] = []
    refused: Counter[str] = Counter()
    tries = 0
    for _ in range(_ROUNDS):
        missing = wanted - len(made)
        if not missing:
            break
        questions = [_question(number, known, made, seed) for number in range(tries + 1, tries + missing + 1)]
        tries += missing
        answers = simulator.answers(questions, Drawing(_TOKENS, temperature=1.0, seed=seed), progress)
        read = [persona_in(answer.text) for answer in answers]
        personas = [persona for persona in read if persona]
        refused["unreadable"] += missing - len(personas)
        new = [one for one, like in zip(personas, _like(personas, known), strict=True) if not like]
        refused["like training rows"] += len(personas) - len(new)
        unlike = _unlike_each_other([*made, *new])
        refused["like each other"] += len(made) + len(new) - len(unlike)
        made = unlike
    return made, refused


def _question(number: int, known: Sequence[str], made: Sequence[Persona], seed: int) -> Question:
    text = invitation(_examples(known, random.Random(f"{seed}/{number}")), [one.name for one in made])
    return Question(number, text, None, [{"role": "user", "content": text}])


def _examples(known: Sequence[str], chance: random.Random) -> list[str]:
    """A few of the training rows' prompts, without personal data: they may go to a server."""
    drawn = chance.sample(known, min(_SHOWN, len(known)))
    return [hidden(" ".join(text.split()))[:_SHOWN_CHARACTERS] for text in drawn]


def invitation(examples: Sequence[str], names: Sequence[str]) -> str:
    """What the simulator is asked for a persona."""
    shown = "".join(f"\n- {text}" for text in examples)
    kind = f" Others have said to it, for example:\n{shown}\n\n" if shown else " "
    taken = f" These names are taken: {', '.join(names)}." if names else ""
    return (
        f"An AI assistant is going to be tried out by different people.{kind}Make up one new person who talks with it, "
        f"and who wants something of it that isn't said above.{taken}\n\n"
        "Answer with one JSON object and nothing else. Its keys, all of them texts:\n"
        '"name": a first name and a surname;\n'
        '"description": who the person is, what it knows, its mood and its way of writing, in two or three sentences;\n'
        '"goal": what the person wants to have reached when the conversation is over, in one sentence;\n'
        '"opening": the first message that this person writes to the assistant, in its own words.'
    )


def persona_in(text: str) -> Persona | None:
    """The persona in an answer of the simulator, as a JSON object with whatever words around it; None without one."""
    said = Reasoned(text, (), {}).final
    start, end = said.find("{"), said.rfind("}")
    try:
        value: Any = json.loads(said[start : end + 1]) if 0 <= start < end else None
        return Persona(**{name: hidden(value[name]).strip() for name in Persona.model_fields})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


@dataclass(frozen=True)
class _Text:
    """What a persona says or wants."""

    of: int
    text: str


def _like(personas: Sequence[Persona], known: Sequence[str]) -> list[bool]:
    """Of each persona, whether it says, wants or is what `known` has nearly word for word."""
    texts = [
        _Text(place, text)
        for place, one in enumerate(personas)
        for text in (one.opening, one.goal, one.description)
        if text and shingle([text]).counts[0] >= _LEAST
    ]
    first = alike([*known, *(one.text for one in texts)], threshold=LIKE)[len(known) :]
    found = {one.of for one, cluster in zip(texts, first, strict=True) if cluster < len(known)}
    return [place in found for place in range(len(personas))]


def _unlike_each_other(personas: Sequence[Persona]) -> list[Persona]:
    """Those that have no earlier one of the same name, or that says nearly the same."""
    whole = [f"{one.description}\n{one.goal}\n{one.opening}" for one in personas]
    clusters = alike(whole, threshold=LIKE)
    names = [one.name.casefold() for one in personas]
    return [one for place, one in enumerate(personas) if clusters[place] == place and names[place] not in names[:place]]


def _spoken_in(train: Path) -> list[str]:
    """What users say in the rows, and what systems tell: personas, say; of plain text, nothing."""
    with train.open(encoding="utf-8") as file:
        return list(dict.fromkeys(text for line in file for text in _spoken(json.loads(line))))


def _spoken(row: dict[str, Any]) -> list[str]:
    turns = row.get("messages") or row.get("prompt") or []
    if isinstance(turns, str):
        return [turns]
    contents = [turn.get("content") for turn in turns if turn["role"] in ("system", "user")]
    return [content for content in contents if isinstance(content, str) and content.strip()]


def _in_words(refused: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in refused.items() if count)
