"""Planted faults of quality, one for each rule from D025 on, each with its clean twin."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa

from tests.support.planted import Case
from tunesmith.data.quality import examine
from tunesmith.records import Finding

Row = dict[str, Any]

_SUBJECTS = ["farmer", "teacher", "doctor", "pilot", "baker", "sailor", "painter", "gardener", "lawyer", "singer"]
_VERBS = ["sells", "draws", "repairs", "collects", "studies", "paints", "measures", "borrows", "carries", "describes"]
_THINGS = ["old maps of the coast", "wooden boats", "small clocks", "rare plants", "letters from home", "new bridges"]
_PLACES = ["in the morning", "behind the station", "every Sunday", "near the harbour", "for her brother", "quietly"]


def sentence(number: int) -> str:
    """A sentence of its own for each number."""
    drawn = random.Random(number)
    words = [drawn.choice(some) for some in (_SUBJECTS, _VERBS, _THINGS, _PLACES)]
    return f"The {words[0]} {words[1]} {words[2]} {words[3]}"


def answer(number: int) -> str:
    """An answer of three sentences, unlike any other's."""
    return ". ".join(sentence(1_000 * number + part) for part in range(3)) + f". That makes {number * 7919}."


def asked(count: int = 40) -> list[Row]:
    """Clean questions with answers."""
    return [{"prompt": f"{sentence(number)}: why, and how?", "completion": answer(number)} for number in range(count)]


def preferred(count: int = 40) -> list[Row]:
    """Clean preferences."""
    rows = asked(count)
    return [
        {"prompt": row["prompt"], "chosen": row["completion"], "rejected": answer(500 + n)}
        for n, row in enumerate(rows)
    ]


def marked(count: int = 40) -> list[Row]:
    """Clean answers, every other one marked as good."""
    return [row | {"label": number % 2 == 0} for number, row in enumerate(asked(count))]


def quality_of(rows: Sequence[Row], held_out: Sequence[Row] = ()) -> list[Finding]:
    """The findings on rows numbered from 1."""
    return examine(rows, range(1, len(rows) + 1), "rows.jsonl", held_out=held_out)[1]


def case(code: str, fault: str, faulty: Sequence[Row], clean: Sequence[Row]) -> Case:
    """A case on rows alone."""
    return Case(code, fault, lambda _: quality_of(faulty), lambda _: quality_of(clean))


def answering(text: str | Callable[[str], str], rows: Sequence[Row] | None = None) -> list[Row]:
    """Clean rows of which the fourth has another answer."""
    changed = [dict(row) for row in rows or asked()]
    changed[3]["completion"] = text(changed[3]["completion"]) if callable(text) else text
    return changed


def _near(row: Row) -> Row:
    return {"prompt": row["prompt"], "completion": row["completion"].replace("That makes", "This makes")}


def _leak(folder: Path) -> list[Finding]:
    rows = [{"prompt": f"{answer(number)} Why?", "completion": answer(900 + number)} for number in range(40)]
    return quality_of(rows[:30], [*rows[30:], {**rows[4], "prompt": rows[4]["prompt"] + " Tell me"}])


def _no_leak(folder: Path) -> list[Finding]:
    rows = [{"prompt": f"{answer(number)} Why?", "completion": answer(900 + number)} for number in range(40)]
    return quality_of(rows[:30], rows[30:])


_MOJIBAKE = "Das ist eine schöne Straße in Köln.".encode().decode("latin-1")
_GERMAN = "Der alte Bäcker verkauft am Morgen frisches Brot und erzählt den Kindern eine lange Geschichte vom Meer. "
_CONSTANT = [row | {"completion": "positive"} for row in asked()]
_SWAPPED = {
    "prompt": preferred()[2]["prompt"],
    "chosen": preferred()[2]["rejected"],
    "rejected": preferred()[2]["chosen"],
}
_LONGER = [row | {"chosen": row["chosen"] + " " + answer(700 + n)} for n, row in enumerate(preferred())]


def with_task(folder: Path, question: str, rows: Sequence[Row]) -> list[Finding]:
    """The findings where gsm8k, with one question, stands in the caches."""
    cache_gsm8k(folder, [question])
    unset = {"HF_DATASETS_CACHE": str(folder / "datasets"), "HF_HUB_CACHE": str(folder / "hub")}
    with mock.patch.dict(os.environ, unset):
        return quality_of(rows)


def cache_gsm8k(folder: Path, questions: Sequence[str]) -> None:
    """Write the test split of gsm8k as `datasets` keeps it."""
    path = folder / "datasets" / "openai___gsm8k" / "main" / "0.0.0" / "abc" / "gsm8k-test.arrow"
    path.parent.mkdir(parents=True)
    table = pa.table({"question": questions, "answer": ["#### 1"] * len(questions)})
    with pa.ipc.new_stream(path, table.schema) as stream:
        stream.write_table(table)


QUALITY_CASES = [
    case("D025", "a row with one word changed", [*asked(), _near(asked()[2])], asked()),
    Case("D026", "a held-out prompt with two words more", _leak, _no_leak),
    case("D027", "an answer of two letters", answering("no"), asked()),
    case("D028", "an answer of 390 sentences", answering(" ".join(map(answer, range(2_000, 2_130)))), asked()),
    case("D029", "an answer stuck in a loop", answering(lambda text: text + " I know it." * 60), asked()),
    case("D030", "a refusal in English", answering("I'm sorry, but as an AI language model I can't do that."), asked()),
    case(
        "D030", "a refusal in German", answering("Es tut mir leid, aber als KI habe ich keine Meinung dazu."), asked()
    ),
    case("D030", "a refusal in Chinese", answering("很抱歉, 作为一个人工智能, 我不能回答这个问题。"), asked()),
    case("D031", "UTF-8 read as Latin-1", answering(_MOJIBAKE), answering("Das ist eine schöne Straße in Köln.")),
    case("D031", "lost characters", answering("The cafe\ufffds door is open."), answering("The café's door is open.")),
    case(
        "D032",
        "an unfilled template",
        answering("Dear {{ customer name }}, hello."),
        answering("Dear Ms Roe, hello and welcome to you."),
    ),
    case(
        "D032", "lorem ipsum", answering("Lorem ipsum dolor sit amet."), answering("Some words in Latin follow here.")
    ),
    case("D032", "a letter's blank", answering("Sincerely, [Your Name]"), answering("Sincerely, Ada [sic], the smith")),
    case(
        "D033",
        "a fifth in German",
        [row | {"completion": _GERMAN + str(n)} for n, row in enumerate(asked(8))] + asked()[8:],
        asked(),
    ),
    case("D035", "chosen answers twice as long", _LONGER, preferred()),
    case(
        "D036", "nine of ten marked as good", [row | {"label": n % 10 > 0} for n, row in enumerate(asked())], marked()
    ),
    case("D037", "always the same answer", _CONSTANT, asked()),
    case("D038", "an answer that repeats the question", answering(asked()[3]["prompt"]), asked()),
    case(
        "D039",
        "an e-mail address",
        answering("Write to jane.roe@corp-mail.org for more."),
        answering("Write to jane@example.com for more."),
    ),
    case(
        "D039",
        "a card number",
        answering("My card: 4539 1488 0343 6467, thanks."),
        answering("My card: 4539 1488 0343 6468, thanks."),
    ),
    case(
        "D039",
        "an IBAN",
        answering("Pay to DE89 3704 0044 0532 0130 00 by May."),
        answering("Pay to DE89 3704 0044 0532 0130 01 by May."),
    ),
    case(
        "D040",
        "an AWS key",
        answering("The key is AKIAQYLPMN5HFIQR7XYA, keep it."),
        answering("The key is AKIA plus 16 letters, keep it."),
    ),
    Case(
        "D041",
        "a question of gsm8k",
        lambda folder: with_task(folder, answer(3), asked()),
        lambda folder: with_task(folder, answer(999), asked()),
    ),
    case("D042", "a pair both ways", [*preferred(), _SWAPPED], preferred()),
    case(
        "D049",
        "a prompt rendered by Alpaca's template",
        answering("### Instruction:\nAdd 1 and 2.\n\n### Response:\n3"),
        answering("# Instruction\nAdd 1 and 2, then write a response."),
    ),
    case(
        "D049",
        "a conversation rendered in ChatML",
        answering("Yes.<|im_end|>\n<|im_start|>user\nWhy?"),
        answering("Qwen's models begin a turn with <|im_start|>, and end it with <|im_end|> as others do."),
    ),
    case(
        "D049",
        "a turn in Llama 2's marks",
        answering("[INST] Why? [/INST] Rain."),
        answering("The question stands after an [INST] mark."),
    ),
    case("D049", "a stop token behind the answer", answering("Rain.<end_of_turn>"), answering("It is <end_of_turn>?")),
    case("D042", "an answer marked both ways", [*marked(), {**marked()[2], "label": False}], marked()),
]
