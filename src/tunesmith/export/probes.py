"""What models and files are compared on: held-out rows of the run, and texts made to upset tokenizers."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from ..records import Plan

ROWS: Final = 8
"""Held-out rows on which distributions and stopping are compared."""
POSITIONS: Final = 128
"""Positions over all rows at which next-token distributions are compared."""
LONGEST: Final = 256
"""Tokens of a row that are looked at, at most."""
STRINGS: Final = 500
"""Texts whose token ids are compared."""

NASTY: Final[tuple[str, ...]] = tuple(
    json.loads(Path(__file__).with_name("nasty_texts.json").read_text(encoding="utf-8"))
)
"""Texts that upset tokenizers: scripts, emoji, code, digits, spaces; tokenized by themselves and mixed."""

CHATS: Final[dict[str, list[dict[str, Any]]]] = {
    "user": [{"role": "user", "content": "Hello, how are you?"}],
    "spaces and line breaks": [{"role": "user", "content": "  2+2? \n"}],
    "system": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Größe 日本 🚀"},
    ],
    "two turns": [
        {"role": "user", "content": "What is 2+2?"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "And 3+3?"},
    ],
    "system and three turns": [
        {"role": "system", "content": "Answer in JSON."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "{\"n\": 1}"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "{\"n\": 2}"},
        {"role": "user", "content": "three\n\n"},
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A held-out row as token ids.

    Attributes:
        whole: The row as it is trained on, from its beginning, at most LONGEST tokens.
        prompt: What the model is given to answer.
        answer_tokens: Length of the expected answer.
        ends: Numbers of leading tokens of `whole` after which the next token's distribution is compared.
    """

    whole: list[int]
    prompt: list[int]
    answer_tokens: int
    ends: list[int]


def held_out(folder: Path, plan: Plan, count: int = STRINGS) -> list[dict[str, Any]]:
    """The first `count` rows of the run's test rows; of its eval or training rows where it has none."""
    split = plan.test or plan.eval or plan.train
    with (folder / split.path).open(encoding="utf-8") as file:
        return [json.loads(line) for line in islice(file, count)]


def encode(rows: Iterable[dict[str, Any]], tokenizer: Any) -> list[Row]:
    """The first ROWS rows that aren't empty, with POSITIONS comparisons spread evenly over them."""
    pairs = islice(((whole, prompt) for whole, prompt in _pairs(rows, tokenizer) if whole and prompt), ROWS)
    found = list(pairs)
    encoded = []
    for whole, prompt in found:
        seen = whole[:LONGEST]
        ends = _spread(len(seen), POSITIONS // len(found))
        encoded.append(Row(seen, prompt, len(whole) - len(prompt), ends))
    return encoded


def _spread(length: int, count: int) -> list[int]:
    """`count` numbers from 1 to `length`, evenly apart; the last is `length`."""
    return sorted({max(1, round(length * (place + 1) / count)) for place in range(count)})


def _pairs(rows: Iterable[dict[str, Any]], tokenizer: Any) -> Iterator[tuple[list[int], list[int]]]:
    """Token ids of each whole row and of its prompt."""
    for row in rows:
        prompt, completion = _parts(row)
        if isinstance(prompt, str):
            whole = tokenizer(prompt + completion)["input_ids"]
            # Continued text has no prompt: its last quarter takes the answer's part.
            yield whole, tokenizer(prompt)["input_ids"] if completion else whole[: len(whole) * 3 // 4]
        elif prompt:
            rendered = tokenizer.apply_chat_template(prompt + completion, tokenize=False)
            asked = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
            yield _ids(rendered, tokenizer), _ids(asked, tokenizer)


def _ids(text: str, tokenizer: Any) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _parts(row: dict[str, Any]) -> tuple[Any, Any]:
    """Prompt and completion of a prepared row: two lists of messages, or two texts. Of a pair it is the chosen one."""
    if "messages" in row:
        return row["messages"][:-1], row["messages"][-1:]
    if "text" in row:
        return row["text"], ""
    answer = row.get("completion", row.get("chosen", row.get("reference") or ""))
    if "prompt" not in row:
        return answer[:-1], answer[-1:]
    single = isinstance(answer, str) and not isinstance(row["prompt"], str)
    return row["prompt"], [{"role": "assistant", "content": answer}] if single else answer


def strings(rows: Iterable[dict[str, Any]], tokenizer: Any) -> list[str]:
    """About STRINGS different texts: from the rows, the nasty ones, mixtures, and special tokens written as text."""
    random_ = random.Random("tunesmith token probes")
    added = [token.content for token in tokenizer.added_tokens_decoder.values()][:10]
    special = [form.format(token) for token in added for form in ("{}", "a {} b", "x{0}{0}y", "\n{}\n")]
    texts = dict.fromkeys([*NASTY, *special])
    for text in islice(_texts(rows), STRINGS // 2):
        texts[text[:1000]] = None
    while len(texts) < STRINGS:
        pieces = random_.sample(NASTY, random_.randint(2, 4))
        texts[random_.choice(("", " ", "\n")).join(pieces)] = None
    return list(texts)


def _texts(value: Any) -> Iterator[str]:
    """Every text in a nest of lists and dicts."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
