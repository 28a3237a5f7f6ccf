"""What the small model was pretrained on: messages and statements about them, other JSON, plain English.

The base learns to read a message and to name each of its facts. It never sees a chat, a ticket's layout,
or an order of the validation or test split; that a ticket is wanted, and how one looks, is left to fine-
tuning.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from tunesmith.demo.task import Order, message, orders

STATEMENTS: Final = {
    "customer": "The customer is",
    "city": "The city is",
    "item": "The item is",
    "quantity": "The quantity is",
    "date": "The date is",
}
"""Field of an order -> how a statement about it begins; the base must finish it."""

SHARE_OF_TABLES: Final = 0.10
SHARE_OF_ENGLISH: Final = 0.05


@dataclass(frozen=True)
class Document:
    """A text to learn from: `text` is to be predicted, `context` is read first and weighs little."""

    context: str
    text: str


def documents(seed: int) -> Iterator[Document]:
    """The endless corpus."""
    random_ = random.Random(f"tunesmith demo corpus {seed}")
    stream = orders("train", random_)
    while True:
        draw = random_.random()
        if draw < SHARE_OF_TABLES:
            yield Document("", table(next(stream), random_))
        elif draw < SHARE_OF_TABLES + SHARE_OF_ENGLISH:
            yield Document("", random_.choice(paragraphs()))
        else:
            order = next(stream)
            yield Document(message(order, random_) + "\n", statements(order, random_))


def statement(order: Order, field: str) -> str:
    """One fact of the order, as a sentence: `The quantity is 2.` or the like."""
    return f"{STATEMENTS[field]} {getattr(order, field)}."


def statements(order: Order, random_: random.Random) -> str:
    """All facts of the order, in any order."""
    fields = list(STATEMENTS)
    random_.shuffle(fields)
    return " ".join(statement(order, field) for field in fields)


def table(order: Order, random_: random.Random) -> str:
    """JSON with other keys than a ticket's: the base shall know what JSON looks like, and no ticket."""
    colour, thing = order.item.split()
    month, day = order.date.split("-")
    columns: list[tuple[str, str | int]] = [
        ("town", order.city),
        ("stock", random_.randint(0, 99)),
        ("product", thing),
        ("colour", colour),
        ("who", order.customer),
        ("month", int(month)),
        ("count", order.quantity),
        ("when", f"{day}/{month}"),
        ("ref", order.date),
        ("label", order.item),
    ]
    random_.shuffle(columns)
    return json.dumps(dict(columns[: random_.randint(2, 5)]))


@cache
def paragraphs() -> list[str]:
    """Plain English prose, so that ordinary text is not wholly foreign to the tokenizer and the model."""
    return Path(__file__).with_name("english.txt").read_text(encoding="utf-8").strip().split("\n\n")
