"""A model that is asked: one that is loaded here, or one behind a server. Also who plays the user, and who judges."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import EnvironmentLacksError, UsageError
from ..models.endpoint import Client, RefusedError, request_body
from ..models.facts import model_facts
from ..models.load import load_base, load_planned_tokenizer
from ..models.source import locate
from ..progress import Progress
from ..recipe.evaluation import Endpoint, Speaker
from ..records import Finding
from ..rules import finding
from .kept import Kept, key_of
from .measure import Answer, answers_of
from .outcome import Arm
from .rows import Question

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Drawing:
    """How answers are drawn: the likeliest token each time at temperature 0, else at random from the seed.

    Attributes:
        max_new_tokens: Tokens after which an answer is cut.
        temperature: What logits are divided by before tokens are drawn.
        seed: The same seed, question (its number included) and model give the same answer here, whatever is asked
            beside it; a server is told a seed, too, and may or may not heed it.
    """

    max_new_tokens: int
    temperature: float = 0.0
    seed: int = 0

    def seed_of(self, question: Question) -> int:
        """The question's own seed: 31 bits, so that every server takes it."""
        digest = hashlib.sha256(f"{self.seed}/{question.row}".encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1


class Subject(Protocol):
    """A model that answers questions."""

    @property
    def name(self) -> str:
        """What progress calls it: base, tuned, simulator or judge."""

    def answers(self, questions: Sequence[Question], drawing: Drawing, progress: Progress) -> list[Answer]:
        """An answer to each question, in their order.

        Raises:
            TunesmithError: a server can't be reached, or doesn't answer as the protocol says.
        """


@dataclass(frozen=True)
class Local:
    """A model that is loaded: it has likelihoods, too."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    batch_size: int

    def answers(self, questions: Sequence[Question], drawing: Drawing, progress: Progress) -> list[Answer]:
        """Answers in batches of questions of like length."""
        return answers_of(
            self.model,
            self.tokenizer,
            questions,
            max_new_tokens=drawing.max_new_tokens,
            batch_size=self.batch_size,
            label=f"{self.name}: answers",
            progress=progress,
            temperature=drawing.temperature,
            seeds=[drawing.seed_of(question) for question in questions],
        )


@dataclass
class Resumed:
    """What became of a server's answers of an evaluation that was cut off.

    Attributes:
        used: Keys of those that count now.
        dropped: How many of them don't, since the server answers otherwise by now.
    """

    used: set[str] = field(default_factory=set)
    dropped: int = 0


@dataclass(frozen=True)
class Remote:
    """A model behind a server: it answers, and gives no likelihoods.

    What it decodes by beyond the request is the server's: start vLLM with `--generation-config vllm`, or a repetition
    penalty of the model's own applies there.

    Attributes:
        name: As of every subject.
        client: Asks the server.
        kept: Answers so far: none of them is asked for again but one, to see that the same model is there. They are
            kept as they came, since they are what is scored; the server's key never is among them.
        tokenizer: Counts the tokens of answers; without one, answers have no ids.
        resumed: What became of answers of an earlier start.
        has_answered: Set once the server has answered anything; from then on, what it refuses are single questions.
    """

    name: str
    client: Client
    kept: Kept | None = None
    tokenizer: PreTrainedTokenizerBase | None = None
    resumed: Resumed = field(default_factory=Resumed)
    has_answered: Event = field(default_factory=Event, compare=False)

    def answers(self, questions: Sequence[Question], drawing: Drawing, progress: Progress) -> list[Answer]:
        """Answers to all questions, several at once; equal requests are made once.

        Raises:
            UsageError: the server refuses the key, the model or every question, having answered none before.
            EnvironmentLacksError: it can't be reached, doesn't answer as the protocol says, or answers otherwise than
                in an earlier start, some of whose answers count already.
        """
        bodies = [self._body(question, drawing) for question in questions]
        identity = self.client.identity if self.kept else {}
        keys = [key_of(self.client.endpoint.url, identity, body) for body in bodies]
        asked = dict(zip(keys, bodies, strict=True))
        if drawing.temperature == 0:
            self._see_that_it_is_the_same(asked)
        found = self._asked(asked, progress)
        if any("refused" not in one for one in found.values()):
            self.has_answered.set()
        elif found and not self.has_answered.is_set():
            raise UsageError(
                f"{self.client.endpoint.url} refuses every question.",
                why=next(iter(found.values()))["refused"],
                fix="See that the model there has a chat template, and a context that is long enough.",
            )
        return [self._answer(found[key]) for key in keys]

    def _body(self, question: Question, drawing: Drawing) -> dict[str, Any]:
        return request_body(
            self.client.endpoint.model,
            question.turns,
            max_new_tokens=drawing.max_new_tokens,
            temperature=drawing.temperature,
            seed=drawing.seed_of(question),
            tools=question.tools,
            template=question.template,
        )

    def _see_that_it_is_the_same(self, bodies: dict[str, dict[str, Any]]) -> None:
        """Ask one question of an earlier start again, and forget all its answers where this one isn't the same.

        It is the one with the longest answer, which two models share least. Each measure's questions are looked at when
        they are asked, so that answers of an earlier measure may count already: then nothing can be mended here.
        """
        if not self.kept or not (earlier := bodies.keys() & self.kept.earlier):
            return
        said = {key: self.kept.get(key)["text"] for key in earlier}
        key = max(sorted(said), key=lambda one: len(said[one]))
        try:
            same = self.client.ask(bodies[key]).text == said[key]
        except RefusedError:
            same = False
        if same:
            return
        self.resumed.dropped += len(self.kept.earlier)
        self.kept.forget()
        if self.resumed.used:
            raise EnvironmentLacksError(
                f"{self.client.endpoint.shown} answers otherwise than before.",
                why="Answers of an earlier start, which count already, are of another model or not decoded greedily.",
                fix="They are dropped; just run it again.",
            )

    def _asked(self, bodies: dict[str, dict[str, Any]], progress: Progress) -> dict[str, dict[str, Any]]:
        """What the server says to each request, by key: {text, stopped} or {refused}."""
        label = f"{self.name}: answers"
        found = {key: kept for key in bodies if self.kept and (kept := self.kept.get(key)) is not None}
        self.resumed.used.update(found.keys() & self.kept.earlier if self.kept else ())
        with ThreadPoolExecutor(self.client.endpoint.concurrency) as pool:
            waiting = {pool.submit(self._ask, key, bodies[key]): key for key in bodies if key not in found}
            try:
                for done in as_completed(waiting):
                    found[waiting[done]] = done.result()
                    progress(label, len(found), len(bodies))
            except BaseException:  # Ctrl-C too: what hasn't begun is not asked any more
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return found

    def _ask(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask, and keep the answer; a refusal is not kept, since another setting of the server may lift it."""
        try:
            reply = self.client.ask(body)
        except RefusedError as error:
            return {"refused": error.why}
        said = {"text": reply.text, "stopped": reply.stopped}
        if self.kept:
            self.kept.put(key, said)
        return said

    def _answer(self, said: dict[str, Any]) -> Answer:
        if "refused" in said:
            return Answer("", False, [], said["refused"])
        ids: list[int] = []
        if self.tokenizer is not None:
            ids = list(self.tokenizer(said["text"], add_special_tokens=False)["input_ids"])
            ids += [self.tokenizer.eos_token_id] if said["stopped"] and self.tokenizer.eos_token_id is not None else []
        return Answer(said["text"], said["stopped"], ids)


def unanswered(arm: Arm, answers: Sequence[Answer], where: str) -> list[Finding]:
    """E015 where questions got no answer, with the most frequent reason."""
    reasons = Counter(answer.refused for answer in answers if answer.refused)
    if not reasons:
        return []
    why = reasons.most_common(1)[0][0]
    return [finding("E015", where, count=reasons.total(), total=len(answers), arm=arm, why=why)]


def on_resumed(asked: Remote, where: str) -> list[Finding]:
    """E016 and E017: how many answers are of an earlier start, and how many of them were dropped."""
    server, resumed = asked.client.endpoint.shown, asked.resumed
    found = []
    if resumed.used:
        found.append(finding("E016", where, count=len(resumed.used), server=server))
    if resumed.dropped:
        found.append(finding("E017", where, count=resumed.dropped, server=server))
    return found


def open_subject(
    speaker: Speaker, name: str, *, device: str, batch_size: int = 32, kept: Kept | None = None
) -> Subject:
    """Who plays the user or the judge: an endpoint, or a model that is loaded here.

    Args:
        speaker: The endpoint; or a folder, Hub id, run folder or builtin:small.
        name: What progress calls it.
        device: Where a local model is loaded.
        batch_size: Questions that a local model answers at once.
        kept: Answers of the endpoint so far.

    Raises:
        UsageError: there is no such model, or it has no chat template.
        EnvironmentLacksError: the Hub can't be reached, or the variable with the endpoint's key isn't set.
    """
    if isinstance(speaker, Endpoint):
        return Remote(name, Client(speaker), kept)
    facts = model_facts(locate(speaker))
    tokenizer = load_planned_tokenizer(facts)
    if tokenizer.chat_template is None:
        raise UsageError(
            f"{speaker} can't be the {name}.",
            why="It has no chat template, so nobody knows how its turns are marked.",
            fix="Take a model that was trained to chat.",
        )
    return Local(name, load_base(facts, dtype="auto").to(device).eval(), tokenizer, batch_size)
