"""Conversations of a model with simulated users: all of them take their next turn at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Final

from ...data.quality.private import without_secrets
from ...files import write_atomic
from ...progress import Progress
from ...recipe.evaluation import Conversations
from ...recipe.personas import Persona
from ...records import Finding
from ...rewards.answer import Answer as Reasoned
from ...rules import finding
from ..kept import Kept
from ..outcome import Arm, Outcome
from ..rows import Question
from ..subject import Drawing, Subject
from .remembered import remembered
from .simulator import Turn, users_say
from .transcripts import FOLDER, WHERE, Ended, Message, Transcript

_MANY: Final = 0.1
"""Share of conversations or turns from which on it is worth a warning that nothing was said."""
_CUT: Final = 0.05
"""Share of a model's turns above which it is worth a warning that they were cut off."""
_MOST_TURNS: Final = 100
"""More than a conversation can have: each turn of each run's seed gets a seed of its own."""

Judge = Callable[[Sequence[Transcript], Sequence[Transcript]], Outcome]
"""Grades the transcripts of base and tuned; those of one place are a pair."""


@dataclass
class _Talk:
    """A conversation, which goes on until `ended` says why it doesn't; `number` is its own, from 1, in both arms."""

    number: int
    persona: Persona
    of_persona: int
    messages: list[Message] = field(default_factory=list)
    ended: Ended | None = None
    cut: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Dialogues:
    """A measure: conversations of each model with the same simulated users, graded in pairs.

    Attributes:
        personas: Whom the simulator plays.
        simulator: Who plays them, with either model.
        settings: How many conversations, how long.
        judge: Grades them.
        folder: The run's, for transcripts.
        seed: What the users' and both models' turns are drawn from.
        template: What the models' chat template is told besides.
    """

    personas: Sequence[Persona]
    simulator: Subject
    settings: Conversations
    judge: Judge
    folder: Path
    seed: int = 0
    template: Mapping[str, Any] = field(default_factory=dict)
    needs_model: ClassVar[bool] = False
    any_tokenizer: ClassVar[bool] = True

    def take(self, subject: Subject, progress: Progress) -> list[Transcript]:
        """Talk with one model; the transcripts, in the order of personas and numbers, stand in the folder afterwards.

        Every answer is kept as it comes and none is asked for again, so that what was cut off goes on.
        """
        arm: Arm = "base" if subject.name == "base" else "tuned"
        model = remembered(subject, Kept(self.folder / FOLDER / f"{arm}-answers.jsonl"))
        numbered = [
            (persona, number) for persona in self.personas for number in range(1, self.settings.per_persona + 1)
        ]
        talks = [_Talk(number, *one) for number, one in enumerate(numbered, start=1)]
        for turn in range(self.settings.turns):
            if going := _going(talks):
                self._users_speak(going, turn, progress)
            if going := _going(talks):
                self._model_speaks(going, turn, model, progress)
            progress(f"{arm}: turns of conversations", turn + 1, self.settings.turns)
        taken = [
            Transcript(one.persona, one.of_persona, arm, one.messages, one.ended or "turns", one.cut) for one in talks
        ]
        write_atomic(self.folder / FOLDER / f"{arm}.jsonl", "".join(one.as_json() for one in taken))
        return taken

    def compare(self, base: Sequence[Transcript], tuned: Sequence[Transcript]) -> Outcome:
        """What the judge says of the pairs in which something was said."""
        pairs = [pair for pair in zip(base, tuned, strict=True) if all(one.messages for one in pair)]
        turns = _Turns.of(base), _Turns.of(tuned)
        found = [
            *_on_silence(base, tuned),
            *_on_empty("base", base),
            *_on_empty("tuned", tuned),
            *_on_cut(*turns, self.settings.max_new_tokens),
        ]
        if not pairs:
            return Outcome(findings=found)
        outcome = self.judge([one for one, _ in pairs], [other for _, other in pairs])
        judging = outcome.judging and outcome.judging.model_copy(
            update={
                "dropped": len(base) - len(pairs),
                "turns": tuple(one.total for one in turns),
                "cut": tuple(one.cut for one in turns),
                "refused": tuple(one.refused for one in turns),
            }
        )
        return replace(outcome, findings=[*found, *outcome.findings], judging=judging)

    def _users_speak(self, talks: Sequence[_Talk], turn: int, progress: Progress) -> None:
        opened = [talk for talk in talks if turn == 0 and talk.persona.opening]
        for talk in opened:
            talk.messages.append({"role": "user", "content": without_secrets(str(talk.persona.opening))})
        waiting = [talk for talk in talks if talk not in opened]
        turns = [Turn(talk.number, talk.persona, talk.messages) for talk in waiting]
        for talk, said in zip(waiting, users_say(self.simulator, turns, self._drawing(turn), progress), strict=True):
            if said.text:
                talk.messages.append({"role": "user", "content": said.text})
            else:
                talk.ended = "done" if said.ends else "silent"

    def _model_speaks(self, talks: Sequence[_Talk], turn: int, model: Subject, progress: Progress) -> None:
        questions = [
            Question(talk.number, talk.messages[-1]["content"], None, list(talk.messages), None, dict(self.template))
            for talk in talks
        ]
        answers = model.answers(questions, self._drawing(turn), progress)
        for talk, answer in zip(talks, answers, strict=True):
            said = without_secrets(Reasoned(answer.text, (), {}).final)
            talk.messages.append({"role": "assistant", "content": said})
            if answer.refused:
                talk.ended = "refused"
            elif not answer.stopped:
                talk.cut.append(turn + 1)

    def _drawing(self, turn: int) -> Drawing:
        seed = self.seed * _MOST_TURNS + turn
        return Drawing(self.settings.max_new_tokens, self.settings.temperature, seed)


@dataclass(frozen=True)
class _Turns:
    """How many turns a model had, and how many of them were cut off or refused."""

    total: int
    cut: int
    refused: int

    @classmethod
    def of(cls, transcripts: Sequence[Transcript]) -> _Turns:
        """Those of one model's conversations."""
        return cls(
            sum(len(one.answers) for one in transcripts),
            sum(len(one.cut) for one in transcripts),
            sum(one.ended == "refused" for one in transcripts),
        )


def _going(talks: Sequence[_Talk]) -> list[_Talk]:
    return [talk for talk in talks if talk.ended is None]


def _on_silence(base: Sequence[Transcript], tuned: Sequence[Transcript]) -> list[Finding]:
    """E065 where conversations didn't come about, with either model."""
    pairs = list(zip(base, tuned, strict=True))
    silent = sum(any(one.ended == "silent" and not one.messages for one in pair) for pair in pairs)
    if silent == 0 or silent < _MANY * len(pairs):
        return []
    return [finding("E065", WHERE, count=silent, total=len(pairs))]


def _on_empty(arm: Arm, transcripts: Sequence[Transcript]) -> list[Finding]:
    """E066 where a model often says nothing when it is its turn."""
    turns = [said for transcript in transcripts for said in transcript.answers]
    empty = turns.count("")
    if empty == 0 or empty < _MANY * len(turns):
        return []
    return [finding("E066", WHERE, arm=arm, count=empty, total=len(turns))]


def _on_cut(base: _Turns, tuned: _Turns, limit: int) -> list[Finding]:
    """E075 where either model's turns are often cut off."""
    if all(one.cut <= _CUT * one.total for one in (base, tuned)):
        return []
    found = finding(
        "E075", WHERE, limit=limit, base=base.cut, base_total=base.total, tuned=tuned.cut, tuned_total=tuned.total
    )
    return [found]
