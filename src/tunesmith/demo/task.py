"""The demo's task: read a customer's message to a shop, write the support ticket as JSON.

    Hi, my name is Maria Lopez and I live in Lisbon. On 3 March I ordered two red lamps and ...
    -> {"customer": "Maria Lopez", "city": "Lisbon", "item": "red lamp", "quantity": 2, "date": "03-03"}

Every message is generated, so the right answer is known and no licence or privacy question arises. Which
split an order belongs to follows from the order itself, so no seed and no count can let a test order into
the training data.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal

Split = Literal["train", "validation", "test"]

SPLITS: Final[dict[Split, int]] = {"train": 1000, "validation": 100, "test": 200}
"""How many rows of each split `write` makes, and `rows` gives unless told otherwise."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_NAMES: Final = _words(
    "Maria John Aisha Chen Olga Pedro Fatima Liam Noah Emma Yuki Omar Priya Ivan Lucia Sven Hana Diego "
    "Amara Tom Nina Raj Elif Marta Felix Grace Hugo Ines Jonas Kira Leo Mila"
)
LAST_NAMES: Final = _words(
    "Lopez Smith Khan Wei Petrova Silva Haddad Murphy Jones Brown Sato Ali Patel Novak Rossi Larsen Kim "
    "Garcia Okafor Evans Weber Singh Demir Nowak Bauer Cole Martin Costa Berg Ilic Stone Popov"
)
CITIES: Final = _words(
    "Lisbon Oslo Madrid Paris Berlin Rome Vienna Prague Dublin Athens Warsaw Helsinki Zurich Lyon Porto "
    "Milan Geneva Tallinn Riga Ghent"
)
COLOURS: Final = _words("red blue green black white grey yellow brown")
ITEMS: Final = _words("lamp chair desk mirror kettle blanket clock basket bottle candle table carpet pillow vase stool")
MONTHS: Final = _words("January February March April May June July August September October November December")
NUMBERS: Final = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine"}

GREETINGS: Final = ("Hello,", "Hi,", "Hi there,", "Good morning,", "Dear team,")
TROUBLES: Final = (
    "arrived broken",
    "never arrived",
    "are badly scratched",
    "came in the wrong size",
    "were left in the rain",
    "came without the bill",
    "are not what your website shows",
)
WISHES: Final = (
    "Please send new ones.",
    "I would like my money back.",
    "Can I return them?",
    "What should I do now?",
    "When can I expect an answer?",
    "Please call me about this.",
)
MESSAGES: Final = (
    "{greeting} this is {name} from {city}. The {goods} I ordered on {date} {trouble}. {wish}",
    "{greeting} my name is {name} and I live in {city}. On {date} I ordered {goods} and they {trouble}. {wish}",
    "{greeting} on {date} I bought {goods} in your shop. They {trouble}. {wish}\n{name}, {city}",
    "{greeting} I am writing about my order of {date}. It was for {goods}. They {trouble}. {wish}"
    "\nRegards,\n{name}\n{city}",
    "{greeting} you sent {goods} to my home in {city} on {date}, but they {trouble}. {wish} Thank you, {name}",
    "{name} here, from {city}. My {goods} {trouble}. I paid for them on {date}. {wish}",
    "{wish} I ordered {goods} on {date} and they {trouble}. My name is {name} and the address is in {city}.",
    "Order of {date}, {goods}, for {name} in {city}. They {trouble}. {wish}",
)
"""How customers write: every field once. Greetings, troubles and wishes leave no trace in a ticket."""


@dataclass(frozen=True)
class Order:
    """What a ticket records. `date` is month and day, as in "03-28"; `item` is colour and thing, singular."""

    customer: str
    city: str
    item: str
    quantity: int
    date: str

    def ticket(self) -> str:
        """The right answer to any message about this order."""
        return json.dumps(asdict(self))

    def goods(self) -> str:
        """The item and quantity in words: "two red lamps"."""
        return f"{NUMBERS[self.quantity]} {self.item}s"

    def spoken_dates(self) -> tuple[str, str]:
        """The date as people write it: "28 March" and "March 28"."""
        month, day = (int(part) for part in self.date.split("-"))
        return f"{day} {MONTHS[month - 1]}", f"{MONTHS[month - 1]} {day}"


def random_order(random_: random.Random) -> Order:
    """One order out of billions."""
    return Order(
        customer=f"{random_.choice(FIRST_NAMES)} {random_.choice(LAST_NAMES)}",
        city=random_.choice(CITIES),
        item=f"{random_.choice(COLOURS)} {random_.choice(ITEMS)}",
        quantity=random_.choice(list(NUMBERS)),
        date=f"{random_.randint(1, 12):02d}-{random_.randint(1, 28):02d}",
    )


def split_of(order: Order) -> Split:
    """The split an order belongs to: one in ten is test, one in ten validation, the rest train."""
    bucket = zlib.crc32(order.ticket().encode()) % 10
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


def orders(split: Split, random_: random.Random) -> Iterator[Order]:
    """An endless stream of orders of that split, none twice."""
    seen: set[Order] = set()
    while True:
        order = random_order(random_)
        if order not in seen and split_of(order) == split:
            seen.add(order)
            yield order


def message(order: Order, random_: random.Random) -> str:
    """A customer's message about the order."""
    return random_.choice(MESSAGES).format(
        greeting=random_.choice(GREETINGS),
        name=order.customer,
        city=order.city,
        goods=order.goods(),
        date=random_.choice(order.spoken_dates()),
        trouble=random_.choice(TROUBLES),
        wish=random_.choice(WISHES),
    )


def rows(split: Split, count: int | None = None, seed: int = 0) -> list[dict[str, Any]]:
    """Conversational prompt-completion rows, as TRL reads them; equal arguments give equal rows anywhere."""
    random_ = random.Random(f"tunesmith demo {split} {seed}")
    wanted = SPLITS[split] if count is None else count
    return [_row(order, message(order, random_)) for order in islice(orders(split, random_), wanted)]


def _row(order: Order, text: str) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": text}],
        "completion": [{"role": "assistant", "content": order.ticket()}],
    }


def write(folder: Path) -> dict[str, Path]:
    """Write train.jsonl, validation.jsonl and test.jsonl into the folder; gives their paths by split."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: dict[str, Path] = {}
    for split in SPLITS:
        paths[split] = folder / f"{split}.jsonl"
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows(split))
        paths[split].write_text("".join(lines), encoding="utf-8")
    return paths
